"""Is the compiled program the checkpoint? Its logits against the reference's, bit for bit."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.plan import Plan
from bitnetc.reference import Reference
from bitnetc.run import command, place, remove, run

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """Token ids fed in steps of `batch`, by `threads` threads."""

    title: str
    tokens: tuple[int, ...]
    batch: int
    threads: int


@dataclass(frozen=True)
class Outcome:
    case: Case
    positions: int
    equal: bool
    detail: str  # the first difference, or the hash of the logits


def cases(vocab: int, context: int, batch: int, long: int = 96, threads: bool = True) -> list[Case]:
    """Short, long, batched and token by token; ids cover the vocabulary. Without `threads`, each
    by one thread."""
    rng = np.random.default_rng(0)
    short = tuple(int(t) for t in rng.integers(0, vocab, min(5, context)))
    more = tuple(int(t) for t in rng.integers(0, vocab, min(long, context)))
    return [
        Case("one token", short[:1], batch, 1),
        Case("short prompt, whole", short, batch, 1),
        Case("short prompt, token by token", short, 1, 2 if threads else 1),
        Case("long prompt, whole", more, batch, 2 if threads else 1),
        Case("long prompt, seven at a time", more, min(7, batch), 3 if threads else 1),
    ]


def program_logits(words: list[str], case: Case, vocab: int, context: int) -> Floats:
    """Runs the program's --logits: [positions, vocab]."""
    arguments = ["--logits", "-t", str(case.threads), "--batch", str(case.batch)]
    arguments += ["-c", str(context)]
    out = run(words, arguments, " ".join(map(str, case.tokens)).encode())
    if len(out) != 4 * vocab * len(case.tokens):
        raise BitnetcError(
            " ".join(words),
            f"wrote {len(out)} bytes of logits, {len(case.tokens)} positions of {vocab} need "
            f"{4 * vocab * len(case.tokens)}",
            "is this the program of this checkpoint?",
        )
    return np.frombuffer(out, "<f4").reshape(-1, vocab)


def compare(case: Case, got: Floats, want: Floats) -> Outcome:
    """Equal in every bit, or where they first differ."""
    if got.shape != want.shape:
        return Outcome(case, len(got), False, f"{len(got)} positions instead of {len(want)}")
    differing = np.argwhere(got.view(np.uint32) != want.view(np.uint32))
    if len(differing) == 0:
        return Outcome(case, len(got), True, hashlib.sha256(got.tobytes()).hexdigest()[:16])
    i, v = (int(x) for x in differing[0])
    return Outcome(
        case,
        len(got),
        False,
        f"position {i}, token {v}: program {got[i, v]!r}, reference {want[i, v]!r}; "
        f"{len(differing):,} of {got.size:,} logits differ",
    )


def verify(
    model: Model,
    plan: Plan,
    program: Path,
    cpu: str | None = None,
    runner: str | None = None,
    long: int = 96,
    weights: Path | None = None,
) -> Iterator[Outcome]:
    """One outcome for each case, as it is known.

    weights: the file that the program looks for, which a runner's machine needs, too
    """
    files = [program, *([weights] if weights else [])]
    words = command(plan.target, program, cpu, runner)
    reference = Reference(model, plan.context)
    known: dict[tuple[int, ...], Floats] = {}
    try:
        if runner:
            place(files, runner)
        threads = plan.target.threads
        for case in cases(plan.shape.vocab, plan.context, plan.batch, long, threads):
            if case.tokens not in known:
                known[case.tokens] = reference.logits(list(case.tokens))
            got = program_logits(words, case, plan.shape.vocab, plan.context)
            yield compare(case, got, known[case.tokens])
    finally:
        if runner:
            remove(files, runner)
