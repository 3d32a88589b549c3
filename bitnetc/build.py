"""Bundle -> Artifact: writes the folder, builds it with CMake, and puts it in place at once.

Everything happens in a temporary folder beside the destination, which is renamed at the end: a
failure leaves nothing behind, and an earlier result stays until the new one is complete.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bitnetc.checkpoint.tensor import release
from bitnetc.elf import PIECE, fill, room
from bitnetc.emit import Bundle, Progress, manifest
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.plan import Plan
from bitnetc.target import Target, triple_system
from bitnetc.toolchain import SYSTEMS, Toolchain, tool
from bitnetc.weights_file import HEADER_BYTES

_MARK = "manifest.json"  # a folder with this file is one of ours and may be replaced
_RELEASE_BYTES = 1 << 26  # written, before memory of the checkpoint is given back


@dataclass(frozen=True)
class Artifact:
    """A built bundle."""

    folder: Path
    name: str
    toolchain: str
    target: Target

    @property
    def program(self) -> Path:
        return self.folder / "bin" / program_file(self.name, self.target)

    @property
    def library(self) -> Path:
        return self.folder / "lib" / f"lib{self.name}.a"

    @property
    def weights(self) -> Path | None:
        """The weights, where the program does not hold them."""
        path = self.folder / "share" / f"{self.name}.weights"
        return path if path.is_file() else None


def program_file(name: str, target: Target) -> str:
    """What the program is called: Windows wants a suffix."""
    return f"{name}.exe" if target.system == "windows" else name


def build(
    bundle: Bundle,
    plan: Plan,
    model: Model,
    toolchain: Toolchain,
    out: Path,
    progress: Progress,
    threads: bool = True,
    werror: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> Artifact:
    """Writes and builds the bundle at `out`; `finish` may add to the folder before it is there.

    Raises BitnetcError when `out` holds something else, the disk is full, or the compiler fails.
    """
    check_destination(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent)).resolve()
    except OSError as error:
        raise _os_error(out, error) from None
    try:
        stage = work / "bundle"
        write(bundle, plan, model, stage, progress)
        progress("building", 0, 0)
        threads = threads and plan.target.threads
        _make(bundle, toolchain, stage, work / "build", plan.target, threads, werror, progress)
        if finish:
            finish(stage)
        if out.exists():
            out.rename(work / "old")
        stage.rename(out)
    except OSError as error:
        raise _os_error(out, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Artifact(out, bundle.name, toolchain.name, plan.target)


def check_destination(out: Path) -> None:
    """Refuses to replace a file, or a folder that bitnetc did not write."""
    if out.is_dir():
        if any(out.iterdir()) and not (out / _MARK).is_file():
            raise BitnetcError(
                f"-o {out}", "the folder holds files that bitnetc did not write", "name another"
            )
    elif out.exists():
        raise BitnetcError(f"-o {out}", "is a file", "name a folder")


def write(bundle: Bundle, plan: Plan, model: Model, folder: Path, progress: Progress) -> None:
    """The bundle's files, then manifest.json with their hashes."""
    hashes: dict[str, str] = {}
    for path, content in bundle.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        hashes[path] = hashlib.sha256(content).hexdigest()
    for path, stream in bundle.streams.items():
        total, done, released = bundle.stream_bytes[path], 0, 0
        digest = hashlib.sha256()
        whole = bundle.weights_file
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / path, "wb") as file:
            if whole:
                file.write(bytes(HEADER_BYTES))  # filled below
            for chunk in pieces(stream(), file.tell()):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if done - released >= _RELEASE_BYTES:
                    release()
                    released = done
                progress(f"packing {Path(path).name}", done, total)
            release()  # or what is started next counts as large as this process
            if whole:
                file.seek(0)
                file.write(whole.header(digest.digest()))
        hashes[path] = digest.hexdigest()
        if whole:
            hashes[path] = _hash(folder / path)
            text = whole.identity(digest.digest())
            (folder / "src/identity.h").write_bytes(text)
            hashes["src/identity.h"] = hashlib.sha256(text).hexdigest()
    (folder / _MARK).write_bytes(manifest(plan, model, hashes))


def pieces(chunks: Iterable[bytes], at: int) -> Iterator[bytes | bytearray]:
    """The bytes of `chunks`, which lie from byte `at` of a file on, in pieces that end where large
    pages of the file do: written so, its cache holds such pages (elf.py)."""
    piece = bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            part = view[: PIECE - at % PIECE]
            piece += part
            at += len(part)
            view = view[len(part) :]
            if at % PIECE == 0:
                yield piece
                piece = bytearray()
    if piece:
        yield piece


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _os_error(out: Path, error: OSError) -> BitnetcError:
    if error.errno == errno.ENOSPC:
        return BitnetcError(f"-o {out}", "the disk is full", "free space or name another folder")
    return BitnetcError(f"-o {out}", error.strerror or str(error))


def _make(
    bundle: Bundle,
    toolchain: Toolchain,
    source: Path,
    folder: Path,
    target: Target,
    threads: bool,
    werror: bool,
    progress: Progress,
) -> None:
    """Compiles, links and installs; large weights go into what was linked, where that is ELF."""
    far = "src/weights.ld" in bundle.files
    _cmake(bundle, toolchain, source, folder, target, threads, werror, later=far)
    if not far or _fill(bundle, source, target, progress):
        return
    shutil.rmtree(folder)
    _cmake(bundle, toolchain, source, folder, target, threads, werror, later=False)


