/* SPDX-License-Identifier: MIT */
/* See bnc_tokenizer.h for the use and bitnetc/tokenizer/tables.py for the blob. */
#include "bnc_tokenizer.h"

#include <string.h>

#include "bnc_unicode.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tables are little-endian"
#endif

/* Whether a blob may ask for NFC: 0 leaves out 40 KB of tables and code. */
#ifndef BNC_TOKENIZER_NFC
#define BNC_TOKENIZER_NFC 1
#endif

#define BNC_TOK_MAGIC     UINT32_C(0x544b4e42)
#define BNC_TOK_FACTOR    UINT64_C(0x9e3779b97f4a7c15)
#define BNC_TOK_EMPTY     UINT64_MAX
#define BNC_TOK_NONE      UINT32_MAX
#define BNC_TOK_NO_RANK   UINT32_C(0xffffff)
#define BNC_TOK_NOT_FIRST UINT32_C(0x80000000) /* see bnc_merge_long */

enum {
    BNC_TOK_VERSION = 3,
    BNC_TOK_SHORT = 64, /* bytes of a word that is merged on the stack */
    BNC_TOK_FAN = 16,   /* children of a node in the tree of bnc_merge_long */
    BNC_TOK_LEVELS = 9, /* 16**8 ranks: above BNC_ENCODE_MAX_BYTES * 3 */

    /* header: normalizer, space_prefix; steps: kind; as in tables.py */
    BNC_TOK_NFC = 1,
    BNC_TOK_SPACES = 2,
    BNC_TOK_PREFIX_FIRST = 1, /* at the start of the text, unless it begins with a space */
    BNC_TOK_PREFIX_EACH = 2,  /* at the start of each stretch, unless it begins with a space */
    BNC_TOK_PREFIX_ALWAYS = 3,
    BNC_TOK_RUNS = 0,
    BNC_TOK_LLAMA3 = 1,
    BNC_TOK_GPT2 = 2
};

struct bnc_tok_header {
    uint32_t magic, version, bytes, vocab, word_shift, merge_shift, max_word_bytes;
    uint32_t added[2], prefix, suffix;
    uint32_t characters, normalizer, after_added, space_prefix, strip, step_count;
    uint32_t piece_starts, piece_bytes, special, byte_ids, words, merges, merge_results;
    uint32_t added_ids, added_starts, added_bytes, added_parents, added_first, around;
    uint32_t joins, steps, sets;
};

/* Cuts each word of the step before it, the first one the text. A pattern's matches are the words.
 * Of runs, the spans are the matches, `least` to `most` characters of a set, and what is between
 * them; words are made of these.
 */
struct bnc_tok_step {
    uint32_t kind;
    uint32_t least, most;     /* most: of Llama-3's pattern, digits in a word */
    uint32_t joins;           /* bit 2 * a + b: a span of kind b joins one of kind a; 1: a match */
    uint32_t drops;           /* bit a: spans of kind a belong to no word */
    uint32_t bytes;           /* 1: bytes are the characters */
    uint32_t set, set_bounds; /* sets[set] and so many: where, ascending, the set begins and ends */
};

/* Memory to work in, and the end of the text that may be read ahead. */
struct bnc_room {
    uint8_t *at;
    size_t bytes;
    const uint8_t *limit;
};

/* One call of bnc_encode. */
struct bnc_encoder {
    const struct bnc_tokenizer *t;
    const uint8_t *text; /* where the whole text starts */
    int plain;           /* control tokens are not recognised */
    int32_t *ids;
    size_t capacity, count; /* ids beyond capacity are counted, not stored */
    struct bnc_room room;
    int error;
};

BNC_API int bnc_tokenizer_init(struct bnc_tokenizer *t, const void *blob, size_t bytes)
{
    struct bnc_tok_header h;
    if ((uintptr_t)blob % 8 != 0)
        return BNC_TOKENIZER_MISALIGNED;
    if (bytes < sizeof h)
        return BNC_TOKENIZER_NOT_A_BLOB;
    memcpy(&h, blob, sizeof h);
    if (h.magic != BNC_TOK_MAGIC || h.bytes > bytes)
        return BNC_TOKENIZER_NOT_A_BLOB;
    if (h.version != BNC_TOK_VERSION)
        return BNC_TOKENIZER_BAD_VERSION;
    const uint8_t *base = blob;
    t->vocab = h.vocab;
    t->word_shift = h.word_shift;
    t->merge_shift = h.merge_shift;
    t->max_word_bytes = h.max_word_bytes;
    t->characters = h.characters;
    t->normalizer = h.normalizer;
    t->after_added = h.after_added;
    t->space_prefix = h.space_prefix;
    t->strip = h.strip;
    t->step_count = h.step_count;
    t->added[0] = h.added[0];
    t->added[1] = h.added[1];
    t->prefix = h.prefix;
    t->suffix = h.suffix;
    t->piece_starts = (const void *)(base + h.piece_starts);
    t->piece_bytes = base + h.piece_bytes;
    t->special = base + h.special;
    t->byte_ids = (const void *)(base + h.byte_ids);
    t->words = (const void *)(base + h.words);
    t->merges = (const void *)(base + h.merges);
    t->merge_results = (const void *)(base + h.merge_results);
    t->added_ids = (const void *)(base + h.added_ids);
    t->added_starts = (const void *)(base + h.added_starts);
    t->added_bytes = base + h.added_bytes;
    t->added_parents = (const void *)(base + h.added_parents);
    t->added_first = base + h.added_first;
    t->around = (const void *)(base + h.around);
    t->joins = base + h.joins;
    t->steps = (const void *)(base + h.steps);
    t->sets = (const void *)(base + h.sets);
    return 0;
}

