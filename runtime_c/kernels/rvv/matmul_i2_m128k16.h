/* SPDX-License-Identifier: MIT */
/* Ternary matmul for RISC-V vectors (RVV 1.0, any register length), layout i2_m128k16.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Lanes are rows: vwmaccsu multiplies the codes of one column by its activation, a scalar, and adds
 * to int16 lanes, so that nothing is summed over lanes. The 128 rows of a block are taken `vl` at a
 * time: as many bytes as a group of registers holds, all 128 where registers are long. 128 is a
 * multiple of each power of two below it, so that vl is the same in every step.
 * Bounds: a lane gains at most 254 from a column. For one token the third column of four stays
 * where it lies in its byte, times 4, in lanes of its own: 8 blocks, with four such columns each,
 * fit in int16 (8 * 4 * 4 * 254 = 32512), and so do the 128 columns of the other lanes. int32 then
 * lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M128K16_RVV_H
#define BNC_MATMUL_I2_M128K16_RVV_H

#include <riscv_vector.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum {
    BNC_I2_M128K16_RVV_CHUNK = 128, /* columns summed in int16 */
    BNC_I2_M128K16_RVV_TOKENS = 4   /* at a time: 16 of 32 registers are sums */
};
_Static_assert(BNC_I2_M128K16_RVV_CHUNK * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M128K16_ROWS == 128 && BNC_I2_M128K16_COLS == 16, "unrolled by hand");

/* acc[vl] += lane */
BNC_INLINE void bnc_flush_rvv(int32_t *acc, vint16m4_t lane, size_t vl)
{
    const vint32m8_t old = __riscv_vle32_v_i32m8(acc, vl);
    __riscv_vse32_v_i32m8(acc, __riscv_vwadd_wv_i32m8(old, lane, vl), vl);
}

/* One token: acc[vl] += the products of vl rows with `count` columns. w: their first bytes */
BNC_INLINE void bnc_one_i2_m128k16_rvv(int32_t *acc, const uint8_t *w, const int8_t *q, int count,
                                       size_t vl)
{
    /* 2 of times4 is lost with its last bits; equal constants would be copied, whole groups. */
    vint16m8_t lane = __riscv_vmv_v_x_i16m8(0, vl), times4 = __riscv_vmv_v_x_i16m8(2, vl);
    const int8_t *const end = q + count;
    do {
        for (int k = 0; k < 16; k += 4) {
            const vuint8m4_t c = __riscv_vle8_v_u8m4(w + k / 4 * BNC_I2_M128K16_ROWS, vl);
            const vuint8m4_t c1 = __riscv_vand_vx_u8m4(__riscv_vsrl_vx_u8m4(c, 4, vl), 3, vl);
            const vuint8m4_t c2 = __riscv_vand_vx_u8m4(c, 12, vl); /* times 4 */
            lane = __riscv_vwmaccsu_vx_i16m8(lane, q[k], __riscv_vsrl_vx_u8m4(c, 6, vl), vl);
            times4 = __riscv_vwmaccsu_vx_i16m8(times4, q[k + 2], c2, vl);
            lane = __riscv_vwmaccsu_vx_i16m8(lane, q[k + 1], c1, vl);
            lane = __riscv_vwmaccsu_vx_i16m8(lane, q[k + 3], __riscv_vand_vx_u8m4(c, 3, vl), vl);
        }
        q += 16;
        w += 4 * BNC_I2_M128K16_ROWS;
    } while (q != end);
    lane = __riscv_vadd_vv_i16m8(lane, __riscv_vsra_vx_i16m8(times4, 2, vl), vl);
    const size_t most = __riscv_vsetvlmax_e16m4();
    if (vl <= most) {
        bnc_flush_rvv(acc, __riscv_vget_v_i16m8_i16m4(lane, 0), vl);
        return;
    }
    bnc_flush_rvv(acc, __riscv_vget_v_i16m8_i16m4(lane, 0), most);
    bnc_flush_rvv(acc + most, __riscv_vget_v_i16m8_i16m4(lane, 1), vl - most);
}

