"""The head as small integers: less to read for each token, at the price of other logits.

A head of 16-bit floats is two fifths of the bytes that a token of a 2-billion-weight BitNet reads.
Here each row is rounded to signed integers of 8, 6 or 4 bits with one scale, and multiplied exactly
by the int8 codes of the last state, as ternary matrices are. Screened, a ternary matrix that is
close to the integers of 8 bits says which rows of them may matter. docs/arithmetic.md, rule 9.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Dense, Integers, Model, Screen, Ternary, Trits, to_float32

# --head -> bits of an integer
HEADS = {"exact": 0, "int8": 8, "int6": 6, "int4": 4, "screened": 8}
_ROWS = 4096  # rounded at a time
# Shares of a row's largest magnitude that may become the largest integer: what is beyond is
# clipped, and the rest is finer. Eight bits and six are fine enough as they are.
_SHARES = {8: (1.0,), 6: (1.0,), 4: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)}


def with_integer_head(model: Model, name: str) -> Model:
    """The model with the head that --head `name` asks for: integers beside its own, or its own."""
    integers = integer_head(model.head, name)
    if not integers:
        return model
    unlikely = ", those of unlikely tokens from trits" if integers.screen else ""
    note = (
        f"logits come from a head of {integers.bits}-bit integers{unlikely}: --head exact keeps "
        "the checkpoint's own"
    )
    return replace(model, integer_head=integers, notes=(*model.notes, note))


def integer_head(head: Dense | Ternary, name: str) -> Integers | None:
    """The head as integers; None for "exact"."""
    bits = HEADS[name]
    if not bits:
        return None
    scale = np.empty(head.rows, np.float32)
    rounded = np.empty((head.rows, head.cols), np.int8)
    stored = head.load()
    for start in range(0, head.rows, _ROWS):
        rows = slice(start, start + _ROWS)
        scale[rows], rounded[rows] = _round(_floats(head, stored, rows), bits)
    screen = screen_of(rounded, scale) if name == "screened" else None
    return Integers(head.rows, head.cols, bits, scale, lambda: rounded, screen)


def screen_of(integers: NDArray[np.int8], scale: NDArray[np.float32]) -> Screen:
    """The ternary matrix closest to integers c of 8 bits times scale, row by row.

    Trits are the signs of the n largest magnitudes, of which S is the sum: those of the n that
    makes S^2 / n largest leave the least squared error. Their scale is u = sum of c^2 / S rather
    than S / n, which would leave it: then the error u t - c is orthogonal to c, so that the rough
    logit of a row that the state points to is as large as the exact one, and not a fifth smaller.
    """
    rows, cols = integers.shape
    level = np.arange(128)
    least = np.empty(rows, np.int8)  # the smallest magnitude whose trit is not 0
    factor, error = np.zeros(rows), np.zeros(rows)
    for start in range(0, rows, _ROWS):
        magnitude = np.abs(integers[start : start + _ROWS].astype(np.int16))
        of = slice(start, start + len(magnitude))
        keys = magnitude + (128 * np.arange(len(magnitude)))[:, None]
        counts = np.bincount(keys.reshape(-1), minlength=128 * len(magnitude)).reshape(-1, 128)
        square = (counts * level**2).sum(axis=1).astype(np.float64)
        # From each magnitude up to the largest: how many, and their sum.
        n = counts[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
        s = (counts * level)[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)
        best = 1 + (s * s / np.maximum(n, 1))[:, 1:].argmax(axis=1)
        each = np.arange(len(magnitude))
        n, s = n[each, best], s[each, best]
        least[of] = best
        np.divide(square, s, out=factor[of], where=s > 0)
        error[of] = np.sqrt(np.maximum(factor[of] ** 2 * n - square, 0) / cols)

    def trits() -> Trits:
        found = (integers >= least[:, None]).astype(np.int8)
        found -= integers <= -least[:, None]
        return found

    wide = scale.astype(np.float64)
    return Screen(
        Ternary(rows, cols, (wide * factor).astype(np.float32), trits),
        (wide * error).astype(np.float32),
    )


def _floats(head: Dense | Ternary, stored: NDArray[np.generic], rows: slice) -> NDArray[np.float32]:
    part = stored[rows]
    if isinstance(head, Dense):
        return to_float32(part, head.dtype)
    scale = np.broadcast_to(head.scale.reshape(-1, head.groups), (head.rows, head.groups))[rows]
    wide: NDArray[np.float32] = part.astype(np.float32) * np.repeat(
        scale, head.cols // head.groups, axis=1
    )
    return wide


def _round(rows: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The scale and integers of each row, of the share that leaves the least squared error."""
    most = np.float32(2 ** (bits - 1) - 1)
    largest = np.abs(rows).max(axis=1)
    best = np.full(len(rows), np.inf, np.float32)
    scale = np.zeros(len(rows), np.float32)
    integers = np.zeros(rows.shape, np.int8)
    for share in _SHARES[bits]:
        step = np.maximum(largest * np.float32(share) / most, np.float32(1e-30))
        trial = np.clip(np.rint(rows / step[:, None]), -most, most)
        error = np.square(rows - trial * step[:, None]).sum(axis=1)
        better = error < best
        best[better], scale[better] = error[better], step[better]
        integers[better] = trial[better].astype(np.int8)
    return scale, integers
