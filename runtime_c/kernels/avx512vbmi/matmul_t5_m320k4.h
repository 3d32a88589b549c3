/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VBMI and VNNI, layout t5_m320k4: a column of 320 rows is one
 * register, and for one token the columns whose activation is zero are not read.
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

/* acc[320] = 320 rows and one token. */
BNC_INLINE void bnc_matvec_t5_m320k4_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int cols,
                                                const struct bnc_tables_t5_avx512vbmi *tables)
{
    enum { AHEAD = 32, CHUNK = BNC_I2_M256K4_CHUNK }; /* columns of the list fetched ahead */
    struct bnc_columns_i2_m256k4 list;
    __m512i sum[5][4]; /* [code][register]: rows 64 code + 16 register .. */
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 4; r++)
            sum[s][r] = _mm512_setzero_si512();
    for (int first = 0; first < cols; first += CHUNK) {
        const int left = cols - first;
        const int count = bnc_list_i2_m256k4(&list, q + first, left < CHUNK ? left : CHUNK);
        const uint8_t *at = w + 64 * (ptrdiff_t)first;
        for (int i = 0; i < count; i += 4) {
            const int32_t *k = list.column + i;
            const __m512i x = bnc_four_avx512vnni(list.q + i);
            __m512i bytes[4];
            if (i + AHEAD < count)
                for (int j = 0; j < 4; j++)
                    _mm_prefetch((const char *)at + 64 * k[AHEAD + j], _MM_HINT_T0);
            bnc_interleave_i2_m256k4(
                bytes, _mm512_loadu_si512(at + 64 * k[0]), _mm512_loadu_si512(at + 64 * k[1]),
                _mm512_loadu_si512(at + 64 * k[2]), _mm512_loadu_si512(at + 64 * k[3]));
            for (int r = 0; r < 4; r++) {
                __m512i code[5];
                bnc_unpack_t5_avx512vbmi(code, bytes[r], tables);
                for (int s = 0; s < 5; s++)
                    sum[s][r] = _mm512_dpbusd_epi32(sum[s][r], code[s], x);
            }
        }
    }
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 4; r++)
            _mm512_storeu_si512(acc + 64 * s + 16 * r,
                                _mm512_sub_epi32(sum[s][r], _mm512_set1_epi32(sum_q)));
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
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    if (n == 1) {
        for (int m = 0; m < rows; m += BNC_T5_M320K4_ROWS, w += 64 * (ptrdiff_t)cols)
            bnc_matvec_t5_m320k4_avx512vbmi(acc + m, w, x->q, x->sum[0], cols, &tables);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    bnc_add_slices_avx512vnni(bnc_unpack_t5_m320k4, 10, acc, w, x, rows, cols, n, 0);
}

#endif
