/* SPDX-License-Identifier: MIT */
/* The command line of a compiled model: what is asked for, and how mistakes are said. */
#ifndef BNC_MAIN_OPTIONS_H
#define BNC_MAIN_OPTIONS_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bnc_os.h"

enum { FAILED = 1, USAGE = 2, WRONG_CPU = 3, MAX_DEPTHS = 8 };

static const char usage[] =
    "usage: " BNC_MODEL_NAME " [options]\n"
    "\n"
    "  -p TEXT         the prompt\n"
    "  -f FILE         the prompt, from a file; - is standard input\n"
    "  -n N            tokens to generate at most (128; for an answer in a chat: no limit)\n"
    "  -t THREADS      threads (one for each core)\n"
    "  -c CONTEXT      positions to make room for (as many as the prompt and -n need; for a chat\n"
    "                  the program's own, up to 4096)\n"
    "  --temp T        temperature; 0 is greedy\n"
    "  --top-k K       keep the K most likely tokens; 0 keeps all\n"
    "  --top-p P       keep the most likely tokens that reach probability P\n"
    "  --seed S        the same seed gives the same text, on every machine (0)\n"
    "  --batch N       feed the prompt N tokens at a time; never changes the text\n"
    "  --no-bos        do not put the begin-of-text token before the prompt\n"
    "  -q              print the generated text only\n"
    "\n"
    "  --chat          hold a conversation: each line of standard input is a message; /reset\n"
    "                  forgets it, /exit ends the program, Ctrl-C ends an answer\n"
    "  --system TEXT   what a chat begins with\n"
    "\n"
#ifdef BNC_MODEL_WEIGHTS_FILE_BYTES
    "  --weights FILE[@OFFSET]\n"
    "                  the weights, from this byte of a file or device on; without it, the file\n"
    "                  NAME.weights beside the program or in ../share, if it was compiled for one\n"
    "  --check-weights read them all before the start, and compare their SHA-256\n"
    "\n"
#endif
#ifdef __linux__
    "  --huge-pages    copy the weights into memory of large pages: faster, but all of them stay "
    "in\n"
    "                  memory, not shared with other programs, and the start is slower\n"
#endif
#ifdef BNC_MODEL_VARIANTS
    "  --cpu NAME      compute as on this CPU, one of those that --info lists (the best that runs\n"
    "                  here); never changes the text\n"
#endif
#ifdef BNC_MODEL_POOLING
    "  --embed         write a vector for the prompt, or for each line of a file or of standard\n"
    "                  input\n"
    "  --pooling HOW   of a text's vectors: last, mean or cls (as the model says)\n"
    "  --as FORM       of a vector: text, f32, int8 (the largest as 127), binary (a bit a number)\n"
    "  --no-unit       do not bring vectors to length 1\n"
    "\n"
#endif
    "  --info          what this program is, and the memory it takes\n"
    "  --bench         measure prefill and decode: medians of three runs, of -n tokens (128)\n"
    "  --depth D[,D]   for --bench: tokens before those that are decoded (as many as were read);\n"
    "                  those that are missing are read first, however long that takes\n"
    "  --tokens        print the prompt's token ids; with --chat those of the conversation at "
    "each\n"
    "                  message, to standard error\n"
    "  --logits        read token ids from standard input, write the float32 logits of every\n"
    "                  position to standard output\n"
    "  -h, --help      this text\n"
    "  --version       the version of bitnetc that made it\n";

struct options {
    const char *prompt, *file, *system;
    const char *self, *weights; /* self: the name the program was started by */
    const char *cpu;            /* a variant of the forward pass; null: the best */
    int check_weights, huge_pages;
    int n, threads, context, top_k, batch, bos, quiet, chat; /* n: below 0 unless given */
    int depths, depth[MAX_DEPTHS];                           /* of --bench; how many were given */
    float temperature, top_p;
    uint64_t seed;
    enum { GENERATE, INFO, BENCH, TOKENS, LOGITS, EMBED } mode;
    int pooling, form, raw; /* of --embed; pooling: below 0 unless given */
};

_Noreturn static void die(int code, const char *where, const char *what)
{
    fflush(stdout);
    fprintf(stderr, BNC_MODEL_NAME ": %s: %s\n", where, what);
    exit(code);
}

_Noreturn static void die_numbers(int code, const char *where, const char *format, long a, long b)
{
    char what[256];
    snprintf(what, sizeof what, format, a, b);
    die(code, where, what);
}

/* The value of an option as a whole number in low .. high. */
static long whole(const char *option, const char *text, long low, long high)
{
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0')
        die(USAGE, option, "expects a whole number");
    if (errno != 0 || value < low || value > high)
        die_numbers(USAGE, option, "expects a number from %ld to %ld", low, high);
    return value;
}

/* Whole numbers with commas between, `most` at most; returns how many. */
static int numbers(const char *option, const char *text, int *found, int most)
{
    char one[16];
    int count = 0;
    for (const char *at = text, *end; at; at = *end ? end + 1 : 0) {
        end = at + strcspn(at, ",");
        if (count == most || (size_t)(end - at) >= sizeof one)
            die_numbers(USAGE, option, "expects at most %ld numbers below 2^%ld", most, 30);
        memcpy(one, at, (size_t)(end - at));
        one[end - at] = '\0';
        found[count++] = (int)whole(option, one, 0, 1 << 30);
    }
    return count;
}

static float real(const char *option, const char *text, float low, float high)
{
    char *end;
    const double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= (double)low && value <= (double)high))
        die(USAGE, option, "is not a number in the allowed range");
    return (float)value;
}

