/* SPDX-License-Identifier: MIT */
/* Causal attention over the cache: rules 7 and 8 of docs/arithmetic.md. ~x is bnc_shorten(x): what
 * is multiplied by keys and values has 13 bits, and products are exact.
 *
 *     score[t] = dot(~q, k[t]) * (1 / sqrt(head_dim))         sixteen lanes over the head
 *     e[t]     = ~exp(score[t] - max score)
 *     per chunk c of 256 positions:  E_c = sum of e[t], sixteen lanes;
 *                                    A_c[d] = e[t] * v[t][d] added in order of t, from +0
 *     out[d]   = (A_0[d] + A_1[d] + ...) * (1 / (E_0 + E_1 + ...))
 *
 * Chunks, not threads, fix the order of additions: whoever computes a chunk gets the same bits.
 * With a cache of codes, each dot product is multiplied by the key's unit before the scale, and
 * each e[t], once E has it, by the value's unit, and shortened again.
 */
#ifndef BNC_ATTENTION_H
#define BNC_ATTENTION_H

#include "bnc_cache.h"
#include "bnc_streams.h"

/* The widest head, which decides how much stack attention takes; a model says its own. */
#ifndef BNC_MAX_HEAD_DIM
#define BNC_MAX_HEAD_DIM 512
#endif

enum {
    BNC_CHUNK = 256,
    BNC_HEADS_TOGETHER = 4, /* query heads that share one reading of keys and values at most, */
    BNC_HEADS_OF_TOKEN = BNC_VECTOR == 1 ? 1 : BNC_HEADS_TOGETHER, /* as registers hold them */
    BNC_VALUE_ROWS = BNC_VECTOR >= 8 ? 4 : 16,   /* values that stay in the first-level cache */
    BNC_KV_AHEAD = BNC_VECTOR >= 8 ? 3072 : 2048 /* bytes of keys and values fetched ahead */
};

_Static_assert(BNC_CHUNK % BNC_LANES == 0 && BNC_LANES % BNC_VALUE_ROWS == 0, "whole steps");

/* Queries, and then sums, of the heads that attend together; no vector lies in two cache lines. */
typedef float bnc_attend_rows[BNC_HEADS_OF_TOKEN * BNC_MAX_HEAD_DIM]
    __attribute__((aligned(sizeof(bnc_vec))));

/* Fetches as many bytes of the cache as are read at `at`, further on. */
BNC_INLINE void bnc_attend_ahead(const uint8_t *at, int bytes)
{
    bnc_prefetch_lines(at + BNC_KV_AHEAD, (bytes + 63) / 64);
}

/* to[d] = ~q[d], zeros up to the stride. */
BNC_INLINE void bnc_attend_shorten(float *to, const float *q, int head_dim)
{
    for (int d = 0; d < head_dim; d++)
        to[d] = bnc_shorten(q[d]);
    for (int d = head_dim; d < BNC_HEAD_STRIDE(head_dim); d++)
        to[d] = 0.0f;
}

/* rows[h] = ~q[h]. */
BNC_INLINE void bnc_attend_query(float *rows, const float *q, int heads, int head_dim)
{
    for (int h = 0; h < heads; h++)
        bnc_attend_shorten(rows + h * BNC_HEAD_STRIDE(head_dim), q + h * head_dim, head_dim);
}

/* The lanes of rule 2 take sixteen elements, from d on, of `keys` keys and `heads` queries:
 * sum[h * keys + i]. With AVX a lane begins with its first product instead of +0 plus that, which
 * compilers make of the loop's first step: a sum of products that are all -0 is -0 then, which
 * exp() does not tell from +0. */
BNC_INLINE void bnc_attend_key_lanes(struct bnc_lanes *sum, const float *query, const uint16_t *key,
                                     int row, int stride, int d, int heads, int keys)
{
    struct bnc_lanes k[BNC_SUMS];
    bnc_attend_ahead((const uint8_t *)key + d * keys * BNC_CACHE_BYTES,
                     BNC_LANES * keys * BNC_CACHE_BYTES);
    for (int i = 0; i < keys; i++)
        k[i] = bnc_cache_lanes(key + i * row, d);
    for (int h = 0; h < heads; h++) {
        const struct bnc_lanes q = bnc_lanes_load(query + h * stride + d);
        for (int i = 0; i < keys; i++) {
            struct bnc_lanes *to = &sum[h * keys + i];
            *to = BNC_VECTOR >= 8 && d == 0 ? bnc_lanes_mul(q, k[i])
                                            : bnc_lanes_add_exact(*to, q, k[i]);
        }
    }
}

