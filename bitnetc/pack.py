"""Plan x Model -> the bytes of weights.bin, one tensor in memory at a time.

`slots` says where each tensor will lie, from shapes alone; `pack` yields the bytes in that order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Block, Dense, Model, Ternary
from bitnetc.plan import Group, MatrixPlan, Plan
from bitnetc.reference import rope_table
from bitnetc.tokenizer.tables import compile_tables

ALIGN = 64
_CHUNK_ROWS = 2**24  # bytes of a dense matrix handed on at a time


@dataclass(frozen=True)
class Slot:
    """A tensor's place in weights.bin."""

    name: str  # "wq", "attn_norm", "wq_scale", "embedding", ...
    block: int | None  # None for what is not part of a block
    offset: int  # multiple of ALIGN
    bytes: int
    layout: str  # of codes; else the element type
    shape: tuple[int, ...]  # as stored


def slots(plan: Plan, model: Model) -> list[Slot]:
    """Every tensor in file order; equal inputs give equal places."""
    found: list[Slot] = []
    end = 0
    for name, block, layout, shape, size in _tensors(plan, model):
        found.append(Slot(name, block, end, size, layout, shape))
        end = -(-(end + size) // ALIGN) * ALIGN
    return found


def pack(plan: Plan, model: Model) -> Iterator[tuple[Slot, Iterator[bytes]]]:
    """Each slot with its bytes, in chunks whose lengths add up to slot.bytes."""
    for slot in slots(plan, model):
        yield slot, _content(slot, plan, model)


def _tensors(
    plan: Plan, model: Model
) -> Iterator[tuple[str, int | None, str, tuple[int, ...], int]]:
    shape = model.shape
    yield "rope", None, "f32", (plan.context, shape.head_dim), plan.context * shape.head_dim * 4
    for group in plan.groups:
        for i in range(group.first, group.last + 1):
            block = model.blocks[i]
            for name in group_fields(group, block):
                matrix = group.matrices.get(name)
                if matrix is not None:
                    padded = (matrix.padded_rows, matrix.padded_cols)
                    yield name, i, matrix.kernel.layout_name, padded, matrix.bytes
                else:
                    n = len(vector(block, name))
                    yield name, i, "f32", (n,), n * 4
    yield "final_norm", None, "f32", (shape.dim,), shape.dim * 4
    yield "embedding", None, *_dense(model.embedding)
    if not model.tied:
        yield "head", None, *_dense(model.head)


def _dense(matrix: Dense) -> tuple[str, tuple[int, ...], int]:
    size = matrix.rows * matrix.cols * matrix.bytes_per_value
    return matrix.dtype, (matrix.rows, matrix.cols), size


def group_fields(group: Group, block: Block) -> list[str]:
    """What a block of this group stores, in the order in which a step reads it."""
    names: list[str] = []
    for norm, roles in (
        ("attn_norm", ("wq", "wk", "wv")),
        ("attn_sub_norm", ("wo",)),
        ("ffn_norm", ("w_gate", "w_up")),
        ("ffn_sub_norm", ("w_down",)),
    ):
        if getattr(block, norm) is not None:
            names.append(norm)
        for role in roles:
            names += [f"{role}_scale", role]
    return names


def vector(block: Block, name: str) -> NDArray[np.float32]:
    """A norm's weights or a matrix's scale, by the name that group_fields gives it."""
    if name.endswith("_scale"):
        matrix: Ternary = getattr(block, name.removesuffix("_scale"))
        return matrix.scale
    found: NDArray[np.float32] = getattr(block, name)
    return found


def _content(slot: Slot, plan: Plan, model: Model) -> Iterator[bytes]:
    if slot.name == "rope":
        yield rope_table(plan.context, model.shape.head_dim, model.rope_theta).tobytes()
    elif slot.name == "final_norm":
        yield model.final_norm.tobytes()
    elif slot.block is None:
        yield from _dense_bytes(model.embedding if slot.name == "embedding" else model.head)
    else:
        block = model.blocks[slot.block]
        group = next(g for g in plan.groups if g.first <= slot.block <= g.last)
        matrix = group.matrices.get(slot.name)
        if matrix is None:
            yield vector(block, slot.name).tobytes()
        else:
            yield pack_matrix(matrix, getattr(block, slot.name))


def _dense_bytes(matrix: Dense) -> Iterator[bytes]:
    stored = matrix.load()
    rows = max(1, _CHUNK_ROWS // (matrix.cols * matrix.bytes_per_value))
    for start in range(0, matrix.rows, rows):
        yield np.ascontiguousarray(stored[start : start + rows]).tobytes()


def pack_matrix(plan: MatrixPlan, matrix: Ternary) -> bytes:
    """The matrix in its kernel's layout; padding is trit 0."""
    trits = matrix.load()
    if (plan.padded_rows, plan.padded_cols) != trits.shape:
        padded = np.zeros((plan.padded_rows, plan.padded_cols), np.int8)
        padded[: matrix.rows, : matrix.cols] = trits
        trits = padded
    return plan.kernel.layout.pack(trits)


def tokenizer_tables(model: Model) -> bytes:
    """The content of tokenizer.bin."""
    return compile_tables(model.tokenizer)
