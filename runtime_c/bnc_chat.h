/* SPDX-License-Identifier: MIT */
/* A conversation as the chat template has it, and how much of it a session holds.
 *
 * The text grows by the template's parts and by messages, in which control tokens are only what
 * the template says: a message is text, whatever it spells. Text between two tokens is encoded as
 * one, since words may reach from the template's text into a message.
 *
 * Before each answer the whole conversation is encoded, and the session keeps what it has computed
 * of the beginning. What is fed anew is the last exchange at most: an answer whose text encodes to
 * other tokens than it was made of, as when the template strips it.
 *
 * Part of a program, after the names bnc_model_*; nothing here allocates or prints.
 */
#ifndef BNC_CHAT_H
#define BNC_CHAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Text of the template, or a token where text is null; an array ends with BNC_CHAT_END. */
struct bnc_chat_part {
    const char *text;
    size_t bytes;
    int32_t token;
};

#define BNC_CHAT_TEXT(literal) { (literal), sizeof(literal) - 1, 0 }
#define BNC_CHAT_TOKEN(id)     { 0, 0, (id) }
#define BNC_CHAT_END           { 0, 0, -1 }

enum { BNC_CHAT_LEFT = 1, BNC_CHAT_RIGHT = 2 }; /* sides of a message without whitespace */
enum { BNC_CHAT_PLAIN = 2 };                    /* BNC_ENCODE_PLAIN of bnc_tokenizer.h */

/* head             user user_assistant assistant assistant_user user ... user generation
 * system_head system system_user user ...                          with a system message
 */
struct bnc_chat_template {
    const struct bnc_chat_part *head, *system_head, *system_user;
    const struct bnc_chat_part *user_assistant, *assistant_user, *generation;
    int takes_system;
    int strip_system, strip_user, strip_assistant;
};

/* A token of the template: it stands before the byte `at` of the text. */
struct bnc_chat_token {
    size_t at;
    int32_t id;
};

struct bnc_chat {
    struct bnc_model *model;
    int context; /* positions of the session */
    char *text;  /* without the tokens */
    size_t bytes, capacity;
    struct bnc_chat_token *tokens; /* [context] */
    int token_count;
    int32_t *ids; /* [context]: the conversation, as bnc_chat_encode finds it */
    int32_t *fed; /* [context]: what the session holds */
    int fed_count;
    void *scratch;
    size_t scratch_bytes;
};

/* Where a conversation stood, to go back to. */
struct bnc_chat_mark {
    size_t bytes;
    int token_count;
};

static struct bnc_chat_mark bnc_chat_mark(const struct bnc_chat *c)
{
    return (struct bnc_chat_mark){ c->bytes, c->token_count };
}

static void bnc_chat_release(struct bnc_chat *c, struct bnc_chat_mark mark)
{
    c->bytes = mark.bytes;
    c->token_count = mark.token_count;
}

/* Adds text of a message. Returns 0, or -1 when there is no room. */
static int bnc_chat_put(struct bnc_chat *c, const void *text, size_t bytes)
{
    if (bytes > c->capacity - c->bytes)
        return -1;
    memcpy(c->text + c->bytes, text, bytes);
    c->bytes += bytes;
    return 0;
}

/* Adds parts of the template. Returns 0, or -1 when there is no room. */
static int bnc_chat_add(struct bnc_chat *c, const struct bnc_chat_part *part)
{
    for (; part->text || part->token >= 0; part++) {
        if (part->text) {
            if (bnc_chat_put(c, part->text, part->bytes) != 0)
                return -1;
            continue;
        }
        if (c->token_count == c->context)
            return -1;
        c->tokens[c->token_count].at = c->bytes;
        c->tokens[c->token_count++].id = part->token;
    }
    return 0;
}

/* Whether a token is among the parts. */
static int bnc_chat_has_token(const struct bnc_chat_part *part, int32_t token)
{
    for (; part->text || part->token >= 0; part++)
        if (!part->text && part->token == token)
            return 1;
    return 0;
}

/* The size of the whitespace character (as in Python's str.isspace) that begins p, or 0. */
static size_t bnc_chat_space(const unsigned char *p, size_t bytes)
{
    if (bytes == 0)
        return 0;
    if (*p == ' ' || (*p >= 0x09 && *p <= 0x0d) || (*p >= 0x1c && *p <= 0x1f))
        return 1;
    if (bytes >= 2 && *p == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0))
        return 2;
    if (bytes < 3 || *p < 0xe1 || *p > 0xe3)
        return 0;
    const unsigned character = (p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU);
    return character == 0x1680 || (character >= 0x2000 && character <= 0x200a) ||
                   character == 0x2028 || character == 0x2029 || character == 0x202f ||
                   character == 0x205f || character == 0x3000
               ? 3
               : 0;
}