/* score[h * score_stride + t] for first <= t < last, of `heads` <= BNC_HEADS_OF_TOKEN query heads,
 * a power of two that is constant once inlined. */
BNC_INLINE void bnc_attend_keys(float *score, ptrdiff_t score_stride, const float *query,
                                struct bnc_cache cache, int first, int last, int heads,
                                int head_dim, float scale)
{
    const int stride = BNC_HEAD_STRIDE(head_dim), row = BNC_CACHE_ROW(head_dim);
    const int keys = BNC_SUMS / heads ? BNC_SUMS / heads : 1; /* whose sums are finished at once */
    int t = first;
    for (; t + keys <= last; t += keys) {
        const uint16_t *key = cache.keys + (ptrdiff_t)t * row;
        struct bnc_lanes sum[BNC_SUMS];
        float dot[BNC_SUMS];
        BNC_UNROLL
        for (int i = 0; i < BNC_SUMS; i++)
            sum[i] = bnc_lanes_zero();
        for (int d = 0; d < stride; d += BNC_LANES)
            bnc_attend_key_lanes(sum, query, key, row, stride, d, heads, keys);
        bnc_lanes_sums(dot, sum);
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < keys; i++)
#if BNC_CACHE_Q8
                score[h * score_stride + t + i] =
                    dot[h * keys + i] * bnc_cache_unit(key + i * row) * scale;
#else
                score[h * score_stride + t + i] = dot[h * keys + i] * scale;
#endif
    }
    for (; t < last; t++) {
        const uint16_t *key = cache.keys + (ptrdiff_t)t * row;
        for (int h = 0; h < heads; h++) {
            struct bnc_lanes sum = bnc_lanes_zero();
            for (int d = 0; d < stride; d += BNC_LANES)
                sum = bnc_lanes_add_exact(sum, bnc_lanes_load(query + h * stride + d),
                                          bnc_cache_lanes(key, d));
#if BNC_CACHE_Q8
            score[h * score_stride + t] = bnc_lanes_sum(sum) * bnc_cache_unit(key) * scale;
#else
            score[h * score_stride + t] = bnc_lanes_sum(sum) * scale;
#endif
        }
    }
}

/* Scores s[0 .. count), count <= 16, become e, and with a cache of codes e times the value's unit;
 * returns e as the lanes of E_c take it. */
BNC_INLINE struct bnc_lanes bnc_attend_exp(float *s, float largest, const uint16_t *values,
                                           int count, int head_dim)
{
    struct bnc_lanes e;
    if (count == BNC_LANES) {
        for (int t = 0; t < BNC_LANES; t++)
            s[t] = bnc_shorten(bnc_exp(s[t] - largest));
        e = bnc_lanes_load(s);
    } else {
        for (int t = 0; t < count; t++)
            s[t] = bnc_shorten(bnc_exp(s[t] - largest));
        e = bnc_lanes_load_tail(s, count);
    }
#if BNC_CACHE_Q8
    for (int t = 0; t < count; t++)
        s[t] = bnc_shorten(s[t] * bnc_cache_unit(values + (ptrdiff_t)t * BNC_CACHE_ROW(head_dim)));
#else
    (void)values, (void)head_dim;
#endif
    return e;
}

/* part[h * part_stride + d ..] += e[h][t] * value[t][d ..], t < count in order: `groups` times
 * sixteen elements, whose sums stay in registers. heads and groups are constant once inlined. */
BNC_INLINE void bnc_attend_elements(float *part, ptrdiff_t part_stride, const float *e,
                                    ptrdiff_t e_stride, const uint16_t *value, int row, int d,
                                    int count, int heads, int groups)
{
    struct bnc_lanes sum[BNC_HEADS_OF_TOKEN][4];
    /* part stays in memory between calls: a compiler that keeps it in registers has too few. */
    __asm__ volatile("" : : "r"(part) : "memory");
    for (int h = 0; h < heads; h++)
        for (int g = 0; g < groups; g++)
            sum[h][g] = bnc_lanes_load(part + h * part_stride + d + g * BNC_LANES);
    for (int t = 0; t < count; t++) {
        struct bnc_lanes v[4];
        const uint16_t *at = value + (ptrdiff_t)t * row;
        bnc_attend_ahead((const uint8_t *)at + d * BNC_CACHE_BYTES,
                         groups * BNC_LANES * BNC_CACHE_BYTES);
        for (int g = 0; g < groups; g++)
            v[g] = bnc_cache_lanes(at, d + g * BNC_LANES);
        for (int h = 0; h < heads; h++)
            for (int g = 0; g < groups; g++)
                sum[h][g] = bnc_lanes_add_scaled(sum[h][g], v[g], e[h * e_stride + t]);
    }
    for (int h = 0; h < heads; h++)
        for (int g = 0; g < groups; g++)
            bnc_lanes_store(part + h * part_stride + d + g * BNC_LANES, sum[h][g], BNC_LANES);
}

