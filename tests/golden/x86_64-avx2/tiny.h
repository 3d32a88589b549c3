/* tiny as a library, compiled by bitnetc 0.1.0 for x86_64-avx2.
 *
 * WHAT IT IS
 *     A language model as constant data and the functions that run it. One session is one object
 *     in memory that the caller provides: no heap, no globals that change, no input or output.
 *     Its logits are the same bits on every target, for any number of threads and any split of
 *     the tokens into calls.
 *
 * EXAMPLE
 *     static _Alignas(TINY_ARENA_ALIGN) uint8_t arena[TINY_ARENA_BYTES(512, 1)];
 *     static uint8_t scratch[16384];
 *
 *     static int show(void *user, const char *text, size_t bytes, int32_t token)
 *     {
 *         fwrite(text, 1, bytes, stdout);
 *         return 0;
 *     }
 *
 *     struct tiny *m = tiny_init(arena, sizeof arena, 512, 1);
 *     ptrdiff_t n = tiny_tokenize(m, prompt, strlen(prompt), 1, ids, 512, scratch, sizeof scratch);
 *     int made = tiny_generate(m, ids, (int)n, 0, show, 0);
 *     tiny_close(m);
 *
 * LIFETIME
 *     A session lives in its arena from tiny_init() to tiny_close() and must not be moved. What
 *     functions return pointers to is the session's, or the model's own constant data.
 *
 * THREADS
 *     Any number of sessions may run at once without a lock: they share constant data only. One
 *     session is used by one thread at a time. A session may start helpers, which run only
 *     inside its calls. Each thread needs TINY_STACK_BYTES of stack below the caller's frame.
 *
 * ERRORS
 *     A function that fails changes nothing and returns null or a negative TINY_E... code, which
 *     tiny_error() puts into words. Pointers to what must be there are not checked for null.
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
    TINY_WIDTH = 64,     /* floats of an embedding */
    TINY_CONTEXT = 128,   /* the most positions a session can hold */
    TINY_BATCH = 64,       /* tokens computed together; any number can be asked for */
    TINY_MAX_THREADS = 64,
    TINY_ARENA_ALIGN = 64
};

/* What a function that fails returns. */
enum {
    TINY_OK = 0,
    TINY_EROOM = -1,      /* the text has more ids than there is room for */
    TINY_ESCRATCH = -2,   /* too little scratch */
    TINY_ETEXT = -3,      /* the text is too long */
    TINY_ETOKEN = -4,     /* a token is outside the vocabulary */
    TINY_EFULL = -5,      /* more tokens than the session has room for */
    TINY_EEMPTY = -6,     /* no token was fed since the start, a reset or a rewind */
    TINY_EARGUMENT = -7,  /* a number of tokens or an option is out of range */
    TINY_ECONTEXT = -8,   /* context is outside 1 .. TINY_CONTEXT */
    TINY_ETHREADS = -9,   /* threads is outside 1 .. TINY_MAX_THREADS, or 1 in a build without */
    TINY_EALIGN = -10,    /* the arena is not aligned to TINY_ARENA_ALIGN, or weights to 64 */
    TINY_EARENA = -11,    /* the arena is too small */
    TINY_ESTART = -12,    /* a thread could not be started */
    TINY_EDATA = -13,     /* weights or tables are damaged, or another model's */
    TINY_EABI = -14,      /* this header and the library are of different builds */
    TINY_EFORMAT = -15,   /* no weights, or of a version that this library does not know */
    TINY_EOTHER = -16,    /* weights of another model, target or context */
    TINY_ESHORT = -17,    /* weights that end too early */
    TINY_ECPU = -18       /* this CPU lacks instructions that are needed */
};

/* MEMORY, known before the program runs: each size is a constant here and a function below. */

/* Read-only data: packed weights, and tokenizer tables. */
#define TINY_WEIGHTS_BYTES ((size_t)68992)
#define TINY_TOKENIZER_BYTES ((size_t)9064)

/* Keys and values of a session, float16; they are part of the arena. */
#define TINY_CACHE_BYTES(context) ((size_t)128 * (size_t)(context))

/* Scratch of one thread; part of the arena, too. */
#define TINY_THREAD_BYTES(context) \
    (((size_t)18688 + (size_t)128 * (size_t)(context) + 63) / 64 * 64)

/* What more than one thread shares: attention of a token, 256 positions at a time. */
#define TINY_SHARED_BYTES(context) \
    (((size_t)16 * (size_t)(context) + \
      (size_t)288 * (((size_t)(context) + 255) / 256) + 63) / 64 * 64)

/* One session: state and buffers, scratch of each thread, what they share, and the cache. */
#define TINY_ARENA_BYTES(context, threads) \
    ((size_t)67328 + (size_t)(threads) * TINY_THREAD_BYTES(context) + \
     ((threads) > 1 ? TINY_SHARED_BYTES(context) : 0) + TINY_CACHE_BYTES(context))

/* Stack that a call takes at most, on each thread; measured, with a margin. It holds for builds that
 * optimise, -Og and -Os included; at -O0 a call takes up to three times as much. */
#define TINY_STACK_BYTES ((size_t)33536)

size_t tiny_weights_bytes(void);
size_t tiny_tokenizer_bytes(void);
size_t tiny_cache_bytes(int context);
size_t tiny_arena_bytes(int context, int threads);
size_t tiny_arena_align(void);
size_t tiny_stack_bytes(void);
int tiny_vocab(void);
int tiny_width(void);
int tiny_max_context(void);

/* VERSION. All constants of this header as one number: a program that was compiled with the header
 * of another build than the library it finds is refused by tiny_init(). */
#define TINY_ABI 0x7154BEE9
int tiny_abi(void);

