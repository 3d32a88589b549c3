"""Matrices of integers and floats beside ternary ones: what the config says, and the arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import MODULES, VARIANTS_MIXED, TinyCheckpoint, safetensors_bytes, tiny_checkpoint

from bitnetc.checkpoint import read
from bitnetc.errors import BitnetcError
from bitnetc.model import Dense, Integers, Model, Ternary
from bitnetc.normalise import normalise
from bitnetc.pack import pack_matrix, slots
from bitnetc.plan import plan, plan_json
from bitnetc.reference import Input, Reference, quantise
from bitnetc.target import load_target, target_names

F32 = np.float32


def of(tmp_path: Path, name: str = "mixed", **more: Any) -> tuple[Model, TinyCheckpoint]:
    tiny = tiny_checkpoint(**{**VARIANTS_MIXED[name], **more})
    tiny.write(tmp_path / name)
    return normalise(read(tmp_path / name), "x"), tiny


@pytest.mark.parametrize("name", VARIANTS_MIXED)
def test_matrices_are_what_the_config_says(tmp_path: Path, name: str) -> None:
    model, tiny = of(tmp_path, name)
    assert model.notes == () and tiny.integers
    kinds = set()
    for layer, block in enumerate(model.blocks):
        for role, module in MODULES.items():
            weight, matrix = f"model.layers.{layer}.{module}.weight", getattr(block, role)
            kinds.add(type(matrix))
            if weight in tiny.integers:
                bits, values = tiny.integers[weight]
                assert isinstance(matrix, Integers) and matrix.bits == bits
                assert np.array_equal(matrix.load(), values)
                assert np.array_equal(matrix.scale, tiny.scales[weight])
            elif weight in tiny.trits:
                assert isinstance(matrix, Ternary)
                assert np.array_equal(matrix.load(), tiny.trits[weight])
            else:
                assert isinstance(matrix, Dense)
    assert kinds == {Integers, Ternary} | ({Dense} if name == "mixed" else set())


def test_the_arithmetic(tmp_path: Path) -> None:
    """Against the definition in whole numbers, exact up to two roundings."""
    model, _ = of(tmp_path)
    matrix = model.blocks[0].w_down
    assert isinstance(matrix, Integers) and matrix.bits == 8
    x = np.random.default_rng(1).standard_normal((5, matrix.cols)).astype(F32)
    codes, scale = quantise(x)
    y = Reference(model)._apply(matrix, Input(x), None)
    exact = codes.astype(np.int64) @ matrix.load().T.astype(np.int64)
    wide = exact * matrix.scale.astype(np.float64) / scale.astype(np.float64)[:, None]
    assert np.allclose(y, wide, rtol=3e-7)


@pytest.mark.parametrize("target", target_names())
@pytest.mark.parametrize("name", VARIANTS_MIXED)
def test_every_target_plans_them(tmp_path: Path, name: str, target: str) -> None:
    model, _ = of(tmp_path, name)
    decided = plan(model, load_target(target), 32)
    for group in decided.groups:
        block = model.blocks[group.first]
        for role, planned in group.matrices.items():
            matrix = getattr(block, role)
            bits = matrix.bits if isinstance(matrix, Integers) else 0
            layout = planned.kernel.layout
            assert layout.code.integers == bits
            assert planned.padded_rows % planned.tile == 0 == planned.tile % layout.rows
            packed = pack_matrix(planned, matrix)
            assert len(packed) == planned.bytes
            if isinstance(matrix, Integers):  # a quarter of a byte each, where they have two bits
                assert planned.bytes == planned.padded_rows * planned.padded_cols * bits // 8
            whole = layout.unpack(packed, planned.padded_rows, planned.padded_cols)
            assert np.array_equal(whole[: matrix.rows, : matrix.cols], matrix.load())
            assert not whole[matrix.rows :].any() and not whole[:, matrix.cols :].any()
        if "w_gate" in group.matrices:
            gate, up = group.matrices["w_gate"], group.matrices["w_up"]
            assert (gate.tile, gate.padded_rows) == (up.tile, up.padded_rows)
        for role, m in group.matrices.items():
            rows = (m.slice or m.tile) * (2 if role in ("w_gate", "w_up") else 1)
            assert m.tile % (m.slice or 1) == 0
            assert decided.memory.acc_bytes >= 4 * max(decided.batch * rows, m.tile)
    plan_json(decided, model)
    assert slots(decided, model)


def mistake(tmp_path: Path, modules: Any) -> str:
    config = {
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "modules": modules,
        }
    }
    with pytest.raises(BitnetcError) as caught:
        normalise(read(write(tmp_path, config=config)), "x")
    return str(caught.value)


def write(tmp_path: Path, **options: Any) -> Path:
    tiny_checkpoint(**{"integers": {"mlp.down_proj": 4}, **options}).write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "modules",
    [
        {"mlp.down_proj": 4},
        {"mlp.down_proj": {"bits": 3}},
        {"mlp.down_proj": {"bits": True}},
        {"mlp.down_proj": {"bits": 4, "group": 32}},
        {"mlp.down_proj": None},
        {"(a|a)*b": {"bits": 4}},
        {"": {"bits": 4}},
        [],
    ],
    ids=str,
)
def test_damaged_modules_are_refused(tmp_path: Path, modules: Any) -> None:
    assert "quantization_config: modules" in mistake(tmp_path, modules)


def test_bits_of_what_is_no_matrix_are_refused(tmp_path: Path) -> None:
    for name in ("mlp.dwon_proj", "lm_head", "model.layers.99"):
        said = mistake(tmp_path, {"mlp.down_proj": {"bits": 4}, name: {"bits": 4}})
        assert f'quantization_config: modules: "{name}" names no matrix of a block' in said


def test_bits_and_storage_must_agree(tmp_path: Path) -> None:
    assert "nothing says how many bits" in mistake(tmp_path, {"mlp.dwon_proj": {"bits": 4}})
    assert "stored as U8" in mistake(
        tmp_path, {"mlp.down_proj": {"bits": 4}, "mlp.up_proj": {"bits": 8}}
    )
    assert "stored as I8, but this tensor must hold floats" in mistake(
        tmp_path, {"mlp.down_proj": {"bits": 16}}
    )
    folder = write(tmp_path / "narrow")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bits": 4', '"bits": 2'))
    model = normalise(read(folder), "x")
    with pytest.raises(BitnetcError, match="is no integer of 2 bits"):
        model.blocks[0].w_down.load()


def test_scales_must_be_positive(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(integers={"mlp.down_proj": 4})
    tiny.write(tmp_path)
    tensors = dict(tiny.tensors)
    tensors["model.layers.1.mlp.down_proj.weight_scale"] = ("F32", (1,), bytes(4))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    with pytest.raises(BitnetcError, match="a scale must be positive and finite"):
        normalise(read(tmp_path), "x")
