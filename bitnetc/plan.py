"""Model x Target -> Plan: every choice is made here, and is visible in plan.json.

For each matrix the cheapest kernel that fits wins (cost.py); the others are kept with the reason
they lost. Identical blocks form one group and become one C function. Padding happens here, once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitnetc import bf12
from bitnetc.cost import MatrixCost, matrix_cost
from bitnetc.errors import BitnetcError
from bitnetc.kernels import Kernel, Skips
from bitnetc.layout import LAYOUTS
from bitnetc.memory import HEADS_TOGETHER, LANES, Graph, Memory, memory_plan
from bitnetc.model import ROLES, Dense, Integers, Model, Shape, Ternary
from bitnetc.target import Target, shareable

# Stack of the kernels that unpack a tile of weights to it, a fifth more than was measured at least;
# for all others 16 KiB is enough.
_KERNEL_STACK = {
    "amx": 131072,
    "avx512vbmi": 65536,
    "avx512vnni": 65536,
    "avxvnni": 49152,
    "avx2": 32768,
    "neoni8mm": 24576,
}
# What of a matrix matters for one token where the gate's activation is ReLU^2: rows of w_up whose
# gate is not zero, half by the sign alone; columns of w_down whose code is not zero. The makers of
# BitNet b1.58 2B4T report less than a fifth of the latter. Few plans depend on it, see
# docs/performance.md; for those a model says its own (Model.zeros).
Density = Mapping[Skips, float]
RELU2_DENSITY: dict[str, Density] = {"w_up": {"rows": 0.5}, "w_down": {"columns": 0.4}}
MAX_TILE = 64  # rows: beside them, what surrounds a call of a kernel for one token is nothing
STREAMS = 4  # blocks of rows that a kernel for one token reads at once: runtime_c/bnc_streams.h
MAX_STREAMED = 128  # rows of a tile that is taller for their sake
MIN_TILES = 16  # so that a few threads share a matrix evenly
MAX_THREADS = 64  # runtime_c/bnc_threads.h
MAX_HEAD_DIM = 512  # runtime_c/bnc_attention.h
SCREEN_WORDS, SCREEN_COLS = 130, 133_144  # runtime_c/bnc_screen.h: a list, and the bound of a sum

# role -> how many matrices read the same input
SHARERS = {"wq": 3, "wk": 3, "wv": 3, "wo": 1, "w_gate": 2, "w_up": 2, "w_down": 1}


@dataclass(frozen=True)
class Candidate:
    kernel: Kernel
    rows: int  # padded
    cols: int  # padded
    cost: MatrixCost | None  # None when the kernel does not fit
    reason: str  # why it lost; empty for the winner
    variants: tuple["VariantPlan", ...] = ()  # of a target with variants; kernel is the first's

    @property
    def cycles(self) -> float:
        """What candidates are compared by: the mean over the variants, where there are some."""
        costs = [v.cost for v in self.variants] if self.variants else [self.cost]
        return sum(c.choice if c else 0.0 for c in costs) / len(costs)


@dataclass(frozen=True)
class VariantPlan:
    """One CPU's kernel for a layout that all variants of a target read."""

    target: str
    kernel: Kernel
    cost: MatrixCost


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
    variants: tuple[VariantPlan, ...] = ()  # in the order of target.variants
    density: float = 1.0  # the share that one token is expected to read
    tiles_before: int = 0  # in a list of tiles that threads share out as one, see _one_list()
    tiles_listed: int = 0  # 0: this matrix is shared out by itself
    slice: int = 0  # rows of a tile computed at a time for several tokens; 0: all, see slice_rows()

    @property
    def bytes(self) -> int:
        return self.kernel.layout.packed_bytes(self.padded_rows, self.padded_cols)

    @property
    def chosen(self) -> bool:
        """Whether one token reads chosen rows only."""
        return self._skips("rows")

    @property
    def together(self) -> int:
        """Tiles of one token that a call of the kernel computes where it lists columns, which it
        does once for all of them; 0: one."""
        return self.padded_rows // self.tile if self._skips("columns") else 0

    @property
    def kernels(self) -> list[Kernel]:
        """One for each variant."""
        return [v.kernel for v in self.variants] or [self.kernel]

    def _skips(self, what: Skips) -> bool:
        return self.density < 1 and all(k.skips == what for k in self.kernels)

    @property
    def tile_bytes(self) -> int:
        return self.kernel.layout.packed_bytes(self.tile, self.padded_cols)

    def sums(self, batch: int) -> int:
        """The most int32 sums of one tile, or of a slice of it for several tokens, or of the tiles
        computed together for one."""
        return max(self.tile * max(1, self.together), (self.slice or self.tile) * batch)


