/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON without dot product, layout i2_m256k4: a column of 256 rows is a
 * cache line, and columns whose activation is zero are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SMLAL and SMLAL2 multiply eight codes of a column each by its activation and add the products to
 * int16 lanes, one a row. 128 rows at a time: their sums are sixteen registers. Several tokens go
 * one after the other, since each has its own zeros.
 * Bounds: a lane gains at most 254 from one column, so 128 columns (32512) are summed in int16
 * before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M256K4_NEON_H
#define BNC_MATMUL_I2_M256K4_NEON_H

#include <arm_neon.h>

#include "../../bnc_columns.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");
_Static_assert(BNC_COLUMNS * 254 <= 32767, "int16 lanes");

/* acc += int16 sums of eight bytes of the line: four rows of each of two groups of 16. */
BNC_INLINE void bnc_add_rows_i2_m256k4_neon(int32_t *acc, int16x8_t sums)
{
    vst1q_s32(acc, vaddw_s16(vld1q_s32(acc), vget_low_s16(sums)));
    vst1q_s32(acc + 16, vaddw_s16(vld1q_s32(acc + 16), vget_high_s16(sums)));
}

/* acc[256] += codes * q over the listed columns of w[column][64], and those of `next` fetched. */
BNC_KERNEL void bnc_columns_i2_m256k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                           const int8_t *restrict q, const struct bnc_columns *list,
                                           const struct bnc_columns *next)
{
    enum { AHEAD = 16 }; /* columns */
    for (int half = 0; half < 2; half++) {
        struct bnc_row_neon sum[2][4]; /* [16 bytes of the line][plane] */
        for (int l = 0; l < 2; l++)
            for (int p = 0; p < 4; p++)
                sum[l][p] = bnc_row_zero_neon();
        for (int i = 0; i < list->count; i++) {
            const int k = list->column[i];
            const uint8_t *at = w + 64 * (ptrdiff_t)k + 32 * half;
            const int8x16_t x = vdupq_n_s8(q[k]);
            if (half == 0 && i + AHEAD < list->count)
                __builtin_prefetch(w + 64 * (ptrdiff_t)list->column[i + AHEAD]);
            else if (half == 1 && i < next->count) /* this list's lines are in the cache by now */
                __builtin_prefetch(w + 64 * (ptrdiff_t)next->column[i]);
            for (int l = 0; l < 2; l++) {
                int8x16_t code[4];
                bnc_unpack_i2_neon(code, at + 16 * l);
                for (int p = 0; p < 4; p++)
                    sum[l][p] = bnc_row_add_neon(sum[l][p], code[p], x);
            }
        }
        for (int l = 0; l < 2; l++)
            for (int p = 0; p < 4; p++) {
                int32_t *to = acc + 64 * p + 4 * (2 * half + l);
                bnc_add_rows_i2_m256k4_neon(to, sum[l][p].low);
                bnc_add_rows_i2_m256k4_neon(to + 32, sum[l][p].high);
            }
    }
}

BNC_KERNEL void bnc_matmul_i2_m256k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_walk_columns(bnc_columns_i2_m256k4_neon, BNC_I2_M256K4_ROWS, 0, acc, w, x, rows, cols, n);
}

#endif
