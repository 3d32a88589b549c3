"""The command line of a compiled program, and what compiling leaves on disk."""

import filecmp
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from bitnetc.compiler import Options, compile_model, load
from bitnetc.reference import Reference, sample
from e2e.built import EXAMPLE, Built

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(built: Callable[..., Built]) -> Path:
    return built(EXAMPLE, "native")[2]


@pytest.fixture
def program(folder: Path) -> Program:
    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "bin" / "model", *arguments], input=stdin, capture_output=True, text=True
        )

    return run


def test_text_is_the_references(program: Program) -> None:
    """Tokenizer, forward pass and sampler together, against Python's."""
    model = load(EXAMPLE)
    judge = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    for settings in ((0.0, 0, 1.0), (1.0, 40, 1.0), (0.9, 0, 0.8), (1.2, 30, 0.7), (1.0, 0, 1.0)):
        temperature, top_k, top_p = settings
        ids = judge.encode("And it came to pass").ids
        reference, cache, state = Reference(model), None, 3
        cache = reference.new_cache()
        logits = reference.logits(ids, cache)[-1]
        made: list[int] = []
        for _ in range(12):
            token, state = sample(logits, temperature, top_k, top_p, state)
            if token in model.eos:
                break
            made.append(token)
            logits = reference.logits([token], cache)[-1]
        done = program(
            *("-p", "And it came to pass", "-n", "12", "--seed", "3", "-q"),
            *("--temp", str(temperature), "--top-k", str(top_k), "--top-p", str(top_p)),
        )
        assert done.stdout.rstrip("\n") == judge.decode(made).rstrip("\n"), settings


def test_tokens(program: Program) -> None:
    judge = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    text = "Elizabeth's  eyes,\n\n1813 \u00e9t\u00e9 <|end_of_text|>!"
    assert program("--tokens", "-p", text).stdout.split() == [
        str(i) for i in judge.encode(text).ids
    ]
    bare = judge.encode(text, add_special_tokens=False).ids
    assert program("--tokens", "--no-bos", "-p", text).stdout.split() == [str(i) for i in bare]


