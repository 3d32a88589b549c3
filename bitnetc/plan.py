"""Model x Target -> Plan: every choice is made here, and is visible in plan.json.

For each matrix the cheapest kernel that fits wins (cost.py); the others are kept with the reason
they lost. Identical blocks form one group and become one C function. Padding happens here, once.
"""

from dataclasses import dataclass
from typing import Any

from bitnetc.cost import MatrixCost, matrix_cost
from bitnetc.errors import BitnetcError
from bitnetc.kernels import Kernel
from bitnetc.memory import Memory, memory_plan
from bitnetc.model import Block, Model, Shape, Ternary
from bitnetc.target import Target

BATCH = 64  # tokens of a prompt that go through a block together
MAX_TILE = 64  # rows: a tile's int32 sums for a batch stay in L1 beside the weights
MIN_TILES = 16  # so that a few threads share a matrix evenly
MAX_THREADS = 64  # runtime_c/bnc_threads.h
MAX_HEAD_DIM = 512  # runtime_c/bnc_attention.h

# attribute of Block -> how many matrices read the same input
ROLES = {"wq": 3, "wk": 3, "wv": 3, "wo": 1, "w_gate": 2, "w_up": 2, "w_down": 1}


@dataclass(frozen=True)
class Candidate:
    kernel: Kernel
    rows: int  # padded
    cols: int  # padded
    cost: MatrixCost | None  # None when the kernel does not fit
    reason: str  # why it lost; empty for the winner


@dataclass(frozen=True)
class MatrixPlan:
    role: str
    rows: int
    cols: int
    per_row: bool  # weight scale per row
    kernel: Kernel
    padded_rows: int  # whole tiles
    padded_cols: int  # whole blocks
    tile: int  # rows computed at a time
    cost: MatrixCost
    rejected: tuple[Candidate, ...]

    @property
    def bytes(self) -> int:
        return self.kernel.layout.packed_bytes(self.padded_rows, self.padded_cols)

    @property
    def tile_bytes(self) -> int:
        return self.kernel.layout.packed_bytes(self.tile, self.padded_cols)


@dataclass(frozen=True)
class Group:
    """Blocks first..last: one shape, one plan, one C function."""

    first: int
    last: int
    matrices: dict[str, MatrixPlan]  # by role, in ROLES' order


