/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for 32-bit Arm NEON, layout b1_m8k64: XNOR, AND and CNT.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A 64-bit lane is 64 columns of a row.
 * Bounds: a byte gains at most 8 from one word, and 31 words are 248. A lane's count is a row's
 * bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_NEON32_H
#define BNC_MATMUL_B1_M8K64_NEON32_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

/* Before loops over the registers of an array: Clang for 32 bits leaves them, and the array in
 * memory. */
#if defined(__clang__)
#define BNC_UNROLL_BITS _Pragma("clang loop unroll(full)")
#else
#define BNC_UNROLL_BITS _Pragma("GCC unroll 4")
#endif

enum { BNC_BITS_WORDS_NEON32 = 31 };

/* acc of 8 rows and one token. */
BNC_INLINE void bnc_count_rows_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                      const uint8_t *restrict planes, int32_t nonzero, int words,
                                      int twice)
{
    enum { WORDS = BNC_BITS_WORDS_NEON32 };
    uint64x2_t ones[4]; /* of two rows each */
    BNC_UNROLL_BITS
    for (int r = 0; r < 4; r++)
        ones[r] = vdupq_n_u64(0);
    for (int first = 0; first < words; first += WORDS) {
        const int last = words - first < WORDS ? words : first + WORDS;
        uint8x16_t part[4];
        BNC_UNROLL_BITS
        for (int r = 0; r < 4; r++)
            part[r] = vdupq_n_u8(0);
        for (int j = first; j < last; j++, w += 64, planes += 16) {
            const uint8x16_t both = vld1q_u8(planes);
            const uint8x16_t minus = vcombine_u8(vget_low_u8(both), vget_low_u8(both));
            const uint8x16_t some = vcombine_u8(vget_high_u8(both), vget_high_u8(both));
            BNC_UNROLL_BITS
            for (int r = 0; r < 4; r++) {
                const uint8x16_t left = vandq_u8(veorq_u8(vld1q_u8(w + 16 * r), minus), some);
                part[r] = vaddq_u8(part[r], vcntq_u8(left));
            }
        }
        BNC_UNROLL_BITS
        for (int r = 0; r < 4; r++)
            ones[r] = vpadalq_u32(ones[r], vpaddlq_u16(vpaddlq_u8(part[r])));
    }
    BNC_UNROLL_BITS
    for (int r = 0; r < 4; r += 2) {
        const uint32x4_t count = vcombine_u32(vmovn_u64(ones[r]), vmovn_u64(ones[r + 1]));
        const int32x4_t sum = vreinterpretq_s32_u32(twice ? count : vaddq_u32(count, count));
        vst1q_s32(acc + 2 * r, vsubq_s32(sum, vdupq_n_s32(nonzero)));
    }
}

/* Rows of `words` words; `twice`: see kernels/scalar. */
BNC_INLINE void bnc_count_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                 const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    for (int m = 0; m < rows; m += 8, w += 64 * (ptrdiff_t)words)
        for (int i = 0; i < n; i++)
            bnc_count_rows_neon32(acc + i * rows + m, w, bnc_bits_planes(x, i, twice),
                                  bnc_bits_nonzero(x, i), words, twice);
}

BNC_KERNEL void bnc_matmul_b1_m8k64_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_neon32(acc, w, x, rows, cols / 64, n, 0);
}

#endif
