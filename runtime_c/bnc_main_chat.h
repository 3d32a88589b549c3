/* SPDX-License-Identifier: MIT */
/* --chat: a conversation over standard input and output. What it consists of is in bnc_chat.h. */
#ifndef BNC_MAIN_CHAT_H
#define BNC_MAIN_CHAT_H

#include "bnc_main_session.h"

#ifdef BNC_MODEL_CHAT

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
        if (in->terminal && bnc_os_wait()) {
            in->size = 0;
            return INTERRUPTED;
        }
        const ptrdiff_t got = bnc_os_read(in->bytes + in->size, in->capacity - in->size);
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
        if (bnc_os_interrupted())
            return -1;
        if (bnc_chat_feed(c, c->ids + c->fed_count, left < batch ? left : batch) != 0)
            die(FAILED, "--chat", "evaluation failed");
    }
    return 0;
}

/* Adds what stands before the conversation's first message, or between an answer and the next. */
static int open_message(struct bnc_chat *c, const struct options *o, int first)
{
    return first ? bnc_chat_begin(c, &chat_template, o->system, o->system ? strlen(o->system) : 0)
                 : bnc_chat_add(c, chat_template.assistant_user);
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
        else if (bnc_os_interrupted())
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
    if (open_message(c, o, first) == 0)
        count = bnc_chat_ask(c, &chat_template, text, bytes);
    if (count < 0) {
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
    if (ended && !o->quiet && !bnc_os_interrupted())
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
    const int terminal = bnc_os_terminal(0), prompts = terminal && bnc_os_terminal(1);
    if (o->mode != GENERATE && o->mode != TOKENS)
        die(USAGE, "--chat", "goes with none of --info, --bench, --logits");
    if (o->system && !chat_template.takes_system)
        die(USAGE, "--system", "the chat template of this model has no place for it");
    static char out[4096]; /* stdio would take it from the heap */
    setvbuf(stdout, out, _IOFBF, sizeof out);
    if (terminal)
        bnc_os_hold_interrupts();

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
            if (terminal && bnc_os_interrupted()) {
                bnc_os_forget_interrupt();
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

#endif
