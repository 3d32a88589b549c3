/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON without dot product, layout t5_m4k80: 1.6 bits a trit.
 *
 *     sum over k of trit * q = sum of q - sum of c * q,   c = 1 - trit in 0 .. 2
 *
 * A byte is 8 * high + low, or 216 + high where low would be 8 (bitnetc/layout.py: Code), so
 *
 *     high = min(byte >> 3, (byte + 40) mod 256)         of three trits, 0 .. 26
 *     low  = byte & 7, or an index beyond the table      of two trits, 0 .. 8
 *
 * 216 + 40 = 256: the sum wraps where it is high, and is the larger one elsewhere. A look-up in 32
 * entries gives three c as fields of a byte, one in 16 entries gives two, and beyond them TBL gives
 * zeros, which is right for low = 8: both trits are +1. On a Cortex-A72 a look-up takes several
 * operations, so there are two of them and not one for each trit.
 * Bounds: an int16 lane gains at most 2 * 127 = 254 from one SMLAL and five of them from one block,
 * so 25 blocks of columns fit in int16 (25 * 1270 = 31750) and are summed before widening. int32
 * then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M4K80_NEON_H
#define BNC_MATMUL_T5_M4K80_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m4k64.h"

enum { BNC_T5_M4K80_NEON_BLOCKS = 25 }; /* column blocks summed in int16 */
_Static_assert(BNC_T5_M4K80_NEON_BLOCKS * 5 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_T5_M4K80_ROWS == 4 && BNC_T5_M4K80_COLS == 80, "unrolled by hand");

struct bnc_tables_t5_neon {
    uint8x16x2_t high; /* c of three trits at bits 6, 2 and 0 */
    uint8x16_t low;    /* c of two trits at bits 4 and 0 */
};

BNC_INLINE struct bnc_tables_t5_neon bnc_tables_t5_neon(void)
{
    static const uint8_t high[32] = { 0x8a, 0x89, 0x88, 0x86, 0x85, 0x84, 0x82, 0x81, 0x80,
                                      0x4a, 0x49, 0x48, 0x46, 0x45, 0x44, 0x42, 0x41, 0x40,
                                      0x0a, 0x09, 0x08, 0x06, 0x05, 0x04, 0x02, 0x01, 0x00 };
    static const uint8_t low[16] = { 0x22, 0x21, 0x20, 0x12, 0x11, 0x10, 0x02, 0x01 };
    return (struct bnc_tables_t5_neon){ { { vld1q_u8(high), vld1q_u8(high + 16) } },
                                        vld1q_u8(low) };
}

/* Where `high` of each byte stands in a table of 32 entries. */
BNC_INLINE uint8x16_t bnc_high_t5_neon(uint8x16_t byte)
{
    return vminq_u8(vshrq_n_u8(byte, 3), vaddq_u8(byte, vdupq_n_u8(40)));
}

/* Where `low` stands in a table of 16 entries; 0xf8 and more where it is 8. */
BNC_INLINE uint8x16_t bnc_low_t5_neon(uint8x16_t byte)
{
    return vbslq_u8(vdupq_n_u8(7), byte, vcgeq_u8(byte, vdupq_n_u8(216)));
}

/* Five registers of c, one for each fifth of the block's columns. */
BNC_INLINE void bnc_unpack_t5_neon(int8x16_t c[5], const uint8_t *w,
                                   const struct bnc_tables_t5_neon *tables)
{
    const uint8x16_t low2 = vdupq_n_u8(3), byte = vld1q_u8(w);
    const uint8x16_t high = vqtbl2q_u8(tables->high, bnc_high_t5_neon(byte));
    const uint8x16_t low = vqtbl1q_u8(tables->low, bnc_low_t5_neon(byte));
    c[0] = vreinterpretq_s8_u8(vshrq_n_u8(high, 6));
    c[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(high, 2), low2));
    c[2] = vreinterpretq_s8_u8(vandq_u8(high, low2));
    c[3] = vreinterpretq_s8_u8(vshrq_n_u8(low, 4));
    c[4] = vreinterpretq_s8_u8(vandq_u8(low, low2));
}

BNC_INLINE void bnc_matvec_t5_m4k80_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int32_t sum_q, int rows,
                                         int cols)
{
    const struct bnc_tables_t5_neon tables = bnc_tables_t5_neon();
    const int blocks = cols / BNC_T5_M4K80_COLS;
    for (int m = 0; m < rows; m += 4) {
        int32x4_t sum = vdupq_n_s32(sum_q);
        for (int first = 0; first < blocks; first += BNC_T5_M4K80_NEON_BLOCKS) {
            const int left = blocks - first;
            const int last =
                first + (left < BNC_T5_M4K80_NEON_BLOCKS ? left : BNC_T5_M4K80_NEON_BLOCKS);
            struct bnc_row_neon row[4];
            for (int r = 0; r < 4; r++)
                row[r] = bnc_row_zero_neon();
            for (int kb = first; kb < last; kb++) {
                int8x16_t x[5];
                for (int v = 0; v < 5; v++)
                    x[v] = vld1q_s8(q + kb * BNC_T5_M4K80_COLS + 16 * v);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++) {
                    int8x16_t c[5];
                    bnc_unpack_t5_neon(c, w, &tables);
                    for (int v = 0; v < 5; v++)
                        row[r] = bnc_row_add_neon(row[r], c[v], x[v]);
                    w += 16;
                }
            }
            sum = vsubq_s32(sum, bnc_sum_rows_neon(row));
        }
        vst1q_s32(acc + m, sum);
    }
}

