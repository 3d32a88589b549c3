/* SPDX-License-Identifier: MIT */
/* Ternary matmul for SSE4.1, layout i2_m32k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * A register holds four columns of four rows, four bytes a row. pmaddubsw multiplies its unsigned
 * codes by four activations that all rows share, and adds neighbours in int16; the two halves of a
 * row meet when the lanes are widened. The sums of 16 rows fit into the registers: each half of a
 * block's rows is walked on its own, the second from the first cache. Several tokens share unpacked
 * codes, in registers of eight columns of two rows: then eight activations are what all rows share,
 * which movddup loads without a shuffle.
 * Bounds: a lane gains at most 2 * 2 * 127 = 508 from one pmaddubsw, so 64 of them fit in int16:
 * 64 * 508 = 32512. They are 256 columns of one token and 512 of several, after which the lanes are
 * widened. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M32K64_SSE41_H
#define BNC_MATMUL_I2_M32K64_SSE41_H

#include <smmintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum {
    BNC_I2_M32K64_SSE41_CHUNK = 256, /* columns of one token summed in int16: 2 KB of weights */
    BNC_M32K64_SSE41_MANY = 512,     /* of several: 8 KB of codes of 16 rows */
};
_Static_assert(BNC_I2_M32K64_SSE41_CHUNK / 4 * 508 <= 32767, "int16 lanes");
_Static_assert(BNC_M32K64_SSE41_MANY == 2 * BNC_I2_M32K64_SSE41_CHUNK, "a lane has half of them");
_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

/* Four activations in every lane. */
BNC_INLINE __m128i bnc_four_sse41(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm_set1_epi32(four);
}

/* acc of 16 rows += the sums of their int16 lanes. */
BNC_INLINE void bnc_widen_i2_m32k64_sse41(int32_t *acc, const __m128i *lanes)
{
    for (int r = 0; r < 4; r++) {
        __m128i *to = (__m128i *)(void *)(acc + 4 * r);
        const __m128i sum = _mm_madd_epi16(lanes[r], _mm_set1_epi16(1));
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), sum));
    }
}

/* One token, 16 rows of `cols` columns: codes are used as they come from memory, each once. */
BNC_INLINE void bnc_half_i2_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int cols)
{
    enum { AHEAD = 4096 };
    const __m128i low2 = _mm_set1_epi8(3);
    __m128i lanes[4];
    for (int r = 0; r < 4; r++)
        lanes[r] = _mm_setzero_si128();
    for (int k = 0; k < cols; k += 16, w += 128) {
        const __m128i x0 = bnc_four_sse41(q + k), x1 = bnc_four_sse41(q + k + 4);
        const __m128i x2 = bnc_four_sse41(q + k + 8), x3 = bnc_four_sse41(q + k + 12);
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
        for (int r = 0; r < 4; r++) {
            const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(w + 16 * r));
            const __m128i c0 = _mm_and_si128(_mm_srli_epi16(c, 6), low2);
            const __m128i c1 = _mm_and_si128(_mm_srli_epi16(c, 4), low2);
            const __m128i c2 = _mm_and_si128(_mm_srli_epi16(c, 2), low2);
            const __m128i c3 = _mm_and_si128(c, low2);
            const __m128i p01 = _mm_add_epi16(_mm_maddubs_epi16(c0, x0), _mm_maddubs_epi16(c1, x1));
            const __m128i p23 = _mm_add_epi16(_mm_maddubs_epi16(c2, x2), _mm_maddubs_epi16(c3, x3));
            lanes[r] = _mm_add_epi16(lanes[r], _mm_add_epi16(p01, p23));
        }
    }
    bnc_widen_i2_m32k64_sse41(acc, lanes);
}

/* acc of 16 rows += the sums of their int16 lanes, of two rows a register. */
BNC_INLINE void bnc_widen_pairs_sse41(int32_t *acc, const __m128i lanes[8])
{
    const __m128i ones = _mm_set1_epi16(1);
    for (int r = 0; r < 4; r++) {
        __m128i *to = (__m128i *)(void *)(acc + 4 * r);
        const __m128i sum = _mm_hadd_epi32(_mm_madd_epi16(lanes[2 * r], ones),
                                           _mm_madd_epi16(lanes[2 * r + 1], ones));
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), sum));
    }
}

