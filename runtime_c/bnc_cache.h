/* SPDX-License-Identifier: MIT */
/* Keys and values of the tokens seen: rule 8 of docs/arithmetic.md.
 *
 * A row is one head's key or value at one position, stride elements wide with zeros behind
 * head_dim. It is float16; or, with BNC_CACHE_Q8, int8 codes with a float32 before them by which
 * they are multiplied:
 *
 *     s = 127 / max(max |x|, 1e-5),  code = round_half_even(x * s),  row = 1 / s, codes
 *
 * Rows are counted in 16-bit words; a multiple of two, so that the float32 is aligned.
 */
#ifndef BNC_CACHE_H
#define BNC_CACHE_H

#include "bnc_math.h"

#ifndef BNC_CACHE_Q8
#define BNC_CACHE_Q8 0
#endif

enum { BNC_CACHE_BYTES = BNC_CACHE_Q8 ? 1 : 2 }; /* of an element */

/* head_dim as stored: whole groups of sixteen lanes. */
#define BNC_HEAD_STRIDE(head_dim) (((head_dim) + BNC_LANES - 1) / BNC_LANES * BNC_LANES)

/* 16-bit words of a row. */
#define BNC_CACHE_ROW(head_dim)                                                                    \
    (BNC_CACHE_Q8 ? 2 + BNC_HEAD_STRIDE(head_dim) / 2 : BNC_HEAD_STRIDE(head_dim))

/* One key/value head of one layer: [context] rows each. */
struct bnc_cache {
    uint16_t *keys, *values;
};

#if BNC_CACHE_Q8

/* Writes x[head_dim] as a row. |x * s| <= 127 but for the last bit, which rounding takes away. */
BNC_INLINE void bnc_cache_row(uint16_t *row, const float *x, int head_dim)
{
    int8_t *codes = (int8_t *)(row + 2);
    uint32_t largest = 0; /* bits of |x| order as |x| does */
    for (int d = 0; d < head_dim; d++) {
        const uint32_t magnitude = bnc_bits(x[d]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float absmax = bnc_float(largest);
    const float scale = 127.0f / (absmax > 1e-5f ? absmax : 1e-5f);
    const float unit = 1.0f / scale;
    memcpy(row, &unit, sizeof unit);
    for (int d = 0; d < head_dim; d++) {
        float v = x[d] * scale;
        v = v < 127.0f ? v : 127.0f;
        v = v > -128.0f ? v : -128.0f;
        codes[d] = (int8_t)(int32_t)bnc_round(v);
    }
    memset(codes + head_dim, 0, (size_t)(BNC_HEAD_STRIDE(head_dim) - head_dim));
}

/* Sixteen elements of a row from element d on, before the row's unit. */
BNC_INLINE struct bnc_lanes bnc_cache_lanes(const uint16_t *row, int d)
{
    return bnc_lanes_i8((const int8_t *)(row + 2) + d);
}

/* What the elements of a row are multiplied by. */
BNC_INLINE float bnc_cache_unit(const uint16_t *row)
{
    float unit;
    memcpy(&unit, row, sizeof unit);
    return unit;
}

#else

BNC_INLINE void bnc_cache_row(uint16_t *row, const float *x, int head_dim)
{
    bnc_halves(row, x, head_dim);
    memset(row + head_dim, 0, sizeof *row * (size_t)(BNC_HEAD_STRIDE(head_dim) - head_dim));
}

BNC_INLINE struct bnc_lanes bnc_cache_lanes(const uint16_t *row, int d)
{
    return bnc_lanes_f16(row + d);
}

#endif

/* Stores the key and value of position pos. */
BNC_INLINE void bnc_cache_put(struct bnc_cache cache, int pos, const float *k, const float *v,
                              int head_dim)
{
    bnc_cache_row(cache.keys + (ptrdiff_t)pos * BNC_CACHE_ROW(head_dim), k, head_dim);
    bnc_cache_row(cache.values + (ptrdiff_t)pos * BNC_CACHE_ROW(head_dim), v, head_dim);
}

#endif