/* ---- tables ---- */

static size_t bnc_piece_size(const struct bnc_tokenizer *t, uint32_t id)
{
    return t->piece_starts[id + 1] - t->piece_starts[id];
}

BNC_API const uint8_t *bnc_piece(const struct bnc_tokenizer *t, int32_t id, size_t *bytes)
{
    if (id < 0 || (uint32_t)id >= t->vocab) {
        *bytes = 0;
        return t->piece_bytes;
    }
    *bytes = bnc_piece_size(t, (uint32_t)id);
    return t->piece_bytes + t->piece_starts[id];
}

BNC_API int bnc_is_special(const struct bnc_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab && (t->special[id / 8] >> id % 8 & 1);
}

BNC_API size_t bnc_stripped_spaces(const struct bnc_tokenizer *t)
{
    return t->strip;
}

/* The 1 to 8 bytes at p as a little-endian number; none at or after limit is read. */
static uint64_t bnc_load_bytes(const uint8_t *p, size_t size, const uint8_t *limit)
{
    uint64_t value = 0;
    if (limit - p >= 8) {
        memcpy(&value, p, 8);
        return size < 8 ? value & ((UINT64_C(1) << 8 * size) - 1) : value;
    }
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

/* The piece that the word p[0 .. size - 1] encodes to by itself, or BNC_TOK_NONE.
 * The blob has 8 bytes after the last piece, so that reading ahead stays inside.
 */
static uint32_t bnc_find_word(const struct bnc_tokenizer *t, const uint8_t *p, size_t size,
                              const uint8_t *limit)
{
    uint64_t hash = size * BNC_TOK_FACTOR;
    for (size_t i = 0; i < size; i += 8) {
        hash = (hash ^ bnc_load_bytes(p + i, size - i < 8 ? size - i : 8, limit)) * BNC_TOK_FACTOR;
        hash ^= hash >> 32;
    }
    hash *= BNC_TOK_FACTOR;
    const uint64_t *slot = t->words + (hash >> t->word_shift);
    for (; *slot != BNC_TOK_EMPTY; slot++) {
        const uint32_t id = (uint32_t)*slot;
        if (*slot >> 32 == (uint32_t)hash && bnc_piece_size(t, id) == size &&
            memcmp(t->piece_bytes + t->piece_starts[id], p, size) == 0) {
            return id;
        }
    }
    return BNC_TOK_NONE;
}

/* The rank of a merge of two neighbours, or BNC_TOK_NO_RANK. */
static uint32_t bnc_find_merge(const struct bnc_tokenizer *t, uint32_t left, uint32_t right)
{
    const uint64_t pair = (uint64_t)left << 20 | right;
    const uint64_t *slot = t->merges + (pair * BNC_TOK_FACTOR >> t->merge_shift);
    while (*slot >> 24 != pair && *slot != BNC_TOK_EMPTY)
        slot++;
    return (uint32_t)*slot & BNC_TOK_NO_RANK;
}

/* ---- words to ids ---- */

static void bnc_put_id(struct bnc_encoder *e, uint32_t id)
{
    if (e->count < e->capacity)
        e->ids[e->count] = (int32_t)id;
    e->count++;
}

/* The id that a character has before any merge, and its *size; where it has no piece, that of its
 * first byte.
 */
static uint32_t bnc_symbol(const struct bnc_encoder *e, const uint8_t *p, size_t *size)
{
    *size = 1;
    if (p[0] >= 0xc2 && p[0] <= 0xf4) {
        const size_t whole = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
        const uint32_t id = bnc_find_word(e->t, p, whole, e->room.limit);
        if (id != BNC_TOK_NONE) {
            *size = whole;
            return id;
        }
    }
    return e->t->byte_ids[p[0]];
}

/* Merges a word of 1 to BNC_TOK_SHORT bytes: rank[i] belongs to the pair id[i], id[i + 1]. */
static void bnc_merge_short(struct bnc_encoder *e, const uint8_t *p, size_t bytes)
{
    const struct bnc_tokenizer *t = e->t;
    uint32_t id[BNC_TOK_SHORT], rank[BNC_TOK_SHORT];
    size_t n = 0;
    if (t->characters) {
        for (size_t at = 0, size; at < bytes; at += size)
            id[n++] = bnc_symbol(e, p + at, &size);
    } else {
        for (; n < bytes; n++)
            id[n] = t->byte_ids[p[n]];
    }
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = bnc_find_merge(t, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == BNC_TOK_NO_RANK)
            break;
        const uint32_t joined = t->merge_results[rank[best]];
        if (joined != BNC_TOK_NONE) {
            id[best] = joined;
        } else { /* merges with different results have this rank: it is the piece of the bytes */
            size_t at = 0;
            for (size_t i = 0; i < best; i++)
                at += bnc_piece_size(t, id[i]);
            const size_t size = bnc_piece_size(t, id[best]) + bnc_piece_size(t, id[best + 1]);
            id[best] = bnc_find_word(t, p + at, size, e->room.limit);
        }
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
        }
        if (best + 1 < n)
            rank[best] = bnc_find_merge(t, id[best], id[best + 1]);
        if (best > 0)
            rank[best - 1] = bnc_find_merge(t, id[best - 1], id[best]);
    }
    for (size_t i = 0; i < n; i++)
        bnc_put_id(e, id[i]);
}

/* The least of rank[0 .. size - 1], size > 0. */
static uint32_t bnc_least_rank(const uint32_t *rank, size_t size)
{
    uint32_t least = rank[0];
    for (size_t i = 1; i < size; i++)
        least = rank[i] < least ? rank[i] : least;
    return least;
}

/* Minima of ranks: a node of one level holds the least of BNC_TOK_FAN neighbours on the level
 * before it. level[0] is the ranks, the last level one node.
 */
