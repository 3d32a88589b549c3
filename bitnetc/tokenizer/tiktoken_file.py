"""Rank files of tiktoken, the tokenizer.model of Llama-3 -> Tokenizer.

Each line is a piece in base64 and its rank, which is its id. Of all neighbours that together are a
piece, those of the lowest rank merge first; a word that is a piece is that piece.
"""

import base64
import binascii
import re
from collections.abc import Mapping

import numpy as np

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer.form import (
    MAX_MERGES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    AddedToken,
    Tokenizer,
)

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")
_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
_SPECIALS = 256  # of Llama-3


def is_rank_file(data: bytes) -> bool:
    return _LINE.fullmatch(data.split(b"\n", 1)[0].rstrip(b"\r")) is not None


def parse_ranks(data: bytes, file: str, added: Mapping[int, str]) -> Tokenizer:
    """added: the special tokens by id, which follow the ranks; none: those of Llama-3."""
    pieces: list[bytes] = []
    ids: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        where = f"{file}: line {number}"
        found = _LINE.fullmatch(line)
        if not found:
            raise BitnetcError(where, "expected a piece in base64 and its rank")
        try:
            piece = base64.b64decode(found[1], validate=True)
        except binascii.Error:
            raise BitnetcError(where, "not base64") from None
        if int(found[2]) != len(pieces):
            raise BitnetcError(where, f"rank {int(found[2])}, expected {len(pieces)}")
        if piece in ids or not 0 < len(piece) <= MAX_PIECE_BYTES:
            raise BitnetcError(where, "a piece that is empty, too long or listed twice")
        ids[piece] = len(pieces)
        pieces.append(piece)
    for byte in range(256):
        if bytes([byte]) not in ids:
            raise BitnetcError(file, f"no piece for the byte 0x{byte:02X}")

    # Pieces stand in order of rank, so the merges, made piece by piece, do as well.
    rows = [
        (ids[piece[:cut]], ids[piece[cut:]], number)
        for number, piece in enumerate(pieces)
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    if len(rows) > MAX_MERGES:
        raise BitnetcError(file, f"{len(rows)} merges; supported: up to {MAX_MERGES}")
    merges = np.array(rows, np.int32).reshape(-1, 3)
    _, ranks = np.unique(merges[:, 2], return_inverse=True)

    names = _llama3_names(len(pieces)) if not added else dict(added)
    if sorted(names) != list(range(len(pieces), len(pieces) + len(names))):
        raise BitnetcError(file, "the ids of special tokens must follow its ranks without holes")
    if len(pieces) + len(names) > MAX_PIECES:
        raise BitnetcError(file, f"more than {MAX_PIECES} pieces")
    contents = [names[number].encode() for number in sorted(names)]
    if len(set(contents)) != len(contents) or not all(
        0 < len(content) <= MAX_PIECE_BYTES for content in contents
    ):
        raise BitnetcError(file, "a special token is empty, too long or listed twice")
    begin = [number for number, name in names.items() if name == _NAMED[0]]
    return Tokenizer(
        pieces=(*pieces, *contents),
        model_pieces=len(pieces),
        merges=merges,
        ranks=ranks.reshape(-1).astype(np.int32),
        ignore_merges=True,
        added=tuple(
            AddedToken(len(pieces) + i, content, True, False) for i, content in enumerate(contents)
        ),
        prefix=tuple(begin),
        suffix=(),
        pattern="llama3",
        max_digits=3,
    )


def _llama3_names(first: int) -> dict[int, str]:
    reserved = iter(range(_SPECIALS))
    return {
        first + i: _NAMED.get(i) or f"<|reserved_special_token_{next(reserved)}|>"
        for i in range(_SPECIALS)
    }
