/* SPDX-License-Identifier: MIT */
/* Attention of one token that threads share out by chunks (bnc_attention_split.h), against
 * bnc_attend(), each head by itself in one thread: equal bits for every shape below.
 *
 *     check_split THREADS ...
 *
 * Who computes which chunk is left to chance, and decided, too: workers that are late find all
 * their chunks taken. Several layers follow each other in one job, as in a step. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define BNC_MAX_HEAD_DIM 128
#define BNC_STACK_BYTES  262144
#include "bnc_threads.c"

enum { LAYERS = 3, LATE = 4 };
static int late; /* see take() */

/* bnc_take(), but that workers who are late find nothing: none are, all but the first, all but the
 * last, or the second. */
static int take(const struct bnc_worker *worker, int owner)
{
    const int is_late[LATE] = { 0, worker->index > 0, worker->index < worker->count - 1,
                                worker->index == 1 };
    return is_late[late] ? INT_MAX / 2 : bnc_take(worker, owner);
}

#define bnc_take take
#include "bnc_attention_split.h"

struct shape {
    int kv_heads, group, head_dim, positions;
};

/* Tails of sixteen elements, of 256 positions and of four heads. */
static const struct shape shapes[] = {
    { 1, 1, 128, 257 }, { 1, 4, 64, 1281 }, { 3, 1, 96, 600 }, { 5, 4, 128, 700 },
    { 5, 2, 64, 512 },  { 3, 7, 20, 513 },  { 7, 1, 2, 1030 }, { 2, 3, 96, 1000 },
    { 4, 2, 16, 300 },  { 1, 5, 100, 255 }, { 9, 1, 36, 1 },   { 11, 2, 8, 2000 },
};

struct attention {
    struct shape shape;
    struct bnc_cache cache;
    ptrdiff_t head_stride; /* words */
    float *query, *wanted; /* [LAYERS][heads][head_dim] */
    float *memory;         /* BNC_SPLIT_FLOATS */
    float *score;          /* [workers][group][positions] */
    float scale;
};

static void *memory(size_t count, size_t bytes)
{
    void *p = calloc(count ? count : 1, bytes);
    if (!p)
        exit(3);
    return p;
}

/* From -1 to 1, and one in eight sixteen times as large. */
static float random_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    const int32_t upper = (int32_t)(uint32_t)(*state >> 32);
    return (float)upper * 0x1p-31f * ((*state >> 29 & 7u) ? 1.0f : 16.0f);
}

static void job(void *arg, struct bnc_worker *worker)
{
    const struct attention *a = arg;
    const struct shape s = a->shape;
    const int heads = s.kv_heads * s.group;
    for (int layer = 0; layer < LAYERS; layer++) {
        bnc_attention_split(worker, a->memory, a->query + layer * heads * s.head_dim, heads,
                            s.kv_heads, s.head_dim, s.positions, a->cache, a->head_stride, a->scale,
                            a->score + (ptrdiff_t)worker->index * s.group * s.positions);
        bnc_sync(worker);
    }
}

/* A cache of random keys and values, queries, and what bnc_attend() makes of them. */
static struct attention attention_of(struct shape s, int workers)
{
    struct attention a = { .shape = s, .scale = 1.0f / bnc_sqrt((float)s.head_dim) };
    const int heads = s.kv_heads * s.group, floats = LAYERS * heads * s.head_dim;
    const size_t split = (size_t)BNC_SPLIT_FLOATS(heads, s.head_dim, s.positions);
    uint64_t state = (uint64_t)(s.positions + s.head_dim);
    float k[BNC_MAX_HEAD_DIM], v[BNC_MAX_HEAD_DIM];
    a.head_stride = (ptrdiff_t)s.positions * BNC_CACHE_ROW(s.head_dim);
    a.cache.keys = memory((size_t)(s.kv_heads * a.head_stride), sizeof *a.cache.keys);
    a.cache.values = memory((size_t)(s.kv_heads * a.head_stride), sizeof *a.cache.values);
    a.query = memory((size_t)floats, sizeof *a.query);
    a.wanted = memory((size_t)floats, sizeof *a.wanted);
    a.memory = memory(split, sizeof *a.memory);
    a.score = memory((size_t)workers * (size_t)(s.group * s.positions), sizeof *a.score);
    for (int i = 0; i < floats; i++)
        a.wanted[i] = a.query[i] = random_float(&state);
    for (int h = 0; h < s.kv_heads; h++) {
        const ptrdiff_t skipped = h * a.head_stride;
        const struct bnc_cache head = { a.cache.keys + skipped, a.cache.values + skipped };
        for (int t = 0; t < s.positions; t++) {
            for (int d = 0; d < s.head_dim; d++) {
                k[d] = random_float(&state);
                v[d] = random_float(&state);
            }
            bnc_cache_put(head, t, k, v, s.head_dim);
        }
        for (int layer = 0; layer < LAYERS; layer++) {
            float *at = a.wanted + (layer * s.kv_heads + h) * s.group * s.head_dim;
            bnc_attend(at, at, head, s.positions, s.group, s.head_dim, a.scale, a.score);
        }
    }
    return a;
}

static void release(struct attention *a)
{
    free(a->cache.keys);
    free(a->cache.values);
    free(a->query);
    free(a->wanted);
    free(a->memory);
    free(a->score);
}

/* How many of the shape's jobs differ. */
static int check(struct bnc_pool *pool, struct shape s)
{
    struct attention a = attention_of(s, pool->count);
    const size_t bytes = sizeof(float) * LAYERS * (size_t)(s.kv_heads * s.group * s.head_dim);
    float *query = memory(bytes, 1);
    int wrong = 0;
    memcpy(query, a.query, bytes);
    for (late = 0; late < LATE; late++) {
        memcpy(a.query, query, bytes);
        bnc_run(pool, job, &a);
        if (memcmp(a.query, a.wanted, bytes)) {
            printf("%d threads, %d heads of %d for %d each, %d positions, late %d: other bits\n",
                   pool->count, s.kv_heads, s.head_dim, s.group, s.positions, late);
            wrong++;
        }
    }
    free(query);
    release(&a);
    return wrong;
}

int main(int argc, char **argv)
{
    static struct bnc_pool pool;
    int wrong = 0, jobs = 0;
    for (int i = 1; i < argc; i++) {
        if (bnc_pool_start(&pool, atoi(argv[i])) != 0)
            return 3;
        for (size_t n = 0; n < sizeof shapes / sizeof *shapes; n++)
            if (shapes[n].kv_heads % pool.count) { /* or no head is left to be shared out */
                wrong += check(&pool, shapes[n]);
                jobs += LATE;
            }
        bnc_pool_stop(&pool);
    }
    printf("%d of %d jobs differ\n", wrong, jobs);
    return wrong != 0;
}
