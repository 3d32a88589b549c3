/* SPDX-License-Identifier: MIT */
/* Matrices that read floats: ternary ones of weight-only models, and dense ones within a block.
 * Rules 9 and 11 of docs/arithmetic.md.
 *
 *     dense:    y[m] = sum over k of w[m][k] * x[k]                          sixteen lanes
 *     ternary:  L_g  = sixteen lanes of trit[m][k] * x[k], k in group g      from +0
 *               T    = L_0 * scale[m][0] + L_1 * scale[m][1] + ...           lane by lane, from +0
 *               y[m] = tree(T)
 *
 * trit * x is exact, so it is no matter how it is made. Ternary rows lie in layout i2_k64, whose
 * byte l of a block holds columns l, 16 + l, 32 + l and 48 + l: a shift gives sixteen lanes in
 * order. Groups are whole sixteens, or there is one.
 */
#ifndef BNC_FLOAT_LINEAR_H
#define BNC_FLOAT_LINEAR_H

#include "bnc_dense.h"
#include "bnc_layouts.h"

struct bnc_float_linear {
    enum bnc_dense_type type; /* BNC_TRITS, or how floats are stored */
    int rows, cols;           /* of the matrix itself */
    int groups;               /* of trits: scales in one row; 0: one for the whole matrix */
};

_Static_assert(BNC_I2_K64_COLS == 64, "four times sixteen lanes");

/* Bytes of one row of trits. */
BNC_INLINE ptrdiff_t bnc_trits_row_bytes(int cols)
{
    return (ptrdiff_t)(cols + 63) / 64 * 16;
}

/* The trits of columns k .. k + 15 as floats; k is a multiple of sixteen. */
BNC_INLINE struct bnc_lanes bnc_trits_lanes(const uint8_t *row, int k)
{
    const uint8_t *codes = row + k / 64 * 16;
    const int shift = 6 - k % 64 / 16 * 2;
    struct bnc_lanes s;
    for (int p = 0; p < BNC_PARTS; p++) {
#if defined(__AVX2__) && !defined(__AVX512F__)
        /* VPERMILPS reads the lower two bits of each word: no mask, no conversion. */
        const __m256 trit = _mm256_setr_ps(-1.0f, 0.0f, 1.0f, 0.0f, -1.0f, 0.0f, 1.0f, 0.0f);
        const __m256i code =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(codes + 8 * p)));
        s.part[p] = (bnc_vec)_mm256_permutevar_ps(trit, _mm256_srli_epi32(code, shift));
#else
        bnc_vec_u8 narrow;
        memcpy(&narrow, codes + p * BNC_VECTOR, sizeof narrow);
        const bnc_vec_i32 code = (__builtin_convertvector(narrow, bnc_vec_i32) >> shift & 3) - 1;
        s.part[p] = __builtin_convertvector(code, bnc_vec);
#endif
    }
    return s;
}

/* y[i * y_stride + r] for r < rows and i < tokens, both constant once inlined. w and scale begin at
 * the first row; x rows are x_stride apart, zeros from cols to a multiple of sixteen. */
BNC_INLINE void bnc_trits_block(float *y, int y_stride, const uint8_t *w, const float *scale,
                                int groups, int cols, const float *x, int x_stride, int rows,
                                int tokens)
{
    const ptrdiff_t row_bytes = bnc_trits_row_bytes(cols);
    const int count = groups ? groups : 1, width = cols / count;
    struct bnc_lanes total[4];
    for (int j = 0; j < rows * tokens; j++)
        total[j] = bnc_lanes_zero();
    for (int g = 0; g < count; g++) {
        struct bnc_lanes sum[4];
        for (int j = 0; j < rows * tokens; j++)
            sum[j] = bnc_lanes_zero();
        for (int k = g * width; k < (g + 1) * width; k += BNC_LANES)
            for (int r = 0; r < rows; r++) {
                const struct bnc_lanes trits = bnc_trits_lanes(w + r * row_bytes, k);
                for (int i = 0; i < tokens; i++)
                    sum[r * tokens + i] = bnc_lanes_add(
                        sum[r * tokens + i],
                        bnc_lanes_mul(trits, bnc_lanes_load(x + (ptrdiff_t)i * x_stride + k)));
            }
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < tokens; i++)
                total[r * tokens + i] = bnc_lanes_add(
                    total[r * tokens + i],
                    bnc_lanes_scale(sum[r * tokens + i], groups ? scale[r * groups + g] : *scale));
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < tokens; i++)
            y[i * y_stride + r] = bnc_lanes_sum(total[r * tokens + i]);
}

