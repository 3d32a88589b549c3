/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VNNI, layout i2_k256: rows are contiguous, so that of one token
 * chosen rows can be computed and the others are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * For one token the codes of a byte are masked where they lie: those at bits 2j are summed 4^j
 * times too large; the sums are multiples of 4^j and are shifted before lanes are added.
 * For several tokens the words of sixteen rows are exchanged, which makes registers of four columns
 * of sixteen rows, as many.h multiplies them.
 * Bounds: |128 * q| <= 16256 a column, so int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I2_K256_AVX512VNNI_H
#define BNC_MATMUL_I2_K256_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_rows.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_K256_ROWS == 1 && BNC_I2_K256_COLS == 256, "unrolled by hand");

/* The sums of four registers of int32 lanes, in order. */
BNC_INLINE __m128i bnc_sum4_avx512vnni(const __m512i s[4])
{
    __m256i half[4];
    for (int r = 0; r < 4; r++)
        half[r] =
            _mm256_add_epi32(_mm512_castsi512_si256(s[r]), _mm512_extracti64x4_epi64(s[r], 1));
    const __m256i sum =
        _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

/* The sums of four rows and one token. */
BNC_INLINE __m128i bnc_four_rows_i2_k256_avx512vnni(const struct bnc_rows *w, const int8_t *q,
                                                    int cols)
{
    const __m512i mask[4] = { _mm512_set1_epi8((char)0xc0), _mm512_set1_epi8(0x30),
                              _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x03) };
    __m512i plane[4][4]; /* [plane, high bits first][row] */
    for (int p = 0; p < 4; p++)
        for (int r = 0; r < 4; r++)
            plane[p][r] = _mm512_setzero_si512();
    for (int k = 0; k < cols; k += BNC_I2_K256_COLS) {
        __m512i x[4];
        for (int p = 0; p < 4; p++)
            x[p] = _mm512_loadu_si512(q + k + 64 * p);
        for (int r = 0; r < 4; r++) {
            const __m512i c = _mm512_loadu_si512(w->at[r] + k / 4);
            _mm_prefetch((const char *)w->next[r] + k / 4, _MM_HINT_T1);
            for (int p = 0; p < 4; p++)
                plane[p][r] = _mm512_dpbusd_epi32(plane[p][r], _mm512_and_si512(c, mask[p]), x[p]);
        }
    }
    __m512i sum[4];
    for (int r = 0; r < 4; r++) {
        const __m512i high =
            _mm512_add_epi32(_mm512_srai_epi32(plane[0][r], 6), _mm512_srai_epi32(plane[1][r], 4));
        sum[r] = _mm512_add_epi32(_mm512_add_epi32(plane[3][r], _mm512_srai_epi32(plane[2][r], 2)),
                                  high);
    }
    return bnc_sum4_avx512vnni(sum);
}

/* acc[i] = row row[i] and one token, i < count. The rows up to row[listed - 1] are fetched ahead.
 */
BNC_KERNEL void bnc_rows_i2_k256_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, const int32_t *row, int count,
                                            int listed, int cols)
{
    const ptrdiff_t bytes = cols / 4;
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows r4 = bnc_rows_listed(w, bytes, row, i, count, listed);
        const __m128i sum = _mm_sub_epi32(bnc_four_rows_i2_k256_avx512vnni(&r4, x->q, cols),
                                          _mm_set1_epi32(x->sum[0]));
        _mm_mask_storeu_epi32(acc + i, (__mmask8)(count - i < 4 ? (1 << (count - i)) - 1 : 15),
                              sum);
    }
}

/* The words of sixteen rows exchanged: word r of to[d] is word d of from[r]. */
BNC_INLINE void bnc_exchange_i2_k256(__m512i to[16], const __m512i from[16])
{
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(from[i], from[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(from[i], from[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) { /* b[i + w]: words w of rows i .. i + 3 in each lane */
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
        }
    for (int v = 0; v < 4; v++) {
        const __m512i low0 = _mm512_shuffle_i32x4(b[v], b[4 + v], 0x44);
        const __m512i high0 = _mm512_shuffle_i32x4(b[v], b[4 + v], 0xee);
        const __m512i low1 = _mm512_shuffle_i32x4(b[8 + v], b[12 + v], 0x44);
        const __m512i high1 = _mm512_shuffle_i32x4(b[8 + v], b[12 + v], 0xee);
        to[v] = _mm512_shuffle_i32x4(low0, low1, 0x88);
        to[4 + v] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
        to[8 + v] = _mm512_shuffle_i32x4(high0, high1, 0x88);
        to[12 + v] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
    }
}

/* The codes of sixteen rows, `bytes` apart, and 256 columns: to[step * i] has columns 4 i .. 4 i +
 * 3 of all rows. step is constant once inlined. */
BNC_INLINE void bnc_unpack_i2_k256(__m512i *to, int step, const uint8_t *w, ptrdiff_t bytes)
{
    const __m512i low2 = _mm512_set1_epi8(3);
    __m512i row[16], word[16];
    for (int r = 0; r < 16; r++)
        row[r] = _mm512_loadu_si512(w + r * bytes);
    bnc_exchange_i2_k256(word, row);
    for (int d = 0; d < 16; d++) {
        to[step * d] = _mm512_and_si512(_mm512_srli_epi16(word[d], 6), low2);
        to[step * (16 + d)] = _mm512_and_si512(_mm512_srli_epi16(word[d], 4), low2);
        to[step * (32 + d)] = _mm512_and_si512(_mm512_srli_epi16(word[d], 2), low2);
        to[step * (48 + d)] = _mm512_and_si512(word[d], low2);
    }
}

/* Rows from `first` on for one token after the other: all rows of one token, and what is left of
 * them behind groups of 32 for several. */
BNC_INLINE void bnc_each_i2_k256_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int first, int rows, int cols,
                                            int n)
{
    const ptrdiff_t bytes = cols / 4;
    for (int i = 0; i < n; i++)
        for (int m = first; m < rows; m += 4) {
            const struct bnc_rows r4 = bnc_rows_from(w, bytes, m, rows);
            const __m128i sum = _mm_sub_epi32(
                bnc_four_rows_i2_k256_avx512vnni(&r4, x->q + i * (ptrdiff_t)x->stride, cols),
                _mm_set1_epi32(x->sum[i]));
            _mm_mask_storeu_epi32(acc + i * rows + m,
                                  (__mmask8)(rows - m < 4 ? (1 << (rows - m)) - 1 : 15), sum);
        }
}

/* The codes of 32 rows: bnc_unpack_avx512vnni. */
BNC_KERNEL void bnc_unpack_rows_i2_k256(__m512i *to, int step, const uint8_t *w, int first,
                                        int count, int cols)
{
    const ptrdiff_t bytes = cols / 4;
    for (int k = 0; k < count; k += BNC_I2_K256_COLS)
        for (int h = 0; h < 2; h++)
            bnc_unpack_i2_k256(to + k / 4 * step + h, step, w + bytes * 16 * h + (first + k) / 4,
                               bytes);
}

BNC_KERNEL void bnc_matmul_i2_k256_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                              const struct bnc_acts *x, int rows, int cols, int n)
{
    const int whole = n == 1 ? 0 : rows / BNC_VNNI_ROWS * BNC_VNNI_ROWS;
    if (whole)
        bnc_many_avx512vnni(bnc_unpack_rows_i2_k256, 512, 4, 1, acc, w, x, rows, cols, n);
    bnc_each_i2_k256_avx512vnni(acc, w, x, whole, rows, cols, n);
}

#endif
