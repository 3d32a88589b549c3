/* SPDX-License-Identifier: MIT */
/* Causal attention of several tokens of a prompt at once: the formulas of bnc_attention.h, and the
 * same order of additions, with each key and value read and widened once for all of them.
 *
 * A row is one query head of one token. Sixteen keys are transposed, so that a register holds one
 * element of several keys; the sixteen lanes of rule 2 are then sixteen registers, of which those
 * whose sums the tree adds first are computed together:
 *
 *     pair[l] = lane[l] + lane[l+8],      l < 8
 *     u[l]    = pair[l] + pair[l+4],      l < 4
 *     dot     = (u[0] + u[2]) + (u[1] + u[3])
 *
 * A lane begins with its first product instead of +0 plus that: a sum of products that are all -0
 * is -0 then, which exp() does not tell from +0. Rows are computed a few at a time, over the
 * positions that the last of them sees. Those that another of them does not see have e = 0: a sum
 * that began at +0 is never -0, and to such a sum 0 * v adds nothing for the finite v of the cache.
 */
#ifndef BNC_ATTENTION_BATCH_H
#define BNC_ATTENTION_BATCH_H

#include "bnc_attention.h"

enum {
    BNC_ATTEND_ROWS = 32,   /* rows that attend together at most */
    BNC_ATTEND_VALUES = 32, /* values widened at a time; divides BNC_CHUNK */
#if defined(__AVX512F__) || defined(__aarch64__)
    BNC_ATTEND_STEP = 4, /* rows computed together: 16 of 32 registers are sums */
    BNC_ATTEND_KEYS = 1, /* registers of keys, */
    BNC_ATTEND_PAIRS = 2 /* and pairs of lanes */
#else
    BNC_ATTEND_STEP = 2, /* 8 of 16; an element of a query is loaded for two registers of keys */
    BNC_ATTEND_KEYS = 2,
    BNC_ATTEND_PAIRS = 1
#endif
};

_Static_assert(BNC_ATTEND_ROWS % BNC_ATTEND_STEP == 0 && BNC_CHUNK % BNC_ATTEND_VALUES == 0,
               "whole steps");

/* Floats of scratch: queries, which become totals; sums of a chunk; widened keys or values. rows: a
 * multiple of four. */
#define BNC_ATTEND_FLOATS(rows, head_dim)                                                          \
    ((2 * (rows) + BNC_ATTEND_VALUES) * BNC_HEAD_STRIDE(head_dim))

/* Floats between the scores of two rows: whole groups of sixteen positions. */
#define BNC_SCORE_STRIDE(positions) (((positions) + BNC_LANES - 1) / BNC_LANES * BNC_LANES)

/* to[d][t] = element d of key t, for sixteen keys; of the first `count` of them, the last one
 * stands for those that are not there. */
BNC_INLINE void bnc_attend_transpose(float *to, const uint16_t *keys, int row, int count,
                                     int stride)
{
    for (int d = 0; d < stride; d += BNC_LANES) {
        struct bnc_lanes key[BNC_LANES];
        if (count == BNC_LANES)
            for (int t = 0; t < BNC_LANES; t++)
                key[t] = bnc_cache_lanes(keys + (ptrdiff_t)t * row, d);
        else
            for (int t = 0; t < BNC_LANES; t++)
                key[t] = bnc_cache_lanes(keys + (ptrdiff_t)(t < count ? t : 0) * row, d);
        bnc_lanes_transpose(to + d * BNC_LANES, key);
    }
}

/* Products of elements at, at + 4 ... of a few rows and registers of keys: added to their lanes, or
 * what these begin with. add: constant once inlined */
BNC_INLINE void
bnc_attend_products(bnc_vec lane[2 * BNC_ATTEND_PAIRS][BNC_ATTEND_STEP][BNC_ATTEND_KEYS],
                    const float *query, const float *keys, int at, int stride, int add)
{
    enum { STEP = BNC_ATTEND_STEP, KEYS = BNC_ATTEND_KEYS, PAIRS = BNC_ATTEND_PAIRS };
    for (int j = 0; j < 2 * PAIRS; j++) {
        const int d = at + 4 * (j % PAIRS) + 8 * (j / PAIRS);
        bnc_vec k[KEYS];
        for (int i = 0; i < KEYS; i++)
            k[i] = bnc_load(keys + d * BNC_LANES + i * BNC_VECTOR);
        for (int r = 0; r < STEP; r++)
            for (int i = 0; i < KEYS; i++) {
                const bnc_vec q = bnc_splat(query[r * stride + d]);
                lane[j][r][i] = add ? bnc_add_exact(lane[j][r][i], k[i], q) : k[i] * q;
            }
    }
}

/* score[r][t] of BNC_ATTEND_STEP rows and the sixteen keys that bnc_attend_transpose() wrote.
 * unit: of each key, null for a float16 cache. */
