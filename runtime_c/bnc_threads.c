/* SPDX-License-Identifier: MIT */
#include "bnc_threads.h"

#if BNC_THREADS

/* How long to spin before giving the core away: a barrier between two layers of a small model is
 * shorter than MOST_PAUSES, a scheduler's time slice much longer. Where a worker waited longer than
 * it had patience, there may be more workers than cores, of which one that is waited for has none:
 * patience halves then, and grows slowly while it lasts. */
enum { LEAST_PAUSES = 128, MOST_PAUSES = 1 << 12, SPINS_BEFORE_SLEEP = 1 << 14 };

/* A job is calm where its caller, who has no less to do than others and so waits for them least,
 * waited less than 1 / CALM_SHARE of the jobs before, of which each counts half of the next. Pauses
 * would not tell: after a few waits in vain they are so few that every barrier takes more. */
enum { CALM_SHARE = 8 };

static void pause_briefly(unsigned spins, unsigned patience)
{
    if (spins >= patience) {
        bnc_thread_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
    __asm__ volatile("yield");
#endif
}

/* Waits until *what is `value`. */
static void wait_until(struct bnc_worker *worker, atomic_uint *what, unsigned value)
{
    struct bnc_own *own = &worker->pool->own[worker->index];
    const unsigned patience = own->patience;
    uint64_t since = 0; /* when the wait was no longer a short one: the clock is not free, either */
    unsigned spins = 0;
    for (; atomic_load_explicit(what, memory_order_acquire) != value; spins++) {
        if (spins == LEAST_PAUSES && worker->index == 0)
            since = bnc_thread_clock();
        pause_briefly(spins, patience);
    }
    if (since)
        own->waited += bnc_thread_clock() - since;
    if (spins > patience)
        own->patience = patience / 2 > LEAST_PAUSES ? patience / 2 : LEAST_PAUSES;
    else if (patience < MOST_PAUSES)
        own->patience = patience + patience / 8;
}

BNC_STEP_API void bnc_sync(struct bnc_worker *worker)
{
    struct bnc_pool *pool = worker->pool;
    if (worker->count == 1)
        return;
    const unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    const unsigned before = atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel);
    if (before + 1 == (unsigned)worker->count) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->ready, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->phase, phase + 1, memory_order_release);
        return;
    }
    wait_until(worker, &pool->phase, phase + 1);
}

BNC_STEP_API void bnc_arrive(struct bnc_worker *worker)
{
    struct bnc_pool *pool = worker->pool;
    atomic_store_explicit(&pool->own[worker->index].taken, 0, memory_order_relaxed);
    if (worker->count > 1)
        atomic_fetch_add_explicit(&pool->ready, 1, memory_order_acq_rel);
}

BNC_STEP_API void bnc_await(struct bnc_worker *worker)
{
    if (worker->count > 1)
        wait_until(worker, &worker->pool->ready, (unsigned)worker->count);
}

/* Waits for a job newer than `seen`; returns its number. */
static unsigned next_job(struct bnc_pool *pool, unsigned seen, unsigned patience)
{
    for (unsigned spins = 0; spins < SPINS_BEFORE_SLEEP; spins++) {
        const unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen)
            return now;
        pause_briefly(spins, patience);
    }
    bnc_mutex_lock(&pool->mutex);
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen)
        bnc_cond_wait(&pool->wake, &pool->mutex);
    bnc_mutex_unlock(&pool->mutex);
    return atomic_load_explicit(&pool->generation, memory_order_acquire);
}

static bnc_thread_result BNC_THREAD_CALL helper(void *arg)
{
    struct bnc_worker *worker = arg;
    struct bnc_pool *pool = worker->pool;
    for (unsigned seen = 0;;) {
        seen = next_job(pool, seen, pool->own[worker->index].patience);
        if (pool->stop)
            return 0;
        pool->job(pool->arg, worker);
        bnc_sync(worker);
    }
}

static void publish(struct bnc_pool *pool)
{
    bnc_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    bnc_cond_broadcast(&pool->wake);
    bnc_mutex_unlock(&pool->mutex);
}

static void join(struct bnc_pool *pool, int helpers)
{
    pool->stop = 1;
    publish(pool);
    for (int i = 1; i <= helpers; i++)
        bnc_thread_join(pool->thread[i]);
    bnc_cond_destroy(&pool->wake);
    bnc_mutex_destroy(&pool->mutex);
}

#else

BNC_STEP_API void bnc_sync(struct bnc_worker *worker)
{
    (void)worker;
}

BNC_STEP_API void bnc_arrive(struct bnc_worker *worker)
{
    worker->pool->taken = 0;
}

BNC_STEP_API void bnc_await(struct bnc_worker *worker)
{
    (void)worker;
}

#endif

BNC_API int bnc_pool_start(struct bnc_pool *pool, int count)
{
    if (count < 1 || count > BNC_MAX_THREADS)
        return -1;
    pool->count = count;
    for (int i = 0; i < count; i++)
        pool->worker[i] = (struct bnc_worker){ pool, i, count };
#if BNC_THREADS
    pool->stop = 0;
    pool->calm = 0;
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->arrived, 0);
    atomic_init(&pool->ready, 0);
    atomic_init(&pool->phase, 0);
    for (int i = 0; i < count; i++)
        pool->own[i] = (struct bnc_own){ .patience = MOST_PAUSES };
    if (count == 1)
        return 0;
    if (bnc_mutex_init(&pool->mutex) != 0)
        return -1;
    if (bnc_cond_init(&pool->wake) != 0) {
        bnc_mutex_destroy(&pool->mutex);
        return -1;
    }
    for (int i = 1; i < count; i++)
        if (bnc_thread_start(&pool->thread[i], helper, &pool->worker[i], BNC_THREAD_STACK) != 0) {
            join(pool, i - 1);
            return -1;
        }
#endif
    return 0;
}

BNC_API void bnc_pool_stop(struct bnc_pool *pool)
{
#if BNC_THREADS
    if (pool->count > 1)
        join(pool, pool->count - 1);
#endif
    pool->count = 0;
}

BNC_API void bnc_run(struct bnc_pool *pool, bnc_job *job, void *arg)
{
    pool->job = job;
    pool->arg = arg;
#if BNC_THREADS
    struct bnc_own *own = &pool->own[0];
    const uint64_t start = pool->count > 1 ? bnc_thread_clock() : 0;
    if (pool->count > 1) {
        pool->calm = CALM_SHARE * own->waited <= own->took;
        own->waited /= 2;
        own->took /= 2;
        publish(pool);
    }
#endif
    job(arg, &pool->worker[0]);
    bnc_sync(&pool->worker[0]);
#if BNC_THREADS
    if (pool->count > 1)
        own->took += bnc_thread_clock() - start;
#endif
}
