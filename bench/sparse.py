"""What zeros save: the gate and up projections, and the down projection, at several shares of
activations that are not zero, one core, weights of BitNet 2B-4T from memory.

    python bench/sparse.py                        one token, the best target of this machine
    python bench/sparse.py --target x86_64-avx2 --tokens 64
    python bench/sparse.py --program PATH         writes the program only

Contestants take turns within one run. The first of each matrix reads everything; ratios are its
time by theirs.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kernels")]

from programs import build, render  # noqa: E402

from bitnetc.cost import matrix_cost  # noqa: E402
from bitnetc.errors import BitnetcError  # noqa: E402
from bitnetc.kernels import Kernel  # noqa: E402
from bitnetc.plan import slice_rows  # noqa: E402
from bitnetc.run import command  # noqa: E402
from bitnetc.target import Target, load_target, runs_here  # noqa: E402

DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)
MOST_TOKENS = 256
DIM, FFN, TILE = 2560, 6912, 128  # rows computed at a time: as many as kernels read at once


@dataclass(frozen=True)
class Contestant:
    kernel: Kernel
    gate: Kernel | None  # of gate and up; None: the down projection
    l1d: int = 0  # the target's first-level cache, and
    batch: int = 1  # tokens for which a tile is cut

    @property
    def what(self) -> str:
        if self.gate:
            return f"gate {self.gate.name}, up {self.kernel.name}"
        return f"down {self.kernel.name}"

    @property
    def tile(self) -> int:
        return max(TILE, self.kernel.layout.rows)

    @property
    def slice(self) -> int:
        """Rows of a tile computed at a time for several tokens, as the planner cuts it."""
        kernels = [self.kernel, self.gate] if self.gate else [self.kernel]
        return slice_rows(kernels, self.tile, self.l1d, self.batch)

    @property
    def cols(self) -> int:
        """Of the down projection, in whole blocks."""
        return self.kernel.layout.pad(1, FFN)[1]

    def tile_bytes(self, kernel: Kernel, cols: int) -> int:
        return kernel.layout.packed_bytes(self.tile, kernel.layout.pad(1, cols)[1])


def _cycles(kernel: Kernel, target: Target) -> float:
    rows, cols = kernel.layout.pad(FFN, DIM)
    return matrix_cost(kernel, rows, cols, 2, target.cost).cycles


def contestants(target: Target, tokens: int = 1) -> list[Contestant]:
    """The kernel that reads all first, then those that skip."""
    kernels = [k for k in target.kernels if k.layout.code.base == 3 and k.activation == "int8"]
    dense = min(
        (k for k in kernels if k.skips == "nothing"),
        key=lambda k: _cycles(k, target),
    )
    up = [dense, *(k for k in kernels if k.skips == "rows")]
    down = [dense, *(k for k in kernels if k.skips == "columns")]
    cut = target.l1d, max(tokens, target.batch)
    return [Contestant(k, dense, *cut) for k in up] + [Contestant(k, None, *cut) for k in down]


def report(found: list[Contestant], lines: list[list[str]]) -> None:
    times = {(int(d), int(c)): float(us) for d, c, us in lines}
    print(f"{'':>48}" + "".join(f"{density:>15}" for density in DENSITIES))
    for c, contestant in enumerate(found):
        first = next(i for i, f in enumerate(found) if bool(f.gate) == bool(contestant.gate))
        cells = []
        for d in range(len(DENSITIES)):
            us = times[d, c]
            cells.append(f"{us:>8.0f} {times[d, first] / us:>5.2f}x")
        print(f"{contestant.what:>48}" + "".join(cells))
    print("microseconds a token, and times as fast as reading all")


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.splitlines()[:2]))
    parser.add_argument("--target", default="native")
    parser.add_argument("--tokens", type=int, default=1, help="computed together")
    parser.add_argument("--copies", type=int, default=30, help="blocks of weights to walk through")
    parser.add_argument("--rounds", type=int, default=5, help="the best of these counts")
    parser.add_argument("--program", type=Path, help="write it there and run nothing")
    parser.add_argument("--run", type=Path, help="run the one that was written")
    arguments = parser.parse_args()
    if arguments.copies < 1 or arguments.rounds < 1 or not 1 <= arguments.tokens <= MOST_TOKENS:
        parser.error(f"--tokens takes 1 to {MOST_TOKENS}, --copies and --rounds 1 or more")
    target = load_target(arguments.target)
    if not runs_here(target) and not arguments.program:
        raise BitnetcError(target.name, "does not run here", "--program PATH writes the program")
    found = contestants(target, arguments.tokens)
    view = {
        "contestants": found,
        "headers": sorted({k.header for c in found for k in (c.kernel, c.gate) if k}),
        "dim": DIM,
        "tokens": arguments.tokens,
        "ffn": FFN,
        "stride": max(c.cols for c in found),
        "permits": sorted({c.kernel.permit for c in found if c.kernel.permit}),
        "densities": DENSITIES,
        "rounds": arguments.rounds,
        "copies": arguments.copies,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "sparse.c"), Path(folder, "sparse")
        program = arguments.run or arguments.program or program
        if not arguments.run:
            source.write_text(render(ROOT / "bench" / "sparse.c.jinja", target, **view))
            build(source, program, target, runs_here(target))
        if not arguments.program:
            words = command(target, program, None, None)
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            report(found, [line.split() for line in done.stdout.splitlines()])


if __name__ == "__main__":
    main()