struct bnc_rank_tree {
    uint32_t *level[BNC_TOK_LEVELS];
    size_t size[BNC_TOK_LEVELS];
    int levels;
};

/* What node `at` of a level other than the first must hold. */
static uint32_t bnc_rank_node(const struct bnc_rank_tree *tree, int level, size_t at)
{
    const size_t left = tree->size[level - 1] - at * BNC_TOK_FAN;
    return bnc_least_rank(tree->level[level - 1] + at * BNC_TOK_FAN,
                          left < BNC_TOK_FAN ? left : BNC_TOK_FAN);
}

static void bnc_set_rank(struct bnc_rank_tree *tree, size_t at, uint32_t rank)
{
    tree->level[0][at] = rank;
    for (int level = 1; level < tree->levels; level++) {
        at /= BNC_TOK_FAN;
        const uint32_t least = bnc_rank_node(tree, level, at);
        if (tree->level[level][at] == least)
            break;
        tree->level[level][at] = least;
    }
}

/* The leftmost place of the least rank. */
static size_t bnc_find_least(const struct bnc_rank_tree *tree)
{
    const uint32_t least = tree->level[tree->levels - 1][0];
    size_t at = 0;
    for (int level = tree->levels - 2; level >= 0; level--) {
        at *= BNC_TOK_FAN;
        while (tree->level[level][at] != least)
            at++;
    }
    return at;
}

/* 32-bit values that bnc_merge_long needs for a word of n bytes: ids, ranks, and the tree above
 * them: n/16 + n/256 + ..., each rounded up.
 */
static size_t bnc_merge_values(size_t n)
{
    return n + n + n / (BNC_TOK_FAN - 1) + BNC_TOK_LEVELS;
}

/* `count` aligned 32-bit values at the start of the room, or null. */
static uint32_t *bnc_words_in(const struct bnc_room *room, size_t count)
{
    const size_t slack = (4 - (uintptr_t)room->at % 4) % 4;
    if (room->bytes < slack || (room->bytes - slack) / 4 < count)
        return 0;
    return (void *)(room->at + slack);
}

/* Merges a word of n > 1 bytes in O(n log n).
 *
 * id[i] is the token that starts at byte i. Where a token of several bytes ends, id holds
 * BNC_TOK_NOT_FIRST plus the place where it starts, so that both neighbours of a token are found
 * at once: the next one by its size, the one before by what stands before it. The ids of other
 * bytes mean nothing.
 */
static void bnc_merge_long(struct bnc_encoder *e, const uint8_t *p, size_t n)
{
    const struct bnc_tokenizer *t = e->t;
    uint32_t *id = bnc_words_in(&e->room, bnc_merge_values(n));
    if (!id) {
        e->error = BNC_ENCODE_NO_SCRATCH;
        return;
    }
    struct bnc_rank_tree tree = { .level = { id + n }, .size = { n }, .levels = 1 };
    size_t last_at = 0;
    for (size_t at = 0, size; at < n; at += size) {
        uint32_t symbol = t->byte_ids[p[at]];
        size = 1;
        if (t->characters)
            symbol = bnc_symbol(e, p + at, &size);
        for (size_t i = at; i < at + size; i++)
            tree.level[0][i] = BNC_TOK_NO_RANK;
        id[at + size - 1] = BNC_TOK_NOT_FIRST | (uint32_t)at;
        id[at] = symbol;
        if (at > 0)
            tree.level[0][last_at] = bnc_find_merge(t, id[last_at], symbol);
        last_at = at;
    }
    while (tree.size[tree.levels - 1] > 1) {
        const int level = tree.levels++;
        tree.level[level] = tree.level[level - 1] + tree.size[level - 1];
        tree.size[level] = (tree.size[level - 1] + BNC_TOK_FAN - 1) / BNC_TOK_FAN;
        for (size_t i = 0; i < tree.size[level]; i++)
            tree.level[level][i] = bnc_rank_node(&tree, level, i);
    }

    for (;;) {
        const size_t at = bnc_find_least(&tree);
        const uint32_t rank = tree.level[0][at];
        if (rank == BNC_TOK_NO_RANK)
            break;
        const size_t right = at + bnc_piece_size(t, id[at]);
        const size_t end = right + bnc_piece_size(t, id[right]);
        uint32_t joined = t->merge_results[rank];
        if (joined == BNC_TOK_NONE)
            joined = bnc_find_word(t, p + at, end - at, e->room.limit);
        bnc_set_rank(&tree, right, BNC_TOK_NO_RANK);
        id[at] = joined;
        id[end - 1] = BNC_TOK_NOT_FIRST | (uint32_t)at;
        bnc_set_rank(&tree, at, end < n ? bnc_find_merge(t, joined, id[end]) : BNC_TOK_NO_RANK);
        if (at > 0) {
            const uint32_t last = id[at - 1];
            const size_t before = last & BNC_TOK_NOT_FIRST ? last ^ BNC_TOK_NOT_FIRST : at - 1;
            bnc_set_rank(&tree, before, bnc_find_merge(t, id[before], joined));
        }
    }
    for (size_t at = 0; at < n; at += bnc_piece_size(t, id[at]))
        bnc_put_id(e, id[at]);
}

static void bnc_encode_word(struct bnc_encoder *e, const uint8_t *p, size_t size)
{
    if (size <= e->t->max_word_bytes) {
        const uint32_t id = bnc_find_word(e->t, p, size, e->room.limit);
        if (id != BNC_TOK_NONE) {
            bnc_put_id(e, id);
            return;
        }
    }
    if (size <= BNC_TOK_SHORT)
        bnc_merge_short(e, p, size);
    else
        bnc_merge_long(e, p, size);
}

