/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON without dot product, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SMLAL and SMLAL2 multiply eight codes each and add the products to int16 lanes.
 * Bounds: a lane gains at most 2 * 127 = 254 from one SMLAL and four of them from one block, so 32
 * blocks of columns fit in int16 (32 * 1016 = 32512) and are summed before widening. int32 then
 * lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M4K64_NEON_H
#define BNC_MATMUL_I2_M4K64_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "pairs.h"

enum { BNC_I2_M4K64_NEON_BLOCKS = 32 }; /* column blocks summed in int16 */
_Static_assert(BNC_I2_M4K64_NEON_BLOCKS * 4 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* Four registers of codes, one for each quarter of the block's columns. */
BNC_INLINE void bnc_unpack_i2_neon(int8x16_t code[4], const uint8_t *w)
{
    const uint8x16_t low2 = vdupq_n_u8(3);
    const uint8x16_t c = vld1q_u8(w);
    code[0] = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
    code[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 4), low2));
    code[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 2), low2));
    code[3] = vreinterpretq_s8_u8(vandq_u8(c, low2));
}

/* One token: acc = codes * q - sum_q. most: blocks of columns summed in int16, constant once
 * inlined
 */
BNC_INLINE void bnc_matvec_i2_m4k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int32_t sum_q, int rows,
                                         int cols, int most)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum = vdupq_n_s32(-sum_q);
        for (int first = 0; first < blocks; first += most) {
            const int left = blocks - first;
            const int last = first + (left < most ? left : most);
            struct bnc_row_neon row[4];
            for (int r = 0; r < 4; r++)
                row[r] = bnc_row_zero_neon();
            for (int kb = first; kb < last; kb++) {
                int8x16_t x[4];
                for (int v = 0; v < 4; v++)
                    x[v] = vld1q_s8(q + kb * BNC_I2_M4K64_COLS + 16 * v);
                for (int r = 0; r < 4; r++) {
                    int8x16_t code[4];
                    bnc_unpack_i2_neon(code, w);
                    for (int v = 0; v < 4; v++)
                        row[r] = bnc_row_add_neon(row[r], code[v], x[v]);
                    w += 16;
                }
            }
            sum = vaddq_s32(sum, bnc_sum_rows_neon(row));
        }
        vst1q_s32(acc + m, sum);
    }
}

BNC_KERNEL int8x16_t bnc_code_i2_neon(uint8x16_t bytes, int v)
{
    const uint8x16_t code = bytes >> (uint8_t)(6 - 2 * v);
    return vreinterpretq_s8_u8(v ? vandq_u8(code, vdupq_n_u8(3)) : code);
}

/* acc = codes * q - zero * sum of q. most, zero: constant once inlined */
BNC_INLINE void bnc_codes_m4k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, int rows, int cols, int n, int most,
                                     int zero)
{
    enum { BLOCK = BNC_I2_M4K64_COLS };
    const int i =
        bnc_pairs_neon(acc, w, x, rows, cols, n, BLOCK, most * BLOCK, zero, bnc_code_i2_neon);
    if (i < n)
        bnc_matvec_i2_m4k64_neon(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride,
                                 zero * x->sum[i], rows, cols, most);
}

BNC_KERNEL void bnc_matmul_i2_m4k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neon(acc, w, x, rows, cols, n, BNC_I2_M4K64_NEON_BLOCKS, 1);
}

#endif
