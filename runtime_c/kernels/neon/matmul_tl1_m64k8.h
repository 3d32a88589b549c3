/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AArch64 NEON by table look-up, layout tl1_m64k8, activation form lut16: for
 * cores whose TBL of two registers is as fast as that of one (Cortex-A53, -A55, -A76).
 *
 *     acc[m] = sum over pairs p of table[p][code[m][p]] + sum over wide pairs of t1 * q[2p+1]
 *
 * One byte holds the codes of two pairs of one row, and the bytes of two other pairs of that row
 * lie side by side. Bit 4 of an index says which of two tables: it stays in the register that codes
 * are inserted into, so that SRI or BIT makes an index in one instruction. TBL looks up eight rows
 * of two pairs, SADALP adds both pairs to the int16 lane of their row. Bounds: |entry| <= 127, so
 * one SADALP adds at most 254 to a lane, and two for each block of columns: 64 blocks fit in int16
 * (64 * 508 = 32512). A wide pair adds at most 127, and these 64 blocks have 256 pairs (32512). */
#ifndef BNC_MATMUL_TL1_M64K8_NEON_H
#define BNC_MATMUL_TL1_M64K8_NEON_H

#include <arm_neon.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "load.h"

enum {
    BNC_TL1_M64K8_NEON_BLOCKS = 64, /* column blocks summed in int16 */
    BNC_TL1_M64K8_NEON_BYTES = 128  /* of a block: eight registers of eight rows */
};
_Static_assert(BNC_TL1_M64K8_NEON_BLOCKS * 4 * 127 <= 32767, "int16 lanes");
_Static_assert(BNC_TL1_M64K8_ROWS == 64 && BNC_TL1_M64K8_COLS == 8, "unrolled by hand");

/* acc[64] += the int16 lanes of 64 rows. */
BNC_INLINE void bnc_flush_tl1_m64k8_neon(int32_t *acc, const int16x8_t row[8])
{
    for (int r = 0; r < 8; r++) {
        int32_t *to = acc + 8 * r;
        vst1q_s32(to, vaddw_s16(vld1q_s32(to), vget_low_s16(row[r])));
        vst1q_s32(to + 4, vaddw_high_s16(vld1q_s32(to + 4), row[r]));
    }
}

/* acc[64] += t1 * q of the wide pairs of blocks first .. last - 1. w: block 0 of these rows */
BNC_INLINE void bnc_wide_tl1_m64k8_neon(int32_t *acc, const uint8_t *w, const uint32_t *wide,
                                        int first, int last)
{
    const uint32_t *entry = bnc_lut_from(wide, 4 * first), *end = wide + 1 + wide[0];
    if (entry == end || *entry >> 8 >= (uint32_t)last * 4)
        return;
    int16x8_t row[8];
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_s16(0);
    for (; entry < end && *entry >> 8 < (uint32_t)last * 4; entry++) {
        const uint32_t pair = *entry >> 8;
        const bnc_lut_table table = BNC_LUT_SECOND * (int8_t)(uint8_t)*entry;
        const uint8_t *codes = w + (ptrdiff_t)(pair / 4) * BNC_TL1_M64K8_NEON_BYTES;
        const int8x16_t shift = vdupq_n_s8(pair & 2 ? 0 : -4);
        /* The other pair's bytes get indices beyond the table, whose entries are 0. */
        const uint8x16_t other = vreinterpretq_u8_u16(vdupq_n_u16(pair & 1 ? 0x0010 : 0x1000));
        for (int r = 0; r < 8; r++) {
            const uint8x16_t code =
                vandq_u8(vshlq_u8(vld1q_u8(codes + 16 * r), shift), vdupq_n_u8(15));
            row[r] = vpadalq_s8(row[r], vqtbl1q_s8((int8x16_t)table, vorrq_u8(code, other)));
        }
    }
    bnc_flush_tl1_m64k8_neon(acc, row);
}

