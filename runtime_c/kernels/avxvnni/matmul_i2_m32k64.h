/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-VNNI (256 bits), layout i2_m32k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * The codes at bits 2j of a register are 8 rows of four neighbouring columns, four bytes a row.
 * vpdpbusd multiplies them by four activations that are the same for all rows, so that a sum stays
 * in its row's lane.
 *
 * For one token a register is shifted once: codes at bits 0 and 1 of a nibble are taken as they
 * are, those at bits 2 and 3 are masked where they lie, which makes their sums four times too
 * large; they are multiples of four and are shifted at the end.
 * Bounds: |8 * q| <= 1016 a column, so int32 lasts for 2,113,664 columns. */
#ifndef BNC_MATMUL_I2_M32K64_AVXVNNI_H
#define BNC_MATMUL_I2_M32K64_AVXVNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "../avx2/matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

/* sum[32 rows] += codes * q of one token and `count` columns. */
BNC_KERNEL void bnc_group_i2_m32k64_avxvnni(int32_t *sum, const uint8_t *w, const int8_t *q,
                                            int count, ptrdiff_t ahead)
{
    const __m256i low2 = _mm256_set1_epi8(0x03), next2 = _mm256_set1_epi8(0x0c);
    __m256i once[4], fourfold[4];
    for (int r = 0; r < 4; r++)
        once[r] = fourfold[r] = _mm256_setzero_si256();
    for (int k = 0; k < count; k += 16, w += 128) {
        const __m256i x0 = bnc_four_avx2(q + k + 12), x1 = bnc_four_avx2(q + k + 8);
        const __m256i x2 = bnc_four_avx2(q + k + 4), x3 = bnc_four_avx2(q + k);
        bnc_prefetch(w + ahead);
        bnc_prefetch(w + ahead + 64);
        for (int r = 0; r < 4; r++) {
            const __m256i c = bnc_load_i2_m32k64_avx2(w + 32 * r);
            const __m256i h = _mm256_srli_epi16(c, 4);
            once[r] = _mm256_dpbusd_avx_epi32(once[r], _mm256_and_si256(c, low2), x0);
            fourfold[r] = _mm256_dpbusd_avx_epi32(fourfold[r], _mm256_and_si256(c, next2), x1);
            once[r] = _mm256_dpbusd_avx_epi32(once[r], _mm256_and_si256(h, low2), x2);
            fourfold[r] = _mm256_dpbusd_avx_epi32(fourfold[r], _mm256_and_si256(h, next2), x3);
        }
    }
    for (int r = 0; r < 4; r++) {
        __m256i *to = (__m256i *)(void *)(sum + 8 * r);
        const __m256i both = _mm256_add_epi32(once[r], _mm256_srai_epi32(fourfold[r], 2));
        _mm256_storeu_si256(to, _mm256_add_epi32(bnc_load_i2_m32k64_avx2(to), both));
    }
}

enum { BNC_I2_M32K64_AVXVNNI_TOKENS = 3 }; /* multiplied at a time: 12 of 16 registers are sums */

/* acc of 32 rows and `tokens` <= BNC_I2_M32K64_AVXVNNI_TOKENS tokens += codes * q over `cols`
 * columns; tokens is constant once inlined. codes: [cols / 4][four] registers */
BNC_INLINE void bnc_tile_i2_m32k64_avxvnni(int32_t *acc, int rows, const __m256i *codes,
                                           const int8_t *q, int stride, int tokens, int cols)
{
    __m256i sum[BNC_I2_M32K64_AVXVNNI_TOKENS][4];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            sum[i][r] = bnc_load_i2_m32k64_avx2(acc + i * rows + 8 * r);
    for (int k = 0; k < cols; k += 4, codes += 4)
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < tokens; i++)
                sum[i][r] = _mm256_dpbusd_avx_epi32(sum[i][r], codes[r],
                                                    bnc_four_avx2(q + i * (ptrdiff_t)stride + k));
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + i * rows + 8 * r), sum[i][r]);
}

/* acc = codes * q - zero * sum of q. Of several tokens 32 rows of 512 columns are unpacked to bytes
 * once (16 KB, stays in L1). zero: constant once inlined */
BNC_INLINE void bnc_codes_m32k64_avxvnni(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n,
                                         int zero)
{
    enum { CHUNK = 512, ROWS = BNC_I2_M32K64_ROWS, TOKENS = BNC_I2_M32K64_AVXVNNI_TOKENS };
    if (n == 1) {
        bnc_take_turns(bnc_group_i2_m32k64_avxvnni, acc, w, x->q, zero * x->sum[0], rows, cols, 4);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -zero * x->sum[i];
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            __m256i codes[CHUNK];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            const int8_t *q = x->q + first;
            bnc_unpack_i2_m32k64_avx2(codes, w, count);
            w += count * ROWS / 4;
            int i = 0;
            for (; i + TOKENS <= n; i += TOKENS)
                bnc_tile_i2_m32k64_avxvnni(acc + i * rows + m, rows, codes,
                                           q + i * (ptrdiff_t)x->stride, x->stride, TOKENS, count);
            for (; i < n; i++)
                bnc_tile_i2_m32k64_avxvnni(acc + i * rows + m, rows, codes,
                                           q + i * (ptrdiff_t)x->stride, x->stride, 1, count);
        }
}

BNC_KERNEL void bnc_matmul_i2_m32k64_avxvnni(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_avxvnni(acc, w, x, rows, cols, n, 1);
}

#endif
