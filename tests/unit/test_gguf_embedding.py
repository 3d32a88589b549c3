"""GGUF files of the embedding models give what their folders give, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS_EMBEDDING
from gguf_embedding import embedding_checkpoint, write_embedding
from gguf_files import gguf_tensors, value

from bitnetc.checkpoint import read
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.normalise import normalise
from bitnetc.reference import Reference

TOKENS = [3, 77, 200, 5, 19, 4, 8, 100, 31, 7, 6]
POOLINGS = {1: "mean", 2: "cls", 3: "last"}


def check_same(ours: Model, theirs: Model) -> None:
    assert (ours.family, ours.shape) == (theirs.family, theirs.shape)
    assert ours.ffn_activation == theirs.ffn_activation
    assert ours.embedding_scale == theirs.embedding_scale
    assert not ours.float_activations and ours.tied
    one, other = Reference(ours), Reference(theirs)
    logits, expected = one.logits(TOKENS), other.logits(TOKENS)
    assert np.isfinite(expected).all() and expected.std() > 0.1
    assert np.array_equal(logits.view(np.uint32), expected.view(np.uint32))
    for pooling in ("mean", "last"):
        vector, wanted = (r.embed(TOKENS, pooling) for r in (one, other))  # type: ignore[arg-type]
        assert np.array_equal(vector.view(np.uint32), wanted.view(np.uint32))


@pytest.mark.parametrize("packing", ["I2_S", "TQ2_0", "floats"])
@pytest.mark.parametrize("name", VARIANTS_EMBEDDING)
def test_a_gguf_file_is_the_folder(tmp_path: Path, name: str, packing: str) -> None:
    wide = {"dim": 256, "ffn_dim": 256, "heads": 8} if packing == "TQ2_0" else {}
    tiny = embedding_checkpoint(name, **wide)
    for key in tiny.scales if packing == "TQ2_0" else ():  # whose scales are float16
        masters = quarter_mean(tiny.trits[key])
        tiny.tensors[key] = ("F16", masters.shape, masters.tobytes())
        tiny.trits[key] = np.sign(masters).astype(np.int8)
        tiny.scales[key] = np.array([0.25], np.float32)
    tiny.write(tmp_path / "folder")
    write_embedding(tmp_path / "a.gguf", tiny, packing)
    ours, theirs = (normalise(read(tmp_path / p), "x") for p in ("a.gguf", "folder"))
    check_same(ours, theirs)
    assert ours.pooling == "mean" and not any("pooled" in note for note in ours.notes)
    if name.endswith("qwen3"):
        eos = tiny.config["eos_token_id"]
        assert (ours.tokenizer.prefix, ours.tokenizer.suffix) == ((), (eos,))


def quarter_mean(trits: Any) -> Any:
    """float16 masters of magnitude 1/2 or 0, half of each: their mean magnitude is 1/4."""
    half = np.zeros(trits.size, np.float16)
    half[::2] = np.where(trits.reshape(-1)[::2] < 0, -0.5, 0.5)
    return np.random.default_rng(trits.size).permutation(half).reshape(trits.shape)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, None, 4])
def test_pooling(tmp_path: Path, kind: int | None) -> None:
    tiny = embedding_checkpoint("embedding-qwen3")
    write_embedding(tmp_path / "a.gguf", tiny, metadata={"qwen3.pooling_type": kind})
    if kind == 4:
        with pytest.raises(BitnetcError, match=r"qwen3\.pooling_type: 4 is not supported"):
            normalise(read(tmp_path / "a.gguf"), "x")
        return
    model = normalise(read(tmp_path / "a.gguf"), "x")
    assert model.pooling == POOLINGS.get(kind or 1)
    assert any("names no pooling" in note for note in model.notes) == (kind in (0, None))


def test_windows_of_gemma(tmp_path: Path) -> None:
    """From the file, else from config.json beside it, else none, with a note."""
    tiny = embedding_checkpoint("embedding-gemma3")
    tiny.write(tmp_path / "folder")
    folder = normalise(read(tmp_path / "folder"), "x")
    assert [block.window for block in folder.blocks] == [8, 0]
    keys = ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa")
    none = {f"gemma3.{key}": None for key in keys}
    write_embedding(tmp_path / "a.gguf", tiny, metadata=none)
    model = normalise(read(tmp_path / "a.gguf"), "x")
    assert [block.window for block in model.blocks] == [0, 0] and len(model.ropes) == 1
    assert any("every layer sees every position" in note for note in model.notes)
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    model = normalise(read(tmp_path / "a.gguf"), "x")
    assert not any("every layer sees" in note for note in model.notes)
    check_same(model, folder)


GEMMA, QWEN = "embedding-gemma3", "embedding-qwen3"
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "norm missing": (
        QWEN,
        {},
        {"blk.1.attn_k_norm_in.weight": None},
        "tensor blk.1.attn_k_norm_in.weight: is missing",
    ),
    "Gemma without norms inside": (
        GEMMA,
        {},
        {f"blk.{i}.attn_q_norm_in.weight": None for i in range(2)},
        "tensor blk.0.attn_q_norm_in.weight: is missing",
    ),
    "Qwen's norms under gemma3": (
        GEMMA,
        {},
        {f"blk.{i}.post_{n}_norm.weight": None for i in range(2) for n in ("attention", "ffw")},
        'general.architecture: "gemma3", but the tensors are those of family bitnet-embedding-q',
    ),
    "Gemma's norms under qwen3": (
        QWEN,
        {},
        {"blk.0.post_ffw_norm.weight": ("F16", (64,), bytes(128))},
        'general.architecture: "qwen3", but the tensors are those of family bitnet-embedding-g',
    ),
    "window a text": (
        GEMMA, {"gemma3.attention.sliding_window": "x"}, {}, "sliding_window: must be a whole"
    ),
    "windows by layer": (
        GEMMA,
        {"gemma3.attention.sliding_window_pattern": [1, 0]},
        {},
        "sliding_window_pattern: must be a whole number",
    ),
    "rope huge": (
        GEMMA, {"gemma3.rope.freq_base_swa": 1e30}, {}, "rope.freq_base_swa: must be above 1"
    ),
    "layers huge": (
        GEMMA, {"gemma3.block_count": value(10, 1 << 50)}, {}, "block_count: must be from 1"
    ),
    "softcap": (
        GEMMA, {"gemma3.final_logit_softcapping": 30.0}, {}, "softcapping: 30.0 is not supported"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    name, metadata, tensors, message = REFUSED[case]
    tiny = embedding_checkpoint(name)
    write_embedding(tmp_path / "a.gguf", tiny, metadata=metadata, tensors=tensors)
    with pytest.raises(BitnetcError) as caught:
        normalise(read(tmp_path / "a.gguf"), "x")
    assert message in str(caught.value)


def test_all_tensors_have_a_name() -> None:
    for name in VARIANTS_EMBEDDING:
        tiny = embedding_checkpoint(name)
        written = gguf_tensors(tiny, "I2_S", "gemma3" if name.endswith("gemma3") else "qwen3")
        assert len(written) == len(tiny.tensors)
