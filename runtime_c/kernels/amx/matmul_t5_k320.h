/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout t5_k320: 1.6 bits a trit; one token, of which chosen rows can
 * be computed, is AVX-512 VBMI's work.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Once the words of sixteen rows are exchanged, each of the five codes of a byte belongs to another
 * tile B[k / 4][row][k % 4], of 64 columns.
 * Bounds: as in the kernel for one token, 8.4 million columns. */
#ifndef BNC_MATMUL_T5_K320_AMX_H
#define BNC_MATMUL_T5_K320_AMX_H

#include "../avx512vbmi/matmul_t5_k320.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_T5_K320_ROWS == 1 && BNC_T5_K320_COLS == 320, "unrolled by hand");

BNC_KERNEL void bnc_rows_t5_k320_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, const int32_t *row, int count,
                                     int listed, int cols)
{
    bnc_rows_t5_k320_avx512vbmi(acc, w, x, row, count, listed, cols);
}

BNC_KERNEL void bnc_matmul_t5_k320_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, int rows, int cols, int n)
{
    /* 320 columns are unpacked at a time, once for all tokens: 10 KB. */
    enum { CHUNK = BNC_T5_K320_COLS, ROWS = 32, HALF = 16 * CHUNK };
    const int whole = n == 1 ? 0 : rows / ROWS * ROWS;
    const ptrdiff_t bytes = cols / 5;
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    int shaped = 0;
    for (int i = 0; i < n; i++)
        for (int m = 0; m < whole; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    const uint8_t *next = w + bytes * rows; /* what the next call reads, in general */
    for (int m = 0; m < whole; m += ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            __m512i codes[2][CHUNK / 4]; /* [half of the rows][four columns] */
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += BNC_T5_K320_COLS)
                for (int h = 0; h < 2; h++)
                    bnc_unpack_t5_k320(codes[h] + k / 4, 1,
                                       w + bytes * (m + 16 * h) + (first + k) / 5, bytes, &tables);
            bnc_tokens_amx(acc + m, rows, (const uint8_t *)codes, HALF, x, first, count, n, &shaped,
                           next + m * bytes + 32 * (first / 5), 32 * (count / 5));
        }
    if (whole)
        __asm__ volatile("tilerelease");
    bnc_each_t5_k320_avx512vbmi(acc, w, x, whole, rows, cols, n);
}

#endif
