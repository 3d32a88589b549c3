/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 with dot product, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * SDOT adds four products of signed bytes to an int32 lane. For one token, three of the four codes
 * of a byte are masked where they lie, so that plane j is summed 4^j times too large (the top one
 * is shifted down: 0x80 would be negative); the sums are multiples of 4^j and shifted at the end.
 * Bounds: |32 * q| <= 4064 a column, so int32 lasts for 528,416 columns. */
#ifndef BNC_MATMUL_I2_M4K64_NEONDOT_H
#define BNC_MATMUL_I2_M4K64_NEONDOT_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* The sums of four registers of int32 lanes, in order. */
BNC_INLINE int32x4_t bnc_sum4_neon(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d)
{
    return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

BNC_INLINE void bnc_matvec_i2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q, int32_t sum_q, int rows,
                                            int cols)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    const uint8x16_t mask[3] = { vdupq_n_u8(0x03), vdupq_n_u8(0x0c), vdupq_n_u8(0x30) };
    for (int m = 0; m < rows; m += 4) {
        int32x4_t plane[4][4]; /* [plane][row] */
        for (int p = 0; p < 4; p++)
            for (int r = 0; r < 4; r++)
                plane[p][r] = vdupq_n_s32(0);
        for (int kb = 0; kb < blocks; kb++) {
            const int8_t *at = q + kb * BNC_I2_M4K64_COLS;
            const int8x16_t x3 = vld1q_s8(at), x2 = vld1q_s8(at + 16);
            const int8x16_t x1 = vld1q_s8(at + 32), x0 = vld1q_s8(at + 48);
            for (int r = 0; r < 4; r++) {
                const uint8x16_t c = vld1q_u8(w);
                const int8x16_t c0 = vreinterpretq_s8_u8(vandq_u8(c, mask[0]));
                const int8x16_t c1 = vreinterpretq_s8_u8(vandq_u8(c, mask[1]));
                const int8x16_t c2 = vreinterpretq_s8_u8(vandq_u8(c, mask[2]));
                const int8x16_t c3 = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
                plane[0][r] = vdotq_s32(plane[0][r], c0, x0);
                plane[1][r] = vdotq_s32(plane[1][r], c1, x1);
                plane[2][r] = vdotq_s32(plane[2][r], c2, x2);
                plane[3][r] = vdotq_s32(plane[3][r], c3, x3);
                w += 16;
            }
        }
        int32x4_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] = vaddq_s32(vaddq_s32(plane[0][r], plane[3][r]),
                               vaddq_s32(vshrq_n_s32(plane[1][r], 2), vshrq_n_s32(plane[2][r], 4)));
        vst1q_s32(acc + m,
                  vsubq_s32(bnc_sum4_neon(sum[0], sum[1], sum[2], sum[3]), vdupq_n_s32(sum_q)));
    }
}

enum { BNC_I2_M4K64_TOKENS = 4 }; /* tokens multiplied at a time: 16 of 32 registers are sums */

/* acc of 4 rows and up to BNC_I2_M4K64_TOKENS tokens += codes * q over `count` registers. */
BNC_INLINE void bnc_tile_i2_m4k64_neondot(int32_t *acc, int rows, const int8x16_t *codes,
                                          const int8_t *const *q, int tokens, int count)
{
    int32x4_t sum[BNC_I2_M4K64_TOKENS][4];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            sum[i][r] = vdupq_n_s32(0);
    for (int v = 0; v < count; v++)
        for (int i = 0; i < tokens; i++) {
            const int8x16_t x = vld1q_s8(q[i] + 16 * v);
            for (int r = 0; r < 4; r++)
                sum[i][r] = vdotq_s32(sum[i][r], codes[4 * v + r], x);
        }
    for (int i = 0; i < tokens; i++) {
        int32_t *to = acc + i * rows;
        const int32x4_t s = bnc_sum4_neon(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
        vst1q_s32(to, vaddq_s32(vld1q_s32(to), s));
    }
}

/* The same for n tokens, from column `first` on. */
BNC_INLINE void bnc_tokens_neondot(int32_t *acc, int rows, const int8x16_t *codes,
                                   const struct bnc_acts *x, int first, int count, int n)
{
    enum { TOKENS = BNC_I2_M4K64_TOKENS };
    const int8_t *q[TOKENS];
    int i = 0;
    for (; i + TOKENS <= n; i += TOKENS) {
        for (int t = 0; t < TOKENS; t++)
            q[t] = x->q + (i + t) * (ptrdiff_t)x->stride + first;
        bnc_tile_i2_m4k64_neondot(acc + i * rows, rows, codes, q, TOKENS, count);
    }
    for (; i < n; i++) {
        q[0] = x->q + i * (ptrdiff_t)x->stride + first;
        bnc_tile_i2_m4k64_neondot(acc + i * rows, rows, codes, q, 1, count);
    }
}

/* Several tokens: four rows of 2048 columns are unpacked to bytes once (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_i2_m4k64_neondot(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 2048 };
    if (n == 1) {
        bnc_matvec_i2_m4k64_neondot(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    const uint8x16_t low2 = vdupq_n_u8(3);
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(-x->sum[i]));
        for (int first = 0; first < cols; first += CHUNK) {
            int8x16_t codes[4 * CHUNK / 16]; /* [register][row] */
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 16;
            for (int v = 0; v < count; v += 4)
                for (int r = 0; r < 4; r++) {
                    const uint8x16_t c = vld1q_u8(w);
                    int8x16_t *to = codes + 4 * v + r;
                    to[0] = vreinterpretq_s8_u8(vshrq_n_u8(c, 6));
                    to[4] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 4), low2));
                    to[8] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(c, 2), low2));
                    to[12] = vreinterpretq_s8_u8(vandq_u8(c, low2));
                    w += 16;
                }
            bnc_tokens_neondot(acc + m, rows, codes, x, first, count, n);
        }
    }
}

#endif
