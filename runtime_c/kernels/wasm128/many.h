/* SPDX-License-Identifier: MIT */
/* Several tokens for WebAssembly SIMD, codes of two bits in layouts _m4k64. No relaxed
 * instructions: two rows to a lane need no more of others, and engines for x86 make three or more
 * of a relaxed dot product where the CPU lacks VNNI.
 *
 * Two rows share a lane, value a + 2^bits * value b, so that one dot product serves both. A sum is
 * split into a's share, the signed lower bits, and b's: a's must stay below 2^(bits - 1) in
 * magnitude until then, for `part` columns, 8 to a dot product. Bounds: trits in 14 bits, 256
 * columns: 32 * 254 = 8128 < 2^13. Integers of two bits in 13, since -2 * 2^14 - 2 is no int16, 64
 * columns: 8 * 508 = 4064 < 2^12. b's share is as small, and 2^14 * 8128 + 8128 fits in int32. */
#ifndef BNC_WASM128_MANY_H
#define BNC_WASM128_MANY_H

#include <wasm_simd128.h>

#include "../../bnc_linear.h"

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

/* Values of two rows and 64 columns: the codes of one lie at w, of the other at w + 16. */
BNC_INLINE void bnc_pair_rows_wasm128(v128_t pair[8], const uint8_t *w, int bits, int zero)
{
    const v128_t low2 = wasm_i8x16_const_splat(3);
    const v128_t offset = wasm_i16x8_splat((int16_t)(zero * (1 + (1 << bits))));
    const v128_t a = wasm_v128_load(w), b = wasm_v128_load(w + 16);
    BNC_UNROLL
    for (int quarter = 0; quarter < 4; quarter++) {
        const int shift = 6 - 2 * quarter;
        const v128_t a1 = wasm_v128_and(wasm_u16x8_shr(a, (uint32_t)shift), low2);
        const v128_t b1 = wasm_v128_and(wasm_u16x8_shr(b, (uint32_t)shift), low2);
        const v128_t low = wasm_i16x8_shl(wasm_u16x8_extend_low_u8x16(b1), (uint32_t)bits);
        const v128_t high = wasm_i16x8_shl(wasm_u16x8_extend_high_u8x16(b1), (uint32_t)bits);
        pair[2 * quarter] =
            wasm_i16x8_sub(wasm_v128_or(low, wasm_u16x8_extend_low_u8x16(a1)), offset);
        pair[2 * quarter + 1] =
            wasm_i16x8_sub(wasm_v128_or(high, wasm_u16x8_extend_high_u8x16(a1)), offset);
    }
}

/* acc of the rows of `pairs` pairs += their products with `count` columns; pairs is constant once
 * inlined. codes: [8 columns][pair] */
BNC_INLINE void bnc_tile_m4k64_wasm128(int32_t *acc, const v128_t (*codes)[4], const int8_t *q,
                                       int pairs, int count, int bits, int part)
{
    const uint32_t above = (uint32_t)(32 - bits);
    v128_t a[4], b[4];
    BNC_UNROLL
    for (int p = 0; p < pairs; p++)
        a[p] = b[p] = wasm_i32x4_const_splat(0);
    for (int first = 0; first < count; first += part) {
        const int last = first + (count - first < part ? count - first : part);
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
            const v128_t share = wasm_i32x4_shr(wasm_i32x4_shl(both[p], above), above);
            a[p] = wasm_i32x4_add(a[p], share);
            b[p] = wasm_i32x4_add(b[p],
                                  wasm_i32x4_shr(wasm_i32x4_sub(both[p], share), (uint32_t)bits));
        }
    }
    BNC_UNROLL
    for (int p = 0; p < pairs; p += 2) {
        const v128_t sum = bnc_sum4_wasm128(a[p], b[p], a[p + 1], b[p + 1]);
        wasm_v128_store(acc + 2 * p, wasm_i32x4_add(wasm_v128_load(acc + 2 * p), sum));
    }
}

/* acc = codes * q - zero * sum of q. 1024 columns of up to eight rows are unpacked at a time (8 KB,
 * stays in L1). bits, part, zero: constant once inlined, here and above */
BNC_INLINE void bnc_many_m4k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, int rows, int cols, int n,
                                       int bits, int part, int zero)
{
    enum { CHUNK = 1024, PAIRS = 4 };
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
                    bnc_pair_rows_wasm128(
                        pair, w + (ptrdiff_t)(row / 4) * cols + first + k + row % 4 * 16, bits,
                        zero);
                    BNC_UNROLL
                    for (int v = 0; v < 8; v++)
                        codes[k / 8 + v][p] = pair[v];
                }
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                if (pairs == PAIRS)
                    bnc_tile_m4k64_wasm128(acc + i * rows + m, codes, q, PAIRS, count, bits, part);
                else
                    bnc_tile_m4k64_wasm128(acc + i * rows + m, codes, q, 2, count, bits, part);
            }
        }
    }
}

#endif
