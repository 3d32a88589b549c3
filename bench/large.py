"""Builds a model with more than 2 GiB of weights, runs it, and checks it.

    python bench/large.py CHECKPOINT -o FOLDER [--target T] [--weights binary|file] [--context N]

CHECKPOINT is what `bitnetc synth --like llama3-8b-1.58` writes. Prints sizes, times, and the most
memory that a process took at a time; compares the logits of a few positions with the reference.
Needs about 12 GB of disk in FOLDER with --weights binary, a third of that with file, and an hour
where the program is emulated. --context as it was compiled, with --built.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import mistakes  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.tensor import release
from bitnetc.compiler import load
from bitnetc.emit import identifier
from bitnetc.reference import Reference
from bitnetc.run import command
from bitnetc.target import load_target

TOKENS = (1, 2000, 77000)


class Latest(dict[int, NDArray[np.int8]]):
    """Keeps what was put last: the reference else keeps every matrix."""

    def __setitem__(self, key: int, value: NDArray[np.int8]) -> None:
        self.clear()
        release()
        super().__setitem__(key, value)


def timed(what: str, words: list[str], stdin: bytes = b"") -> bytes:
    """Standard output; prints the time, and the most memory of any one process so far."""
    started = time.monotonic()
    done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, check=True)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{what}: {time.monotonic() - started:.1f} s, at most {most / 1e6:.2f} GB resident")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", dest="folder", type=Path, required=True)
    parser.add_argument("--target", default="native")
    parser.add_argument("--weights", default="file")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--built", action="store_true", help="FOLDER is there already")
    given = parser.parse_args()

    target = load_target(given.target)
    model = load(given.checkpoint)
    name = identifier(model.name)
    options = ["--target", given.target, "--weights", given.weights, "--context", given.context]
    if not given.built:
        words = [sys.executable, "-m", "bitnetc", "compile", given.checkpoint, *options]
        timed("compile", [*map(str, words), "-o", str(given.folder)])
    for file in sorted(given.folder.rglob("*")):
        if file.is_file() and file.stat().st_size > 1 << 20:
            print(f"{file.stat().st_size:>14,}  {file.relative_to(given.folder)}")

    cpu = target.checks[0] if target.checks else None
    words = command(target, given.folder / "bin" / name, cpu, None)
    text = " ".join(map(str, TOKENS)).encode()
    got = timed("run", [*words, "--logits", "-c", "16"], text)
    print(f"logits of {len(TOKENS)} positions: SHA-256 {hashlib.sha256(got).hexdigest()[:16]}")
    reference = Reference(model, given.context)
    reference._trits = Latest()
    started = time.monotonic()
    want = reference.logits(list(TOKENS))
    print(f"reference: {time.monotonic() - started:.1f} s")
    equal = np.array_equal(np.frombuffer(got, "<u4").reshape(want.shape), want.view(np.uint32))
    print("equal in every bit" if equal else "DIFFERENT")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
