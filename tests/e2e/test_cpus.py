"""One program for several CPUs, and programs tuned for the CPU of a board.

Each runs on every CPU that its target names and equals the reference there; a program for several
CPUs says which of its variants it chose, and computes the same with each of them.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.errors import BitnetcError
from bitnetc.run import command
from bitnetc.target import load_target, runs_here, target_names
from bitnetc.toolchain import tool, zig
from bitnetc.verify import verify
from e2e.built import Built, program_of

TARGETS = [t for t in map(load_target, target_names()) if t.variants or t.base]
PLACES = [(t.name, cpu) for t in TARGETS for cpu in t.checks]
SEVERAL = [t.name for t in TARGETS if t.variants]

# What each CPU makes of a program for several: its best variant.
CHOSEN = [
    ("rpi", "cortex-a53", "armv8-neon"),
    ("rpi", "cortex-a72", "armv8-neon"),
    ("rpi", "cortex-a76", "armv8.2-dotprod"),
    ("x86_64", "Penryn", "x86_64-sse4.1"),
    ("x86_64", "Nehalem", "x86_64-sse4.1"),
    ("x86_64", "Haswell", "x86_64-avx2"),
]

# One step below the floor -> what the sentence says is needed, and what it says the CPU has.
BELOW = [
    ("x86_64", "Conroe", "SSE4.1", "nothing beyond its architecture's baseline"),
    ("rpi5", "cortex-a53", "the dot product (asimddp)", "NEON"),
]


@pytest.fixture
def small(built: Callable[..., Built], tiny: Callable[[str], Path]) -> Callable[[str], Built]:
    """The tiny model with odd sizes, compiled for a target."""
    return lambda target: built(tiny("2b4t-odd-sizes"), target)


def words(built: Built, target: str, cpu: str, unavailable: Unavailable) -> list[str]:
    """What starts a program on a CPU."""
    try:
        return command(load_target(target), program_of(built[2], target), cpu, None)
    except BitnetcError as error:
        unavailable(target, str(error))


def run(start: list[str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*start, *arguments], input=stdin.encode(), capture_output=True)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """What the program says, without the emulator's remarks."""
    lines = done.stderr.decode().splitlines()
    return "\n".join(line for line in lines if not line.startswith("qemu-"))


@pytest.mark.parametrize(("target", "cpu"), PLACES)
def test_equals_the_reference(
    target: str, cpu: str, small: Callable[[str], Built], unavailable: Unavailable
) -> None:
    words(small(target), target, cpu, unavailable)
    model, plan, folder = small(target)
    for outcome in verify(model, plan, program_of(folder, target), cpu, long=40):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


@pytest.mark.parametrize(("target", "cpu", "variant"), CHOSEN)
def test_the_best_variant_is_chosen(
    target: str,
    cpu: str,
    variant: str,
    small: Callable[[str], Built],
    unavailable: Unavailable,
) -> None:
    start = words(small(target), target, cpu, unavailable)
    info = run(start, "--info").stdout.decode().splitlines()
    rows = [line.removeprefix("variants").strip() for line in info]
    names = [v.name for v in load_target(target).variants]
    states = {row.split(" ")[0]: row.split(" ", 1)[1] for row in rows if row.split(" ")[0] in names}
    assert list(states) == names
    for name in names[: names.index(variant)]:
        assert states[name] == "(this CPU lacks it)"
    assert states[variant] == "(used)"
    # What the CPU lacks cannot be forced, and the sentence says so.
    if variant != names[0]:
        done = run(start, "--cpu", names[0], "--logits", stdin="1")
        assert done.returncode == 3 and "this CPU lacks its instructions" in said(done)


@pytest.mark.parametrize("target", SEVERAL)
def test_every_variant_computes_the_same(
    target: str, small: Callable[[str], Built], unavailable: Unavailable
) -> None:
    """On the best CPU there is: this machine, else the last one that an emulator plays."""
    built = small(target)
    cpu = "host" if runs_here(load_target(target)) else load_target(target).checks[-1]
    start = words(built, target, cpu, unavailable)
    ids = " ".join(str(7 * i % built[0].shape.vocab) for i in range(30))
    listed = run(start, "--info").stdout.decode().splitlines()
    able = [
        v.name
        for v in load_target(target).variants
        if any(v.name in line.split() and "lacks" not in line for line in listed)
    ]
    assert len(able) >= 2
    logits = {
        (name, threads): run(start, "--cpu", name, "-t", threads, "--logits", stdin=ids).stdout
        for name in able
        for threads in ("1", "2")
    }
    assert len(set(logits.values())) == 1
    assert len(next(iter(logits.values()))) == 30 * 4 * built[0].shape.vocab
    done = run(start, "--cpu", "i486", "-p", "x")
    assert done.returncode == 2 and "--cpu" in said(done)


