/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for Helium (MVE of Armv8.1-M, the integer part), layout q2_m4k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loop of trits.
 * Bounds: |code * q| <= 381: int32 lasts for 5.6 million columns. */
#ifndef BNC_MATMUL_Q2_M4K64_MVE_H
#define BNC_MATMUL_Q2_M4K64_MVE_H

#include "matmul_i2_m4k64.h"

_Static_assert(BNC_Q2_M4K64_ROWS == 4 && BNC_Q2_M4K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m4k64_mve(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_mve(acc, w, x, rows, cols, n, 2);
}

#endif
