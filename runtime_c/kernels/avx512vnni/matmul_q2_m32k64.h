/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for AVX-512 with VNNI, layout q2_m32k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits.
 * Bounds: |12 * q| <= 1524 a column, so int32 lasts for 1,409,112 columns. */
#ifndef BNC_MATMUL_Q2_M32K64_AVX512VNNI_H
#define BNC_MATMUL_Q2_M32K64_AVX512VNNI_H

#include "matmul_i2_m32k64.h"

_Static_assert(BNC_Q2_M32K64_ROWS == 32 && BNC_Q2_M32K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m32k64_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_i2_m32k64_avx512vnni(acc, w, x->q, 2 * x->sum[0], rows, cols);
    else
        bnc_many_avx512vnni(bnc_unpack_i2_m32k64, 512, 4, 2, acc, w, x, rows, cols, n);
}

#endif
