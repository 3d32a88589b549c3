/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with int8 matrix multiplication (Armv8.6), layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SMMLA multiplies eight columns of two tokens with eight columns of two rows: 32 products, twice
 * as many as SDOT. One token would leave half of them unused, and up to seven cost more than by the
 * dot product.
 * Bounds: |2 * q| <= 254 a column, so int32 lasts for 8.4 million columns; of few tokens, as the
 * dot product's kernel. */
#ifndef BNC_MATMUL_I2_M4K64_NEONI8MM_H
#define BNC_MATMUL_I2_M4K64_NEONI8MM_H

#include "../neondot/matmul_i2_m4k64.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

enum {
    BNC_I2_M4K64_I8MM_COLS = 256, /* columns packed at a time */
    BNC_I2_M4K64_I8MM_PAIRS = 8,  /* of tokens multiplied at a time: 16 sums, since a core
                                   * with four pipes would wait for eight */
    BNC_I2_M4K64_I8MM_FEW = 7     /* tokens, or fewer, for which turning codes does not pay */
};

/* The halves of two registers side by side: columns 0-7 of a and of b, then columns 8-15. */
BNC_INLINE void bnc_pair_neoni8mm(int8x16_t to[2], int8x16_t a, int8x16_t b)
{
    const int64x2_t a2 = vreinterpretq_s64_s8(a), b2 = vreinterpretq_s64_s8(b);
    to[0] = vreinterpretq_s8_s64(vzip1q_s64(a2, b2));
    to[1] = vreinterpretq_s8_s64(vzip2q_s64(a2, b2));
}

/* acc of 4 rows and `tokens` tokens, at most two a pair, += q * codes of `steps` steps of eight
 * columns. q: [pair][step], codes: [step][2 pairs of rows] */
BNC_INLINE void bnc_tile_i2_m4k64_neoni8mm(int32_t *acc, int rows, const int8x16_t *q,
                                           ptrdiff_t stride, const int8x16_t *codes, int pairs,
                                           int tokens, int steps)
{
    int32x4_t sum[BNC_I2_M4K64_I8MM_PAIRS][2]; /* two tokens x rows 0-1, x rows 2-3 */
    for (int p = 0; p < pairs; p++)
        sum[p][0] = sum[p][1] = vdupq_n_s32(0);
    for (int s = 0; s < steps; s++)
        for (int p = 0; p < pairs; p++) {
            const int8x16_t two = q[p * stride + s];
            sum[p][0] = vmmlaq_s32(sum[p][0], two, codes[2 * s]);
            sum[p][1] = vmmlaq_s32(sum[p][1], two, codes[2 * s + 1]);
        }
    for (int p = 0; p < pairs; p++) {
        const int64x2_t low = vreinterpretq_s64_s32(sum[p][0]);
        const int64x2_t high = vreinterpretq_s64_s32(sum[p][1]);
        int32_t *to = acc + 2 * p * (ptrdiff_t)rows;
        vst1q_s32(to, vaddq_s32(vld1q_s32(to), vreinterpretq_s32_s64(vzip1q_s64(low, high))));
        if (2 * p + 1 < tokens) {
            to += rows;
            vst1q_s32(to, vaddq_s32(vld1q_s32(to), vreinterpretq_s32_s64(vzip2q_s64(low, high))));
        }
    }
}

/* acc = codes * q - zero * sum of q. zero: constant once inlined, here and below.
 * Up to 64 tokens: 256 columns of them are packed in pairs once for all rows (16 KB), and those of
 * four rows (1 KB). */
BNC_INLINE void bnc_tokens_i2_m4k64_neoni8mm(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int at, int rows, int cols,
                                             int n, int zero)
{
    enum { STEPS = BNC_I2_M4K64_I8MM_COLS / 8 };
    enum { PAIRS = BNC_I2_M4K64_I8MM_PAIRS, FEW = BNC_I2_M4K64_I8MM_FEW };
    const uint8x16_t low2 = vdupq_n_u8(3);
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 4)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(-zero * x->sum[at + i]));
    for (int first = 0; first < cols; first += BNC_I2_M4K64_I8MM_COLS) {
        const int left = cols - first;
        const int count = left < BNC_I2_M4K64_I8MM_COLS ? left : BNC_I2_M4K64_I8MM_COLS;
        int8x16_t q[32 * STEPS], codes[2 * STEPS];
        for (int i = 0; i < n; i += 2) {
            const int8_t *a = x->q + (at + i) * (ptrdiff_t)x->stride + first;
            const int8_t *b = i + 1 < n ? a + x->stride : a; /* its sums are not kept */
            for (int k = 0; k < count; k += 16)
                bnc_pair_neoni8mm(q + i / 2 * STEPS + k / 8, vld1q_s8(a + k), vld1q_s8(b + k));
        }
        for (int m = 0; m < rows; m += 4) {
            const uint8_t *from = w + (ptrdiff_t)m * (cols / 4) + first;
            for (int kb = 0; kb < count / 64; kb++, from += 64)
                for (int r = 0; r < 4; r += 2) {
                    const uint8x16_t c[2] = { vld1q_u8(from + 16 * r),
                                              vld1q_u8(from + 16 * r + 16) };
                    uint8x16_t u[4][2];
                    for (int j = 0; j < 2; j++) {
                        u[0][j] = vshrq_n_u8(c[j], 6);
                        u[1][j] = vandq_u8(vshrq_n_u8(c[j], 4), low2);
                        u[2][j] = vandq_u8(vshrq_n_u8(c[j], 2), low2);
                        u[3][j] = vandq_u8(c[j], low2);
                    }
                    for (int v = 0; v < 4; v++) {
                        int8x16_t pair[2];
                        bnc_pair_neoni8mm(pair, vreinterpretq_s8_u8(u[v][0]),
                                          vreinterpretq_s8_u8(u[v][1]));
                        codes[2 * (8 * kb + 2 * v) + r / 2] = pair[0];
                        codes[2 * (8 * kb + 2 * v + 1) + r / 2] = pair[1];
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
}

BNC_INLINE void bnc_codes_m4k64_neoni8mm(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n,
                                         int zero)
{
    if (n <= BNC_I2_M4K64_I8MM_FEW) {
        bnc_few_i2_m4k64_neondot(acc, w, x, rows, cols, n, zero);
        return;
    }
    for (int i = 0; i < n; i += 64)
        bnc_tokens_i2_m4k64_neoni8mm(acc + i * rows, w, x, i, rows, cols, n - i < 64 ? n - i : 64,
                                     zero);
}

BNC_KERNEL void bnc_matmul_i2_m4k64_neoni8mm(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_neoni8mm(acc, w, x, rows, cols, n, 1);
}

#endif
