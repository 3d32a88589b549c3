/* SPDX-License-Identifier: MIT */
/* Matmul of 2-bit integers for SSE4.1, layout q2_m32k64.
 *
 *     sum over k of (code - 2) * q = sum of code * q - 2 * sum of q,   code = value + 2 in 0 .. 3
 *
 * The loops of trits, with shorter sums in int16.
 * Bounds: a lane gains at most 2 * 3 * 127 = 762 from one pmaddubsw, so 43 of them fit in int16:
 * 172 columns of one token and 344 of several. int32 then lasts for 5.6 million columns. */
#ifndef BNC_MATMUL_Q2_M32K64_SSE41_H
#define BNC_MATMUL_Q2_M32K64_SSE41_H

#include "matmul_i2_m32k64.h"

enum { BNC_Q2_M32K64_SSE41_CHUNK = 128 }; /* columns of one token summed in int16 */
_Static_assert(BNC_Q2_M32K64_SSE41_CHUNK / 4 * 762 <= 32767, "int16 lanes");
_Static_assert(BNC_Q2_M32K64_ROWS == 32 && BNC_Q2_M32K64_COLS == 64, "where trits lie");

BNC_KERNEL void bnc_matmul_q2_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_sse41(acc, w, x, rows, cols, n, BNC_Q2_M32K64_SSE41_CHUNK, 2);
}

#endif
