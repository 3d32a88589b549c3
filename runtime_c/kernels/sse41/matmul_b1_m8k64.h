/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for SSE4.1, layout b1_m8k64: XNOR, AND and tables.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A 64-bit lane is 64 columns of a row. Ones of a byte are looked up by its halves; psadbw adds
 * the bytes of a lane.
 * Bounds: a byte gains at most 8 from one word, and 31 words are 248. A lane's count is a row's
 * bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_SSE41_H
#define BNC_MATMUL_B1_M8K64_SSE41_H

#include <smmintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

enum { BNC_BITS_WORDS_SSE41 = 31 };

/* Ones of each byte. */
BNC_INLINE __m128i bnc_ones_sse41(__m128i v)
{
    const __m128i table = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m128i low = _mm_set1_epi8(0x0f);
    const __m128i a = _mm_shuffle_epi8(table, _mm_and_si128(v, low));
    const __m128i b = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(v, 4), low));
    return _mm_add_epi8(a, b);
}

/* acc of 8 rows and one token. */
BNC_INLINE void bnc_count_rows_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                     const uint8_t *restrict planes, int32_t nonzero, int words,
                                     int twice)
{
    enum { WORDS = BNC_BITS_WORDS_SSE41, AHEAD = 4096 };
    __m128i ones[4]; /* of two rows each */
    for (int r = 0; r < 4; r++)
        ones[r] = _mm_setzero_si128();
    for (int first = 0; first < words; first += WORDS) {
        const int last = words - first < WORDS ? words : first + WORDS;
        __m128i part[4];
        for (int r = 0; r < 4; r++)
            part[r] = _mm_setzero_si128();
        for (int j = first; j < last; j++, w += 64, planes += 16) {
            const __m128i both = _mm_loadu_si128((const __m128i *)(const void *)planes);
            const __m128i minus = _mm_unpacklo_epi64(both, both);
            const __m128i some = _mm_unpackhi_epi64(both, both);
            _mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
            for (int r = 0; r < 4; r++) {
                const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(w + 16 * r));
                const __m128i left = _mm_and_si128(_mm_xor_si128(c, minus), some);
                part[r] = _mm_add_epi8(part[r], bnc_ones_sse41(left));
            }
        }
        for (int r = 0; r < 4; r++)
            ones[r] = _mm_add_epi64(ones[r], _mm_sad_epu8(part[r], _mm_setzero_si128()));
    }
    for (int r = 0; r < 4; r += 2) {
        /* The lower halves of four lanes. */
        const __m128i a = _mm_shuffle_epi32(ones[r], 0x08);
        const __m128i b = _mm_shuffle_epi32(ones[r + 1], 0x08);
        const __m128i count = _mm_unpacklo_epi64(a, b);
        const __m128i sum = twice ? count : _mm_add_epi32(count, count);
        _mm_storeu_si128((__m128i *)(void *)(acc + 2 * r),
                         _mm_sub_epi32(sum, _mm_set1_epi32(nonzero)));
    }
}

/* Rows of `words` words; `twice`: see kernels/scalar. */
BNC_INLINE void bnc_count_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    for (int m = 0; m < rows; m += 8, w += 64 * (ptrdiff_t)words)
        for (int i = 0; i < n; i++)
            bnc_count_rows_sse41(acc + i * rows + m, w, bnc_bits_planes(x, i, twice),
                                 bnc_bits_nonzero(x, i), words, twice);
}

BNC_KERNEL void bnc_matmul_b1_m8k64_sse41(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_sse41(acc, w, x, rows, cols / 64, n, 0);
}

#endif
