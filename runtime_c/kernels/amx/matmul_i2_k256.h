/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout i2_k256; one token, of which chosen rows can be computed, is
 * AVX-512 VNNI's work.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Once the words of sixteen rows are exchanged, a plane of 64 columns is the tile
 * B[k / 4][row][k % 4].
 * Bounds: as in the kernel for one token, 132,103 columns. */
#ifndef BNC_MATMUL_I2_K256_AMX_H
#define BNC_MATMUL_I2_K256_AMX_H

#include "../avx512vnni/matmul_i2_k256.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_K256_ROWS == 1 && BNC_I2_K256_COLS == 256, "unrolled by hand");

BNC_INLINE void bnc_rows_i2_k256_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, const int32_t *row, int count,
                                     int listed, int cols)
{
    bnc_rows_i2_k256_avx512vnni(acc, w, x, row, count, listed, cols);
}

/* acc of 32 rows and up to 32 tokens (`two`: more than 16) += codes * q. While the tiles of one
 * block are multiplied, the codes of the next are unpacked. */
BNC_INLINE void bnc_pass_i2_k256_amx(int32_t *acc, int rows, const uint8_t *w, const int8_t *q,
                                     int stride, int cols, int two)
{
    __m512i codes[2][2][64]; /* [even and odd blocks][half of the rows][four columns] */
    const int blocks = cols / BNC_I2_K256_COLS;
    const ptrdiff_t acc_stride = rows * (ptrdiff_t)sizeof *acc, bytes = cols / 4;
    int32_t *high = acc + 16 * rows;

    BNC_TILE_LOAD(0, acc, acc_stride);
    BNC_TILE_LOAD(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_LOAD(2, high, acc_stride);
        BNC_TILE_LOAD(3, high + 16, acc_stride);
    }
    for (int h = 0; h < 2; h++)
        bnc_unpack_i2_k256(codes[0][h], 1, w + 16 * h * bytes, bytes);
    for (int b = 0; b < blocks; b++)
        for (int p = 0; p < 4; p++, q += 64) {
            if (p % 2 == 0 && b + 1 < blocks)
                bnc_unpack_i2_k256(codes[(b + 1) % 2][p / 2], 1, w + 8 * p * bytes + 64 * (b + 1),
                                   bytes);
            BNC_TILE_LOAD(6, codes[b % 2][0] + 16 * p, 64);
            BNC_TILE_LOAD(7, codes[b % 2][1] + 16 * p, 64);
            BNC_TILE_LOAD(4, q, stride);
            BNC_TILE_DOT(0, 4, 6);
            BNC_TILE_DOT(1, 4, 7);
            if (two) {
                BNC_TILE_LOAD(5, q + 16 * (ptrdiff_t)stride, stride);
                BNC_TILE_DOT(2, 5, 6);
                BNC_TILE_DOT(3, 5, 7);
            }
        }
    BNC_TILE_STORE(0, acc, acc_stride);
    BNC_TILE_STORE(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_STORE(2, high, acc_stride);
        BNC_TILE_STORE(3, high + 16, acc_stride);
    }
}

BNC_KERNEL void bnc_matmul_i2_k256_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { TOKENS = 32, ROWS = 32 };
    const int whole = n == 1 ? 0 : rows / ROWS * ROWS;
    for (int i = 0; i < n; i++)
        for (int m = 0; m < whole; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    for (int i = 0; i < n && whole; i += TOKENS) {
        const int tokens = n - i < TOKENS ? n - i : TOKENS;
        if (i == 0 || tokens < TOKENS)
            bnc_configure_amx(tokens);
        for (int m = 0; m < whole; m += ROWS)
            bnc_pass_i2_k256_amx(acc + i * rows + m, rows, w + (ptrdiff_t)m * cols / 4,
                                 x->q + (ptrdiff_t)i * x->stride, x->stride, cols, tokens > 16);
    }
    if (whole)
        __asm__ volatile("tilerelease");
    bnc_each_i2_k256_avx512vnni(acc, w, x, whole, rows, cols, n);
}

#endif
