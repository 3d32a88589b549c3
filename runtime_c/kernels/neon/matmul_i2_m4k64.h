/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON without dot product, layout i2_m4k64.
 *
 *     acc[m] = sum over k of trit * q
 *
 * |trit * q| <= 127 fits in int8 (bnc_quantise.h: |q| <= 127), so one MUL makes sixteen products
 * and one SADALP adds them in pairs to int16 lanes.
 * Bounds: a lane gains at most 2 * 127 = 254 from one SADALP, so 128 fit in int16 (32512): 32
 * blocks of columns are summed before widening. int32 then lasts for 16.9 million columns. */
#ifndef BNC_MATMUL_I2_M4K64_NEON_H
#define BNC_MATMUL_I2_M4K64_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_I2_M4K64_NEON_BLOCKS = 32 }; /* column blocks summed in int16 */
_Static_assert(BNC_I2_M4K64_NEON_BLOCKS * 4 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* Four registers of trits, one for each quarter of the block's columns. */
BNC_INLINE void bnc_unpack_i2_neon(int8x16_t trit[4], const uint8_t *w)
{
    const uint8x16_t low2 = vdupq_n_u8(3);
    const int8x16_t one = vdupq_n_s8(1);
    const uint8x16_t c = vld1q_u8(w);
    trit[0] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(c, 6)), one);
    trit[1] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 4), low2)), one);
    trit[2] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 2), low2)), one);
    trit[3] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(c, low2)), one);
}

BNC_INLINE void bnc_matvec_i2_m4k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int rows, int cols)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = vdupq_n_s32(0);
        for (int first = 0; first < blocks; first += BNC_I2_M4K64_NEON_BLOCKS) {
            const int left = blocks - first;
            const int last =
                first + (left < BNC_I2_M4K64_NEON_BLOCKS ? left : BNC_I2_M4K64_NEON_BLOCKS);
            int16x8_t lanes[4];
            for (int r = 0; r < 4; r++)
                lanes[r] = vdupq_n_s16(0);
            for (int kb = first; kb < last; kb++) {
                int8x16_t x[4];
                for (int v = 0; v < 4; v++)
                    x[v] = vld1q_s8(q + kb * BNC_I2_M4K64_COLS + 16 * v);
                for (int r = 0; r < 4; r++) {
                    int8x16_t trit[4];
                    bnc_unpack_i2_neon(trit, w);
                    for (int v = 0; v < 4; v++)
                        lanes[r] = vpadalq_s8(lanes[r], vmulq_s8(trit[v], x[v]));
                    w += 16;
                }
            }
            for (int r = 0; r < 4; r++)
                sum[r] = vpadalq_s16(sum[r], lanes[r]);
        }
        vst1q_s32(acc + m, vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3])));
    }
}

/* Several tokens: four rows of 2048 columns are unpacked to bytes once (8 KB, stays in L1). */
BNC_INLINE void bnc_matmul_i2_m4k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_M4K64_NEON_BLOCKS * BNC_I2_M4K64_COLS };
    if (n == 1) {
        bnc_matvec_i2_m4k64_neon(acc, w, x->q, rows, cols);
        return;
    }
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(0));
        for (int first = 0; first < cols; first += CHUNK) {
            int8x16_t trits[CHUNK / 16][4];
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 16;
            for (int v = 0; v < count; v += 4)
                for (int r = 0; r < 4; r++) {
                    int8x16_t t[4];
                    bnc_unpack_i2_neon(t, w);
                    for (int u = 0; u < 4; u++)
                        trits[v + u][r] = t[u];
                    w += 16;
                }
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                int16x8_t lanes[4];
                for (int r = 0; r < 4; r++)
                    lanes[r] = vdupq_n_s16(0);
                for (int v = 0; v < count; v++) {
                    const int8x16_t xv = vld1q_s8(q + 16 * v);
                    for (int r = 0; r < 4; r++)
                        lanes[r] = vpadalq_s8(lanes[r], vmulq_s8(trits[v][r], xv));
                }
                const int32x4_t s =
                    vpaddq_s32(vpaddq_s32(vpaddlq_s16(lanes[0]), vpaddlq_s16(lanes[1])),
                               vpaddq_s32(vpaddlq_s16(lanes[2]), vpaddlq_s16(lanes[3])));
                int32_t *to = acc + i * rows + m;
                vst1q_s32(to, vaddq_s32(vld1q_s32(to), s));
            }
        }
    }
}

#endif
