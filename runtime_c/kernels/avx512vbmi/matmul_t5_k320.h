/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VBMI and VNNI, layout t5_k320: 1.6 bits a trit, and rows are
 * contiguous, so that of one token chosen rows can be computed and the others are not read.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * A byte is unpacked as those of t5_m32k80; its five codes belong to columns 64 apart. For several
 * tokens the words of sixteen rows are exchanged, as those of i2_k256, which makes registers of
 * four columns of sixteen rows.
 * Bounds: |code * q| <= 254 a column: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_K320_AVX512VBMI_H
#define BNC_MATMUL_T5_K320_AVX512VBMI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_rows.h"
#include "../avx512vnni/matmul_i2_k256.h"
#include "matmul_t5_m32k80.h"

_Static_assert(BNC_T5_K320_ROWS == 1 && BNC_T5_K320_COLS == 320, "unrolled by hand");

/* The sums of four rows and one token. */
BNC_INLINE __m128i bnc_four_rows_t5_k320_avx512vbmi(const struct bnc_rows *w, const int8_t *q,
                                                    int cols,
                                                    const struct bnc_tables_t5_avx512vbmi *tables)
{
    __m512i sum[4];
    for (int r = 0; r < 4; r++)
        sum[r] = _mm512_setzero_si512();
    for (int k = 0; k < cols; k += BNC_T5_K320_COLS) {
        __m512i x[5];
        for (int p = 0; p < 5; p++)
            x[p] = _mm512_loadu_si512(q + k + 64 * p);
        for (int r = 0; r < 4; r++) {
            __m512i code[5];
            bnc_unpack_t5_avx512vbmi(code, _mm512_loadu_si512(w->at[r] + k / 5), tables);
            _mm_prefetch((const char *)w->next[r] + k / 5, _MM_HINT_T1);
            for (int p = 0; p < 5; p++)
                sum[r] = _mm512_dpbusd_epi32(sum[r], code[p], x[p]);
        }
    }
    return bnc_sum4_avx512vnni(sum);
}

/* acc[i] = row row[i] and one token, i < count. The rows up to row[listed - 1] are fetched ahead.
 */
BNC_KERNEL void bnc_rows_t5_k320_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, const int32_t *row, int count,
                                            int listed, int cols)
{
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    const ptrdiff_t bytes = cols / 5;
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows r4 = bnc_rows_listed(w, bytes, row, i, count, listed);
        const __m128i sum = _mm_sub_epi32(
            bnc_four_rows_t5_k320_avx512vbmi(&r4, x->q, cols, &tables), _mm_set1_epi32(x->sum[0]));
        _mm_mask_storeu_epi32(acc + i, (__mmask8)(count - i < 4 ? (1 << (count - i)) - 1 : 15),
                              sum);
    }
}

/* The codes of sixteen rows, `bytes` apart, and 320 columns: to[step * i] has columns 4 i .. 4 i +
 * 3 of all rows. step is constant once inlined. */
BNC_INLINE void bnc_unpack_t5_k320(__m512i *to, int step, const uint8_t *w, ptrdiff_t bytes,
                                   const struct bnc_tables_t5_avx512vbmi *tables)
{
    __m512i row[16], word[16];
    for (int r = 0; r < 16; r++)
        row[r] = _mm512_loadu_si512(w + r * bytes);
    bnc_exchange_i2_k256(word, row);
    for (int d = 0; d < 16; d++) {
        __m512i code[5];
        bnc_unpack_t5_avx512vbmi(code, word[d], tables);
        for (int p = 0; p < 5; p++)
            to[step * (16 * p + d)] = code[p];
    }
}

/* Rows from `first` on for one token after the other: all rows of one token, and what is left of
 * them behind groups of 32 for several. */
BNC_INLINE void bnc_each_t5_k320_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int first, int rows, int cols,
                                            int n)
{
    const ptrdiff_t bytes = cols / 5;
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    for (int i = 0; i < n; i++)
        for (int m = first; m < rows; m += 4) {
            const struct bnc_rows r4 = bnc_rows_from(w, bytes, m, rows);
            const __m128i sum =
                _mm_sub_epi32(bnc_four_rows_t5_k320_avx512vbmi(&r4, x->q + i * (ptrdiff_t)x->stride,
                                                               cols, &tables),
                              _mm_set1_epi32(x->sum[i]));
            _mm_mask_storeu_epi32(acc + i * rows + m,
                                  (__mmask8)(rows - m < 4 ? (1 << (rows - m)) - 1 : 15), sum);
        }
}

/* The codes of 32 rows: bnc_unpack_avx512vnni. */
BNC_KERNEL void bnc_unpack_rows_t5_k320(__m512i *to, int step, const uint8_t *w, int first,
                                        int count, int cols)
{
    const ptrdiff_t bytes = cols / 5;
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    for (int k = 0; k < count; k += BNC_T5_K320_COLS)
        for (int h = 0; h < 2; h++)
            bnc_unpack_t5_k320(to + k / 4 * step + h, step, w + bytes * 16 * h + (first + k) / 5,
                               bytes, &tables);
}

BNC_KERNEL void bnc_matmul_t5_k320_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                              const struct bnc_acts *x, int rows, int cols, int n)
{
    const int whole = n == 1 ? 0 : rows / BNC_VNNI_ROWS * BNC_VNNI_ROWS;
    if (whole)
        bnc_many_avx512vnni(bnc_unpack_rows_t5_k320, 320, 5, 1, acc, w, x, rows, cols, n);
    bnc_each_t5_k320_avx512vbmi(acc, w, x, whole, rows, cols, n);
}

#endif
