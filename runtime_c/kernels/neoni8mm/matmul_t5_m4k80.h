/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with int8 matrix multiplication (Armv8.6), layout t5_m4k80.
 *
 *     sum over k of trit * q = sum of q - sum of c * q,   c = 1 - trit in 0 .. 2
 *
 * Up to seven tokens go to the dot product; more are multiplied as those of i2_m4k64 are.
 * Bounds: |c * q| <= 254 a column: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M4K80_NEONI8MM_H
#define BNC_MATMUL_T5_M4K80_NEONI8MM_H

#include "../neondot/matmul_t5_m4k80.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_T5_M4K80_ROWS == 4 && BNC_T5_M4K80_COLS == 80, "unrolled by hand");

/* Up to 64 tokens: 240 columns of them are packed in pairs once for all rows (15 KB), and those of
 * four rows (1 KB). acc is the negative sum until the end. */
BNC_INLINE void bnc_tokens_t5_m4k80_neoni8mm(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int at, int rows, int cols,
                                             int n)
{
    enum { CHUNK = 3 * BNC_T5_M4K80_COLS, STEPS = CHUNK / 8 };
    enum { PAIRS = BNC_I2_M4K64_I8MM_PAIRS, FEW = BNC_I2_M4K64_I8MM_FEW };
    const struct bnc_tables_t5_neondot tables = bnc_tables_t5_neondot();
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 4)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(-x->sum[at + i]));
    for (int first = 0; first < cols; first += CHUNK) {
        const int count = cols - first < CHUNK ? cols - first : CHUNK;
        int8x16_t q[32 * STEPS], codes[2 * STEPS];
        for (int i = 0; i < n; i += 2) {
            const int8_t *a = x->q + (at + i) * (ptrdiff_t)x->stride + first;
            const int8_t *b = i + 1 < n ? a + x->stride : a; /* its sums are not kept */
            for (int k = 0; k < count; k += 16)
                bnc_pair_neoni8mm(q + i / 2 * STEPS + k / 8, vld1q_s8(a + k), vld1q_s8(b + k));
        }
        for (int m = 0; m < rows; m += 4) {
            const uint8_t *from = w + (ptrdiff_t)m * (cols / 5) + first / BNC_T5_M4K80_COLS * 64;
            for (int kb = 0; kb < count / BNC_T5_M4K80_COLS; kb++, from += 64)
                for (int r = 0; r < 4; r += 2) {
                    int8x16_t c[2][5];
                    for (int j = 0; j < 2; j++)
                        bnc_unpack_t5_neondot(c[j], from + 16 * (r + j), &tables);
                    for (int v = 0; v < 5; v++) {
                        int8x16_t pair[2];
                        bnc_pair_neoni8mm(pair, c[0][v], c[1][v]);
                        codes[2 * (10 * kb + 2 * v) + r / 2] = pair[0];
                        codes[2 * (10 * kb + 2 * v + 1) + r / 2] = pair[1];
                    }
                }
            int i = 0;
            for (; i + 2 * PAIRS <= n; i += 2 * PAIRS)
                bnc_tile_i2_m4k64_neoni8mm(acc + i * rows + m, rows, q + i / 2 * STEPS, STEPS,
                                           codes, PAIRS, 2 * PAIRS, count / 8);
            for (; i + FEW < n; i += FEW + 1)
                bnc_tile_i2_m4k64_neoni8mm(acc + i * rows + m, rows, q + i / 2 * STEPS, STEPS,
                                           codes, (FEW + 1) / 2, FEW + 1, count / 8);
            for (; i < n; i += 2)
                bnc_tile_i2_m4k64_neoni8mm(acc + i * rows + m, rows, q + i / 2 * STEPS, STEPS,
                                           codes, 1, n - i, count / 8);
        }
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 4)
            vst1q_s32(acc + i * rows + m, vnegq_s32(vld1q_s32(acc + i * rows + m)));
}

BNC_KERNEL void bnc_matmul_t5_m4k80_neoni8mm(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n <= BNC_I2_M4K64_I8MM_FEW) {
        bnc_few_t5_m4k80_neondot(acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i += 64)
        bnc_tokens_t5_m4k80_neoni8mm(acc + i * rows, w, x, i, rows, cols, n - i < 64 ? n - i : 64);
}

#endif
