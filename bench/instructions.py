"""Instructions of one kernel call per weight and token, counted by emulators: no board is needed.

    python bench/instructions.py                           all targets that an emulator runs
    python bench/instructions.py riscv64-rvv armv8-neon
    python bench/instructions.py --profile rvv:i2_m128k16 riscv64-rvv

A program calls a kernel once and then three times, on 64 x 2048 weights or the whole blocks that
hold them, with one token and with 64; half the difference is one call. Under qemu every instruction
is traced (translation blocks of one instruction). "registers" weighs RISC-V vector instructions by
the registers that vl elements of the widest operand fill, and counts others as one: what a core
does that handles one register a cycle. In WebAssembly wasmtime's fuel counts every instruction;
"operations" leaves out those that only move or name a value (local.get, local.set, local.tee,
constants), which are no instructions of a CPU. "dense" is the head in floats, one token.

--profile lists the instructions of a call with 64 tokens by how often each was executed.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kernels"), str(ROOT / "bench")]

from programs import build, kernels_of, render  # noqa: E402
from wasm_moves import with_moves_twice  # noqa: E402

from bitnetc.errors import BitnetcError  # noqa: E402
from bitnetc.run import command  # noqa: E402
from bitnetc.target import Target, load_target, target_names  # noqa: E402

ROWS, COLS = 64, 2048
_TRACE = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")


@dataclass
class Counts:
    """Of one call: executed instructions, and what a target's second column says."""

    instructions: float
    second: float


def emulated(target: Target) -> bool:
    return bool(target.checks) and not (target.variants or target.base or target.freestanding)


def _places(target: Target) -> list[str]:
    """What the program can call, in its order."""
    return [k.name for k in kernels_of(target)] + ["dense f16", "dense bf16", "dense bf12"]


def _cpus(target: Target) -> list[str]:
    return [cpu for cpu in target.checks if cpu not in ("host", "node")]


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("targets", nargs="*", help="all that an emulator runs")
    words.add_argument("--kernels", nargs="*", help="such as rvv:i2_m128k16; all of the target")
    words.add_argument("--tokens", type=int, nargs="*", default=[1, 64])
    words.add_argument("--profile", metavar="KERNEL")
    chosen = words.parse_args()
    asked = {*(chosen.kernels or []), *([chosen.profile] if chosen.profile else [])}
    found = False
    for name in chosen.targets or target_names():
        target = load_target(name)
        plays = emulated(target) and target.emulator and _cpus(target)
        lacks = asked - set(_places(target))
        if chosen.targets and not plays:
            raise BitnetcError(name, "no emulator plays its CPUs instruction by instruction")
        if chosen.targets and lacks:
            has = ", ".join(_places(target))
            raise BitnetcError(name, f"has no kernel {', '.join(sorted(lacks))}", f"it has {has}")
        if plays and not lacks:
            found = True
            report(target, chosen.kernels, chosen.tokens, chosen.profile)
    if not found:
        raise BitnetcError("--kernels", f"no target has {', '.join(sorted(asked))}")


def report(
    target: Target, wanted: list[str] | None, tokens: list[int], profile: str | None
) -> None:
    places = _places(target)
    own = any(k.features for k in kernels_of(target))
    names = [name for name in places if not (own and name.startswith("scalar:"))]
    if wanted or profile:
        names = [name for name in places if name in (wanted or [profile or ""])]
    wasm = target.arch == "wasm32"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "instructions.c"), Path(folder, "instructions")
        template = ROOT / "bench" / "instructions.c.jinja"
        shapes = [k.layout.pad(ROWS, COLS) for k in kernels_of(target)]
        text = render(template, target, rows=ROWS, cols=COLS, shapes=shapes)
        source.write_text(text)
        build(source, program, target, False)
        cpus = _cpus(target)
        # Vectors of any length differ by it; other CPUs execute the same instructions.
        for cpu in cpus if target.arch == "riscv64" else cpus[:1]:
            print(f"{target.name}, {cpu}")
            what = "operations" if wasm else "registers" if "rvv" in target.features else ""
            print(f"{'kernel':24}{'tokens':>8}{'instructions/weight':>22}{what:>14}")
            for name in names:
                place = places.index(name)
                for n in [1] if name.startswith("dense") else tokens:
                    found = count(target, program, cpu, place, n)
                    rows, cols = (*shapes, *3 * [(ROWS, COLS)])[place]
                    size = rows * cols * n
                    second = f"{found.second / size:14.4f}" if what else ""
                    print(f"{name:24}{n:>8}{found.instructions / size:22.4f}{second}")
            if profile and not wasm:
                show(target, program, cpu, places.index(profile))
            print(flush=True)


