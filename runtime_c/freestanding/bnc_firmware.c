/* SPDX-License-Identifier: MIT */
/* The command line of a model without an operating system: options and text through a debugger or
 * an emulator. The counterpart of bnc_main.c; options and exit codes mean the same there.
 *
 * Included by an emitted main.c, which names the model. The session's arena is static; what is
 * read and tokenised lies in the RAM that is left. An application on a board has its own main():
 * examples/freestanding.
 */
#include <string.h>

#include "bnc_semihosting.h"

enum { FAILED = 1, USAGE = 2, FAULT = 4, LINE = 2048 };

static const char usage[] =
    "usage: " BNC_MODEL_NAME " [options]\n"
    "\n"
    "  -p TEXT     the prompt\n"
    "  -n N        tokens to generate at most (128)\n"
    "  --temp T    temperature; 0 is greedy\n"
    "  --top-k K   keep the K most likely tokens; 0 keeps all\n"
    "  --top-p P   keep the most likely tokens that reach probability P\n"
    "  --seed S    the same seed gives the same text, on every machine (0)\n"
    "  --batch N   feed the prompt N tokens at a time; never changes the text\n"
    "  --no-bos    do not put the begin-of-text token before the prompt\n"
    "  -q          print the generated text only\n"
    "\n"
    "  --bench     count ticks of SysTick: a known loop, then prefill and decode of -n tokens\n"
    "  --tokens    print the prompt's token ids\n"
    "  --logits    read token ids from the console, write the float32 logits of every position\n"
    "  -h, --help  this text\n"
    "  --version   the version of bitnetc that made it\n"
    "\n"
    "-t 1 and -c N, up to the context compiled for, are accepted for the tools' sake.\n";

/* Addresses from the linker script. */
extern uint8_t bnc_spare_start[], bnc_spare_end[];
extern uint32_t bnc_stack_start[], bnc_stack_end[];

__attribute__((section(".noinit"), aligned(BNC_MODEL_ARENA_ALIGN))) //
static uint8_t arena[BNC_MODEL_ARENA_BYTES];

static int out = -1, err = -1;

int main(void);
_Noreturn void bnc_fault(void);

static size_t length_of(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

static int is(const char *a, const char *b)
{
    const size_t n = length_of(a);
    return n == length_of(b) && memcmp(a, b, n) == 0;
}

static void say(int handle, const char *text)
{
    bnc_console_write(handle, text, length_of(text));
}

static void say_number(int handle, uint64_t number)
{
    char digits[21];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + (int)(number % 10));
    while ((number /= 10) != 0);
    bnc_console_write(handle, digits + at, sizeof digits - at);
}

_Noreturn static void die(int code, const char *where, const char *what)
{
    say(err, BNC_MODEL_NAME ": ");
    say(err, where);
    say(err, ": ");
    say(err, what);
    say(err, "\n");
    bnc_exit(code);
}

_Noreturn void bnc_fault(void)
{
    die(FAULT, "fault", "the processor took an exception, or main returned");
}

static void put(const void *bytes, size_t count)
{
    if (bnc_console_write(out, bytes, count) != 0)
        die(FAILED, "standard output", "could not be written");
}

/* Memory from the RAM that is left; it is never given back. */
static void *take(size_t bytes, const char *what)
{
    static size_t taken;
    const size_t room = (size_t)(bnc_spare_end - bnc_spare_start);
    const size_t rounded = (bytes + 7) & ~(size_t)7;
    if (rounded < bytes || rounded > room - taken)
        die(FAILED, what, "out of memory: the board has no RAM left for it");
    taken += rounded;
    return bnc_spare_start + taken - rounded;
}

struct options {
    const char *prompt;
    int n, top_k, batch, bos, quiet;
    float temperature, top_p;
    uint64_t seed;
    enum { GENERATE, BENCH, TOKENS, LOGITS } mode;
};

