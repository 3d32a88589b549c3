"""The programs for macOS and Windows: what kind of file, what they import, how they behave.

Nothing here runs a Mac's program; its file is read instead, the signature's hashes included. The
program for Windows runs under Wine, here and in test_bits.py.
"""

import filecmp
import hashlib
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tokenizers
from unavailable import Unavailable

from bitnetc.compiler import Options, compile_model, load
from bitnetc.reference import Reference
from e2e.built import EXAMPLE, Built, program_of
from e2e.test_bits import start

MACOS, WINDOWS = "aarch64-macos", "x86_64-windows"


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def name_at(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


# macOS: the Mach-O file.


@dataclass(frozen=True)
class MachO:
    data: bytes
    commands: list[tuple[int, int]]  # kind, offset in the file

    def of(self, kind: int) -> list[int]:
        return [at for found, at in self.commands if found == kind]


@pytest.fixture(scope="module")
def mach(built: Callable[..., Built]) -> MachO:
    data = program_of(built(EXAMPLE, MACOS)[2], MACOS).read_bytes()
    magic, cpu, _, kind, count, _, flags, _ = struct.unpack_from("<8I", data)
    assert (magic, cpu, kind) == (0xFEEDFACF, 0x0100000C, 2)  # 64 bits, Arm, a program
    assert flags & 0x200000 and flags & 0x1  # position-independent, nothing undefined
    commands, at = [], 32
    for _ in range(count):
        commands.append((word(data, at), at))
        at += word(data, at + 4)
    return MachO(data, commands)


def test_macos_imports(mach: MachO) -> None:
    """One library, which is the system's own interface, found by the system's loader."""
    libraries = [name_at(mach.data, at + word(mach.data, at + 8)) for at in mach.of(0xC)]
    assert libraries == ["/usr/lib/libSystem.B.dylib"]
    loaders = [name_at(mach.data, at + word(mach.data, at + 8)) for at in mach.of(0xE)]
    assert loaders == ["/usr/lib/dyld"]
    assert not mach.of(0x8000001C)  # no folder to search for libraries in
    ((build),) = mach.of(0x32)
    platform, oldest = word(mach.data, build + 8), word(mach.data, build + 12)
    assert (platform, oldest) == (1, 11 << 16)  # macOS 11.0


def test_macos_segments(mach: MachO, built: Callable[..., Built]) -> None:
    """Pages of 16 KiB, none of them writable and executable; the weights are read-only."""
    weights = (built(EXAMPLE, MACOS)[2] / "src" / "weights.bin").read_bytes()
    at_weights = mach.data.index(weights)
    holders = []
    for at in mach.of(0x19):
        name = mach.data[at + 8 : at + 24].rstrip(b"\0").decode()
        address, _, offset, size = struct.unpack_from("<4Q", mach.data, at + 24)
        protection = word(mach.data, at + 60)
        assert address % 16384 == 0 and offset % 16384 == 0, name
        assert protection & 6 != 6, f"{name} is writable and executable"
        if offset <= at_weights < offset + size:
            holders.append((name, protection & 2))
    assert holders == [("__TEXT", 0)]


def test_macos_signature(mach: MachO) -> None:
    """Apple silicon starts no program without one: ad hoc, and every page's hash is right."""
    (command,) = mach.of(0x1D)
    blob = mach.data[word(mach.data, command + 8) :]
    magic, _, count = struct.unpack_from(">3I", blob)
    slots = dict(struct.unpack_from(">2I", blob, 12 + 8 * i) for i in range(count))
    assert magic == 0xFADE0CC0 and 0 in slots
    directory = blob[slots[0] :]
    magic, _, _, flags, hashes, _, _, pages, limit = struct.unpack_from(">9I", directory)
    size, kind, _, log_page = struct.unpack_from("4B", directory, 36)
    assert magic == 0xFADE0C02 and flags & 2  # ad hoc
    assert (size, kind) == (32, 2)  # SHA-256
    assert limit == word(mach.data, command + 8)  # all that stands before the signature
    page = 1 << log_page
    for i in range(pages):
        content = mach.data[i * page : min((i + 1) * page, limit)]
        assert directory[hashes + 32 * i :][:32] == hashlib.sha256(content).digest(), f"page {i}"
    assert (pages - 1) * page < limit <= pages * page


# Windows: the PE file.


@pytest.fixture(scope="module")
def windows(built: Callable[..., Built]) -> Path:
    return program_of(built(EXAMPLE, WINDOWS)[2], WINDOWS)


def test_windows_file(windows: Path) -> None:
    data = windows.read_bytes()
    assert windows.name == "model.exe" and data[:2] == b"MZ"
    head = word(data, 0x3C)
    assert data[head : head + 4] == b"PE\0\0"
    machine, sections = struct.unpack_from("<2H", data, head + 4)
    optional = head + 24
    assert machine == 0x8664 and data[optional : optional + 2] == b"\x0b\x02"
    (subsystem, flags) = struct.unpack_from("<2H", data, optional + 68)
    assert subsystem == 3  # the console's
    assert flags & 0x160 == 0x160  # addresses of 64 bits at random, no execution of data
    table = optional + struct.unpack_from("<H", data, head + 20)[0]
    places = [struct.unpack_from("<8s4I", data, table + 40 * i) for i in range(sections)]

    def offset(address: int) -> int:
        for _, size, first, raw_size, raw in places:
            if first <= address < first + max(size, raw_size):
                return int(raw + address - first)
        raise AssertionError(hex(address))

    imported, at = set(), offset(word(data, optional + 112 + 8))
    while word(data, at + 12):
        imported.add(name_at(data, offset(word(data, at + 12))).lower())
        at += 20
    # Parts of every Windows since 10: the kernel, the C runtime, and what splits the command line.
    others = {name for name in imported if not name.startswith("api-ms-win-crt-")}
    assert others == {"kernel32.dll", "shell32.dll"}


def test_windows_arguments(windows: Path, tmp_path: Path, unavailable: Unavailable) -> None:
    """Text beyond the code page, in arguments and in names of files; bytes, not lines, come out."""
    words = start(WINDOWS, windows, "host", unavailable)
    prompt = "It is a truth, \u00e9t\u00e9 \u4e2d \U0001f600"
    (tmp_path / "pr\u00f6mpt \u4e2d.txt").write_text(prompt)
    judge = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    ids, reference = judge.encode(prompt).ids, Reference(load(EXAMPLE))
    text = list(ids)
    for _ in range(4):
        text.append(int(reference.logits(text)[-1].argmax()))
    written = f"{judge.decode(text[len(ids) :])}\n".encode()
    for arguments, wanted in (
        (["--tokens", "-p", prompt], f"{' '.join(map(str, ids))}\n".encode()),
        (["-p", prompt, "-n", "4", "--temp", "0", "-q"], written),
        (["-f", "pr\u00f6mpt \u4e2d.txt", "-n", "4", "--temp", "0", "-q"], written),
    ):
        got = subprocess.run([*words, *arguments], capture_output=True, cwd=tmp_path)
        assert (got.returncode, got.stdout) == (0, wanted), arguments


def test_windows_mistakes(windows: Path, unavailable: Unavailable) -> None:
    words = start(WINDOWS, windows, "host", unavailable)
    for arguments, code, said in (
        (("--sparkle",), 2, "--sparkle: unknown option"),
        (("-f", "nowhere.txt"), 1, "nowhere.txt: No such file"),
        (("--logits",), 2, "--logits: no token ids"),
    ):
        done = subprocess.run([*words, *arguments], input=b"", capture_output=True)
        assert done.returncode == code and said in done.stderr.decode() and done.stdout == b""


@pytest.mark.parametrize("target", [MACOS, WINDOWS])
def test_same_bytes_again(target: str, built: Callable[..., Built], tmp_path: Path) -> None:
    """No time and no folder of the build is in what the linkers of these systems write."""
    first = built(EXAMPLE, target)[2]
    compile_model(load(EXAMPLE), Options(target=target, werror=True), tmp_path / "out")
    names = [f"bin/{program_of(first, target).name}", "lib/libmodel.a"]
    assert filecmp.cmpfiles(first, tmp_path / "out", names, shallow=False) == (names, [], [])
