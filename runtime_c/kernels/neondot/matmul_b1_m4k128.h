/* SPDX-License-Identifier: MIT */
/* Matmul of signs for AArch64 with dot product, layout b1_m4k128.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * SDOT adds four products of signed bytes to an int32 lane. For one token two bits are taken from
 * each of four shifts: those at bit 0 as they are, those at bit 1 masked where they lie, which is
 * the 2 of the formula. With several tokens a bit is unpacked to a code 0 or 2, and a sign is that
 * code less one, as a trit of i2_m4k64 is.
 * Bounds: |2 * q| <= 254 a column in either sum: int32 lasts for 8,454,660 columns. */
#ifndef BNC_MATMUL_B1_M4K128_NEONDOT_H
#define BNC_MATMUL_B1_M4K128_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_B1_M4K128_ROWS == 4 && BNC_B1_M4K128_COLS == 128, "unrolled by hand");

BNC_INLINE void bnc_matvec_b1_m4k128_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                             const int8_t *restrict q, int32_t sum_q, int rows,
                                             int cols)
{
    const uint8x16_t bit0 = vdupq_n_u8(1), bit1 = vdupq_n_u8(2);
    for (int m = 0; m < rows; m += 4) {
        int32x4_t once[4], twofold[4];
        for (int r = 0; r < 4; r++)
            once[r] = twofold[r] = vdupq_n_s32(0);
        for (int k = 0; k < cols; k += BNC_B1_M4K128_COLS) {
            int8x16_t x[8];
            for (int v = 0; v < 8; v++)
                x[v] = vld1q_s8(q + k + 16 * v);
            for (int r = 0; r < 4; r++, w += 16) {
                const uint8x16_t c0 = vld1q_u8(w);
                const uint8x16_t c[4] = { vshrq_n_u8(c0, 6), vshrq_n_u8(c0, 4), vshrq_n_u8(c0, 2),
                                          c0 };
                for (int v = 0; v < 4; v++) {
                    const int8x16_t odd = vreinterpretq_s8_u8(vandq_u8(c[v], bit1));
                    const int8x16_t even = vreinterpretq_s8_u8(vandq_u8(c[v], bit0));
                    twofold[r] = vdotq_s32(twofold[r], odd, x[2 * v]);
                    once[r] = vdotq_s32(once[r], even, x[2 * v + 1]);
                }
            }
        }
        int32x4_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = vaddq_s32(vaddq_s32(once[r], once[r]), twofold[r]);
        vst1q_s32(acc + m,
                  vsubq_s32(bnc_sum4_neon(sum[0], sum[1], sum[2], sum[3]), vdupq_n_s32(sum_q)));
    }
}

BNC_KERNEL int8x16_t bnc_code_b1_neondot(uint8x16_t bytes, int v)
{
    const uint8x16_t code = v < 7 ? bytes >> (uint8_t)(6 - v) : bytes << (uint8_t)1;
    return vreinterpretq_s8_u8(vandq_u8(code, vdupq_n_u8(2)));
}

BNC_KERNEL void bnc_matmul_b1_m4k128_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { BLOCK = BNC_B1_M4K128_COLS };
    if (n > BNC_FEW_MOST) {
        bnc_many_neondot(acc, w, x, rows, cols, n, BLOCK, 1, bnc_code_b1_neondot);
        return;
    }
    const int i = bnc_few_neondot(acc, w, x, rows, cols, n, BLOCK, 1, bnc_code_b1_neondot);
    if (i < n)
        bnc_matvec_b1_m4k128_neondot(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride, x->sum[i],
                                     rows, cols);
}

#endif
