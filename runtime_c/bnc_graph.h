/* SPDX-License-Identifier: MIT */
/* The phases that only some graphs have: norms of heads, of projections and before residuals,
 * windows of attention, texts side by side, and what becomes of a text's vectors. Each worker takes
 * its share of the tokens, or of the pairs of token and key/value head, as in bnc_runtime.h. */
#ifndef BNC_GRAPH_H
#define BNC_GRAPH_H

#include "bnc_attention.h"
#include "bnc_quantise.h"
#include "bnc_threads.h"

/* x[i][k] += bias[k]. */
BNC_INLINE void bnc_bias(float *x, const float *bias, int n)
{
    for (int k = 0; k < n; k++)
        x[k] += bias[k];
}

/* Keeps x[cols] as token i for matrices that read floats, zeros up to the stride. */
BNC_INLINE void bnc_keep_floats(struct bnc_acts *acts, int i, const float *x, int cols)
{
    float *to = acts->f + (ptrdiff_t)i * acts->f_stride;
    memcpy(to, x, sizeof(float) * (size_t)cols);
    memset(to + cols, 0, sizeof(float) * (size_t)(acts->f_stride - cols));
}

/* Token i of n in every form that the model's matrices read. */
BNC_INLINE void bnc_input(struct bnc_acts *acts, int i, const float *x, int cols, int n)
{
    if (acts->q)
        bnc_codes(acts, i, x, cols, n);
    if (acts->f)
        bnc_keep_floats(acts, i, x, cols);
}

/* bnc_norm_quantise() of tokens with `of` elements of which `cols` are here, the others zero. */
BNC_INLINE void bnc_norm_quantise_of(const struct bnc_worker *worker, struct bnc_acts *acts,
                                     const float *x, const float *weight, int cols, int of,
                                     float eps, int n, float *row)
{
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        bnc_rmsnorm_of(row, x + (ptrdiff_t)i * cols, weight, cols, of, eps);
        bnc_codes(acts, i, row, cols, n);
    }
}

/* Normalises (when weight is given) tokens x[i] for matrices of which some read floats.
 * row: scratch, [cols]. */
BNC_INLINE void bnc_norm_input(const struct bnc_worker *worker, struct bnc_acts *acts,
                               const float *x, const float *weight, int cols, float eps, int n,
                               float *row)
{
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        const float *from = x + (ptrdiff_t)i * cols;
        if (weight) {
            bnc_rmsnorm(row, from, weight, cols, eps);
            from = row;
        }
        bnc_input(acts, i, from, cols, n);
    }
}

/* The same for `count` matrices that each have a norm of their own behind the common one: acts[j]
 * gets token i normalised by weight, then by own[j]. row: scratch, [2][cols]. */
BNC_INLINE void bnc_norms_input(const struct bnc_worker *worker, struct bnc_acts *acts,
                                const float *x, const float *weight, float eps,
                                const float *const *own, int count, float own_eps, int cols, int n,
                                float *row)
{
    float *inner = row + cols;
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        bnc_rmsnorm(row, x + (ptrdiff_t)i * cols, weight, cols, eps);
        for (int j = 0; j < count; j++) {
            bnc_rmsnorm(inner, row, own[j], cols, own_eps);
            bnc_input(acts + j, i, inner, cols, n);
        }
    }
}

/* bnc_norm_quantise() of a model that states the scale of its activations. */
BNC_INLINE void bnc_norm_quantise_by(const struct bnc_worker *worker, struct bnc_acts *acts,
                                     const float *x, const float *weight, int cols, float eps,
                                     float scale, int n, float *row)
{
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        const float *from = x + (ptrdiff_t)i * cols;
        if (weight) {
            bnc_rmsnorm(row, from, weight, cols, eps);
            from = row;
        }
        bnc_quantise_by(acts, i, from, cols, scale);
        bnc_make_tables(acts, i, n);
    }
}

