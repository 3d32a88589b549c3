"""Models without an operating system: what a firmware image takes, says and refuses."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.compiler import load
from bitnetc.errors import BitnetcError
from bitnetc.footprint import fitting_context, footprint, measured, refuse_too_large
from bitnetc.plan import plan
from bitnetc.run import command
from bitnetc.semihosting import command as board_command
from bitnetc.target import load_target, target_names
from e2e.built import Built

FOLDER = Path(__file__).parents[2] / "examples" / "freestanding"
MODEL = FOLDER / "model"
TARGETS = [name for name in target_names() if load_target(name).freestanding]
BOARDS = ["stm32f405", "an547"]
PROMPT = "And the LORD said unto"

# What a library may take from the compiler's own support library, and the run-time ABI's names of
# the same.
ALLOWED = r"memcpy|memmove|memset|memcmp|bcmp|__aeabi_mem(cpy|move|set|clr)[48]?"


@pytest.fixture
def start(unavailable: Unavailable) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs an image on the target's board."""

    def run(
        target: str, image: Path, *arguments: str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            words = command(load_target(target), image, load_target(target).checks[0], None)
        except BitnetcError as error:
            unavailable(target, str(error))
        return subprocess.run([*words, *arguments], input=stdin, capture_output=True)

    return run


@pytest.mark.parametrize("target", TARGETS)
def test_the_prediction_is_the_map(target: str, built: Callable[..., Built]) -> None:
    """The arena to the byte, flash and RAM within two percent."""
    model, decided, folder = built(MODEL, target)
    need, image = footprint(decided, model), measured((folder / "bin" / "model.map").read_text())
    assert image.arena == need.arena
    assert abs(need.flash - image.flash) <= 0.02 * image.flash, (need, image)
    assert abs(need.ram - image.ram) <= 0.02 * image.ram, (need, image)
    sizes = [(folder / "src" / f"{name}.bin").stat().st_size for name in ("weights", "tokenizer")]
    assert sizes == [need.weights, need.tokenizer]


@pytest.mark.parametrize("target", TARGETS)
def test_the_library_imports_no_libc(target: str, built: Callable[..., Built]) -> None:
    nm = shutil.which("nm") or shutil.which("llvm-nm")
    assert nm, "binutils come with every compiler"
    library = built(MODEL, target)[2] / "lib" / "libmodel.a"
    said = subprocess.run([nm, library], capture_output=True, text=True, check=True).stdout
    wanted = set(re.findall(r"^ +U (\S+)$", said, re.M)) - {"model_weights", "model_tokenizer"}
    assert {name for name in wanted if not re.fullmatch(ALLOWED, name)} == set()
    assert "memcmp" in wanted, said
    exported = set(re.findall(r"^\S+ [A-TV-Z] (\S+)$", said, re.M))
    assert exported and all(name.startswith("model_") for name in exported)


@pytest.mark.parametrize("target", TARGETS)
def test_the_stack_is_enough(
    target: str,
    built: Callable[..., Built],
    start: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    """Painted at the start; counting instructions works, and prefill costs less than decoding."""
    model, decided, folder = built(MODEL, target)
    image = folder / "bin" / "model"
    assert start(target, image, "--version").stdout.startswith(b"model, compiled by bitnetc ")
    words = board_command(load_target(target).checks[0], str(image), ["--bench", "-n", "8"], True)
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    figures = {line.rpartition(" ")[0]: int(line.split()[-1]) for line in said.splitlines()}
    assert 256 < figures["stack bytes"] <= footprint(decided, model).stack
    tick = figures["loop instructions"] / figures["loop ticks"]
    assert 10 < tick < 100  # clocks of 10 to 100 MHz, one instruction a nanosecond
    assert figures["prefill tokens"] == figures["decode tokens"] == 8
    assert 0 < figures["prefill ticks"] < figures["decode ticks"]
    # No fewer than an instruction for four weights, no more than twenty for each.
    each = tick * figures["decode ticks"] / 8
    weights = 4 * decided.ternary_bytes
    assert weights / 4 < each < 20 * weights


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("--sparkle",), b"", "--sparkle: unknown option"),
        (("-n",), b"", "-n: expects a value"),
        (("-n", "many"), b"", "-n: expects a whole number"),
        (("-t", "2", "-p", "x"), b"", "-t: is out of range"),
        (("-c", "100000", "-p", "x"), b"", "-c: is out of range"),
        (("--temp", "-1", "-p", "x"), b"", "--temp: expects a number"),
        (("--temp", "0.12345678", "-p", "x"), b"", "--temp: expects a number"),
        (("--no-bos",), b"", "prompt: is empty"),
        (("-p", "many " * 300), b"", "prompt: has more tokens than the context"),
        (("-p", "x" * 3000), b"", "command line: is missing or too long"),
        (("--logits",), b"1 2 x", "--logits: the input holds something that is not a number"),
        (("--logits",), b"1 100000 2", "--logits: a token is not in the vocabulary"),
        (("--logits",), b"1 " * 300, "--logits: more tokens than the context"),
        (("--logits",), b"", "--logits: no token ids"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...],
    stdin: bytes,
    said: str,
    built: Callable[..., Built],
    start: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    image = built(MODEL, "cortex-m4")[2] / "bin" / "model"
    done = start("cortex-m4", image, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"model: {said}") and done.stderr.count(b"\n") == 1


def text_of(program: Path, seed: str, count: str) -> str:
    """What this machine's program writes, prompt included."""
    options = ("-n", count, "--temp", "0.5", "--top-k", "0", "--top-p", "0.9", "--seed", seed)
    words = [program, "-p", PROMPT, *options]
    return subprocess.run(words, capture_output=True, check=True).stdout.decode().removesuffix("\n")


@pytest.mark.parametrize("board", BOARDS)
def test_the_example_writes(
    board: str, built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """Over the serial port of an emulated board, what the model writes on this machine; in the
    stack and the memory that its linker script grants."""
    for program in ("make", "qemu-system-arm"):
        if not shutil.which(program):
            unavailable(board, f"{program} is not installed")
    shutil.copytree(FOLDER, tmp_path / "example", ignore=shutil.ignore_patterns("build"))
    words = ["make", "-C", str(tmp_path / "example"), f"BOARD={board}", f"PYTHON={sys.executable}"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    machine = re.search(
        r"-M (\S+)",
        subprocess.run([*words, "-n", "run"], capture_output=True, text=True, check=True).stdout,
    )[1]  # type: ignore[index]
    image = tmp_path / "example" / "build" / board / "firmware.elf"
    said = serial_output(
        [
            *("qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none"),
            *("-serial", "stdio", "-kernel", str(image)),
        ]
    )
    text, _, stack = said.partition("\n[stack: ")
    assert text == text_of(built(MODEL, "native")[2] / "bin" / "model", "1", "60")
    assert len(text) > 100 and 256 < int(stack.split()[0]) <= 4096


def serial_output(words: list[str]) -> str:
    """What the board says until the closing bracket; it never ends by itself."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as emulator:
        assert emulator.stdout
        limit = threading.Timer(60, emulator.kill)
        limit.start()
        try:
            said = emulator.stdout.read(1)
            while said and not said.endswith(b" bytes]\n"):
                byte = emulator.stdout.read(1)
                if not byte:
                    break
                said += byte
        finally:
            limit.cancel()
            emulator.kill()
    return said.decode()


def test_the_part_is_too_small() -> None:
    model, target = load(MODEL), load_target("cortex-m4")
    refuse_too_large(plan(model, target), model, 256 * 1024, 256 * 1024)
    with pytest.raises(BitnetcError, match=r"RAM needs [\d,]+ bytes, the part has 131,072; --cont"):
        refuse_too_large(plan(model, target), model, None, 128 * 1024)
    fitting = fitting_context(model, target, None, None, 128 * 1024)
    assert footprint(plan(model, target, fitting), model).ram <= 128 * 1024
    assert footprint(plan(model, target, fitting + 1), model).ram > 128 * 1024
    with pytest.raises(BitnetcError, match=r"flash needs .*; no context fits"):
        refuse_too_large(plan(model, target), model, 64 * 1024, None)
    with pytest.raises(BitnetcError, match="under an operating system"):
        refuse_too_large(plan(model, load_target("scalar")), model, 2**20, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "--target", "cortex-m4", "--ram", "64K"), "the part has 65,536"),
        (("plan", "--target", "cortex-m4", "--ram", "64X"), '--ram: "64X" is not a size'),
        (("plan", "--target", "scalar", "--flash", "1M"), "choose a freestanding target"),
        (("compile", "--target", "scalar", "--freestanding"), "under an operating system"),
    ],
)
def test_options(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    name, *options = arguments
    words = [sys.executable, "-m", "bitnetc", name, str(MODEL), *options]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
