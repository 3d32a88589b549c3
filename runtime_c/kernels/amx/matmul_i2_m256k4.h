/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout i2_m256k4; one token is AVX-512 VNNI's
 * work, which does not read columns of zero activations.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit
 * + 1 in 0 .. 2
 *
 * Unpacked, 16 rows of 64 columns are the tile B[k / 4][row][k % 4].
 * Interleaving the lower or the upper bytes of the lines' lanes gives half of
 * the rows: rows 64 s + 32 half .. + 31. What is left of the columns behind
 * whole tiles is VNNI's, too. Bounds: as in the kernel for one token, 132,103
 * columns. */
#ifndef BNC_MATMUL_I2_M256K4_AMX_H
#define BNC_MATMUL_I2_M256K4_AMX_H

#include "../avx512vnni/matmul_i2_m256k4.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");

BNC_KERNEL void bnc_matmul_i2_m256k4_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 256, ROWS = BNC_I2_M256K4_ROWS }; /* 64 KB of codes, in the second level */
    const int whole = cols / 64 * 64;
    int shaped = 0;
    if (n == 1) {
        bnc_matmul_i2_m256k4_avx512vnni(acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    for (int m = 0; m < rows; m += ROWS, w += 64 * (ptrdiff_t)cols)
        for (int first = 0; first < whole; first += CHUNK) {
            __m512i codes[ROWS * CHUNK / 64];
            const int count = whole - first < CHUNK ? whole - first : CHUNK;
            bnc_unpack_i2_m256k4(codes, w + 64 * (ptrdiff_t)first, count);
            for (int g = 0; g < ROWS / 16; g += 2)
                bnc_tokens_amx(acc + m + 16 * g, rows, (const uint8_t *)(codes + g * (count / 4)),
                               16 * (ptrdiff_t)count, x, first, count, n, &shaped,
                               w + 64 * (ptrdiff_t)(first + CHUNK) + 4 * g * count, 8 * count);
        }
    __asm__ volatile("tilerelease");
    if (whole < cols)
        bnc_add_i2_m256k4_avx512vnni(acc, w - 64 * (ptrdiff_t)cols * (rows / ROWS), x, rows, cols,
                                     n, whole);
}

#endif
