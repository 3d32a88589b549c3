/* SPDX-License-Identifier: MIT */
/* Ternary matmul for 32-bit Arm NEON by table look-up, layout tl1_m64k4, activation form lut16.
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]] + sum over wide pairs of t1 * q[2p+1]
 *
 * One byte holds the codes of two pairs of one row; VTBL looks eight rows up in a table of two
 * registers, VADDW adds to int16 lanes. Bounds: |entry| <= 127, two for each block of columns: 128
 * blocks fit in int16 (128 * 254 = 32512). A wide pair adds at most 127, and these 128 blocks have
 * 256 pairs (32512). */
#ifndef BNC_MATMUL_TL1_M64K4_NEON32_H
#define BNC_MATMUL_TL1_M64K4_NEON32_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "unroll.h"

enum {
    BNC_TL1_M64K4_NEON32_BLOCKS = 128, /* column blocks summed in int16 */
    BNC_TL1_M64K4_NEON32_BYTES = 64    /* of a block */
};
_Static_assert(BNC_TL1_M64K4_NEON32_BLOCKS * 2 * 127 <= 32767, "int16 lanes");
_Static_assert(BNC_TL1_M64K4_ROWS == 64 && BNC_TL1_M64K4_COLS == 4, "unrolled by hand");

BNC_INLINE int8x8x2_t bnc_table_neon32(const int8_t *table)
{
    const int8x16_t t = vld1q_s8(table);
    return (int8x8x2_t){ { vget_low_s8(t), vget_high_s8(t) } };
}

/* Entries of the eight rows whose codes are one half of a register. */
BNC_INLINE int8x8_t bnc_low_neon32(int8x8x2_t table, uint8x16_t code)
{
    return vtbl2_s8(table, vreinterpret_s8_u8(vget_low_u8(code)));
}

BNC_INLINE int8x8_t bnc_high_neon32(int8x8x2_t table, uint8x16_t code)
{
    return vtbl2_s8(table, vreinterpret_s8_u8(vget_high_u8(code)));
}

/* acc[64] += the int16 lanes of 64 rows. */
BNC_INLINE void bnc_flush_tl1_m64k4_neon32(int32_t *acc, const int16x8_t row[8])
{
    BNC_UNROLL_NEON32
    for (int r = 0; r < 8; r++) {
        int32_t *to = acc + 8 * r;
        vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(row[r])));
        vst1q_s32(to + 4, vaddw_s16(vld1q_s32(to + 4), vget_high_s16(row[r])));
    }
}

/* acc[64] += t1 * q of the wide pairs of blocks first .. last - 1. w: block 0 of these rows */
BNC_INLINE void bnc_wide_tl1_m64k4_neon32(int32_t *acc, const uint8_t *w, const uint32_t *wide,
                                          int first, int last)
{
    const uint32_t *entry = bnc_lut_from(wide, 2 * first), *end = wide + 1 + wide[0];
    if (entry == end || *entry >> 8 >= (uint32_t)last * 2)
        return;
    int16x8_t row[8];
    BNC_UNROLL_NEON32
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_s16(0);
    for (; entry < end && *entry >> 8 < (uint32_t)last * 2; entry++) {
        const uint32_t pair = *entry >> 8;
        const bnc_lut_table entries = BNC_LUT_SECOND * (int8_t)(uint8_t)*entry;
        const int8x8x2_t table = bnc_table_neon32((const int8_t *)&entries);
        const uint8_t *codes = w + (ptrdiff_t)(pair / 2) * BNC_TL1_M64K4_NEON32_BYTES;
        const int8x16_t shift = vdupq_n_s8(pair & 1 ? 0 : -4);
        BNC_UNROLL_NEON32
        for (int r = 0; r < 8; r += 2) {
            const uint8x16_t c = vandq_u8(vshlq_u8(vld1q_u8(codes + 8 * r), shift), vdupq_n_u8(15));
            row[r] = vaddw_s8(row[r], bnc_low_neon32(table, c));
            row[r + 1] = vaddw_s8(row[r + 1], bnc_high_neon32(table, c));
        }
    }
    bnc_flush_tl1_m64k4_neon32(acc, row);
}

