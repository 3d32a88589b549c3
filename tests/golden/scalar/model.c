/* tiny for scalar: the functions of tiny.h.
 *
 * Written by bitnetc 0.1.0; the choices made are in plan.json. To change this file, change
 * templates/model.c.jinja or targets/scalar.toml and compile the model again.
 */
#include "state.h"

/* Feeds n tokens in batches; logits of each if all is not null. */
static int feed(struct tiny *m, const int32_t *tokens, int n, float *all)
{
    if (n < 1 || n > m->context - m->length)
        return -1;
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= VOCAB)
            return -1;
    for (int done = 0; done < n; done += m->n) {
        m->tokens = tokens + done;
        m->n = n - done < BATCH ? n - done : BATCH;
        m->all_logits = all ? all + (ptrdiff_t)done * VOCAB : 0;
        bnc_run(&m->pool, tiny_step, m);
        m->length += m->n;
        if (all)
            memcpy(m->logits, m->all_logits + (ptrdiff_t)(m->n - 1) * VOCAB, sizeof(float) * VOCAB);
    }
    return 0;
}

size_t tiny_arena_bytes(int context, int threads)
{
    return TINY_ARENA_BYTES(context, threads);
}

struct tiny *tiny_init(void *arena, size_t arena_bytes, int context, int threads)
{
    uint8_t *base = arena;
    struct tiny *m = arena;
    if (!arena || (uintptr_t)arena % TINY_ARENA_ALIGN != 0 || context < 1 || context > TINY_CONTEXT ||
        threads < 1 || threads > BNC_MAX_THREADS || arena_bytes < tiny_arena_bytes(context, threads))
        return 0;
    m->x = (float *)(void *)(base + AT_X);
    m->q = (float *)(void *)(base + AT_Q);
    m->k = (float *)(void *)(base + AT_K);
    m->v = (float *)(void *)(base + AT_V);
    m->h = (float *)(void *)(base + AT_H);
    m->normed = (float *)(void *)(base + AT_NORMED);
    m->logits = (float *)(void *)(base + AT_LOGITS);
    m->acts.q = (int8_t *)(base + AT_ACT_Q);
    m->acts.sum = (int32_t *)(void *)(base + AT_ACT_SUM);
    m->acts.scale = (float *)(void *)(base + AT_ACT_SCALE);
    m->acts.lut = 0;
    m->acts.stride = STRIDE;
    m->weights = tiny_weights;
    m->threads = base + AT_THREADS;
    m->thread_bytes = TINY_THREAD_BYTES(context);
    m->cache = (uint16_t *)(void *)(m->threads + m->thread_bytes * (size_t)threads);
    m->context = context;
    m->length = 0;
    if (bnc_tokenizer_init(&m->tokenizer, tiny_tokenizer, sizeof tiny_tokenizer) != 0)
        return 0;
    return bnc_pool_start(&m->pool, threads) == 0 ? m : 0;
}

void tiny_close(struct tiny *m)
{
    bnc_pool_stop(&m->pool);
}

void tiny_reset(struct tiny *m)
{
    m->length = 0;
}

void tiny_rewind(struct tiny *m, int length)
{
    if (length >= 0 && length < m->length)
        m->length = length;
}

int tiny_length(const struct tiny *m)
{
    return m->length;
}

int tiny_context(const struct tiny *m)
{
    return m->context;
}

const float *tiny_eval(struct tiny *m, const int32_t *tokens, int n)
{
    return feed(m, tokens, n, 0) == 0 ? m->logits : 0;
}

int tiny_eval_all(struct tiny *m, const int32_t *tokens, int n, float *logits)
{
    return feed(m, tokens, n, logits);
}

int tiny_sample(struct tiny *m, float temperature, int top_k, float top_p, uint64_t *seed)
{
    uint8_t *base = (uint8_t *)m;
    return bnc_sample(m->logits, VOCAB, temperature, top_k, top_p, seed,
                      (float *)(void *)(base + AT_ODDS), (int32_t *)(void *)(base + AT_ORDER));
}

int tiny_is_eos(int32_t token)
{
    return token == 316 || token == 319;
}

size_t tiny_scratch_bytes(size_t text_bytes)
{
    return bnc_encode_scratch_bytes(text_bytes);
}

ptrdiff_t tiny_tokenize(const struct tiny *m, const char *text, size_t bytes, int add_special,
                 int32_t *ids, size_t capacity, void *scratch, size_t scratch_bytes)
{
    return bnc_encode(&m->tokenizer, text, bytes, add_special, ids, capacity, scratch,
                      scratch_bytes);
}

const uint8_t *tiny_piece(const struct tiny *m, int32_t token, size_t *bytes)
{
    const uint8_t *piece = bnc_piece(&m->tokenizer, token, bytes);
    if (bnc_is_special(&m->tokenizer, token))
        *bytes = 0;
    return piece;
}
