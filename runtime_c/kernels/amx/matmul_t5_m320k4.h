/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout t5_m320k4; one token is AVX-512 VBMI's work, which does not
 * read columns of zero activations.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Unpacked, 16 rows of 64 columns are the tile B[k / 4][row][k % 4]. What is left of the columns
 * behind whole tiles is VNNI's, too.
 * Bounds: as in the kernel for one token, 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M320K4_AMX_H
#define BNC_MATMUL_T5_M320K4_AMX_H

#include "../avx512vbmi/matmul_t5_m320k4.h"
#include "matmul_i2_m256k4.h"

_Static_assert(BNC_T5_M320K4_ROWS == 320 && BNC_T5_M320K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_t5_m320k4_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { EACH = -10, ONCE = 225 }; /* see bnc_one_by_one(); fits two to sixteen tokens */
    if (n == 1)
        bnc_matmul_t5_m320k4_avx512vbmi(acc, w, x, rows, cols, n);
    else if (bnc_columns_one_by_one(x, cols, n, EACH, ONCE))
        bnc_each_avx512(bnc_block_t5_m320k4_avx512vbmi, bnc_near_t5_m320k4_avx512vbmi,
                        BNC_T5_M320K4_ROWS, acc, w, x, rows, cols, n);
    else
        bnc_slices_amx(bnc_unpack_t5_m320k4, 10, acc, w, x, rows, cols, n);
}

#endif
