/* SPDX-License-Identifier: MIT */
/* Ternary matmul for WebAssembly SIMD (128 bits, no relaxed instructions), layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * i32x4.dot_i16x8 multiplies pairs of int16 and adds them to int32. Codes are masked where they lie
 * in their byte, times 64, 16, 4 or 1 by their place; the activations that meet them are made
 * 1, 4, 16 or 64 times as large, so that all products are 64 * code * q. Even and odd bytes are
 * taken apart, of codes and of activations alike.
 * Bounds: |64 * q| <= 8128 and the largest masked code is 0xc0, both in int16; a column adds at
 * most 64 * 254 = 16256, so int32 lasts for 132,104 columns. */
#ifndef BNC_MATMUL_I2_M4K64_WASM128_H
#define BNC_MATMUL_I2_M4K64_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

/* Activations of one block: even and odd columns of each quarter, times 1, 4, 16 and 64. */
struct bnc_x_wasm128 {
    v128_t even0, even1, even2, even3, odd0, odd1, odd2, odd3;
};

BNC_INLINE struct bnc_x_wasm128 bnc_load_x_wasm128(const int8_t *q)
{
    const v128_t high = wasm_i16x8_const_splat(-256);
    const v128_t x0 = wasm_v128_load(q), x1 = wasm_v128_load(q + 16);
    const v128_t x2 = wasm_v128_load(q + 32), x3 = wasm_v128_load(q + 48);
    struct bnc_x_wasm128 x;
    x.even0 = wasm_i16x8_shr(wasm_i16x8_shl(x0, 8), 8);
    x.even1 = wasm_i16x8_shr(wasm_i16x8_shl(x1, 8), 6);
    x.even2 = wasm_i16x8_shr(wasm_i16x8_shl(x2, 8), 4);
    x.even3 = wasm_i16x8_shr(wasm_i16x8_shl(x3, 8), 2);
    x.odd0 = wasm_i16x8_shr(x0, 8);
    x.odd1 = wasm_i16x8_shr(wasm_v128_and(x1, high), 6);
    x.odd2 = wasm_i16x8_shr(wasm_v128_and(x2, high), 4);
    x.odd3 = wasm_i16x8_shr(wasm_v128_and(x3, high), 2);
    return x;
}

/* sum + 64 * the products of one block of one row. */
BNC_INLINE v128_t bnc_row_wasm128(v128_t sum, const uint8_t *w, const struct bnc_x_wasm128 *x)
{
    const v128_t m0 = wasm_i16x8_const_splat(0xc0), m1 = wasm_i16x8_const_splat(0x30);
    const v128_t m2 = wasm_i16x8_const_splat(0x0c), m3 = wasm_i16x8_const_splat(0x03);
    const v128_t c = wasm_v128_load(w), o = wasm_u16x8_shr(c, 8);
    const v128_t e0 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m0), x->even0);
    const v128_t e1 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m1), x->even1);
    const v128_t e2 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m2), x->even2);
    const v128_t e3 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m3), x->even3);
    const v128_t o0 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m0), x->odd0);
    const v128_t o1 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m1), x->odd1);
    const v128_t o2 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m2), x->odd2);
    const v128_t o3 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m3), x->odd3);
    const v128_t e = wasm_i32x4_add(wasm_i32x4_add(e0, e1), wasm_i32x4_add(e2, e3));
    const v128_t s = wasm_i32x4_add(wasm_i32x4_add(o0, o1), wasm_i32x4_add(o2, o3));
    return wasm_i32x4_add(sum, wasm_i32x4_add(e, s));
}

/* The sums of four rows, in order, divided by 64: exactly, all are multiples. */
BNC_INLINE v128_t bnc_sum4_wasm128(v128_t s0, v128_t s1, v128_t s2, v128_t s3)
{
    const v128_t a = wasm_i32x4_add(wasm_i32x4_shuffle(s0, s1, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s0, s1, 1, 3, 5, 7));
    const v128_t b = wasm_i32x4_add(wasm_i32x4_shuffle(s2, s3, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s2, s3, 1, 3, 5, 7));
    const v128_t sum =
        wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
    return wasm_i32x4_shr(sum, 6);
}

/* Codes need two instructions each, so several tokens gain nothing from unpacking them once. */
BNC_KERNEL void bnc_matmul_i2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int m = 0; m < rows; m += 4, w += cols)
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * x->stride;
            const uint8_t *codes = w;
            v128_t s0 = wasm_i32x4_const_splat(0), s1 = s0, s2 = s0, s3 = s0;
            for (int k = 0; k < cols; k += BNC_I2_M4K64_COLS, codes += 64) {
                const struct bnc_x_wasm128 at = bnc_load_x_wasm128(q + k);
                s0 = bnc_row_wasm128(s0, codes, &at);
                s1 = bnc_row_wasm128(s1, codes + 16, &at);
                s2 = bnc_row_wasm128(s2, codes + 32, &at);
                s3 = bnc_row_wasm128(s3, codes + 48, &at);
            }
            const v128_t sum = bnc_sum4_wasm128(s0, s1, s2, s3);
            wasm_v128_store(acc + i * rows + m, wasm_i32x4_sub(sum, wasm_i32x4_splat(x->sum[i])));
        }
}

#endif
