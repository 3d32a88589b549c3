/* SPDX-License-Identifier: MIT */
/* Ternary matmul for AVX-512 with VNNI, layout i2_m256k4: a column of 256 rows is one register, and
 * the columns of a token whose activation is zero are not read: of one, or where several have so
 * many that they go sooner one after the other.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Four columns are interleaved, so that their codes of a row are a lane's four bytes; vpdpbusd
 * multiplies them by the four activations. The codes are masked where they lie, so that those at
 * bits 2j are summed 4^j times too large; the sums are multiples of 4^j and are shifted at the
 * end. The digits of the row in the layout are the places that interleaving gives.
 * Bounds: |128 * q| <= 16256 a column, so int32 lasts for 132,103 columns. */
#ifndef BNC_MATMUL_I2_M256K4_AVX512VNNI_H
#define BNC_MATMUL_I2_M256K4_AVX512VNNI_H

#include <immintrin.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"
#include "matmul_i2_m32k64.h"

_Static_assert(BNC_I2_M256K4_ROWS == 256 && BNC_I2_M256K4_COLS == 4, "unrolled by hand");

/* Columns of a token that count, in order, and their activations. A column takes 64 bytes. They
 * are read in another order, which gives the same sum: the list is cut into `parts`, of which the
 * first columns are read, then the second ones, and so on. Of lines that follow each other the
 * prefetcher of the second-level cache fetches those between, too, which nobody reads; it follows
 * 32 pages of 4 KiB at most. What the last parts lack are activations of zero. */
enum {
    BNC_LISTED = 2048, /* columns in a list, */
    BNC_REACH = 65536, /* which is made of so many at most */
    BNC_ROUND = 64,
    BNC_FEW = 512, /* a shorter list has a quarter of the parts: less is lacking */
    BNC_NEAR = 8 /* columns from those that are multiplied to those that come to the first cache */
};
struct bnc_columns_avx512 {
    uint16_t column[BNC_LISTED + BNC_ROUND];
    int8_t q[BNC_LISTED + BNC_ROUND];
    int parts, length; /* of a part */
    const int8_t
        *all; /* where most columns count, there is no list, and all[4 * quarter] is read */
    int quarter;
};

/* How many of q[cols] are not zero. */
BNC_INLINE int bnc_nonzeros_avx512(const int8_t *q, int cols)
{
    int count = 0;
    for (int k = 0; k < cols; k += 64) {
        const __mmask64 there = cols - k < 64 ? (1ull << (cols - k)) - 1 : ~0ull;
        const __m512i x = _mm512_maskz_loadu_epi8(there, q + k);
        count += __builtin_popcountll(_mm512_test_epi8_mask(x, x));
    }
    return count;
}

/* Lists those of q[cols] that are not zero, until the list is full; returns how many columns of q
 * that took: all, or a multiple of 16. */
BNC_INLINE int bnc_list_avx512(struct bnc_columns_avx512 *list, const int8_t *q, int cols)
{
    __m512i column = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    int count = 0, k = 0;
    for (; k < cols && k < BNC_REACH && count <= BNC_LISTED - 16; k += 16) {
        const __mmask16 there = (__mmask16)(cols - k < 16 ? (1u << (cols - k)) - 1 : 0xffff);
        const __m128i x = _mm_maskz_loadu_epi8(there, q + k);
        const __mmask16 some = _mm_test_epi8_mask(x, x);
        const __m512i chosen = _mm512_maskz_compress_epi32(some, _mm512_cvtepi8_epi32(x));
        const __m512i at = _mm512_maskz_compress_epi32(some, column);
        _mm256_storeu_si256((__m256i *)(void *)(list->column + count), _mm512_cvtepi32_epi16(at));
        _mm_storeu_si128((__m128i *)(void *)(list->q + count), _mm512_cvtepi32_epi8(chosen));
        count += __builtin_popcount(some);
        column = _mm512_add_epi32(column, _mm512_set1_epi32(16));
    }
    cols = k < cols ? k : cols;
    list->parts = count < BNC_FEW ? BNC_ROUND / 4 : BNC_ROUND;
    for (; count % list->parts; count++) {
        list->column[count] = list->column[count - 1];
        list->q[count] = 0;
    }
    list->length = count / list->parts;
    return cols;
}

/* Four columns that are multiplied together, their activations in all lanes, and what is fetched
 * meanwhile: columns that come BNC_NEAR later to the first cache, those of the next round to the
 * second. */
struct bnc_step_avx512 {
    const uint8_t *at[4], *near[4], *far[4];
    __m512i x;
};

