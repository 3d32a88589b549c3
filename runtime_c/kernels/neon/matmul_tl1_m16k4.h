/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON by table look-up, layout tl1_m16k4, activation form lut16.
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]]
 *
 * One byte holds the codes of two pairs of one row; TBL looks up sixteen rows at once, the low
 * bytes of the entries (added unsigned) and the high bytes (added signed) apart:
 * acc = sum of low bytes + 256 * sum of high bytes.
 * Bounds: a low byte is at most 255, so 256 pairs fit in a uint16 lane (65280); a high byte is
 * 0 or -1. 128 blocks of columns are summed before widening. */
#ifndef BNC_MATMUL_TL1_M16K4_NEON_H
#define BNC_MATMUL_TL1_M16K4_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_TL1_M16K4_NEON_BLOCKS = 128 }; /* column blocks summed in 16 bits */
_Static_assert(BNC_TL1_M16K4_NEON_BLOCKS * 2 * 255 <= 65535, "uint16 lanes");
_Static_assert(BNC_TL1_M16K4_ROWS == 16 && BNC_TL1_M16K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_tl1_m16k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    const uint8x16_t low4 = vdupq_n_u8(15);
    const int blocks = cols / BNC_TL1_M16K4_COLS;
    for (int m = 0; m < rows; m += 16, w += blocks * 16)
        for (int i = 0; i < n; i++) {
            const uint8_t *table = x->lut + (ptrdiff_t)i * x->stride * 16;
            int32x4_t sum[4];
            for (int r = 0; r < 4; r++)
                sum[r] = vdupq_n_s32(0);
            for (int first = 0; first < blocks; first += BNC_TL1_M16K4_NEON_BLOCKS) {
                const int left = blocks - first;
                const int last =
                    first + (left < BNC_TL1_M16K4_NEON_BLOCKS ? left : BNC_TL1_M16K4_NEON_BLOCKS);
                uint16x8_t low[2] = { vdupq_n_u16(0), vdupq_n_u16(0) };
                int16x8_t high[2] = { vdupq_n_s16(0), vdupq_n_s16(0) };
                for (int kb = first; kb < last; kb++) {
                    const uint8x16_t c = vld1q_u8(w + 16 * kb);
                    const uint8x16_t pair[2] = { vshrq_n_u8(c, 4), vandq_u8(c, low4) };
                    for (int p = 0; p < 2; p++) {
                        const uint8_t *t = table + 64 * kb + 32 * p;
                        const uint8x16_t l = vqtbl1q_u8(vld1q_u8(t), pair[p]);
                        const int8x16_t h =
                            vreinterpretq_s8_u8(vqtbl1q_u8(vld1q_u8(t + 16), pair[p]));
                        low[0] = vaddw_u8(low[0], vget_low_u8(l));
                        low[1] = vaddw_high_u8(low[1], l);
                        high[0] = vaddw_s8(high[0], vget_low_s8(h));
                        high[1] = vaddw_high_s8(high[1], h);
                    }
                }
                for (int r = 0; r < 2; r++) {
                    const uint32x4_t l0 = vmovl_u16(vget_low_u16(low[r]));
                    const uint32x4_t l1 = vmovl_high_u16(low[r]);
                    const int32x4_t h0 = vshll_n_s16(vget_low_s16(high[r]), 8);
                    const int32x4_t h1 = vshll_high_n_s16(high[r], 8);
                    sum[2 * r] = vaddq_s32(sum[2 * r], vaddq_s32(vreinterpretq_s32_u32(l0), h0));
                    sum[2 * r + 1] =
                        vaddq_s32(sum[2 * r + 1], vaddq_s32(vreinterpretq_s32_u32(l1), h1));
                }
            }
            for (int r = 0; r < 4; r++)
                vst1q_s32(acc + i * rows + m + 4 * r, sum[r]);
        }
}

#endif
