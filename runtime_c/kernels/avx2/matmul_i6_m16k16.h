/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers for AVX2, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Bounds: two pairs are at most 4 * 63 * 127 = 32004 in int16; int32 lasts for 268,401 columns. */
#ifndef BNC_MATMUL_I6_M16K16_AVX2_H
#define BNC_MATMUL_I6_M16K16_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

/* The codes of eight rows and four times four columns: three registers, 64 bytes apart. Words are
 * shifted instead of bytes; of what comes over from the neighbour nothing is left by the masks. */
BNC_INLINE void bnc_codes_i6_m16k16_avx2(__m256i code[4], const uint8_t *w)
{
    const __m256i low6 = _mm256_set1_epi8(0x3f);
    const __m256i a = bnc_load_i2_m32k64_avx2(w), b = bnc_load_i2_m32k64_avx2(w + 64);
    const __m256i c = bnc_load_i2_m32k64_avx2(w + 128);
    const __m256i bits01 = _mm256_and_si256(_mm256_srli_epi16(a, 6), _mm256_set1_epi8(0x03));
    const __m256i bits23 = _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(0x0c));
    const __m256i bits45 = _mm256_and_si256(_mm256_srli_epi16(c, 2), _mm256_set1_epi8(0x30));
    code[0] = _mm256_and_si256(a, low6);
    code[1] = _mm256_and_si256(b, low6);
    code[2] = _mm256_and_si256(c, low6);
    code[3] = _mm256_or_si256(_mm256_or_si256(bits01, bits23), bits45);
}

/* sum[8 rows] += codes * activations of sixteen columns */
BNC_INLINE __m256i bnc_add_i6_m16k16_avx2(__m256i sum, const __m256i code[4], __m256i x0,
                                          __m256i x1, __m256i x2, __m256i x3)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i first =
        _mm256_add_epi16(_mm256_maddubs_epi16(code[0], x0), _mm256_maddubs_epi16(code[1], x1));
    const __m256i second =
        _mm256_add_epi16(_mm256_maddubs_epi16(code[2], x2), _mm256_maddubs_epi16(code[3], x3));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(first, ones));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(second, ones));
}

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i6_m16k16_avx2(int32_t *acc, int rows, const uint8_t *w,
                                        const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    __m256i sum[4][2];
    for (int t = 0; t < tokens; t++)
        sum[t][0] = sum[t][1] = _mm256_set1_epi32(-32 * x->sum[i + t]);
    for (int k = 0; k < cols; k += 16, w += 192) {
        for (int line = 0; line < 192; line += 64)
            bnc_prefetch(w + BNC_AHEAD + line);
        for (int h = 0; h < 2; h++) {
            __m256i code[4];
            bnc_codes_i6_m16k16_avx2(code, w + 32 * h);
            for (int t = 0; t < tokens; t++) {
                const int8_t *at = q + t * (ptrdiff_t)x->stride + k;
                sum[t][h] = bnc_add_i6_m16k16_avx2(sum[t][h], code, bnc_four_avx2(at),
                                                   bnc_four_avx2(at + 4), bnc_four_avx2(at + 8),
                                                   bnc_four_avx2(at + 12));
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + t * rows + 8 * h), sum[t][h]);
}

/* acc of BNC_STREAMS times 16 rows and one token. */
BNC_INLINE void bnc_streams_i6_m16k16_avx2(int32_t *acc, const uint8_t *w, const struct bnc_acts *x,
                                           int cols)
{
    const ptrdiff_t bytes = 12 * (ptrdiff_t)cols; /* of a stream */
    __m256i sum[BNC_STREAMS][2];
    for (int s = 0; s < BNC_STREAMS; s++)
        sum[s][0] = sum[s][1] = _mm256_set1_epi32(-32 * x->sum[0]);
    for (int k = 0; k < cols; k += 16) {
        const __m256i x0 = bnc_four_avx2(x->q + k), x1 = bnc_four_avx2(x->q + k + 4);
        const __m256i x2 = bnc_four_avx2(x->q + k + 8), x3 = bnc_four_avx2(x->q + k + 12);
        const ptrdiff_t at = 12 * (ptrdiff_t)k, ahead = at + bnc_ahead(at, bytes, BNC_STREAMS);
        for (int s = 0; s < BNC_STREAMS; s++) {
            for (int line = 0; line < 192; line += 64)
                bnc_prefetch(w + s * bytes + ahead + line);
            for (int h = 0; h < 2; h++) {
                __m256i code[4];
                bnc_codes_i6_m16k16_avx2(code, w + s * bytes + at + 32 * h);
                sum[s][h] = bnc_add_i6_m16k16_avx2(sum[s][h], code, x0, x1, x2, x3);
            }
        }
    }
    for (int s = 0; s < BNC_STREAMS; s++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_si256((__m256i *)(void *)(acc + BNC_I6_M16K16_ROWS * s + 8 * h),
                                sum[s][h]);
}

BNC_KERNEL void bnc_matmul_i6_m16k16_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    int m = 0;
    for (; n == 1 && m + 16 * BNC_STREAMS <= rows; m += 16 * BNC_STREAMS)
        bnc_streams_i6_m16k16_avx2(acc + m, w + m / 16 * (12 * (ptrdiff_t)cols), x, cols);
    for (w += m / 16 * (12 * (ptrdiff_t)cols); m < rows; m += 16, w += 12 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i6_m16k16_avx2(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i6_m16k16_avx2(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
