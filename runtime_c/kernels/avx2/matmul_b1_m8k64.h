/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for AVX2, layout b1_m8k64: XNOR, AND and population
 * count.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A 64-bit lane is 64 columns of a row. Ones of a byte are looked up by its halves; vpsadbw adds
 * the bytes of a lane. Bounds: a byte gains at most 8 from one word, and 31 words are 248. A lane's
 * count is a row's bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_AVX2_H
#define BNC_MATMUL_B1_M8K64_AVX2_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

enum { BNC_BITS_WORDS_AVX2 = 31, BNC_BITS_TOKENS_AVX2 = 4 };

/* Ones of each byte. */
BNC_INLINE __m256i bnc_ones_avx2(__m256i v)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(0x0f);
    const __m256i a = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
    const __m256i b = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
    return _mm256_add_epi8(a, b);
}

/* The counts of 8 rows, less the codes that are not 0. */
BNC_INLINE void bnc_store_ones_avx2(int32_t *acc, const __m256i ones[2], int twice, int32_t nonzero)
{
    const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    const __m256i low = _mm256_permutevar8x32_epi32(ones[0], even);
    const __m256i high = _mm256_permutevar8x32_epi32(ones[1], even);
    const __m256i sum = _mm256_blend_epi32(low, high, 0xf0);
    _mm256_storeu_si256(
        (__m256i *)(void *)acc,
        _mm256_sub_epi32(twice ? sum : _mm256_add_epi32(sum, sum), _mm256_set1_epi32(nonzero)));
}

/* acc of `groups` times 8 rows, `bytes` apart, for `tokens` tokens, whose planes lie `apart` bytes
 * apart; both are constant once inlined, and their product is 4 at most. */
BNC_INLINE void bnc_count_groups_avx2(int32_t *restrict acc, int rows, const uint8_t *restrict w,
                                      ptrdiff_t bytes, const uint8_t *planes, ptrdiff_t apart,
                                      const int32_t *nonzero, int groups, int tokens, int words,
                                      int twice)
{
    __m256i ones[BNC_BITS_TOKENS_AVX2][2];
    const int parts = groups * tokens;
    for (int p = 0; p < parts; p++)
        ones[p][0] = ones[p][1] = _mm256_setzero_si256();
    for (int first = 0; first < words; first += BNC_BITS_WORDS_AVX2) {
        const int last = words - first < BNC_BITS_WORDS_AVX2 ? words : first + BNC_BITS_WORDS_AVX2;
        __m256i part[BNC_BITS_TOKENS_AVX2][2];
        for (int p = 0; p < parts; p++)
            part[p][0] = part[p][1] = _mm256_setzero_si256();
        for (int j = first; j < last; j++) {
            const ptrdiff_t at = 64 * (ptrdiff_t)j, ahead = at + bnc_ahead(at, bytes, groups);
            for (int g = 0; g < groups; g++) {
                const uint8_t *from = w + g * bytes + at;
                bnc_prefetch(w + g * bytes + ahead);
                const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)from);
                const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32));
                for (int t = 0; t < tokens; t++) {
                    const uint8_t *word = planes + t * apart + 16 * (ptrdiff_t)j;
                    const __m256i minus = _mm256_set1_epi64x((long long)bnc_word(word));
                    const __m256i some = _mm256_set1_epi64x((long long)bnc_word(word + 8));
                    const int p = g + t;
                    part[p][0] = _mm256_add_epi8(
                        part[p][0],
                        bnc_ones_avx2(_mm256_and_si256(_mm256_xor_si256(a, minus), some)));
                    part[p][1] = _mm256_add_epi8(
                        part[p][1],
                        bnc_ones_avx2(_mm256_and_si256(_mm256_xor_si256(b, minus), some)));
                }
            }
        }
        const __m256i zero = _mm256_setzero_si256();
        for (int p = 0; p < parts; p++)
            for (int h = 0; h < 2; h++)
                ones[p][h] = _mm256_add_epi64(ones[p][h], _mm256_sad_epu8(part[p][h], zero));
    }
    for (int p = 0; p < parts; p++)
        bnc_store_ones_avx2(acc + (groups > 1 ? 8 * p : p * rows), ones[p], twice,
                            nonzero[groups > 1 ? 0 : p]);
}

/* Rows of `words` words; `twice`: see kernels/scalar. One token reads four groups of rows at once,
 * several share one. */
BNC_INLINE void bnc_count_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                               const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    enum { GROUPS = BNC_STREAMS, TOKENS = BNC_BITS_TOKENS_AVX2 };
    _Static_assert((int)BNC_STREAMS <= (int)BNC_BITS_TOKENS_AVX2, "registers");
    const ptrdiff_t bytes = 64 * (ptrdiff_t)words;
    for (int i = 0; i < n;) {
        const int tokens = n - i < TOKENS ? 1 : TOKENS;
        const uint8_t *planes = bnc_bits_planes(x, i, twice), *at = w;
        int32_t nonzero[TOKENS];
        int32_t *to = acc + i * (ptrdiff_t)rows;
        int m = 0;
        for (int t = 0; t < tokens; t++)
            nonzero[t] = bnc_bits_nonzero(x, i + t);
        if (tokens == 1)
            for (; m + 8 * GROUPS <= rows; m += 8 * GROUPS, at += GROUPS * bytes)
                bnc_count_groups_avx2(to + m, rows, at, bytes, planes, 0, nonzero, GROUPS, 1, words,
                                      twice);
        for (; m < rows; m += 8, at += bytes) {
            if (tokens == 1)
                bnc_count_groups_avx2(to + m, rows, at, bytes, planes, 0, nonzero, 1, 1, words,
                                      twice);
            else
                bnc_count_groups_avx2(to + m, rows, at, bytes, planes, x->stride, nonzero, 1,
                                      TOKENS, words, twice);
        }
        i += tokens;
    }
}

BNC_KERNEL void bnc_matmul_b1_m8k64_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                         const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_avx2(acc, w, x, rows, cols / 64, n, 0);
}

#endif
