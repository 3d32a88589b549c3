"""Nodes of a pre-tokeniser that cut at characters of a set -> Cut.

A set is written as its bounds: where it begins, ends, begins again, ascending.
"""

import re
from bisect import bisect_right
from dataclasses import replace

from bitnetc.tokenizer.byte_level import CHARACTERS
from bitnetc.tokenizer.character_sets import SETS
from bitnetc.tokenizer.form import ANY_DIGITS, MARK, Behavior, Cut
from bitnetc.tokenizer.node import Node

CODE_POINTS = 0x110000
MAX_RUN = 1 << 16
Bounds = tuple[int, ...]

_BEHAVIORS: tuple[Behavior, ...] = (
    "Isolated",
    "Removed",
    "Contiguous",
    "MergedWithPrevious",
    "MergedWithNext",
)
NODES = "Split, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit"
_PATTERNS = (
    "supported: the patterns of Llama-3 and GPT-2, and those that are one class of characters, as "
    r"[0-9] or \p{N}, once, repeated, or with +, {n} or {n,m}"
)
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t"} | {c: c for c in r"\[](){}.*+?^$|-/&"}
_CLASSES = {r"\p{L}", r"\p{N}", r"\p{P}", r"\s", r"\d"}
_ESCAPED = r"\\p\{[LNP]\}|\\[sdrnt]|\\[\[\]\\(){}.*+?^$|\-/&]"
_MEMBER = rf"(?:{_ESCAPED}|[^\[\]\\&\-^:])"
_ATOM = rf"\[\^?(?:{_MEMBER}(?:-{_MEMBER})?)+\]|{_ESCAPED}|[^\[\](){{}}\\.*+?^$|]"
_REGEX = re.compile(rf"(?P<atom>{_ATOM})(?:(?P<plus>\+)|\{{(\d{{1,3}})(,(\d{{1,3}})?)?\}})?", re.S)


def read_cuts(node: Node, after_bytes: bool) -> tuple[Cut, ...] | None:
    """The cuts of a node; after_bytes: a ByteLevel is before it, so that it sees its alphabet.
    None when it is no node that cuts at characters. Errors: what is in it and cannot be cut at."""
    kind = node.type()
    if kind == "Digits":
        single = node.get("individual_digits").flag()
        cuts = [Cut(SETS["digits"], behavior="Isolated" if single else "Contiguous")]
    elif kind == "Punctuation":
        cuts = [Cut(SETS["punctuation"], behavior=_behavior(node, "Isolated"))]
    elif kind == "WhitespaceSplit":
        cuts = [Cut(SETS[r"\s"], behavior="Removed")]
    elif kind == "Whitespace":  # \w+|[^\w\s]+
        cuts = [
            Cut(SETS[r"\s"], behavior="Removed"),
            Cut(SETS["word"], behavior="Contiguous"),
        ]
    elif kind == "CharDelimiterSplit":
        delimiter = node.get("delimiter").text()
        if len(delimiter) != 1:
            node.get("delimiter").refuse("expected one character")
        cuts = [Cut(_one(delimiter), behavior="Removed")]
    elif kind == "Split":
        bounds, least, most = _read_pattern(node.get("pattern"))
        invert = node.get("invert").flag(False)
        cuts = [Cut(bounds, least, most, _behavior(node), invert)]
    else:
        return None
    return tuple(map(_of_bytes, cuts)) if after_bytes else tuple(cuts)


def after_marks(cut: Cut) -> Cut:
    """The same cut of a text whose spaces have become U+2581, which are written as spaces."""
    members = _intersect(cut.bounds, _complement(_one(" ")))
    if contains(cut.bounds, ord(MARK)):
        members = _union(members, _one(" "))
    return replace(cut, bounds=members)


def contains(bounds: Bounds, point: int) -> bool:
    return bisect_right(bounds, point) % 2 == 1


def _behavior(node: Node, default: str | None = None) -> Behavior:
    member = node.get("behavior")
    value = default if member.value is None and default else member.text()
    for behavior in _BEHAVIORS:
        if value == behavior:
            return behavior
    member.refuse(f"{member.show()} is not one of {', '.join(_BEHAVIORS)}")


def _read_pattern(node: Node) -> tuple[Bounds, int, int]:
    """The set, and how many of it match."""
    if set(node.dict()) == {"String"}:
        text = node.get("String").text()
        if not text or len(set(text)) != 1 or len(text) > MAX_RUN:
            node.get("String").refuse(
                f"{node.get('String').show()} is not supported",
                "supported: one character, once or repeated",
            )
        return _one(text[0]), len(text), len(text)
    regex = node.get("Regex")
    pattern = regex.text()
    found = _REGEX.fullmatch(pattern)
    if not found:  # the same atom again and again
        found = _REGEX.match(pattern)
        atom = found["atom"] if found else ""
        count = len(pattern) // len(atom) if atom else 0
        if not found or pattern != atom * count or count > MAX_RUN:
            regex.refuse(f"the pattern {regex.show()} is not supported", _PATTERNS)
        least = most = count
    elif found["plus"]:
        least, most = 1, ANY_DIGITS
    else:
        least = int(found[3] or 1)
        most = least if not found[4] else int(found[5] or ANY_DIGITS)
    if not 0 < least <= most:
        regex.refuse(f"the pattern {regex.show()} is not supported", _PATTERNS)
    bounds = _read_atom(found["atom"])
    if bounds is None:
        regex.refuse(f"the pattern {regex.show()} is not supported", _PATTERNS)
    return bounds, least, most


def _read_atom(atom: str) -> Bounds | None:
    if not atom.startswith("["):
        return _read_member(atom)
    negated = atom[1] == "^"
    bounds: Bounds = ()
    for first, last in re.findall(rf"({_MEMBER})(?:-({_MEMBER}))?", atom[1 + negated : -1], re.S):
        member = _read_member(first)
        if last:
            end = _read_member(last)
            if first in _CLASSES or last in _CLASSES or member > end:
                return None
            member = (member[0], end[1])
        bounds = _union(bounds, member)
    return _complement(bounds) if negated else bounds


def _read_member(text: str) -> Bounds:
    if text in _CLASSES:
        return SETS[text]
    return _one(_ESCAPES[text[1]] if len(text) > 1 else text)


# ---- sets ----


def _one(character: str) -> Bounds:
    return ord(character), ord(character) + 1


def _complement(bounds: Bounds) -> Bounds:
    ends = {*bounds} ^ {0, CODE_POINTS}
    return tuple(sorted(ends))


def _union(a: Bounds, b: Bounds) -> Bounds:
    return _complement(_intersect(_complement(a), _complement(b)))


def _intersect(a: Bounds, b: Bounds) -> Bounds:
    points = sorted({*a, *b})
    inside = [contains(a, point) and contains(b, point) for point in points]
    changes = zip([False, *inside], inside, points, strict=False)
    return tuple(point for before, now, point in changes if before != now)


def _of_bytes(cut: Cut) -> Cut:
    """The same cut of bytes, which ByteLevel has written as characters."""
    members = [contains(cut.bounds, CHARACTERS[byte]) for byte in range(256)]
    changes = [b for b in range(257) if (b < 256 and members[b]) != (b > 0 and members[b - 1])]
    return replace(cut, bounds=tuple(changes), bytes=True)
