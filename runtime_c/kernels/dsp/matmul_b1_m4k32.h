/* SPDX-License-Identifier: MIT */
/* Matmul of signs for the SIMD instructions of Armv6 and of Cortex-M's DSP extension, layout
 * b1_m4k32.
 *
 *     sum over k of (2 * bit - 1) * q = (sum over k of |254 * bit - (127 - q)|) - 127 * columns
 *
 * since 0 <= 127 - q <= 254: the magnitude is 127 - q where the bit is 0, and 127 + q where it
 * is 1. USADA8 adds four of them, of bytes without sign. 127 - q is q with seven bits inverted.
 * Four bits at bit 1 of their bytes, 2 * bit each, are 254 * bit as (word << 7) - word: a byte
 * gives 256 * bit to the next and 2 * bit less to itself. Four rows share four activations. Bounds:
 * a magnitude is 254 at most: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_B1_M4K32_DSP_H
#define BNC_MATMUL_B1_M4K32_DSP_H

#include <arm_acle.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_B1_M4K32_ROWS == 4 && BNC_B1_M4K32_COLS == 32, "unrolled by hand");

/* 254 where bit `place` of a byte is set, counted from the highest. */
BNC_INLINE uint32_t bnc_signs_dsp(uint32_t bits, int place)
{
    const uint32_t ones = 0x02020202u & (place < 7 ? bits >> (6 - place) : bits << 1);
    return (ones << 7) - ones;
}

/* Four columns of each half of a block, from column l on, and four rows. */
BNC_INLINE void bnc_quarter_b1_dsp(uint32_t sum[4], const uint8_t *w, const int8_t *q, int l)
{
    const uint32_t bits = bnc_word_dsp(w + l);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        const uint32_t x = bnc_word_dsp(q + 16 * half + l) ^ 0x7f7f7f7fu;
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            sum[r] = __usada8(bnc_signs_dsp(bits, 4 * half + r), x, sum[r]);
            __asm__ volatile("" : "+r"(sum[r])); /* one after the other, or registers are spilled */
        }
    }
}

BNC_KERNEL void bnc_matmul_b1_m4k32_dsp(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++) {
            const uint8_t *bits = w;
            const int8_t *q = x->q + i * x->stride;
            uint32_t sum[4] = { 0, 0, 0, 0 };
            for (int k = 0; k < cols; k += BNC_B1_M4K32_COLS, bits += 16, q += BNC_B1_M4K32_COLS) {
#pragma GCC unroll 4
                for (int l = 0; l < 16; l += 4)
                    bnc_quarter_b1_dsp(sum, bits, q, l);
            }
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = (int32_t)sum[r] - 127 * cols;
        }
        w += (ptrdiff_t)cols / 2; /* four rows, eight signs a byte */
    }
}

#endif