/* The i-th columns of parts `part` to part + 3. Behind the block w, those of `next` are fetched. */
BNC_INLINE struct bnc_step_avx512 bnc_step_of(const struct bnc_columns_avx512 *list,
                                              const uint8_t *w, const uint8_t *next, int part,
                                              int i)
{
    const int length = list->length, last = i + 1 == length;
    const uint16_t *now = list->column + part * length + i;
    const uint16_t *then = last ? list->column + part * length : now + 1; /* of the next round */
    const int wraps = part + BNC_NEAR >= list->parts;
    const uint16_t *soon =
        wraps ? then + (BNC_NEAR - list->parts) * length : now + BNC_NEAR * length;
    const uint8_t *far = last ? next : w, *near = wraps ? far : w;
    const int8_t *q = list->q + part * length + i;
    struct bnc_step_avx512 step;
    uint32_t four = 0;
    for (int j = 0; j < 4; j++) {
        step.at[j] = w + 64 * (ptrdiff_t)now[j * length];
        step.near[j] = near + 64 * (ptrdiff_t)soon[j * length];
        step.far[j] = far + 64 * (ptrdiff_t)then[j * length];
        four |= (uint32_t)(uint8_t)q[j * length] << 8 * j;
    }
    step.x = _mm512_set1_epi32((int32_t)four);
    return step;
}

/* Columns i, quarter + i and so on, of all: four streams, as bnc_streams.h has them. */
BNC_INLINE struct bnc_step_avx512 bnc_step_of_all(const int8_t *q, const uint8_t *w, int quarter,
                                                  int i)
{
    const ptrdiff_t bytes = 64 * (ptrdiff_t)quarter, at = 64 * (ptrdiff_t)i;
    const uint8_t *now = w + at, *then = now + bnc_ahead(at, bytes, 4);
    struct bnc_step_avx512 step;
    uint32_t four = 0;
    for (int j = 0; j < 4; j++) {
        step.at[j] = now + j * bytes;
        _mm_prefetch((const char *)then + j * bytes, _MM_HINT_T1);
        four |= (uint32_t)(uint8_t)q[j * quarter + i] << 8 * j;
    }
    step.x = _mm512_set1_epi32((int32_t)four);
    return step;
}

/* A quarter of what is fetched with a step, if `fetches`: spread over its instructions, as memory
 * takes it, which compilers are kept from undoing. They do not unroll a loop around it, either, and
 * sums would go to memory and back. */
BNC_INLINE void bnc_fetch_quarter(const struct bnc_step_avx512 *step, int j, int fetches)
{
    if (!fetches)
        return;
    __asm__ volatile("" : : : "memory");
    _mm_prefetch((const char *)step->far[j], _MM_HINT_T1);
    _mm_prefetch((const char *)step->near[j], _MM_HINT_T0);
}

/* Fetches the first columns of all parts, which no step does for the first block. */
BNC_INLINE void bnc_fetch_first(const struct bnc_columns_avx512 *list, const uint8_t *w)
{
    for (int part = 0; part < list->parts && list->length > 0; part++)
        _mm_prefetch((const char *)w + 64 * (ptrdiff_t)list->column[part * list->length],
                     _MM_HINT_T1);
}

/* acc += codes * q of one token: a kernel of one block and the columns of a list. */
typedef void bnc_block_avx512(int32_t *acc, const uint8_t *w, const uint8_t *next,
                              const struct bnc_columns_avx512 *list);

/* All rows of one token, blocks of `height` rows: columns are listed once for all of them. Never
 * inlined, so that the list is on the stack only while it is in use. */
__attribute__((noinline, unused)) static void bnc_blocks_avx512(bnc_block_avx512 *block, int height,
                                                                int32_t *restrict acc,
                                                                const uint8_t *restrict w,
                                                                const int8_t *restrict q,
                                                                int32_t sum_q, int rows, int cols)
{
    const ptrdiff_t bytes = 64 * (ptrdiff_t)cols; /* of a block */
    struct bnc_columns_avx512 list;
    /* Where more than 3/5 are not zero, all are read sooner than those. */
    list.all = 5 * bnc_nonzeros_avx512(q, cols) > 3 * cols ? q : NULL;
    list.quarter = cols / 4;
    for (int m = 0; m < rows; m += 16)
        _mm512_storeu_si512(acc + m, _mm512_set1_epi32(-sum_q));
    for (int first = 0; first < cols;) {
        const uint8_t *at = w + 64 * (ptrdiff_t)first;
        first += list.all ? cols : bnc_list_avx512(&list, q + first, cols - first);
        if (!list.all)
            bnc_fetch_first(&list, at);
        for (int m = 0; m < rows; m += height, at += bytes)
            block(acc + m, at, m + height < rows ? at + bytes : at, &list);
    }
}

