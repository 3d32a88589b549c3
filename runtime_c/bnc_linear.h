/* SPDX-License-Identifier: MIT */
/* Ternary matrices applied to a batch of tokens: rule 4 of docs/arithmetic.md.
 *
 *     acc[i][m] = sum over k of trit[m][k] * q[i][k]                    exact, int32
 *     y[i][m]   = (float)acc[i][m] * (weight_scale[m] / act_scale[i])
 *
 * A kernel computes acc for a tile of rows; the functions here walk this worker's tiles and
 * finish each while it is in cache. They are inlined with a constant `struct bnc_linear`, so that
 * the kernel is called directly and its shape is known to the compiler.
 */
#ifndef BNC_LINEAR_H
#define BNC_LINEAR_H

#include "bnc_quantise.h"
#include "bnc_rows.h"
#include "bnc_streams.h"
#include "bnc_threads.h"

/* acc[i * rows + m] for i < n and m < rows.
 * w:    the packed rows, whole blocks of the kernel's layout
 * x:    n tokens in the kernel's activation form
 * cols: whole blocks; at most the kernel's max_cols (bitnetc/kernels.py) */
typedef void bnc_matmul(int32_t *restrict acc, const uint8_t *restrict w, const struct bnc_acts *x,
                        int rows, int cols, int n);

/* acc[i] = row row[i] of the matrix applied to the first token, i < count; other rows are not read.
 * row: none twice; the kernel may fetch those up to row[listed - 1] ahead, listed >= count > 0 */
typedef void bnc_matmul_rows(int32_t *restrict acc, const uint8_t *restrict w,
                             const struct bnc_acts *x, const int32_t *row, int count, int listed,
                             int cols);

struct bnc_linear {
    bnc_matmul *kernel;
    bnc_matmul_rows *chosen; /* null when rows cannot be chosen */
    int rows;                /* of the matrix itself */
    int cols;                /* padded to whole blocks */
    int tile;                /* rows computed at a time: whole blocks */
    int tile_bytes;          /* packed bytes of one tile */
    int per_row;             /* weight scale: 0 one per matrix, 1 one per row */
    int before;              /* tiles of other matrices in a list of tiles, */
    int listed;              /* which has so many; 0: the tiles of this matrix are the list */
    int together;            /* tiles of one token for a call of the kernel; 0: one */
    int slice; /* rows of a tile computed at a time for several tokens, so that their sums stay in
                * the first cache; a divisor of tile, 0: all of them */
    int each;  /* of a kernel that chooses rows, see bnc_one_by_one(); 0: several tokens read all */
    int once;
};

/* Bytes of acc for one tile of `rows` and n tokens. */
#define BNC_ACC_BYTES(rows, n) (sizeof(int32_t) * (size_t)(rows) * (size_t)(n))

BNC_INLINE int bnc_tiles(const struct bnc_linear *l)
{
    return (l->rows + l->tile - 1) / l->tile;
}

/* This worker's tiles [begin, end): it takes a part of the list, in which this matrix is a part. */
BNC_INLINE void bnc_share_tiles(const struct bnc_worker *worker, const struct bnc_linear *l,
                                int *begin, int *end)
{
    const int tiles = bnc_tiles(l);
    bnc_share(worker, l->listed ? l->listed : tiles, begin, end);
    *begin = *begin > l->before ? *begin - l->before : 0;
    *end = *end - l->before < tiles ? *end - l->before : tiles;
}

/* Real rows of a tile: the last one may end in padding. */
BNC_INLINE int bnc_tile_rows(const struct bnc_linear *l, int tile)
{
    const int left = l->rows - tile * l->tile;
    return left < l->tile ? left : l->tile;
}

/* Rows of the tile behind `tile`, whose outputs of several tokens are fetched while those of this
 * one are written: they lie far apart, where no prefetcher of the processor sees them come. */
BNC_INLINE int bnc_rows_ahead(const struct bnc_linear *l, int tile, int end, int n)
{
    return n > 1 && tile + 1 < end ? bnc_tile_rows(l, tile + 1) : 0;
}

BNC_INLINE void bnc_tile(const struct bnc_linear *l, int32_t *acc, const uint8_t *w,
                         const struct bnc_acts *x, int tile, int n)
{
    l->kernel(acc, w + (ptrdiff_t)tile * l->tile_bytes, x, l->tile, l->cols, n);
}

