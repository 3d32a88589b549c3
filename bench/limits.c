/* SPDX-License-Identifier: MIT */
/* What the machine can do: read memory, and multiply 8-bit numbers.
 *
 *     limits [FILE] [threads] [MiB]      FILE: a file of at least so many MiB, for mapped reads
 *
 * One line a measurement: what, pages, threads, prefetch distance in bytes, median and best of
 * ROUNDS rounds in GB/s; or what, threads, median and best in G multiply-adds a second. Built with
 * -march=native by bench/limits.py; what the CPU lacks is left out. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AMX_INT8__)
#include <sys/syscall.h>
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

enum { ROUNDS = 5, MOST_THREADS = 64, HUGE_PAGE = 2 << 20, LINE = 64 };

/* A cache line; the compiler takes the widest registers it may. */
typedef uint64_t line __attribute__((vector_size(64)));

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct job {
    const char *begin; /* reads: this thread's part */
    size_t bytes;
    size_t ahead;               /* prefetch distance, 0 for none */
    double (*arithmetic)(void); /* or: a loop that returns its multiply-adds */
    double done;
    uint64_t sum; /* keeps the reads */
};

static void read_part(struct job *job)
{
    line s0 = { 0 }, s1 = { 0 }, s2 = { 0 }, s3 = { 0 };
    const size_t step = 4 * LINE;
    for (size_t i = 0; i + step <= job->bytes; i += step) {
        const line *p = (const line *)(job->begin + i);
        if (job->ahead)
            for (size_t j = 0; j < 4; j++) /* past the end a prefetch does nothing */
                __builtin_prefetch(job->begin + i + job->ahead + j * LINE);
        s0 += p[0];
        s1 += p[1];
        s2 += p[2];
        s3 += p[3];
    }
    s0 = s0 + s1 + s2 + s3;
    for (int i = 0; i < 8; i++)
        job->sum += s0[i];
}

static void *run_job(void *argument)
{
    struct job *job = argument;
    if (job->arithmetic)
        job->done = job->arithmetic();
    else
        read_part(job);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Work units a second of all threads together: median and best. */
struct rate {
    double median, best;
};

static struct rate together(struct job *jobs, int threads, double work)
{
    double rates[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t others[MOST_THREADS];
        const double start = seconds();
        for (int i = 1; i < threads; i++)
            if (pthread_create(&others[i], NULL, run_job, &jobs[i]))
                exit(3);
        run_job(&jobs[0]);
        for (int i = 1; i < threads; i++)
            pthread_join(others[i], NULL);
        const double time = seconds() - start;
        double all = work;
        for (int i = 0; i < threads; i++)
            all += jobs[i].done;
        rates[round] = all / time;
    }
    qsort(rates, ROUNDS, sizeof *rates, by_value);
    return (struct rate){ rates[ROUNDS / 2], rates[ROUNDS - 1] };
}

static void reads(const char *pages, const char *memory, size_t bytes, int most_threads)
{
    const size_t distances[] = { 0, 1024, 2048, 4096, 8192 };
    for (int threads = 1; threads <= most_threads; threads *= 2)
        for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
            struct job jobs[MOST_THREADS] = { 0 };
            const size_t part = bytes / (size_t)threads / HUGE_PAGE * HUGE_PAGE;
            for (int i = 0; i < threads; i++)
                jobs[i] = (struct job){ .begin = memory + (size_t)i * part,
                                        .bytes = part,
                                        .ahead = distances[d] };
            const struct rate r = together(jobs, threads, (double)part * threads);
            printf("read %s %d %zu %.1f %.1f\n", pages, threads, distances[d], r.median / 1e9,
                   r.best / 1e9);
            fflush(stdout);
        }
}

/* Anonymous memory, of huge pages where the system gives them. */
static char *anonymous(size_t bytes, int huge)
{
    char *p =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(3);
    p = (char *)(((uintptr_t)p + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#if defined(MADV_HUGEPAGE)
    madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)huge;
#endif
    memset(p, 1, bytes);
    return p;
}

/* Instructions as text: a compiler would multiply once, or move registers about. Twelve sums, since
 * a result is ready after four or five cycles on two ports. */
#define TURNS 20000000L
enum { SUMS = 12 };
#if defined(__clang__)
#define EACH_SUM _Pragma("clang loop unroll(full)") for (int i = 0; i < SUMS; i++)
#else
#define EACH_SUM _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; i++)
#endif

#if defined(__AVX2__)
/* vpmaddubsw and an addition of 16-bit sums: what AVX2 has without VNNI. */
static double maddubs(void)
{
    __m256i sum[SUMS] = { 0 }, x = _mm256_set1_epi8(1);
    for (long turn = 0; turn < TURNS; turn++)
        EACH_SUM
        {
            __m256i product;
            __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpaddw %1, %0, %0"
                             : "+x"(sum[i]), "=&x"(product)
                             : "x"(x));
        }
    return (double)SUMS * 32 * TURNS;
}
#endif

