/* SPDX-License-Identifier: MIT */
/* Matmul of 8-bit integers for the dot product of Armv8.2, layout i8_m16k4.
 *
 *     sum over k of value * q,   value = code - 128 = code ^ 128 as a signed byte
 *
 * Bounds: |128 * q| <= 16256 a column: int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I8_M16K4_NEONDOT_H
#define BNC_MATMUL_I8_M16K4_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I8_M16K4_ROWS == 16 && BNC_I8_M16K4_COLS == 4, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i8_m16k4_neondot(int32_t *acc, int rows, const uint8_t *w,
                                          const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    const uint8x16_t sign = vdupq_n_u8(0x80);
    int32x4_t sum[4][4];
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            sum[t][r] = vdupq_n_s32(0);
    for (int k = 0; k < cols; k += 4, w += 64) {
        int8x16_t four[4];
        for (int t = 0; t < tokens; t++) {
            int32_t bits;
            memcpy(&bits, q + t * (ptrdiff_t)x->stride + k, sizeof bits);
            four[t] = vreinterpretq_s8_s32(vdupq_n_s32(bits));
        }
        __builtin_prefetch(w + 1024);
        for (int r = 0; r < 4; r++) {
            const int8x16_t v = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * r), sign));
            for (int t = 0; t < tokens; t++)
                sum[t][r] = vdotq_s32(sum[t][r], v, four[t]);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            vst1q_s32(acc + t * rows + 4 * r, sum[t][r]);
}

BNC_KERNEL void bnc_matmul_i8_m16k4_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 16, w += 16 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i8_m16k4_neondot(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i8_m16k4_neondot(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
