/* SPDX-License-Identifier: MIT */
/* Many tokens by the dot product: SDOT by one of four lanes takes four columns of four rows, whose
 * sums are the lanes of a register, and of one token. Sixteen columns of eight rows and eight
 * tokens are 16 loads for 64 SDOTs, and nothing is summed over lanes.
 * Bounds: |code * q| <= 254 a column, so int32 lasts for 8.4 million columns; of codes up to 3 for
 * 5.6 million. */
#ifndef BNC_NEONDOT_MANY_H
#define BNC_NEONDOT_MANY_H

#include <arm_neon.h>

#include "../../bnc_linear.h"
#include "few.h"

enum {
    BNC_DOT_CHUNK = 1024, /* columns of eight rows that are unpacked once: 8 KB, they stay in L1 */
    BNC_DOT_TOKENS = 8    /* at a time: 16 of 32 registers are sums */
};

/* Registers of four rows, 16 columns each, are stored as registers of four columns, four rows each.
 */
BNC_INLINE void bnc_put_rows_neondot(int8x16_t *to, const int8x16_t c[4])
{
    const int32x4_t c0 = vreinterpretq_s32_s8(c[0]), c1 = vreinterpretq_s32_s8(c[1]);
    const int32x4_t c2 = vreinterpretq_s32_s8(c[2]), c3 = vreinterpretq_s32_s8(c[3]);
    const int64x2_t even01 = vreinterpretq_s64_s32(vtrn1q_s32(c0, c1));
    const int64x2_t even23 = vreinterpretq_s64_s32(vtrn1q_s32(c2, c3));
    const int64x2_t odd01 = vreinterpretq_s64_s32(vtrn2q_s32(c0, c1));
    const int64x2_t odd23 = vreinterpretq_s64_s32(vtrn2q_s32(c2, c3));
    to[0] = vreinterpretq_s8_s64(vtrn1q_s64(even01, even23));
    to[1] = vreinterpretq_s8_s64(vtrn1q_s64(odd01, odd23));
    to[2] = vreinterpretq_s8_s64(vtrn2q_s64(even01, even23));
    to[3] = vreinterpretq_s8_s64(vtrn2q_s64(odd01, odd23));
}

/* acc of `groups` times four rows and `tokens` tokens += codes * q over 16 * count columns.
 * codes: [16 columns][group][four columns] */
BNC_INLINE void bnc_tile_neondot(int32_t *acc, int rows, const int8x16_t *codes,
                                 const int8_t *const *q, int groups, int tokens, int count)
{
    int32x4_t sum[2][BNC_DOT_TOKENS];
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < tokens; i++)
            sum[g][i] = vld1q_s32(acc + i * rows + 4 * g);
    for (int v = 0; v < count; v++, codes += 4 * groups) {
        int8x16_t x[BNC_DOT_TOKENS];
        for (int i = 0; i < tokens; i++)
            x[i] = vld1q_s8(q[i] + 16 * v);
        /* Lanes are constants. */
        for (int g = 0; g < groups; g++)
            for (int i = 0; i < tokens; i++)
                sum[g][i] = vdotq_laneq_s32(sum[g][i], codes[4 * g], x[i], 0);
        for (int g = 0; g < groups; g++)
            for (int i = 0; i < tokens; i++)
                sum[g][i] = vdotq_laneq_s32(sum[g][i], codes[4 * g + 1], x[i], 1);
        for (int g = 0; g < groups; g++)
            for (int i = 0; i < tokens; i++)
                sum[g][i] = vdotq_laneq_s32(sum[g][i], codes[4 * g + 2], x[i], 2);
        for (int g = 0; g < groups; g++)
            for (int i = 0; i < tokens; i++)
                sum[g][i] = vdotq_laneq_s32(sum[g][i], codes[4 * g + 3], x[i], 3);
    }
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < tokens; i++)
            vst1q_s32(acc + i * rows + 4 * g, sum[g][i]);
}

/* The same for `tokens` tokens at a time, as long as there are so many; returns the next one. */
BNC_INLINE int bnc_tiles_neondot(int32_t *acc, int rows, const int8x16_t *codes,
                                 const struct bnc_acts *x, int first, int count, int groups,
                                 int tokens, int i, int n)
{
    for (; i + tokens <= n; i += tokens) {
        const int8_t *q[BNC_DOT_TOKENS];
        for (int t = 0; t < tokens; t++) {
            q[t] = x->q + (i + t) * (ptrdiff_t)x->stride + first;
            __asm__("" : "+r"(q[t])); /* or each is computed from the one before, in the loop */
        }
        if (groups == 2)
            bnc_tile_neondot(acc + i * rows, rows, codes, q, 2, tokens, count);
        else
            bnc_tile_neondot(acc + i * rows, rows, codes, q, 1, tokens, count);
    }
    return i;
}

/* The same for n tokens. */
BNC_INLINE void bnc_tokens_neondot(int32_t *acc, int rows, const int8x16_t *codes,
                                   const struct bnc_acts *x, int first, int count, int groups,
                                   int n)
{
    int i = bnc_tiles_neondot(acc, rows, codes, x, first, count, groups, BNC_DOT_TOKENS, 0, n);
    i = bnc_tiles_neondot(acc, rows, codes, x, first, count, groups, 4, i, n);
    bnc_tiles_neondot(acc, rows, codes, x, first, count, groups, 1, i, n);
}

/* acc[i * rows + m] = sum of codes * q - zero * sum of q for layouts of four rows, whose 64 bytes
 * hold `block` columns, 16 bytes of each row. */
BNC_INLINE void bnc_many_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                 const struct bnc_acts *x, int rows, int cols, int n, int block,
                                 int zero, bnc_code_neondot *code)
{
    const int chunk = BNC_DOT_CHUNK / block * block;
    for (int m = 0; m < rows; m += 8) {
        const int groups = rows - m < 8 ? 1 : 2;
        for (int i = 0; i < n; i++)
            for (int g = 0; g < groups; g++)
                vst1q_s32(acc + i * rows + m + 4 * g, vdupq_n_s32(-zero * x->sum[i]));
        for (int first = 0; first < cols; first += chunk) {
            int8x16_t codes[8 * BNC_DOT_CHUNK / 16];
            const int count = (cols - first < chunk ? cols - first : chunk) / 16;
            for (int g = 0; g < groups; g++) {
                const uint8_t *from = w + ((ptrdiff_t)(m / 4 + g) * cols + first) / block * 64;
                for (int v = 0; v < count; v += block / 16, from += 64) {
                    int8x16_t c[8][4]; /* [16 columns][row] */
                    for (int r = 0; r < 4; r++) {
                        const uint8x16_t bytes = vld1q_u8(from + 16 * r);
#pragma GCC unroll 8
                        for (int u = 0; u < block / 16; u++)
                            c[u][r] = code(bytes, u);
                    }
                    for (int u = 0; u < block / 16; u++)
                        bnc_put_rows_neondot(codes + 4 * (groups * (v + u) + g), c[u]);
                }
            }
            bnc_tokens_neondot(acc + m, rows, codes, x, first, count, groups, n);
        }
    }
}

#endif
