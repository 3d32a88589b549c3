/* SPDX-License-Identifier: MIT */
/* Matmul of 8-bit integers for WebAssembly SIMD, layout i8_m16k4.
 *
 *     sum over k of (code - 128) * q = sum of code * q - 128 * sum of q,   code = value + 128
 *
 * i32x4.dot_i16x8 makes two lanes of a row's four columns, which are added at the end.
 * Bounds: 255 * |q| <= 32385 a column: int32 lasts for 66,310 columns. */
#ifndef BNC_MATMUL_I8_M16K4_WASM128_H
#define BNC_MATMUL_I8_M16K4_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I8_M16K4_ROWS == 16 && BNC_I8_M16K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i8_m16k4_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 16, w += 16 * (ptrdiff_t)cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            const uint8_t *codes = w;
            v128_t sum[8]; /* two rows each */
            BNC_UNROLL
            for (int r = 0; r < 8; r++)
                sum[r] = wasm_i32x4_const_splat(0);
            for (int k = 0; k < cols; k += 4, codes += 64) {
                BNC_BASE(codes);
                const v128_t twice = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(q + k));
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t c = wasm_v128_load(codes + 16 * r);
                    const v128_t low = wasm_u16x8_extend_low_u8x16(c);
                    const v128_t high = wasm_u16x8_extend_high_u8x16(c);
                    sum[2 * r] = wasm_i32x4_add(sum[2 * r], wasm_i32x4_dot_i16x8(low, twice));
                    sum[2 * r + 1] =
                        wasm_i32x4_add(sum[2 * r + 1], wasm_i32x4_dot_i16x8(high, twice));
                }
            }
            const v128_t offset = wasm_i32x4_splat(128 * x->sum[i]);
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t even = wasm_i32x4_shuffle(sum[2 * r], sum[2 * r + 1], 0, 2, 4, 6);
                const v128_t odd = wasm_i32x4_shuffle(sum[2 * r], sum[2 * r + 1], 1, 3, 5, 7);
                wasm_v128_store(acc + i * rows + m + 4 * r,
                                wasm_i32x4_sub(wasm_i32x4_add(even, odd), offset));
            }
        }
}

#endif
