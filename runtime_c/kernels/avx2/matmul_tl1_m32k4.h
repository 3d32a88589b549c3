/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX2 by table look-up, layout tl1_m32k4, activation form lut16.
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]]
 *
 * One byte holds the codes of two pairs of one row; vpshufb looks up 32 rows at once, the low and
 * the high bytes of the entries apart, and unpacking joins them to int16.
 * Bounds: |entry| <= 254, so 128 pairs fit in an int16 lane (128 * 254 = 32512): 64 blocks of
 * columns are summed before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_TL1_M32K4_AVX2_H
#define BNC_MATMUL_TL1_M32K4_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_TL1_M32K4_AVX2_BLOCKS = 64 }; /* column blocks summed in int16 */
_Static_assert(BNC_TL1_M32K4_AVX2_BLOCKS * 2 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_TL1_M32K4_ROWS == 32 && BNC_TL1_M32K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_tl1_m32k4_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    const __m256i low4 = _mm256_set1_epi8(15);
    const int blocks = cols / BNC_TL1_M32K4_COLS;
    for (int m = 0; m < rows; m += 32, w += blocks * 32)
        for (int i = 0; i < n; i++) {
            const __m128i *table =
                (const __m128i *)(const void *)(x->lut + (ptrdiff_t)i * x->stride * 16);
            __m256i sum[4]; /* rows 0-7, 8-15, 16-23, 24-31 */
            for (int r = 0; r < 4; r++)
                sum[r] = _mm256_setzero_si256();
            for (int first = 0; first < blocks; first += BNC_TL1_M32K4_AVX2_BLOCKS) {
                const int left = blocks - first;
                const int last =
                    first + (left < BNC_TL1_M32K4_AVX2_BLOCKS ? left : BNC_TL1_M32K4_AVX2_BLOCKS);
                __m256i low = _mm256_setzero_si256(), high = low; /* rows 0-7,16-23; 8-15,24-31 */
                for (int kb = first; kb < last; kb++) {
                    _mm_prefetch((const char *)w + 32 * kb + 4096, _MM_HINT_T0);
                    const __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)w + kb);
                    const __m256i pair[2] = { _mm256_and_si256(_mm256_srli_epi16(c, 4), low4),
                                              _mm256_and_si256(c, low4) };
                    for (int p = 0; p < 2; p++) {
                        const __m128i *t = table + 4 * kb + 2 * p;
                        const __m256i l = _mm256_shuffle_epi8(
                            _mm256_broadcastsi128_si256(_mm_loadu_si128(t)), pair[p]);
                        const __m256i h = _mm256_shuffle_epi8(
                            _mm256_broadcastsi128_si256(_mm_loadu_si128(t + 1)), pair[p]);
                        low = _mm256_add_epi16(low, _mm256_unpacklo_epi8(l, h));
                        high = _mm256_add_epi16(high, _mm256_unpackhi_epi8(l, h));
                    }
                }
                const __m128i part[4] = { _mm256_castsi256_si128(low), _mm256_castsi256_si128(high),
                                          _mm256_extracti128_si256(low, 1),
                                          _mm256_extracti128_si256(high, 1) };
                for (int r = 0; r < 4; r++)
                    sum[r] = _mm256_add_epi32(sum[r], _mm256_cvtepi16_epi32(part[r]));
            }
            for (int r = 0; r < 4; r++)
                _mm256_storeu_si256((__m256i *)(void *)(acc + i * rows + m + 8 * r), sum[r]);
        }
}

#endif
