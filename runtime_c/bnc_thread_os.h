/* SPDX-License-Identifier: MIT */
/* Threads, a lock and a condition as the pool needs them: POSIX threads, or Windows' own, which
 * need no library beside the kernel and no heap. Functions return 0, or another number when they
 * fail. bnc_thread_start() takes the bytes of stack, of which the system uses some itself.
 * bnc_thread_clock() only goes forward, in units of its own.
 */
#ifndef BNC_THREAD_OS_H
#define BNC_THREAD_OS_H

#include <stdint.h>

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

typedef HANDLE bnc_thread;
typedef SRWLOCK bnc_mutex;
typedef CONDITION_VARIABLE bnc_cond;
typedef DWORD bnc_thread_result;
#define BNC_THREAD_CALL WINAPI

static inline int bnc_thread_start(bnc_thread *thread, LPTHREAD_START_ROUTINE function, void *arg,
                                   size_t stack)
{
    *thread = CreateThread(0, stack, function, arg, STACK_SIZE_PARAM_IS_A_RESERVATION, 0);
    return *thread == 0;
}

static inline void bnc_thread_join(bnc_thread thread)
{
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

static inline void bnc_thread_yield(void)
{
    SwitchToThread();
}

static inline uint64_t bnc_thread_clock(void)
{
    LARGE_INTEGER now;
    QueryPerformanceCounter(&now);
    return (uint64_t)now.QuadPart;
}

static inline int bnc_mutex_init(bnc_mutex *mutex)
{
    InitializeSRWLock(mutex);
    return 0;
}

static inline void bnc_mutex_destroy(bnc_mutex *mutex)
{
    (void)mutex;
}

static inline void bnc_mutex_lock(bnc_mutex *mutex)
{
    AcquireSRWLockExclusive(mutex);
}

static inline void bnc_mutex_unlock(bnc_mutex *mutex)
{
    ReleaseSRWLockExclusive(mutex);
}

static inline int bnc_cond_init(bnc_cond *cond)
{
    InitializeConditionVariable(cond);
    return 0;
}

static inline void bnc_cond_destroy(bnc_cond *cond)
{
    (void)cond;
}

static inline void bnc_cond_wait(bnc_cond *cond, bnc_mutex *mutex)
{
    SleepConditionVariableSRW(cond, mutex, INFINITE, 0);
}

static inline void bnc_cond_broadcast(bnc_cond *cond)
{
    WakeAllConditionVariable(cond);
}

#else

#include <pthread.h>
#include <sched.h>
#include <time.h>

typedef pthread_t bnc_thread;
typedef pthread_mutex_t bnc_mutex;
typedef pthread_cond_t bnc_cond;
typedef void *bnc_thread_result;
#define BNC_THREAD_CALL

/* Where the C library refuses so small a stack, since it keeps large thread-local storage in it,
 * the thread gets one of the library's own size. */
static inline int bnc_thread_start(bnc_thread *thread, void *(*function)(void *), void *arg,
                                   size_t stack)
{
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (!failed) {
        failed = pthread_attr_setstacksize(&attributes, stack) ||
                 pthread_create(thread, &attributes, function, arg);
        pthread_attr_destroy(&attributes);
    }
    return failed ? pthread_create(thread, 0, function, arg) : 0;
}

static inline void bnc_thread_join(bnc_thread thread)
{
    pthread_join(thread, 0);
}

static inline void bnc_thread_yield(void)
{
    sched_yield();
}

static inline uint64_t bnc_thread_clock(void)
{
    struct timespec now;
#if defined(CLOCK_MONOTONIC)
    clock_gettime(CLOCK_MONOTONIC, &now);
#else /* C11 without POSIX: a clock that somebody may set, which misleads one job */
    timespec_get(&now, TIME_UTC);
#endif
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline int bnc_mutex_init(bnc_mutex *mutex)
{
    return pthread_mutex_init(mutex, 0);
}

static inline void bnc_mutex_destroy(bnc_mutex *mutex)
{
    pthread_mutex_destroy(mutex);
}

static inline void bnc_mutex_lock(bnc_mutex *mutex)
{
    pthread_mutex_lock(mutex);
}

static inline void bnc_mutex_unlock(bnc_mutex *mutex)
{
    pthread_mutex_unlock(mutex);
}

static inline int bnc_cond_init(bnc_cond *cond)
{
    return pthread_cond_init(cond, 0);
}

static inline void bnc_cond_destroy(bnc_cond *cond)
{
    pthread_cond_destroy(cond);
}

static inline void bnc_cond_wait(bnc_cond *cond, bnc_mutex *mutex)
{
    pthread_cond_wait(cond, mutex);
}

static inline void bnc_cond_broadcast(bnc_cond *cond)
{
    pthread_cond_broadcast(cond);
}

#endif
#endif