#if defined(__AVXVNNI__)
static double vnni256(void)
{
    __m256i sum[SUMS] = { 0 }, x = _mm256_set1_epi8(1);
    for (long turn = 0; turn < TURNS; turn++)
        EACH_SUM
        {
            __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(sum[i]) : "x"(x));
        }
    return (double)SUMS * 32 * TURNS;
}
#endif

#if defined(__AVX512VNNI__)
static double vnni512(void)
{
    __m512i sum[SUMS] = { 0 }, x = _mm512_set1_epi8(1);
    for (long turn = 0; turn < TURNS; turn++)
        EACH_SUM
        {
            __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum[i]) : "v"(x));
        }
    return (double)SUMS * 64 * TURNS;
}
#endif

#if defined(__AMX_INT8__)
/* Two tiles of 16 x 64 times two of 64 x 16, loaded from L1 for every four products. */
static double amx_l1(void)
{
    static const int8_t a[2][1024] __attribute__((aligned(64))) = { { 1 } };
    static const int8_t b[2][1024] __attribute__((aligned(64))) = { { 1 } };
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } shape = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        shape.columns[i] = 64;
        shape.rows[i] = 16;
    }
    __asm__ volatile("" : : "r"(&shape) : "memory"); /* GCC 12 thinks that eight bytes are read */
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const long turns = TURNS / 8;
    for (long turn = 0; turn < turns; turn++) {
        _tile_loadd(4, a[0], 64);
        _tile_loadd(5, a[1], 64);
        _tile_loadd(6, b[0], 64);
        _tile_loadd(7, b[1], 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_release();
    return 4.0 * 16 * 16 * 64 * (double)turns;
}

/* The system must allow the tiles' state before their first use. */
static int amx_allowed(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
static double sdot(void)
{
    int32x4_t sum[SUMS] = { 0 };
    const int8x16_t x = vdupq_n_s8(1);
    for (long turn = 0; turn < TURNS; turn++)
        EACH_SUM
        {
            __asm__ volatile("sdot %0.4s, %1.16b, %1.16b" : "+w"(sum[i]) : "w"(x));
        }
    return (double)SUMS * 16 * TURNS;
}
#endif

static void arithmetic(const char *name, double (*loop)(void), int most_threads)
{
    for (int threads = 1; threads <= most_threads; threads *= 2) {
        struct job jobs[MOST_THREADS] = { 0 };
        for (int i = 0; i < threads; i++)
            jobs[i] = (struct job){ .arithmetic = loop };
        const struct rate r = together(jobs, threads, 0.0);
        printf("multiply %s %d %.0f %.0f\n", name, threads, r.median / 1e9, r.best / 1e9);
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    const char *file = count > 1 ? arguments[1] : "";
    const int asked = count > 2 ? atoi(arguments[2]) : 2;
    const int threads = asked < 1 ? 1 : asked > MOST_THREADS ? MOST_THREADS : asked;
    const size_t bytes = (size_t)(count > 3 ? atol(arguments[3]) : 1024) << 20;

#if defined(__AVX2__)
    arithmetic("avx2-maddubs", maddubs, threads);
#endif
#if defined(__AVXVNNI__)
    arithmetic("avx-vnni", vnni256, threads);
#endif
#if defined(__AVX512VNNI__)
    arithmetic("avx512-vnni", vnni512, threads);
#endif
#if defined(__AMX_INT8__)
    if (amx_allowed())
        arithmetic("amx-int8-l1", amx_l1, threads);
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    arithmetic("neon-sdot", sdot, threads);
#endif
    for (int huge = 0; huge < 2; huge++) {
        char *memory = anonymous(bytes, huge);
        reads(huge ? "huge" : "4k", memory, bytes, threads);
        munmap(memory, bytes);
    }
    const int handle = *file ? open(file, O_RDONLY) : -1;
    if (handle >= 0) {
        struct stat about;
        const size_t size = fstat(handle, &about) ? 0 : (size_t)about.st_size;
        const size_t part = size < bytes ? size : bytes;
        char *memory = mmap(NULL, part, PROT_READ, MAP_PRIVATE, handle, 0);
        if (memory == MAP_FAILED)
            return 3;
#if defined(MADV_POPULATE_READ)
        madvise(memory, part, MADV_POPULATE_READ);
#endif
        reads("file", memory, part, threads);
    }
    return 0;
}
