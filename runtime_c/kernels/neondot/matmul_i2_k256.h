/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with dot product, layout i2_k256: rows are contiguous, so that of one
 * token chosen rows can be computed and the others are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * As in i2_m4k64, three of the four codes of a byte are masked where they lie: plane j is summed
 * 4^j times too large and shifted at the end. Bounds: |32 * q| <= 4064 a column, so int32 lasts for
 * 528,416 columns. */
#ifndef BNC_MATMUL_I2_K256_NEONDOT_H
#define BNC_MATMUL_I2_K256_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_rows.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_I2_K256_ROWS == 1 && BNC_I2_K256_COLS == 256, "unrolled by hand");

/* The sums of four rows and one token. */
BNC_INLINE int32x4_t bnc_four_rows_i2_k256_neondot(const struct bnc_rows *w, const int8_t *q,
                                                   int cols)
{
    const uint8x16_t mask[3] = { vdupq_n_u8(0x03), vdupq_n_u8(0x0c), vdupq_n_u8(0x30) };
    int32x4_t plane[4][4], sum[4]; /* [plane][row] */
    for (int p = 0; p < 4; p++)
        for (int r = 0; r < 4; r++)
            plane[p][r] = vdupq_n_s32(0);
    for (int k = 0; k < cols; k += BNC_I2_K256_COLS) {
        for (int r = 0; r < 4; r++)
            __builtin_prefetch(w->next[r] + k / 4);
        for (int v = 0; v < 4; v++) {
            const int8_t *at = q + k + 16 * v;
            const int8x16_t x3 = vld1q_s8(at), x2 = vld1q_s8(at + 64);
            const int8x16_t x1 = vld1q_s8(at + 128), x0 = vld1q_s8(at + 192);
            for (int r = 0; r < 4; r++) {
                const uint8x16_t c = vld1q_u8(w->at[r] + k / 4 + 16 * v);
                const int8x16_t c0 = vreinterpretq_s8_u8(vandq_u8(c, mask[0]));
                const int8x16_t c1 = vreinterpretq_s8_u8(vandq_u8(c, mask[1]));
                const int8x16_t c2 = vreinterpretq_s8_u8(vandq_u8(c, mask[2]));
                const int8x16_t c3 = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
                plane[0][r] = vdotq_s32(plane[0][r], c0, x0);
                plane[1][r] = vdotq_s32(plane[1][r], c1, x1);
                plane[2][r] = vdotq_s32(plane[2][r], c2, x2);
                plane[3][r] = vdotq_s32(plane[3][r], c3, x3);
            }
        }
    }
    for (int r = 0; r < 4; r++)
        sum[r] = vaddq_s32(vaddq_s32(plane[0][r], plane[3][r]),
                           vaddq_s32(vshrq_n_s32(plane[1][r], 2), vshrq_n_s32(plane[2][r], 4)));
    return bnc_sum4_neon(sum[0], sum[1], sum[2], sum[3]);
}

/* The first `count` lanes, or all four. */
BNC_INLINE void bnc_store_rows_i2_k256_neondot(int32_t *acc, int32x4_t sum, int count)
{
    int32_t lane[4];
    vst1q_s32(lane, sum);
    memcpy(acc, lane, sizeof *acc * (size_t)(count < 4 ? count : 4));
}

/* acc[i] = row row[i] and one token, i < count. The rows up to row[listed - 1] are fetched ahead.
 */
BNC_KERNEL void bnc_rows_i2_k256_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, const int32_t *row, int count,
                                         int listed, int cols)
{
    const ptrdiff_t bytes = cols / 4;
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows r4 = bnc_rows_listed(w, bytes, row, i, count, listed);
        bnc_store_rows_i2_k256_neondot(
            acc + i,
            vsubq_s32(bnc_four_rows_i2_k256_neondot(&r4, x->q, cols), vdupq_n_s32(x->sum[0])),
            count - i);
    }
}

