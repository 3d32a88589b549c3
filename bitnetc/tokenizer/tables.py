"""Tokenizer -> one blob of tables that runtime_c/bnc_tokenizer.c reads in place.

All integers are little-endian. The header is uint32: the names in HEADER, then for each name in
SECTIONS its offset from the start of the blob. Sections are 8-byte aligned:

    piece_starts   uint32 [vocab + 1]  piece i is piece_bytes[starts[i] : starts[i + 1]]
    piece_bytes    uint8
    special        uint8 [vocab / 8, rounded up]  bit i % 8 of byte i / 8: i is a control token
    byte_ids       uint32 [256]  the piece of one byte, NO_ID where there is none; of characters,
                   the piece of an ASCII character, else the one that a byte falls back to
    words          uint64 slots: 32 bits of hash, 32 bits of id
    merges         uint64 slots: 20 bits of left id, 20 bits of right id, 24 bits of rank
    merge_results  uint32  by rank; NO_ID where merges of that rank have different results: the
                   joined bytes are then found in `words`
    added_ids      uint32  in order of content; first those matched in raw text, then the others
    added_starts   uint32 [added + 1]  content i is added_bytes[starts[i] : starts[i + 1]]
    added_bytes    uint8
    added_parents  uint32  index of the longest other content that begins this one, or NO_ID
    added_first    uint8 [2][256]  1 where a content of that kind begins with that byte
    around         uint32  ids before the text, then ids after it
    joins          uint8 [8192]  bit a * 256 + b, lowest bit of a byte first: 1 where the byte b
                   that begins a character may follow the byte a in one word, and where b is inside
                   a character; nothing if bytes merge
    steps          uint32 [step_count][8]  what cuts a text into words, one after another:
                   kind: an index in STEPS
                   least, most: characters of a match; most of Llama-3's pattern: digits in a word
                   joins: bit 2 * a + b: a span of kind b joins the one of kind a before it; kind 1
                   is a match, 0 what is between matches
                   drops: bit a: spans of kind a belong to no word
                   bytes: 1: bytes are the characters
                   set, set_bounds: the set is sets[set : set + set_bounds]
    sets           uint32  where, ascending, a set of characters begins and ends

`words` and `merges` are hash tables with linear probing. An entry lies at or after slot
hash >> shift; entries are sorted by that home slot, so none has to wrap, and the slots past the
last home take what spills over, then one empty slot (all ones) ends every search.

`words` holds each word that encodes to one piece: all pieces with ignore_merges, else those that
their own merges lead to. The reader needs no flag to tell the two apart. A character that is a
piece is a word.
"""

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer.form import Cut, Tokenizer

MAGIC = 0x544B4E42  # "BNKT"
VERSION = 3
HEADER = (
    "magic",
    "version",
    "bytes",  # of the whole blob
    "vocab",
    "word_shift",
    "merge_shift",
    "max_word_bytes",  # of the longest entry of `words`
    "added_raw",
    "added_normalized",
    "prefix",
    "suffix",
    "characters",  # 1: characters merge, and U+2581 is a space; 0: bytes
    "normalizer",  # an index in NORMALIZERS
    "after_added",  # 1: normalised between all added tokens, 0: between the raw ones
    "space_prefix",  # an index in SPACE_PREFIXES
    "strip",
    "step_count",
)
SECTIONS = (
    "piece_starts",
    "piece_bytes",
    "special",
    "byte_ids",
    "words",
    "merges",
    "merge_results",
    "added_ids",
    "added_starts",
    "added_bytes",
    "added_parents",
    "added_first",
    "around",
    "joins",
    "steps",
    "sets",
)
NORMALIZERS = ("none", "nfc", "spaces")
SPACE_PREFIXES = ("never", "first", "each", "always")
STEPS = ("runs", "llama3", "gpt2")
# Behavior -> joins, not inverted.
JOINS = {
    "Isolated": 0b0000,
    "Removed": 0b0000,
    "Contiguous": 0b1001,
    "MergedWithPrevious": 0b0010,
    "MergedWithNext": 0b0100,
}
NO_ID = 0xFFFFFFFF
EMPTY = 0xFFFFFFFFFFFFFFFF
NO_RANK = 0xFFFFFF
HASH_FACTOR = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


