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

enum { BNC_STREAMS = 4, BNC_AHEAD = 4096 }; /* bytes fetched ahead, of all streams together */

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

/* How far ahead of byte `at` one of `streams` streams of `bytes` bytes is fetched: from its end on,
 * the beginning of the stream that takes its place, `streams` further on. */
BNC_INLINE ptrdiff_t bnc_ahead(ptrdiff_t at, ptrdiff_t bytes, int streams)
{
    const ptrdiff_t ahead = BNC_AHEAD / streams;
    return at + ahead < bytes ? ahead : ahead + (streams - 1) * bytes;
}

#endif
