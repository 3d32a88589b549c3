"""Writes runtime_c/bnc_unicode.h: the character classes that pre-tokeniser patterns ask for, and
what NFC has to know; and character_sets.py, the sets that other pre-tokenisers cut at.

    python -m bitnetc.tokenizer.unicode_tables

All are derived by asking the `tokenizers` package about every code point, not from a Unicode
version of our own: agreement with that package is the contract. `tokenizers` is needed to write
the tables, never to use them.
"""

import sys
import textwrap
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex
from tokenizers.normalizers import NFC, NFD
from tokenizers.pre_tokenizers import Digits, Punctuation, Split, Whitespace

from bitnetc.resources import RUNTIME

HEADER = RUNTIME / "bnc_unicode.h"
SETS = Path(__file__).with_name("character_sets.py")
CODE_POINTS = 0x110000
CLASSES = (("OTHER", ""), ("LETTER", r"\p{L}"), ("NUMBER", r"\p{N}"), ("SPACE", r"\s"))
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
HANGUL = range(0xAC00, 0xAC00 + 11172)  # composed by rule
NFC_UNSTABLE = 0x40
NFC_ORDER = 0x3F
LONG_S = 0x17F  # the one code point outside ASCII that (?i:'s|'t|'re|'ve|'m|'ll|'d) accepts


def matching(pattern: str) -> NDArray[np.int64]:
    """The code points, ascending, that `pattern` matches. Surrogates are not text: they do not."""
    scalars = np.delete(np.arange(CODE_POINTS), np.s_[0xD800:0xE000])
    found = np.ones(len(scalars), bool)
    text = scalars.astype("<u4").tobytes().decode("utf-32-le")
    for _, (start, end) in Split(Regex(pattern), "removed").pre_tokenize_str(text):
        found[start:end] = False
    matched: NDArray[np.int64] = scalars[found]
    return matched


def derive_classes() -> NDArray[np.uint8]:
    """uint8 [0x110000]: the index in CLASSES of every code point."""
    classes = np.zeros(CODE_POINTS, np.uint8)
    for index, (name, pattern) in enumerate(CLASSES):
        if pattern:
            members = matching(pattern)
            if classes[members].any():
                raise ValueError(f"{name} overlaps another class: two bits do not suffice")
            classes[members] = index
    return classes


def check_folds() -> None:
    """The C code folds ASCII and U+017F only; fail where the engine accepts more, or less."""
    letters = sorted(set("".join(CONTRACTIONS)) - {"'"})
    expected = sorted([*map(ord, letters), *map(ord, "".join(letters).upper()), LONG_S])
    found = matching("(?i:" + "|".join([*letters, *(word[1:] for word in CONTRACTIONS)]) + ")")
    if found.tolist() != expected:
        raise ValueError(f"(?i:...) matches {found}, not {expected}: see bnc_match_contraction")


@dataclass(frozen=True)
class NfcTables:
    """classes:   uint8 [0x110000]. 0: a starter that begins anew, whatever stands before it. Else
                  the place of its combining class among those there are, plus NFC_UNSTABLE where
                  the character may not stand in NFC or may go together with what is before it.
    rows:      (character, what it decomposes to: one or two, the second 0); ascending.
    composing: the rows that also compose, in order of what they compose from.
    """

    classes: NDArray[np.uint8]
    rows: list[tuple[int, int, int]]
    composing: list[int]


def _normalize_all(form: NFC | NFD, texts: list[str]) -> list[str]:
    """Each text in normal form. A newline is a starter that takes part in nothing."""
    return str(form.normalize_str("\n".join(texts))).split("\n")


def _orders(marks: list[str]) -> list[int]:
    """The place of each mark's combining class among the classes, from 1. Marks of two classes
    change places where they stand in the wrong order, those of one class do not. The classes
    themselves are fixed by the Unicode standard; unicodedata gives an example of each."""
    examples: dict[int, str] = {}
    for mark in marks:
        if unicodedata.combining(mark):
            examples.setdefault(unicodedata.combining(mark), mark)
    sorted_examples = [examples[k] for k in sorted(examples)]
    orders = []
    for mark in marks:
        after = _normalize_all(NFD(), ["a" + mark + example for example in sorted_examples])
        before = _normalize_all(NFD(), ["a" + example + mark for example in sorted_examples])
        lower = [a != "a" + mark + x for a, x in zip(after, sorted_examples, strict=True)]
        higher = [b != "a" + x + mark for b, x in zip(before, sorted_examples, strict=True)]
        if lower.count(True) + higher.count(True) != len(examples) - 1:
            raise ValueError(f"U+{ord(mark):04X} has a combining class of its own")
        orders.append(lower.count(True) + 1)
    return orders


