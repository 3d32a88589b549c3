/* SPDX-License-Identifier: MIT */
/* What the ways to run a program share: its memory, sessions, files, the prompt and the output. */
#ifndef BNC_MAIN_SESSION_H
#define BNC_MAIN_SESSION_H

#include "bnc_main_options.h"
#include "bnc_main_weights.h"

static void *take(size_t bytes, const char *what)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) {
        char text[128];
        snprintf(text, sizeof text, "out of memory: %zu bytes", bytes);
        die(FAILED, what, text);
    }
    return memory;
}

#ifdef BNC_MODEL_VARIANTS
/* What --cpu names, else the first that this CPU runs. */
static int variant(const struct options *o)
{
    for (int i = 0; bnc_model_variant_name(i); i++)
        if (o->cpu ? is(o->cpu, bnc_model_variant_name(i)) : bnc_model_variant_runs(i)) {
            if (bnc_model_variant_runs(i))
                return i;
            die(WRONG_CPU, o->cpu, "this CPU lacks its instructions");
        }
    die(USAGE, "--cpu", "is none of the variants that --info lists");
}
#endif

/* Touches every page, so that memory that is not there is missed now and not in mid-text. */
static void touch(volatile uint8_t *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 0;
}

static struct bnc_model *start(const struct options *o, int context)
{
    const size_t bytes = bnc_model_arena_bytes(context, o->threads);
    uint8_t *memory = take(bytes + 2 * BNC_MODEL_ARENA_ALIGN, "arena");
    uint8_t *arena = memory + BNC_MODEL_ARENA_ALIGN; /* what malloc gave is kept just below it */
    arena += BNC_MODEL_ARENA_ALIGN - (uintptr_t)arena % BNC_MODEL_ARENA_ALIGN;
    memcpy(arena - sizeof memory, &memory, sizeof memory);
#ifdef __linux__
    bnc_huge_memory(arena, bytes);
#endif
    touch(arena, bytes);
    struct bnc_model *m = begin(arena, bytes, context, o->threads);
    if (!m) {
        const int code = bnc_model_check(arena, bytes, context, o->threads);
        if (code != 0)
            die(FAILED, "start", bnc_model_error(code));
        die_numbers(FAILED, "start", "%ld threads could not be started (context %ld)", o->threads,
                    context);
    }
#ifdef BNC_MODEL_VARIANTS
    bnc_model_use_variant(m, variant(o));
#endif
    return m;
}

static void finish(struct bnc_model *m)
{
    void *memory;
    memcpy(&memory, (uint8_t *)m - sizeof memory, sizeof memory);
    bnc_model_close(m);
    free(memory);
}

/* The whole file, *bytes of it. */
static char *slurp(const char *path, size_t *bytes)
{
    FILE *in = is(path, "-") ? stdin : bnc_os_open(path);
    size_t capacity = 1 << 16, size = 0;
    char *text = take(capacity, path);
    if (!in)
        die(FAILED, path, strerror(errno));
    for (;;) {
        size += fread(text + size, 1, capacity - size, in);
        if (size < capacity)
            break;
        if (capacity > SIZE_MAX / 2 || !(text = realloc(text, capacity *= 2)))
            die(FAILED, path, "too large for memory");
    }
    if (ferror(in))
        die(FAILED, path, strerror(errno));
    if (in != stdin)
        fclose(in);
    *bytes = size;
    return text;
}

/* The prompt's ids; sets *count. */
static int32_t *tokenize(const struct options *o, const struct bnc_model *m, const char *text,
                         size_t bytes, long *count)
{
    const size_t capacity = 3 * bytes + 64;
    const size_t scratch_bytes = bnc_model_scratch_bytes(bytes);
    int32_t *ids = take(capacity * sizeof *ids, "prompt");
    void *scratch = take(scratch_bytes, "prompt");
    *count =
        (long)bnc_model_tokenize(m, text, bytes, o->bos, ids, capacity, scratch, scratch_bytes);
    free(scratch);
    if (*count < 0)
        die(USAGE, "prompt", "is too long to be tokenized");
    return ids;
}

/* Feeds n tokens, at most `batch` at a time; returns the last one's logits. */
static const float *feed(struct bnc_model *m, const int32_t *ids, int n, int batch)
{
    for (int done = 0; done < n; done += batch)
        if (bnc_model_eval_all(m, ids + done, n - done < batch ? n - done : batch, 0) != 0)
            die(FAILED, "prompt", "holds a token outside the vocabulary");
    return bnc_model_logits(m);
}

static void put(const void *bytes, size_t count)
{
    if (fwrite(bytes, 1, count, stdout) != count || fflush(stdout) != 0)
        die(FAILED, "standard output", strerror(errno));
}

#endif
