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
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_T5_M320K4_ROWS == 320 && BNC_T5_M320K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_t5_m320k4_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 192, ROWS = BNC_T5_M320K4_ROWS }; /* 60 KB of codes, in the second level */
    const int whole = cols / 64 * 64;
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    int shaped = 0;
    if (n == 1) {
        bnc_matmul_t5_m320k4_avx512vbmi(acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < whole; first += CHUNK) {
            __m512i codes[ROWS * CHUNK / 64];
            const int count = whole - first < CHUNK ? whole - first : CHUNK;
            const uint8_t *from = w + (ptrdiff_t)(m / 5) * cols + 64 * (ptrdiff_t)first;
            bnc_unpack_t5_m320k4(codes, from, count, &tables);
            for (int g = 0; g < ROWS / 16; g += 2)
                bnc_tokens_amx(acc + m + 16 * g, rows, (const uint8_t *)(codes + g * (count / 4)),
                               16 * (ptrdiff_t)count, x, first, count, n, &shaped,
                               from + 64 * CHUNK + 32 * (g / 2 * count / 5), 32 * (count / 5));
        }
    __asm__ volatile("tilerelease");
    if (whole < cols)
        bnc_add_t5_m320k4_avx512vbmi(acc, w, x, rows, cols, n, whole, &tables);
}

#endif
