"""A text decoder inside a larger checkpoint is the model that it is on its own; Qwen2 as GGUF."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS, TinyCheckpoint, tiny_checkpoint
from gguf_files import write_gguf

from bitnetc.checkpoint import read
from bitnetc.compiler import load
from bitnetc.convert import convert
from bitnetc.errors import BitnetcError
from bitnetc.inspect import inspect
from bitnetc.model import Model
from bitnetc.normalise import normalise
from bitnetc.reference import Reference

TOKENS = [3, 77, 200, 5, 19, 4, 8, 100]
AROUND = {
    "model.acoustic_tokenizer.encoder.stages.0.0.mixer.conv.weight": ("F32", (2,), bytes(8)),
    "model.acoustic_tokenizer.encoder.norm.weight": ("F32", (2,), bytes(8)),
    "model.acoustic_connector.fc1.bias": ("BF16", (2,), bytes(4)),
    "vision_tower.patch.weight": ("F32", (1,), bytes(4)),
}
ONLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


def qwen2(**more: Any) -> TinyCheckpoint:
    return tiny_checkpoint(**{**VARIANTS["qwen2"], **more})


def larger(tiny: TinyCheckpoint, names: str, nested: str) -> TinyCheckpoint:
    """The same model inside of another. names: how its tensors are called."""
    for name in list(tiny.tensors):
        own = {
            "model.language_model": name.replace("model.", "model.language_model.", 1),
            "language_model.model": "language_model." + name,
            "language_model": name.replace("model.", "language_model.", 1),
        }[names]
        tiny.tensors[own] = tiny.tensors.pop(name)
    tiny.tensors.update(AROUND)
    config = dict(tiny.config)
    shared = {k: config.pop(k) for k in ("quantization_config", "eos_token_id") if k in config}
    tiny.config.clear()
    tiny.config.update(
        {
            "architectures": ["VibeVoiceForASRTraining"],
            "model_type": "vibevoice",
            "acoustic_vae_dim": 64,
            "acoustic_tokenizer_config": {"hidden_size": 5},
            nested: config,
            **shared,
        }
    )
    return tiny


def check_same(ours: Model, theirs: Model) -> None:
    assert (ours.family, ours.shape, ours.eos) == (theirs.family, theirs.shape, theirs.eos)
    assert ours.tied == theirs.tied
    assert ours.blocks[0].wq_bias is not None
    logits, wanted = (Reference(model).logits(TOKENS) for model in (ours, theirs))
    assert np.isfinite(wanted).all() and wanted.std() > 0.1
    assert np.array_equal(logits.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize(
    ("names", "nested", "tied"),
    [
        ("model.language_model", "decoder_config", True),
        ("model.language_model", "text_config", False),
        ("language_model.model", "text_config", False),
        ("language_model", "language_config", True),
    ],
)
def test_a_decoder_is_the_model_alone(tmp_path: Path, names: str, nested: str, tied: bool) -> None:
    qwen2(tied=tied).write(tmp_path / "alone")
    larger(qwen2(tied=tied), names, nested).write(tmp_path / "inside")
    ours, theirs = (normalise(read(tmp_path / p), "x") for p in ("inside", "alone"))
    check_same(ours, theirs)
    (note,) = [note for note in ours.notes if note not in theirs.notes]
    assert note.startswith("the model is the text decoder below ")
    assert "4 tensors are left out: model.acoustic_tokenizer (2), model.acoustic_conn" in note
    assert "vision_tower (1)" in note


def test_masters_inside_are_quantised_where_the_config_says_so(tmp_path: Path) -> None:
    """VibeVoice-ASR-BitNet's folder: float32 masters; nothing says so until a person does."""
    options = {"linear_class": "autobitlinear", "storage": "online", "dtype": "f32", "tied": True}
    qwen2(**options).write(tmp_path / "alone")
    tiny = larger(qwen2(**options), "model.language_model", "decoder_config")
    del tiny.config["quantization_config"]
    tiny.write(tmp_path / "inside")
    with pytest.raises(BitnetcError, match=r"decoder_config: quantization_config: is missing.*add"):
        normalise(read(tmp_path / "inside"), "x")
    path = tmp_path / "inside" / "config.json"
    path.write_text(json.dumps({**tiny.config, "quantization_config": ONLINE}))
    ours, theirs = (normalise(read(tmp_path / p), "x") for p in ("inside", "alone"))
    check_same(ours, theirs)
    with pytest.raises(BitnetcError, match=r"--quantise absmean: config.json has quantization_co"):
        load(tmp_path / "inside", masters=True)
    tiny.write(tmp_path / "asked")
    asked = load(tmp_path / "asked", masters=True)
    check_same(asked, theirs)
    assert any("absolute mean" in note and "as asked" in note for note in asked.notes)
    seen = inspect(tmp_path / "asked", masters=True)
    assert seen.compiles and not inspect(tmp_path / "asked").compiles
    with pytest.raises(BitnetcError, match="has no room for wq_bias"):
        convert(tmp_path / "asked", tmp_path / "packed", masters=True)
    # the same as the decoder's GGUF file, which holds the embedding twice
    alone = qwen2(**options)
    head = alone.tensors["model.embed_tokens.weight"]
    pre = {"tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.add_bos_token": False}
    file = tmp_path / "gguf" / "a.gguf"
    file.parent.mkdir()
    write_gguf(file, alone, "I2_S", "qwen2", pre, {"output.weight": head})
    (file.parent / "config.json").write_text(path.read_text())
    model = normalise(read(file), "x")
    assert not model.tied and not any("another model" in note for note in model.notes)
    logits, wanted = (Reference(m).logits(TOKENS) for m in (model, theirs))
    assert np.array_equal(logits, wanted)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_biases_of_gguf_files(tmp_path: Path, architecture: str) -> None:
    """llama.cpp turns neighbours under `llama`, so rows and biases stand in another order there."""
    options = {"linear_class": "autobitlinear", "dim": 64, "ffn_dim": 128}
    tiny = qwen2(**options)
    tiny.write(tmp_path / "folder")
    write_gguf(tmp_path / "a.gguf", tiny, "I2_S", architecture)
    ours, theirs = (normalise(read(tmp_path / p), "x") for p in ("a.gguf", "folder"))
    for block, other in zip(ours.blocks, theirs.blocks, strict=True):
        for role in ("wq", "wk", "wv"):
            scale = getattr(other, role).scale
            bias = getattr(block, role + "_bias") * scale  # AutoBitLinear multiplies it, too
            assert np.array_equal(bias, getattr(other, role + "_bias"))
    assert ours.family == theirs.family and not ours.float_activations


