/* SPDX-License-Identifier: MIT */
/* Matmul of 8-bit integers for NEON of Armv8.0, layout i8_m16k4.
 *
 *     sum over k of value * q,   value = code - 128 = code ^ 128 as a signed byte
 *
 * Bounds: |128 * q| <= 16256 in int16; int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I8_M16K4_NEON_H
#define BNC_MATMUL_I8_M16K4_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I8_M16K4_ROWS == 16 && BNC_I8_M16K4_COLS == 4, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. A row's
 * four columns are two int32 lanes until the end. */
BNC_INLINE void bnc_rows_i8_m16k4_neon(int32_t *acc, int rows, const uint8_t *w,
                                       const struct bnc_acts *x, int i, int tokens, int cols)
{
    const uint8x16_t sign = vdupq_n_u8(0x80);
    for (int t = 0; t < tokens; t++) {
        const int8_t *q = x->q + (i + t) * (ptrdiff_t)x->stride;
        const uint8_t *codes = w;
        int32x4_t sum[8];
        for (int r = 0; r < 8; r++)
            sum[r] = vdupq_n_s32(0);
        for (int k = 0; k < cols; k += 4, codes += 64) {
            int32_t bits;
            memcpy(&bits, q + k, sizeof bits);
            const int8x8_t four = vreinterpret_s8_s32(vdup_n_s32(bits));
            const int8x16_t twice = vcombine_s8(four, four);
            __builtin_prefetch(codes + 512);
            for (int r = 0; r < 4; r++) {
                const int8x16_t v = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(codes + 16 * r), sign));
                sum[2 * r] = vpadalq_s16(sum[2 * r], vmull_s8(vget_low_s8(v), four));
                sum[2 * r + 1] = vpadalq_s16(sum[2 * r + 1], vmull_high_s8(v, twice));
            }
        }
        for (int r = 0; r < 4; r++)
            vst1q_s32(acc + t * rows + 4 * r, vpaddq_s32(sum[2 * r], sum[2 * r + 1]));
    }
}

BNC_KERNEL void bnc_matmul_i8_m16k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 16, w += 16 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i8_m16k4_neon(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i8_m16k4_neon(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
