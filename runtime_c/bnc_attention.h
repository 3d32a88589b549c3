/* SPDX-License-Identifier: MIT */
/* Causal attention over a float16 cache: rules 7 and 8 of docs/arithmetic.md.
 *
 *     score[t] = dot(q, k[t]) * (1 / sqrt(head_dim))          sixteen lanes over the head
 *     e[t]     = exp(score[t] - max score)
 *     per chunk c of 256 positions:  E_c = sum of e[t], sixteen lanes;
 *                                    A_c[d] = e[t] * v[t][d] added in order of t, from +0
 *     out[d]   = (A_0[d] + A_1[d] + ...) * (1 / (E_0 + E_1 + ...))
 *
 * Chunks, not threads, fix the order of additions: whoever computes a chunk gets the same bits.
 * A head lies in the cache with a stride rounded up to sixteen and zeros behind it.
 */
#ifndef BNC_ATTENTION_H
#define BNC_ATTENTION_H

#include "bnc_math.h"

enum { BNC_CHUNK = 256, BNC_MAX_HEAD_DIM = 512 };

/* head_dim as stored: whole groups of sixteen lanes. */
#define BNC_HEAD_STRIDE(head_dim) (((head_dim) + BNC_LANES - 1) / BNC_LANES * BNC_LANES)

/* One key/value head of one layer: [context][stride] float16 each. */
struct bnc_cache {
    uint16_t *keys, *values;
};

/* Stores the key and value of position pos, zeros behind head_dim. */
BNC_INLINE void bnc_cache_put(struct bnc_cache cache, int pos, const float *k, const float *v,
                              int head_dim)
{
    const int stride = BNC_HEAD_STRIDE(head_dim);
    uint16_t *key = cache.keys + (ptrdiff_t)pos * stride;
    uint16_t *value = cache.values + (ptrdiff_t)pos * stride;
    bnc_halves(key, k, head_dim);
    bnc_halves(value, v, head_dim);
    memset(key + head_dim, 0, sizeof *key * (size_t)(stride - head_dim));
    memset(value + head_dim, 0, sizeof *value * (size_t)(stride - head_dim));
}

enum { BNC_HEADS_TOGETHER = 4 }; /* query heads that share one reading of keys and values */

/* Attention of `heads` <= BNC_HEADS_TOGETHER query heads; `heads` is constant once inlined.
 * score: scratch, [heads][positions] */
BNC_INLINE void bnc_attend_heads(float *out, const float *q, struct bnc_cache cache, int positions,
                                 int heads, int head_dim, float scale, float *score)
{
    const int stride = BNC_HEAD_STRIDE(head_dim);
    float query[BNC_HEADS_TOGETHER][BNC_MAX_HEAD_DIM], inverse[BNC_HEADS_TOGETHER];

    for (int h = 0; h < heads; h++) {
        memcpy(query[h], q + h * head_dim, sizeof(float) * (size_t)head_dim);
        memset(query[h] + head_dim, 0, sizeof(float) * (size_t)(stride - head_dim));
    }
    for (int t = 0; t < positions; t++) {
        const uint16_t *key = cache.keys + (ptrdiff_t)t * stride;
        struct bnc_lanes sum[BNC_HEADS_TOGETHER];
        for (int h = 0; h < heads; h++)
            sum[h] = bnc_lanes_zero();
        for (int d = 0; d < stride; d += BNC_LANES) {
            const struct bnc_lanes k = bnc_lanes_f16(key + d);
            for (int h = 0; h < heads; h++)
                sum[h] = bnc_lanes_add(sum[h], bnc_lanes_mul(bnc_lanes_load(query[h] + d), k));
        }
        for (int h = 0; h < heads; h++)
            score[(ptrdiff_t)h * positions + t] = bnc_lanes_sum(sum[h]) * scale;
    }

    for (int h = 0; h < heads; h++) {
        float *s = score + (ptrdiff_t)h * positions;
        float largest = s[0], weight = 0.0f;
        for (int t = 1; t < positions; t++)
            largest = s[t] > largest ? s[t] : largest;
        for (int t = 0; t < positions; t++)
            s[t] = bnc_exp(s[t] - largest);
        for (int first = 0; first < positions; first += BNC_CHUNK)
            weight +=
                bnc_sum(s + first, positions - first < BNC_CHUNK ? positions - first : BNC_CHUNK);
        inverse[h] = 1.0f / weight;
    }

    /* Sixteen elements of the head at a time: their sums stay in registers. */
    for (int d = 0; d < stride; d += BNC_LANES) {
        struct bnc_lanes total[BNC_HEADS_TOGETHER];
        for (int h = 0; h < heads; h++)
            total[h] = bnc_lanes_zero();
        for (int first = 0; first < positions; first += BNC_CHUNK) {
            const int last = positions - first < BNC_CHUNK ? positions : first + BNC_CHUNK;
            struct bnc_lanes part[BNC_HEADS_TOGETHER];
            for (int h = 0; h < heads; h++)
                part[h] = bnc_lanes_zero();
            for (int t = first; t < last; t++) {
                const struct bnc_lanes v = bnc_lanes_f16(cache.values + (ptrdiff_t)t * stride + d);
                for (int h = 0; h < heads; h++)
                    part[h] = bnc_lanes_add(
                        part[h], bnc_lanes_scale(v, score[(ptrdiff_t)h * positions + t]));
            }
            for (int h = 0; h < heads; h++)
                total[h] = bnc_lanes_add(total[h], part[h]);
        }
        const int count = head_dim - d < BNC_LANES ? head_dim - d : BNC_LANES;
        for (int h = 0; h < heads; h++)
            bnc_lanes_store(out + h * head_dim + d, bnc_lanes_scale(total[h], inverse[h]), count);
    }
}

/* Attention of `group` query heads that share one key/value head, over `positions` positions.
 *
 * out, q: [group][head_dim], may be the same memory
 * score:  scratch, [BNC_HEADS_TOGETHER or group, whichever is less][positions] */
BNC_INLINE void bnc_attend(float *out, const float *q, struct bnc_cache cache, int positions,
                           int group, int head_dim, float scale, float *score)
{
    int g = 0;
    for (; g + 4 <= group; g += 4)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 4, head_dim, scale,
                         score);
    for (; g + 2 <= group; g += 2)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 2, head_dim, scale,
                         score);
    if (g < group)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 1, head_dim, scale,
                         score);
}

#endif
