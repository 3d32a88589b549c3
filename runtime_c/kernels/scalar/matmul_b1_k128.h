/* SPDX-License-Identifier: MIT */
/* Matmul of signs in plain C, layout b1_k128: the kernel of any CPU without one of its own.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Written so that a compiler may use whatever vectors it has.
 * Bounds: |bit * q| <= 127 and a lane gains eight of them from one block, at most 1016, so 32
 * blocks fit in an int16 lane (32512) before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_B1_K128_SCALAR_H
#define BNC_MATMUL_B1_K128_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_B1_K128_SCALAR_BLOCKS = 32 }; /* column blocks summed in int16 */
_Static_assert(BNC_B1_K128_SCALAR_BLOCKS * 8 * 127 <= 32767, "int16 lanes");

BNC_KERNEL void bnc_matmul_b1_k128_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { BYTES = BNC_B1_K128_COLS / 8 };
    const int blocks = cols / BNC_B1_K128_COLS;
    for (int i = 0; i < n; i++) {
        const uint8_t *bits = w;
        for (int m = 0; m < rows; m++) {
            const int8_t *q = x->q + i * x->stride;
            int32_t sum = 0;
            for (int first = 0; first < blocks; first += BNC_B1_K128_SCALAR_BLOCKS) {
                const int left = blocks - first;
                const int count =
                    left < BNC_B1_K128_SCALAR_BLOCKS ? left : BNC_B1_K128_SCALAR_BLOCKS;
                int16_t lane[BYTES] = { 0 };
                for (int kb = 0; kb < count; kb++) {
                    __builtin_prefetch(bits + 4096);
                    for (int l = 0; l < BYTES; l++)
                        lane[l] = (int16_t)(lane[l] + (bits[l] >> 7) * q[l] +
                                            (bits[l] >> 6 & 1) * q[l + BYTES] +
                                            (bits[l] >> 5 & 1) * q[l + 2 * BYTES] +
                                            (bits[l] >> 4 & 1) * q[l + 3 * BYTES]);
                    for (int l = 0; l < BYTES; l++)
                        lane[l] = (int16_t)(lane[l] + (bits[l] >> 3 & 1) * q[l + 4 * BYTES] +
                                            (bits[l] >> 2 & 1) * q[l + 5 * BYTES] +
                                            (bits[l] >> 1 & 1) * q[l + 6 * BYTES] +
                                            (bits[l] & 1) * q[l + 7 * BYTES]);
                    bits += BYTES;
                    q += BNC_B1_K128_COLS;
                }
                for (int l = 0; l < BYTES; l++)
                    sum += lane[l];
            }
            acc[i * rows + m] = 2 * sum - x->sum[i];
        }
    }
}

#endif