/* A whole number in low .. high, high < 2^31. */
static int whole(const char *option, const char *text, int low, int high)
{
    int64_t value = 0;
    if (!*text)
        die(USAGE, option, "expects a whole number");
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            die(USAGE, option, "expects a whole number");
        value = 10 * value + (*text - '0');
        if (value > high)
            die(USAGE, option, "is out of range");
    }
    if (value < low)
        die(USAGE, option, "is out of range");
    return (int)value;
}

/* A decimal fraction in low .. high: at most seven digits, so that one division rounds it as any
 * other reader of decimals would. */
static float real(const char *option, const char *text, float low, float high)
{
    int32_t digits = 0, count = 0;
    float divisor = 1.0f;
    int point = 0;
    for (const char *at = text; *at; at++) {
        if (*at == '.' && !point) {
            point = 1;
        } else if (*at >= '0' && *at <= '9' && count < 7) {
            digits = 10 * digits + (*at - '0');
            count += digits != 0;
            divisor *= point ? 10.0f : 1.0f; /* exact up to 10^10 */
        } else {
            die(USAGE, option, "expects a number of at most seven digits");
        }
    }
    const float value = (float)digits / divisor;
    if (!*text || !(value >= low && value <= high))
        die(USAGE, option, "is not a number in the allowed range");
    return value;
}

/* The next word of a command line, terminated in place; null at its end. Words are separated by
 * spaces; one that begins with a control character 1 ends at the next such character. */
static char *next_word(char **at)
{
    char *word = *at;
    while (*word == ' ')
        word++;
    if (!*word)
        return 0;
    char end = ' ';
    if (*word == 1) {
        end = 1;
        word++;
    }
    char *p = word;
    while (*p && *p != end)
        p++;
    *at = *p ? p + 1 : p;
    *p = '\0';
    return word;
}

static struct options parse(char *line)
{
    struct options o = { .n = 128,
                         .top_k = BNC_MODEL_TOP_K,
                         .batch = BNC_MODEL_BATCH,
                         .bos = 1,
                         .temperature = BNC_MODEL_TEMPERATURE,
                         .top_p = BNC_MODEL_TOP_P };
    next_word(&line); /* the program */
    for (const char *arg; (arg = next_word(&line)) != 0;) {
        if (is(arg, "-h") || is(arg, "--help")) {
            put(usage, sizeof usage - 1);
            bnc_exit(0);
        } else if (is(arg, "--version")) {
            say(out, BNC_MODEL_NAME ", compiled by bitnetc " BNC_MODEL_VERSION "\n");
            bnc_exit(0);
        } else if (is(arg, "--bench")) {
            o.mode = BENCH;
        } else if (is(arg, "--tokens")) {
            o.mode = TOKENS;
        } else if (is(arg, "--logits")) {
            o.mode = LOGITS;
        } else if (is(arg, "--no-bos")) {
            o.bos = 0;
        } else if (is(arg, "-q")) {
            o.quiet = 1;
        } else {
            static const char known[][8] = { "-p",      "-n",      "-t",     "-c",     "--temp",
                                             "--top-k", "--top-p", "--seed", "--batch" };
            size_t k = 0;
            while (k < sizeof known / sizeof *known && !is(arg, known[k]))
                k++;
            if (k == sizeof known / sizeof *known)
                die(USAGE, arg, "unknown option; --help lists them");
            const char *value = next_word(&line);
            if (!value)
                die(USAGE, arg, "expects a value");
            if (is(arg, "-p"))
                o.prompt = value;
            else if (is(arg, "-n"))
                o.n = whole(arg, value, 0, 1 << 30);
            else if (is(arg, "-t"))
                (void)whole(arg, value, 1, 1);
            else if (is(arg, "-c"))
                (void)whole(arg, value, 1, BNC_MODEL_CONTEXT);
            else if (is(arg, "--temp"))
                o.temperature = real(arg, value, 0.0f, 1000.0f);
            else if (is(arg, "--top-k"))
                o.top_k = whole(arg, value, 0, 1 << 30);
            else if (is(arg, "--top-p"))
                o.top_p = real(arg, value, 1e-6f, 1.0f);
            else if (is(arg, "--seed"))
                o.seed = (uint64_t)whole(arg, value, 0, 0x7fffffff);
            else
                o.batch = whole(arg, value, 1, 1 << 30);
        }
    }
    if (o.batch > BNC_MODEL_BATCH)
        o.batch = BNC_MODEL_BATCH;
    return o;
}