/* What an error code means, in a few words; for a code of no error "no error". */
const char *tiny_error(int code);

/* SESSIONS */

struct tiny;

/* Starts a session in the arena, which must be aligned to TINY_ARENA_ALIGN.
 * context: positions to make room for, 1 .. TINY_CONTEXT
 * threads: workers, the caller included; with 1 no thread is started
 * Returns null when tiny_check() finds a mistake, or a thread could not be started. */
struct tiny *tiny_init(void *arena, size_t arena_bytes, int context, int threads);

/* What tiny_init() would find wrong with these: 0, or the code of the first mistake. */
int tiny_check(const void *arena, size_t arena_bytes, int context, int threads);

#define tiny_init(arena, arena_bytes, context, threads) \
    (tiny_abi() == TINY_ABI ? (tiny_init)(arena, arena_bytes, context, threads) : 0)
#define tiny_check(arena, arena_bytes, context, threads) \
    (tiny_abi() == TINY_ABI ? (tiny_check)(arena, arena_bytes, context, threads) : TINY_EABI)

/* Ends the session's threads. The arena may then be reused. */
void tiny_close(struct tiny *m);

/* Forgets all tokens. */
void tiny_reset(struct tiny *m);

/* Keeps the first `length` tokens and forgets the rest; more than there are forgets none. */
void tiny_rewind(struct tiny *m, int length);

/* Tokens the session holds, and how many it can hold. */
int tiny_length(const struct tiny *m);
int tiny_context(const struct tiny *m);

/* TEXT AND TOKENS */

/* Text to ids. add_special: 1: with the ids the tokenizer puts around a text, such as the
 * begin-of-text token; 2 more: control tokens that the text spells are text. Returns how many, or
 * TINY_EROOM, _ESCRATCH or _ETEXT.
 * tiny_scratch_bytes() of scratch is always enough; it need not be aligned or kept. */
size_t tiny_scratch_bytes(size_t text_bytes);
ptrdiff_t tiny_tokenize(const struct tiny *m, const char *text, size_t bytes, int add_special,
                 int32_t *ids, size_t capacity, void *scratch, size_t scratch_bytes);

/* The bytes a token stands for, not terminated; a token may end inside a UTF-8 character. A
 * control token has none, and neither has an id outside the vocabulary. */
const uint8_t *tiny_piece(const struct tiny *m, int32_t token, size_t *bytes);

/* Whether generation ends with this token. */
int tiny_is_eos(int32_t token);

/* GENERATION */

/* How tokens are chosen, and how many. */
struct tiny_options {
    int max_tokens;    /* at most; below 0: until the context is full */
    float temperature; /* 0: always the most likely token */
    int top_k;         /* among the k most likely; 0: among all */
    float top_p;       /* among the most likely that reach this probability; 1: among all */
    uint64_t seed;     /* equal seeds give equal text; each choice changes it, as a generator's state */
    int split;         /* 0: whole characters; 1: the bytes of each token, even within a character */
};

/* What the checkpoint's generation_config asks for:  struct tiny_options o = TINY_OPTIONS; */
#define TINY_OPTIONS { 128, 0.0f, 0, 1.0f, 0, 0 }
struct tiny_options tiny_default_options(void);

/* Takes each token as it is chosen, and its text: `bytes` bytes and a NUL behind them, valid until
 * it returns. It must not use the session, but tiny_length() and tiny_piece(). Anything but 0 ends
 * the generation after this token.
 *
 * Text comes in whole UTF-8 characters: the last bytes of a token that begin a character wait for
 * the token that ends it, so `bytes` may be 0. What is not UTF-8 is passed on as it is. What still
 * waits at the end comes with the next call if that goes on with the text, else never. */
typedef int tiny_callback(void *user, const char *text, size_t bytes, int32_t token);

/* Feeds n tokens and writes on from there, until a token says the text has ended (it is not
 * delivered), max_tokens were delivered, the callback asks to end, or the context is full.
 * tokens:   with n = 0 the session goes on with what it holds, also after a former call
 * options:  null for TINY_OPTIONS; its seed changes
 * callback: may be null
 * Returns how many tokens were delivered, or a code. The session then holds them all, but for the
 * last when the context is full. */
int tiny_generate(struct tiny *m, const int32_t *tokens, int n, struct tiny_options *options,
                 tiny_callback *callback, void *user);

/* STEP BY STEP */

/* Feeds n >= 1 tokens. Returns the logits of the last one, [TINY_VOCAB], valid until the
 * session's next call; null where tiny_eval_all() returns a code. */
const float *tiny_eval(struct tiny *m, const int32_t *tokens, int n);

/* The same, and writes the logits of every token, [n][TINY_VOCAB], when `logits` is not null.
 * When it is, no logits are computed before tiny_logits() or tiny_sample() asks for them,
 * which spares the head to all pieces of a prompt but the last.
 * Returns 0, or TINY_EARGUMENT, _ETOKEN or _EFULL. */
int tiny_eval_all(struct tiny *m, const int32_t *tokens, int n, float *logits);

/* The last token's logits once more, or null where there is none (TINY_EEMPTY). */
const float *tiny_logits(struct tiny *m);

/* Chooses the next token by the last logits; arguments as in struct tiny_options. Returns the
 * token, TINY_EEMPTY or TINY_EARGUMENT. The session does not hold it until it is fed. */
int tiny_sample(struct tiny *m, float temperature, int top_k, float top_p, uint64_t *seed);

/* Feeds n >= 1 tokens and writes the last one's hidden state after the final norm, the head's
 * input: [TINY_WIDTH]. Returns as tiny_eval_all(). */
int tiny_embed(struct tiny *m, const int32_t *tokens, int n, float *embedding);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
