/* SPDX-License-Identifier: MIT */
/* Ternary matmul for SSE4.1, layout i2_k256: rows are contiguous, so that of one token chosen rows
 * can be computed and the others are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * pmaddubsw multiplies unsigned codes by signed activations and adds neighbours in int16.
 * Bounds: a lane gains at most 2 * 2 * 127 = 508 from one pmaddubsw, so 64 of them fit in int16:
 * 64 * 508 = 32512. One block of columns is sixteen of them per row: 4 blocks, 1024 columns, are
 * summed in int16 before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_K256_SSE41_H
#define BNC_MATMUL_I2_K256_SSE41_H

#include <smmintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_rows.h"
#include "matmul_i2_m4k64.h"

_Static_assert(BNC_I2_K256_ROWS == 1 && BNC_I2_K256_COLS == 256, "unrolled by hand");

enum { BNC_I2_K256_SSE41_COLS = 1024 }; /* columns summed in int16 */

BNC_INLINE __m128i bnc_load_i2_k256_sse41(const void *at)
{
    return _mm_loadu_si128(at);
}

/* The sums of four rows and one token. */
BNC_INLINE __m128i bnc_four_rows_i2_k256_sse41(const struct bnc_rows *w, const int8_t *q, int cols)
{
    const __m128i low2 = _mm_set1_epi8(3);
    __m128i sum[4];
    for (int r = 0; r < 4; r++)
        sum[r] = _mm_setzero_si128();
    for (int first = 0; first < cols; first += BNC_I2_K256_SSE41_COLS) {
        const int left = cols - first;
        const int end = first + (left < BNC_I2_K256_SSE41_COLS ? left : BNC_I2_K256_SSE41_COLS);
        __m128i lanes[4];
        for (int r = 0; r < 4; r++)
            lanes[r] = _mm_setzero_si128();
        for (int k = first; k < end; k += BNC_I2_K256_COLS) {
            for (int r = 0; r < 4; r++)
                _mm_prefetch((const char *)w->next[r] + k / 4, _MM_HINT_T1);
            for (int v = 0; v < 4; v++) {
                const int8_t *at = q + k + 16 * v;
                const __m128i x0 = bnc_load_i2_k256_sse41(at);
                const __m128i x1 = bnc_load_i2_k256_sse41(at + 64);
                const __m128i x2 = bnc_load_i2_k256_sse41(at + 128);
                const __m128i x3 = bnc_load_i2_k256_sse41(at + 192);
                for (int r = 0; r < 4; r++) {
                    const __m128i c = bnc_load_i2_k256_sse41(w->at[r] + k / 4 + 16 * v);
                    const __m128i c0 = _mm_and_si128(_mm_srli_epi16(c, 6), low2);
                    const __m128i c1 = _mm_and_si128(_mm_srli_epi16(c, 4), low2);
                    const __m128i c2 = _mm_and_si128(_mm_srli_epi16(c, 2), low2);
                    const __m128i c3 = _mm_and_si128(c, low2);
                    const __m128i p01 =
                        _mm_add_epi16(_mm_maddubs_epi16(c0, x0), _mm_maddubs_epi16(c1, x1));
                    const __m128i p23 =
                        _mm_add_epi16(_mm_maddubs_epi16(c2, x2), _mm_maddubs_epi16(c3, x3));
                    lanes[r] = _mm_add_epi16(lanes[r], _mm_add_epi16(p01, p23));
                }
            }
        }
        for (int r = 0; r < 4; r++)
            sum[r] = bnc_widen_sse41(sum[r], lanes[r]);
    }
    return bnc_sum4_sse41(sum[0], sum[1], sum[2], sum[3]);
}

/* The first `count` lanes, or all four. */
BNC_INLINE void bnc_store_rows_i2_k256_sse41(int32_t *acc, __m128i sum, int count)
{
    int32_t lane[4];
    _mm_storeu_si128((__m128i *)(void *)lane, sum);
    memcpy(acc, lane, sizeof *acc * (size_t)(count < 4 ? count : 4));
}

/* acc[i] = row row[i] and one token, i < count. The rows up to row[listed - 1] are fetched ahead.
 */
