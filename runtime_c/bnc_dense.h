/* SPDX-License-Identifier: MIT */
/* Matrices kept in floats, the embedding and the head: rule 9 of docs/arithmetic.md.
 *
 *     y[i][m] = sum over k of x[i][k] * (float)w[m][k]      sixteen lanes, see bnc_lanes.h
 *
 * Stored row-major as float32, float16 or bfloat16, or as bnc_bf12.h says; widening is exact.
 */
#ifndef BNC_DENSE_H
#define BNC_DENSE_H

#include "bnc_bf12.h"
#include "bnc_math.h"
#include "bnc_streams.h"
#include "bnc_threads.h"

enum bnc_dense_type { BNC_F32, BNC_F16, BNC_BF16, BNC_BF12, BNC_TRITS /* bnc_float_linear.h */ };

BNC_INLINE int bnc_dense_bytes(enum bnc_dense_type type)
{
    return type == BNC_F32 ? 4 : 2;
}

/* Sixteen stored values from element k of a row. */
BNC_INLINE struct bnc_lanes bnc_dense_lanes(enum bnc_dense_type type, const uint8_t *row, int k)
{
    if (type == BNC_F32)
        return bnc_lanes_load((const float *)(const void *)row + k);
    if (type == BNC_F16)
        return bnc_lanes_f16((const uint16_t *)(const void *)row + k);
    return bnc_lanes_bf16((const uint16_t *)(const void *)row + k);
}

/* The same for the last `count` < 16 values, zeros after them. */
BNC_INLINE struct bnc_lanes bnc_dense_tail(enum bnc_dense_type type, const uint8_t *row, int k,
                                           int count)
{
    uint8_t padded[BNC_LANES * 4] = { 0 };
    const int size = bnc_dense_bytes(type);
    memcpy(padded, row + k * size, (size_t)(count * size));
    return bnc_dense_lanes(type, padded, 0);
}

/* x[cols] = row `id` of the embedding. */
BNC_INLINE void bnc_embed(enum bnc_dense_type type, float *x, const uint8_t *w, int rows, int id,
                          int cols)
{
    if (type == BNC_BF12) {
        bnc_bf12_embed(x, w, rows, id, cols);
        return;
    }
    const uint8_t *row = w + (ptrdiff_t)id * cols * bnc_dense_bytes(type);
    int k = 0;
    for (; k + BNC_LANES <= cols; k += BNC_LANES)
        bnc_lanes_store(x + k, bnc_dense_lanes(type, row, k), BNC_LANES);
    if (k < cols)
        bnc_lanes_store(x + k, bnc_dense_tail(type, row, k, cols - k), cols - k);
}

/* Rows computed together: hides the latency of the additions. Where a register holds one float, the
 * sixteen lanes of one row are half of them. They lie far apart, a thread's share in as many parts,
 * so that each is read as one long stream (bnc_streams.h). */
enum { BNC_DENSE_ROWS = BNC_VECTOR == 1 ? 1 : 4 };

/* y[r * apart] = row m0 + r * apart of w times x, for r < count <= BNC_DENSE_ROWS. */
BNC_INLINE void bnc_dense_block(enum bnc_dense_type type, float *y, const uint8_t *w, int m0,
                                int apart, int count, const float *x, int cols)
{
    enum { STEP = 2 * BNC_LANES };
    const ptrdiff_t row_bytes = (ptrdiff_t)cols * bnc_dense_bytes(type);
    const uint8_t *row[BNC_DENSE_ROWS];
    struct bnc_lanes s[BNC_DENSE_ROWS];
    BNC_UNROLL
    for (int r = 0; r < BNC_DENSE_ROWS; r++) {
        row[r] = w + (m0 + (r < count ? r * apart : 0)) * row_bytes;
        s[r] = bnc_lanes_zero();
    }
    int k = 0;
    for (; k + STEP <= cols; k += STEP) {
        BNC_UNROLL
        for (int r = 0; r < BNC_DENSE_ROWS; r++)
            bnc_prefetch(row[r] + k * bnc_dense_bytes(type) + BNC_AHEAD / BNC_STREAMS);
        BNC_UNROLL
        for (int half = 0; half < STEP; half += BNC_LANES) {
            const struct bnc_lanes v = bnc_lanes_load(x + k + half);
            BNC_UNROLL
            for (int r = 0; r < BNC_DENSE_ROWS; r++)
                s[r] =
                    bnc_lanes_add(s[r], bnc_lanes_mul(v, bnc_dense_lanes(type, row[r], k + half)));
        }
    }
    if (k + BNC_LANES <= cols) {
        const struct bnc_lanes v = bnc_lanes_load(x + k);
        BNC_UNROLL
        for (int r = 0; r < BNC_DENSE_ROWS; r++)
            s[r] = bnc_lanes_add(s[r], bnc_lanes_mul(v, bnc_dense_lanes(type, row[r], k)));
        k += BNC_LANES;
    }
    if (k < cols) {
        const struct bnc_lanes v = bnc_lanes_load_tail(x + k, cols - k);
        BNC_UNROLL
        for (int r = 0; r < BNC_DENSE_ROWS; r++)
            s[r] = bnc_lanes_add(s[r], bnc_lanes_mul(v, bnc_dense_tail(type, row[r], k, cols - k)));
    }
    for (int r = 0; r < count; r++)
        y[r * apart] = bnc_lanes_sum(s[r]);
}

