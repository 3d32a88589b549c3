/* SPDX-License-Identifier: MIT */
/* Attention of one token where threads cannot share out whole key/value heads evenly: the formulas
 * of bnc_attention.h, chunk by chunk. Of the heads that are left when each worker has as many whole
 * ones as any other, a worker has consecutive chunks, and takes others' when its own are done:
 *
 *     scores   of its chunks, and the largest of each, before its whole heads: who comes from those
 *              finds all scores done
 *     values   E_c and A_c of chunks, its own first, from the largest score of all
 *     merge    after a bnc_sync(), of its share of query heads: A_c and E_c in order of c, whoever
 *              computed them
 *
 * The second step evens out what was uneven before, whole heads that memory gave slower, too.
 */
#ifndef BNC_ATTENTION_SPLIT_H
#define BNC_ATTENTION_SPLIT_H

#include "bnc_attention.h"
#include "bnc_threads.h"

/* Chunks that hold `positions` positions. */
#define BNC_CHUNKS(positions) (((positions) + BNC_CHUNK - 1) / BNC_CHUNK)

/* Floats of memory that all workers share. */
#define BNC_SPLIT_FLOATS(heads, head_dim, context)                                                 \
    ((heads) * ((context) + BNC_CHUNKS(context) * (2 + BNC_HEAD_STRIDE(head_dim))))

/* One token's attention; constants once inlined, but for positions and what they count. */
struct bnc_split {
    int heads, kv_heads, head_dim, positions;
    float *score;            /* [heads][positions] */
    float *largest, *weight; /* [heads][chunks]: of the scores, E_c */
    float *part;             /* [heads][chunks][stride]: A_c */
};

/* memory: BNC_SPLIT_FLOATS */
BNC_INLINE struct bnc_split bnc_split_of(float *memory, int heads, int kv_heads, int head_dim,
                                         int positions)
{
    const ptrdiff_t chunks = BNC_CHUNKS(positions);
    struct bnc_split s = { heads, kv_heads, head_dim, positions, memory, 0, 0, 0 };
    s.part = memory; /* whole vectors: aligned as the memory is */
    s.score = s.part + heads * chunks * BNC_HEAD_STRIDE(head_dim);
    s.largest = s.score + (ptrdiff_t)heads * positions;
    s.weight = s.largest + heads * chunks;
    return s;
}

/* Whether it pays for its barriers: sharing whole heads would give one worker more than 9/8 of
 * its even part, and there is more than one chunk. */
BNC_INLINE int bnc_split_pays(int workers, int kv_heads, int positions)
{
    const int busiest = (kv_heads + workers - 1) / workers;
    return 8 * busiest * workers > 9 * kv_heads && positions > BNC_CHUNK;
}

/* A chunk of one key/value head; chunks of all heads are counted one after another. */
struct bnc_split_chunk {
    int head, number, first, count;
};

BNC_INLINE struct bnc_split_chunk bnc_split_chunk(const struct bnc_split *s, int at)
{
    const int chunks = BNC_CHUNKS(s->positions), first = at % chunks * BNC_CHUNK;
    const int rest = s->positions - first;
    return (struct bnc_split_chunk){ at / chunks, at % chunks, first,
                                     rest < BNC_CHUNK ? rest : BNC_CHUNK };
}

/* The first chunk of worker `index` of `workers`: the nearest to its even share of positions. */
BNC_INLINE int bnc_split_begin(const struct bnc_split *s, int index, int workers)
{
    const int64_t at = (int64_t)s->kv_heads * s->positions * index / workers;
    const int head = (int)(at / s->positions), rest = (int)(at % s->positions);
    return head * BNC_CHUNKS(s->positions) + (rest + BNC_CHUNK / 2) / BNC_CHUNK;
}

/* Scores of `heads` query heads from `head` on, and the largest of each; heads is constant once
 * inlined. */
