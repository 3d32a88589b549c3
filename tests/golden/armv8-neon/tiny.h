/* tiny, compiled by bitnetc 0.1.0 for armv8-neon.
 *
 * A model is one object in memory that the caller provides: no heap, no globals that change, no
 * input or output. Several sessions may run at once, each in its own arena; one session is used
 * by one thread at a time. The logits are the same bits on every target and for any number of
 * threads.
 *
 *     static _Alignas(TINY_ARENA_ALIGN) uint8_t arena[TINY_ARENA_BYTES(512, 1)];
 *     struct tiny *m = tiny_init(arena, sizeof arena, 512, 1);
 *     ptrdiff_t n = tiny_tokenize(m, text, strlen(text), 1, ids, 512, scratch, sizeof scratch);
 *     const float *logits = tiny_eval(m, ids, (int)n);
 *     int next = tiny_sample(m, 0.0f, 0, 1.0f, &seed);
 */
#ifndef TINY_H
#define TINY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a shared library shows; all else in it is hidden. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

enum {
    TINY_VOCAB = 320,     /* logits per token */
    TINY_CONTEXT = 128,   /* the most positions a session can hold */
    TINY_BATCH = 64,       /* tokens computed together; any number can be asked for */
    TINY_MAX_THREADS = 64,
    TINY_ARENA_ALIGN = 64
};

/* Bytes of read-only data: packed weights and tokenizer tables. */
#define TINY_WEIGHTS_BYTES ((size_t)67968)
#define TINY_TOKENIZER_BYTES ((size_t)9024)

/* Memory for one session: state and buffers, scratch of each thread, and the cache. */
#define TINY_THREAD_BYTES(context) \
    (((size_t)2432 + (size_t)16 * (size_t)(context) + 63) / 64 * 64)
#define TINY_ARENA_BYTES(context, threads) \
    ((size_t)65792 + (size_t)(threads) * TINY_THREAD_BYTES(context) + \
     (size_t)128 * (size_t)(context))

struct tiny;

size_t tiny_arena_bytes(int context, int threads);

/* Starts a session in the arena, which must be aligned to TINY_ARENA_ALIGN.
 * context: positions to make room for, 1 .. TINY_CONTEXT
 * threads: workers, the caller included; with 1 no thread is started
 * Returns null when the arena is too small or misaligned, an argument is out of range, or a
 * thread could not be started. */
struct tiny *tiny_init(void *arena, size_t arena_bytes, int context, int threads);

/* Ends the session's threads. The arena may then be reused. */
void tiny_close(struct tiny *m);

/* Forgets all tokens. */
void tiny_reset(struct tiny *m);

/* Keeps the first `length` tokens and forgets the rest; length is at most tiny_length(). */
void tiny_rewind(struct tiny *m, int length);

/* Tokens fed so far, and how many the session can hold. */
int tiny_length(const struct tiny *m);
int tiny_context(const struct tiny *m);

/* Feeds n >= 1 tokens. Returns the logits of the last one, [TINY_VOCAB], valid until the
 * next call; null, with nothing changed, when a token is out of range or the context is full. */
const float *tiny_eval(struct tiny *m, const int32_t *tokens, int n);

/* The same, and writes the logits of every token: [n][TINY_VOCAB]. Returns 0 or -1. */
int tiny_eval_all(struct tiny *m, const int32_t *tokens, int n, float *logits);

/* Chooses a token from the last logits: greedy when temperature is 0, else from the top_k most
 * likely (0: all) within probability top_p (1: all). Equal seeds give equal text. */
int tiny_sample(struct tiny *m, float temperature, int top_k, float top_p, uint64_t *seed);

/* Whether generation ends with this token. */
int tiny_is_eos(int32_t token);

/* Text to ids. add_special: with the ids the tokenizer puts around a text, such as the
 * begin-of-text token. Returns how many, or a negative number: -1 no room in ids, -2 too little
 * scratch, -3 the text is too long. tiny_scratch_bytes() scratch is always enough. */
size_t tiny_scratch_bytes(size_t text_bytes);
ptrdiff_t tiny_tokenize(const struct tiny *m, const char *text, size_t bytes, int add_special,
                 int32_t *ids, size_t capacity, void *scratch, size_t scratch_bytes);

/* The bytes a token stands for, not terminated; UTF-8 may be split between tokens. A control
 * token has none. */
const uint8_t *tiny_piece(const struct tiny *m, int32_t token, size_t *bytes);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
