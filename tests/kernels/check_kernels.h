/* SPDX-License-Identifier: MIT */
/* The harness of check_kernels.c: kernels against the reference on the same bytes, in every
 * integer.
 *
 *     check_kernels [--seed N] [--limits] [--plant trit|overread|overwrite]
 *
 * Weights, activations and tables end at a page that must not be touched, so that one byte read
 * beyond them dies; sums lie between canaries; what lies between two tokens is poison.
 * --limits runs the largest column count that the kernel list allows, where int32 would overflow.
 * --plant makes one mistake in every case: the output must then say so.
 */
#ifndef CHECK_KERNELS_H
#define CHECK_KERNELS_H

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Where there are no pages to guard this way, canaries remain. */
#if defined(__wasi__) || defined(_WIN32) || !__STDC_HOSTED__
#define NO_GUARD
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif
#else
#include <signal.h>
#include <sys/mman.h>
#endif

#include "kernels/scalar/reference.h"

/* A layout's bytes, from bitnetc/layout.py. */
struct bytes {
    uint8_t valid[256];   /* all that packing may yield, `valids` of them */
    uint8_t changed[256]; /* byte -> one that differs in a single value */
    uint8_t hot[16];      /* all values zero but one, which is the least or the largest */
    int valids, hots;
    uint8_t low, zero, high; /* all values the least, zero, the largest */
    uint8_t mixed[2];        /* least and largest in turn, beginning with either */
};

struct check {
    const char *name;
    bnc_decode *decode;
    bnc_matmul *kernel;
    int rows, cols; /* of one block */
    int packed;     /* bytes of one block */
    const struct bytes *bytes;
    int lut;       /* reads look-up tables */
    int bits;      /* reads planes of bits, of activations -1, 0 and 1 */
    int low, high; /* the values of the first code and of the last one */
    int max_cols;
    int edges;               /* how many column counts there are that sums may be widened after */
    bnc_matmul_rows *chosen; /* of kernels that compute chosen rows */
    int sparse;              /* does not read columns of zero activations */
};

/* Bytes of a matrix of whole blocks. */
static size_t packed_bytes(const struct check *c, int rows, int cols)
{
    return (size_t)(rows / c->rows) * (size_t)(cols / c->cols) * (size_t)c->packed;
}

enum plant { NOTHING, TRIT, OVERREAD, OVERWRITE };

/* Weights, then activations. */
enum fill {
    RANDOM,
    PLUS_PLUS,
    PLUS_MINUS,
    MINUS_PLUS,
    MINUS_MINUS,
    ONE_HOT,
    ALTERNATING,
    LOW_BYTES,
    SPARSE, /* of kernels that skip columns */
    FILLS
};
static const char *const fill_names[FILLS] = {
    "random",        "all +1 x 127",     "all +1 x -127", "all -1 x 127",
    "all -1 x -127", "one-hot x random", "alternating",   "all +1 x (-1, 0)", /* entries 0xffff */
    "sparse",
};

enum { CANARIES = 16 };

/* Memory for the widest matrix. */
#ifndef CHECK_BYTES
#define CHECK_BYTES INT32_MAX
#endif
#define CANARY ((int32_t)0x5ca1ab1e)

static char now[200]; /* the case that runs, for the signal handler */

#ifndef NO_GUARD
static void died(int number)
{
    static const char text[] = "DIED with a signal in ";
    const ssize_t written =
        write(1, text, sizeof text - 1) + write(1, now, strlen(now)) + write(1, "\n", 1);
    _exit(written > 0 ? 128 + number : 1);
}
#endif

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(((z ^ z >> 31) >> 32) * limit >> 32);
}

/* Memory whose last byte lies before an inaccessible page. */
struct guarded {
    uint8_t *base;
    size_t bytes;
};