def derive_nfc() -> NfcTables:
    points = [c for c in range(CODE_POINTS) if not 0xD800 <= c < 0xE000 and c != 10]
    texts = [chr(c) for c in points]
    nfd = dict(zip(texts, _normalize_all(NFD(), texts), strict=True))
    nfc = dict(zip(texts, _normalize_all(NFC(), texts), strict=True))
    changed = [t for t in texts if nfd[t] != t and ord(t) not in HANGUL]
    whole = {nfd[t]: t for t in reversed(changed)}
    whole |= {nfd[t]: t for t in reversed(changed) if nfc[t] == t}

    rows = []
    for text in changed:
        head, last = nfd[text][:-1], nfd[text][-1]
        if len(head) > 1:
            head = whole[head]
        row = (ord(head), ord(last)) if head else (ord(last), 0)
        if nfd[last] != last or len(nfd[text].encode()) > 3 * len(text.encode()):
            raise ValueError(f"U+{ord(text):04X} decomposes in a way that the C code does not know")
        rows.append((ord(text), *row))
    composing = [i for i, (c, _, second) in enumerate(rows) if second and nfc[chr(c)] == chr(c)]
    composing.sort(key=lambda i: rows[i][1:])
    for i in composing:
        whole_text, first_text, second_text = map(chr, rows[i])
        if len(whole_text.encode()) > len((first_text + second_text).encode()):
            raise ValueError(f"U+{rows[i][0]:04X} is longer than what it is composed from")

    # A mark changes places with U+0334 (class 1) before it or U+0345 (class 240) after it.
    low = _normalize_all(NFD(), ["a" + nfd[t][0] + "\u0334" for t in texts])
    high = _normalize_all(NFD(), ["a\u0345" + nfd[t][0] for t in texts])
    marks = [
        t
        for t, a, b in zip(texts, low, high, strict=True)
        if nfd[t] == t and (a != "a" + nfd[t][0] + "\u0334" or b != "a\u0345" + nfd[t][0])
    ]
    marks = sorted({*marks, "\u0334", "\u0345"})
    order = dict(zip(marks, _orders(marks), strict=True))
    if max(order.values()) > NFC_ORDER:
        raise ValueError("more combining classes than 6 bits tell apart")

    classes = np.zeros(CODE_POINTS, np.uint8)
    for text, place in order.items():
        classes[ord(text)] = place
    for text in changed:
        if nfc[text] != text:
            classes[ord(text)] = order.get(nfd[text][0], 0) | NFC_UNSTABLE
    for _, _, second in (rows[i] for i in composing):
        classes[second] |= NFC_UNSTABLE
    classes[0x1161 : 0x1161 + 21] = NFC_UNSTABLE  # the second and third parts of Hangul syllables
    classes[0x11A8 : 0x11A7 + 28] = NFC_UNSTABLE
    if classes[:0x300].any():
        raise ValueError("a character below U+0300 takes part in NFC")
    return NfcTables(classes, rows, composing)


