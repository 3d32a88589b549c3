/* SPDX-License-Identifier: MIT */
/* Matmul of 4-bit integers for AVX-512 with VNNI, layout i4_m16k8.
 *
 *     sum over k of (code - 8) * q = sum of code * q - 8 * sum of q,   code = value + 8
 *
 * Bounds: |240 * q| <= 30480 a column: int32 lasts for 70,455 columns. */
#ifndef BNC_MATMUL_I4_M16K8_AVX512VNNI_H
#define BNC_MATMUL_I4_M16K8_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I4_M16K8_ROWS == 16 && BNC_I4_M16K8_COLS == 8, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. High codes
 * are masked where they lie: their sums are multiples of sixteen. */
BNC_INLINE void bnc_rows_i4_m16k8_avx512vnni(int32_t *acc, int rows, const uint8_t *w,
                                             const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    const __m512i low4 = _mm512_set1_epi8(0x0f), high4 = _mm512_set1_epi8((char)0xf0);
    __m512i low[4], high[4];
    for (int t = 0; t < tokens; t++) {
        low[t] = _mm512_set1_epi32(-8 * x->sum[i + t]);
        high[t] = _mm512_setzero_si512();
    }
    for (int k = 0; k < cols; k += 8, w += 64) {
        const __m512i c = _mm512_loadu_si512(w);
        const __m512i l = _mm512_and_si512(c, low4), h = _mm512_and_si512(c, high4);
        bnc_prefetch(w + BNC_AHEAD);
        for (int t = 0; t < tokens; t++) {
            const int8_t *at = q + t * (ptrdiff_t)x->stride + k;
            high[t] = _mm512_dpbusd_epi32(high[t], h, bnc_four_avx512vnni(at));
            low[t] = _mm512_dpbusd_epi32(low[t], l, bnc_four_avx512vnni(at + 4));
        }
    }
    for (int t = 0; t < tokens; t++)
        _mm512_storeu_si512(acc + t * rows,
                            _mm512_add_epi32(low[t], _mm512_srai_epi32(high[t], 4)));
}

/* acc of BNC_STREAMS times 16 rows and one token. */
BNC_INLINE void bnc_streams_i4_m16k8_avx512vnni(int32_t *acc, const uint8_t *w,
                                                const struct bnc_acts *x, int cols)
{
    const ptrdiff_t bytes = BNC_I4_M16K8_ROWS / 2 * (ptrdiff_t)cols; /* of a stream */
    const __m512i low4 = _mm512_set1_epi8(0x0f), high4 = _mm512_set1_epi8((char)0xf0);
    __m512i low[BNC_STREAMS], high[BNC_STREAMS];
    for (int s = 0; s < BNC_STREAMS; s++) {
        low[s] = _mm512_set1_epi32(-8 * x->sum[0]);
        high[s] = _mm512_setzero_si512();
    }
    for (int k = 0; k < cols; k += 8) {
        const __m512i x0 = bnc_four_avx512vnni(x->q + k), x1 = bnc_four_avx512vnni(x->q + k + 4);
        const ptrdiff_t at = BNC_I4_M16K8_ROWS / 2 * (ptrdiff_t)k;
        const ptrdiff_t ahead = at + bnc_ahead(at, bytes, BNC_STREAMS);
        for (int s = 0; s < BNC_STREAMS; s++) {
            const __m512i c = _mm512_loadu_si512(w + s * bytes + at);
            bnc_prefetch(w + s * bytes + ahead);
            high[s] = _mm512_dpbusd_epi32(high[s], _mm512_and_si512(c, high4), x0);
            low[s] = _mm512_dpbusd_epi32(low[s], _mm512_and_si512(c, low4), x1);
        }
    }
    for (int s = 0; s < BNC_STREAMS; s++)
        _mm512_storeu_si512(acc + BNC_I4_M16K8_ROWS * s,
                            _mm512_add_epi32(low[s], _mm512_srai_epi32(high[s], 4)));
}

BNC_KERNEL void bnc_matmul_i4_m16k8_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                               const struct bnc_acts *x, int rows, int cols, int n)
{
    int m = 0;
    for (; n == 1 && m + 16 * BNC_STREAMS <= rows; m += 16 * BNC_STREAMS)
        bnc_streams_i4_m16k8_avx512vnni(acc + m, w + m / 2 * (ptrdiff_t)cols, x, cols);
    for (w += m / 2 * (ptrdiff_t)cols; m < rows; m += 16, w += 8 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i4_m16k8_avx512vnni(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i4_m16k8_avx512vnni(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