#ifdef NO_GUARD
static uint8_t *ending_at_guard(struct guarded *g, size_t bytes)
{
    if (g->bytes < bytes) {
        free(g->base);
        g->base = malloc(bytes);
        g->bytes = bytes;
        if (!g->base)
            exit(1);
    }
    return g->base + g->bytes - bytes;
}
#else
static uint8_t *ending_at_guard(struct guarded *g, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (g->bytes < bytes) {
        if (g->base)
            munmap(g->base, g->bytes + page);
        g->bytes = (bytes + page - 1) / page * page;
        g->base =
            mmap(NULL, g->bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (g->base == MAP_FAILED || mprotect(g->base + g->bytes, page, PROT_NONE) != 0) {
            perror("mmap");
            exit(1);
        }
    }
    return g->base + g->bytes - bytes;
}
#endif

static void fill_weights(const struct check *c, uint8_t *w, size_t bytes, enum fill fill)
{
    const struct bytes *b = c->bytes;
    for (size_t i = 0; i < bytes; i++)
        switch (fill) {
        case RANDOM:
        case SPARSE:
            w[i] = b->valid[random_below((uint32_t)b->valids)];
            break;
        case PLUS_PLUS:
        case PLUS_MINUS:
        case LOW_BYTES:
            w[i] = b->high;
            break;
        case ONE_HOT:
            w[i] = b->zero;
            break;
        case ALTERNATING:
            w[i] = b->mixed[i % 2];
            break;
        default:
            w[i] = b->low;
            break;
        }
    if (fill == ONE_HOT)
        w[random_below((uint32_t)bytes)] = b->hot[random_below((uint32_t)b->hots)];
}

static int int8_activation(enum fill fill, int k)
{
    switch (fill) {
    case PLUS_PLUS:
    case MINUS_PLUS:
        return 127;
    case PLUS_MINUS:
    case MINUS_MINUS:
        return -127;
    case ALTERNATING:
        return k % 2 ? 127 : -127;
    case LOW_BYTES:
        return k % 2 ? 0 : -1;
    case SPARSE: /* runs without any, too */
        return k / 40 % 3 == 0 || random_below(5) ? 0 : (int)random_below(255) - 127;
    default:
        return (int)random_below(255) - 127;
    }
}

static int activation(const struct check *c, enum fill fill, int k)
{
    const int q = int8_activation(fill, k);
    return !c->bits ? q : q == 127 || q == -127 ? q / 127 : q % 2;
}

static struct guarded w_memory, q_memory, sum_memory, lut_memory, bits_memory;
static int8_t *padded; /* a token with zeros behind it */
static int8_t *values; /* of the weights that all numbers of tokens share */

/* Activations of n tokens, `stride` apart; poison between them, and nothing behind the last. */
static struct bnc_acts make_acts(const struct check *c, enum fill fill, int cols, int n,
                                 enum plant plant)
{
    struct bnc_acts x = { 0 };
    x.stride = n == 1 ? cols : cols + c->cols;
    const size_t count = (size_t)(n - 1) * (size_t)x.stride + (size_t)cols;
    x.q = (int8_t *)ending_at_guard(&q_memory, count);
    x.sum = (int32_t *)(void *)ending_at_guard(&sum_memory, sizeof(int32_t) * (size_t)n);
    memset(x.q, 0x80, count);
    for (int i = 0; i < n; i++) {
        x.sum[i] = 0;
        for (int k = 0; k < cols; k++) {
            int q = activation(c, fill, k);
            if (plant == TRIT && q == 0)
                q = 1; /* so that every trit matters */
            x.q[i * x.stride + k] = (int8_t)q;
            x.sum[i] += q;
        }
    }
    if (c->bits) { /* as many bytes as are written */
        const size_t last = 8 + 48 * ((size_t)x.stride / 64);
        x.bits = ending_at_guard(&bits_memory, (size_t)(n - 1) * (size_t)x.stride + last);
        padded = realloc(padded, (size_t)x.stride);
        if (!padded)
            exit(1);
        memset(padded + cols, 0, (size_t)(x.stride - cols));
        for (int i = 0; i < n; i++) {
            struct bnc_acts one = x;
            memcpy(padded, x.q + (ptrdiff_t)i * x.stride, (size_t)cols);
            one.q = padded;
            one.bits = x.bits + (ptrdiff_t)i * x.stride;
            bnc_build_bits(&one, 0);
        }
    }
    if (c->lut) {
        const size_t before = (size_t)(n - 1) * (size_t)x.stride * BNC_LUT;
        const size_t lut = before + 4 * (size_t)x.stride + 8 * (size_t)cols;
        x.lut = ending_at_guard(&lut_memory, lut);
        memset(x.lut, 0xa5, lut);
        for (int i = 0; i < n; i++)
            bnc_build_lut16(&x, i, cols);
    }
    return x;
}

static int passed, failed;

/* Rows that were chosen, in order: `want` has all of them. */
static int check_chosen(const struct check *c, const uint8_t *w, const struct bnc_acts *x,
                        const int32_t *want, int rows, int cols, enum plant plant)
{
    enum { LISTED = 9, LEFT = 3 }; /* the last few are listed only */
    int32_t row[LISTED] = { 0 }, got[LISTED + 1];
    int listed = 0;
    for (int m = 0; m < rows && listed < LISTED; m++)
        if (random_below(2) || m == rows - 1)
            row[listed++] = m;
    const int count = listed > LEFT ? listed - LEFT : listed;
    got[count] = CANARY;
    c->chosen(got, w, x, row, count, listed, cols);
    if (plant == OVERWRITE)
        got[count] = 0;
    for (int i = 0; i < count; i++)
        if (got[i] != want[row[i]]) {
            printf("FAIL %s: chosen row %d is %d, reference %d\n", now, (int)row[i], (int)got[i],
                   (int)want[row[i]]);
            return 1;
        }
    if (got[count] != CANARY)
        printf("FAIL %s: wrote behind %d chosen rows\n", now, count);
    return got[count] != CANARY;
}

/* w: weights whose values are in `values` */
static void check_case(const struct check *c, uint8_t *w, int rows, int cols, int n, enum fill fill,
                       uint64_t seed, enum plant plant)
{
    const size_t bytes = packed_bytes(c, rows, cols);
    const size_t count = (size_t)rows * (size_t)n;
    snprintf(now, sizeof now, "%s %d x %d, %d tokens, %s, seed %llu", c->name, rows, cols, n,
             fill_names[fill], (unsigned long long)seed);
    const struct bnc_acts x = make_acts(c, fill, cols, n, plant);
    int32_t *want = malloc(sizeof *want * count);
    int32_t *got = malloc(sizeof *got * (count + 2 * CANARIES));
    if (!want || !got)
        exit(1);
    for (size_t i = 0; i < count + 2 * CANARIES; i++)
        got[i] = CANARY;

    bnc_matmul_reference(want, values, &x, rows, cols, n);
    uint8_t *changed = w, before = *w;
    if (plant == TRIT) {
        changed += random_below((uint32_t)bytes);
        before = *changed;
        *changed = c->bytes->changed[before]; /* one value is another */
    }
    c->kernel(got + CANARIES, w, &x, rows, cols, n);
    *changed = before;
    if (plant == OVERREAD)
        got[CANARIES] += *(volatile uint8_t *)(w + bytes);
    if (plant == OVERWRITE)
        got[CANARIES + count] = 0;

    int bad = 0;
    for (size_t i = 0; i < count && !bad; i++)
        if (got[CANARIES + i] != want[i]) {
            bad = 1;
            printf("FAIL %s: token %d row %d is %d, reference %d\n", now, (int)i / rows,
                   (int)i % rows, (int)got[CANARIES + i], (int)want[i]);
        }
    for (size_t i = 0; i < CANARIES && !bad; i++)
        if (got[i] != CANARY || got[CANARIES + count + i] != CANARY) {
            bad = 1;
            printf("FAIL %s: wrote outside the %d sums\n", now, (int)count);
        }
    if (!bad && c->chosen && n == 1)
        bad = check_chosen(c, w, &x, want, rows, cols, plant);
    passed += !bad;
    failed += bad;
    free(want);
    free(got);
}

static void check_shapes(const struct check *c, uint64_t seed, enum plant plant)
{
    /* A few blocks, then both sides of the columns after which kernels widen their sums. */
    static const int edges[] = { 256, 512, 1024, 2048, 4096, 6912, 14336 };
    int cols[4 + 3 * 7], count = 0;
    for (int i = 0; i < 4; i++)
        cols[count++] = c->cols * (i < 3 ? i + 1 : 5);
    for (int e = 0; e < c->edges; e++)
        for (int d = -1; d <= 1; d++)
            if ((edges[e] / c->cols + d) * c->cols > 5 * c->cols && (e < 5 || d == 0))
                cols[count++] = (edges[e] / c->cols + d) * c->cols;
    static const int tokens[] = { 1, 2, 3, 5, 8 };
    int many = __STDC_HOSTED__ ? 134 : 0; /* once: more than any kernel sums at a time */
    for (int i = 0; i < count; i++)
        for (int blocks = 1; blocks <= 5; blocks += 2) {
            /* Thirteen single rows: eight at a time, four, and one. */
            const int rows = c->rows == 1 && blocks == 5 ? 13 : blocks * c->rows;
            const long long size = (long long)rows * cols[i];
            if (blocks > 1 && size > 20000)
                continue; /* emulators are slow */
            const size_t bytes = packed_bytes(c, rows, cols[i]);
            uint8_t *w = ending_at_guard(&w_memory, bytes);
            values = realloc(values, (size_t)size);
            if (!values)
                exit(1);
            for (int fill = 0; fill < FILLS - !c->sparse; fill++) {
                random_state = seed;
                fill_weights(c, w, bytes, (enum fill)fill);
                c->decode(values, w, rows, cols[i]);
                for (int t = 0; t < (size > 60000 ? 2 : size > 20000 ? 3 : 5); t++)
                    check_case(c, w, rows, cols[i], tokens[t], (enum fill)fill, seed, plant);
                if (many && cols[i] > 192) {
                    check_case(c, w, rows, cols[i], many, (enum fill)fill, seed, plant);
                    many = 0;
                }
            }
        }
}

/* What kernels do apart, at once: groups of rows and rows left of them, several turns of streams of
 * columns, and each number of tokens that is left of those taken together. */
static void check_groups(const struct check *c, uint64_t seed, enum plant plant)
{
    static const int tokens[] = { 1, 4, 6, 7, 9, 10, 11, 12, 15, 17, 134 };
    /* Single rows: 64, 32, eight, four and one. */
    const int blocks = c->rows == 1 ? 109 : c->rows < 64 ? 5 : c->rows < 128 ? 3 : 2;
    /* More columns than are unpacked at a time. */
    const int wide = c->rows >= 128 ? 256 : c->rows == 4 ? 1024 : 640;
    const int rows = blocks * c->rows, cols = (wide / c->cols + 1) * c->cols;
    const int most = rows < 64 && __STDC_HOSTED__ ? 134 : 17; /* emulators are slow */
    const size_t bytes = packed_bytes(c, rows, cols);
    uint8_t *w = ending_at_guard(&w_memory, bytes);
    values = realloc(values, (size_t)rows * (size_t)cols);
    if (!values)
        exit(1);
    random_state = seed;
    fill_weights(c, w, bytes, RANDOM);
    c->decode(values, w, rows, cols);
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens && tokens[t] <= most; t++)
        check_case(c, w, rows, cols, tokens[t], RANDOM, seed, plant);
    if (!c->sparse)
        return;
    check_case(c, w, rows, cols, 1, SPARSE, seed, plant);
    check_case(c, w, rows, cols, 17, SPARSE, seed, plant); /* one after the other */
    /* More columns that count than any list holds: all of them, and half. */
    const int many = 8192 / c->cols * c->cols;
    const size_t longer = packed_bytes(c, c->rows, many);
    w = ending_at_guard(&w_memory, longer);
    values = realloc(values, (size_t)c->rows * (size_t)many);
    if (!values)
        exit(1);
    fill_weights(c, w, longer, RANDOM);
    c->decode(values, w, c->rows, many);
    check_case(c, w, c->rows, many, 1, RANDOM, seed, plant);
    check_case(c, w, c->rows, many, 1, LOW_BYTES, seed, plant);
}

