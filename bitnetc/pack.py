"""Plan x Model -> the bytes of weights.bin, one tensor in memory at a time.

`slots` says where each tensor will lie, from shapes alone; `pack` yields the bytes in that order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnetc import bf12
from bitnetc.model import ROLES, Block, Dense, Integers, Model, Ternary
from bitnetc.plan import TRITS, FloatPlan, Group, MatrixPlan, Plan
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
    for name in rope_names(model):
        yield name, None, "f32", (plan.context, shape.head_dim), plan.context * shape.head_dim * 4
    for group in plan.groups:
        for i in range(group.first, group.last + 1):
            block = model.blocks[i]
            for name in group_fields(group, block):
                matrix = group.matrices.get(name)
                if matrix is not None:
                    padded = (matrix.padded_rows, matrix.padded_cols)
                    yield name, i, matrix.kernel.layout_name, padded, matrix.bytes
                elif name in group.floats:
                    yield name, i, *_stored(group.floats[name])
                else:
                    found = vector(block, name)
                    yield name, i, "f32", found.shape, found.nbytes
    yield "final_norm", None, "f32", (shape.dim,), shape.dim * 4
    for name, end, stored in _ends(plan, model):
        if isinstance(end, Ternary):
            yield f"{name}_scale", None, "f32", end.scale.shape, end.scale.nbytes
        yield name, None, *_stored(stored)
    if plan.head and model.integer_head:
        yield "head_scale", None, "f32", (shape.vocab,), shape.vocab * 4
        if plan.screened:
            yield "head_error", None, "f32", (shape.vocab,), shape.vocab * 4
        padded = (plan.head.padded_rows, plan.head.padded_cols)
        yield "head", None, plan.head.kernel.layout_name, padded, plan.head.bytes
        if plan.screened:
            size = shape.vocab * plan.exact_stride
            yield "head_exact_scale", None, "f32", (shape.vocab,), shape.vocab * 4
            yield "head_exact", None, "int8", (shape.vocab, plan.exact_stride), size


def rope_names(model: Model) -> list[str]:
    """Names of the RoPE tables, in the order of Model.ropes."""
    return ["rope", *(f"rope_{i}" for i in range(1, len(model.ropes)))]


def _ends(plan: Plan, model: Model) -> list[tuple[str, Ternary | Dense, FloatPlan]]:
    own = not model.tied and model.integer_head is None
    ends = [("embedding", model.embedding, plan.embedding)]
    return [*ends, ("head", model.head, plan.own_head)] if own else ends


def _stored(plan: FloatPlan) -> tuple[str, tuple[int, ...], int]:
    return TRITS.name if plan.dtype == "trits" else plan.dtype, plan.shape, plan.bytes


def group_fields(group: Group, block: Block) -> list[str]:
    """What a block of this group stores, in the order in which a step reads it."""
    names: list[str] = []
    for name in _FIELDS:
        if name not in ROLES:
            if getattr(block, name) is not None:
                names.append(name)
            continue
        if isinstance(getattr(block, name), Ternary | Integers):
            names.append(f"{name}_scale")
        names.append(name)
    return names


_FIELDS = (
    "attn_norm", "wq_norm", "wk_norm", "wv_norm", "wq_input", "wk_input", "wv_input", "wq", "wk",
    "wv", "wq_bias", "wk_bias", "wv_bias", "q_norm", "k_norm", "attn_sub_norm", "wo_input", "wo",
    "attn_post_norm", "ffn_norm", "w_gate_norm", "w_up_norm", "w_gate_input", "w_up_input",
    "w_gate", "w_up", "ffn_sub_norm", "w_down_input", "w_down", "ffn_post_norm",
)  # fmt: skip


def vector(block: Block, name: str) -> NDArray[np.float32]:
    """A norm's weights or a matrix's scale, by the name that group_fields gives it."""
    if name.endswith("_scale"):
        matrix: Ternary | Integers = getattr(block, name.removesuffix("_scale"))
        return matrix.scale
    found: NDArray[np.float32] = getattr(block, name)
    return found


def _content(slot: Slot, plan: Plan, model: Model) -> Iterator[bytes]:
    if slot.name in rope_names(model):
        yield rope_table(plan.context, model.ropes[rope_names(model).index(slot.name)]).tobytes()
    elif slot.name == "final_norm":
        yield model.final_norm.tobytes()
    elif slot.name.startswith("head") and plan.head and model.integer_head:
        yield from _head_bytes(slot.name, plan.head, plan.exact_stride, model.integer_head)
    elif slot.block is None:
        name = slot.name.removesuffix("_scale")
        _, end, _ = next(found for found in _ends(plan, model) if found[0] == name)
        if slot.name.endswith("_scale") and isinstance(end, Ternary):
            yield end.scale.tobytes()
        elif slot.layout == "bf12" and isinstance(end, Dense):
            yield from bf12.pack(end)
        else:
            yield from _float_bytes(end)
    else:
        block = model.blocks[slot.block]
        group = next(g for g in plan.groups if g.first <= slot.block <= g.last)
        matrix = group.matrices.get(slot.name)
        if slot.name in group.floats:
            yield from _float_bytes(getattr(block, slot.name))
        elif matrix is None:
            yield vector(block, slot.name).tobytes()
        else:
            yield pack_matrix(matrix, getattr(block, slot.name))


def _float_bytes(matrix: Ternary | Dense) -> Iterator[bytes]:
    """A matrix that reads floats: as it is stored, or trits in the layout for them."""
    stored = matrix.load()
    if isinstance(matrix, Ternary):
        rows = max(1, _CHUNK_ROWS // matrix.cols)
        for start in range(0, matrix.rows, rows):
            part = stored[start : start + rows].astype(np.int8, copy=False)
            padded = np.zeros(TRITS.pad(*part.shape), np.int8)
            padded[:, : matrix.cols] = part
            yield TRITS.pack(padded)
        return
    rows = max(1, _CHUNK_ROWS // (matrix.cols * matrix.bytes_per_value))
    for start in range(0, matrix.rows, rows):
        yield np.ascontiguousarray(stored[start : start + rows]).tobytes()


def _head_bytes(name: str, plan: MatrixPlan, stride: int, head: Integers) -> Iterator[bytes]:
    """A tensor of a head of integers; of a screened one, head and head_scale are the ternary one's,
    and rows of the integers are `stride` bytes."""
    screen = head.screen
    if name == "head":
        yield from _row_blocks(plan, screen.trits if screen else head)
    elif name == "head_exact":
        yield from _rows_of(head, stride)
    elif name == "head_error" and screen:
        yield screen.error.tobytes()
    elif name == "head_scale" and screen:
        yield screen.trits.scale.tobytes()
    else:
        yield head.scale.tobytes()


def _rows_of(matrix: Integers, stride: int) -> Iterator[bytes]:
    """Rows of int8, each padded to `stride`."""
    values = matrix.load()
    step = max(1, _CHUNK_ROWS // stride)
    for start in range(0, matrix.rows, step):
        kept = values[start : start + step]
        part = np.zeros((len(kept), stride), np.int8)
        part[:, : matrix.cols] = kept
        yield part.tobytes()


def _row_blocks(plan: MatrixPlan, matrix: Integers | Ternary) -> Iterator[bytes]:
    """A tall matrix packed some tiles at a time: every layout is in order of its blocks of rows."""
    values = matrix.load()
    step = max(1, _CHUNK_ROWS // (plan.tile * plan.padded_cols)) * plan.tile
    for start in range(0, plan.padded_rows, step):
        rows = min(step, plan.padded_rows - start)
        part = np.zeros((rows, plan.padded_cols), np.int8)
        kept = values[start : start + rows]
        part[: len(kept), : matrix.cols] = kept
        yield plan.kernel.layout.pack(part)


def pack_matrix(plan: MatrixPlan, matrix: Ternary | Integers) -> bytes:
    """The matrix in its kernel's layout; padding is 0."""
    trits = matrix.load()
    if (plan.padded_rows, plan.padded_cols) != trits.shape:
        padded = np.zeros((plan.padded_rows, plan.padded_cols), np.int8)
        padded[: matrix.rows, : matrix.cols] = trits
        trits = padded
    return plan.kernel.layout.pack(trits)


def tokenizer_tables(model: Model) -> bytes:
    """The content of tokenizer.bin."""
    return compile_tables(model.tokenizer)