/* ---- text to words ---- */

/* The code point and *size of the UTF-8 character at p. */
static uint32_t bnc_code_point(const uint8_t *p, size_t *size)
{
    if (p[0] < 0x80) {
        *size = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *size = 2;
        return (p[0] & 0x1fU) << 6 | (p[1] & 0x3fU);
    }
    if (p[0] < 0xf0) {
        *size = 3;
        return (p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU);
    }
    *size = 4;
    return (p[0] & 0x07U) << 18 | (p[1] & 0x3fU) << 12 | (p[2] & 0x3fU) << 6 | (p[3] & 0x3fU);
}

/* The class and *size of the UTF-8 character at p. */
static int bnc_class_at(const uint8_t *p, size_t *size)
{
    if (p[0] < 0x80) {
        *size = 1;
        return bnc_ascii_classes[p[0]];
    }
    return bnc_unicode_class(bnc_code_point(p, size));
}

/* The end of the run of characters of one class that starts at p. */
static const uint8_t *bnc_skip_class(const uint8_t *p, const uint8_t *end, int class)
{
    size_t size;
    while (p < end && bnc_class_at(p, &size) == class)
        p += size;
    return p;
}

static int bnc_is_newline(uint8_t byte)
{
    return byte == '\r' || byte == '\n';
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) at the apostrophe p: its end, or p. Outside ASCII, case folding
 * adds the long s U+017F and nothing else (unicode_tables.py checks it).
 */
static const uint8_t *bnc_match_contraction(const uint8_t *p, const uint8_t *end)
{
    const int first = end - p > 1 ? p[1] | 0x20 : 0;
    const int second = end - p > 2 ? p[2] | 0x20 : 0;
    switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
        return p + 2;
    case 'r':
    case 'v':
        return second == 'e' ? p + 3 : p;
    case 'l':
        return second == 'l' ? p + 3 : p;
    default:
        return end - p > 2 && p[1] == 0xc5 && p[2] == 0xbf ? p + 3 : p;
    }
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at p: through the last newline of the run of spaces, else up to the last
 * space, which then goes with what follows, else all of it.
 */
static const uint8_t *bnc_match_spaces(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *at = p;
    const uint8_t *last = p;
    const uint8_t *newline_end = p;
    size_t size;
    while (at < end && bnc_class_at(at, &size) == BNC_SPACE) {
        last = at;
        at += size;
        if (bnc_is_newline(*last))
            newline_end = at;
    }
    if (newline_end > p)
        return newline_end;
    return at < end && last > p ? last : at;
}

