"""The limits of this machine: how fast it reads memory and multiplies 8-bit numbers.

    python bench/limits.py                     1 GiB, one thread and two
    python bench/limits.py --threads 8 --mib 4096 --file MODEL

Builds bench/limits.c with the system's C compiler for this very CPU. Reads are of pages of 4 KiB,
of huge pages, and of a mapped file (--file, else one of zeros); with and without prefetch. What a
model's decode reads in a second compares with these; its prefill with the multiplications.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mistakes  # noqa: F401

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c11", "-O3", "-march=native", "-Wall", "-Wextra", "-Werror", "-pthread")


@dataclass(frozen=True)
class Limit:
    """One line that limits.c prints."""

    what: str  # read, multiply
    of: str  # pages, or instructions
    threads: int
    ahead: int  # prefetch distance
    median: float  # GB/s, or G multiply-adds a second
    best: float


def read_limits(printed: str) -> list[Limit]:
    found = []
    for line in printed.splitlines():
        what, of, threads, *rest = line.split()
        ahead, middle, best = rest if what == "read" else ["0", *rest]
        found.append(Limit(what, of, int(threads), int(ahead), float(middle), float(best)))
    return found


def table(limits: list[Limit]) -> list[str]:
    """Reads with no prefetch and with the distance that served best; then products."""
    lines: list[str] = []
    threads = sorted({limit.threads for limit in limits})
    for limit in limits:
        if any(known.startswith(f"| {limit.what} {limit.of},") for known in lines):
            continue
        cells = []
        for count in threads:
            mine = [x for x in limits if (x.what, x.of, x.threads) == (limit.what, limit.of, count)]
            best = max(mine, key=lambda x: x.median)
            cells.append(
                f"{mine[0].median:.1f}, {best.median:.1f} at {best.ahead}"
                if limit.what == "read"
                else f"{best.median:.0f}"
            )
        unit = "GB/s" if limit.what == "read" else "G/s"
        lines.append(f"| {limit.what} {limit.of}, {unit} | {' | '.join(cells)} |")
    head = "| | " + " | ".join(f"{count}T" for count in threads) + " |"
    return [head, "| --- " + "| ---: " * len(threads) + "|", *lines]


def built(folder: Path) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler or not shutil.which(compiler):
        raise SystemExit(f"{compiler or 'cc'}: no such C compiler; CC names one")
    program = folder / "limits"
    subprocess.run([compiler, *FLAGS, str(HERE / "limits.c"), "-o", str(program)], check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--build", type=Path, help="only build the program, there")
    given = parser.parse_args()
    if given.threads < 1 or given.mib < 1:
        parser.error("--threads and --mib take 1 or more")
    if given.file and not given.file.is_file():
        parser.error(f"--file {given.file}: not there")
    with tempfile.TemporaryDirectory() as name:
        if given.build:
            built(given.build)
            return
        file = given.file or Path(name) / "zeros"
        if not given.file:
            with file.open("wb") as zeros:
                for _ in range(given.mib):
                    zeros.write(bytes(1 << 20))
        words = [str(built(Path(name))), str(file), str(given.threads), str(given.mib)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    sys.stdout.write(done.stdout)
    print("\n".join(table(read_limits(done.stdout))))


if __name__ == "__main__":
    main()
