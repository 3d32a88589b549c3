/* SPDX-License-Identifier: MIT */
/* Causal attention over the cache: rules 7 and 8 of docs/arithmetic.md.
 *
 *     score[t] = dot(q, k[t]) * (1 / sqrt(head_dim))          sixteen lanes over the head
 *     e[t]     = exp(score[t] - max score)
 *     per chunk c of 256 positions:  E_c = sum of e[t], sixteen lanes;
 *                                    A_c[d] = e[t] * v[t][d] added in order of t, from +0
 *     out[d]   = (A_0[d] + A_1[d] + ...) * (1 / (E_0 + E_1 + ...))
 *
 * Chunks, not threads, fix the order of additions: whoever computes a chunk gets the same bits.
 * With a cache of codes, each dot product is multiplied by the key's unit before the scale, and
 * each e[t], once E has it, by the value's unit.
 */
#ifndef BNC_ATTENTION_H
#define BNC_ATTENTION_H

#include "bnc_cache.h"

enum { BNC_CHUNK = 256 };

/* The widest head, which decides how much stack attention takes; a model says its own. */
#ifndef BNC_MAX_HEAD_DIM
#define BNC_MAX_HEAD_DIM 512
#endif

enum { BNC_HEADS_TOGETHER = 4 }; /* query heads that share one reading of keys and values */

/* Attention of `heads` <= BNC_HEADS_TOGETHER query heads; `heads` is constant once inlined.
 * score: scratch, [heads][positions] */
BNC_INLINE void bnc_attend_heads(float *out, const float *q, struct bnc_cache cache, int positions,
                                 int heads, int head_dim, float scale, float *score)
{
    const int stride = BNC_HEAD_STRIDE(head_dim), row = BNC_CACHE_ROW(head_dim);
    float query[BNC_HEADS_TOGETHER][BNC_MAX_HEAD_DIM], inverse[BNC_HEADS_TOGETHER];

    for (int h = 0; h < heads; h++) {
        memcpy(query[h], q + h * head_dim, sizeof(float) * (size_t)head_dim);
        memset(query[h] + head_dim, 0, sizeof(float) * (size_t)(stride - head_dim));
    }
    for (int t = 0; t < positions; t++) {
        const uint16_t *key = cache.keys + (ptrdiff_t)t * row;
        struct bnc_lanes sum[BNC_HEADS_TOGETHER];
        for (int h = 0; h < heads; h++)
            sum[h] = bnc_lanes_zero();
        for (int d = 0; d < stride; d += BNC_LANES) {
            const struct bnc_lanes k = bnc_cache_lanes(key, d);
            for (int h = 0; h < heads; h++)
                sum[h] = bnc_lanes_add(sum[h], bnc_lanes_mul(bnc_lanes_load(query[h] + d), k));
        }
        for (int h = 0; h < heads; h++)
#if BNC_CACHE_Q8
            score[(ptrdiff_t)h * positions + t] =
                bnc_lanes_sum(sum[h]) * bnc_cache_unit(key) * scale;
#else
            score[(ptrdiff_t)h * positions + t] = bnc_lanes_sum(sum[h]) * scale;
#endif
    }

    for (int h = 0; h < heads; h++) {
        float *s = score + (ptrdiff_t)h * positions;
        float weight = 0.0f;
        const float largest = bnc_largest(s, positions);
        for (int t = 0; t < positions; t++)
            s[t] = bnc_exp(s[t] - largest);
        for (int first = 0; first < positions; first += BNC_CHUNK)
            weight +=
                bnc_sum(s + first, positions - first < BNC_CHUNK ? positions - first : BNC_CHUNK);
        inverse[h] = 1.0f / weight;
#if BNC_CACHE_Q8
        for (int t = 0; t < positions; t++)
            s[t] *= bnc_cache_unit(cache.values + (ptrdiff_t)t * row);
#endif
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
                const struct bnc_lanes v = bnc_cache_lanes(cache.values + (ptrdiff_t)t * row, d);
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
    enum { TOGETHER = BNC_VECTOR == 1 ? 1 : BNC_HEADS_TOGETHER }; /* as registers hold the lanes */
    int g = 0;
    for (; TOGETHER >= 4 && g + 4 <= group; g += 4)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 4, head_dim, scale,
                         score);
    for (; TOGETHER >= 2 && g + 2 <= group; g += 2)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 2, head_dim, scale,
                         score);
    for (; g < group; g++)
        bnc_attend_heads(out + g * head_dim, q + g * head_dim, cache, positions, 1, head_dim, scale,
                         score);
}

#endif
