"""Emitted C under every compiler that is installed: no warning, and the same logits in every bit.

The oldest and the newest GCC and Clang found; `make compilers` takes all of them. The Clang of zig
has its turn wherever a target is compiled.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.target import host_arch, load_target
from e2e.built import Built

# What this machine's CPU family runs at least; its instruction set is known to old compilers.
TARGET = {"x86_64": "x86_64-avx2", "aarch64": "armv8-neon"}.get(host_arch(), "scalar")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wformat", "-Werror=format-security", "-Werror")
HARDENED = ("-D_FORTIFY_SOURCE=2", "-fstack-protector-strong")
EXACT = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
LEVELS = {"O0": ("-O0",), "O2": ("-O2", *HARDENED), "Os": ("-Os", *HARDENED), "Og": ("-Og",)}


def installed(family: str) -> list[str]:
    """Programs called gcc or gcc-11 and the like, the oldest first, one of each version."""
    found: dict[tuple[int, ...], str] = {}
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    for name in sorted(name for name in names if re.fullmatch(rf"{family}(-\d+)?", name)):
        flag = "-dumpfullversion" if family == "gcc" else "-dumpversion"
        done = subprocess.run([name, flag], capture_output=True, text=True)
        if re.fullmatch(r"\d+(\.\d+)*\n", done.stdout):
            found[tuple(map(int, done.stdout.split(".")))] = name
    return [found[version] for version in sorted(found)]


def compilers() -> list[str]:
    chosen = []
    for family in ("gcc", "clang"):
        here = installed(family)
        everything = os.environ.get("BITNETC_ALL_COMPILERS") == "1"
        chosen += here if everything or len(here) < 2 else [here[0], here[-1]]
    return chosen


COMPILERS = compilers()


def cases() -> list[tuple[str, str]]:
    """Every compiler at every level with `make compilers`; else -Os by the newest of each family,
    and -Og, where GCC inlines in a way of its own, by the newest GCC."""
    if os.environ.get("BITNETC_ALL_COMPILERS") == "1":
        return [(compiler, level) for compiler in COMPILERS for level in LEVELS]
    newest = {compiler.split("-")[0]: compiler for compiler in COMPILERS}
    takes = {"Os": list(newest.values()), "Og": [newest.get("gcc")]}
    return [(c, level) for c in COMPILERS for level in LEVELS if c in takes.get(level, COMPILERS)]


@pytest.fixture(scope="module")
def sources(built: Callable[..., Built], tiny: Callable[[str], Path]) -> Path:
    return built(tiny("2b4t-odd-sizes"), TARGET)[2]


def logits(program: Path) -> bytes:
    ids = b"1 2 3 5 8 13 21 34"
    command = [program, "--logits", "-t", "2"]
    return subprocess.run(command, input=ids, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("compiler", "level"), cases())
def test_no_warnings_and_equal_bits(
    compiler: str, level: str, sources: Path, tmp_path: Path
) -> None:
    folders = [f"-I{sources / name}" for name in ("include", "src", "runtime")]
    command = [compiler, "-std=c11", *WARNINGS, *EXACT, *LEVELS[level]]
    command += [*load_target(TARGET).flags, "-DBNC_THREADS=1", *folders]
    command += [sources / "src" / name for name in ("all.c", "main.c", "weights.S")]
    done = subprocess.run(
        [*map(str, command), "-pthread", "-o", tmp_path / "program"], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert logits(tmp_path / "program") == logits(sources / "bin" / "model")


@pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_header_is_cpp(
    compiler: str, standard: str, sources: Path, tmp_path: Path, unavailable: Unavailable
) -> None:
    program = compiler.replace("gcc", "g++").replace("clang", "clang++")
    if not shutil.which(program):
        unavailable(compiler, f"{program} is not installed")
    (tmp_path / "use.cpp").write_text(
        '#include "model.h"\n'
        'static_assert(sizeof(MODEL_VOCAB) > 0, "");\n'
        "size_t bytes() { return model_arena_bytes(MODEL_CONTEXT, 1) + MODEL_WEIGHTS_BYTES; }\n"
    )
    command = [program, f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    command += ["-fsyntax-only", f"-I{sources / 'include'}", str(tmp_path / "use.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_compilers_are_found(unavailable: Unavailable) -> None:
    """Of each family at least one: the parameters above come from what is installed."""
    for family in ("gcc", "clang"):
        if not any(name.startswith(family) for name in COMPILERS):
            unavailable(TARGET, f"no {family} is installed")
