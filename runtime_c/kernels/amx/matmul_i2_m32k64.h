/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout i2_m32k64; one token is AVX-512 VNNI's
 * work.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit
 * + 1 in 0 .. 2
 *
 * The codes at bits 2j of a register hold 16 rows of four neighbouring columns:
 * one row of the tile B[k / 4][row][k % 4], which a block of 64 columns fills
 * for each half of its rows. tdpbsud adds A B for the activations A[token][k]
 * as they lie in memory. Bounds: as in the kernel for one token, 132,103
 * columns. */
#ifndef BNC_MATMUL_I2_M32K64_AMX_H
#define BNC_MATMUL_I2_M32K64_AMX_H

#include <immintrin.h>

#include "../../bnc_amx.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "../avx512vnni/matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

enum { BNC_I2_M32K64_BYTES = 512 }; /* of a block: four times two registers */

/* The intrinsics of GCC do not say that they read or write memory, which lets
 * it drop the stores before them. Tile numbers are part of the instruction,
 * hence macros. */
#define BNC_TILE_LOAD(tile, at, stride)                                                            \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile                                            \
                     :                                                                             \
                     : "r"(at), "r"((ptrdiff_t)(stride))                                           \
                     : "memory")
/* The same of what is not read again soon: it leaves the first-level cache to codes and sums. */
#define BNC_TILE_STREAM(tile, at, stride)                                                          \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #tile                                          \
                     :                                                                             \
                     : "r"(at), "r"((ptrdiff_t)(stride))                                           \
                     : "memory")
#define BNC_TILE_STORE(tile, at, stride)                                                           \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)"                                        \
                     :                                                                             \
                     : "r"(at), "r"((ptrdiff_t)(stride))                                           \
                     : "memory")
/* sums += signed a times unsigned b */
#define BNC_TILE_DOT(sums, a, b)                                                                   \
    __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : : : "memory")

/* Shapes of the tiles, as LDTILECFG reads them. */
struct bnc_tile_shapes_amx {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Sums in tiles 0 to 3 (token half, row half), activations in 4 and 5, codes in
 * 6 and 7. */
BNC_INLINE void bnc_configure_amx(int tokens)
{
    struct bnc_tile_shapes_amx t = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        const int half = i == 2 || i == 3 || i == 5;
        const int left = i >= 6 ? 16 : tokens - 16 * half;
        t.row_bytes[i] = 64;
        t.rows[i] = (uint8_t)(left < 1 ? 1 : left < 16 ? left : 16);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(t));
}

/* Columns unpacked at a time, once for all tokens: 32 rows of them are 16 KB
 * and stay in L1. */
enum { BNC_AMX_CHUNK = 512 };

/* acc of 32 rows and up to 32 tokens (`two`: more than 16) += codes * q over
 * `cols` columns, whole tiles. codes: tiles of 16 rows and 64 columns, of each
 * half of the rows `half` bytes apart.
 * ahead: packed bytes to come, of which `lines` cache lines are fetched with
 * each tile: memory has time then */
BNC_INLINE void bnc_pass_amx(int32_t *acc, int rows, const uint8_t *codes, ptrdiff_t half,
                             const int8_t *q, ptrdiff_t stride, int cols, int two,
                             const uint8_t *ahead, int lines)
{
    const ptrdiff_t acc_stride = rows * (ptrdiff_t)sizeof *acc;
    int32_t *high = acc + 16 * rows;
    BNC_TILE_LOAD(0, acc, acc_stride);
    BNC_TILE_LOAD(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_LOAD(2, high, acc_stride);
        BNC_TILE_LOAD(3, high + 16, acc_stride);
    }
    for (int k = 0; k < cols; k += 64, codes += 1024) {
        BNC_TILE_LOAD(6, codes, 64);
        BNC_TILE_STREAM(4, q + k, stride);
        BNC_TILE_DOT(0, 4, 6);
        BNC_TILE_LOAD(7, codes + half, 64);
        BNC_TILE_DOT(1, 4, 7);
        if (two) {
            BNC_TILE_STREAM(5, q + 16 * stride + k, stride);
            BNC_TILE_DOT(2, 5, 6);
            BNC_TILE_DOT(3, 5, 7);
        }
        bnc_prefetch_lines(ahead, lines);
        ahead += 64 * lines;
    }
    BNC_TILE_STORE(0, acc, acc_stride);
    BNC_TILE_STORE(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_STORE(2, high, acc_stride);
        BNC_TILE_STORE(3, high + 16, acc_stride);
    }
}

