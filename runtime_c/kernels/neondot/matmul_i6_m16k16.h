/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers for the dot product of Armv8.2, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Bounds: |63 * q| <= 8001 a column: int32 lasts for 268,401 columns. */
#ifndef BNC_MATMUL_I6_M16K16_NEONDOT_H
#define BNC_MATMUL_I6_M16K16_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i6_m16k16_neondot(int32_t *acc, int rows, const uint8_t *w,
                                           const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    const uint8x16_t low6 = vdupq_n_u8(0x3f);
    int32x4_t sum[4][4];
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            sum[t][r] = vdupq_n_s32(-32 * x->sum[i + t]);
    for (int k = 0; k < cols; k += 16, w += 192) {
        int8x16_t all[4]; /* sixteen activations of a token */
        for (int t = 0; t < tokens; t++)
            all[t] = vld1q_s8(q + t * (ptrdiff_t)x->stride + k);
        for (int line = 0; line < 192; line += 64)
            __builtin_prefetch(w + 1024 + line);
        for (int r = 0; r < 4; r++) {
            const uint8x16_t a = vld1q_u8(w + 16 * r), b = vld1q_u8(w + 64 + 16 * r);
            const uint8x16_t c = vld1q_u8(w + 128 + 16 * r);
            /* Shifted right and inserted: the upper bits of c, b and a, then some of a's code. */
            const uint8x16_t upper = vsriq_n_u8(vsriq_n_u8(c, b, 2), a, 4);
            const int8x16_t code0 = vreinterpretq_s8_u8(vandq_u8(a, low6));
            const int8x16_t code1 = vreinterpretq_s8_u8(vandq_u8(b, low6));
            const int8x16_t code2 = vreinterpretq_s8_u8(vandq_u8(c, low6));
            const int8x16_t code3 = vreinterpretq_s8_u8(vshrq_n_u8(upper, 2));
            for (int t = 0; t < tokens; t++) {
                int32x4_t s = vdotq_laneq_s32(sum[t][r], code0, all[t], 0);
                s = vdotq_laneq_s32(s, code1, all[t], 1);
                s = vdotq_laneq_s32(s, code2, all[t], 2);
                sum[t][r] = vdotq_laneq_s32(s, code3, all[t], 3);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            vst1q_s32(acc + t * rows + 4 * r, sum[t][r]);
}

BNC_KERNEL void bnc_matmul_i6_m16k16_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 16, w += 12 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i6_m16k16_neondot(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i6_m16k16_neondot(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
