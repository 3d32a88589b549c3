/* SPDX-License-Identifier: MIT */
/* Ternary matmul for WebAssembly SIMD (128 bits, no relaxed instructions), layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * i32x4.dot_i16x8 multiplies pairs of int16 and adds them to int32.
 *
 * One token: codes are masked where they lie in their byte, times 64, 16, 4 or 1 by their place;
 * the activations that meet them are made 1, 4, 16 or 64 times as large, so that all products are
 * 64 * code * q. Even and odd bytes are taken apart, of codes and of activations alike.
 * Bounds: |64 * q| <= 8128 and the largest masked code is 0xc0, both in int16; a column adds at
 * most 64 * 254 = 16256, so int32 lasts for 132,104 columns. */
#ifndef BNC_MATMUL_I2_M4K64_WASM128_H
#define BNC_MATMUL_I2_M4K64_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

enum { BNC_I2_M4K64_WASM128_CHUNK = 2048 }; /* columns prepared or unpacked at a time */

/* Activations of one block: even columns of each quarter, then odd ones, times 1, 4, 16 and 64. */
BNC_INLINE void bnc_spread_wasm128(v128_t x[8], const int8_t *q)
{
    const v128_t high = wasm_i16x8_const_splat(-256);
    const v128_t x0 = wasm_v128_load(q), x1 = wasm_v128_load(q + 16);
    const v128_t x2 = wasm_v128_load(q + 32), x3 = wasm_v128_load(q + 48);
    x[0] = wasm_i16x8_shr(wasm_i16x8_shl(x0, 8), 8);
    x[1] = wasm_i16x8_shr(wasm_i16x8_shl(x1, 8), 6);
    x[2] = wasm_i16x8_shr(wasm_i16x8_shl(x2, 8), 4);
    x[3] = wasm_i16x8_shr(wasm_i16x8_shl(x3, 8), 2);
    x[4] = wasm_i16x8_shr(x0, 8);
    x[5] = wasm_i16x8_shr(wasm_v128_and(x1, high), 6);
    x[6] = wasm_i16x8_shr(wasm_v128_and(x2, high), 4);
    x[7] = wasm_i16x8_shr(wasm_v128_and(x3, high), 2);
}

/* sum + 64 * the products of one block of one row. */
BNC_INLINE v128_t bnc_row_wasm128(v128_t sum, const uint8_t *w, const v128_t x[8])
{
    const v128_t m0 = wasm_i16x8_const_splat(0xc0), m1 = wasm_i16x8_const_splat(0x30);
    const v128_t m2 = wasm_i16x8_const_splat(0x0c), m3 = wasm_i16x8_const_splat(0x03);
    const v128_t c = wasm_v128_load(w), o = wasm_u16x8_shr(c, 8);
    const v128_t e0 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m0), x[0]);
    const v128_t e1 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m1), x[1]);
    const v128_t e2 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m2), x[2]);
    const v128_t e3 = wasm_i32x4_dot_i16x8(wasm_v128_and(c, m3), x[3]);
    const v128_t o0 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m0), x[4]);
    const v128_t o1 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m1), x[5]);
    const v128_t o2 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m2), x[6]);
    const v128_t o3 = wasm_i32x4_dot_i16x8(wasm_v128_and(o, m3), x[7]);
    const v128_t e = wasm_i32x4_add(wasm_i32x4_add(e0, e1), wasm_i32x4_add(e2, e3));
    const v128_t s = wasm_i32x4_add(wasm_i32x4_add(o0, o1), wasm_i32x4_add(o2, o3));
    return wasm_i32x4_add(sum, wasm_i32x4_add(e, s));
}

