"""SentencePiece vocabularies -> Tokenizer: tokenizer.model files, and those that GGUF files carry.

A vocabulary states a score for each piece, not merges: of all neighbours that together are a piece,
those of the highest score go first, the leftmost of equal ones. So every split of a piece into two
pieces is a merge, and all splits of a piece have its rank.

tokenizer.model is a protocol buffer, sentencepiece_model.proto of SentencePiece.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer.form import (
    MARK,
    MAX_MERGES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    AddedToken,
    Tokenizer,
)

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BPE = 2  # TrainerSpec.ModelType
_SURROGATE = re.compile("[\ud800-\udfff]")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Vocabulary:
    """What the files state; `where` names the file and node in errors.

    space_prefix: whether a space is put before a text.
    find_control: whether control tokens are recognised in a text. SentencePiece itself does not;
                  llama.cpp and transformers do, and put a space before what follows one as well.
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    space_prefix: bool
    find_control: bool
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


def parse_model(data: bytes, file: str, added: Mapping[int, str], eos: bool = False) -> Tokenizer:
    """The tokenizer in a tokenizer.model.

    added: tokens by id that other files list: control pieces to be found in a text, and tokens
           that follow the vocabulary.
    eos:   whether the end-of-text token follows each text. The begin-of-text token always stands
           before it: some configurations of models that were trained so deny it.
    """
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    denormalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data, file):
        if number == 1:
            entry = _message(value, file)
            text, score, kind = entry.get(1), entry.get(2, bytes(4)), entry.get(3, _NORMAL)
            here = f"{file}: pieces[{len(pieces)}]"
            if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
                raise BitnetcError(here, "no piece with a score")
            try:
                pieces.append(text.decode())
            except UnicodeDecodeError:
                raise BitnetcError(here, "not UTF-8") from None
            scores.append(struct.unpack("<f", score)[0])
            types.append(kind if isinstance(kind, int) else -1)
        elif number in (2, 3, 5):
            {2: trainer, 3: normalizer, 5: denormalizer}[number].update(_message(value, file))

    def refuse(node: str, what: str, hint: str = "") -> None:
        raise BitnetcError(f"{file}: {node}", what, hint)

    if not pieces:
        raise BitnetcError(file, "not a SentencePiece model: it holds no pieces")
    if trainer.get(3, 1) != _BPE:
        refuse("trainer_spec.model_type", "not BPE", "only BPE models are supported")
    if not trainer.get(35, 0):
        refuse("trainer_spec.byte_fallback", "false is not supported")
    if trainer.get(24, 0):
        refuse("trainer_spec.treat_whitespace_as_suffix", "true is not supported")
    if normalizer.get(2, b""):
        name = normalizer.get(1, b"")
        shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else "?"
        refuse("normalizer_spec", f'"{shown}" is not supported', 'only "identity" is')
    if normalizer.get(4, 1):
        refuse("normalizer_spec.remove_extra_whitespaces", "true is not supported")
    if not normalizer.get(5, 1):
        refuse("normalizer_spec.escape_whitespaces", "false is not supported")
    if denormalizer.get(2, b""):
        refuse("denormalizer_spec", "is not supported")

    around = []
    for node, key, default, wanted in (("bos_id", 41, 1, True), ("eos_id", 42, 2, eos)):
        token = trainer.get(key, default)
        if not isinstance(token, int) or token >= len(pieces):
            raise BitnetcError(f"{file}: trainer_spec.{node}", f"{token!r} is no id of a piece")
        around.append((token,) if wanted and token >= 0 else ())
    vocabulary = Vocabulary(
        pieces, scores, types, bool(normalizer.get(3, 1)), bool(added), around[0], around[1]
    )
    return _tokenizer(vocabulary, f"{file}: pieces", added)


