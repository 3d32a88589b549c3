/* SPDX-License-Identifier: MIT */
/* Four rows of a layout in which rows are contiguous, and the four that are fetched meanwhile. */
#ifndef BNC_ROWS_H
#define BNC_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "bnc_lanes.h"

enum { BNC_ROWS_AHEAD = 8 }; /* from a row to the one that is fetched with it */

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
