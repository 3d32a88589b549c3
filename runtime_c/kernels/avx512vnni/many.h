/* SPDX-License-Identifier: MIT */
/* Several tokens by VNNI: 64 rows are unpacked to codes, once for all tokens, and multiplied by six
 * tokens at a time.
 *
 * A register holds four columns of sixteen rows, four bytes a row. vpdpbusd multiplies its unsigned
 * codes by four activations that all rows share, and adds the products to each row's int32 lane.
 * Four registers of rows and six tokens are 24 sums, four codes and a few activations in 32
 * registers: 10 loads for 24 products, which two ports take 12 cycles for.
 * Bounds: |code * q| <= 254 a column, so int32 lasts for 8.4 million columns; of codes up to 3 for
 * 5.6 million. */
#ifndef BNC_AVX512VNNI_MANY_H
#define BNC_AVX512VNNI_MANY_H

#include <immintrin.h>

#include "../../bnc_linear.h"
#include "../../bnc_streams.h"

enum {
    BNC_VNNI_ROWS = 32,     /* unpacked by one call: two registers of four columns */
    BNC_VNNI_GROUPS = 2,    /* of as many rows are multiplied together, where there are two, */
    BNC_VNNI_TOKENS = 6,    /* and so many tokens */
    BNC_VNNI_COLUMNS = 512, /* unpacked at a time at most: 32 KB with 64 rows, they stay in L1 */
    BNC_VNNI_CODES = BNC_VNNI_COLUMNS / 4 * 2 * BNC_VNNI_GROUPS
};

/* Before loops over the tokens of a tile: GCC leaves those over so many sums as they are, which
 * then are in memory. */
#define BNC_UNROLL_TOKENS _Pragma("GCC unroll 6")

