"""Engines beside each other: prefill and decode, measured in turns.

    python bench/peers.py bench/peers.toml                      3 rounds, 1 and 2 threads
    python bench/peers.py peers.toml --rounds 5 --threads 2 --only 'avx2' --json runs.json
    python bench/peers.py bench/peers.toml --depth 4000         decode behind 4,000 tokens
    python bench/peers.py --report runs.json                    the table of earlier runs

The file names the engines (see bench/peers.toml). Every round runs each of them once, one after
the other and the next round from the next one on, so that whatever else the machine does meets all
alike; ratios are taken within a round, and medians over rounds are printed. Runs are added to
those that the JSON file holds.

A command prints what `--bench` of a compiled program prints, or what `llama-bench -o json` of
llama.cpp and its forks prints. In it, {threads} and {depth} are replaced: the tokens before those
that are decoded, 0 unless --depth says otherwise. Engines that need other options for it have a
command of their own, `deep`; those with neither take no part at a depth, and one that says that it
measured at another ends the run.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import mistakes  # noqa: F401

KEYS = {"name", "command", "deep", "output", "against", "peer", "bytes", "first"}


@dataclass(frozen=True)
class Engine:
    """One row of the table."""

    name: str
    command: str = ""
    deep: str = ""  # the command where tokens are decoded behind others
    output: str = "bitnetc"
    against: str = ""  # rows of one name are compared: the others with its best peer
    peer: bool = False
    bytes: float = 0.0  # read for a token; 0: what the output says
    first: str = ""  # a command that writes one token, timed from its start


@dataclass(frozen=True)
class Run:
    """What one command said. Rates in tokens a second, 0 where it did not measure them."""

    prefill: float
    decode: float
    bytes: float  # read for each decoded token
    depth: int = 0  # tokens before the first decoded one


@dataclass(frozen=True)
class Sample:
    """A run in its round."""

    round: int
    name: str
    threads: int
    prefill: float
    decode: float
    bytes: float
    rss: int
    first: float  # seconds to the first token, 0 where it was not measured


class Unreadable(Exception):
    """Output that is not what was announced."""


def read_bitnetc(printed: str) -> Run:
    """The lines of --bench; of several depths, the first."""

    def number(pattern: str) -> float:
        found = re.search(pattern, printed, re.MULTILINE)
        if not found:
            raise Unreadable(f"no line like {pattern!r}")
        return float(found[1])

    return Run(
        prefill=number(r"^prefill .*?: ([\d.]+) tokens/s"),
        decode=number(r"^decode .*?: ([\d.]+) tokens/s"),
        bytes=1e6 * number(r"^bytes\s+([\d.]+) MB a token"),
        depth=int(number(r"^depth\s+(\d+) tokens")) if "\ndepth " in printed else 0,
    )


def read_llama_bench(printed: str) -> Run:
    """The JSON list of llama-bench. Tests of a prompt and generation in one rate (-pg) are passed
    over."""
    start = printed.find("[")  # some builds say things before it
    try:
        tests = json.loads(printed[start:]) if start >= 0 else []
    except json.JSONDecodeError as error:
        raise Unreadable(f"not JSON: {error}") from error
    prefill = decode = size = 0.0
    depth = 0
    for test in tests:
        size = float(test["model_size"])
        if "@" in test.get("test", ""):  # -gp N,M of ik_llama.cpp: M tokens after N, named tgM@ppN
            decode, depth = float(test["avg_ts"]), int(test["n_prompt"])
        elif test["n_gen"] == 0:
            prefill = float(test["avg_ts"])
        elif test["n_prompt"] == 0:
            decode, depth = float(test["avg_ts"]), int(test.get("n_depth", 0))
    if not (prefill or decode):
        raise Unreadable("no test of a prompt or of generation")
    return Run(prefill, decode, size, depth)


READERS: dict[str, Callable[[str], Run]] = {
    "bitnetc": read_bitnetc,
    "llama-bench": read_llama_bench,
}


def engines_of(path: Path) -> list[Engine]:
    """The [[engine]] tables of a file; {NAME} in a command stands for a string of its [paths]."""
    with path.open("rb") as file:
        content = tomllib.load(file)
    paths = content.get("paths", {})
    found = []
    for entry in content.get("engine", []):
        unknown = entry.keys() - KEYS
        if unknown or entry.get("output", "bitnetc") not in READERS:
            raise SystemExit(f"{path}: {entry.get('name')}: {', '.join(unknown) or 'output'}?")
        for key in ("command", "deep", "first"):
            for name, value in paths.items():
                entry[key] = entry.get(key, "").replace("{" + name + "}", value)
        found.append(Engine(**entry))
    if len({engine.name for engine in found}) < len(found):
        raise SystemExit(f"{path}: two engines have one name")
    return found


def measured(command: str, threads: int) -> tuple[str, int, float]:
    """Standard output, peak resident bytes and seconds of one process."""
    words = shlex.split(command.replace("{threads}", str(threads)))
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    printed = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit {process.returncode}: {shlex.join(words)}\n{printed}")
    return printed, usage.ru_maxrss * 1024, time.monotonic() - started


def at_depth(engines: Sequence[Engine], depth: int) -> list[Engine]:
    """Those that can decode at this depth, as rows of their own."""
    found = []
    for engine in engines:
        command = engine.deep or (engine.command if "{depth}" in engine.command else "")
        command = (command if depth else engine.command).replace("{depth}", str(depth))
        name, against = (
            f"{text}, depth {depth}" if depth else text for text in (engine.name, engine.against)
        )
        if command:
            found.append(replace(engine, name=name, against=against, command=command, deep=""))
    return found


def sample(engine: Engine, threads: int, number: int, depth: int) -> Sample:
    printed, rss, _ = measured(engine.command, threads)
    try:
        run = READERS[engine.output](printed)
        if depth and run.depth != depth:
            raise Unreadable(f"decoded behind {run.depth} tokens, not {depth}")
    except Unreadable as error:
        raise SystemExit(f"{engine.name}: {error}\n{printed}") from error
    first = measured(engine.first, threads)[2] if engine.first else 0.0
    return Sample(
        number, engine.name, threads, run.prefill, run.decode, engine.bytes or run.bytes, rss, first
    )


def ratio(samples: Sequence[Sample], name: str, best: str, what: str) -> float:
    """The median over the rounds that have both; 0 where none has."""
    rates = {(s.name, s.round): getattr(s, what) for s in samples}
    found: list[float] = [
        rates[name, s.round] / rates[best, s.round]
        for s in samples
        if s.name == name and rates.get((best, s.round))
    ]
    return median(found) if found else 0.0


def middle(samples: Sequence[Sample], name: str, what: str) -> float:
    found: list[float] = [getattr(s, what) for s in samples if s.name == name]
    return median(found or [0.0])


def table(engines: Sequence[Engine], samples: Sequence[Sample]) -> list[str]:
    """Markdown: medians, and how many times the rate of the best peer of the same name."""
    head = (
        "| engine | threads | prefill | x best peer | decode | x best peer | GB/s | first token, s"
    )
    lines = [head + " | peak MB |", "| --- " + "| ---: " * 8 + "|"]
    for threads in sorted({s.threads for s in samples}):
        some = [s for s in samples if s.threads == threads]
        present = [e for e in engines if any(s.name == e.name for s in some)]
        for engine in present:
            rates, times = {}, {}
            for what in ("prefill", "decode"):
                rates[what] = middle(some, engine.name, what)
                peers = [e.name for e in present if e.peer and e.against == engine.against]
                best = max(peers, key=lambda name: middle(some, name, what), default="")
                times[what] = ratio(some, engine.name, best, what) if rates[what] else 0.0
            cells = [
                f"{rates['prefill']:.1f}", f"{times['prefill']:.2f}",
                f"{rates['decode']:.1f}", f"{times['decode']:.2f}",
                f"{rates['decode'] * middle(some, engine.name, 'bytes') / 1e9:.1f}",
                f"{middle(some, engine.name, 'first'):.2f}",
            ]  # fmt: skip
            cells = ["" if float(cell) == 0.0 else cell for cell in cells]
            rss = middle(some, engine.name, "rss") / 1e6
            lines.append(f"| {engine.name} | {threads} | {' | '.join(cells)} | {rss:,.0f} |")
    return lines


def stored(path: Path) -> tuple[list[Engine], list[Sample]]:
    content: dict[str, Any] = json.loads(path.read_text())
    return (
        [Engine(**entry) for entry in content["engines"]],
        [Sample(**entry) for entry in content["samples"]],
    )


def save(path: Path, engines: Sequence[Engine], samples: Sequence[Sample]) -> None:
    content = {
        "engines": [asdict(engine) for engine in engines],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _threads(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no numbers with commas between")
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engines", nargs="?", type=Path, help="a TOML file that names them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads", default="1,2", type=_threads, help="numbers, with commas between"
    )
    parser.add_argument("--only", default="", help="engines whose name has this pattern")
    parser.add_argument("--depth", type=int, default=0, help="tokens before the decoded ones")
    parser.add_argument("--json", type=Path, help="runs are added to those of this file")
    parser.add_argument("--report", type=Path, help="print the table of this file; run nothing")
    given = parser.parse_args()
    if given.report:
        print("\n".join(table(*stored(given.report))))
        return
    if not given.engines:
        parser.error("name a file of engines, or --report")
    known: dict[str, Engine] = {}
    samples: list[Sample] = []
    if given.json and given.json.exists():
        earlier, samples = stored(given.json)
        known = {engine.name: engine for engine in earlier}
    named = at_depth(engines_of(given.engines), given.depth)
    chosen = [e for e in named if re.search(given.only, e.name)]
    if not chosen:
        parser.error(f"{given.engines} has no engine like {given.only!r}")
    known |= {engine.name: engine for engine in chosen}
    first = max((s.round for s in samples), default=-1) + 1
    for number in range(first, first + given.rounds):
        for threads in given.threads:
            turn = number % len(chosen)  # no engine is always the first
            for engine in chosen[turn:] + chosen[:turn]:
                samples.append(sample(engine, threads, number, given.depth))
                last = samples[-1]
                print(
                    f"round {number}, {threads}T, {engine.name}: "
                    f"{last.prefill:.1f} {last.decode:.1f}", file=sys.stderr, flush=True,
                )  # fmt: skip
                if given.json:
                    save(given.json, list(known.values()), samples)
    print("\n".join(table(list(known.values()), samples)))


if __name__ == "__main__":
    main()