def test_prompt_from_a_file(program: Program, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("In the beginning")
    from_file = program("-f", str(tmp_path / "prompt"), "-n", "5", "--temp", "0")
    assert from_file.stdout == program("-p", "In the beginning", "-n", "5", "--temp", "0").stdout
    assert from_file.stdout.startswith("In the beginning")
    piped = program("-f", "-", "-n", "5", "--temp", "0", stdin="In the beginning")
    assert piped.stdout == from_file.stdout


def test_info_and_bench(program: Program, folder: Path) -> None:
    said = program("--info", "-t", "2").stdout
    arena = int(re.search(r"arena\s+(\d+) bytes", said)[1])  # type: ignore[index]
    model = load(EXAMPLE)
    from bitnetc.plan import plan
    from bitnetc.target import load_target

    expected = plan(model, load_target("native")).memory.arena_bytes(model.shape.context, 2)
    assert arena == expected
    weights = int(re.search(r"weights\s+(\d+) bytes", said)[1])  # type: ignore[index]
    assert weights == (folder / "src" / "weights.bin").stat().st_size
    measured = program("--bench", "-t", "1", "-c", "24").stdout
    assert "tokens/s" in measured and "MB a token" in measured
    for depths in ("20,4", "4,20"):  # in either order: what is missing is read
        deep = program("--bench", "-t", "2", "-c", "24", "-n", "2", "--depth", depths).stdout
        assert re.findall(r"^depth +(\d+) tokens", deep, re.M) == depths.split(",")
        assert len(re.findall(r"^decode +2 tokens: \S+ tokens/s", deep, re.M)) == 2
    for wrong in ("24", "1,", "1,x", "0,0,0,0,0,0,0,0,0"):
        done = program("--bench", "-c", "24", "--depth", wrong)
        assert done.returncode == 2 and "--depth" in done.stderr, wrong
    decided = plan(model, load_target("native"))
    zeros = re.search(r"zeros +behind the gate (\S+) %, before w_down (\S+) %", measured)
    ternary = re.search(r"\((\S+) ternary", measured)
    assert (zeros is not None) == decided.counts_zeros and ternary
    read = float(decided.ternary_bytes)
    if zeros:
        products, codes = float(zeros[1]), float(zeros[2])
        assert 20 < products <= codes < 100  # a product of zero has a code of zero
        read -= products / 100 * decided.skipped_bytes("rows")
        read -= codes / 100 * decided.skipped_bytes("columns")
    assert abs(float(ternary[1]) - read / 1e6) < 0.06


def test_stops_at_the_end_of_the_text(program: Program) -> None:
    """With every id an eos the first token ends it; the example model ends its chapters itself."""
    done = program("-p", "x", "-n", "0")
    assert done.returncode == 0 and done.stdout == "x\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("-c", "100000", "-p", "x"), "", "-c: this program holds 512 positions"),
        (("-p", "a b c d e f g h", "-c", "3"), "", "there is room for 3"),
        (("--no-bos",), "", "prompt: is empty"),
        (("-n",), "", "-n: expects a value"),
        (("-n", "many"), "", "-n: expects a whole number"),
        (("-t", "0"), "", "-t: expects a number from 1 to"),
        (("--temp", "-1"), "", "--temp: is not a number in the allowed range"),
        (("--sparkle",), "", "--sparkle: unknown option"),
        (("-p", "x", "-f", "y"), "", "-p and -f: give one"),
        (("--logits",), "", "--logits: no token ids"),
        (("--logits",), "1 two", "not a number"),
        (("--logits",), "1 99999999", "--logits: token 99999999 is not in"),
        (("--logits", "-c", "2"), "1 2 3", "more than 2 tokens"),
    ],
)
def test_mistakes(program: Program, arguments: tuple[str, ...], stdin: str, said: str) -> None:
    done = program(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_missing_file_and_full_disk(program: Program, folder: Path) -> None:
    assert "No such file" in program("-f", "/nonexistent").stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [folder / "bin" / "model", "-p", "x", "-n", "2"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1 and "standard output" in done.stderr


def test_context_fills_up(program: Program) -> None:
    done = program("-p", "And", "-n", "50", "-c", "8", "--temp", "0")
    assert done.returncode == 0 and "context is full" in done.stderr


def test_library_symbols(folder: Path) -> None:
    """Only the model's own names leave the library, only listed functions come in."""
    allowed = set((Path(__file__).parents[2] / "runtime_c" / "libc.txt").read_text().split())
    nm = shutil.which("nm")
    assert nm, "binutils is not installed"
    out = subprocess.run([nm, "-g", folder / "lib" / "libmodel.a"], capture_output=True, text=True)
    defined, wanted = set(), set()
    for line in out.stdout.splitlines():
        words = line.split()
        if len(words) == 3:
            defined.add(words[2])
        elif len(words) == 2 and words[0] == "U":
            wanted.add(words[1])
    assert defined and all(name.startswith("model_") for name in defined), defined
    allowed.add("_GLOBAL_OFFSET_TABLE_")  # the linker's own
    assert wanted - defined <= allowed, wanted - defined - allowed


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Two compilations agree in every byte, the binaries included."""
    _, again = compile_model(load(EXAMPLE), Options(werror=True), tmp_path / "elsewhere" / "out")
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file()
    )
    _, different, unreadable = filecmp.cmpfiles(folder, again.folder, files, shallow=False)
    assert not different and not unreadable


def test_bundle_builds_without_bitnetc(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(folder, bundle, ignore=shutil.ignore_patterns("bin", "lib"))
    from bitnetc.toolchain import tool

    cmake = tool("cmake", "cmake")
    for command in (
        [cmake, "-S", bundle, "-B", tmp_path / "build", "-DBNC_WERROR=ON"],
        [cmake, "--build", tmp_path / "build"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    built = tmp_path / "build" / "model"
    arguments = ["-p", "In the beginning", "-n", "8", "--temp", "0", "-q"]
    assert (
        subprocess.run([built, *arguments], capture_output=True).stdout
        == subprocess.run([folder / "bin" / "model", *arguments], capture_output=True).stdout
    )


def test_logits_of_every_position(program: Program, folder: Path) -> None:
    out = subprocess.run(
        [folder / "bin" / "model", "--logits"], input=b"1 2\n3", capture_output=True
    )
    model = load(EXAMPLE)
    logits = np.frombuffer(out.stdout, "<f4").reshape(3, model.shape.vocab)
    assert np.array_equal(logits, Reference(model).logits([1, 2, 3]))