def _blocks(classes: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Two stages: block number of each `size` code points, and 2-bit classes [blocks, size/4]."""
    limit = int(np.flatnonzero(classes)[-1]) // size * size + size
    quads = classes[:limit].reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    packed = quads.sum(axis=1, dtype=np.uint8).reshape(-1, size // 4)
    blocks, index = np.unique(packed, axis=0, return_inverse=True)
    return index.reshape(-1), blocks


def _bytes_in_blocks(values: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Two stages, as short as they get: block number, and blocks [n, size]."""
    best = None
    for size in (32, 64, 128, 256):
        limit = int(np.flatnonzero(values)[-1]) // size * size + size
        blocks, index = np.unique(values[:limit].reshape(-1, size), axis=0, return_inverse=True)
        if len(blocks) <= 256 and (
            best is None or index.size + blocks.size < sum(part.size for part in best)
        ):
            best = index.reshape(-1), blocks
    assert best is not None
    return best


def _rows(name: str, rows: list[tuple[int, int, int]]) -> str:
    texts = ["{" + ", ".join(map(str, row)) + "}" for row in rows]
    return f"static const uint32_t {name}[{len(rows)}][3] = {{\n{_wrapped(texts)}\n}};\n"


def _array(name: str, values: NDArray[np.generic], type: str = "uint8_t") -> str:
    numbers = [str(v) for v in values.reshape(-1).tolist()]
    return f"static const {type} {name}[{len(numbers)}] = {{\n{_wrapped(numbers)}\n}};\n"


def _wrapped(numbers: list[str]) -> str:
    lines, line = [], ""
    for number in numbers:
        if len(line) + len(number) + 2 > 94:
            lines.append(line)
            line = ""
        line += (" " if line else "") + number + ","
    return "\n".join("    " + text for text in [*lines, line])


def render(classes: NDArray[np.uint8], nfc: NfcTables) -> str:
    """The text of bnc_unicode.h."""
    sizes = [_blocks(classes, 1 << bits) for bits in range(5, 10)]
    fitting = [(index, blocks) for index, blocks in sizes if len(blocks) <= 256]
    index, blocks = min(fitting, key=lambda pair: pair[0].size + pair[1].size)
    size = blocks.shape[1] * 4
    shift = size.bit_length() - 1
    nfc_index, nfc_blocks = _bytes_in_blocks(nfc.classes)
    nfc_size = nfc_blocks.shape[1]
    nfc_shift = nfc_size.bit_length() - 1
    composing = np.array(nfc.composing, np.uint16)
    names = "\n".join(
        f"    BNC_{name} = {i}, ".ljust(20) + f"/* {pattern or 'everything else'} */"
        for i, (name, pattern) in enumerate(CLASSES)
    )
    return f"""\
/* SPDX-License-Identifier: MIT */
/* Character classes of Unicode as the pre-tokeniser patterns see them, and the tables of NFC.
 *
 * Written by python -m bitnetc.tokenizer.unicode_tables from what the package says,
 * tokenizers {tokenizers.__version__}; edit that program, not this file.
 */
#ifndef BNC_UNICODE_H
#define BNC_UNICODE_H

#include <stdint.h>

enum {{
{names}
}};

enum {{
    BNC_NFC_ORDER = {NFC_ORDER},    /* the place of the combining class, 0 of a starter */
    BNC_NFC_UNSTABLE = {NFC_UNSTABLE}, /* changes, or may go together with what is before it */
    BNC_NFC_ROWS = {len(nfc.rows)},
    BNC_NFC_COMPOSING = {len(nfc.composing)}
}};

/* clang-format off */

/* The block of classes that serves each {size} code points; code points from
 * {index.size} * {size} on are BNC_OTHER. */
{_array("bnc_unicode_blocks", index.astype(np.uint8))}
/* {len(blocks)} blocks of {size} classes, 2 bits each, the lowest code point in the lowest bits. */
{_array("bnc_unicode_classes", blocks)}
/* The classes of ASCII, one a byte. */
{_array("bnc_ascii_classes", classes[:128])}
/* The block of NFC classes that serves each {nfc_size} code points; those from
 * {nfc_index.size} * {nfc_size} on are 0. */
{_array("bnc_nfc_blocks", nfc_index.astype(np.uint8))}
/* {len(nfc_blocks)} blocks of {nfc_size} NFC classes. */
{_array("bnc_nfc_classes", nfc_blocks)}
/* Characters, and the one or two that each decomposes to. */
{_rows("bnc_nfc_rows", nfc.rows)}
/* The rows that also compose, in order of their second and third entries. */
{_array("bnc_nfc_composing", composing, "uint16_t")}
/* clang-format on */

/* The class of any code point. */
static inline int bnc_unicode_class(uint32_t c)
{{
    if (c >= {index.size} * {size}) {{
        return BNC_OTHER;
    }}
    const uint32_t at = (uint32_t)bnc_unicode_blocks[c >> {shift}] << {shift} | (c & {size - 1});
    return bnc_unicode_classes[at >> 2] >> (at & 3) * 2 & 3;
}}

/* The NFC class of any code point: 0 where nothing before it can touch it, else BNC_NFC_*. */
static inline int bnc_nfc_class(uint32_t c)
{{
    if (c >= {nfc_index.size} * {nfc_size}) {{
        return 0;
    }}
    const uint32_t block = bnc_nfc_blocks[c >> {nfc_shift}];
    return bnc_nfc_classes[block << {nfc_shift} | (c & {nfc_size - 1})];
}}

#endif
"""


# ---- sets ----


def derive_sets() -> dict[str, NDArray[np.int64]]:
    """The code points, ascending, of what nodes cut at, by its name: of a class in a pattern, or
    digits, punctuation and word (a word's in Whitespace), which are other sets than the classes."""
    scalars = np.delete(np.arange(CODE_POINTS), np.s_[0xD800:0xE000])
    # Each character between two letters: what stands at odd places.
    between = np.full(2 * len(scalars) + 1, ord("a"), "<u4")
    between[1::2] = scalars
    text = between.tobytes().decode("utf-32-le")

    def spans(node: Digits | Punctuation | Whitespace) -> tuple[set[int], NDArray[np.bool_]]:
        """The places that are a word by themselves, and by place, whether it is in no word."""
        alone, lost = set(), np.ones(len(text), bool)
        for _, (start, end) in node.pre_tokenize_str(text):
            lost[start:end] = False
            if end - start == 1:
                alone.add(start)
        return alone, lost[1::2]

    def members(alone: set[int]) -> NDArray[np.bool_]:
        return np.isin(np.arange(1, len(text), 2), list(alone))

    alone, spaces = spans(Whitespace())
    if not np.array_equal(scalars[spaces], matching(r"\s")):
        raise ValueError("Whitespace drops other characters than \\s matches")
    sets = {
        "digits": scalars[members(spans(Digits(True))[0])],
        "punctuation": scalars[spans(Punctuation("removed"))[1]],
        "word": scalars[~members(alone) & ~spaces],
    }
    return sets | {name: matching(name) for name in (r"\s", r"\d", r"\p{L}", r"\p{N}", r"\p{P}")}


def bounds_of(points: NDArray[np.int64]) -> list[int]:
    """Where a set of code points begins, ends, begins again. Surrogates, which no text holds, are
    in it where what stands on both sides of them is."""
    inside = np.zeros(CODE_POINTS + 2, bool)
    inside[points + 1] = True
    inside[0xD801:0xE001] = inside[0xD800] and inside[0xE001]
    return [int(at) for at in np.flatnonzero(inside[1:] != inside[:-1])]


def render_sets(sets: dict[str, NDArray[np.int64]]) -> str:
    """The text of character_sets.py."""
    parts = []
    for name, points in sets.items():
        bounds = bounds_of(points)
        steps = [f"{b - a:x}" for a, b in zip([0, *bounds], bounds, strict=False)]
        lines = textwrap.wrap(" ".join(steps), 90)
        body = "\n".join(f'    "{line} "' for line in lines)
        body = f"\n{body}\n" if len(lines) > 1 else f'"{lines[0]} "'
        parts.append(f'SETS[r"{name}"] = _bounds({body})\n')
    return f'''\
"""The sets of characters that pre-tokenisers cut at, as bounds: where a set begins, ends, begins
again.

Written by python -m bitnetc.tokenizer.unicode_tables from what the package says,
tokenizers {tokenizers.__version__}; edit that program, not this file.
"""

from itertools import accumulate


def _bounds(steps: str) -> tuple[int, ...]:
    """The bounds, from how far each one is from that before it, hexadecimal."""
    return tuple(accumulate(int(step, 16) for step in steps.split()))


SETS: dict[str, tuple[int, ...]] = {{}}
{"".join(parts)}'''


def main() -> int:
    check_folds()
    SETS.write_text(render_sets(derive_sets()), encoding="utf-8", newline="\n")
    print(f"{SETS.name}: {SETS.stat().st_size} bytes")
    HEADER.write_text(render(derive_classes(), derive_nfc()), encoding="utf-8", newline="\n")
    print(f"{HEADER.name}: {HEADER.stat().st_size} bytes of C")
    return 0


if __name__ == "__main__":
    sys.exit(main())
