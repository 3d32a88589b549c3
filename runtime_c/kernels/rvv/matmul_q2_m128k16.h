/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for RISC-V vectors (RVV 1.0, any register length), layout q2_m128k16.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits, with shorter sums in int16.
 * Bounds: a lane gains at most 381 from a column: 80 are 30480. Those of one token that count
 * fourfold, every fourth column, add as much, and 2. int32 then lasts for 5.6 million columns. */
#ifndef BNC_MATMUL_Q2_M128K16_RVV_H
#define BNC_MATMUL_Q2_M128K16_RVV_H

#include "matmul_i2_m128k16.h"

enum { BNC_Q2_M128K16_RVV_CHUNK = 80 }; /* columns summed in int16 */
_Static_assert(BNC_Q2_M128K16_RVV_CHUNK * 381 + 2 <= 32767, "int16 lanes");
_Static_assert(BNC_Q2_M128K16_ROWS == 128 && BNC_Q2_M128K16_COLS == 16, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m128k16_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m128k16_rvv(acc, w, x, rows, cols, n, BNC_Q2_M128K16_RVV_CHUNK, 2);
}

#endif
