/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers for AVX2, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * Bounds: two pairs are at most 4 * 15 * 127 = 7620 in int16; int32 lasts for a million columns. */
#ifndef BNC_MATMUL_I4_M16K8_AVX2_H
#define BNC_MATMUL_I4_M16K8_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i4_m16k8_avx2(int32_t *acc, int rows, const uint8_t *w,
                                       const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    const __m256i low4 = _mm256_set1_epi8(0x0f), ones = _mm256_set1_epi16(1);
    __m256i sum[4][2];
    for (int t = 0; t < tokens; t++)
        sum[t][0] = sum[t][1] = _mm256_set1_epi32(-8 * x->sum[i + t]);
    for (int k = 0; k < cols; k += 8, w += 64) {
        bnc_prefetch(w + BNC_AHEAD);
        for (int h = 0; h < 2; h++) {
            const __m256i c = bnc_load_i2_m32k64_avx2(w + 32 * h);
            const __m256i low = _mm256_and_si256(c, low4);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(c, 4), low4);
            for (int t = 0; t < tokens; t++) {
                const int8_t *at = q + t * (ptrdiff_t)x->stride + k;
                const __m256i pair =
                    _mm256_add_epi16(_mm256_maddubs_epi16(high, bnc_four_avx2(at)),
                                     _mm256_maddubs_epi16(low, bnc_four_avx2(at + 4)));
                sum[t][h] = _mm256_add_epi32(sum[t][h], _mm256_madd_epi16(pair, ones));
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + t * rows + 8 * h), sum[t][h]);
}

/* acc of BNC_STREAMS times 16 rows and one token. */
BNC_INLINE void bnc_streams_i4_m16k8_avx2(int32_t *acc, const uint8_t *w, const struct bnc_acts *x,
                                          int cols)
{
    const ptrdiff_t bytes = BNC_I4_M16K8_ROWS / 2 * (ptrdiff_t)cols; /* of a stream */
    const __m256i low4 = _mm256_set1_epi8(0x0f), ones = _mm256_set1_epi16(1);
    __m256i sum[BNC_STREAMS][2];
    for (int s = 0; s < BNC_STREAMS; s++)
        sum[s][0] = sum[s][1] = _mm256_set1_epi32(-8 * x->sum[0]);
    for (int k = 0; k < cols; k += 8) {
        const __m256i x0 = bnc_four_avx2(x->q + k), x1 = bnc_four_avx2(x->q + k + 4);
        const ptrdiff_t at = BNC_I4_M16K8_ROWS / 2 * (ptrdiff_t)k;
        const ptrdiff_t ahead = at + bnc_ahead(at, bytes, BNC_STREAMS);
        for (int s = 0; s < BNC_STREAMS; s++) {
            bnc_prefetch(w + s * bytes + ahead);
            for (int h = 0; h < 2; h++) {
                const __m256i c = bnc_load_i2_m32k64_avx2(w + s * bytes + at + 32 * h);
                const __m256i low = _mm256_and_si256(c, low4);
                const __m256i high = _mm256_and_si256(_mm256_srli_epi16(c, 4), low4);
                const __m256i pair =
                    _mm256_add_epi16(_mm256_maddubs_epi16(high, x0), _mm256_maddubs_epi16(low, x1));
                sum[s][h] = _mm256_add_epi32(sum[s][h], _mm256_madd_epi16(pair, ones));
            }
        }
    }
    for (int s = 0; s < BNC_STREAMS; s++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + BNC_I4_M16K8_ROWS * s + 8 * h),
                                sum[s][h]);
}

BNC_KERNEL void bnc_matmul_i4_m16k8_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    int m = 0;
    for (; n == 1 && m + 16 * BNC_STREAMS <= rows; m += 16 * BNC_STREAMS)
        bnc_streams_i4_m16k8_avx2(acc + m, w + m / 2 * (ptrdiff_t)cols, x, cols);
    for (w += m / 2 * (ptrdiff_t)cols; m < rows; m += 16, w += 8 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i4_m16k8_avx2(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i4_m16k8_avx2(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