BNC_INLINE void bnc_attend_scores(float *score, int score_stride, const float *query,
                                  const float *keys, const float *unit, float scale, int stride)
{
    enum { STEP = BNC_ATTEND_STEP, KEYS = BNC_ATTEND_KEYS, PAIRS = BNC_ATTEND_PAIRS };
    for (int t = 0; t < BNC_LANES; t += KEYS * BNC_VECTOR) {
        bnc_vec u[4][STEP][KEYS];
        for (int l = 0; l < 4; l++)
            for (int p = 0; p < 2; p += PAIRS) {
                bnc_vec lane[2 * PAIRS][STEP][KEYS];
                bnc_attend_products(lane, query, keys + t, l + 4 * p, stride, 0);
                for (int d = BNC_LANES; d < stride; d += BNC_LANES)
                    bnc_attend_products(lane, query, keys + t, d + l + 4 * p, stride, 1);
                for (int r = 0; r < STEP; r++)
                    for (int i = 0; i < KEYS; i++) {
                        const bnc_vec pair = lane[0][r][i] + lane[PAIRS][r][i];
                        if (PAIRS == 2)
                            u[l][r][i] = pair + (lane[1][r][i] + lane[PAIRS + 1][r][i]);
                        else
                            u[l][r][i] = p ? u[l][r][i] + pair : pair;
                    }
            }
        for (int r = 0; r < STEP; r++)
            for (int i = 0; i < KEYS; i++) {
                bnc_vec dot = (u[0][r][i] + u[2][r][i]) + (u[1][r][i] + u[3][r][i]);
                const int at = t + i * BNC_VECTOR;
                if (unit)
                    dot *= bnc_load(unit + at);
                bnc_store(score + (ptrdiff_t)r * score_stride + at, dot * scale);
            }
    }
}

/* A row's scores become e over its `positions`, zeros up to `all`; returns 1 / E. Scores are there
 * in whole groups of sixteen: those behind `positions` become ones whose e is 0. */
BNC_INLINE float bnc_attend_weights(float *s, int positions, int all)
{
    const int whole = BNC_SCORE_STRIDE(positions);
    float weight = 0.0f;
    for (int t = positions; t < whole; t++)
        s[t] = -3e38f;
    const float largest = bnc_largest(s, whole);
    for (int t = 0; t < whole; t++)
        s[t] = bnc_shorten(bnc_exp(s[t] - largest));
    for (int t = whole; t < all; t++)
        s[t] = 0.0f;
    for (int first = 0; first < whole; first += BNC_CHUNK)
        weight += bnc_sum(s + first, whole - first < BNC_CHUNK ? whole - first : BNC_CHUNK);
    return 1.0f / weight;
}

/* part[r][d ..] += e[r][t] * value[t][d ..] for BNC_ATTEND_STEP rows, `count` positions in order
 * and `vectors` registers of elements, constant once inlined. */
BNC_INLINE void bnc_attend_values(float *part, const float *e, int score_stride, const float *value,
                                  int count, int stride, int vectors)
{
    enum { STEP = BNC_ATTEND_STEP };
    bnc_vec sum[STEP][4];
    for (int r = 0; r < STEP; r++)
        for (int j = 0; j < vectors; j++)
            sum[r][j] = bnc_load(part + r * stride + j * BNC_VECTOR);
    for (int t = 0; t < count; t++)
        for (int r = 0; r < STEP; r++) {
            const bnc_vec weight = bnc_splat(e[(ptrdiff_t)r * score_stride + t]);
            for (int j = 0; j < vectors; j++)
                sum[r][j] =
                    bnc_add_exact(sum[r][j], bnc_load(value + t * stride + j * BNC_VECTOR), weight);
        }
    for (int r = 0; r < STEP; r++)
        for (int j = 0; j < vectors; j++)
            bnc_store(part + r * stride + j * BNC_VECTOR, sum[r][j]);
}

/* The same for all elements of the head. */
BNC_INLINE void bnc_attend_part(float *part, const float *e, int score_stride, const float *value,
                                int count, int stride)
{
    int d = 0;
    for (; d + 4 * BNC_VECTOR <= stride; d += 4 * BNC_VECTOR)
        bnc_attend_values(part + d, e, score_stride, value + d, count, stride, 4);
    for (; d < stride; d += BNC_VECTOR)
        bnc_attend_values(part + d, e, score_stride, value + d, count, stride, 1);
}

/* Fetches what follows `words` words of the cache, a part with each STEP of `rows` rows. */
BNC_INLINE void bnc_attend_next(const uint16_t *at, int words, int r, int rows)
{
    const int lines = words / 32 + 1, each = lines * BNC_ATTEND_STEP / rows + 1;
    bnc_prefetch_lines((const uint8_t *)(at + words) + 64 * each * (r / BNC_ATTEND_STEP), each);
}

