/* tiny for armv8-neon.
 *
 * Written by bitnetc 0.1.0; the choices made are in plan.json. To change this file, change
 * templates/model.c.jinja or targets/armv8-neon.toml and compile the model again.
 *
 * One step computes n tokens. Every thread runs step() and takes its share of each phase; a
 * bnc_sync() stands between phases.
 */
#include "tiny.h"
#include "weights.h"
#include "bnc_runtime.h"
#include "kernels/neon/matmul_i2_m4k64.h"

#if BNC_RUNTIME_ABI != 1
#error "emitted for runtime ABI 1: compile the model again"
#endif

enum {
    DIM = 64,         /* width of the residual stream */
    FFN_DIM = 96,     /* width between gate/up and down */
    HEADS = 4,        /* query heads */
    KV_HEADS = 1,     /* key/value heads, each shared by 4 */
    HEAD_DIM = 16,    /* width of one head */
    HEAD_STRIDE = 16, /* the same, as it lies in the cache */
    Q_DIM = 64,       /* HEADS * HEAD_DIM */
    KV_DIM = 16,      /* KV_HEADS * HEAD_DIM */
    VOCAB = 320,      /* rows of the embedding */
    BATCH = 64,       /* most tokens in one step */
    STRIDE = 128,     /* columns between two quantised tokens */
};

static const float NORM_EPS = 1e-05f; /* added to the mean of squares */
static const float ATTENTION_SCALE = 0.25f; /* 1 / sqrt(HEAD_DIM) */

/* Where buffers lie in the arena, in bytes. Those that are never alive together overlap. */
enum {
    AT_H = 12288,         /* gate * up */
    AT_NORMED = 12288,    /* the head's input */
    AT_Q = 12288,         /* queries, then attention */
    AT_K = 28672,         /* keys of these tokens */
    AT_V = 32768,         /* values of these tokens */
    AT_X = 36864,         /* residual stream */
    AT_ACT_Q = 53248,     /* quantised activations */
    AT_LOGITS = 61440,    /* logits of the last token */
    AT_ODDS = 62720,      /* the sampler's weights */
    AT_ORDER = 64000,     /* the sampler's order */
    AT_ACT_SCALE = 65280, /* their scales */
    AT_ACT_SUM = 65536,   /* their sums */
    AT_THREADS = 65792    /* scratch of each thread, then the cache */
};

struct tiny {
    struct bnc_pool pool;
    struct bnc_tokenizer tokenizer;
    struct bnc_acts acts;
    float *x, *q, *k, *v, *h, *normed, *logits;
    uint16_t *cache; /* [LAYERS][keys, values][KV_HEADS][context][HEAD_STRIDE] */
    uint8_t *threads;
    size_t thread_bytes;
    int context; /* positions there is room for */
    int length;  /* positions filled */

    /* The step in progress. */
    const int32_t *tokens;
    int n;
    float *all_logits; /* [n][VOCAB], or null: the last token's go to logits */
};

_Static_assert(sizeof(struct tiny) <= 12288, "state");

/* What one thread computes in. */
struct scratch {
    int32_t *acc; /* sums of one tile, or of a tile of gate and one of up */
    float *row;   /* one normalised token */
    float *score; /* of up to four query heads, [context] each */
};

static struct scratch scratch_of(const struct tiny *m, int thread)
{
    uint8_t *at = m->threads + m->thread_bytes * (size_t)thread;
    struct scratch s;
    s.acc = (int32_t *)(void *)at;
    s.row = (float *)(void *)(at + 2048);
    s.score = (float *)(void *)(at + 2432);
    return s;
}

static const uint8_t *weights(uint64_t offset)
{
    return tiny_weights + offset;
}

static const float *vector(uint64_t offset)
{
    return (const float *)(const void *)(tiny_weights + offset);
}

/* 64 x 64 in layout i2_m4k64 */
static const struct bnc_linear wq = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 64,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 16 x 64 in layout i2_m4k64 */
static const struct bnc_linear wk = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 16,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 16 x 64 in layout i2_m4k64 */
static const struct bnc_linear wv = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 16,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 64 x 64 in layout i2_m4k64 */
static const struct bnc_linear wo = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 64,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 96 x 64 in layout i2_m4k64 */
static const struct bnc_linear w_gate = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 96,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 96 x 64 in layout i2_m4k64 */
static const struct bnc_linear w_up = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 96,
    .cols = 64,
    .tile = 4,
    .tile_bytes = 64,
    .per_row = 0,
};