@dataclass(frozen=True)
class Plan:
    target: Target
    shape: Shape
    context: int  # the most positions the program can hold
    batch: int
    groups: tuple[Group, ...]
    stride: int  # columns between two quantised tokens
    lut: bool  # some kernel reads look-up tables
    memory: Memory

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels in use, sorted by name."""
        used = {m.kernel.name: m.kernel for g in self.groups for m in g.matrices.values()}
        return [used[name] for name in sorted(used)]

    @property
    def ternary_bytes(self) -> int:
        """Packed ternary bytes that one decoded token reads."""
        return sum(
            (g.last - g.first + 1) * sum(m.bytes for m in g.matrices.values()) for g in self.groups
        )


def plan(model: Model, target: Target, context: int | None = None, batch: int = BATCH) -> Plan:
    """Chooses kernel, tile and padding for every matrix, and places every buffer.

    context: positions to compile for, by default what the model was made for.
    Raises BitnetcError when no kernel fits a matrix or the model exceeds a limit.
    """
    context = context or model.shape.context
    if not 1 <= context <= model.shape.context:
        raise BitnetcError(
            "--context",
            f"{context} positions asked, the model was made for {model.shape.context}",
            "ask for fewer",
        )
    if model.shape.head_dim > MAX_HEAD_DIM:
        raise BitnetcError(
            "config.json: head_dim",
            f"{model.shape.head_dim} is above the limit of {MAX_HEAD_DIM}",
        )
    groups = _groups(model, target)
    matrices = [m for g in groups for m in g.matrices.values()]
    stride = max(m.padded_cols for m in matrices)
    lut = any(m.kernel.activation == "lut16" for m in matrices)
    memory = memory_plan(model.shape, batch, stride, lut, max(m.tile for m in matrices))
    decided = Plan(target, model.shape, context, batch, groups, stride, lut, memory)
    _refuse_too_large(decided, model)
    return decided


def _refuse_too_large(p: Plan, model: Model) -> None:
    """With addresses of 32 bits, weights and arena together must stay below 2^31 bytes: no size or
    difference of pointers then wraps around."""
    matrices = (model.head,) if model.tied else (model.head, model.embedding)
    dense = sum(m.rows * m.cols * m.bytes_per_value for m in matrices)
    arena = p.memory.arena_bytes(p.context, MAX_THREADS if p.target.threads else 1)
    total = p.ternary_bytes + dense + arena
    if p.target.narrow and total >= 2**31:
        raise BitnetcError(
            "--context",
            f"weights and memory for {p.context} positions are {total / 1e9:.1f} GB, and "
            f"{p.target.name} addresses 2.1 GB",
            "ask for fewer positions, or compile for a 64-bit target",
        )


def _groups(model: Model, target: Target) -> tuple[Group, ...]:
    groups: list[Group] = []
    for i, block in enumerate(model.blocks):
        matrices = _block_plan(block, target)
        if groups and groups[-1].matrices == matrices:
            groups[-1] = Group(groups[-1].first, i, matrices)
        else:
            groups.append(Group(i, i, matrices))
    return tuple(groups)


def _block_plan(block: Block, target: Target) -> dict[str, MatrixPlan]:
    found = {role: _matrix_plan(role, getattr(block, role), target) for role in ROLES}
    # The gate's and the up-projection's tiles are finished together, so they are equally tall.
    gate, up = found["w_gate"], found["w_up"]
    if gate.tile != up.tile:
        raise BitnetcError("plan", f"w_gate has tiles of {gate.tile} rows, w_up of {up.tile}")
    return found


def _matrix_plan(role: str, matrix: Ternary, target: Target) -> MatrixPlan:
    candidates = [_candidate(role, matrix, kernel, target) for kernel in target.kernels]
    fitting = [c for c in candidates if c.cost]
    if not fitting:
        raise BitnetcError(
            f"{target.file}: kernels.matmul",
            f"no kernel fits {role}, {matrix.rows} x {matrix.cols}: "
            + "; ".join(f"{c.kernel.name} {c.reason}" for c in candidates),
        )
    best = min(fitting, key=lambda c: c.cost.cycles if c.cost else 0.0)
    assert best.cost
    return MatrixPlan(
        role=role,
        rows=matrix.rows,
        cols=matrix.cols,
        per_row=len(matrix.scale) > 1,
        kernel=best.kernel,
        padded_rows=best.rows,
        padded_cols=best.cols,
        tile=_tile(best.kernel, matrix.rows),
        cost=best.cost,
        rejected=tuple(_lost(c, best) for c in candidates if c is not best),
    )


def _tile(kernel: Kernel, rows: int) -> int:
    """Whole blocks, at most MAX_TILE rows, and MIN_TILES of them when the matrix is that tall."""
    step = kernel.layout.rows
    return step * max(1, min(MAX_TILE // step, rows // (step * MIN_TILES)))


def _candidate(role: str, matrix: Ternary, kernel: Kernel, target: Target) -> Candidate:
    tile = _tile(kernel, matrix.rows)
    rows = -(-matrix.rows // tile) * tile
    cols = kernel.layout.pad(1, matrix.cols)[1]
    if cols > kernel.max_cols:
        reason = f"holds {kernel.max_cols:,} columns at most without overflow"
        return Candidate(kernel, rows, cols, None, reason)
    cost = matrix_cost(kernel, rows, cols, ROLES[role], target.cost)
    return Candidate(kernel, rows, cols, cost, "")


def _lost(candidate: Candidate, best: Candidate) -> Candidate:
    mine, won = candidate.cost, best.cost
    if mine is None or won is None:
        return candidate
    bound = "arithmetic" if mine.compute >= mine.memory else "memory"
    reason = f"{mine.cycles / won.cycles:.2f}x the cycles, bound by {bound}"
    if mine.tables >= 0.01 * mine.cycles:
        reason += f", tables are {100 * mine.tables / mine.cycles:.0f} % of it"
    return Candidate(candidate.kernel, candidate.rows, candidate.cols, mine, reason)


def plan_json(p: Plan, model: Model) -> dict[str, Any]:
    """The plan as plan.json states it."""
    return {
        "target": p.target.name,
        "model": {"name": model.name, "family": model.family, **vars(p.shape)},
        "context": p.context,
        "batch": p.batch,
        "groups": [
            {
                "blocks": [g.first, g.last],
                "matrices": [_matrix_json(m) for m in g.matrices.values()],
            }
            for g in p.groups
        ],
        "head": {"rows": p.shape.vocab, "cols": p.shape.dim, "type": model.head.dtype},
        "memory": {
            "state_and_buffers": p.memory.fixed_bytes,
            "per_thread": p.memory.thread_bytes(p.context),
            "cache_per_position": p.memory.cache_bytes_per_position,
            "arena_one_thread": p.memory.arena_bytes(p.context, 1),
            "buffers": {
                name: {"offset": offset, "bytes": p.memory.buffers[name].bytes}
                for name, offset in sorted(p.memory.offsets.items(), key=lambda o: (o[1], o[0]))
            },
        },
    }


def _matrix_json(m: MatrixPlan) -> dict[str, Any]:
    return {
        "role": m.role,
        "rows": m.rows,
        "cols": m.cols,
        "kernel": m.kernel.name,
        "layout": m.kernel.layout_name,
        "activation": m.kernel.activation,
        "padded": [m.padded_rows, m.padded_cols],
        "tile": m.tile,
        "bytes": m.bytes,
        "cycles": round(m.cost.cycles),
        "scale": "per row" if m.per_row else "per tensor",
        "rejected": [
            {
                "kernel": c.kernel.name,
                "cycles": round(c.cost.cycles) if c.cost else None,
                "reason": c.reason,
            }
            for c in m.rejected
        ],
    }
