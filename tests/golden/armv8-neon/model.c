/* tiny for armv8-neon: the functions of tiny.h.
 *
 * Written by bitnetc 0.1.0; the choices made are in plan.json. To change this file, change
 * templates/model.c.jinja or targets/armv8-neon.toml and compile the model again.
 */
#include "state.h"

/* Computes n valid tokens, for which there is room, in batches; logits of each if all is not null,
 * else of the last one if `last` is not 0. */
static void compute(struct tiny *m, const int32_t *tokens, int n, float *all, int last)
{
    m->late = 0;
    for (int done = 0; done < n; done += m->n) {
        m->tokens = tokens + done;
        m->n = n - done < BATCH ? n - done : BATCH;
        m->all_logits = all ? all + (ptrdiff_t)done * VOCAB : 0;
        m->heads = all ? m->n : last && done + m->n == n;
        bnc_run(&m->pool, tiny_step, m);
        m->length += m->n;
        if (all)
            memcpy(m->logits, m->all_logits + (ptrdiff_t)(m->n - 1) * VOCAB, sizeof(float) * VOCAB);
    }
    m->ready = 1;
    m->late = m->heads == 0;
}

/* Computes the token that was generated last, if that is still to be done. */
static void catch_up(struct tiny *m, int last)
{
    const int32_t token = m->pending;
    m->pending = -1;
    if (token >= 0)
        compute(m, &token, 1, 0, last);
}

/* Feeds n tokens from outside; logits as of compute(). Returns 0 or a code. */
static int feed(struct tiny *m, const int32_t *tokens, int n, float *all, int last)
{
    if (n < 1)
        return TINY_EARGUMENT;
    if (n > m->context - tiny_length(m))
        return TINY_EFULL;
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= VOCAB)
            return TINY_ETOKEN;
    catch_up(m, 0);
    compute(m, tokens, n, all, last);
    m->held_bytes = 0;
    return 0;
}

int (tiny_check)(const void *arena, size_t arena_bytes, int context, int threads)
{
    struct bnc_tokenizer tokenizer;
    if (context < 1 || context > TINY_CONTEXT)
        return TINY_ECONTEXT;
    if (threads < 1 || threads > BNC_MAX_THREADS)
        return TINY_ETHREADS;
    if (!arena || arena_bytes < tiny_arena_bytes(context, threads))
        return TINY_EARENA;
    if ((uintptr_t)arena % TINY_ARENA_ALIGN != 0)
        return TINY_EALIGN;
    if (bnc_tokenizer_init(&tokenizer, tiny_tokenizer, TINY_TOKENIZER_BYTES) != 0)
        return TINY_EDATA;
    return 0;
}

struct tiny *(tiny_init)(void *arena, size_t arena_bytes, int context, int threads)
{
    uint8_t *base = arena;
    struct tiny *m = arena;
    if (tiny_check(arena, arena_bytes, context, threads) != 0)
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
    m->acts.lut = base + AT_ACT_LUT;
    m->acts.bits = 0;
    m->acts.stride = STRIDE;
    m->weights = tiny_weights;
    m->threads = base + AT_THREADS;
    m->thread_bytes = TINY_THREAD_BYTES(context);
    m->shared = (float *)(void *)(m->threads + m->thread_bytes * (size_t)threads);
    m->cache = (uint16_t *)(void *)((uint8_t *)m->shared + (threads > 1 ? TINY_SHARED_BYTES(context) : 0));
    m->context = context;
    tiny_reset(m);
    if (bnc_tokenizer_init(&m->tokenizer, tiny_tokenizer, TINY_TOKENIZER_BYTES) != 0)
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
    m->pending = -1;
    m->ready = m->late = 0;
    m->held_bytes = 0;
}

void tiny_rewind(struct tiny *m, int length)
{
    if (length < 0 || length >= tiny_length(m))
        return;
    /* The logits are those of the last token computed. */
    m->ready = m->ready && length == m->length && length > 0;
    m->length = length;
    m->pending = -1;
    m->held_bytes = 0;
}

int tiny_length(const struct tiny *m)
{
    return m->length + (m->pending >= 0);
}

int tiny_context(const struct tiny *m)
{
    return m->context;
}

const float *tiny_eval(struct tiny *m, const int32_t *tokens, int n)
{
    return feed(m, tokens, n, 0, 1) == 0 ? m->logits : 0;
}

int tiny_eval_all(struct tiny *m, const int32_t *tokens, int n, float *logits)
{
    return feed(m, tokens, n, logits, 0);
}

const float *tiny_logits(struct tiny *m)
{
    catch_up(m, 1);
    if (m->ready && m->late) {
        m->heads = 1;
        bnc_run(&m->pool, tiny_step, m);
        m->late = 0;
    }
    return m->ready ? m->logits : 0;
}

int tiny_embed(struct tiny *m, const int32_t *tokens, int n, float *embedding)
{
    const int code = feed(m, tokens, n, 0, 1);
    if (code == 0)
        memcpy(embedding, m->normed + (m->n - 1) * DIM, sizeof(float) * DIM);
    return code;
}

int tiny_sample(struct tiny *m, float temperature, int top_k, float top_p, uint64_t *seed)
{
    uint8_t *base = (uint8_t *)m;
    if (!(temperature >= 0.0f) || top_k < 0 || !(top_p > 0.0f && top_p <= 1.0f))
        return TINY_EARGUMENT;
    if (!tiny_logits(m))
        return TINY_EEMPTY;
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
