/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers in plain C, layout q2_k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loop of trits.
 * Bounds: |code * q| <= 381 and a lane gains four of them from one block, at most 1524, so 16
 * blocks fit in an int16 lane (24384) before widening. int32 then lasts for 5.6 million columns. */
#ifndef BNC_MATMUL_Q2_K64_SCALAR_H
#define BNC_MATMUL_Q2_K64_SCALAR_H

#include "matmul_i2_k64.h"

enum { BNC_Q2_K64_SCALAR_BLOCKS = 16 }; /* column blocks summed in int16 */
_Static_assert(BNC_Q2_K64_SCALAR_BLOCKS * 4 * 381 <= 32767, "int16 lanes");
_Static_assert(BNC_Q2_K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_k64_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_k64_scalar(acc, w, x, rows, cols, n, BNC_Q2_K64_SCALAR_BLOCKS, 2);
}

#endif
