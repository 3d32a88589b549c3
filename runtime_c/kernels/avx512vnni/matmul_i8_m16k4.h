/* SPDX-License-Identifier: MIT */
/* Matmul of 8-bit integers for AVX-512 with VNNI, layout i8_m16k4.
 *
 *     sum over k of (code - 128) * q = sum of code * q - 128 * sum of q,   code = value + 128
 *
 * Bounds: |255 * q| <= 32385 a column: int32 lasts for 66,311 columns. */
#ifndef BNC_MATMUL_I8_M16K4_AVX512VNNI_H
#define BNC_MATMUL_I8_M16K4_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I8_M16K4_ROWS == 16 && BNC_I8_M16K4_COLS == 4, "unrolled by hand");

/* acc of 16 rows and tokens i .. i + tokens - 1; tokens <= 4 is constant once inlined. Columns are
 * summed in two chains to hide the latency. */
BNC_INLINE void bnc_rows_i8_m16k4_avx512vnni(int32_t *acc, int rows, const uint8_t *w,
                                             const struct bnc_acts *x, int i, int tokens, int cols)
{
    const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
    __m512i even[4], odd[4];
    for (int t = 0; t < tokens; t++) {
        even[t] = _mm512_set1_epi32(-128 * x->sum[i + t]);
        odd[t] = _mm512_setzero_si512();
    }
    int k = 0;
    for (; k + 8 <= cols; k += 8, w += 128) {
        const __m512i c0 = _mm512_loadu_si512(w), c1 = _mm512_loadu_si512(w + 64);
        bnc_prefetch(w + BNC_AHEAD);
        bnc_prefetch(w + BNC_AHEAD + 64);
        for (int t = 0; t < tokens; t++) {
            const int8_t *at = q + t * (ptrdiff_t)x->stride + k;
            even[t] = _mm512_dpbusd_epi32(even[t], c0, bnc_four_avx512vnni(at));
            odd[t] = _mm512_dpbusd_epi32(odd[t], c1, bnc_four_avx512vnni(at + 4));
        }
    }
    if (k < cols) {
        const __m512i c = _mm512_loadu_si512(w);
        for (int t = 0; t < tokens; t++)
            even[t] = _mm512_dpbusd_epi32(even[t], c,
                                          bnc_four_avx512vnni(q + t * (ptrdiff_t)x->stride + k));
    }
    for (int t = 0; t < tokens; t++)
        _mm512_storeu_si512(acc + t * rows, _mm512_add_epi32(even[t], odd[t]));
}

/* acc of BNC_STREAMS times 16 rows and one token. */
BNC_INLINE void bnc_streams_i8_m16k4_avx512vnni(int32_t *acc, const uint8_t *w,
                                                const struct bnc_acts *x, int cols)
{
    const ptrdiff_t bytes = BNC_I8_M16K4_ROWS * (ptrdiff_t)cols; /* of a stream */
    __m512i sum[BNC_STREAMS];
    for (int s = 0; s < BNC_STREAMS; s++)
        sum[s] = _mm512_set1_epi32(-128 * x->sum[0]);
    for (int k = 0; k < cols; k += 4) {
        const __m512i four = bnc_four_avx512vnni(x->q + k);
        const ptrdiff_t at = BNC_I8_M16K4_ROWS * (ptrdiff_t)k;
        const ptrdiff_t ahead = at + bnc_ahead(at, bytes, BNC_STREAMS);
        for (int s = 0; s < BNC_STREAMS; s++) {
            bnc_prefetch(w + s * bytes + ahead);
            sum[s] = _mm512_dpbusd_epi32(sum[s], _mm512_loadu_si512(w + s * bytes + at), four);
        }
    }
    for (int s = 0; s < BNC_STREAMS; s++)
        _mm512_storeu_si512(acc + BNC_I8_M16K4_ROWS * s, sum[s]);
}

BNC_KERNEL void bnc_matmul_i8_m16k4_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                               const struct bnc_acts *x, int rows, int cols, int n)
{
    int m = 0;
    for (; n == 1 && m + 16 * BNC_STREAMS <= rows; m += 16 * BNC_STREAMS)
        bnc_streams_i8_m16k4_avx512vnni(acc + m, w + m * (ptrdiff_t)cols, x, cols);
    for (w += m * (ptrdiff_t)cols; m < rows; m += 16, w += 16 * (ptrdiff_t)cols) {
        int i = 0;
        for (; i + 4 <= n; i += 4)
            bnc_rows_i8_m16k4_avx512vnni(acc + i * rows + m, rows, w, x, i, 4, cols);
        for (; i < n; i++)
            bnc_rows_i8_m16k4_avx512vnni(acc + i * rows + m, rows, w, x, i, 1, cols);
    }
}

#endif