/* bnc_norms_input() of such a model: scales[j][0] is that of the input of matrix j. */
BNC_INLINE void bnc_norms_quantise_by(const struct bnc_worker *worker, struct bnc_acts *acts,
                                      const float *x, const float *weight, float eps,
                                      const float *const *own, const float *const *scales,
                                      int count, float own_eps, int cols, int n, float *row)
{
    float *inner = row + cols;
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        bnc_rmsnorm(row, x + (ptrdiff_t)i * cols, weight, cols, eps);
        for (int j = 0; j < count; j++) {
            bnc_rmsnorm(inner, row, own[j], cols, own_eps);
            bnc_quantise_by(acts + j, i, inner, cols, scales[j][0]);
            bnc_make_tables(acts + j, i, n);
        }
    }
}

/* x[i] += rmsnorm(o[i]) * weight: a norm before the residual connection. row: scratch, [cols]. */
BNC_INLINE void bnc_norm_add(const struct bnc_worker *worker, float *x, const float *o,
                             const float *weight, int cols, float eps, int n, float *row)
{
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        float *to = x + (ptrdiff_t)i * cols;
        bnc_rmsnorm(row, o + (ptrdiff_t)i * cols, weight, cols, eps);
        for (int k = 0; k < cols; k++)
            to[k] += row[k];
    }
}

/* Adds biases and normalises each head of queries and keys; null pointers stand for neither. The
 * shares are those of bnc_rope_cache(), which may follow without a bnc_sync(). */
BNC_INLINE void bnc_heads(const struct bnc_worker *worker, float *q, float *k, float *v,
                          const float *q_bias, const float *k_bias, const float *v_bias,
                          const float *q_norm, const float *k_norm, float eps, int heads,
                          int kv_heads, int head_dim, int n)
{
    const int group = heads / kv_heads;
    int begin, end;
    bnc_share(worker, n * kv_heads, &begin, &end);
    for (int item = begin; item < end; item++) {
        const int i = item / kv_heads, head = item % kv_heads;
        float *query = q + (ptrdiff_t)(i * heads + head * group) * head_dim;
        float *key = k + (ptrdiff_t)(i * kv_heads + head) * head_dim;
        if (q_bias) {
            bnc_bias(query, q_bias + head * group * head_dim, group * head_dim);
            bnc_bias(key, k_bias + head * head_dim, head_dim);
            bnc_bias(v + (ptrdiff_t)(i * kv_heads + head) * head_dim, v_bias + head * head_dim,
                     head_dim);
        }
        if (q_norm) {
            for (int g = 0; g < group; g++)
                bnc_rmsnorm(query + g * head_dim, query + g * head_dim, q_norm, head_dim, eps);
            bnc_rmsnorm(key, key, k_norm, head_dim, eps);
        }
    }
}

/* bnc_rope_cache() of a model whose batch holds several texts: starts[i] is the position of the
 * cache at which token i's text begins; null: one text, from position 0. */
BNC_INLINE void bnc_rope_cache_from(const struct bnc_worker *worker, float *q, float *k,
                                    const float *v, uint16_t *layer, const float *rope, int heads,
                                    int kv_heads, int head_dim, int context, int pos, int n,
                                    const int32_t *starts)
{
    const int group = heads / kv_heads;
    int begin, end;
    bnc_share(worker, n * kv_heads, &begin, &end);
    for (int item = begin; item < end; item++) {
        const int i = item / kv_heads, head = item % kv_heads;
        const int turn = pos + i - (starts ? starts[i] : 0);
        const float *table = rope + (ptrdiff_t)turn * head_dim;
        float *key = k + (i * kv_heads + head) * head_dim;
        for (int g = 0; g < group; g++)
            bnc_rope(q + (i * heads + head * group + g) * head_dim, table, head_dim);
        bnc_rope(key, table, head_dim);
        bnc_cache_put(bnc_cache_head(layer, kv_heads, context, head, head_dim), pos + i, key,
                      v + (i * kv_heads + head) * head_dim, head_dim);
    }
}

/* The cache without its first positions. */
BNC_INLINE struct bnc_cache bnc_cache_from(struct bnc_cache cache, int first, int head_dim)
{
    const ptrdiff_t skipped = (ptrdiff_t)first * BNC_CACHE_ROW(head_dim);
    return (struct bnc_cache){ cache.keys + skipped, cache.values + skipped };
}