/* Four activations in every lane. */
BNC_INLINE __m512i bnc_four_avx512vnni(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* acc of `registers` times sixteen rows and `tokens` tokens += codes * q; `count` times four
 * columns, of which codes has all registers side by side. */
BNC_INLINE void bnc_tile_avx512vnni(int32_t *acc, int rows, const __m512i *codes, const int8_t *q,
                                    ptrdiff_t stride, int registers, int tokens, int count)
{
    __m512i sum[BNC_VNNI_TOKENS][2 * BNC_VNNI_GROUPS];
    const int8_t *at[BNC_VNNI_TOKENS];
    BNC_UNROLL_TOKENS
    for (int i = 0; i < tokens; i++) {
        at[i] = q + i * stride;
        /* A pointer for each token: Clang adds the stride for each load else, and additions take
         * the ports of the products. */
        __asm__("" : "+r"(at[i]));
        for (int r = 0; r < registers; r++)
            sum[i][r] = _mm512_loadu_si512(acc + i * rows + 16 * r);
    }
    for (ptrdiff_t v = 0; v < count; v++) {
        BNC_UNROLL_TOKENS
        for (int i = 0; i < tokens; i++) {
            const __m512i x = bnc_four_avx512vnni(at[i] + 4 * v);
            for (int r = 0; r < registers; r++)
                sum[i][r] = _mm512_dpbusd_epi32(sum[i][r], codes[registers * v + r], x);
        }
    }
    BNC_UNROLL_TOKENS
    for (int i = 0; i < tokens; i++)
        for (int r = 0; r < registers; r++)
            _mm512_storeu_si512(acc + i * rows + 16 * r, sum[i][r]);
}

/* The same for as many tokens as are multiplied at a time. A function of its own, in which
 * compilers have all registers for the sums: they keep tables for unpacking in them else. */
static __attribute__((noinline, unused)) void bnc_six_avx512vnni(int32_t *acc, int rows,
                                                                 const __m512i *codes,
                                                                 const int8_t *q, ptrdiff_t stride,
                                                                 int count)
{
    bnc_tile_avx512vnni(acc, rows, codes, q, stride, 2 * BNC_VNNI_GROUPS, BNC_VNNI_TOKENS, count);
}

/* The same for n tokens, from column `first` of the activations on.
 * ahead: `bytes` packed bytes to come, which are fetched meanwhile: memory has time then */
BNC_INLINE void bnc_tokens_avx512vnni(int32_t *acc, int rows, const __m512i *codes,
                                      const struct bnc_acts *x, int first, int registers, int count,
                                      int n, const uint8_t *ahead, ptrdiff_t bytes)
{
    enum { TOKENS = BNC_VNNI_TOKENS };
    const int steps = n / TOKENS, lines = steps ? (int)(bytes / 64 + steps - 1) / steps : 0;
    const ptrdiff_t stride = x->stride;
    const int8_t *q = x->q + first;
    int i = 0;
    for (; i + TOKENS <= n; i += TOKENS, ahead += 64 * lines) {
        bnc_prefetch_lines(ahead, lines);
        if (registers == 2 * BNC_VNNI_GROUPS)
            bnc_six_avx512vnni(acc + i * rows, rows, codes, q + i * stride, stride, count);
        else
            bnc_tile_avx512vnni(acc + i * rows, rows, codes, q + i * stride, stride, registers,
                                TOKENS, count);
    }
    for (; i + 2 <= n; i += 2)
        bnc_tile_avx512vnni(acc + i * rows, rows, codes, q + i * stride, stride, registers, 2,
                            count);
    if (i < n)
        bnc_tile_avx512vnni(acc + i * rows, rows, codes, q + i * stride, stride, registers, 1,
                            count);
}

/* The codes of 32 rows, which begin at w and have `cols` columns, from column `first` on: four
 * columns of the first sixteen rows are to[step * v], those of the others to[step * v + 1], for
 * 4 * v < count */
typedef void bnc_unpack_avx512vnni(__m512i *to, int step, const uint8_t *w, int first, int count,
                                   int cols);

/* acc = codes * q - zero * sum of q of `groups` times 32 rows and several tokens. groups: constant
 * once inlined; the others as below, rows being the distance of two tokens' sums */
BNC_INLINE void bnc_groups_avx512vnni(bnc_unpack_avx512vnni *unpack, int chunk, int per, int zero,
                                      int groups, int32_t *acc, const uint8_t *w,
                                      const struct bnc_acts *x, int rows, int cols, int n,
                                      __m512i *codes, const uint8_t *next)
{
    enum { ROWS = BNC_VNNI_ROWS };
    const ptrdiff_t bytes = ROWS * (ptrdiff_t)cols / per; /* of 32 rows */
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 2 * groups; r++)
            _mm512_storeu_si512(acc + i * rows + 16 * r, _mm512_set1_epi32(-zero * x->sum[i]));
    for (int first = 0; first < cols; first += chunk) {
        const int count = cols - first < chunk ? cols - first : chunk;
        for (int g = 0; g < groups; g++)
            unpack(codes + 2 * g, 2 * groups, w + g * bytes, first, count, cols);
        bnc_tokens_avx512vnni(acc, rows, codes, x, first, 2 * groups, count / 4, n,
                              next + (ptrdiff_t)groups * ROWS * (first / per),
                              groups * ROWS * (count / per));
    }
}

/* The same for whole groups of 32 rows.
 * chunk: columns unpacked at a time, at most BNC_VNNI_COLUMNS; per: columns of a row in a byte;
 * zero: the code of 0. All three are constant once inlined */
BNC_INLINE void bnc_many_avx512vnni(bnc_unpack_avx512vnni *unpack, int chunk, int per, int zero,
                                    int32_t *restrict acc, const uint8_t *restrict w,
                                    const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { ROWS = BNC_VNNI_ROWS, GROUPS = BNC_VNNI_GROUPS };
    const ptrdiff_t bytes = cols / per;     /* of a row */
    const uint8_t *next = w + rows * bytes; /* what the next call reads, in general */
    __m512i codes[BNC_VNNI_CODES];
    int m = 0;
    for (; m + GROUPS * ROWS <= rows; m += GROUPS * ROWS)
        bnc_groups_avx512vnni(unpack, chunk, per, zero, GROUPS, acc + m, w + m * bytes, x, rows,
                              cols, n, codes, next + m * bytes);
    if (m + ROWS <= rows)
        bnc_groups_avx512vnni(unpack, chunk, per, zero, 1, acc + m, w + m * bytes, x, rows, cols, n,
                              codes, next + m * bytes);
}

#endif
