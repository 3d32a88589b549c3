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

/* Attention of `group` query heads that share one key/value head, over `positions` positions.
 *
 * out, q: [group][head_dim], may be the same memory
 * score:  scratch, [positions] */
BNC_INLINE void bnc_attend(float *out, const float *q, struct bnc_cache cache, int positions,
                           int group, int head_dim, float scale, float *score)
{
    const int stride = BNC_HEAD_STRIDE(head_dim);
    float query[BNC_MAX_HEAD_DIM], part[BNC_MAX_HEAD_DIM], total[BNC_MAX_HEAD_DIM];

    for (int g = 0; g < group; g++) {
        float *s = score;
        memcpy(query, q + g * head_dim, sizeof(float) * (size_t)head_dim);
        memset(query + head_dim, 0, sizeof(float) * (size_t)(stride - head_dim));
        for (int t = 0; t < positions; t++) {
            const uint16_t *key = cache.keys + (ptrdiff_t)t * stride;
            struct bnc_lanes sum = bnc_lanes_zero();
            for (int d = 0; d < stride; d += BNC_LANES)
                sum = bnc_lanes_add(
                    sum, bnc_lanes_mul(bnc_lanes_load(query + d), bnc_lanes_f16(key + d)));
            s[t] = bnc_lanes_sum(sum) * scale;
        }

        float largest = s[0];
        for (int t = 1; t < positions; t++)
            largest = s[t] > largest ? s[t] : largest;
        for (int t = 0; t < positions; t++)
            s[t] = bnc_exp(s[t] - largest);

        float weight = 0.0f;
        memset(total, 0, sizeof(float) * (size_t)stride);
        for (int first = 0; first < positions; first += BNC_CHUNK) {
            const int count = positions - first < BNC_CHUNK ? positions - first : BNC_CHUNK;
            weight += bnc_sum(s + first, count);
            memset(part, 0, sizeof(float) * (size_t)stride);
            for (int t = first; t < first + count; t++) {
                const uint16_t *value = cache.values + (ptrdiff_t)t * stride;
                const float e = s[t];
                for (int d = 0; d < stride; d += BNC_LANES) {
                    const struct bnc_lanes v = bnc_lanes_f16(value + d);
                    for (int p = 0; p < BNC_PARTS; p++) {
                        float *a = part + d + p * BNC_VECTOR;
                        bnc_store(a, bnc_load(a) + v.part[p] * e);
                    }
                }
            }
            for (int d = 0; d < stride; d++)
                total[d] += part[d];
        }
        const float inverse = 1.0f / weight;
        for (int d = 0; d < head_dim; d++)
            out[g * head_dim + d] = total[d] * inverse;
    }
}

#endif