/* Four tokens, whose activations lie `stride` and whose sums lie `rows` apart. */
BNC_INLINE void bnc_four_i2_m128k16_rvv(int32_t *acc, int rows, const uint8_t *w, const int8_t *q,
                                        int stride, int count, size_t vl)
{
    const int8_t *q0 = q, *q1 = q0 + stride, *q2 = q1 + stride, *q3 = q2 + stride;
    vint16m4_t lane0 = __riscv_vmv_v_x_i16m4(0, vl), lane1 = lane0, lane2 = lane0, lane3 = lane0;
    for (int k = 0; k < count; k += 4, w += BNC_I2_M128K16_ROWS) {
        const vuint8m2_t c = __riscv_vle8_v_u8m2(w, vl);
        vuint8m2_t code = __riscv_vsrl_vx_u8m2(c, 6, vl);
        lane0 = __riscv_vwmaccsu_vx_i16m4(lane0, q0[k], code, vl);
        lane1 = __riscv_vwmaccsu_vx_i16m4(lane1, q1[k], code, vl);
        lane2 = __riscv_vwmaccsu_vx_i16m4(lane2, q2[k], code, vl);
        lane3 = __riscv_vwmaccsu_vx_i16m4(lane3, q3[k], code, vl);
        code = __riscv_vand_vx_u8m2(__riscv_vsrl_vx_u8m2(c, 4, vl), 3, vl);
        lane0 = __riscv_vwmaccsu_vx_i16m4(lane0, q0[k + 1], code, vl);
        lane1 = __riscv_vwmaccsu_vx_i16m4(lane1, q1[k + 1], code, vl);
        lane2 = __riscv_vwmaccsu_vx_i16m4(lane2, q2[k + 1], code, vl);
        lane3 = __riscv_vwmaccsu_vx_i16m4(lane3, q3[k + 1], code, vl);
        code = __riscv_vand_vx_u8m2(__riscv_vsrl_vx_u8m2(c, 2, vl), 3, vl);
        lane0 = __riscv_vwmaccsu_vx_i16m4(lane0, q0[k + 2], code, vl);
        lane1 = __riscv_vwmaccsu_vx_i16m4(lane1, q1[k + 2], code, vl);
        lane2 = __riscv_vwmaccsu_vx_i16m4(lane2, q2[k + 2], code, vl);
        lane3 = __riscv_vwmaccsu_vx_i16m4(lane3, q3[k + 2], code, vl);
        code = __riscv_vand_vx_u8m2(c, 3, vl);
        lane0 = __riscv_vwmaccsu_vx_i16m4(lane0, q0[k + 3], code, vl);
        lane1 = __riscv_vwmaccsu_vx_i16m4(lane1, q1[k + 3], code, vl);
        lane2 = __riscv_vwmaccsu_vx_i16m4(lane2, q2[k + 3], code, vl);
        lane3 = __riscv_vwmaccsu_vx_i16m4(lane3, q3[k + 3], code, vl);
    }
    bnc_flush_rvv(acc, lane0, vl);
    bnc_flush_rvv(acc + rows, lane1, vl);
    bnc_flush_rvv(acc + 2 * rows, lane2, vl);
    bnc_flush_rvv(acc + 3 * rows, lane3, vl);
}

/* lane, times4 += the products of four columns, whose codes are c. */
BNC_INLINE void bnc_step_i2_m128k16_rvv(vint16m2_t *lane, vint16m2_t *times4, vuint8m1_t c,
                                        const int8_t *q)
{
    enum { ROWS = BNC_I2_M128K16_ROWS };
    const vuint8m1_t c0 = __riscv_vsrl_vx_u8m1(c, 6, ROWS);
    const vuint8m1_t c1 = __riscv_vand_vx_u8m1(__riscv_vsrl_vx_u8m1(c, 4, ROWS), 3, ROWS);
    const vuint8m1_t c3 = __riscv_vand_vx_u8m1(c, 3, ROWS);
    *lane = __riscv_vwmaccsu_vx_i16m2(*lane, q[0], c0, ROWS);
    *lane = __riscv_vwmaccsu_vx_i16m2(*lane, q[1], c1, ROWS);
    *times4 = __riscv_vwmaccsu_vx_i16m2(*times4, q[2], __riscv_vand_vx_u8m1(c, 12, ROWS), ROWS);
    *lane = __riscv_vwmaccsu_vx_i16m2(*lane, q[3], c3, ROWS);
}

