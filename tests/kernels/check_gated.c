/* SPDX-License-Identifier: MIT */
/* bnc_linear_gated() where rows of Up are chosen, against all rows computed, for one token and for
 * several: the same values but for the sign of zeros, and NaN where a row of Up overflows. Prints
 * `N passed, N failed`. */
#include <stdio.h>
#include <stdlib.h>

#include "bnc_linear.h"
#include "kernels/scalar/matmul_i2_k64.h"

enum { ROWS = 100, COLS = 128, TILE = 8, TOKENS = 3 };

static int32_t read_rows; /* how many were asked for */

static void chosen(int32_t *restrict acc, const uint8_t *restrict w, const struct bnc_acts *x,
                   const int32_t *row, int count, int listed, int cols)
{
    for (int i = 0; i < count; i++) {
        acc[i] = 0;
        for (int k = 0; k < cols; k++)
            acc[i] += bnc_i2_k64_at(w, cols, row[i], k) * x->q[k];
        for (int j = i + 1; j < listed; j++)
            if (row[j] == row[i])
                exit(1); /* none twice */
    }
    read_rows += count;
}

static uint32_t state = 1;
static uint32_t next(uint32_t limit)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * limit >> 32);
}

int main(void)
{
    static const float scales[] = { 0.01f, 1e27f, 3e34f, __builtin_inff(), -0.5f };
    static const struct bnc_worker workers[] = { { NULL, 0, 1 }, { NULL, 0, 2 }, { NULL, 1, 2 } };
    static uint8_t w_gate[(ROWS + TILE) * COLS / 4], w_up[(ROWS + TILE) * COLS / 4];
    static int8_t q[TOKENS * COLS];
    int32_t sum[TOKENS], acc[2 * TILE * TOKENS];
    float scale[TOKENS], gate_scale = 0.125f, up_scale[ROWS];
    float dense[TOKENS * ROWS], sparse[TOKENS * ROWS];
    struct bnc_acts x = { .q = q, .sum = sum, .scale = scale, .stride = COLS };
    int passed = 0, failed = 0;
    for (int i = 0; i < 500; i++) {
        struct bnc_linear gate = { .kernel = bnc_matmul_i2_k64_scalar,
                                   .rows = ROWS,
                                   .cols = COLS,
                                   .tile = TILE,
                                   .tile_bytes = TILE * COLS / 4 };
        struct bnc_linear up = gate, some;
        for (size_t b = 0; b < sizeof w_gate; b++)
            for (int shift = 0; shift < 8; shift += 2) {
                const int quiet = b / (COLS / 4) % 7 == 0; /* rows of zeros, too */
                w_gate[b] =
                    (uint8_t)((w_gate[b] & ~(3u << shift)) | (quiet ? 1 : next(3)) << shift);
                w_up[b] = (uint8_t)((w_up[b] & ~(3u << shift)) | next(3) << shift);
            }
        const int n = i % 2 ? TOKENS : 1;
        for (int t = 0; t < n; t++) {
            sum[t] = 0;
            for (int k = 0; k < COLS; k++)
                sum[t] += q[t * COLS + k] = (int8_t)((int)next(255) - 127);
            scale[t] = (i + t) % 3 ? 127.0f : 1e-4f;
        }
        up.per_row = i / 2 % 2;
        for (int m = 0; m < ROWS; m++)
            up_scale[m] = scales[next(i % 5 ? 1 : 5)];
        some = up;
        some.chosen = chosen;
        /* Several tokens choose always, or in tiles where less than half of the rows count. */
        some.each = i % 3 ? 101 : 50;
        read_rows = 0;
        bnc_linear_gated(&workers[0], bnc_relu2, &gate, &up, dense, ROWS, w_gate, &gate_scale, w_up,
                         up_scale, &x, n, acc);
        for (int v = i % 4 ? 1 : 0; v < (i % 4 ? 3 : 1); v++)
            bnc_linear_gated(&workers[v], bnc_relu2, &gate, &some, sparse, ROWS, w_gate,
                             &gate_scale, w_up, up_scale, &x, n, acc);
        int bad = 0, zeros = 0;
        for (int m = 0; m < n * ROWS; m++) {
            const int nan = dense[m] != dense[m] && sparse[m] != sparse[m];
            const int zero = dense[m] == 0.0f && sparse[m] == 0.0f;
            bad |= !nan && !zero && bnc_bits(dense[m]) != bnc_bits(sparse[m]);
            zeros += zero;
        }
        /* Of ordinary scales, acc of up may be 0. */
        if (i % 5 && read_rows > n * (ROWS - zeros / n + 3))
            bad = 1;
        if (i % 3 && !read_rows)
            bad = 1;
        if (bad)
            printf("FAIL case %d, %d rows read\n", i, (int)read_rows);
        passed += !bad;
        failed += bad;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
