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

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

BNC_INLINE v128_t bnc_dot_relaxed(v128_t x, v128_t codes, v128_t sum)
{
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, codes, sum);
}

/* The sums of four rows, in order. */
BNC_INLINE v128_t bnc_sum4_wasmrelaxed(v128_t s0, v128_t s1, v128_t s2, v128_t s3)
{
    const v128_t a = wasm_i32x4_add(wasm_i32x4_shuffle(s0, s1, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s0, s1, 1, 3, 5, 7));
    const v128_t b = wasm_i32x4_add(wasm_i32x4_shuffle(s2, s3, 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(s2, s3, 1, 3, 5, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
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
        wasm_v128_store(acc + m,
                        wasm_i32x4_sub(bnc_sum4_wasmrelaxed(sum[0], sum[1], sum[2], sum[3]),
                                       wasm_i32x4_splat(sum_q)));
    }
}

/* Several tokens: without relaxed instructions, since two rows to a lane need no more of others,
 * and engines for x86 make three or more of a relaxed dot product where the CPU lacks VNNI. Two
 * rows share a lane, trit a + 2^14 * trit b, so that one dot product serves both. A dot product
 * adds at most 2 * 127 to a's share: 32 of them (256 columns) stay below 2^13 in magnitude, as
 * splitting a sum into a's share, the signed lower 14 bits, and b's asks. b's share of 32 is as
 * small, and the sum fits in int32. */
enum { BNC_I2_M4K64_WASMRELAXED_PART = 256, BNC_I2_M4K64_WASMRELAXED_PAIRS = 4 };
_Static_assert(BNC_I2_M4K64_WASMRELAXED_PART / 8 * 254 < 1 << 13, "a's share");

/* Trits of two rows and 64 columns: the codes of one lie at w, of the other at w + 16. */
BNC_INLINE void bnc_pair_rows_wasmrelaxed(v128_t pair[8], const uint8_t *w)
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
BNC_INLINE void bnc_tile_i2_m4k64_wasmrelaxed(int32_t *acc, const v128_t (*codes)[4],
                                              const int8_t *q, int pairs, int count)
{
    enum { PART = BNC_I2_M4K64_WASMRELAXED_PART };
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
        const v128_t sum = bnc_sum4_wasmrelaxed(a[p], b[p], a[p + 1], b[p + 1]);
        wasm_v128_store(acc + 2 * p, wasm_i32x4_add(wasm_v128_load(acc + 2 * p), sum));
    }
}

/* 1024 columns of up to eight rows are unpacked at a time (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_i2_m4k64_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 1024, PAIRS = BNC_I2_M4K64_WASMRELAXED_PAIRS };
    if (n == 1) {
        bnc_matvec_i2_m4k64_wasmrelaxed(acc, w, x->q, x->sum[0], rows, cols);
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
                    bnc_pair_rows_wasmrelaxed(pair, w + (ptrdiff_t)(row / 4) * cols + first + k +
                                                        row % 4 * 16);
                    BNC_UNROLL
                    for (int v = 0; v < 8; v++)
                        codes[k / 8 + v][p] = pair[v];
                }
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                if (pairs == PAIRS)
                    bnc_tile_i2_m4k64_wasmrelaxed(acc + i * rows + m, codes, q, PAIRS, count);
                else
                    bnc_tile_i2_m4k64_wasmrelaxed(acc + i * rows + m, codes, q, 2, count);
            }
        }
    }
}

#endif
