/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 in plain C, layout b1_m8k64: XNOR, AND and population
 * count of words of 64 columns.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * W has ones for weights of +1, minus for negative activations, some for those that are not 0
 * (bnc_build_bits). Bounds: no count exceeds the columns, and int32 holds twice as many of any. */
#ifndef BNC_MATMUL_B1_M8K64_SCALAR_H
#define BNC_MATMUL_B1_M8K64_SCALAR_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

/* Rows of `words` words of a weight's bits; `twice`: two bits a weight, so that a count is not
 * doubled and the activations are those with bits twice. */
BNC_INLINE void bnc_count_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                 const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    for (int i = 0; i < n; i++) {
        const uint8_t *planes = bnc_bits_planes(x, i, twice), *at = w;
        const int32_t nonzero = bnc_bits_nonzero(x, i);
        for (int m = 0; m < rows; m += 8) {
            int32_t ones[8] = { 0 };
            for (int j = 0; j < words; j++, at += 64) {
                __builtin_prefetch(at + 4096);
                const uint64_t minus = bnc_word(planes + 16 * j);
                const uint64_t some = bnc_word(planes + 16 * j + 8);
                for (int r = 0; r < 8; r++)
                    ones[r] += bnc_popcount((bnc_word(at + 8 * r) ^ minus) & some);
            }
            for (int r = 0; r < 8; r++)
                acc[i * rows + m + r] = (twice ? ones[r] : 2 * ones[r]) - nonzero;
        }
    }
}

BNC_KERNEL void bnc_matmul_b1_m8k64_scalar(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_scalar(acc, w, x, rows, cols / 64, n, 0);
}

#endif
