/* tiny: the program around the library. Its command line is in bnc_main.c. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* madvise */
#define _GNU_SOURCE     /* mremap */
#define _FILE_OFFSET_BITS 64
#define _DARWIN_C_SOURCE /* macOS counts its cores under this name only */

#include "tiny.h"

#define BNC_MODEL_NAME          "tiny"
#define BNC_MODEL_TITLE         "tiny"
#define BNC_MODEL_TARGET        "x86_64-avx2"
#define BNC_MODEL_KERNELS       "avx2:i2_m32k64"
#define BNC_MODEL_VERSION       "0.1.0"
#define BNC_MODEL_VOCAB         TINY_VOCAB
#define BNC_MODEL_CONTEXT       TINY_CONTEXT
#define BNC_MODEL_BATCH         TINY_BATCH
#define BNC_MODEL_MAX_THREADS   (BNC_THREADS ? TINY_MAX_THREADS : 1)
#define BNC_MODEL_ARENA_ALIGN   TINY_ARENA_ALIGN
#define BNC_MODEL_WEIGHTS_BYTES TINY_WEIGHTS_BYTES
#define BNC_MODEL_TABLES_BYTES  TINY_TOKENIZER_BYTES
#define BNC_MODEL_STACK_BYTES   TINY_STACK_BYTES
#define BNC_MODEL_PROGRAM_BYTES ((size_t)425984) /* code, C library, stacks: about */

/* Bytes that one decoded token reads: packed ternary matrices, and the head. */
#define BNC_MODEL_TERNARY_BYTES 16384.0
#define BNC_MODEL_HEAD_BYTES    40960.0
#define BNC_MODEL_CACHE         "f16"
#define BNC_MODEL_CACHE_BYTES   128 /* a position */

/* What the checkpoint's generation_config asks for. */
#define BNC_MODEL_TEMPERATURE 0.0f
#define BNC_MODEL_TOP_K       0
#define BNC_MODEL_TOP_P       1.0f

/* Instruction sets that the library was compiled for and that a CPU may lack. */
#define BNC_MODEL_NEEDS "avx2", "f16c", "fma", 0


#define bnc_model               tiny
#define bnc_model_arena_bytes tiny_arena_bytes
#define bnc_model_init tiny_init
#define bnc_model_close tiny_close
#define bnc_model_reset tiny_reset
#define bnc_model_rewind tiny_rewind
#define bnc_model_eval tiny_eval
#define bnc_model_eval_all tiny_eval_all
#define bnc_model_logits tiny_logits
#define bnc_model_sample tiny_sample
#define bnc_model_generate tiny_generate
#define bnc_model_options tiny_options
#define bnc_model_check tiny_check
#define bnc_model_error tiny_error
#define bnc_model_is_eos tiny_is_eos
#define bnc_model_scratch_bytes tiny_scratch_bytes
#define bnc_model_tokenize tiny_tokenize
#define bnc_model_piece tiny_piece

#include "bnc_main.c"
