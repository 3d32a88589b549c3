/* SPDX-License-Identifier: MIT */
/* The command line of a compiled model: the only file that prints or allocates.
 *
 * Included by an emitted main.c, which names the model. All memory is taken before the first
 * token; generation allocates nothing. Exit codes: 0 done, 1 the system failed (memory, input or
 * output), 2 a mistake in the arguments, 3 this CPU lacks an instruction set the model needs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bnc_cpu.h"
#include "bnc_main_bench.h"
#include "bnc_main_chat.h"
#ifdef BNC_MODEL_POOLING
#include "bnc_main_embed.h"
#endif
#include "bnc_main_session.h"
#include "bnc_os.h"

/* Prints the text of a token. */
static int show(void *user, const char *text, size_t bytes, int32_t token)
{
    (void)user;
    (void)token;
    put(text, bytes);
    return 0;
}

static void generate(const struct options *o)
{
    size_t bytes = o->prompt ? strlen(o->prompt) : 0;
    char *text = o->file ? slurp(o->file, &bytes) : 0;
    const char *prompt = o->file ? text : o->prompt ? o->prompt : "";

    /* The tokenizer needs a session only for its tables: the smallest one. */
    struct options small = *o;
    small.threads = 1;
    struct bnc_model *tables = start(&small, 1);
    long count;
    int32_t *ids = tokenize(o, tables, prompt, bytes, &count);
    finish(tables);
    if (o->mode == TOKENS) {
        for (long i = 0; i < count; i++)
            printf("%ld%c", (long)ids[i], i + 1 < count ? ' ' : '\n');
        free(ids);
        free(text);
        return;
    }
    if (count == 0)
        die(USAGE, "prompt", "is empty; give one with -p or -f");
    const long most = o->context ? o->context : BNC_MODEL_CONTEXT;
    if (count > most)
        die_numbers(USAGE, "prompt",
                    "has %ld tokens, there is room for %ld; use a larger -c, or compile the model "
                    "with a larger --context",
                    count, most);
    const int limit = o->n < 0 ? 128 : o->n;
    const long wanted = count + limit;
    const int context = (int)(o->context ? o->context : wanted < most ? wanted : most);

    struct bnc_model *m = start(o, context);
    const double t0 = bnc_os_seconds();
    feed(m, ids, (int)count, o->batch);
    const double t1 = bnc_os_seconds();

    if (!o->quiet)
        put(prompt, bytes);
    struct bnc_model_options how = { limit, o->temperature, o->top_k, o->top_p, o->seed, 1 };
    const int made = bnc_model_generate(m, 0, 0, &how, show, 0);
    /* Where the context is full, the last token is one more than it holds. */
    const char *ended = made == limit                 ? 0
                        : count + made == context + 1 ? "context is full"
                                                      : "end of text";
    put("\n", 1);
    const double t2 = bnc_os_seconds();
    if (!o->quiet)
        fprintf(stderr,
                "[prompt: %ld tokens, %.1f tokens/s | text: %d tokens, %.1f tokens/s%s%s]\n", count,
                (double)count / (t1 - t0), made, made > 1 ? (made - 1) / (t2 - t1) : 0.0,
                ended ? " | " : "", ended ? ended : "");
    finish(m);
    free(ids);
    free(text);
}

