/* SPDX-License-Identifier: MIT */
/* Matmul of signs for 32-bit Arm NEON by table look-up, layout b1_m128k8: ../scalar/quads.h.
 *
 * One byte holds the signs of two quads of one row; VTBL looks eight rows up in a table of two
 * registers, VADDW adds to lanes of 16 bits, of 64 rows at a time. Bounds: as there. */
#ifndef BNC_MATMUL_B1_M128K8_NEON32_H
#define BNC_MATMUL_B1_M128K8_NEON32_H

#include <arm_neon.h>

#include "../scalar/quads.h"

_Static_assert(BNC_B1_M128K8_ROWS == 128 && BNC_B1_M128K8_COLS == 8, "unrolled by hand");

/* Before loops over the registers of an array: Clang for 32 bits leaves them, and the array in
 * memory. */
#if defined(__clang__)
#define BNC_UNROLL_QUADS _Pragma("clang loop unroll(full)")
#else
#define BNC_UNROLL_QUADS _Pragma("GCC unroll 8")
#endif

BNC_INLINE uint8x8_t bnc_bytes_neon32(uint64_t bytes)
{
    return vreinterpret_u8_u64(vdup_n_u64(bytes));
}

/* A quad's table. d: what counts of each column where its bit is 0, and then where it is 1 */
BNC_INLINE void bnc_quad_neon32(uint8_t *table, uint8x8_t d)
{
    /* The first two columns, then the last two. */
    const uint8x8_t pairs = vadd_u8(vtbl1_u8(d, bnc_bytes_neon32(0x0606020204040000u)),
                                    vtbl1_u8(d, bnc_bytes_neon32(0x0703070305010501u)));
    const uint8x8_t last = vtbl1_u8(pairs, bnc_bytes_neon32(0x0706050407060504u));
    vst1_u8(table, vadd_u8(last, vtbl1_u8(pairs, bnc_bytes_neon32(0x0101010100000000u))));
    vst1_u8(table + 8, vadd_u8(last, vtbl1_u8(pairs, bnc_bytes_neon32(0x0303030302020202u))));
}

BNC_KERNEL void bnc_make_quads_neon32(struct bnc_quads *t, const int8_t *q, int count)
{
    uint32x2_t sum = vdup_n_u32(0);
    uint16x4_t most = vdup_n_u16(0);
    for (int j = 0; j < count; j += 2) {
        const int8x8_t v = vld1_s8(q + 4 * j), none = vdup_n_s8(0);
        const uint32x2_t one = vreinterpret_u32_s8(vmax_s8(v, none));
        const uint32x2_t zero = vreinterpret_u32_s8(vmax_s8(vneg_s8(v), none));
        const uint32x2x2_t d = vtrn_u32(zero, one);
        bnc_quad_neon32(t->table[j], vreinterpret_u8_u32(d.val[0]));
        bnc_quad_neon32(t->table[j + 1], vreinterpret_u8_u32(d.val[1]));
        const uint16x4_t pairs = vpaddl_u8(vreinterpret_u8_s8(vabs_s8(v)));
        const uint16x4_t sums = vpadd_u16(pairs, pairs);
        sum = vpadal_u16(sum, pairs);
        most = vmax_u16(most, sums);
    }
    t->sum = (int32_t)(vget_lane_u32(sum, 0) + vget_lane_u32(sum, 1));
    t->most = vget_lane_u16(vpmax_u16(most, most), 0);
}

/* Lanes of sixteen rows += their entries. */
BNC_INLINE void bnc_sixteen_quads_neon32(uint16x8_t row[2], uint8x8x2_t table, uint8x16_t index)
{
    row[0] = vaddw_u8(row[0], vtbl2_u8(table, vget_low_u8(index)));
    row[1] = vaddw_u8(row[1], vtbl2_u8(table, vget_high_u8(index)));
}

BNC_INLINE uint8x8x2_t bnc_quad_table_neon32(const uint8_t *table)
{
    const uint8x16_t v = vld1q_u8(table);
    return (uint8x8x2_t){ { vget_low_u8(v), vget_high_u8(v) } };
}

/* acc[64] += 2 * look-ups - sum. w: the first byte of these rows */
BNC_INLINE void bnc_rows_quads_neon32(int32_t *acc, const uint8_t *w, const struct bnc_quads *t,
                                      int count)
{
    const uint8x16_t low4 = vdupq_n_u8(15);
    const uint8_t *codes = w;
    uint16x8_t row[8];
    BNC_UNROLL_QUADS
    for (int r = 0; r < 8; r++)
        row[r] = vdupq_n_u16(0);
    for (int j = 0; j < count; j += 2, codes += 128) {
        const uint8x8x2_t upper = bnc_quad_table_neon32(t->table[j]);
        const uint8x8x2_t lower = bnc_quad_table_neon32(t->table[j + 1]);
        BNC_UNROLL_QUADS
        for (int r = 0; r < 4; r++) {
            const uint8x16_t c = vld1q_u8(codes + 16 * r);
            bnc_sixteen_quads_neon32(row + 2 * r, upper, vshrq_n_u8(c, 4));
            bnc_sixteen_quads_neon32(row + 2 * r, lower, vandq_u8(c, low4));
        }
    }
    for (int i = 0; i < t->wides; i++) {
        const uint8x8x2_t table = bnc_quad_table_neon32(t->again[i]);
        const int8x16_t shift = vdupq_n_s8(t->wide[i] & 1 ? 0 : -4);
        codes = w + 128 * (t->wide[i] / 2);
        BNC_UNROLL_QUADS
        for (int r = 0; r < 4; r++) {
            const uint8x16_t c = vshlq_u8(vld1q_u8(codes + 16 * r), shift);
            bnc_sixteen_quads_neon32(row + 2 * r, table, vandq_u8(c, low4));
        }
    }
    BNC_UNROLL_QUADS
    for (int r = 0; r < 8; r++) {
        int32_t *to = acc + 8 * r;
        const int32x4_t low = vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(row[r]), 1));
        const int32x4_t high = vreinterpretq_s32_u32(vshll_n_u16(vget_high_u16(row[r]), 1));
        const int32x4_t less = vdupq_n_s32(t->sum);
        vst1q_s32(to, vaddq_s32(vld1q_s32(to), vsubq_s32(low, less)));
        vst1q_s32(to + 4, vaddq_s32(vld1q_s32(to + 4), vsubq_s32(high, less)));
    }
}

BNC_KERNEL void bnc_add_quads_neon32(int32_t *acc, const uint8_t *w, const struct bnc_quads *t,
                                     int count)
{
    bnc_rows_quads_neon32(acc, w, t, count);
    bnc_rows_quads_neon32(acc + 64, w + 64, t, count);
}

BNC_KERNEL void bnc_matmul_b1_m128k8_neon32(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_look_up_quads(bnc_make_quads_neon32, bnc_add_quads_neon32, acc, w, x, rows, cols, n);
}

#endif