BNC_INLINE void bnc_split_score(const struct bnc_split *s, const float *q, struct bnc_cache cache,
                                struct bnc_split_chunk c, int head, int heads, float scale)
{
    float *score = s->score + (ptrdiff_t)head * s->positions;
    bnc_attend_rows query;
    bnc_attend_query(query, q + head * s->head_dim, heads, s->head_dim);
    bnc_attend_keys(score, s->positions, query, cache, c.first, c.first + c.count, heads,
                    s->head_dim, scale);
    for (int h = 0; h < heads; h++)
        s->largest[(head + h) * BNC_CHUNKS(s->positions) + c.number] =
            bnc_largest(score + (ptrdiff_t)h * s->positions + c.first, c.count);
}

/* The first step. q: [heads][head_dim]; cache: of the first key/value head, others head_stride
 * words further */
BNC_FRAME void bnc_split_scores(const struct bnc_worker *worker, const struct bnc_split *s,
                                const float *q, struct bnc_cache cache, ptrdiff_t head_stride,
                                float scale)
{
    enum { TOGETHER = BNC_HEADS_OF_TOKEN };
    const int group = s->heads / s->kv_heads;
    const int end = bnc_split_begin(s, worker->index + 1, worker->count);
    for (int at = bnc_split_begin(s, worker->index, worker->count); at < end; at++) {
        const struct bnc_split_chunk c = bnc_split_chunk(s, at);
        const ptrdiff_t skipped = c.head * head_stride;
        const struct bnc_cache mine = { cache.keys + skipped, cache.values + skipped };
        int g = c.head * group;
        const int last = g + group;
        for (; TOGETHER >= 4 && g + 4 <= last; g += 4)
            bnc_split_score(s, q, mine, c, g, 4, scale);
        for (; TOGETHER >= 2 && g + 2 <= last; g += 2)
            bnc_split_score(s, q, mine, c, g, 2, scale);
        for (; g < last; g++)
            bnc_split_score(s, q, mine, c, g, 1, scale);
    }
}

/* E_c and A_c of `heads` query heads from `head` on; heads is constant once inlined. Sums move to
 * memory that is shared when they are complete: another core may have read what is there. */
BNC_INLINE void bnc_split_value(const struct bnc_split *s, struct bnc_cache cache,
                                struct bnc_split_chunk c, int head, int heads)
{
    const int chunks = BNC_CHUNKS(s->positions), stride = BNC_HEAD_STRIDE(s->head_dim);
    const uint16_t *values = cache.values + (ptrdiff_t)c.first * BNC_CACHE_ROW(s->head_dim);
    float *score = s->score + (ptrdiff_t)head * s->positions + c.first;
    float *to = s->part + ((ptrdiff_t)head * chunks + c.number) * stride;
    float largest[BNC_HEADS_OF_TOKEN];
    bnc_attend_rows part;
    for (int h = 0; h < heads; h++)
        largest[h] = bnc_largest(s->largest + (head + h) * chunks, chunks);
    bnc_attend_chunk(part, stride, s->weight + head * chunks + c.number, chunks, score,
                     s->positions, largest, values, c.count, heads, s->head_dim);
    for (int h = 0; h < heads; h++)
        memcpy(to + (ptrdiff_t)h * chunks * stride, part + h * stride, sizeof *to * (size_t)stride);
}

/* A chunk of the second step. */
BNC_FRAME void bnc_split_take(const struct bnc_split *s, int at, struct bnc_cache cache,
                              ptrdiff_t head_stride)
{
    enum { TOGETHER = BNC_HEADS_OF_TOKEN };
    const struct bnc_split_chunk c = bnc_split_chunk(s, at);
    const ptrdiff_t skipped = c.head * head_stride;
    const struct bnc_cache mine = { cache.keys + skipped, cache.values + skipped };
    const int group = s->heads / s->kv_heads, last = (c.head + 1) * group;
    int g = c.head * group;
    for (; TOGETHER >= 4 && g + 4 <= last; g += 4)
        bnc_split_value(s, mine, c, g, 4);
    for (; TOGETHER >= 2 && g + 2 <= last; g += 2)
        bnc_split_value(s, mine, c, g, 2);
    for (; g < last; g++)
        bnc_split_value(s, mine, c, g, 1);
}

