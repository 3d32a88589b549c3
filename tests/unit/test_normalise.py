"""normalise: trits and scales mean what transformers means; bad input is refused by name."""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    TRANSFORMERS_VARIANTS,
    VARIANTS,
    VARIANTS_EMBEDDING,
    VARIANTS_GRAPHS,
    VARIANTS_LEVELS,
    VARIANTS_MIXED,
    VARIANTS_STATIC,
    TinyCheckpoint,
    pack,
    rounded,
    special_ids,
    tiny_checkpoint,
    write_checkpoint,
)
from numpy.typing import NDArray

from bitnetc.checkpoint import Tensor, read
from bitnetc.errors import BitnetcError
from bitnetc.model import Model, Sampling, Ternary, to_float32
from bitnetc.normalise import absmean_inverse, find_bad_code, normalise, unpack

MATRICES = {
    "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight",
    "wv": "self_attn.v_proj.weight",
    "wo": "self_attn.o_proj.weight",
    "w_gate": "mlp.gate_proj.weight",
    "w_up": "mlp.up_proj.weight",
    "w_down": "mlp.down_proj.weight",
}
NORMS = {
    "attn_norm": "input_layernorm.weight",
    "attn_sub_norm": "self_attn.attn_sub_norm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "ffn_sub_norm": "mlp.ffn_sub_norm.weight",
}
NORMS_1BITLLM = NORMS | {
    "attn_sub_norm": "self_attn.inner_attn_ln.weight",
    "ffn_sub_norm": "mlp.ffn_layernorm.weight",
}


# test_graphs.py, test_static.py and test_mixed.py have these
OTHER_GRAPHS = {
    **VARIANTS_GRAPHS,
    **VARIANTS_LEVELS,
    **VARIANTS_EMBEDDING,
    **VARIANTS_STATIC,
    **VARIANTS_MIXED,
}


def read_model(folder: Path, **options: Any) -> Model:
    write_checkpoint(folder, **options)
    return normalise(read(folder), "tiny")


def stored(tiny: TinyCheckpoint, name: str) -> NDArray[np.float32]:
    dtype, shape, data = tiny.tensors[name]
    if dtype == "BF16":
        words = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return words.view(np.float32).reshape(shape)
    return np.frombuffer(data, {"F16": np.float16, "F32": np.float32}[dtype]).reshape(shape)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in OTHER_GRAPHS])
def test_every_variant(tmp_path: Path, name: str) -> None:
    tiny = tiny_checkpoint(**VARIANTS[name])
    tiny.write(tmp_path)
    model = normalise(read(tmp_path), name)
    config = tiny.config
    shape = model.shape
    family = VARIANTS[name].get("family", "bitnet")
    assert model.family == family
    assert (shape.dim, shape.ffn_dim) == (config["hidden_size"], config["intermediate_size"])
    assert (shape.heads, shape.kv_heads) == (
        config["num_attention_heads"],
        config["num_key_value_heads"],
    )
    assert shape.head_dim == config.get("head_dim", shape.dim // shape.heads)
    assert model.ffn_activation == config["hidden_act"]
    assert model.tied == config["tie_word_embeddings"]
    assert (model.norm_eps, model.rope_theta) == (1e-5, 10000.0)
    assert len(model.tokenizer.pieces) == shape.vocab
    assert len(model.blocks) == shape.layers == config["num_hidden_layers"]
    assert model.notes == ()
    for layer, block in enumerate(model.blocks):
        prefix = f"model.layers.{layer}."
        for role, suffix in MATRICES.items():
            matrix: Ternary = getattr(block, role)
            trits = matrix.load()
            assert trits.dtype == np.int8 and trits.shape == (matrix.rows, matrix.cols)
            assert np.array_equal(trits, tiny.trits[prefix + suffix])
            assert matrix.scale.dtype == np.float32
            assert np.array_equal(matrix.scale, tiny.scales[prefix + suffix])
        norms = NORMS_1BITLLM if family == "bitnet_b1_58" else NORMS
        for role, suffix in norms.items():
            norm = getattr(block, role)
            if prefix + suffix not in tiny.tensors:
                assert norm is None and family == "llama-bitnet"
            else:
                assert norm.dtype == np.float32
                assert np.array_equal(norm, stored(tiny, prefix + suffix))
    assert np.array_equal(model.final_norm, stored(tiny, "model.norm.weight"))
    ends = {"model.embed_tokens.weight": model.embedding}
    if not model.tied:
        ends["lm_head.weight"] = model.head
    for key, dense in ends.items():
        values = dense.load()
        assert dense.dtype.upper() == tiny.tensors[key][0]
        assert values.nbytes == dense.rows * dense.cols * dense.bytes_per_value
        assert np.array_equal(to_float32(values, dense.dtype), stored(tiny, key))


# --- the judge: transformers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> Any:
    """transformers, without compiling its quantisers and without asking for accelerate, which it
    does although nothing here is spread over devices."""
    pytest.importorskip("torch")
    module = pytest.importorskip("transformers")
    import torch._dynamo
    from transformers.quantizers import quantizer_bitnet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._dynamo.config, "disable", True)
        patch.setattr(quantizer_bitnet, "is_accelerate_available", lambda *_: True)
        yield module


