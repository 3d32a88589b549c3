/* SPDX-License-Identifier: MIT */
/* The stopwatch of bench/kernels.py: prints one measurement a line, the best of several rounds.
 *
 *     bench [MiB of the memory-sized buffer] [rounds] [tokens ...]
 */
#ifndef KERNELS_BENCH_H
#define KERNELS_BENCH_H

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bnc_attention.h"
#include "bnc_dense.h"
#include "bnc_linear.h"

struct bench {
    const char *kernel;
    void (*run)(int32_t *acc, const uint8_t *w, const struct bnc_acts *x, int tiles, int n);
    int rows, cols, padded_cols, tiles, tile, tile_bytes;
};

enum { TOKENS = 64, CACHED_BYTES = 384 << 10 }; /* fits in the L2 of any machine with one */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p)
        exit(3);
    return p;
}

/* Cycles per nanosecond of the core: a chain of additions takes one cycle each. They are of two
 * registers, since some cores fold additions of constants. */
static double gigahertz(void)
{
    double best = 0.0;
    unsigned long x = 0, y = 1;
    for (int round = 0; round < 200; round++) {
        const int count = 20000;
        const double start = seconds();
        for (int i = 0; i < count; i++) {
#if defined(__x86_64__)
#define BENCH_ADD "add %1, %0\n"
#elif defined(__aarch64__)
#define BENCH_ADD "add %0, %0, %1\n"
#else
#error "no chain of additions is written for this architecture"
#endif
            __asm__ volatile(
                BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD
                    BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD BENCH_ADD
                : "+r"(x)
                : "r"(y));
        }
        const double rate = 1e-9 * 16.0 * (double)count / (seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

/* Nanoseconds for `passes` walks over one matrix of `tiles` tiles. */
static double once(const struct bench *b, int32_t *acc, const uint8_t *w, const struct bnc_acts *x,
                   int tiles, int passes, int n)
{
    const double start = seconds();
    for (int pass = 0; pass < passes; pass++)
        b->run(acc, w, x, tiles, n);
    return 1e9 * (seconds() - start);
}

/* Cached: the best of many short rounds over one matrix. From memory: walks over the whole buffer,
 * of each matrix the best walk counts, so that what else runs on the machine disturbs little. */
static void bench_kernel(const struct bench *b, const uint8_t *w, size_t bytes,
                         const struct bnc_acts *x, int rounds, const int *tokens, int counts)
{
    int32_t *acc = memory(BNC_ACC_BYTES(b->tile, TOKENS));
    for (int cached = 1; cached >= 0; cached--)
        for (int i = 0; i < counts; i++) {
            const int n = tokens[i];
            const int fit = CACHED_BYTES / b->tile_bytes;
            const int tiles = cached && fit < b->tiles ? (fit > 0 ? fit : 1) : b->tiles;
            const size_t matrix = (size_t)tiles * (size_t)b->tile_bytes;
            const int some = cached ? 1 : (int)(bytes / (n == 1 ? 1 : 16) / matrix);
            const int copies = some ? some : 1;
            double total = 0.0;
            if (cached) {
                once(b, acc, w, x, tiles, 2, n);
                const int passes = (int)(1e6 / once(b, acc, w, x, tiles, 1, n)) + 1;
                for (int round = 0; round < 20 * rounds; round++) {
                    const double ns = once(b, acc, w, x, tiles, passes, n) / passes;
                    total = round == 0 || ns < total ? ns : total;
                }
            } else {
                double *best = memory(sizeof *best * (size_t)copies);
                for (int round = 0; round < rounds; round++)
                    for (int c = 0; c < copies; c++) {
                        const double ns = once(b, acc, w + (size_t)c * matrix, x, tiles, 1, n);
                        best[c] = round == 0 || ns < best[c] ? ns : best[c];
                    }
                for (int c = 0; c < copies; c++)
                    total += best[c] / copies;
                free(best);
            }
            printf("kernel %s %d %d %d %s %.6f\n", b->kernel, b->rows, b->cols, n,
                   cached ? "cached" : "memory", total / ((double)tiles * b->tile)); /* per row */
        }
    free(acc);
}

/* bnc_dense on bfloat16, one token: GB/s of weights, measured as above. */
static void bench_dense(const uint8_t *w, size_t bytes, const float *x, int rounds)
{
    enum { COLS = 2560, ROWS = CACHED_BYTES / 2 / COLS };
    static float y[ROWS];
    const struct bnc_worker worker = { NULL, 0, 1 };
    const size_t piece = (size_t)ROWS * COLS * 2;
    for (int cached = 1; cached >= 0; cached--) {
        const int copies = cached ? 1 : (int)(bytes / piece);
        double *best = memory(sizeof *best * (size_t)copies), total = 0.0;
        for (int round = 0; round < (cached ? 100 : 1) * rounds; round++)
            for (int c = 0; c < copies; c++) {
                const double start = seconds();
                bnc_dense(&worker, BNC_BF16, y, w + (size_t)c * piece, ROWS, COLS, x, COLS, 1);
                const double s = seconds() - start;
                best[c] = round == 0 || s < best[c] ? s : best[c];
            }
        for (int c = 0; c < copies; c++)
            total += best[c];
        printf("dense %s %.3f %g\n", cached ? "cached" : "memory",
               1e-9 * (double)piece * copies / total, (double)(y[0] + y[ROWS - 1]));
        free(best);
    }
}

/* One key/value head of 1024 positions for 4 query heads of 128: nanoseconds per position. */
static void bench_attention(int rounds)
{
    enum { POSITIONS = 1024, GROUP = 4, HEAD = 128 };
    static uint16_t keys[POSITIONS * HEAD], values[POSITIONS * HEAD];
    static float q[GROUP * HEAD], out[GROUP * HEAD], score[GROUP * POSITIONS];
    double best = 1e300;
    for (int i = 0; i < POSITIONS * HEAD; i++)
        keys[i] = values[i] = (uint16_t)(0x3000 + i * 7 % 2048);
    for (int i = 0; i < GROUP * HEAD; i++)
        q[i] = 0.01f * (float)(i % 13 - 6);
    for (int round = 0; round < 20 * rounds; round++) {
        const double start = seconds();
        bnc_attend(out, q, (struct bnc_cache){ keys, values }, POSITIONS, GROUP, HEAD, 0.0884f,
                   score);
        const double ns = 1e9 * (seconds() - start) / (double)(POSITIONS * GROUP);
        best = ns < best ? ns : best;
    }
    printf("attend %.3f %.3f\n", best, (double)out[0]);
}

static void bench_tables(struct bnc_acts *x, int cols, int rounds)
{
    double best = 1e300;
    for (int round = 0; round < 20 * rounds; round++) {
        const double start = seconds();
        bnc_build_lut16(x, 0, cols);
        const double ns = 1e9 * (seconds() - start) / (cols / 2);
        best = ns < best ? ns : best;
    }
    printf("lut16 %.4f\n", best);
}

/* Adds up the buffer with as many loads as the core takes: the stream of weights at its best. */
static void bench_stream(const uint8_t *w, size_t bytes, int rounds)
{
    enum { PIECE = 1 << 20 };
    uint64_t sum = 0;
    double total = 0.0;
    const int copies = (int)(bytes / PIECE);
    double *best = memory(sizeof *best * (size_t)copies);
    for (int round = 0; round < rounds; round++)
        for (int c = 0; c < copies; c++) {
            const double start = seconds();
            const uint64_t *at = (const uint64_t *)(const void *)(w + (size_t)c * PIECE);
            for (int i = 0; i < PIECE / 8; i++)
                sum += at[i];
            const double s = seconds() - start;
            best[c] = round == 0 || s < best[c] ? s : best[c];
        }
    for (int c = 0; c < copies; c++)
        total += best[c];
    printf("stream %.3f %llu\n", 1e-9 * (double)PIECE * copies / total, (unsigned long long)sum);
    free(best);
}

static int bench_all(const struct bench *benches, int count, int argc, char **argv)
{
    const size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 512) << 20;
    const int rounds = argc > 2 ? atoi(argv[2]) : 5;
    int stride = 0, tokens[TOKENS] = { 1, TOKENS }, counts = argc > 3 ? 0 : 2;
    for (; counts + 3 < argc && counts < TOKENS; counts++)
        tokens[counts] = atoi(argv[counts + 3]);
    for (int i = 0; i < count; i++)
        stride = benches[i].padded_cols > stride ? benches[i].padded_cols : stride;

    uint8_t *w = memory(bytes);
    uint32_t random = 1;
    for (size_t i = 0; i < bytes; i++) {
        random = random * 1664525u + 1013904223u;
        w[i] = (uint8_t)(random >> 24 & 0xaau); /* valid 2-bit codes; any byte is timed alike */
    }
    struct bnc_acts x = { 0 };
    x.stride = stride;
    x.q = memory((size_t)TOKENS * (size_t)stride);
    x.sum = memory(sizeof *x.sum * TOKENS);
    x.scale = memory(sizeof *x.scale * TOKENS);
    x.bits = memory((size_t)TOKENS * (size_t)stride);
    x.lut = memory((size_t)TOKENS * (size_t)stride * BNC_LUT);
    float *row = memory(sizeof *row * (size_t)stride);
    for (int i = 0; i < TOKENS; i++) {
        for (int k = 0; k < stride; k++)
            row[k] = (float)((k * 31 + i) % 255 - 127);
        bnc_quantise(&x, i, row, stride);
        bnc_build_lut16(&x, i, stride);
        bnc_build_bits(&x, i);
    }

    printf("gigahertz %.4f\n", gigahertz());
    for (int i = 0; i < count; i++)
        bench_kernel(&benches[i], w, bytes, &x, rounds, tokens, counts);
    bench_tables(&x, stride, rounds);
    bench_stream(w, bytes, rounds);
    for (size_t i = 0; i < bytes; i += 2) {
        /* bfloat16 of ordinary size: denormal ones would be timed, not weights */
        const uint16_t value = (uint16_t)(0x3c00 + (w[i] << 8 & 0x8000) + w[i + 1]);
        memcpy(w + i, &value, sizeof value);
    }
    bench_dense(w, bytes, row, rounds);
    bench_attention(rounds);
    printf("gigahertz %.4f\n", gigahertz());
    return 0;
}

#endif
