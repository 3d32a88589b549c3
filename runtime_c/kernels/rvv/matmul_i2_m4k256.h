/* SPDX-License-Identifier: MIT */
/* Ternary matmul for RISC-V vectors (RVV 1.0, any register length), layout i2_m4k256.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * vwmaccsu multiplies signed activations by unsigned codes and adds to int16 lanes. A row's 64
 * bytes of one block are taken `vl` at a time: 32 of them with registers of 128 bits, all 64 with
 * longer ones; 64 is a multiple of either, so that vl is the same in every step.
 * Bounds: a lane gains at most 4 * 254 = 1016 from vl bytes of a row, so 32 such steps fit in int16
 * (32512): vl / 2 blocks of columns. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M4K256_RVV_H
#define BNC_MATMUL_I2_M4K256_RVV_H

#include <riscv_vector.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_I2_M4K256_RVV_BYTES = BNC_I2_M4K256_COLS / 4 }; /* of one row in one block */
_Static_assert(32 * 4 * 254 <= 32767, "int16 lanes");
_Static_assert(BNC_I2_M4K256_ROWS == 4 && BNC_I2_M4K256_COLS == 256, "unrolled by hand");

/* lane += the codes of vl bytes of a row times the activations of their four columns. */
BNC_INLINE vint16m4_t bnc_row_add_rvv(vint16m4_t lane, const uint8_t *w, vint8m2_t x0, vint8m2_t x1,
                                      vint8m2_t x2, vint8m2_t x3, size_t vl)
{
    const vuint8m2_t c = __riscv_vle8_v_u8m2(w, vl);
    const vuint8m2_t c1 = __riscv_vand_vx_u8m2(__riscv_vsrl_vx_u8m2(c, 4, vl), 3, vl);
    const vuint8m2_t c2 = __riscv_vand_vx_u8m2(__riscv_vsrl_vx_u8m2(c, 2, vl), 3, vl);
    lane = __riscv_vwmaccsu_vv_i16m4(lane, x0, __riscv_vsrl_vx_u8m2(c, 6, vl), vl);
    lane = __riscv_vwmaccsu_vv_i16m4(lane, x1, c1, vl);
    lane = __riscv_vwmaccsu_vv_i16m4(lane, x2, c2, vl);
    return __riscv_vwmaccsu_vv_i16m4(lane, x3, __riscv_vand_vx_u8m2(c, 3, vl), vl);
}

/* The sum of the int16 lanes. */
BNC_INLINE int32_t bnc_row_sum_rvv(vint16m4_t lane, size_t vl)
{
    const vint32m1_t zero = __riscv_vmv_v_x_i32m1(0, 1);
    return __riscv_vmv_x_s_i32m1_i32(__riscv_vwredsum_vs_i16m4_i32m1(lane, zero, vl));
}

/* One token: codes are used as they come from memory, each once. */
BNC_INLINE void bnc_matvec_i2_m4k256_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int32_t sum_q, int rows,
                                         int cols)
{
    enum { BYTES = BNC_I2_M4K256_RVV_BYTES };
    const size_t vl = __riscv_vsetvl_e8m2(BYTES);
    const int blocks = cols / BNC_I2_M4K256_COLS, most = (int)vl / 2;
    for (int m = 0; m < rows; m += 4) {
        int32_t sum[4] = { -sum_q, -sum_q, -sum_q, -sum_q };
        for (int first = 0; first < blocks; first += most) {
            const int last = first + (blocks - first < most ? blocks - first : most);
            const vint16m4_t zero = __riscv_vmv_v_x_i16m4(0, vl);
            vint16m4_t lane0 = zero, lane1 = zero, lane2 = zero, lane3 = zero;
            for (int kb = first; kb < last; kb++, w += 4 * BYTES)
                for (size_t l = 0; l < BYTES; l += vl) {
                    const int8_t *at = q + kb * BNC_I2_M4K256_COLS + l;
                    const vint8m2_t x0 = __riscv_vle8_v_i8m2(at, vl);
                    const vint8m2_t x1 = __riscv_vle8_v_i8m2(at + BYTES, vl);
                    const vint8m2_t x2 = __riscv_vle8_v_i8m2(at + 2 * BYTES, vl);
                    const vint8m2_t x3 = __riscv_vle8_v_i8m2(at + 3 * BYTES, vl);
                    lane0 = bnc_row_add_rvv(lane0, w + l, x0, x1, x2, x3, vl);
                    lane1 = bnc_row_add_rvv(lane1, w + BYTES + l, x0, x1, x2, x3, vl);
                    lane2 = bnc_row_add_rvv(lane2, w + 2 * BYTES + l, x0, x1, x2, x3, vl);
                    lane3 = bnc_row_add_rvv(lane3, w + 3 * BYTES + l, x0, x1, x2, x3, vl);
                }
            sum[0] += bnc_row_sum_rvv(lane0, vl);
            sum[1] += bnc_row_sum_rvv(lane1, vl);
            sum[2] += bnc_row_sum_rvv(lane2, vl);
            sum[3] += bnc_row_sum_rvv(lane3, vl);
        }
        memcpy(acc + m, sum, sizeof sum);
    }
}