@pytest.mark.parametrize("name", [n for n in TRANSFORMERS_VARIANTS if n != "2b4t-legacy-config"])
def test_weights_equal_those_of_transformers(tmp_path: Path, transformers: Any, name: str) -> None:
    """trits * scale against what each module of a loaded model multiplies by, as float32.

    Not for the first revision of 2B-4T's config, which transformers 5 no longer knows.
    """
    import torch
    from transformers.integrations.bitnet import (
        AutoBitLinear,
        BitLinear,
        WeightQuant,
        unpack_weights,
    )

    write_checkpoint(tmp_path, **VARIANTS[name])
    ours = normalise(read(tmp_path), name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    # what the checkpoint packs comes in bf16 whatever dtype is asked for, and a quantised model
    # forbids its own .float()
    theirs = torch.nn.Module.float(theirs)
    modules = dict(theirs.named_modules())
    for layer, block in enumerate(ours.blocks):
        for role, suffix in MATRICES.items():
            module = modules[f"model.layers.{layer}.{suffix.removesuffix('.weight')}"]
            matrix: Ternary = getattr(block, role)
            trits = matrix.load()
            if isinstance(module, BitLinear):
                assert np.array_equal(trits, unpack_weights(module.weight, torch.int8).numpy())
                scale = (1 / module.weight_scale).numpy()
            elif type(module) is torch.nn.Linear:
                kept: Any = matrix
                assert np.array_equal(to_float32(trits, kept.dtype), module.weight.detach())
                continue
            else:
                assert isinstance(module, AutoBitLinear)
                weight = module.weight.detach()
                if module.online_quant:
                    # equal where torch's order of summation gives the same mean as the exact sum;
                    # it differs in the last bit at most
                    quantise: Any = WeightQuant.apply  # it has no annotations
                    quantised = quantise(weight).numpy()
                    assert np.array_equal(trits, np.sign(quantised))
                    assert np.allclose(matrix.scale, np.abs(quantised).max(), rtol=2e-7, atol=0)
                    continue
                assert np.array_equal(trits, weight.numpy())
                scale = module.weight_scale.numpy()
            assert np.array_equal(matrix.scale, scale)
    # and it runs: the checkpoints are fit to be judged by logits
    with torch.no_grad():
        logits = theirs(torch.tensor([[1, 2, 3]])).logits
    assert logits.isfinite().all() and logits.std() > 0.1


def test_absmean_agrees_with_transformers_on_many_masters(transformers: Any) -> None:
    """bf16 masters of several sizes and kinds, a million weights in all: no trit differs."""
    import torch

    random = np.random.default_rng(5)
    weights = 0
    for rows, cols, spread in ((256, 640, 0.02), (320, 1024, 1.5), (96, 5460, 1e-3)):
        for heavy in (False, True):
            values = spread * random.standard_normal((rows, cols))
            if heavy:  # 2B-4T's masters: many entries near 1e-34
                values[random.random(values.shape) < 0.3] *= 1e-34
            data, _ = rounded(values, "bf16")
            tensor = Tensor("w", "BF16", values.shape, Path("x"), np.frombuffer(data, np.uint8))
            ours = np.clip(
                np.rint(to_float32(tensor.array(), "bf16") * absmean_inverse(tensor, "bf16")),
                -1,
                1,
            )
            weight = torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float()
            weight = weight.reshape(rows, cols)
            scale = 1.0 / weight.abs().mean().clamp_(min=1e-5)
            theirs = (weight * scale).round().clamp(-1, 1).numpy()
            assert np.count_nonzero(ours != theirs) == 0
            weights += values.size
    assert weights > 2_000_000


# --- decoding ------------------------------------------------------------------------------------


def test_published_packing_example() -> None:
    packed = np.array([[0x98, 0x51], [0x49, 0x8A]], dtype=np.uint8)
    rows = [[-1, 0], [0, 1], [1, -1], [1, 1], [0, 0], [-1, -1], [1, 0], [0, 1]]
    assert unpack(packed, 8).tolist() == rows


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 65, 66, 1027])
@pytest.mark.parametrize("cols", [1, 7, 640])
def test_unpack_inverts_pack(rows: int, cols: int) -> None:
    trits = np.random.default_rng(rows).integers(-1, 2, (rows, cols)).astype(np.int8)
    packed = pack(trits)
    assert np.array_equal(unpack(packed, rows), trits)
    assert find_bad_code(packed, rows) is None


