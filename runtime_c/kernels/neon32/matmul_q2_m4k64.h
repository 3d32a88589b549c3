/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for 32-bit Arm NEON, layout q2_m4k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits, with shorter sums in int16.
 * Bounds: a lane gains at most 3 * 127 = 381 from one VMLAL and four of them from one block, so 16
 * blocks of columns fit in int16 (24384). int32 then lasts for 5.6 million columns. */
#ifndef BNC_MATMUL_Q2_M4K64_NEON32_H
#define BNC_MATMUL_Q2_M4K64_NEON32_H

#include "matmul_i2_m4k64.h"

enum { BNC_Q2_M4K64_NEON32_BLOCKS = 16 }; /* column blocks summed in int16 */
_Static_assert(BNC_Q2_M4K64_NEON32_BLOCKS * 4 * 381 <= 32767, "int16 lanes");
_Static_assert(BNC_Q2_M4K64_ROWS == 4 && BNC_Q2_M4K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m4k64_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neon32(acc, w, x, rows, cols, n, BNC_Q2_M4K64_NEON32_BLOCKS, 2);
}

#endif
