/* SPDX-License-Identifier: MIT */
/* Threads that run one job together, each on its share of the rows.
 *
 * A job is one function that every worker calls; inside, bnc_sync() is a barrier and
 * bnc_share() says which part is this worker's. Between jobs the helpers sleep.
 * The library never decides how many threads there are, and with one there is no thread call
 * at all. Built with BNC_THREADS=0 it needs no system and `threads` must be 1.
 *
 * The number of workers never changes a result: it only changes who computes which row.
 */
#ifndef BNC_THREADS_H
#define BNC_THREADS_H

#include <stddef.h>

#ifndef BNC_THREADS
#define BNC_THREADS 1
#endif

/* How the functions are visible: extern, unless the including unit holds the whole library. */
#ifndef BNC_API
#define BNC_API
#endif

/* The same for what a step and the rest of the library call of each other: a step that is compiled
 * for several CPUs is a unit of its own. */
#ifndef BNC_STEP_API
#define BNC_STEP_API BNC_API
#endif

#if BNC_THREADS
#include <stdatomic.h>
#include <stdint.h>

#include "bnc_thread_os.h"
#endif

enum { BNC_MAX_THREADS = BNC_THREADS ? 64 : 1, BNC_CACHE_LINE = 64 };

/* Stack that a job takes; a model says its own. Threads get that, what systems take of it (signal
 * frames, thread-local storage), and the rest of a page of 64 KiB. */
#ifndef BNC_STACK_BYTES
#define BNC_STACK_BYTES 65536
#endif
#define BNC_THREAD_STACK (((size_t)BNC_STACK_BYTES + 65536 + 65535) / 65536 * 65536)

struct bnc_pool;

struct bnc_worker {
    struct bnc_pool *pool;
    int index; /* 0 is the caller of bnc_run() */
    int count;
};

typedef void bnc_job(void *arg, struct bnc_worker *worker);

#if BNC_THREADS
/* What a worker alone reads and writes but for `taken`, in a cache line of its own. */
struct bnc_own {
    _Alignas(BNC_CACHE_LINE) unsigned patience; /* pauses before it gives its core away */
    atomic_uint taken;                          /* of its pieces, by whomever: bnc_take() */
    uint64_t waited, took; /* the caller's: at barriers, and for whole jobs (bnc_calm()) */
};
#endif

/* Lives in the caller's memory; about 7 KB. Counters that different threads write have a cache
 * line each. */
struct bnc_pool {
    int count; /* workers, the caller included */
    bnc_job *job;
    void *arg;
    struct bnc_worker worker[BNC_MAX_THREADS];
#if BNC_THREADS
    bnc_thread thread[BNC_MAX_THREADS];
    bnc_mutex mutex;
    bnc_cond wake;
    _Alignas(BNC_CACHE_LINE) atomic_uint generation; /* counts jobs; changes under the mutex */
    _Alignas(BNC_CACHE_LINE) atomic_uint arrived;    /* workers at the present barrier */
    atomic_uint ready; /* workers that called bnc_arrive() since the last */
    _Alignas(BNC_CACHE_LINE) atomic_uint phase; /* counts barriers passed */
    int stop;
    int calm; /* see bnc_calm() */
    struct bnc_own own[BNC_MAX_THREADS];
#else
    int taken;
#endif
};

/* Starts count - 1 helpers. Returns 0, or -1 when a thread could not be started (none is left
 * running then) or count is outside 1 .. BNC_MAX_THREADS. */
BNC_API int bnc_pool_start(struct bnc_pool *pool, int count);

/* Ends and joins the helpers. */
BNC_API void bnc_pool_stop(struct bnc_pool *pool);

/* Runs job(arg, worker) on every worker, the calling thread included; returns when all are done,
 * and what they wrote is visible to the caller. One caller at a time. */
BNC_API void bnc_run(struct bnc_pool *pool, bnc_job *job, void *arg);

/* Barrier: no worker goes on before all have arrived; writes before it are visible after it. */
BNC_STEP_API void bnc_sync(struct bnc_worker *worker);

/* A barrier in two halves, once at most between two of bnc_sync(): what workers wrote before they
 * arrived is visible once it has been awaited. */
BNC_STEP_API void bnc_arrive(struct bnc_worker *worker);
BNC_STEP_API void bnc_await(struct bnc_worker *worker);

/* The next of the pieces 0, 1, ... of worker `owner` that nobody has taken since it arrived. */
static inline int bnc_take(const struct bnc_worker *worker, int owner)
{
#if BNC_THREADS
    return (int)atomic_fetch_add_explicit(&worker->pool->own[owner].taken, 1, memory_order_relaxed);
#else
    (void)owner;
    return worker->pool->taken++;
#endif
}

/* Whether little was waited of late, so that one more barrier pays where it lets work be shared out
 * more evenly: not where workers have to wait for cores. The same for all workers of a job. */
static inline int bnc_calm(const struct bnc_worker *worker)
{
#if BNC_THREADS
    return worker->pool->calm;
#else
    (void)worker;
    return 0;
#endif
}

/* This worker's part [begin, end) of `items` equal pieces of work. */
static inline void bnc_share(const struct bnc_worker *worker, int items, int *begin, int *end)
{
    const int each = items / worker->count, more = items % worker->count;
    *begin = each * worker->index + (worker->index < more ? worker->index : more);
    *end = *begin + each + (worker->index < more);
}

#endif