TRITS = LAYOUTS["i2_k64"]  # what runtime_c/bnc_float_linear.h reads


@dataclass(frozen=True)
class FloatPlan:
    """A matrix that reads floats: runtime_c/bnc_float_linear.h."""

    role: str
    rows: int
    cols: int
    dtype: str  # "trits", a DenseType, or "bf12"
    groups: int  # of trits: scales in a row; 0: one for the matrix
    escapes: int = 0  # of bf12

    @property
    def shape(self) -> tuple[int, int]:
        """As stored: trits and bf12 in whole blocks of columns."""
        if self.dtype == "bf12":
            return self.rows, bf12.padded_cols(self.cols)
        return TRITS.pad(self.rows, self.cols) if self.dtype == "trits" else (self.rows, self.cols)

    @property
    def bytes(self) -> int:
        if self.dtype == "trits":
            return TRITS.packed_bytes(*self.shape)
        if self.dtype == "bf12":
            return bf12.packed_bytes(self.rows, self.cols, self.escapes)
        return self.rows * self.cols * (4 if self.dtype == "f32" else 2)


def float_plan(role: str, matrix: Ternary | Dense) -> FloatPlan:
    """Decides nothing: one portable loop serves all targets, with the same bits."""
    if isinstance(matrix, Dense):
        return FloatPlan(role, matrix.rows, matrix.cols, matrix.dtype, 0)
    groups = matrix.groups if len(matrix.scale) > 1 else 0
    return FloatPlan(role, matrix.rows, matrix.cols, "trits", groups)


def end_plan(role: str, matrix: Ternary | Dense, fast: bool) -> FloatPlan:
    """Of the embedding or the checkpoint's own head: bfloat16 takes twelve bits a weight without
    loss, where that is smaller and `fast`."""
    plain = float_plan(role, matrix)
    if fast and isinstance(matrix, Dense) and matrix.frequent and bf12.pays(matrix):
        return replace(plain, dtype="bf12", escapes=matrix.frequent.escapes)
    return plain


