/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON by table look-up, layout tl1_m64k4, activation form lut16: for
 * the Cortex-A72, which has one pipe for multiplication and two for everything else, and whose TBL
 * of 64 bits is three times as fast as that of 128.
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]] + sum over wide pairs of t1 * q[2p+1]
 *
 * One byte holds the codes of two pairs of one row; TBL looks up rows, SADDW adds to int16 lanes.
 * Bounds: |entry| <= 127, two for each block of columns: 128 blocks fit in int16 (128 * 254 =
 * 32512). A wide pair adds at most 127, and these 128 blocks have 256 pairs (32512). */
#ifndef BNC_MATMUL_TL1_M64K4_NEON_H
#define BNC_MATMUL_TL1_M64K4_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "load.h"

enum {
    BNC_TL1_M64K4_NEON_BLOCKS = 128, /* column blocks summed in int16 */
    BNC_TL1_M64K4_NEON_BYTES = 64    /* of a block */
};
_Static_assert(BNC_TL1_M64K4_NEON_BLOCKS * 2 * 127 <= 32767, "int16 lanes");
_Static_assert(BNC_TL1_M64K4_ROWS == 64 && BNC_TL1_M64K4_COLS == 4, "unrolled by hand");

/* acc[64] += the int16 lanes of 64 rows. */
BNC_INLINE void bnc_flush_tl1_m64k4_neon(int32_t *acc, const int16x8_t row[8])
{
    for (int r = 0; r < 8; r++) {
        int32_t *to = acc + 8 * r;
        vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(row[r])));
        vst1q_s32(to + 4, vaddw_high_s16(vld1q_s32(to + 4), row[r]));
    }
}

/* acc[64] += t1 * q of the wide pairs of blocks first .. last - 1. w: block 0 of these rows */
BNC_INLINE void bnc_wide_tl1_m64k4_neon(int32_t *acc, const uint8_t *w, const uint32_t *wide,
                                        int first, int last)
{
    const uint32_t *entry = bnc_lut_from(wide, 2 * first), *end = wide + 1 + wide[0];
    if (entry == end || *entry >> 8 >= (uint32_t)last * 2)
        return;
    int16x8_t row[8];
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_s16(0);
    for (; entry < end && *entry >> 8 < (uint32_t)last * 2; entry++) {
        const uint32_t pair = *entry >> 8;
        const bnc_lut_table table = BNC_LUT_SECOND * (int8_t)(uint8_t)*entry;
        const uint8_t *codes = w + (ptrdiff_t)(pair / 2) * BNC_TL1_M64K4_NEON_BYTES;
        const int8x8_t shift = vdup_n_s8(pair & 1 ? 0 : -4);
        for (int r = 0; r < 8; r++) {
            const uint8x8_t code = vand_u8(vshl_u8(vld1_u8(codes + 8 * r), shift), vdup_n_u8(15));
            row[r] = vaddw_s8(row[r], vqtbl1_s8((int8x16_t)table, code));
        }
    }
    bnc_flush_tl1_m64k4_neon(acc, row);
}

/* The int16 lanes of 64 rows += a block's look-ups; codes: its 64 bytes. All that is left for the
 * two vector pipes of an A72 takes either of them: 48 instructions. So a quarter of the codes are
 * unpacked by its integer pipes, which makes that 44.
 * low4: 15 in every byte */
BNC_INLINE void bnc_block_tl1_m64k4_neon(int16x8_t row[8], const uint8_t *codes,
                                         const int8_t *tables, uint64_t low4)
{
    enum { INTEGER = 2 };
    const int8x16_t upper = bnc_load_codes_neon(tables), lower = bnc_load_codes_neon(tables + 16);
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
        uint8x8_t c0, c1;
        if (r < INTEGER) {
            uint64_t c;
            memcpy(&c, codes + 8 * r, sizeof c);
            uint64_t even = c >> 4 & low4, odd = c & low4;
            __asm__("" : "+r"(even), "+r"(odd)); /* compilers know that vectors could do it */
            c0 = vcreate_u8(even);
            c1 = vcreate_u8(odd);
        } else {
            const uint8x8_t c = vld1_u8(codes + 8 * r);
            c0 = vshr_n_u8(c, 4);
            c1 = vand_u8(c, vdup_n_u8(15));
        }
        row[r] = vaddw_s8(row[r], vqtbl1_s8(upper, c0));
        row[r] = vaddw_s8(row[r], vqtbl1_s8(lower, c1));
    }
}

