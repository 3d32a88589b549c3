"""Runs a built program: here, under the target's emulator, or through a runner such as ssh."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bitnetc import semihosting, wasi
from bitnetc.errors import BitnetcError
from bitnetc.target import Target, runs_here

# How to get an emulator: by its name.
_HINTS = {
    "": "apt-get install qemu-user-static, or use --runner 'ssh user@board'",
    "wasmtime": "pip install wasmtime, or install Node.js",
    "wine": "apt-get install wine wine64",
    semihosting.EMULATOR: "apt-get install qemu-system-arm",
}


def command(target: Target, program: Path, cpu: str | None, runner: str | None) -> list[str]:
    """The words that start the program.

    cpu:    an emulated CPU; None or "host" runs natively where this CPU can
    runner: "ssh pi@host" and the like: the program is copied there by `place` and started by it
    Raises BitnetcError when the emulator is not installed.
    """
    if runner:
        return [*shlex.split(runner), f"./{program.name}"]
    if cpu in (None, "host") and runs_here(target):
        return [str(program)]
    words = _emulator(target.emulator, cpu)
    if not words:
        raise BitnetcError(
            f"running {program.name}",
            f"{target.name} programs do not run on this machine, and "
            + (f"{target.emulator} is not installed" if target.emulator else "nothing emulates it"),
            _HINTS.get(target.emulator, _HINTS[""]),
        )
    return [*words, *(["-cpu", cpu] if cpu and cpu != "host" else []), str(program)]


def _emulator(name: str, cpu: str | None) -> list[str]:
    """The words that start a target's emulator; [] where it is not installed."""
    if name == "wasmtime":
        found = cpu in wasi.engines() if cpu else bool(wasi.engines())
        return [sys.executable, "-m", "bitnetc.wasi"] if found else []
    path = shutil.which(name) if name else None
    if path and name == semihosting.EMULATOR:
        return [sys.executable, "-m", "bitnetc.semihosting"]
    if path and name == "wine":  # without its remarks on standard error
        return ["env", "WINEDEBUG=-all", path]
    return [path] if path else []


def place(files: list[Path], runner: str) -> None:
    """Copies a program, and what it looks for beside itself, to the runner's machine, through the
    runner itself."""
    for path in files:
        copy = f"cat > ./{path.name} && chmod +x ./{path.name}"
        with open(path, "rb") as file:
            words = [*shlex.split(runner), copy]
            done = subprocess.run(words, stdin=file, capture_output=True)
        if done.returncode:
            raise BitnetcError(f"--runner {runner}", _last_line(done.stderr) or "could not copy")


def remove(files: list[Path], runner: str) -> None:
    """Takes the copies away again."""
    names = " ".join(f"./{path.name}" for path in files)
    subprocess.run([*shlex.split(runner), f"rm -f {names}"], capture_output=True)


def run(words: list[str], arguments: list[str], stdin: bytes = b"") -> bytes:
    """Standard output of the program. Raises BitnetcError with its last line when it fails."""
    try:
        done = subprocess.run([*words, *arguments], input=stdin, capture_output=True)
    except OSError as error:
        raise BitnetcError(words[0], error.strerror or str(error)) from None
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        raise BitnetcError(" ".join(words), f"failed ({how})", _last_line(done.stderr))
    return done.stdout


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
