/* SPDX-License-Identifier: MIT */
/* Two tokens by SMLAL: codes of four rows are unpacked in registers and multiplied for both, whose
 * int16 sums are sixteen more registers. Bounds: those of the kernels that call it. */
#ifndef BNC_NEON_PAIRS_H
#define BNC_NEON_PAIRS_H

#include <arm_neon.h>

#include "../../bnc_linear.h"

/* int16 lanes of one row: the products of the lower and of the upper halves of its registers. */
struct bnc_row_neon {
    int16x8_t low, high;
};

BNC_INLINE struct bnc_row_neon bnc_row_zero_neon(void)
{
    return (struct bnc_row_neon){ vdupq_n_s16(0), vdupq_n_s16(0) };
}

BNC_INLINE struct bnc_row_neon bnc_row_add_neon(struct bnc_row_neon row, int8x16_t code,
                                                int8x16_t x)
{
    row.low = vmlal_s8(row.low, vget_low_s8(code), vget_low_s8(x));
    row.high = vmlal_high_s8(row.high, code, x);
    return row;
}

/* The sums of four rows, in order. */
BNC_INLINE int32x4_t bnc_sum_rows_neon(const struct bnc_row_neon row[4])
{
    int32x4_t sum[4];
    for (int r = 0; r < 4; r++)
        sum[r] = vpadalq_s16(vpaddlq_s16(row[r].low), row[r].high);
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

/* The codes of sixteen columns, number v of those that sixteen bytes of a row hold. */
typedef int8x16_t bnc_code_neon(uint8x16_t bytes, int v);

/* row[token][row] += codes * q over `count` times sixteen columns, `apart` of them from one to the
 * next, the first at column k. */
BNC_FRAME void bnc_pair_step_neon(struct bnc_row_neon row[2][4], const uint8x16_t bytes[4],
                                  const int8_t *const q[2], int k, int count, int apart,
                                  bnc_code_neon *code)
{
#pragma GCC unroll 5
    for (int v = 0; v < count; v++) {
        int8x16_t c[4];
        for (int r = 0; r < 4; r++)
            c[r] = code(bytes[r], v);
        /* The next codes are not unpacked before these are multiplied: registers would be spilled.
         */
        __asm__ volatile("" : "+w"(c[0]), "+w"(c[1]), "+w"(c[2]), "+w"(c[3]));
        for (int t = 0; t < 2; t++) {
            const int8x16_t x = vld1q_s8(q[t] + k + apart * v);
            for (int r = 0; r < 4; r++)
                row[t][r] = bnc_row_add_neon(row[t][r], c[r], x);
        }
    }
}

/* acc[i * rows + m] = sum of codes * q - zero * sum of q for two tokens, i and the next, and
 * layouts of four rows, whose 64 bytes hold `block` columns. int16 sums hold `most` columns. */
BNC_FRAME void bnc_pair_neon(int32_t *restrict acc, const uint8_t *restrict w,
                             const struct bnc_acts *x, int i, int rows, int cols, int block,
                             int most, int zero, bnc_code_neon *code)
{
    const int8_t *const q[2] = { x->q + i * (ptrdiff_t)x->stride,
                                 x->q + (i + 1) * (ptrdiff_t)x->stride };
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum[2] = { vdupq_n_s32(-zero * x->sum[i]), vdupq_n_s32(-zero * x->sum[i + 1]) };
        for (int first = 0; first < cols; first += most) {
            const int end = cols - first < most ? cols : first + most;
            struct bnc_row_neon row[2][4];
            for (int r = 0; r < 4; r++)
                row[0][r] = row[1][r] = bnc_row_zero_neon();
            for (int k = first; k < end; k += block, w += 64) {
                uint8x16_t bytes[4];
                for (int r = 0; r < 4; r++)
                    bytes[r] = vld1q_u8(w + 16 * r);
                bnc_pair_step_neon(row, bytes, q, k, block / 16, 16, code);
            }
            for (int t = 0; t < 2; t++)
                sum[t] = vaddq_s32(sum[t], bnc_sum_rows_neon(row[t]));
        }
        for (int t = 0; t < 2; t++)
            vst1q_s32(acc + (i + t) * rows + m, sum[t]);
    }
}

/* The same for all pairs of n tokens; returns how many these are, n or n - 1. */
BNC_INLINE int bnc_pairs_neon(int32_t *restrict acc, const uint8_t *restrict w,
                              const struct bnc_acts *x, int rows, int cols, int n, int block,
                              int most, int zero, bnc_code_neon *code)
{
    int i = 0;
    for (; i + 2 <= n; i += 2)
        bnc_pair_neon(acc, w, x, i, rows, cols, block, most, zero, code);
    return i;
}

#endif
