"""Which C compiler serves a target: named by the user, found here, or zig cc.

--cc, then CMAKE_TOOLCHAIN_FILE, then CC      whatever the target
this machine's cc, gcc or clang               targets native and scalar
zig cc, static where the system allows it     every named target
"""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bitnetc.errors import BitnetcError
from bitnetc.target import Target, host_arch, host_system, triple_system

# Second word of a triple -> CMake's name of the system. Generic: no shared libraries, no suffixes.
SYSTEMS = {
    "linux": "Linux",
    "wasi": "Generic",
    "macos": "Darwin",
    "windows": "Windows",
    "freestanding": "Generic",
}


@dataclass(frozen=True)
class Toolchain:
    """What CMake is told. Paths stay out of the bundle."""

    name: str  # for messages
    compiler: tuple[str, ...]  # C and assembler driver with its first arguments; () if file is set
    archiver: tuple[str, ...]  # () lets CMake find one
    triple: str  # "" builds for the compiler's own default
    static: bool
    isa_flags: tuple[str, ...]  # flags that select the target's instruction set
    file: Path | None = None  # a CMake toolchain file of the user's
    zig: bool = False  # whose spelling of flags differs
    bare: bool = False  # a compiler of the user's for a target without operating system

    def flags_of(self, target: Target) -> tuple[str, ...]:
        """The flags that select a target's instruction set, as this compiler spells them."""
        return target.zig_flags if self.zig else target.flags


def choose(target: Target, native: bool, cc: str | None) -> Toolchain:
    """The toolchain by the rule above. native: the user asked for this machine.

    Raises BitnetcError when a named compiler does not exist or none is found.
    """
    if cc:
        return _named(cc, "--cc", target, native)
    file = os.environ.get("CMAKE_TOOLCHAIN_FILE")
    if file:
        if not Path(file).is_file():
            raise BitnetcError("CMAKE_TOOLCHAIN_FILE", f"{file} is not a file")
        path = Path(file).resolve()
        return Toolchain(path.name, (), (), "", False, target.flags, path)
    if os.environ.get("CC"):
        return _named(os.environ["CC"], "CC", target, native)
    if native or target.arch == "host":
        for name in ("cc", "gcc", "clang"):
            found = shutil.which(name)
            if found:
                return Toolchain(name, (found,), (), "", False, target.flags)
    return zig(target)


def zig(target: Target) -> Toolchain:
    """zig cc from the ziglang package."""
    try:
        import ziglang
    except ImportError:
        raise BitnetcError(
            "toolchain",
            "no C compiler: the ziglang package is not installed",
            "pip install ziglang, or name a compiler with --cc",
        ) from None
    binary = str(Path(ziglang.__file__).parent / "zig")
    here = {"linux": "linux-musl", "macos": "macos-none", "windows": "windows-gnu"}
    triple = target.triple or f"{host_arch()}-{here[host_system()]}"
    static = triple_system(triple) == "linux"
    # -s: no debug information, which names the folder of the build.
    words = (binary, "cc", "-s", *target.zig_baseline)
    return Toolchain("zig cc", words, (binary, "ar"), triple, static, target.zig_flags, zig=True)


def _named(command: str, origin: str, target: Target, native: bool) -> Toolchain:
    words = shlex.split(command)
    found = shutil.which(words[0]) if words else None
    if not found:
        raise BitnetcError(
            origin,
            f'compiler "{command}" was not found',
            "give its full path, or leave it out to use zig cc",
        )
    compiler, bare = (found, *words[1:]), target.freestanding
    foreign = not native and target.arch != "host" and not bare
    return Toolchain(command, compiler, (), "", foreign, target.flags, bare=bare)


def tool(package: str, program: str) -> str:
    """A program that a Python package carries (cmake, ninja), else the one on PATH."""
    beside = Path(sys.executable).parent / program
    if beside.is_file():
        return str(beside)
    found = shutil.which(program)
    if not found:
        raise BitnetcError("toolchain", f"{program} was not found", f"pip install {package}")
    return found
