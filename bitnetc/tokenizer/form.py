"""Tokenizer: the normal form that the readers make and that `tables` compiles for the C runtime."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 1 << 28
MAX_PIECES = (1 << 20) - 1  # an id has 20 bits in the merge table, and all ones means empty
MAX_MERGES = (1 << 24) - 1  # a rank has 24 bits there, and all ones means no merge
MAX_PIECE_BYTES = 1024
MAX_TEMPLATE_IDS = 16  # before or after the text
ANY_DIGITS = (1 << 31) - 1
MAX_STEPS = 16

# The pattern of Llama-3, in two halves: between them stands how many digits make a word.
PATTERN_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
PATTERN_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERN = PATTERN_HEAD + r"\p{N}{1,3}" + PATTERN_TAIL
PATTERN_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

MARK = "\u2581"  # stands for a space in the pieces of SentencePiece

# Where a space is put before a stretch of text: nowhere; at the start of the whole text or of each
# stretch between added tokens, unless it begins with one; of each stretch in any case.
SpacePrefix = Literal["never", "first", "each", "always"]
Pattern = Literal["none", "llama3", "gpt2"]
# What becomes of a match: it is a word; it is dropped; it goes with all its neighbours of its own
# kind, with what is before it, or with what follows it.
Behavior = Literal["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]


@dataclass(frozen=True)
class Cut:
    """Cuts words at runs of characters.

    bounds: uint32, ascending: where the set of characters begins, ends, begins again.
    least, most: how many of them match; a longer run holds several matches.
    invert: what is between the matches counts as the matches.
    bytes:  bytes are the characters.
    """

    bounds: tuple[int, ...]
    least: int = 1
    most: int = 1
    behavior: Behavior = "Isolated"
    invert: bool = False
    bytes: bool = False


@dataclass(frozen=True)
class AddedToken:
    """A token found in the text before any other rule; the longest one wins at each place."""

    id: int
    content: bytes  # UTF-8, never empty: what is looked for
    special: bool  # a control token, not part of the text a person reads
    normalized: bool  # looked for between the matches of those that are not, in normal form


@dataclass(frozen=True)
class Tokenizer:
    """BPE of bytes, or of characters where those without a piece fall back to bytes.

    pieces:        the bytes each id stands for, ids 0 to vocab - 1, as decoding writes them.
    model_pieces:  ids below this take part in merging; the others are added tokens.
    merges:        int32 [n, 3]: left id, right id, id of the two joined.
    ranks:         int32 [n]: the lowest goes first, the leftmost of equal ones. None: the row.
    ignore_merges: a word that is a piece becomes that piece, whether or not merges lead to it.
    added:         in order of id.
    prefix:        ids put before a text when special tokens are asked for (BOS); suffix: after.
    pattern:       what cuts a text into words: the pattern of Llama-3, with at most max_digits
                   digits in a word, or that of GPT-2; none: a text is one word.
    before, after: cuts of the text before the pattern cuts it, and of the words it cuts it into.
    fallback:      the ids of the 256 pieces for bytes, which a character without a piece becomes;
                   empty: bytes merge. With it, U+2581 in pieces and in texts is written as a space.
    nfc:           texts are brought into NFC first, each stretch between raw added tokens.
    space_prefix:  see SpacePrefix; after_added: the stretches are those between all added tokens,
                   else between the raw ones.
    cut_spaces:    of characters: no merge goes past the start of a space.
    strip:         this many leading spaces are dropped from a decoded text.
    control:       ids of control tokens that no text holds, beside the special ones of `added`.
    """

    pieces: tuple[bytes, ...]
    model_pieces: int
    merges: NDArray[np.int32]
    ignore_merges: bool
    added: tuple[AddedToken, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    ranks: NDArray[np.int32] | None = None
    pattern: Pattern = "none"
    max_digits: int = 0
    before: tuple[Cut, ...] = ()
    after: tuple[Cut, ...] = ()
    fallback: tuple[int, ...] = ()
    nfc: bool = False
    space_prefix: SpacePrefix = "never"
    after_added: bool = False
    cut_spaces: bool = False
    strip: int = 0
    control: tuple[int, ...] = field(default=())

    @property
    def vocab(self) -> int:
        return len(self.pieces)
