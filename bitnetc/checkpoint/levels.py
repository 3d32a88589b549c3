"""Floats that are ternary already: matrices whose weights are -d, 0 and +d.

There is one d for the whole matrix, for a share of its rows, for each row, or for each group of
neighbours in a row.

Weight-only models (TriLM, BitCPM, unpacked Bonsai) are published so, and ONNX exports of others.
Their levels are found exactly, never by the absolute mean, which zeros would lower.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.tensor import Tensor, TernaryTensor
from bitnetc.errors import BitnetcError

Words = NDArray[np.unsignedinteger]  # stored floats as unsigned integers of their width

STORED = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
# Scales of TriLM come from shards of model-parallel training; Bonsai's and BitCPM's from groups.
_ROW_SHARES = (1, 2, 3, 4, 6, 8)
_GROUPS = (256, 128, 64, 32)
_CHUNK = 1 << 22  # weights per step
_SAMPLE_ROWS = 8


def words_of(tensor: Tensor) -> Words:
    """The stored floats of a tensor as unsigned integers of its shape."""
    words: Words = tensor.raw.view(STORED[tensor.dtype]).reshape(tensor.shape)
    return words


def looks_ternary(words: Words) -> bool:
    """Whether the first rows of a matrix hold three values a group: a quick look, no proof."""
    rows = words[:_SAMPLE_ROWS]
    return rows.size > 0 and _finest_levels(rows) is not None


def as_ternary(tensor: Tensor, words: Callable[[], Words]) -> TernaryTensor:
    """The tensor as a ternary one; nothing is read before its scales or trits are asked for.

    words: the matrix [rows, cols] as stored, without its sign convention being changed.
    Errors, of scales(): a group that holds more than one magnitude besides zero.
    """
    rows, cols = tensor.shape
    bits = 32 if tensor.dtype == "F32" else 16

    @cache
    def scales() -> NDArray[np.float32]:
        found = _levels(words(), bits)
        if found is None:
            raise BitnetcError(
                tensor.where,
                "holds floats of more than three values a group, so it is not ternary",
                "use a model whose weights are -d, 0 and +d",
            )
        return _as_float(found, tensor.dtype)

    return TernaryTensor(
        tensor.name,
        tensor.dtype,
        (rows, cols),
        tensor.file,
        tensor.raw,
        scales,
        partial(_signs, words, bits),
    )


def _as_float(words: Words, dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (words.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return words.astype("<u2").view("<f2").astype(np.float32)
    return words.astype("<u4").view("<f4").astype(np.float32)


def _signs(words: Callable[[], Words], bits: int) -> NDArray[np.int8]:
    stored = words()
    sign = stored.dtype.type(1 << (bits - 1))
    out = np.empty(stored.shape, dtype=np.int8)
    step = max(1, _CHUNK // max(1, stored.shape[1]))
    for begin in range(0, len(stored), step):
        part = stored[begin : begin + step]
        nonzero = (part & ~sign) != 0
        out[begin : begin + step] = nonzero.view(np.int8) - 2 * (nonzero & (part >= sign))
    return out


def _finest_levels(words: Words) -> Words | None:
    return _levels(words, 8 * words.itemsize)


def _levels(words: Words, bits: int) -> Words | None:
    """Magnitudes [1, 1], [rows, 1] or [rows, groups] as words; None when there are no such.

    The coarsest division that holds exactly; if none does, the coarsest that holds but for one
    unit in the last place, which writers that multiply by a reciprocal leave. Order of magnitudes
    is order of words without their sign.
    """
    rows, cols = words.shape
    widths = [width for width in _GROUPS if cols % width == 0]
    finest = widths[-1] if widths else cols
    sign = words.dtype.type(1 << (bits - 1))
    least = np.empty((rows, cols // finest), dtype=words.dtype)
    largest = np.empty_like(least)
    step = max(1, _CHUNK // cols)
    for begin in range(0, rows, step):
        part = words[begin : begin + step] & ~sign
        groups = part.reshape(len(part), -1, finest)
        largest[begin : begin + step] = groups.max(axis=2)
        # zero wraps to the largest word, so that it takes no part
        least[begin : begin + step] = (groups - words.dtype.type(1)).min(axis=2)
    least += words.dtype.type(1)  # 0: all weights of the group are zero
    for tolerance in (0, 1):
        for share in _ROW_SHARES:
            if rows % share == 0:
                found = _one_level(least.reshape(share, -1), largest.reshape(share, -1), tolerance)
                if found is not None:
                    return found if share == 1 else np.repeat(found, rows // share, axis=0)
        for width in (cols, *widths):
            each = least.reshape(-1, width // finest), largest.reshape(-1, width // finest)
            found = _one_level(*each, tolerance)
            if found is not None:
                return found.reshape(rows, -1)
    return None


def _one_level(least: Words, largest: Words, tolerance: int) -> Words | None:
    """The magnitude [n, 1] of each of n sets whose extremes are given; None when one has two."""
    most: Words = largest.max(axis=1)
    one = least.dtype.type(1)
    smallest = (least - one).min(axis=1) + one
    smallest = np.where(most == 0, most, smallest)
    return most[:, None] if np.all(most - smallest <= tolerance) else None
