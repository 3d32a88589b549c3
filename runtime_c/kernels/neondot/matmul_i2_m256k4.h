/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with dot product, layout i2_m256k4: a column of 256 rows is a cache
 * line, and columns whose activation is zero are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Four columns are interleaved, so that their codes of a row are a lane's four bytes; SDOT
 * multiplies them by the four activations. 64 rows at a time: their sums are sixteen registers.
 * Three of the four codes of a byte are masked where they lie: plane j is summed 4^j times too
 * large and shifted when a list ends. Several tokens go one after the other, since each has its own
 * zeros. Bounds: |32 * q| <= 4064 a column and at most 128 columns before sums are shifted; int32
 * then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M256K4_NEONDOT_H
#define BNC_MATMUL_I2_M256K4_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_columns.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");

/* acc[256] += codes * q over the listed columns of w[column][64], and those of `next` fetched. */
BNC_KERNEL void bnc_columns_i2_m256k4_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                              const int8_t *restrict q,
                                              const struct bnc_columns *list,
                                              const struct bnc_columns *next)
{
    enum { AHEAD = 16 }; /* columns */
    const uint8x16_t mask[3] = { vdupq_n_u8(0x03), vdupq_n_u8(0x0c), vdupq_n_u8(0x30) };
    int8_t x[BNC_COLUMNS + 4];
    for (int i = 0; i < list->count; i++)
        x[i] = q[list->column[i]];
    for (int i = 0; i < 4; i++) /* the list is read in fours */
        x[list->count + i] = 0;
    for (int l = 0; l < 4; l++) { /* 16 bytes of the line */
        int32x4_t sum[4][4];      /* [plane, low bits first][four rows] */
        for (int p = 0; p < 4; p++)
            for (int r = 0; r < 4; r++)
                sum[p][r] = vdupq_n_s32(0);
        for (int i = 0; i < list->count; i += 4) {
            const int32_t *k = list->column + i;
            int32_t four;
            uint8x16_t c[4];
            memcpy(&four, x + i, sizeof four);
            const int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(four));
            for (int j = 0; j < 4; j++)
                c[j] = vld1q_u8(w + 64 * (ptrdiff_t)k[j] + 16 * l);
            if (l == 0 && i + AHEAD + 4 <= list->count) {
                for (int j = 0; j < 4; j++)
                    __builtin_prefetch(w + 64 * (ptrdiff_t)k[AHEAD + j]);
            } else if (l > 0) { /* this list's lines are in the cache by now */
                for (int j = l - 1; j < 4; j += 3)
                    if (i + j < next->count)
                        __builtin_prefetch(w + 64 * (ptrdiff_t)next->column[i + j]);
            }
            const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(c[0], c[1]));
            const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(c[0], c[1]));
            const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(c[2], c[3]));
            const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(c[2], c[3]));
            const uint8x16_t row[4] = { vreinterpretq_u8_u16(vzip1q_u16(low01, low23)),
                                        vreinterpretq_u8_u16(vzip2q_u16(low01, low23)),
                                        vreinterpretq_u8_u16(vzip1q_u16(high01, high23)),
                                        vreinterpretq_u8_u16(vzip2q_u16(high01, high23)) };
            for (int r = 0; r < 4; r++) {
                for (int p = 0; p < 3; p++)
                    sum[p][r] =
                        vdotq_s32(sum[p][r], vreinterpretq_s8_u8(vandq_u8(row[r], mask[p])), xs);
                sum[3][r] = vdotq_s32(sum[3][r], vreinterpretq_s8_u8(vshrq_n_u8(row[r], 6)), xs);
            }
        }
        for (int r = 0; r < 4; r++) { /* rows 64 s + 16 r + 4 l .., s = 0 in the high bits */
            int32_t *to = acc + 16 * r + 4 * l;
            vst1q_s32(to, vaddq_s32(vld1q_s32(to), sum[3][r]));
            vst1q_s32(to + 64, vaddq_s32(vld1q_s32(to + 64), vshrq_n_s32(sum[2][r], 4)));
            vst1q_s32(to + 128, vaddq_s32(vld1q_s32(to + 128), vshrq_n_s32(sum[1][r], 2)));
            vst1q_s32(to + 192, vaddq_s32(vld1q_s32(to + 192), sum[0][r]));
        }
    }
}

BNC_KERNEL void bnc_matmul_i2_m256k4_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_walk_columns(bnc_columns_i2_m256k4_neondot, BNC_I2_M256K4_ROWS, 4, acc, w, x, rows, cols,
                     n);
}

#endif
