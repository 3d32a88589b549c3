"""Whether SVE2 would be faster than NEON: cycles of the inner loops of i2_m4k64 by llvm-mca.

    python bench/sve.py

For each core with SVE and each of three loops, cycles for 256 weights and one token: of our kernel
for NEON, as bench/arm.py finds them, and of the same in bench/sve.c with registers as long as the
core's, compiled for it by the same compiler.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench"), str(ROOT / "tests" / "kernels")]

from arm import Core, Loop, compiled, cost, cycles_of, innermost, our_loops  # noqa: E402

from bitnetc.target import load_target  # noqa: E402

TARGET = "armv8.6-i8mm"
# Cores and the bits of their SVE registers.
CORES = {
    "Neoverse V1": 256,
    "Neoverse N2": 128,
    "Neoverse V2": 128,
    "Cortex-X2": 128,
    "Cortex-A510": 128,
}
# Of each loop: what it is called, our kernel with one token or many, the function in sve.c.
LOOPS = (
    ("one token, SDOT", "neondot:i2_m4k64", "one", "one"),
    ("eight, SDOT by lane", "neondot:i2_m4k64", "many", "eight"),
    ("many, SMMLA", "neoni8mm:i2_m4k64", "many", "many"),
)


def core(name: str) -> Core:
    model = name.lower().replace(" ", "-")
    return Core(name, model, TARGET, "-mcpu=" + model.replace("-", "_"))


def neon(kernel: str, tokens: str, on: Core, scratch: Path, mca: str) -> float:
    """Cycles for 256 weights and one token."""
    loops = our_loops(load_target(TARGET))
    found = cost(next(x for x in loops if (x.name, x.tokens) == (kernel, tokens)), on, scratch, mca)
    if not found:
        sys.exit(f"{kernel}: no inner loop for {on.name}")
    return found.cycles


def sve(function: str, bits: int, on: Core, scratch: Path, mca: str) -> float:
    """The same of a function of sve.c."""
    source = (ROOT / "bench" / "sve.c").read_text()
    loop = Loop(function, "", source, r"sdot|smmla", bits // 8 * (2 if function == "many" else 1))
    flags = (on.own, f"-msve-vector-bits={bits}")
    text = compiled(loop, load_target(TARGET), flags, scratch)
    text = text.split(f"\n{function}:", 1)[1].split("\n.Lfunc_end", 1)[0]
    body = max(innermost(text), key=lambda lines: _products(loop, lines))
    weights = _products(loop, body) * loop.weights
    return cycles_of(body, on, mca) * 256 / weights


def _products(loop: Loop, body: list[str]) -> int:
    return sum(bool(re.match(rf"\s+(?:{loop.key})\s", line)) for line in body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mca", default="llvm-mca", help="LLVM 22 or later knows all the cores")
    mca = parser.parse_args().mca
    print("cycles for 256 weights and one token, NEON and then SVE")
    print(f"{'core, bits of SVE':<20}" + "".join(f"{loop[0]:>22}" for loop in LOOPS))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, bits in CORES.items():
            cells = []
            for _, kernel, tokens, function in LOOPS:
                ours = neon(kernel, tokens, core(name), scratch, mca)
                theirs = sve(function, bits, core(name), scratch, mca)
                cells.append(f"{ours:.1f}, {theirs:.1f}")
            print(f"{f'{name}, {bits}':<20}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
