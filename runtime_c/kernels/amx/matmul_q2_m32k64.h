/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for AMX int8, layout q2_m32k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The tiles of trits; one token is the work of AVX-512 VNNI.
 * Bounds: as in the kernel for one token, 1,409,112 columns. */
#ifndef BNC_MATMUL_Q2_M32K64_AMX_H
#define BNC_MATMUL_Q2_M32K64_AMX_H

#include "matmul_i2_m32k64.h"

_Static_assert(BNC_Q2_M32K64_ROWS == 32 && BNC_Q2_M32K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m32k64_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_amx(acc, w, x, rows, cols, n, 2);
}

#endif
