/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX2, layout i2_m256k4: a column of 256 rows is a cache line, and the columns
 * of a token whose activation is zero are not read: of one, or where several have so many that they
 * go sooner one after the other.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * For one token two columns are interleaved; vpmaddubsw multiplies their codes of a row by the two
 * activations and adds them in int16. 128 rows at a time: their sums are eight registers. For
 * several tokens four columns are interleaved, which makes the registers of i2_m32k64.
 * Bounds: a lane gains at most 508 from two columns, so 128 columns (32512) are summed in int16
 * before widening. int32 then lasts for 8.4 million columns. */
#ifndef BNC_MATMUL_I2_M256K4_AVX2_H
#define BNC_MATMUL_I2_M256K4_AVX2_H

#include <immintrin.h>

#include "../../bnc_columns.h"
#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "../../bnc_streams.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");
_Static_assert(BNC_COLUMNS / 2 * 508 <= 32767, "int16 lanes");

/* Columns whose activation is not zero, in order, and their activations. They are read in another
 * order, which gives the same sum: the list is cut into `parts`, of which the first columns are
 * read, then the second ones, and so on, since the prefetcher of the second-level cache fetches
 * what lies between lines that follow each other. What the last parts lack are activations of
 * zero. */
enum {
    BNC_LISTED_AVX2 = 2048, /* columns in a list, */
    BNC_REACH_AVX2 = 32768, /* which is made of so many, or fewer */
    BNC_PARTS_AVX2 = 64,    /* even, and a divisor of BNC_COLUMNS */
    BNC_FEW_AVX2 = 512      /* a shorter list has a quarter of the parts: less is lacking */
};
struct bnc_columns_avx2 {
    uint16_t column[BNC_LISTED_AVX2 + BNC_PARTS_AVX2];
    int8_t q[BNC_LISTED_AVX2 + BNC_PARTS_AVX2];
    int parts, length; /* of a part */
};

/* Lists columns of q[cols] until the list is full; returns how many of q that took. Of four columns
 * those that count are moved to the front, and what is left is overwritten. */
BNC_INLINE int bnc_list_columns_avx2(struct bnc_columns_avx2 *list, const int8_t *q, int cols)
{
    static const int8_t front[16][4] = {
        { 0 }, { 0 },    { 1 },    { 0, 1 },    { 2 },    { 0, 2 },    { 1, 2 },    { 0, 1, 2 },
        { 3 }, { 0, 3 }, { 1, 3 }, { 0, 1, 3 }, { 2, 3 }, { 0, 2, 3 }, { 1, 2, 3 }, { 0, 1, 2, 3 },
    };
    int count = 0, k = 0;
    for (; k < cols && k < BNC_REACH_AVX2 && count <= BNC_LISTED_AVX2 - 4; k += 4) {
        int32_t four, which;
        memcpy(&four, q + k, sizeof four);
        const __m128i x = _mm_cvtsi32_si128(four);
        const int some = ~_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_setzero_si128())) & 15;
        memcpy(&which, front[some], sizeof which);
        const __m128i lanes = _mm_cvtsi32_si128(which);
        _mm_storel_epi64((__m128i *)(void *)(list->column + count),
                         _mm_add_epi16(_mm_cvtepi8_epi16(lanes), _mm_set1_epi16((short)k)));
        four = _mm_cvtsi128_si32(_mm_shuffle_epi8(x, lanes));
        memcpy(list->q + count, &four, sizeof four);
        count += __builtin_popcount((unsigned)some);
    }
    list->parts = count < BNC_FEW_AVX2 ? BNC_PARTS_AVX2 / 4 : BNC_PARTS_AVX2;
    for (; count % list->parts; count++) {
        list->column[count] = list->column[count - 1];
        list->q[count] = 0;
    }
    list->length = count / list->parts;
    return k;
}

/* acc += int16 sums of the lower (`high` = 0) or upper eight bytes of the line's 16 bytes `lane`:
 * four rows of each of two groups of 16. */
BNC_INLINE void bnc_add_rows_i2_m256k4_avx2(int32_t *acc, __m128i sums, int plane, int lane,
                                            int high)
{
    for (int r = 0; r < 2; r++) {
        int32_t *at = acc + 64 * plane + 16 * (2 * high + r) + 4 * lane;
        __m128i *to = (__m128i *)(void *)at;
        const __m128i four = _mm_cvtepi16_epi32(r ? _mm_srli_si128(sums, 8) : sums);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), four));
    }
}