/* 64 x 96 in layout i2_m4k64 */
static const struct bnc_linear w_down = {
    .kernel = bnc_matmul_i2_m4k64_neon,
    .rows = 64,
    .cols = 128,
    .tile = 4,
    .tile_bytes = 128,
    .per_row = 0,
};

/* Blocks 0 to 1: one shape, one plan. */
static void block(struct tiny *m, const struct tiny_block *w, int layer,
                  const struct scratch *s, struct bnc_worker *t)
{
    uint16_t *cache = m->cache + (ptrdiff_t)layer * 2 * KV_HEADS * m->context * HEAD_STRIDE;
    const float *rope = vector(AT_ROPE);
    const int n = m->n, pos = m->length;

    bnc_norm_quantise(t, &m->acts, m->x, vector(w->attn_norm), DIM, NORM_EPS, n, s->row);
    bnc_sync(t);
    bnc_linear_store(t, &wq, m->q, Q_DIM, weights(w->wq), vector(w->wq_scale), &m->acts, n, s->acc);
    bnc_linear_store(t, &wk, m->k, KV_DIM, weights(w->wk), vector(w->wk_scale), &m->acts, n, s->acc);
    bnc_linear_store(t, &wv, m->v, KV_DIM, weights(w->wv), vector(w->wv_scale), &m->acts, n, s->acc);
    bnc_sync(t);
    bnc_rope_cache(t, m->q, m->k, m->v, cache, rope, HEADS, KV_HEADS, HEAD_DIM, m->context, pos, n);
    bnc_sync(t);
    bnc_attention(t, m->q, cache, HEADS, KV_HEADS, HEAD_DIM, ATTENTION_SCALE, m->context, pos, n,
                  s->score);
    bnc_sync(t);
    bnc_norm_quantise(t, &m->acts, m->q, vector(w->attn_sub_norm), Q_DIM, NORM_EPS, n, s->row);
    bnc_sync(t);
    bnc_linear_add(t, &wo, m->x, DIM, weights(w->wo), vector(w->wo_scale), &m->acts, n, s->acc);
    bnc_sync(t);

    bnc_norm_quantise(t, &m->acts, m->x, vector(w->ffn_norm), DIM, NORM_EPS, n, s->row);
    bnc_sync(t);
    bnc_linear_gated(t, bnc_relu2, &w_gate, &w_up, m->h, FFN_DIM, weights(w->w_gate), vector(w->w_gate_scale),
                     weights(w->w_up), vector(w->w_up_scale), &m->acts, n, s->acc);
    bnc_sync(t);
    bnc_norm_quantise(t, &m->acts, m->h, vector(w->ffn_sub_norm), FFN_DIM, NORM_EPS, n, s->row);
    bnc_sync(t);
    bnc_linear_add(t, &w_down, m->x, DIM, weights(w->w_down), vector(w->w_down_scale), &m->acts, n, s->acc);
    bnc_sync(t);
}

/* n tokens through the model, as one thread sees it. */
static void step(void *arg, struct bnc_worker *t)
{
    struct tiny *m = arg;
    const struct scratch s = scratch_of(m, t->index);
    int begin, end;

    bnc_share(t, m->n, &begin, &end);
    for (int i = begin; i < end; i++)
        bnc_embed(BNC_BF16, m->x + i * DIM, weights(AT_EMBEDDING), m->tokens[i], DIM);
    bnc_sync(t);
    for (int layer = 0; layer <= 1; layer++)
        block(m, &tiny_blocks[layer], layer, &s, t);

    /* Only the tokens whose logits are wanted go through the head. */
    const int first = m->all_logits ? 0 : m->n - 1;
    bnc_share(t, m->n - first, &begin, &end);
    for (int i = first + begin; i < first + end; i++)
        bnc_rmsnorm(m->normed + i * DIM, m->x + i * DIM, vector(AT_FINAL_NORM), DIM, NORM_EPS);
    bnc_sync(t);
    bnc_dense(t, BNC_BF16, m->all_logits ? m->all_logits : m->logits, weights(AT_EMBEDDING), VOCAB, DIM,
              m->normed + first * DIM, DIM, m->n - first);
}

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
        bnc_run(&m->pool, step, m);
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
