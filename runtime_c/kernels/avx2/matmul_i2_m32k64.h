/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX2, layout i2_m32k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * The codes at bits 2j of a register are 8 rows of four neighbouring columns, four bytes a row.
 * vpmaddubsw multiplies them by four activations that are the same for all rows and adds
 * neighbours, vpmaddwd with ones adds the two halves of a row: a sum stays in its row's lane.
 *
 * For one token a register is shifted once: codes at bits 0 and 1 of a nibble are taken as they
 * are, those at bits 2 and 3 are masked where they lie, which makes their sums four times too
 * large; they are multiples of four and are shifted at the end.
 * Bounds: in int16 a code's pair adds at most 508, 2032 where it counts fourfold: sixteen of them
 * (128 columns) are 32512. In int32 the fourfold sums are at most 4 * 254 a column: they last for
 * 2,113,664 columns, the planner's limit is lower. */
#ifndef BNC_MATMUL_I2_M32K64_AVX2_H
#define BNC_MATMUL_I2_M32K64_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"

_Static_assert(BNC_I2_M32K64_ROWS == 32 && BNC_I2_M32K64_COLS == 64, "unrolled by hand");

BNC_INLINE __m256i bnc_load_i2_m32k64_avx2(const void *at)
{
    return _mm256_loadu_si256(at);
}

/* Four activations in every lane. */
BNC_INLINE __m256i bnc_four_avx2(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

enum { BNC_M32K64_AVX2_CHUNK = 256 }; /* columns of several tokens summed in int16 */
_Static_assert(BNC_TURN / 8 <= 128, "int16 sums of one token");

/* sum[32 rows] += codes * q of one token and `count` <= BNC_TURN / 8 columns. */
BNC_KERNEL void bnc_group_i2_m32k64_avx2(int32_t *sum, const uint8_t *w, const int8_t *q, int count,
                                         ptrdiff_t ahead)
{
    const __m256i low2 = _mm256_set1_epi8(0x03), next2 = _mm256_set1_epi8(0x0c);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i once[4], fourfold[4];
    for (int r = 0; r < 4; r++)
        once[r] = fourfold[r] = _mm256_setzero_si256();
    for (int k = 0; k < count; k += 16, w += 128) {
        const __m256i x0 = bnc_four_avx2(q + k + 12), x1 = bnc_four_avx2(q + k + 8);
        const __m256i x2 = bnc_four_avx2(q + k + 4), x3 = bnc_four_avx2(q + k);
        bnc_prefetch(w + ahead);
        bnc_prefetch(w + ahead + 64);
        for (int r = 0; r < 4; r++) {
            const __m256i c = bnc_load_i2_m32k64_avx2(w + 32 * r);
            const __m256i h = _mm256_srli_epi16(c, 4);
            const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(c, low2), x0);
            const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(c, next2), x1);
            const __m256i d = _mm256_maddubs_epi16(_mm256_and_si256(h, low2), x2);
            const __m256i e = _mm256_maddubs_epi16(_mm256_and_si256(h, next2), x3);
            once[r] = _mm256_add_epi16(once[r], _mm256_add_epi16(a, d));
            fourfold[r] = _mm256_add_epi16(fourfold[r], _mm256_add_epi16(b, e));
        }
    }
    for (int r = 0; r < 4; r++) {
        __m256i *to = (__m256i *)(void *)(sum + 8 * r);
        const __m256i four = _mm256_srai_epi32(_mm256_madd_epi16(fourfold[r], ones), 2);
        const __m256i both = _mm256_add_epi32(_mm256_madd_epi16(once[r], ones), four);
        _mm256_storeu_si256(to, _mm256_add_epi32(bnc_load_i2_m32k64_avx2(to), both));
    }
}

/* acc of 32 rows and `tokens` <= 2 tokens += codes * q over `cols` columns, 256 at most of codes up
 * to 2: 64 pairs of at most 508 stay in int16. tokens is constant once inlined.
 * codes: [cols / 4][32] dwords */
BNC_INLINE void bnc_tile_i2_m32k64_avx2(int32_t *acc, int rows, const __m256i *codes,
                                        const int8_t *q, int stride, int tokens, int cols)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[2][4];
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++)
            sum[i][r] = _mm256_setzero_si256();
    for (int k = 0; k < cols; k += 4, codes += 4)
        for (int i = 0; i < tokens; i++) {
            const __m256i x = bnc_four_avx2(q + i * (ptrdiff_t)stride + k);
            for (int r = 0; r < 4; r++)
                sum[i][r] = _mm256_add_epi16(sum[i][r], _mm256_maddubs_epi16(codes[r], x));
        }
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < 4; r++) {
            __m256i *to = (__m256i *)(void *)(acc + i * rows + 8 * r);
            _mm256_storeu_si256(to, _mm256_add_epi32(bnc_load_i2_m32k64_avx2(to),
                                                     _mm256_madd_epi16(sum[i][r], ones)));
        }
}

/* The codes of `cols` columns and 32 rows as [cols / 4][four] registers. */
BNC_KERNEL void bnc_unpack_i2_m32k64_avx2(__m256i *to, const uint8_t *w, int cols)
{
    const __m256i low2 = _mm256_set1_epi8(3);
    for (int k = 0; k < cols; k += 16, to += 16)
        for (int r = 0; r < 4; r++, w += 32) {
            const __m256i v = bnc_load_i2_m32k64_avx2(w);
            to[r] = _mm256_and_si256(_mm256_srli_epi16(v, 6), low2);
            to[r + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low2);
            to[r + 8] = _mm256_and_si256(_mm256_srli_epi16(v, 2), low2);
            to[r + 12] = _mm256_and_si256(v, low2);
        }
}

/* acc = codes * q - zero * sum of q of several tokens: 32 rows of `chunk` columns, 256 at most, are
 * unpacked to bytes once (8 KB, stays in L1). per: columns of a row in a byte; chunk, per and zero
 * are constant once inlined */
BNC_INLINE void bnc_many_m32k64_avx2(void (*unpack)(__m256i *to, const uint8_t *w, int cols),
                                     int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, int rows, int cols, int n, int chunk,
                                     int per, int zero)
{
    enum { ROWS = BNC_I2_M32K64_ROWS };
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -zero * x->sum[i];
    for (int m = 0; m < rows; m += ROWS)
        for (int first = 0; first < cols; first += chunk) {
            __m256i codes[BNC_M32K64_AVX2_CHUNK];
            const int count = cols - first < chunk ? cols - first : chunk;
            const int8_t *q = x->q + first;
            unpack(codes, w, count);
            w += count * ROWS / per;
            int i = 0;
            for (; i + 2 <= n; i += 2)
                bnc_tile_i2_m32k64_avx2(acc + i * rows + m, rows, codes,
                                        q + i * (ptrdiff_t)x->stride, x->stride, 2, count);
            if (i < n)
                bnc_tile_i2_m32k64_avx2(acc + i * rows + m, rows, codes,
                                        q + i * (ptrdiff_t)x->stride, x->stride, 1, count);
        }
}

BNC_KERNEL void bnc_matmul_i2_m32k64_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1)
        bnc_take_turns(bnc_group_i2_m32k64_avx2, acc, w, x->q, x->sum[0], rows, cols, 4);
    else
        bnc_many_m32k64_avx2(bnc_unpack_i2_m32k64_avx2, acc, w, x, rows, cols, n,
                             BNC_M32K64_AVX2_CHUNK, 4, 1);
}

#endif
