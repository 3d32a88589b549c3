"""Static activations: scales of int8 inputs that the checkpoint states (rule 15)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import MODULES, VARIANTS_STATIC, TinyCheckpoint, tiny_checkpoint

from bitnetc.checkpoint import read
from bitnetc.convert import convert
from bitnetc.errors import BitnetcError
from bitnetc.model import Model, Ternary
from bitnetc.normalise import normalise
from bitnetc.reference import Input, Reference, quantise_by

F32 = np.float32
Q = "model.layers.1.self_attn.q_proj.input_scale"
K, DOWN = Q.replace("q_proj", "k_proj"), Q.replace("self_attn.q_proj", "mlp.down_proj")


def of(tmp_path: Path, name: str = "static") -> tuple[Model, TinyCheckpoint]:
    tiny = tiny_checkpoint(**VARIANTS_STATIC[name])
    tiny.write(tmp_path / name)
    return normalise(read(tmp_path / name), "x"), tiny


@pytest.mark.parametrize("name", VARIANTS_STATIC)
def test_scales_are_read(tmp_path: Path, name: str) -> None:
    model, tiny = of(tmp_path, name)
    assert model.static_activations and model.notes == ()
    for layer, block in enumerate(model.blocks):
        for role, module in MODULES.items():
            data = tiny.tensors[f"model.layers.{layer}.{module}.input_scale"][2]
            found = getattr(block, role + "_input")
            assert found.dtype == F32 and found.shape == (1,)
            assert found[0] == F32(1) / np.frombuffer(data, F32)[0]
        shared = block.wq_input[0] == block.wk_input[0]  # type: ignore[index]
        assert shared == (name != "static-inner-norms")


def test_the_arithmetic(tmp_path: Path) -> None:
    """Against the definition in whole numbers, exact up to two roundings."""
    model, _ = of(tmp_path)
    reference, matrix = Reference(model), model.blocks[0].w_down
    assert isinstance(matrix, Ternary)
    step = F32(1) / F32(0.011)
    x = (np.random.default_rng(1).standard_normal((5, matrix.cols))).astype(F32)
    q = np.rint(x.astype(np.float64) * 90.909091).clip(-127, 127)
    assert (np.abs(q) == 127).sum() > 20  # clamped
    y = reference._apply(matrix, Input(x), np.array([step]))
    exact = q @ matrix.load().T.astype(np.float64) * float(matrix.scale[0]) * 0.011
    assert np.allclose(y, exact, rtol=1e-6, atol=1e-6)


def test_codes_are_rounded_to_even_and_clamped() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, 126.6, -127.6, 3e38]], F32)
    codes, scale = quantise_by(x, F32(1))
    assert codes.tolist() == [[0, 2, 2, 0, -2, 127, -127, 127, -127, 127]]
    assert scale.tolist() == [1.0]
    assert quantise_by(x, F32(1e30))[0].tolist()[0][-1] == 127  # beyond float32


def test_a_batch_is_its_tokens(tmp_path: Path) -> None:
    model, _ = of(tmp_path)
    reference = Reference(model)
    whole = reference.logits([5, 17, 200, 31])
    cache = reference.new_cache()
    each = [reference.logits([token], cache)[0] for token in (5, 17, 200, 31)]
    assert np.array_equal(whole, np.array(each))


def one(value: float, dtype: Any = F32, kind: str = "F32") -> tuple[str, tuple[int, ...], bytes]:
    return kind, (1,), np.array([value], dtype).tobytes()


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "zero": ({Q: one(0)}, Q, "must be one number from 1e-30 to 1e+30"),
    "negative": ({Q: one(-1)}, Q, "must be one number from"),
    "infinite": ({Q: one(np.inf)}, Q, "must be one number from"),
    "no number": ({Q: one(np.nan)}, Q, "must be one number from"),
    "tiny": ({Q: one(1e-31)}, Q, "must be one number from"),
    "two": ({Q: ("F32", (2,), bytes(8))}, Q, "must be one number from"),
    "codes": ({Q: ("U8", (1,), bytes(1))}, Q, "stored as U8, but this tensor must hold floats"),
    "missing": ({DOWN: None}, DOWN, "is missing"),
    "apart": ({K: one(0.5)}, K, 'differs from that of "model.layers.1.self_attn.q_proj.weight"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    changes, where, message = REFUSED[case]
    tiny = tiny_checkpoint(static=True)
    for name, entry in changes.items():
        if entry is None:
            del tiny.tensors[name]
        else:
            tiny.tensors[name] = entry
    tiny.write(tmp_path / "model")
    with pytest.raises(BitnetcError) as caught:
        normalise(read(tmp_path / "model"), "x")
    assert where in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"family": "trilm", "kv_heads": 4},
        {"family": "llama-bitnet", "kept": ("lm_head", "model.layers.1.mlp")},
    ],
)
def test_float_inputs_have_no_scale(tmp_path: Path, options: dict[str, Any]) -> None:
    tiny_checkpoint(**options, static=True).write(tmp_path / "model")
    with pytest.raises(BitnetcError, match="reads floats"):
        normalise(read(tmp_path / "model"), "x")


def test_half_precision_scales(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(static=True)
    for name in [name for name in tiny.tensors if name.endswith("input_scale")]:
        tiny.tensors[name] = one(0.0078125, np.float16, "F16")
    tiny.write(tmp_path / "model")
    model = normalise(read(tmp_path / "model"), "x")
    assert model.blocks[0].wo_input is not None and model.blocks[0].wo_input[0] == 128


def test_the_packed_form_has_no_room(tmp_path: Path) -> None:
    of(tmp_path)
    with pytest.raises(BitnetcError, match="has no room for wq_input"):
        convert(tmp_path / "static", tmp_path / "out")
    assert not (tmp_path / "out").exists()