enum { BNC_FLOAT_ROWS = 16, BNC_FLOAT_TOKENS = 4 }; /* of one tile */

/* y[i][r] for rows m0 .. m0 + rows of the matrix and up to BNC_FLOAT_TOKENS tokens. */
BNC_INLINE void bnc_float_tile(const struct bnc_float_linear *l,
                               float y[BNC_FLOAT_TOKENS][BNC_FLOAT_ROWS], const uint8_t *w,
                               const float *scale, int m0, int rows, const float *x, int x_stride,
                               int tokens)
{
    if (l->type != BNC_TRITS) {
        for (int i = 0; i < tokens; i++)
            for (int r = 0; r < rows; r += BNC_DENSE_ROWS)
                bnc_dense_block(l->type, y[i] + r, w, m0 + r, 1,
                                rows - r < BNC_DENSE_ROWS ? rows - r : BNC_DENSE_ROWS,
                                x + (ptrdiff_t)i * x_stride, l->cols);
        return;
    }
    const ptrdiff_t row_bytes = bnc_trits_row_bytes(l->cols);
    const uint8_t *at = w + m0 * row_bytes;
    const float *d = scale + (ptrdiff_t)m0 * l->groups;
    int r = 0;
    if (tokens == BNC_FLOAT_TOKENS) {
        for (; r < rows; r++)
            bnc_trits_block(y[0] + r, BNC_FLOAT_ROWS, at + r * row_bytes, d + r * l->groups,
                            l->groups, l->cols, x, x_stride, 1, BNC_FLOAT_TOKENS);
        return;
    }
    for (int i = 0; i < tokens; i++, x += x_stride) {
        for (r = 0; r + 4 <= rows; r += 4)
            bnc_trits_block(y[i] + r, BNC_FLOAT_ROWS, at + r * row_bytes, d + r * l->groups,
                            l->groups, l->cols, x, 0, 4, 1);
        for (; r < rows; r++)
            bnc_trits_block(y[i] + r, BNC_FLOAT_ROWS, at + r * row_bytes, d + r * l->groups,
                            l->groups, l->cols, x, 0, 1, 1);
    }
}

/* What becomes of a tile: y[i][m] = (W x[i])[m], or added to y. */
BNC_INLINE void bnc_float_apply(const struct bnc_worker *worker, const struct bnc_float_linear *l,
                                float *y, int y_stride, const uint8_t *w, const float *scale,
                                const float *x, int x_stride, int n, int add)
{
    float tile[BNC_FLOAT_TOKENS][BNC_FLOAT_ROWS];
    int begin, end;
    bnc_share(worker, (l->rows + BNC_FLOAT_ROWS - 1) / BNC_FLOAT_ROWS, &begin, &end);
    for (int m0 = begin * BNC_FLOAT_ROWS; m0 < end * BNC_FLOAT_ROWS; m0 += BNC_FLOAT_ROWS) {
        const int rows = l->rows - m0 < BNC_FLOAT_ROWS ? l->rows - m0 : BNC_FLOAT_ROWS;
        for (int i0 = 0; i0 < n; i0 += BNC_FLOAT_TOKENS) {
            const int tokens = n - i0 < BNC_FLOAT_TOKENS ? n - i0 : BNC_FLOAT_TOKENS;
            bnc_float_tile(l, tile, w, scale, m0, rows, x + (ptrdiff_t)i0 * x_stride, x_stride,
                           tokens);
            for (int i = 0; i < tokens; i++) {
                float *out = y + (ptrdiff_t)(i0 + i) * y_stride + m0;
                for (int r = 0; r < rows; r++)
                    out[r] = add ? out[r] + tile[i][r] : tile[i][r];
            }
        }
    }
}

