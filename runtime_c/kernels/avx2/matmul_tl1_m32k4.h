/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX2 by table look-up, layout tl1_m32k4, activation form lut16.
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]]
 *
 *                                                  + sum over wide pairs of t1 * q[2p+1]
 *
 * One byte holds the codes of two pairs of one row; vpshufb looks up 32 rows at once, as entry +
 * 128 so that unpacking with zeros widens them. Bounds: |entry| <= 127 and entry + 128 <= 255, so
 * 256 pairs fit in a uint16 lane (65280): 128 blocks of columns are summed before widening. int32
 * then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_TL1_M32K4_AVX2_H
#define BNC_MATMUL_TL1_M32K4_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_TL1_M32K4_AVX2_BLOCKS = 128 }; /* column blocks summed in 16 bits */
_Static_assert(BNC_TL1_M32K4_AVX2_BLOCKS * 2 * 255 <= 65535, "uint16 lanes");
_Static_assert(BNC_TL1_M32K4_ROWS == 32 && BNC_TL1_M32K4_COLS == 4, "unrolled by hand");

/* rows[2] += entry + 128 of 32 rows; rows 0-7 and 16-23, then 8-15 and 24-31 */
BNC_INLINE void bnc_look_tl1_m32k4_avx2(__m256i rows[2], __m128i table, __m256i codes)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m128i above = _mm_xor_si128(table, _mm_set1_epi8(-128));
    const __m256i e = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(above), codes);
    rows[0] = _mm256_add_epi16(rows[0], _mm256_unpacklo_epi8(e, zero));
    rows[1] = _mm256_add_epi16(rows[1], _mm256_unpackhi_epi8(e, zero));
}

/* sum[4] += rows[2] - 128 * looks; eight rows each, in order */
BNC_INLINE void bnc_widen_tl1_m32k4_avx2(__m256i sum[4], const __m256i rows[2], int looks)
{
    const __m128i part[4] = { _mm256_castsi256_si128(rows[0]), _mm256_castsi256_si128(rows[1]),
                              _mm256_extracti128_si256(rows[0], 1),
                              _mm256_extracti128_si256(rows[1], 1) };
    const __m256i bias = _mm256_set1_epi32(128 * looks);
    for (int r = 0; r < 4; r++)
        sum[r] = _mm256_add_epi32(sum[r], _mm256_sub_epi32(_mm256_cvtepu16_epi32(part[r]), bias));
}

BNC_KERNEL void bnc_matmul_tl1_m32k4_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    const __m256i low4 = _mm256_set1_epi8(15);
    const int blocks = cols / BNC_TL1_M32K4_COLS;
    for (int m = 0; m < rows; m += 32, w += blocks * 32)
        for (int i = 0; i < n; i++) {
            const __m128i *table = (const __m128i *)(const void *)bnc_lut_tables(x, i);
            const uint32_t *entry = bnc_lut_wide(x, i) + 1, *end = entry + entry[-1];
            __m256i sum[4]; /* rows 0-7, 8-15, 16-23, 24-31 */
            for (int r = 0; r < 4; r++)
                sum[r] = _mm256_setzero_si256();
            for (int first = 0; first < blocks; first += BNC_TL1_M32K4_AVX2_BLOCKS) {
                const int left = blocks - first;
                const int last =
                    first + (left < BNC_TL1_M32K4_AVX2_BLOCKS ? left : BNC_TL1_M32K4_AVX2_BLOCKS);
                __m256i row[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
                for (int kb = first; kb < last; kb++) {
                    _mm_prefetch((const char *)w + 32 * kb + 4096, _MM_HINT_T0);
                    const __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)w + kb);
                    bnc_look_tl1_m32k4_avx2(row, _mm_loadu_si128(table + 2 * kb),
                                            _mm256_and_si256(_mm256_srli_epi16(c, 4), low4));
                    bnc_look_tl1_m32k4_avx2(row, _mm_loadu_si128(table + 2 * kb + 1),
                                            _mm256_and_si256(c, low4));
                }
                bnc_widen_tl1_m32k4_avx2(sum, row, 2 * (last - first));
                int looks = 0;
                row[0] = row[1] = _mm256_setzero_si256();
                for (; entry < end && *entry >> 8 < (uint32_t)last * 2; entry++, looks++) {
                    const uint32_t pair = *entry >> 8;
                    const __m256i c =
                        _mm256_loadu_si256((const __m256i *)(const void *)w + pair / 2);
                    const __m256i shifted = pair & 1 ? c : _mm256_srli_epi16(c, 4);
                    bnc_look_tl1_m32k4_avx2(row,
                                            (__m128i)(BNC_LUT_SECOND * (int8_t)(uint8_t)*entry),
                                            _mm256_and_si256(shifted, low4));
                }
                bnc_widen_tl1_m32k4_avx2(sum, row, looks);
            }
            for (int r = 0; r < 4; r++)
                _mm256_storeu_si256((__m256i *)(void *)(acc + i * rows + m + 8 * r), sum[r]);
        }
}

#endif
