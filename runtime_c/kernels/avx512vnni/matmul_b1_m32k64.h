/* SPDX-License-Identifier: MIT */
/* Matmul of signs for AVX-512 with VNNI, layout b1_m32k64: what kernels/amx reads, without tiles.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * A register holds 32 columns of sixteen rows, four bytes a row; bits j of all bytes are four
 * columns, as in i2_m32k64. For one token two bits are taken from each of four shifts: those at bit
 * 0 as they are, those at bit 1 masked where they lie, which is the 2 of the formula. With several
 * tokens a bit is unpacked to a code 0 or 2, and a sign is that code less one, as a trit is.
 * Bounds: |2 * q| <= 254 a column in either sum, so int32 lasts for 8,454,660 columns; that of a
 * row is 127 * cols at most. */
#ifndef BNC_MATMUL_B1_M32K64_AVX512VNNI_H
#define BNC_MATMUL_B1_M32K64_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_B1_M32K64_ROWS == 32 && BNC_B1_M32K64_COLS == 64, "unrolled by hand");

/* acc of `streams` times 32 rows and one token; streams <= BNC_STREAMS is constant once inlined. */
BNC_KERNEL void bnc_streams_b1_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                 const int8_t *restrict q, int32_t sum_q,
                                                 int streams, int cols)
{
    const ptrdiff_t bytes = BNC_B1_M32K64_ROWS / 8 * (ptrdiff_t)cols; /* of a stream */
    const __m512i bit0 = _mm512_set1_epi8(0x01), bit1 = _mm512_set1_epi8(0x02);
    __m512i once[BNC_STREAMS][2], twofold[BNC_STREAMS][2]; /* [stream][half of its rows] */
    for (int s = 0; s < streams; s++)
        for (int h = 0; h < 2; h++)
            once[s][h] = twofold[s][h] = _mm512_setzero_si512();
    for (int k = 0; k < cols; k += 32) {
        __m512i x[8]; /* the columns of bit j */
        for (int j = 0; j < 8; j++)
            x[j] = bnc_four_avx512vnni(q + k + 28 - 4 * j);
        const ptrdiff_t at = BNC_B1_M32K64_ROWS / 8 * (ptrdiff_t)k;
        const ptrdiff_t ahead = at + bnc_ahead(at, bytes, streams);
        for (int s = 0; s < streams; s++) {
            bnc_prefetch(w + s * bytes + ahead);
            bnc_prefetch(w + s * bytes + ahead + 64);
            for (int h = 0; h < 2; h++) {
                const __m512i c0 = _mm512_loadu_si512(w + s * bytes + at + 64 * h);
                const __m512i c[4] = { c0, _mm512_srli_epi16(c0, 2), _mm512_srli_epi16(c0, 4),
                                       _mm512_srli_epi16(c0, 6) };
                for (int j = 0; j < 4; j++) {
                    once[s][h] =
                        _mm512_dpbusd_epi32(once[s][h], _mm512_and_si512(c[j], bit0), x[2 * j]);
                    twofold[s][h] = _mm512_dpbusd_epi32(twofold[s][h], _mm512_and_si512(c[j], bit1),
                                                        x[2 * j + 1]);
                }
            }
        }
    }
    for (int s = 0; s < streams; s++)
        for (int h = 0; h < 2; h++) {
            const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(once[s][h], 1), twofold[s][h]);
            _mm512_storeu_si512(acc + BNC_B1_M32K64_ROWS * s + 16 * h,
                                _mm512_sub_epi32(sum, _mm512_set1_epi32(sum_q)));
        }
}

/* One token: bound by memory. */
BNC_INLINE void bnc_matvec_b1_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    bnc_in_streams(bnc_streams_b1_m32k64_avx512vnni, acc, w, q, sum_q, rows, cols, 8);
}

/* The codes 0 and 2 of sixteen rows and 32 columns, `step` bytes between four columns. */
BNC_INLINE void bnc_unpack_b1_m32k64_avx512vnni(uint8_t *to, ptrdiff_t step, const uint8_t *w)
{
    const __m512i bit1 = _mm512_set1_epi8(0x02), c = _mm512_loadu_si512(w);
    _mm512_store_si512(to, _mm512_and_si512(_mm512_srli_epi16(c, 6), bit1));
    _mm512_store_si512(to + step, _mm512_and_si512(_mm512_srli_epi16(c, 5), bit1));
    _mm512_store_si512(to + 2 * step, _mm512_and_si512(_mm512_srli_epi16(c, 4), bit1));
    _mm512_store_si512(to + 3 * step, _mm512_and_si512(_mm512_srli_epi16(c, 3), bit1));
    _mm512_store_si512(to + 4 * step, _mm512_and_si512(_mm512_srli_epi16(c, 2), bit1));
    _mm512_store_si512(to + 5 * step, _mm512_and_si512(_mm512_srli_epi16(c, 1), bit1));
    _mm512_store_si512(to + 6 * step, _mm512_and_si512(c, bit1));
    _mm512_store_si512(to + 7 * step, _mm512_and_si512(_mm512_slli_epi16(c, 1), bit1));
}

/* The codes of 32 rows: bnc_unpack_avx512vnni. */
BNC_KERNEL void bnc_unpack_b1_m32k64(__m512i *to, int step, const uint8_t *w, int first, int count,
                                     int cols)
{
    (void)cols;
    w += 4 * (ptrdiff_t)first;
    for (int v = 0; v < count / 4; v += 8, to += 8 * step)
        for (int h = 0; h < 2; h++, w += 64)
            bnc_unpack_b1_m32k64_avx512vnni((uint8_t *)(to + h), 64 * (ptrdiff_t)step, w);
}

BNC_KERNEL void bnc_matmul_b1_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_b1_m32k64_avx512vnni(acc, w, x->q, x->sum[0], rows, cols);
    else
        bnc_many_avx512vnni(bnc_unpack_b1_m32k64, 512, 8, 1, acc, w, x, rows, cols, n);
}

#endif
