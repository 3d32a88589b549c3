"""Check programs: rendered from the kernel list, built as the compiler would build, and run."""

import dataclasses
import os
import subprocess
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from bitnetc import __version__, resources
from bitnetc.emit import environment
from bitnetc.errors import BitnetcError
from bitnetc.kernels import KERNELS, Kernel
from bitnetc.layout import Layout
from bitnetc.run import command
from bitnetc.target import Target, load_target, runs_here, target_names
from bitnetc.toolchain import Toolchain, choose

HERE = Path(__file__).resolve().parent

# As templates/CMakeLists.txt.jinja, with strict C11.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
SANITISE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Variant:
    """One way to build and run a target's programs."""

    target: str
    cpu: str  # "host", or what the emulator plays
    native: bool  # this machine's compiler instead of the target's cross compiler
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        compiler = "cc" if self.native else "cross"
        return "-".join([self.target, self.cpu, compiler, *(["sanitised"] if self.flags else [])])


def variants() -> list[Variant]:
    """Every instruction set on every CPU of its checks; where it runs here, this machine's compiler
    too, plain and sanitised."""
    found = []
    for target in map(load_target, target_names()):
        if target.variants or target.base or target.system == "windows":
            continue  # its kernels and flags are those of targets that are here
        found += [Variant(target.name, cpu, False) for cpu in target.checks]
        if runs_here(target):
            found += [Variant(target.name, "host", True)] * (target.arch != "host")
            found.append(Variant(target.name, "host", True, SANITISE))
    return found


def kernels_of(target: Target) -> list[Kernel]:
    """All kernels that the target's CPUs can run, whether or not its file lists them."""
    return [k for k in KERNELS.values() if set(k.features) <= set(target.features)]


def bytes_of(layout: Layout) -> dict[str, Any]:
    """The bytes that check_kernels.h fills weights with."""
    code = layout.code
    if code.parts > 1:  # a byte's place says what it holds: all codes the least, or the largest
        every_byte = list(range(256))
        return {
            "valid": every_byte,
            "changed": [byte ^ (1 << byte % 8) for byte in every_byte],
            "hot": [0, 63, 255, *(32 ^ 1 << bit for bit in range(8))],
            "low": 0,
            "zero": 32,
            "high": 255,
            "mixed": [0, 255],
        }
    last = code.base**code.trits - 1
    zero = int(code.encode(np.zeros((1, code.trits), np.int8))[0, 0])

    def byte(*codes: int) -> int:
        return int(code.join(np.array(codes, np.uint8)))

    def all_but(lane: int, other: int) -> int:
        return byte(*(other if i == lane else zero for i in range(code.lanes)))

    changed = [0] * 256
    every = list(product(range(last + 1), repeat=code.lanes))
    for i, codes in enumerate(every):
        lane = i % code.lanes
        old = codes[lane]
        ternary = code.base == 3
        new = old - old % 3 + (old + 1) % 3 if ternary else old ^ 1
        changed[byte(*codes)] = byte(*codes[:lane], new, *codes[lane + 1 :])
    mixed = [[last if (lane + i) % 2 else 0 for lane in range(code.lanes)] for i in range(2)]
    return {
        "valid": sorted(byte(*codes) for codes in every),
        "changed": changed,
        "hot": [all_but(lane, other) for lane in range(code.lanes) for other in (0, last)],
        "low": byte(*[0] * code.lanes),
        "zero": byte(*[zero] * code.lanes),
        "high": byte(*[last] * code.lanes),
        "mixed": [byte(*codes) for codes in mixed],
    }


def render(template: Path, target: Target, **more: object) -> str:
    """A program's text for one target and its kernels; `more` is for the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(
        target=target,
        kernels=kernels_of(target),
        bytes_of={k.layout_name: bytes_of(k.layout) for k in kernels_of(target)},
        **more,
    )


def build(
    source: Path, program: Path, target: Target, native: bool, flags: tuple[str, ...] = ()
) -> Path:
    """Compiles one C file. Raises BitnetcError when no compiler is found, with the compiler's
    words when it fails."""
    toolchain = choose(target, native, None)
    words = [*FLAGS, *WARNINGS, "-DBNC_THREADS=0", f"-I{resources.RUNTIME}", f"-I{HERE}"]
    freestanding = _freestanding_words(target, program)
    if freestanding:
        steps = [[*words, *freestanding, str(source), "-o", str(program), *flags]]
    else:
        # Linked without the instruction set, whose C library zig would first have to compile.
        made = program.with_suffix(".o")
        steps = [
            [*words, "-c", str(source), "-o", str(made), *flags],
            [str(made), "-o", str(program), *flags],  # a library comes after what needs it
        ]
    for i, step in enumerate(steps):
        isa = toolchain.isa_flags if i == 0 else ()
        command = [*compiler_words(toolchain, isa, link=step is steps[-1]), *step]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CompilerFailed(f"{toolchain.name} failed on {source.name}:\n{done.stderr}")
    return program


# Memory of a board for the widest matrix: enough for what dsp and mve in bitnetc/kernels.py allow.
CHECK_BYTES = 2**23


def _freestanding_words(target: Target, program: Path) -> list[str]:
    """Where there is no C library: a small one over semihosting, and the board's memory map."""
    if not target.firmware:
        return []
    script = program.with_suffix(".ld")
    heap = target.firmware.weights
    view = {"model": {"name": "checks"}, "name": "none", "version": __version__}
    view |= {"detached": False}
    view |= {"target": target, "firmware": dataclasses.replace(target.firmware, stack=65536)}
    script.write_text(environment().get_template("freestanding/link.ld.jinja").render(view))
    own, library = HERE / "freestanding", resources.RUNTIME / "freestanding"
    return [
        *(f"-I{own}", f"-I{library}", "-Dmain=checks_main", f"-DCHECK_BYTES={CHECK_BYTES}"),
        *(f"-DHEAP={heap.origin}u", f"-DHEAP_BYTES={heap.bytes}u"),
        *("-g0", "-T", str(script), str(own / "checks_libc.c")),
    ]


class CompilerFailed(Exception):
    """The compiler ran and refused the source: never a reason to skip."""


def compiler_words(toolchain: Toolchain, isa_flags: tuple[str, ...], link: bool) -> list[str]:
    """The compiler with what selects the target."""
    if not toolchain.compiler:
        raise BitnetcError(toolchain.name, "a CMake toolchain file names no compiler to call")
    words = [*toolchain.compiler, *isa_flags]
    if toolchain.triple:
        words.append(f"--target={toolchain.triple}")
    if toolchain.static and link:
        words.append("-static")
    return words


def run(
    variant: Variant, program: Path, arguments: list[str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program on the variant's CPU. Raises BitnetcError when nothing can run it."""
    words = command(load_target(variant.target), program, variant.cpu, None)
    # The check programs end without freeing what they hold.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([*words, *arguments], input=stdin, capture_output=True, env=environment)
