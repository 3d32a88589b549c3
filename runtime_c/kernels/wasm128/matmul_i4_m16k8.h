/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers for WebAssembly SIMD, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * A byte holds the codes of two columns, the first one above. Codes of even and odd bytes are
 * masked where they lie, those above 16 times too large; the activations of those below are made 16
 * times as large, so that all products are 16 * code * q. Bounds: 16 * 15 * |q| <= 30480 a column:
 * int32 lasts for 70,454 columns. */
#ifndef BNC_MATMUL_I4_M16K8_WASM128_H
#define BNC_MATMUL_I4_M16K8_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i4_m16k8_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    const v128_t above = wasm_i16x8_const_splat(0xf0), below = wasm_i16x8_const_splat(0x0f);
    for (int m = 0; m < rows; m += 16, w += 8 * (ptrdiff_t)cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            const uint8_t *codes = w;
            v128_t sum[4];
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                sum[r] = wasm_i32x4_const_splat(0);
            for (int k = 0; k < cols; k += 8, codes += 64) {
                BNC_BASE(codes);
                const v128_t x0 = wasm_v128_load32_splat(q + k);
                const v128_t x1 = wasm_v128_load32_splat(q + k + 4);
                const v128_t even0 = wasm_i16x8_shr(wasm_i16x8_shl(x0, 8), 8);
                const v128_t even1 = wasm_i16x8_shr(wasm_i16x8_shl(x1, 8), 4);
                const v128_t odd0 = wasm_i16x8_shr(x0, 8);
                const v128_t odd1 = wasm_i16x8_shl(wasm_i16x8_shr(x1, 8), 4);
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t c = wasm_v128_load(codes + 16 * r), o = wasm_u16x8_shr(c, 8);
                    const v128_t e0 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, above), even0);
                    const v128_t e1 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, below), even1);
                    const v128_t o0 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, above), odd0);
                    const v128_t o1 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, below), odd1);
                    sum[r] = wasm_i32x4_add(
                        sum[r], wasm_i32x4_add(wasm_i32x4_add(e0, e1), wasm_i32x4_add(o0, o1)));
                }
            }
            const v128_t offset = wasm_i32x4_splat(8 * x->sum[i]);
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                wasm_v128_store(acc + i * rows + m + 4 * r,
                                wasm_i32x4_sub(wasm_i32x4_shr(sum[r], 4), offset));
        }
}

#endif