/* acc[256] += codes * q over columns first .. last - 1 of each part, BNC_COLUMNS in all at most;
 * those that come `ahead` <= length later are fetched, and behind the block w those of `next`: of
 * two columns one in each pass, so that memory is never left alone. */
BNC_INLINE void bnc_columns_i2_m256k4_avx2(int32_t *restrict acc, const uint8_t *w,
                                           const uint8_t *next, const struct bnc_columns_avx2 *list,
                                           int first, int last, int ahead)
{
    const __m256i low2 = _mm256_set1_epi8(3);
    const int length = list->length;
    for (int half = 0; half < 2; half++) {
        const uint8_t *at = w + 32 * half;
        __m256i sum[4][2]; /* [plane][lower and upper bytes of each lane] */
        for (int p = 0; p < 4; p++)
            sum[p][0] = sum[p][1] = _mm256_setzero_si256();
        for (int i = first; i < last; i++)
            for (int part = 0; part < list->parts; part += 2) {
                const int j = part * length + i, k = j + length;
                const int two = (list->q[j] & 255) | (list->q[k] & 255) << 8;
                const __m256i x = _mm256_set1_epi16((short)two);
                const __m256i a = bnc_load_i2_m32k64_avx2(at + 64 * (ptrdiff_t)list->column[j]);
                const __m256i b = bnc_load_i2_m32k64_avx2(at + 64 * (ptrdiff_t)list->column[k]);
                const __m256i c[2] = { _mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b) };
                const int then = (half ? k : j) + ahead;
                if (i + ahead < length)
                    bnc_prefetch(w + 64 * (ptrdiff_t)list->column[then]);
                else
                    bnc_prefetch(next + 64 * (ptrdiff_t)list->column[then - length]);
                for (int h = 0; h < 2; h++) {
                    const __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(c[h], 6), low2);
                    const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(c[h], 4), low2);
                    const __m256i c2 = _mm256_and_si256(_mm256_srli_epi16(c[h], 2), low2);
                    const __m256i c3 = _mm256_and_si256(c[h], low2);
                    sum[0][h] = _mm256_add_epi16(sum[0][h], _mm256_maddubs_epi16(c0, x));
                    sum[1][h] = _mm256_add_epi16(sum[1][h], _mm256_maddubs_epi16(c1, x));
                    sum[2][h] = _mm256_add_epi16(sum[2][h], _mm256_maddubs_epi16(c2, x));
                    sum[3][h] = _mm256_add_epi16(sum[3][h], _mm256_maddubs_epi16(c3, x));
                }
            }
        for (int p = 0; p < 4; p++)
            for (int h = 0; h < 2; h++) {
                const __m256i s = sum[p][h];
                bnc_add_rows_i2_m256k4_avx2(acc, _mm256_castsi256_si128(s), p, 2 * half, h);
                bnc_add_rows_i2_m256k4_avx2(acc, _mm256_extracti128_si256(s, 1), p, 2 * half + 1,
                                            h);
            }
    }
}

/* All rows of one token: columns are listed once for all of them. Never inlined, so that the list
 * is on the stack only while it is in use. */
__attribute__((noinline, unused)) static void
bnc_matvec_i2_m256k4_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                          const int8_t *restrict q, int32_t sum_q, int rows, int cols)
{
    const ptrdiff_t bytes = 64 * (ptrdiff_t)cols; /* of a block */
    struct bnc_columns_avx2 list;
    for (int m = 0; m < rows; m++)
        acc[m] = -sum_q;
    for (int first = 0; first < cols;) {
        const uint8_t *at = w + 64 * (ptrdiff_t)first;
        first += bnc_list_columns_avx2(&list, q + first, cols - first);
        const int some = BNC_COLUMNS / list.parts, ahead = some < list.length ? some : list.length;
        for (int m = 0; m < rows; m += BNC_I2_M256K4_ROWS, at += bytes)
            for (int i = 0; i < list.length; i += some)
                bnc_columns_i2_m256k4_avx2(acc + m, at, at + bytes, &list, i,
                                           list.length - i < some ? list.length : i + some, ahead);
    }
}

