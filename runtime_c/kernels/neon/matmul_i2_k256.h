/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON without dot product, layout i2_k256: rows are contiguous, so that
 * of one token chosen rows can be computed and the others are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SMLAL and SMLAL2 multiply eight codes each and add the products to int16 lanes.
 * Bounds: a lane gains at most 2 * 127 = 254 from one SMLAL and sixteen of them from one block, so
 * 8 blocks of columns fit in int16 (8 * 4064 = 32512) and are summed before widening. int32 then
 * lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_K256_NEON_H
#define BNC_MATMUL_I2_K256_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_rows.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_I2_K256_ROWS == 1 && BNC_I2_K256_COLS == 256, "unrolled by hand");

enum { BNC_I2_K256_NEON_COLS = 2048 }; /* columns summed in int16 */

/* The sums of four rows and one token. */
BNC_INLINE int32x4_t bnc_four_rows_i2_k256_neon(const struct bnc_rows *w, const int8_t *q, int cols)
{
    int32x4_t sum = vdupq_n_s32(0);
    for (int first = 0; first < cols; first += BNC_I2_K256_NEON_COLS) {
        const int end = cols - first < BNC_I2_K256_NEON_COLS ? cols : first + BNC_I2_K256_NEON_COLS;
        struct bnc_row_neon row[4];
        for (int r = 0; r < 4; r++)
            row[r] = bnc_row_zero_neon();
        for (int k = first; k < end; k += BNC_I2_K256_COLS) {
            for (int r = 0; r < 4; r++)
                __builtin_prefetch(w->next[r] + k / 4);
            for (int v = 0; v < 4; v++) {
                int8x16_t x[4];
                for (int p = 0; p < 4; p++)
                    x[p] = vld1q_s8(q + k + 64 * p + 16 * v);
                for (int r = 0; r < 4; r++) {
                    int8x16_t code[4];
                    bnc_unpack_i2_neon(code, w->at[r] + k / 4 + 16 * v);
                    for (int p = 0; p < 4; p++)
                        row[r] = bnc_row_add_neon(row[r], code[p], x[p]);
                }
            }
        }
        sum = vaddq_s32(sum, bnc_sum_rows_neon(row));
    }
    return sum;
}

/* The first `count` lanes, or all four. */
BNC_INLINE void bnc_store_rows_i2_k256_neon(int32_t *acc, int32x4_t sum, int count)
{
    int32_t lane[4];
    vst1q_s32(lane, sum);
    memcpy(acc, lane, sizeof *acc * (size_t)(count < 4 ? count : 4));
}

/* acc[i] = row row[i] and one token, i < count. The rows up to row[listed - 1] are fetched ahead.
 */
BNC_KERNEL void bnc_rows_i2_k256_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                      const struct bnc_acts *x, const int32_t *row, int count,
                                      int listed, int cols)
{
    const ptrdiff_t bytes = cols / 4;
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows r4 = bnc_rows_listed(w, bytes, row, i, count, listed);
        bnc_store_rows_i2_k256_neon(
            acc + i, vsubq_s32(bnc_four_rows_i2_k256_neon(&r4, x->q, cols), vdupq_n_s32(x->sum[0])),
            count - i);
    }
}

/* Four rows, or as many as are left, and tokens i and i + 1. */
BNC_FRAME void bnc_pair_i2_k256_neon(int32_t *acc, const struct bnc_rows *w,
                                     const struct bnc_acts *x, int i, int m, int rows, int cols)
{
    const int8_t *const q[2] = { x->q + i * (ptrdiff_t)x->stride,
                                 x->q + (i + 1) * (ptrdiff_t)x->stride };
    int32x4_t sum[2] = { vdupq_n_s32(-x->sum[i]), vdupq_n_s32(-x->sum[i + 1]) };
    for (int first = 0; first < cols; first += BNC_I2_K256_NEON_COLS) {
        const int end = cols - first < BNC_I2_K256_NEON_COLS ? cols : first + BNC_I2_K256_NEON_COLS;
        struct bnc_row_neon row[2][4];
        for (int r = 0; r < 4; r++)
            row[0][r] = row[1][r] = bnc_row_zero_neon();
        for (int k = first; k < end; k += BNC_I2_K256_COLS)
            for (int v = 0; v < 4; v++) {
                uint8x16_t bytes[4];
                for (int r = 0; r < 4; r++)
                    bytes[r] = vld1q_u8(w->at[r] + k / 4 + 16 * v);
                if (i == 0)
                    __builtin_prefetch(w->next[v] + k / 4);
                bnc_pair_step_neon(row, bytes, q, k + 16 * v, 4, 64, bnc_code_i2_neon);
            }
        for (int t = 0; t < 2; t++)
            sum[t] = vaddq_s32(sum[t], bnc_sum_rows_neon(row[t]));
    }
    for (int t = 0; t < 2; t++)
        bnc_store_rows_i2_k256_neon(acc + (i + t) * rows + m, sum[t], rows - m);
}

BNC_KERNEL void bnc_matmul_i2_k256_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 4) {
        const struct bnc_rows r4 = bnc_rows_from(w, cols / 4, m, rows);
        int i = 0;
        for (; i + 2 <= n; i += 2)
            bnc_pair_i2_k256_neon(acc, &r4, x, i, m, rows, cols);
        if (i < n)
            bnc_store_rows_i2_k256_neon(
                acc + i * rows + m,
                vsubq_s32(bnc_four_rows_i2_k256_neon(&r4, x->q + i * (ptrdiff_t)x->stride, cols),
                          vdupq_n_s32(x->sum[i])),
                rows - m);
    }
}

#endif