static int cores(void)
{
    const int n = bnc_os_cores();
    return n < 1 ? 1 : n > BNC_MODEL_MAX_THREADS ? BNC_MODEL_MAX_THREADS : n;
}

static int is(const char *arg, const char *name)
{
    return strcmp(arg, name) == 0;
}

#ifdef BNC_MODEL_POOLING
static const char *const embed_forms[] = { "text", "f32", "int8", "binary" };
static const char *const embed_poolings[] = { "last", "mean", "cls" }; /* as enum ..._POOL_... */

/* The place of a word in a list of n. */
static int choice(const char *option, const char *word, const char *const *known, int n)
{
    for (int i = 0; i < n; i++)
        if (is(word, known[i]))
            return i;
    die(USAGE, option, "is none of the words that --help lists");
}
#endif

static struct options parse(int argc, char **argv)
{
    struct options o = { .self = argc > 0 ? argv[0] : "",
                         .n = -1,
                         .threads = cores(),
                         .top_k = BNC_MODEL_TOP_K,
                         .batch = BNC_MODEL_BATCH,
                         .pooling = -1,
                         .bos = 1,
                         .temperature = BNC_MODEL_TEMPERATURE,
                         .top_p = BNC_MODEL_TOP_P };
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (is(arg, "-h") || is(arg, "--help")) {
            fputs(usage, stdout);
            exit(0);
        } else if (is(arg, "--version")) {
            puts(BNC_MODEL_NAME ", compiled by bitnetc " BNC_MODEL_VERSION);
            exit(0);
        } else if (is(arg, "--info")) {
            o.mode = INFO;
        } else if (is(arg, "--bench")) {
            o.mode = BENCH;
        } else if (is(arg, "--tokens")) {
            o.mode = TOKENS;
        } else if (is(arg, "--logits")) {
            o.mode = LOGITS;
        } else if (is(arg, "--chat")) {
            o.chat = 1;
        } else if (is(arg, "--no-bos")) {
            o.bos = 0;
        } else if (is(arg, "-q")) {
            o.quiet = 1;
#ifdef BNC_MODEL_POOLING
        } else if (is(arg, "--embed")) {
            o.mode = EMBED;
        } else if (is(arg, "--no-unit")) {
            o.raw = 1;
#endif
#ifdef BNC_MODEL_WEIGHTS_FILE_BYTES
        } else if (is(arg, "--check-weights")) {
            o.check_weights = 1;
#endif
#ifdef __linux__
        } else if (is(arg, "--huge-pages")) {
            o.huge_pages = 1;
#endif
        } else {
            static const char *const known[] = {
                "-p",        "-f",      "-n",      "-t",     "-c",      "--system",
                "--temp",    "--top-k", "--top-p", "--seed", "--batch", "--depth",
#ifdef BNC_MODEL_POOLING
                "--pooling", "--as",
#endif
#ifdef BNC_MODEL_WEIGHTS_FILE_BYTES
                "--weights",
#endif
#ifdef BNC_MODEL_VARIANTS
                "--cpu",
#endif
            };
            size_t k = 0;
            while (k < sizeof known / sizeof *known && !is(arg, known[k]))
                k++;
            if (k == sizeof known / sizeof *known)
                die(USAGE, arg, "unknown option; --help lists them");
            if (++i == argc)
                die(USAGE, arg, "expects a value");
            const char *value = argv[i];
            if (is(arg, "-p"))
                o.prompt = value;
            else if (is(arg, "-f"))
                o.file = value;
            else if (is(arg, "--system"))
                o.system = value;
            else if (is(arg, "--weights"))
                o.weights = value;
            else if (is(arg, "--cpu"))
                o.cpu = value;
#ifdef BNC_MODEL_POOLING
            else if (is(arg, "--pooling"))
                o.pooling = choice(arg, value, embed_poolings, 3);
            else if (is(arg, "--as"))
                o.form = choice(arg, value, embed_forms, 4);
#endif
            else if (is(arg, "-n"))
                o.n = (int)whole(arg, value, 0, 1 << 30);
            else if (is(arg, "-t"))
                o.threads = (int)whole(arg, value, 1, BNC_MODEL_MAX_THREADS);
            else if (is(arg, "-c"))
                o.context = (int)whole(arg, value, 1, 1 << 30);
            else if (is(arg, "--depth"))
                o.depths = numbers(arg, value, o.depth, MAX_DEPTHS);
            else if (is(arg, "--temp"))
                o.temperature = real(arg, value, 0.0f, 1000.0f);
            else if (is(arg, "--top-k"))
                o.top_k = (int)whole(arg, value, 0, 1 << 30);
            else if (is(arg, "--top-p"))
                o.top_p = real(arg, value, 1e-6f, 1.0f);
            else if (is(arg, "--seed"))
                o.seed = (uint64_t)whole(arg, value, 0, 0x7fffffffL);
            else
                o.batch = (int)whole(arg, value, 1, 1 << 30);
        }
    }
    if (o.context > BNC_MODEL_CONTEXT)
        die_numbers(USAGE, "-c",
                    "this program holds %ld positions at most; for more, compile the model with "
                    "--context %ld",
                    BNC_MODEL_CONTEXT, o.context);
    if (o.depths && o.mode != BENCH)
        die(USAGE, "--depth", "is for --bench");
    if (o.prompt && o.file)
        die(USAGE, "-p and -f", "give one of them");
    if (o.chat && (o.prompt || o.file))
        die(USAGE, "--chat", "takes its messages from standard input, not from -p or -f");
    if (o.chat && !o.bos)
        die(USAGE, "--chat", "begins as the chat template says; --no-bos is for plain prompts");
    if (o.system && !o.chat)
        die(USAGE, "--system", "is for --chat");
    return o;
}

#endif