/* The codes of 256 rows and `cols` columns: to[32 rows][cols / 4][four] registers. */
BNC_INLINE void bnc_unpack_i2_m256k4_avx2(__m256i *to, const uint8_t *w, int cols)
{
    const __m256i low2 = _mm256_set1_epi8(3);
    for (int k = 0; k < cols; k += 4, w += 256, to += 4)
        for (int h = 0; h < 2; h++) {
            const uint8_t *at = w + 32 * h;
            const __m256i c0 = bnc_load_i2_m32k64_avx2(at), c1 = bnc_load_i2_m32k64_avx2(at + 64);
            const __m256i c2 = bnc_load_i2_m32k64_avx2(at + 128);
            const __m256i c3 = bnc_load_i2_m32k64_avx2(at + 192);
            const __m256i low01 = _mm256_unpacklo_epi8(c0, c1),
                          high01 = _mm256_unpackhi_epi8(c0, c1);
            const __m256i low23 = _mm256_unpacklo_epi8(c2, c3),
                          high23 = _mm256_unpackhi_epi8(c2, c3);
            const __m256i codes[4] = { _mm256_unpacklo_epi16(low01, low23),
                                       _mm256_unpackhi_epi16(low01, low23),
                                       _mm256_unpacklo_epi16(high01, high23),
                                       _mm256_unpackhi_epi16(high01, high23) };
            for (int r = 0; r < 4; r++) { /* rows 64 plane + 16 r + 8 h .. */
                __m256i *at32 = to + r / 2 * cols + r % 2 * 2 + h;
                at32[0] = _mm256_and_si256(_mm256_srli_epi16(codes[r], 6), low2);
                at32[2 * cols] = _mm256_and_si256(_mm256_srli_epi16(codes[r], 4), low2);
                at32[4 * cols] = _mm256_and_si256(_mm256_srli_epi16(codes[r], 2), low2);
                at32[6 * cols] = _mm256_and_si256(codes[r], low2);
            }
        }
}

/* Several tokens: 256 rows of 64 columns are unpacked to bytes once (16 KB, stays in L1). Never
 * inlined, so that these are not on the stack beside a list. */
__attribute__((noinline, unused)) static void bnc_many_i2_m256k4_avx2(int32_t *restrict acc,
                                                                      const uint8_t *restrict w,
                                                                      const struct bnc_acts *x,
                                                                      int rows, int cols, int n)
{
    enum { CHUNK = 64, ROWS = BNC_I2_M256K4_ROWS };
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -x->sum[i];
    for (int m = 0; m < rows; m += ROWS, w += 64 * (ptrdiff_t)cols)
        for (int first = 0; first < cols; first += CHUNK) {
            __m256i codes[ROWS * CHUNK / 32];
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            const int8_t *q = x->q + first;
            bnc_unpack_i2_m256k4_avx2(codes, w + 64 * (ptrdiff_t)first, count);
            for (int g = 0; g < ROWS / 32; g++) {
                const __m256i *group = codes + g * count;
                int32_t *to = acc + m + 32 * g;
                int i = 0;
                for (; i + 2 <= n; i += 2)
                    bnc_tile_i2_m32k64_avx2(to + i * rows, rows, group,
                                            q + i * (ptrdiff_t)x->stride, x->stride, 2, count);
                if (i < n)
                    bnc_tile_i2_m32k64_avx2(to + i * rows, rows, group,
                                            q + i * (ptrdiff_t)x->stride, x->stride, 1, count);
            }
        }
}

BNC_KERNEL void bnc_matmul_i2_m256k4_avx2(int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { ROWS = BNC_I2_M256K4_ROWS, EACH = 40, ONCE = 50 }; /* see bnc_one_by_one() */
    if (n == 1)
        bnc_matvec_i2_m256k4_avx2(acc, w, x->q, x->sum[0], rows, cols);
    else if (bnc_columns_one_by_one(x, cols, n, EACH, ONCE))
        for (int m = 0; m < rows; m += ROWS, w += 64 * (ptrdiff_t)cols)
            for (int i = 0; i < n; i++)
                bnc_matvec_i2_m256k4_avx2(acc + i * rows + m, w, x->q + i * (ptrdiff_t)x->stride,
                                          x->sum[i], ROWS, cols);
    else
        bnc_many_i2_m256k4_avx2(acc, w, x, rows, cols, n);
}

#endif
