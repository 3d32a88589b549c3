/* SPDX-License-Identifier: MIT */
/* Matmul of signs for RISC-V vectors (RVV 1.0, any register length), layout b1_m128k16.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Lanes are rows, and nothing is multiplied: a column of 128 rows is a mask of 128 bits, under
 * which its activation, a scalar, is added to int16 lanes. The rows are taken `vl` at a time, as
 * many as a group of registers holds. A mask counts from a byte's lowest bit and a layout from the
 * highest, so that rows lie reversed in each eight until a block is finished. Bounds: |bit * q| <=
 * 127, so 256 columns fit in int16 (32512) and are summed before widening. int32 then lasts for 8.4
 * million columns. */
#ifndef BNC_MATMUL_B1_M128K16_RVV_H
#define BNC_MATMUL_B1_M128K16_RVV_H

#include <riscv_vector.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m128k16.h"

enum {
    BNC_B1_M128K16_RVV_CHUNK = 256, /* columns summed in int16 */
    BNC_B1_M128K16_RVV_BYTES = 16,  /* of a column of a block */
    BNC_B1_M128K16_RVV_TOKENS = 3   /* at a time: 24 of 32 registers are sums, 8 with the mask */
};
_Static_assert(BNC_B1_M128K16_RVV_CHUNK * 127 <= 32767, "int16 lanes");
_Static_assert(BNC_B1_M128K16_ROWS == 128 && BNC_B1_M128K16_COLS == 16, "unrolled by hand");

/* acc[vl] += lane, of which int32 takes twice as many registers. */
BNC_INLINE void bnc_flush_b1_rvv(int32_t *acc, vint16m8_t lane, size_t vl)
{
    const size_t most = __riscv_vsetvlmax_e16m4();
    if (vl <= most) {
        bnc_flush_rvv(acc, __riscv_vget_v_i16m8_i16m4(lane, 0), vl);
        return;
    }
    bnc_flush_rvv(acc, __riscv_vget_v_i16m8_i16m4(lane, 0), most);
    bnc_flush_rvv(acc + most, __riscv_vget_v_i16m8_i16m4(lane, 1), vl - most);
}

BNC_INLINE vint16m8_t bnc_add_where_rvv(vint16m8_t lane, vbool2_t bit, int8_t q, size_t vl)
{
    return __riscv_vadd_vx_i16m8_mu(bit, lane, lane, q, vl);
}

/* One token: acc[vl] += the activations of `count` columns where vl rows have ones. Two sums in
 * turn, so that no addition waits for the one before it. */
BNC_INLINE void bnc_one_b1_m128k16_rvv(int32_t *acc, const uint8_t *w, const int8_t *q, int count,
                                       size_t vl)
{
    enum { BYTES = BNC_B1_M128K16_RVV_BYTES };
    vint16m8_t even = __riscv_vmv_v_x_i16m8(0, vl), odd = __riscv_vmv_v_x_i16m8(0, vl);
    for (const int8_t *const end = q + count; q != end; q += 16, w += 16 * BYTES)
        for (int k = 0; k < 16; k += 2) {
            even = bnc_add_where_rvv(even, __riscv_vlm_v_b2(w + k * BYTES, vl), q[k], vl);
            odd = bnc_add_where_rvv(odd, __riscv_vlm_v_b2(w + (k + 1) * BYTES, vl), q[k + 1], vl);
        }
    bnc_flush_b1_rvv(acc, __riscv_vadd_vv_i16m8(even, odd, vl), vl);
}

/* Sums of three tokens += their activations of one column. */
BNC_INLINE void bnc_column_b1_rvv(vint16m8_t *lane0, vint16m8_t *lane1, vint16m8_t *lane2,
                                  const uint8_t *w, int8_t q0, int8_t q1, int8_t q2, size_t vl)
{
    const vbool2_t bit = __riscv_vlm_v_b2(w, vl);
    *lane0 = bnc_add_where_rvv(*lane0, bit, q0, vl);
    *lane1 = bnc_add_where_rvv(*lane1, bit, q1, vl);
    *lane2 = bnc_add_where_rvv(*lane2, bit, q2, vl);
}

/* Three tokens, whose activations lie `stride` and whose sums lie `rows` apart. */
BNC_INLINE void bnc_three_b1_m128k16_rvv(int32_t *acc, int rows, const uint8_t *w, const int8_t *q,
                                         int stride, int count, size_t vl)
{
    enum { BYTES = BNC_B1_M128K16_RVV_BYTES };
    const int8_t *a = q, *b = a + stride, *c = b + stride, *const end = q + count;
    vint16m8_t x = __riscv_vmv_v_x_i16m8(0, vl), y = __riscv_vmv_v_x_i16m8(0, vl);
    vint16m8_t z = __riscv_vmv_v_x_i16m8(0, vl);
    for (; a != end; a += 4, b += 4, c += 4, w += 4 * BYTES) {
        bnc_column_b1_rvv(&x, &y, &z, w, a[0], b[0], c[0], vl);
        bnc_column_b1_rvv(&x, &y, &z, w + BYTES, a[1], b[1], c[1], vl);
        bnc_column_b1_rvv(&x, &y, &z, w + 2 * BYTES, a[2], b[2], c[2], vl);
        bnc_column_b1_rvv(&x, &y, &z, w + 3 * BYTES, a[3], b[3], c[3], vl);
    }
    bnc_flush_b1_rvv(acc, x, vl);
    bnc_flush_b1_rvv(acc + rows, y, vl);
    bnc_flush_b1_rvv(acc + 2 * rows, z, vl);
}

/* acc[128] = 2 * acc - sum_q, the rows of each eight in order. */
BNC_INLINE void bnc_finish_b1_m128k16_rvv(int32_t *acc, int32_t sum_q)
{
    for (int m = 0; m < BNC_B1_M128K16_ROWS; m += 8)
        for (int r = 0; r < 4; r++) {
            const int32_t a = acc[m + r], b = acc[m + 7 - r];
            acc[m + r] = 2 * b - sum_q;
            acc[m + 7 - r] = 2 * a - sum_q;
        }
}

BNC_KERNEL void bnc_matmul_b1_m128k16_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum {
        ROWS = BNC_B1_M128K16_ROWS,
        COLS = BNC_B1_M128K16_RVV_CHUNK,
        TOKENS = BNC_B1_M128K16_RVV_TOKENS
    };
    const int together = n / TOKENS * TOKENS;
    const size_t vl = __riscv_vsetvl_e16m8(ROWS); /* of 128 bits: 64, a whole number of bytes */
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int m = 0; m < rows; m += ROWS) {
        for (int first = 0; first < cols; first += COLS) {
            const int count = cols - first < COLS ? cols - first : COLS;
            for (size_t r = 0; r < ROWS; r += vl) {
                const int8_t *q = x->q + first;
                const uint8_t *bits = w + r / 8;
                for (int i = 0; i < together; i += TOKENS)
                    bnc_three_b1_m128k16_rvv(acc + i * rows + m + r, rows, bits, q + i * x->stride,
                                             x->stride, count, vl);
                for (int i = together; i < n; i++)
                    bnc_one_b1_m128k16_rvv(acc + i * rows + m + r, bits, q + i * x->stride, count,
                                           vl);
            }
            w += count * (ptrdiff_t)BNC_B1_M128K16_RVV_BYTES;
        }
        for (int i = 0; i < n; i++)
            bnc_finish_b1_m128k16_rvv(acc + i * rows + m, x->sum[i]);
    }
}

#endif