/* One token and 64 rows: acc += look-ups of `blocks` blocks, of which int16 lanes hold as many. */
BNC_INLINE void bnc_one_tl1_m64k4_neon32(int32_t *acc, const uint8_t *w, const int8_t *tables,
                                         int blocks)
{
    int16x8_t row[8];
    BNC_UNROLL_NEON32
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_s16(0);
    for (; blocks > 0; blocks--, tables += 32, w += BNC_TL1_M64K4_NEON32_BYTES) {
        const int8x8x2_t upper = bnc_table_neon32(tables), lower = bnc_table_neon32(tables + 16);
        BNC_UNROLL_NEON32
        for (int r = 0; r < 8; r += 2) {
            const uint8x16_t c = vld1q_u8(w + 8 * r);
            const uint8x16_t c0 = vshrq_n_u8(c, 4), c1 = vandq_u8(c, vdupq_n_u8(15));
            row[r] = vaddw_s8(row[r], bnc_low_neon32(upper, c0));
            row[r + 1] = vaddw_s8(row[r + 1], bnc_high_neon32(upper, c0));
            row[r] = vaddw_s8(row[r], bnc_low_neon32(lower, c1));
            row[r + 1] = vaddw_s8(row[r + 1], bnc_high_neon32(lower, c1));
        }
    }
    bnc_flush_tl1_m64k4_neon32(acc, row);
}

/* The same with codes that are bytes. codes: [pair][64] */
BNC_INLINE void bnc_tile_tl1_m64k4_neon32(int32_t *acc, const uint8_t *codes, const int8_t *tables,
                                          int pairs)
{
    int16x8_t row[8];
    BNC_UNROLL_NEON32
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_s16(0);
    for (; pairs > 0; pairs--, tables += 16, codes += 64) {
        const int8x8x2_t table = bnc_table_neon32(tables);
        BNC_UNROLL_NEON32
        for (int r = 0; r < 8; r += 2) {
            const uint8x16_t c = vld1q_u8(codes + 8 * r);
            row[r] = vaddw_s8(row[r], bnc_low_neon32(table, c));
            row[r + 1] = vaddw_s8(row[r + 1], bnc_high_neon32(table, c));
        }
    }
    bnc_flush_tl1_m64k4_neon32(acc, row);
}

/* Four tokens or more: codes of 64 rows of 256 columns are unpacked to bytes once (8 KB, stays in
 * L1).
 */
BNC_KERNEL void bnc_matmul_tl1_m64k4_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 64, BYTES = BNC_TL1_M64K4_NEON32_BYTES, FEW = 3 };
    _Static_assert((int)CHUNK <= (int)BNC_TL1_M64K4_NEON32_BLOCKS, "int16 lanes");
    const int step = n <= FEW ? BNC_TL1_M64K4_NEON32_BLOCKS : CHUNK;
    const int blocks = cols / BNC_TL1_M64K4_COLS;
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int m = 0; m < rows; m += 64, w += blocks * (ptrdiff_t)BYTES)
        for (int first = 0; first < blocks; first += step) {
            const int count = blocks - first < step ? blocks - first : step;
            const uint8_t *packed = w + (ptrdiff_t)first * BYTES;
            if (n <= FEW) {
                for (int i = 0; i < n; i++)
                    bnc_one_tl1_m64k4_neon32(acc + i * rows + m, packed,
                                             bnc_lut_tables(x, i) + 32 * first, count);
            } else {
                uint8_t codes[CHUNK * 128];
                for (int kb = 0; kb < count; kb++)
                    for (int r = 0; r < 4; r++, packed += 16) {
                        const uint8x16_t c = vld1q_u8(packed);
                        vst1q_u8(codes + 128 * kb + 16 * r, vshrq_n_u8(c, 4));
                        vst1q_u8(codes + 128 * kb + 64 + 16 * r, vandq_u8(c, vdupq_n_u8(15)));
                    }
                for (int i = 0; i < n; i++)
                    bnc_tile_tl1_m64k4_neon32(acc + i * rows + m, codes,
                                              bnc_lut_tables(x, i) + 32 * first, 2 * count);
            }
            for (int i = 0; i < n; i++)
                bnc_wide_tl1_m64k4_neon32(acc + i * rows + m, w, bnc_lut_wide(x, i), first,
                                          first + count);
        }
}

#endif
