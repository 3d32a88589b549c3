/* SPDX-License-Identifier: MIT */
/* The command line of a compiled model: the only file that prints or allocates.
 *
 * Included by an emitted main.c, which names the model. All memory is taken before the first
 * token; generation allocates nothing. Exit codes: 0 done, 1 the system failed (memory, input or
 * output), 2 a mistake in the arguments, 3 this CPU lacks an instruction set the model needs.
 */
#include <errno.h>
#include <math.h>
#ifndef __wasi__ /* has no signals */
#include <signal.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "bnc_cpu.h"

enum { FAILED = 1, USAGE = 2, WRONG_CPU = 3 };

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
    "  --info          what this program is, and the memory it takes\n"
    "  --bench         measure prefill and decode\n"
    "  --tokens        print the prompt's token ids; with --chat those of the conversation at "
    "each\n"
    "                  message, to standard error\n"
    "  --logits        read token ids from standard input, write the float32 logits of every\n"
    "                  position to standard output\n"
    "  -h, --help      this text\n"
    "  --version       the version of bitnetc that made it\n";

struct options {
    const char *prompt, *file, *system;
    int n, threads, context, top_k, batch, bos, quiet, chat; /* n: below 0 unless given */
    float temperature, top_p;
    uint64_t seed;
    enum { GENERATE, INFO, BENCH, TOKENS, LOGITS } mode;
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
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > BNC_MODEL_MAX_THREADS ? BNC_MODEL_MAX_THREADS : (int)n;
}

static int is(const char *arg, const char *name)
{
    return strcmp(arg, name) == 0;
}

