/* SPDX-License-Identifier: MIT */
/* Ternary matmul for 32-bit Arm NEON, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * VMLAL multiplies eight codes and adds the products to int16 lanes. Integers only: NEON floats
 * would take denormals for zero.
 * Bounds: a lane gains at most 2 * 127 = 254 from one VMLAL and four of them from one block, so 32
 * blocks of columns fit in int16 (32 * 1016 = 32512) and are summed before widening. int32 then
 * lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M4K64_NEON32_H
#define BNC_MATMUL_I2_M4K64_NEON32_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "unroll.h"

enum { BNC_I2_M4K64_NEON32_BLOCKS = 32 }; /* column blocks summed in int16 */
_Static_assert(BNC_I2_M4K64_NEON32_BLOCKS * 4 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* Four registers of codes, one for each quarter of the block's columns. */
BNC_INLINE void bnc_unpack_i2_neon32(int8x16_t code[4], const uint8_t *w)
{
    const uint8x16_t low2 = vdupq_n_u8(3);
    const uint8x16_t c = vld1q_u8(w);
    code[0] = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
    code[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 4), low2));
    code[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 2), low2));
    code[3] = vreinterpretq_s8_u8(vandq_u8(c, low2));
}

/* int16 lanes of one row: the products of the lower and of the upper halves of its registers. */
struct bnc_row_neon32 {
    int16x8_t low, high;
};

BNC_INLINE struct bnc_row_neon32 bnc_row_zero_neon32(void)
{
    return (struct bnc_row_neon32){ vdupq_n_s16(0), vdupq_n_s16(0) };
}

BNC_INLINE struct bnc_row_neon32 bnc_row_add_neon32(struct bnc_row_neon32 row, int8x16_t code,
                                                    int8x16_t x)
{
    row.low = vmlal_s8(row.low, vget_low_s8(code), vget_low_s8(x));
    row.high = vmlal_s8(row.high, vget_high_s8(code), vget_high_s8(x));
    return row;
}

/* One block of one row: 16 bytes of codes times their four registers of activations. */
BNC_INLINE struct bnc_row_neon32 bnc_row_block_neon32(struct bnc_row_neon32 row, const uint8_t *w,
                                                      int8x16_t x0, int8x16_t x1, int8x16_t x2,
                                                      int8x16_t x3)
{
    int8x16_t code[4];
    bnc_unpack_i2_neon32(code, w);
    row = bnc_row_add_neon32(row, code[0], x0);
    row = bnc_row_add_neon32(row, code[1], x1);
    row = bnc_row_add_neon32(row, code[2], x2);
    return bnc_row_add_neon32(row, code[3], x3);
}

/* The sums of four rows, in order. */
BNC_INLINE int32x4_t bnc_sum_rows_neon32(const struct bnc_row_neon32 row[4])
{
    int32x2_t sum[4];
    for (int r = 0; r < 4; r++) {
        const int32x4_t s = vpadalq_s16(vpaddlq_s16(row[r].low), row[r].high);
        sum[r] = vpadd_s32(vget_low_s32(s), vget_high_s32(s));
    }
    return vcombine_s32(vpadd_s32(sum[0], sum[1]), vpadd_s32(sum[2], sum[3]));
}

/* One token: acc = codes * q - sum_q. most: blocks of columns summed in int16, constant once
 * inlined
 */
BNC_INLINE void bnc_matvec_i2_m4k64_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                           const int8_t *restrict q, int32_t sum_q, int rows,
                                           int cols, int most)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum = vdupq_n_s32(-sum_q);
        for (int first = 0; first < blocks; first += most) {
            const int left = blocks - first;
            const int last = first + (left < most ? left : most);
            struct bnc_row_neon32 row[4];
            BNC_UNROLL_NEON32
            for (int r = 0; r < 4; r++)
                row[r] = bnc_row_zero_neon32();
            for (int kb = first; kb < last; kb++) {
                const int8_t *at = q + kb * BNC_I2_M4K64_COLS;
                const int8x16_t x0 = vld1q_s8(at), x1 = vld1q_s8(at + 16);
                const int8x16_t x2 = vld1q_s8(at + 32), x3 = vld1q_s8(at + 48);
                row[0] = bnc_row_block_neon32(row[0], w, x0, x1, x2, x3);
                row[1] = bnc_row_block_neon32(row[1], w + 16, x0, x1, x2, x3);
                row[2] = bnc_row_block_neon32(row[2], w + 32, x0, x1, x2, x3);
                row[3] = bnc_row_block_neon32(row[3], w + 48, x0, x1, x2, x3);
                w += 64;
            }
            sum = vaddq_s32(sum, bnc_sum_rows_neon32(row));
        }
        vst1q_s32(acc + m, sum);
    }
}

/* acc = codes * q - zero * sum of q. Of several tokens four rows of `most` blocks of columns are
 * unpacked to bytes once (8 KB, stays in L1). most, zero: constant once inlined */
BNC_INLINE void bnc_codes_m4k64_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, int rows, int cols, int n,
                                       int most, int zero)
{
    enum { MOST = BNC_I2_M4K64_NEON32_BLOCKS * BNC_I2_M4K64_COLS };
    const int chunk = most * BNC_I2_M4K64_COLS;
    if (n == 1) {
        bnc_matvec_i2_m4k64_neon32(acc, w, x->q, zero * x->sum[0], rows, cols, most);
        return;
    }
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(-zero * x->sum[i]));
        for (int first = 0; first < cols; first += chunk) {
            int8x16_t codes[MOST / 16][4];
            const int count = (cols - first < chunk ? cols - first : chunk) / 16;
            for (int v = 0; v < count; v += 4)
                for (int r = 0; r < 4; r++) {
                    int8x16_t code[4];
                    bnc_unpack_i2_neon32(code, w);
                    for (int u = 0; u < 4; u++)
                        codes[v + u][r] = code[u];
                    w += 16;
                }
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                struct bnc_row_neon32 row[4];
                BNC_UNROLL_NEON32
                for (int r = 0; r < 4; r++)
                    row[r] = bnc_row_zero_neon32();
                for (int v = 0; v < count; v++) {
                    const int8x16_t xv = vld1q_s8(q + 16 * v);
                    BNC_UNROLL_NEON32
                    for (int r = 0; r < 4; r++)
                        row[r] = bnc_row_add_neon32(row[r], codes[v][r], xv);
                }
                int32_t *to = acc + i * rows + m;
                vst1q_s32(to, vaddq_s32(vld1q_s32(to), bnc_sum_rows_neon32(row)));
            }
        }
    }
}

BNC_KERNEL void bnc_matmul_i2_m4k64_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neon32(acc, w, x, rows, cols, n, BNC_I2_M4K64_NEON32_BLOCKS, 1);
}

#endif
