/* The functions of a model called "first", each line a fact that test_api.py expects.
 *
 *     check_api PROMPT           what functions return
 *     check_api PROMPT stack     how much stack they take
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "first.h"

enum { CONTEXT = FIRST_CONTEXT < 300 ? FIRST_CONTEXT : 300 };
enum { STACK = 1 << 20, PAINT = 0x5a, TEXT = 1 << 16 };

static _Alignas(65536) unsigned char stack[STACK];
static _Alignas(FIRST_ARENA_ALIGN) uint8_t arena[FIRST_ARENA_BYTES(CONTEXT, 2)];
static float all_logits[CONTEXT][FIRST_VOCAB];
static uint8_t scratch[1 << 20];
static int32_t ids[CONTEXT];
static const char *prompt;
static struct first *m;
static int n, chunks;
static char text[TEXT];
static int stop_after;

static void fact(const char *what, long long value)
{
    printf("%s %lld\n", what, value);
}

static int add(void *user, const char *piece, size_t bytes, int32_t token)
{
    if (piece[bytes] != 0 || token < 0 || strlen(text) + bytes >= TEXT)
        exit(1);
    strncat(text, piece, bytes);
    if (user)
        *(int *)user += 1;
    return ++chunks == stop_after;
}

static void show(const char *what)
{
    printf("%s ", what);
    for (const char *c = text; *c; c++)
        printf("%02x", (unsigned char)*c);
    printf("\n");
    text[0] = 0;
    chunks = 0;
}

static struct first_options options(int max_tokens)
{
    struct first_options o = { max_tokens, 0.9f, 50, 0.95f, 11, 0 };
    return o;
}

static void sizes(void)
{
    fact("weights", first_weights_bytes() == FIRST_WEIGHTS_BYTES);
    fact("tokenizer", first_tokenizer_bytes() == FIRST_TOKENIZER_BYTES);
    fact("cache", first_cache_bytes(77) == FIRST_CACHE_BYTES(77));
    fact("arena", first_arena_bytes(77, 3) == FIRST_ARENA_BYTES(77, 3));
    fact("align", first_arena_align() == FIRST_ARENA_ALIGN);
    fact("stack", first_stack_bytes() == FIRST_STACK_BYTES);
    fact("vocab", first_vocab() == FIRST_VOCAB && first_width() == FIRST_WIDTH);
    fact("context", first_max_context() == FIRST_CONTEXT);
    fact("abi", first_abi() == FIRST_ABI);
    const struct first_options given = FIRST_OPTIONS, said = first_default_options();
    fact("options", given.max_tokens == said.max_tokens && given.temperature == said.temperature &&
                        given.top_k == said.top_k && given.top_p == said.top_p &&
                        given.seed == said.seed && given.split == said.split);
}

static void mistakes(void)
{
    int32_t wrong[] = { 1, FIRST_VOCAB }, below[] = { -1 };
    struct first_options bad = { 1, -1.0f, 0, 1.0f, 0, 0 };
    uint64_t seed = 0;
    fact("check good", first_check(arena, sizeof arena, CONTEXT, 2));
    fact("check context 0", first_check(arena, sizeof arena, 0, 1));
    fact("check context", first_check(arena, sizeof arena, FIRST_CONTEXT + 1, 1));
    fact("check threads 0", first_check(arena, sizeof arena, 1, 0));
    fact("check threads", first_check(arena, sizeof arena, 1, FIRST_MAX_THREADS + 1));
    fact("check small", first_check(arena, FIRST_ARENA_BYTES(CONTEXT, 2) - 1, CONTEXT, 2));
    fact("check null", first_check(NULL, sizeof arena, 1, 1));
    fact("check align", first_check(arena + 8, sizeof arena - 8, 1, 1));
    fact("init small", first_init(arena, FIRST_ARENA_BYTES(8, 1) - 1, 8, 1) == NULL);
    m = first_init(arena, sizeof arena, 4, 1);
    fact("logits of nothing", first_logits(m) == NULL);
    fact("sample nothing", first_sample(m, 0.0f, 0, 1.0f, &seed));
    fact("generate from nothing", first_generate(m, NULL, 0, NULL, add, NULL));
    fact("no tokens", first_eval_all(m, ids, 0, NULL));
    fact("wrong token", first_eval_all(m, wrong, 2, NULL));
    fact("token below 0", first_eval_all(m, below, 1, NULL));
    fact("wrong token, eval", first_eval(m, wrong, 2) == NULL);
    fact("too many", first_eval_all(m, ids, 5, NULL));
    fact("too many to embed", first_embed(m, ids, 5, all_logits[0]));
    fact("still empty", first_length(m));
    fact("wrong options", first_generate(m, ids, 1, &bad, add, NULL));
    fact("negative count", first_generate(m, ids, -1, NULL, add, NULL));
    fact("no room", first_tokenize(m, "abc def ghi", 11, 1, ids, 1, scratch, sizeof scratch));
    fact("no scratch", first_tokenize(m,
                                      "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcde"
                                      "fghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
                                      104, 1, ids, CONTEXT, scratch, 0));
    first_close(m);
    for (int code = 1; code >= FIRST_EABI - 1; code--)
        printf("error %d %s\n", code, first_error(code));
}

static void generation(void)
{
    struct first_options o = options(20);
    m = first_init(arena, sizeof arena, CONTEXT, 2);
    n = (int)first_tokenize(m, prompt, strlen(prompt), 1, ids, CONTEXT, scratch, sizeof scratch);

    int called = 0;
    fact("made", first_generate(m, ids, n, &o, add, &called));
    fact("called", called);
    fact("held", first_length(m) - n);
    show("whole");

    first_reset(m);
    o = options(7);
    first_generate(m, ids, n, &o, add, NULL);
    o.max_tokens = 13; /* the seed goes on */
    first_generate(m, NULL, 0, &o, add, NULL);
    show("in two calls");

    first_reset(m);
    o = options(20);
    first_eval(m, ids, n);
    for (int i = 0; i < 20; i++) {
        const int32_t token = first_sample(m, o.temperature, o.top_k, o.top_p, &o.seed);
        size_t bytes;
        const uint8_t *piece = first_piece(m, token, &bytes);
        if (first_is_eos(token))
            break;
        strncat(text, (const char *)piece, bytes);
        first_eval(m, &token, 1);
    }
    show("step by step");

    first_rewind(m, n);
    fact("logits after a rewind", first_logits(m) != NULL);
    first_rewind(m, n - 1);
    o = options(20);
    stop_after = 5;
    fact("stopped", first_generate(m, ids + n - 1, 1, &o, add, NULL));
    fact("held when stopped", first_length(m) - n);
    show("begin");
    stop_after = 0;

    /* A token that is still to be computed is forgotten without being computed. */
    const float *logits = first_logits(m);
    memcpy(all_logits[0], logits, sizeof all_logits[0]);
    o.max_tokens = 1;
    first_generate(m, NULL, 0, &o, add, NULL);
    first_rewind(m, first_length(m) - 1);
    fact("logits before it", memcmp(first_logits(m), all_logits[0], sizeof all_logits[0]));
    text[0] = 0;

    first_close(m);
    m = first_init(arena, sizeof arena, n + 3, 1);
    o = options(-1);
    fact("until full", first_generate(m, ids, n, &o, add, NULL));
    fact("held when full", first_length(m) - n);
    fact("full", first_generate(m, NULL, 0, &o, add, NULL));
    fact("full for eval", first_eval_all(m, ids, 1, NULL));
    first_close(m);
    text[0] = 0;
    chunks = 0;

    /* The last token's logits by each function. */
    m = first_init(arena, sizeof arena, CONTEXT, 1);
    first_eval_all(m, ids, n, all_logits[0]);
    fact("logits", memcmp(first_logits(m), all_logits[n - 1], sizeof all_logits[0]));
    first_reset(m);
    fact("eval", memcmp(first_eval(m, ids, n), all_logits[n - 1], sizeof all_logits[0]));
    /* Fed in pieces, the head is computed when it is asked for: the logits of what was fed last. */
    first_reset(m);
    first_eval_all(m, ids, n - 1, NULL);
    float *kept = (float *)(uintptr_t)first_logits(m); /* where the session has them */
    memset(kept, 0, sizeof all_logits[0]);
    first_eval_all(m, ids + n - 1, 1, NULL);
    int written = 0;
    for (int i = 0; i < FIRST_VOCAB; i++)
        written += kept[i] != 0.0f;
    fact("written before they are asked for", written);
    fact("pieces", memcmp(first_logits(m), all_logits[n - 1], sizeof all_logits[0]));
    fact("asked again", memcmp(first_logits(m), all_logits[n - 1], sizeof all_logits[0]));
    first_reset(m);
    first_eval_all(m, ids, n, NULL);
    fact("one piece", memcmp(first_logits(m), all_logits[n - 1], sizeof all_logits[0]));
    first_rewind(m, n - 1);
    fact("none after a rewind", first_logits(m) == NULL);
    first_reset(m);
    static float hidden[FIRST_WIDTH];
    fact("embed", first_embed(m, ids, n, hidden));
    printf("hidden ");
    for (int i = 0; i < FIRST_WIDTH; i++) {
        uint32_t bits;
        memcpy(&bits, &hidden[i], sizeof bits);
        printf("%08x", (unsigned)bits);
    }
    printf("\nids ");
    for (int i = 0; i < n; i++)
        printf("%d%c", (int)ids[i], i + 1 < n ? ',' : '\n');
    first_close(m);
}

