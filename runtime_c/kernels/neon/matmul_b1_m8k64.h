/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for AArch64 NEON, layout b1_m8k64: XNOR, AND and CNT.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A 64-bit lane is 64 columns of a row.
 * Bounds: a byte gains at most 8 from one word, and 31 words are 248. A lane's count is a row's
 * bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_NEON_H
#define BNC_MATMUL_B1_M8K64_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

enum { BNC_BITS_WORDS_NEON = 31, BNC_BITS_TOKENS_NEON = 4 };

/* acc of 8 rows for `tokens` <= BNC_BITS_TOKENS_NEON tokens, constant once inlined, whose planes
 * lie `apart` bytes apart. */
BNC_INLINE void bnc_count_tokens_neon(int32_t *restrict acc, int rows, const uint8_t *restrict w,
                                      const uint8_t *planes, ptrdiff_t apart,
                                      const int32_t *nonzero, int tokens, int words, int twice)
{
    uint64x2_t ones[BNC_BITS_TOKENS_NEON][4]; /* [token][two rows] */
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            ones[t][r] = vdupq_n_u64(0);
    for (int first = 0; first < words; first += BNC_BITS_WORDS_NEON) {
        const int last = words - first < BNC_BITS_WORDS_NEON ? words : first + BNC_BITS_WORDS_NEON;
        uint8x16_t part[BNC_BITS_TOKENS_NEON][4];
        for (int t = 0; t < tokens; t++)
            for (int r = 0; r < 4; r++)
                part[t][r] = vdupq_n_u8(0);
        for (int j = first; j < last; j++) {
            uint8x16_t c[4];
            for (int r = 0; r < 4; r++)
                c[r] = vld1q_u8(w + 64 * (ptrdiff_t)j + 16 * r);
            for (int t = 0; t < tokens; t++) {
                const uint8_t *word = planes + t * apart + 16 * (ptrdiff_t)j;
                const uint8x16_t both = vld1q_u8(word);
                const uint8x16_t minus =
                    vreinterpretq_u8_u64(vdupq_laneq_u64(vreinterpretq_u64_u8(both), 0));
                const uint8x16_t some =
                    vreinterpretq_u8_u64(vdupq_laneq_u64(vreinterpretq_u64_u8(both), 1));
                for (int r = 0; r < 4; r++)
                    part[t][r] =
                        vaddq_u8(part[t][r], vcntq_u8(vandq_u8(veorq_u8(c[r], minus), some)));
            }
        }
        for (int t = 0; t < tokens; t++)
            for (int r = 0; r < 4; r++)
                ones[t][r] = vpadalq_u32(ones[t][r], vpaddlq_u16(vpaddlq_u8(part[t][r])));
    }
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++) {
            const uint32x4_t count =
                vcombine_u32(vmovn_u64(ones[t][2 * h]), vmovn_u64(ones[t][2 * h + 1]));
            const int32x4_t sum = vreinterpretq_s32_u32(twice ? count : vaddq_u32(count, count));
            vst1q_s32(acc + t * rows + 4 * h, vsubq_s32(sum, vdupq_n_s32(nonzero[t])));
        }
}

/* Rows of `words` words; `twice`: see kernels/scalar. */
BNC_INLINE void bnc_count_neon(int32_t *restrict acc, const uint8_t *restrict w,
                               const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    enum { TOKENS = BNC_BITS_TOKENS_NEON };
    const ptrdiff_t bytes = 64 * (ptrdiff_t)words;
    for (int i = 0; i < n;) {
        const int tokens = n - i < TOKENS ? 1 : TOKENS;
        const uint8_t *planes = bnc_bits_planes(x, i, twice), *at = w;
        int32_t nonzero[TOKENS];
        for (int t = 0; t < tokens; t++)
            nonzero[t] = bnc_bits_nonzero(x, i + t);
        for (int m = 0; m < rows; m += 8, at += bytes) {
            int32_t *to = acc + i * rows + m;
            if (tokens == 1)
                bnc_count_tokens_neon(to, rows, at, planes, 0, nonzero, 1, words, twice);
            else
                bnc_count_tokens_neon(to, rows, at, planes, x->stride, nonzero, TOKENS, words,
                                      twice);
        }
        i += tokens;
    }
}

BNC_KERNEL void bnc_matmul_b1_m8k64_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_neon(acc, w, x, rows, cols / 64, n, 0);
}

#endif
