/* SPDX-License-Identifier: MIT */
/* Matmul of signs for AVX2, layout b1_m32k64.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Bits j of a register are 8 rows of four neighbouring columns, four bytes a row, as the codes of
 * i2_m32k64. For one token two bits are taken from each of four shifts: those at bit 0 as they are,
 * those at bit 1 masked where they lie, which is the 2 of the formula. With several tokens a bit is
 * unpacked to a code 0 or 2, and a sign is that code less one, as a trit is.
 * Bounds: in int16 a pair adds at most 254, 508 where it counts twice: four of them for 32 columns,
 * so that 512 columns are 32512, of which groups of 128 are summed. int32 lasts for 8,454,660. */
#ifndef BNC_MATMUL_B1_M32K64_AVX2_H
#define BNC_MATMUL_B1_M32K64_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_B1_M32K64_ROWS == 32 && BNC_B1_M32K64_COLS == 64, "unrolled by hand");

_Static_assert(BNC_TURN / 4 <= 128, "int16 sums");

/* sum[32 rows] += 2 * bit * q of one token and `count` <= BNC_TURN / 4 columns. */
BNC_KERNEL void bnc_group_b1_m32k64_avx2(int32_t *sum, const uint8_t *w, const int8_t *q, int count,
                                         ptrdiff_t ahead)
{
    const __m256i bit0 = _mm256_set1_epi8(0x01), bit1 = _mm256_set1_epi8(0x02);
    const __m256i ones = _mm256_set1_epi16(1), twos = _mm256_set1_epi16(2);
    __m256i once[4], twofold[4];
    for (int r = 0; r < 4; r++)
        once[r] = twofold[r] = _mm256_setzero_si256();
    for (int k = 0; k < count; k += 32, w += 128) {
        bnc_prefetch(w + ahead);
        bnc_prefetch(w + ahead + 64);
        for (int r = 0; r < 4; r++) {
            const __m256i c0 = bnc_load_i2_m32k64_avx2(w + 32 * r);
            const __m256i c[4] = { c0, _mm256_srli_epi16(c0, 2), _mm256_srli_epi16(c0, 4),
                                   _mm256_srli_epi16(c0, 6) };
            __m256i a[4], b[4];
            for (int j = 0; j < 4; j++) {
                a[j] = _mm256_maddubs_epi16(_mm256_and_si256(c[j], bit0),
                                            bnc_four_avx2(q + k + 28 - 8 * j));
                b[j] = _mm256_maddubs_epi16(_mm256_and_si256(c[j], bit1),
                                            bnc_four_avx2(q + k + 24 - 8 * j));
            }
            once[r] = _mm256_add_epi16(once[r], _mm256_add_epi16(_mm256_add_epi16(a[0], a[1]),
                                                                 _mm256_add_epi16(a[2], a[3])));
            twofold[r] =
                _mm256_add_epi16(twofold[r], _mm256_add_epi16(_mm256_add_epi16(b[0], b[1]),
                                                              _mm256_add_epi16(b[2], b[3])));
        }
    }
    for (int r = 0; r < 4; r++) {
        __m256i *to = (__m256i *)(void *)(sum + 8 * r);
        const __m256i both =
            _mm256_add_epi32(_mm256_madd_epi16(once[r], twos), _mm256_madd_epi16(twofold[r], ones));
        _mm256_storeu_si256(to, _mm256_add_epi32(bnc_load_i2_m32k64_avx2(to), both));
    }
}

/* The codes 0 and 2 of `cols` columns and 32 rows as [cols / 4][four] registers. */
BNC_KERNEL void bnc_unpack_b1_m32k64_avx2(__m256i *to, const uint8_t *w, int cols)
{
    const __m256i bit1 = _mm256_set1_epi8(0x02);
    for (int k = 0; k < cols; k += 32, to += 32)
        for (int r = 0; r < 4; r++, w += 32) {
            const __m256i c = bnc_load_i2_m32k64_avx2(w);
            for (int j = 0; j < 7; j++)
                to[4 * j + r] = _mm256_and_si256(_mm256_srli_epi16(c, 6 - j), bit1);
            to[28 + r] = _mm256_and_si256(_mm256_slli_epi16(c, 1), bit1);
        }
}

BNC_KERNEL void bnc_matmul_b1_m32k64_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_take_turns(bnc_group_b1_m32k64_avx2, acc, w, x->q, x->sum[0], rows, cols, 8);
    else
        bnc_many_m32k64_avx2(bnc_unpack_b1_m32k64_avx2, acc, w, x, rows, cols, n,
                             BNC_M32K64_AVX2_CHUNK, 8, 1);
}

#endif