/* Several tokens, 16 rows: codes as bytes, [count][two rows] of eight columns each. Token i has its
 * activations at q + i * stride and its sums at acc + i * rows. */
BNC_INLINE void bnc_tokens_m32k64_sse41(int32_t *restrict acc, int rows, const __m128i (*codes)[8],
                                        const int8_t *restrict q, int stride, int count, int n)
{
    for (int i = 0; i < n; i++) {
        const int8_t *qi = q + i * stride;
        __m128i lanes[8];
        for (int r = 0; r < 8; r++)
            lanes[r] = _mm_setzero_si128();
        for (int v = 0; v < count; v++) {
            double eight; /* of which nothing but a copy is made */
            memcpy(&eight, qi + 8 * v, sizeof eight);
            const __m128i x = _mm_castpd_si128(_mm_set1_pd(eight));
            for (int r = 0; r < 8; r++)
                lanes[r] = _mm_add_epi16(lanes[r], _mm_maddubs_epi16(codes[v][r], x));
        }
        bnc_widen_pairs_sse41(acc + i * rows, lanes);
    }
}

/* Several tokens, 16 rows of `cols` columns: unpacked to bytes once (8 KB, stays in L1). Words of
 * neighbouring planes are brought together first. */
BNC_FRAME void bnc_halves_i2_m32k64_sse41(int32_t *restrict acc, int rows,
                                          const uint8_t *restrict w, const int8_t *restrict q,
                                          int stride, int cols, int n)
{
    const __m128i low2 = _mm_set1_epi8(3);
    const int count = cols / 8;
    __m128i codes[BNC_M32K64_SSE41_MANY / 8][8]; /* [eight columns][two rows] */
    for (int v = 0; v < count; v += 2, w += 128)
        for (int r = 0; r < 4; r++) {
            const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(w + 16 * r));
            const __m128i next = _mm_slli_epi16(c, 2); /* bits from other bytes are masked */
            const __m128i a = _mm_unpacklo_epi32(c, next), b = _mm_unpackhi_epi32(c, next);
            codes[v][2 * r] = _mm_and_si128(_mm_srli_epi16(a, 6), low2);
            codes[v][2 * r + 1] = _mm_and_si128(_mm_srli_epi16(b, 6), low2);
            codes[v + 1][2 * r] = _mm_and_si128(_mm_srli_epi16(a, 2), low2);
            codes[v + 1][2 * r + 1] = _mm_and_si128(_mm_srli_epi16(b, 2), low2);
        }
    bnc_tokens_m32k64_sse41(acc, rows, codes, q, stride, count, n);
}

/* acc = codes * q - zero * sum of q. most: columns summed in int16 of one token; twice as many are
 * of several. Both are constant once inlined */
BNC_INLINE void bnc_codes_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, int rows, int cols, int n,
                                       int most, int zero)
{
    const int chunk = n == 1 ? most : 2 * most;
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -zero * x->sum[i];
    for (int m = 0; m < rows; m += BNC_I2_M32K64_ROWS)
        for (int first = 0; first < cols; first += chunk) {
            const int left = cols - first, count = left < chunk ? left : chunk;
            for (int half = 0; half < 2; half++) {
                int32_t *at = acc + m + 16 * half;
                if (n == 1)
                    bnc_half_i2_m32k64_sse41(at, w + 64 * half, x->q + first, count);
                else
                    bnc_halves_i2_m32k64_sse41(at, rows, w + 64 * half, x->q + first, x->stride,
                                               count, n);
            }
            w += 8 * count; /* 32 rows, four codes a byte */
        }
}

BNC_KERNEL void bnc_matmul_i2_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_sse41(acc, w, x, rows, cols, n, BNC_I2_M32K64_SSE41_CHUNK, 1);
}

#endif