static void a_start(void)
{
    m = first_init(arena, sizeof arena, CONTEXT, 1);
}

static void a_text(void)
{
    n = (int)first_tokenize(m, prompt, strlen(prompt), 1, ids, CONTEXT, scratch, sizeof scratch);
}

/* Kernels differ by how many tokens there are. */
static void a_step(void)
{
    for (int count = 1; count < n; count += count < 16 ? 1 : count / 2) {
        first_eval(m, ids, count);
        first_reset(m);
    }
    first_eval(m, ids, n);
}

static void a_generation(void)
{
    struct first_options o = options(4);
    first_generate(m, NULL, 0, &o, add, NULL);
}

static void (*volatile const calls[])(void) = { a_start, a_text, a_step, a_generation };
static const char *const names[] = { "init", "tokenize", "eval", "generate" };

__attribute__((noinline)) static void paint(void)
{
    volatile unsigned char *end = (unsigned char *)__builtin_frame_address(0) - 256;
    for (volatile unsigned char *p = stack; p < end; p++)
        *p = PAINT;
}

static void *measure(void *user)
{
    unsigned char *top = __builtin_frame_address(0);
    for (volatile int c = 0; c < 4; c++) {
        paint();
        calls[c]();
        const volatile unsigned char *low = stack;
        while (*low == PAINT)
            low++;
        fact(names[c], top - (const unsigned char *)low);
    }
    return user;
}

int main(int argc, char **argv)
{
    prompt = argv[1];
    if (argc > 2) {
        pthread_attr_t attributes;
        pthread_t thread;
        pthread_attr_init(&attributes);
        if (pthread_attr_setstack(&attributes, stack, STACK) != 0 ||
            pthread_create(&thread, &attributes, measure, NULL) != 0)
            return 1;
        pthread_join(thread, NULL);
        fact("limit", (long long)FIRST_STACK_BYTES);
        fact("tokens", n);
        return 0;
    }
    sizes();
    mistakes();
    generation();
    return 0;
}
