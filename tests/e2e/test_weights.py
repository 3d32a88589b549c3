"""Weights in the program, in a file, in a region, and beyond the reach of code."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc import build, elf, emit, semihosting
from bitnetc.build import Artifact
from bitnetc.cli import _say_compiled
from bitnetc.compiler import Options, compile_model, load
from bitnetc.errors import BitnetcError
from bitnetc.pack import slots
from bitnetc.reference import Reference
from bitnetc.resources import RUNTIME
from bitnetc.target import load_target
from bitnetc.toolchain import choose, tool, zig
from bitnetc.verify import verify
from e2e.built import EXAMPLE, Built, program_of

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"
ASKED = ("-q", "-p", "It is a truth", "-n", "12", "--temp", "0")
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = 1 << 28  # SHF_X86_64_LARGE


def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def text_of(*words: object, **options: object) -> str:
    done = run(*words, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def refused(*words: object) -> str:
    """The one line of a program that ends with 2."""
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def detached(built: Callable[..., Built]) -> Path:
    return built(EXAMPLE, "native", name="austen", weights="file")[2]


@pytest.fixture(scope="module")
def said(built: Callable[..., Built]) -> str:
    """What the program with its weights inside writes."""
    folder = built(EXAMPLE, "native", name="austen")[2]
    return text_of(program_of(folder, "native", "austen"), *ASKED)


def test_file_is_found(detached: Path, said: str, tmp_path: Path) -> None:
    """In ../share, beside the program (also when it is found on PATH), where --weights says."""
    program = program_of(detached, "native", "austen")
    weights = detached / "share" / "austen.weights"
    assert text_of(program, *ASKED) == said
    moved = Path(shutil.copy(program, tmp_path))
    assert "beside the program" in refused(moved, *ASKED)
    assert text_of(moved, *ASKED, "--weights", weights, "--check-weights") == said
    shutil.copy(weights, tmp_path)
    path = {**os.environ, "PATH": str(tmp_path)}
    assert text_of(moved, *ASKED, cwd="/") == said
    assert text_of(moved.name, *ASKED, cwd="/", env=path) == said
    assert "reads" in text_of(program, "--info", cwd="/")
    size = weights.stat().st_size
    assert program.stat().st_size < size / 2 + 2_000_000
    assert not (detached / "src" / "weights.bin").exists()


@pytest.mark.parametrize("weights", ["binary", "file"])
def test_huge_pages(weights: str, built: Callable[..., Built], said: str) -> None:
    """The weights are replaced by memory that no file is behind, at the same addresses."""
    program = program_of(
        built(EXAMPLE, "native", name="austen", weights=weights)[2], "native", "austen"
    )
    if "[never]" in SETTING.read_text():
        done = run(program, *ASKED, "--huge-pages")
        assert done.returncode == 1 and str(SETTING) in done.stderr
        return
    assert text_of(program, *ASKED, "--huge-pages") == said
    assert "stay resident" in text_of(program, "--info", "--huge-pages")
    with subprocess.Popen([program, "--logits", "--huge-pages"], stdin=subprocess.PIPE) as waiting:
        assert waiting.stdin
        ready = time.monotonic() + 20
        while time.monotonic() < ready:
            maps = Path(f"/proc/{waiting.pid}/maps").read_text()
            found = re.findall(r"^(\w+)-(\w+) r--p \S+ 00:00 0 *$", maps, re.M)
            if any(int(to, 16) - int(at, 16) >= 2**21 for at, to in found):
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"no copy of the weights:\n{maps}")
        waiting.stdin.close()
        waiting.wait(20)


@pytest.mark.parametrize(
    ("setting", "never"),
    [("always madvise [never]\n", "1"), ("always [madvise] never\n", "0"), (None, "0")],
)
def test_a_system_without_huge_pages(setting: str | None, never: str, tmp_path: Path) -> None:
    if setting:
        (tmp_path / "enabled").write_text(setting)
    (tmp_path / "ask.c").write_text(
        '#define BNC_HUGE_SETTING "enabled"\n#define _GNU_SOURCE\n#include "bnc_huge.h"\n'
        'int main(void) { return printf("%d", bnc_huge_never()) < 0; }\n'
    )
    compiler = choose(load_target("scalar"), True, None).compiler
    subprocess.run([*compiler, f"-I{RUNTIME}", "ask.c", "-o", "ask"], cwd=tmp_path, check=True)
    assert text_of(tmp_path / "ask", cwd=str(tmp_path)) == never


def test_a_mapped_file_asks_for_huge_pages(tmp_path: Path) -> None:
    """For the mapping that is large enough, and no other."""
    (tmp_path / "ask.c").write_text(
        '#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdlib.h>\n#include "bnc_huge.h"\n'
        "int main(void) {\n"
        '    const int file = open("weights", O_RDONLY);\n'
        "    const size_t most = BNC_HUGE_STEP + 2 * BNC_HUGE_PAGE, least = 2 * BNC_HUGE_PAGE;\n"
        "    if (mmap(0, most, PROT_READ, MAP_PRIVATE, file, 0) == MAP_FAILED ||\n"
        "        mmap(0, least, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED)\n"
        "        return 1;\n"
        "    bnc_huge_file(BNC_HUGE_STEP - 1);\n"
        '    if (system("grep -c hg /proc/$PPID/smaps") == -1)\n'
        "        return 1;\n"
        "    bnc_huge_file(BNC_HUGE_STEP);\n"
        '    return system("grep -c hg /proc/$PPID/smaps") == -1;\n'
        "}\n"
    )
    with open(tmp_path / "weights", "wb") as file:
        file.truncate(68 << 20)
    compiler = choose(load_target("scalar"), True, None).compiler
    subprocess.run([*compiler, f"-I{RUNTIME}", "ask.c", "-o", "ask"], cwd=tmp_path, check=True)
    assert text_of(tmp_path / "ask", cwd=str(tmp_path)).split() == ["0", "1"]


def test_file_equals_the_reference(built: Callable[..., Built]) -> None:
    model, plan, folder = built(EXAMPLE, "native", name="austen", weights="file")
    for outcome in verify(model, plan, program_of(folder, "native", "austen"), long=12):
        assert outcome.equal, outcome.detail


def test_file_on_another_machine(built: Callable[..., Built], tmp_path: Path) -> None:
    """The runner's machine gets program and file and keeps neither, also where one has no room."""
    model, plan, folder = built(EXAMPLE, "native", name="austen", weights="file")
    program, weights = program_of(folder, "native", "austen"), folder / "share" / "austen.weights"
    board, log = tmp_path / "board", tmp_path / "log"
    board.mkdir()
    assert program.stat().st_size < weights.stat().st_size - 8192
    for kilobytes in ("unlimited", str(weights.stat().st_size // 1024 - 4)):  # of a file at most
        ssh = tmp_path / f"ssh-{kilobytes}"
        ssh.write_text(
            f"#!/bin/bash\ncd {board}\nulimit -f {kilobytes}\ntrap '' XFSZ\n"
            f'bash -c "$*"\ncode=$?\nls >> {log}\nexit $code\n'
        )
        ssh.chmod(0o755)
        done = verify(model, plan, program, runner=str(ssh), long=4, weights=weights)
        if kilobytes == "unlimited":
            assert all(outcome.equal for outcome in done)
        else:
            with pytest.raises(BitnetcError, match=r"--runner .*too large"):
                list(done)
        assert {"austen", "austen.weights"} <= set(log.read_text().split())
        assert not list(board.iterdir())
        log.unlink()


def test_region(
    built: Callable[..., Built],
    detached: Path,
    said: str,
    tmp_path: Path,
    unavailable: Unavailable,
) -> None:
    """At an offset, with other things before and behind. The library is that for a file, and the
    program differs from it in what main.c says."""
    cc = shutil.which("cc") or unavailable("native", "no C compiler")
    model, plan, _ = built(EXAMPLE, "native", name="austen", weights="file")
    files = emit.emit(plan, model, "austen", weights="region").files
    assert [p for p in files if (detached / p).read_bytes() != files[p]] == ["src/main.c"]
    program, source = tmp_path / "austen", tmp_path / "main.c"
    source.write_bytes(files["src/main.c"])
    folders = [f"-I{detached / name}" for name in ("include", "src", "runtime")]
    library = (detached / "lib" / "libausten.a", "-pthread", "-DBNC_THREADS=1")
    text_of(cc, "-std=c11", "-Wall", "-Werror", *folders, source, *library, "-o", program)
    weights = (detached / "share" / "austen.weights").read_bytes()
    device = tmp_path / "device@1"
    device.write_bytes(bytes(8128) + weights + bytes(100))
    assert "--weights DEVICE@OFFSET" in refused(program, *ASKED)
    for offset in ("8128", "0x1fC0"):
        assert text_of(program, *ASKED, "--weights", f"{device}@{offset}") == said
    for offset, why in (
        ("8192", "no weights"),
        ("8129", "multiple of 64"),
        ("99999936", "no weights"),
    ):
        assert why in refused(program, *ASKED, "--weights", f"{device}@{offset}")


def test_region_of_a_board(
    built: Callable[..., Built],
    tiny: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    unavailable: Unavailable,
) -> None:
    """Firmware without weights, and the file in the flash that the target's file names."""
    if not shutil.which(semihosting.EMULATOR):
        unavailable("cortex-m4", f"no {semihosting.EMULATOR}")
    model, plan, folder = built(tiny("2b4t"), "cortex-m4", weights="region")
    assert plan.target.firmware
    _say_compiled(plan, Artifact(folder, "model", "cc", plan.target), 1.0)
    size = (folder / "share" / "model.weights").stat().st_size / 1e6
    place = f"{size:,.1f} MB, for flash at {plan.target.firmware.weights.origin:#x}"
    assert f"{folder / 'share' / 'model.weights'}  {place}\n" in capsys.readouterr().out
    program = str(program_of(folder, "cortex-m4"))
    words = semihosting.command(plan.target.checks[0], program, ["--logits"])
    done = subprocess.run(words, input=b"1 2 3", capture_output=True)
    assert done.returncode == 1 and b"could not be started" in done.stderr
    file, address = folder / "share" / "model.weights", plan.target.firmware.weights.origin
    words += ["-device", f"loader,file={file},addr={address:#x},force-raw=on"]
    done = subprocess.run(words, input=b"1 2 3", capture_output=True, check=True)
    assert done.stdout == Reference(model, plan.context).logits([1, 2, 3]).tobytes()


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("edit", "at", "why"),
    [
        (cut, 0, "no weights"),
        (cut, 7, "end too early"),
        (cut, 127, "end too early"),
        (cut, -1, "end too early"),
        (flipped, 0, "no weights"),
        (flipped, 8, "version"),
        (flipped, 12, "version"),
        (flipped, 16, "another model"),
        (flipped, 23, "another model"),
        (flipped, 63, "another model"),
        (flipped, 128, "damaged"),
        (flipped, -1, "damaged"),
    ],
)
def test_other_weights_are_refused(
    edit: Callable[[bytes, int], bytes], at: int, why: str, detached: Path, tmp_path: Path
) -> None:
    program = program_of(detached, "native", "austen")
    path = tmp_path / "austen.weights"
    data = (detached / "share" / "austen.weights").read_bytes()
    path.write_bytes(edit(data, at % len(data) if data else 0))
    line = refused(program, *ASKED, "--weights", path, "--check-weights")
    assert line.startswith(f"austen: {path}: ") and why in line
    if why == "damaged":  # which the header cannot tell
        assert run(program, *ASKED, "--weights", path).returncode == 0
    else:
        assert refused(program, *ASKED, "--weights", path) == line


def test_a_damaged_list_is_not_followed(built: Callable[..., Built], tmp_path: Path) -> None:
    """Where a row's escapes begin is read from the file: an entry beyond them is found at once."""
    model, plan, folder = built(EXAMPLE, "native", name="austen", weights="file")
    assert plan.embedding.dtype == "bf12"
    end = next(slot for slot in slots(plan, model) if slot.name == "embedding")
    data = bytearray((folder / "share" / "austen.weights").read_bytes())
    starts = (
        128 + end.offset + plan.embedding.bytes - 4 * (end.shape[0] + 1 + plan.embedding.escapes)
    )
    last = starts + 4 * end.shape[0]
    assert int.from_bytes(data[last : last + 4], "little") == plan.embedding.escapes
    data[starts + 4 * 1000 + 3] = 0x7F
    path = tmp_path / "austen.weights"
    path.write_bytes(data)
    line = refused(program_of(folder, "native", "austen"), *ASKED, "--weights", path)
    assert line.startswith(f"austen: {path}: ") and "damaged" in line


def test_what_is_no_file(detached: Path, tmp_path: Path) -> None:
    program = program_of(detached, "native", "austen")
    assert "No such file" in refused(program, *ASKED, "--weights", tmp_path / "none")
    assert refused(program, *ASKED, "--weights", tmp_path)


@pytest.mark.parametrize("weights", ["binary", "file"])
def test_nothing_is_copied(
    weights: str, built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """When text has been written, all weights were read: as pages of a file, none of its own."""
    if not Path("/proc/self/smaps").exists():
        unavailable("native", "no /proc/self/smaps")
    folder = built(EXAMPLE, "native", name="austen", weights=weights)[2]
    program = program_of(folder, "native", "austen")
    with subprocess.Popen(
        [program, *ASKED[:-4], "-n", "400", "-t", "1"], stdout=subprocess.PIPE
    ) as running:
        assert running.stdout and running.stdout.read(20)
        running.send_signal(signal.SIGSTOP)
        smaps = Path(f"/proc/{running.pid}/smaps").read_text()
        running.kill()
    size = (
        (built(EXAMPLE, "native", name="austen", weights="file")[2] / "share/austen.weights")
        .stat()
        .st_size
    )
    assert kilobytes(smaps, "Rss", r"austen(\.weights)?$") * 1024 > 0.98 * size
    own = kilobytes(smaps, "Anonymous", "") * 1024
    arena = int(re.findall(r"arena +(\d+) bytes", text_of(program, "--info", "-t", "1"))[0])
    assert own < arena + 600_000 < size


def kilobytes(smaps: str, key: str, file: str) -> int:
    """The sum over the mappings of files whose name ends so."""
    total, wanted = 0, False
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            wanted = re.search(file, line) is not None
        elif wanted and (found := re.match(rf"{key}: +(\d+) kB", line)):
            total += int(found[1])
    return total


@pytest.fixture(scope="module")
def examples() -> list[str]:
    """The C and the assembler of docs/weights.md."""
    return re.findall(r"```(?:c|asm)\n(.*?)```", DOCS.read_text(), re.S)


def test_documented_program(
    detached: Path, said: str, examples: list[str], tmp_path: Path, unavailable: Unavailable
) -> None:
    cc = shutil.which("cc") or unavailable("native", "no C compiler")
    source, binary = tmp_path / "mapped.c", tmp_path / "mapped"
    source.write_text(examples[0])
    flags = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wconversion", "-Werror")
    library = (f"-I{detached / 'include'}", detached / "lib" / "libausten.a", "-pthread")
    text_of(cc, *flags, source, *library, "-o", binary)
    weights = detached / "share" / "austen.weights"
    assert text_of(binary, weights) + "\n" == said
    damaged = tmp_path / "damaged"
    damaged.write_bytes(flipped(weights.read_bytes(), 40))
    done = run(binary, damaged)
    assert done.returncode == 2 and "another model" in done.stderr

    # The same with the file in a section that the linker is told to put at an address.
    source.write_text(
        examples[0]
        .replace(
            '#include "austen.h"', '#include "austen.h"\nextern const uint8_t austen_region[];'
        )
        .replace(
            "if (weights == MAP_FAILED)",
            "weights = (void *)(uintptr_t)austen_region;\n"
            "    if ((uintptr_t)weights != 0x60000000)",
        )
    )
    (tmp_path / "region.S").write_text(examples[1])
    where = ("-no-pie", "-Wl,--section-start=.austen_weights=0x60000000", "-Wl,-z,noexecstack")
    flags = tuple(flag for flag in flags if flag != "-Werror")
    sources = (f"-Wa,-I,{weights.parent}", source, tmp_path / "region.S")
    text_of(cc, *flags, *sources, *where, *library, "-o", binary)
    assert text_of(binary) + "\n" == said


# A linker places the weights this far away although they are small.
FAR = 0x7_0000_0000


def sections(path: Path) -> dict[str, tuple[int, int, int]]:
    """Name -> flags, address and size of each section of a 64-bit ELF file."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02"
    table, size, count, names = struct.unpack_from("<Q10x3H", data, 40)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    start = headers[names][4]
    found = {}
    for name, _, flags, address, _, length in headers:
        end = data.index(b"\0", start + name)
        found[data[start + name : end].decode()] = (flags, address, length)
    return found


@pytest.fixture
def far(
    monkeypatch: pytest.MonkeyPatch, built: Callable[..., Built], tiny: Callable[[str], Path]
) -> Callable[..., Built]:
    """Compiles a tiny model as if it were large; its name is "far"."""
    monkeypatch.setattr(emit, "FAR_BYTES", 0)
    return lambda target, **options: built(tiny("2b4t"), target, name="far", **options)


@pytest.mark.parametrize(("target", "cpu"), [("x86_64-sse4.1", None), ("armv8-neon", "cortex-a53")])
def test_far_weights(
    target: str, cpu: str | None, far: Callable[..., Built], unavailable: Unavailable
) -> None:
    """zig cc, static, on both machines that hold more than 2 GiB; filled after linking."""
    if cpu and not shutil.which("qemu-aarch64-static"):
        unavailable(target, "no qemu-aarch64-static")
    model, plan, folder = far(target)
    found = sections(program_of(folder, target, "far"))
    flags, address, size = found[".weights.far"]
    _, bss, bss_bytes = found[".bss"]
    assert address >= bss + bss_bytes and size > 10_000
    assert not flags & 1, "writable"
    assert bool(flags & LARGE) == (cpu is None)
    program = program_of(folder, target, "far")
    assert content(program, ".weights.far", huge=True) == weights_of(folder)
    for outcome in verify(model, plan, program_of(folder, target, "far"), cpu, long=8):
        assert outcome.equal, outcome.detail


def content(path: Path, section: str, huge: bool = False) -> bytes:
    """The bytes of a 64-bit ELF file's section. huge: which lies in 2 MiB as it does in memory."""
    data, (flags, address, size) = path.read_bytes(), sections(path)[section]
    header = data.index(struct.pack("<QQ", flags, address), struct.unpack_from("<Q", data, 40)[0])
    (kind,), (offset,) = (
        struct.unpack_from(f, data, header + n) for f, n in (("<I", -4), ("<Q", 16))
    )
    assert kind == 1, "no content"
    assert not huge or (offset - address) % 2**21 == 0
    return data[offset : offset + size]


def weights_of(folder: Path) -> bytes:
    return (folder / "src" / "weights.bin").read_bytes()


def test_far_weights_of_this_compiler(
    far: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """GNU ld; the library and the shared one are filled too, and other programs take them."""
    if sys.platform != "linux":
        unavailable("native", "weights lie far away in 64-bit ELF files only")
    cc = shutil.which("cc") or unavailable("native", "no C compiler")
    model, plan, folder = far("native", python=True)
    program = program_of(folder, "native", "far")
    for outcome in verify(model, plan, program, long=8):
        assert outcome.equal, outcome.detail
    shared = folder / "python" / "libfar.so"
    assert content(program, ".weights.far") == content(shared, ".weights.far")
    assert content(shared, ".weights.far", huge=True) == weights_of(folder)
    library, mine, stripped = folder / "lib" / "libfar.a", tmp_path / "mine", tmp_path / "stripped"
    flags = ["-O1", *(f"-I{folder / name}" for name in ("include", "runtime")), "-DBNC_THREADS=1"]
    script = f"-Wl,-T,{folder / 'lib' / 'far-weights.ld'}"
    main = folder / "src" / "main.c"
    text_of(cc, *flags, main, library, "-Wl,--gc-sections", script, "-pthread", "-o", mine)
    assert content(mine, ".weights.far") == weights_of(folder)
    text_of("strip", program, "-o", stripped)
    said = [
        subprocess.run([p, "--logits"], input=b"1 2 3", capture_output=True, check=True).stdout
        for p in (program, mine, stripped)
    ]
    assert said[0] == said[1] == said[2] != b""
    with subprocess.Popen(
        [sys.executable, "-c", "import far; print(far.Model)"],
        cwd=folder / "python",
        stdout=subprocess.PIPE,
    ) as process:
        assert process.wait() == 0


def test_pieces_end_with_pages_of_the_file() -> None:
    chunks = [bytes([i]) * size for i, size in enumerate((0, 1, 3 << 20, 11 << 20, 5))]
    found = [bytes(p) for p in build.pieces(chunks, 128)]
    assert b"".join(found) == b"".join(chunks)
    assert [len(p) for p in found[:-1]] == [(4 << 20) - 128, 4 << 20, 4 << 20]


def test_files_without_room(far: Callable[..., Built], tmp_path: Path) -> None:
    """Of every length, and of other sizes and names: refused before anything is written."""
    folder, path = far("x86_64-sse4.1")[2], tmp_path / "x"
    size = (folder / "src" / "weights.bin").stat().st_size
    hollow = tmp_path / "weights.o"
    words = [*zig(load_target("x86_64-sse4.1")).compiler, "--target=x86_64-linux-musl"]
    source = folder / "src" / "weights.S"
    words += ["-DBNC_FILL_LATER", f"-I{folder / 'runtime'}", f"-I{source.parent}"]
    text_of(*words, "-c", source, "-o", hollow)
    text_of(*zig(load_target("x86_64-sse4.1")).archiver, "qcD", path, hollow)
    asked = (".weights.far", size, ".lrodata.far")
    found = elf.room(path, *asked)
    assert found and found.size == size
    assert elf.room(path, ".weights.far", size + 1, ".lrodata.far") is None
    assert elf.room(path, ".weights.fat", size, ".lrodata.fat") is None
    assert elf.room(folder / "lib" / "libfar.a", *asked) is None, "it is full"
    assert elf.room(folder / "bin" / "far", *asked) is None
    for file in (path, hollow):
        data = file.read_bytes()
        for length in (0, 5, 7, 8, 30, 67, 68, 100, 130, 200, len(data) // 2, len(data) - 64):
            (tmp_path / "cut").write_bytes(data[:length])
            assert elf.room(tmp_path / "cut", *asked) is None, length


def test_a_linker_that_leaves_no_room(
    monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """The weights then go through the tools, and the program is the same to who uses it."""
    monkeypatch.setattr(emit, "FAR_BYTES", 0)
    monkeypatch.setattr(build, "room", lambda *_: None)
    model = load(tiny("2b4t"))
    options = Options(target="x86_64-sse4.1", name="far", werror=True)
    _, artifact = compile_model(model, options, tmp_path / "out")
    assert content(artifact.program, ".weights.far") == weights_of(artifact.folder)


@pytest.mark.parametrize(
    ("cc", "shared"), [("cc", "OFF"), ("cc", "ON"), ("aarch64-linux-gnu-gcc", "ON")]
)
def test_far_away(
    cc: str,
    shared: str,
    far: Callable[..., Built],
    tmp_path: Path,
    unavailable: Unavailable,
) -> None:
    """GNU ld, with the weights 28 GiB from the code: nothing reaches them with 32 bits."""
    target, emulator, system = "x86_64-sse4.1", (), ()
    if cc != "cc":
        target, emulator = "armv8-neon", ("qemu-aarch64-static",)
        system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    for needed in (cc, "readelf", *emulator):
        if not shutil.which(needed):
            unavailable(target, f"no {needed}")
    folder, build = far(target)[2], tmp_path / "build"
    kind = "SHARED" if shared == "ON" else "EXE"
    text_of(
        *(tool("cmake", "cmake"), "-S", folder, "-B", build, "-G", "Ninja", *system),
        *(f"-DCMAKE_C_COMPILER={shutil.which(cc)}", f"-DCMAKE_ASM_COMPILER={shutil.which(cc)}"),
        *("-DCMAKE_C_FLAGS=-O1", f"-DCMAKE_MAKE_PROGRAM={tool('ninja', 'ninja')}"),
        f"-DBUILD_SHARED_LIBS={shared}",
        f"-DCMAKE_{kind}_LINKER_FLAGS=-Wl,--section-start=.weights.far={FAR:#x}",
    )
    text_of(tool("cmake", "cmake"), "--build", build)
    holder = build / ("libfar.so" if shared == "ON" else "far")
    assert sections(holder)[".weights.far"][1] == FAR
    assert "TEXTREL" not in text_of("readelf", "-d", holder)
    logits = [
        subprocess.run(
            [*emulator, program, "--logits"],
            input=b"1 2 3",
            capture_output=True,
            check=True,
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(build),
                "QEMU_LD_PREFIX": "/usr/aarch64-linux-gnu",
            },
        ).stdout
        for program in (program_of(folder, target, "far"), build / "far")
    ]
    assert logits[0] == logits[1] != b""


def test_windows_has_a_limit(tmp_path: Path) -> None:
    """Of the size, which is asked before anything is packed."""
    from bitnetc.target import load_target
    from bitnetc.weights_file import check

    class Plan:
        target = load_target("x86_64-windows")

    check(Plan(), "file", 3 << 30)  # type: ignore[arg-type]
    check(Plan(), "binary", 1 << 30)  # type: ignore[arg-type]
    with pytest.raises(BitnetcError, match=r"less than 2 GiB.*--weights file"):
        check(Plan(), "binary", 2 << 30)  # type: ignore[arg-type]


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for target, more, why in (
        ("wasm32-simd128", ("--web",), "leave out --weights"),
        ("cortex-m4", (), "no files"),
    ):
        done = run(
            *(sys.executable, "-m", "bitnetc", "compile", EXAMPLE, "--weights", "file"),
            *("--target", target, *more, "-o", tmp_path / "out"),
        )
        assert done.returncode == 2 and why in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()
