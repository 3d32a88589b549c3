/* SPDX-License-Identifier: MIT */
/* Matmul of 6-bit integers for AVX-512 with VNNI, layout i6_m16k16.
 *
 *     sum over k of (code - 32) * q = sum of code * q - 32 * sum of q,   code = value + 32
 *
 * Three of four codes are the lower six bits of a byte. The fourth is put together in the upper
 * six, so that it is four times too large; its products have a sum of their own, a multiple of
 * four. Bounds: |252 * q| <= 32004 of one column in four: int32 lasts for 268,401 columns. */
#ifndef BNC_MATMUL_I6_M16K16_AVX512VNNI_H
#define BNC_MATMUL_I6_M16K16_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I6_M16K16_ROWS == 16 && BNC_I6_M16K16_COLS == 16, "unrolled by hand");

/* The codes of sixteen rows and four times four columns, the last ones times four. Words are
 * shifted instead of bytes; of what comes over from the neighbour nothing is left by the masks. */
BNC_INLINE void bnc_codes_i6_m16k16_avx512vnni(__m512i code[4], const uint8_t *w)
{
    enum { C_PICKS_A_OR_B = 0xe4, A_AND_C_OR_B = 0xec };
    const __m512i low6 = _mm512_set1_epi8(0x3f), middle2 = _mm512_set1_epi8(0x0c);
    const __m512i high2 = _mm512_set1_epi8((char)0xc0), high4 = _mm512_set1_epi8((char)0xf0);
    const __m512i a = _mm512_loadu_si512(w), b = _mm512_loadu_si512(w + 64);
    const __m512i c = _mm512_loadu_si512(w + 128);
    const __m512i bits23 = _mm512_and_si512(_mm512_srli_epi16(a, 4), middle2);
    const __m512i bits4567 =
        _mm512_ternarylogic_epi32(c, _mm512_srli_epi16(b, 2), high2, C_PICKS_A_OR_B);
    code[0] = _mm512_and_si512(a, low6);
    code[1] = _mm512_and_si512(b, low6);
    code[2] = _mm512_and_si512(c, low6);
    code[3] = _mm512_ternarylogic_epi32(bits4567, bits23, high4, A_AND_C_OR_B);
}

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. */
BNC_INLINE void bnc_rows_i6_m16k16_avx512vnni(int32_t *acc, int rows, const uint8_t *w,
                                              const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    __m512i once[4], fourfold[4];
    for (int t = 0; t < tokens; t++) {
        once[t] = _mm512_set1_epi32(-32 * x->sum[i + t]);
        fourfold[t] = _mm512_setzero_si512();
    }
    for (int k = 0; k < cols; k += 16, w += 192) {
        __m512i code[4];
        for (int line = 0; line < 192; line += 64)
            bnc_prefetch(w + BNC_AHEAD + line);
        bnc_codes_i6_m16k16_avx512vnni(code, w);
        for (int t = 0; t < tokens; t++) {
            const int8_t *at = q + t * (ptrdiff_t)x->stride + k;
            once[t] = _mm512_dpbusd_epi32(once[t], code[0], bnc_four_avx512vnni(at));
            once[t] = _mm512_dpbusd_epi32(once[t], code[1], bnc_four_avx512vnni(at + 4));
            once[t] = _mm512_dpbusd_epi32(once[t], code[2], bnc_four_avx512vnni(at + 8));
            fourfold[t] = _mm512_dpbusd_epi32(fourfold[t], code[3], bnc_four_avx512vnni(at + 12));
        }
    }
    for (int t = 0; t < tokens; t++)
        _mm512_storeu_si512(acc + t * rows,
                            _mm512_add_epi32(once[t], _mm512_srai_epi32(fourfold[t], 2)));
}

/* acc of BNC_STREAMS times 16 rows and one token. */
BNC_INLINE void bnc_streams_i6_m16k16_avx512vnni(int32_t *acc, const uint8_t *w,
                                                 const struct bnc_acts *x, int cols)
{
    const ptrdiff_t bytes = 12 * (ptrdiff_t)cols; /* of a stream */
    __m512i once[BNC_STREAMS], fourfold[BNC_STREAMS];
    for (int s = 0; s < BNC_STREAMS; s++) {
        once[s] = _mm512_set1_epi32(-32 * x->sum[0]);
        fourfold[s] = _mm512_setzero_si512();
    }
    for (int k = 0; k < cols; k += 16) {
        const __m512i x0 = bnc_four_avx512vnni(x->q + k), x1 = bnc_four_avx512vnni(x->q + k + 4);
        const __m512i x2 = bnc_four_avx512vnni(x->q + k + 8);
        const __m512i x3 = bnc_four_avx512vnni(x->q + k + 12);
        const ptrdiff_t at = 12 * (ptrdiff_t)k, ahead = at + bnc_ahead(at, bytes, BNC_STREAMS);
        for (int s = 0; s < BNC_STREAMS; s++) {
            __m512i code[4];
            for (int line = 0; line < 192; line += 64)
                bnc_prefetch(w + s * bytes + ahead + line);
            bnc_codes_i6_m16k16_avx512vnni(code, w + s * bytes + at);
            once[s] = _mm512_dpbusd_epi32(once[s], code[0], x0);
            once[s] = _mm512_dpbusd_epi32(once[s], code[1], x1);
            once[s] = _mm512_dpbusd_epi32(once[s], code[2], x2);
            fourfold[s] = _mm512_dpbusd_epi32(fourfold[s], code[3], x3);
        }
    }
    for (int s = 0; s < BNC_STREAMS; s++)
        _mm512_storeu_si512(acc + BNC_I6_M16K16_ROWS * s,
                            _mm512_add_epi32(once[s], _mm512_srai_epi32(fourfold[s], 2)));
}

BNC_KERNEL void bnc_matmul_i6_m16k16_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    int m = 0;
    for (; n == 1 && m + 16 * BNC_STREAMS <= rows; m += 16 * BNC_STREAMS)
        bnc_streams_i6_m16k16_avx512vnni(acc + m, w + m / 16 * (12 * (ptrdiff_t)cols), x, cols);
    for (w += m / 16 * (12 * (ptrdiff_t)cols); m < rows; m += 16, w += 12 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i6_m16k16_avx512vnni(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i6_m16k16_avx512vnni(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
