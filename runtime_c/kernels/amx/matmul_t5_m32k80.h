/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AMX int8, layout t5_m32k80: 1.6 bits a trit; one token is AVX-512 VBMI's work.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Four columns of sixteen rows are a register of codes and a row of the tile B[k / 4][row][k % 4];
 * four blocks, 320 columns, fill five tiles for each half of their rows. Where the columns are no
 * whole tiles, the last tile is 64 columns that end with them, and those of its codes that have
 * been multiplied already are zeros.
 * Bounds: as in the kernel for one token, 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M32K80_AMX_H
#define BNC_MATMUL_T5_M32K80_AMX_H

#include <immintrin.h>

#include "../../bnc_amx.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../avx512vbmi/matmul_t5_m32k80.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_T5_M32K80_ROWS == 32 && BNC_T5_M32K80_COLS == 80, "unrolled by hand");

enum {
    BNC_T5_M32K80_BYTES = 512, /* of a block: four times two registers */
    BNC_T5_M32K80_AMX_CHUNK =
        640, /* columns unpacked at a time: whole blocks, whole tiles; 20 KB */
};

/* A block's codes as rows of tiles, those of the halves of its rows `half` bytes apart. */
BNC_INLINE void bnc_unpack_t5_m32k80_amx(uint8_t *to, ptrdiff_t half, const uint8_t *w,
                                         const struct bnc_tables_t5_avx512vbmi *tables)
{
    for (int c = 0; c < 4; c++, to += 320)
        for (int h = 0; h < 2; h++, w += 64) {
            __m512i code[5];
            bnc_unpack_t5_avx512vbmi(code, _mm512_loadu_si512(w), tables);
            for (int i = 0; i < 5; i++)
                _mm512_store_si512(to + half * h + 64 * i, code[i]);
        }
}

BNC_KERNEL void bnc_matmul_t5_m32k80_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_T5_M32K80_AMX_CHUNK, ROWS = BNC_T5_M32K80_ROWS, HALF = 16 * CHUNK };
    int shaped = 0;
    if (n == 1) {
        bnc_matvec_t5_m32k80_avx512vbmi(acc, w, x->q, x->sum[0], rows, cols);
        return;
    }
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    const ptrdiff_t bytes = cols / 5;       /* of a row */
    const uint8_t *next = w + rows * bytes; /* what the next call reads, in general */
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < cols; first += CHUNK) {
            _Alignas(64) uint8_t codes[2 * HALF];
            const int count = cols - first < CHUNK ? cols - first : CHUNK, over = count % 64;
            for (int k = 0; k < count; k += BNC_T5_M32K80_COLS, w += BNC_T5_M32K80_BYTES)
                bnc_unpack_t5_m32k80_amx(codes + 16 * k, HALF, w, &tables);
            bnc_tokens_amx(acc + m, rows, codes, HALF, x, first, count - over, n, &shaped,
                           next + m * bytes + 32 * (first / 5), 32 * (count / 5));
            if (over) { /* count >= 80, so that the tile begins within the chunk */
                uint8_t *last = codes + 16 * (count - 64);
                for (int k = 0; k < 64 - over; k += 4) {
                    _mm512_store_si512(last + 16 * k, _mm512_setzero_si512());
                    _mm512_store_si512(last + HALF + 16 * k, _mm512_setzero_si512());
                }
                bnc_tokens_amx(acc + m, rows, last, HALF, x, first + count - 64, 64, n, &shaped,
                               next, 0);
            }
        }
    __asm__ volatile("tilerelease");
}

#endif