/* y[i][m] = (W x[i])[m], rows y_stride apart. */
BNC_INLINE void bnc_float_store(const struct bnc_worker *worker, const struct bnc_float_linear *l,
                                float *y, int y_stride, const uint8_t *w, const float *scale,
                                const float *x, int x_stride, int n)
{
    bnc_float_apply(worker, l, y, y_stride, w, scale, x, x_stride, n, 0);
}

/* y[i][m] += (W x[i])[m]: the residual connection. */
BNC_INLINE void bnc_float_add(const struct bnc_worker *worker, const struct bnc_float_linear *l,
                              float *y, int y_stride, const uint8_t *w, const float *scale,
                              const float *x, int x_stride, int n)
{
    bnc_float_apply(worker, l, y, y_stride, w, scale, x, x_stride, n, 1);
}

/* y[i][m] = activation((Gate x_gate[i])[m]) * (Up x_up[i])[m]. */
BNC_INLINE void bnc_float_gated(const struct bnc_worker *worker, float (*activation)(float),
                                const struct bnc_float_linear *gate,
                                const struct bnc_float_linear *up, float *y, int y_stride,
                                const uint8_t *w_gate, const float *gate_scale, const uint8_t *w_up,
                                const float *up_scale, const float *x_gate, const float *x_up,
                                int x_stride, int n)
{
    float g[BNC_FLOAT_TOKENS][BNC_FLOAT_ROWS], u[BNC_FLOAT_TOKENS][BNC_FLOAT_ROWS];
    int begin, end;
    bnc_share(worker, (gate->rows + BNC_FLOAT_ROWS - 1) / BNC_FLOAT_ROWS, &begin, &end);
    for (int m0 = begin * BNC_FLOAT_ROWS; m0 < end * BNC_FLOAT_ROWS; m0 += BNC_FLOAT_ROWS) {
        const int rows = gate->rows - m0 < BNC_FLOAT_ROWS ? gate->rows - m0 : BNC_FLOAT_ROWS;
        for (int i0 = 0; i0 < n; i0 += BNC_FLOAT_TOKENS) {
            const int tokens = n - i0 < BNC_FLOAT_TOKENS ? n - i0 : BNC_FLOAT_TOKENS;
            const ptrdiff_t from = (ptrdiff_t)i0 * x_stride;
            bnc_float_tile(gate, g, w_gate, gate_scale, m0, rows, x_gate + from, x_stride, tokens);
            bnc_float_tile(up, u, w_up, up_scale, m0, rows, x_up + from, x_stride, tokens);
            for (int i = 0; i < tokens; i++) {
                float *out = y + (ptrdiff_t)(i0 + i) * y_stride + m0;
                for (int r = 0; r < rows; r++)
                    out[r] = activation(g[i][r]) * u[i][r];
            }
        }
    }
}

/* x[cols] = row `id` of a ternary embedding. */
BNC_INLINE void bnc_trits_embed(float *x, const uint8_t *w, const float *scale, int groups, int id,
                                int cols)
{
    const uint8_t *row = w + id * bnc_trits_row_bytes(cols);
    const int width = cols / (groups ? groups : 1);
    for (int k = 0; k < cols; k += BNC_LANES) {
        const float d = groups ? scale[(ptrdiff_t)id * groups + k / width] : *scale;
        bnc_lanes_store(x + k, bnc_lanes_scale(bnc_trits_lanes(row, k), d),
                        cols - k < BNC_LANES ? cols - k : BNC_LANES);
    }
}

#endif
