"""Boards: does a model fit, and how fast may it be? From sizes and figures, before anything runs.

    flash  = weights | tokenizer tables | code
    memory = flash + arena of as many threads as there are cores, against what the system leaves

The program's pages are read from its file, but every token reads all weights: what does not stay in
memory comes from a card, a hundred times slower.
"""

import tomllib
from dataclasses import dataclass
from typing import Any

from bitnetc import resources
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import Model
from bitnetc.pack import rope_names, slots, tokenizer_tables
from bitnetc.plan import Plan
from bitnetc.target import Target, load_target

CODE_BYTES = 400_000  # of a static program, the C library included
_MIB = 2**20
_KEYS = {"summary", "target", "ram_mib", "cores", "ghz", "gb_per_s"}
_NEEDED = _KEYS - {"gb_per_s"}


@dataclass(frozen=True)
class Board:
    name: str
    summary: str
    target: str
    ram: int  # bytes
    free: int  # bytes that the system leaves to programs
    cores: int
    hertz: float
    bytes_per_second: float | None  # what all cores read from memory; None: nobody has measured it


@dataclass(frozen=True)
class Fit:
    """A planned model on a board; bytes."""

    weights: int
    tokenizer: int
    code: int  # an estimate
    arena: int  # with a thread for each core
    ropes: int  # part of the weights: as many rows as there are positions

    @property
    def flash(self) -> int:
        return self.weights + self.tokenizer + self.code

    @property
    def total(self) -> int:
        return self.flash + self.arena


@dataclass(frozen=True)
class Speed:
    """A projection of decoding, not a measurement: seconds = max(bytes / rate, cycles / hertz)."""

    bytes: float  # that one token reads: ternary matrices, head, half a cache
    cycles: float  # of the ternary kernels for one token, on one core
    memory_seconds: float
    compute_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return 1 / max(self.memory_seconds, self.compute_seconds)


