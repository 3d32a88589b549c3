/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout i2_m256k4; one token is AVX-512 VNNI's work, which does not
 * read columns of zero activations.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Unpacked, 16 rows of 64 columns are the tile B[k / 4][row][k % 4]. Interleaving the lower or the
 * upper bytes of the lines' lanes gives half of the rows: rows 64 s + 32 half .. + 31. What is left
 * of the columns behind whole tiles is VNNI's, too.
 * Bounds: as in the kernel for one token, 132,103 columns. */
#ifndef BNC_MATMUL_I2_M256K4_AMX_H
#define BNC_MATMUL_I2_M256K4_AMX_H

#include "../avx512vnni/matmul_i2_m256k4.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");

enum { BNC_I2_M256K4_AMX_CHUNK = 256 }; /* columns of half the rows unpacked at a time: 32 KB */

/* Unpacking in progress: of every 64 columns, the tiles of eight times 16 rows. */
struct bnc_unpack_i2_m256k4_amx {
    __m512i *to;      /* [64 columns][16 rows][four columns] */
    const uint8_t *w; /* four columns: 256 bytes */
    int half;         /* of the rows: 0 or 1 */
    int done, left;   /* times four columns */
};

/* Unpacks up to 4 * count columns of what is left. */
BNC_INLINE void bnc_unpack_on_i2_m256k4_amx(struct bnc_unpack_i2_m256k4_amx *job, int count)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    const uint8_t *w = job->w;
    __m512i *to = job->to;
    count = count < job->left ? count : job->left;
    for (int j = 0; j < count; j++, w += 256) {
        const __m512i c0 = _mm512_loadu_si512(w), c1 = _mm512_loadu_si512(w + 64);
        const __m512i c2 = _mm512_loadu_si512(w + 128), c3 = _mm512_loadu_si512(w + 192);
        __m512i c01, c23;
        if (job->half) {
            c01 = _mm512_unpackhi_epi8(c0, c1);
            c23 = _mm512_unpackhi_epi8(c2, c3);
        } else {
            c01 = _mm512_unpacklo_epi8(c0, c1);
            c23 = _mm512_unpacklo_epi8(c2, c3);
        }
        const __m512i codes[2] = { _mm512_unpacklo_epi16(c01, c23),
                                   _mm512_unpackhi_epi16(c01, c23) };
        for (int r = 0; r < 2; r++) { /* rows 64 s + 32 half + 16 r .., s = 0 in the high bits */
            to[16 * r] = _mm512_and_si512(_mm512_srli_epi16(codes[r], 6), low2);
            to[16 * r + 32] = _mm512_and_si512(_mm512_srli_epi16(codes[r], 4), low2);
            to[16 * r + 64] = _mm512_and_si512(_mm512_srli_epi16(codes[r], 2), low2);
            to[16 * r + 96] = _mm512_and_si512(codes[r], low2);
        }
        job->done++;
        to += job->done % 16 ? 1 : 113; /* the next 64 columns */
    }
    job->w = w;
    job->to = to;
    job->left -= count;
}

/* acc of 32 rows and up to 32 tokens (`two`: more than 16) += codes * q over `cols` columns, whole
 * tiles; meanwhile the next codes are unpacked, `each` times four columns beside 64.
 * codes: [64 columns][eight times 16 rows] tiles, from the first of two */
BNC_INLINE void bnc_pass_i2_m256k4_amx(int32_t *acc, int rows, const __m512i *codes,
                                       const int8_t *q, int stride, int cols, int two,
                                       struct bnc_unpack_i2_m256k4_amx *job, int each)
{
    const ptrdiff_t acc_stride = rows * (ptrdiff_t)sizeof *acc;
    int32_t *high = acc + 16 * rows;
    BNC_TILE_LOAD(0, acc, acc_stride);
    BNC_TILE_LOAD(1, acc + 16, acc_stride);
    if (two) {
        BNC_TILE_LOAD(2, high, acc_stride);
        BNC_TILE_LOAD(3, high + 16, acc_stride);
    }
    for (int k = 0; k < cols; k += 64, codes += 128) {
        BNC_TILE_LOAD(6, codes, 64);
        BNC_TILE_LOAD(7, codes + 16, 64);
        BNC_TILE_LOAD(4, q + k, stride);
        BNC_TILE_DOT(0, 4, 6);
        BNC_TILE_DOT(1, 4, 7);
        if (two) {
            BNC_TILE_LOAD(5, q + 16 * (ptrdiff_t)stride + k, stride);
            BNC_TILE_DOT(2, 5, 6);
            BNC_TILE_DOT(3, 5, 7);
        }
        bnc_unpack_on_i2_m256k4_amx(job, each);
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
    const int whole = cols / 64 * 64, turns = 2 * ((whole + CHUNK - 1) / CHUNK);
    const int each = n > TOKENS ? 2 : 4;
    int shaped = 0; /* tokens that the tiles are shaped for */
    if (n == 1) {
        bnc_matmul_i2_m256k4_avx512vnni(acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    for (int m = 0; m < rows; m += ROWS, w += 64 * (ptrdiff_t)cols) {
        __m512i codes[2][ROWS / 2 * CHUNK / 64]; /* of the lower rows, of the upper ones */
        for (int turn = -1; turn < turns; turn++) {
            const int first = turn / 2 * CHUNK, half = turn & 1;
            const int next = (turn + 1) / 2 * CHUNK;
            const int following = whole - next < CHUNK ? whole - next : CHUNK;
            struct bnc_unpack_i2_m256k4_amx job = { codes[(turn + 1) & 1], w + 64 * (ptrdiff_t)next,
                                                    (turn + 1) & 1, 0,
                                                    turn + 1 < turns ? following / 4 : 0 };
            const int count = whole - first < CHUNK ? whole - first : CHUNK;
            for (int i = 0; i < n && turn >= 0; i += TOKENS) {
                const int tokens = n - i < TOKENS ? n - i : TOKENS;
                if (tokens != shaped)
                    bnc_configure_amx(shaped = tokens);
                for (int s = 0; s < 4; s++)
                    bnc_pass_i2_m256k4_amx(acc + i * rows + m + 64 * s + 32 * half, rows,
                                           codes[half] + 32 * s,
                                           x->q + i * (ptrdiff_t)x->stride + first, x->stride,
                                           count, tokens > 16, &job, each);
            }
            bnc_unpack_on_i2_m256k4_amx(&job, job.left);
        }
    }
    __asm__ volatile("tilerelease");
    if (whole < cols)
        bnc_add_i2_m256k4_avx512vnni(acc, w - 64 * (ptrdiff_t)cols * (rows / ROWS), x, rows, cols,
                                     n, whole);
}

#endif