/* acc of four rows and `tokens` tokens, 1 or 2, -= codes * q over `count` registers of sixteen
 * columns; codes: [register][row], as many as int16 sums hold */
BNC_INLINE void bnc_tile_t5_m4k80_neon(int32_t *acc, int rows, const int8x16_t (*codes)[4],
                                       const int8_t *const *q, int tokens, int count)
{
    struct bnc_row_neon row[2][4];
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < 4; r++)
            row[t][r] = bnc_row_zero_neon();
    for (int v = 0; v < count; v++)
        for (int t = 0; t < tokens; t++) {
            const int8x16_t x = vld1q_s8(q[t] + 16 * v);
            for (int r = 0; r < 4; r++)
                row[t][r] = bnc_row_add_neon(row[t][r], codes[v][r], x);
        }
    for (int t = 0; t < tokens; t++) {
        int32_t *to = acc + t * rows;
        vst1q_s32(to, vsubq_s32(vld1q_s32(to), bnc_sum_rows_neon(row[t])));
    }
}

/* The same for n tokens, from column `first` on: two share the codes. */
BNC_INLINE void bnc_tokens_t5_m4k80_neon(int32_t *acc, int rows, const int8x16_t (*codes)[4],
                                         const struct bnc_acts *x, int first, int count, int n)
{
    for (int i = 0; i < n; i += 2) {
        const int8_t *const at = x->q + i * (ptrdiff_t)x->stride + first;
        const int8_t *const q[2] = { at, i + 1 < n ? at + x->stride : at };
        if (i + 1 < n)
            bnc_tile_t5_m4k80_neon(acc + i * rows, rows, codes, q, 2, count);
        else
            bnc_tile_t5_m4k80_neon(acc + i * rows, rows, codes, q, 1, count);
    }
}

BNC_KERNEL int8x16_t bnc_code_t5_neon(uint8x16_t bytes, int v)
{
    const struct bnc_tables_t5_neon tables = bnc_tables_t5_neon();
    const uint8x16_t low2 = vdupq_n_u8(3);
    if (v < 3) {
        const uint8x16_t high = vqtbl2q_u8(tables.high, bnc_high_t5_neon(bytes));
        return vreinterpretq_s8_u8(v == 0   ? vshrq_n_u8(high, 6)
                                   : v == 1 ? vandq_u8(vshrq_n_u8(high, 2), low2)
                                            : vandq_u8(high, low2));
    }
    const uint8x16_t low = vqtbl1q_u8(tables.low, bnc_low_t5_neon(bytes));
    return vreinterpretq_s8_u8(v == 3 ? vshrq_n_u8(low, 4) : vandq_u8(low, low2));
}

/* Two tokens go as a pair, whose sums are the negative ones until the end. For more, four
 * rows of 2000 columns are unpacked to bytes once (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_t5_m4k80_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { BLOCK = BNC_T5_M4K80_COLS, CHUNK = BNC_T5_M4K80_NEON_BLOCKS * BLOCK, FEW = 2 };
    if (n <= FEW) {
        const int i = bnc_pairs_neon(acc, w, x, rows, cols, n, BLOCK, CHUNK, 1, bnc_code_t5_neon);
        for (int at = 0; at < i * rows; at += 4)
            vst1q_s32(acc + at, vnegq_s32(vld1q_s32(acc + at)));
        if (i < n)
            bnc_matvec_t5_m4k80_neon(acc + i * rows, w, x->q + i * (ptrdiff_t)x->stride, x->sum[i],
                                     rows, cols);
        return;
    }
    const struct bnc_tables_t5_neon tables = bnc_tables_t5_neon();
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            vst1q_s32(acc + i * rows + m, vdupq_n_s32(x->sum[i]));
        for (int first = 0; first < cols; first += CHUNK) {
            int8x16_t codes[CHUNK / 16][4];
            const int count = (cols - first < CHUNK ? cols - first : CHUNK) / 16;
            for (int v = 0; v < count; v += 5)
                for (int r = 0; r < 4; r++) {
                    int8x16_t c[5];
                    bnc_unpack_t5_neon(c, w, &tables);
                    for (int u = 0; u < 5; u++)
                        codes[v + u][r] = c[u];
                    w += 16;
                }
            bnc_tokens_t5_m4k80_neon(acc + m, rows, codes, x, first, count, n);
        }
    }
}

#endif