/* The end of the word that starts at p < end, by the pattern in bitnetc/tokenizer/__init__.py. */
static const uint8_t *bnc_match_llama3(const uint8_t *p, const uint8_t *end, uint32_t max_digits)
{
    if (*p == '\'') {
        const uint8_t *at = bnc_match_contraction(p, end);
        if (at > p)
            return at;
    }
    size_t size;
    const int class = bnc_class_at(p, &size);
    const uint8_t *at = p + size;
    if (class == BNC_LETTER)
        return bnc_skip_class(at, end, BNC_LETTER);
    if (class == BNC_NUMBER) {
        for (uint32_t i = 1; i < max_digits && at < end; i++) {
            if (bnc_class_at(at, &size) != BNC_NUMBER)
                break;
            at += size;
        }
        return at;
    }
    const int next = at < end ? bnc_class_at(at, &size) : BNC_SPACE;
    if (next == BNC_LETTER && !bnc_is_newline(*p))
        return bnc_skip_class(at, end, BNC_LETTER);
    if (class == BNC_OTHER || (*p == ' ' && next == BNC_OTHER)) {
        at = bnc_skip_class(at, end, BNC_OTHER);
        while (at < end && bnc_is_newline(*at))
            at++;
        return at;
    }
    return bnc_match_spaces(p, end);
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ at p < end. */
static const uint8_t *bnc_match_gpt2(const uint8_t *p, const uint8_t *end)
{
    size_t size;
    if (*p == '\'' && end - p > 1) {
        const int second = end - p > 2 ? p[2] : 0;
        switch (p[1]) {
        case 's':
        case 't':
        case 'm':
        case 'd':
            return p + 2;
        case 'r':
        case 'v':
            if (second == 'e')
                return p + 3;
            break;
        case 'l':
            if (second == 'l')
                return p + 3;
            break;
        default:
            break;
        }
    }
    const uint8_t *at = *p == ' ' && end - p > 1 ? p + 1 : p;
    const int class = bnc_class_at(at, &size);
    if (class != BNC_SPACE)
        return bnc_skip_class(at + size, end, class);
    const uint8_t *last = p;
    for (at = p; at < end && bnc_class_at(at, &size) == BNC_SPACE; at += size)
        last = at;
    return at < end && last > p ? last : at;
}

/* The end of the stretch from p < end in which any two characters stand side by side in some
 * piece. No merge reaches across its ends, so that it can be merged by itself. A bit of `joins` is
 * 1 where a byte may follow another; bytes inside a character always may.
 */
static const uint8_t *bnc_match_joined(const uint8_t *joins, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *at = p + 1;
    while (at < end && (joins[at[-1] << 5 | at[0] >> 3] >> (at[0] & 7) & 1))
        at++;
    return at;
}

/* Whether the character at p, of *size bytes, is in the set of a step. */
static int bnc_in_set(const struct bnc_tokenizer *t, const struct bnc_tok_step *s, const uint8_t *p,
                      size_t *size)
{
    const uint32_t *bounds = t->sets + s->set;
    uint32_t c = *p, low = 0, high = s->set_bounds;
    *size = 1;
    if (!s->bytes)
        c = bnc_code_point(p, size);
    while (low < high) { /* low: how many bounds are not above c */
        const uint32_t middle = low + (high - low) / 2;
        if (bounds[middle] <= c)
            low = middle + 1;
        else
            high = middle;
    }
    return (int)(low & 1);
}

/* The end of a match of runs at p, or p; *stop is the end of the members of the set at p. */
static const uint8_t *bnc_match_run(const struct bnc_tokenizer *t, const struct bnc_tok_step *s,
                                    const uint8_t *p, const uint8_t *end, const uint8_t **stop)
{
    const uint8_t *at = p;
    uint32_t count = 0;
    size_t size;
    for (; at < end && count < s->most && bnc_in_set(t, s, at, &size); at += size)
        count++;
    *stop = at;
    return count >= s->least ? at : p;
}

/* The end of the span at p < end: a match of runs, or what is before the next one. Each character
 * is looked at three times at most, since members that are too few to match are passed at once. */
static const uint8_t *bnc_match_span(const struct bnc_tokenizer *t, const struct bnc_tok_step *s,
                                     const uint8_t *p, const uint8_t *end, int *match)
{
    const uint8_t *stop;
    const uint8_t *at = bnc_match_run(t, s, p, end, &stop);
    *match = at > p;
    if (*match)
        return at;
    do {
        size_t size = 0;
        if (stop == at)
            (void)bnc_in_set(t, s, at, &size);
        at = stop + size;
    } while (at < end && bnc_match_run(t, s, at, end, &stop) == at);
    return at;
}

/* Cuts p .. end - 1 by the steps from `step` on, and encodes the words. The steps are few, at most
 * MAX_STEPS of form.py. */
static void bnc_encode_words(struct bnc_encoder *e, uint32_t step, const uint8_t *p,
                             const uint8_t *end)
{
    const struct bnc_tokenizer *t = e->t;
    const struct bnc_tok_step *s = t->steps + step;
    const int last = step + 1 == t->step_count && !t->characters;
    const uint8_t *word = p;
    int before = 0;
    if (step == t->step_count && !t->characters) {
        bnc_encode_word(e, p, (size_t)(end - p));
        return;
    }
    while (p < end && e->count <= e->capacity && e->error == 0) {
        const uint8_t *at;
        if (step == t->step_count) {
            at = bnc_match_joined(t->joins, p, end);
            bnc_encode_word(e, p, (size_t)(at - p));
            word = at;
        } else if (s->kind == BNC_TOK_RUNS) {
            int match;
            at = bnc_match_span(t, s, p, end, &match);
            if (p > word && !(s->joins >> (2 * before + match) & 1)) {
                bnc_encode_words(e, step + 1, word, p);
                word = p;
            }
            word = s->drops >> match & 1 ? at : word;
            before = match;
        } else {
            at = s->kind == BNC_TOK_LLAMA3 ? bnc_match_llama3(p, end, s->most)
                                           : bnc_match_gpt2(p, end);
            if (last)
                bnc_encode_word(e, p, (size_t)(at - p));
            else
                bnc_encode_words(e, step + 1, p, at);
            word = at;
        }
        p = at;
    }
    if (p > word)
        bnc_encode_words(e, step + 1, word, p);
}

/* ---- added tokens ---- */

/* What the added token number i looks for. */
static const uint8_t *bnc_added_content(const struct bnc_tokenizer *t, uint32_t i, size_t *size)
{
    *size = t->added_starts[i + 1] - t->added_starts[i];
    return t->added_bytes + t->added_starts[i];
}

/* The number of the longest added token of a kind that begins the text at p, or BNC_TOK_NONE.
 *
 * Contents are sorted. Any that begins the text is not above it, so the greatest content that is
 * not above the text has it as beginning, or is it: the parents lead there, longest first.
 */
static uint32_t bnc_match_added(const struct bnc_encoder *e, int kind, const uint8_t *p,
                                const uint8_t *end)
{
    const struct bnc_tokenizer *t = e->t;
    const uint32_t base = kind == 0 ? 0 : t->added[0];
    const size_t left = (size_t)(end - p);
    size_t size;
    uint32_t low = 0; /* all below are not above the text */
    uint32_t high = t->added[kind];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint8_t *content = bnc_added_content(t, base + middle, &size);
        const int order = memcmp(content, p, size < left ? size : left);
        if (order < 0 || (order == 0 && size <= left))
            low = middle + 1;
        else
            high = middle;
    }
    for (uint32_t i = low == 0 ? BNC_TOK_NONE : low - 1; i != BNC_TOK_NONE;
         i = t->added_parents[base + i]) {
        const uint8_t *content = bnc_added_content(t, base + i, &size);
        if (e->plain && bnc_is_special(t, (int32_t)t->added_ids[base + i]))
            continue;
        if (size <= left && memcmp(content, p, size) == 0)
            return base + i;
    }
    return BNC_TOK_NONE;
}

/* The first added token of a kind at or after p: its place and *number, or end. */
static const uint8_t *bnc_find_added(const struct bnc_encoder *e, int kind, const uint8_t *p,
                                     const uint8_t *end, uint32_t *number)
{
    const uint8_t *first = e->t->added_first + 256 * kind;
    if (e->t->added[kind] == 0)
        return end;
    for (; p < end; p++) {
        if (first[*p]) {
            *number = bnc_match_added(e, kind, p, end);
            if (*number != BNC_TOK_NONE)
                return p;
        }
    }
    return end;
}

/* Puts an added token found at p; returns where it ends. */
static const uint8_t *bnc_put_added(struct bnc_encoder *e, uint32_t number, const uint8_t *p)
{
    size_t size;
    bnc_added_content(e->t, number, &size);
    bnc_put_id(e, e->t->added_ids[number]);
    return p + size;
}