/* The sums of four rows, in order. */
BNC_INLINE v128_t bnc_sum4_wasm128(v128_t s0, v128_t s1, v128_t s2, v128_t s3)
{
    const v128_t a = wasm_i32x4_add(wasm_i32x4_shuffle(s0, s1, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s0, s1, 1, 3, 5, 7));
    const v128_t b = wasm_i32x4_add(wasm_i32x4_shuffle(s2, s3, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s2, s3, 1, 3, 5, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
}

/* One token: its activations are spread once for all rows. All sums are multiples of 64. */
BNC_INLINE void bnc_matvec_i2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const int8_t *restrict q, int32_t sum_q, int rows,
                                            int cols)
{
    enum { CHUNK = BNC_I2_M4K64_WASM128_CHUNK };
    for (int m = 0; m < rows; m += 4)
        wasm_v128_store(acc + m, wasm_i32x4_splat(-sum_q));
    for (int first = 0; first < cols; first += CHUNK) {
        v128_t x[CHUNK / 64][8];
        const int blocks = (cols - first < CHUNK ? cols - first : CHUNK) / 64;
        for (int b = 0; b < blocks; b++)
            bnc_spread_wasm128(x[b], q + first + 64 * b);
        for (int m = 0; m < rows; m += 4) {
            const uint8_t *codes = w + (ptrdiff_t)m / 4 * cols + first;
            v128_t s0 = wasm_i32x4_const_splat(0), s1 = s0, s2 = s0, s3 = s0;
            const v128_t *spread = x[0];
            for (int b = 0; b < blocks; b++, codes += 64, spread += 8) {
                BNC_BASE(codes);
                BNC_BASE(spread);
                s0 = bnc_row_wasm128(s0, codes, spread);
                s1 = bnc_row_wasm128(s1, codes + 16, spread);
                s2 = bnc_row_wasm128(s2, codes + 32, spread);
                s3 = bnc_row_wasm128(s3, codes + 48, spread);
            }
            const v128_t sum = wasm_i32x4_shr(bnc_sum4_wasm128(s0, s1, s2, s3), 6);
            wasm_v128_store(acc + m, wasm_i32x4_add(wasm_v128_load(acc + m), sum));
        }
    }
}

/* Several tokens: two rows share a lane, trit a + 2^14 * trit b, so that one dot product serves
 * both. A dot product adds at most 2 * 127 to a's share: 32 of them (256 columns) stay below 2^13
 * in magnitude, as splitting a sum into a's share, the signed lower 14 bits, and b's asks. b's
 * share of 32 is as small, and the sum fits in int32. */
enum { BNC_I2_M4K64_WASM128_PART = 256, BNC_I2_M4K64_WASM128_PAIRS = 4 };
_Static_assert(BNC_I2_M4K64_WASM128_PART / 8 * 254 < 1 << 13, "a's share");

/* Trits of two rows and 64 columns: the codes of one lie at w, of the other at w + 16. */
BNC_INLINE void bnc_pair_rows_wasm128(v128_t pair[8], const uint8_t *w)
{
    const v128_t low2 = wasm_i8x16_const_splat(3), offset = wasm_i16x8_const_splat(1 + (1 << 14));
    const v128_t a = wasm_v128_load(w), b = wasm_v128_load(w + 16);
    BNC_UNROLL
    for (int quarter = 0; quarter < 4; quarter++) {
        const int shift = 6 - 2 * quarter;
        const v128_t a1 = wasm_v128_and(wasm_u16x8_shr(a, (uint32_t)shift), low2);
        const v128_t b1 = wasm_v128_and(wasm_u16x8_shr(b, (uint32_t)shift), low2);
        const v128_t low = wasm_i16x8_shl(wasm_u16x8_extend_low_u8x16(b1), 14);
        const v128_t high = wasm_i16x8_shl(wasm_u16x8_extend_high_u8x16(b1), 14);
        pair[2 * quarter] =
            wasm_i16x8_sub(wasm_v128_or(low, wasm_u16x8_extend_low_u8x16(a1)), offset);
        pair[2 * quarter + 1] =
            wasm_i16x8_sub(wasm_v128_or(high, wasm_u16x8_extend_high_u8x16(a1)), offset);
    }
}

/* acc of the rows of `pairs` pairs += their products with `count` columns; pairs is constant once
 * inlined. codes: [8 columns][pair] */
BNC_INLINE void bnc_tile_i2_m4k64_wasm128(int32_t *acc, const v128_t (*codes)[4], const int8_t *q,
                                          int pairs, int count)
{
    enum { PART = BNC_I2_M4K64_WASM128_PART };
    v128_t a[4], b[4];
    BNC_UNROLL
    for (int p = 0; p < pairs; p++)
        a[p] = b[p] = wasm_i32x4_const_splat(0);
    for (int first = 0; first < count; first += PART) {
        const int last = first + (count - first < PART ? count - first : PART);
        v128_t both[4];
        BNC_UNROLL
        for (int p = 0; p < pairs; p++)
            both[p] = wasm_i32x4_const_splat(0);
        const v128_t *pair = codes[first / 8];
        for (int k = first; k < last; k += 32, q += 32, pair += 16) {
            BNC_BASE(pair);
            BNC_BASE(q);
            BNC_UNROLL
            for (int half = 0; half < 2; half++) {
                const v128_t x = wasm_v128_load(q + 16 * half), *at = pair + 8 * half;
                const v128_t low = wasm_i16x8_extend_low_i8x16(x);
                const v128_t high = wasm_i16x8_extend_high_i8x16(x);
                BNC_UNROLL
                for (int p = 0; p < pairs; p++) {
                    const v128_t sum = wasm_i32x4_add(wasm_i32x4_dot_i16x8(at[p], low),
                                                      wasm_i32x4_dot_i16x8(at[4 + p], high));
                    both[p] = wasm_i32x4_add(both[p], sum);
                }
            }
        }
        BNC_UNROLL
        for (int p = 0; p < pairs; p++) {
            const v128_t share = wasm_i32x4_shr(wasm_i32x4_shl(both[p], 18), 18);
            a[p] = wasm_i32x4_add(a[p], share);
            b[p] = wasm_i32x4_add(b[p], wasm_i32x4_shr(wasm_i32x4_sub(both[p], share), 14));
        }
    }
    BNC_UNROLL
    for (int p = 0; p < pairs; p += 2) {
        const v128_t sum = bnc_sum4_wasm128(a[p], b[p], a[p + 1], b[p + 1]);
        wasm_v128_store(acc + 2 * p, wasm_i32x4_add(wasm_v128_load(acc + 2 * p), sum));
    }
}

/* 1024 columns of up to eight rows are unpacked at a time (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_i2_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 1024, PAIRS = BNC_I2_M4K64_WASM128_PAIRS };
    if (n == 1) {
        bnc_matvec_i2_m4k64_wasm128(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int m = 0; m < rows; m += 2 * PAIRS) {
        const int pairs = rows - m < 2 * PAIRS ? 2 : PAIRS;
        for (int first = 0; first < cols; first += CHUNK) {
            v128_t codes[CHUNK / 8][PAIRS];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int p = 0; p < pairs; p++)
                for (int k = 0; k < count; k += 64) {
                    v128_t pair[8];
                    const int row = m + 2 * p;
                    bnc_pair_rows_wasm128(pair, w + (ptrdiff_t)(row / 4) * cols + first + k +
                                                    row % 4 * 16);
                    BNC_UNROLL
                    for (int v = 0; v < 8; v++)
                        codes[k / 8 + v][p] = pair[v];
                }
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                if (pairs == PAIRS)
                    bnc_tile_i2_m4k64_wasm128(acc + i * rows + m, codes, q, PAIRS, count);
                else
                    bnc_tile_i2_m4k64_wasm128(acc + i * rows + m, codes, q, 2, count);
            }
        }
    }
}

#endif
