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

/* Medians of `RUNS` runs over pseudo-random tokens. */
static void bench(const struct options *o)
{
    enum { RUNS = 3, PREFILL = 512, DECODE = 128 };
    const int most = o->context ? o->context : BNC_MODEL_CONTEXT;
    const int prefill = most / 2 < PREFILL ? (most + 1) / 2 : PREFILL;
    const int decode = most - prefill < DECODE ? most - prefill : DECODE;
    if (decode < 1)
        die(USAGE, "-c", "--bench needs a context of at least 2");
    struct bnc_model *m = start(o, prefill + decode);
    int32_t *ids = take(sizeof *ids * (size_t)(prefill + decode), "bench");
    uint32_t random = 1;
    for (int i = 0; i < prefill + decode; i++) {
        random = random * 1664525u + 1013904223u;
        ids[i] = (int32_t)(random >> 8) % BNC_MODEL_VOCAB;
    }
    double fast[RUNS], slow[RUNS];
    for (int run = 0; run < RUNS; run++) {
        bnc_model_reset(m);
        const double t0 = bnc_os_seconds();
        feed(m, ids, prefill, o->batch);
        const double t1 = bnc_os_seconds();
        for (int i = 0; i < decode; i++)
            feed(m, ids + prefill + i, 1, 1);
        fast[run] = t1 - t0;
        slow[run] = bnc_os_seconds() - t1;
    }
    qsort(fast, RUNS, sizeof *fast, by_value);
    qsort(slow, RUNS, sizeof *slow, by_value);
    const double each = slow[RUNS / 2] / decode;
    const double cache = (double)BNC_MODEL_CACHE_BYTES * (prefill + 0.5 * decode);
    printf("model    %s, %s, %d thread%s\n", BNC_MODEL_NAME, BNC_MODEL_TARGET, o->threads,
           o->threads == 1 ? "" : "s");
    printf("prefill  %d tokens: %.1f tokens/s\n", prefill, prefill / fast[RUNS / 2]);
    printf("decode   %d tokens: %.1f tokens/s, %.3f ms each\n", decode, 1.0 / each, 1e3 * each);
    const double ternary = ternary_bytes(m, ids, prefill + decode, decode < 16 ? decode : 16);
    const double token = ternary + BNC_MODEL_HEAD_BYTES + cache;
    printf("bytes    %.1f MB a token (%.1f ternary, %.1f head, %.1f cache): %.2f GB/s\n",
           token / 1e6, ternary / 1e6, BNC_MODEL_HEAD_BYTES / 1e6, cache / 1e6, token / each / 1e9);
    finish(m);
    free(ids);
}

#endif
