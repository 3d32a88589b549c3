/* SPDX-License-Identifier: MIT */
/* The screened head: rule 9 of docs/arithmetic.md. Logits of 8-bit integers c[m][k], of which all
 * rows read the upper halves and only rows that may matter the lower ones.
 *
 *     c = 16 h + l + 8,   h and l in -8 .. 7,   E = 8 * sum of q
 *     rough[m]  = (16 * (h q)[m] + E) * r[m],   r[m] = weight_scale[m] / act_scale
 *     margin[m] = 28 * sqrt(sum of q^2) * r[m]
 *     y[m] = (16 * (h q)[m] + (l q)[m] + E) * r[m]   where rough[m] + margin[m] reaches the largest
 *                                                  rough - margin of all rows; else rough[m]
 *
 * What l adds has a spread of 4.6 sqrt(sum of q^2) when its digits are even: the margin is six of
 * them on each side. A row's value does not depend on how rows are cut into tiles.
 * Bounds: |16 h q + l q + 8 q| <= 127 * 127 a column; int32 lasts for 132,103 columns. */
#ifndef BNC_SCREEN_H
#define BNC_SCREEN_H

#include "bnc_linear.h"

/* Token i alone. */
BNC_INLINE struct bnc_acts bnc_one_token(const struct bnc_acts *x, int i)
{
    struct bnc_acts one = *x;
    one.q += (ptrdiff_t)i * x->stride;
    one.sum += i;
    one.scale += i;
    return one;
}

/* Rough logits of n tokens: y[i][m], rows y_stride apart. upper: h, packed. */
BNC_INLINE void bnc_screen_rough(const struct bnc_worker *worker, const struct bnc_linear *l,
                                 float *y, int y_stride, const uint8_t *upper, const float *scale,
                                 const struct bnc_acts *x, int n, int32_t *acc)
{
    int begin, end;
    bnc_share(worker, bnc_tiles(l), &begin, &end);
    for (int tile = begin; tile < end; tile++) {
        const int m0 = tile * l->tile, rows = bnc_tile_rows(l, tile);
        bnc_tile(l, acc, upper, x, tile, n);
        for (int i = 0; i < n; i++)
            for (int m = 0; m < rows; m++)
                y[(ptrdiff_t)i * y_stride + m0 + m] = bnc_rescale(
                    16 * acc[i * l->tile + m] + 8 * x->sum[i], scale + m0, 1, m, x->scale[i]);
    }
}

/* 28 * sqrt(sum of q^2) of a token; the columns are cut into pieces that int32 holds. */
BNC_INLINE float bnc_screen_margin(const int8_t *q, int cols)
{
    float total = 0.0f;
    for (int first = 0; first < cols; first += 65536) {
        int32_t sum = 0;
        for (int k = first; k < cols && k < first + 65536; k++)
            sum += q[k] * q[k];
        total += (float)sum;
    }
    return 28.0f * bnc_sqrt(total);
}

/* Replaces what may matter of the rough logits, all of which are known, by exact ones; every worker
 * calls it. acc holds two tiles. lower: l, packed as h is. */
BNC_INLINE void bnc_screen_exact(struct bnc_worker *worker, const struct bnc_linear *l, float *y,
                                 int y_stride, const uint8_t *upper, const uint8_t *lower,
                                 const float *scale, const struct bnc_acts *x, int n, int32_t *acc)
{
    int begin, end;
    bnc_share(worker, bnc_tiles(l), &begin, &end);
    for (int i = 0; i < n; i++) {
        const struct bnc_acts one = bnc_one_token(x, i);
        const float margin = bnc_screen_margin(one.q, l->cols), act_scale = one.scale[0];
        float *row = y + (ptrdiff_t)i * y_stride;
        float least = row[0] - margin * (scale[0] / act_scale);
        for (int m = 1; m < l->rows; m++) {
            const float sure = row[m] - margin * (scale[m] / act_scale);
            least = sure > least ? sure : least;
        }
        bnc_sync(worker); /* no row is replaced before all workers have seen all of them */
        for (int tile = begin; tile < end; tile++) {
            const int m0 = tile * l->tile, rows = bnc_tile_rows(l, tile);
            int known = 0;
            for (int m = 0; m < rows; m++) {
                if (row[m0 + m] + margin * (scale[m0 + m] / act_scale) < least)
                    continue;
                if (!known) {
                    bnc_tile(l, acc, upper, &one, tile, 1);
                    bnc_tile(l, acc + l->tile, lower, &one, tile, 1);
                    known = 1;
                }
                row[m0 + m] = bnc_rescale(16 * acc[m] + acc[l->tile + m] + 8 * one.sum[0],
                                          scale + m0, 1, m, act_scale);
            }
        }
    }
}

#endif
