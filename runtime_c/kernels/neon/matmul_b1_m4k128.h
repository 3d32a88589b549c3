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

/* Lanes of four rows += the sixteen activations where `bit` of their bytes is set. */
BNC_INLINE void bnc_sixteen_b1_neon(int16x8_t row[4], const uint8x16_t c[4], const int8_t *q,
                                    uint8_t bit)
{
    const int8x16_t x = vld1q_s8(q);
    const uint8x16_t bits = vdupq_n_u8(bit);
    for (int r = 0; r < 4; r++) {
        uint8x16_t mask = vtstq_u8(c[r], bits);
        __asm__("" : "+w"(mask)); /* Clang would make three instructions of this one and AND */
        row[r] = vpadalq_s8(row[r], vandq_s8(x, vreinterpretq_s8_u8(mask)));
    }
}

BNC_INLINE void bnc_matvec_b1_m4k128_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const int8_t *restrict q, int32_t sum_q, int rows,
                                          int cols)
{
    const int blocks = cols / BNC_B1_M4K128_COLS;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int first = 0; first < blocks; first += BNC_B1_M4K128_NEON_BLOCKS) {
            const int left = blocks - first;
            const int last =
                first + (left < BNC_B1_M4K128_NEON_BLOCKS ? left : BNC_B1_M4K128_NEON_BLOCKS);
            int16x8_t row[4];
            for (int r = 0; r < 4; r++)
                row[r] = vdupq_n_s16(0);
            for (int kb = first; kb < last; kb++, w += 64) {
                uint8x16_t c[4];
                for (int r = 0; r < 4; r++)
                    c[r] = vld1q_u8(w + 16 * r);
                const int8_t *at = q + kb * BNC_B1_M4K128_COLS;
                bnc_sixteen_b1_neon(row, c, at, 0x80);
                bnc_sixteen_b1_neon(row, c, at + 16, 0x40);
                bnc_sixteen_b1_neon(row, c, at + 32, 0x20);
                bnc_sixteen_b1_neon(row, c, at + 48, 0x10);
                bnc_sixteen_b1_neon(row, c, at + 64, 0x08);
                bnc_sixteen_b1_neon(row, c, at + 80, 0x04);
                bnc_sixteen_b1_neon(row, c, at + 96, 0x02);
                bnc_sixteen_b1_neon(row, c, at + 112, 0x01);
            }
            const int32x4_t low = vpaddq_s32(vpaddlq_s16(row[0]), vpaddlq_s16(row[1]));
            const int32x4_t high = vpaddq_s32(vpaddlq_s16(row[2]), vpaddlq_s16(row[3]));
            sum = vaddq_s32(sum, vpaddq_s32(low, high));
        }
        vst1q_s32(acc + m, vsubq_s32(vaddq_s32(sum, sum), vdupq_n_s32(sum_q)));
    }
}

/* Several tokens go one after the other: unpacked to bytes and multiplied, a bit takes more. */
BNC_KERNEL void bnc_matmul_b1_m4k128_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int i = 0; i < n; i++)
        bnc_matvec_b1_m4k128_neon(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride, x->sum[i],
                                  rows, cols);
}

#endif