/* Four columns interleaved: lane 4 a + b of to[r] has the codes of byte 16 a + 4 r + b. */
BNC_INLINE void bnc_interleave_i2_m256k4(__m512i to[4], __m512i c0, __m512i c1, __m512i c2,
                                         __m512i c3)
{
    const __m512i low01 = _mm512_unpacklo_epi8(c0, c1), high01 = _mm512_unpackhi_epi8(c0, c1);
    const __m512i low23 = _mm512_unpacklo_epi8(c2, c3), high23 = _mm512_unpackhi_epi8(c2, c3);
    to[0] = _mm512_unpacklo_epi16(low01, low23);
    to[1] = _mm512_unpackhi_epi16(low01, low23);
    to[2] = _mm512_unpacklo_epi16(high01, high23);
    to[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* sum[bits][r] += the codes of four columns and 64 rows * q. */
BNC_INLINE void bnc_add_64_i2_m256k4(__m512i sum[4][4], int r, __m512i codes, __m512i x,
                                     const __m512i mask[4])
{
    for (int s = 0; s < 4; s++)
        sum[s][r] = _mm512_dpbusd_epi32(sum[s][r], _mm512_and_si512(codes, mask[s]), x);
}

/* sum[bits][register] += the codes of four columns * q; with what a step fetches, if `fetches`. */
BNC_INLINE void bnc_add_i2_m256k4(__m512i sum[4][4], const struct bnc_step_avx512 *step,
                                  const __m512i mask[4], int fetches)
{
    __m512i codes[4];
    bnc_interleave_i2_m256k4(codes, _mm512_loadu_si512(step->at[0]),
                             _mm512_loadu_si512(step->at[1]), _mm512_loadu_si512(step->at[2]),
                             _mm512_loadu_si512(step->at[3]));
    bnc_fetch_quarter(step, 0, fetches);
    bnc_add_64_i2_m256k4(sum, 0, codes[0], step->x, mask);
    bnc_fetch_quarter(step, 1, fetches);
    bnc_add_64_i2_m256k4(sum, 1, codes[1], step->x, mask);
    bnc_fetch_quarter(step, 2, fetches);
    bnc_add_64_i2_m256k4(sum, 2, codes[2], step->x, mask);
    bnc_fetch_quarter(step, 3, fetches);
    bnc_add_64_i2_m256k4(sum, 3, codes[3], step->x, mask);
}

/* acc[256] += the sums, which are 4^j times too large. */
BNC_INLINE void bnc_store_i2_m256k4(int32_t *acc, __m512i sum[4][4])
{
    for (int s = 0; s < 4; s++)
        for (int r = 0; r < 4; r++) {
            int32_t *to = acc + 64 * s + 16 * r;
            _mm512_storeu_si512(
                to, _mm512_add_epi32(_mm512_loadu_si512(to),
                                     _mm512_srai_epi32(sum[s][r], (unsigned)(6 - 2 * s))));
        }
}

/* acc[256] += codes * q: 256 rows and the columns of a list. */
BNC_KERNEL void bnc_block_i2_m256k4_avx512vnni(int32_t *acc, const uint8_t *w, const uint8_t *next,
                                               const struct bnc_columns_avx512 *list)
{
    const __m512i mask[4] = { _mm512_set1_epi8((char)0xc0), _mm512_set1_epi8(0x30),
                              _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x03) };
    __m512i sum[4][4]; /* [bits][register]: rows 64 bits + 16 register .. */
    for (int s = 0; s < 4; s++)
        for (int r = 0; r < 4; r++)
            sum[s][r] = _mm512_setzero_si512();
    if (list->all)
        for (int i = 0; i < list->quarter; i++) {
            const struct bnc_step_avx512 step = bnc_step_of_all(list->all, w, list->quarter, i);
            bnc_add_i2_m256k4(sum, &step, mask, 0);
        }
    else
        for (int i = 0; i < list->length; i++)
            for (int part = 0; part < list->parts; part += 4) {
                const struct bnc_step_avx512 step = bnc_step_of(list, w, next, part, i);
                bnc_add_i2_m256k4(sum, &step, mask, 1);
            }
    bnc_store_i2_m256k4(acc, sum);
}

/* Several tokens one after the other, where each has so many zeros that this is faster than all of
 * them together. Few go through all columns of a block, as one does: the first reads it from memory
 * and the others what they share from the second cache. Many go through columns that stay there,
 * and have the next ones fetched, of which one or another reads each. */
enum { BNC_FEW_TOKENS = 8, BNC_NEAR_COLUMNS = 1024 };

/* acc[a block] += codes * q of `count` columns, a multiple of four: list[i] is 65536 times the
 * column, plus the lower eight bits of its q. Meanwhile `lines` lines from `next` on are fetched.
 */
typedef void bnc_near_avx512(int32_t *acc, const uint8_t *w, const uint32_t *list, int count,
                             const uint8_t *next, int lines);

/* Lists those of q[cols] that are not zero, in order, and zeros up to a multiple of four. */
BNC_INLINE int bnc_list_near_avx512(uint32_t list[BNC_NEAR_COLUMNS + 16], const int8_t *q, int cols)
{
    __m512i column = _mm512_slli_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
    int count = 0;
    for (int k = 0; k < cols; k += 16) {
        const __mmask16 there = (__mmask16)(cols - k < 16 ? (1u << (cols - k)) - 1 : 0xffff);
        const __m128i x = _mm_maskz_loadu_epi8(there, q + k);
        const __mmask16 some = _mm_test_epi8_mask(x, x);
        const __m512i entry = _mm512_or_si512(_mm512_cvtepu8_epi32(x), column);
        _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(some, entry));
        count += __builtin_popcount(some);
        column = _mm512_add_epi32(column, _mm512_set1_epi32(16 << 16));
    }
    for (; count % 4; count++)
        list[count] = 0;
    return count;
}