static struct bnc_model *start(void)
{
    struct bnc_model *m = bnc_model_init(arena, sizeof arena, BNC_MODEL_CONTEXT, 1);
    if (!m)
        die(FAILED, "start", "the session could not be started");
    return m;
}

/* The prompt's ids; sets *count. */
static int32_t *tokenize(const struct options *o, const struct bnc_model *m, int *count)
{
    const char *prompt = o->prompt ? o->prompt : "";
    const size_t bytes = length_of(prompt), capacity = 3 * bytes + 64;
    const size_t scratch_bytes = bnc_model_scratch_bytes(bytes);
    int32_t *ids = take(capacity * sizeof *ids, "prompt");
    void *scratch = take(scratch_bytes, "prompt");
    const ptrdiff_t n =
        bnc_model_tokenize(m, prompt, bytes, o->bos, ids, capacity, scratch, scratch_bytes);
    if (n < 0)
        die(USAGE, "prompt", "is too long to be tokenized");
    *count = (int)n;
    return ids;
}

/* Logits are computed when they are asked for. */
static void feed(struct bnc_model *m, const int32_t *ids, int n, int batch)
{
    for (int done = 0; done < n; done += batch)
        if (bnc_model_eval_all(m, ids + done, n - done < batch ? n - done : batch, 0) != 0)
            die(FAILED, "prompt", "holds a token outside the vocabulary");
}

static void generate(const struct options *o)
{
    struct bnc_model *m = start();
    int count;
    const int32_t *ids = tokenize(o, m, &count);
    if (o->mode == TOKENS) {
        for (int i = 0; i < count; i++) {
            say_number(out, (uint64_t)ids[i]);
            say(out, i + 1 < count ? " " : "\n");
        }
        return;
    }
    if (count == 0)
        die(USAGE, "prompt", "is empty; give one with -p");
    if (count > BNC_MODEL_CONTEXT)
        die(USAGE, "prompt", "has more tokens than the context compiled for");
    feed(m, ids, count, o->batch);
    if (!o->quiet && o->prompt)
        put(o->prompt, length_of(o->prompt));
    uint64_t seed = o->seed;
    for (int made = 0; made < o->n; made++) {
        const int32_t token = bnc_model_sample(m, o->temperature, o->top_k, o->top_p, &seed);
        if (bnc_model_is_eos(token))
            break;
        size_t size;
        const uint8_t *piece = bnc_model_piece(m, token, &size);
        put(piece, size);
        if (made + 1 < o->n && !bnc_model_eval(m, &token, 1))
            break; /* the context is full */
    }
    put("\n", 1);
}

/* SysTick, which counts down from 2^24 - 1 at the processor's clock. */
static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010u;

/* Ticks since the last call; one every 2^24 ticks at least, or some are lost. */
static uint32_t ticks(void)
{
    static uint32_t before;
    const uint32_t now = systick[2], passed = (before - now) & 0xffffffu;
    before = now;
    return passed;
}

static uint32_t bnc_stack_used(void)
{
    const uint32_t *at = bnc_stack_start;
    while (at < bnc_stack_end && *at == 0x5ca1ab1eu)
        at++;
    return (uint32_t)((uintptr_t)bnc_stack_end - (uintptr_t)at);
}

static void say_figure(const char *what, uint64_t number)
{
    say(out, what);
    say(out, " ");
    say_number(out, number);
    say(out, "\n");
}

/* Ticks of a loop of 2 * 2^20 instructions, of prefill in whole batches, of decoding, and of
 * sampling; and how much was done. */
