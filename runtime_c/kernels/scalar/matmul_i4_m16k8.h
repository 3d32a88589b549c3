/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers in plain C, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * Bounds: |15 * q| <= 1905 a column: int32 lasts for a million columns. */
#ifndef BNC_MATMUL_I4_M16K8_SCALAR_H
#define BNC_MATMUL_I4_M16K8_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i4_m16k8_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int i = 0; i < n; i++) {
        const uint8_t *codes = w;
        for (int m = 0; m < rows; m += BNC_I4_M16K8_ROWS) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            int32_t sum[BNC_I4_M16K8_ROWS] = { 0 };
            for (int k = 0; k < cols; k += BNC_I4_M16K8_COLS, codes += 64)
                for (int r = 0; r < BNC_I4_M16K8_ROWS; r++)
                    for (int l = 0; l < 4; l++)
                        sum[r] += (codes[4 * r + l] >> 4) * q[k + l] +
                                  (codes[4 * r + l] & 15) * q[k + 4 + l];
            for (int r = 0; r < BNC_I4_M16K8_ROWS; r++)
                acc[i * rows + m + r] = sum[r] - 8 * x->sum[i];
        }
    }
}

#endif
