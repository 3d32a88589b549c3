/* SPDX-License-Identifier: MIT */
/* Rows of a layout in which they are contiguous: lists of those that are read, and four of them
 * with the four that are fetched meanwhile. */
#ifndef BNC_ROWS_H
#define BNC_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "bnc_lanes.h"

/* A list of rows is read in BNC_ROWS_PARTS parts side by side: where rows follow each other, the
 * prefetcher of an x86 core fetches those between, too. One part elsewhere: the list as it is. */
enum {
    BNC_ROWS_AHEAD = 8, /* from a row to the one that is fetched with it */
    BNC_ROWS_PARTS = BNC_VECTOR == 16 ? 16 : 1,
    BNC_ROWS_LISTED = BNC_VECTOR == 16 ? 2048 : 1024, /* rows looked at at a time */
    BNC_ROWS_SLACK = 16 /* what bnc_list_rows() may write behind its list */
};

/* Lists the rows first .. last - 1 whose y is not +-0, or whose scale is not in -safe .. safe;
 * returns how many. scale: of row 0, or of all of them */
BNC_INLINE int bnc_list_rows(int32_t *row, const float *y, const float *scale, int per_row,
                             float safe, int first, int last)
{
    int listed = 0, m = first;
#if defined(__AVX512F__)
    const __m512 high = _mm512_set1_ps(safe), low = _mm512_set1_ps(-safe);
    __m512i rows =
        _mm512_add_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                         _mm512_set1_epi32(m));
    for (; m + 16 <= last; m += 16) {
        const __m512 d = per_row ? _mm512_loadu_ps(scale + m) : _mm512_set1_ps(scale[0]);
        const unsigned some =
            _mm512_cmp_ps_mask(_mm512_loadu_ps(y + m), _mm512_setzero_ps(), _CMP_NEQ_UQ) |
            _mm512_cmp_ps_mask(d, high, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(d, low, _CMP_NGE_UQ);
        _mm512_storeu_si512(row + listed, _mm512_maskz_compress_epi32((__mmask16)some, rows));
        listed += __builtin_popcount(some);
        rows = _mm512_add_epi32(rows, _mm512_set1_epi32(16));
    }
#endif
    for (; m < last; m++) {
        const float d = scale[per_row ? m : 0];
        row[listed] = m;
        listed += !(y[m] == 0.0f) | !(d <= safe && d >= -safe);
    }
    return listed;
}

/* to[0 .. count) = the rows from the i-th on in the order in which a list of `listed` is read: the
 * first ones of all parts, then the second ones, and last what is left behind whole parts. */
BNC_INLINE void bnc_order_rows(int32_t *to, const int32_t *row, int listed, int i, int count)
{
    const int length = listed / BNC_ROWS_PARTS;
    for (int j = 0; j < count; j++) {
        const int at = i + j, part = at % BNC_ROWS_PARTS;
        to[j] = row[at < length * BNC_ROWS_PARTS ? part * length + at / BNC_ROWS_PARTS : at];
    }
}

struct bnc_rows {
    const uint8_t *at[4];
    const uint8_t *next[4];
};

/* Rows row[i .. i + 3] of `bytes` each. Beyond row[count - 1] that row again, whose sums nobody
 * stores; fetched are rows up to row[listed - 1], listed >= count > i. */
BNC_INLINE struct bnc_rows bnc_rows_listed(const uint8_t *w, ptrdiff_t bytes, const int32_t *row,
                                           int i, int count, int listed)
{
    struct bnc_rows rows;
    for (int r = 0; r < 4; r++) {
        const int ahead = i + BNC_ROWS_AHEAD + r;
        rows.at[r] = w + bytes * row[i + r < count ? i + r : count - 1];
        rows.next[r] = w + bytes * row[ahead < listed ? ahead : listed - 1];
    }
    return rows;
}

/* Rows m .. m + 3; beyond row end - 1 > m - 1 that row again. What is fetched behind the matrix is
 * mostly the next one; a fetch never fails. */
BNC_INLINE struct bnc_rows bnc_rows_from(const uint8_t *w, ptrdiff_t bytes, int m, int end)
{
    struct bnc_rows rows;
    for (int r = 0; r < 4; r++) {
        rows.at[r] = w + bytes * (m + r < end ? m + r : end - 1);
        rows.next[r] = w + bytes * (m + BNC_ROWS_AHEAD + r);
    }
    return rows;
}

#endif