/* Text of so many bytes has been written at the start of the room: *p .. *end - 1 is that, and the
 * room is what follows it. */
static void bnc_take_room(struct bnc_encoder *e, size_t bytes, const uint8_t **p,
                          const uint8_t **end)
{
    *p = e->room.at;
    *end = *p + bytes;
    e->room.at += bytes;
    e->room.bytes -= bytes;
    e->room.limit = *end;
}

/* ---- NFC ----
 *
 * Most text is NFC already, which a look at each character's class shows. The rest falls into
 * stretches that do not touch each other; each is decomposed, its marks are sorted, and it is
 * composed again.
 */

static size_t bnc_put_utf8(uint8_t *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    const size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size - 1; i > 0; i--, c >>= 6)
        to[i] = (uint8_t)(0x80 | (c & 0x3f));
    to[0] = (uint8_t)((size == 2 ? 0xc0 : size == 3 ? 0xe0 : 0xf0) | c);
    return size;
}

enum {
    BNC_HANGUL_L = 0x1100,
    BNC_HANGUL_V = 0x1161,
    BNC_HANGUL_T = 0x11a7, /* one below the first */
    BNC_HANGUL_S = 0xac00,
    BNC_HANGUL_LS = 19,
    BNC_HANGUL_VS = 21,
    BNC_HANGUL_TS = 28,
    BNC_HANGUL_SS = 19 * 21 * 28,
    BNC_NFC_FEW = 16 /* marks that are sorted by insertion */
};

/* A code point with its combining order, above BNC_NFC_POINT. */
enum { BNC_NFC_SHIFT = 24 };
#define BNC_NFC_POINT UINT32_C(0xffffff)

/* The row of bnc_nfc_rows whose first entry is c, or -1. */
static int bnc_nfc_row(uint32_t c)
{
    int low = 0, high = BNC_NFC_ROWS;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (bnc_nfc_rows[middle][0] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < BNC_NFC_ROWS && bnc_nfc_rows[low][0] == c ? low : -1;
}

/* The character that a and b compose to, or 0. */
static uint32_t bnc_compose(uint32_t a, uint32_t b)
{
    if (a - BNC_HANGUL_L < BNC_HANGUL_LS && b - BNC_HANGUL_V < BNC_HANGUL_VS) {
        return BNC_HANGUL_S +
               ((a - BNC_HANGUL_L) * BNC_HANGUL_VS + b - BNC_HANGUL_V) * BNC_HANGUL_TS;
    }
    if (a - BNC_HANGUL_S < BNC_HANGUL_SS && (a - BNC_HANGUL_S) % BNC_HANGUL_TS == 0 &&
        b - BNC_HANGUL_T - 1 < BNC_HANGUL_TS - 1) {
        return a + b - BNC_HANGUL_T;
    }
    int low = 0, high = BNC_NFC_COMPOSING;
    while (low < high) {
        const int middle = (low + high) / 2;
        const uint32_t *row = bnc_nfc_rows[bnc_nfc_composing[middle]];
        if (row[1] < a || (row[1] == a && row[2] < b))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == BNC_NFC_COMPOSING)
        return 0;
    const uint32_t *row = bnc_nfc_rows[bnc_nfc_composing[low]];
    return row[1] == a && row[2] == b ? row[0] : 0;
}

/* Writes the canonical decomposition of c, at most 4 points, with their orders; returns how many.*/
static size_t bnc_decompose(uint32_t c, uint32_t *to)
{
    uint32_t last[4]; /* what follows c, the last first */
    size_t follow = 0, count = 0;
    if (c - BNC_HANGUL_S < BNC_HANGUL_SS) {
        const uint32_t s = c - BNC_HANGUL_S;
        if (s % BNC_HANGUL_TS != 0)
            last[follow++] = BNC_HANGUL_T + s % BNC_HANGUL_TS;
        last[follow++] = BNC_HANGUL_V + s / BNC_HANGUL_TS % BNC_HANGUL_VS;
        c = BNC_HANGUL_L + s / BNC_HANGUL_TS / BNC_HANGUL_VS;
    }
    for (int row; follow < 4 && (row = bnc_nfc_row(c)) >= 0; c = bnc_nfc_rows[row][1]) {
        if (bnc_nfc_rows[row][2] != 0)
            last[follow++] = bnc_nfc_rows[row][2];
    }
    to[count++] = c | (uint32_t)(bnc_nfc_class(c) & BNC_NFC_ORDER) << BNC_NFC_SHIFT;
    while (follow > 0) {
        c = last[--follow];
        to[count++] = c | (uint32_t)(bnc_nfc_class(c) & BNC_NFC_ORDER) << BNC_NFC_SHIFT;
    }
    return count;
}

/* Sorts marks by their order and keeps equal ones as they stand; `spare` has the size of marks. */
static void bnc_sort_marks(uint32_t *marks, size_t n, uint32_t *spare)
{
    if (n <= BNC_NFC_FEW) {
        for (size_t i = 1; i < n; i++) {
            const uint32_t mark = marks[i];
            size_t at = i;
            for (; at > 0 && marks[at - 1] >> BNC_NFC_SHIFT > mark >> BNC_NFC_SHIFT; at--)
                marks[at] = marks[at - 1];
            marks[at] = mark;
        }
        return;
    }
    size_t place[BNC_NFC_ORDER + 2] = { 0 };
    for (size_t i = 0; i < n; i++)
        place[(marks[i] >> BNC_NFC_SHIFT) + 1]++;
    for (size_t i = 1; i <= BNC_NFC_ORDER; i++)
        place[i] += place[i - 1];
    memcpy(spare, marks, n * sizeof *marks);
    for (size_t i = 0; i < n; i++)
        marks[place[spare[i] >> BNC_NFC_SHIFT]++] = spare[i];
}

/* Composes n decomposed points, sorted, in place; returns how many are left. */
static size_t bnc_compose_all(uint32_t *points, size_t n)
{
    size_t count = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const uint32_t order = points[i] >> BNC_NFC_SHIFT;
        /* A point reaches its starter past marks of lower order, none past an equal one. */
        if (starter != SIZE_MAX &&
            (count - 1 == starter || points[count - 1] >> BNC_NFC_SHIFT < order)) {
            const uint32_t c = bnc_compose(points[starter], points[i] & BNC_NFC_POINT);
            if (c != 0) {
                points[starter] = c;
                continue;
            }
        }
        if (order == 0)
            starter = count;
        points[count++] = points[i];
    }
    return count;
}