def compile_tables(tok: Tokenizer) -> bytes:
    """The blob for bnc_tokenizer_init; equal tokenizers give equal bytes."""
    starts = np.zeros(tok.vocab + 1, np.int64)
    np.cumsum([len(piece) for piece in tok.pieces], out=starts[1:])
    heap = np.frombuffer(b"".join(tok.pieces) + bytes(8), np.uint8)

    byte_ids = np.full(256, NO_ID, np.uint32)
    mergeable = _mergeable(tok)
    byte_ids[: len(tok.fallback)] = tok.fallback
    for number in np.flatnonzero(mergeable).tolist():
        if len(tok.pieces[number]) == 1:
            byte_ids[tok.pieces[number][0]] = number

    merges = tok.merges.astype(np.uint64)
    pairs = merges[:, 0] << np.uint64(20) | merges[:, 1]
    ranks, results = _ranks(tok)
    merge_shift = _shift(len(pairs))
    ranked = pairs << np.uint64(24) | ranks.astype(np.uint64)
    merge_slots = _probe_table(pairs * np.uint64(HASH_FACTOR), ranked, merge_shift)

    words = np.arange(tok.model_pieces)
    if not tok.ignore_merges:
        words = words[mergeable & _merged_whole(pairs, ranks, tok, byte_ids, mergeable)]
    _check_ties(tok, ranks, results, words)
    hashes = _hash_words(heap, starts[words], starts[words + 1] - starts[words])
    word_shift = _shift(len(words))
    tags = (hashes & np.uint64(0xFFFFFFFF)) << np.uint64(32)
    word_slots = _probe_table(hashes, tags | words.astype(np.uint64), word_shift)

    special = np.zeros((tok.vocab + 7) // 8 * 8, np.uint8)
    special[[token.id for token in tok.added if token.special]] = 1
    special[list(tok.control)] = 1

    raw = sorted((t.content, t.id) for t in tok.added if not t.normalized)
    normalized = sorted((t.content, t.id) for t in tok.added if t.normalized)
    first = np.zeros((2, 256), np.uint8)
    first[0, [content[0] for content, _ in raw]] = 1
    first[1, [content[0] for content, _ in normalized]] = 1
    contents = [[content for content, _ in group] for group in (raw, normalized)]
    added_starts = np.zeros(len(tok.added) + 1, np.int64)
    np.cumsum([len(content) for content, _ in raw + normalized], out=added_starts[1:])
    normalizer = "nfc" if tok.nfc else "none"
    if tok.fallback or tok.space_prefix != "never":
        normalizer = "spaces"

    steps, sets = _steps(tok)

    sections: dict[str, NDArray[np.generic]] = {
        "piece_starts": starts.astype("<u4"),
        "piece_bytes": heap,
        "special": np.packbits(special, bitorder="little"),
        "byte_ids": byte_ids.astype("<u4"),
        "words": word_slots.astype("<u8"),
        "merges": merge_slots.astype("<u8"),
        "merge_results": results.astype("<u4"),
        "added_ids": np.array([i for _, i in raw + normalized], "<u4"),
        "added_starts": added_starts.astype("<u4"),
        "added_bytes": np.frombuffer(b"".join(c for group in contents for c in group), np.uint8),
        "added_parents": np.array(_parents(contents[0]) + _parents(contents[1]), "<u4"),
        "added_first": first,
        "around": np.array(tok.prefix + tok.suffix, "<u4"),
        "joins": _joins(tok, mergeable),
        "steps": np.array(steps, "<u4"),
        "sets": np.array(sets, "<u4"),
    }
    fields = {
        "magic": MAGIC,
        "version": VERSION,
        "bytes": 0,
        "vocab": tok.vocab,
        "word_shift": word_shift,
        "merge_shift": merge_shift,
        "max_word_bytes": max((len(tok.pieces[i]) for i in words.tolist()), default=0),
        "added_raw": len(raw),
        "added_normalized": len(normalized),
        "prefix": len(tok.prefix),
        "suffix": len(tok.suffix),
        "characters": int(bool(tok.fallback)),
        "normalizer": NORMALIZERS.index(normalizer),
        "after_added": int(tok.after_added),
        "space_prefix": SPACE_PREFIXES.index(tok.space_prefix),
        "strip": tok.strip,
        "step_count": len(steps),
    }
    return _lay_out(fields, sections)


def _steps(tok: Tokenizer) -> tuple[list[list[int]], list[int]]:
    """The sections steps and sets."""
    sets: list[int] = []

    def runs(cut: Cut) -> list[int]:
        joins = JOINS[cut.behavior]
        if cut.invert and joins.bit_count() == 1:
            joins ^= JOINS["MergedWithPrevious"] | JOINS["MergedWithNext"]
        drops = 1 << int(not cut.invert) if cut.behavior == "Removed" else 0
        at = len(sets)
        sets.extend(cut.bounds)
        return [0, cut.least, cut.most, joins, drops, int(cut.bytes), at, len(cut.bounds)]

    steps = [runs(cut) for cut in tok.before]
    if tok.pattern != "none":
        steps.append([STEPS.index(tok.pattern), 0, tok.max_digits, 0, 0, 0, 0, 0])
    return [*steps, *map(runs, tok.after)], sets


def _lay_out(fields: dict[str, int], sections: dict[str, NDArray[np.generic]]) -> bytes:
    offset = _align(4 * (len(HEADER) + len(SECTIONS)))
    offsets, body = [], bytearray()
    for name in SECTIONS:
        data = sections[name].tobytes()
        offsets.append(offset + len(body))
        body += data + bytes(_align(len(data)) - len(data))
    fields["bytes"] = offset + len(body)
    header = np.array([*(fields[name] for name in HEADER), *offsets], "<u4").tobytes()
    return header + bytes(offset - len(header)) + bytes(body)


def _align(size: int) -> int:
    return (size + 7) // 8 * 8


def _shift(entries: int) -> int:
    """64 - log2 of the number of home slots: the power of two that leaves 1/3 or more empty."""
    return 64 - max(3, (entries * 3 // 2).bit_length())


def _probe_table(hashes: U64, entries: U64, shift: int) -> U64:
    """Slots of a linear-probing table; entry i has home slot hashes[i] >> shift.

    In order of home slot, each entry takes the first free slot at or after its home:
    at[i] = max(home[i], at[i - 1] + 1), which is i plus the running maximum of home[i] - i.
    """
    home = (hashes >> np.uint64(shift)).astype(np.int64)
    order = np.lexsort((entries, home))
    count = np.arange(len(order))
    at = count + np.maximum.accumulate(home[order] - count)
    spill = int(at[-1]) + 1 if len(at) else 0
    slots = np.full(max(1 << (64 - shift), spill) + 1, EMPTY, np.uint64)
    slots[at] = entries[order]
    return slots


def _hash_words(heap: NDArray[np.uint8], starts: I64, sizes: I64) -> U64:
    """uint64 per word: h = size, then for each 8 bytes w, zero-padded: h = mix(h ^ w)."""
    padded = np.concatenate([heap, np.zeros(8, np.uint8)])
    hashes = sizes.astype(np.uint64) * np.uint64(HASH_FACTOR)
    for done in range(0, int(sizes.max(initial=0)), 8):
        some = np.flatnonzero(sizes > done)
        columns = np.arange(8)
        chunk = padded[(starts[some] + done)[:, None] + columns]
        chunk[columns >= (sizes[some] - done)[:, None]] = 0
        mixed = (hashes[some] ^ chunk.view("<u8")[:, 0]) * np.uint64(HASH_FACTOR)
        hashes[some] = mixed ^ mixed >> np.uint64(32)
    return hashes * np.uint64(HASH_FACTOR)


def _parents(contents: list[bytes]) -> list[int]:
    """For each of the sorted contents the longest other one that begins it, as an index."""
    parents: list[int] = []
    for index, content in enumerate(contents):
        parent = index - 1 if index else NO_ID
        while parent != NO_ID and not content.startswith(contents[parent]):
            parent = parents[parent]
        parents.append(parent)
    return parents


def _mergeable(tok: Tokenizer) -> NDArray[np.bool_]:
    """bool [model_pieces]: the pieces that a text can come to. Of characters these are the single
    ones and what merges make of them, not pieces for bytes and control tokens."""
    if not tok.fallback:
        return np.ones(tok.model_pieces, bool)
    mergeable = np.zeros(tok.model_pieces, bool)
    mergeable[[i for i, p in enumerate(tok.pieces[: tok.model_pieces]) if _is_character(p)]] = True
    mergeable[list(tok.fallback)] = False
    mergeable[list(tok.control)] = False
    mergeable[tok.merges[:, 2]] = True
    return mergeable


def _is_character(piece: bytes) -> bool:
    """Whether UTF-8, which a piece of a lone byte may not be, is one character."""
    return len(piece) <= 4 and len(piece.decode("utf-8", "replace")) == 1


def _ranks(tok: Tokenizer) -> tuple[I64, I64]:
    """The rank of each merge, and by rank the result, NO_ID where it depends on the merge."""
    made = tok.merges[:, 2].astype(np.int64)
    if tok.ranks is None:
        return np.arange(len(made)), made
    ranks = tok.ranks.astype(np.int64)
    results = np.full(int(ranks.max(initial=-1)) + 1, NO_ID, np.int64)
    results[ranks] = made
    results[ranks[results[ranks] != made]] = NO_ID
    return ranks, results


def _check_ties(tok: Tokenizer, ranks: I64, results: I64, words: I64) -> None:
    """Refuses merges of one rank whose result cannot be found by its bytes."""
    tied = np.unique(tok.merges[results[ranks] == NO_ID, 2])
    lost = np.setdiff1d(tied, words)
    if len(lost):
        piece = tok.pieces[int(lost[0])].decode("utf-8", "replace")
        raise BitnetcError(
            "tokenizer",
            f"piece {int(lost[0])} ({piece!r}) has the score of others and its own merges do not "
            "lead to it",
            "scores must tell such pieces apart",
        )


def _joins(tok: Tokenizer, mergeable: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A bit for each two bytes; see the top of the file."""
    if not tok.fallback:
        return np.zeros(0, np.uint8)
    joins = np.zeros((256, 256), bool)
    for number in np.flatnonzero(mergeable).tolist():
        piece = np.frombuffer(tok.pieces[number], np.uint8)
        joins[piece[:-1], piece[1:]] = True
    if tok.cut_spaces:
        joins[:, ord(" ")] = False
    joins[:, 0x80:0xC0] = True
    return np.packbits(joins.reshape(-1), bitorder="little")


def _merged_whole(
    pairs: U64,
    ranks_of: I64,
    tok: Tokenizer,
    byte_ids: NDArray[np.uint32],
    mergeable: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """bool [model_pieces]: whether merging the symbols of a piece, its bytes or its characters,
    ends in that piece.

    All pieces of a size class are merged side by side: each round joins, in every row, the
    leftmost pair of lowest rank.
    """
    order = np.argsort(pairs)
    ranks = np.append(ranks_of[order], NO_RANK)
    keys = np.append(pairs[order], np.uint64(EMPTY))
    results = np.append(tok.merges[order, 2].astype(np.int64), 0)
    heap, starts = _symbols(tok, byte_ids, mergeable)

    def find(left: I64, right: I64) -> I64:
        """The place of a pair among the keys, or that after the last."""
        wanted = left.astype(np.uint64) << np.uint64(20) | right.astype(np.uint64)
        at = np.searchsorted(keys, wanted)
        return np.where(keys[at] == wanted, at, len(pairs))

    def rank(left: I64, right: I64) -> I64:
        return ranks[find(left, right)]

    sizes = np.diff(starts)
    whole: NDArray[np.bool_] = sizes == 1
    whole &= heap[starts[:-1]] == np.arange(tok.model_pieces)
    low = 1
    while low < sizes.max(initial=0):
        piece = np.flatnonzero((sizes > low) & (sizes <= 2 * low))
        columns = np.arange(2 * low)
        inside = columns < sizes[piece][:, None]
        at = np.where(inside, starts[piece][:, None] + columns, 0)
        ids = heap[at]
        ids[~inside] = tok.vocab  # has no merges
        low *= 2
        score = rank(ids[:, :-1], ids[:, 1:])
        while len(piece):
            best = score.argmin(axis=1)
            row = np.arange(len(piece))
            live = score[row, best] != NO_RANK
            ids[row, best] = results[find(ids[row, best], ids[row, best + 1])]
            done = live & (ids[row, best] == piece)
            whole[piece[done]] = True
            live &= ~done
            piece, ids, best = piece[live], ids[live], best[live]
            score = score[live]
            if not len(piece):
                break
            width = ids.shape[1]
            row = np.arange(len(piece))
            kept = np.arange(width - 1) + (np.arange(width - 1) > best[:, None])
            ids = np.take_along_axis(ids, kept, axis=1)
            keep = np.minimum(kept[:, : width - 2], width - 2)
            score = np.take_along_axis(score, keep, axis=1)
            if width == 2:
                break
            right = np.minimum(best, width - 3)
            score[row, right] = rank(ids[row, right], ids[row, right + 1])
            left = np.maximum(best - 1, 0)
            score[row, left] = rank(ids[row, left], ids[row, left + 1])
    return whole


def _symbols(
    tok: Tokenizer, byte_ids: NDArray[np.uint32], mergeable: NDArray[np.bool_]
) -> tuple[I64, I64]:
    """The ids of the symbols of all model pieces, one piece after another, and where each starts.
    Those without a piece, which have no merges, get an id above all others."""
    pieces = tok.pieces[: tok.model_pieces]
    starts = np.zeros(len(pieces) + 1, np.int64)
    if not tok.fallback:
        np.cumsum([len(piece) for piece in pieces], out=starts[1:])
        heap = np.frombuffer(b"".join(pieces) + b"\0", np.uint8)
        return np.minimum(byte_ids[heap].astype(np.int64), tok.vocab), starts
    texts = [
        piece.decode() if usable else ""
        for piece, usable in zip(pieces, mergeable.tolist(), strict=True)
    ]
    characters = {text: number for number, text in enumerate(texts) if len(text) == 1}
    np.cumsum([len(text) for text in texts], out=starts[1:])
    symbols = [characters.get(c, tok.vocab) for text in texts for c in text]
    return np.array([*symbols, tok.vocab], np.int64), starts
