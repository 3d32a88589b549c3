/* SPDX-License-Identifier: MIT */
/* Ternary matmul for WebAssembly SIMD (128 bits, no relaxed instructions), layout tl1_m64k4.
 *
 * One token, by look-up, activation form lut16:
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]] + sum over wide pairs of t1 * q[2p+1]
 *
 * One byte holds the codes of two pairs of one row; i8x16.swizzle looks up sixteen rows. Entries
 * are read as bytes entry + 128, and two rows share an int16 lane: one sum takes even + 256 * odd,
 * modulo 2^16, another takes odd, and both are known as long as neither share reaches 2^16. Bounds:
 * 256 look-ups of at most 255 make 65280. 64 blocks of columns have 128 pairs, of which each may be
 * wide, which is a second look-up.
 *
 * Several tokens: below. */
#ifndef BNC_MATMUL_TL1_M64K4_WASM128_H
#define BNC_MATMUL_TL1_M64K4_WASM128_H

#include <wasm_simd128.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum {
    BNC_TL1_M64K4_WASM128_BLOCKS = 64, /* column blocks summed in int16 */
    BNC_TL1_M64K4_WASM128_BYTES = 64   /* of a block */
};
_Static_assert(BNC_TL1_M64K4_WASM128_BLOCKS * 4 * 255 <= 65535, "shares of int16 lanes");
_Static_assert(BNC_TL1_M64K4_ROWS == 64 && BNC_TL1_M64K4_COLS == 4, "unrolled by hand");

/* Sums of look-ups in sixteen rows. */
struct bnc_rows_wasm128 {
    v128_t both, odd; /* even rows + 256 * odd rows; odd rows */
};

BNC_INLINE struct bnc_rows_wasm128 bnc_rows_add_wasm128(struct bnc_rows_wasm128 s, v128_t table,
                                                        v128_t index)
{
    const v128_t entry = wasm_i8x16_swizzle(table, index);
    s.both = wasm_i16x8_add(s.both, entry);
    s.odd = wasm_i16x8_add(s.odd, wasm_u16x8_shr(entry, 8));
    return s;
}

/* acc[16] += sums of `count` look-ups. */
BNC_INLINE void bnc_rows_flush_wasm128(int32_t *acc, struct bnc_rows_wasm128 s, int count)
{
    const v128_t offset = wasm_i32x4_splat(128 * count);
    const v128_t even = wasm_i16x8_sub(s.both, wasm_i16x8_shl(s.odd, 8));
    const v128_t low = wasm_i16x8_shuffle(even, s.odd, 0, 8, 1, 9, 2, 10, 3, 11);
    const v128_t high = wasm_i16x8_shuffle(even, s.odd, 4, 12, 5, 13, 6, 14, 7, 15);
    const v128_t sum[4] = { wasm_u32x4_extend_low_u16x8(low), wasm_u32x4_extend_high_u16x8(low),
                            wasm_u32x4_extend_low_u16x8(high), wasm_u32x4_extend_high_u16x8(high) };
    BNC_UNROLL
    for (int v = 0; v < 4; v++) {
        const v128_t old = wasm_i32x4_sub(wasm_v128_load(acc + 4 * v), offset);
        wasm_v128_store(acc + 4 * v, wasm_i32x4_add(old, sum[v]));
    }
}

/* The entries t1 * q of a wide pair, + 128. */
BNC_INLINE v128_t bnc_wide_table_wasm128(int8_t q)
{
    const v128_t minus = (v128_t)(bnc_lut_table)(BNC_LUT_SECOND < 0);
    const v128_t some = (v128_t)(bnc_lut_table)(BNC_LUT_SECOND != 0);
    const v128_t x = wasm_v128_and(wasm_i8x16_splat(q), some);
    return wasm_i8x16_sub(wasm_v128_xor(x, wasm_v128_xor(minus, wasm_i8x16_const_splat(-128))),
                          minus);
}

