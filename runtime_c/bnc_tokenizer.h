/* SPDX-License-Identifier: MIT */
/* Text to token ids and back: BPE of bytes (GPT-2, Llama-3, Qwen) or of characters with bytes for
 * those that have no piece (SentencePiece: Llama-2, Mistral, Gemma).
 *
 * The tables are one constant blob, made by bitnetc/tokenizer/tables.py and used in place: nothing
 * is built at start-up and nothing is allocated. Results equal those of the `tokenizers` package
 * on the tokenizer.json that the blob was made from.
 *
 * Text is any bytes. Where they are not UTF-8, each maximal invalid part counts as U+FFFD, as in
 * Python's bytes.decode("utf-8", "replace"). NUL is a character like any other.
 *
 * Use:
 *
 *     struct bnc_tokenizer t;
 *     if (bnc_tokenizer_init(&t, blob, blob_bytes) != 0) ...
 *     size_t need = bnc_encode_scratch_bytes(text_bytes);
 *     ptrdiff_t n = bnc_encode(&t, text, text_bytes, 1, ids, capacity, scratch, need);
 *     if (n < 0) ...
 *     for (ptrdiff_t i = 0; i < n; i++) {
 *         size_t size;
 *         const uint8_t *piece = bnc_piece(&t, ids[i], &size);
 *         ...
 */
#ifndef BNC_TOKENIZER_H
#define BNC_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifndef BNC_API
#define BNC_API /* storage class of the functions, for a unit that includes the .c file */
#endif

enum {
    BNC_TOKENIZER_MISALIGNED = -1,  /* the blob is not at a multiple of 8 */
    BNC_TOKENIZER_NOT_A_BLOB = -2,  /* cut short, or not made by bitnetc */
    BNC_TOKENIZER_BAD_VERSION = -3, /* made by another version of bitnetc */

    BNC_ENCODE_NO_ROOM = -1,    /* the text has more ids than `capacity` */
    BNC_ENCODE_NO_SCRATCH = -2, /* a word needs more than `scratch_bytes` */
    BNC_ENCODE_TOO_LONG = -3,   /* more than BNC_ENCODE_MAX_BYTES of text */

    BNC_ENCODE_MAX_BYTES = 1 << 28,

    /* flags of bnc_encode */
    BNC_ENCODE_AROUND = 1, /* also the ids the tokenizer puts around a text, such as the
                            * begin-of-text token */
    BNC_ENCODE_PLAIN = 2   /* control tokens are not recognised: their spelling is text */
};

/* Views into the blob, which must outlive them. The fields are private. */
struct bnc_tokenizer {
    uint32_t vocab;
    unsigned word_shift, merge_shift;
    uint32_t max_word_bytes;
    uint32_t added[2];       /* tokens found in raw text; then those found between them */
    uint32_t prefix, suffix; /* ids in `around` before and after the text */
    uint32_t characters, normalizer, after_added, space_prefix, strip; /* see tables.py */
    uint32_t step_count;
    const uint32_t *piece_starts;
    const uint8_t *piece_bytes;
    const uint8_t *special;
    const uint32_t *byte_ids;
    const uint64_t *words;
    const uint64_t *merges;
    const uint32_t *merge_results;
    const uint32_t *added_ids;
    const uint32_t *added_starts;
    const uint8_t *added_bytes;
    const uint32_t *added_parents;
    const uint8_t *added_first;
    const uint32_t *around;
    const uint8_t *joins;
    const struct bnc_tok_step *steps;
    const uint32_t *sets;
};

/* Points *t into the blob, which stays as it is; a blob is trusted beyond its header.
 * Returns 0 or BNC_TOKENIZER_*; constant time.
 */
BNC_API int bnc_tokenizer_init(struct bnc_tokenizer *t, const void *blob, size_t bytes);

/* Scratch that suffices for every text of this many bytes: about 31 times as much. Less serves
 * when the text is UTF-8: 9 bytes for each byte of its longest word beyond 64 bytes, if any; where
 * the tokenizer puts a space before the text or wants NFC, the changed text as well.
 */
BNC_API size_t bnc_encode_scratch_bytes(size_t text_bytes);

/* ids[0 .. count - 1] = the tokens of the text.
 *
 * flags:   any of BNC_ENCODE_AROUND and BNC_ENCODE_PLAIN.
 * ids:     a valid text has at most one id a byte, one that is invalid or changed by NFC three;
 *          plus one for a space put before the text, plus those around it.
 * scratch: need not be aligned and need not be kept; may be null if scratch_bytes is 0.
 *
 * Added tokens are recognised wherever they stand in the text; with BNC_ENCODE_PLAIN those only
 * that are no control tokens, as if the tokenizer had no others: <|eot_id|> is ten
 * characters then.
 * Time is O(bytes log(longest word)). The buffers must not overlap.
 * Returns count or BNC_ENCODE_*; after an error the contents of ids are unspecified.
 */
BNC_API ptrdiff_t bnc_encode(const struct bnc_tokenizer *t, const char *text, size_t bytes,
                             int flags, int32_t *restrict ids, size_t capacity,
                             void *restrict scratch, size_t scratch_bytes);

/* The bytes that a token stands for, *bytes of them, without a terminating NUL; a text is those of
 * its tokens one after another, less the spaces that bnc_stripped_spaces says. A token may end
 * inside a UTF-8 character. Ids outside the vocabulary stand for no bytes.
 */
BNC_API const uint8_t *bnc_piece(const struct bnc_tokenizer *t, int32_t id, size_t *bytes);

/* How many spaces, where it has them, a text loses at its start when it is made of tokens from the
 * first on: 1 where encoding puts a space before the text. What continues a text loses none.
 */
BNC_API size_t bnc_stripped_spaces(const struct bnc_tokenizer *t);

/* 1 for control tokens, which are not text for a person to read; else 0. */
BNC_API int bnc_is_special(const struct bnc_tokenizer *t, int32_t id);

#endif
