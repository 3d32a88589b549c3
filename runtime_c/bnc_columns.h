/* SPDX-License-Identifier: MIT */
/* Columns of a token whose activation is not zero, for kernels that read no others. */
#ifndef BNC_COLUMNS_H
#define BNC_COLUMNS_H

#include "bnc_lanes.h"

enum { BNC_COLUMNS = 128 }; /* listed at a time: what sums of int16 hold, see the kernels' bounds */

struct bnc_columns {
    int32_t column[BNC_COLUMNS + 4]; /* in order */
    int count;                       /* at most BNC_COLUMNS */
    int end;                         /* where the next list begins */
};

/* Lists columns of q[cols] from `first` on, until the list is full or all are listed; an activation
 * of zero is written and then overwritten, which needs no branch. */
BNC_INLINE void bnc_list_columns(struct bnc_columns *list, const int8_t *q, int first, int cols)
{
    int count = 0, k = first;
    while (k < cols && count < BNC_COLUMNS) {
        const int room = BNC_COLUMNS - count;
        const int stop = cols - k < room ? cols : k + room;
        for (; k < stop; k++) {
            list->column[count] = k;
            count += q[k] != 0;
        }
    }
    list->count = count;
    list->end = k;
}

#endif