/* The first position that the token at position `at` sees, of a text that begins at `start`. */
BNC_INLINE int bnc_first_seen(int at, int start, int window)
{
    return window && start < at + 1 - window ? at + 1 - window : start;
}

/* bnc_attention() of token i over the last `window` positions (0: all) of its text, which begins at
 * starts[i]. Chunks are counted from the first position that is seen, so that only tokens that see
 * the same one attend together. */
BNC_INLINE void bnc_attention_from(struct bnc_worker *worker, float *q, uint16_t *layer, int heads,
                                   int kv_heads, int head_dim, float scale, int context, int pos,
                                   int n, int together, int window, const int32_t *starts,
                                   float *score, float *scratch, float *shared)
{
    const int group = heads / kv_heads;
    const int from = bnc_first_seen(pos, starts ? starts[0] : 0, window);
    if (shared && n == 1 && bnc_calm(worker) &&
        bnc_split_pays(worker->count, kv_heads, pos + 1 - from)) {
        const struct bnc_cache all = bnc_cache_head(layer, kv_heads, context, 0, head_dim);
        bnc_attention_split(worker, shared, q, heads, kv_heads, head_dim, pos + 1 - from,
                            bnc_cache_from(all, from, head_dim),
                            (ptrdiff_t)context * BNC_CACHE_ROW(head_dim), scale, score);
        return;
    }
    const int items = bnc_attend_items(n, together, kv_heads);
    for (int turn = worker->index; turn < items; turn += worker->count) {
        const struct bnc_attend_item item = bnc_attend_item(turn, n, together, kv_heads);
        const struct bnc_cache all = bnc_cache_head(layer, kv_heads, context, item.head, head_dim);
        const int end = item.first + item.tokens;
        for (int i = item.first, next; i < end; i = next) {
            const int first = bnc_first_seen(pos + i, starts ? starts[i] : 0, window);
            for (next = i + 1; next < end; next++)
                if (bnc_first_seen(pos + next, starts ? starts[next] : 0, window) != first)
                    break;
            bnc_attend_tokens(q + (ptrdiff_t)(i * heads + item.head * group) * head_dim,
                              heads * head_dim, bnc_cache_from(all, first, head_dim),
                              pos + i + 1 - first, next - i, group, head_dim, scale, score,
                              scratch);
        }
    }
}

enum bnc_pooling { BNC_POOL_LAST, BNC_POOL_MEAN, BNC_POOL_CLS };

/* Takes n normalised tokens into the vectors of their texts, y[texts[i]]: each worker some of the
 * columns, and tokens in order. Means are sums until the caller divides them. */
BNC_INLINE void bnc_pool_texts(const struct bnc_worker *worker, float *y, const float *x,
                               enum bnc_pooling pooling, const int32_t *texts,
                               const int32_t *starts, int pos, int n, int cols)
{
    int begin, end;
    bnc_share(worker, (cols + BNC_LANES - 1) / BNC_LANES, &begin, &end);
    begin *= BNC_LANES;
    end = end * BNC_LANES < cols ? end * BNC_LANES : cols;
    for (int i = 0; i < n; i++) {
        float *to = y + (ptrdiff_t)texts[i] * cols;
        const float *from = x + (ptrdiff_t)i * cols;
        const int is_first = pos + i == starts[i];
        for (int k = begin; k < end; k++) {
            if (pooling == BNC_POOL_MEAN)
                to[k] = (is_first ? 0.0f : to[k]) + from[k];
            else if (pooling == BNC_POOL_LAST || is_first)
                to[k] = from[k];
        }
    }
}

/* y / max(|y|, 1e-12) */
BNC_INLINE void bnc_unit(float *y, int cols)
{
    const float length = bnc_sqrt(bnc_dot(y, y, cols));
    for (int k = 0; k < cols; k++)
        y[k] /= length > 1e-12f ? length : 1e-12f;
}

#endif
