/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers for WebAssembly with relaxed SIMD, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * Engines agree on i32x4.relaxed_dot_i8x16_i7x16_add where its second operand is at most 127 and no
 * two products overflow int16: codes are at most 15, and 2 * 15 * 127 = 3810.
 * Bounds: |15 * q| <= 1905 a column: int32 lasts for a million columns. */
#ifndef BNC_MATMUL_I4_M16K8_WASMRELAXED_H
#define BNC_MATMUL_I4_M16K8_WASMRELAXED_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i4_m16k8_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    const v128_t low4 = wasm_i8x16_const_splat(15);
    for (int m = 0; m < rows; m += 16, w += 8 * (ptrdiff_t)cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            const uint8_t *codes = w;
            v128_t sum[4];
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                sum[r] = wasm_i32x4_splat(-8 * x->sum[i]);
            for (int k = 0; k < cols; k += 8, codes += 64) {
                BNC_BASE(codes);
                const v128_t x0 = wasm_v128_load32_splat(q + k);
                const v128_t x1 = wasm_v128_load32_splat(q + k + 4);
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t c = wasm_v128_load(codes + 16 * r);
                    sum[r] =
                        wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x0, wasm_u8x16_shr(c, 4), sum[r]);
                    sum[r] =
                        wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x1, wasm_v128_and(c, low4), sum[r]);
                }
            }
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                wasm_v128_store(acc + i * rows + m + 4 * r, sum[r]);
        }
}

#endif
