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
        bnc_quantise(acts, i, from, cols);
        if (acts->lut)
            bnc_build_lut16(acts, i, acts->stride);
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

/* q[i] becomes the attention output of token i. score: scratch, see bnc_attend(). */
BNC_INLINE void bnc_attention(const struct bnc_worker *worker, float *q, uint16_t *layer, int heads,
                              int kv_heads, int head_dim, float scale, int context, int pos, int n,
                              float *score)
{
    const int group = heads / kv_heads;
    int begin, end;
    bnc_share(worker, n * kv_heads, &begin, &end);
    for (int item = begin; item < end; item++) {
        const int i = item / kv_heads, head = item % kv_heads;
        float *at = q + (i * heads + head * group) * head_dim;
        bnc_attend(at, at, bnc_cache_head(layer, kv_heads, context, head, head_dim), pos + i + 1,
                   group, head_dim, scale, score);
    }
}

/* What only some graphs have, in terms of the above. */
#include "bnc_float_linear.h"
#include "bnc_graph.h"

#endif
