/* SPDX-License-Identifier: MIT */
/* A compiled model as a WebAssembly module without imports: what templates/web/model.js calls.
 *
 * Included by an emitted main.c, which names the model, in place of bnc_main.c. The module holds
 * code only. Its caller takes memory for an image of weights and tokenizer tables, fills it, and
 * starts one session; then a text or a message is begun, read in steps, and continued token by
 * token, so that the caller decides between any two steps whether to go on.
 *
 *     image = take(bytes)          weights.bin, and tokenizer.bin at the next multiple of 64
 *     start(image, context)
 *     write the text to input(bytes); count = prompt(bytes), or ask(bytes) after converse(0)
 *     while (read(64) > 0);
 *     while ((size = next(temperature, top_k, top_p)) >= 0) the text is size bytes at piece()
 *     finish()
 *
 * Memory is the module's own linear memory, which only grows; one image and one session are all
 * that it ever holds.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bnc_sha256.h"

#ifdef BNC_MODEL_CHAT
#include "bnc_chat.h"
#endif

#define BNC_EXPORT(name) __attribute__((export_name(#name), visibility("default")))

enum { END_OF_TEXT = -1, CONTEXT_FULL = -2, NOT_POSSIBLE = -3 };

/* What the library was compiled to read, in place of constant data. */
extern const uint8_t *bnc_model_weights, *bnc_model_tokenizer;
const uint8_t *bnc_model_weights, *bnc_model_tokenizer;

extern unsigned char __heap_base; /* where the linker's own data end */

static struct {
    uintptr_t top;     /* memory taken ends here; 0 before the first */
    uintptr_t session; /* and here before the session; 0 before the first */
    struct bnc_model *model;
    int context;
    char *input;
    size_t capacity;
    int32_t *ids; /* [context]: the prompt, or the conversation up to the answer */
    int count;    /* of ids */
    int done;     /* how many of them the session holds */
    void *scratch;
    size_t scratch_bytes;
    int32_t token;        /* sampled, and not yet fed; -1 for none */
    const uint8_t *piece; /* its text */
    size_t size;
    uint64_t seed;
    struct bnc_sha256 hash;
    uint8_t digest[32];
} web;

#ifdef BNC_MODEL_CHAT
static struct bnc_chat chat;
static struct bnc_chat_mark before; /* the message that is answered */
static size_t answer;               /* where the answer begins in the text */
static int answering;               /* there is a message whose answer is not finished */
static int follows;                 /* the text ends with an answer */
#endif

/* Memory at a multiple of 64, below 2^31: no size or difference of pointers wraps around. Returns
 * null where there is no more. */
BNC_EXPORT(take) void *bnc_web_take(size_t bytes)
{
    const uintptr_t most = (uintptr_t)1 << 31, page = 65536;
    const uintptr_t top = web.top ? web.top : ((uintptr_t)&__heap_base + 63) / 64 * 64;
    if (bytes > most - top - 64)
        return 0;
    const uintptr_t end = top + (bytes + 63) / 64 * 64;
    const uintptr_t pages = (end + page - 1) / page, have = __builtin_wasm_memory_size(0);
    if (pages > have && __builtin_wasm_memory_grow(0, pages - have) == (size_t)-1)
        return 0;
    web.top = end;
    return (void *)top;
}

