/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers for the dot product of Armv8.2, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * Bounds: |15 * q| <= 1905 a column: int32 lasts for a million columns. */
#ifndef BNC_MATMUL_I4_M16K8_NEONDOT_H
#define BNC_MATMUL_I4_M16K8_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i4_m16k8_neondot(int32_t *acc, int rows, const uint8_t *w,
                                          const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    const uint8x16_t low4 = vdupq_n_u8(0x0f);
    int32x4_t sum[4][4];
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            sum[t][r] = vdupq_n_s32(-8 * x->sum[i + t]);
    for (int k = 0; k < cols; k += 8, w += 64) {
        int8x16_t four[4][2];
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < 2; j++) {
                int32_t bits;
                memcpy(&bits, q + t * (ptrdiff_t)x->stride + k + 4 * j, sizeof bits);
                four[t][j] = vreinterpretq_s8_s32(vdupq_n_s32(bits));
            }
        __builtin_prefetch(w + 1024);
        for (int r = 0; r < 4; r++) {
            const uint8x16_t c = vld1q_u8(w + 16 * r);
            const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(c, 4));
            const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(c, low4));
            for (int t = 0; t < tokens; t++)
                sum[t][r] = vdotq_s32(vdotq_s32(sum[t][r], high, four[t][0]), low, four[t][1]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            vst1q_s32(acc + t * rows + 4 * r, sum[t][r]);
}

BNC_KERNEL void bnc_matmul_i4_m16k8_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 16, w += 8 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i4_m16k8_neondot(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i4_m16k8_neondot(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
