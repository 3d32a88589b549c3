/* SPDX-License-Identifier: MIT */
/* Ternary matmul for Helium (MVE of Armv8.1-M, the integer part), layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * VMLADAVA multiplies sixteen codes and activations and adds all products to a general register,
 * one for each of four rows. Integers only: Helium takes denormal floats for zero.
 * Bounds: |code * q| <= 254: int32 lasts for 8.4 million columns. 2^20 are allowed: as many as an
 * emulated board has memory to check. */
#ifndef BNC_MATMUL_I2_M4K64_MVE_H
#define BNC_MATMUL_I2_M4K64_MVE_H

#include <arm_mve.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* One block of one row: 16 bytes of codes times their four registers of activations. */
BNC_INLINE int32_t bnc_row_mve(int32_t sum, const uint8_t *w, int8x16_t x0, int8x16_t x1,
                               int8x16_t x2, int8x16_t x3)
{
    const uint8x16_t low2 = vdupq_n_u8(3), c = vldrbq_u8(w);
    sum = vmladavaq_s8(sum, vreinterpretq_s8_u8(vshrq_n_u8(c, 6)), x0);
    sum = vmladavaq_s8(sum, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 4), low2)), x1);
    sum = vmladavaq_s8(sum, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 2), low2)), x2);
    return vmladavaq_s8(sum, vreinterpretq_s8_u8(vandq_u8(c, low2)), x3);
}

/* acc = codes * q - zero * sum of q. zero: constant once inlined */
BNC_INLINE void bnc_codes_m4k64_mve(int32_t *restrict acc, const uint8_t *restrict w,
                                    const struct bnc_acts *x, int rows, int cols, int n, int zero)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++) {
            const uint8_t *codes = w;
            const int8_t *q = x->q + i * x->stride;
            int32_t sum[4] = { 0, 0, 0, 0 };
            for (int kb = 0; kb < blocks; kb++) {
                const int8x16_t x0 = vldrbq_s8(q), x1 = vldrbq_s8(q + 16);
                const int8x16_t x2 = vldrbq_s8(q + 32), x3 = vldrbq_s8(q + 48);
                for (int r = 0; r < 4; r++)
                    sum[r] = bnc_row_mve(sum[r], codes + 16 * r, x0, x1, x2, x3);
                codes += 64;
                q += BNC_I2_M4K64_COLS;
            }
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = sum[r] - zero * x->sum[i];
        }
        w += (ptrdiff_t)blocks * 64;
    }
}

BNC_KERNEL void bnc_matmul_i2_m4k64_mve(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_mve(acc, w, x, rows, cols, n, 1);
}

#endif