/* Starts the session anew, in the memory of the one before. Returns 0, or -1 without memory. */
BNC_EXPORT(start) int bnc_web_start(const uint8_t *image, int context)
{
    if (!web.session)
        web.session = web.top;
    web.top = web.session;
    web.model = 0;
    if (context < 1 || context > BNC_MODEL_CONTEXT)
        return -1;

    /* Text has about 4 bytes a token; with more than 16 the text is full before the context. */
    const size_t positions = (size_t)context;
    const size_t arena_bytes = bnc_model_arena_bytes(context, 1);
    void *arena = bnc_web_take(arena_bytes);
    web.context = context;
    web.capacity = 16 * positions + 4096;
    web.input = bnc_web_take(web.capacity);
    web.ids = bnc_web_take(sizeof *web.ids * positions);
    web.scratch_bytes = bnc_model_scratch_bytes(web.capacity);
    web.scratch = bnc_web_take(web.scratch_bytes);
    if (!arena || !web.input || !web.ids || !web.scratch)
        return -1;
#ifdef BNC_MODEL_CHAT
    chat = (struct bnc_chat){ .context = context,
                              .capacity = web.capacity,
                              .ids = web.ids,
                              .scratch = web.scratch,
                              .scratch_bytes = web.scratch_bytes };
    chat.text = bnc_web_take(chat.capacity);
    chat.tokens = bnc_web_take(sizeof *chat.tokens * positions);
    chat.fed = bnc_web_take(sizeof *chat.fed * positions);
    if (!chat.text || !chat.tokens || !chat.fed)
        return -1;
#endif
    bnc_model_weights = image;
    bnc_model_tokenizer = image + (BNC_MODEL_WEIGHTS_BYTES + 63) / 64 * 64;
    web.model = bnc_model_init(arena, arena_bytes, context, 1);
#ifdef BNC_MODEL_CHAT
    chat.model = web.model;
#endif
    web.token = -1;
    web.count = web.done = 0;
    return web.model ? 0 : -1;
}

/* Where the next text, or 4-byte token ids, are to be written; null when they are too many. */
BNC_EXPORT(input) char *bnc_web_input(size_t bytes)
{
    return bytes <= web.capacity ? web.input : 0;
}

/* Feeds n tokens. Returns 0, or -1 without room. */
static int feed(const int32_t *ids, int n)
{
    web.token = -1;
#ifdef BNC_MODEL_CHAT
    return bnc_chat_feed(&chat, ids, n);
#else
    return bnc_model_eval_all(web.model, ids, n, 0) == 0 ? 0 : -1;
#endif
}

/* Makes the session hold its first `keep` tokens. */
static void rewind(int keep)
{
    web.token = -1;
#ifdef BNC_MODEL_CHAT
    bnc_chat_rewind(&chat, keep);
#else
    bnc_model_rewind(web.model, keep);
#endif
}

/* Forgets all tokens and the conversation. */
BNC_EXPORT(reset) void bnc_web_reset(void)
{
    rewind(0);
    web.count = web.done = 0;
#ifdef BNC_MODEL_CHAT
    bnc_chat_release(&chat, (struct bnc_chat_mark){ 0, 0 });
    answering = follows = 0;
#endif
}

BNC_EXPORT(seed) void bnc_web_seed(uint32_t seed)
{
    web.seed = seed;
}

/* Begins a new text with the input. Returns how many tokens it has; negative: does not fit. */
BNC_EXPORT(prompt) int bnc_web_prompt(size_t bytes)
{
    bnc_web_reset();
    const ptrdiff_t count = bnc_model_tokenize(web.model, web.input, bytes, 1, web.ids,
                                               (size_t)web.context, web.scratch, web.scratch_bytes);
    web.count = count > 0 ? (int)count : 0;
    return (int)count;
}

#ifdef BNC_MODEL_CHAT

/* Begins a new conversation; the input is its system message, if any. Returns 0, or -1 when the
 * template has no place for one or it does not fit. */
BNC_EXPORT(converse) int bnc_web_converse(size_t bytes)
{
    bnc_chat_release(&chat, (struct bnc_chat_mark){ 0, 0 });
    answering = follows = 0;
    if (bytes > 0 && !chat_template.takes_system)
        return -1;
    return bnc_chat_begin(&chat, &chat_template, bytes > 0 ? web.input : 0, bytes);
}

/* The input is the next message. Returns how many tokens there are to read, which are fewer than
 * the conversation has when the session holds its beginning; -1: does not fit. */
