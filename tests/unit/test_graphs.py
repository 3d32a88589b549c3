"""Checkpoints of other graphs than Llama's and BitNet's: what normalise makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    MODULES,
    VARIANTS,
    VARIANTS_EMBEDDING,
    VARIANTS_GRAPHS,
    VARIANTS_LEVELS,
    TinyCheckpoint,
    tiny_checkpoint,
)
from gguf_files import write_gguf

from bitnetc.checkpoint import read
from bitnetc.checkpoint.fields import Fields
from bitnetc.errors import BitnetcError
from bitnetc.families import LLAMA_BITNET
from bitnetc.model import Dense, Model, Shape, Ternary
from bitnetc.normalise import normalise
from bitnetc.reference import gelu_tanh
from bitnetc.ropes import frequencies, read_ropes

F32 = np.float32


def of(tmp_path: Path, name: str, **more: Any) -> tuple[Model, TinyCheckpoint]:
    tiny = tiny_checkpoint(**{**VARIANTS[name], **more})
    tiny.write(tmp_path / "model")
    return normalise(read(tmp_path / "model"), name), tiny


def stored(tiny: TinyCheckpoint, name: str) -> Any:
    dtype, shape, data = tiny.tensors[name]
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(F32).reshape(shape)
    return np.frombuffer(data, {"F16": np.float16, "F32": F32}[dtype]).reshape(shape).astype(F32)


@pytest.mark.parametrize("name", [*VARIANTS_GRAPHS, *VARIANTS_LEVELS, *VARIANTS_EMBEDDING])
def test_matrices(tmp_path: Path, name: str) -> None:
    model, tiny = of(tmp_path, name)
    assert model.family == VARIANTS[name]["family"]
    assert model.float_activations == (name in VARIANTS_LEVELS)
    top = "" if name in VARIANTS_EMBEDDING else "model."
    residual = 1.4 / np.sqrt(2) if name == "bitcpm" else 1
    for layer, block in enumerate(model.blocks):
        for role, suffix in MODULES.items():
            matrix = getattr(block, role)
            key = f"{top}layers.{layer}.{suffix}.weight"
            if isinstance(matrix, Dense):
                assert name.endswith("-kept") and key not in tiny.trits
                continue
            factor = F32(residual if role in ("wo", "w_down") else 1)
            assert np.array_equal(matrix.load(), tiny.trits[key])
            assert np.array_equal(matrix.scale, tiny.scales[key] * factor)
    for key, end in (("embed_tokens", model.embedding), ("lm_head", model.head)):
        if isinstance(end, Ternary):
            key = (
                "lm_head.weight"
                if key == "lm_head" and not model.tied
                else top + "embed_tokens.weight"
            )
            assert np.array_equal(end.load(), tiny.trits[key])
            assert np.array_equal(end.scale, tiny.scales[key])
    assert isinstance(model.head, Ternary) == name.startswith("bonsai")
    told = ("pooled by their mean", "stay floats")
    assert all(any(text in note for text in told) for note in model.notes), model.notes


def test_gemma_norms_hold_what_multiplies(tmp_path: Path) -> None:
    model, tiny = of(tmp_path, "embedding-gemma3")
    block, own = model.blocks[1], "layers.1."
    for role, name in {
        "attn_norm": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
    }.items():
        assert np.array_equal(getattr(block, role), 1 + stored(tiny, own + name + ".weight")), role
    # norms of projections are plain
    for role, name in {"wq_norm": "self_attn.q_proj", "ffn_sub_norm": "mlp.down_proj"}.items():
        assert np.array_equal(getattr(block, role), stored(tiny, f"{own}{name}.norm.weight")), role
    assert np.array_equal(model.final_norm, 1 + stored(tiny, "norm.weight"))
    assert model.embedding_scale == 8.0 and model.score_dim == 24
    assert model.ffn_activation == "gelu_tanh"
    assert [(b.rope, b.window) for b in model.blocks] == [(1, 8), (0, 0)]
    assert [rope.theta for rope in model.ropes] == [10000.0, 1000.0]


def test_minicpm_scales(tmp_path: Path) -> None:
    model, tiny = of(tmp_path, "bitcpm")
    assert model.embedding_scale == 12
    shrunk = stored(tiny, "model.norm.weight") * F32(32 / 128)
    assert np.array_equal(model.final_norm, shrunk)


def test_binary_weights_have_no_zeros(tmp_path: Path) -> None:
    model, _ = of(tmp_path, "bonsai-binary")
    matrix = model.blocks[0].wq
    assert isinstance(matrix, Ternary) and set(np.unique(matrix.load())) == {-1, 1}


def test_kept_modules_stay_floats(tmp_path: Path) -> None:
    model, tiny = of(tmp_path, "llama3-kept")
    first, second = model.blocks
    assert isinstance(first.wo, Dense) and isinstance(first.w_gate, Ternary)
    assert isinstance(second.wo, Ternary) and isinstance(second.w_gate, Dense)
    assert isinstance(second.w_down, Dense)
    assert second.w_down.load().tobytes() == tiny.tensors["model.layers.1.mlp.down_proj.weight"][2]


def test_float_weights_that_are_not_ternary_are_not_taken_for_it(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(family="trilm", kv_heads=4)
    random = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float16)
    tiny.tensors["model.layers.0.self_attn.q_proj.weight"] = ("F16", (64, 64), random.tobytes())
    tiny.write(tmp_path)
    with pytest.raises(BitnetcError, match="nothing says that the weights are ternary"):
        normalise(read(tmp_path), "x")


# Pooling.


@pytest.mark.parametrize("mode", ["lasttoken", "mean_tokens", "cls_token"])
def test_pooling_is_read(tmp_path: Path, mode: str) -> None:
    of(tmp_path, "embedding-qwen3")
    pooling_files(
        tmp_path / "model", {f"pooling_mode_{mode}": True, "word_embedding_dimension": 64}
    )
    model = normalise(read(tmp_path / "model"), "x")
    assert model.pooling == {"lasttoken": "last"}.get(mode, mode.partition("_")[0])
    assert not any("pooled" in note for note in model.notes)


def test_pooling_is_guessed_with_a_note(tmp_path: Path) -> None:
    model, _ = of(tmp_path, "embedding-qwen3")
    assert model.pooling == "mean" and any("pooled by their mean" in n for n in model.notes)


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (
            [{"type": "x.models.Dense", "path": "2_Dense"}],
            None,
            '"x.models.Dense" is not supported',
        ),
        ({}, None, "must be a list"),
        (None, {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens: is not supported"),
        (None, {"pooling_mode_cls_token": False}, "exactly one pooling must be true"),
        ([{"type": "x.Pooling", "path": "../up"}], None, "is no folder of the model"),
    ],
)
def test_bad_poolings(tmp_path: Path, modules: Any, pooling: Any, message: str) -> None:
    of(tmp_path, "embedding-qwen3")
    pooling_files(tmp_path / "model", pooling or {}, modules)
    with pytest.raises(BitnetcError, match=message):
        normalise(read(tmp_path / "model"), "x")


def pooling_files(folder: Path, mode: dict[str, Any], modules: Any = None) -> None:
    kind = "sentence_transformers.models."
    if modules is None:
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": kind + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": kind + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": kind + "Normalize"},
        ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(mode))


# Rotary embeddings, against transformers' own functions.

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    # Ternary-Bonsai-8B's
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16384},
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 0.9,
        "mscale_all_dim": 0.8,
        "beta_fast": 16,
        "beta_slow": 2,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + i / 64 for i in range(64)],
        "long_factor": [2.0] * 64,
        "original_max_position_embeddings": 65536,
    },
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_scaled_frequencies(kind: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    keys = {"rope_scaling": SCALINGS[kind], "rope_theta": 1e6, "max_position_embeddings": 65536}
    shape = Shape(1024, 3072, 2, 8, 8, 128, 1000, 65536)
    (rope,), _ = read_ropes(LLAMA_BITNET, Fields("config.json", keys), shape)
    if kind == "default":
        assert np.array_equal(rope.frequencies, frequencies(128, 1e6))
        return
    config = transformers.LlamaConfig(
        hidden_size=1024,
        num_attention_heads=8,
        max_position_embeddings=65536,
        rope_parameters={**SCALINGS[kind], "rope_theta": 1e6},
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[kind.partition("-")[0]](config, "cpu")
    assert np.allclose(rope.frequencies, theirs.numpy(), rtol=1e-6, atol=0)
    assert rope.factor == pytest.approx(factor)


def test_gelu() -> None:
    torch: Any = pytest.importorskip("torch")
    x = np.linspace(-20, 20, 4001, dtype=F32)
    x = np.concatenate([x, np.array([0, -0.0, 1e-30, -1e-30, 3e20, -3e20], F32)])
    theirs = torch.nn.functional.gelu(torch.tensor(x), approximate="tanh").numpy()
    assert np.allclose(gelu_tanh(x), theirs, rtol=3e-6, atol=1e-6)


# GGUF files of weight-only models, against the same model as a folder.


@pytest.mark.parametrize(
    ("name", "packing", "architecture"),
    [
        ("bonsai", "Q2_0", "qwen3"),
        ("bonsai-untied", "Q2_0", "qwen3"),
        ("trilm-groups", "Q2_0", "llama"),
    ],
)
def test_groups_of_gguf_files(tmp_path: Path, name: str, packing: str, architecture: str) -> None:
    options = VARIANTS.get(name, {"family": "trilm", "dim": 128, "ffn_dim": 256, "kv_heads": 2})
    tiny = tiny_checkpoint(**{**options, "scale_shape": "groups"})
    tiny.write(tmp_path / "model")
    folder = normalise(read(tmp_path / "model"), "x")
    write_gguf(tmp_path / "model.gguf", tiny, packing, architecture)
    ours = normalise(read(tmp_path / "model.gguf"), "x")
    assert ours.float_activations and ours.family == folder.family
    assert ours.ffn_activation == "silu" and ours.tied == folder.tied
    pairs = [(ours.embedding, folder.embedding), (ours.head, folder.head)]
    for mine, theirs in zip(ours.blocks, folder.blocks, strict=True):
        pairs += [(getattr(mine, role), getattr(theirs, role)) for role in MODULES]
        assert (mine.q_norm is None) == (theirs.q_norm is None)
    for mine, theirs in pairs:
        assert type(mine) is type(theirs)
        assert np.array_equal(mine.load(), theirs.load())
        if isinstance(mine, Ternary) and isinstance(theirs, Ternary):
            assert np.array_equal(mine.scale, theirs.scale)
