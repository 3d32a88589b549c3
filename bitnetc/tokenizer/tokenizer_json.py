"""tokenizer.json of Hugging Face -> Tokenizer.

`parse_tokenizer` accepts what the C runtime reproduces exactly and refuses everything else by the
name of its node, so a Tokenizer that exists encodes as the `tokenizers` package does.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer.byte_level import BYTES, to_bytes
from bitnetc.tokenizer.cuts import NODES, after_marks, contains, read_cuts
from bitnetc.tokenizer.form import (
    ANY_DIGITS,
    MARK,
    MAX_MERGES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    MAX_STEPS,
    MAX_TEMPLATE_IDS,
    PATTERN_GPT2,
    PATTERN_HEAD,
    PATTERN_TAIL,
    AddedToken,
    Cut,
    Pattern,
    SpacePrefix,
    Tokenizer,
)
from bitnetc.tokenizer.node import Node


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

    root = Node(file, "", value)
    root.dict()
    model = root.get("model")
    if model.type() != "BPE":
        model.refuse(f'"{model.type()}" is not supported', 'only "BPE" is')
    of_characters = model.get("byte_fallback").flag(False)
    rules = _read_character_rules(root) if of_characters else _read_byte_rules(root)
    ids = _read_vocab(model)
    fallback = _read_fallback(model.get("vocab"), ids) if of_characters else ()
    merges = _read_merges(model.get("merges"), ids, set(fallback))
    node = root.get("added_tokens")
    reached = {*merges[:, 2].tolist(), *(n for text, n in ids.items() if len(text) == 1)}
    added = tuple(_normal_form(node, token, rules, reached) for token in _read_added(node, ids))
    pieces = _pieces(model.get("vocab"), ids, added, fallback)
    prefix, suffix = _read_post_processor(root.get("post_processor"), len(pieces))
    ignore_merges = model.get("ignore_merges").flag(False)
    if ignore_merges and of_characters:
        model.get("ignore_merges").refuse("true is not supported with byte_fallback")
    return Tokenizer(
        pieces=pieces,
        model_pieces=len(ids),
        merges=merges,
        ignore_merges=ignore_merges,
        added=added,
        prefix=prefix,
        suffix=suffix,
        pattern=rules.pattern,
        max_digits=rules.max_digits,
        before=rules.before,
        after=rules.after,
        fallback=fallback,
        nfc=rules.nfc,
        space_prefix=rules.space_prefix,
        after_added=rules.after_added,
        cut_spaces=rules.cut_spaces,
        strip=rules.strip,
    )


@dataclass(frozen=True)
class _Rules:
    """What normalizer, pre_tokenizer and decoder say; the fields are those of Tokenizer."""

    pattern: Pattern = "none"
    max_digits: int = 0
    before: tuple[Cut, ...] = ()
    after: tuple[Cut, ...] = ()
    nfc: bool = False
    space_prefix: SpacePrefix = "never"
    after_added: bool = False
    cut_spaces: bool = False
    strip: int = 0


def _flatten(node: Node, parts: str) -> list[Node]:
    """The members of a node that may be null or a Sequence, or a Sequence of them."""
    if node.value is None:
        return []
    if node.type() != "Sequence":
        return [node]
    return [inner for part in node.get(parts).items() for inner in _flatten(part, parts)]


def _refuse_types(node: Node, parts: list[Node], hint: str) -> NoReturn:
    """Names the node that is to blame: the only one, or the sequence of them."""
    types = ", ".join(part.type() for part in parts)
    if len(parts) == 1:
        parts[0].refuse(f'"{types}" is not supported', hint)
    node.refuse(f"a Sequence of {types}" if types else "missing", hint)


# ---- BPE of bytes ----


def _read_byte_rules(root: Node) -> _Rules:
    normalizer = root.get("normalizer")
    parts = _flatten(normalizer, "normalizers")
    nfc = [part.type() for part in parts] == ["NFC"]
    if parts and not nfc:
        _refuse_types(normalizer, parts, "supported for byte-level BPE: none, NFC")
    decoder = root.get("decoder")
    if decoder.value is not None and decoder.type() != "ByteLevel":
        decoder.refuse(f'"{decoder.type()}" is not supported', 'only "ByteLevel" is')
    rules = _read_pre_tokenizer(root.get("pre_tokenizer"))
    if rules.after_added and nfc:
        normalizer.refuse("NFC is not supported together with add_prefix_space")
    return replace(rules, nfc=nfc)


def _read_pre_tokenizer(node: Node) -> _Rules:
    """Cuts, the pattern in a Split or in ByteLevel, and ByteLevel."""
    hint = f"supported: Sequences of ByteLevel and {NODES}"
    parts = _flatten(node, "pretokenizers")
    if "ByteLevel" not in [part.type() for part in parts]:
        _refuse_types(node, parts, f"{hint}, with a ByteLevel")
    rules = _Rules()
    level = False
    for index, part in enumerate(parts):
        if part.type() == "ByteLevel":
            if level:
                part.refuse("a second ByteLevel is not supported")
            level = True
            if part.get("use_regex").flag(True):
                if rules.pattern != "none":
                    part.get("use_regex").refuse("true is not supported after a Split", hint)
                rules = replace(rules, pattern="gpt2")
            if part.get("add_prefix_space").flag(True):
                if index > 0:
                    part.get("add_prefix_space").refuse("true is not supported after others", hint)
                rules = replace(rules, space_prefix="each", after_added=True)
            continue
        found = _read_known_pattern(part)
        if found:
            if level or rules.pattern != "none":
                part.refuse("this pattern is not supported after another or ByteLevel", hint)
            rules = replace(rules, pattern=found[0], max_digits=found[1])
            continue
        cuts = read_cuts(part, level)
        if cuts is None:
            part.refuse(f'"{part.type()}" is not supported', hint)
        if rules.pattern == "none":
            rules = replace(rules, before=rules.before + cuts)
        else:
            rules = replace(rules, after=rules.after + cuts)
    _check_steps(node, rules)
    return rules


def _check_steps(node: Node, rules: _Rules) -> None:
    if len(rules.before) + 1 + len(rules.after) > MAX_STEPS:
        node.refuse("too many pre-tokenisers", f"supported: {MAX_STEPS - 1}")


def _read_known_pattern(node: Node) -> tuple[Pattern, int] | None:
    """The pattern and max_digits of a Split; None for other nodes and patterns."""
    if node.type() != "Split" or set(node.get("pattern").dict()) != {"Regex"}:
        return None
    pattern = node.get("pattern").get("Regex").text()
    digits = pattern.removeprefix(PATTERN_HEAD).removesuffix(PATTERN_TAIL)
    found = re.fullmatch(r"\\p\{N\}(?:(\+)|\{1,([1-9])\})?", digits)
    if pattern == PATTERN_GPT2:
        known: tuple[Pattern, int] = "gpt2", 0
    elif found and pattern == PATTERN_HEAD + digits + PATTERN_TAIL:
        known = "llama3", ANY_DIGITS if found[1] else int(found[2] or 1)
    else:
        return None
    # Every character is in a match, so that nothing is removed when the rest is.
    wanted = "Removed" if node.get("invert").flag(False) else "Isolated"
    if node.get("behavior").text() != wanted:
        node.get("behavior").refuse(
            f"{node.get('behavior').show()} is not supported with this pattern",
            'supported: "Isolated", and inverted "Removed"',
        )
    return known


# ---- BPE of characters ----


def _read_character_rules(root: Node) -> _Rules:
    """SentencePiece: spaces become U+2581, in the normalizer or in the pre-tokeniser."""
    normalizer = root.get("normalizer")
    parts = _flatten(normalizer, "normalizers")
    types = [part.type() for part in parts]
    hint = 'supported with byte_fallback: none, Replace " " by U+2581, Prepend U+2581'
    if types not in ([], ["Replace"], ["Prepend", "Replace"], ["Replace", "Prepend"]):
        _refuse_types(normalizer, parts, hint)
    for part in parts:
        if part.type() == "Replace":
            _expect(part, "pattern", {"String": " "}, hint)
            _expect(part, "content", MARK, hint)
        else:
            _expect(part, "prepend", MARK, hint)

    node = root.get("pre_tokenizer")
    cuts = _flatten(node, "pretokenizers")
    kinds = [part.type() for part in cuts]
    strip = _read_character_decoder(root.get("decoder"))
    if parts:
        before = _read_character_cuts(node, cuts, False)
        prefix: SpacePrefix = "always" if "Prepend" in types else "never"
        return _Rules(before=before, space_prefix=prefix, strip=strip)

    hint = "supported with byte_fallback: Metaspace, or a normalizer that replaces spaces"
    if kinds[:1] != ["Metaspace"]:
        _refuse_types(node, cuts, hint)
    meta = cuts[0]
    _expect(meta, "replacement", MARK, hint)
    scheme = meta.get("prepend_scheme")
    prefixes: dict[object, SpacePrefix] = {"never": "never", "first": "first", "always": "each"}
    if not isinstance(scheme.value, str) or scheme.value not in prefixes:
        scheme.refuse(f"{scheme.show()}, not one of never, first, always", hint)
    split = meta.get("split").flag(True)
    return _Rules(
        before=_read_character_cuts(node, cuts[1:], split),
        space_prefix=prefixes[scheme.value],
        after_added=True,
        cut_spaces=split,
        strip=strip,
    )


def _read_character_cuts(node: Node, parts: list[Node], split: bool) -> tuple[Cut, ...]:
    """The cuts of text whose spaces are U+2581; split: before each of these it is cut already."""
    found: list[Cut] = []
    for part in parts:
        cuts = read_cuts(part, False)
        if cuts is None:
            part.refuse(f'"{part.type()}" is not supported', f"supported: {NODES}")
        for cut in map(after_marks, cuts):
            if not cut.bounds and not (cut.invert and cut.behavior == "Removed"):
                continue  # it matches nothing, and all of a word is one
            if split and contains(cut.bounds, ord(" ")):
                part.refuse("cuts at U+2581, which is not supported after a Metaspace that splits")
            found.append(cut)
    _check_steps(node, _Rules(before=tuple(found)))
    return tuple(found)


def _expect(node: Node, key: str, wanted: object, hint: str) -> None:
    member = node.get(key)
    if type(member.value) is not type(wanted) or member.value != wanted:
        member.refuse(f"{member.show()} is not supported", hint)


def _read_character_decoder(node: Node) -> int:
    """How many leading spaces it drops."""
    hint = 'supported: Sequence[Replace U+2581 by " ", ByteFallback, Fuse], and Strip " " after it'
    parts = _flatten(node, "decoders")
    types = [part.type() for part in parts]
    if types not in (
        ["Replace", "ByteFallback", "Fuse"],
        ["Replace", "ByteFallback", "Fuse", "Strip"],
    ):
        _refuse_types(node, parts, hint)
    _expect(parts[0], "pattern", {"String": MARK}, hint)
    _expect(parts[0], "content", " ", hint)
    if len(parts) == 3:
        return 0
    _expect(parts[3], "content", " ", hint)
    _expect(parts[3], "stop", 0, hint)
    start = parts[3].get("start").integer()
    if not 0 <= start <= 16:
        parts[3].get("start").refuse(f"{start} is not supported", hint)
    return start


def _read_fallback(node: Node, ids: dict[str, int]) -> tuple[int, ...]:
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    for name in (*names, MARK):
        if name not in ids:
            node.refuse(f"no piece {_quote(name)}", "byte_fallback needs all of <0x00> to <0xFF>")
    return tuple(ids[name] for name in names)


def _normal_form(node: Node, token: AddedToken, rules: _Rules, reached: set[int]) -> AddedToken:
    """A normalized token is looked for in normal text, so its content is brought into that form
    as well, a space put before it included; decoding writes it so, too."""
    if not token.normalized:
        return token
    if rules.nfc and any(ord(c) >= 0x300 for c in token.content.decode()):
        node.refuse(
            f"{_quote(token.content.decode())} is normalized and not Latin",
            "supported under NFC: characters below U+0300",
        )
    if rules.after_added or rules.nfc:
        return token
    content = _unmark(token.content)
    if rules.space_prefix != "always":
        return replace(token, content=content)
    if token.id in reached:
        node.refuse(
            f"{_quote(token.content.decode())} is normalized, gets a space put before it, and is "
            "also a piece that text without the space comes to"
        )
    return replace(token, content=b" " + content)


# ---- vocabulary ----


def _read_vocab(model: Node) -> dict[str, int]:
    """Text -> id; ids are 0 to n - 1, each once."""
    for key, neutral in (
        ("dropout", (None, 0, 0.0)),
        ("continuing_subword_prefix", (None, "")),
        ("end_of_word_suffix", (None, "")),
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
    if model.get("byte_fallback").flag(False):
        return ids
    for byte, text in sorted((b, chr(c)) for c, b in BYTES.items()):
        # Bytes that no UTF-8 text holds (C0, C1, F5 to FF) may lack a piece.
        if text not in ids and byte not in (0xC0, 0xC1) and byte < 0xF5:
            node.refuse(
                f"no piece for the byte 0x{byte:02X} ({_quote(text)})",
                "train with ByteLevel.alphabet() as initial alphabet",
            )
    return ids


def _read_merges(node: Node, ids: dict[str, int], bytes_: set[int]) -> NDArray[np.int32]:
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
        here = Node(node.file, f"{node.path}[{index}]", value)
        if not isinstance(pair, list) or len(pair) != 2:
            here.refuse(f'expected "left right" or ["left", "right"], found {here.show()}')
        left, right = pair
        if not isinstance(left, str) or not isinstance(right, str):
            here.refuse(f'expected "left right" or ["left", "right"], found {here.show()}')
        for text in (left, right, left + right):
            if text not in ids:
                here.refuse(f"{_quote(text)} is not in model.vocab")
        row = ids[left], ids[right], ids[left + right]
        if bytes_.intersection(row):
            here.refuse(f"{here.show()} merges a piece for a byte")
        if row[:2] in seen:
            here.refuse(f"{here.show()} is listed twice")
        seen.add(row[:2])
        rows.append(row)
    return np.array(rows, np.int32).reshape(-1, 3)


def _read_added(node: Node, ids: dict[str, int]) -> tuple[AddedToken, ...]:
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


def _pieces(
    node: Node, ids: dict[str, int], added: tuple[AddedToken, ...], fallback: tuple[int, ...]
) -> tuple[bytes, ...]:
    contents = {token.id: token.content for token in added}
    if fallback:
        contents = {number: _unmark(content) for number, content in contents.items()}
    pieces: list[bytes] = [b""] * len(ids)
    for text, number in ids.items():
        content = contents.get(number)
        piece = _character_piece(node, text) if fallback else to_bytes(text)
        if content is not None:
            if piece is not None and piece != content and not fallback:
                node.refuse(f"{_quote(text)} is also an added token, of other bytes")
            piece = content
        elif fallback and " " in text:
            node.refuse(
                f"{_quote(text)} holds a space, which no text does after U+2581 replaces it"
            )
        if piece is None:
            node.refuse(
                f"{_quote(text)} is not byte-level text",
                "supported: byte-level BPE, and BPE with byte_fallback",
            )
        if not 0 < len(piece) <= MAX_PIECE_BYTES:
            node.refuse(f"piece {number} has {len(piece)} bytes; supported: 1 to {MAX_PIECE_BYTES}")
        pieces[number] = piece
    pieces += [contents[token.id] for token in added if token.id >= len(ids)]
    for byte, number in enumerate(fallback):
        if number in contents:
            node.refuse(f'"<0x{byte:02X}>" is also an added token')
        pieces[number] = bytes([byte])
    return tuple(pieces)


def _character_piece(node: Node, text: str) -> bytes:
    return _unmark(_utf8(Node(node.file, node.path, text)))


def _unmark(content: bytes) -> bytes:
    return content.replace(MARK.encode(), b" ")


def _read_post_processor(node: Node, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def _read_template(node: Node, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def _utf8(node: Node) -> bytes:
    try:
        return node.text().encode("utf-8")
    except UnicodeEncodeError:
        node.refuse(f"{node.show()} holds half of a surrogate pair")


def _quote(value: object) -> str:
    return Node("", "", value).show()
