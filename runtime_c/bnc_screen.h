/* SPDX-License-Identifier: MIT */
/* The screened head: rule 9 of docs/arithmetic.md. Logits of 8-bit integers c[m][k], of which only
 * rows are read that may matter, as a ternary matrix t close to them says.
 *
 *     rough[m] = (float)(t q)[m] * (a[m] / s)
 *     exact[m] = (float)(c q)[m] * (d[m] / s)
 *     least    = the tenth largest exact logit of the 64 rows whose rough ones are the largest
 *     reach    = 4 * sqrt(sum of q^2) / s
 *     y[m]     = rough[m] where rough[m] + reach * e[m] < least, exact[m] elsewhere
 *
 * e[m] is the root mean square of a[m] t - d[m] c, so that reach * e[m] is four times the spread of
 * exact - rough for a state that does not know t. A row's value does not depend on how rows are cut
 * into tiles or shared by workers: equal rough logits are listed in order of rows, and each worker
 * makes the list of all from the lists of each.
 * Bounds: |c q| <= 127 * 127 a column: int32 lasts for 133,144 columns. */
#ifndef BNC_SCREEN_H
#define BNC_SCREEN_H

#if defined(__SSE4_1__)
#include <smmintrin.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

#include "bnc_linear.h"
#include "bnc_rows.h"
#include "bnc_streams.h"

enum {
    BNC_SCREEN_LIST = 64,   /* rows listed, */
    BNC_SCREEN_BEST = 10,   /* and that one of them, by its exact logit, which decides */
    BNC_SCREEN_CHUNK = 256, /* rows that a worker looks at together */
    BNC_SCREEN_COLS = 256,  /* columns of a row that are read before those of the next */
};

/* Of one token: rows in order of their rough logits, the largest first. */
struct bnc_screen_list {
    int32_t count;
    float
        least; /* what a rough logit must be above to be listed; -infinity until the list is full */
    int32_t row[BNC_SCREEN_LIST];
    float rough[BNC_SCREEN_LIST];
};

/* The integers of 8 bits: rows `stride` apart, a multiple of 64; zeros behind the last column. */
struct bnc_screen_rows {
    const int8_t *c;
    const float *scale; /* d */
    int rows, stride;
};

/* Token i alone. */
BNC_INLINE struct bnc_acts bnc_one_token(const struct bnc_acts *x, int i)
{
    struct bnc_acts one = *x;
    one.q += (ptrdiff_t)i * x->stride;
    one.sum += i;
    one.scale += i;
    return one;
}

BNC_INLINE void bnc_screen_clear(struct bnc_screen_list *list)
{
    list->count = 0;
    list->least = -__builtin_inff();
}

/* Lists a row, unless its rough logit is too small; it is behind all rows offered before. */
BNC_INLINE void bnc_screen_offer(struct bnc_screen_list *list, int32_t row, float rough)
{
    if (!(rough > list->least))
        return;
    int at = list->count < BNC_SCREEN_LIST ? list->count++ : BNC_SCREEN_LIST - 1;
    for (; at > 0 && rough > list->rough[at - 1]; at--) {
        list->row[at] = list->row[at - 1];
        list->rough[at] = list->rough[at - 1];
    }
    list->row[at] = row;
    list->rough[at] = rough;
    if (list->count == BNC_SCREEN_LIST)
        list->least = list->rough[BNC_SCREEN_LIST - 1];
}

/* Lists of n tokens: in a worker's scratch, behind the sums of a tile. */
BNC_INLINE struct bnc_screen_list *bnc_screen_lists(const struct bnc_linear *l, int32_t *acc, int n)
{
    const int rows = l->slice && n > 1 ? l->slice : l->tile;
    return (struct bnc_screen_list *)(void *)(acc + rows * n);
}

