/* SPDX-License-Identifier: MIT */
/* Matmul of signs for WebAssembly SIMD (128 bits, no relaxed instructions) by table look-up, layout
 * b1_m128k8: ../scalar/quads.h.
 *
 * One byte holds the signs of two quads of one row; i8x16.swizzle looks up sixteen rows. Two rows
 * share a lane of 16 bits: one sum takes even + 256 * odd, modulo 2^16, another takes odd, and both
 * are known as long as neither share reaches 2^16. Bounds: as there. */
#ifndef BNC_MATMUL_B1_M128K8_WASM128_H
#define BNC_MATMUL_B1_M128K8_WASM128_H

#include <wasm_simd128.h>

#include "../scalar/quads.h"
#include "matmul_tl1_m64k4.h"

_Static_assert(BNC_B1_M128K8_ROWS == 128 && BNC_B1_M128K8_COLS == 8, "unrolled by hand");

BNC_KERNEL void bnc_make_quads_wasm128(struct bnc_quads *t, const int8_t *q, int count)
{
    const v128_t none = wasm_i8x16_const_splat(0);
    const v128_t first = wasm_i8x16_const(0, 0, 4, 4, 2, 2, 6, 6, 8, 8, 12, 12, 10, 10, 14, 14);
    const v128_t second = wasm_i8x16_const(1, 5, 1, 5, 3, 7, 3, 7, 9, 13, 9, 13, 11, 15, 11, 15);
    v128_t sum = none, most = none;
    for (int j = 0; j < count; j += 2) {
        const v128_t v = wasm_v128_load64_zero(q + 4 * j);
        const v128_t one = wasm_i8x16_max(v, none);
        const v128_t zero = wasm_i8x16_max(wasm_i8x16_neg(v), none);
        /* Of each quad what counts where a bit is 0, and then where it is 1; sums of its first two
         * columns and of its last two; the table. */
        const v128_t d = wasm_i32x4_shuffle(zero, one, 0, 4, 1, 5);
        const v128_t pairs =
            wasm_i8x16_add(wasm_i8x16_swizzle(d, first), wasm_i8x16_swizzle(d, second));
        wasm_v128_store(
            t->table[j],
            wasm_i8x16_add(
                wasm_i8x16_shuffle(pairs, pairs, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                wasm_i8x16_shuffle(pairs, pairs, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7)));
        wasm_v128_store(t->table[j + 1],
                        wasm_i8x16_add(wasm_i8x16_shuffle(pairs, pairs, 8, 8, 8, 8, 9, 9, 9, 9, 10,
                                                          10, 10, 10, 11, 11, 11, 11),
                                       wasm_i8x16_shuffle(pairs, pairs, 12, 13, 14, 15, 12, 13, 14,
                                                          15, 12, 13, 14, 15, 12, 13, 14, 15)));
        const v128_t sums =
            wasm_i32x4_extadd_pairwise_i16x8(wasm_u16x8_extadd_pairwise_u8x16(wasm_i8x16_abs(v)));
        sum = wasm_i32x4_add(sum, sums);
        most = wasm_i32x4_max(most, sums);
    }
    t->sum = wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1);
    const int32_t a = wasm_i32x4_extract_lane(most, 0), b = wasm_i32x4_extract_lane(most, 1);
    t->most = a > b ? a : b;
}

/* acc[64] += 2 * look-ups - sum. w: the first byte of these rows */
BNC_INLINE void bnc_rows_quads_wasm128(int32_t *acc, const uint8_t *w, const struct bnc_quads *t,
                                       int count)
{
    const v128_t low4 = wasm_i8x16_const_splat(15), less = wasm_i32x4_splat(t->sum);
    const uint8_t *codes = w, *tables = t->table[0];
    struct bnc_rows_wasm128 s[4];
    BNC_UNROLL
    for (int r = 0; r < 4; r++)
        s[r].both = s[r].odd = wasm_i32x4_const_splat(0);
    for (int j = 0; j < count; j += 2, codes += 128, tables += 32) {
        BNC_BASE(tables);
        BNC_BASE(codes);
        const v128_t upper = wasm_v128_load(tables), lower = wasm_v128_load(tables + 16);
        BNC_UNROLL
        for (int r = 0; r < 4; r++) {
            const v128_t c = wasm_v128_load(codes + 16 * r);
            const v128_t c0 = wasm_v128_and(wasm_u16x8_shr(c, 4), low4);
            s[r] = bnc_rows_add_wasm128(s[r], upper, c0);
            s[r] = bnc_rows_add_wasm128(s[r], lower, wasm_v128_and(c, low4));
        }
    }
    for (int i = 0; i < t->wides; i++) {
        const v128_t table = wasm_v128_load(t->again[i]);
        const uint32_t shift = t->wide[i] & 1 ? 0 : 4;
        codes = w + 128 * (t->wide[i] / 2);
        BNC_UNROLL
        for (int r = 0; r < 4; r++) {
            const v128_t c = wasm_u16x8_shr(wasm_v128_load(codes + 16 * r), shift);
            s[r] = bnc_rows_add_wasm128(s[r], table, wasm_v128_and(c, low4));
        }
    }
    BNC_UNROLL
    for (int r = 0; r < 4; r++) {
        int32_t found[16] = { 0 };
        bnc_rows_flush_wasm128(found, s[r], 0);
        BNC_UNROLL
        for (int v = 0; v < 4; v++) {
            int32_t *to = acc + 16 * r + 4 * v;
            const v128_t twice = wasm_i32x4_shl(wasm_v128_load(found + 4 * v), 1);
            wasm_v128_store(to, wasm_i32x4_add(wasm_v128_load(to), wasm_i32x4_sub(twice, less)));
        }
    }
}

BNC_KERNEL void bnc_add_quads_wasm128(int32_t *acc, const uint8_t *w, const struct bnc_quads *t,
                                      int count)
{
    bnc_rows_quads_wasm128(acc, w, t, count);
    bnc_rows_quads_wasm128(acc + 64, w + 64, t, count);
}

BNC_KERNEL void bnc_matmul_b1_m128k8_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_look_up_quads(bnc_make_quads_wasm128, bnc_add_quads_wasm128, acc, w, x, rows, cols, n);
}

#endif
