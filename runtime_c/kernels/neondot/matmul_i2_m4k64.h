/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with dot product, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SDOT adds four products of signed bytes to an int32 lane. For one token, three of the four codes
 * of a byte are masked where they lie, so that plane j is summed 4^j times too large (the top one
 * is shifted down: 0x80 would be negative); the sums are multiples of 4^j and shifted at the end.
 * Bounds: |32 * q| <= 4064 a column, so int32 lasts for 528,416 columns. */
#ifndef BNC_MATMUL_I2_M4K64_NEONDOT_H
#define BNC_MATMUL_I2_M4K64_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "many.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

BNC_INLINE void bnc_matvec_i2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q, int32_t sum_q, int rows,
                                            int cols)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    const uint8x16_t mask[3] = { vdupq_n_u8(0x03), vdupq_n_u8(0x0c), vdupq_n_u8(0x30) };
    for (int m = 0; m < rows; m += 4) {
        int32x4_t plane[4][4]; /* [plane][row] */
        for (int p = 0; p < 4; p++)
            for (int r = 0; r < 4; r++)
                plane[p][r] = vdupq_n_s32(0);
        for (int kb = 0; kb < blocks; kb++) {
            const int8_t *at = q + kb * BNC_I2_M4K64_COLS;
            const int8x16_t x3 = vld1q_s8(at), x2 = vld1q_s8(at + 16);
            const int8x16_t x1 = vld1q_s8(at + 32), x0 = vld1q_s8(at + 48);
            for (int r = 0; r < 4; r++) {
                const uint8x16_t c = vld1q_u8(w);
                const int8x16_t c0 = vreinterpretq_s8_u8(vandq_u8(c, mask[0]));
                const int8x16_t c1 = vreinterpretq_s8_u8(vandq_u8(c, mask[1]));
                const int8x16_t c2 = vreinterpretq_s8_u8(vandq_u8(c, mask[2]));
                const int8x16_t c3 = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
                plane[0][r] = vdotq_s32(plane[0][r], c0, x0);
                plane[1][r] = vdotq_s32(plane[1][r], c1, x1);
                plane[2][r] = vdotq_s32(plane[2][r], c2, x2);
                plane[3][r] = vdotq_s32(plane[3][r], c3, x3);
                w += 16;
            }
        }
        int32x4_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = vaddq_s32(vaddq_s32(plane[0][r], plane[3][r]),
                               vaddq_s32(vshrq_n_s32(plane[1][r], 2), vshrq_n_s32(plane[2][r], 4)));
        vst1q_s32(acc + m,
                  vsubq_s32(bnc_sum4_neon(sum[0], sum[1], sum[2], sum[3]), vdupq_n_s32(sum_q)));
    }
}

BNC_KERNEL int8x16_t bnc_code_i2_neondot(uint8x16_t bytes, int v)
{
    const uint8x16_t code = bytes >> (uint8_t)(6 - 2 * v);
    return vreinterpretq_s8_u8(v ? vandq_u8(code, vdupq_n_u8(3)) : code);
}

/* acc = codes * q - zero * sum of q. zero: constant once inlined, here and below */
BNC_INLINE void bnc_few_i2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n,
                                         int zero)
{
    const int i =
        bnc_few_neondot(acc, w, x, rows, cols, n, BNC_I2_M4K64_COLS, zero, bnc_code_i2_neondot);
    if (i < n)
        bnc_matvec_i2_m4k64_neondot(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride,
                                    zero * x->sum[i], rows, cols);
}

BNC_INLINE void bnc_codes_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n,
                                        int zero)
{
    if (n > BNC_FEW_MOST)
        bnc_many_neondot(acc, w, x, rows, cols, n, BNC_I2_M4K64_COLS, zero, bnc_code_i2_neondot);
    else
        bnc_few_i2_m4k64_neondot(acc, w, x, rows, cols, n, zero);
}

BNC_KERNEL void bnc_matmul_i2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neondot(acc, w, x, rows, cols, n, 1);
}

#endif