/* Attention of `heads` query heads of `tokens` tokens, tokens * heads <= BNC_ATTEND_ROWS. Token i
 * sees positions + i positions.
 *
 * q:       queries, and then the output; tokens are token_stride floats apart
 * score:   scratch, [rows][BNC_SCORE_STRIDE(positions + tokens - 1)]
 * scratch: BNC_ATTEND_FLOATS(rows, head_dim) floats
 * rows:    tokens * heads, rounded up to a multiple of four */
BNC_FRAME void bnc_attend_batch(float *q, int token_stride, struct bnc_cache cache, int positions,
                                int tokens, int heads, int head_dim, float scale, float *score,
                                float *scratch)
{
    enum { STEP = BNC_ATTEND_STEP, ROWS = BNC_ATTEND_ROWS, TOGETHER = BNC_ATTEND_VALUES };
    const int stride = BNC_HEAD_STRIDE(head_dim), row = BNC_CACHE_ROW(head_dim);
    const int all = positions + tokens - 1, score_stride = BNC_SCORE_STRIDE(all);
    const int rows = (tokens * heads + STEP - 1) / STEP * STEP; /* those added are zero */
    float *total = scratch, *part = total + rows * stride, *wide = part + rows * stride;
    float inverse[ROWS];
    int sees[ROWS / STEP]; /* positions, of the last of STEP rows */
    const size_t bytes = sizeof(float) * (size_t)(rows * stride);

    for (int r = 0; r < rows; r += STEP) {
        const int token = (r + STEP - 1) / heads;
        sees[r / STEP] = token < tokens ? positions + token : all;
    }
    memset(total, 0, bytes);
    for (int r = 0; r < tokens * heads; r++)
        bnc_attend_shorten(total + r * stride,
                           q + (ptrdiff_t)(r / heads) * token_stride + r % heads * head_dim,
                           head_dim);
    for (int t = 0; t < all; t += BNC_LANES) {
        const uint16_t *keys = cache.keys + (ptrdiff_t)t * row;
        const int count = all - t < BNC_LANES ? all - t : BNC_LANES;
        const float *unit = 0;
#if BNC_CACHE_Q8
        float units[BNC_LANES] = { 0 };
        for (int i = 0; i < count; i++)
            units[i] = bnc_cache_unit(keys + (ptrdiff_t)i * row);
        unit = units;
#endif
        bnc_attend_transpose(wide, keys, row, count, stride);
        for (int r = 0; r < rows; r += STEP) {
            bnc_attend_next(keys, BNC_LANES * row, r, rows);
            if (t < sees[r / STEP])
                bnc_attend_scores(score + (ptrdiff_t)r * score_stride + t, score_stride,
                                  total + r * stride, wide, unit, scale, stride);
        }
    }

    for (int r = 0; r < tokens * heads; r++) {
        float *s = score + (ptrdiff_t)r * score_stride;
        inverse[r] = bnc_attend_weights(s, positions + r / heads, sees[r / STEP]);
#if BNC_CACHE_Q8
        for (int t = 0; t < sees[r / STEP]; t++)
            s[t] = bnc_shorten(s[t] * bnc_cache_unit(cache.values + (ptrdiff_t)t * row));
#endif
    }

    memset(total, 0, bytes);
    for (int chunk = 0; chunk < all; chunk += BNC_CHUNK) {
        const int last = all - chunk < BNC_CHUNK ? all : chunk + BNC_CHUNK;
        memset(part, 0, bytes);
        for (int t = chunk; t < last; t += TOGETHER) {
            const int count = last - t < TOGETHER ? last - t : TOGETHER;
            for (int i = 0; i < count; i++)
                for (int d = 0; d < stride; d += BNC_LANES)
                    bnc_lanes_store(wide + i * stride + d,
                                    bnc_cache_lanes(cache.values + (ptrdiff_t)(t + i) * row, d),
                                    BNC_LANES);
            for (int r = 0; r < rows; r += STEP) {
                const int seen = sees[r / STEP] - t;
                bnc_attend_next(cache.values + (ptrdiff_t)t * row, TOGETHER * row, r, rows);
                bnc_attend_part(part + r * stride, score + (ptrdiff_t)r * score_stride + t,
                                score_stride, wide, seen < count ? seen : count, stride);
            }
        }
        for (int k = 0; k < rows * stride; k++)
            total[k] += part[k];
    }
    for (int r = 0; r < tokens * heads; r++) {
        float *out = q + (ptrdiff_t)(r / heads) * token_stride + r % heads * head_dim;
        for (int d = 0; d < head_dim; d++)
            out[d] = total[r * stride + d] * inverse[r];
    }
}

#endif