/* Columns list[0 .. 3] of w. */
BNC_INLINE struct bnc_step_avx512 bnc_step_near(const uint8_t *w, const uint32_t *list)
{
    struct bnc_step_avx512 step;
    for (int j = 0; j < 4; j++)
        step.at[j] = w + 64 * (ptrdiff_t)(list[j] >> 16);
    const __m128i four = _mm_loadu_si128((const __m128i *)(const void *)list);
    step.x = _mm512_broadcastd_epi32(_mm_shuffle_epi8(four, _mm_set1_epi32(0x0c080400)));
    return step;
}

/* All tokens: acc = -sum of q + codes * q. Never inlined, so that the list is on the stack only
 * while it is in use. */
static __attribute__((noinline, unused)) void
bnc_each_avx512(bnc_block_avx512 *block, bnc_near_avx512 *near, int height, int32_t *restrict acc,
                const uint8_t *restrict w, const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = BNC_NEAR_COLUMNS };
    const ptrdiff_t bytes = 64 * (ptrdiff_t)cols; /* of a block */
    uint32_t list[CHUNK + 16];
    if (n <= BNC_FEW_TOKENS) {
        for (int m = 0; m < rows; m += height, w += bytes)
            for (int i = 0; i < n; i++)
                bnc_blocks_avx512(block, height, acc + i * rows + m, w,
                                  x->q + i * (ptrdiff_t)x->stride, x->sum[i], height, cols);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    for (int m = 0; m < rows; m += height, w += bytes)
        for (int first = 0; first < cols; first += CHUNK) {
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            const uint8_t *at = w + 64 * (ptrdiff_t)first, *next = at + 64 * CHUNK;
            const int lines = 1 + CHUNK / n; /* for each token */
            for (int i = 0; i < n; i++, next += 64 * lines) {
                const int8_t *q = x->q + i * (ptrdiff_t)x->stride + first;
                near(acc + i * rows + m, at, list, bnc_list_near_avx512(list, q, count), next,
                     lines);
            }
        }
}

/* bnc_near_avx512 */
BNC_KERNEL void bnc_near_i2_m256k4_avx512vnni(int32_t *acc, const uint8_t *w, const uint32_t *list,
                                              int count, const uint8_t *next, int lines)
{
    const __m512i mask[4] = { _mm512_set1_epi8((char)0xc0), _mm512_set1_epi8(0x30),
                              _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x03) };
    __m512i sum[4][4];
    for (int s = 0; s < 4; s++)
        for (int r = 0; r < 4; r++)
            sum[s][r] = _mm512_setzero_si512();
    for (int i = 0; i < count; i += 4) {
        const struct bnc_step_avx512 step = bnc_step_near(w, list + i);
        if (lines-- > 0)
            bnc_prefetch(next + 64 * lines);
        bnc_add_i2_m256k4(sum, &step, mask, 0);
    }
    bnc_store_i2_m256k4(acc, sum);
}

/* Several tokens: rows are unpacked in slices, since the codes of all rows of a block, and their
 * sums, are too many for the first cache. */
enum { BNC_SLICE = 32 };