def _fill(bundle: Bundle, folder: Path, target: Target, progress: Progress) -> bool:
    """Puts the weights into what is installed. Whether all of it has room for them."""
    name, weights = bundle.name, folder / "src/weights.bin"
    size = weights.stat().st_size
    files = [folder / "bin" / program_file(name, target), folder / "lib" / f"lib{name}.a"]
    files += [p for p in folder.glob(f"python/lib{name}.*") if p.suffix != ".py"]
    rooms = [room(p, f".weights.{name}", size, f".lrodata.{name}") for p in files]
    found = [r for r in rooms if r is not None]
    if len(found) < len(rooms):
        return False
    for each in found:
        done = 0

        def wrote(count: int, path: Path = each.path) -> None:
            nonlocal done
            done += count
            progress(f"writing {path.name}", done, size)

        fill(each, weights, wrote)
    return True


def _cmake(
    bundle: Bundle,
    toolchain: Toolchain,
    source: Path,
    folder: Path,
    target: Target,
    threads: bool,
    werror: bool,
    later: bool,
) -> None:
    folder.mkdir()
    cmake = tool("cmake", "cmake")
    configure = [
        cmake,
        "-S",
        str(source),
        "-B",
        str(folder),
        "-G",
        "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja', 'ninja')}",
        f"-DBNC_WITH_THREADS={'ON' if threads else 'OFF'}",
        f"-DBNC_WERROR={'ON' if werror else 'OFF'}",
        *(["-DBNC_FILL_LATER=ON"] if later else []),
        f"-DBNC_ISA_FLAGS={' '.join(toolchain.isa_flags)}",
        *(
            f"-DBNC_ISA_FLAGS_{v.identifier.upper()}={' '.join(toolchain.flags_of(v))}"
            for v in target.variants
        ),
        "-DCMAKE_INSTALL_LIBDIR=lib",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain.file or _toolchain_file(toolchain, folder)}",
    ]
    for command, what in (
        (configure, "cmake could not use the compiler"),
        ([cmake, "--build", str(folder)], "the compiler failed"),
        ([cmake, "--install", str(folder), "--prefix", str(source)], "installing failed"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
        if done.returncode:
            raise BitnetcError(
                f"building {bundle.name} with {toolchain.name}", what, _reason(done, folder)
            )


def _environment() -> dict[str, str]:
    """Without flags and compilers of the user's that CMake would pick up beside ours."""
    return {k: v for k, v in os.environ.items() if k not in ("CC", "CMAKE_TOOLCHAIN_FILE")}


def _reason(done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """The first line of the output that says what went wrong."""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    for word in ("No space left", "error:", "Error:", "CMake Error", "FAILED"):
        for line in lines:
            if word in line:
                return line.replace(str(folder), "build")[:300]
    return lines[-1][:300] if lines else f"exit code {done.returncode}"


def _toolchain_file(toolchain: Toolchain, folder: Path) -> Path:
    """What CMake needs to know, as a file: compiler, archiver, target, static linking."""
    lines = []
    if toolchain.triple:
        arch, system = toolchain.triple.split("-")[0], triple_system(toolchain.triple)
        lines += [f"set(CMAKE_SYSTEM_NAME {SYSTEMS[system]})"]
        lines += [f"set(CMAKE_SYSTEM_PROCESSOR {arch})"]
        # A program cannot be tried here: let CMake check the compiler with a library.
        lines += ["set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)"]
        if system == "macos":  # CMake insists; nothing here renames a shared library
            lines += [f'set(CMAKE_INSTALL_NAME_TOOL "{_script(folder / "rename", ("true",), ())}")']
        if system == "windows":  # CMake insists on the first; the second leaves the time out
            lines += [f'set(CMAKE_RC_COMPILER "{_script(folder / "rc", ("true",), ())}")']
            lines += ['set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-Brepro")']
    elif toolchain.bare:
        lines += ["set(CMAKE_SYSTEM_NAME Generic)", "set(CMAKE_SYSTEM_PROCESSOR arm)"]
        lines += ["set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)"]
    driver = _script(folder / "cc", toolchain.compiler, _target_flags(toolchain))
    lines += [f'set(CMAKE_C_COMPILER "{driver}")', f'set(CMAKE_ASM_COMPILER "{driver}")']
    if toolchain.archiver:
        lines += [f'set(CMAKE_AR "{_script(folder / "ar", toolchain.archiver, ())}")']
        lines += [f'set(CMAKE_RANLIB "{_script(folder / "ranlib", ("true",), ())}")']
    if toolchain.static:
        lines += ['set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -s")']
    path = folder / "toolchain.cmake"
    path.write_text("\n".join(lines) + "\n")
    return path


def _target_flags(toolchain: Toolchain) -> tuple[str, ...]:
    return (f"--target={toolchain.triple}",) if toolchain.triple else ()


def _script(path: Path, command: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    """A compiler of several words as one program, which is what CMake takes."""
    if len(command) == 1 and not flags and Path(command[0]).is_absolute():
        return Path(command[0])
    words = " ".join(f"'{word}'" for word in (*command, *flags))
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return path