enum { BNC_I2_M4K256_RVV_CHUNK = 2048 }; /* columns unpacked at a time */
_Static_assert(BNC_I2_M4K256_RVV_CHUNK / 32 * 254 <= 32767, "int16 lanes, at least 32 of them");

/* One block of one row as bytes, in order of columns. */
BNC_INLINE void bnc_unpack_i2_rvv(uint8_t *codes, const uint8_t *w)
{
    enum { BYTES = BNC_I2_M4K256_RVV_BYTES };
    const size_t vl = __riscv_vsetvl_e8m4(BYTES); /* 64 at any register length */
    const vuint8m4_t c = __riscv_vle8_v_u8m4(w, vl);
    const vuint8m4_t c1 = __riscv_vand_vx_u8m4(__riscv_vsrl_vx_u8m4(c, 4, vl), 3, vl);
    const vuint8m4_t c2 = __riscv_vand_vx_u8m4(__riscv_vsrl_vx_u8m4(c, 2, vl), 3, vl);
    __riscv_vse8_v_u8m4(codes, __riscv_vsrl_vx_u8m4(c, 6, vl), vl);
    __riscv_vse8_v_u8m4(codes + BYTES, c1, vl);
    __riscv_vse8_v_u8m4(codes + 2 * BYTES, c2, vl);
    __riscv_vse8_v_u8m4(codes + 3 * BYTES, __riscv_vand_vx_u8m4(c, 3, vl), vl);
}

/* Several tokens: four rows of 2048 columns are unpacked to bytes once (8 KB, stays in L1). Columns
 * come in blocks of 256, which every vl here divides. */
BNC_KERNEL void bnc_matmul_i2_m4k256_rvv(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_M4K256_RVV_CHUNK, BYTES = BNC_I2_M4K256_RVV_BYTES };
    if (n == 1) {
        bnc_matvec_i2_m4k256_rvv(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    const size_t vl = __riscv_vsetvl_e8m2(BNC_I2_M4K256_COLS);
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++)
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = -x->sum[i];
        for (int first = 0; first < cols; first += CHUNK) {
            uint8_t codes[4][CHUNK];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += BNC_I2_M4K256_COLS)
                for (int r = 0; r < 4; r++, w += BYTES)
                    bnc_unpack_i2_rvv(codes[r] + k, w);
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * x->stride + first;
                const vint16m4_t zero = __riscv_vmv_v_x_i16m4(0, vl);
                vint16m4_t lane0 = zero, lane1 = zero, lane2 = zero, lane3 = zero;
                for (size_t k = 0; k < (size_t)count; k += vl) {
                    const vint8m2_t v = __riscv_vle8_v_i8m2(q + k, vl);
                    const vuint8m2_t c0 = __riscv_vle8_v_u8m2(codes[0] + k, vl);
                    const vuint8m2_t c1 = __riscv_vle8_v_u8m2(codes[1] + k, vl);
                    const vuint8m2_t c2 = __riscv_vle8_v_u8m2(codes[2] + k, vl);
                    const vuint8m2_t c3 = __riscv_vle8_v_u8m2(codes[3] + k, vl);
                    lane0 = __riscv_vwmaccsu_vv_i16m4(lane0, v, c0, vl);
                    lane1 = __riscv_vwmaccsu_vv_i16m4(lane1, v, c1, vl);
                    lane2 = __riscv_vwmaccsu_vv_i16m4(lane2, v, c2, vl);
                    lane3 = __riscv_vwmaccsu_vv_i16m4(lane3, v, c3, vl);
                }
                int32_t *to = acc + i * rows + m;
                to[0] += bnc_row_sum_rvv(lane0, vl);
                to[1] += bnc_row_sum_rvv(lane1, vl);
                to[2] += bnc_row_sum_rvv(lane2, vl);
                to[3] += bnc_row_sum_rvv(lane3, vl);
            }
        }
    }
}

#endif
