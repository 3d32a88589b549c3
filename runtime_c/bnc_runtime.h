/* SPDX-License-Identifier: MIT */
/* The one header that emitted code includes. */
#ifndef BNC_RUNTIME_H
#define BNC_RUNTIME_H

/* Changes whenever emitted code and runtime must change together. */
#define BNC_RUNTIME_ABI 1

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights and tables are stored little-endian: this target is big-endian"
#endif

#include "bnc_attention.h"
#include "bnc_attention_batch.h"
#include "bnc_attention_split.h"
#include "bnc_dense.h"
#include "bnc_linear.h"
#include "bnc_math.h"
#include "bnc_quantise.h"
#include "bnc_sampler.h"
#include "bnc_screen.h"
#include "bnc_threads.h"
#include "bnc_tokenizer.h"

/* The phases of a block that are not matrices. Each worker takes its share of the tokens, or of
 * the pairs of token and key/value head; a bnc_sync() stands between phases. */

/* Normalises (when weight is given) and quantises tokens x[i] for the matrices that follow.
 * row: scratch, [cols]. */
BNC_INLINE void bnc_norm_quantise(const struct bnc_worker *worker, struct bnc_acts *acts,
                                  const float *x, const float *weight, int cols, float eps, int n,
                                  float *row)
{
    int begin, end;
    bnc_share(worker, n, &begin, &end);
    for (int i = begin; i < end; i++) {
        const float *from = x + i * cols;
        if (weight) {
            bnc_rmsnorm(row, from, weight, cols, eps);
            from = row;
        }
        bnc_codes(acts, i, from, cols, n);
    }
}

/* The cache of one layer: keys then values, each [kv_heads][context] rows. */
BNC_INLINE struct bnc_cache bnc_cache_head(uint16_t *layer, int kv_heads, int context, int head,
                                           int head_dim)
{
    const ptrdiff_t one = (ptrdiff_t)context * BNC_CACHE_ROW(head_dim);
    return (struct bnc_cache){ layer + head * one, layer + (kv_heads + head) * one };
}

/* Rotates q and k of tokens at positions pos + i and stores k and v in the cache. */
BNC_INLINE void bnc_rope_cache(const struct bnc_worker *worker, float *q, float *k, const float *v,
                               uint16_t *layer, const float *rope, int heads, int kv_heads,
                               int head_dim, int context, int pos, int n)
{
    const int group = heads / kv_heads;
    int begin, end;
    bnc_share(worker, n * kv_heads, &begin, &end);
    for (int item = begin; item < end; item++) {
        const int i = item / kv_heads, head = item % kv_heads;
        const float *table = rope + (ptrdiff_t)(pos + i) * head_dim;
        float *key = k + (i * kv_heads + head) * head_dim;
        for (int g = 0; g < group; g++)
            bnc_rope(q + (i * heads + head * group + g) * head_dim, table, head_dim);
        bnc_rope(key, table, head_dim);
        bnc_cache_put(bnc_cache_head(layer, kv_heads, context, head, head_dim), pos + i, key,
                      v + (i * kv_heads + head) * head_dim, head_dim);
    }
}

/* What attention of n tokens is cut into: up to `together` tokens and one key/value head. Later
 * tokens see more, so that workers take turns. */
struct bnc_attend_item {
    int first, tokens, head;
};

BNC_INLINE int bnc_attend_items(int n, int together, int kv_heads)
{
    return (n + together - 1) / together * kv_heads;
}

BNC_INLINE struct bnc_attend_item bnc_attend_item(int item, int n, int together, int kv_heads)
{
    const int first = item / kv_heads * together;
    return (struct bnc_attend_item){ first, n - first < together ? n - first : together,
                                     item % kv_heads };
}

/* Attention of `tokens` tokens for one key/value head, of which the first sees `positions`
 * positions, the next one more. at: queries of the first, token_stride floats before the next's. */
BNC_INLINE void bnc_attend_tokens(float *at, int token_stride, struct bnc_cache cache,
                                  int positions, int tokens, int group, int head_dim, float scale,
                                  float *score, float *scratch)
{
    if (tokens == 1) {
        bnc_attend(at, at, cache, positions, group, head_dim, scale, score);
        return;
    }
    for (int g = 0; g < group; g += BNC_HEADS_TOGETHER)
        bnc_attend_batch(at + g * head_dim, token_stride, cache, positions, tokens,
                         group - g < BNC_HEADS_TOGETHER ? group - g : BNC_HEADS_TOGETHER, head_dim,
                         scale, score, scratch);
}

/* q[i] becomes the attention output of token i. together: tokens that attend at once, at most
 * BNC_ATTEND_ROWS / (BNC_HEADS_TOGETHER or group, whichever is less)
 * score: scratch, see bnc_attend() and bnc_attend_batch(); scratch: see the latter
 * shared: what workers share, BNC_SPLIT_FLOATS; null where there is one only */
BNC_INLINE void bnc_attention(struct bnc_worker *worker, float *q, uint16_t *layer, int heads,
                              int kv_heads, int head_dim, float scale, int context, int pos, int n,
                              int together, float *score, float *scratch, float *shared)
{
    const int group = heads / kv_heads;
    if (shared && n == 1 && bnc_calm(worker) && bnc_split_pays(worker->count, kv_heads, pos + 1)) {
        bnc_attention_split(worker, shared, q, heads, kv_heads, head_dim, pos + 1,
                            bnc_cache_head(layer, kv_heads, context, 0, head_dim),
                            (ptrdiff_t)context * BNC_CACHE_ROW(head_dim), scale, score);
        return;
    }
    const int items = bnc_attend_items(n, together, kv_heads);
    for (int turn = worker->index; turn < items; turn += worker->count) {
        const struct bnc_attend_item item = bnc_attend_item(turn, n, together, kv_heads);
        bnc_attend_tokens(
            q + (ptrdiff_t)(item.first * heads + item.head * group) * head_dim, heads * head_dim,
            bnc_cache_head(layer, kv_heads, context, item.head, head_dim), pos + item.first + 1,
            item.tokens, group, head_dim, scale, score, scratch);
    }
}

/* What only some graphs have, in terms of the above. */
#include "bnc_float_linear.h"
#include "bnc_graph.h"

#endif
