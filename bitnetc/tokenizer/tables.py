"""Tokenizer -> one blob of tables that runtime_c/bnc_tokenizer.c reads in place.

All integers are little-endian. The header is uint32: the names in HEADER, then for each name in
SECTIONS its offset from the start of the blob. Sections are 8-byte aligned:

    piece_starts   uint32 [vocab + 1]  piece i is piece_bytes[starts[i] : starts[i + 1]]
    piece_bytes    uint8
    special        uint8 [vocab / 8, rounded up]  bit i % 8 of byte i / 8: i is a control token
    byte_ids       uint32 [256]  the piece of one byte, NO_ID where there is none
    words          uint64 slots: 32 bits of hash, 32 bits of id
    merges         uint64 slots: 20 bits of left id, 20 bits of right id, 24 bits of rank
    merge_results  uint32 [merges]  by rank
    added_ids      uint32  in order of content; first those matched in raw text, then the others
    added_parents  uint32  index of the longest other content that begins this one, or NO_ID
    added_first    uint8 [2][256]  1 where a content of that kind begins with that byte
    around         uint32  ids before the text, then ids after it

`words` and `merges` are hash tables with linear probing. An entry lies at or after slot
hash >> shift; entries are sorted by that home slot, so none has to wrap, and the slots past the
last home take what spills over, then one empty slot (all ones) ends every search.

`words` holds each word that encodes to one piece: all pieces with ignore_merges, else those that
their own merges lead to. The reader needs no flag to tell the two apart.
"""

import numpy as np
from numpy.typing import NDArray

from bitnetc.tokenizer import Tokenizer

MAGIC = 0x544B4E42  # "BNKT"
VERSION = 1
HEADER = (
    "magic",
    "version",
    "bytes",  # of the whole blob
    "vocab",
    "word_shift",
    "merge_shift",
    "max_word_bytes",  # of the longest entry of `words`
    "max_digits",
    "added_raw",
    "added_normalized",
    "prefix",
    "suffix",
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
    "added_parents",
    "added_first",
    "around",
)
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
    for number, piece in enumerate(tok.pieces[: tok.model_pieces]):
        if len(piece) == 1:
            byte_ids[piece[0]] = number

    merges = tok.merges.astype(np.uint64)
    pairs = merges[:, 0] << np.uint64(20) | merges[:, 1]
    merge_shift = _shift(len(pairs))
    ranked = pairs << np.uint64(24) | np.arange(len(pairs), dtype=np.uint64)
    merge_slots = _probe_table(pairs * np.uint64(HASH_FACTOR), ranked, merge_shift)

    words = np.arange(tok.model_pieces)
    if not tok.ignore_merges:
        words = words[_merged_whole(pairs, tok, heap, starts, byte_ids)]
    hashes = _hash_words(heap, starts[words], starts[words + 1] - starts[words])
    word_shift = _shift(len(words))
    tags = (hashes & np.uint64(0xFFFFFFFF)) << np.uint64(32)
    word_slots = _probe_table(hashes, tags | words.astype(np.uint64), word_shift)

    special = np.zeros((tok.vocab + 7) // 8 * 8, np.uint8)
    special[[token.id for token in tok.added if token.special]] = 1

    raw = sorted((t.content, t.id) for t in tok.added if not t.normalized)
    normalized = sorted((t.content, t.id) for t in tok.added if t.normalized)
    first = np.zeros((2, 256), np.uint8)
    first[0, [content[0] for content, _ in raw]] = 1
    first[1, [content[0] for content, _ in normalized]] = 1
    contents = [[content for content, _ in group] for group in (raw, normalized)]

    sections: dict[str, NDArray[np.generic]] = {
        "piece_starts": starts.astype("<u4"),
        "piece_bytes": heap,
        "special": np.packbits(special, bitorder="little"),
        "byte_ids": byte_ids.astype("<u4"),
        "words": word_slots.astype("<u8"),
        "merges": merge_slots.astype("<u8"),
        "merge_results": merges[:, 2].astype("<u4"),
        "added_ids": np.array([i for _, i in raw + normalized], "<u4"),
        "added_parents": np.array(_parents(contents[0]) + _parents(contents[1]), "<u4"),
        "added_first": first,
        "around": np.array(tok.prefix + tok.suffix, "<u4"),
    }
    fields = {
        "magic": MAGIC,
        "version": VERSION,
        "bytes": 0,
        "vocab": tok.vocab,
        "word_shift": word_shift,
        "merge_shift": merge_shift,
        "max_word_bytes": max((len(tok.pieces[i]) for i in words.tolist()), default=0),
        "max_digits": tok.max_digits,
        "added_raw": len(raw),
        "added_normalized": len(normalized),
        "prefix": len(tok.prefix),
        "suffix": len(tok.suffix),
    }
    return _lay_out(fields, sections)


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


def _merged_whole(
    pairs: U64,
    tok: Tokenizer,
    heap: NDArray[np.uint8],
    starts: I64,
    byte_ids: NDArray[np.uint32],
) -> NDArray[np.bool_]:
    """bool [model_pieces]: whether merging the bytes of a piece ends in that piece.

    All pieces of a size class are merged side by side: each round joins, in every row, the
    leftmost pair of lowest rank.
    """
    order = np.argsort(pairs)
    ranks = np.append(order, NO_RANK)
    keys = np.append(pairs[order], np.uint64(EMPTY))
    results = np.append(tok.merges[:, 2].astype(np.int64), 0)

    def rank(left: I64, right: I64) -> I64:
        wanted = left.astype(np.uint64) << np.uint64(20) | right.astype(np.uint64)
        at = np.searchsorted(keys, wanted)
        return np.where(keys[at] == wanted, ranks[at], NO_RANK)

    sizes = np.diff(starts)[: tok.model_pieces]
    whole: NDArray[np.bool_] = sizes == 1
    whole &= byte_ids[heap[starts[: tok.model_pieces]]] == np.arange(tok.model_pieces)
    low = 1
    while low < sizes.max(initial=0):
        piece = np.flatnonzero((sizes > low) & (sizes <= 2 * low))
        columns = np.arange(2 * low)
        inside = columns < sizes[piece][:, None]
        at = np.where(inside, starts[piece][:, None] + columns, 0)
        # A byte without a piece, or past the end, has no merges: any id above all others serves.
        ids = np.minimum(byte_ids[heap[at]].astype(np.int64), tok.vocab)
        ids[~inside] = tok.vocab
        low *= 2
        score = rank(ids[:, :-1], ids[:, 1:])
        while len(piece):
            best = score.argmin(axis=1)
            row = np.arange(len(piece))
            found = score[row, best]
            ids[row, best] = results[np.where(found == NO_RANK, len(pairs), found)]
            live = found != NO_RANK
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
