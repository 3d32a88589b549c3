/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for WebAssembly SIMD, layout b1_m8k64: XNOR, AND and
 * popcnt.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A 64-bit lane is 64 columns of a row.
 * Bounds: a byte gains at most 8 from one word, and 31 words are 248. A lane's count is a row's
 * bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_WASM128_H
#define BNC_MATMUL_B1_M8K64_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

enum { BNC_BITS_WORDS_WASM128 = 31 };

/* acc of 8 rows and one token. */
BNC_INLINE void bnc_count_rows_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                       const uint8_t *restrict planes, int32_t nonzero, int words,
                                       int twice)
{
    enum { WORDS = BNC_BITS_WORDS_WASM128 };
    v128_t ones[4]; /* of two rows each, two lanes a row */
    BNC_UNROLL
    for (int r = 0; r < 4; r++)
        ones[r] = wasm_i32x4_const_splat(0);
    for (int first = 0; first < words; first += WORDS) {
        const int last = words - first < WORDS ? words : first + WORDS;
        v128_t part[4];
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            part[r] = wasm_i32x4_const_splat(0);
        for (int j = first; j < last; j++, w += 64, planes += 16) {
            BNC_BASE(w);
            BNC_BASE(planes);
            const v128_t minus = wasm_v128_load64_splat(planes);
            const v128_t some = wasm_v128_load64_splat(planes + 8);
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t c = wasm_v128_load(w + 16 * r);
                const v128_t left = wasm_v128_and(wasm_v128_xor(c, minus), some);
                part[r] = wasm_i8x16_add(part[r], wasm_i8x16_popcnt(left));
            }
        }
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            ones[r] = wasm_i32x4_add(ones[r], wasm_u32x4_extadd_pairwise_u16x8(
                                                  wasm_u16x8_extadd_pairwise_u8x16(part[r])));
    }
    BNC_UNROLL
    for (int r = 0; r < 4; r += 2) {
        const v128_t count = wasm_i32x4_add(wasm_i32x4_shuffle(ones[r], ones[r + 1], 0, 2, 4, 6),
                                            wasm_i32x4_shuffle(ones[r], ones[r + 1], 1, 3, 5, 7));
        const v128_t sum = wasm_i32x4_shl(count, twice ? 0 : 1);
        wasm_v128_store(acc + 2 * r, wasm_i32x4_sub(sum, wasm_i32x4_splat(nonzero)));
    }
}

/* Rows of `words` words; `twice`: see kernels/scalar. */
BNC_INLINE void bnc_count_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                  const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    for (int m = 0; m < rows; m += 8, w += 64 * (ptrdiff_t)words)
        for (int i = 0; i < n; i++)
            bnc_count_rows_wasm128(acc + i * rows + m, w, bnc_bits_planes(x, i, twice),
                                   bnc_bits_nonzero(x, i), words, twice);
}

BNC_KERNEL void bnc_matmul_b1_m8k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_wasm128(acc, w, x, rows, cols / 64, n, 0);
}

#endif