static void bench(const struct options *o)
{
    struct bnc_model *m = start();
    systick[0] = 0;
    systick[1] = 0xffffffu;
    systick[2] = 0;
    systick[0] = 5; /* enabled, the processor's clock */
    uint32_t loops = 1u << 20;
    ticks();
    __asm__ volatile(".p2align 2\n1:\tsubs %0, %0, #1\n\tbne 1b" : "+r"(loops)::"cc");
    say_figure("loop instructions", 2u << 20);
    say_figure("loop ticks", ticks());

    const int n = o->n < BNC_MODEL_CONTEXT / 2 ? o->n : BNC_MODEL_CONTEXT / 2;
    const int whole_batches = n / o->batch * o->batch;
    int32_t *ids = take(sizeof *ids * (size_t)(n + 1), "--bench");
    for (int i = 0; i < n; i++)
        ids[i] = (i * 7919 + 17) % BNC_MODEL_VOCAB;
    uint64_t total = 0;
    for (int done = 0; done < whole_batches; done += o->batch) {
        ticks();
        feed(m, ids + done, o->batch, o->batch);
        total += ticks();
    }
    say_figure("prefill tokens", (uint64_t)whole_batches);
    say_figure("prefill ticks", total);
    bnc_model_reset(m);
    feed(m, ids, 1, 1);
    (void)bnc_model_logits(m);
    uint64_t seed = o->seed, sampling = 0;
    total = 0;
    for (int made = 0; made < n; made++) {
        ticks();
        const int32_t token = bnc_model_sample(m, o->temperature, o->top_k, o->top_p, &seed);
        sampling += ticks();
        feed(m, &token, 1, 1);
        (void)bnc_model_logits(m);
        total += ticks();
    }
    say_figure("decode tokens", (uint64_t)n);
    say_figure("decode ticks", total);
    say_figure("sampling ticks", sampling);
    int count;
    struct options prompt = *o;
    prompt.prompt = "The stack of the tokenizer counts, too.";
    (void)tokenize(&prompt, m, &count);
    say_figure("stack bytes", bnc_stack_used());
}

/* Token ids from the console, logits to it. */
static void logits(const struct options *o)
{
    const int in = bnc_console(0);
    int32_t *ids = take(sizeof *ids * BNC_MODEL_CONTEXT, "--logits");
    float *rows = take(sizeof *rows * (size_t)o->batch * BNC_MODEL_VOCAB, "--logits");
    char text[256];
    int n = 0, id = -1; /* -1: between two ids */
    for (size_t got; (got = bnc_console_read(in, text, sizeof text)) > 0;)
        for (size_t i = 0; i < got; i++) {
            const char c = text[i];
            if (c >= '0' && c <= '9') {
                id = 10 * (id < 0 ? 0 : id) + (c - '0');
                if (id >= BNC_MODEL_VOCAB)
                    die(USAGE, "--logits", "a token is not in the vocabulary");
            } else if (c != ' ' && c != '\n') {
                die(USAGE, "--logits", "the input holds something that is not a number");
            } else if (id >= 0) {
                if (n == BNC_MODEL_CONTEXT)
                    die(USAGE, "--logits", "more tokens than the context of this program");
                ids[n++] = id;
                id = -1;
            }
        }
    if (id >= 0 && n < BNC_MODEL_CONTEXT)
        ids[n++] = id;
    if (n == 0)
        die(USAGE, "--logits", "no token ids on the console");
    struct bnc_model *m = start();
    for (int done = 0; done < n; done += o->batch) {
        const int count = n - done < o->batch ? n - done : o->batch;
        if (bnc_model_eval_all(m, ids + done, count, rows) != 0)
            die(FAILED, "--logits", "evaluation failed");
        put(rows, sizeof *rows * (size_t)count * BNC_MODEL_VOCAB);
    }
}

int main(void)
{
    static char line[LINE];
    out = bnc_console(4);
    err = bnc_console(8);
    if (bnc_command_line(line, sizeof line) != 0)
        die(USAGE, "command line", "is missing or too long");
    const struct options o = parse(line);
    if (o.mode == BENCH)
        bench(&o);
    else if (o.mode == LOGITS)
        logits(&o);
    else
        generate(&o);
    bnc_exit(0);
}