/* Four rows and `tokens` tokens from i on, constant once inlined. */
BNC_FRAME void bnc_tokens_i2_k256_neondot(int32_t *acc, const struct bnc_rows *w,
                                          const struct bnc_acts *x, int i, int m, int rows,
                                          int cols, int tokens)
{
    const int8_t *q[BNC_FEW_TOKENS];
    int32x4_t sum[BNC_FEW_TOKENS][4];
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (i + t) * (ptrdiff_t)x->stride;
        for (int r = 0; r < 4; r++)
            sum[t][r] = vdupq_n_s32(0);
    }
    for (int k = 0; k < cols; k += BNC_I2_K256_COLS) {
        if (i == 0)
            for (int r = 0; r < 4; r++)
                __builtin_prefetch(w->next[r] + k / 4);
        for (int v = 0; v < 4; v++) {
            uint8x16_t bytes[4];
            for (int r = 0; r < 4; r++)
                bytes[r] = vld1q_u8(w->at[r] + k / 4 + 16 * v);
            bnc_step_neondot(sum, bytes, q, tokens, k + 16 * v, 4, 64, bnc_code_i2_neondot);
        }
    }
    for (int t = 0; t < tokens; t++)
        bnc_store_rows_i2_k256_neondot(
            acc + (i + t) * rows + m,
            vsubq_s32(bnc_sum4_neon(sum[t][0], sum[t][1], sum[t][2], sum[t][3]),
                      vdupq_n_s32(x->sum[i + t])),
            rows - m);
}

/* Four rows, or as many as are left, and few tokens. */
BNC_INLINE void bnc_few_i2_k256_neondot(int32_t *acc, const struct bnc_rows *w,
                                        const struct bnc_acts *x, int m, int rows, int cols, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4)
        bnc_tokens_i2_k256_neondot(acc, w, x, i, m, rows, cols, 4);
    if (n - i == 3)
        bnc_tokens_i2_k256_neondot(acc, w, x, i, m, rows, cols, 3);
    else if (n - i == 2)
        bnc_tokens_i2_k256_neondot(acc, w, x, i, m, rows, cols, 2);
    else if (n - i == 1)
        bnc_store_rows_i2_k256_neondot(
            acc + i * rows + m,
            vsubq_s32(bnc_four_rows_i2_k256_neondot(w, x->q + i * (ptrdiff_t)x->stride, cols),
                      vdupq_n_s32(x->sum[i])),
            rows - m);
}

/* Rows that are no whole four are computed as with few tokens. */
BNC_KERNEL void bnc_matmul_i2_k256_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_DOT_CHUNK, FEW_MOST = 7 }; /* rows of their own cost few tokens more */
    const ptrdiff_t bytes = cols / 4;
    for (int m = 0, groups; m < rows; m += 4 * groups) {
        groups = rows - m < 8 ? 1 : 2;
        if (n <= FEW_MOST || rows - m < 4) {
            groups = 1;
            const struct bnc_rows r4 = bnc_rows_from(w, bytes, m, rows);
            bnc_few_i2_k256_neondot(acc, &r4, x, m, rows, cols, n);
            continue;
        }
        for (int i = 0; i < n; i++)
            for (int g = 0; g < groups; g++)
                vst1q_s32(acc + i * rows + m + 4 * g, vdupq_n_s32(-x->sum[i]));
        for (int first = 0; first < cols; first += CHUNK) {
            int8x16_t codes[8 * CHUNK / 16];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int g = 0; g < groups; g++)
                for (int k = 0; k < count; k += BNC_I2_K256_COLS)
                    for (int v = 0; v < 4; v++) {
                        const uint8_t *at = w + (m + 4 * g) * bytes + (first + k) / 4 + 16 * v;
                        int8x16_t c[4][4]; /* [64 columns][row] */
                        for (int r = 0; r < 4; r++) {
                            const uint8x16_t sixteen = vld1q_u8(at + r * bytes);
                            for (int u = 0; u < 4; u++)
                                c[u][r] = bnc_code_i2_neondot(sixteen, u);
                        }
                        for (int u = 0; u < 4; u++)
                            bnc_put_rows_neondot(codes + 4 * (groups * (k / 16 + 4 * u + v) + g),
                                                 c[u]);
                    }
            bnc_tokens_neondot(acc + m, rows, codes, x, first, count / 16, groups, n);
        }
    }
}

#endif
