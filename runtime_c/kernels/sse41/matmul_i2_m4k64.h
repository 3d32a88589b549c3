/* SPDX-License-Identifier: MIT */
/* Ternary matmul for SSE4.1, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * pmaddubsw multiplies unsigned codes by signed activations and adds neighbours in int16.
 * Bounds: a lane gains at most 2 * 2 * 127 = 508 from one pmaddubsw, so 64 of them fit in int16:
 * 64 * 508 = 32512. One block of columns is four of them per row: 16 blocks, 1024 columns, are
 * summed in int16 before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M4K64_SSE41_H
#define BNC_MATMUL_I2_M4K64_SSE41_H

#include <smmintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_I2_M4K64_SSE41_BLOCKS = 16 }; /* column blocks summed in int16 */
_Static_assert(BNC_I2_M4K64_SSE41_BLOCKS * 4 * 508 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* Adds the int16 lanes to the int32 lanes. */
BNC_INLINE __m128i bnc_widen_sse41(__m128i sum, __m128i lanes16)
{
    return _mm_add_epi32(sum, _mm_madd_epi16(lanes16, _mm_set1_epi16(1)));
}

/* The sums of four registers of int32 lanes, in order. */
BNC_INLINE __m128i bnc_sum4_sse41(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return _mm_hadd_epi32(_mm_hadd_epi32(a, b), _mm_hadd_epi32(c, d));
}

/* One token: codes are used as they come from memory, each once. */
BNC_INLINE void bnc_matvec_i2_m4k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                          const int8_t *restrict q, int32_t sum_q, int rows,
                                          int cols)
{
    const __m128i low2 = _mm_set1_epi8(3);
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        __m128i sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = _mm_setzero_si128();
        for (int first = 0; first < blocks; first += BNC_I2_M4K64_SSE41_BLOCKS) {
            const int left = blocks - first;
            const int last =
                first + (left < BNC_I2_M4K64_SSE41_BLOCKS ? left : BNC_I2_M4K64_SSE41_BLOCKS);
            __m128i lanes[4];
            for (int r = 0; r < 4; r++)
                lanes[r] = _mm_setzero_si128();
            for (int kb = first; kb < last; kb++) {
                const __m128i *x = (const __m128i *)(const void *)(q + kb * BNC_I2_M4K64_COLS);
                const __m128i x0 = _mm_loadu_si128(x), x1 = _mm_loadu_si128(x + 1);
                const __m128i x2 = _mm_loadu_si128(x + 2), x3 = _mm_loadu_si128(x + 3);
                _mm_prefetch((const char *)w + 4096, _MM_HINT_T0);
                for (int r = 0; r < 4; r++) {
                    const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)w);
                    const __m128i c0 = _mm_and_si128(_mm_srli_epi16(c, 6), low2);
                    const __m128i c1 = _mm_and_si128(_mm_srli_epi16(c, 4), low2);
                    const __m128i c2 = _mm_and_si128(_mm_srli_epi16(c, 2), low2);
                    const __m128i c3 = _mm_and_si128(c, low2);
                    const __m128i p01 =
                        _mm_add_epi16(_mm_maddubs_epi16(c0, x0), _mm_maddubs_epi16(c1, x1));
                    const __m128i p23 =
                        _mm_add_epi16(_mm_maddubs_epi16(c2, x2), _mm_maddubs_epi16(c3, x3));
                    lanes[r] = _mm_add_epi16(lanes[r], _mm_add_epi16(p01, p23));
                    w += 16;
                }
            }
            for (int r = 0; r < 4; r++)
                sum[r] = bnc_widen_sse41(sum[r], lanes[r]);
        }
        const __m128i s = bnc_sum4_sse41(sum[0], sum[1], sum[2], sum[3]);
        _mm_storeu_si128((__m128i *)(void *)(acc + m), _mm_sub_epi32(s, _mm_set1_epi32(sum_q)));
    }
}

/* Several tokens: four rows of 1024 columns are unpacked to bytes once (4 KB, stays in L1) and
 * multiplied with the tokens two at a time. */
BNC_KERNEL void bnc_matmul_i2_m4k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_M4K64_SSE41_BLOCKS * BNC_I2_M4K64_COLS };
    if (n == 1) {
        bnc_matvec_i2_m4k64_sse41(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    const __m128i low2 = _mm_set1_epi8(3);
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = -x->sum[i];
        for (int first = 0; first < cols; first += CHUNK) {
            __m128i codes[4][CHUNK / 16];
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 16;
            for (int v = 0; v < count; v += 4)
                for (int r = 0; r < 4; r++) {
                    const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)w);
                    codes[r][v] = _mm_and_si128(_mm_srli_epi16(c, 6), low2);
                    codes[r][v + 1] = _mm_and_si128(_mm_srli_epi16(c, 4), low2);
                    codes[r][v + 2] = _mm_and_si128(_mm_srli_epi16(c, 2), low2);
                    codes[r][v + 3] = _mm_and_si128(c, low2);
                    w += 16;
                }
            for (int i = 0; i < n; i += 2) {
                const int j = i + 1 < n ? i + 1 : i; /* an odd last token is computed twice */
                const int8_t *qi = x->q + i * x->stride + first;
                const int8_t *qj = x->q + j * x->stride + first;
                __m128i a[4], b[4];
                for (int r = 0; r < 4; r++)
                    a[r] = b[r] = _mm_setzero_si128();
                for (int v = 0; v < count; v++) {
                    const __m128i xi = _mm_loadu_si128((const __m128i *)(const void *)qi + v);
                    const __m128i xj = _mm_loadu_si128((const __m128i *)(const void *)qj + v);
                    for (int r = 0; r < 4; r++) {
                        a[r] = _mm_add_epi16(a[r], _mm_maddubs_epi16(codes[r][v], xi));
                        b[r] = _mm_add_epi16(b[r], _mm_maddubs_epi16(codes[r][v], xj));
                    }
                }
                for (int r = 0; r < 4; r++) {
                    a[r] = bnc_widen_sse41(_mm_setzero_si128(), a[r]);
                    b[r] = bnc_widen_sse41(_mm_setzero_si128(), b[r]);
                }
                __m128i *to = (__m128i *)(void *)(acc + i * rows + m);
                _mm_storeu_si128(
                    to, _mm_add_epi32(_mm_loadu_si128(to), bnc_sum4_sse41(a[0], a[1], a[2], a[3])));
                if (j == i)
                    continue;
                to = (__m128i *)(void *)(acc + j * rows + m);
                _mm_storeu_si128(
                    to, _mm_add_epi32(_mm_loadu_si128(to), bnc_sum4_sse41(b[0], b[1], b[2], b[3])));
            }
        }
    }
}

#endif
