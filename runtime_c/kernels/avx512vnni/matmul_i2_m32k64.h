/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VNNI, layout i2_m32k64: what kernels/amx reads, without tiles.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * A register holds four columns of sixteen rows, four bytes a row. vpdpbusd multiplies its unsigned
 * codes by four activations that all rows share, and adds the products to each row's int32 lane.
 * For one token the four codes of a byte are not shifted down but masked where they lie, so that
 * plane j is summed 4^j times too large; the sums are multiples of 4^j and are shifted at the end.
 * Bounds: |128 * q| <= 16256 a column, so int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I2_M32K64_AVX512VNNI_H
#define BNC_MATMUL_I2_M32K64_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

/* Four activations in every lane. */
BNC_INLINE __m512i bnc_four_avx512vnni(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* One token: bound by memory, so the stream of weights is fetched ahead. */
BNC_INLINE void bnc_matvec_i2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    enum { AHEAD = 4096 }; /* bytes: a page, which the hardware prefetcher does not cross */
    const __m512i mask[4] = { _mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c),
                              _mm512_set1_epi8(0x30), _mm512_set1_epi8((char)0xc0) };
    for (int m = 0; m < rows; m += BNC_I2_M32K64_ROWS) {
        __m512i plane[4][2]; /* [plane][half of the rows] */
        for (int p = 0; p < 4; p++)
            for (int h = 0; h < 2; h++)
                plane[p][h] = _mm512_setzero_si512();
        for (int k = 0; k < cols; k += 16, w += 128) {
            const __m512i c0 = _mm512_loadu_si512(w), c1 = _mm512_loadu_si512(w + 64);
            _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
            _mm_prefetch((const char *)w + AHEAD + 64, _MM_HINT_T0);
            for (int p = 0; p < 4; p++) {
                const __m512i x = bnc_four_avx512vnni(q + k + 4 * (3 - p));
                plane[p][0] = _mm512_dpbusd_epi32(plane[p][0], _mm512_and_si512(c0, mask[p]), x);
                plane[p][1] = _mm512_dpbusd_epi32(plane[p][1], _mm512_and_si512(c1, mask[p]), x);
            }
        }
        for (int h = 0; h < 2; h++) {
            const __m512i low = _mm512_add_epi32(plane[0][h], _mm512_srai_epi32(plane[1][h], 2));
            const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(plane[2][h], 4),
                                                  _mm512_srai_epi32(plane[3][h], 6));
            _mm512_storeu_si512(acc + m + 16 * h, _mm512_sub_epi32(_mm512_add_epi32(low, high),
                                                                   _mm512_set1_epi32(sum_q)));
        }
    }
}

enum { BNC_I2_M32K64_TOKENS = 8 }; /* tokens multiplied at a time: 16 of 32 registers are sums */

/* acc of 32 rows and `tokens` tokens += codes * q; `count` times four columns. */
BNC_INLINE void bnc_tile_i2_m32k64_avx512vnni(int32_t *acc, int rows, const __m512i (*codes)[2],
                                              const int8_t *q, int stride, int tokens, int count)
{
    __m512i sum[BNC_I2_M32K64_TOKENS][2];
    for (int i = 0; i < tokens; i++)
        for (int h = 0; h < 2; h++)
            sum[i][h] = _mm512_loadu_si512(acc + i * rows + 16 * h);
    for (int v = 0; v < count; v++)
        for (int i = 0; i < tokens; i++) {
            const __m512i x = bnc_four_avx512vnni(q + i * stride + 4 * v);
            sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], codes[v][0], x);
            sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], codes[v][1], x);
        }
    for (int i = 0; i < tokens; i++)
        for (int h = 0; h < 2; h++)
            _mm512_storeu_si512(acc + i * rows + 16 * h, sum[i][h]);
}

/* Several tokens: 32 rows of 512 columns are unpacked to bytes once (16 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_i2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 512, TOKENS = BNC_I2_M32K64_TOKENS };
    if (n == 1) {
        bnc_matvec_i2_m32k64_avx512vnni(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -x->sum[i];
    const __m512i low2 = _mm512_set1_epi8(3);
    for (int m = 0; m < rows; m += BNC_I2_M32K64_ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            __m512i codes[CHUNK / 4][2]; /* [four columns][sixteen rows] */
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 4;
            for (int v = 0; v < count; v += 4)
                for (int h = 0; h < 2; h++, w += 64) {
                    const __m512i c = _mm512_loadu_si512(w);
                    codes[v][h] = _mm512_and_si512(_mm512_srli_epi16(c, 6), low2);
                    codes[v + 1][h] = _mm512_and_si512(_mm512_srli_epi16(c, 4), low2);
                    codes[v + 2][h] = _mm512_and_si512(_mm512_srli_epi16(c, 2), low2);
                    codes[v + 3][h] = _mm512_and_si512(c, low2);
                }
            int i = 0;
            for (; i + TOKENS <= n; i += TOKENS)
                bnc_tile_i2_m32k64_avx512vnni(acc + i * rows + m, rows, codes,
                                              x->q + i * x->stride + first, x->stride, TOKENS,
                                              count);
            for (; i < n; i++)
                bnc_tile_i2_m32k64_avx512vnni(acc + i * rows + m, rows, codes,
                                              x->q + i * x->stride + first, x->stride, 1, count);
        }
}

#endif