def test_half_of_the_biases_is_refused(tmp_path: Path) -> None:
    tiny = qwen2()
    missing = {f"blk.{i}.attn_k.bias": None for i in range(2)}
    write_gguf(tmp_path / "a.gguf", tiny, "I2_S", "qwen2", tensors=missing)
    with pytest.raises(BitnetcError, match=r"attn_q\.bias.*is a bias"):
        normalise(read(tmp_path / "a.gguf"), "x")
    write_gguf(tmp_path / "a.gguf", tiny, "I2_S", "qwen2", tensors={"blk.1.attn_k.bias": None})
    with pytest.raises(BitnetcError, match=r"blk\.1\.attn_k\.bias: is missing"):
        normalise(read(tmp_path / "a.gguf"), "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "x"}, "decoder_config: hidden_size: must be a whole number"),
        (
            {"num_hidden_layers": 1},
            'num_hidden_layers: 1, but the checkpoint holds "model.layers.1',
        ),
        ({"rope_scaling": {"type": "mrope"}}, '"mrope" is not supported'),
        ({"attention_bias": 3}, "attention_bias: 3 is not supported"),
    ],
)
def test_bad_decoders(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tiny = larger(qwen2(), "model.language_model", "decoder_config")
    tiny.config["decoder_config"] |= change
    tiny.write(tmp_path)
    with pytest.raises(BitnetcError) as caught:
        normalise(read(tmp_path), "x")
    assert message in str(caught.value)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    tiny = larger(qwen2(), "language_model", "decoder_config")
    name = "language_model.layers.0.input_layernorm.weight"
    tiny.tensors[name.replace(".", ".model.", 1)] = tiny.tensors[name]
    tiny.write(tmp_path)
    with pytest.raises(BitnetcError, match=r"is another model\.layers\.0\.input_layernorm"):
        read(tmp_path)