/* As many of tiles tile .. end - 1 as one call computes: acc[n][rows of them]. A kernel that lists
 * columns lists them once for all. Returns how many these are. */
BNC_INLINE int bnc_some_tiles(const struct bnc_linear *l, int32_t *acc, const uint8_t *w,
                              const struct bnc_acts *x, int tile, int end, int n)
{
    const int most = n == 1 && l->together ? l->together : 1;
    const int count = end - tile < most ? end - tile : most;
    l->kernel(acc, w + (ptrdiff_t)tile * l->tile_bytes, x, count * l->tile, l->cols, n);
    return count;
}

/* The same matrix in tiles of a slice each. */
BNC_INLINE struct bnc_linear bnc_sliced(const struct bnc_linear *l)
{
    const int slices = l->tile / l->slice;
    struct bnc_linear s = *l;
    s.tile = l->slice;
    s.tile_bytes = l->tile_bytes / slices;
    s.before = l->before * slices;
    s.listed = l->listed * slices;
    s.slice = 0;
    return s;
}

/* Whether n tokens take less time one after the other, each skipping what it need not read, than
 * together. Of `all` rows or columns they read `read`, counted over the tokens.
 * each, once: what n tokens cost together, n * each + once, in hundredths of one alone that skips
 * nothing and finds its weights in a cache, as all but the first do */
BNC_INLINE int bnc_one_by_one(int64_t read, int all, int n, int each, int once)
{
    return 100 * read < (int64_t)all * (n * each + once);
}

/* The same of a kernel that skips the columns of zeros. Of many tokens some are looked at. */
BNC_INLINE int bnc_columns_one_by_one(const struct bnc_acts *x, int cols, int n, int each, int once)
{
    const int step = 1 + n / 16;
    int64_t read = 0;
    int seen = 0;
    for (int i = 0; i < n; i += step, seen++) {
        const int8_t *q = x->q + i * (ptrdiff_t)x->stride;
        int count = 0;
        for (int k = 0; k < cols; k++)
            count += q[k] != 0;
        read += count;
    }
    return bnc_one_by_one(read * n, cols * seen, n, each, once);
}

/* Token i of x as the only one. */
BNC_INLINE struct bnc_acts bnc_token(const struct bnc_acts *x, int i)
{
    struct bnc_acts token = *x;
    bnc_own_acts(&token, i, x->sum + i, x->scale + i);
    return token;
}

/* weight_scale / act_scale, times acc */
BNC_INLINE float bnc_rescale(int32_t acc, const float *scale, int per_row, int m, float act_scale)
{
    return (float)acc * (scale[per_row ? m : 0] / act_scale);
}

BNC_INLINE void bnc_tiles_store(const struct bnc_worker *worker, const struct bnc_linear *l,
                                float *y, int y_stride, const uint8_t *w, const float *scale,
                                const struct bnc_acts *x, int n, int32_t *acc)
{
    int begin, end;
    bnc_share_tiles(worker, l, &begin, &end);
    for (int tile = begin; tile < end; tile++) {
        const int m0 = tile * l->tile, rows = bnc_tile_rows(l, tile);
        const int ahead = bnc_rows_ahead(l, tile, end, n);
        bnc_tile(l, acc, w, x, tile, n);
        for (int i = 0; i < n; i++) {
            float *restrict out = y + i * y_stride + m0;
            const int32_t *a = acc + i * l->tile;
            bnc_prefetch_outputs(out + l->tile, ahead);
            for (int m = 0; m < rows; m++)
                out[m] =
                    bnc_rescale(a[m], scale + (l->per_row ? m0 : 0), l->per_row, m, x->scale[i]);
        }
    }
}

/* y[i][m] = (W x[i])[m], rows y_stride apart. */
BNC_INLINE void bnc_linear_store(const struct bnc_worker *worker, const struct bnc_linear *l,
                                 float *y, int y_stride, const uint8_t *w, const float *scale,
                                 const struct bnc_acts *x, int n, int32_t *acc)
{
    if (l->slice && n > 1) {
        const struct bnc_linear slices = bnc_sliced(l);
        bnc_tiles_store(worker, &slices, y, y_stride, w, scale, x, n, acc);
    } else
        bnc_tiles_store(worker, l, y, y_stride, w, scale, x, l->slice ? 1 : n, acc);
}

