/* SPDX-License-Identifier: MIT */
/* Matmul of signs and activations -1, 0, 1 for AVX-512 with VPOPCNTDQ, layout b1_m8k64.
 *
 *     sum over k of w * q = 2 * ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * A register is 64 columns of eight rows; one instruction inverts and masks, one counts.
 * Bounds: a lane's count is a row's bits at most. */
#ifndef BNC_MATMUL_B1_M8K64_AVX512POPCNT_H
#define BNC_MATMUL_B1_M8K64_AVX512POPCNT_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"

_Static_assert(BNC_B1_M8K64_ROWS == 8 && BNC_B1_M8K64_COLS == 64, "unrolled by hand");

enum { BNC_BITS_TOKENS_AVX512 = 8 };

/* acc of `groups` times 8 rows, `bytes` apart, for `tokens` tokens, whose planes lie `apart` bytes
 * apart; both are constant once inlined. */
BNC_INLINE void bnc_count_groups_avx512(int32_t *restrict acc, int rows, const uint8_t *restrict w,
                                        ptrdiff_t bytes, const uint8_t *planes, ptrdiff_t apart,
                                        const int32_t *nonzero, int groups, int tokens, int words,
                                        int twice)
{
    enum { INVERT_AND = 0x28 }; /* truth table of (a ^ b) & c */
    __m512i ones[BNC_STREAMS][BNC_BITS_TOKENS_AVX512];
    for (int g = 0; g < groups; g++)
        for (int t = 0; t < tokens; t++)
            ones[g][t] = _mm512_setzero_si512();
    for (int j = 0; j < words; j++) {
        const ptrdiff_t at = 64 * (ptrdiff_t)j, ahead = at + bnc_ahead(at, bytes, groups);
        __m512i c[BNC_STREAMS];
        for (int g = 0; g < groups; g++) {
            bnc_prefetch(w + g * bytes + ahead);
            c[g] = _mm512_loadu_si512(w + g * bytes + at);
        }
        for (int t = 0; t < tokens; t++) {
            const uint8_t *word = planes + t * apart + 16 * (ptrdiff_t)j;
            const __m512i minus = _mm512_set1_epi64((long long)bnc_word(word));
            const __m512i some = _mm512_set1_epi64((long long)bnc_word(word + 8));
            for (int g = 0; g < groups; g++)
                ones[g][t] = _mm512_add_epi64(
                    ones[g][t],
                    _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(c[g], minus, some, INVERT_AND)));
        }
    }
    for (int g = 0; g < groups; g++)
        for (int t = 0; t < tokens; t++) {
            const __m256i sum = _mm512_cvtepi64_epi32(ones[g][t]);
            _mm256_storeu_si256((__m256i *)(void *)(acc + t * (ptrdiff_t)rows + 8 * g),
                                _mm256_sub_epi32(twice ? sum : _mm256_add_epi32(sum, sum),
                                                 _mm256_set1_epi32(nonzero[t])));
        }
}

/* `groups` times 8 rows and up to BNC_BITS_TOKENS_AVX512 tokens from i on. */
BNC_INLINE void bnc_count_rows_avx512(int32_t *restrict acc, int rows, const uint8_t *restrict w,
                                      const struct bnc_acts *x, int groups, int n, int words,
                                      int twice)
{
    enum { TOKENS = BNC_BITS_TOKENS_AVX512 };
    const ptrdiff_t bytes = 64 * (ptrdiff_t)words;
    for (int i = 0; i < n;) {
        const int tokens = n - i < TOKENS ? 1 : TOKENS;
        const uint8_t *planes = bnc_bits_planes(x, i, twice);
        int32_t nonzero[TOKENS];
        for (int t = 0; t < tokens; t++)
            nonzero[t] = bnc_bits_nonzero(x, i + t);
        if (tokens == 1)
            bnc_count_groups_avx512(acc + i * (ptrdiff_t)rows, rows, w, bytes, planes, 0, nonzero,
                                    groups, 1, words, twice);
        else
            bnc_count_groups_avx512(acc + i * (ptrdiff_t)rows, rows, w, bytes, planes, x->stride,
                                    nonzero, groups, TOKENS, words, twice);
        i += tokens;
    }
}

/* Rows of `words` words; `twice`: see kernels/scalar. Groups of rows are streams for one token, and
 * share the activations of several; two of them, since their sums fill half of the registers. */
BNC_INLINE void bnc_count_avx512(int32_t *restrict acc, const uint8_t *restrict w,
                                 const struct bnc_acts *x, int rows, int words, int n, int twice)
{
    const ptrdiff_t bytes = 64 * (ptrdiff_t)words;
    int m = 0;
    if (n == 1)
        for (; m + 8 * BNC_STREAMS <= rows; m += 8 * BNC_STREAMS, w += BNC_STREAMS * bytes)
            bnc_count_rows_avx512(acc + m, rows, w, x, BNC_STREAMS, 1, words, twice);
    for (; m + 16 <= rows; m += 16, w += 2 * bytes)
        bnc_count_rows_avx512(acc + m, rows, w, x, 2, n, words, twice);
    if (m < rows)
        bnc_count_rows_avx512(acc + m, rows, w, x, 1, n, words, twice);
}

BNC_KERNEL void bnc_matmul_b1_m8k64_avx512popcnt(int32_t *restrict acc, const uint8_t *restrict w,
                                                 const struct bnc_acts *x, int rows, int cols,
                                                 int n)
{
    bnc_count_avx512(acc, w, x, rows, cols / 64, n, 0);
}

#endif