/* The same of a matrix of `rows` rows in twelve bits a weight. Its frame is its own: without
 * optimisation, what is inlined takes stack all the time. */
static inline void bnc_dense_bf12(float *y, const uint8_t *w, int rows, int m0, int apart,
                                  int count, const float *x, int cols)
{
    enum { BLOCKS = 2, STEP = BLOCKS * BNC_BF12_COLS, AHEAD = BNC_AHEAD / BNC_STREAMS };
    const ptrdiff_t row_bytes = bnc_bf12_row_bytes(cols);
    const struct bnc_bf12 parts = bnc_bf12_parts(w, rows, cols);
    const bnc_bf12_bytes table = bnc_bf12_table(parts.table);
    struct bnc_bf12_row row[BNC_DENSE_ROWS];
    struct bnc_lanes s[BNC_DENSE_ROWS];
    for (int r = 0; r < BNC_DENSE_ROWS; r++) {
        row[r] = bnc_bf12_begin(&parts, m0 + (r < count ? r * apart : 0), row_bytes);
        s[r] = bnc_lanes_zero();
    }
    int k = 0;
    for (; k + STEP <= cols; k += STEP)
        for (int r = 0; r < BNC_DENSE_ROWS; r++) {
            bnc_prefetch_lines(row[r].block + AHEAD, BLOCKS * BNC_BF12_BYTES / 64);
            s[r] = bnc_bf12_add(s[r], &row[r], table, (uint32_t)k, x + k, BLOCKS);
        }
    if (k < cols) {
        float padded[STEP] = { 0 }; /* x, and zeros for the columns that pad the last block */
        memcpy(padded, x + k, sizeof(float) * (size_t)(cols - k));
        for (int r = 0; r < BNC_DENSE_ROWS; r++)
            s[r] = bnc_bf12_add(s[r], &row[r], table, (uint32_t)k, padded,
                                (cols - k + BNC_BF12_COLS - 1) / BNC_BF12_COLS);
    }
    for (int r = 0; r < count; r++)
        y[r * apart] = bnc_lanes_sum(s[r]);
}

/* y[i][m] for all rows and n tokens: y is [n][rows], x rows are x_stride apart. Each group of
 * rows is read once for all tokens. */
BNC_INLINE void bnc_dense(const struct bnc_worker *worker, enum bnc_dense_type type, float *y,
                          const uint8_t *w, int rows, int cols, const float *x, int x_stride, int n)
{
    int begin, end;
    bnc_share(worker, rows, &begin, &end);
    const int apart = (end - begin + BNC_DENSE_ROWS - 1) / BNC_DENSE_ROWS;
    for (int m0 = begin; m0 < begin + apart; m0++) {
        const int count = (end - m0 + apart - 1) / apart; /* the last part may be shorter */
        for (int i = 0; i < n; i++) {
            float *to = y + (ptrdiff_t)i * rows + m0;
            if (type == BNC_BF12)
                bnc_dense_bf12(to, w, rows, m0, apart, count, x + i * x_stride, cols);
            else
                bnc_dense_block(type, to, w, m0, apart, count, x + i * x_stride, cols);
        }
    }
}

#endif
