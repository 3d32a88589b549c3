"""Tokenizer files -> Tokenizer, the normal form that `tables` compiles for the C runtime.

Byte-level BPE as Llama-3 uses it: the text is cut at added tokens, then into words by a fixed
pattern, and each word is merged pair by pair, lowest rank first. `read_tokenizer` accepts what the
C runtime reproduces exactly and refuses everything else by name, so a Tokenizer that exists
encodes as the `tokenizers` package does.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError

MAX_FILE_BYTES = 1 << 28
MAX_PIECES = (1 << 20) - 1  # an id has 20 bits in the merge table, and all ones means empty
MAX_MERGES = (1 << 24) - 1  # a rank has 24 bits there, and all ones means no merge
MAX_PIECE_BYTES = 1024
MAX_TEMPLATE_IDS = 16  # before or after the text
ANY_DIGITS = (1 << 31) - 1

# The pattern of Llama-3, in two halves: between them stands how many digits make a word.
PATTERN_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
PATTERN_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERN = PATTERN_HEAD + r"\p{N}{1,3}" + PATTERN_TAIL


@dataclass(frozen=True)
class AddedToken:
    """A token found in the text before any other rule; the longest one wins at each place."""

    id: int
    content: bytes  # UTF-8, never empty
    special: bool  # a control token, not part of the text a person reads
    normalized: bool  # looked for only between the matches of those that are not


@dataclass(frozen=True)
class Tokenizer:
    """Byte-level BPE with the Llama-3 pattern.

    pieces:        the bytes each id stands for, ids 0 to vocab - 1; of an added token its content.
    model_pieces:  ids below this take part in merging; the others are added tokens.
    merges:        int32 [n, 3]: left id, right id, id of the two joined; the row is the rank.
    ignore_merges: a word that is a piece becomes that piece, whether or not merges lead to it.
    max_digits:    the most digits in one word.
    added:         in order of id.
    prefix:        ids put before a text when special tokens are asked for (BOS); suffix: after.
    """

    pieces: tuple[bytes, ...]
    model_pieces: int
    merges: NDArray[np.int32]
    ignore_merges: bool
    max_digits: int
    added: tuple[AddedToken, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def vocab(self) -> int:
        return len(self.pieces)


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, from tokenizer.json in its directory."""
    path = directory / "tokenizer.json"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BitnetcError(str(path), f"larger than {MAX_FILE_BYTES >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BitnetcError(
            str(directory),
            "no tokenizer.json",
            "save the tokenizer beside the weights (tokenizer.save_pretrained)",
        ) from None
    except OSError as error:
        raise BitnetcError(str(path), f"cannot be read: {error.strerror}") from None
    return parse_tokenizer(data, str(path))