/* `index` with the lower four bits of its bytes replaced by the upper codes of c, by the lower. */
BNC_INLINE uint8x16_t bnc_upper_tl1_neon(uint8x16_t index, uint8x16_t c)
{
    return vsriq_n_u8(index, c, 4);
}

BNC_INLINE uint8x16_t bnc_lower_tl1_neon(uint8x16_t index, uint8x16_t c)
{
    return vbslq_u8(vdupq_n_u8(15), c, index);
}

/* v[8], v[4] is complete before anything that reads it, however the compiler schedules: in-order
 * cores want eight instructions between one and the next that waits for it, and none of 32
 * registers is to be spilled. */
#define BNC_TL1_M64K8_ORDER(v)                                                                     \
    __asm__ volatile(""                                                                            \
                     : "+w"((v)[0]), "+w"((v)[1]), "+w"((v)[2]), "+w"((v)[3]), "+w"((v)[4]),       \
                       "+w"((v)[5]), "+w"((v)[6]), "+w"((v)[7]))
#define BNC_TL1_M64K8_ORDER4(v)                                                                    \
    __asm__ volatile("" : "+w"((v)[0]), "+w"((v)[1]), "+w"((v)[2]), "+w"((v)[3]))

BNC_INLINE void bnc_matvec_tl1_m64k8_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int i, int cols)
{
    const int blocks = cols / BNC_TL1_M64K8_COLS;
    const int8_t *tables = bnc_lut_tables(x, i);
    uint8x16_t index[8];
    for (int j = 0; j < 8; j++)
        index[j] = vreinterpretq_u8_u16(vdupq_n_u16(0x1000));
    for (int m = 0; m < 64; m += 4)
        vst1q_s32(acc + m, vdupq_n_s32(0));
    for (int first = 0; first < blocks; first += BNC_TL1_M64K8_NEON_BLOCKS) {
        const int left = blocks - first;
        const int last =
            first + (left < BNC_TL1_M64K8_NEON_BLOCKS ? left : BNC_TL1_M64K8_NEON_BLOCKS);
        int16x8_t row[8];
        for (int r = 0; r < 8; r++)
            row[r] = vdupq_n_s16(0);
        for (int kb = first; kb < last; kb++) {
            const int8_t *t = tables + 64 * kb;
            const uint8_t *codes = w + (ptrdiff_t)kb * BNC_TL1_M64K8_NEON_BYTES;
            const int8x16x2_t upper = { { bnc_load_codes_neon(t), bnc_load_codes_neon(t + 16) } };
            const int8x16x2_t lower = { { bnc_load_codes_neon(t + 32),
                                          bnc_load_codes_neon(t + 48) } };
#pragma GCC unroll 2
            for (int r = 0; r < 8; r += 4) {
                uint8x16_t c[4];
                int8x16_t entry[8];
                for (int j = 0; j < 4; j++)
                    c[j] = bnc_load_neon(codes + 16 * (r + j));
                for (int j = 0; j < 4; j++)
                    index[j] = bnc_upper_tl1_neon(index[j], c[j]);
                for (int j = 0; j < 4; j++)
                    index[4 + j] = bnc_lower_tl1_neon(index[4 + j], c[j]);
                BNC_TL1_M64K8_ORDER(index);
                for (int j = 0; j < 8; j++)
                    entry[j] = vqtbl2q_s8(j < 4 ? upper : lower, index[j]);
                BNC_TL1_M64K8_ORDER(entry);
                for (int j = 0; j < 4; j++)
                    row[r + j] = vpadalq_s8(row[r + j], entry[j]);
                BNC_TL1_M64K8_ORDER4(row + r);
                for (int j = 0; j < 4; j++)
                    row[r + j] = vpadalq_s8(row[r + j], entry[4 + j]);
            }
        }
        bnc_flush_tl1_m64k8_neon(acc, row);
        bnc_wide_tl1_m64k8_neon(acc, w, bnc_lut_wide(x, i), first, last);
    }
}

