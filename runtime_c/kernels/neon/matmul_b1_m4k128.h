/* SPDX-License-Identifier: MIT */
/* Matmul of signs for AArch64 NEON without dot product, layout b1_m4k128.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Nothing is multiplied: CMTST makes a mask of a bit, which leaves the activations where it is set,
 * and SADALP adds them in pairs to int16 lanes.
 * Bounds: a lane gains at most 254 from one SADALP and eight of them from one block, so 16 blocks
 * of columns fit in int16 (16 * 2032 = 32512) and are summed before widening. int32 then lasts for
 * 8.4 million columns. */
#ifndef BNC_MATMUL_B1_M4K128_NEON_H
#define BNC_MATMUL_B1_M4K128_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_B1_M4K128_NEON_BLOCKS = 16 }; /* column blocks summed in int16 */
_Static_assert(BNC_B1_M4K128_NEON_BLOCKS * 8 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_B1_M4K128_ROWS == 4 && BNC_B1_M4K128_COLS == 128, "unrolled by hand");

/* row[token][row] += the sixteen activations where `bit` of the row's bytes is set. */
BNC_INLINE void bnc_sixteen_b1_neon(int16x8_t row[][4], const uint8x16_t c[4],
                                    const int8_t *const *q, int tokens, int k, uint8_t bit)
{
    int8x16_t x[2];
    for (int t = 0; t < tokens; t++)
        x[t] = vld1q_s8(q[t] + k);
    const uint8x16_t bits = vdupq_n_u8(bit);
    for (int r = 0; r < 4; r++) {
        uint8x16_t mask = vtstq_u8(c[r], bits);
        __asm__("" : "+w"(mask)); /* Clang would make three instructions of this one and AND */
        for (int t = 0; t < tokens; t++)
            row[t][r] = vpadalq_s8(row[t][r], vandq_s8(x[t], vreinterpretq_s8_u8(mask)));
    }
}

/* Tokens i .. i + tokens - 1; tokens, 1 or 2, is constant once inlined. */
BNC_FRAME void bnc_tokens_b1_m4k128_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int i, int rows, int cols,
                                         int tokens)
{
    const int blocks = cols / BNC_B1_M4K128_COLS;
    const int8_t *q[2];
    for (int t = 0; t < tokens; t++)
        q[t] = x->q + (i + t) * (ptrdiff_t)x->stride;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum[2];
        for (int t = 0; t < tokens; t++)
            sum[t] = vdupq_n_s32(0);
        for (int first = 0; first < blocks; first += BNC_B1_M4K128_NEON_BLOCKS) {
            const int left = blocks - first;
            const int last =
                first + (left < BNC_B1_M4K128_NEON_BLOCKS ? left : BNC_B1_M4K128_NEON_BLOCKS);
            int16x8_t row[2][4];
            for (int t = 0; t < tokens; t++)
                for (int r = 0; r < 4; r++)
                    row[t][r] = vdupq_n_s16(0);
            for (int kb = first; kb < last; kb++, w += 64) {
                uint8x16_t c[4];
                for (int r = 0; r < 4; r++)
                    c[r] = vld1q_u8(w + 16 * r);
                const int k = kb * BNC_B1_M4K128_COLS;
                bnc_sixteen_b1_neon(row, c, q, tokens, k, 0x80);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 16, 0x40);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 32, 0x20);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 48, 0x10);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 64, 0x08);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 80, 0x04);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 96, 0x02);
                bnc_sixteen_b1_neon(row, c, q, tokens, k + 112, 0x01);
            }
            for (int t = 0; t < tokens; t++) {
                const int16x8_t *lanes = row[t];
                const int32x4_t low = vpaddq_s32(vpaddlq_s16(lanes[0]), vpaddlq_s16(lanes[1]));
                const int32x4_t high = vpaddq_s32(vpaddlq_s16(lanes[2]), vpaddlq_s16(lanes[3]));
                sum[t] = vaddq_s32(sum[t], vpaddq_s32(low, high));
            }
        }
        for (int t = 0; t < tokens; t++)
            vst1q_s32(acc + (i + t) * rows + m,
                      vsubq_s32(vaddq_s32(sum[t], sum[t]), vdupq_n_s32(x->sum[i + t])));
    }
}

/* Two tokens share a mask. */
BNC_KERNEL void bnc_matmul_b1_m4k128_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    int i = 0;
    for (; i + 2 <= n; i += 2)
        bnc_tokens_b1_m4k128_neon(acc, w, x, i, rows, cols, 2);
    if (i < n)
        bnc_tokens_b1_m4k128_neon(acc, w, x, i, rows, cols, 1);
}

#endif
