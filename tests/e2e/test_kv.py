"""--kv q8: a cache of int8 codes is a definition of its own, and as exact as the other."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unavailable import Unavailable

from bitnetc.compiler import Options, compile_model, load
from bitnetc.errors import BitnetcError
from bitnetc.plan import plan
from bitnetc.reference import Reference
from bitnetc.run import command
from bitnetc.target import load_target
from bitnetc.verify import verify
from e2e.built import EXAMPLE, program_of

PLACES = [
    ("native", "example", None),
    ("native", "2b4t-head-dim-100", None),  # rows with zeros behind
    ("scalar", "2b4t-gqa-8", None),
    ("armv8-neon", "2b4t-odd-sizes", "cortex-a53"),  # head_dim 20
    ("armv7-neon", "2b4t-odd-sizes", "cortex-a8"),
]


@pytest.mark.parametrize(("target", "variant", "cpu"), PLACES)
def test_equals_the_reference(
    target: str,
    variant: str,
    cpu: str | None,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    unavailable: Unavailable,
) -> None:
    if cpu:
        try:
            command(load_target(target), Path("program"), cpu, None)
        except BitnetcError as error:
            unavailable(target, str(error))
    model = replace(load(EXAMPLE if variant == "example" else tiny(variant)), kv="q8")
    folder = tmp_path / "out"
    decided, _ = compile_model(model, Options(target, werror=True, name="model"), folder)
    long = 300 if variant == "example" else 96  # beyond a chunk of attention
    for outcome in verify(model, decided, program_of(folder, target), cpu, long=long):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"
    head_dim = model.shape.head_dim
    row = -(-head_dim // 16) * 16 + 4
    stated = json.loads((folder / "plan.json").read_text())["memory"]
    assert stated["cache"] == "q8"
    assert stated["cache_per_position"] == 2 * model.shape.layers * model.shape.kv_heads * row


def test_close_to_float16_but_not_the_same() -> None:
    """What it is worth: the cache is half as large, and the logits move little."""
    exact = load(EXAMPLE)
    ids = list(np.random.default_rng(0).integers(0, exact.shape.vocab, 64))
    rounded = replace(exact, kv="q8")
    a, b = (Reference(m).logits([int(i) for i in ids]) for m in (exact, rounded))
    assert not np.array_equal(a, b)
    p, q = (x.astype(np.float64) for x in (a, b))
    p -= np.log(np.exp(p).sum(-1, keepdims=True))
    q -= np.log(np.exp(q).sum(-1, keepdims=True))
    assert 0 < (np.exp(p) * (p - q)).sum(-1).mean() < 5e-3
    bytes_of = [
        plan(m, load_target("scalar")).memory.cache_bytes_per_position for m in (exact, rounded)
    ]
    assert bytes_of[1] < 0.54 * bytes_of[0]


def test_command_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bitnetc", "plan", str(EXAMPLE), "--json", "--kv"]
    said = subprocess.run([*words, "q8"], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)["memory"]["cache"] == "q8"
    wrong = subprocess.run([*words, "q4"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "q4" in wrong.stderr
