/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for WebAssembly with relaxed SIMD, layout q2_m4k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits, whose bounds hold for all codes of two bits where one token is multiplied;
 * several are as without relaxed instructions.
 * Bounds: |48 * q| <= 6096 a column, so int32 lasts for 352,276 columns. */
#ifndef BNC_MATMUL_Q2_M4K64_WASMRELAXED_H
#define BNC_MATMUL_Q2_M4K64_WASMRELAXED_H

#include "../wasm128/matmul_q2_m4k64.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_Q2_M4K64_ROWS == 4 && BNC_Q2_M4K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m4k64_wasmrelaxed(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_i2_m4k64_wasmrelaxed(acc, w, x->q, 2 * x->sum[0], rows, cols);
    else
        bnc_several_q2_m4k64_wasm128(acc, w, x, rows, cols, n);
}

#endif