static struct options parse(int argc, char **argv)
{
    struct options o = { .n = -1,
                         .threads = cores(),
                         .top_k = BNC_MODEL_TOP_K,
                         .batch = BNC_MODEL_BATCH,
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
        } else {
            static const char *const known[] = {
                "-p",     "-f",      "-n",      "-t",     "-c",      "--system",
                "--temp", "--top-k", "--top-p", "--seed", "--batch",
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
            else if (is(arg, "-n"))
                o.n = (int)whole(arg, value, 0, 1 << 30);
            else if (is(arg, "-t"))
                o.threads = (int)whole(arg, value, 1, BNC_MODEL_MAX_THREADS);
            else if (is(arg, "-c"))
                o.context = (int)whole(arg, value, 1, 1 << 30);
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

static struct bnc_model *start(const struct options *o, int context)
{
    const size_t bytes = bnc_model_arena_bytes(context, o->threads);
    uint8_t *memory = take(bytes + 2 * BNC_MODEL_ARENA_ALIGN, "arena");
    uint8_t *arena = memory + BNC_MODEL_ARENA_ALIGN; /* what malloc gave is kept just below it */
    arena += BNC_MODEL_ARENA_ALIGN - (uintptr_t)arena % BNC_MODEL_ARENA_ALIGN;
    memcpy(arena - sizeof memory, &memory, sizeof memory);
    struct bnc_model *m = bnc_model_init(arena, bytes, context, o->threads);
    if (!m)
        die_numbers(FAILED, "start", "%ld threads could not be started (context %ld)", o->threads,
                    context);
    return m;
}

static void finish(struct bnc_model *m)
{
    void *memory;
    memcpy(&memory, (uint8_t *)m - sizeof memory, sizeof memory);
    bnc_model_close(m);
    free(memory);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The whole file, *bytes of it. */
static char *slurp(const char *path, size_t *bytes)
{
    FILE *in = is(path, "-") ? stdin : fopen(path, "rb");
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
    const float *logits = 0;
    for (int done = 0; done < n; done += batch) {
        logits = bnc_model_eval(m, ids + done, n - done < batch ? n - done : batch);
        if (!logits)
            die(FAILED, "prompt", "holds a token outside the vocabulary");
    }
    return logits;
}

static void put(const void *bytes, size_t count)
{
    if (fwrite(bytes, 1, count, stdout) != count || fflush(stdout) != 0)
        die(FAILED, "standard output", strerror(errno));
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
    uint64_t seed = o->seed;
    const double t0 = seconds();
    feed(m, ids, (int)count, o->batch);
    const double t1 = seconds();

    if (!o->quiet)
        put(prompt, bytes);
    int made = 0;
    const char *ended = 0;
    for (; made < limit; made++) {
        const int32_t token = bnc_model_sample(m, o->temperature, o->top_k, o->top_p, &seed);
        if (bnc_model_is_eos(token)) {
            ended = "end of text";
            break;
        }
        size_t size;
        const uint8_t *piece = bnc_model_piece(m, token, &size);
        put(piece, size);
        if (made + 1 == limit)
            continue;
        if (!bnc_model_eval(m, &token, 1)) {
            ended = "context is full";
            made++;
            break;
        }
    }
    put("\n", 1);
    const double t2 = seconds();
    if (!o->quiet)
        fprintf(stderr,
                "[prompt: %ld tokens, %.1f tokens/s | text: %d tokens, %.1f tokens/s%s%s]\n", count,
                (double)count / (t1 - t0), made, made > 1 ? (made - 1) / (t2 - t1) : 0.0,
                ended ? " | " : "", ended ? ended : "");
    finish(m);
    free(ids);
    free(text);
}

#ifdef BNC_MODEL_CHAT

#ifdef __wasi__

static void hold_interrupts(void)
{
}

static int interrupted(void)
{
    return 0;
}

static void forget_interrupt(void)
{
}

static int wait_for_input(void)
{
    return 0;
}

#else

/* Ctrl-C at a terminal is held back, and looked for between two steps and at the prompt. */
static sigset_t interrupts, otherwise;

static void notice(int signal)
{
    (void)signal;
}

static void hold_interrupts(void)
{
    const struct sigaction action = { .sa_handler = notice };
    sigemptyset(&interrupts);
    sigaddset(&interrupts, SIGINT);
    sigaction(SIGINT, &action, 0);
    sigprocmask(SIG_BLOCK, &interrupts, &otherwise); /* before there are threads, which inherit */
}

static int interrupted(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGINT) == 1;
}

static void forget_interrupt(void)
{
    int signal;
    if (interrupted())
        sigwait(&interrupts, &signal);
}

/* Until there is something to read: 0, or 1 at Ctrl-C. */
static int wait_for_input(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    return pselect(STDIN_FILENO + 1, &set, 0, 0, 0, &otherwise) < 0 && errno == EINTR;
}

#endif

/* Lines of standard input, each in the same memory. */
struct lines {
    char *bytes;
    size_t size, capacity; /* read, and room */
    size_t next;           /* where the line after this one begins */
    int terminal, too_long, ended;
};

enum line { LINE, LINE_TOO_LONG, INTERRUPTED, END };

/* The next line, which is in->bytes[0 .. *size - 1]. */
static enum line read_line(struct lines *in, size_t *size)
{
    size_t seen = 0;
    memmove(in->bytes, in->bytes + in->next, in->size - in->next);
    in->size -= in->next;
    in->next = 0;
    for (;;) {
        const char *newline = memchr(in->bytes + seen, '\n', in->size - seen);
        if (newline || (in->ended && in->size > 0)) {
            *size = newline ? (size_t)(newline - in->bytes) : in->size;
            in->next = newline ? *size + 1 : in->size;
            if (*size > 0 && in->bytes[*size - 1] == '\r')
                --*size;
            const int too_long = in->too_long;
            in->too_long = 0;
            return too_long ? LINE_TOO_LONG : LINE;
        }
        if (in->ended)
            return END;
        seen = in->size;
        if (in->size == in->capacity) {
            in->too_long = 1;
            in->size = seen = 0;
        }
        if (in->terminal && wait_for_input()) {
            in->size = 0;
            return INTERRUPTED;
        }
        const ssize_t got = read(STDIN_FILENO, in->bytes + in->size, in->capacity - in->size);
        if (got < 0 && errno != EINTR)
            die(FAILED, "standard input", strerror(errno));
        in->ended = got == 0;
        in->size += got > 0 ? (size_t)got : 0;
    }
}

/* Feeds what the session lacks of the first `count` ids, in batches, until Ctrl-C. Returns 0 when
 * it holds them all, and then the last one's logits are there. */
static int catch_up(struct bnc_chat *c, const struct options *o, int count)
{
    const int held = bnc_chat_held(c, count);
    bnc_chat_rewind(c, held < count ? held : count - 1);
    while (c->fed_count < count) {
        const int left = count - c->fed_count;
        const int batch = o->batch < BNC_MODEL_BATCH ? o->batch : BNC_MODEL_BATCH;
        if (interrupted())
            return -1;
        if (bnc_chat_feed(c, c->ids + c->fed_count, left < batch ? left : batch) != 0)
            die(FAILED, "--chat", "evaluation failed");
    }
    return 0;
}

/* Adds what stands before the conversation's first message, or between an answer and the next. */
static int open_message(struct bnc_chat *c, const struct options *o, int first)
{
    const struct bnc_chat_template *t = &chat_template;
    if (!first)
        return bnc_chat_add(c, t->assistant_user);
    if (!o->system)
        return bnc_chat_add(c, t->head);
    if (bnc_chat_add(c, t->system_head) != 0)
        return -1;
    const size_t from = c->bytes;
    if (bnc_chat_put(c, o->system, strlen(o->system)) != 0)
        return -1;
    bnc_chat_strip(c, from, t->strip_system);
    return bnc_chat_add(c, t->system_user);
}

/* The answer to the conversation that the session holds: printed, and added to the text, which is
 * ready for it. Returns 0, or why the answer ended early. */
static const char *answer(struct bnc_chat *c, const struct options *o, uint64_t *seed)
{
    const struct bnc_chat_template *t = &chat_template;
    const size_t from = c->bytes;
    const char *ended = 0;
    for (int made = 0; !ended; made++) {
        size_t size;
        const int32_t token = bnc_model_sample(c->model, o->temperature, o->top_k, o->top_p, seed);
        if (bnc_model_is_eos(token) || bnc_chat_has_token(t->assistant_user, token))
            break;
        if (made == o->n) {
            ended = "stopped by -n";
            break;
        }
        const uint8_t *piece = bnc_model_piece(c->model, token, &size);
        put(piece, size);
        if (bnc_chat_put(c, piece, size) != 0 || bnc_chat_feed(c, &token, 1) != 0)
            ended = "the context is full";
        else if (interrupted())
            ended = "interrupted";
    }
    bnc_chat_strip(c, from, t->strip_assistant);
    put("\n", 1);
    return ended;
}

/* While a person reads or types, feeds what is certain to come before the next message: up to the
 * template's last token there, since the text after it is encoded with the message. */
static void settle(struct bnc_chat *c, const struct options *o, int first)
{
    const struct bnc_chat_mark mark = bnc_chat_mark(c);
    if (open_message(c, o, first) == 0 && c->token_count > mark.token_count) {
        c->bytes = c->tokens[c->token_count - 1].at;
        const int count = bnc_chat_encode(c);
        if (count > 0 && bnc_chat_held(c, count) < count)
            catch_up(c, o, count);
    }
    bnc_chat_release(c, mark);
}

/* One message of the user, and the answer. Returns 1 when both are now part of the conversation. */
static int exchange(struct bnc_chat *c, const struct options *o, int first, const char *text,
                    size_t bytes, uint64_t *seed)
{
    const struct bnc_chat_mark before = bnc_chat_mark(c);
    int count = -1;
    if (open_message(c, o, first) == 0) {
        const size_t from = c->bytes;
        if (bnc_chat_put(c, text, bytes) == 0) {
            bnc_chat_strip(c, from, chat_template.strip_user);
            const struct bnc_chat_mark message = bnc_chat_mark(c);
            if (bnc_chat_add(c, chat_template.generation) == 0)
                count = bnc_chat_encode(c);
            bnc_chat_release(c, message);
            if (bnc_chat_add(c, chat_template.user_assistant) != 0)
                count = -1;
        }
    }
    if (count < 1 || count == c->context) {
        bnc_chat_release(c, before);
        fprintf(stderr,
                BNC_MODEL_NAME ": this message does not fit into the context, %d positions; /reset "
                               "begins anew, and -c makes room for more\n",
                c->context);
        return 0;
    }
    if (o->mode == TOKENS) {
        fprintf(stderr, "kept %d of %d:", bnc_chat_held(c, count), count);
        for (int i = 0; i < count; i++)
            fprintf(stderr, " %ld", (long)c->ids[i]);
        fputc('\n', stderr);
    }
    if (catch_up(c, o, count) != 0) {
        bnc_chat_release(c, before);
        fputs("\n[interrupted; the message is forgotten]\n", stderr);
        return 0;
    }
    const char *ended = answer(c, o, seed);
    if (ended && !o->quiet && !interrupted())
        fprintf(stderr, "[%s]\n", ended);
    return 1;
}

static int blank(const char *text, size_t bytes)
{
    size_t size;
    while ((size = bnc_chat_space((const unsigned char *)text, bytes)) != 0) {
        text += size;
        bytes -= size;
    }
    return bytes == 0;
}

/* Whether a line is a command, and spaces at most. */
static int is_command(const char *text, size_t bytes, const char *command)
{
    const size_t size = strlen(command);
    return bytes >= size && memcmp(text, command, size) == 0 && blank(text + size, bytes - size);
}

static void chat(const struct options *o)
{
    const int own = BNC_MODEL_CONTEXT < 4096 ? BNC_MODEL_CONTEXT : 4096;
    const int context = o->context ? o->context : own;
    const int terminal = isatty(STDIN_FILENO), prompts = terminal && isatty(STDOUT_FILENO);
    if (o->mode != GENERATE && o->mode != TOKENS)
        die(USAGE, "--chat", "goes with none of --info, --bench, --logits");
    if (o->system && !chat_template.takes_system)
        die(USAGE, "--system", "the chat template of this model has no place for it");
    static char out[4096]; /* stdio would take it from the heap */
    setvbuf(stdout, out, _IOFBF, sizeof out);
    if (terminal)
        hold_interrupts();

    /* Text has about 4 bytes a token; with more than 16 the text is full before the context. */
    const size_t capacity = 16 * (size_t)context + 4096;
    struct bnc_chat c = { .model = start(o, context), .context = context, .capacity = capacity };
    c.text = take(capacity, "--chat");
    c.tokens = take(sizeof *c.tokens * (size_t)context, "--chat");
    c.ids = take(sizeof *c.ids * (size_t)context, "--chat");
    c.fed = take(sizeof *c.fed * (size_t)context, "--chat");
    c.scratch_bytes = bnc_model_scratch_bytes(capacity);
    c.scratch = take(c.scratch_bytes, "--chat");
    struct lines in = { .bytes = take(capacity, "--chat"), .capacity = capacity };
    in.terminal = terminal;

    if (o->system && (open_message(&c, o, 1) != 0 || bnc_chat_encode(&c) < 0))
        die_numbers(USAGE, "--system", "does not fit into the context, %ld positions%.0ld", context,
                    0);
    bnc_chat_release(&c, (struct bnc_chat_mark){ 0, 0 });
    if (terminal && !o->quiet)
        fputs("[/reset begins anew, /exit ends, Ctrl-C ends an answer]\n", stderr);

    uint64_t seed = o->seed;
    int first = 1, presses = 0; /* of Ctrl-C since the last line */
    for (;;) {
        size_t size;
        if (prompts)
            put("> ", 2);
        if (terminal)
            settle(&c, o, first);
        const enum line got = read_line(&in, &size);
        if (got == END)
            break;
        if (got == INTERRUPTED) {
            if (prompts)
                put("\n", 1);
            if (presses++ > 0)
                break;
            fputs("[Ctrl-C once more ends the program]\n", stderr);
            continue;
        }
        presses = 0;
        if (got == LINE_TOO_LONG) {
            fprintf(stderr, BNC_MODEL_NAME ": a line of more than %zu bytes is left out\n",
                    capacity);
        } else if (is_command(in.bytes, size, "/exit")) {
            break;
        } else if (is_command(in.bytes, size, "/reset")) {
            bnc_chat_release(&c, (struct bnc_chat_mark){ 0, 0 });
            first = 1;
        } else if (!blank(in.bytes, size)) {
            if (exchange(&c, o, first, in.bytes, size, &seed))
                first = 0;
            if (terminal && interrupted()) {
                forget_interrupt();
                presses = 1;
            }
        }
    }
    if (prompts && in.ended)
        put("\n", 1);
    finish(c.model);
    free(c.text);
    free(c.tokens);
    free(c.ids);
    free(c.fed);
    free(c.scratch);
    free(in.bytes);
}

#else

static void chat(const struct options *o)
{
    (void)o;
    die(USAGE, "--chat",
        "this model was compiled without a chat template (a base model, or one whose template "
        "bitnetc could not compile); give a prompt with -p");
}

#endif

static void info(const struct options *o)
{
    const int context = o->context ? o->context : BNC_MODEL_CONTEXT;
    printf("model      %s (%s)\n", BNC_MODEL_NAME, BNC_MODEL_TITLE);
    printf("compiled   by bitnetc %s for %s, kernels %s\n", BNC_MODEL_VERSION, BNC_MODEL_TARGET,
           BNC_MODEL_KERNELS);
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
    printf("arena      %zu bytes for context %d and %d thread%s\n",
           bnc_model_arena_bytes(context, o->threads), context, o->threads,
           o->threads == 1 ? "" : "s");
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of `RUNS` runs over pseudo-random tokens. */
static void bench(const struct options *o)
{
    enum { RUNS = 3, PREFILL = 512, DECODE = 128 };
    const int most = o->context ? o->context : BNC_MODEL_CONTEXT;
    const int prefill = most / 2 < PREFILL ? (most + 1) / 2 : PREFILL;
    const int decode = most - prefill < DECODE ? most - prefill : DECODE;
    if (decode < 1)
        die(USAGE, "-c", "--bench needs a context of at least 2");
    struct bnc_model *m = start(o, prefill + decode);
    int32_t *ids = take(sizeof *ids * (size_t)(prefill + decode), "bench");
    uint32_t random = 1;
    for (int i = 0; i < prefill + decode; i++) {
        random = random * 1664525u + 1013904223u;
        ids[i] = (int32_t)(random >> 8) % BNC_MODEL_VOCAB;
    }
    double fast[RUNS], slow[RUNS];
    for (int run = 0; run < RUNS; run++) {
        bnc_model_reset(m);
        const double t0 = seconds();
        feed(m, ids, prefill, o->batch);
        const double t1 = seconds();
        for (int i = 0; i < decode; i++)
            feed(m, ids + prefill + i, 1, 1);
        fast[run] = t1 - t0;
        slow[run] = seconds() - t1;
    }
    qsort(fast, RUNS, sizeof *fast, by_value);
    qsort(slow, RUNS, sizeof *slow, by_value);
    const double each = slow[RUNS / 2] / decode;
    const double token = BNC_MODEL_TERNARY_BYTES + BNC_MODEL_HEAD_BYTES;
    const double cache = (double)BNC_MODEL_CACHE_BYTES * (prefill + 0.5 * decode);
    printf("model    %s, %s, %d thread%s\n", BNC_MODEL_NAME, BNC_MODEL_TARGET, o->threads,
           o->threads == 1 ? "" : "s");
    printf("prefill  %d tokens: %.1f tokens/s\n", prefill, prefill / fast[RUNS / 2]);
    printf("decode   %d tokens: %.1f tokens/s, %.3f ms each\n", decode, 1.0 / each, 1e3 * each);
    printf("bytes    %.1f MB a token (%.1f ternary, %.1f head, %.1f cache): %.2f GB/s\n",
           (token + cache) / 1e6, BNC_MODEL_TERNARY_BYTES / 1e6, BNC_MODEL_HEAD_BYTES / 1e6,
           cache / 1e6, (token + cache) / each / 1e9);
    finish(m);
    free(ids);
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
    char lacks[64];
    if (bnc_cpu_lacks(lacks, sizeof lacks)) {
        fprintf(stderr,
                BNC_MODEL_NAME ": compiled for " BNC_MODEL_TARGET
                               ", which needs %s; this CPU has not: compile the model for another "
                               "target (bitnetc targets)\n",
                lacks);
        return WRONG_CPU;
    }
    const struct options o = parse(argc, argv);
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
    case TOKENS:
    case GENERATE:
        generate(&o);
        break;
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        die(FAILED, "standard output", strerror(errno));
    return 0;
}
