/* SPDX-License-Identifier: MIT */
/* See bnc_tokenizer.h for the use and bitnetc/tokenizer/tables.py for the blob. */
#include "bnc_tokenizer.h"

#include <string.h>

#include "bnc_unicode.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the tables are little-endian"
#endif

#define BNC_TOK_MAGIC     UINT32_C(0x544b4e42)
#define BNC_TOK_FACTOR    UINT64_C(0x9e3779b97f4a7c15)
#define BNC_TOK_EMPTY     UINT64_MAX
#define BNC_TOK_NONE      UINT32_MAX
#define BNC_TOK_NO_RANK   UINT32_C(0xffffff)
#define BNC_TOK_NOT_FIRST UINT32_C(0x80000000) /* see bnc_merge_long */

enum {
    BNC_TOK_VERSION = 1,
    BNC_TOK_SHORT = 64, /* bytes of a word that is merged on the stack */
    BNC_TOK_FAN = 16,   /* children of a node in the tree of bnc_merge_long */
    BNC_TOK_LEVELS = 9  /* 16**8 ranks: above BNC_ENCODE_MAX_BYTES * 3 */
};

struct bnc_tok_header {
    uint32_t magic, version, bytes, vocab, word_shift, merge_shift, max_word_bytes, max_digits;
    uint32_t added[2], prefix, suffix;
    uint32_t piece_starts, piece_bytes, special, byte_ids, words, merges, merge_results;
    uint32_t added_ids, added_parents, added_first, around;
};