/* The same for registers of 1024 bits, each of which holds four columns: one load for sixteen. */
BNC_INLINE void bnc_one_1024_i2_m128k16_rvv(int32_t *acc, const uint8_t *w, const int8_t *q,
                                            int count)
{
    enum { ROWS = BNC_I2_M128K16_ROWS };
    vint16m2_t lane = __riscv_vmv_v_x_i16m2(0, ROWS), times4 = __riscv_vmv_v_x_i16m2(2, ROWS);
    const int8_t *const end = q + count;
    do {
        const vuint8m4_t c = __riscv_vle8_v_u8m4(w, 4 * ROWS);
        bnc_step_i2_m128k16_rvv(&lane, &times4, __riscv_vget_v_u8m4_u8m1(c, 0), q);
        bnc_step_i2_m128k16_rvv(&lane, &times4, __riscv_vget_v_u8m4_u8m1(c, 1), q + 4);
        bnc_step_i2_m128k16_rvv(&lane, &times4, __riscv_vget_v_u8m4_u8m1(c, 2), q + 8);
        bnc_step_i2_m128k16_rvv(&lane, &times4, __riscv_vget_v_u8m4_u8m1(c, 3), q + 12);
        q += 16;
        w += 4 * ROWS;
    } while (q != end);
    lane = __riscv_vadd_vv_i16m2(lane, __riscv_vsra_vx_i16m2(times4, 2, ROWS), ROWS);
    bnc_flush_rvv(acc, __riscv_vlmul_ext_v_i16m2_i16m4(lane), ROWS);
}

/* acc = codes * q - sum_q. chunk: columns summed in int16, constant once inlined, here and below */
BNC_INLINE void bnc_matvec_i2_m128k16_rvv(int32_t *acc, const uint8_t *w, const int8_t *q,
                                          int32_t sum_q, int rows, int cols, int bits1024,
                                          int chunk)
{
    enum { ROWS = BNC_I2_M128K16_ROWS };
    const size_t vl = __riscv_vsetvl_e8m4(ROWS);
    for (int m = 0; m < rows; m++)
        acc[m] = -sum_q;
    for (int m = 0; m < rows; m += ROWS, acc += ROWS) {
        const int8_t *at = q, *const end = q + cols;
        while (at != end) {
            const int count = end - at < chunk ? (int)(end - at) : chunk;
            if (bits1024)
                bnc_one_1024_i2_m128k16_rvv(acc, w, at, count);
            else
                for (size_t r = 0; r < ROWS; r += vl)
                    bnc_one_i2_m128k16_rvv(acc + r, w + r, at, count, vl);
            at += count;
            w += count * (ROWS / 4);
        }
    }
}

/* acc = codes * q - zero * sum of q. Four of several tokens at a time share the unpacking of a
 * chunk of 128 rows (4 KB). What is left of them goes one by one. zero: constant once inlined */
BNC_INLINE void bnc_codes_m128k16_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                      const struct bnc_acts *x, int rows, int cols, int n,
                                      int chunk, int zero)
{
    enum { ROWS = BNC_I2_M128K16_ROWS, TOKENS = BNC_I2_M128K16_RVV_TOKENS };
    const int together = n / TOKENS * TOKENS;
    const size_t vl = __riscv_vsetvl_e8m2(ROWS);
    for (int i = 0; i < together; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -zero * x->sum[i];
    for (int m = 0; m < rows && together; m += ROWS)
        for (int first = 0; first < cols; first += chunk) {
            const int count = cols - first < chunk ? cols - first : chunk;
            const uint8_t *codes = w + ((ptrdiff_t)m * cols + (ptrdiff_t)first * ROWS) / 4;
            for (int i = 0; i < together; i += TOKENS)
                for (size_t r = 0; r < ROWS; r += vl)
                    bnc_four_i2_m128k16_rvv(acc + i * rows + m + r, rows, codes + r,
                                            x->q + i * x->stride + first, x->stride, count, vl);
        }
    const int bits1024 = __riscv_vsetvlmax_e8m1() == ROWS;
    for (int i = together; i < n; i++) {
        const int8_t *q = x->q + i * x->stride;
        if (bits1024)
            bnc_matvec_i2_m128k16_rvv(acc + i * rows, w, q, zero * x->sum[i], rows, cols, 1, chunk);
        else
            bnc_matvec_i2_m128k16_rvv(acc + i * rows, w, q, zero * x->sum[i], rows, cols, 0, chunk);
    }
}

BNC_KERNEL void bnc_matmul_i2_m128k16_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m128k16_rvv(acc, w, x, rows, cols, n, BNC_I2_M128K16_RVV_CHUNK, 1);
}

#endif
