/* SPDX-License-Identifier: MIT */
/* Signs of four columns as an index of a table: what kernels of layout b1_m128k8 share.
 *
 *     sum over k of sign * q = 2 * sum over k of [sign is q's] * |q| - sum of |q|
 *
 * For four columns the first sum is one of sixteen, from 0 to the sum of the magnitudes, which
 * rarely exceeds a byte: activations have 127 where they are largest. Where it does, the table is
 * that of the first two columns, and the quad is looked up again in another one. Tables are made by
 * the kernel, 512 columns for 128 rows or more, which costs a quarter of the look-ups.
 * Bounds: 128 quads, each looked up twice at most, are 65,280 in 16 bits. int32 lasts for 8.4
 * million columns. */
#ifndef BNC_QUADS_H
#define BNC_QUADS_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_QUADS = 128 /* of columns summed in 16 bits */ };
_Static_assert(BNC_QUADS * 2 * 255 <= 65535, "lanes of 16 bits");
_Static_assert(BNC_B1_M128K8_ROWS == 128 && BNC_B1_M128K8_COLS == 8, "unrolled by hand");

/* Of one token: entry c of a table is for signs c, of which the highest bit is the first column. */
struct bnc_quads {
    uint8_t table[BNC_QUADS][16];
    uint8_t again[BNC_QUADS][16]; /* of the last two columns of wide quads, `wides` of them */
    uint8_t wide[BNC_QUADS];      /* which these are */
    int wides;
    int32_t sum;  /* of all magnitudes */
    int32_t most; /* the largest sum of a quad's */
};

/* table, sum and most of `count` quads, an even number; entries without what is above a byte */
typedef void bnc_quads_make(struct bnc_quads *t, const int8_t *q, int count);

/* acc[128] += 2 * look-ups - sum */
typedef void bnc_quads_add(int32_t *acc, const uint8_t *w, const struct bnc_quads *t, int count);

/* Two magnitudes as a table: the first counts where bit `high` of the index is its sign. */
BNC_INLINE void bnc_two_signs(uint8_t *table, const int8_t *q, int high)
{
    for (int c = 0; c < 16; c++) {
        const int a = c >> high & 1 ? q[0] : -q[0], b = c >> (high - 1) & 1 ? q[1] : -q[1];
        table[c] = (uint8_t)((a > 0 ? a : 0) + (b > 0 ? b : 0));
    }
}

BNC_INLINE void bnc_find_wide_quads(struct bnc_quads *t, const int8_t *q, int count)
{
    t->wides = 0;
    for (int j = 0; j < count && t->most > 255; j++, q += 4) {
        int sum = 0;
        for (int k = 0; k < 4; k++)
            sum += q[k] < 0 ? -q[k] : q[k];
        if (sum > 255) {
            bnc_two_signs(t->table[j], q, 3);
            bnc_two_signs(t->again[t->wides], q + 2, 1);
            t->wide[t->wides++] = (uint8_t)j;
        }
    }
}

/* The kernel: 512 columns of all rows, for one token after the other. */
BNC_INLINE void bnc_look_up_quads(bnc_quads_make *make, bnc_quads_add *add, int32_t *restrict acc,
                                  const uint8_t *restrict w, const struct bnc_acts *x, int rows,
                                  int cols, int n)
{
    enum { ROWS = BNC_B1_M128K8_ROWS, COLS = 4 * BNC_QUADS };
    struct bnc_quads t;
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int first = 0; first < cols; first += COLS) {
        const int count = (cols - first < COLS ? cols - first : COLS) / 4;
        for (int i = 0; i < n; i++) {
            const int8_t *q = x->q + i * x->stride + first;
            make(&t, q, count);
            bnc_find_wide_quads(&t, q, count);
            for (int m = 0; m < rows; m += ROWS) {
                const ptrdiff_t at = ((ptrdiff_t)m * cols + (ptrdiff_t)first * ROWS) / 8;
                add(acc + i * rows + m, w + at, &t, count);
            }
        }
    }
}

#endif