BNC_EXPORT(ask) int bnc_web_ask(size_t bytes)
{
    before = bnc_chat_mark(&chat);
    int count = -1;
    if (!answering && (!follows || bnc_chat_add(&chat, chat_template.assistant_user) == 0))
        count = bnc_chat_ask(&chat, &chat_template, web.input, bytes);
    if (count < 0) {
        bnc_chat_release(&chat, before);
        return -1;
    }
    answering = 1;
    answer = chat.bytes;
    const int held = bnc_chat_held(&chat, count);
    rewind(held < count ? held : count - 1);
    web.count = count;
    web.done = chat.fed_count;
    return web.count - web.done;
}

#endif

/* Reads at most `most` tokens of what prompt() or ask() began. Returns how many are left; -1 when
 * there is nothing to read. */
BNC_EXPORT(read) int bnc_web_read(int most)
{
    const int left = web.count - web.done;
    const int batch = most < BNC_MODEL_BATCH ? most : BNC_MODEL_BATCH;
    const int n = left < batch ? left : batch;
    if (n < 1 || feed(web.ids + web.done, n) != 0)
        return -1;
    web.done += n;
    return left - n;
}

/* Whether the text ends with this token. */
static int ends(int32_t token)
{
#ifdef BNC_MODEL_CHAT
    if (answering && bnc_chat_has_token(chat_template.assistant_user, token))
        return 1;
#endif
    return bnc_model_is_eos(token);
}

/* Chooses the next token. Returns how many bytes of text it is, which are at piece(); a negative
 * number at the end. The token is fed by the next call, so that text can be continued. */
BNC_EXPORT(next) int bnc_web_next(float temperature, int top_k, float top_p)
{
    if (web.token >= 0) {
        const int32_t token = web.token;
        if (feed(&token, 1) != 0) {
            web.token = token;
            return CONTEXT_FULL;
        }
    }
    const int32_t token = bnc_model_sample(web.model, temperature, top_k, top_p, &web.seed);
    if (token < 0)
        return NOT_POSSIBLE; /* nothing was read, or an argument is out of range */
    if (ends(token))
        return END_OF_TEXT;
    web.piece = bnc_model_piece(web.model, token, &web.size);
#ifdef BNC_MODEL_CHAT
    if (answering && bnc_chat_put(&chat, web.piece, web.size) != 0)
        return CONTEXT_FULL;
#endif
    web.token = token;
    return (int)web.size;
}

/* Takes the token that next() chose back: it is no part of the text. */
BNC_EXPORT(drop) void bnc_web_drop(void)
{
#ifdef BNC_MODEL_CHAT
    if (web.token >= 0 && answering)
        chat.bytes -= web.size;
#endif
    web.token = -1;
}

BNC_EXPORT(piece) const uint8_t *bnc_web_piece(void)
{
    return web.piece;
}

/* Ends an answer, which the next message follows; one that was not begun, because the message was
 * not read to its end, is forgotten with the message. */
BNC_EXPORT(finish) void bnc_web_finish(void)
{
    web.token = -1;
#ifdef BNC_MODEL_CHAT
    if (answering && web.done < web.count) {
        bnc_chat_release(&chat, before);
    } else if (answering) {
        bnc_chat_strip(&chat, answer, chat_template.strip_assistant);
        follows = 1;
    }
    answering = 0;
#endif
}

/* Feeds the n token ids in the input. Returns the logits of the last one, valid until the next
 * call; null when there is no room or an id is out of range. */
BNC_EXPORT(evaluate) const float *bnc_web_evaluate(int n)
{
    return n > 0 && (size_t)n <= web.capacity / sizeof(int32_t) &&
                   feed((const int32_t *)(const void *)web.input, n) == 0
               ? bnc_model_logits(web.model)
               : 0;
}

/* SHA-256 of bytes in memory that come in pieces; the end is where the 32 bytes are. */
BNC_EXPORT(hash_begin) void bnc_web_hash_begin(void)
{
    bnc_sha256_begin(&web.hash);
}

BNC_EXPORT(hash) void bnc_web_hash(const uint8_t *data, size_t bytes)
{
    bnc_sha256_add(&web.hash, data, bytes);
}

BNC_EXPORT(hash_end) const uint8_t *bnc_web_hash_end(void)
{
    bnc_sha256_end(&web.hash, web.digest);
    return web.digest;
}