/* The codes of rows 32 s .. 32 s + 31 of a block and `cols` columns, a multiple of four. Four
 * columns of the first sixteen rows are to[k * step], those of the others to[half + k * step]. */
typedef void bnc_unpack_slice(__m512i *to, ptrdiff_t half, int step, const uint8_t *w, int cols,
                              int s);

/* Four columns of 64 bytes each, interleaved as above: two of the four registers, the upper ones
 * where `upper`. */
BNC_INLINE void bnc_interleave_half(__m512i to[2], const uint8_t *w, int upper)
{
    const __m512i c0 = _mm512_loadu_si512(w), c1 = _mm512_loadu_si512(w + 64);
    const __m512i c2 = _mm512_loadu_si512(w + 128), c3 = _mm512_loadu_si512(w + 192);
    const __m512i c01 = upper ? _mm512_unpackhi_epi8(c0, c1) : _mm512_unpacklo_epi8(c0, c1);
    const __m512i c23 = upper ? _mm512_unpackhi_epi8(c2, c3) : _mm512_unpacklo_epi8(c2, c3);
    to[0] = _mm512_unpacklo_epi16(c01, c23);
    to[1] = _mm512_unpackhi_epi16(c01, c23);
}

BNC_KERNEL void bnc_unpack_i2_m256k4(__m512i *to, ptrdiff_t half, int step, const uint8_t *w,
                                     int cols, int s)
{
    const __m512i low2 = _mm512_set1_epi8(3), shift = _mm512_set1_epi16((short)(6 - s / 2 * 2));
    for (int k = 0; k < cols / 4; k++, w += 256, to += step) {
        __m512i codes[2];
        bnc_interleave_half(codes, w, s % 2);
        for (int h = 0; h < 2; h++)
            to[h * half] = _mm512_and_si512(_mm512_srlv_epi16(codes[h], shift), low2);
    }
}

/* acc += codes * q of columns `from` .. cols - 1 and several tokens, two slices at a time. A block
 * has `slices` times 32 rows, an even number that is constant once inlined, and 64 bytes a column.
 */
BNC_INLINE void bnc_add_slices_avx512vnni(bnc_unpack_slice *unpack, int slices,
                                          int32_t *restrict acc, const uint8_t *restrict w,
                                          const struct bnc_acts *x, int rows, int cols, int n,
                                          int from)
{
    enum { CHUNK = BNC_VNNI_COLUMNS, SLICE = BNC_SLICE };
    const ptrdiff_t bytes = 64 * (ptrdiff_t)cols;              /* of a block */
    const uint8_t *next = w + rows / (slices * SLICE) * bytes; /* what the next call reads */
    for (int m = 0; m < rows; m += 2 * SLICE) {
        __m512i codes[CHUNK]; /* four registers for four columns */
        const int s = m / SLICE % slices;
        const uint8_t *block = w + m / (slices * SLICE) * bytes;
        for (int first = from; first < cols; first += CHUNK) {
            const int count = cols - first < CHUNK ? cols - first : CHUNK;
            const int part = 64 * count / slices; /* of the bytes to come, for each slice */
            for (int half = 0; half < 2; half++)
                unpack(codes + 2 * half, 1, 4, block + 64 * (ptrdiff_t)first, count, s + half);
            bnc_tokens_avx512vnni(acc + m, rows, codes, x, first, 4, count / 4, n,
                                  next + 64 * (ptrdiff_t)first + s * part, 2 * part);
        }
    }
}

BNC_KERNEL void bnc_matmul_i2_m256k4_avx512vnni(int32_t *restrict acc, const uint8_t *restrict w,
                                                const struct bnc_acts *x, int rows, int cols, int n)
{
    if (n == 1) {
        bnc_blocks_avx512(bnc_block_i2_m256k4_avx512vnni, BNC_I2_M256K4_ROWS, acc, w, x->q,
                          x->sum[0], rows, cols);
        return;
    }
    enum { EACH = 24, ONCE = 300 }; /* see bnc_one_by_one() */
    if (bnc_columns_one_by_one(x, cols, n, EACH, ONCE)) {
        bnc_each_avx512(bnc_block_i2_m256k4_avx512vnni, bnc_near_i2_m256k4_avx512vnni,
                        BNC_I2_M256K4_ROWS, acc, w, x, rows, cols, n);
        return;
    }
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m += 16)
            _mm512_storeu_si512(acc + i * rows + m, _mm512_set1_epi32(-x->sum[i]));
    bnc_add_slices_avx512vnni(bnc_unpack_i2_m256k4, 8, acc, w, x, rows, cols, n, 0);
}

#endif
