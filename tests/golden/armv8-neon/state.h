/* tiny: the session, its shape, and where its buffers lie in the arena.
 *
 * Written by bitnetc 0.1.0; the choices made are in plan.json. To change this file, change
 * templates/state.h.jinja or targets/armv8-neon.toml and compile the model again.
 */
#ifndef TINY_STATE_H
#define TINY_STATE_H

#include "tiny.h"
#include "weights.h"

#define BNC_CACHE_Q8 0 /* int8 codes in the cache; else float16 */
#define BNC_ACTIVATION_LEVELS 255 /* codes of an activation */
#define BNC_MAX_HEAD_DIM 16 /* of this model: what attention's stack is for */
#include "bnc_runtime.h"

#if BNC_RUNTIME_ABI != 1
#error "emitted for runtime ABI 1: compile the model again"
#endif

enum {
    DIM = 64,          /* width of the residual stream */
    FFN_DIM = 96,      /* width between gate/up and down */
    HEADS = 4,         /* query heads */
    KV_HEADS = 1,      /* key/value heads, each shared by 4 */
    HEAD_DIM = 16,     /* width of one head */
    CACHE_ROW = 16,    /* 16-bit words of a head in the cache */
    Q_DIM = 64,        /* HEADS * HEAD_DIM */
    KV_DIM = 16,       /* KV_HEADS * HEAD_DIM */
    VOCAB = 320,       /* rows of the embedding */
    BATCH = 64,        /* most tokens in one step */
    ATTEND_TOKENS = 8, /* those that attend together */
    STRIDE = 96,       /* columns between two quantised tokens */
};

/* Where buffers lie in the arena, in bytes. Those that are never alive together overlap. */
enum {
    AT_ACT_LUT = 12288,    /* look-up tables */
    AT_ODDS = 12288,       /* the sampler's weights */
    AT_ORDER = 13568,      /* the sampler's order */
    AT_TEXT = 14848,       /* text of the token that is delivered */
    AT_H = 86016,          /* gate * up */
    AT_NORMED = 86016,     /* the head's input */
    AT_Q = 86016,          /* queries, then attention */
    AT_K = 102400,         /* keys of these tokens */
    AT_V = 106496,         /* values of these tokens */
    AT_X = 110592,         /* residual stream */
    AT_ACT_Q = 126976,     /* quantised activations */
    AT_LOGITS = 133120,    /* logits of the last token */
    AT_ACT_SCALE = 134400, /* their scales */
    AT_ACT_SUM = 134656,   /* their sums */
    AT_THREADS = 134912    /* scratch of each thread, what they share, the cache */
};

struct tiny {
    struct bnc_pool pool;
    struct bnc_tokenizer tokenizer;
    struct bnc_acts acts;
    const uint8_t *weights; /* the content of weights.bin */
    float *x, *q, *k, *v, *h, *normed, *logits;
    uint16_t *cache; /* [LAYERS][keys, values][KV_HEADS][context][CACHE_ROW] */
    uint8_t *threads;
    size_t thread_bytes;
    float *shared; /* by the threads, where there is more than one: attention of a token */
    int context; /* positions there is room for */
    int length;  /* positions filled */
    int ready;   /* whether the last step ended with the last position, */
    int late;    /* and whether only the head is left to compute for its logits */

    /* The generation in progress. */
    int32_t pending;                   /* delivered, and not yet computed; -1 for none */
    uint8_t held[3];                   /* bytes that begin a character, */
    uint8_t held_bytes;                /* and how many */

    /* The step in progress. */
    const int32_t *tokens;
    int n;
    int heads;         /* of how many of them logits are computed, the last ones */
    float *all_logits; /* [n][VOCAB], or null: the last token's go to logits */
};

_Static_assert(sizeof(struct tiny) <= 12288, "state");

/* m->n tokens of m->tokens through the model, as one thread sees it; m is the session. */
BNC_API bnc_job tiny_step;

#endif