/* Writes the NFC of p .. end - 1, a stretch that nothing outside it takes part in, at the start of
 * the room; returns its size, or SIZE_MAX where the room does not suffice.
 */
static size_t bnc_normalize_stretch(const uint8_t *p, const uint8_t *end, struct bnc_room room)
{
    /* No character grows to more than three times its size (unicode_tables.py checks it). The
     * points lie behind that, up to three for two bytes of text; then as many to sort with. */
    const size_t bytes = (size_t)(end - p);
    const size_t most = bytes / 2 * 3 + 4;
    uint8_t *const to = room.at;
    if (room.bytes < 3 * bytes)
        return SIZE_MAX;
    room.at += 3 * bytes;
    room.bytes -= 3 * bytes;
    uint32_t *points = bnc_words_in(&room, 2 * most);
    if (!points)
        return SIZE_MAX;
    size_t n = 0, size;
    for (; p < end; p += size)
        n += bnc_decompose(bnc_code_point(p, &size), points + n);
    for (size_t i = 0; i < n;) {
        const size_t first = i++;
        if (points[first] >> BNC_NFC_SHIFT == 0)
            continue;
        while (i < n && points[i] >> BNC_NFC_SHIFT != 0)
            i++;
        bnc_sort_marks(points + first, i - first, points + most);
    }
    n = bnc_compose_all(points, n);
    uint8_t *at = to;
    for (size_t i = 0; i < n; i++)
        at += bnc_put_utf8(at, points[i] & BNC_NFC_POINT);
    return (size_t)(at - to);
}

/* The first stretch from p on that is perhaps not NFC: its start, and *stop where it ends; or end.
 * It reaches from one character that nothing before it touches to the next.
 */
static const uint8_t *bnc_find_unstable(const uint8_t *p, const uint8_t *end, const uint8_t **stop)
{
    const uint8_t *start = p;
    int order = 0;
    size_t size;
    for (; p < end; p += size) {
        if (*p < 0xcc) { /* nothing below U+0300 takes part */
            size = *p < 0x80 ? 1 : 2;
            start = p;
            order = 0;
            continue;
        }
        const int class = bnc_nfc_class(bnc_code_point(p, &size));
        if (class == 0)
            start = p;
        else if (class >= BNC_NFC_UNSTABLE || class < order)
            break;
        order = class;
    }
    if (p >= end)
        return end;
    while (p < end && *p >= 0xcc && bnc_nfc_class(bnc_code_point(p, &size)) != 0)
        p += size;
    *stop = p;
    return start;
}

/* *p .. *end - 1 becomes its NFC, in the room unless it is that already. */
static void bnc_prepare_nfc(struct bnc_encoder *e, const uint8_t **p, const uint8_t **end)
{
    const uint8_t *stop = *p;
    const uint8_t *from = *p;
    const uint8_t *at = bnc_find_unstable(from, *end, &stop);
    if (at == *end)
        return;
    struct bnc_room room = e->room;
    for (;;) {
        const size_t same = (size_t)(at - from);
        if (room.bytes < same)
            break;
        memcpy(room.at, from, same);
        room.at += same;
        room.bytes -= same;
        if (at == *end) {
            bnc_take_room(e, (size_t)(room.at - e->room.at), p, end);
            return;
        }
        const size_t changed = bnc_normalize_stretch(at, stop, room);
        if (changed == SIZE_MAX)
            break;
        room.at += changed;
        room.bytes -= changed;
        from = stop;
        at = bnc_find_unstable(from, *end, &stop);
    }
    e->error = BNC_ENCODE_NO_SCRATCH;
    *end = *p;
}

/* ---- spaces ---- */

/* The next U+2581 in valid text, or end. */
static const uint8_t *bnc_find_mark(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (p[0] != 0xe2 || p[1] != 0x96 || p[2] != 0x81))
        p++;
    return p;
}

/* A space in place of U+2581, which stands for one where characters merge, and a space before the
 * text where the tokenizer wants one: *p .. *end - 1 becomes that, in the room unless it is so
 * already.
 */
static void bnc_prepare_spaces(struct bnc_encoder *e, const uint8_t **p, const uint8_t **end)
{
    const struct bnc_tokenizer *t = e->t;
    const uint8_t *from = *p;
    const uint8_t *mark = t->characters ? bnc_find_mark(from, *end) : *end;
    const int spaced = *from == ' ' || (mark == from && mark < *end);
    const int prefix = t->space_prefix == BNC_TOK_PREFIX_ALWAYS ||
                       (t->space_prefix == BNC_TOK_PREFIX_EACH && !spaced) ||
                       (t->space_prefix == BNC_TOK_PREFIX_FIRST && !spaced && from == e->text);
    if (!prefix && mark == *end)
        return;
    if (e->room.bytes < (size_t)(*end - from) + 1) {
        e->error = BNC_ENCODE_NO_SCRATCH;
        *end = *p;
        return;
    }
    uint8_t *to = e->room.at;
    if (prefix)
        *to++ = ' ';
    for (;;) {
        memcpy(to, from, (size_t)(mark - from));
        to += mark - from;
        if (mark == *end)
            break;
        *to++ = ' ';
        from = mark + 3;
        mark = bnc_find_mark(from, *end);
    }
    bnc_take_room(e, (size_t)(to - e->room.at), p, end);
}

