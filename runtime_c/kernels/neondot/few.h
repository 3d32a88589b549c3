/* SPDX-License-Identifier: MIT */
/* Few tokens by the dot product: codes of four rows are unpacked in registers and multiplied for up
 * to four tokens at once, whose sums are sixteen more; lanes are summed at the end.
 * Bounds: |code * q| <= 254 a column, so int32 lasts for 8.4 million columns; of codes up to 3 for
 * 5.6 million. */
#ifndef BNC_NEONDOT_FEW_H
#define BNC_NEONDOT_FEW_H

#include <arm_neon.h>

#include "../../bnc_linear.h"

enum {
    BNC_FEW_TOKENS = 4, /* at a time */
    BNC_FEW_MOST = 11   /* in all: of more tokens codes are unpacked to memory, many.h */
};

/* The codes of sixteen columns, number v of those that sixteen bytes of a row hold. */
typedef int8x16_t bnc_code_neondot(uint8x16_t bytes, int v);

/* The sums of four registers of int32 lanes, in order. */
BNC_INLINE int32x4_t bnc_sum4_neon(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

/* sum[token][row] += codes * q over `count` times sixteen columns, `apart` of them from one to the
 * next, the first at column k. */
BNC_FRAME void bnc_step_neondot(int32x4_t sum[][4], const uint8x16_t bytes[4],
                                const int8_t *const *q, int tokens, int k, int count, int apart,
                                bnc_code_neondot *code)
{
#pragma GCC unroll 8
    for (int v = 0; v < count; v++) {
        int8x16_t c[4];
        for (int r = 0; r < 4; r++)
            c[r] = code(bytes[r], v);
        /* The next codes are not unpacked before these are multiplied: registers would be spilled.
         */
        __asm__ volatile("" : "+w"(c[0]), "+w"(c[1]), "+w"(c[2]), "+w"(c[3]));
        for (int t = 0; t < tokens; t++) {
            const int8x16_t x = vld1q_s8(q[t] + k + apart * v);
            for (int r = 0; r < 4; r++)
                sum[t][r] = vdotq_s32(sum[t][r], c[r], x);
        }
    }
}

/* acc[i * rows + m] = sum of codes * q - zero * sum of q for `tokens` <= 4 tokens, constant once
 * inlined, from i on, and layouts of four rows, whose 64 bytes hold `block` columns. */
BNC_FRAME void bnc_tokens_few_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                      const struct bnc_acts *x, int i, int rows, int cols,
                                      int tokens, int block, int zero, bnc_code_neondot *code)
{
    const int8_t *q[BNC_FEW_TOKENS];
    for (int t = 0; t < tokens; t++)
        q[t] = x->q + (i + t) * (ptrdiff_t)x->stride;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum[BNC_FEW_TOKENS][4];
        for (int t = 0; t < tokens; t++)
            for (int r = 0; r < 4; r++)
                sum[t][r] = vdupq_n_s32(0);
        for (int k = 0; k < cols; k += block, w += 64) {
            uint8x16_t bytes[4];
            for (int r = 0; r < 4; r++)
                bytes[r] = vld1q_u8(w + 16 * r);
            bnc_step_neondot(sum, bytes, q, tokens, k, block / 16, 16, code);
        }
        for (int t = 0; t < tokens; t++)
            vst1q_s32(acc + (i + t) * rows + m,
                      vsubq_s32(bnc_sum4_neon(sum[t][0], sum[t][1], sum[t][2], sum[t][3]),
                                vdupq_n_s32(zero * x->sum[i + t])));
    }
}

/* The same for two to four tokens at a time; returns how many of n are done, all or all but one. */
BNC_INLINE int bnc_few_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                               const struct bnc_acts *x, int rows, int cols, int n, int block,
                               int zero, bnc_code_neondot *code)
{
    int i = 0;
    for (; i + 4 <= n; i += 4)
        bnc_tokens_few_neondot(acc, w, x, i, rows, cols, 4, block, zero, code);
    if (n - i == 3)
        bnc_tokens_few_neondot(acc, w, x, i, rows, cols, 3, block, zero, code);
    else if (n - i == 2)
        bnc_tokens_few_neondot(acc, w, x, i, rows, cols, 2, block, zero, code);
    return n - i == 1 ? i : n;
}

#endif