def from_gguf(metadata: Mapping[str, object], file: str) -> Tokenizer:
    """The tokenizer in the metadata of a GGUF file whose tokenizer.ggml.model is "llama"; it
    encodes as llama.cpp does, control tokens recognised."""

    def texts(key: str) -> list[str]:
        found = metadata.get(f"tokenizer.ggml.{key}")
        values = list(found) if isinstance(found, Iterable) else []
        wrong = [value for value in values if not isinstance(value, str)]
        if wrong or not values:
            raise BitnetcError(f"{file}: tokenizer.ggml.{key}", "missing, or no list of texts")
        if not "".join(values).isascii() and any(map(_SURROGATE.search, values)):
            raise BitnetcError(f"{file}: tokenizer.ggml.{key}", "a text is not UTF-8")
        return values

    def numbers(key: str, count: int) -> list[float]:
        found = np.asarray(metadata.get(f"tokenizer.ggml.{key}"))
        if found.dtype.kind not in "iuf" or found.shape != (count,):
            raise BitnetcError(
                f"{file}: tokenizer.ggml.{key}", f"missing, or no list of {count} numbers"
            )
        values: list[float] = found.tolist()
        return values

    def flag(key: str, default: bool) -> bool:
        found = metadata.get(f"tokenizer.ggml.{key}", default)
        if not isinstance(found, bool | np.bool_):
            raise BitnetcError(f"{file}: tokenizer.ggml.{key}", "neither true nor false")
        return bool(found)

    def token(key: str, default: int) -> tuple[int]:
        found = metadata.get(f"tokenizer.ggml.{key}", default)
        if not isinstance(found, int | np.integer) or not 0 <= found < len(pieces):
            raise BitnetcError(f"{file}: tokenizer.ggml.{key}", f"{found!r} is no id of a piece")
        return (int(found),)

    if metadata.get("tokenizer.ggml.model") != "llama":
        raise BitnetcError(f"{file}: tokenizer.ggml.model", 'not "llama"')
    pieces = texts("tokens")
    if flag("remove_extra_whitespaces", False):
        raise BitnetcError(
            f"{file}: tokenizer.ggml.remove_extra_whitespaces", "true is not supported"
        )
    vocabulary = Vocabulary(
        pieces,
        numbers("scores", len(pieces)),
        [int(kind) for kind in numbers("token_type", len(pieces))],
        flag("add_space_prefix", True),
        True,
        token("bos_token_id", 1) if flag("add_bos_token", True) else (),
        token("eos_token_id", 2) if flag("add_eos_token", False) else (),
    )
    return _tokenizer(vocabulary, f"{file}: tokenizer.ggml.tokens", None)