BNC_INLINE void bnc_screen_tiles(const struct bnc_worker *worker, const struct bnc_linear *l,
                                 float *y, int y_stride, const uint8_t *w, const float *scale,
                                 const struct bnc_acts *x, int n, int32_t *acc)
{
    struct bnc_screen_list *lists = bnc_screen_lists(l, acc, n);
    int begin, end;
    bnc_share(worker, bnc_tiles(l), &begin, &end);
    for (int i = 0; i < n; i++)
        bnc_screen_clear(&lists[i]);
    for (int tile = begin; tile < end; tile++) {
        const int m0 = tile * l->tile, rows = bnc_tile_rows(l, tile);
        bnc_tile(l, acc, w, x, tile, n);
        for (int i = 0; i < n; i++) {
            float *restrict out = y + (ptrdiff_t)i * y_stride + m0;
            const int32_t *a = acc + i * l->tile;
            for (int m = 0; m < rows; m++)
                out[m] = bnc_rescale(a[m], scale + m0, 1, m, x->scale[i]);
            for (int m = 0; m < rows; m++)
                bnc_screen_offer(&lists[i], m0 + m, out[m]);
        }
    }
}

/* Rough logits of n tokens: y[i][m], rows y_stride apart; and this worker's lists of them. */
BNC_INLINE void bnc_screen_rough(const struct bnc_worker *worker, const struct bnc_linear *l,
                                 float *y, int y_stride, const uint8_t *w, const float *scale,
                                 const struct bnc_acts *x, int n, int32_t *acc)
{
    if (l->slice && n > 1) {
        const struct bnc_linear slices = bnc_sliced(l);
        bnc_screen_tiles(worker, &slices, y, y_stride, w, scale, x, n, acc);
    } else
        bnc_screen_tiles(worker, l, y, y_stride, w, scale, x, l->slice ? 1 : n, acc);
}

/* sum of c[k] * q[k]; cols is a multiple of 64. Compilers multiply in lanes of 32 bits where these
 * have instructions for pairs of products; elsewhere they find theirs. */
BNC_INLINE int32_t bnc_screen_dot(const int8_t *c, const int8_t *q, int cols)
{
#if defined(__SSE4_1__) && !defined(__AVX2__)
    __m128i sum = _mm_setzero_si128();
    for (int k = 0; k < cols; k += 8) {
        const __m128i a =
            _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)(c + k)));
        const __m128i b =
            _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)(q + k)));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(a, b));
    }
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_extract_epi32(sum, 0) + _mm_extract_epi32(sum, 1);
#elif defined(__wasm_simd128__)
    v128_t sum = wasm_i32x4_splat(0);
    for (int k = 0; k < cols; k += 16) {
        const v128_t a = wasm_v128_load(c + k), b = wasm_v128_load(q + k);
        const v128_t low = wasm_i16x8_extmul_low_i8x16(a, b);
        const v128_t high = wasm_i16x8_extmul_high_i8x16(a, b);
        sum = wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(low));
        sum = wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(high));
    }
    return wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1) +
           wasm_i32x4_extract_lane(sum, 2) + wasm_i32x4_extract_lane(sum, 3);
#else
    int32_t sum = 0;
    for (int k = 0; k < cols; k++)
        sum += c[k] * q[k];
    return sum;
#endif
}

/* sum[i] = sum of c[row[i]][k] * q[k], i < count <= listed; rows up to row[listed - 1] may be
 * fetched ahead. Four rows are read side by side, as rows of ternary matrices are. */
BNC_INLINE void bnc_screen_sums(int32_t *sum, const struct bnc_screen_rows *r, const int8_t *q,
                                const int32_t *row, int count, int listed)
{
    for (int i = 0; i < count; i += 4) {
        const struct bnc_rows rows =
            bnc_rows_listed((const uint8_t *)r->c, r->stride, row, i, count, listed);
        int32_t four[4] = { 0, 0, 0, 0 };
        for (int k0 = 0; k0 < r->stride; k0 += BNC_SCREEN_COLS) {
            const int end = r->stride - k0 < BNC_SCREEN_COLS ? r->stride : k0 + BNC_SCREEN_COLS;
            for (int j = 0; j < 4; j++) {
                bnc_prefetch_lines(rows.next[j] + k0, (end - k0) / 64);
                four[j] += bnc_screen_dot((const int8_t *)rows.at[j] + k0, q + k0, end - k0);
            }
        }
        for (int j = 0; j < 4 && i + j < count; j++)
            sum[i + j] = four[j];
    }
}

/* The logit that others must be able to reach: of token i, by the lists of all workers. Below ten
 * listed rows it is -infinity. */
