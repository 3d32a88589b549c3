"""Writes runtime_c/bnc_unicode.h: the character classes that pre-tokeniser patterns ask for.

    python -m bitnetc.tokenizer.unicode_tables

The classes are derived by asking the regex engine of the `tokenizers` package about every code
point, not from a Unicode version of our own: agreement with that engine is the contract.
`tokenizers` is needed to write the table, never to use it.
"""

import sys

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from bitnetc.resources import RUNTIME

HEADER = RUNTIME / "bnc_unicode.h"
CODE_POINTS = 0x110000
CLASSES = (("OTHER", ""), ("LETTER", r"\p{L}"), ("NUMBER", r"\p{N}"), ("SPACE", r"\s"))
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
LONG_S = 0x17F  # the one code point outside ASCII that (?i:'s|'t|'re|'ve|'m|'ll|'d) accepts


def matching(pattern: str) -> NDArray[np.int64]:
    """The code points, ascending, that `pattern` matches. Surrogates are not text: they do not."""
    scalars = np.delete(np.arange(CODE_POINTS), np.s_[0xD800:0xE000])
    found = np.ones(len(scalars), bool)
    text = scalars.astype("<u4").tobytes().decode("utf-32-le")
    for _, (start, end) in Split(Regex(pattern), "removed").pre_tokenize_str(text):
        found[start:end] = False
    return scalars[found]


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


def _blocks(classes: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Two stages: block number of each `size` code points, and 2-bit classes [blocks, size/4]."""
    limit = int(np.flatnonzero(classes)[-1]) // size * size + size
    quads = classes[:limit].reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    packed = quads.sum(axis=1, dtype=np.uint8).reshape(-1, size // 4)
    blocks, index = np.unique(packed, axis=0, return_inverse=True)
    return index.reshape(-1), blocks


def _array(name: str, values: NDArray[np.generic]) -> str:
    numbers = [str(v) for v in values.reshape(-1).tolist()]
    lines, line = [], ""
    for number in numbers:
        if len(line) + len(number) + 2 > 94:
            lines.append(line)
            line = ""
        line += (" " if line else "") + number + ","
    body = "\n".join("    " + text for text in [*lines, line])
    return f"static const uint8_t {name}[{len(numbers)}] = {{\n{body}\n}};\n"


def render(classes: NDArray[np.uint8]) -> str:
    """The text of bnc_unicode.h."""
    sizes = [_blocks(classes, 1 << bits) for bits in range(5, 10)]
    fitting = [(index, blocks) for index, blocks in sizes if len(blocks) <= 256]
    index, blocks = min(fitting, key=lambda pair: pair[0].size + pair[1].size)
    size = blocks.shape[1] * 4
    shift = size.bit_length() - 1
    names = "\n".join(
        f"    BNC_{name} = {i}, ".ljust(20) + f"/* {pattern or 'everything else'} */"
        for i, (name, pattern) in enumerate(CLASSES)
    )
    return f"""\
/* SPDX-License-Identifier: MIT */
/* Character classes of Unicode as the pre-tokeniser patterns see them.
 *
 * Written by python -m bitnetc.tokenizer.unicode_tables from the regex engine of
 * tokenizers {tokenizers.__version__}; edit that program, not this file.
 */
#ifndef BNC_UNICODE_H
#define BNC_UNICODE_H

#include <stdint.h>

enum {{
{names}
}};

/* clang-format off */

/* The block of classes that serves each {size} code points; code points from
 * {index.size} * {size} on are BNC_OTHER. */
{_array("bnc_unicode_blocks", index.astype(np.uint8))}
/* {len(blocks)} blocks of {size} classes, 2 bits each, the lowest code point in the lowest bits. */
{_array("bnc_unicode_classes", blocks)}
/* The classes of ASCII, one a byte. */
{_array("bnc_ascii_classes", classes[:128])}
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

#endif
"""


def main() -> int:
    check_folds()
    HEADER.write_text(render(derive_classes()), encoding="utf-8", newline="\n")
    print(f"{HEADER.name}: {HEADER.stat().st_size} bytes of C")
    return 0


if __name__ == "__main__":
    sys.exit(main())
