/* SPDX-License-Identifier: MIT */
/* Matmul of signs for RV64 without vectors, layout b1_k128: four products by a multiplication.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Bounds: those of fields.h, where a block is 32 * 4 products of 127 at most. int32 lasts for 8.4
 * million columns. */
#ifndef BNC_MATMUL_B1_K128_RV64M_H
#define BNC_MATMUL_B1_K128_RV64M_H

#include "fields.h"

_Static_assert(BNC_B1_K128_COLS == 128, "eight planes of 16 columns");

BNC_KERNEL void bnc_matmul_b1_k128_rv64m(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_matmul_fields(acc, w, x, rows, cols, n, 8);
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = 2 * acc[i * rows + m] - x->sum[i];
}

#endif
