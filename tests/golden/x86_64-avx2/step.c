/* tiny for x86_64-avx2: the forward pass.
 *
 * Written by bitnetc 0.1.0; the choices made are in plan.json. To change this file, change
 * templates/step.c.jinja or targets/x86_64-avx2.toml and compile the model again.
 *
 * One step computes n tokens. Every thread runs it and takes its share of each phase; a bnc_sync()
 * stands between phases. One token is normalised and quantised by every thread for itself, which
 * takes no longer than by one of them alone and is not waited for.
 */
#include "state.h"
#include "kernels/avx2/matmul_i2_m32k64.h"

static const float NORM_EPS = 1e-05f; /* added to the mean of squares */
static const float ATTENTION_SCALE = 0.25f; /* 1 / sqrt(HEAD_DIM) */

/* What one thread computes in. */
struct scratch {
    int32_t *acc; /* sums of one tile, or of a tile of gate and one of up */
    float *wide;  /* the same memory: what attention of several tokens computes in */
    float *row;   /* one normalised token */
    float *score; /* of query heads, [context] each */

    struct bnc_worker tokens; /* who shares the tokens: all workers, or this one alone */
    float *normed;            /* [n][DIM]: what the head reads */
    struct bnc_acts acts[1];  /* what matrices read */
    int32_t sum[1];           /* of acts, where this worker alone quantises */
    float scale[1];
};

static void scratch_of(struct scratch *s, const struct tiny *m, const struct bnc_worker *t)
{
    uint8_t *at = m->threads + m->thread_bytes * (size_t)t->index;
    s->acc = (int32_t *)(void *)at;
    s->wide = (float *)(void *)at;
    s->row = (float *)(void *)(at + 16384);
    s->score = (float *)(void *)(at + 16768);
    s->tokens = *t;
    s->normed = m->normed;
    memcpy(s->acts, &m->acts, sizeof s->acts);
    if (m->n == 1 && t->count <= BATCH) { /* of a batch, a worker takes the place of its number */
        s->tokens.index = 0;
        s->tokens.count = 1;
        s->normed = t->index ? s->row : m->normed;
        for (int j = 0; j < 1; j++)
            bnc_own_acts(&s->acts[j], t->index, &s->sum[j], &s->scale[j]);
    }
}

static const uint8_t *weights(const struct tiny *m, uint64_t offset)
{
    return m->weights + offset;
}

static const float *vector(const struct tiny *m, uint64_t offset)
{
    return (const float *)(const void *)(m->weights + offset);
}

/* 64 x 64 in layout i2_m32k64 */
static const struct bnc_linear wq = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 64,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
    .before = 0,
    .listed = 4,
};

/* 16 x 64 in layout i2_m32k64 */
static const struct bnc_linear wk = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 16,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
    .before = 2,
    .listed = 4,
};

/* 16 x 64 in layout i2_m32k64 */
static const struct bnc_linear wv = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 16,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
    .before = 3,
    .listed = 4,
};

/* 64 x 64 in layout i2_m32k64 */
static const struct bnc_linear wo = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 64,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
};

/* 96 x 64 in layout i2_m32k64 */
static const struct bnc_linear w_gate = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 96,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
};

/* 96 x 64 in layout i2_m32k64 */
static const struct bnc_linear w_up = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 96,
    .cols = 64,
    .tile = 32,
    .tile_bytes = 512,
    .per_row = 0,
};

/* 64 x 96 in layout i2_m32k64 */
static const struct bnc_linear w_down = {
    .kernel = bnc_matmul_i2_m32k64_avx2,
    .rows = 64,
    .cols = 128,
    .tile = 32,
    .tile_bytes = 1024,
    .per_row = 0,
};

/* Blocks 0 to 1: one shape, one plan. */
BNC_APART void block(struct tiny *m, const struct tiny_block *w, int layer,
                     struct scratch *s, struct bnc_worker *t)
{
    uint16_t *cache = m->cache + (ptrdiff_t)layer * 2 * KV_HEADS * m->context * CACHE_ROW;
    const float *rope = vector(m, AT_ROPE);
    const int n = m->n, pos = m->length;