BNC_INLINE float bnc_screen_least(const struct bnc_worker *worker, const struct bnc_linear *l,
                                  const struct bnc_screen_rows *r, const struct bnc_acts *one,
                                  int i, int n, int32_t *acc, size_t thread_bytes)
{
    struct bnc_screen_list all;
    int32_t sum[BNC_SCREEN_LIST];
    float y[BNC_SCREEN_LIST];
    uint8_t *first = (uint8_t *)acc - (size_t)worker->index * thread_bytes;
    bnc_screen_clear(&all);
    for (int other = 0; other < worker->count; other++) {
        int32_t *its = (int32_t *)(void *)(first + (size_t)other * thread_bytes);
        const struct bnc_screen_list *list = bnc_screen_lists(l, its, n) + i;
        for (int j = 0; j < list->count; j++)
            bnc_screen_offer(&all, list->row[j], list->rough[j]);
    }
    if (all.count < BNC_SCREEN_BEST)
        return -__builtin_inff();
    bnc_screen_sums(sum, r, one->q, all.row, all.count, all.count);
    for (int j = 0; j < all.count; j++)
        y[j] = bnc_rescale(sum[j], r->scale, 1, all.row[j], one->scale[0]);
    for (int j = 0; j < BNC_SCREEN_BEST; j++) /* the largest of those behind comes to place j */
        for (int k = j + 1; k < all.count; k++)
            if (y[k] > y[j]) {
                const float swap = y[j];
                y[j] = y[k];
                y[k] = swap;
            }
    return y[BNC_SCREEN_BEST - 1];
}

/* 4 * sqrt(sum of q^2) / s of a token; the columns are cut into pieces that int32 holds. */
BNC_INLINE float bnc_screen_reach(const struct bnc_acts *one, int cols)
{
    float total = 0.0f;
    for (int first = 0; first < cols; first += 65536) {
        int32_t sum = 0;
        for (int k = first; k < cols && k < first + 65536; k++)
            sum += one->q[k] * one->q[k];
        total += (float)sum;
    }
    return 4.0f * bnc_sqrt(total) / one->scale[0];
}

/* y[m] = exact[m] for the rows listed in order. */
BNC_INLINE void bnc_screen_replace(const struct bnc_screen_rows *r, float *y, const int32_t *row,
                                   int count, const struct bnc_acts *one)
{
    int32_t sum[BNC_SCREEN_LIST];
    for (int i = 0; i < count; i += BNC_SCREEN_LIST) {
        const int some = count - i < BNC_SCREEN_LIST ? count - i : BNC_SCREEN_LIST;
        bnc_screen_sums(sum, r, one->q, row + i, some, count - i);
        for (int j = 0; j < some; j++)
            y[row[i + j]] = bnc_rescale(sum[j], r->scale, 1, row[i + j], one->scale[0]);
    }
}

/* Replaces what may matter of the rough logits, all of which are known, by exact ones; every worker
 * calls it. Rows are dealt out in chunks, because those that matter are often neighbours. Leaves in
 * acc[0] how many rows this worker replaced. */
BNC_INLINE void bnc_screen_exact(const struct bnc_worker *worker, const struct bnc_linear *l,
                                 const struct bnc_screen_rows *r, float *y, int y_stride,
                                 const float *error, const struct bnc_acts *x, int n, int32_t *acc,
                                 size_t thread_bytes)
{
    int32_t row[2 * BNC_SCREEN_CHUNK], replaced = 0;
    for (int i = 0; i < n; i++) {
        const struct bnc_acts one = bnc_one_token(x, i);
        const float reach = bnc_screen_reach(&one, r->stride);
        const float least = bnc_screen_least(worker, l, r, &one, i, n, acc, thread_bytes);
        float *rough = y + (ptrdiff_t)i * y_stride;
        int count = 0;
        for (int m0 = worker->index * BNC_SCREEN_CHUNK; m0 < r->rows;
             m0 += worker->count * BNC_SCREEN_CHUNK) {
            const int end = r->rows - m0 < BNC_SCREEN_CHUNK ? r->rows : m0 + BNC_SCREEN_CHUNK;
            for (int m = m0; m < end; m++) {
                row[count] = m;
                count += !(rough[m] + reach * error[m] < least);
            }
            if (count < BNC_SCREEN_CHUNK)
                continue;
            bnc_screen_replace(r, rough, row, count, &one);
            replaced += count;
            count = 0;
        }
        bnc_screen_replace(r, rough, row, count, &one);
        replaced += count;
    }
    acc[0] = replaced;
}

#endif
