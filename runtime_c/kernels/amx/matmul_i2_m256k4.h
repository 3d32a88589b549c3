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

enum { BNC_SLICE_TOKENS = 128 }; /* whose sums, 16 KB, stay in the first cache beside the codes */

/* Moves sums of a slice and n tokens, whose distances are `to_rows` and `from_rows`. */
BNC_INLINE void bnc_move_slice(int32_t *to, int to_rows, const int32_t *from, int from_rows, int n)
{
    for (int i = 0; i < n; i++)
        for (int m = 0; m < BNC_SLICE; m += 16)
            _mm512_storeu_si512(to + i * to_rows + m, _mm512_loadu_si512(from + i * from_rows + m));
}

/* A token and those behind it, as many as are summed at a time. */
BNC_INLINE struct bnc_acts bnc_acts_from(const struct bnc_acts *x, int i)
{
    struct bnc_acts rest = *x;
    rest.q += i * (ptrdiff_t)x->stride;
    return rest;
}

/* acc of several tokens, as of VNNI; 384 columns at a time, whose codes stay in the first cache
 * beside the sums. What is left of the columns behind whole tiles is VNNI's. */
BNC_INLINE void bnc_slices_amx(bnc_unpack_slice *unpack, int slices, int32_t *restrict acc,
                               const uint8_t *restrict w, const struct bnc_acts *x, int rows,
                               int cols, int n)
{
    enum { CHUNK = 384, SLICE = BNC_SLICE, MANY = BNC_SLICE_TOKENS };
    const int whole = cols / 64 * 64;
    const ptrdiff_t bytes = 64 * (ptrdiff_t)cols;              /* of a block */
    const uint8_t *next = w + rows / (slices * SLICE) * bytes; /* what the next call reads */
    int shaped = 0;
    for (int m = 0; m < rows; m += SLICE)
        for (int i = 0; i < n; i += MANY) {
            __m512i codes[2][CHUNK / 4]; /* [sixteen rows][four columns] */
            _Alignas(64) int32_t sums[SLICE * MANY];
            const struct bnc_acts q = bnc_acts_from(x, i);
            const int tokens = n - i < MANY ? n - i : MANY;
            const int s = m / SLICE % slices;
            const uint8_t *block = w + m / (slices * SLICE) * bytes;
            for (int j = 0; j < tokens; j++)
                for (int r = 0; r < SLICE; r += 16)
                    _mm512_store_si512(sums + j * SLICE + r, _mm512_set1_epi32(-x->sum[i + j]));
            for (int first = 0; first < whole; first += CHUNK) {
                const int count = whole - first < CHUNK ? whole - first : CHUNK;
                const int part = 64 * count / slices; /* of the bytes to come */
                unpack(codes[0], CHUNK / 4, 1, block + 64 * (ptrdiff_t)first, count, s);
                bnc_tokens_amx(sums, SLICE, (const uint8_t *)codes, 16 * CHUNK, &q, first, count,
                               tokens, &shaped, next + 64 * (ptrdiff_t)first + s * part, part);
            }
            bnc_move_slice(acc + i * rows + m, rows, sums, SLICE, tokens);
        }
    __asm__ volatile("tilerelease");
    if (whole < cols)
        bnc_add_slices_avx512vnni(unpack, slices, acc, w, x, rows, cols, n, whole);
}

BNC_KERNEL void bnc_matmul_i2_m256k4_amx(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { EACH = -10, ONCE = 225 }; /* see bnc_one_by_one(); fits two to sixteen tokens */
    if (n == 1)
        bnc_matmul_i2_m256k4_avx512vnni(acc, w, x, rows, cols, n);
    else if (bnc_columns_one_by_one(x, cols, n, EACH, ONCE))
        bnc_each_avx512(bnc_block_i2_m256k4_avx512vnni, bnc_near_i2_m256k4_avx512vnni,
                        BNC_I2_M256K4_ROWS, acc, w, x, rows, cols, n);
    else
        bnc_slices_amx(bnc_unpack_i2_m256k4, 8, acc, w, x, rows, cols, n);
}

#endif