BNC_INLINE void bnc_tiles_add(const struct bnc_worker *worker, const struct bnc_linear *l, float *y,
                              int y_stride, const uint8_t *w, const float *scale,
                              const struct bnc_acts *x, int n, int32_t *acc)
{
    int begin, end;
    bnc_share(worker, bnc_tiles(l), &begin, &end);
    for (int tile = begin, count; tile < end; tile += count) {
        count = bnc_some_tiles(l, acc, w, x, tile, end, n);
        const int m0 = tile * l->tile;
        const int rows = (count - 1) * l->tile + bnc_tile_rows(l, tile + count - 1);
        for (int i = 0; i < n; i++) {
            float *restrict out = y + i * y_stride + m0;
            const int32_t *a = acc + i * l->tile;
            for (int m = 0; m < rows; m++)
                out[m] +=
                    bnc_rescale(a[m], scale + (l->per_row ? m0 : 0), l->per_row, m, x->scale[i]);
        }
    }
}

/* y[i][m] += (W x[i])[m]: the residual connection. */
BNC_INLINE void bnc_linear_add(const struct bnc_worker *worker, const struct bnc_linear *l,
                               float *y, int y_stride, const uint8_t *w, const float *scale,
                               const struct bnc_acts *x, int n, int32_t *acc)
{
    if (l->slice && n > 1) {
        const struct bnc_linear slices = bnc_sliced(l);
        bnc_tiles_add(worker, &slices, y, y_stride, w, scale, x, n, acc);
    } else
        bnc_tiles_add(worker, l, y, y_stride, w, scale, x, l->slice ? 1 : n, acc);
}

/* y[m] *= (Up x)[m] of one token, for the rows first .. last - 1 whose y is not zero. Where it is,
 * the product would be +0 or -0, which no later result shows: norms square it, and its code is 0
 * (bnc_quantise.h). It would be NaN if Up's row overflowed, |acc| < 2^31 times its scale; rows
 * whose scale allows that are computed.
 * row: room for a list of `most` rows and BNC_ROWS_SLACK; acc: for `room` sums */
BNC_INLINE void bnc_multiply_rows(const struct bnc_linear *up, float *restrict y, const uint8_t *w,
                                  const float *scale, const struct bnc_acts *x, int first, int last,
                                  int32_t *restrict row, int most, int32_t *restrict acc, int room)
{
    enum { MOST = 64, AHEAD = BNC_ROWS_AHEAD + 4 }; /* rows computed at a time, fetched ahead */
    const int together = room < MOST ? room : MOST;
    const float safe = 1e28f * x->scale[0]; /* of Up's scales: 2^31 * 1e28 is finite */
    int32_t order[MOST + AHEAD];
    for (; first < last; first += most) {
        const int stop = last - first < most ? last : first + most;
        const int listed = bnc_list_rows(row, y, scale, up->per_row, safe, first, stop);
        for (int i = 0; i < listed; i += together) {
            const int left = listed - i, count = left < together ? left : together;
            const int known = left < together + AHEAD ? left : together + AHEAD;
            bnc_order_rows(order, row, listed, i, known);
            up->chosen(acc, w, x, order, count, known, up->cols);
            for (int j = 0; j < count; j++)
                y[order[j]] *= bnc_rescale(acc[j], scale, up->per_row, order[j], x->scale[0]);
        }
    }
}

/* y[i][m] = activation((Gate x)[m]) of n tokens and a tile; returns how many are not zero.
 * ahead: rows of the tile to come, whose outputs are fetched */
BNC_INLINE int bnc_tile_activation(float (*activation)(float), const struct bnc_linear *gate,
                                   float *y, int y_stride, const uint8_t *w, const float *scale,
                                   const struct bnc_acts *x, int n, int32_t *acc, int tile,
                                   int ahead)
{
    const int m0 = tile * gate->tile, rows = bnc_tile_rows(gate, tile);
    int count = 0;
    bnc_tile(gate, acc, w, x, tile, n);
    for (int i = 0; i < n; i++) {
        float *restrict out = y + i * y_stride + m0;
        const int32_t *a = acc + i * gate->tile;
        bnc_prefetch_outputs(out + gate->tile, ahead);
        for (int m = 0; m < rows; m++) {
            out[m] = activation(
                bnc_rescale(a[m], scale + (gate->per_row ? m0 : 0), gate->per_row, m, x->scale[i]));
            count += !(out[m] == 0.0f);
        }
    }
    return count;
}

