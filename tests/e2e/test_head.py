"""Heads of small integers: the same bits as the reference, and close to the checkpoint's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from unavailable import Unavailable

from bitnetc.compiler import Options, compile_model, load
from bitnetc.head import with_integer_head
from bitnetc.plan import plan
from bitnetc.reference import Reference
from bitnetc.target import load_target
from bitnetc.verify import verify
from e2e.built import EXAMPLE, program_of
from e2e.test_bits import start

# Each kernel of integers once: plain C, NEON, its dot product, AVX2, and what this machine has.
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
    ("screened", "armv8-neon", "cortex-a53"),
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
    assert decided.head.kernel.layout.code.integers == {"int8": 8, "int6": 6}.get(head, 4)
    for outcome in verify(model, decided, program_of(artifact.folder, decided.target.name), cpu):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


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


def test_a_plan_names_the_head() -> None:
    model = with_integer_head(load(EXAMPLE), "int8")
    decided = plan(model, load_target("armv8.2-dotprod"))
    assert decided.head and decided.head.kernel.name == "neondot:i8_m16k4"
    assert decided.head.bytes == 4096 * 384
