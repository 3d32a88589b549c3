/* SPDX-License-Identifier: MIT */
/* Matmul of 8-bit integers in plain C, layout i8_m16k4.
 *
 *     sum over k of (code - 128) * q = sum of code * q - 128 * sum of q,   code = value + 128
 *
 * Bounds: |255 * q| <= 32385 a column: int32 lasts for 66,311 columns. */
#ifndef BNC_MATMUL_I8_M16K4_SCALAR_H
#define BNC_MATMUL_I8_M16K4_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I8_M16K4_ROWS == 16 && BNC_I8_M16K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i8_m16k4_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int i = 0; i < n; i++) {
        const uint8_t *codes = w;
        for (int m = 0; m < rows; m += BNC_I8_M16K4_ROWS) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            int32_t sum[BNC_I8_M16K4_ROWS] = { 0 };
            for (int k = 0; k < cols; k += BNC_I8_M16K4_COLS, codes += 64)
                for (int r = 0; r < BNC_I8_M16K4_ROWS; r++)
                    sum[r] += codes[4 * r] * q[k] + codes[4 * r + 1] * q[k + 1] +
                              codes[4 * r + 2] * q[k + 2] + codes[4 * r + 3] * q[k + 3];
            for (int r = 0; r < BNC_I8_M16K4_ROWS; r++)
                acc[i * rows + m + r] = sum[r] - 128 * x->sum[i];
        }
    }
}

#endif