BNC_INLINE void bnc_matvec_tl1_m64k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int cols)
{
    enum { BYTES = BNC_TL1_M64K4_NEON_BYTES };
    const int blocks = cols / BNC_TL1_M64K4_COLS;
    const uint8_t *codes = w;
    const int8_t *tables = bnc_lut_tables(x, 0);
    uint64_t low4 = 0x0f0f0f0f0f0f0f0f;
    __asm__("" : "+r"(low4)); /* stays in a register, so that one instruction shifts and masks */
    for (int m = 0; m < 64; m += 4)
        vst1q_s32(acc + m, vdupq_n_s32(0));
    for (int first = 0; first < blocks; first += BNC_TL1_M64K4_NEON_BLOCKS) {
        const int left = blocks - first;
        const int last =
            first + (left < BNC_TL1_M64K4_NEON_BLOCKS ? left : BNC_TL1_M64K4_NEON_BLOCKS);
        int16x8_t row[8];
        for (int r = 0; r < 8; r++)
            row[r] = vdupq_n_s16(0);
        int kb = first;
        for (; kb + 2 <= last; kb += 2, codes += 2 * BYTES, tables += 64) {
            bnc_block_tl1_m64k4_neon(row, codes, tables, low4);
            bnc_block_tl1_m64k4_neon(row, codes + BYTES, tables + 32, low4);
        }
        for (; kb < last; kb++, codes += BYTES, tables += 32)
            bnc_block_tl1_m64k4_neon(row, codes, tables, low4);
        bnc_flush_tl1_m64k4_neon(acc, row);
        bnc_wide_tl1_m64k4_neon(acc, w, bnc_lut_wide(x, 0), first, last);
    }
}

enum { BNC_TL1_M64K4_TOKENS = 2 }; /* at a time: 16 of 32 registers are sums */

/* acc of 64 rows and `tokens` (1 or 2) tokens += look-ups of `pairs` pairs; codes: [pair][64] */
BNC_INLINE void bnc_tile_tl1_m64k4_neon(int32_t *acc, int rows, const uint8_t *codes,
                                        const int8_t *const *tables, int tokens, int pairs)
{
    int16x8_t row[BNC_TL1_M64K4_TOKENS][8];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 8; r++)
            row[i][r] = vdupq_n_s16(0);
    for (int p = 0; p < pairs; p++) {
        int8x16_t t[BNC_TL1_M64K4_TOKENS];
        for (int i = 0; i < tokens; i++)
            t[i] = vld1q_s8(tables[i] + 16 * p);
        for (int r = 0; r < 8; r++) {
            const uint8x8_t code = vld1_u8(codes + 64 * p + 8 * r);
            for (int i = 0; i < tokens; i++)
                row[i][r] = vaddw_s8(row[i][r], vqtbl1_s8(t[i], code));
        }
    }
    for (int i = 0; i < tokens; i++)
        bnc_flush_tl1_m64k4_neon(acc + i * rows, row[i]);
}

/* Several tokens: codes of 64 rows of 256 columns are unpacked to bytes once (8 KB, stays in L1).
 */
BNC_KERNEL void bnc_matmul_tl1_m64k4_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 64, TOKENS = BNC_TL1_M64K4_TOKENS };
    _Static_assert((int)CHUNK <= (int)BNC_TL1_M64K4_NEON_BLOCKS, "int16 lanes");
    const int blocks = cols / BNC_TL1_M64K4_COLS;
    for (int m = 0; m < rows; m += 64, w += blocks * (ptrdiff_t)BNC_TL1_M64K4_NEON_BYTES) {
        if (n == 1) {
            bnc_matvec_tl1_m64k4_neon(acc + m, w, x, cols);
            continue;
        }
        for (int i = 0; i < n; i++)
            memset(acc + i * rows + m, 0, 64 * sizeof *acc);
        for (int first = 0; first < blocks; first += CHUNK) {
            uint8_t codes[CHUNK * 128];
            const int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            const uint8_t *packed = w + (ptrdiff_t)first * BNC_TL1_M64K4_NEON_BYTES;
            for (int kb = 0; kb < count; kb++)
                for (int r = 0; r < 4; r++, packed += 16) {
                    const uint8x16_t c = vld1q_u8(packed);
                    vst1q_u8(codes + 128 * kb + 16 * r, vshrq_n_u8(c, 4));
                    vst1q_u8(codes + 128 * kb + 64 + 16 * r, vandq_u8(c, vdupq_n_u8(15)));
                }
            const int8_t *tables[TOKENS];
            int i = 0;
            for (; i + TOKENS <= n; i += TOKENS) {
                for (int t = 0; t < TOKENS; t++)
                    tables[t] = bnc_lut_tables(x, i + t) + 32 * (ptrdiff_t)first;
                bnc_tile_tl1_m64k4_neon(acc + i * rows + m, rows, codes, tables, TOKENS, 2 * count);
            }
            for (; i < n; i++) {
                tables[0] = bnc_lut_tables(x, i) + 32 * (ptrdiff_t)first;
                bnc_tile_tl1_m64k4_neon(acc + i * rows + m, rows, codes, tables, 1, 2 * count);
            }
            for (i = 0; i < n; i++)
                bnc_wide_tl1_m64k4_neon(acc + i * rows + m, w, bnc_lut_wide(x, i), first,
                                        first + count);
        }
    }
}

#endif