def count(target: Target, program: Path, cpu: str, place: int, tokens: int) -> Counts:
    once, thrice = (
        _fuel(program, [str(place), str(tokens), str(calls)])
        if target.arch == "wasm32"
        else _traced(target, program, cpu, [str(place), str(tokens), str(calls)])
        for calls in (1, 3)
    )
    return Counts((thrice.instructions - once.instructions) / 2, (thrice.second - once.second) / 2)


def trace(target: Target, program: Path, cpu: str, arguments: list[str]) -> Iterator[int]:
    """The addresses of all instructions that a program executes."""
    words = command(target, program, cpu, None)
    said = subprocess.run([words[0], "-h"], capture_output=True, text=True).stdout
    single = "-one-insn-per-tb" if "one-insn-per-tb" in said else "-singlestep"
    words[1:1] = [single, "-d", "nochain,exec"]
    run = subprocess.Popen([*words, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert run.stderr
    for line in run.stderr:
        found = _TRACE.match(line)
        if found:
            yield int(found[1], 16)
    if run.wait():
        raise BitnetcError(words[0], f"exit code {run.returncode}")


def _traced(target: Target, program: Path, cpu: str, arguments: list[str]) -> Counts:
    if "rvv" not in target.features:
        return Counts(sum(1 for _ in trace(target, program, cpu, arguments)), 0)
    code, bits = Code(program), int(re.findall(r"vlen=(\d+)", cpu)[0])
    vector = Vectors(bits)
    registers = instructions = 0
    for at in trace(target, program, cpu, arguments):
        instructions += 1
        registers += vector.registers(code.word(at))
    return Counts(instructions, registers)


class Code:
    """The bytes of a static ELF program of 64 bits, by address."""

    def __init__(self, program: Path) -> None:
        self.data = program.read_bytes()
        start = int.from_bytes(self.data[32:40], "little")
        size, number = (int.from_bytes(self.data[at : at + 2], "little") for at in (54, 56))
        self.parts = []
        for i in range(number):
            part = self.data[start + i * size : start + (i + 1) * size]
            offset, address, held = (
                int.from_bytes(part[at : at + 8], "little") for at in (8, 16, 32)
            )
            if part[:4] == b"\x01\0\0\0":  # PT_LOAD
                self.parts.append((address, address + held, offset))
        self.words: dict[int, int] = {}

    def word(self, at: int) -> int:
        if at not in self.words:
            begin, _, offset = next(p for p in self.parts if p[0] <= at < p[1])
            place = at - begin + offset
            self.words[at] = int.from_bytes(self.data[place : place + 4], "little")
        return self.words[at]


class Vectors:
    """What decides how many registers a RISC-V vector instruction fills: its widest operand, vtype
    and vl. Requests for vl are followed from constants through moves; one that comes from elsewhere
    counts as whole registers."""

    def __init__(self, bits: int) -> None:
        self.bits, self.vtype, self.vl = bits, 0, 0
        self.known: dict[int, int] = {}  # registers that hold constants

    def registers(self, word: int) -> int:
        """1 for scalar instructions."""
        if word & 3 != 3:
            self._compressed(word & 0xFFFF)
            return 1
        opcode, funct3, rd, rs1 = word & 0x7F, word >> 12 & 7, word >> 7 & 31, word >> 15 & 31
        if opcode == 0x57 and funct3 == 7:
            self._configure(word, rd, rs1)
            return 1
        width = 8 << (self.vtype >> 3 & 7)
        if opcode == 0x57:
            funct6 = word >> 26
            if funct3 == 2 and funct6 in (0x10, 0x14):  # vmv.x.s and its like
                self.known.pop(rd, None)
                return 1
            if funct3 == 3 and funct6 == 0x27:  # vmv<n>r.v
                return rs1 + 1
            wide = funct3 in (2, 6) and funct6 >= 0x30  # vw..: twice the width
            return self._filled(2 * width if wide else width)
        if opcode in (0x07, 0x27) and funct3 in (0, 5, 6, 7):
            if word >> 20 & 31 == 8 and word >> 26 & 3 == 0:  # whole registers
                return (word >> 29) + 1
            if word >> 20 & 31 == 11:  # a mask, a bit for each element
                return 1
            return self._filled(8 << {0: 0, 5: 1, 6: 2, 7: 3}[funct3])
        if opcode == 0x13 and funct3 == 0 and (rs1 == 0 or rs1 in self.known):
            value = word >> 20
            value -= (value & 0x800) << 1
            self.known[rd] = value + (self.known[rs1] if rs1 else 0)
        elif opcode not in (0x23, 0x63):  # stores and branches write no register
            self.known.pop(rd, None)
        return 1

    def _configure(self, word: int, rd: int, rs1: int) -> None:
        immediate = word >> 30 == 3  # vsetivli
        if not immediate and word >> 31:
            raise BitnetcError("vsetvl", "takes vtype from a register, which is not followed")
        self.vtype = word >> 20 & (0x3FF if immediate else 0x7FF)
        log = self.vtype & 7
        most = int(self.bits * 2.0 ** (log - 8 if log > 3 else log) / (8 << (self.vtype >> 3 & 7)))
        if immediate:
            self.vl = min(most, rs1)
        elif rs1:
            self.vl = min(most, self.known.get(rs1, most))
        elif rd:
            self.vl = most
        if rd:
            self.known[rd] = self.vl

    def _compressed(self, word: int) -> None:
        quadrant, funct3, rd, rs2 = word & 3, word >> 13, word >> 7 & 31, word >> 2 & 31
        if quadrant == 1 and funct3 == 2:  # c.li
            self.known[rd] = rs2 - (word >> 7 & 32)
        elif quadrant == 2 and funct3 == 4 and rs2 and not word >> 12 & 1:  # c.mv
            self.known.pop(rd, None)
            if rs2 in self.known:
                self.known[rd] = self.known[rs2]
        else:  # one of these may be written
            for register in (rd, 8 + (word >> 2 & 7), 8 + (word >> 7 & 7)):
                self.known.pop(register, None)

    def _filled(self, width: int) -> int:
        return max(1, -(-self.vl * width // self.bits))


def _fuel(program: Path, arguments: list[str]) -> Counts:
    """All executed WebAssembly instructions, and those that do more than move a value."""
    code = program.read_bytes()
    whole = _spent(code, arguments)
    return Counts(whole, whole - (_spent(with_moves_twice(code), arguments) - whole))


def _spent(code: bytes, arguments: list[str]) -> int:
    wasmtime: Any = importlib.import_module("wasmtime")
    config = wasmtime.Config()
    config.consume_fuel = True
    engine = wasmtime.Engine(config)
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    store.set_fuel(2**62)
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["program", *arguments]
    store.set_wasi(wasi)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module(engine, code))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as ended:
        if ended.code:
            raise BitnetcError("wasmtime", f"exit code {ended.code}") from None
    return 2**62 - int(store.get_fuel())


def show(target: Target, program: Path, cpu: str, place: int) -> None:
    """The instructions that a call executes most, as words, in order of their address."""
    code, found = Code(program), Counter(trace(target, program, cpu, [str(place), "64", "1"]))
    often = max(found.values()) // 20
    for at in sorted(at for at, times in found.items() if times > often):
        print(f"{at:8x}  {code.word(at):08x}  {found[at]}")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.pop("QEMU_CPU", None)
    main()
