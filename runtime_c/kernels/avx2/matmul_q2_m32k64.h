/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for AVX2, layout q2_m32k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits, with shorter sums in int16.
 * Bounds: in int16 a code's pair adds at most 762, 3048 where it counts fourfold: ten of them (80
 * columns) are 30480. Of several tokens 42 pairs (168 columns) are 32004. In int32 the fourfold
 * sums are at most 4 * 381 a column: they last for 1,409,112 columns. */
#ifndef BNC_MATMUL_Q2_M32K64_AVX2_H
#define BNC_MATMUL_Q2_M32K64_AVX2_H

#include "matmul_i2_m32k64.h"

enum { BNC_Q2_M32K64_AVX2_CHUNK = 128 }; /* columns of several tokens summed in int16 */
_Static_assert(BNC_Q2_M32K64_AVX2_CHUNK / 4 * 762 <= 32767, "int16 sums of several tokens");
_Static_assert(BNC_TURN / 8 / 8 * 3048 <= 32767, "int16 sums of one token");
_Static_assert(BNC_Q2_M32K64_ROWS == 32 && BNC_Q2_M32K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m32k64_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_take_turns(bnc_group_i2_m32k64_avx2, acc, w, x->q, 2 * x->sum[0], rows, cols, 4);
    else
        bnc_many_m32k64_avx2(bnc_unpack_i2_m32k64_avx2, acc, w, x, rows, cols, n,
                             BNC_Q2_M32K64_AVX2_CHUNK, 4, 2);
}

#endif