/* Strips the message that the conversation ends with, which begins at byte `from`. */
static void bnc_chat_strip(struct bnc_chat *c, size_t from, int sides)
{
    const unsigned char *p = (const unsigned char *)c->text;
    size_t begin = from, size;
    if (sides & BNC_CHAT_LEFT)
        while ((size = bnc_chat_space(p + begin, c->bytes - begin)) != 0)
            begin += size;
    if (sides & BNC_CHAT_RIGHT) {
        for (size = 1; c->bytes > begin && size <= 3; size++) {
            if (c->bytes - begin >= size && bnc_chat_space(p + c->bytes - size, size) == size) {
                c->bytes -= size;
                size = 0; /* and look again */
            }
        }
    }
    memmove(c->text + from, c->text + begin, c->bytes - begin);
    c->bytes -= begin - from;
}

/* Writes the ids of text, in which no control tokens are recognised, whatever it spells.
 * Returns how many ids there are with those before them, or -1 without room.
 */
static int bnc_chat_encode_text(const struct bnc_chat *c, const char *text, size_t bytes, int at)
{
    const ptrdiff_t count =
        bnc_model_tokenize(c->model, text, bytes, BNC_CHAT_PLAIN, c->ids + at,
                           (size_t)(c->context - at), c->scratch, c->scratch_bytes);
    return count < 0 ? -1 : at + (int)count;
}

/* ids = the whole conversation. Returns how many, or -1 when they are more than the context. */
static int bnc_chat_encode(const struct bnc_chat *c)
{
    size_t begin = 0;
    int at = 0;
    for (int i = 0; i < c->token_count; i++) {
        at = bnc_chat_encode_text(c, c->text + begin, c->tokens[i].at - begin, at);
        if (at < 0 || at == c->context)
            return -1;
        c->ids[at++] = c->tokens[i].id;
        begin = c->tokens[i].at;
    }
    return bnc_chat_encode_text(c, c->text + begin, c->bytes - begin, at);
}

/* How many of the first `count` ids the session holds. */
static int bnc_chat_held(const struct bnc_chat *c, int count)
{
    int held = 0;
    while (held < count && held < c->fed_count && c->ids[held] == c->fed[held])
        held++;
    return held;
}

/* Makes the session hold the first `keep` of its tokens only. */
static void bnc_chat_rewind(struct bnc_chat *c, int keep)
{
    bnc_model_rewind(c->model, keep);
    c->fed_count = keep;
}

/* Feeds n tokens. Returns 0, or -1 when there is no room. */
static int bnc_chat_feed(struct bnc_chat *c, const int32_t *ids, int n)
{
    if (n > c->context - c->fed_count || bnc_model_eval_all(c->model, ids, n, 0) != 0)
        return -1;
    memcpy(c->fed + c->fed_count, ids, sizeof *ids * (size_t)n);
    c->fed_count += n;
    return 0;
}

/* Adds what stands before a conversation's first message: with a system message of `bytes`, or
 * without where it is null. Returns 0, or -1 when there is no room. */
static int bnc_chat_begin(struct bnc_chat *c, const struct bnc_chat_template *t, const char *system,
                          size_t bytes)
{
    if (!system)
        return bnc_chat_add(c, t->head);
    if (bnc_chat_add(c, t->system_head) != 0)
        return -1;
    const size_t from = c->bytes;
    if (bnc_chat_put(c, system, bytes) != 0)
        return -1;
    bnc_chat_strip(c, from, t->strip_system);
    return bnc_chat_add(c, t->system_user);
}

/* Adds a message of the user, and what stands before its answer; ids = the conversation, for the
 * answer to begin. Returns how many, or -1 when they leave no room for an answer. */
static int bnc_chat_ask(struct bnc_chat *c, const struct bnc_chat_template *t, const char *text,
                        size_t bytes)
{
    const size_t from = c->bytes;
    int count = -1;
    if (bnc_chat_put(c, text, bytes) != 0)
        return -1;
    bnc_chat_strip(c, from, t->strip_user);
    const struct bnc_chat_mark message = bnc_chat_mark(c);
    if (bnc_chat_add(c, t->generation) == 0)
        count = bnc_chat_encode(c);
    bnc_chat_release(c, message);
    if (bnc_chat_add(c, t->user_assistant) != 0 || count < 1 || count == c->context)
        return -1;
    return count;
}

#endif
