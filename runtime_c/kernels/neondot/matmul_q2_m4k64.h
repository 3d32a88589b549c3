/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for AArch64 with dot product, layout q2_m4k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits.
 * Bounds: |48 * q| <= 6096 a column, so int32 lasts for 352,277 columns. */
#ifndef BNC_MATMUL_Q2_M4K64_NEONDOT_H
#define BNC_MATMUL_Q2_M4K64_NEONDOT_H

#include "matmul_i2_m4k64.h"

_Static_assert(BNC_Q2_M4K64_ROWS == 4 && BNC_Q2_M4K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neondot(acc, w, x, rows, cols, n, 2);
}

#endif