/* bnc_pass_amx() of n tokens, from column `first` of the activations on.
 * *shaped: tokens that the tiles are shaped for, 0 at first.
 * ahead: `bytes` packed bytes to come, which are fetched meanwhile */
BNC_INLINE void bnc_tokens_amx(int32_t *acc, int rows, const uint8_t *codes, ptrdiff_t half,
                               const struct bnc_acts *x, int first, int cols, int n, int *shaped,
                               const uint8_t *ahead, ptrdiff_t bytes)
{
    enum { TOKENS = 32 };
    const int steps = (n + TOKENS - 1) / TOKENS * (cols / 64);
    const int lines = (int)(bytes / 64 + steps - 1) / steps;
    for (int i = 0; i < n; i += TOKENS) {
        const int tokens = n - i < TOKENS ? n - i : TOKENS;
        if (tokens != *shaped)
            bnc_configure_amx(*shaped = tokens);
        bnc_pass_amx(acc + i * (ptrdiff_t)rows, rows, codes, half,
                     x->q + i * (ptrdiff_t)x->stride + first, x->stride, cols, tokens > 16, ahead,
                     lines);
        ahead += (ptrdiff_t)lines * cols;
    }
}

/* A block's codes as a tile of each half of the rows, `half` bytes apart. */
BNC_INLINE void bnc_unpack_i2_m32k64_amx(uint8_t *to, ptrdiff_t half, const uint8_t *w)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    for (int c = 0; c < 4; c++)
        for (int h = 0; h < 2; h++) {
            const __m512i v = _mm512_loadu_si512(w + 128 * c + 64 * h);
            uint8_t *at = to + half * h + 256 * c;
            _mm512_store_si512(at, _mm512_and_si512(_mm512_srli_epi16(v, 6), low2));
            _mm512_store_si512(at + 64, _mm512_and_si512(_mm512_srli_epi16(v, 4), low2));
            _mm512_store_si512(at + 128, _mm512_and_si512(_mm512_srli_epi16(v, 2), low2));
            _mm512_store_si512(at + 192, _mm512_and_si512(v, low2));
        }
}

/* acc = codes * q - zero * sum of q. zero: constant once inlined */
BNC_INLINE void bnc_codes_m32k64_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, int rows, int cols, int n, int zero)
{
    enum { CHUNK = BNC_AMX_CHUNK, ROWS = BNC_I2_M32K64_ROWS, HALF = 16 * CHUNK };
    int shaped = 0;
    const ptrdiff_t bytes = cols / 4;       /* of a row */
    const uint8_t *next = w + rows * bytes; /* what the next call reads, in general */
    if (n == 1) {
        bnc_matvec_i2_m32k64_avx512vnni(acc, w, x->q, zero * x->sum[0], rows, cols);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-zero * x->sum[i]));
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            _Alignas(64) uint8_t codes[2 * HALF];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int k = 0; k < count; k += BNC_I2_M32K64_COLS, w += BNC_I2_M32K64_BYTES)
                bnc_unpack_i2_m32k64_amx(codes + 16 * k, HALF, w);
            bnc_tokens_amx(acc + m, rows, codes, HALF, x, first, count, n, &shaped,
                           next + m * bytes + 8 * first, 8 * count);
        }
    __asm__ volatile("tilerelease");
}

BNC_KERNEL void bnc_matmul_i2_m32k64_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m32k64_amx(acc, w, x, rows, cols, n, 1);
}

#endif