/* One token and 64 rows. */
BNC_INLINE void bnc_matvec_tl1_m64k4_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int cols)
{
    enum { BYTES = BNC_TL1_M64K4_WASM128_BYTES };
    const v128_t low4 = wasm_i8x16_const_splat(15), offset = wasm_i8x16_const_splat(-128);
    const int blocks = cols / BNC_TL1_M64K4_COLS;
    const uint32_t *wide = bnc_lut_wide(x, 0), *const end = wide + 1 + wide[0];
    const int8_t *tables = bnc_lut_tables(x, 0);
    const uint8_t *codes = w;
    memset(acc, 0, 64 * sizeof *acc);
    wide++;
    for (int first = 0; first < blocks; first += BNC_TL1_M64K4_WASM128_BLOCKS) {
        const int left = blocks - first;
        const int count = left < BNC_TL1_M64K4_WASM128_BLOCKS ? left : BNC_TL1_M64K4_WASM128_BLOCKS;
        const uint32_t last = 2 * (uint32_t)(first + count);
        struct bnc_rows_wasm128 s[4];
        int look_ups = 2 * count;
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            s[r].both = s[r].odd = wasm_i32x4_const_splat(0);
        for (int kb = 0; kb < count; kb++, tables += 32, codes += BYTES) {
            BNC_BASE(tables);
            BNC_BASE(codes);
            const v128_t upper = wasm_v128_xor(wasm_v128_load(tables), offset);
            const v128_t lower = wasm_v128_xor(wasm_v128_load(tables + 16), offset);
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t c = wasm_v128_load(codes + 16 * r);
                const v128_t c0 = wasm_v128_and(wasm_u16x8_shr(c, 4), low4);
                s[r] = bnc_rows_add_wasm128(s[r], upper, c0);
                s[r] = bnc_rows_add_wasm128(s[r], lower, wasm_v128_and(c, low4));
            }
        }
        for (; wide < end && *wide >> 8 < last; wide++, look_ups++) {
            const uint32_t pair = *wide >> 8, shift = pair & 1 ? 0 : 4;
            const v128_t table = bnc_wide_table_wasm128((int8_t)(uint8_t)*wide);
            const uint8_t *at = w + (ptrdiff_t)(pair / 2) * BYTES;
            BNC_UNROLL
            for (int r = 0; r < 4; r++) {
                const v128_t c = wasm_u16x8_shr(wasm_v128_load(at + 16 * r), shift);
                s[r] = bnc_rows_add_wasm128(s[r], table, wasm_v128_and(c, low4));
            }
        }
        BNC_UNROLL
        for (int r = 0; r < 4; r++)
            bnc_rows_flush_wasm128(acc + 16 * r, s[r], look_ups);
    }
}

/* Several tokens, whose activations are read as they are. i32x4.dot_i16x8 multiplies two columns at
 * once, of two rows: row a of the first 32 and row b of the last 32 share a lane, trit a + 2^14 *
 * trit b. A dot product adds at most 2 * 127 to a's share: 32 of them (64 columns) stay below 2^13
 * in magnitude, as splitting a sum into a's share, the signed lower 14 bits, and b's asks. b's
 * share of 32 is as small, and the sum fits in int32. */
enum {
    BNC_TL1_M64K4_WASM128_PART = 16,  /* column blocks summed in shares */
    BNC_TL1_M64K4_WASM128_CHUNK = 128 /* columns unpacked at a time: 8 KB, stays in L1 */
};
_Static_assert(BNC_TL1_M64K4_WASM128_PART * 2 * 254 < 1 << 13, "a's share");

/* Trits of one pair of columns: lane l of trits[v] is rows 4v + l and 32 + 4v + l, its halves are
 * the columns. index: codes of sixteen rows, in order */
