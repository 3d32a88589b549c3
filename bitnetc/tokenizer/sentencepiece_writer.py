"""Writes tokenizer.model files: sentencepiece_model.proto of SentencePiece, BPE with byte fallback.

For vocabularies that come without such a file, as those of GGUF files do.
"""

import struct
from collections.abc import Sequence

_BPE = 2


def write_model(
    pieces: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    *,
    space_prefix: bool,
    bos: int,
    eos: int,
    unknown: int,
) -> bytes:
    """A ModelProto. types: as the format numbers them; bos, eos: ids, -1 for none."""
    out = bytearray()
    for text, score, kind in zip(pieces, scores, types, strict=True):
        raw = text.encode()
        piece = _bytes(1, raw) + _key(2, 5) + struct.pack("<f", score) + _number(3, kind)
        out += _bytes(1, piece)
    trainer = _number(3, _BPE) + _number(4, len(pieces)) + _number(35, 1)
    trainer += _number(40, unknown) + _number(41, bos) + _number(42, eos) + _number(43, -1)
    out += _bytes(2, trainer)
    out += _bytes(3, _bytes(1, b"identity") + _number(3, int(space_prefix)) + _number(4, 0))
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _number(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _bytes(number: int, raw: bytes) -> bytes:
    return _key(number, 2) + _varint(len(raw)) + raw
