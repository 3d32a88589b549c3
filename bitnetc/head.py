"""The head as small integers: less to read for each token, at the price of other logits.

A head of 16-bit floats is two fifths of the bytes that a token of a 2-billion-weight BitNet reads.
Here each row is rounded to signed integers of 8, 6 or 4 bits with one scale, and multiplied exactly
by the int8 codes of the last state, as ternary matrices are. Screened, eight bits are stored as two
halves, and the lower one is read only for rows whose logit may matter. docs/arithmetic.md, rule 9.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Dense, Integers, Model, Ternary, to_float32

# --head -> bits of an integer
HEADS = {"exact": 0, "int8": 8, "int6": 6, "int4": 4, "screened": 8}
_ROWS = 4096  # rounded at a time
# Shares of a row's largest magnitude that may become the largest integer: what is beyond is
# clipped, and the rest is finer. Eight bits and six are fine enough as they are.
_SHARES = {8: (1.0,), 6: (1.0,), 4: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)}


def with_integer_head(model: Model, name: str) -> Model:
    """The model with the head that --head `name` asks for: integers beside its own, or its own."""
    bits = HEADS[name]
    if not bits:
        return model
    head = model.head
    scale = np.empty(head.rows, np.float32)
    rounded = np.empty((head.rows, head.cols), np.int8)
    stored = head.load()
    for start in range(0, head.rows, _ROWS):
        rows = slice(start, start + _ROWS)
        scale[rows], rounded[rows] = _round(_floats(head, stored, rows), bits)
    integers = Integers(head.rows, head.cols, bits, scale, lambda: rounded, name == "screened")
    note = (
        f"logits come from a head of {bits}-bit integers: --head exact keeps the checkpoint's own"
    )
    return replace(model, integer_head=integers, notes=(*model.notes, note))


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