@pytest.mark.parametrize("rows", [4, 5, 6, 7, 8, 1027])
def test_every_code_3_is_found(rows: int) -> None:
    cols = 640
    random = np.random.default_rng(rows)
    for _ in range(50):
        packed = pack(random.integers(-1, 2, (rows, cols)).astype(np.int8))
        quarter = len(packed)
        row, col = int(random.integers(rows)), int(random.integers(cols))
        packed[row % quarter, col] |= 3 << 2 * (row // quarter)
        assert find_bad_code(packed, rows) == (row, col)


def test_padding_fields_may_hold_anything() -> None:
    packed = pack(np.zeros((5, 3), dtype=np.int8))  # 2 packed rows, 8 fields, 5 used
    packed[1] |= 0b11110000
    packed[0] |= 0b11000000
    assert find_bad_code(packed, 5) is None
    assert not unpack(packed, 5).any()


def master(values: NDArray[Any], dtype: str) -> tuple[Tensor, NDArray[np.float32]]:
    data, meant = rounded(values, dtype)  # type: ignore[arg-type]
    raw = np.frombuffer(data, np.uint8)
    return Tensor("w", dtype.upper(), values.shape, Path("x"), raw), meant


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("spread", [1e-7, 1e-5, 0.02, 1.5, 300.0])
def test_absmean_is_of_the_exact_sum(dtype: Any, spread: float) -> None:
    values = spread * np.random.default_rng(1).standard_normal((37, 41))
    values[0, :4] = 0.0, -0.0, 1e-39, -1e-39
    tensor, meant = master(values, dtype)
    mean = sum(Fraction(abs(float(value))) for value in meant.flat) / meant.size
    expected = np.float32(1) / max(np.float32(float(mean)), np.float32(1e-5))
    assert absmean_inverse(tensor, dtype) == expected


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_online_trits_are_rounded_products(tmp_path: Path, dtype: Any) -> None:
    """By the definition, including values at the edge of rounding."""
    tiny = tiny_checkpoint(storage="online", dtype=dtype, layers=1)
    name = "model.layers.0.mlp.down_proj.weight"
    _, shape, _ = tiny.tensors[name]
    random = np.random.default_rng(3)
    # many equal magnitudes around half the mean
    values = random.choice([0.0, 0.5, 0.4995, 0.5005, 1.0, 2.0, 1.5], shape)
    values *= random.choice([-1, 1], shape)
    data, meant = rounded(values, dtype)
    tiny.tensors[name] = (dtype.upper(), shape, data)
    tiny.write(tmp_path)
    matrix = normalise(read(tmp_path), "x").blocks[0].w_down
    inverse = np.float32(1) / np.float32(np.abs(meant).mean(dtype=np.float64))
    expected = np.clip(np.rint(meant * inverse), -1, 1)
    assert np.array_equal(matrix.load(), expected)
    assert matrix.scale == np.float32(1) / inverse


def test_masters_of_zero(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(storage="online", layers=1)
    name = "model.layers.0.mlp.down_proj.weight"
    dtype, shape, data = tiny.tensors[name]
    tiny.tensors[name] = (dtype, shape, bytes(len(data)))
    tiny.write(tmp_path)
    matrix = normalise(read(tmp_path), "x").blocks[0].w_down
    assert not matrix.load().any()
    assert math.isclose(matrix.scale[0], 1e-5, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("linear_class", "expected"), [("bitlinear", 1 / 1.5546875), ("autobitlinear", 1.5546875)]
)
def test_scale_divides_or_multiplies(tmp_path: Path, linear_class: Any, expected: float) -> None:
    tiny = tiny_checkpoint(linear_class=linear_class, layers=1)
    name = "model.layers.0.self_attn.q_proj.weight_scale"
    data, _ = rounded(np.array([1.5546875]), "bf16")
    for shape in ((1,), ()):
        tiny.tensors[name] = ("BF16", shape, data)
        tiny.write(tmp_path)
        assert normalise(read(tmp_path), "x").blocks[0].wq.scale == np.float32(expected)


# --- config --------------------------------------------------------------------------------------


def test_end_tokens_and_sampling(tmp_path: Path) -> None:
    ids = special_ids(320)
    asked: dict[str, Any] = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    model = read_model(tmp_path / "a", generation_config=asked)
    assert model.sampling == Sampling(0.6, 50, 0.9)
    assert model.eos == (ids["<|end_of_text|>"], ids["<|eot_id|>"])
    model = read_model(tmp_path / "b", generation_config={"eos_token_id": 7, "temperature": 0.5})
    assert model.sampling == Sampling(0.0)
    assert model.eos == (7,)
    asked = {"do_sample": True, "top_k": 0, "eos_token_id": None}
    model = read_model(tmp_path / "c", generation_config=asked)
    assert model.sampling == Sampling(1.0, 0, 1.0)
    assert model.eos == (ids["<|end_of_text|>"],)
    nothing = {"eos_token_id": None}
    model = read_model(tmp_path / "d", config=nothing, generation_config=nothing)
    assert model.eos == ()
    assert any("no eos_token_id" in note for note in model.notes)


def test_missing_keys_have_transformers_defaults_and_are_noted(tmp_path: Path) -> None:
    missing = dict.fromkeys(("hidden_act", "rms_norm_eps", "rope_theta", "max_position_embeddings"))
    model = read_model(tmp_path / "a", config=missing, dim=80, heads=5, kv_heads=5)
    assert model.ffn_activation == "relu2"
    assert (model.norm_eps, model.rope_theta, model.shape.context) == (1e-5, 500000.0, 2048)
    assert len(model.notes) == 4
    assert any("hidden_act" in note and "relu2" in note for note in model.notes)
    model = read_model(tmp_path / "b", config=missing, family="llama-bitnet")
    assert model.ffn_activation == "silu"
    assert (model.norm_eps, model.rope_theta) == (1e-6, 10000.0)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "default", "rope_theta": 10000.0}, "rope_theta": 7.0},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_theta": None},
        {"rope_parameters": {"rope_theta": 1e4}, "rope_theta": 5.0},
        {"use_sliding_window": False, "sliding_window": 4096},
        {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1},
        {"torch_dtype": None, "dtype": "bfloat16"},
        {"layer_types": ["full_attention", "full_attention"]},
        {"model_type": None, "architectures": None},
    ],
)
def test_harmless_keys(tmp_path: Path, config: dict[str, Any]) -> None:
    assert read_model(tmp_path, config=config).rope_theta == 10000.0


