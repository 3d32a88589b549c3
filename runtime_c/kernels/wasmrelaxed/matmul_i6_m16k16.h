/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers for WebAssembly with relaxed SIMD, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Engines agree on i32x4.relaxed_dot_i8x16_i7x16_add where its second operand is at most 127 and no
 * two products overflow int16: codes are at most 63, and 2 * 63 * 127 = 16002.
 * Bounds: |63 * q| <= 8001 a column: int32 lasts for 268,401 columns. */
#ifndef BNC_MATMUL_I6_M16K16_WASMRELAXED_H
#define BNC_MATMUL_I6_M16K16_WASMRELAXED_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i6_m16k16_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                 const struct bnc_acts *x, int rows, int cols,
                                                 int n)
{
    const v128_t low6 = wasm_i8x16_const_splat(0x3f), low2 = wasm_i8x16_const_splat(0x03);
    const v128_t next2 = wasm_i8x16_const_splat(0x0c), high2 = wasm_i8x16_const_splat(0x30);
    for (int m = 0; m < rows; m += 16, w += 12 * (ptrdiff_t)cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            const uint8_t *codes = w;
            v128_t sum[4];
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                sum[r] = wasm_i32x4_splat(-32 * x->sum[i]);
            for (int k = 0; k < cols; k += 16, codes += 192) {
                BNC_BASE(codes);
                const v128_t x0 = wasm_v128_load32_splat(q + k);
                const v128_t x1 = wasm_v128_load32_splat(q + k + 4);
                const v128_t x2 = wasm_v128_load32_splat(q + k + 8);
                const v128_t x3 = wasm_v128_load32_splat(q + k + 12);
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t a = wasm_v128_load(codes + 16 * r);
                    const v128_t b = wasm_v128_load(codes + 64 + 16 * r);
                    const v128_t c = wasm_v128_load(codes + 128 + 16 * r);
                    const v128_t d =
                        wasm_v128_or(wasm_v128_or(wasm_v128_and(wasm_u16x8_shr(c, 2), high2),
                                                  wasm_v128_and(wasm_u16x8_shr(b, 4), next2)),
                                     wasm_v128_and(wasm_u16x8_shr(a, 6), low2));
                    v128_t s = sum[r];
                    s = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x0, wasm_v128_and(a, low6), s);
                    s = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x1, wasm_v128_and(b, low6), s);
                    s = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x2, wasm_v128_and(c, low6), s);
                    sum[r] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x3, d, s);
                }
            }
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                wasm_v128_store(acc + i * rows + m + 4 * r, sum[r]);
        }
}

#endif
