/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for WebAssembly SIMD, layout q2_m4k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * Codes of even and odd bytes are masked where they lie, in lanes of 16 bits, the uppermost 64
 * times too large. The activations of the others are made 4, 16 and 64 times as large, so that all
 * products are 64 * code * q. Several tokens: many.h. Bounds: 64 * 127 is an int16. 64 * 3 * |q| <=
 * 24384 a column: int32 lasts for 88,069 columns. */
#ifndef BNC_MATMUL_Q2_M4K64_WASM128_H
#define BNC_MATMUL_Q2_M4K64_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "many.h"

_Static_assert(BNC_Q2_M4K64_ROWS == 4 && BNC_Q2_M4K64_COLS == 64, "unrolled by hand");

/* -2 * 2^14 - 2 is no int16, hence 13 bits for one of two rows. */
BNC_INLINE void bnc_several_q2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_many_m4k64_wasm128(acc, w, x, rows, cols, n, 13, 64, 2);
}

BNC_INLINE void bnc_matvec_q2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q, int32_t sum_q, int rows,
                                            int cols)
{
    const v128_t mask[4] = { wasm_i16x8_const_splat(0xc0), wasm_i16x8_const_splat(0x30),
                             wasm_i16x8_const_splat(0x0c), wasm_i16x8_const_splat(0x03) };
    for (int m = 0; m < rows; m += 4) {
        v128_t sum[4];
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            sum[r] = wasm_i32x4_const_splat(0);
        const int8_t *at = q;
        for (int k = 0; k < cols; k += BNC_Q2_M4K64_COLS, at += BNC_Q2_M4K64_COLS, w += 64) {
            BNC_BASE(at);
            BNC_BASE(w);
            v128_t even[4], odd[4]; /* of each quarter of the columns */
            BNC_UNROLL
            for (int v = 0; v < 4; v++) {
                const v128_t x = wasm_v128_load(at + 16 * v);
                even[v] = wasm_i16x8_shr(wasm_i16x8_shl(x, 8), (uint32_t)(8 - 2 * v));
                odd[v] = wasm_i16x8_shl(wasm_i16x8_shr(x, 8), (uint32_t)(2 * v));
            }
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t c = wasm_v128_load(w + 16 * r), o = wasm_u16x8_shr(c, 8);
                BNC_UNROLL
                for (int v = 0; v < 4; v++) {
                    const v128_t e = wasm_i32x4_dot_i16x8(wasm_v128_and(c, mask[v]), even[v]);
                    const v128_t d = wasm_i32x4_dot_i16x8(wasm_v128_and(o, mask[v]), odd[v]);
                    sum[r] = wasm_i32x4_add(sum[r], wasm_i32x4_add(e, d));
                }
            }
        }
        const v128_t all = bnc_sum4_wasm128(sum[0], sum[1], sum[2], sum[3]);
        wasm_v128_store(acc + m,
                        wasm_i32x4_sub(wasm_i32x4_shr(all, 6), wasm_i32x4_splat(2 * sum_q)));
    }
}

BNC_KERNEL void bnc_matmul_q2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_q2_m4k64_wasm128(acc, w, x->q, x->sum[0], rows, cols);
    else
        bnc_several_q2_m4k64_wasm128(acc, w, x, rows, cols, n);
}

#endif