def test_modules_kept_in_float(tmp_path: Path) -> None:
    for kept in (["lm_head"], ["lm_head", "model.embed_tokens"], [r"lm_head"]):
        tiny = tiny_checkpoint()
        tiny.config["quantization_config"]["modules_to_not_convert"] = kept
        tiny.write(tmp_path)
        normalise(read(tmp_path), "x")


def test_tying_follows_transformers(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(tied=False)
    tiny.config["tie_word_embeddings"] = True
    tiny.write(tmp_path / "differs")
    model = normalise(read(tmp_path / "differs"), "x")
    assert not model.tied
    assert any("lm_head.weight differs" in note for note in model.notes)

    tiny.tensors["lm_head.weight"] = tiny.tensors["model.embed_tokens.weight"]
    tiny.write(tmp_path / "equal")
    assert normalise(read(tmp_path / "equal"), "x").tied

    del tiny.tensors["model.embed_tokens.weight"]
    tiny.write(tmp_path / "head")
    model = normalise(read(tmp_path / "head"), "x")
    assert model.tied
    assert any("serves as both" in note for note in model.notes)


def test_odd_tensors_are_noted_or_ignored(tmp_path: Path) -> None:
    tiny = tiny_checkpoint()
    tiny.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", (1,), bytes(4))
    tiny.tensors["training.step"] = ("I64", (1,), bytes(8))
    tiny.write(tmp_path)
    notes = normalise(read(tmp_path), "x").notes
    assert len(notes) == 1 and '"training.step"' in notes[0]


def test_scales_beside_masters_are_noted(tmp_path: Path) -> None:
    """transformers computes the scale of masters and passes over a stored one."""
    tiny = tiny_checkpoint(storage="online")
    tiny.tensors[Q + "_scale"] = ("F32", (1,), f32(1.0))
    tiny.write(tmp_path)
    notes = normalise(read(tmp_path), "x").notes
    assert len(notes) == 1 and "q_proj.weight_scale" in notes[0]


def test_reading_is_lazy(tmp_path: Path) -> None:
    """A bad code is found when its matrix is loaded, not before."""
    tiny = tiny_checkpoint()
    damage_codes(tiny)
    tiny.write(tmp_path)
    model = normalise(read(tmp_path), "x")
    model.blocks[0].w_up.load()
    with pytest.raises(BitnetcError, match=r"down_proj.weight: row 34, column 5: holds code 3"):
        model.blocks[1].w_down.load()


def damage_codes(tiny: TinyCheckpoint) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    dtype, shape, data = tiny.tensors[name]
    packed = np.frombuffer(data, np.uint8).reshape(shape).copy()
    packed[2, 5] |= 3 << 4  # dim 64: row 2 + 2 * 16
    tiny.tensors[name] = (dtype, shape, packed.tobytes())


# --- refusals ------------------------------------------------------------------------------------

Damage = Callable[[TinyCheckpoint], Any]


def config(**keys: Any) -> Damage:
    return lambda tiny: tiny.config.update(keys)


def without(*keys: str) -> Damage:
    return lambda tiny: [tiny.config.pop(key) for key in keys]


def quant(**keys: Any) -> Damage:
    return lambda tiny: tiny.config["quantization_config"].update(keys)


def tensor(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Damage:
    return lambda tiny: tiny.tensors.update({name: (dtype, shape, data)})


def drop(*names: str) -> Damage:
    return lambda tiny: [tiny.tensors.pop(name) for name in names]


def rename(old: str, new: str) -> Damage:
    return lambda tiny: tiny.tensors.update({new: tiny.tensors.pop(old)})


def f32(*values: float) -> bytes:
    return np.array(values, dtype=np.float32).tobytes()


L0 = "model.layers.0."
Q = L0 + "self_attn.q_proj.weight"
NORM = "model.norm.weight"
BF16 = ("BF16", (64,), bytes(128))

# case -> (options of the checkpoint, damage, where the message starts, what it says)
REFUSED: dict[str, tuple[dict[str, Any], Damage, str, str]] = {
    "no size": ({}, without("hidden_size"), "config.json: hidden_size", "is missing; add it"),
    "size misspelt": (
        {},
        lambda tiny: tiny.config.update(hiden_size=tiny.config.pop("hidden_size")),
        "config.json: hidden_size",
        'is missing; rename "hiden_size" if that is it',
    ),
    "size a text": ({}, config(hidden_size="64"), "config.json: hidden_size", "whole number"),
    "size a float": ({}, config(hidden_size=64.0), "config.json: hidden_size", "whole number"),
    "size true": ({}, config(num_hidden_layers=True), "config.json: num_hidden", "whole number"),
    "size a list": ({}, config(vocab_size=[320]), "config.json: vocab_size", "whole number"),
    "size zero": ({}, config(hidden_size=0), "config.json: hidden_size", "from 1 to"),
    "size negative": ({}, config(intermediate_size=-96), "config.json: intermediate", "from 1 to"),
    "size huge": ({}, config(vocab_size=10**12), "config.json: vocab_size", "from 1 to 4194304"),
    "layers huge": ({}, config(num_hidden_layers=10**9), "config.json: num_hidden", "from 1 to"),
    "context huge": ({}, config(max_position_embeddings=10**30), "config.json: max_", "from 1 to"),
    "heads uneven": ({}, config(num_attention_heads=5), "config.json: hidden_size", "no multiple"),
    "kv heads uneven": ({}, config(num_key_value_heads=3), "config.json: num_key", "not divide"),
    "head_dim odd": ({}, config(head_dim=15), "config.json: head_dim", "15 is odd"),
    "eps zero": ({}, config(rms_norm_eps=0), "config.json: rms_norm_eps", "must be above 0"),
    "eps NaN": ({}, config(rms_norm_eps=math.nan), "config.json: rms_norm_eps", "must be above 0"),
    "theta a text": ({}, config(rope_theta="10000"), "config.json: rope_theta", "a number"),
    "theta infinite": ({}, config(rope_theta=math.inf), "config.json: rope_theta", "at most"),
    "tie a number": ({}, config(tie_word_embeddings=1), "config.json: tie_word", "true or false"),
    "activation": (
        {},
        config(hidden_act="rleu2"),
        "config.json: hidden_act",
        'unknown activation "rleu2"; did you mean "relu2"',
    ),
    "activation gelu": ({}, config(hidden_act="gelu"), "config.json: hidden_act", "relu2"),
    "rope scaling": (
        {},
        config(rope_scaling={"rope_type": "dynamic", "factor": 4.0}),
        "config.json: rope_scaling: rope_type",
        '"dynamic" is not supported; known scalings',
    ),
    "rope scaling, old key": (
        {},
        config(rope_scaling={"type": "linear", "factor": 0}),
        "config.json: rope_scaling: factor",
        "must be above 0",
    ),
    "rope scaling, half of it": (
        {},
        config(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        "config.json: rope_scaling: original_max_position_embeddings",
        "is missing",
    ),
    "rope scaling upside down": (
        {},
        config(
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 4.0,
                "high_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
            }
        ),
        "config.json: rope_scaling: high_freq_factor",
        "1.0 is not above low_freq_factor, 4.0",
    ),
    "longrope beyond its first positions": (
        {},
        config(
            rope_scaling={
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "original_max_position_embeddings": 64,
            }
        ),
        "config.json: max_position_embeddings",
        "128 is beyond 64",
    ),
    "rope scaling a text": (
        {}, config(rope_scaling="yarn"), "config.json: rope_scaling", "must be an object"
    ),
    "rope by layer": (
        {},
        config(rope_parameters={"full_attention": {"rope_theta": 1e6}}),
        "config.json: rope_parameters",
        "differs by layer type",
    ),
    "partial rope": (
        {}, config(partial_rotary_factor=0.5), "config.json: partial_rotary_factor", "0.5"
    ),
    "sliding window": ({}, config(sliding_window=4096), "config.json: sliding_window", "4096"),
    "layer types": (
        {}, config(layer_types=["sliding_attention"]), "config.json: layer_types", "full_attention"
    ),
    "bias": ({}, config(attention_bias=True), "config.json: attention_bias", "true is not supp"),
    "softcap": (
        {}, config(final_logit_softcapping=30.0), "config.json: final_logit_softcapping", "30.0"
    ),
    "experts": ({}, config(num_local_experts=8), "config.json: num_local_experts", "8 is not"),
    "no quantisation": (
        {}, without("quantization_config"), "config.json: quantization_config", "use a BitNet"
    ),
    "quantisation a text": (
        {}, config(quantization_config="bitnet"), "config.json: quantization_config", "an object"
    ),
    "quant_method": (
        {}, quant(quant_method="gptq"), "config.json: quantization_config: quant_method", '"gptq"'
    ),
    "linear_class": (
        {},
        quant(linear_class="autobitliner"),
        "config.json: quantization_config: linear_class",
        'unknown class "autobitliner"; did you mean "autobitlinear"',
    ),
    "linear_class key misspelt": (
        {},
        quant(linear_clas="autobitlinear"),
        "config.json: quantization_config: linear_clas",
        'unknown key; did you mean "linear_class"?',
    ),
    "mode": (
        {},
        quant(quantization_mode="oflinne"),
        "config.json: quantization_config: quantization_mode",
        'did you mean "offline"',
    ),
    "use_rms_norm": (
        {},
        quant(use_rms_norm=True),
        "config.json: quantization_config: use_rms_norm",
        "train",
    ),
    "head converted": (
        {},
        quant(modules_to_not_convert=[]),
        "config.json: quantization_config: modules_to_not_convert",
        "does not list lm_head",
    ),
    "projection kept": (
        {},
        quant(modules_to_not_convert=["lm_head", "q_proj"]),
        "model.layers.0.self_attn.q_proj.weight",
        "stored as U8, but this tensor must hold floats",
    ),
    "gate kept and up not": (
        {"kept": ("lm_head", "model.layers.1.mlp.gate_proj")},
        lambda tiny: None,
        "layer 1",
        "one of gate_proj and up_proj is ternary and the other is not",
    ),
    "kept a pattern that hangs": (
        {},
        quant(modules_to_not_convert=["lm_head", "(a+)+b"]),
        "config.json: quantization_config: modules_to_not_convert",
        "is not a module name",
    ),
    "1bitLLM undeclared": (
        {"family": "bitnet_b1_58"},
        without("weight_bits"),
        "config.json: weight_bits",
        "is missing, so nothing says that the weights are ternary",
    ),
    "1bitLLM of other weights": (
        {"family": "bitnet_b1_58"},
        config(weight_bits=2),
        "config.json: weight_bits",
        "2 is not supported; bitnetc compiles ternary weights (weight_bits 1)",
    ),
    "1bitLLM of other activations": (
        {"family": "bitnet_b1_58"},
        config(input_bits=4),
        "config.json: input_bits",
        "4 is not supported",
    ),
    "1bitLLM of packed weights": (
        {"family": "bitnet_b1_58", "kv_heads": 4},
        tensor("model.layers.0.self_attn.q_proj.weight", "U8", (16, 64), bytes(1024)),
        "model.safetensors: model.layers.0.self_attn.q_proj.weight",
        "stored as U8, but weight_bits 1 without quantization_config needs float masters",
    ),
    "1bitLLM, a norm gone": (
        {"family": "bitnet_b1_58"},
        drop("model.layers.1.self_attn.inner_attn_ln.weight"),
        "tensor model.layers.1.self_attn.inner_attn_ln.weight",
        "is missing; download",
    ),
    "q_norm": (
        {"family": "llama-bitnet", "head_dim": 64},
        tensor(L0 + "self_attn.q_norm.weight", *BF16),
        "tensor model.layers.0.self_attn.k_norm.weight",
        "is missing",
    ),
    "projection norm": (
        {"family": "llama-bitnet"},
        tensor(L0 + "self_attn.q_proj.norm.weight", *BF16),
        "model.safetensors: model.layers.0.self_attn.q_proj.weight",
        "stored as U8",
    ),
    "projection rms_norm": (
        {},
        tensor(L0 + "self_attn.q_proj.rms_norm.weight", *BF16),
        '"model.layers.0.self_attn.q_proj.rms_norm.weight"',
        "use_rms_norm",
    ),
    "bias tensor": (
        {},
        tensor(L0 + "self_attn.q_proj.bias", *BF16),
        '"model.layers.0.self_attn.q_proj.bias"',
        "is a bias",
    ),
    "gemma norm": (
        {},
        tensor(L0 + "pre_feedforward_layernorm.weight", *BF16),
        '"model.layers.0.pre_feedforward_layernorm.weight"',
        "Gemma",
    ),
    "another architecture": (
        {},
        lambda tiny: [tiny.tensors.pop(name) for name in list(tiny.tensors) if "q_proj" in name]
        + [tiny.tensors.pop(name) for name in list(tiny.tensors) if "sub_norm" in name],
        "no tensor model.layers.0.self_attn.q_proj.weight",
        "",
    ),
    "sub-norms gone": (
        {},
        lambda tiny: [tiny.tensors.pop(name) for name in list(tiny.tensors) if "sub_norm" in name],
        "tensor model.layers.0.self_attn.attn_sub_norm.weight",
        "is missing, although config.json names the architecture",
    ),
    "one sub-norm gone": (
        {},
        drop("model.layers.1.mlp.ffn_sub_norm.weight"),
        "tensor model.layers.1.mlp.ffn_sub_norm.weight",
        "is missing; download",
    ),
    "weight gone": ({}, drop(Q), "tensor " + Q, "is missing; download"),
    "weight misspelt": (
        {},
        rename("model.norm.weight", "model.norn.weight"),
        "tensor model.norm.weight",
        'is missing; rename "model.norn.weight" if that is it',
    ),
    "scale gone": ({}, drop(Q + "_scale"), "tensor " + Q + "_scale", "is missing"),
    "head gone": (
        {"tied": False},
        drop("lm_head.weight"),
        "tensor lm_head.weight",
        "is missing; download the checkpoint again, or set tie_word_embeddings to true",
    ),
    "too few layers counted": (
        {}, config(num_hidden_layers=1), "config.json: num_hidden_layers", "holds \"model.layers.1."
    ),
    "too many layers counted": (
        {}, config(num_hidden_layers=3), "tensor model.layers.2.input_layernorm", "is missing"
    ),
    "packed shape": (
        {},
        tensor(Q, "U8", (64, 16), bytes(1024)),
        "model.safetensors: " + Q,
        "has shape [64, 16]; config.json asks for [16, 64] for 64 packed rows",
    ),
    "norm shape": (
        {}, tensor(NORM, "BF16", (32,), bytes(64)), "model.safetensors: " + NORM, "[32]"
    ),
    "embedding shape": (
        {}, config(vocab_size=321), "model.safetensors: model.embed_tokens.weight", "[320, 64]"
    ),
    "norm packed": (
        {}, tensor(NORM, "U8", (64,), bytes(64)), "model.safetensors: " + NORM, "stored as U8"
    ),
    "norm NaN": (
        {},
        tensor(NORM, "F32", (64,), f32(*[1.0] * 63, math.nan)),
        "model.safetensors: " + NORM,
        "value 63 is nan",
    ),
    "norm infinite": (
        {},
        tensor(NORM, "F32", (64,), f32(*[1.0] * 62, math.inf, 1.0)),
        "model.safetensors: " + NORM,
        "value 62 is inf",
    ),
    "scale zero": (
        {}, tensor(Q + "_scale", "F32", (1,), f32(0.0)), Q + "_scale", "value 0 is 0.0; a scale"
    ),
    "scale negative": (
        {}, tensor(Q + "_scale", "F32", (1,), f32(-1.0)), Q + "_scale", "value 0 is -1.0; a scale"
    ),
    "scale NaN": (
        {}, tensor(Q + "_scale", "F32", (1,), f32(math.nan)), Q + "_scale", "value 0 is nan"
    ),
    "scale whose reciprocal is infinite": (
        {"linear_class": "bitlinear"},
        tensor(Q + "_scale", "F32", (1,), f32(1e-40)),
        Q + "_scale",
        "a scale must be positive and finite",
    ),
    "scale per row, one zero": (
        {},
        tensor(Q + "_scale", "F32", (64,), f32(*[1.0] * 60, 0.0, 1.0, 1.0, 1.0)),
        Q + "_scale",
        "value 60 is 0.0",
    ),
    "scale shape": (
        {},
        tensor(Q + "_scale", "F32", (2,), f32(1, 1)),
        Q + "_scale",
        "has shape [2]; must be [1], or [64], one per row",
    ),
    "scale an integer": (
        {}, tensor(Q + "_scale", "U8", (1,), b"\1"), Q + "_scale", "stored as U8"
    ),
    "floats under bitlinear": (
        {"linear_class": "bitlinear"},
        tensor(Q, "BF16", (64, 64), bytes(8192)),
        "model.safetensors: " + Q,
        "stored as BF16, but linear_class bitlinear stores packed U8; for float masters set",
    ),
    "packed under online": (
        {}, quant(quantization_mode="online"), "model.safetensors: " + Q, "needs float masters"
    ),
    "masters NaN": (
        {"storage": "online"},
        tensor(Q, "F32", (64, 64), f32(*[math.nan] * 4096)),
        "model.safetensors: " + Q,
        "holds infinities or NaNs",
    ),
    "masters infinite": (
        {"storage": "online"},
        tensor(Q, "BF16", (64, 64), b"\x80\x7f" + bytes(8190)),
        "model.safetensors: " + Q,
        "holds infinities or NaNs",
    ),
    "code 3": ({}, damage_codes, "down_proj.weight: row 34, column 5", "holds code 3"),
    "masters under offline": (
        {"storage": "floats"},
        tensor(Q, "F32", (64, 64), f32(*[0.0] * 65, 0.5, *[0.0] * 4030)),
        "model.safetensors: " + Q + ": row 1, column 1",
        "0.5 is none of -1, 0, +1, which quantization_mode offline needs; set",
    ),
    "embedding NaN": (
        {},
        tensor("model.embed_tokens.weight", "BF16", (320, 64), bytes(40958) + b"\xc0\x7f"),
        "model.embed_tokens.weight: row 319, column 63",
        "not a number",
    ),
    "eos a text": (
        {},
        lambda tiny: tiny.generation_config.update(eos_token_id="</s>"),
        "generation_config.json: eos_token_id",
        'found "</s>"',
    ),
    "eos beyond the vocabulary": (
        {},
        lambda tiny: tiny.generation_config.update(eos_token_id=[1, 320]),
        "generation_config.json: eos_token_id",
        "below vocab_size, 320",
    ),
    "temperature negative": (
        {},
        lambda tiny: tiny.generation_config.update(do_sample=True, temperature=-1),
        "generation_config.json: temperature",
        "must be above 0",
    ),
    "top_p two": (
        {},
        lambda tiny: tiny.generation_config.update(do_sample=True, top_p=2),
        "generation_config.json: top_p",
        "at most 1",
    ),
    "no merges in the tokenizer": (
        {}, lambda tiny: tiny.tokenizer["model"].pop("merges"), "tokenizer.json", "merges"
    ),
}  # fmt: skip


def load_everything(model: Model) -> None:
    model.embedding.load()
    model.head.load()
    for block in model.blocks:
        for role in MATRICES:
            getattr(block, role).load()


@pytest.mark.parametrize("case", REFUSED)
def test_bad_checkpoints_are_refused_by_name(tmp_path: Path, case: str) -> None:
    options, damage, where, message = REFUSED[case]
    tiny = tiny_checkpoint(**options)
    damage(tiny)
    tiny.write(tmp_path)
    with pytest.raises(BitnetcError) as error:
        load_everything(normalise(read(tmp_path), "x"))
    text = str(error.value)
    assert text.startswith(str(tmp_path)), text
    assert where in text, text
    assert message in text, text
    assert error.value.hint or where == "tokenizer.json", f"no remedy: {text}"
    assert "\n" not in text and len(text) < 600, text


def test_missing_tokenizer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BitnetcError, match=r"tokenizer"):
        normalise(read(tmp_path), "x")


def test_config_mutations_give_one_kind_of_error(tmp_path: Path) -> None:
    """Every key of the config replaced by every kind of junk: a model or a BitnetcError."""
    tiny = tiny_checkpoint(layers=1)
    tiny.write(tmp_path)
    junk: list[Any] = [
        None, True, False, -1, 0, 1, 3, 2**70, -0.5, 1e308, math.inf, math.nan, "", "x\ny",
        "ä" * 999, [], [1], [None], {}, {"a": 1}, {"rope_type": 3}, {"type": []}, [[]],
        {"": {"": {}}},
    ]  # fmt: skip
    refused = 0
    for group in (tiny.config, tiny.config["quantization_config"], tiny.generation_config):
        keys = [
            *group,
            "head_dim",
            "rope_scaling",
            "rope_parameters",
            "sliding_window",
            "do_sample",
        ]
        for key in dict.fromkeys(keys):
            before = dict(group)
            for value in junk:
                group[key] = value
                (tmp_path / "config.json").write_text(json.dumps(tiny.config))
                (tmp_path / "generation_config.json").write_text(json.dumps(tiny.generation_config))
                try:
                    normalise(read(tmp_path), "x")
                except BitnetcError as error:
                    assert "\n" not in str(error) and len(str(error)) < 600
                    refused += 1
            group.clear()
            group.update(before)
    assert refused > 300