BNC_KERNEL void bnc_rows_i2_k256_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                       const struct bnc_acts *x, const int32_t *row, int count,
                                       int listed, int cols)
{
    const ptrdiff_t bytes = cols / 4;
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows r4 = bnc_rows_listed(w, bytes, row, i, count, listed);
        bnc_store_rows_i2_k256_sse41(
            acc + i,
            _mm_sub_epi32(bnc_four_rows_i2_k256_sse41(&r4, x->q, cols), _mm_set1_epi32(x->sum[0])),
            count - i);
    }
}

/* acc of up to four rows and `tokens` tokens += codes * q over `cols` <= 1024 columns; tokens is
 * constant once inlined. codes: [row][cols / 16] */
BNC_INLINE void bnc_tile_i2_k256_sse41(int32_t *acc, int rows,
                                       const __m128i (*codes)[BNC_I2_K256_SSE41_COLS / 16],
                                       const int8_t *q, ptrdiff_t stride, int tokens, int left,
                                       int cols)
{
    __m128i sum[2][4];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            sum[i][r] = _mm_setzero_si128();
    for (int v = 0; v < cols / 16; v++)
        for (int i = 0; i < tokens; i++) {
            const __m128i x = bnc_load_i2_k256_sse41(q + i * stride + 16 * v);
            for (int r = 0; r < 4; r++)
                sum[i][r] = _mm_add_epi16(sum[i][r], _mm_maddubs_epi16(codes[r][v], x));
        }
    for (int i = 0; i < tokens; i++) {
        int32_t total[4];
        for (int r = 0; r < 4; r++)
            sum[i][r] = bnc_widen_sse41(_mm_setzero_si128(), sum[i][r]);
        _mm_storeu_si128((__m128i *)(void *)total,
                         bnc_sum4_sse41(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
        for (int r = 0; r < left; r++)
            acc[i * rows + r] += total[r];
    }
}

/* Several tokens: four rows of 1024 columns are unpacked to bytes once (4 KB, stays in L1) and
 * multiplied with the tokens two at a time. */
BNC_KERNEL void bnc_matmul_i2_k256_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_I2_K256_SSE41_COLS };
    const __m128i low2 = _mm_set1_epi8(3);
    const ptrdiff_t bytes = cols / 4;
    for (int m = 0; m < rows; m += 4) {
        const int left = rows - m < 4 ? rows - m : 4;
        const struct bnc_rows r4 = bnc_rows_from(w, bytes, m, rows);
        if (n == 1) {
            bnc_store_rows_i2_k256_sse41(acc + m,
                                         _mm_sub_epi32(bnc_four_rows_i2_k256_sse41(&r4, x->q, cols),
                                                       _mm_set1_epi32(x->sum[0])),
                                         left);
            continue;
        }
        for (int i = 0; i < n; i++)
            for (int r = 0; r < left; r++)
                acc[i * rows + m + r] = -x->sum[i];
        for (int first = 0; first < cols; first += CHUNK) {
            __m128i codes[4][CHUNK / 16];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            for (int r = 0; r < 4; r++)
                for (int k = 0; k < count; k += BNC_I2_K256_COLS)
                    for (int v = 0; v < 4; v++) {
                        const __m128i c =
                            bnc_load_i2_k256_sse41(r4.at[r] + (first + k) / 4 + 16 * v);
                        __m128i *to = codes[r] + k / 16 + v;
                        to[0] = _mm_and_si128(_mm_srli_epi16(c, 6), low2);
                        to[4] = _mm_and_si128(_mm_srli_epi16(c, 4), low2);
                        to[8] = _mm_and_si128(_mm_srli_epi16(c, 2), low2);
                        to[12] = _mm_and_si128(c, low2);
                    }
            int i = 0;
            for (; i + 2 <= n; i += 2)
                bnc_tile_i2_k256_sse41(acc + i * rows + m, rows, codes,
                                       x->q + i * (ptrdiff_t)x->stride + first, x->stride, 2, left,
                                       count);
            if (i < n)
                bnc_tile_i2_k256_sse41(acc + i * rows + m, rows, codes,
                                       x->q + i * (ptrdiff_t)x->stride + first, x->stride, 1, left,
                                       count);
        }
    }
}

#endif
