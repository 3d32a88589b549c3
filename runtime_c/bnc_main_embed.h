/* SPDX-License-Identifier: MIT */
/* --embed: each line of a file or of standard input becomes a vector on standard output. */
#ifndef BNC_MAIN_EMBED_H
#define BNC_MAIN_EMBED_H

#include "bnc_main_session.h"

enum { BNC_EMBED_TEXTS = 1024 }; /* texts computed at once, at most */

/* The most tokens computed at once: enough batches that the last, partly filled one costs little.
 */
#define BNC_EMBED_TOKENS (32 * BNC_MODEL_BATCH)

/* One vector: numbers in decimals, enough to read back the same floats; the floats' bytes; int8,
 * the largest magnitude as 127; or one bit a number, 1 for above zero, the first highest. */
static void put_vector(int form, const float *x)
{
    uint8_t bytes[BNC_MODEL_WIDTH];
    float largest = 0.0f;
    if (form == 0) {
        for (int k = 0; k < BNC_MODEL_WIDTH; k++)
            printf("%.9g%c", (double)x[k], k + 1 < BNC_MODEL_WIDTH ? ' ' : '\n');
        return;
    }
    if (form == 1) {
        put(x, sizeof *x * BNC_MODEL_WIDTH);
        return;
    }
    if (form == 2) {
        for (int k = 0; k < BNC_MODEL_WIDTH; k++)
            largest = x[k] > largest ? x[k] : -x[k] > largest ? -x[k] : largest;
        const float scale = largest > 0.0f ? 127.0f / largest : 0.0f;
        const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds half to even */
        for (int k = 0; k < BNC_MODEL_WIDTH; k++)
            bytes[k] = (uint8_t)(int8_t)((x[k] * scale + shift) - shift);
        put(bytes, BNC_MODEL_WIDTH);
        return;
    }
    memset(bytes, 0, sizeof bytes);
    for (int k = 0; k < BNC_MODEL_WIDTH; k++)
        if (x[k] > 0.0f)
            bytes[k / 8] |= (uint8_t)(0x80 >> k % 8);
    put(bytes, (BNC_MODEL_WIDTH + 7) / 8);
}

static void embed_batch(const struct options *o, struct bnc_model *m, const int32_t *ids,
                        const int32_t *lengths, int count, float *vectors)
{
    const int pooling = o->pooling < 0 ? BNC_MODEL_POOLING : o->pooling;
    const int code = bnc_model_embed_texts(m, ids, lengths, count, pooling, !o->raw, vectors);
    if (code != 0)
        die(FAILED, "--embed", bnc_model_error(code));
    for (int i = 0; i < count; i++)
        put_vector(o->form, vectors + (ptrdiff_t)i * BNC_MODEL_WIDTH);
}

static void embed(const struct options *o)
{
    size_t bytes = o->prompt ? strlen(o->prompt) : 0, n = 0, capacity = BNC_EMBED_TOKENS;
    char *file = o->prompt ? 0 : slurp(o->file ? o->file : "-", &bytes);
    const char *at = o->prompt ? o->prompt : file, *end = at + bytes;
    const int most = o->context ? o->context : BNC_MODEL_CONTEXT;
    const int context = most < BNC_EMBED_TOKENS ? most : BNC_EMBED_TOKENS;
    int room = context, count = 0;
    struct bnc_model *m = start(o, room);
    int32_t *ids = take(sizeof *ids * capacity, "--embed");
    int32_t *lengths = take(sizeof *lengths * BNC_EMBED_TEXTS, "--embed");
    float *vectors = take(sizeof *vectors * BNC_EMBED_TEXTS * BNC_MODEL_WIDTH, "--embed");
    for (long line = 1; at < end; line++) {
        const char *newline = o->prompt ? 0 : memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((newline ? newline : end) - at);
        const char *next = newline ? newline + 1 : end;
        if (newline && size > 0 && at[size - 1] == '\r')
            size--;
        long length;
        int32_t *own = tokenize(o, m, at, size, &length);
        if (length == 0)
            die_numbers(USAGE, "--embed", "line %ld has no tokens%.0ld", line, 0);
        if (length > most)
            die_numbers(USAGE, "--embed", "line %ld has more tokens than fit, %ld", line, most);
        if (count == BNC_EMBED_TEXTS || (count > 0 && n + (size_t)length > capacity)) {
            embed_batch(o, m, ids, lengths, count, vectors);
            count = 0;
            n = 0;
        }
        if (length > room) { /* one text longer than usual */
            finish(m);
            m = start(o, room = (int)length);
        }
        if ((size_t)length > capacity) {
            free(ids);
            ids = take(sizeof *ids * (capacity = (size_t)length), "--embed");
        }
        memcpy(ids + n, own, sizeof *ids * (size_t)length);
        free(own);
        lengths[count++] = (int32_t)length;
        n += (size_t)length;
        at = next;
    }
    embed_batch(o, m, ids, lengths, count, vectors);
    finish(m);
    free(vectors);
    free(lengths);
    free(ids);
    free(file);
}

#endif