enum { BNC_TL1_M64K8_TOKENS = 2 }; /* at a time: 16 of 32 registers are sums, 8 are tables */

/* acc of 64 rows and `tokens` (1 or 2) tokens += look-ups of `blocks` blocks; indices:
 * [block][upper, lower][8] */
BNC_INLINE void bnc_tile_tl1_m64k8_neon(int32_t *acc, int rows, const uint8x16_t *indices,
                                        const int8_t *const *tables, int tokens, int blocks)
{
    int16x8_t row[BNC_TL1_M64K8_TOKENS][8];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 8; r++)
            row[i][r] = vdupq_n_s16(0);
#pragma GCC unroll 4
    for (int kb = 0; kb < 2 * blocks; kb++) {
        int8x16x2_t t[BNC_TL1_M64K8_TOKENS];
        for (int i = 0; i < tokens; i++)
            t[i] = (int8x16x2_t){ { bnc_load_codes_neon(tables[i] + 32 * kb),
                                    bnc_load_codes_neon(tables[i] + 32 * kb + 16) } };
        for (int r = 0; r < 8; r++) {
            const uint8x16_t index = bnc_load_neon(indices + 8 * kb + r);
            for (int i = 0; i < tokens; i++)
                row[i][r] = vpadalq_s8(row[i][r], vqtbl2q_s8(t[i], index));
        }
    }
    for (int i = 0; i < tokens; i++)
        bnc_flush_tl1_m64k8_neon(acc + i * rows, row[i]);
}

/* Four tokens or more: indices of 64 rows of 256 columns are made once (8 KB, stays in L1). */
BNC_KERNEL void bnc_matmul_tl1_m64k8_neon(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 32, TOKENS = BNC_TL1_M64K8_TOKENS, FEW = 3 };
    _Static_assert((int)CHUNK <= (int)BNC_TL1_M64K8_NEON_BLOCKS, "int16 lanes");
    const int blocks = cols / BNC_TL1_M64K8_COLS;
    const uint8x16_t second = vreinterpretq_u8_u16(vdupq_n_u16(0x1000));
    for (int m = 0; m < rows; m += 64, w += blocks * (ptrdiff_t)BNC_TL1_M64K8_NEON_BYTES) {
        if (n <= FEW) {
            for (int i = 0; i < n; i++)
                bnc_matvec_tl1_m64k8_neon(acc + i * rows + m, w, x, i, cols);
            continue;
        }
        for (int i = 0; i < n; i++)
            memset(acc + i * rows + m, 0, 64 * sizeof *acc);
        for (int first = 0; first < blocks; first += CHUNK) {
            uint8x16_t indices[CHUNK * 16];
            const int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            const uint8_t *codes = w + (ptrdiff_t)first * BNC_TL1_M64K8_NEON_BYTES;
            for (int kb = 0; kb < count; kb++)
                for (int r = 0; r < 8; r++, codes += 16) {
                    const uint8x16_t c = vld1q_u8(codes);
                    indices[16 * kb + r] = vsriq_n_u8(second, c, 4);
                    indices[16 * kb + 8 + r] = bnc_lower_tl1_neon(second, c);
                }
            const int8_t *tables[TOKENS];
            int i = 0;
            for (; i + TOKENS <= n; i += TOKENS) {
                for (int t = 0; t < TOKENS; t++)
                    tables[t] = bnc_lut_tables(x, i + t) + 64 * (ptrdiff_t)first;
                bnc_tile_tl1_m64k8_neon(acc + i * rows + m, rows, indices, tables, TOKENS, count);
            }
            for (; i < n; i++) {
                tables[0] = bnc_lut_tables(x, i) + 64 * (ptrdiff_t)first;
                bnc_tile_tl1_m64k8_neon(acc + i * rows + m, rows, indices, tables, 1, count);
            }
            for (i = 0; i < n; i++)
                bnc_wide_tl1_m64k8_neon(acc + i * rows + m, w, bnc_lut_wide(x, i), first,
                                        first + count);
        }
    }
}

#endif
