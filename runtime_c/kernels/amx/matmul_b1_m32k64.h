/* SPDX-License-Identifier: MIT */
/* Matmul of signs for AMX int8, layout b1_m32k64; one token is AVX-512 VNNI's work.
 *
 *     sum over k of (2 * bit - 1) * q = sum of code * q - sum of q,   code = 2 * bit
 *
 * A block unpacks to a tile B[k / 4][row][k % 4] of codes for each half of its rows, as one of
 * i2_m32k64 does.
 * Bounds: |2 * q| <= 254 a column: int32 lasts for 8,454,660 columns. */
#ifndef BNC_MATMUL_B1_M32K64_AMX_H
#define BNC_MATMUL_B1_M32K64_AMX_H

#include "../avx512vnni/matmul_b1_m32k64.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_B1_M32K64_ROWS == 32 && BNC_B1_M32K64_COLS == 64, "unrolled by hand");

BNC_KERNEL void bnc_matmul_b1_m32k64_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_AMX_CHUNK, ROWS = BNC_B1_M32K64_ROWS, HALF = 16 * CHUNK };
    int shaped = 0;
    if (n == 1) {
        bnc_matvec_b1_m32k64_avx512vnni(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    const ptrdiff_t bytes = cols / 8;       /* of a row */
    const uint8_t *next = w + rows * bytes; /* what the next call reads, in general */
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            _Alignas(64) uint8_t codes[2 * HALF];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += 32)
                for (int h = 0; h < 2; h++, w += 64)
                    bnc_unpack_b1_m32k64_avx512vnni(codes + HALF * h + 16 * k, 64, w);
            bnc_tokens_amx(acc + m, rows, codes, HALF, x, first, count, n, &shaped,
                           next + m * bytes + 4 * first, 4 * count);
        }
    __asm__ volatile("tilerelease");
}

#endif
