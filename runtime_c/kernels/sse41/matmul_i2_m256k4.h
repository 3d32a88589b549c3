/* SPDX-License-Identifier: MIT */
/* Ternary matmul for SSE4.1, layout i2_m256k4: a column of 256 rows is a cache line, and columns
 * whose activation is zero are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Two columns are interleaved; pmaddubsw multiplies their codes of a row by the two activations and
 * adds them in int16. 64 rows at a time: their sums are eight registers. Several tokens go one
 * after the other, since each has its own zeros. Bounds: a lane gains at most 508 from two columns,
 * so 128 columns (32512) are summed in int16 before widening. int32 then lasts for 8.4 million
 * columns. */
#ifndef BNC_MATMUL_I2_M256K4_SSE41_H
#define BNC_MATMUL_I2_M256K4_SSE41_H

#include <smmintrin.h>

#include "../../bnc_columns.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");
_Static_assert(BNC_COLUMNS / 2 * 508 <= 32767, "int16 lanes");

/* acc += int16 sums of eight bytes of the line: four rows of each of two groups of 16. */
BNC_INLINE void bnc_add_rows_i2_m256k4_sse41(int32_t *acc, __m128i sums)
{
    for (int r = 0; r < 2; r++, acc += 16) {
        __m128i *to = (__m128i *)(void *)acc;
        const __m128i four = _mm_cvtepi16_epi32(r ? _mm_srli_si128(sums, 8) : sums);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), four));
    }
}

/* acc[256] += codes * q over the listed columns of w[column][64], and those of `next` fetched. An
 * even number is read: column[count] with an activation of zero. */
BNC_KERNEL void bnc_columns_i2_m256k4_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q,
                                            const struct bnc_columns *list,
                                            const struct bnc_columns *next)
{
    enum { AHEAD = 16 }; /* columns */
    const __m128i low2 = _mm_set1_epi8(3);
    for (int l = 0; l < 4; l++) { /* 16 bytes of the line */
        __m128i sum[4][2];        /* [plane][lower and upper bytes] */
        for (int p = 0; p < 4; p++)
            sum[p][0] = sum[p][1] = _mm_setzero_si128();
        for (int i = 0; i < list->count; i += 2) {
            const int k0 = list->column[i], k1 = list->column[i + 1];
            const int second = i + 1 < list->count ? q[k1] : 0;
            const __m128i x = _mm_set1_epi16((short)((q[k0] & 0xff) | (second & 0xff) << 8));
            const void *at0 = w + 64 * (ptrdiff_t)k0 + 16 * l,
                       *at1 = w + 64 * (ptrdiff_t)k1 + 16 * l;
            const __m128i a = _mm_loadu_si128(at0), b = _mm_loadu_si128(at1);
            const __m128i c[2] = { _mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b) };
            for (int j = i; j < i + 2; j++) /* this list's lines are in the cache after one pass */
                if (l == 0 && j + AHEAD < list->count)
                    _mm_prefetch((const char *)w + 64 * (ptrdiff_t)list->column[j + AHEAD],
                                 _MM_HINT_T0);
                else if (l == 1 && j < next->count)
                    _mm_prefetch((const char *)w + 64 * (ptrdiff_t)next->column[j], _MM_HINT_T0);
            for (int h = 0; h < 2; h++) {
                const __m128i c0 = _mm_and_si128(_mm_srli_epi16(c[h], 6), low2);
                const __m128i c1 = _mm_and_si128(_mm_srli_epi16(c[h], 4), low2);
                const __m128i c2 = _mm_and_si128(_mm_srli_epi16(c[h], 2), low2);
                const __m128i c3 = _mm_and_si128(c[h], low2);
                sum[0][h] = _mm_add_epi16(sum[0][h], _mm_maddubs_epi16(c0, x));
                sum[1][h] = _mm_add_epi16(sum[1][h], _mm_maddubs_epi16(c1, x));
                sum[2][h] = _mm_add_epi16(sum[2][h], _mm_maddubs_epi16(c2, x));
                sum[3][h] = _mm_add_epi16(sum[3][h], _mm_maddubs_epi16(c3, x));
            }
        }
        for (int p = 0; p < 4; p++)
            for (int h = 0; h < 2; h++)
                bnc_add_rows_i2_m256k4_sse41(acc + 64 * p + 32 * h + 4 * l, sum[p][h]);
    }
}

BNC_KERNEL void bnc_matmul_i2_m256k4_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_walk_columns(bnc_columns_i2_m256k4_sse41, BNC_I2_M256K4_ROWS, 1, acc, w, x, rows, cols, n);
}

#endif