/* The same as below for one token where the activation may be exactly 0 and rows of Up can be
 * chosen: those with a zero before them are not read. All gates of this worker come first. */
BNC_INLINE void bnc_gated_chosen(const struct bnc_worker *worker, float (*activation)(float),
                                 const struct bnc_linear *gate, const struct bnc_linear *up,
                                 float *restrict y, const uint8_t *w_gate, const float *gate_scale,
                                 const uint8_t *w_up, const float *up_scale,
                                 const struct bnc_acts *x_gate, const struct bnc_acts *x_up,
                                 int32_t *restrict acc)
{
    int32_t row[BNC_ROWS_LISTED + BNC_ROWS_SLACK];
    int begin, end;
    bnc_share(worker, bnc_tiles(gate), &begin, &end);
    for (int tile = begin; tile < end; tile++)
        bnc_tile_activation(activation, gate, y, 0, w_gate, gate_scale, x_gate, 1, acc, tile, 0);
    const int last = end * gate->tile < gate->rows ? end * gate->tile : gate->rows;
    bnc_multiply_rows(up, y, w_up, up_scale, x_up, begin * gate->tile, last, row, BNC_ROWS_LISTED,
                      acc, 2 * gate->tile);
}

/* The same for several tokens, whose zeros differ: tile by tile, each reads its rows of Up from a
 * cache, or where too few are zero, all tokens are multiplied together. */
BNC_INLINE void bnc_tiles_gated_chosen(const struct bnc_worker *worker, float (*activation)(float),
                                       const struct bnc_linear *gate, const struct bnc_linear *up,
                                       float *y, int y_stride, const uint8_t *w_gate,
                                       const float *gate_scale, const uint8_t *w_up,
                                       const float *up_scale, const struct bnc_acts *x_gate,
                                       const struct bnc_acts *x_up, int n, int32_t *acc)
{
    enum { LISTED = 128 };
    int32_t row[LISTED + BNC_ROWS_SLACK];
    int begin, end;
    bnc_share(worker, bnc_tiles(gate), &begin, &end);
    for (int tile = begin; tile < end; tile++) {
        const int m0 = tile * gate->tile, rows = bnc_tile_rows(gate, tile);
        const int ahead = bnc_rows_ahead(gate, tile, end, n);
        const int count = bnc_tile_activation(activation, gate, y, y_stride, w_gate, gate_scale,
                                              x_gate, n, acc, tile, ahead);
        if (bnc_one_by_one(count, rows, n, up->each, up->once)) {
            for (int i = 0; i < n; i++) {
                const struct bnc_acts token = bnc_token(x_up, i);
                bnc_multiply_rows(up, y + i * y_stride, w_up, up_scale, &token, m0, m0 + rows, row,
                                  LISTED, acc, (n + 1) * gate->tile);
            }
            continue;
        }
        bnc_tile(up, acc, w_up, x_up, tile, n);
        for (int i = 0; i < n; i++) {
            float *restrict out = y + i * y_stride + m0;
            const int32_t *a = acc + i * up->tile;
            for (int m = 0; m < rows; m++)
                out[m] *= bnc_rescale(a[m], up_scale + (up->per_row ? m0 : 0), up->per_row, m,
                                      x_up->scale[i]);
        }
    }
}

/* Adds to count[0 .. 2] the gated products y[n][cols], those that are zero, and the codes of them
 * that are: for measuring, so that one worker does it. */
BNC_INLINE void bnc_count_zeros(const struct bnc_worker *worker, uint64_t *count, const float *y,
                                int cols, const struct bnc_acts *acts, int n)
{
    if (worker->index != 0)
        return;
    for (int i = 0; i < n; i++) {
        int products = 0, codes = 0;
        for (int k = 0; k < cols; k++) {
            products += y[i * cols + k] == 0.0f;
            codes += acts->q[i * acts->stride + k] == 0;
        }
        count[0] += (uint64_t)cols;
        count[1] += (uint64_t)products;
        count[2] += (uint64_t)codes;
    }
}

