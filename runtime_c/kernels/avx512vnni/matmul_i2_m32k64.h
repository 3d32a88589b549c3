/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VNNI, layout i2_m32k64: what kernels/amx reads, without tiles.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * A register holds four columns of sixteen rows, four bytes a row. vpdpbusd multiplies its unsigned
 * codes by four activations that all rows share, and adds the products to each row's int32 lane.
 * For one token a register is shifted once: codes at bits 0 and 1 of a nibble are taken as they
 * are, those at bits 2 and 3 are masked where they lie, which makes their sums four times too
 * large; they are multiples of four and are shifted at the end.
 * Bounds: |8 * q| <= 1016 a column, so int32 lasts for 2,113,664 columns; the planner's limit is
 * lower. */
#ifndef BNC_MATMUL_I2_M32K64_AVX512VNNI_H
#define BNC_MATMUL_I2_M32K64_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "many.h"

_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

/* acc of `streams` times 32 rows and one token; streams <= BNC_STREAMS is constant once inlined. */
BNC_KERNEL void bnc_streams_i2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                 const int8_t *restrict q, int32_t sum_q,
                                                 int streams, int cols)
{
    const ptrdiff_t bytes = BNC_I2_M32K64_ROWS / 4 * (ptrdiff_t)cols; /* of a stream */
    const __m512i low2 = _mm512_set1_epi8(0x03), next2 = _mm512_set1_epi8(0x0c);
    __m512i once[BNC_STREAMS][2], fourfold[BNC_STREAMS][2]; /* [stream][half of its rows] */
    for (int s = 0; s < streams; s++)
        for (int h = 0; h < 2; h++)
            once[s][h] = fourfold[s][h] = _mm512_setzero_si512();
    for (int k = 0; k < cols; k += 16) {
        const __m512i x0 = bnc_four_avx512vnni(q + k + 12), x1 = bnc_four_avx512vnni(q + k + 8);
        const __m512i x2 = bnc_four_avx512vnni(q + k + 4), x3 = bnc_four_avx512vnni(q + k);
        const ptrdiff_t at = 8 * (ptrdiff_t)k, ahead = at + bnc_ahead(at, bytes, streams);
        for (int s = 0; s < streams; s++) {
            bnc_prefetch(w + s * bytes + ahead);
            bnc_prefetch(w + s * bytes + ahead + 64);
            for (int h = 0; h < 2; h++) {
                const __m512i c = _mm512_loadu_si512(w + s * bytes + at + 64 * h);
                const __m512i d = _mm512_srli_epi16(c, 4);
                once[s][h] = _mm512_dpbusd_epi32(once[s][h], _mm512_and_si512(c, low2), x0);
                fourfold[s][h] =
                    _mm512_dpbusd_epi32(fourfold[s][h], _mm512_and_si512(c, next2), x1);
                once[s][h] = _mm512_dpbusd_epi32(once[s][h], _mm512_and_si512(d, low2), x2);
                fourfold[s][h] =
                    _mm512_dpbusd_epi32(fourfold[s][h], _mm512_and_si512(d, next2), x3);
            }
        }
    }
    for (int s = 0; s < streams; s++)
        for (int h = 0; h < 2; h++) {
            const __m512i sum = _mm512_add_epi32(once[s][h], _mm512_srai_epi32(fourfold[s][h], 2));
            _mm512_storeu_si512(acc + BNC_I2_M32K64_ROWS * s + 16 * h,
                                _mm512_sub_epi32(sum, _mm512_set1_epi32(sum_q)));
        }
}

/* One token: bound by memory. */
BNC_INLINE void bnc_matvec_i2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    bnc_in_streams(bnc_streams_i2_m32k64_avx512vnni, acc, w, q, sum_q, rows, cols, 4);
}

/* The codes of 32 rows: bnc_unpack_avx512vnni. */
BNC_KERNEL void bnc_unpack_i2_m32k64(__m512i *to, int step, const uint8_t *w, int first, int count,
                                     int cols)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    (void)cols;
    w += 8 * (ptrdiff_t)first;
    for (int v = 0; v < count / 4; v += 4, to += 4 * step)
        for (int h = 0; h < 2; h++, w += 64) {
            const __m512i c = _mm512_loadu_si512(w);
            to[h] = _mm512_and_si512(_mm512_srli_epi16(c, 6), low2);
            to[h + step] = _mm512_and_si512(_mm512_srli_epi16(c, 4), low2);
            to[h + 2 * step] = _mm512_and_si512(_mm512_srli_epi16(c, 2), low2);
            to[h + 3 * step] = _mm512_and_si512(c, low2);
        }
}

BNC_KERNEL void bnc_matmul_i2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_i2_m32k64_avx512vnni(acc, w, x->q, x->sum[0], rows, cols);
    else
        bnc_many_avx512vnni(bnc_unpack_i2_m32k64, 512, 4, 1, acc, w, x, rows, cols, n);
}

#endif
