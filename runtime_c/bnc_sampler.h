/* SPDX-License-Identifier: MIT */
/* Choosing the next token: rule 10 of docs/arithmetic.md. Same logits, same seed, same token.
 *
 *     temperature 0:  the largest logit; the lowest id among equals
 *     otherwise:      w[v] = exp((logit[v] - largest) / temperature)
 *                     order tokens by w, descending, lower id first among equals
 *                     keep the first top_k (0: all); total = their sum, added in that order,
 *                     or in sixteen lanes by id when all are kept
 *                     keep the shortest prefix whose running sum reaches top_p * total
 *                     u = 24 random bits / 2^24; take the first token whose running sum
 *                     exceeds u * (sum of what is kept), else the most likely one
 *
 * With neither top_k nor top_p the order is by id, which saves the sort.
 * Random bits: splitmix64, the upper 24 bits of each output.
 */
#ifndef BNC_SAMPLER_H
#define BNC_SAMPLER_H

#include "bnc_math.h"

/* One step of splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t bnc_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline int bnc_argmax(const float *logits, int vocab)
{
    int best = 0;
    for (int v = 1; v < vocab; v++)
        if (logits[v] > logits[best])
            best = v;
    return best;
}

/* Whether token a comes before token b. */
static inline int bnc_before(const float *w, int32_t a, int32_t b)
{
    return w[a] > w[b] || (w[a] == w[b] && a < b);
}

/* Restores the heap (first token on top) below `root`. */
static inline void bnc_sift(int32_t *heap, int count, int root, const float *w)
{
    for (;;) {
        int first = root;
        for (int child = 2 * root + 1; child <= 2 * root + 2; child++)
            if (child < count && bnc_before(w, heap[child], heap[first]))
                first = child;
        if (first == root)
            return;
        const int32_t swap = heap[root];
        heap[root] = heap[first];
        heap[first] = swap;
        root = first;
    }
}

/* Picks a token. weights: scratch, [vocab]; order: scratch, [vocab]; temperature >= 0,
 * top_k >= 0, 0 < top_p <= 1. */
static inline int bnc_sample(const float *logits, int vocab, float temperature, int top_k,
                             float top_p, uint64_t *random, float *weights, int32_t *order)
{
    const int best = bnc_argmax(logits, vocab);
    if (!(temperature > 0.0f))
        return best;
    for (int v = 0; v < vocab; v++)
        weights[v] = bnc_exp((logits[v] - logits[best]) / temperature);

    for (int v = 0; v < vocab; v++)
        order[v] = v;
    int kept = 0;
    float total = 0.0f;
    if (top_k == 0 && top_p >= 1.0f) {
        for (; kept < vocab; kept++)
            total += weights[kept];
    } else {
        /* Pop the heap only as far as needed; popped tokens gather at the end, last one first. */
        const int most = top_k > 0 && top_k < vocab ? top_k : vocab;
        const float enough = top_p * bnc_sum(weights, vocab);
        for (int root = vocab / 2 - 1; root >= 0; root--)
            bnc_sift(order, vocab, root, weights);
        while (kept < most && (top_k > 0 || total < enough)) {
            const int32_t top = order[0];
            kept++;
            total += weights[top];
            order[0] = order[vocab - kept];
            order[vocab - kept] = top;
            bnc_sift(order, vocab - kept, 0, weights);
        }
        for (int i = 0, j = vocab - 1; i < j; i++, j--) {
            const int32_t swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        if (top_k > 0 && top_p < 1.0f) {
            const float wanted = top_p * total;
            total = 0.0f;
            for (kept = 0; total < wanted; kept++)
                total += weights[order[kept]];
        }
    }

    const float target = (float)(int32_t)(bnc_random(random) >> 40) * 0x1p-24f * total;
    float sum = 0.0f;
    for (int i = 0; i < kept; i++) {
        sum += weights[order[i]];
        if (sum > target)
            return order[i];
    }
    return best;
}

#endif