/* part[h * part_stride + d] = A_c[d] and weight[h * weight_stride] = E_c of `heads` query heads,
 * over `count` positions of a chunk. Scores become e sixteen at a time, between values: those that
 * are fetched ahead meanwhile are enough for memory not to wait. */
BNC_INLINE void bnc_attend_chunk(float *part, ptrdiff_t part_stride, float *weight,
                                 ptrdiff_t weight_stride, float *score, ptrdiff_t score_stride,
                                 const float *largest, const uint16_t *values, int count, int heads,
                                 int head_dim)
{
    const int stride = BNC_HEAD_STRIDE(head_dim), row = BNC_CACHE_ROW(head_dim);
    const int groups = BNC_VECTOR == 16 ? 4 : BNC_VECTOR == 1 ? 1 : 4 / heads;
    struct bnc_lanes sum[BNC_HEADS_OF_TOKEN];
    for (int h = 0; h < heads; h++) {
        memset(part + h * part_stride, 0, sizeof *part * (size_t)stride);
        sum[h] = bnc_lanes_zero();
    }
    for (int t = 0; t < count; t += BNC_VALUE_ROWS) {
        const uint16_t *value = values + (ptrdiff_t)t * row;
        const int left = count - t, rows = left < BNC_VALUE_ROWS ? left : BNC_VALUE_ROWS;
        float *e = score + t;
        int d = 0;
        if (t % BNC_LANES == 0)
            for (int h = 0; h < heads; h++)
                sum[h] = bnc_lanes_add(
                    sum[h], bnc_attend_exp(e + h * score_stride, largest[h], value,
                                           left < BNC_LANES ? left : BNC_LANES, head_dim));
        for (; d + groups * BNC_LANES <= stride; d += groups * BNC_LANES)
            bnc_attend_elements(part, part_stride, e, score_stride, value, row, d, rows, heads,
                                groups);
        for (; d < stride; d += BNC_LANES)
            bnc_attend_elements(part, part_stride, e, score_stride, value, row, d, rows, heads, 1);
    }
    for (int h = 0; h < heads; h++)
        weight[h * weight_stride] = bnc_lanes_sum(sum[h]);
}

/* Attention of `heads` query heads; out may be q. score: scratch, [heads][positions] */
BNC_INLINE void bnc_attend_heads(float *out, const float *q, struct bnc_cache cache, int positions,
                                 int heads, int head_dim, float scale, float *score)
{
    const int stride = BNC_HEAD_STRIDE(head_dim), row = BNC_CACHE_ROW(head_dim);
    bnc_attend_rows total, part; /* total: first the queries */
    float largest[BNC_HEADS_OF_TOKEN], weight[BNC_HEADS_OF_TOKEN];

    bnc_attend_query(total, q, heads, head_dim);
    bnc_attend_keys(score, positions, total, cache, 0, positions, heads, head_dim, scale);
    for (int h = 0; h < heads; h++) {
        largest[h] = bnc_largest(score + (ptrdiff_t)h * positions, positions);
        weight[h] = 0.0f;
    }
    memset(total, 0, sizeof *total * (size_t)(heads * stride));
    for (int first = 0; first < positions; first += BNC_CHUNK) {
        const int count = positions - first < BNC_CHUNK ? positions - first : BNC_CHUNK;
        const uint16_t *values = cache.values + (ptrdiff_t)first * row;
        float each[BNC_HEADS_OF_TOKEN];
        bnc_attend_chunk(part, stride, each, 1, score + first, positions, largest, values, count,
                         heads, head_dim);
        for (int h = 0; h < heads; h++)
            weight[h] += each[h];
        for (int k = 0; k < heads * stride; k++)
            total[k] += part[k];
    }
    for (int h = 0; h < heads; h++) {
        const float inverse = 1.0f / weight[h];
        for (int d = 0; d < head_dim; d++)
            out[h * head_dim + d] = total[h * stride + d] * inverse;
    }
}

/* Attention of `group` query heads that share one key/value head, over `positions` positions.
 *
 * out, q: [group][head_dim], may be the same memory
 * score:  scratch, [BNC_HEADS_TOGETHER or group, whichever is less][positions] */
BNC_FRAME void bnc_attend(float *out, const float *q, struct bnc_cache cache, int positions,
                          int group, int head_dim, float scale, float *score)
{
    enum { TOGETHER = BNC_HEADS_OF_TOKEN };
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