/* The widest matrix allowed, all products as large as they get and of one sign. */
static void check_limit(const struct check *c)
{
    const int room = CHECK_BYTES / (c->packed / c->cols + 4); /* weights, activations */
    const int most = c->max_cols < room ? c->max_cols : room;
    const int cols = most / c->cols * c->cols;
    const size_t bytes = packed_bytes(c, c->rows, cols);
    uint8_t *w = ending_at_guard(&w_memory, bytes);
    int32_t *acc = malloc(sizeof *acc * 2 * (size_t)c->rows);
    if (!acc)
        exit(1);
    for (int fill = PLUS_PLUS; fill <= MINUS_MINUS; fill++) {
        const int value = fill == PLUS_PLUS || fill == PLUS_MINUS ? c->high : c->low;
        const int32_t want = value * activation(c, (enum fill)fill, 0) * cols;
        const int n = c->lut ? 1 : 2;
        snprintf(now, sizeof now, "%s %d x %d, %d tokens, %s", c->name, c->rows, cols, n,
                 fill_names[fill]);
        fill_weights(c, w, bytes, (enum fill)fill);
        for (int tokens = 1; tokens <= n; tokens++) {
            const struct bnc_acts x = make_acts(c, (enum fill)fill, cols, tokens, NOTHING);
            int bad = 0;
            c->kernel(acc, w, &x, c->rows, cols, tokens);
            for (int i = 0; i < c->rows * tokens && !bad; i++)
                if (acc[i] != want) {
                    bad = 1;
                    printf("FAIL %s: row %d is %d, not %d\n", now, i, (int)acc[i], (int)want);
                }
            passed += !bad;
            failed += bad;
        }
    }
    free(acc);
}

static int check_all(const struct check *checks, int count, int argc, char **argv)
{
    uint64_t seed = 1;
    enum plant plant = NOTHING;
    int limits = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--limits")) {
            limits = 1;
        } else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 0);
        } else if (!strcmp(argv[i], "--plant") && i + 1 < argc) {
            i++;
            plant = !strcmp(argv[i], "trit")       ? TRIT
                    : !strcmp(argv[i], "overread") ? OVERREAD
                                                   : OVERWRITE;
        } else {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            return 2;
        }
    }
#ifdef _WIN32
    _setmode(1, _O_BINARY);
#endif
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
#ifndef NO_GUARD
    signal(SIGSEGV, died);
    signal(SIGBUS, died);
    signal(SIGILL, died);
    signal(SIGFPE, died);
#endif
    for (int i = 0; i < count; i++) {
        const int passed_before = passed, failed_before = failed;
        if (limits) {
            check_limit(&checks[i]);
        } else {
            check_shapes(&checks[i], seed, plant);
            check_groups(&checks[i], seed, plant);
        }
        printf("%s: %d passed, %d failed\n", checks[i].name, passed - passed_before,
               failed - failed_before);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