@dataclass(frozen=True)
class Group:
    """Blocks first..last: one shape, one plan, one C function."""

    first: int
    last: int
    matrices: dict[str, MatrixPlan]  # by role, in ROLES' order: those that read int8
    floats: dict[str, FloatPlan]  # the others


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
    embedding: FloatPlan
    own_head: FloatPlan  # the checkpoint's; the embedding's where they are tied
    head: MatrixPlan | None = None  # of integers; None: the checkpoint's own head
    screened: bool = False  # head is a ternary one; integers of 8 bits lie beside it
    bits: bool = False  # some kernel reads planes of bits

    @property
    def exact_stride(self) -> int:
        """Bytes of a row of a screened head's integers; 0 where there are none."""
        return _aligned(self.shape.dim) if self.screened else 0

    @property
    def head_bytes(self) -> int:
        """What a head of integers takes, its scales left out; 0 where there is none."""
        return self.head.bytes + self.head.rows * self.exact_stride if self.head else 0

    @property
    def head_read_bytes(self) -> int:
        """What every token reads of it, with the scales; of a screened head rows come to that."""
        if not self.head:
            return 0
        return self.head.bytes + 4 * self.head.rows * (2 if self.screened else 1)

    @property
    def counts_exact(self) -> bool:
        """Whether programs can count the rows that a screened head reads."""
        return self.screened and not self.target.firmware

    @property
    def inputs(self) -> int:
        """Inputs that the matrices of one phase have: more than one where each has a norm."""
        return self.memory.inputs

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels in use, sorted by name."""
        matrices = self._matrices
        used = {m.kernel.name: m.kernel for m in matrices}
        used |= {v.kernel.name: v.kernel for m in matrices for v in m.variants}
        return [used[name] for name in sorted(used)]

    @property
    def slices(self) -> list[int]:
        """Heights of slices, the lowest first; none where no tile is cut."""
        return sorted({m.slice for m in self._matrices} - {0})

    def variant_kernels(self, variant: int) -> list[Kernel]:
        """The kernels of target.variants[variant], one for each layout in use, sorted by name."""
        matrices = self._matrices
        used = {m.variants[variant].kernel.name: m.variants[variant].kernel for m in matrices}
        return [used[name] for name in sorted(used)]

    @property
    def _matrices(self) -> list[MatrixPlan]:
        found = [m for g in self.groups for m in g.matrices.values()]
        return [*found, self.head] if self.head else found

    @property
    def stack_bytes(self) -> int:
        """Stack that a call of the library takes at most on each thread, when it is compiled with
        optimisation: what was measured (tests/e2e/test_targets.py), and a margin. Attention's
        queries and sums are the part that depends on the model.
        """
        if self.target.firmware:
            return self.target.firmware.stack
        most = max((_KERNEL_STACK.get(k.isa, 16384) for k in self.kernels), default=16384)
        heads = HEADS_TOGETHER * 4 * -(-self.shape.head_dim // LANES) * LANES
        return most + 3 * heads

    @property
    def counts_zeros(self) -> bool:
        """Whether programs can count what is not read: some matrix skips something, and there is
        someone to ask for it."""
        skipping = (m for m in self._matrices if m.density < 1)
        return any(skipping) and not self.target.firmware

    def skipped_bytes(self, skips: Skips) -> int:
        """Bytes of the matrices of which one token reads the rows, or columns, that matter."""
        return sum(
            (g.last - g.first + 1) * m.bytes
            for g in self.groups
            for m in g.matrices.values()
            if m.density < 1 and m.kernel.skips == skips
        )

    @property
    def ternary_bytes(self) -> int:
        """Packed ternary bytes that one decoded token reads."""
        sizes = [
            (g, [m.bytes for m in g.matrices.values()] + [f.bytes for f in g.floats.values()])
            for g in self.groups
        ]
        return sum((g.last - g.first + 1) * sum(each) for g, each in sizes)


def plan(
    model: Model, target: Target, context: int | None = None, batch: int | None = None
) -> Plan:
    """Chooses kernel, tile and padding for every matrix, and places every buffer.

    context: positions to compile for, by default what the model was made for.
    batch: the most tokens in one step, by default the target's.
    Raises BitnetcError when no kernel fits a matrix or the model exceeds a limit.
    """
    context = model.shape.context if context is None else context
    batch = target.batch if batch is None else batch
    if batch < 1:
        raise BitnetcError("--max-batch", f"{batch} is not a number of tokens")
    if not 1 <= context <= model.shape.context:
        raise BitnetcError(
            "--context",
            f"{context} positions asked, the model was made for {model.shape.context}",
            f"ask for 1 to {model.shape.context}",
        )
    if model.shape.head_dim > MAX_HEAD_DIM:
        raise BitnetcError(
            "config.json: head_dim",
            f"{model.shape.head_dim} is above the limit of {MAX_HEAD_DIM}",
        )
    groups = _groups(model, target, batch)
    matrices = [m for g in groups for m in g.matrices.values()]
    head = _head_plan(model.integer_head, target, batch) if model.integer_head else None
    screened = model.integer_head is not None and model.integer_head.screen is not None
    if head:
        matrices.append(head)
    stride = max((m.padded_cols for m in matrices), default=0)
    if screened:
        stride = max(stride, _aligned(model.shape.dim))
    lut = any(m.kernel.activation == "lut16" for m in matrices)
    bits = any(k.activation == "bits" for m in matrices for k in m.kernels)
    sums = _sums(groups, head, batch, screened)
    graph = _graph(model, groups)
    if stride:  # where some read floats, every input is kept in both forms
        stride = max(stride, graph.float_stride)
    # Kernels read several tokens side by side: with an odd number of cache lines between them
    # those lie in different sets of the cache.
    if stride and stride % 128 == 0 and target.arch != "arm":
        stride += 64
    piece = max(map(len, model.tokenizer.pieces), default=0)
    memory = memory_plan(
        *(model.shape, batch, stride, lut, sums, target.threads, piece, graph, model.kv == "q8"),
        small=target.arch == "arm",
        bits=bits,
    )
    # Of an embedding that is no head a step reads few rows, wherever they take time.
    own_head = model.integer_head is None
    embedding = end_plan("embedding", model.embedding, target.bf12 or not (model.tied and own_head))
    head_plan = embedding if model.tied else end_plan("head", model.head, target.bf12)
    decided = Plan(
        *(target, model.shape, context, batch, groups, stride, lut, memory),
        *(embedding, replace(head_plan, role="head"), head, screened, bits),
    )
    _refuse_too_large(decided, model)
    return decided


def _head_plan(head: Integers, target: Target, batch: int) -> MatrixPlan:
    """Of a screened head, its ternary matrix: rows of the integers are read one by one, by a loop
    that is the same for all targets."""
    if head.screen and head.cols > SCREEN_COLS:
        raise BitnetcError(
            "--head screened",
            f"holds {SCREEN_COLS:,} columns at most, and the head has {head.cols:,}",
            "ask for another head",
        )
    planned = _matrix_plan("head", head.screen.trits if head.screen else head, target, {})
    return _in_slices({"head": planned}, target, batch)["head"]


def _aligned(cols: int) -> int:
    return -(-cols // 64) * 64


def _sums(groups: tuple[Group, ...], head: MatrixPlan | None, batch: int, screened: bool) -> int:
    """The most int32 sums that a phase makes at a time. Gate and up are finished together, and cut
    into slices only where both are; a screened head lists rows of each token behind its sums."""
    most = head.sums(batch) + SCREEN_WORDS * batch * screened if head else 0
    for group in groups:
        for role, m in group.matrices.items():
            pair = [group.matrices.get(r) for r in ("w_gate", "w_up")]
            both = [p for p in pair if p] if role in ("w_gate", "w_up") else [m]
            sliced = len({p.slice for p in both}) == 1
            most = max(most, sum(p.sums(batch) if sliced else p.tile * batch for p in both))
    return most


def _refuse_too_large(p: Plan, model: Model) -> None:
    """With addresses of 32 bits, weights and arena together must stay below 2^31 bytes: no size or
    difference of pointers then wraps around."""
    ends = (p.own_head,) if model.tied else (p.own_head, p.embedding)
    dense = sum(end.bytes for end in ends) + p.head_bytes
    arena = p.memory.arena_bytes(p.context, MAX_THREADS if p.target.threads else 1)
    total = p.ternary_bytes + dense + arena
    if p.target.narrow and total >= 2**31:
        raise BitnetcError(
            "--context",
            f"weights and memory for {p.context} positions are {total / 1e9:.1f} GB, and "
            f"{p.target.name} addresses 2.1 GB",
            "ask for fewer positions, or compile for a 64-bit target",
        )


def _groups(model: Model, target: Target, batch: int) -> tuple[Group, ...]:
    groups: list[Group] = []
    for i, block in enumerate(model.blocks):
        each = {role: getattr(block, role) for role in ROLES}
        floats = {
            role: float_plan(role, matrix)
            for role, matrix in each.items()
            if isinstance(matrix, Dense)
            or (model.float_activations and isinstance(matrix, Ternary))
        }
        matrices = _block_plan(
            {r: m for r, m in each.items() if r not in floats},
            *(target, _density(model), model.activations != "int8"),
        )
        matrices = _in_slices(matrices, target, batch)
        if groups and (groups[-1].matrices, groups[-1].floats) == (matrices, floats):
            groups[-1] = Group(groups[-1].first, i, matrices, floats)
        else:
            groups.append(Group(i, i, matrices, floats))
    return tuple(groups)


def _graph(model: Model, groups: tuple[Group, ...]) -> Graph:
    """What of the model's graph asks for memory beyond that of all models."""
    block = model.blocks[0]
    shape = model.shape
    floats = isinstance(model.head, Ternary) or any(g.floats for g in groups)
    widest = max(shape.dim, shape.q_dim, shape.ffn_dim) if floats else 0
    return Graph(
        inputs=1 if block.wq_norm is None else 3,
        float_stride=-(-widest // 64) * 64,
        post_norms=block.attn_post_norm is not None,
        texts=model.pooling is not None,
    )


def _density(model: Model) -> Mapping[str, Density]:
    """By role. ReLU^2 makes exact zeros; what little other activations round to zero is not counted
    on. The sign of zero is no zero."""
    if model.ffn_activation != "relu2":
        return {}
    density = RELU2_DENSITY
    if model.zeros:
        rows, columns = (max(0.001, round(1.0 - share, 6)) for share in model.zeros)  # costs > 0
        density = {"w_up": {"rows": rows}, "w_down": {"columns": columns}}
    signs = model.activations == "signs"
    return {r: d for r, d in density.items() if not (signs and "columns" in d)}


def _block_plan(
    block: dict[str, Ternary | Integers],
    target: Target,
    density: Mapping[str, Density],
    bits: bool,
) -> dict[str, MatrixPlan]:
    """bits: activations may be planes of bits"""
    found = {
        role: _matrix_plan(role, matrix, target, density.get(role, {}), bits)
        for role, matrix in block.items()
    }
    # The gate's and the up-projection's tiles are finished together, so they are equally tall.
    gate, up = found.get("w_gate"), found.get("w_up")
    if gate and up and gate.tile != up.tile:
        fits = gate.tile % up.kernel.layout.rows == 0
        tile = gate.tile if fits else math.lcm(gate.kernel.layout.rows, up.kernel.layout.rows)
        found |= {m.role: _retiled(m, tile) for m in (gate, up)}
    return found | _one_list([found[role] for role in ("wq", "wk", "wv") if role in found])


def _one_list(matrices: list[MatrixPlan]) -> dict[str, MatrixPlan]:
    """The tiles of matrices of one phase as one list, of which each thread takes a part: few and
    low tiles of keys and values would be shared out unevenly and read slowly. All tiles take equal
    time, or there is no list."""
    first = matrices[0] if matrices else None
    if first is None or any(_work(m) != _work(first) for m in matrices):
        return {}
    tile = _tile(first.kernel, sum(m.rows for m in matrices))
    while any(-(-m.rows // tile) * tile > m.padded_rows for m in matrices):
        tile -= first.kernel.layout.rows  # one block fits: tiles are whole blocks
    found, before = {}, 0
    listed = sum(m.padded_rows // tile for m in matrices)
    for m in matrices:
        found[m.role] = replace(_retiled(m, tile), tiles_before=before, tiles_listed=listed)
        before += m.padded_rows // tile
    return found


def _work(m: MatrixPlan) -> tuple[object, ...]:
    """Equal for matrices of which equally many rows take equal time."""
    return m.padded_cols, m.kernel, [v.kernel for v in m.variants]


def _retiled(m: MatrixPlan, tile: int) -> MatrixPlan:
    """The same kernel with tiles of another height; its cost is that of the first height."""
    return replace(m, tile=tile, padded_rows=-(-m.rows // tile) * tile)


def _matrix_plan(
    role: str, matrix: Ternary | Integers, target: Target, density: Density, bits: bool = False
) -> MatrixPlan:
    if target.variants:
        shared = [ks for ks in _layouts(target) if all(_holds(k, matrix, bits) for k in ks)]
        candidates = [_shared(role, matrix, kernels, target, density) for kernels in shared]
    else:
        kernels = [k for k in target.kernels if _holds(k, matrix, bits)]
        candidates = [_candidate(role, matrix, kernel, target, density) for kernel in kernels]
    fitting = [c for c in candidates if c.cost]
    if not fitting:
        raise BitnetcError(
            f"{target.file}: kernels.matmul",
            f"no kernel fits {role}, {matrix.rows} x {matrix.cols}: "
            + "; ".join(f"{c.kernel.name} {c.reason}" for c in candidates),
        )
    best = min(fitting, key=lambda c: c.cycles)
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
        variants=best.variants,
        density=density.get(best.kernel.skips, 1.0),
    )


def _holds(kernel: Kernel, matrix: Ternary | Integers, bits: bool) -> bool:
    """Whether every weight of the matrix has a code in the kernel's layout, and the kernel can read
    the activations: `bits` says whether they have planes of bits."""
    code = kernel.layout.code
    if kernel.activation == "bits" and not bits:
        return False
    if isinstance(matrix, Integers):
        return code.integers == matrix.bits
    return code.integers == 0 and (matrix.binary or not code.binary)


def _layouts(target: Target) -> list[tuple[Kernel, ...]]:
    """For each layout that every variant of the target has a kernel for: the fastest kernel of
    each variant, in the variants' order."""
    fastest: list[dict[str, Kernel]] = []
    for variant in target.variants:
        cycles = variant.cost.cycles_per_block
        found: dict[str, Kernel] = {}
        for kernel in sorted(shareable(variant), key=lambda k: cycles[k.name]):
            found.setdefault(kernel.layout_name, kernel)
        fastest.append(found)
    names = [k.layout_name for k in target.kernels if all(k.layout_name in f for f in fastest)]
    return [tuple(f[name] for f in fastest) for name in dict.fromkeys(names)]


def _shared(
    role: str,
    matrix: Ternary | Integers,
    kernels: tuple[Kernel, ...],
    target: Target,
    density: Density,
) -> Candidate:
    """One layout for all variants; `kernels` are theirs."""
    pairs = list(zip(kernels, target.variants, strict=True))
    each = [_candidate(role, matrix, kernel, variant, density) for kernel, variant in pairs]
    for candidate in each:
        if candidate.cost is None:
            return candidate
    names = [v.name for v in target.variants]
    plans = tuple(
        VariantPlan(n, c.kernel, c.cost) for n, c in zip(names, each, strict=True) if c.cost
    )
    return replace(each[0], variants=plans)


def _tile(kernel: Kernel, rows: int) -> int:
    """Whole blocks, and MIN_TILES tiles when the matrix is that tall."""
    return min(tallest_tile(kernel), _blocks(kernel, rows // MIN_TILES))


def tallest_tile(kernel: Kernel) -> int:
    """Rows: at most MAX_TILE, or as many as the kernel reads at once, or a block."""
    streams = STREAMS * kernel.layout.rows
    return streams if MAX_TILE < streams <= MAX_STREAMED else _blocks(kernel, MAX_TILE)


def slice_rows(kernels: Sequence[Kernel], tile: int, l1d: int, batch: int) -> int:
    """Rows of a tile of these kernels that are computed at a time for several tokens; 0: all.

    The int32 sums of a slice take at most half of the first-level cache, of `l1d` bytes:

        4 * rows * batch <= l1d / 2

    The other half is for codes, activations and, of gate and up, the other's sums. Slices are equal
    and whole units of all kernels, one at least. Nothing is cut where no cache is known.
    """
    units = [k.unit for k in kernels]
    unit = math.lcm(*units)
    if not l1d or not unit:
        return 0
    fitting = max(unit, l1d // (8 * batch))
    if tile <= fitting:
        return 0
    return max((rows for rows in range(unit, fitting + 1, unit) if tile % rows == 0), default=0)


def _in_slices(
    matrices: Mapping[str, MatrixPlan], target: Target, batch: int
) -> dict[str, MatrixPlan]:
    """With slices for batches of so many tokens: gate and up, which are finished together, have the
    same."""
    pair = [matrices[role] for role in ("w_gate", "w_up") if role in matrices]
    found = {}
    for role, m in matrices.items():
        kernels = [k for p in (pair if role in ("w_gate", "w_up") else [m]) for k in p.kernels]
        found[role] = replace(m, slice=slice_rows(kernels, m.tile, target.l1d, batch))
    return found


def _blocks(kernel: Kernel, rows: int) -> int:
    """Rows in whole blocks, one at least."""
    return kernel.layout.rows * max(1, rows // kernel.layout.rows)


def _candidate(
    role: str, matrix: Ternary | Integers, kernel: Kernel, target: Target, density: Density
) -> Candidate:
    tile = _tile(kernel, matrix.rows)
    rows = -(-matrix.rows // tile) * tile
    cols = kernel.layout.pad(1, matrix.cols)[1]
    if cols > kernel.max_cols:
        reason = f"holds {kernel.max_cols:,} columns at most"
        return Candidate(kernel, rows, cols, None, reason)
    cost = matrix_cost(kernel, rows, cols, SHARERS.get(role, 1), target.cost, density)
    return Candidate(kernel, rows, cols, cost, "")


def _lost(candidate: Candidate, best: Candidate) -> Candidate:
    mine, won = candidate.cost, best.cost
    if mine is None or won is None:
        return candidate
    bound = "arithmetic" if mine.compute >= mine.memory else "memory"
    reason = f"{candidate.cycles / best.cycles:.2f}x the cycles, bound by {bound}"
    if mine.tables >= 0.01 * mine.cycles:
        reason += f", tables are {100 * mine.tables / mine.cycles:.0f} % of it"
    return replace(candidate, reason=reason)


def plan_json(p: Plan, model: Model) -> dict[str, Any]:
    """The plan as plan.json states it."""
    return {
        "target": p.target.name,
        "model": {"name": model.name, "family": model.family, **vars(p.shape)},
        **({"ffn_units_of": model.ffn_units} if model.ffn_units else {}),
        "context": p.context,
        "batch": p.batch,
        "cache": {"l1d": p.target.l1d},
        "groups": [
            {
                "blocks": [g.first, g.last],
                "matrices": [
                    _matrix_json(g.matrices[r]) if r in g.matrices else _float_json(g.floats[r])
                    for r in ROLES
                ],
            }
            for g in p.groups
        ],
        "head": _matrix_json(p.head) | _screen_json(p)
        if p.head
        else {
            "rows": p.shape.vocab,
            "cols": p.shape.dim,
            "type": p.own_head.dtype,
            "bytes": p.own_head.bytes,
            **({"escapes": p.own_head.escapes} if p.own_head.dtype == "bf12" else {}),
        },
        "memory": {
            "state_and_buffers": p.memory.fixed_bytes,
            "per_thread": p.memory.thread_bytes(p.context),
            "cache": model.kv,
            "cache_per_position": p.memory.cache_bytes_per_position,
            "arena_one_thread": p.memory.arena_bytes(p.context, 1),
            "buffers": {
                name: {"offset": offset, "bytes": p.memory.buffers[name].bytes}
                for name, offset in sorted(p.memory.offsets.items(), key=lambda o: (o[1], o[0]))
            },
        },
    }


def _screen_json(p: Plan) -> dict[str, Any]:
    """What a screened head has beside its ternary matrix."""
    if not p.head or not p.screened:
        return {"screened": False}
    size = p.head.rows * p.exact_stride
    return {"screened": True, "exact": {"padded": [p.head.rows, p.exact_stride], "bytes": size}}


def _float_json(m: FloatPlan) -> dict[str, Any]:
    scale = "per group" if m.groups > 1 else "per row" if m.groups else "per tensor"
    return {
        "role": m.role,
        "rows": m.rows,
        "cols": m.cols,
        "layout": TRITS.name if m.dtype == "trits" else m.dtype,
        "activation": "float",
        "padded": list(m.shape),
        "bytes": m.bytes,
        **({"scale": scale} if m.dtype == "trits" else {}),
        **({"groups": m.groups} if m.groups > 1 else {}),
    }


def _variant_json(v: VariantPlan) -> dict[str, Any]:
    return {"target": v.target, "kernel": v.kernel.name, "cycles": round(v.cost.cycles)}


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
        **({"slice": m.slice} if m.slice else {}),
        "bytes": m.bytes,
        "cycles": round(m.cost.cycles),
        **({"density": m.density} if m.density < 1 else {}),
        **({"variants": [_variant_json(v) for v in m.variants]} if m.variants else {}),
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
