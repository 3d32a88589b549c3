/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VBMI and VNNI, layout t5_m320k4: a column of 320 rows is one
 * register, and the columns of a token whose activation is zero are not read: of one, or where
 * several have so many that they go sooner one after the other.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Columns are listed and interleaved as those of i2_m256k4, and then unpacked as those of
 * t5_m32k80: the i-th code of a byte belongs to row 64 i and on.
 * Bounds: |code * q| <= 254 a column: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M320K4_AVX512VBMI_H
#define BNC_MATMUL_T5_M320K4_AVX512VBMI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../avx512vnni/matmul_i2_m256k4.h"
#include "matmul_t5_m32k80.h"

_Static_assert(BNC_T5_M320K4_ROWS == 320 && BNC_T5_M320K4_COLS == 4, "unrolled by hand");

/* sum[code][r] += the codes of four columns, of which `bytes` are 64 rows, * q. */
BNC_INLINE void bnc_add_64_t5_m320k4(__m512i sum[5][4], int r, __m512i bytes, __m512i x,
                                     const struct bnc_tables_t5_avx512vbmi *tables)
{
    __m512i code[5];
    bnc_unpack_t5_avx512vbmi(code, bytes, tables);
    for (int s = 0; s < 5; s++)
        sum[s][r] = _mm512_dpbusd_epi32(sum[s][r], code[s], x);
}

/* sum[code][register] += the codes of four columns * q, as bnc_add_i2_m256k4(). */
BNC_INLINE void bnc_add_t5_m320k4(__m512i sum[5][4], const struct bnc_step_avx512 *step,
                                  const struct bnc_tables_t5_avx512vbmi *tables, int fetches)
{
    __m512i bytes[4];
    bnc_interleave_i2_m256k4(bytes, _mm512_loadu_si512(step->at[0]),
                             _mm512_loadu_si512(step->at[1]), _mm512_loadu_si512(step->at[2]),
                             _mm512_loadu_si512(step->at[3]));
    bnc_fetch_quarter(step, 0, fetches);
    bnc_add_64_t5_m320k4(sum, 0, bytes[0], step->x, tables);
    bnc_fetch_quarter(step, 1, fetches);
    bnc_add_64_t5_m320k4(sum, 1, bytes[1], step->x, tables);
    bnc_fetch_quarter(step, 2, fetches);
    bnc_add_64_t5_m320k4(sum, 2, bytes[2], step->x, tables);
    bnc_fetch_quarter(step, 3, fetches);
    bnc_add_64_t5_m320k4(sum, 3, bytes[3], step->x, tables);
}

/* acc[320] += the sums. */
BNC_INLINE void bnc_store_t5_m320k4(int32_t *acc, __m512i sum[5][4])
{
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 4; r++) {
            int32_t *to = acc + 64 * s + 16 * r;
            _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), sum[s][r]));
        }
}

/* acc[320] += codes * q: 320 rows and the columns of a list. */
BNC_KERNEL void bnc_block_t5_m320k4_avx512vbmi(int32_t *acc, const uint8_t *w, const uint8_t *next,
                                               const struct bnc_columns_avx512 *list)
{
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    __m512i sum[5][4]; /* [code][register]: rows 64 code + 16 register .. */
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 4; r++)
            sum[s][r] = _mm512_setzero_si512();
    if (list->all)
        for (int i = 0; i < list->quarter; i++) {
            const struct bnc_step_avx512 step = bnc_step_of_all(list->all, w, list->quarter, i);
            bnc_add_t5_m320k4(sum, &step, &tables, 0);
        }
    else
        for (int i = 0; i < list->length; i++)
            for (int part = 0; part < list->parts; part += 4) {
                const struct bnc_step_avx512 step = bnc_step_of(list, w, next, part, i);
                bnc_add_t5_m320k4(sum, &step, &tables, 1);
            }
    bnc_store_t5_m320k4(acc, sum);
}

/* bnc_near_avx512 */
BNC_KERNEL void bnc_near_t5_m320k4_avx512vbmi(int32_t *acc, const uint8_t *w, const uint32_t *list,
                                              int count, const uint8_t *next, int lines)
{
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    __m512i sum[5][4];
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 4; r++)
            sum[s][r] = _mm512_setzero_si512();
    for (int i = 0; i < count; i += 4) {
        const struct bnc_step_avx512 step = bnc_step_near(w, list + i);
        if (lines-- > 0)
            bnc_prefetch(next + 64 * lines);
        bnc_add_t5_m320k4(sum, &step, &tables, 0);
    }
    bnc_store_t5_m320k4(acc, sum);
}

/* Several tokens, 32 rows at a time: as those of i2_m256k4. */
BNC_KERNEL void bnc_unpack_t5_m320k4(__m512i *to, ptrdiff_t half, int step, const uint8_t *w,
                                     int cols, int s)
{
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    const __m512i table = tables.code[s / 2];
    for (int k = 0; k < cols / 4; k++, w += 256, to += step) {
        __m512i bytes[2];
        bnc_interleave_half(bytes, w, s % 2);
        for (int h = 0; h < 2; h++)
            to[h * half] = s / 2 < 3
                               ? _mm512_permutexvar_epi8(bnc_high_t5_avx512vbmi(bytes[h]), table)
                               : bnc_low_code_t5_avx512vbmi(bytes[h], table);
    }
}

BNC_KERNEL void bnc_matmul_t5_m320k4_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1) {
        bnc_blocks_avx512(bnc_block_t5_m320k4_avx512vbmi, BNC_T5_M320K4_ROWS, acc, w, x->q,
                          x->sum[0], rows, cols);
        return;
    }
    enum { EACH = 22, ONCE = 280 }; /* see bnc_one_by_one() */
    if (bnc_columns_one_by_one(x, cols, n, EACH, ONCE)) {
        bnc_each_avx512(bnc_block_t5_m320k4_avx512vbmi, bnc_near_t5_m320k4_avx512vbmi,
                        BNC_T5_M320K4_ROWS, acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    bnc_add_slices_avx512vnni(bnc_unpack_t5_m320k4, 10, acc, w, x, rows, cols, n, 0);
}

#endif
