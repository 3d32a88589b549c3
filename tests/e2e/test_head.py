"""Heads of small integers: the same bits as the reference, and close to the checkpoint's own."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from unavailable import Unavailable

from bitnetc.compiler import Options, compile_model, load
from bitnetc.head import screen_of, with_integer_head
from bitnetc.plan import plan, plan_json
from bitnetc.reference import Reference
from bitnetc.target import load_target
from bitnetc.verify import verify
from e2e.built import EXAMPLE, program_of
from e2e.test_bits import start

# Each kernel of integers once: plain C, NEON, its dot product, AVX2, and what this machine has.
# A screened head has a ternary kernel: one of tables, and what this machine has; and each loop of
# its integers.
PLACES = [
    ("int8", "scalar", "host"),
    ("int8", "armv8-neon", "cortex-a53"),
    ("int8", "armv8.2-dotprod", "cortex-a76"),
    ("int8", "x86_64-avx2", "Haswell"),
    ("int8", "native", "host"),
    ("int6", "x86_64-avx2", "Haswell"),
    ("int6", "native", "host"),
    ("int4", "scalar", "host"),
    ("int4", "armv8.2-dotprod", "cortex-a76"),
    ("int4", "x86_64-avx2", "Haswell"),
    ("int4", "native", "host"),
    ("screened", "wasm32-simd128", "wasmtime"),
    ("screened", "x86_64-sse4.1", "Nehalem"),
    ("screened", "native", "host"),
]


@pytest.mark.parametrize(("head", "target", "cpu"), PLACES)
def test_bits(
    head: str,
    target: str,
    cpu: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    unavailable: Unavailable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(target, Path("program"), cpu, unavailable)
    monkeypatch.setenv("CFLAGS", "-O1")  # tests/kernels has them optimised
    model = with_integer_head(
        load(tiny("2b4t-untied" if head == "int4" else "2b4t-odd-sizes")), head
    )
    decided, artifact = compile_model(model, Options(target=target, name="model"), tmp_path / "out")
    assert decided.head is not None
    if head == "screened":
        reads_tables = decided.head.kernel.activation == "lut16"
        assert reads_tables == (target == "wasm32-simd128")
    bits = {"int8": 8, "int6": 6, "int4": 4, "screened": 0}
    assert decided.head.kernel.layout.code.integers == bits[head]
    program = program_of(artifact.folder, decided.target.name)
    for outcome in verify(model, decided, program, cpu):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"
    if (head, target) == ("screened", "native"):
        arguments = [program, "--bench", "-t", "2", "-c", "24"]
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        rows, of = map(int, re.findall(r"rows +(\d+) of (\d+) of the head", said)[0])
        assert 10 <= rows < of == model.shape.vocab


@pytest.mark.parametrize(("name", "most"), [("int8", 127), ("int6", 31)])
def test_rounding(name: str, most: int) -> None:
    """Every row is within half a step of its floats, and uses the whole range."""
    model = load(EXAMPLE)
    head = with_integer_head(model, name).integer_head
    assert head is not None
    integers = head.load().astype(np.float32)
    stored = (model.head.load().astype(np.uint32) << 16).view(np.float32)
    assert (np.abs(integers).max(axis=1) == most).all()
    off = np.abs(integers * head.scale[:, None] - stored) / head.scale[:, None]
    assert off.max() <= 0.5 + 1e-3


def test_eight_bits_are_close() -> None:
    """On real text the most likely token is that of the checkpoint's own head."""
    model = load(EXAMPLE)
    text = "It is a truth universally acknowledged, that a single man in possession of a good"
    ids = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json")).encode(text).ids
    exact = Reference(model).logits(ids)
    rounded = Reference(with_integer_head(model, "int8")).logits(ids)
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() >= 0.9
    spread = exact.max() - exact.min()
    assert np.abs(exact - rounded).max() < 0.02 * spread


def test_a_screen_is_the_closest_ternary_matrix() -> None:
    """Rows: random ones, one of a single magnitude, one of zeros."""
    random = np.random.default_rng(5)
    integers = np.clip(36 * random.standard_normal((6, 50)), -127, 127).astype(np.int8)
    integers[4] = np.where(integers[4] < 0, -127, 127)
    integers[5] = 0
    scale = random.random(6, np.float32)
    screen = screen_of(integers, scale)
    trits = screen.trits.load().astype(np.float64)
    for c, t, d, a, e in zip(
        integers.astype(np.float64), trits, scale, screen.trits.scale, screen.error, strict=True
    ):
        order = np.argsort(-np.abs(c), kind="stable")
        kept = [np.abs(c[order[:n]]).sum() ** 2 / n for n in range(1, 51)]
        found = np.abs(c[t != 0]).sum() ** 2 / max(1, np.abs(t).sum())
        assert found == pytest.approx(max(kept))
        assert (t * c >= 0).all()
        error = a * t - d * c
        assert error @ c == pytest.approx(0, abs=1e-6 * (c @ c))
        assert e == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-4, abs=1e-4)


def test_a_screen_keeps_what_is_likely() -> None:
    """The ten most likely tokens have the logits of the head of 8 bits, and most tokens others."""
    text = "It is a truth universally acknowledged, that a single man in possession of a good"
    ids = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json")).encode(text).ids
    model = load(EXAMPLE)
    every = Reference(with_integer_head(model, "int8")).logits(ids)
    some = Reference(with_integer_head(model, "screened")).logits(ids)
    likely = np.argsort(every, axis=1)[:, -10:]
    assert (np.argsort(some, axis=1)[:, -10:] == likely).all()
    assert (np.take_along_axis(every == some, likely, axis=1)).all()
    assert (every == some).mean() < 0.2


def test_a_plan_names_the_head() -> None:
    model = with_integer_head(load(EXAMPLE), "int8")
    decided = plan(model, load_target("armv8.2-dotprod"))
    assert decided.head and decided.head.kernel.name == "neondot:i8_m16k4"
    assert decided.head.bytes == decided.head_bytes == 4096 * 384


def test_a_plan_of_a_screened_head() -> None:
    """Every target has a ternary kernel for it; its integers are stored by the row."""
    model = with_integer_head(load(EXAMPLE), "screened")
    decided = plan(model, load_target("x86_64-sse4.1"))
    assert decided.head and decided.head.kernel.isa == "sse41"
    assert decided.head_bytes == decided.head.bytes + 4096 * 384
    assert decided.head_read_bytes == decided.head.bytes + 4096 * 8
    stored = plan_json(decided, model)["head"]
    assert stored["exact"] == {"padded": [4096, 384], "bytes": 4096 * 384}
