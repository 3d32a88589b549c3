"""Model -> Model without the feed-forward units that are zero for every input.

A unit is a row of w_gate and of w_up and a column of w_down. Where its row of w_gate or of w_up is
zero, so is act(gate) * up: it adds nothing to a norm's sum of squares, its code is 0, and the
column of w_down multiplies that. Logits keep every bit:

- a norm over the units divides by as many as there were (Model.ffn_units), and each unit stays in
  its lane of sixteen (docs/arithmetic.md, rule 2), in the order in which it was;
- without a norm before w_down, order means nothing: codes need the largest magnitude, and sums of
  integers are exact.

All blocks keep one width, that of the block which keeps most; shorter ones end in zero rows.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Block, Model, Ternary, Trits

LANES = 16
_FINITE = 1e36  # a product of the activation and of up below it is no infinity


def prune(model: Model) -> Model:
    """The model itself where nothing can go. Reads w_gate and w_up of all blocks."""
    if model.float_activations or not all(_prunable(model, block) for block in model.blocks):
        return model
    normed = model.blocks[0].ffn_sub_norm is not None
    lanes = LANES if normed else 1
    kept = []
    for block in model.blocks:
        units = np.flatnonzero(_alive(block))
        kept.append([units[units % lanes == lane] for lane in range(lanes)])
    width = max(1, *(len(lane) for block in kept for lane in block)) * lanes
    if width >= model.shape.ffn_dim:
        return model
    blocks = tuple(
        _narrowed(block, _order(lanes_of, width))
        for block, lanes_of in zip(model.blocks, kept, strict=True)
    )
    return replace(
        model,
        shape=replace(model.shape, ffn_dim=width),
        blocks=blocks,
        ffn_units=model.ffn_units or model.shape.ffn_dim,
        notes=(*model.notes, _note(model.shape.ffn_dim, width)),
    )


def _note(units: int, width: int) -> str:
    return f"feed-forward units that are always zero were left out: {width} of {units} are kept"


def _prunable(model: Model, block: Block) -> bool:
    """Whether a unit of zeros is zero: ternary matrices of int8, and no factor that overflows."""
    gate, up = block.w_gate, block.w_up
    if not all(isinstance(m, Ternary) for m in (gate, up, block.w_down)):
        return False
    if model.static_activations:
        return False  # a given scale of the input has no bound
    if model.activations != "int8":
        return False  # the sign of zero is +1, and a mean counts it
    for matrix, norm in ((gate, block.w_gate_norm), (up, block.w_up_norm)):
        assert isinstance(matrix, Ternary)
        weight = float(np.abs(block.ffn_norm if norm is None else norm).max())
        # After a norm |x| <= sqrt(cols) * weight, which is 127 of the codes' steps at most.
        most = float(np.abs(matrix.scale).max()) * math.sqrt(matrix.cols) * weight * matrix.cols
        if not most**2 < _FINITE:
            return False
    return True


def _alive(block: Block) -> NDArray[np.bool_]:
    """Units of which neither row is zero."""
    gate, up = block.w_gate.load(), block.w_up.load()
    return np.asarray(gate.any(axis=1) & up.any(axis=1))


def _order(lanes: list[NDArray[np.int64]], width: int) -> NDArray[np.int64]:
    """Which unit stands at each of `width` places, -1 for none: every lane in its order."""
    order = np.full((width // len(lanes), len(lanes)), -1, np.int64)
    for lane, units in enumerate(lanes):
        order[: len(units), lane] = units
    return order.reshape(-1)


def _narrowed(block: Block, order: NDArray[np.int64]) -> Block:
    gate, up, down = block.w_gate, block.w_up, block.w_down
    assert isinstance(gate, Ternary) and isinstance(up, Ternary) and isinstance(down, Ternary)
    norm = block.ffn_sub_norm
    return replace(
        block,
        w_gate=_rows(gate, order),
        w_up=_rows(up, order),
        w_down=_columns(down, order),
        ffn_sub_norm=None if norm is None else np.where(order < 0, np.float32(0), norm[order]),
    )


def _rows(matrix: Ternary, order: NDArray[np.int64]) -> Ternary:
    def load() -> Trits:
        return matrix.load()[order] * (order >= 0).astype(np.int8)[:, None]

    scale = matrix.scale
    if len(scale) > 1:
        scale = np.where(order < 0, np.float32(1), scale[order])
    return replace(matrix, rows=len(order), scale=scale, load=load)


def _columns(matrix: Ternary, order: NDArray[np.int64]) -> Ternary:
    def load() -> Trits:
        return matrix.load()[:, order] * (order >= 0).astype(np.int8)

    return replace(matrix, cols=len(order), load=load)