static void bnc_prepare(struct bnc_encoder *e, const uint8_t **p, const uint8_t **end)
{
    if (e->t->normalizer == BNC_TOK_SPACES)
        bnc_prepare_spaces(e, p, end);
    else if (BNC_TOKENIZER_NFC && e->t->normalizer == BNC_TOK_NFC)
        bnc_prepare_nfc(e, p, end);
}

/* Encodes text that holds no added token. */
static void bnc_encode_plain(struct bnc_encoder *e, const uint8_t *p, const uint8_t *end)
{
    if (p == end)
        return;
    const struct bnc_room room = e->room;
    if (e->t->after_added)
        bnc_prepare(e, &p, &end);
    bnc_encode_words(e, 0, p, end);
    e->room = room;
}

/* Encodes text that holds no added token of the first kind. */
static void bnc_encode_between(struct bnc_encoder *e, const uint8_t *p, const uint8_t *end)
{
    if (p == end)
        return;
    const struct bnc_room room = e->room;
    if (!e->t->after_added)
        bnc_prepare(e, &p, &end);
    for (;;) {
        uint32_t number = BNC_TOK_NONE;
        const uint8_t *at = bnc_find_added(e, 1, p, end, &number);
        bnc_encode_plain(e, p, at);
        if (at == end)
            break;
        p = bnc_put_added(e, number, at);
    }
    e->room = room;
}

/* ---- bytes to text ---- */

/* The size of the character at p < end, or minus the size of the invalid part there: the longest
 * beginning of some character, at least one byte.
 */
static int bnc_utf8_size(const uint8_t *p, const uint8_t *end)
{
    const uint8_t lead = p[0];
    const int size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4)
        return -1;
    /* The second byte is narrower after some leads: no overlong forms, no surrogates, no code
     * point above U+10FFFF. */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < size; i++) {
        if (p + i == end || p[i] < low || p[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return size;
}

/* The end of the valid text that starts at p. */
static const uint8_t *bnc_skip_valid(const uint8_t *p, const uint8_t *end)
{
    int size = 0;
    do {
        p += size;
        while (end - p >= 8 && (bnc_load_bytes(p, 8, end) & UINT64_C(0x8080808080808080)) == 0)
            p += 8; /* ASCII */
        size = p < end ? bnc_utf8_size(p, end) : 0;
    } while (size > 0);
    return p;
}

/* Copies bytes to `to`, with U+FFFD for each invalid part: at most 3 times as many. */
static size_t bnc_copy_valid(uint8_t *to, const uint8_t *p, const uint8_t *end)
{
    size_t count = 0;
    while (p < end) {
        const int size = bnc_utf8_size(p, end);
        if (size < 0) {
            memcpy(to + count, "\xef\xbf\xbd", 3);
            count += 3;
            p -= size;
        } else {
            memcpy(to + count, p, (size_t)size);
            count += (size_t)size;
            p += size;
        }
    }
    return count;
}

BNC_API size_t bnc_encode_scratch_bytes(size_t text_bytes)
{
    if (text_bytes > SIZE_MAX / 40)
        return SIZE_MAX;
    /* The valid text, then its normal form; each has at most 3 bytes for one of the text, and the
     * second of these a space before each of its stretches. */
    const size_t valid_bytes = 3 * text_bytes;
    const size_t normal_bytes = valid_bytes + 1;
    return valid_bytes + normal_bytes + 3 + 4 * bnc_merge_values(normal_bytes);
}

BNC_API ptrdiff_t bnc_encode(const struct bnc_tokenizer *t, const char *text, size_t bytes,
                             int flags, int32_t *restrict ids, size_t capacity,
                             void *restrict scratch, size_t scratch_bytes)
{
    struct bnc_encoder e = { .t = t, .ids = ids, .capacity = capacity };
    const int around = flags & BNC_ENCODE_AROUND;
    e.plain = (flags & BNC_ENCODE_PLAIN) != 0;
    e.room.at = scratch;
    e.room.bytes = scratch_bytes;
    if (bytes > BNC_ENCODE_MAX_BYTES)
        return BNC_ENCODE_TOO_LONG;
    const uint8_t *p = (const void *)text;
    const uint8_t *end = p + bytes;
    if (bnc_skip_valid(p, end) < end) {
        if (scratch_bytes < 3 * bytes)
            return BNC_ENCODE_NO_SCRATCH;
        bnc_take_room(&e, bnc_copy_valid(e.room.at, p, end), &p, &end);
    }
    e.room.limit = end;
    e.text = p;

    for (uint32_t i = 0; around && i < t->prefix; i++)
        bnc_put_id(&e, t->around[i]);
    for (;;) {
        uint32_t number = BNC_TOK_NONE;
        const uint8_t *at = bnc_find_added(&e, 0, p, end, &number);
        bnc_encode_between(&e, p, at);
        if (at == end)
            break;
        p = bnc_put_added(&e, number, at);
    }
    for (uint32_t i = 0; around && i < t->suffix; i++)
        bnc_put_id(&e, t->around[t->prefix + i]);
    if (e.error != 0)
        return e.error;
    return e.count <= capacity ? (ptrdiff_t)e.count : BNC_ENCODE_NO_ROOM;
}
