/* SPDX-License-Identifier: MIT */
/* Ternary matmul for WebAssembly with relaxed SIMD, layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * i32x4.relaxed_dot_i8x16_i7x16_add adds four products of bytes to an int32 lane. Engines differ in
 * it only where a byte of its second operand is above 127 or two products overflow int16: here that
 * operand is a code, at most 0x30, and 2 * 48 * 127 = 12192. So all engines give the same bits.
 * For one token, three of the four codes of a byte are masked where they lie, so that plane j is
 * summed 4^j times too large; the sums are multiples of 4^j and shifted at the end.
 * Bounds: |48 * q| <= 6096 a column, so int32 lasts for 352,276 columns. */
#ifndef BNC_MATMUL_I2_M4K64_WASMRELAXED_H
#define BNC_MATMUL_I2_M4K64_WASMRELAXED_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../wasm128/many.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

BNC_INLINE v128_t bnc_dot_relaxed(v128_t x, v128_t codes, v128_t sum)
{
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, codes, sum);
}

BNC_INLINE void bnc_matvec_i2_m4k64_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    const v128_t m0 = wasm_i8x16_const_splat(0x03), m1 = wasm_i8x16_const_splat(0x0c);
    const v128_t m2 = wasm_i8x16_const_splat(0x30);
    for (int m = 0; m < rows; m += 4) {
        v128_t plane[3][4]; /* [plane][row]; the uppermost one is shifted down, to the first */
        BNC_UNROLL
        for (int p = 0; p < 3; p++)
            BNC_UNROLL
        for (int r = 0; r < 4; r++)
            plane[p][r] = wasm_i32x4_const_splat(0);
        const int8_t *at = q;
        for (int k = 0; k < cols; k += BNC_I2_M4K64_COLS, at += BNC_I2_M4K64_COLS, w += 64) {
            BNC_BASE(at);
            BNC_BASE(w);
            const v128_t x3 = wasm_v128_load(at), x2 = wasm_v128_load(at + 16);
            const v128_t x1 = wasm_v128_load(at + 32), x0 = wasm_v128_load(at + 48);
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t c = wasm_v128_load(w + 16 * r);
                plane[0][r] = bnc_dot_relaxed(x0, wasm_v128_and(c, m0), plane[0][r]);
                plane[1][r] = bnc_dot_relaxed(x1, wasm_v128_and(c, m1), plane[1][r]);
                plane[2][r] = bnc_dot_relaxed(x2, wasm_v128_and(c, m2), plane[2][r]);
                plane[0][r] = bnc_dot_relaxed(x3, wasm_u8x16_shr(c, 6), plane[0][r]);
            }
        }
        v128_t sum[4];
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            sum[r] = wasm_i32x4_add(plane[0][r], wasm_i32x4_add(wasm_i32x4_shr(plane[1][r], 2),
                                                                wasm_i32x4_shr(plane[2][r], 4)));
        wasm_v128_store(acc + m, wasm_i32x4_sub(bnc_sum4_wasm128(sum[0], sum[1], sum[2], sum[3]),
                                                wasm_i32x4_splat(sum_q)));
    }
}

BNC_KERNEL void bnc_matmul_i2_m4k64_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_i2_m4k64_wasmrelaxed(acc, w, x->q, x->sum[0], rows, cols);
    else
        bnc_many_m4k64_wasm128(acc, w, x, rows, cols, n, 14, 256, 1);
}

#endif
