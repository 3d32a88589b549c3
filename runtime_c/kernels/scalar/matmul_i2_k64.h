/* SPDX-License-Identifier: MIT */
/* Ternary matmul in plain C, layout i2_k64: the kernel of any CPU without one of its own.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1
 *
 * Written so that a compiler may use whatever vectors it has.
 * Bounds: |code * q| <= 254 and a lane gains four of them from one block, at most 1016, so 32
 * blocks fit in an int16 lane (32512) before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_K64_SCALAR_H
#define BNC_MATMUL_I2_K64_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_I2_K64_SCALAR_BLOCKS = 32 }; /* column blocks summed in int16 */
_Static_assert(BNC_I2_K64_SCALAR_BLOCKS * 4 * 254 <= 32767, "int16 lanes");

/* acc = codes * q - zero * sum of q. most: blocks of columns summed in int16, constant once
 * inlined, as zero */
BNC_INLINE void bnc_codes_k64_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, int rows, int cols, int n, int most,
                                     int zero)
{
    enum { BYTES = BNC_I2_K64_COLS / 4 };
    const int blocks = cols / BNC_I2_K64_COLS;
    for (int i = 0; i < n; i++) {
        const uint8_t *codes = w;
        for (int m = 0; m < rows; m++) {
            const int8_t *q = x->q + i * x->stride;
            int32_t sum = 0;
            for (int first = 0; first < blocks; first += most) {
                const int left = blocks - first;
                const int count = left < most ? left : most;
                int16_t lane[BYTES] = { 0 };
                for (int kb = 0; kb < count; kb++) {
                    __builtin_prefetch(codes + 4096);
                    for (int l = 0; l < BYTES; l++)
                        lane[l] = (int16_t)(lane[l] + (codes[l] >> 6) * q[l] +
                                            (codes[l] >> 4 & 3) * q[l + BYTES] +
                                            (codes[l] >> 2 & 3) * q[l + 2 * BYTES] +
                                            (codes[l] & 3) * q[l + 3 * BYTES]);
                    codes += BYTES;
                    q += BNC_I2_K64_COLS;
                }
                for (int l = 0; l < BYTES; l++)
                    sum += lane[l];
            }
            acc[i * rows + m] = sum - zero * x->sum[i];
        }
    }
}

BNC_KERNEL void bnc_matmul_i2_k64_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_k64_scalar(acc, w, x, rows, cols, n, BNC_I2_K64_SCALAR_BLOCKS, 1);
}

#endif
