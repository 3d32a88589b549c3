/* SPDX-License-Identifier: MIT */
/* Ternary matmul for RV64 without vectors, layout i2_k64: four products by a multiplication.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Bounds: those of fields.h, where a block is 16 * 4 products of 254 at most. int32 lasts for 8.4
 * million columns. */
#ifndef BNC_MATMUL_I2_K64_RV64M_H
#define BNC_MATMUL_I2_K64_RV64M_H

#include "fields.h"

_Static_assert(BNC_I2_K64_COLS == 64, "four planes of 16 columns");

BNC_KERNEL void bnc_matmul_i2_k64_rv64m(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_k64_fields(acc, w, x, rows, cols, n, 1);
}

#endif
