/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VBMI and VNNI, layout t5_m32k80: 1.6 bits a trit.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * A byte is 8 * high + low, or 216 + high where low would be 8 (bitnetc/layout.py: Code), so
 *
 *     high = min(byte >> 3, (byte + 40) mod 256)         of three trits, 0 .. 26
 *     low  = byte & 7, or 8 from 216 on                  of two trits, 0 .. 8
 *
 * 216 + 40 = 256: the sum wraps where it is high, and is the larger one elsewhere. VPERMB looks all
 * 64 bytes of a register up at once, by the low six bits of an index: high is such an index, and so
 * is the byte itself in a table that repeats its eight entries; where low is 8, a mask leaves
 * the code 2 of both trits. A register holds four columns of sixteen rows, as in i2_m32k64, for
 * five such columns.
 * Bounds: |code * q| <= 254 a column: int32 lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_T5_M32K80_AVX512VBMI_H
#define BNC_MATMUL_T5_M32K80_AVX512VBMI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "../avx512vnni/matmul_i2_m32k64.h"

_Static_assert(BNC_T5_M32K80_ROWS == 32 && BNC_T5_M32K80_COLS == 80, "unrolled by hand");

/* Codes of the five trits of a byte: of three by high, of two by low. */
struct bnc_tables_t5_avx512vbmi {
    __m512i code[5];
};

BNC_INLINE struct bnc_tables_t5_avx512vbmi bnc_tables_t5_avx512vbmi(void)
{
    static const uint8_t high[3][32] = {
        { 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2 },
        { 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2 },
        { 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2 },
    };
    static const uint8_t low[2][8] = { { 0, 0, 0, 1, 1, 1, 2, 2 }, { 0, 1, 2, 0, 1, 2, 0, 1 } };
    struct bnc_tables_t5_avx512vbmi tables;
    for (int i = 0; i < 3; i++)
        tables.code[i] = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)high[i]));
    for (int i = 0; i < 2; i++) {
        int64_t eight;
        memcpy(&eight, low[i], sizeof eight);
        tables.code[3 + i] = _mm512_set1_epi64(eight);
    }
    return tables;
}

/* `high` of 64 bytes. */
BNC_INLINE __m512i bnc_high_t5_avx512vbmi(__m512i byte)
{
    const __m512i shifted = _mm512_and_si512(_mm512_srli_epi16(byte, 3), _mm512_set1_epi8(31));
    return _mm512_min_epu8(shifted, _mm512_add_epi8(byte, _mm512_set1_epi8(40)));
}

/* The fourth or the fifth code of 64 bytes. */
BNC_INLINE __m512i bnc_low_code_t5_avx512vbmi(__m512i byte, __m512i table)
{
    const __mmask64 below = _mm512_cmplt_epu8_mask(byte, _mm512_set1_epi8((char)216));
    return _mm512_mask_permutexvar_epi8(_mm512_set1_epi8(2), below, byte, table);
}

/* The codes of 64 bytes: code[i] has the i-th of each. */
BNC_INLINE void bnc_unpack_t5_avx512vbmi(__m512i code[5], __m512i byte,
                                         const struct bnc_tables_t5_avx512vbmi *tables)
{
    const __m512i high = bnc_high_t5_avx512vbmi(byte);
    for (int i = 0; i < 3; i++)
        code[i] = _mm512_permutexvar_epi8(high, tables->code[i]);
    for (int i = 3; i < 5; i++)
        code[i] = bnc_low_code_t5_avx512vbmi(byte, tables->code[i]);
}

/* acc of `streams` times 32 rows and one token; streams <= BNC_STREAMS is constant once inlined. */
BNC_KERNEL void bnc_streams_t5_m32k80_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                                 const int8_t *restrict q, int32_t sum_q,
                                                 int streams, int cols)
{
    enum { ROWS = BNC_T5_M32K80_ROWS };
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    const ptrdiff_t bytes = ROWS * (ptrdiff_t)cols / 5; /* of a stream */
    __m512i sum[BNC_STREAMS][2];                        /* [stream][half of its rows] */
    for (int s = 0; s < streams; s++)
        sum[s][0] = sum[s][1] = _mm512_setzero_si512();
    for (int k = 0; k < cols; k += 20) {
        const ptrdiff_t at = k / 5 * (ptrdiff_t)ROWS, ahead = at + bnc_ahead(at, bytes, streams);
        for (int s = 0; s < streams; s++) {
            bnc_prefetch(w + s * bytes + ahead);
            bnc_prefetch(w + s * bytes + ahead + 64);
            for (int h = 0; h < 2; h++) {
                __m512i code[5];
                bnc_unpack_t5_avx512vbmi(code, _mm512_loadu_si512(w + s * bytes + at + 64 * h),
                                         &tables);
                for (int i = 0; i < 5; i++)
                    sum[s][h] =
                        _mm512_dpbusd_epi32(sum[s][h], code[i], bnc_four_avx512vnni(q + k + 4 * i));
            }
        }
    }
    for (int s = 0; s < streams; s++)
        for (int h = 0; h < 2; h++)
            _mm512_storeu_si512(acc + ROWS * s + 16 * h,
                                _mm512_sub_epi32(sum[s][h], _mm512_set1_epi32(sum_q)));
}

/* One token: bound by memory. */
BNC_INLINE void bnc_matvec_t5_m32k80_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                                const int8_t *restrict q, int32_t sum_q, int rows,
                                                int cols)
{
    bnc_in_streams(bnc_streams_t5_m32k80_avx512vbmi, acc, w, q, sum_q, rows, cols, 5);
}

/* The codes of 32 rows: bnc_unpack_avx512vnni. */
BNC_KERNEL void bnc_unpack_t5_m32k80(__m512i *to, int step, const uint8_t *w, int first, int count,
                                     int cols)
{
    const struct bnc_tables_t5_avx512vbmi tables = bnc_tables_t5_avx512vbmi();
    (void)cols;
    w += 32 * (ptrdiff_t)(first / 5);
    for (int v = 0; v < count / 4; v += 5, to += 5 * step)
        for (int h = 0; h < 2; h++, w += 64) {
            __m512i code[5];
            bnc_unpack_t5_avx512vbmi(code, _mm512_loadu_si512(w), &tables);
            for (int i = 0; i < 5; i++)
                to[step * i + h] = code[i];
        }
}

BNC_KERNEL void bnc_matmul_t5_m32k80_avx512vbmi(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_matvec_t5_m32k80_avx512vbmi(acc, w, x->q, x->sum[0], rows, cols);
    else
        bnc_many_avx512vnni(bnc_unpack_t5_m32k80, 480, 5, 1, acc, w, x, rows, cols, n);
}

#endif