    bnc_norm_quantise(&s->tokens, s->acts, m->x, vector(m, w->attn_norm), DIM, NORM_EPS, n, s->row);
    bnc_sync(&s->tokens);
    bnc_linear_store(t, &wq, m->q, Q_DIM, weights(m, w->wq), vector(m, w->wq_scale),
                     s->acts, n, s->acc);
    bnc_linear_store(t, &wk, m->k, KV_DIM, weights(m, w->wk), vector(m, w->wk_scale),
                     s->acts, n, s->acc);
    bnc_linear_store(t, &wv, m->v, KV_DIM, weights(m, w->wv), vector(m, w->wv_scale),
                     s->acts, n, s->acc);
    bnc_sync(t);
    bnc_rope_cache(t, m->q, m->k, m->v, cache, rope, HEADS, KV_HEADS, HEAD_DIM, m->context, pos, n);
    bnc_sync(t);
    bnc_attention(t, m->q, cache, HEADS, KV_HEADS, HEAD_DIM, ATTENTION_SCALE, m->context, pos, n,
                  ATTEND_TOKENS, s->score, s->wide, m->shared);
    bnc_sync(t);
    bnc_norm_quantise(&s->tokens, s->acts, m->q, vector(m, w->attn_sub_norm), Q_DIM, NORM_EPS, n, s->row);
    bnc_sync(&s->tokens);
    bnc_linear_add(t, &wo, m->x, DIM, weights(m, w->wo), vector(m, w->wo_scale),
                     s->acts, n, s->acc);
    bnc_sync(t);

    bnc_norm_quantise(&s->tokens, s->acts, m->x, vector(m, w->ffn_norm), DIM, NORM_EPS, n, s->row);
    bnc_sync(&s->tokens);
    bnc_linear_gated(t, bnc_relu2, &w_gate, &w_up, m->h, FFN_DIM,
                     weights(m, w->w_gate), vector(m, w->w_gate_scale),
                     weights(m, w->w_up), vector(m, w->w_up_scale), s->acts, n, s->acc);
    bnc_sync(t);
    bnc_norm_quantise(&s->tokens, s->acts, m->h, vector(m, w->ffn_sub_norm), FFN_DIM, NORM_EPS, n, s->row);
    bnc_sync(&s->tokens);
    bnc_linear_add(t, &w_down, m->x, DIM, weights(m, w->w_down), vector(m, w->w_down_scale),
                     s->acts, n, s->acc);
    bnc_sync(t);
}

/* Logits of the last m->heads tokens; no others go through the head. */
BNC_APART void last_logits(struct tiny *m, struct scratch *s, struct bnc_worker *t)
{
    const int first = m->n - m->heads;
    int begin, end;
    bnc_share(&s->tokens, m->n - first, &begin, &end);
    for (int i = first + begin; i < first + end; i++)
        bnc_rmsnorm(s->normed + i * DIM, m->x + i * DIM, vector(m, AT_FINAL_NORM), DIM, NORM_EPS);
    bnc_sync(&s->tokens);
    bnc_dense(t, BNC_BF16, m->all_logits ? m->all_logits : m->logits, weights(m, AT_EMBEDDING), VOCAB, DIM,
              s->normed + first * DIM, DIM, m->n - first);
}

BNC_STEP_API void tiny_step(void *arg, struct bnc_worker *t)
{
    struct tiny *m = arg;
    struct scratch scratch, *const s = &scratch;
    int begin, end;
    scratch_of(s, m, t);

    bnc_share(t, m->n, &begin, &end);
    if (!m->late) {
        for (int i = begin; i < end; i++)
            bnc_embed(BNC_BF16, m->x + i * DIM, weights(m, AT_EMBEDDING), VOCAB, m->tokens[i], DIM);
        bnc_sync(t);
        for (int layer = 0; layer <= 1; layer++)
            block(m, &tiny_blocks[layer], layer, s, t);
    }

    if (m->heads)
        last_logits(m, s, t);
}