def boards() -> dict[str, Board]:
    """All boards of targets/boards/boards.toml, by name."""
    file = "targets/boards/boards.toml"
    try:
        data = tomllib.loads((resources.TARGETS / "boards" / "boards.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BitnetcError(file, str(error)) from None
    system = data.pop("system")
    found: dict[str, Board] = {}
    for name, table in data.items():
        wrong = (set(table) - _KEYS) | (_NEEDED - set(table))
        if wrong:
            raise BitnetcError(f"{file}: {name}", f"unknown or missing key {min(wrong)}")
        sizes = table["ram_mib"]
        for mib in sizes if isinstance(sizes, list) else [sizes]:
            full = f"{name}-{mib // 1024}gb" if isinstance(sizes, list) else name
            found[full] = _board(full, table, mib * _MIB, system)
    return found


def _board(name: str, table: dict[str, Any], ram: int, system: dict[str, int]) -> Board:
    taken = system["mib"] * _MIB + ram // 4096 * system["page_bytes"]
    rate = table.get("gb_per_s")
    return Board(
        name=name,
        summary=f"{table['summary']}, {_size(ram)}",
        target=table["target"],
        ram=ram,
        free=max(0, ram - taken),
        cores=table["cores"],
        hertz=table["ghz"] * 1e9,
        bytes_per_second=rate * 1e9 if rate else None,
    )


def load_board(name: str) -> Board:
    """Raises BitnetcError on an unknown name."""
    known = boards()
    if name not in known:
        hint = nearest(name, known)
        raise BitnetcError("--board", f'unknown board "{name}"', hint or ", ".join(known))
    return known[name]


def suits(board: Board, target: Target) -> bool:
    """Whether the board's processor runs the target's programs."""
    own = load_target(board.target)
    if target.arch == "host" or target.system != own.system:
        return False
    narrower = target.arch == own.arch and set(target.features) <= set(own.features)
    return narrower or (own.arch == "aarch64" and target.arch == "arm")


def fit(plan: Plan, model: Model, board: Board) -> Fit:
    places = slots(plan, model)
    last = places[-1]
    return Fit(
        weights=last.offset + last.bytes,
        tokenizer=len(tokenizer_tables(model)),
        code=CODE_BYTES,
        arena=plan.memory.arena_bytes(plan.context, _threads(plan, board)),
        ropes=sum(s.bytes for s in places if s.name in rope_names(model)),
    )


def refuse_too_large(plan: Plan, model: Model, board: Board) -> Fit:
    """Raises BitnetcError, with the numbers and what would fit, when the board has not the room."""
    need = fit(plan, model, board)
    if need.total <= board.free:
        return need
    raise BitnetcError(
        f"--board {board.name}",
        f"{_mb(need.flash)} of program and {_mb(need.arena)} of arena for {plan.context} positions "
        f"and {board.cores} threads are {_mb(need.total)}; of {_size(board.ram)} the system leaves "
        f"{_mb(board.free)}",
        _what_fits(plan, need, board),
    )


def _what_fits(plan: Plan, need: Fit, board: Board) -> str:
    context = fitting_context(plan, need, board)
    hints = [f"--context {context} fits"] if context else []
    larger = [b for b in boards().values() if b.free >= need.total and suits(b, plan.target)]
    if larger:
        hints.append(f"{min(larger, key=lambda b: b.ram).name} has room for all")
    if not context:
        positions, threads = min(512, plan.context), _threads(plan, board)
        rest = need.tokenizer + need.code + plan.memory.arena_bytes(positions, threads)
        hints.append(
            f"at --context {positions} there is room here for {_mb(max(0, board.free - rest))} of "
            f"weights, and these are {_mb(need.weights)}"
        )
    return "; ".join(hints)


def fitting_context(plan: Plan, need: Fit, board: Board) -> int:
    """The most positions with which the planned model fits; 0 when not even one does."""
    threads = _threads(plan, board)
    low, high = 0, plan.context
    while low < high:
        middle = (low + high + 1) // 2
        saved = (plan.context - middle) * (need.ropes // plan.context)
        arena = plan.memory.arena_bytes(middle, threads)
        if need.flash - saved + arena <= board.free:
            low = middle
        else:
            high = middle - 1
    return low


def speed(plan: Plan, model: Model, board: Board) -> Speed | None:
    """None where the board's memory was never measured."""
    if not board.bytes_per_second:
        return None
    head = plan.head_read_bytes if plan.head else plan.own_head.bytes
    cache = plan.memory.cache_bytes_per_position * plan.context // 2
    read = plan.ternary_bytes + head + cache
    cycles = sum(
        (g.last - g.first + 1) * (m.cost.compute + m.cost.tables)
        for g in plan.groups
        for m in g.matrices.values()
    )
    if plan.head:
        cycles += plan.head.cost.compute
    return Speed(
        bytes=read,
        cycles=cycles,
        memory_seconds=read / board.bytes_per_second,
        compute_seconds=cycles / (board.hertz * board.cores),
    )


def describe(plan: Plan, model: Model, board: Board, need: Fit) -> list[str]:
    """Lines for a person: sizes against the memory, then the projection with its formula."""
    lines = [
        f"board {board.name}: {board.summary}",
        f"  flash   {_mb(need.flash)} = {_mb(need.weights)} weights + {_mb(need.tokenizer)} "
        f"tokenizer + {_mb(need.code)} code (an estimate)",
        f"  arena   {_mb(need.arena)} at context {plan.context} and {board.cores} threads",
        f"  memory  {_mb(need.total)} of the {_mb(board.free)} that the system leaves of "
        f"{_size(board.ram)}: {100 * need.total / board.free:.0f} %",
    ]
    found = speed(plan, model, board)
    if not found or not board.bytes_per_second:
        return [*lines, "  speed   not projected: this board's memory was never measured"]
    rate = board.bytes_per_second / 1e9
    clock = f"{board.cores} x {board.hertz / 1e9:.1f} GHz"
    return [
        *lines,
        f"  speed   {found.tokens_per_second:.1f} tokens/s, a projection and no measurement: "
        "1 / max(bytes / rate, cycles / clock)",
        f"          {_mb(found.bytes)} a token, the cache half full, at {rate:.1f} GB/s: "
        f"{1e3 * found.memory_seconds:.1f} ms",
        f"          {found.cycles / 1e6:,.1f} million cycles of the ternary kernels at {clock}: "
        f"{1e3 * found.compute_seconds:.1f} ms",
    ]


def _threads(plan: Plan, board: Board) -> int:
    return board.cores if plan.target.threads else 1


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _size(ram: int) -> str:
    return f"{ram // _MIB} MiB" if ram < 2**30 else f"{ram // 2**30} GiB"
