/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with dot product, layout t5_m4k80: 1.6 bits a trit.
 *
 *     sum over k of trit * q = sum of q - sum of c * q,   c = 1 - trit in 0 .. 2
 *
 * What a byte holds is in kernels/neon/matmul_t5_m4k80.h. Where there is a dot product a look-up
 * takes one operation, and each trit has its own: 10 operations for 5 registers of c, which SDOT
 * multiplies and adds to int32 lanes.
 * Bounds: |c * q| <= 254 a column: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M4K80_NEONDOT_H
#define BNC_MATMUL_T5_M4K80_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../neon/matmul_t5_m4k80.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_T5_M4K80_ROWS == 4 && BNC_T5_M4K80_COLS == 80, "unrolled by hand");

struct bnc_tables_t5_neondot {
    int8x16x2_t high[3]; /* c of the first, second and third trit */
    int8x16_t low[2];    /* of the fourth and fifth */
};

BNC_INLINE struct bnc_tables_t5_neondot bnc_tables_t5_neondot(void)
{
    static const int8_t high[3][32] = {
        { 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
        { 2, 2, 2, 1, 1, 1, 0, 0, 0, 2, 2, 2, 1, 1, 1, 0, 0, 0, 2, 2, 2, 1, 1, 1 },
        { 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1, 0, 2, 1 },
    };
    static const int8_t low[2][16] = { { 2, 2, 2, 1, 1, 1 }, { 2, 1, 0, 2, 1, 0, 2, 1 } };
    struct bnc_tables_t5_neondot tables;
    for (int i = 0; i < 3; i++) {
        tables.high[i].val[0] = vld1q_s8(high[i]);
        tables.high[i].val[1] = vld1q_s8(high[i] + 16);
    }
    for (int i = 0; i < 2; i++)
        tables.low[i] = vld1q_s8(low[i]);
    return tables;
}

/* Five registers of c, one for each fifth of the block's columns. */
BNC_INLINE void bnc_unpack_t5_neondot(int8x16_t c[5], const uint8_t *w,
                                      const struct bnc_tables_t5_neondot *tables)
{
    const uint8x16_t byte = vld1q_u8(w);
    const uint8x16_t high = bnc_high_t5_neon(byte), low = bnc_low_t5_neon(byte);
    for (int i = 0; i < 3; i++)
        c[i] = vqtbl2q_s8(tables->high[i], high);
    for (int i = 0; i < 2; i++)
        c[3 + i] = vqtbl1q_s8(tables->low[i], low);
}

BNC_INLINE void bnc_matvec_t5_m4k80_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q, int32_t sum_q, int rows,
                                            int cols)
{
    const struct bnc_tables_t5_neondot tables = bnc_tables_t5_neondot();
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = vdupq_n_s32(0);
        for (int k = 0; k < cols; k += BNC_T5_M4K80_COLS) {
            int8x16_t x[5];
            for (int v = 0; v < 5; v++)
                x[v] = vld1q_s8(q + k + 16 * v);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                int8x16_t c[5];
                bnc_unpack_t5_neondot(c, w, &tables);
                for (int v = 0; v < 5; v++)
                    sum[r] = vdotq_s32(sum[r], c[v], x[v]);
                w += 16;
            }
        }
        const int32x4_t s = bnc_sum4_neon(sum[0], sum[1], sum[2], sum[3]);
        vst1q_s32(acc + m, vsubq_s32(vdupq_n_s32(sum_q), s));
    }
}

BNC_KERNEL int8x16_t bnc_code_t5_neondot(uint8x16_t bytes, int v)
{
    const struct bnc_tables_t5_neondot tables = bnc_tables_t5_neondot();
    return v < 3 ? vqtbl2q_s8(tables.high[v], bnc_high_t5_neon(bytes))
                 : vqtbl1q_s8(tables.low[v - 3], bnc_low_t5_neon(bytes));
}

enum { BNC_T5_M4K80_FEW_MOST = 7 }; /* tables leave fewer registers than i2_m4k64 has for sums */

/* Of several tokens, acc is the negative sum until the end. */
BNC_INLINE void bnc_negate_t5_neondot(int32_t *acc, int count)
{
    for (int at = 0; at < count; at += 4)
        vst1q_s32(acc + at, vnegq_s32(vld1q_s32(acc + at)));
}

BNC_INLINE void bnc_few_t5_m4k80_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    const int i =
        bnc_few_neondot(acc, w, x, rows, cols, n, BNC_T5_M4K80_COLS, 1, bnc_code_t5_neondot);
    bnc_negate_t5_neondot(acc, i * rows);
    if (i < n)
        bnc_matvec_t5_m4k80_neondot(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride, x->sum[i],
                                    rows, cols);
}

BNC_KERNEL void bnc_matmul_t5_m4k80_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n <= BNC_T5_M4K80_FEW_MOST) {
        bnc_few_t5_m4k80_neondot(acc, w, x, rows, cols, n);
        return;
    }
    bnc_many_neondot(acc, w, x, rows, cols, n, BNC_T5_M4K80_COLS, 1, bnc_code_t5_neondot);
    bnc_negate_t5_neondot(acc, n * rows);
}

#endif
