"""How fast each kernel of a target is on the shapes of BitNet 2B-4T, one core.

    python bench/kernels.py                         the best target of this machine
    python bench/kernels.py --target scalar
    python bench/kernels.py --mib 1024 --rounds 9   a machine with a large last-level cache
    python bench/kernels.py --tokens 1 2 4 8 16     speculation, or several users

Cycles are nanoseconds times the clock, which is measured with a chain of dependent additions (one
cycle each) before and after. "L2": weights that stay in the second-level cache; "memory": a buffer
as large as the model. A star marks the kernel that the planner picks for one token, from the
[cost] figures of the target's file; a plus marks the fastest one measured.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kernels")]

from programs import build, kernels_of, render  # noqa: E402

from bitnetc.cost import matrix_cost  # noqa: E402
from bitnetc.errors import BitnetcError  # noqa: E402
from bitnetc.kernels import Kernel  # noqa: E402
from bitnetc.plan import SHARERS, slice_rows, tallest_tile  # noqa: E402
from bitnetc.run import command  # noqa: E402
from bitnetc.target import BATCH, Target, load_target, runs_here  # noqa: E402

# role -> rows x cols of BitNet b1.58 2B-4T
SHAPES = {
    "wo": (2560, 2560),
    "wk": (640, 2560),
    "w_gate": (6912, 2560),
    "w_down": (2560, 6912),
}
TOKENS = (1, BATCH)


@dataclass(frozen=True)
class Bench:
    """One kernel on one shape, cut into tiles as the planner cuts it."""

    kernel: Kernel
    role: str
    rows: int
    cols: int
    l1d: int  # the target's first-level cache, and
    batch: int  # tokens for which a tile is cut

    @property
    def slice(self) -> int:
        return slice_rows([self.kernel], self.tile, self.l1d, self.batch)

    @property
    def tile(self) -> int:
        return tallest_tile(self.kernel)

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.tile)

    @property
    def padded_rows(self) -> int:
        return self.tiles * self.tile

    @property
    def padded_cols(self) -> int:
        return self.kernel.layout.pad(1, self.cols)[1]

    @property
    def tile_bytes(self) -> int:
        return self.kernel.layout.packed_bytes(self.tile, self.padded_cols)

    @property
    def blocks_per_row(self) -> float:
        return self.padded_cols / self.kernel.layout.cols / self.kernel.layout.rows


def _ternary(kernel: Kernel) -> bool:
    """Of trits and int8, which most models are made of."""
    return kernel.layout.code.base == 3 and kernel.activation != "bits"


def picked(target: Target, role: str) -> str:
    """The ternary kernel of least cost by the target's figures, as plan() chooses."""

    def cycles(kernel: Kernel) -> float:
        rows, cols = kernel.layout.pad(*SHAPES[role])
        return matrix_cost(kernel, rows, cols, SHARERS[role], target.cost).cycles

    return min((k for k in target.kernels if _ternary(k)), key=cycles).name


def measure(
    target: Target, benches: list[Bench], mib: int, rounds: int, tokens: Sequence[int] = TOKENS
) -> list[list[str]]:
    """The program's lines, as words."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "bench.c"), Path(folder, "bench")
        template = ROOT / "bench" / "kernels.c.jinja"
        source.write_text(render(template, target, benches=benches))
        build(source, program, target, True, (f"-I{template.parent}",))
        numbers = map(str, (mib, rounds, *tokens))
        words = [*command(target, program, None, None), *numbers]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def report(
    target: Target, benches: list[Bench], lines: list[list[str]], tokens: Sequence[int]
) -> None:
    """The table of kernels, then single figures."""
    clocks = [float(words[1]) for words in lines if words[0] == "gigahertz"]
    clock = sum(clocks) / len(clocks)
    rows = {tuple(words[1:6]): float(words[6]) for words in lines if words[0] == "kernel"}
    print(f"{target.name}, one core at {clock:.2f} GHz (chain of additions: {clocks})\n")
    print(f"{'shape':>11} {'n':>3} {'from':<6}  {'kernel':<17}", end="")
    print(f"{'ns/block':>9} {'cycles/block':>13} {'Gweights/s':>11} {'GB/s':>7}")
    for role, (m, k) in SHAPES.items():
        pick = picked(target, role)
        for n in tokens:
            for place in ("cached", "memory"):
                timed = [
                    (rows[b.kernel.name, str(m), str(k), str(n), place], b)
                    for b in benches
                    if b.role == role
                ]
                fastest = min(ns for ns, _ in timed)
                for ns, b in timed:
                    marks = ("*" if n == 1 and b.kernel.name == pick else " ") + (
                        "+" if ns == fastest else " "
                    )
                    block = ns / n / b.blocks_per_row
                    rate = n * b.padded_cols / ns
                    stream = b.tile_bytes / b.tile / ns
                    print(
                        f"{f'{m}x{k}':>11} {n:>3} {'L2' if place == 'cached' else place:<6} "
                        f"{marks}{b.kernel.name:<16}{block:>9.2f} {block * clock:>13.2f} "
                        f"{rate:>11.1f} {stream:>7.2f}"
                    )
        print()
    for what, *values in lines:
        if what == "lut16":
            print(f"building one table of sixteen: {float(values[0]) * clock:.2f} cycles")
        elif what == "stream":
            rate = float(values[0])
            print(f"reading memory: {rate:.2f} GB/s, {rate / clock:.2f} bytes per cycle")
        elif what == "dense":
            rate = float(values[1])
            print(f"bnc_dense bf16, {values[0]}: {rate:.2f} GB/s, {rate / clock:.2f} bytes/cycle")
        elif what == "attend":
            cycles = float(values[0]) * clock
            print(f"bnc_attend, head of 128: {cycles:.1f} cycles per position and query head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="native")
    parser.add_argument(
        "--mib", type=int, default=512, help="size of the memory-sized buffer, 32 or more"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the best of these counts")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=TOKENS, metavar="N", help="at once, 1 to 64 each"
    )
    arguments = parser.parse_args()
    if arguments.mib < 32 or arguments.rounds < 1:  # a matrix of 8-bit weights has 17 MiB
        parser.error("--mib takes 32 or more, --rounds 1 or more")
    if not all(1 <= n <= BATCH for n in arguments.tokens):
        parser.error(f"--tokens takes numbers from 1 to {BATCH}")
    target = load_target(arguments.target)
    if not runs_here(target):
        raise BitnetcError(target.name, "does not run here, and an emulator tells no time")
    if target.variants:
        raise BitnetcError(target.name, "has the kernels of several targets: name one of them")
    benches = [
        Bench(kernel, role, *shape, target.l1d, target.batch)
        for role, shape in SHAPES.items()
        for kernel in kernels_of(target)
    ]
    tokens = sorted(set(arguments.tokens))
    lines = measure(target, benches, arguments.mib, arguments.rounds, tokens)
    report(target, benches, lines, tokens)


if __name__ == "__main__":
    main()