def _tokenizer(v: Vocabulary, where: str, added: Mapping[int, str] | None) -> Tokenizer:
    """added: tokens found in a text beside user-defined ones; None: all control tokens."""

    def refuse(what: str, hint: str = "") -> None:
        raise BitnetcError(where, what, hint)

    extra = sorted(number for number in added or {} if number >= len(v.pieces))
    if extra != list(range(len(v.pieces), len(v.pieces) + len(extra))):
        refuse(f"an added token has id {extra[0]} or above", "ids must go on from the vocabulary")
    if len(v.pieces) + len(extra) > MAX_PIECES:
        refuse(f"more than {MAX_PIECES} pieces")

    normal: dict[str, int] = {}
    fallback = [-1] * 256
    tokens: list[AddedToken] = []
    control: list[int] = []
    contents: list[bytes] = []
    for number, (text, kind) in enumerate(zip(v.pieces, v.types, strict=True)):
        content = _content(text)
        if not 0 < len(content) <= MAX_PIECE_BYTES:
            refuse(f"piece {number} has {len(content)} bytes; supported: 1 to {MAX_PIECE_BYTES}")
        if kind == _NORMAL:
            if text in normal or " " in text:
                refuse(f"piece {number} ({text!r}) is listed twice or holds a space")
            normal[text] = number
        elif kind == _BYTE:
            byte = int(text[3:5], 16) if _is_byte(text) else -1
            if byte < 0 or fallback[byte] >= 0:
                refuse(f"piece {number} ({text!r}) is no <0x00> to <0xFF>, or listed twice")
            fallback[byte] = number
            content = bytes([byte])
        elif kind == _USER_DEFINED:
            # GGUF files do not tell which were found before spaces were replaced; none differ.
            tokens.append(AddedToken(number, content, False, not v.find_control))
        elif kind in (_CONTROL, _UNKNOWN):
            if added is None or number in added:
                raw = text if added is None else added[number]
                tokens.append(AddedToken(number, raw.encode(), True, False))
            else:
                control.append(number)
        elif kind == _UNUSED and added is None:  # padding up to the rows of the embedding
            control.append(number)
        else:
            refuse(f"piece {number} ({text!r}) has the type {kind}, which is not supported")
        contents.append(content)
    if -1 in fallback:
        refuse(f'no piece "<0x{fallback.index(-1):02X}>"')
    if MARK not in normal:
        refuse("no piece U+2581, which stands for a space")
    for number in extra:
        content = (added or {})[number].encode()
        tokens.append(AddedToken(number, content, True, False))
        contents.append(content)
    seen: set[bytes] = set()
    for token in tokens:
        if not 0 < len(token.content) <= MAX_PIECE_BYTES or token.content in seen:
            refuse(f"added token {token.id} is empty, too long or listed twice")
        seen.add(token.content)

    rows: list[tuple[int, int, int]] = []
    scores: list[float] = []
    for text, number in normal.items():
        for cut in range(1, len(text)):
            left, right = normal.get(text[:cut]), normal.get(text[cut:])
            if left is not None and right is not None:
                rows.append((left, right, number))
                scores.append(v.scores[number])
        if len(text) > 1 and (lost := next((c for c in text if c not in normal), None)):
            user = any(token.content == _content(lost) for token in tokens)
            if not user:  # such a piece is never come to, as the character is cut out before
                refuse(f"piece {number} ({text!r}) holds {lost!r}, which is no piece")
    if not np.isfinite(scores).all():
        refuse("a score is not finite")
    if len(rows) > MAX_MERGES:
        refuse(f"{len(rows)} merges; supported: up to {MAX_MERGES}")
    _, ranks = np.unique(-np.array(scores, np.float64), return_inverse=True)
    merges = np.array(rows, np.int32).reshape(-1, 3)
    return Tokenizer(
        pieces=tuple(contents),
        model_pieces=len(v.pieces),
        merges=merges,
        ranks=ranks.reshape(-1).astype(np.int32),
        ignore_merges=False,
        added=tuple(sorted(tokens, key=lambda token: token.id)),
        prefix=v.prefix,
        suffix=v.suffix,
        fallback=tuple(fallback),
        space_prefix="always" if v.space_prefix else "never",
        strip=int(v.space_prefix),
        control=tuple(control),
    )


def _content(text: str) -> bytes:
    return text.replace(MARK, " ").encode()


def _is_byte(text: str) -> bool:
    digits = "0123456789ABCDEF"
    return len(text) == 6 and text[:3] == "<0x" and text[5] == ">" and set(text[3:5]) <= set(digits)


# ---- protocol buffers ----


def _message(value: int | bytes, file: str) -> dict[int, int | bytes]:
    """The fields of a message; the last one of a number counts."""
    if isinstance(value, int):
        raise BitnetcError(file, "not a SentencePiece model: a number where a message belongs")
    return dict(_fields(value, file))


def _fields(data: bytes, file: str) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: whole numbers as int, signed; all others as their bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at == len(data):
                break
            value |= (data[at] & 0x7F) << shift
            at += 1
            if data[at - 1] < 0x80:
                value &= (1 << 64) - 1
                return value - (value >> 63 << 64)
        raise BitnetcError(file, "not a SentencePiece model: a number is cut short or too long")

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == _VARINT:
            yield key >> 3, varint()
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1) if kind != _BYTES else varint()
        if not 0 <= size <= len(data) - at or key >> 3 <= 0:
            raise BitnetcError(file, "not a SentencePiece model: a field is cut short or unknown")
        at += size
        yield key >> 3, data[at - size : at]