/* The second step, after bnc_await(). */
BNC_FRAME void bnc_split_values(const struct bnc_worker *worker, const struct bnc_split *s,
                                struct bnc_cache cache, ptrdiff_t head_stride)
{
    for (int turn = 0; turn < worker->count; turn++) {
        const int owner = (worker->index + turn) % worker->count;
        const int begin = bnc_split_begin(s, owner, worker->count);
        const int end = bnc_split_begin(s, owner + 1, worker->count);
        for (int at; (at = begin + bnc_take(worker, owner)) < end;)
            bnc_split_take(s, at, cache, head_stride);
    }
}

/* The third step. out: [heads][head_dim], which may be q */
BNC_FRAME void bnc_split_merge(const struct bnc_worker *worker, const struct bnc_split *s,
                               float *out)
{
    const int chunks = BNC_CHUNKS(s->positions), stride = BNC_HEAD_STRIDE(s->head_dim);
    int begin, end;
    bnc_share(worker, s->heads, &begin, &end);
    for (int h = begin; h < end; h++) {
        const float *part = s->part + (ptrdiff_t)h * chunks * stride;
        float weight = 0.0f;
        for (int c = 0; c < chunks; c++)
            weight += s->weight[h * chunks + c];
        const float inverse = 1.0f / weight;
        for (int d = 0; d < stride; d += BNC_LANES) {
            struct bnc_lanes total = bnc_lanes_zero();
            for (int c = 0; c < chunks; c++)
                total = bnc_lanes_add(total, bnc_lanes_load(part + (ptrdiff_t)c * stride + d));
            bnc_lanes_store(out + h * s->head_dim + d, bnc_lanes_scale(total, inverse),
                            s->head_dim - d < BNC_LANES ? s->head_dim - d : BNC_LANES);
        }
    }
}

/* Between the first two steps: the heads that are not shared out, each by one worker. q: of all
 * heads; cache: of the first; score: scratch of this worker, see bnc_attend() */
BNC_FRAME void bnc_split_whole(const struct bnc_worker *worker, const struct bnc_split *s, float *q,
                               int whole, int group, struct bnc_cache cache, ptrdiff_t head_stride,
                               float scale, float *score)
{
    for (int head = worker->index; head < whole; head += worker->count) {
        float *at = q + head * group * s->head_dim;
        const ptrdiff_t skipped = head * head_stride;
        bnc_attend(at, at, (struct bnc_cache){ cache.keys + skipped, cache.values + skipped },
                   s->positions, group, s->head_dim, scale, score);
    }
}

/* q, [heads][head_dim], becomes the attention output; there are no multiple of worker->count
 * key/value heads (bnc_split_pays() says no then). memory: BNC_SPLIT_FLOATS; score: scratch of
 * this worker, see bnc_attend() */
BNC_FRAME void bnc_attention_split(struct bnc_worker *worker, float *memory, float *q, int heads,
                                   int kv_heads, int head_dim, int positions,
                                   struct bnc_cache cache, ptrdiff_t head_stride, float scale,
                                   float *score)
{
    const int group = heads / kv_heads, shared = kv_heads % worker->count;
    const int whole = kv_heads - shared; /* heads */
    const struct bnc_split s = bnc_split_of(memory, shared * group, shared, head_dim, positions);
    const struct bnc_cache rest = { cache.keys + whole * head_stride,
                                    cache.values + whole * head_stride };
    float *at = q + whole * group * head_dim;
    bnc_split_scores(worker, &s, at, rest, head_stride, scale);
    bnc_arrive(worker);
    bnc_split_whole(worker, &s, q, whole, group, cache, head_stride, scale, score);
    bnc_await(worker);
    bnc_split_values(worker, &s, rest, head_stride);
    bnc_sync(worker);
    bnc_split_merge(worker, &s, at);
}

#endif
