/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for RV64 without vectors, layout q2_k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * Four products by a multiplication, as those of trits.
 * Bounds: those of fields.h, where a block is 16 * 4 products of 381 at most. int32 lasts for 5.6
 * million columns. */
#ifndef BNC_MATMUL_Q2_K64_RV64M_H
#define BNC_MATMUL_Q2_K64_RV64M_H

#include "fields.h"

_Static_assert(BNC_Q2_K64_COLS == 64, "four planes of 16 columns");

BNC_KERNEL void bnc_matmul_q2_k64_rv64m(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_k64_fields(acc, w, x, rows, cols, n, 2);
}

#endif