static void info(const struct options *o)
{
    const int context = o->context ? o->context : BNC_MODEL_CONTEXT;
    printf("model      %s (%s)\n", BNC_MODEL_NAME, BNC_MODEL_TITLE);
    printf("compiled   by bitnetc %s for %s, kernels %s\n", BNC_MODEL_VERSION, BNC_MODEL_TARGET,
           BNC_MODEL_KERNELS);
#ifdef BNC_MODEL_VARIANTS
    for (int i = 0; bnc_model_variant_name(i); i++) {
        const char *other = bnc_model_variant_runs(i) ? "runs here" : "this CPU lacks it";
        printf("%-10s %s (%s)\n", i ? "" : "variants", bnc_model_variant_name(i),
               i == variant(o) ? "used" : other);
    }
#endif
    printf("vocabulary %d tokens\n", BNC_MODEL_VOCAB);
    printf("context    %d positions at most\n", BNC_MODEL_CONTEXT);
#ifdef BNC_MODEL_CHAT
    printf("chat       --chat holds a conversation\n");
#else
    printf("chat       no: it was compiled without a chat template\n");
#endif
    printf("weights    %zu bytes, read-only\n", BNC_MODEL_WEIGHTS_BYTES);
    printf("a token    reads %.0f bytes: %.0f ternary, %.0f head, and %d for each position\n",
           BNC_MODEL_TERNARY_BYTES + BNC_MODEL_HEAD_BYTES, BNC_MODEL_TERNARY_BYTES,
           BNC_MODEL_HEAD_BYTES, BNC_MODEL_CACHE_BYTES);
    const size_t arena = bnc_model_arena_bytes(context, o->threads);
    printf("arena      %zu bytes for context %d and %d thread%s\n", arena, context, o->threads,
           o->threads == 1 ? "" : "s");
    printf("stack      %zu bytes a thread at most\n", BNC_MODEL_STACK_BYTES);
    printf("resident   %zu bytes: %zu weights, %zu tokenizer, %zu arena, about %zu program\n",
           BNC_MODEL_WEIGHTS_BYTES + BNC_MODEL_TABLES_BYTES + arena + BNC_MODEL_PROGRAM_BYTES,
           BNC_MODEL_WEIGHTS_BYTES, BNC_MODEL_TABLES_BYTES, arena, BNC_MODEL_PROGRAM_BYTES);
    if (o->huge_pages) {
        printf("huge pages hold a copy of the weights: all of them stay resident\n");
        return;
    }
#ifdef BNC_MODEL_SPARSE_BYTES
    printf("at least   %zu bytes: %zu weights and the tokenizer are read as the text needs them\n",
           BNC_MODEL_WEIGHTS_BYTES - BNC_MODEL_SPARSE_BYTES + arena + BNC_MODEL_PROGRAM_BYTES,
           BNC_MODEL_SPARSE_BYTES);
#endif
}

/* Token ids on standard input, logits on standard output. */
static void logits(const struct options *o)
{
    const int most = o->context ? o->context : BNC_MODEL_CONTEXT;
    const int batch = o->batch < BNC_MODEL_BATCH ? o->batch : BNC_MODEL_BATCH;
    int32_t *ids = take(sizeof *ids * (size_t)most, "--logits");
    float *out = take(sizeof *out * (size_t)batch * BNC_MODEL_VOCAB, "--logits");
    int n = 0;
    long id;
    int got;
    while ((got = scanf("%ld", &id)) == 1) {
        if (id < 0 || id >= BNC_MODEL_VOCAB)
            die_numbers(USAGE, "--logits", "token %ld is not in 0 .. %ld", id, BNC_MODEL_VOCAB - 1);
        if (n == most)
            die_numbers(USAGE, "--logits", "more than %ld tokens, the context of this program%.0ld",
                        most, 0);
        ids[n++] = (int32_t)id;
    }
    if (got != EOF)
        die(USAGE, "--logits", "standard input holds something that is not a number");
    if (n == 0)
        die(USAGE, "--logits", "no token ids on standard input");
    struct bnc_model *m = start(o, n);
    for (int done = 0; done < n; done += batch) {
        const int count = n - done < batch ? n - done : batch;
        if (bnc_model_eval_all(m, ids + done, count, out) != 0)
            die(FAILED, "--logits", "evaluation failed");
        put(out, sizeof *out * (size_t)count * BNC_MODEL_VOCAB);
    }
    finish(m);
    free(out);
    free(ids);
}

int main(int argc, char **argv)
{
    char lacks[256], has[256];
    if (bnc_cpu_lacks(lacks, has, sizeof lacks)) {
        fprintf(stderr,
                BNC_MODEL_NAME ": compiled for " BNC_MODEL_TARGET
                               ", which needs %s; this CPU has %s: compile the model for another "
                               "target (bitnetc targets)\n",
                lacks, has[0] ? has : "nothing beyond its architecture's baseline");
        return WRONG_CPU;
    }
    if (bnc_os_start(&argc, &argv) != 0)
        die(FAILED, "start", "out of memory");
    const struct options o = parse(argc, argv);
    if (o.mode != INFO || o.check_weights)
        open_weights(&o);
    if (o.chat) {
        chat(&o);
        return 0;
    }
    switch (o.mode) {
    case INFO:
        info(&o);
        break;
    case BENCH:
        bench(&o);
        break;
    case LOGITS:
        logits(&o);
        break;
    case EMBED:
#ifdef BNC_MODEL_POOLING
        embed(&o);
#endif
        break;
    case TOKENS:
    case GENERATE:
        generate(&o);
        break;
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        die(FAILED, "standard output", strerror(errno));
    return 0;
}
