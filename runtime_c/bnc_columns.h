/* SPDX-License-Identifier: MIT */
/* Columns of a token whose activation is not zero, for kernels that read no others. */
#ifndef BNC_COLUMNS_H
#define BNC_COLUMNS_H

#include "bnc_lanes.h"
#include "bnc_quantise.h"

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

/* acc += codes * q of one token: a block of rows, of which a column is 64 bytes, and the columns of
 * a list, while those of `next` are fetched. */
typedef void bnc_columns_kernel(int32_t *restrict acc, const uint8_t *restrict w,
                                const int8_t *restrict q, const struct bnc_columns *list,
                                const struct bnc_columns *next);

/* acc = -sum of q + codes * q: blocks of `height` rows, and tokens one after the other, since each
 * has its own zeros. A kernel that takes whole steps of columns reads up to `behind` <= 4 behind a
 * list, which are its first one, times zero. */
BNC_INLINE void bnc_walk_columns(bnc_columns_kernel *kernel, int height, int behind,
                                 int32_t *restrict acc, const uint8_t *restrict w,
                                 const struct bnc_acts *x, int rows, int cols, int n)
{
    enum { CHUNK = 256 }; /* columns that all tokens go through while their lines are in L1 */
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] = -x->sum[i];
    for (int m = 0; m < rows; m += height, w += 64 * (ptrdiff_t)cols)
        for (int first = 0; first < cols; first += n == 1 ? cols : CHUNK) {
            const int end = n == 1 || cols - first < CHUNK ? cols : first + CHUNK;
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
                struct bnc_columns list[2];
                bnc_list_columns(&list[0], q, first, end);
                for (int turn = 0; list[turn].count; turn = !turn) {
                    struct bnc_columns *now = &list[turn];
                    bnc_list_columns(&list[!turn], q, now->end, end);
                    for (int j = 0; j < behind; j++)
                        now->column[now->count + j] = now->column[0];
                    kernel(acc + i * rows + m, w, q, now, &list[!turn]);
                }
            }
        }
}

#endif