/* One call of bnc_encode. */
struct bnc_encoder {
    const struct bnc_tokenizer *t;
    const uint8_t *limit; /* end of the readable text */
    int32_t *ids;
    size_t capacity, count; /* ids beyond capacity are counted, not stored */
    uint8_t *scratch;
    size_t scratch_bytes;
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
    t->max_digits = h.max_digits;
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
    t->added_parents = (const void *)(base + h.added_parents);
    t->added_first = base + h.added_first;
    t->around = (const void *)(base + h.around);
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

/* Merges a word of 1 to BNC_TOK_SHORT bytes: rank[i] belongs to the pair id[i], id[i + 1]. */
static void bnc_merge_short(struct bnc_encoder *e, const uint8_t *p, size_t n)
{
    const struct bnc_tokenizer *t = e->t;
    uint32_t id[BNC_TOK_SHORT], rank[BNC_TOK_SHORT];
    for (size_t i = 0; i < n; i++)
        id[i] = t->byte_ids[p[i]];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = bnc_find_merge(t, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == BNC_TOK_NO_RANK)
            break;
        id[best] = t->merge_results[rank[best]];
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
    const size_t slack = (4 - (uintptr_t)e->scratch % 4) % 4;
    if (e->scratch_bytes < slack || (e->scratch_bytes - slack) / 4 < bnc_merge_values(n)) {
        e->error = BNC_ENCODE_NO_SCRATCH;
        return;
    }
    uint32_t *id = (void *)(e->scratch + slack);
    struct bnc_rank_tree tree = { .level = { id + n }, .size = { n }, .levels = 1 };
    for (size_t i = 0; i < n; i++)
        id[i] = t->byte_ids[p[i]];
    for (size_t i = 0; i + 1 < n; i++)
        tree.level[0][i] = bnc_find_merge(t, id[i], id[i + 1]);
    tree.level[0][n - 1] = BNC_TOK_NO_RANK;
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
        const uint32_t joined = t->merge_results[rank];
        const size_t right = at + bnc_piece_size(t, id[at]);
        const size_t end = at + bnc_piece_size(t, joined);
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
        const uint32_t id = bnc_find_word(e->t, p, size, e->limit);
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

/* The class and *size of the UTF-8 character at p. */
static int bnc_class_at(const uint8_t *p, size_t *size)
{
    if (p[0] < 0x80) {
        *size = 1;
        return bnc_ascii_classes[p[0]];
    }
    if (p[0] < 0xe0) {
        *size = 2;
        return bnc_unicode_class((p[0] & 0x1fU) << 6 | (p[1] & 0x3fU));
    }
    if (p[0] < 0xf0) {
        *size = 3;
        return bnc_unicode_class((p[0] & 0x0fU) << 12 | (p[1] & 0x3fU) << 6 | (p[2] & 0x3fU));
    }
    *size = 4;
    return bnc_unicode_class((p[0] & 0x07U) << 18 | (p[1] & 0x3fU) << 12 | (p[2] & 0x3fU) << 6 |
                             (p[3] & 0x3fU));
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
static const uint8_t *bnc_match_word(const uint8_t *p, const uint8_t *end, uint32_t max_digits)
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

static void bnc_encode_words(struct bnc_encoder *e, const uint8_t *p, const uint8_t *end)
{
    while (p < end && e->count <= e->capacity && e->error == 0) {
        const uint8_t *at = bnc_match_word(p, end, e->t->max_digits);
        bnc_encode_word(e, p, (size_t)(at - p));
        p = at;
    }
}

/* ---- added tokens ---- */

/* The longest added token of a kind that begins the text at p, or BNC_TOK_NONE.
 *
 * Contents are sorted. Any that begins the text is not above it, so the greatest content that is
 * not above the text has it as beginning, or is it: the parents lead there, longest first.
 */
static uint32_t bnc_match_added(const struct bnc_tokenizer *t, int kind, const uint8_t *p,
                                const uint8_t *end)
{
    const uint32_t base = kind == 0 ? 0 : t->added[0];
    uint32_t low = 0; /* all below are not above the text */
    uint32_t high = t->added[kind];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const uint32_t id = t->added_ids[base + middle];
        const size_t size = bnc_piece_size(t, id);
        const size_t left = (size_t)(end - p);
        const int order =
            memcmp(t->piece_bytes + t->piece_starts[id], p, size < left ? size : left);
        if (order < 0 || (order == 0 && size <= left))
            low = middle + 1;
        else
            high = middle;
    }
    for (uint32_t i = low == 0 ? BNC_TOK_NONE : low - 1; i != BNC_TOK_NONE;
         i = t->added_parents[base + i]) {
        const uint32_t id = t->added_ids[base + i];
        const size_t size = bnc_piece_size(t, id);
        if (size <= (size_t)(end - p) && memcmp(t->piece_bytes + t->piece_starts[id], p, size) == 0)
            return id;
    }
    return BNC_TOK_NONE;
}

/* The first added token of a kind at or after p: its place and *id, or end. */
static const uint8_t *bnc_find_added(const struct bnc_tokenizer *t, int kind, const uint8_t *p,
                                     const uint8_t *end, uint32_t *id)
{
    const uint8_t *first = t->added_first + 256 * kind;
    if (t->added[kind] == 0)
        return end;
    for (; p < end; p++) {
        if (first[*p]) {
            *id = bnc_match_added(t, kind, p, end);
            if (*id != BNC_TOK_NONE)
                return p;
        }
    }
    return end;
}

/* Encodes text that holds no added token of the first kind. */
static void bnc_encode_between(struct bnc_encoder *e, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        uint32_t id = BNC_TOK_NONE;
        const uint8_t *at = bnc_find_added(e->t, 1, p, end, &id);
        bnc_encode_words(e, p, at);
        if (at == end)
            return;
        bnc_put_id(e, id);
        p = at + bnc_piece_size(e->t, id);
    }
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
    if (text_bytes > SIZE_MAX / 32)
        return SIZE_MAX;
    const size_t valid_bytes = 3 * text_bytes;
    return valid_bytes + 3 + 4 * bnc_merge_values(valid_bytes);
}

BNC_API ptrdiff_t bnc_encode(const struct bnc_tokenizer *t, const char *text, size_t bytes,
                             int add_special, int32_t *restrict ids, size_t capacity,
                             void *restrict scratch, size_t scratch_bytes)
{
    struct bnc_encoder e = {
        .t = t, .ids = ids, .capacity = capacity, .scratch = scratch, .scratch_bytes = scratch_bytes
    };
    if (bytes > BNC_ENCODE_MAX_BYTES)
        return BNC_ENCODE_TOO_LONG;
    const uint8_t *p = (const void *)text;
    const uint8_t *end = p + bytes;
    if (bnc_skip_valid(p, end) < end) {
        if (scratch_bytes < 3 * bytes)
            return BNC_ENCODE_NO_SCRATCH;
        const size_t valid_bytes = bnc_copy_valid(e.scratch, p, end);
        p = e.scratch;
        end = p + valid_bytes;
        e.scratch += valid_bytes;
        e.scratch_bytes -= valid_bytes;
    }
    e.limit = end;

    for (uint32_t i = 0; add_special && i < t->prefix; i++)
        bnc_put_id(&e, t->around[i]);
    for (;;) {
        uint32_t id = BNC_TOK_NONE;
        const uint8_t *at = bnc_find_added(t, 0, p, end, &id);
        bnc_encode_between(&e, p, at);
        if (at == end)
            break;
        bnc_put_id(&e, id);
        p = at + bnc_piece_size(t, id);
    }
    for (uint32_t i = 0; add_special && i < t->suffix; i++)
        bnc_put_id(&e, t->around[t->prefix + i]);
    if (e.error != 0)
        return e.error;
    return e.count <= capacity ? (ptrdiff_t)e.count : BNC_ENCODE_NO_ROOM;
}
