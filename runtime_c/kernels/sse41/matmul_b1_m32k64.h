/* SPDX-License-Identifier: MIT */
/* Matmul of signs for SSE4.1, layout b1_m32k64.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * Bits j of a register are four rows of four neighbouring columns, four bytes a row, as the codes
 * of i2_m32k64. For one token two bits are taken from each of four shifts: those at bit 0 as they
 * are, those at bit 1 masked where they lie, which is the 2 of the formula. With several tokens a
 * bit is unpacked to a code 0 or 2, and a sign is that code less one, as a trit is.
 * Bounds: in int16 a pair adds at most 254, 508 where it counts twice: four of them for 32 columns,
 * so that 512 columns are 32512. So are 512 columns of codes. int32 lasts for 8.4 million columns.
 */
#ifndef BNC_MATMUL_B1_M32K64_SSE41_H
#define BNC_MATMUL_B1_M32K64_SSE41_H

#include <smmintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_B1_M32K64_ROWS == 32 && BNC_B1_M32K64_COLS == 64, "unrolled by hand");

enum { BNC_B1_M32K64_SSE41_CHUNK = BNC_M32K64_SSE41_MANY }; /* columns summed in int16 */
_Static_assert(BNC_B1_M32K64_SSE41_CHUNK / 32 * 4 * 508 <= 32767, "int16 lanes");

/* Four columns at bit 1 of 16 rows, and then four at bit 0. */
BNC_INLINE void bnc_two_bits_sse41(__m128i once[4], __m128i twofold[4], const __m128i c[4],
                                   const int8_t *q)
{
    const __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)q);
    const __m128i x1 = _mm_shuffle_epi32(x, 0x00), x0 = _mm_shuffle_epi32(x, 0x55);
    for (int r = 0; r < 4; r++) {
        const __m128i c1 = _mm_and_si128(_mm_set1_epi8(2), c[r]);
        twofold[r] = _mm_add_epi16(twofold[r], _mm_maddubs_epi16(c1, x1));
    }
    for (int r = 0; r < 4; r++) {
        const __m128i c0 = _mm_and_si128(_mm_set1_epi8(1), c[r]);
        once[r] = _mm_add_epi16(once[r], _mm_maddubs_epi16(c0, x0));
    }
}

BNC_INLINE void bnc_next_bits_sse41(__m128i c[4])
{
    for (int r = 0; r < 4; r++) {
        c[r] = _mm_srli_epi16(c[r], 2);
        __asm__("" : "+x"(c[r])); /* or Clang would shift copies of what was loaded */
    }
}

/* One token, 16 rows of `cols` columns: acc += 2 * bit * q. */
BNC_INLINE void bnc_half_b1_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                         const int8_t *restrict q, int cols)
{
    enum { AHEAD = 4096 };
    __m128i once[4], twofold[4];
    for (int r = 0; r < 4; r++)
        once[r] = twofold[r] = _mm_setzero_si128();
    for (int k = 0; k < cols; k += 32, w += 128) {
        __m128i c[4];
        _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
        for (int r = 0; r < 4; r++)
            c[r] = _mm_loadu_si128((const __m128i *)(const void *)(w + 16 * r));
        bnc_two_bits_sse41(once, twofold, c, q + k + 24);
        bnc_next_bits_sse41(c);
        bnc_two_bits_sse41(once, twofold, c, q + k + 16);
        bnc_next_bits_sse41(c);
        bnc_two_bits_sse41(once, twofold, c, q + k + 8);
        bnc_next_bits_sse41(c);
        bnc_two_bits_sse41(once, twofold, c, q + k);
    }
    for (int r = 0; r < 4; r++) {
        __m128i *to = (__m128i *)(void *)(acc + 4 * r);
        const __m128i both = _mm_add_epi32(_mm_madd_epi16(once[r], _mm_set1_epi16(2)),
                                           _mm_madd_epi16(twofold[r], _mm_set1_epi16(1)));
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), both));
    }
}

/* Several tokens, 16 rows of `cols` columns: unpacked to codes 0 and 2 once (8 KB, stays in L1).
 * Words of neighbouring planes are brought together first. */
BNC_FRAME void bnc_halves_b1_m32k64_sse41(int32_t *restrict acc, int rows,
                                          const uint8_t *restrict w, const int8_t *restrict q,
                                          int stride, int cols, int n)
{
    const __m128i bit1 = _mm_set1_epi8(2);
    const int count = cols / 8;
    __m128i codes[BNC_M32K64_SSE41_MANY / 8][8]; /* [eight columns][two rows] */
    for (int v = 0; v < count; v += 4, w += 128)
        for (int r = 0; r < 4; r++) {
            const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(w + 16 * r));
            const __m128i next = _mm_add_epi8(c, c);
            __m128i a = _mm_unpacklo_epi32(c, next), b = _mm_unpackhi_epi32(c, next);
            for (int j = 3; j >= 0; j--) {
                codes[v + j][2 * r] = _mm_and_si128(a, bit1);
                codes[v + j][2 * r + 1] = _mm_and_si128(b, bit1);
                a = _mm_srli_epi16(a, 2);
                b = _mm_srli_epi16(b, 2);
            }
        }
    bnc_tokens_m32k64_sse41(acc, rows, codes, q, stride, count, n);
}

BNC_KERNEL void bnc_matmul_b1_m32k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                           const struct bnc_acts *x, int rows, int cols, int n)
{
    const int chunk = BNC_B1_M32K64_SSE41_CHUNK;
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -x->sum[i];
    for (int m = 0; m < rows; m += BNC_B1_M32K64_ROWS)
        for (int first = 0; first < cols; first += chunk) {
            const int left = cols - first, count = left < chunk ? left : chunk;
            for (int half = 0; half < 2; half++) {
                int32_t *at = acc + m + 16 * half;
                if (n == 1)
                    bnc_half_b1_m32k64_sse41(at, w + 64 * half, x->q + first, count);
                else
                    bnc_halves_b1_m32k64_sse41(at, rows, w + 64 * half, x->q + first, x->stride,
                                               count, n);
            }
            w += 4 * count; /* 32 rows, eight signs a byte */
        }
}

#endif
