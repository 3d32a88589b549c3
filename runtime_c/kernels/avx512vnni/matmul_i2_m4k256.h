/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VNNI, layout i2_m4k256.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * vpdpbusd multiplies unsigned bytes by signed bytes and adds four products to an int32 lane.
 * For one token the four codes of a byte are not shifted down but masked where they lie, so that
 * plane j is summed 4^j times too large; the sums are multiples of 4^j and are shifted at the end.
 * Bounds: |128 * q| <= 16256 a column, so int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I2_M4K256_AVX512VNNI_H
#define BNC_MATMUL_I2_M4K256_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K256_ROWS == 4 && BNC_I2_M4K256_COLS == 256, "unrolled by hand");

BNC_INLINE __m512i bnc_load_avx512(const void *at)
{
    return _mm512_loadu_si512(at);
}

/* The sums of four registers of int32 lanes, in order. */
BNC_INLINE __m128i bnc_sum4_avx512(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i s =
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

/* One token: bound by memory, so the stream of weights is fetched ahead. */
BNC_INLINE void bnc_matvec_i2_m4k256_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    enum { AHEAD = 4096 }; /* bytes: a page, which the hardware prefetcher does not cross */
    const int blocks = cols / BNC_I2_M4K256_COLS;
    const __m512i mask[4] = { _mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c),
                              _mm512_set1_epi8(0x30), _mm512_set1_epi8((char)0xc0) };
    for (int m = 0; m < rows; m += 4) {
        __m512i plane[4][4]; /* [plane][row] */
        for (int p = 0; p < 4; p++)
            for (int r = 0; r < 4; r++)
                plane[p][r] = _mm512_setzero_si512();
        for (int kb = 0; kb < blocks; kb++) {
            const int8_t *at = q + kb * BNC_I2_M4K256_COLS;
            const __m512i x3 = bnc_load_avx512(at), x2 = bnc_load_avx512(at + 64);
            const __m512i x1 = bnc_load_avx512(at + 128), x0 = bnc_load_avx512(at + 192);
            for (int r = 0; r < 4; r++) {
                const __m512i c = bnc_load_avx512(w);
                _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
                plane[0][r] = _mm512_dpbusd_epi32(plane[0][r], _mm512_and_si512(c, mask[0]), x0);
                plane[1][r] = _mm512_dpbusd_epi32(plane[1][r], _mm512_and_si512(c, mask[1]), x1);
                plane[2][r] = _mm512_dpbusd_epi32(plane[2][r], _mm512_and_si512(c, mask[2]), x2);
                plane[3][r] = _mm512_dpbusd_epi32(plane[3][r], _mm512_and_si512(c, mask[3]), x3);
                w += 64;
            }
        }
        __m512i sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] =
                _mm512_add_epi32(_mm512_add_epi32(plane[0][r], _mm512_srai_epi32(plane[1][r], 2)),
                                 _mm512_add_epi32(_mm512_srai_epi32(plane[2][r], 4),
                                                  _mm512_srai_epi32(plane[3][r], 6)));
        _mm_storeu_si128(
            (__m128i *)(void *)(acc + m),
            _mm_sub_epi32(bnc_sum4_avx512(sum[0], sum[1], sum[2], sum[3]), _mm_set1_epi32(sum_q)));
    }
}

enum { BNC_I2_M4K256_TOKENS = 4 }; /* tokens multiplied at a time: 16 of 32 registers are sums */

/* acc of 4 rows and up to BNC_I2_M4K256_TOKENS tokens += codes * q over `count` registers. */
BNC_INLINE void bnc_tile_i2_m4k256_avx512vnni(int32_t *acc, int rows, const __m512i *codes,
                                              const int8_t *const *q, int tokens, int count)
{
    __m512i sum[BNC_I2_M4K256_TOKENS][4];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            sum[i][r] = _mm512_setzero_si512();
    for (int v = 0; v < count; v++)
        for (int i = 0; i < tokens; i++) {
            const __m512i x = bnc_load_avx512(q[i] + 64 * v);
            for (int r = 0; r < 4; r++)
                sum[i][r] = _mm512_dpbusd_epi32(sum[i][r], codes[4 * v + r], x);
        }
    for (int i = 0; i < tokens; i++) {
        __m128i *to = (__m128i *)(void *)(acc + i * rows);
        const __m128i s = bnc_sum4_avx512(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), s));
    }
}

/* Several tokens: four rows of 2048 columns are unpacked to bytes once (8 KB, stays in L1). */
BNC_INLINE void bnc_matmul_i2_m4k256_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 2048, TOKENS = BNC_I2_M4K256_TOKENS };
    if (n == 1) {
        bnc_matvec_i2_m4k256_avx512vnni(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    const __m512i low2 = _mm512_set1_epi8(3);
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = -x->sum[i];
        for (int first = 0; first < cols; first += CHUNK) {
            __m512i codes[4 * CHUNK / 64]; /* [register][row] */
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 64;
            for (int v = 0; v < count; v += 4)
                for (int r = 0; r < 4; r++) {
                    const __m512i c = bnc_load_avx512(w);
                    __m512i *to = codes + 4 * v + r;
                    to[0] = _mm512_and_si512(_mm512_srli_epi16(c, 6), low2);
                    to[4] = _mm512_and_si512(_mm512_srli_epi16(c, 4), low2);
                    to[8] = _mm512_and_si512(_mm512_srli_epi16(c, 2), low2);
                    to[12] = _mm512_and_si512(c, low2);
                    w += 64;
                }
            const int8_t *q[TOKENS];
            int i = 0;
            for (; i + TOKENS <= n; i += TOKENS) {
                for (int t = 0; t < TOKENS; t++)
                    q[t] = x->q + (i + t) * x->stride + first;
                bnc_tile_i2_m4k256_avx512vnni(acc + i * rows + m, rows, codes, q, TOKENS, count);
            }
            for (; i < n; i++) {
                q[0] = x->q + i * x->stride + first;
                bnc_tile_i2_m4k256_avx512vnni(acc + i * rows + m, rows, codes, q, 1, count);
            }
        }
    }
}

#endif
