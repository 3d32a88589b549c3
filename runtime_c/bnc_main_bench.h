/* SPDX-License-Identifier: MIT */
/* --bench: prefill and decode, measured. */
#ifndef BNC_MAIN_BENCH_H
#define BNC_MAIN_BENCH_H

#include "bnc_main_session.h"

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Ternary bytes that each of the last `count` of `have` tokens really reads: matrices of which rows
 * or columns are skipped count by the share that is not zero. Counted in tokens of their own, after
 * the clock was read. */
static double ternary_bytes(struct bnc_model *m, const int32_t *ids, int have, int count)
{
#ifdef BNC_MODEL_ROWS_BYTES
    uint64_t zeros[3] = { 0, 0, 0 };
    bnc_model_rewind(m, have - count);
    bnc_model_count_zeros(m, zeros);
    for (int i = have - count; i < have; i++)
        feed(m, ids + i, 1, 1);
    bnc_model_count_zeros(m, 0);
    const double products = (double)zeros[1] / (double)zeros[0];
    const double codes = (double)zeros[2] / (double)zeros[0];
    printf("zeros    behind the gate %.1f %%, before w_down %.1f %%\n", 100.0 * products,
           100.0 * codes);
    return BNC_MODEL_TERNARY_BYTES - products * BNC_MODEL_ROWS_BYTES -
           codes * BNC_MODEL_COLUMNS_BYTES;
#else
    (void)m, (void)ids, (void)have, (void)count;
    return BNC_MODEL_TERNARY_BYTES;
#endif
}

/* Bytes of the head that each of the same tokens really reads. */
static double head_bytes(struct bnc_model *m, const int32_t *ids, int have, int count)
{
#ifdef BNC_MODEL_EXACT_BYTES
    double rows = 0.0;
    bnc_model_rewind(m, have - count);
    for (int i = have - count; i < have; i++) {
        feed(m, ids + i, 1, 1);
        rows += bnc_model_exact_rows(m);
    }
    printf("rows     %.0f of %d of the head read as integers\n", rows / count, BNC_MODEL_VOCAB);
    return BNC_MODEL_HEAD_BYTES + rows / count * BNC_MODEL_EXACT_BYTES;
#else
    (void)m, (void)ids, (void)have, (void)count;
    return BNC_MODEL_HEAD_BYTES;
#endif
}

/* Seconds in which `decode` tokens are decoded behind the first `depth`: the median of runs. *have
 * tokens are in the cache before, depth + decode after; those that are missing are read first. */
enum { BENCH_RUNS = 3 };

static double decode_seconds(struct bnc_model *m, const int32_t *ids, int *have, int depth,
                             int decode, int batch)
{
    double seconds[BENCH_RUNS];
    if (*have < depth)
        feed(m, ids + *have, depth - *have, batch);
    *have = depth + decode;
    for (int run = 0; run < BENCH_RUNS; run++) {
        bnc_model_rewind(m, depth);
        const double start = bnc_os_seconds();
        for (int i = 0; i < decode; i++)
            feed(m, ids + depth + i, 1, 1);
        seconds[run] = bnc_os_seconds() - start;
    }
    qsort(seconds, BENCH_RUNS, sizeof *seconds, by_value);
    return seconds[BENCH_RUNS / 2];
}

/* Pseudo-random tokens: read together, and then decoded one by one at each depth. */
static void bench(const struct options *o)
{
    enum { PREFILL = 512, DECODE = 128 };
    const int most = o->context ? o->context : BNC_MODEL_CONTEXT;
    const int prefill = most / 2 < PREFILL ? (most + 1) / 2 : PREFILL;
    const int depths = o->depths ? o->depths : 1;
    const int *depth = o->depths ? o->depth : &prefill;
    int deepest = prefill, decode = o->n > 0 ? o->n : DECODE;
    for (int i = 0; i < depths; i++)
        deepest = depth[i] > deepest ? depth[i] : deepest;
    if (most < 2)
        die(USAGE, "-c", "--bench needs a context of at least 2");
    if (deepest >= most)
        die_numbers(USAGE, "--depth", "%ld tokens and one more are beyond a context of %ld",
                    deepest, most);
    decode = most - deepest < decode ? most - deepest : decode;
    struct bnc_model *m = start(o, deepest + decode);
    int32_t *ids = take(sizeof *ids * (size_t)(deepest + decode), "bench");
    uint32_t random = 1;
    for (int i = 0; i < deepest + decode; i++) {
        random = random * 1664525u + 1013904223u;
        ids[i] = (int32_t)(random >> 8) % BNC_MODEL_VOCAB;
    }
    double fast[BENCH_RUNS];
    for (int run = 0; run < BENCH_RUNS; run++) {
        bnc_model_reset(m);
        const double t0 = bnc_os_seconds();
        feed(m, ids, prefill, o->batch);
        fast[run] = bnc_os_seconds() - t0;
    }
    qsort(fast, BENCH_RUNS, sizeof *fast, by_value);
    printf("model    %s, %s, %d thread%s\n", BNC_MODEL_NAME, BNC_MODEL_TARGET, o->threads,
           o->threads == 1 ? "" : "s");
    printf("prefill  %d tokens: %.1f tokens/s\n", prefill, prefill / fast[BENCH_RUNS / 2]);
    int have = prefill;
    for (int i = 0; i < depths; i++) {
        const double each = decode_seconds(m, ids, &have, depth[i], decode, o->batch) / decode;
        const double cache = (double)BNC_MODEL_CACHE_BYTES * (depth[i] + 0.5 * decode);
        printf("depth    %d tokens before the first that is decoded\n", depth[i]);
        printf("decode   %d tokens: %.1f tokens/s, %.3f ms each\n", decode, 1.0 / each, 1e3 * each);
        const int counted = decode < 16 ? decode : 16;
        const double ternary = ternary_bytes(m, ids, have, counted);
        const double head = head_bytes(m, ids, have, counted);
        const double token = ternary + head + cache;
        printf("bytes    %.1f MB a token (%.1f ternary, %.1f head, %.1f cache): %.2f GB/s\n",
               token / 1e6, ternary / 1e6, head / 1e6, cache / 1e6, token / each / 1e9);
    }
    finish(m);
    free(ids);
}

#endif
