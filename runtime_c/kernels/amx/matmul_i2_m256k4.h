/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout i2_m256k4; one token is AVX-512 VNNI's work, which does not
 * read columns of zero activations.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Unpacked, 16 rows of 64 columns are the tile B[k / 4][row][k % 4]. What is left of the columns
 * behind whole tiles is VNNI's, too.
 * Bounds: as in the kernel for one token, 132,103 columns. */
#ifndef BNC_MATMUL_I2_M256K4_AMX_H
#define BNC_MATMUL_I2_M256K4_AMX_H

#include "../avx512vnni/matmul_i2_m256k4.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");

enum { BNC_I2_M256K4_AMX_CHUNK = 128 }; /* columns unpacked at a time: 32 KB */

/* acc of 32 rows and up to 32 tokens (`two`: more than 16) += codes * q over `cols` columns, whole
 * tiles. codes: [two halves][cols / 4] registers */
BNC_INLINE void bnc_pass_i2_m256k4_amx(int32_t *acc, int rows, const __m512i *codes,
                                       const int8_t *q, int stride, int cols, int two)
{
    const ptrdiff_t acc_stride = rows * (ptrdiff_t)sizeof *acc;
    int32_t *high = acc + 16 * rows;
    BNC_TILE_LOAD(0, acc, acc_stride);
    BNC_TILE_LOAD(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_LOAD(2, high, acc_stride);
        BNC_TILE_LOAD(3, high + 16, acc_stride);
    }
    for (int k = 0; k < cols; k += 64) {
        BNC_TILE_LOAD(6, codes + k / 4, 64);
        BNC_TILE_LOAD(7, codes + cols / 4 + k / 4, 64);
        BNC_TILE_LOAD(4, q + k, stride);
        BNC_TILE_DOT(0, 4, 6);
        BNC_TILE_DOT(1, 4, 7);
        if (two) {
            BNC_TILE_LOAD(5, q + 16 * (ptrdiff_t)stride + k, stride);
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

BNC_KERNEL void bnc_matmul_i2_m256k4_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_M256K4_AMX_CHUNK, TOKENS = 32, ROWS = BNC_I2_M256K4_ROWS };
    const int whole = cols / 64 * 64;
    int shaped = 0; /* tokens that the tiles are shaped for */
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
            for (int i = 0; i < n; i += TOKENS) {
                const int tokens = n - i < TOKENS ? n - i : TOKENS;
                if (tokens != shaped)
                    bnc_configure_amx(shaped = tokens);
                for (int g = 0; g < ROWS / 16; g += 2)
                    bnc_pass_i2_m256k4_amx(
                        acc + i * rows + m + 16 * g, rows, codes + g * (count / 4),
                        x->q + i * (ptrdiff_t)x->stride + first, x->stride, count, tokens > 16);
            }
        }
    __asm__ volatile("tilerelease");
    if (whole < cols)
        bnc_add_i2_m256k4_avx512vnni(acc, w - 64 * (ptrdiff_t)cols * (rows / ROWS), x, rows, cols,
                                     n, whole);
}

#endif
