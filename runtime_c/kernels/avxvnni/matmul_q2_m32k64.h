/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for AVX-VNNI (256 bits), layout q2_m32k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits.
 * Bounds: |12 * q| <= 1524 a column, so int32 lasts for 1,409,112 columns. */
#ifndef BNC_MATMUL_Q2_M32K64_AVXVNNI_H
#define BNC_MATMUL_Q2_M32K64_AVXVNNI_H

#include "matmul_i2_m32k64.h"

_Static_assert(BNC_Q2_M32K64_ROWS == 32 && BNC_Q2_M32K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m32k64_avxvnni(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_avxvnni(acc, w, x, rows, cols, n, 2);
}

#endif
