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

/* Several tokens: four rows of 2048 columns are unpacked to bytes once (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_i2_k256_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_K256_NEON_COLS };
    const ptrdiff_t bytes = cols / 4;
    for (int m = 0; m < rows; m += 4) {
        const int left = rows - m < 4 ? rows - m : 4;
        const struct bnc_rows r4 = bnc_rows_from(w, bytes, m, rows);
        if (n == 1 || left < 4) {
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
                bnc_store_rows_i2_k256_neon(
                    acc + i * rows + m,
                    vsubq_s32(bnc_four_rows_i2_k256_neon(&r4, q, cols), vdupq_n_s32(x->sum[i])),
                    left);
            }
            continue;
        }
        for (int i = 0; i < n; i++)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(-x->sum[i]));
        for (int first = 0; first < cols; first += CHUNK) {
            int8x16_t codes[CHUNK / 16][4];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += BNC_I2_K256_COLS)
                for (int v = 0; v < 4; v++)
                    for (int r = 0; r < 4; r++) {
                        int8x16_t code[4];
                        bnc_unpack_i2_neon(code, r4.at[r] + (first + k) / 4 + 16 * v);
                        for (int p = 0; p < 4; p++)
                            codes[k / 16 + 4 * p + v][r] = code[p];
                    }
            bnc_tokens_neon(acc + m, rows, codes, x, first, count / 16, n, 0);
        }
    }
}

#endif
