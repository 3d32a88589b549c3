"""A bfloat16 matrix in twelve bits a weight, without loss: runtime_c/bnc_bf12.h reads it.

A bfloat16 is a low byte and a high one, the sign and all of the exponent but its lowest bit. Of 256
high bytes a matrix of a network uses few: its fifteen most frequent have codes 0 .. 14, which share
bytes by two, and code 15 says that the high byte is in a list of escapes. Of normally distributed
weights one in ten thousand is there. A float16 has three bits of exponent in its high byte and two
of mantissa, of which all occur: it stays as it is.

    blocks    rows x ceil(cols / 64) of 64 low bytes and 32 bytes of codes
    table     the high byte of each code, 16 bytes
    start     uint32 [rows + 1]: where the escapes of a row begin
    escapes   uint32: 256 * place in the row + high byte, in order of places

Places are 64 a block. Column 32 * b + 16 * c + 4 * l + e of it is at 16 * l + 8 * b + 2 * e + c, so
that a register of low bytes and one of high bytes, interleaved within each sixteen, have words of
neighbouring columns at even and at odd places, which become floats by a shift or a mask. The code
of place p < 32 is the lower half of byte p, that of 32 + p the upper one.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Dense, Frequent, Model

COLS, BLOCK_BYTES = 64, 96
ESCAPE = 15
MOST_ESCAPES = 200  # at most one in so many: what each costs time is then nothing to be seen
_PLACES = 2**24  # in a row: an escape has 24 bits for its place
_CHUNK = 2**21  # weights looked at, or packed, at a time

Words = NDArray[np.uint16]


def find_frequent(model: Model) -> Model:
    """The model, knowing of embedding and head what their storage in twelve bits would take.

    A plan is made from shapes; this reads the matrices that it decides about.
    """
    embedding = _known(model.embedding) if isinstance(model.embedding, Dense) else model.embedding
    if model.tied:
        return replace(model, embedding=embedding, head=embedding)
    reads_head = isinstance(model.head, Dense) and model.integer_head is None
    head = _known(model.head) if reads_head and isinstance(model.head, Dense) else model.head
    return replace(model, embedding=embedding, head=head)


def _known(matrix: Dense) -> Dense:
    if matrix.dtype != "bf16" or padded_cols(matrix.cols) > _PLACES:
        return matrix
    counts = np.zeros(256, np.int64)
    stored = matrix.load()
    for rows in _pieces(matrix.rows, matrix.cols):
        high = (_words(stored[rows]) >> 8).reshape(-1)
        counts += np.bincount(high.astype(np.intp), minlength=256)
    return replace(matrix, frequent=frequent(counts))


def frequent(counts: NDArray[np.int64]) -> Frequent:
    """The fifteen high bytes that occur most, and how many weights have others."""
    order = np.argsort(-counts, kind="stable")[:ESCAPE]
    table = tuple(sorted(int(high) for high in order))
    return Frequent(table, int(counts.sum() - counts[list(table)].sum()))


def padded_cols(cols: int) -> int:
    """Columns in whole blocks."""
    return -(-cols // COLS) * COLS


def packed_bytes(rows: int, cols: int, escapes: int) -> int:
    return rows * padded_cols(cols) // COLS * BLOCK_BYTES + 16 + 4 * (rows + 1 + escapes)


def pays(matrix: Dense) -> bool:
    """Whether the storage is smaller, and escapes are few enough not to take time."""
    if matrix.frequent is None:
        return False
    weights, escapes = matrix.rows * matrix.cols, matrix.frequent.escapes
    few = escapes * MOST_ESCAPES <= weights
    return few and packed_bytes(matrix.rows, matrix.cols, escapes) < 2 * weights


def pack(matrix: Dense) -> Iterator[bytes]:
    """Its bytes in order. What the matrix holds must be what was found before."""
    known = matrix.frequent
    assert known is not None
    codes = np.full(256, ESCAPE, np.uint8)
    codes[list(known.table)] = np.arange(len(known.table), dtype=np.uint8)
    starts, escapes = [np.zeros(1, np.int64)], []
    stored = matrix.load()
    for rows in _pieces(matrix.rows, matrix.cols):
        blocks, counts, found = _pack_rows(_words(stored[rows]), codes)
        yield blocks.tobytes()
        starts.append(counts)
        escapes.append(found)
    count = sum(len(found) for found in escapes)
    assert count == known.escapes, f"{count} escapes, {known.escapes} were found before"
    yield bytes(known.table).ljust(16, b"\0")
    yield np.cumsum(np.concatenate(starts)).astype("<u4").tobytes()
    yield np.concatenate(escapes).astype("<u4").tobytes()


def _pack_rows(
    words: Words, codes: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Blocks of some rows; how many escapes each has; and those."""
    count, cols = words.shape
    blocks = padded_cols(cols) // COLS
    padded = np.zeros((count, blocks * COLS, 2), np.uint8)
    padded[:, :cols] = words.astype("<u2", copy=False).view(np.uint8).reshape(count, cols, 2)
    places = padded.reshape(count, blocks, 2, 2, 4, 4, 2).transpose(0, 1, 4, 2, 5, 3, 6)
    packed = np.empty((count, blocks, BLOCK_BYTES), np.uint8)
    packed[:, :, :COLS] = places[..., 0].reshape(count, blocks, COLS)
    high = places[..., 1].reshape(count, blocks, COLS)
    code = codes[high]
    if padded.shape[1] > cols:  # padding is no escape, whatever has a code
        code[:, -1] &= (cols - (blocks - 1) * COLS > _PLACE_COLUMNS).astype(np.uint8) * 15
    packed[:, :, COLS:] = code[:, :, :32] | code[:, :, 32:] << 4
    row, block, place = np.nonzero(code == ESCAPE)
    found = (block * COLS + place) << 8 | high[row, block, place]
    return packed, np.bincount(row, minlength=count), found


# The column of a block at each place.
_PLACE_COLUMNS = np.arange(COLS).reshape(2, 2, 4, 4).transpose(2, 0, 3, 1).reshape(-1)


def unpack(data: bytes, rows: int, cols: int) -> Words:
    """The inverse of pack."""
    blocks = padded_cols(cols) // COLS
    stored = np.frombuffer(data, np.uint8)
    packed = stored[: rows * blocks * BLOCK_BYTES].reshape(rows, blocks, BLOCK_BYTES)
    table = stored[packed.size :][:16]
    lists = stored[packed.size + 16 :].view("<u4")
    pairs = packed[:, :, COLS:]
    high = table[np.concatenate([pairs & 15, pairs >> 4], axis=2)].reshape(rows, blocks * COLS)
    start, escapes = lists[: rows + 1], lists[rows + 1 :]
    row = np.repeat(np.arange(rows), np.diff(start))
    high[row, escapes >> 8] = escapes & 255
    words = np.empty((rows, blocks, COLS), np.uint16)
    words[:, :, _PLACE_COLUMNS] = packed[:, :, :COLS] | high.reshape(rows, blocks, COLS).astype(
        np.uint16
    ) << np.uint16(8)
    return words.reshape(rows, -1)[:, :cols]


def _pieces(rows: int, cols: int) -> Iterator[slice]:
    step = max(1, _CHUNK // cols)
    return (slice(start, start + step) for start in range(0, rows, step))


def _words(stored: NDArray[np.generic]) -> Words:
    return np.ascontiguousarray(stored).view(np.uint16)