BNC_INLINE void bnc_pair_cols_wasm128(v128_t trits[8], const v128_t index[4])
{
    const bnc_lut_table first = BNC_LUT_FIRST, second = BNC_LUT_SECOND;
    BNC_UNROLL
    for (int h = 0; h < 2; h++) {
        const v128_t a = index[h], b = index[2 + h];
        /* a + 2^14 b in two bytes: a, and 64 b less one where a is negative. */
        const v128_t low0 = wasm_i8x16_swizzle((v128_t)first, a);
        const v128_t low1 = wasm_i8x16_swizzle((v128_t)second, a);
        const v128_t high0 =
            wasm_i8x16_add(wasm_i8x16_swizzle((v128_t)(bnc_lut_table)(first < 0), a),
                           wasm_i8x16_swizzle((v128_t)(first << 6), b));
        const v128_t high1 =
            wasm_i8x16_add(wasm_i8x16_swizzle((v128_t)(bnc_lut_table)(second < 0), a),
                           wasm_i8x16_swizzle((v128_t)(second << 6), b));
        const v128_t x0 =
            wasm_i8x16_shuffle(low0, high0, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const v128_t x1 = wasm_i8x16_shuffle(low0, high0, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                             29, 14, 30, 15, 31);
        const v128_t y0 =
            wasm_i8x16_shuffle(low1, high1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const v128_t y1 = wasm_i8x16_shuffle(low1, high1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                             29, 14, 30, 15, 31);
        trits[4 * h] = wasm_i16x8_shuffle(x0, y0, 0, 8, 1, 9, 2, 10, 3, 11);
        trits[4 * h + 1] = wasm_i16x8_shuffle(x0, y0, 4, 12, 5, 13, 6, 14, 7, 15);
        trits[4 * h + 2] = wasm_i16x8_shuffle(x1, y1, 0, 8, 1, 9, 2, 10, 3, 11);
        trits[4 * h + 3] = wasm_i16x8_shuffle(x1, y1, 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

/* acc of 64 rows and one token += their products with `blocks` blocks of four columns. */
BNC_INLINE void bnc_tile_tl1_m64k4_wasm128(int32_t *acc, const v128_t (*trits)[8], const int8_t *q,
                                           int blocks)
{
    enum { PART = BNC_TL1_M64K4_WASM128_PART };
    for (int first = 0; first < blocks; first += PART) {
        const int count = blocks - first < PART ? blocks - first : PART;
        v128_t both[8];
        BNC_UNROLL
        for (int v = 0; v < 8; v++)
            both[v] = wasm_i32x4_const_splat(0);
        for (int kb = 0; kb < count; kb++, q += 4, trits += 2) {
            const v128_t *at = *trits;
            BNC_BASE(at);
            const v128_t x = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(q));
            const v128_t x0 = wasm_i32x4_shuffle(x, x, 0, 0, 0, 0);
            const v128_t x1 = wasm_i32x4_shuffle(x, x, 1, 1, 1, 1);
            BNC_UNROLL
            for (int v = 0; v < 8; v++)
                both[v] =
                    wasm_i32x4_add(both[v], wasm_i32x4_add(wasm_i32x4_dot_i16x8(at[v], x0),
                                                           wasm_i32x4_dot_i16x8(at[8 + v], x1)));
        }
        BNC_UNROLL
        for (int v = 0; v < 8; v++) {
            const v128_t a = wasm_i32x4_shr(wasm_i32x4_shl(both[v], 18), 18);
            const v128_t b = wasm_i32x4_shr(wasm_i32x4_sub(both[v], a), 14);
            int32_t *to = acc + 4 * v;
            wasm_v128_store(to, wasm_i32x4_add(wasm_v128_load(to), a));
            wasm_v128_store(to + 32, wasm_i32x4_add(wasm_v128_load(to + 32), b));
        }
    }
}

BNC_KERNEL void bnc_matmul_tl1_m64k4_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                             const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_TL1_M64K4_WASM128_CHUNK, BYTES = BNC_TL1_M64K4_WASM128_BYTES };
    const v128_t low4 = wasm_i8x16_const_splat(15);
    if (n == 1) {
        for (int m = 0; m < rows; m += 64)
            bnc_matvec_tl1_m64k4_wasm128(acc + m, w + (ptrdiff_t)m / 4 * cols, x, cols);
        return;
    }
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int m = 0; m < rows; m += 64)
        for (int first = 0; first < cols; first += CHUNK) {
            v128_t trits[CHUNK / 2][8];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += 4, w += BYTES) {
                v128_t upper[4], lower[4];
                BNC_UNROLL
                for (int r = 0; r < 4; r++) {
                    const v128_t c = wasm_v128_load(w + 16 * r);
                    upper[r] = wasm_v128_and(wasm_u16x8_shr(c, 4), low4);
                    lower[r] = wasm_v128_and(c, low4);
                }
                bnc_pair_cols_wasm128(trits[k / 2], upper);
                bnc_pair_cols_wasm128(trits[k / 2 + 1], lower);
            }
            for (int i = 0; i < n; i++)
                bnc_tile_tl1_m64k4_wasm128(acc + i * rows + m, trits, x->q + i * x->stride + first,
                                           count / 4);
        }
}

#endif
