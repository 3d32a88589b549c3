/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers in plain C, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Three bytes hold the codes of four columns, four apart: the lower six bits of each are one, and
 * the upper two of each, the first byte's lowest, are the fourth.
 * Bounds: |63 * q| <= 8001 a column: int32 lasts for 268,401 columns. */
#ifndef BNC_MATMUL_I6_M16K16_SCALAR_H
#define BNC_MATMUL_I6_M16K16_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i6_m16k16_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int i = 0; i < n; i++) {
        const uint8_t *codes = w;
        for (int m = 0; m < rows; m += BNC_I6_M16K16_ROWS) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            int32_t sum[BNC_I6_M16K16_ROWS] = { 0 };
            for (int k = 0; k < cols; k += BNC_I6_M16K16_COLS, codes += 192) {
                for (int r = 0; r < BNC_I6_M16K16_ROWS; r++)
                    for (int l = 0; l < 4; l++)
                        sum[r] += (codes[4 * r + l] & 63) * q[k + l] +
                                  (codes[64 + 4 * r + l] & 63) * q[k + 4 + l];
                for (int r = 0; r < BNC_I6_M16K16_ROWS; r++)
                    for (int l = 0; l < 4; l++) {
                        const uint8_t d =
                            (uint8_t)(codes[4 * r + l] >> 6 | (codes[64 + 4 * r + l] >> 4 & 0x0c) |
                                      (codes[128 + 4 * r + l] >> 2 & 0x30));
                        sum[r] += (codes[128 + 4 * r + l] & 63) * q[k + 8 + l] + d * q[k + 12 + l];
                    }
            }
            for (int r = 0; r < BNC_I6_M16K16_ROWS; r++)
                acc[i * rows + m + r] = sum[r] - 32 * x->sum[i];
        }
    }
}

#endif