def parse_tokenizer(data: bytes, file: str) -> Tokenizer:
    """The tokenizer in the text of a tokenizer.json; `file` names it in errors."""
    try:
        value: object = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BitnetcError(file, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BitnetcError(
            file, f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise BitnetcError(file, "not JSON: nested too deeply") from None
    except ValueError:
        raise BitnetcError(file, "not JSON: a number has too many digits") from None

    root = _Node(file, "", value)
    root.dict()
    _check_passive_nodes(root)
    max_digits = _read_pre_tokenizer(root.get("pre_tokenizer"))
    model = root.get("model")
    ids = _read_vocab(model)
    merges = _read_merges(model.get("merges"), ids)
    added = _read_added(root.get("added_tokens"), ids)
    pieces = _pieces(model.get("vocab"), ids, added)
    prefix, suffix = _read_post_processor(root.get("post_processor"), len(pieces))
    return Tokenizer(
        pieces=pieces,
        model_pieces=len(ids),
        merges=merges,
        ignore_merges=model.get("ignore_merges").flag(False),
        max_digits=max_digits,
        added=added,
        prefix=prefix,
        suffix=suffix,
    )


@dataclass(frozen=True)
class _Node:
    """A value in the file and the way to it, so that each refusal can name its place."""

    file: str
    path: str
    value: object

    def refuse(self, what: str, hint: str = "") -> NoReturn:
        raise BitnetcError(f"{self.file}: {self.path}" if self.path else self.file, what, hint)

    def show(self) -> str:
        text = json.dumps(self.value)
        return text if len(text) <= 80 else text[:77] + "..."

    def _is(self, kind: type, name: str) -> None:
        if type(self.value) is not kind:
            self.refuse(f"expected {name}, found {self.show()}")

    def get(self, key: str) -> "_Node":
        """The member `key`; its value is None when it is absent."""
        path = f"{self.path}.{key}" if self.path else key
        return _Node(self.file, path, self.dict().get(key))

    def items(self) -> "list[_Node]":
        self._is(list, "a list")
        assert isinstance(self.value, list)
        return [_Node(self.file, f"{self.path}[{i}]", v) for i, v in enumerate(self.value)]

    def dict(self) -> "dict[str, object]":
        self._is(dict, "an object")
        assert isinstance(self.value, dict)
        return self.value

    def text(self) -> str:
        self._is(str, "a string")
        assert isinstance(self.value, str)
        return self.value

    def integer(self) -> int:
        self._is(int, "a whole number")
        assert isinstance(self.value, int)
        return self.value

    def flag(self, default: bool | None = None) -> bool:
        if self.value is None and default is not None:
            return default
        self._is(bool, "true or false")
        return bool(self.value)

    def type(self) -> str:
        return self.get("type").text()


def _check_passive_nodes(root: _Node) -> None:
    """Refuses a normalizer or decoder that does something other than bytes do by themselves.

    truncation and padding shape batches, not texts, and are not looked at.
    """
    normalizer = root.get("normalizer")
    empty = isinstance(normalizer.value, dict) and normalizer.value.get("normalizers") == []
    if normalizer.value is not None and not empty:
        normalizer.refuse(
            f'"{normalizer.type()}" is not supported',
            "only byte-level BPE without a normalizer (Llama-3) is",
        )
    decoder = root.get("decoder")
    if decoder.value is not None and decoder.type() != "ByteLevel":
        decoder.refuse(f'"{decoder.type()}" is not supported', 'only "ByteLevel" is')


def _read_pre_tokenizer(node: _Node) -> int:
    """max_digits of Sequence[Split(PATTERN), ByteLevel], the one form there is an engine for."""
    hint = "supported: Sequence[Split(the Llama-3 pattern), ByteLevel(use_regex=false)]"
    if node.value is None:
        node.refuse("missing", hint)
    if node.type() != "Sequence":
        node.refuse(f'"{node.type()}" is not supported', hint)
    parts = node.get("pretokenizers").items()
    if [part.type() for part in parts] != ["Split", "ByteLevel"]:
        node.refuse("a Sequence of " + ", ".join(part.type() for part in parts), hint)
    split, level = parts

    regex = split.get("pattern").get("Regex")
    pattern = regex.text()
    digits = pattern.removeprefix(PATTERN_HEAD).removesuffix(PATTERN_TAIL)
    found = re.fullmatch(r"\\p\{N\}(?:(\+)|\{1,([1-9])\})?", digits)
    if not found or pattern != PATTERN_HEAD + digits + PATTERN_TAIL:
        regex.refuse(f"the pattern {regex.show()} is not supported", hint)
    if split.get("behavior").text() != "Isolated":
        split.get("behavior").refuse(f'{split.get("behavior").show()}, not "Isolated"', hint)
    if split.get("invert").flag(False):
        split.get("invert").refuse("true is not supported", hint)
    if level.get("add_prefix_space").flag(True):
        level.get("add_prefix_space").refuse("true is not supported", hint)
    if level.get("use_regex").flag(True):
        level.get("use_regex").refuse("true is not supported", hint)
    return ANY_DIGITS if found[1] else int(found[2] or 1)


def _byte_level() -> dict[int, int]:
    """str.translate table of byte-level text: code point -> byte; the alphabet of GPT-2.

    Printable Latin-1 stands for itself; the other 68 bytes, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(printable))
    return _Alphabet({b: b for b in printable} | {0x100 + i: b for i, b in enumerate(rest)})


class _Alphabet(dict[int, int]):
    """Sends a code point outside the alphabet to U+FFFF, which then does not encode to Latin-1."""

    def __missing__(self, key: int) -> int:
        return 0xFFFF


_BYTE_LEVEL = _byte_level()


def _to_bytes(text: str) -> bytes | None:
    """The bytes that byte-level text stands for, or None when it is not byte-level text."""
    try:
        return text.translate(_BYTE_LEVEL).encode("latin-1")
    except UnicodeEncodeError:
        return None


def _read_vocab(model: _Node) -> dict[str, int]:
    """Byte-level text -> id; ids are 0 to n - 1, each once."""
    if model.type() != "BPE":
        model.refuse(f'"{model.type()}" is not supported', 'only "BPE" is')
    for key, neutral in (
        ("dropout", (None, 0, 0.0)),
        ("continuing_subword_prefix", (None, "")),
        ("end_of_word_suffix", (None, "")),
        ("byte_fallback", (None, False)),
    ):
        node = model.get(key)
        if not any(type(node.value) is type(n) and node.value == n for n in neutral):
            node.refuse(f"{node.show()} is not supported")

    node = model.get("vocab")
    vocab = node.dict()
    if not 0 < len(vocab) <= MAX_PIECES:
        node.refuse(f"{len(vocab)} pieces; supported: 1 to {MAX_PIECES}")
    ids: dict[str, int] = {}
    seen = bytearray(len(vocab))
    for text, value in vocab.items():
        if type(value) is not int or not 0 <= value < len(vocab):
            node.refuse(
                f"piece {_quote(text)} has id {_quote(value)}, outside 0 to {len(vocab) - 1}",
                "ids must have no holes",
            )
        if seen[value]:
            node.refuse(f"two pieces have id {value}")
        seen[value] = 1
        ids[text] = value
    for byte, text in sorted((b, chr(c)) for c, b in _BYTE_LEVEL.items()):
        # Bytes that no UTF-8 text holds (C0, C1, F5 to FF) may lack a piece.
        if text not in ids and byte not in (0xC0, 0xC1) and byte < 0xF5:
            node.refuse(
                f"no piece for the byte 0x{byte:02X} ({_quote(text)})",
                "train with ByteLevel.alphabet() as initial alphabet",
            )
    return ids


def _read_merges(node: _Node, ids: dict[str, int]) -> NDArray[np.int32]:
    """int32 [n, 3]; each merge is "left right" or [left, right]."""
    if type(node.value) is not list:
        node.refuse(f"expected a list, found {node.show()}")
    assert isinstance(node.value, list)
    if len(node.value) > MAX_MERGES:
        node.refuse(f"{len(node.value)} merges; supported: up to {MAX_MERGES}")
    rows: list[tuple[int, int, int]] = []
    seen: set[tuple[int, int]] = set()
    for index, value in enumerate(node.value):
        pair = value.split(" ") if isinstance(value, str) else value
        here = _Node(node.file, f"{node.path}[{index}]", value)
        if not isinstance(pair, list) or len(pair) != 2:
            here.refuse(f'expected "left right" or ["left", "right"], found {here.show()}')
        left, right = pair
        if not isinstance(left, str) or not isinstance(right, str):
            here.refuse(f'expected "left right" or ["left", "right"], found {here.show()}')
        for text in (left, right, left + right):
            if text not in ids:
                here.refuse(f"{_quote(text)} is not in model.vocab")
        row = ids[left], ids[right], ids[left + right]
        if row[:2] in seen:
            here.refuse(f"{here.show()} is listed twice")
        seen.add(row[:2])
        rows.append(row)
    return np.array(rows, np.int32).reshape(-1, 3)


def _read_added(node: _Node, ids: dict[str, int]) -> tuple[AddedToken, ...]:
    """Those of model.vocab keep their id; the others follow it, in order of id, without holes."""
    if node.value is None:
        return ()
    added = []
    seen: set[str] = set()
    free = len(ids)
    for item in node.items():
        text = item.get("content").text()
        content = _utf8(item.get("content"))
        if not 0 < len(content) <= MAX_PIECE_BYTES:
            item.get("content").refuse(f"{len(content)} bytes; supported: 1 to {MAX_PIECE_BYTES}")
        if text in seen:
            item.refuse(f"{_quote(text)} is listed twice")
        seen.add(text)
        for key in ("single_word", "lstrip", "rstrip"):
            if item.get(key).flag(False):
                item.get(key).refuse("true is not supported")
        number = item.get("id").integer()
        if number != ids.get(text, free):
            item.get("id").refuse(
                f"{_quote(text)} has id {number}, expected {ids.get(text, free)}",
                "ids must go on from model.vocab, ascending and without holes",
            )
        free += text not in ids
        if free > MAX_PIECES:
            node.refuse(f"more than {MAX_PIECES} ids")
        special = item.get("special").flag(False)
        normalized = item.get("normalized").flag(not special)
        added.append(AddedToken(number, content, special, normalized))
    return tuple(sorted(added, key=lambda token: token.id))


def _pieces(node: _Node, ids: dict[str, int], added: tuple[AddedToken, ...]) -> tuple[bytes, ...]:
    contents = {token.id: token.content for token in added}
    pieces: list[bytes] = [b""] * len(ids)
    for text, number in ids.items():
        piece = _to_bytes(text)
        content = contents.get(number)
        if content is not None:
            if piece is not None and piece != content:
                node.refuse(f"{_quote(text)} is also an added token, of other bytes")
            piece = content
        if piece is None:
            node.refuse(
                f"{_quote(text)} is not byte-level text", "only byte-level BPE is supported"
            )
        if not 0 < len(piece) <= MAX_PIECE_BYTES:
            node.refuse(f"piece {number} has {len(piece)} bytes; supported: 1 to {MAX_PIECE_BYTES}")
        pieces[number] = piece
    pieces += [token.content for token in added if token.id >= len(ids)]
    return tuple(pieces)


def _read_post_processor(node: _Node, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """prefix and suffix of null, ByteLevel, TemplateProcessing or a Sequence of the last two."""
    if node.value is None:
        return (), ()
    parts = node.get("processors").items() if node.type() == "Sequence" else [node]
    templates = []
    for part in parts:
        if part.type() == "TemplateProcessing":
            templates.append(part)
        elif part.type() != "ByteLevel":
            part.refuse(
                f'"{part.type()}" is not supported', "supported: ByteLevel, TemplateProcessing"
            )
    if len(templates) > 1:
        node.refuse("more than one TemplateProcessing")
    return _read_template(templates[0], vocab) if templates else ((), ())


def _read_template(node: _Node, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    single = node.get("single")
    tokens = node.get("special_tokens")
    sides: list[list[int]] = [[]]
    for item in single.items():
        if set(item.dict()) == {"Sequence"}:
            if item.get("Sequence").get("id").text() != "A" or len(sides) == 2:
                single.refuse("expected the text, sequence A, once")
            sides.append([])
        elif set(item.dict()) == {"SpecialToken"}:
            name = item.get("SpecialToken").get("id").text()
            entry = tokens.get(name)
            if entry.value is None:
                tokens.refuse(f"no entry {_quote(name)}, which `single` names")
            for number in entry.get("ids").items():
                if not 0 <= number.integer() < vocab:
                    number.refuse(f"{number.integer()} is outside 0 to {vocab - 1}")
                sides[-1].append(number.integer())
        else:
            item.refuse(f"expected SpecialToken or Sequence, found {item.show()}")
    if len(sides) != 2:
        single.refuse("expected the text, sequence A, once")
    prefix, suffix = sides
    if max(len(prefix), len(suffix)) > MAX_TEMPLATE_IDS:
        single.refuse(f"more than {MAX_TEMPLATE_IDS} special tokens on one side of the text")
    return tuple(prefix), tuple(suffix)


def _utf8(node: _Node) -> bytes:
    try:
        return node.text().encode("utf-8")
    except UnicodeEncodeError:
        node.refuse(f"{node.show()} holds half of a surrogate pair")


def _quote(value: object) -> str:
    return _Node("", "", value).show()
