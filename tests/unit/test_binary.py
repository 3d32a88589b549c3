"""Weights and activations of few bits: what is found, planned and packed, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS_LOW, planted, tiny_checkpoint

from bitnetc.binary import find_binary
from bitnetc.checkpoint import read
from bitnetc.convert import convert
from bitnetc.errors import BitnetcError
from bitnetc.inspect import inspect
from bitnetc.model import ROLES, Model, Ternary, Trits
from bitnetc.normalise import normalise
from bitnetc.pack import pack_matrix
from bitnetc.plan import plan
from bitnetc.prune import prune
from bitnetc.target import load_target, target_names

# A Mac's memory is so fast that look-up tables of its target, whose figures are otherwise those of
# a Cortex-A72, win.
OTHERS = ("aarch64-macos",)


def of(tmp_path: Path, **more: Any) -> Model:
    tiny_checkpoint(**{**VARIANTS_LOW["binary-per-row"], **more}).write(tmp_path)
    return normalise(read(tmp_path), "x")


def binary(model: Model) -> list[set[str]]:
    return [{role for role in ROLES if getattr(block, role).binary} for block in model.blocks]


def test_all_or_none(tmp_path: Path) -> None:
    assert binary(find_binary(of(tmp_path / "a"))) == [set(ROLES)] * 2
    assert binary(find_binary(of(tmp_path / "b", zeros=0.01))) == [set()] * 2
    floats = of(tmp_path / "c", family="ternary-bonsai", dim=128, ffn_dim=256, heads=4, kv_heads=2)
    assert floats.float_activations and binary(find_binary(floats)) == [set()] * 2


def test_one_zero_is_enough(tmp_path: Path) -> None:
    model = of(tmp_path, layers=3)
    matrix = model.blocks[1].w_up
    assert isinstance(matrix, Ternary)

    def load() -> Trits:
        trits = matrix.load().copy()
        trits[-1, -1] = 0
        return trits

    one = replace(model.blocks[1], w_up=replace(matrix, load=load))
    found = find_binary(replace(model, blocks=(model.blocks[0], one, model.blocks[2])))
    others = set(ROLES) - {"w_up"}
    assert binary(found) == [set(ROLES), others, others]


@pytest.mark.parametrize("target", target_names())
def test_one_bit_a_weight_where_there_is_a_kernel(tmp_path: Path, target: str) -> None:
    model, known = of(tmp_path), load_target(target)
    ternary = plan(model, known, 32)
    assert not any(m.kernel.layout.code.binary for m in ternary.groups[0].matrices.values())
    decided = plan(find_binary(model), known, 32)
    signs = [k for k in known.kernels if k.layout.code.binary and k.activation == "int8"]
    whole_block = max((k.layout.rows for k in signs), default=0)
    for role, planned in decided.groups[0].matrices.items():
        layout, matrix = planned.kernel.layout, getattr(model.blocks[0], role)
        # Of a matrix lower than a block most would be padding.
        able = signs and target not in OTHERS and matrix.rows >= whole_block
        assert layout.code.binary or not able or planned.density < 1, (role, planned.kernel.name)
        packed = pack_matrix(planned, matrix)
        assert len(packed) == planned.bytes
        whole = layout.unpack(packed, planned.padded_rows, planned.padded_cols)
        assert np.array_equal(whole[: matrix.rows, : matrix.cols], matrix.load())


@pytest.mark.parametrize(
    ("said", "meant"), [(None, "int8"), (8, "int8"), (1, "signs"), ("ternary", "trits")]
)
def test_activation_bits(tmp_path: Path, said: Any, meant: str) -> None:
    model = of(tmp_path, activation_bits=said)
    assert model.activations == meant and model.notes == ()
    inputs = inspect(tmp_path).facts["ternary inputs"]
    words = {"int8": "int8", "signs": "signs (1 bit)", "trits": "-1, 0 and 1 (3 levels)"}
    assert inputs == f"{words[meant]} per token"


@pytest.mark.parametrize("said", [2, True, 1.0, "int8", [1], {}], ids=str)
def test_other_activation_bits_are_refused(tmp_path: Path, said: Any) -> None:
    with pytest.raises(BitnetcError, match=r'activation_bits: .* may be 8, 1 or "ternary"'):
        of(tmp_path, activation_bits=said)


def test_what_does_not_go_with_them(tmp_path: Path) -> None:
    with pytest.raises(BitnetcError, match=r"input_scale.*has activation_bits"):
        of(tmp_path / "a", activation_bits=1, static=True)
    of(tmp_path / "b", activation_bits=1)
    with pytest.raises(BitnetcError, match="no room for activations of one bit"):
        convert(tmp_path / "b", tmp_path / "out")


def test_units_of_zeros_stay(tmp_path: Path) -> None:
    """The sign of a zero is +1."""
    config = {"zeros": 0.4, "dim": 64, "ffn_dim": 96, "heads": 4, "per_row": False}
    assert prune(planted(of(tmp_path / "a", **config))).shape.ffn_dim < 96
    signs = planted(of(tmp_path / "b", activation_bits=1, **config))
    assert prune(signs) is signs


@pytest.mark.parametrize(("said", "bits"), [(8, False), (1, True), ("ternary", True)])
def test_bits_are_counted_where_there_is_a_kernel(tmp_path: Path, said: Any, bits: bool) -> None:
    for name, zeros, layout in (("a", 0.0, "b1_m8k64"), ("b", 0.4, "u2_m8k64")):
        # no ReLU^2, whose zeros are worth more than what counting saves
        model = of(tmp_path / name, activation_bits=said, zeros=zeros, activation="silu")
        for target in ("scalar", "x86_64-avx2", "wasm32-simd128", "cortex-m4"):
            decided = plan(find_binary(model), load_target(target), 32)
            # the others have so few rows, or columns, that padding counts
            matrices = (decided.groups[0].matrices[role] for role in ("wq", "wo", "w_gate"))
            found = {m.kernel.layout_name for m in matrices}
            assert (found == {layout}) == bits == decided.bits, (target, found)
            assert ("act_bits" in decided.memory.buffers) == bits
