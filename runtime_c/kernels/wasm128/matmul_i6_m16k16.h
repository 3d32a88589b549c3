/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers for WebAssembly SIMD, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Codes of even and odd bytes are words of their own. The fourth code is put together in the upper
 * six bits of its byte, four times too large; the activations of the others are made four times as
 * large, so that all products are 4 * code * q. Bounds: 4 * 63 * |q| <= 32004 a column: int32 lasts
 * for 67,100 columns. */
#ifndef BNC_MATMUL_I6_M16K16_WASM128_H
#define BNC_MATMUL_I6_M16K16_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i6_m16k16_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    const v128_t low6 = wasm_i16x8_const_splat(0x003f), low8 = wasm_i16x8_const_splat(0x00ff);
    const v128_t high2 = wasm_i8x16_const_splat((int8_t)0xc0);
    const v128_t next2 = wasm_i8x16_const_splat(0x30), third2 = wasm_i8x16_const_splat(0x0c);
    for (int m = 0; m < rows; m += 16, w += 12 * (ptrdiff_t)cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
            const uint8_t *codes = w;
            v128_t sum[4];
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                sum[r] = wasm_i32x4_const_splat(0);
            for (int k = 0; k < cols; k += 16, codes += 192) {
                BNC_BASE(codes);
                v128_t even[4], odd[4];
                BNC_UNROLL
                for (int j = 0; j < 4; j++) {
                    const v128_t four = wasm_v128_load32_splat(q + k + 4 * j);
                    const int fold = j < 3 ? 2 : 0;
                    even[j] = wasm_i16x8_shr(wasm_i16x8_shl(four, 8), 8u - (uint32_t)fold);
                    odd[j] = wasm_i16x8_shl(wasm_i16x8_shr(four, 8), (uint32_t)fold);
                }
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t a = wasm_v128_load(codes + 16 * r);
                    const v128_t b = wasm_v128_load(codes + 64 + 16 * r);
                    const v128_t c = wasm_v128_load(codes + 128 + 16 * r);
                    const v128_t upper =
                        wasm_v128_or(wasm_v128_or(wasm_v128_and(c, high2),
                                                  wasm_v128_and(wasm_u16x8_shr(b, 2), next2)),
                                     wasm_v128_and(wasm_u16x8_shr(a, 4), third2));
                    const v128_t a1 = wasm_v128_and(wasm_u16x8_shr(a, 8), low6);
                    const v128_t b1 = wasm_v128_and(wasm_u16x8_shr(b, 8), low6);
                    const v128_t c1 = wasm_v128_and(wasm_u16x8_shr(c, 8), low6);
                    const v128_t d1 = wasm_u16x8_shr(upper, 8);
                    const v128_t a0 = wasm_v128_and(a, low6), b0 = wasm_v128_and(b, low6);
                    const v128_t c0 = wasm_v128_and(c, low6), d0 = wasm_v128_and(upper, low8);
                    const v128_t ab0 = wasm_i32x4_add(wasm_i32x4_dot_i16x8(a0, even[0]),
                                                      wasm_i32x4_dot_i16x8(b0, even[1]));
                    const v128_t cd0 = wasm_i32x4_add(wasm_i32x4_dot_i16x8(c0, even[2]),
                                                      wasm_i32x4_dot_i16x8(d0, even[3]));
                    const v128_t ab1 = wasm_i32x4_add(wasm_i32x4_dot_i16x8(a1, odd[0]),
                                                      wasm_i32x4_dot_i16x8(b1, odd[1]));
                    const v128_t cd1 = wasm_i32x4_add(wasm_i32x4_dot_i16x8(c1, odd[2]),
                                                      wasm_i32x4_dot_i16x8(d1, odd[3]));
                    sum[r] = wasm_i32x4_add(
                        sum[r], wasm_i32x4_add(wasm_i32x4_add(ab0, cd0), wasm_i32x4_add(ab1, cd1)));
                }
            }
            const v128_t offset = wasm_i32x4_splat(32 * x->sum[i]);
            BNC_UNROLL
            for (int r = 0; r < 4; r++)
                wasm_v128_store(acc + i * rows + m + 4 * r,
                                wasm_i32x4_sub(wasm_i32x4_shr(sum[r], 2), offset));
        }
}

#endif