@pytest.mark.parametrize(("target", "cpu", "needs", "has"), BELOW, ids=[b[0] for b in BELOW])
def test_an_older_cpu_is_refused(
    target: str,
    cpu: str,
    needs: str,
    has: str,
    small: Callable[[str], Built],
    unavailable: Unavailable,
) -> None:
    done = run(words(small(target), target, cpu, unavailable), "--version")
    assert done.returncode == 3 and done.stdout == b""
    assert f"compiled for {target}, which needs {needs}; this CPU has {has}: " in said(done)
    assert len(said(done).splitlines()) == 1


LIBRARY = """
#include <stdio.h>
#include "model.h"
static _Alignas(MODEL_ARENA_ALIGN) unsigned char arena[MODEL_ARENA_BYTES(16, 1)];
int main(void)
{
    int able = 0;
    for (int i = 0; model_variant_name(i); i++)
        able += model_variant_runs(i);
    const int code = model_check(arena, sizeof arena, 16, 1);
    struct model *m = model_init(arena, sizeof arena, 16, 1);
    printf("%d %d %d %d %s\\n", able, code == MODEL_ECPU, code, m != 0, model_error(code));
    if (m)
        model_close(m);
    return 0;
}
"""


def test_a_library_on_an_older_cpu(
    small: Callable[[str], Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """It starts no session below the floor of its variants, and says why, without a program."""
    chosen = zig(load_target("x86_64"))
    folder, program = small("x86_64")[2], tmp_path / "program"
    (tmp_path / "library.c").write_text(LIBRARY)
    words = [*chosen.compiler, "-target", chosen.triple, "-static", f"-I{folder / 'include'}"]
    words += ["-Wall", "-Werror", tmp_path / "library.c", folder / "lib" / "libmodel.a"]
    subprocess.run([*words, "-o", program], check=True, capture_output=True)
    told = {}
    for cpu in ("Conroe", "Penryn"):
        try:
            start = command(load_target("x86_64"), program, cpu, None)
        except BitnetcError as error:
            unavailable("x86_64", str(error))
        told[cpu] = run(start).stdout.decode()
    assert told["Conroe"] == "0 1 -18 0 this CPU lacks instructions that are needed\n"
    assert told["Penryn"] == "1 0 0 1 no error\n"


@pytest.mark.parametrize("target", SEVERAL)
def test_library_symbols(
    target: str, small: Callable[[str], Built], unavailable: Unavailable
) -> None:
    """The units of the variants share hidden symbols with the model's prefix, and nothing else."""
    nm = shutil.which("nm") or unavailable(target, "binutils is not installed")
    listed = (Path(__file__).parents[2] / "runtime_c" / "libc.txt").read_text().split()
    library = small(target)[2] / "lib" / "libmodel.a"
    lines = subprocess.run([nm, "-g", library], capture_output=True, text=True).stdout
    defined = set(re.findall(r" [A-TV-Z] (\S+)$", lines, re.M))
    wanted = set(re.findall(r" U (\S+)$", lines, re.M))
    assert all(name.startswith("model_") for name in defined)
    steps = {f"model_step_{v.identifier}" for v in load_target(target).variants}
    assert steps | {"model_sync"} <= defined and "model_step" not in defined
    assert wanted - defined <= {*listed, "_GLOBAL_OFFSET_TABLE_"}


def test_a_cpu_named_by_the_build(small: Callable[[str], Built], tmp_path: Path) -> None:
    """A variant that needs more than the -mcpu of a build gets its own -mcpu, not an -march."""
    known = ("-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_C_COMPILER_FORCED=1")
    for flags, expected in (
        ("-mcpu=cortex-a72", "-mcpu=generic+dotprod"),
        ("-O2", "-march=armv8.2-a+dotprod"),
    ):
        words = [tool("cmake", "cmake"), "-S", small("rpi")[2], "-B", tmp_path / flags, *known]
        subprocess.run([*words, f"-DCMAKE_C_FLAGS={flags}"], capture_output=True)
        cache = (tmp_path / flags / "CMakeCache.txt").read_text()
        assert f"BNC_ISA_FLAGS_ARMV8_2_DOTPROD:STRING={expected}\n" in cache
        assert "BNC_ISA_FLAGS_ARMV8_NEON:STRING=\n" in cache