BNC_INLINE void bnc_tiles_gated(const struct bnc_worker *worker, float (*activation)(float),
                                const struct bnc_linear *gate, const struct bnc_linear *up,
                                float *y, int y_stride, const uint8_t *w_gate,
                                const float *gate_scale, const uint8_t *w_up, const float *up_scale,
                                const struct bnc_acts *x_gate, const struct bnc_acts *x_up, int n,
                                int32_t *acc)
{
    int32_t *acc_up = acc + gate->tile * n;
    int begin, end;
    bnc_share(worker, bnc_tiles(gate), &begin, &end);
    for (int tile = begin; tile < end; tile++) {
        const int m0 = tile * gate->tile, rows = bnc_tile_rows(gate, tile);
        const int ahead = bnc_rows_ahead(gate, tile, end, n);
        bnc_tile(gate, acc, w_gate, x_gate, tile, n);
        bnc_tile(up, acc_up, w_up, x_up, tile, n);
        for (int i = 0; i < n; i++) {
            float *restrict out = y + i * y_stride + m0;
            const int32_t *g = acc + i * gate->tile, *u = acc_up + i * up->tile;
            bnc_prefetch_outputs(out + gate->tile, ahead);
            for (int m = 0; m < rows; m++) {
                const float a = bnc_rescale(g[m], gate_scale + (gate->per_row ? m0 : 0),
                                            gate->per_row, m, x_gate->scale[i]);
                const float b = bnc_rescale(u[m], up_scale + (up->per_row ? m0 : 0), up->per_row, m,
                                            x_up->scale[i]);
                out[m] = activation(a) * b;
            }
        }
    }
}

/* As below, rows of Up chosen where they can be and that pays. */
BNC_INLINE void bnc_gated_several(const struct bnc_worker *worker, float (*activation)(float),
                                  const struct bnc_linear *gate, const struct bnc_linear *up,
                                  float *y, int y_stride, const uint8_t *w_gate,
                                  const float *gate_scale, const uint8_t *w_up,
                                  const float *up_scale, const struct bnc_acts *x_gate,
                                  const struct bnc_acts *x_up, int n, int32_t *acc)
{
    if (up->chosen && up->each)
        bnc_tiles_gated_chosen(worker, activation, gate, up, y, y_stride, w_gate, gate_scale, w_up,
                               up_scale, x_gate, x_up, n, acc);
    else
        bnc_tiles_gated(worker, activation, gate, up, y, y_stride, w_gate, gate_scale, w_up,
                        up_scale, x_gate, x_up, n, acc);
}

/* y[i][m] = activation((Gate x_gate[i])[m]) * (Up x_up[i])[m]; both matrices have the same rows and
 * tile, and acc holds two tiles. */
BNC_INLINE void bnc_linear_gated_own(const struct bnc_worker *worker, float (*activation)(float),
                                     const struct bnc_linear *gate, const struct bnc_linear *up,
                                     float *y, int y_stride, const uint8_t *w_gate,
                                     const float *gate_scale, const uint8_t *w_up,
                                     const float *up_scale, const struct bnc_acts *x_gate,
                                     const struct bnc_acts *x_up, int n, int32_t *acc)
{
    const int sliced = gate->slice && gate->slice == up->slice;
    if (up->chosen && n == 1)
        bnc_gated_chosen(worker, activation, gate, up, y, w_gate, gate_scale, w_up, up_scale,
                         x_gate, x_up, acc);
    else if (!sliced)
        bnc_gated_several(worker, activation, gate, up, y, y_stride, w_gate, gate_scale, w_up,
                          up_scale, x_gate, x_up, n, acc);
    else if (n > 1) {
        const struct bnc_linear g = bnc_sliced(gate), u = bnc_sliced(up);
        bnc_gated_several(worker, activation, &g, &u, y, y_stride, w_gate, gate_scale, w_up,
                          up_scale, x_gate, x_up, n, acc);
    } else
        bnc_tiles_gated(worker, activation, gate, up, y, y_stride, w_gate, gate_scale, w_up,
                        up_scale, x_gate, x_up, 1, acc);
}

/* The same where both read one input. */
BNC_INLINE void bnc_linear_gated(const struct bnc_worker *worker, float (*activation)(float),
                                 const struct bnc_linear *gate, const struct bnc_linear *up,
                                 float *y, int y_stride, const uint8_t *w_gate,
                                 const float *gate_scale, const uint8_t *w_up,
                                 const float *up_scale, const struct bnc_acts *x, int n,
                                 int32_t *acc)
{
    bnc_linear_gated_own(worker, activation, gate, up, y, y_stride, w_gate, gate_scale, w_up,
                         up_scale, x, x, n, acc);
}

#endif
