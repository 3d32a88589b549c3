/* SPDX-License-Identifier: MIT */
/* How a kernel for one token reads memory: several streams of weights at once, each fetched ahead.
 *
 * Such a kernel is bound by memory. The hardware prefetcher follows a stream to the end of its page
 * of 4 KiB and starts anew in the next; with several streams, one at least is always in the middle
 * of its page. The streams are as many groups of rows, one behind the other.
 */
#ifndef BNC_STREAMS_H
#define BNC_STREAMS_H

#include <stddef.h>
#include <stdint.h>

#include "bnc_lanes.h"

enum {
    BNC_STREAMS = 4,
    BNC_AHEAD = 4096, /* bytes fetched ahead, of all streams together */
    BNC_TURN = 512    /* bytes that a stream reads before the next has its turn */
};

/* A hint: any address may be given. Fetched to the second-level cache, which was measured to be
 * faster than to the first (docs/performance.md, "One token: several streams"). */
BNC_INLINE void bnc_prefetch(const void *at)
{
    __builtin_prefetch(at, 0, 2);
}

/* `lines` cache lines of 64 bytes to the first-level cache: what a kernel for several tokens, which
 * is bound by arithmetic, has fetched a little of at each step. */
BNC_INLINE void bnc_prefetch_lines(const uint8_t *at, int lines)
{
    for (int i = 0; i < lines; i++)
        __builtin_prefetch(at + 64 * i, 0, 3);
}

/* Lines of the `count` floats from y on, which will be written. With AVX-512 only, where it was
 * measured to gain; every CPU that has it has PREFETCHW, which the compiler's own hint becomes only
 * where a flag says so. */
BNC_INLINE void bnc_prefetch_outputs(const float *y, int count)
{
#if defined(__AVX512F__)
    for (int m = 0; m < count; m += 16)
        __asm__ volatile("prefetchw (%0)" : : "r"(y + m));
#else
    (void)y, (void)count;
#endif
}

/* How far ahead of byte `at` one of `streams` streams of `bytes` bytes is fetched: from its end on,
 * the beginning of the stream that takes its place, `streams` further on. */
BNC_INLINE ptrdiff_t bnc_ahead(ptrdiff_t at, ptrdiff_t bytes, int streams)
{
    const ptrdiff_t ahead = BNC_AHEAD / streams;
    return at + ahead < bytes ? ahead : ahead + (streams - 1) * bytes;
}

/* A kernel of 32 rows and `count` columns of one token: sum[32 rows] += codes * q, while what lies
 * `ahead` bytes behind w is fetched. */
typedef void bnc_group(int32_t *sum, const uint8_t *w, const int8_t *q, int count, ptrdiff_t ahead);

/* acc = -sum_q + codes * q of one token. BNC_STREAMS groups of 32 rows take turns, BNC_TURN bytes
 * each; groups that are left have none to take turns with. per: columns of a row in a byte */
BNC_INLINE void bnc_take_turns(bnc_group *group, int32_t *restrict acc, const uint8_t *restrict w,
                               const int8_t *restrict q, int32_t sum_q, int rows, int cols, int per)
{
    enum { ROWS = 32 };
    const ptrdiff_t bytes = ROWS / per * (ptrdiff_t)cols; /* of a stream */
    const int turn = BNC_TURN * per / ROWS;               /* columns */
    for (int m = 0; m < rows; m++)
        acc[m] = -sum_q;
    for (int m = 0; m < rows;) {
        const int streams = rows - m < BNC_STREAMS * ROWS ? 1 : BNC_STREAMS;
        for (int k = 0; k < cols; k += turn) {
            const int count = cols - k < turn ? cols - k : turn;
            const ptrdiff_t at = ROWS / per * (ptrdiff_t)k, ahead = bnc_ahead(at, bytes, streams);
            for (int s = 0; s < streams; s++)
                group(acc + m + ROWS * s, w + s * bytes + at, q + k, count, ahead);
        }
        m += ROWS * streams;
        w += streams * bytes;
    }
}

/* A kernel of `streams` times 32 rows and one token, which keeps the sums of all in registers:
 * acc = -sum_q + codes * q. streams <= BNC_STREAMS is constant once inlined. */
typedef void bnc_side_by_side(int32_t *restrict acc, const uint8_t *restrict w,
                              const int8_t *restrict q, int32_t sum_q, int streams, int cols);

/* All rows: BNC_STREAMS groups at a time, and one by one those that are left. per: as above */
BNC_INLINE void bnc_in_streams(bnc_side_by_side *kernel, int32_t *restrict acc,
                               const uint8_t *restrict w, const int8_t *restrict q, int32_t sum_q,
                               int rows, int cols, int per)
{
    enum { ROWS = 32 };
    const ptrdiff_t bytes = cols / per; /* of a row */
    int m = 0;
    for (; m + BNC_STREAMS * ROWS <= rows; m += BNC_STREAMS * ROWS)
        kernel(acc + m, w + m * bytes, q, sum_q, BNC_STREAMS, cols);
    for (; m < rows; m += ROWS)
        kernel(acc + m, w + m * bytes, q, sum_q, 1, cols);
}

#endif
