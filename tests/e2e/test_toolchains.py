"""The source package under a distribution's cross compilers, by the boards' toolchain files."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.package import BOARDS, Board, boards, package
from bitnetc.target import load_target
from bitnetc.toolchain import tool
from e2e.built import EXAMPLE, Built
from e2e.test_bits import start

TARGETS = {"rpi2": "armv7-neon", "rpi3": "armv8-neon", "rpi4": "armv8-neon"}
TARGETS["rpi5"] = "armv8.2-dotprod"
TEXT = ("-q", "-p", "It is a truth", "-n", "8", "--temp", "0")


def test_every_board_has_a_target() -> None:
    for board in BOARDS:
        assert board in boards(load_target(TARGETS[board.name]))
    assert [b.name for b in boards(load_target("armv8.2-dotprod"))] == ["rpi5"]
    assert not boards(load_target("x86_64-avx2")) and not boards(load_target("aarch64-macos"))


# A Raspberry Pi 4 has the target and the compiler of a 3, and differs in one flag.
@pytest.mark.parametrize(
    "board", [b for b in BOARDS if b.name != "rpi4"], ids=lambda board: board.name
)
def test_board(
    board: Board, built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """Compiled without a warning, for landing pads too; runs on the board's CPU with equal text."""
    target = TARGETS[board.name]
    if not shutil.which(f"{board.prefix}-gcc"):
        unavailable(board.name, f"gcc-{board.prefix} is not installed")
    compiled = built(EXAMPLE, target)[2]
    package(compiled, tmp_path / "p", ("cmake",))
    with tarfile.open(next((tmp_path / "p").glob("model-?.?.?.tar.gz"))) as tar:
        tar.extractall(tmp_path, filter="data")
    source = next(path for path in tmp_path.glob("model-*") if path.is_dir())
    options = [f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / 'p' / 'toolchains' / board.name}.cmake"]
    options += ["-DCMAKE_EXE_LINKER_FLAGS=-static", "-DBNC_WERROR=ON"]
    landing = "-mbranch-protection=standard" if board.arch == "aarch64" else ""
    environment = {**os.environ, "CFLAGS": landing}
    cmake, build = tool("cmake", "cmake"), tmp_path / "build"
    for command in (
        [cmake, "-S", source, "-B", build, *options],
        [cmake, "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and "warning:" not in done.stderr, done.stdout + done.stderr
    cpu = re.search(r"-mcpu=(\S+)", board.flags)
    assert cpu
    words = start(target, build / "model", cpu[1], unavailable)
    own = start(target, compiled / "bin" / "model", cpu[1], unavailable)
    got, wanted = (subprocess.run([*w, *TEXT], capture_output=True) for w in (words, own))
    assert got.returncode == 0 and got.stdout == wanted.stdout and got.stdout
    if landing:  # one object without the note would turn BTI off for the whole program
        readelf = f"{board.prefix}-readelf"
        notes = subprocess.run(
            [readelf, "-n", build / "libmodel.a"], capture_output=True, text=True
        )
        assert notes.stdout.count("AArch64 feature: BTI, PAC") == notes.stdout.count("File:") > 1


def test_flags_of_another_board(
    built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """Its compiler takes them, for the program and for the library."""
    board = next(b for b in BOARDS if b.name == "rpi4")
    if not shutil.which(f"{board.prefix}-gcc"):
        unavailable(board.name, f"gcc-{board.prefix} is not installed")
    compiled = built(EXAMPLE, TARGETS[board.name])[2]
    package(compiled, tmp_path / "p", ("cmake",))
    file = tmp_path / "p" / "toolchains" / f"{board.name}.cmake"
    options = [f"-DCMAKE_TOOLCHAIN_FILE={file}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    words = [tool("cmake", "cmake"), "-S", compiled, "-B", tmp_path / "build", *options]
    done = subprocess.run(words, capture_output=True, text=True)  # which compiles a trial program
    assert done.returncode == 0 and "warning:" not in done.stderr, done.stdout + done.stderr
    commands = json.loads((tmp_path / "build" / "compile_commands.json").read_text())
    assert len(commands) >= 3
    assert all(f"{board.prefix}-gcc " in c["command"] for c in commands)
    assert all(board.flags in c["command"] for c in commands)


# Android: what can be seen without one (docs/android.md).

# System calls of a run: memory, threads, time and streams.
CALLS = {
    *("brk", "mmap", "munmap", "mprotect", "madvise", "clone", "exit", "exit_group", "futex"),
    *("set_tid_address", "set_robust_list", "rt_sigprocmask", "rt_sigaction", "sched_yield"),
    *("sched_getaffinity", "clock_gettime", "ioctl", "read", "readv", "write", "writev"),
    *("membarrier", "lseek", "fstat", "newfstatat", "openat", "close"),
}


def readelf(*words: object) -> str:
    command = ["readelf", "-W", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_static_program_asks_little_of_android(
    built: Callable[..., Built], unavailable: Unavailable
) -> None:
    program = built(EXAMPLE, "armv8-neon")[2] / "bin" / "model"
    words = start("armv8-neon", program, "cortex-a53", unavailable)
    traced = [*words[:-1], "-strace", words[-1], "-p", "It is", "-n", "3", "-t", "2"]
    done = subprocess.run(traced, capture_output=True, text=True, check=True)
    calls = set(re.findall(r"^\d+ ([a-z_0-9]+)\(", done.stderr, re.M))
    assert {"clone", "exit_group"} <= calls <= CALLS, calls - CALLS
    segments = readelf("-l", program)
    assert "INTERP" not in segments
    assert set(re.findall(r"LOAD .* (0x[0-9a-f]+)\n", segments)) == {"0x10000"}


def test_a_shared_library_for_an_app(
    built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    if not shutil.which("aarch64-linux-gnu-gcc"):
        unavailable("armv8-neon", "gcc-aarch64-linux-gnu is not installed")
    cmake, build = tool("cmake", "cmake"), tmp_path / "build"
    options = ["-DBUILD_SHARED_LIBS=ON", "-DBNC_WITH_CLI=OFF", "-DCMAKE_SYSTEM_NAME=Linux"]
    options += [f"-DCMAKE_{lang}_COMPILER=aarch64-linux-gnu-gcc" for lang in ("C", "ASM")]
    source = built(EXAMPLE, "armv8-neon")[2]
    for command in ([cmake, "-S", source, "-B", build, *options], [cmake, "--build", build]):
        subprocess.run(command, check=True, capture_output=True)
    library = build / "libmodel.so"
    dynamic = readelf("-d", library)
    assert "SONAME" in dynamic and "TEXTREL" not in dynamic
    aligned = re.findall(r"LOAD .* (0x[0-9a-f]+)\n", readelf("-l", library))
    assert aligned and all(int(align, 16) % 16384 == 0 for align in aligned)
    shown = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)", readelf("--dyn-syms", library))
    assert shown and all(name.startswith("model_") for name in shown)
