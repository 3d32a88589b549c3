"""GGUF files give the same model as the folder they were made from; bad ones are refused by name.

As a script, `PYTHONPATH=tests python tests/unit/test_gguf.py 50000` mutates that many files.
"""

import json
import random
import struct
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import EOS, TinyCheckpoint, pack, rounded, special_ids, tiny_checkpoint
from gguf_files import (
    ARRAY,
    BOOL,
    F32,
    I32,
    PACK,
    TEXT,
    U8,
    U16,
    U64,
    gguf_bytes,
    gguf_metadata,
    gguf_name,
    gguf_tensors,
    sentencepiece_metadata,
    text,
    value,
    write_gguf,
)
from numpy.typing import NDArray

from bitnetc.checkpoint import gguf, read
from bitnetc.checkpoint.ggml_types import BLOCKS, PACKINGS, WIDENED, NoTrit
from bitnetc.errors import BitnetcError
from bitnetc.model import Model, to_float32
from bitnetc.normalise import normalise
from bitnetc.reference import Reference

ROLES = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
NORMS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")
TOKENS = [3, 77, 200, 5, 19]


# --- one model, written in every way -------------------------------------------------------------


def one_model(graph: str, form: str) -> TinyCheckpoint:
    """The same model for each form of a graph: half of each matrix is zero and scales are powers
    of two, so that every form can hold it exactly."""
    llama = graph == "llama"
    tiny = tiny_checkpoint(
        family="llama-bitnet" if llama else "bitnet",
        linear_class="bitlinear" if form == "bitlinear" else "autobitlinear",
        activation="silu",
        dim=256,
        ffn_dim=512,
        kv_heads=2,
        norm_eps=1e-5,
        seed=3,
    )
    chance = np.random.default_rng(4)
    for i, name in enumerate(tiny.trits):
        rows, cols = tiny.trits[name].shape
        half = np.zeros(rows * cols, np.int8)
        half[::2] = chance.choice(np.array([-1, 1], np.int8), len(half) // 2)
        tiny.trits[name] = chance.permutation(half).reshape(rows, cols)
        d = 2.0 ** -(3 + i % 4)
        tiny.scales[name] = np.array([d], np.float32)
        stored = 1 / d if form == "bitlinear" else d
        tiny.tensors[name + "_scale"] = ("BF16", (1,), rounded(np.array([stored]), "bf16")[0])
        if form in ("bitlinear", "autobitlinear"):
            packed = pack(tiny.trits[name])
            tiny.tensors[name] = ("U8", packed.shape, packed.tobytes())
        else:  # masters whose mean magnitude is d
            data, _ = rounded(tiny.trits[name] * (2 * d), "bf16")
            tiny.tensors[name] = ("BF16", (rows, cols), data)
            del tiny.tensors[name + "_scale"]
    if form == "online":
        tiny.config["quantization_config"]["quantization_mode"] = "online"
    if form == "1bitllm":
        del tiny.config["quantization_config"]
        tiny.config.update(model_type="llama", architectures=["BitnetForCausalLM"], weight_bits=1)
        for name in list(tiny.tensors):
            new = name.replace("self_attn.attn_sub_norm", "self_attn.inner_attn_ln")
            new = new.replace("mlp.ffn_sub_norm", "mlp.ffn_layernorm")
            tiny.tensors[new] = tiny.tensors.pop(name)
    return tiny


FOLDERS = {
    "bitnet": ("bitlinear", "autobitlinear", "online", "1bitllm"),
    "llama": ("bitlinear", "autobitlinear", "online"),
}
PACKED = ("I2_S", "I2_S (64)", "I2_S (rows4)", "TQ1_0", "TQ2_0", "IQ1_BN", "IQ2_BN", "IQ2_BN_R4")
GGUFS = [
    ("bitnet", "bitnet-b1.58", packing)
    for packing in (*PACKED, "Q2_0", "Q2_0 (128)", "PQ2_0", "PTQ1_0")
]
GGUFS += [("bitnet", "bitnet", "I2_S"), ("bitnet", "bitnet-25", "TQ2_0")]
GGUFS += [("llama", "llama", packing) for packing in ("I2_S", "I2_S (64)", "IQ1_BN", "IQ2_BN_R4")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    found = {}
    for graph in FOLDERS:
        folder = tmp_path_factory.mktemp(graph)
        one_model(graph, "autobitlinear").write(folder)
        found[graph] = normalise(read(folder), "x")
    return found


def check_same(ours: Model, original: Model) -> None:
    assert ours.shape == original.shape
    assert ours.ffn_activation == original.ffn_activation
    assert (ours.norm_eps, ours.rope_theta) == (original.norm_eps, original.rope_theta)
    assert ours.eos == original.eos
    assert ours.tied == original.tied
    for a, b in zip(ours.blocks, original.blocks, strict=True):
        for role in ROLES:
            one, other = getattr(a, role), getattr(b, role)
            assert np.array_equal(one.load(), other.load()), role
            assert np.array_equal(one.scale, other.scale), role
            assert one.scale.dtype == np.float32
        for role in NORMS:
            one, other = getattr(a, role), getattr(b, role)
            assert (one is None) == (other is None)
            assert one is None or np.array_equal(one, other)
    logits, expected = (Reference(m).logits(TOKENS) for m in (ours, original))
    assert np.isfinite(expected).all() and expected.std() > 0.1
    assert np.array_equal(logits, expected)
    one, other = ours.tokenizer, original.tokenizer
    assert one.pieces == other.pieces and one.prefix == other.prefix
    assert np.array_equal(one.merges, other.merges)
    assert one == type(one)(**{**one.__dict__, "merges": one.merges})  # comparable at all
    for key in one.__dict__:
        if key != "merges":
            assert getattr(one, key) == getattr(other, key), key


@pytest.mark.parametrize(
    ("graph", "form"), [(graph, form) for graph, forms in FOLDERS.items() for form in forms]
)
def test_every_folder_form_is_one_model(
    tmp_path: Path, originals: dict[str, Model], graph: str, form: str
) -> None:
    one_model(graph, form).write(tmp_path)
    check_same(normalise(read(tmp_path), "x"), originals[graph])


@pytest.mark.parametrize(("graph", "architecture", "packing"), GGUFS)
def test_every_gguf_form_is_one_model(
    tmp_path: Path, originals: dict[str, Model], graph: str, architecture: str, packing: str
) -> None:
    path = tmp_path / "tiny.gguf"
    tiny = one_model(graph, "autobitlinear")
    write_gguf(path, tiny, packing, architecture)
    layout: Any = {"I2_S (64)": "64", "I2_S (rows4)": "rows4"}.get(packing, "128")
    model = normalise(read(path, i2s_layout=layout), "x", ffn_activation="silu")
    assert model.family == ("bitnet" if graph == "bitnet" else "llama-bitnet")
    assert model.blocks[0].wq.scale.shape == (1,)
    check_same(model, originals[graph])
    assert model.sources[0].path == path


def test_mainline_scales_beside_bare_trits(tmp_path: Path, originals: dict[str, Model]) -> None:
    tiny = one_model("bitnet", "autobitlinear")
    extra: dict[str, Any] = {}
    for name in tiny.trits:
        scale = tiny.scales[name].tobytes()
        extra[gguf_name(name).removesuffix(".weight") + ".scale"] = ("F32", (1,), scale)
        tiny.scales[name] = np.ones(1, np.float32)
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny, "TQ1_0", "bitnet", tensors=extra)
    check_same(normalise(read(path), "x", ffn_activation="silu"), originals["bitnet"])


def test_1bitllm_as_gguf(tmp_path: Path) -> None:
    """Masters in the folder, trits in the file; SiLU by its SentencePiece vocabulary."""
    tiny = tiny_checkpoint(family="bitnet_b1_58", dim=192, ffn_dim=340, heads=2, kv_heads=2)
    tiny.write(tmp_path / "folder")
    changes = sentencepiece_metadata(320)
    write_gguf(tmp_path / "a.gguf", tiny, "I2_S", "bitnet", metadata=changes)
    ours, theirs = (normalise(read(tmp_path / name), "x") for name in ("a.gguf", "folder"))
    assert ours.ffn_activation == "silu" and ours.shape == theirs.shape
    assert any("SentencePiece" in note for note in ours.notes)
    assert np.array_equal(Reference(ours).logits(TOKENS), Reference(theirs).logits(TOKENS))
    assert ours.eos == (2,) and ours.tokenizer.prefix == (1,) and ours.tokenizer.vocab == 320


def test_scales_per_row_survive_the_permutation(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(family="llama-bitnet", per_row=True, dim=64, ffn_dim=128)
    tiny.write(tmp_path / "folder")
    write_gguf(tmp_path / "a.gguf", tiny, "IQ2_BN", "llama")
    ours, theirs = (
        normalise(read(tmp_path / name), "x").blocks[1] for name in ("a.gguf", "folder")
    )
    for role in ROLES:
        one, other = getattr(ours, role), getattr(theirs, role)
        assert len(one.scale) == one.rows
        assert np.array_equal(one.scale, other.scale) and np.array_equal(one.load(), other.load())


def test_an_untied_head(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", tiny_checkpoint(tied=False, ffn_dim=128))
    assert not normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="relu2").tied


def test_zero_scales_mean_zeros(tmp_path: Path) -> None:
    """Writers store scale 0 for a block of zeros; its codes then mean nothing."""
    tiny = one_model("bitnet", "autobitlinear")
    kind, shape, data = gguf_tensors(tiny, "TQ2_0", "bitnet")["blk.0.attn_q.weight"]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, 66).copy()
    blocks[5, 64:] = 0
    changed = {"blk.0.attn_q.weight": (kind, shape, blocks.tobytes())}
    write_gguf(tmp_path / "a.gguf", tiny, "TQ2_0", tensors=changed)
    wq = normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="silu").blocks[0].wq
    expected = tiny.trits["model.layers.0.self_attn.q_proj.weight"].copy()
    expected[5] = 0
    assert np.array_equal(wq.load(), expected)
    assert np.array_equal(wq.scale, tiny.scales["model.layers.0.self_attn.q_proj.weight"])


# --- golden bytes --------------------------------------------------------------------------------


def sparse(shape: tuple[int, int], **at: int) -> NDArray[np.int8]:
    trits = np.zeros(shape, np.int8)
    for place, trit in at.items():
        trits.reshape(-1)[int(place[1:])] = trit
    return trits


# packing -> (matrix, multiplier, bytes by position)
GOLDEN: dict[str, tuple[NDArray[np.int8], float, dict[int, int]]] = {
    "I2_S": (
        sparse((1, 128), e0=1, e1=-1, e32=-1, e64=1, e97=1),
        1.0,
        {0: 0x89, 1: 0x16, **{i: 0x55 for i in range(2, 32)}, 32: 0, 33: 0, 34: 0x80, 35: 0x3F},
    ),
    "TQ2_0": (
        sparse((1, 256), e0=1, e32=-1, e64=1),
        1.0,
        {0: 0x62, 1: 0x55, 64: 0x00, 65: 0x3C},
    ),
    "TQ1_0": (
        sparse((1, 256), e0=1, e32=-1, e64=1),
        1.0,
        {0: 0xC2, 1: 0x80, 48: 0x7F, 52: 0x00, 53: 0x3C},
    ),
    "IQ1_BN": (sparse((1, 64), e0=1, e1=-1), 1.0, {0: 0x00, 1: 0x3C, 2: 0x7E, 3: 0x80}),
    "Q2_0": (sparse((1, 64), e0=1, e1=-1, e3=1), 1.0, {0: 0, 1: 0x3C, 2: 0x92, 3: 0x55}),
    "PQ2_0": (sparse((1, 128), e0=1, e1=-1, e3=1), 1.0, {0: 0, 1: 0x3C, 2: 0x92, 3: 0x55}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_published_examples(name: str) -> None:
    trits, d, expected = GOLDEN[name]
    data = PACK[name](trits, np.array([d], np.float32))
    assert {i: data[i] for i in expected} == expected
    raw = np.frombuffer(data, np.uint8)
    assert PACKINGS[name].size(*trits.shape) == len(data)
    assert np.array_equal(PACKINGS[name].decode(raw, *trits.shape), trits)
    assert PACKINGS[name].scales(raw, *trits.shape).reshape(-1).tolist() == [d]


SHAPES = [(4, 256), (8, 512), (12, 768), (256, 1024)]


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_packing_round_trips(name: str, shape: tuple[int, int]) -> None:
    chance = np.random.default_rng(len(name))
    trits = chance.integers(-1, 2, shape).astype(np.int8)
    if name == "Q1_0":
        trits[trits == 0] = 1
    rows = shape[0] if name.startswith("IQ") else 1
    scales = chance.choice(np.array([0.5, 0.25, 1.5], np.float32), rows)
    data = PACK[name](trits, scales)
    raw = np.frombuffer(data, np.uint8)
    packing = PACKINGS[name]
    assert not packing.misfit(*shape)
    assert packing.size(*shape) == len(data)
    assert np.array_equal(packing.decode(raw, *shape), trits)
    found = packing.scales(raw, *shape)
    assert np.array_equal(np.broadcast_to(found, (shape[0], found.shape[1]))[:, 0] * np.ones(
        shape[0], np.float32), np.broadcast_to(scales, shape[0]))  # fmt: skip


def test_blocks_of_i2_s_straddle_rows() -> None:
    """1bitLLM-xl: 5460 columns are no whole blocks, 32 rows of them are."""
    trits = np.random.default_rng(0).integers(-1, 2, (32, 5460)).astype(np.int8)
    raw = np.frombuffer(PACK["I2_S"](trits, np.ones(1, np.float32)), np.uint8)
    assert np.array_equal(PACKINGS["I2_S"].decode(raw, *trits.shape), trits)
    assert PACKINGS["I2_S"].misfit(31, 5460)


@pytest.mark.parametrize("name", [n for n in PACKINGS if n.startswith(("I2", "TQ2", "IQ2", "Q2"))])
def test_code_3_is_no_trit(name: str) -> None:
    data = bytearray(PACK[name](np.zeros((4, 256), np.int8), np.ones(1, np.float32)))
    at = next(i for i in range(len(data) // 2, len(data)) if data[i] == 0x55)
    data[at] |= 0xC0
    with pytest.raises(NoTrit):
        PACKINGS[name].decode(np.frombuffer(bytes(data), np.uint8), 4, 256)


def test_tq_types_agree_with_the_gguf_package() -> None:
    quants: Any = pytest.importorskip("gguf.quants")
    from gguf import GGMLQuantizationType

    trits = np.random.default_rng(0).integers(-1, 2, (8, 768)).astype(np.int8)
    for name in ("TQ1_0", "TQ2_0"):
        kind = GGMLQuantizationType[name]
        data = quants.quantize(trits.astype(np.float32) * 0.5, kind)
        assert data.tobytes() == PACK[name](trits, np.array([0.5], np.float32))


# Where types have their float16 values, if not at 0 only.
SCALES_AT = {
    **dict.fromkeys(["Q4_K", "Q5_K", "Q4_1", "Q5_1"], (0, 2)), "Q6_K": (208,), "Q2_K": (80, 82)
}  # fmt: skip


@pytest.mark.parametrize("name", WIDENED)
def test_float_types_widen_as_in_the_gguf_package(name: str) -> None:
    quants: Any = pytest.importorskip("gguf.quants")
    from gguf import GGMLQuantizationType

    widened = WIDENED[name]
    chance = np.random.default_rng(1)
    raw = chance.integers(0, 256, (600, widened.block.bytes), dtype=np.uint8)
    for at in SCALES_AT.get(name, (0,)):
        scales = (chance.standard_normal(600) / 9).astype(np.float16)
        raw[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    theirs = quants.dequantize(raw, GGMLQuantizationType[name])
    ours = widened.load(raw.reshape(-1), 600, widened.block.count)
    assert np.array_equal(ours, theirs)


def test_sizes_agree_with_the_gguf_package() -> None:
    constants: Any = pytest.importorskip("gguf.constants")
    for number, block in BLOCKS.items():
        kind = constants.GGMLQuantizationType(number)
        assert kind.name == block.name
        assert constants.GGML_QUANT_SIZES[kind] == (block.count, block.bytes)


@pytest.mark.parametrize("name", [*WIDENED, "F16", "F32", "BF16"])
def test_embeddings_of_every_type(tmp_path: Path, name: str) -> None:
    tiny = one_model("bitnet", "autobitlinear")
    values = np.random.default_rng(0).standard_normal((320, 256)).astype(np.float32)
    if name in WIDENED:
        raw = np.frombuffer(np.random.default_rng(1).bytes(2 * 320 * 256), np.uint8)
        block = WIDENED[name].block
        raw = raw[: block.size(320, 256)].reshape(-1, block.bytes).copy()
        for at in SCALES_AT.get(name, (0,)):
            raw[:, at : at + 2] = np.array([0.01], np.float16).view(np.uint8)
        data = raw.tobytes()
        values = WIDENED[name].load(raw.reshape(-1), 320, 256)
    else:
        data, values = rounded(values, name.lower())  # type: ignore[arg-type]
    changed = {"token_embd.weight": (name, (320, 256), data)}
    write_gguf(tmp_path / "a.gguf", tiny, tensors=changed)
    model = normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="silu")
    assert model.embedding.dtype == ("f32" if name in WIDENED else name.lower())
    loaded = to_float32(model.embedding.load(), model.embedding.dtype)
    assert np.array_equal(loaded, values)
    assert any("widened" in note for note in model.notes) == (name in WIDENED)


# --- what a file does not say --------------------------------------------------------------------


def activation_of(tmp_path: Path, **changes: Any) -> str:
    """The activation taken for 2B-4T's metadata, changed."""
    tiny = tiny_checkpoint(ffn_dim=128)
    path = tmp_path / "a.gguf"
    architecture = changes.pop("architecture", "bitnet-b1.58")
    write_gguf(path, tiny, architecture=architecture, metadata=changes)
    return str(read(path).config.get("hidden_act"))


def test_the_relu2_trap(tmp_path: Path) -> None:
    """One architecture name, two activations: the vocabulary tells 2B-4T from 1bitLLM."""
    many = [f"t{i}" for i in range(128256)]
    llama3: dict[str, Any] = {
        "tokenizer.ggml.tokens": many,
        "tokenizer.ggml.token_type": None,
        "bitnet-b1.58.vocab_size": 128256,
    }
    assert activation_of(tmp_path, **llama3) == "relu2"
    pieces: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "bitnet-b1.58.attention.head_count_kv": 4,
    }
    assert activation_of(tmp_path, **pieces) == "silu"
    assert activation_of(tmp_path) == "None"  # neither: a small vocabulary
    (tmp_path / "tokenizer.json").write_text("{}")
    assert activation_of(tmp_path, **{**llama3, "tokenizer.ggml.pre": "qwen2"}) == "None"


def test_nothing_tells_the_activation(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, tiny_checkpoint(ffn_dim=128))
    with pytest.raises(BitnetcError, match=r"activation: is not in the file.*--ffn-activation"):
        normalise(read(path), "x")
    model = normalise(read(path), "x", ffn_activation="relu2")
    assert "the feed-forward activation is taken as relu2, as asked" in model.notes


def test_config_beside_the_file(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(ffn_dim=128, generation_config={"do_sample": True, "eos_token_id": [7]})
    path = tmp_path / "a.gguf"
    write_gguf(path, tiny)
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    (tmp_path / "generation_config.json").write_text(json.dumps(tiny.generation_config))
    model = normalise(read(path), "x")
    assert model.ffn_activation == "relu2" and model.eos == (7,)
    assert model.sampling.temperature == 1.0
    assert {s.path.name for s in model.sources} == {
        "a.gguf",
        "config.json",
        "generation_config.json",
    }
    assert any("config.json beside the file says so" in note for note in model.notes)
    (tmp_path / "config.json").write_text(json.dumps({**tiny.config, "hidden_size": 128}))
    with pytest.raises(BitnetcError, match="--ffn-activation"):
        normalise(read(path), "x")
    assert any("describes another model" in note for note in read(path).notes)


def test_activation_of_a_folder_can_be_overridden(tmp_path: Path) -> None:
    tiny_checkpoint().write(tmp_path)
    model = normalise(read(tmp_path), "x", ffn_activation="silu")
    assert model.ffn_activation == "silu"
    assert any("silu, as asked" in note for note in model.notes)
    assert normalise(read(tmp_path), "x", ffn_activation="relu2").notes == ()


def test_weight_only_models_are_not_quantised_in_silence(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(family="llama-bitnet", dim=256, ffn_dim=512)
    for name in tiny.scales:
        tiny.scales[name] = np.array([0.5], np.float32)
    path = tmp_path / "a.gguf"
    for packing in ("TQ1_0", "TQ2_0", "Q2_0", "PQ2_0", "PTQ1_0"):
        write_gguf(path, tiny, packing, "llama")
        assert "such as TriLM and Bonsai are stored" in read(path).weight_only
        model = normalise(read(path), "x")
        assert model.float_activations and any("stay floats" in note for note in model.notes)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    write_gguf(path, tiny, "TQ2_0", "llama", {"tokenizer.ggml.pre": "falcon3"})
    assert any("Falcon" in note for note in read(path).notes)
    write_gguf(path, tiny, "TQ2_0", "llama")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    model = normalise(read(path), "x")
    assert not model.float_activations
    assert any("int8 per token: config.json" in note for note in model.notes)


def test_bonsai_as_gguf(tmp_path: Path) -> None:
    """Qwen3's graph with scales per group, ternary and binary; its vocabulary by name."""
    for packing, zeros in (("Q2_0", 0.4), ("PQ2_0", 0.4), ("Q2_0 (128)", 0.4), ("Q1_0", 0.0)):
        options = {"family": "ternary-bonsai", "dim": 128, "ffn_dim": 256, "kv_heads": 2}
        tiny = tiny_checkpoint(**options, zeros=zeros, tied=False)
        for name, trits in tiny.trits.items() if packing != "Q2_0" else ():
            scales = tiny.scales[name][:, ::2]  # of groups twice as wide
            dtype, shape, _ = tiny.tensors[name]
            values = trits * np.repeat(scales, 128, axis=1)
            tiny.tensors[name] = (dtype, shape, rounded(values, dtype.lower())[0])
            tiny.scales[name] = scales
        tiny.write(tmp_path / packing)
        path = tmp_path / f"{packing}.gguf"
        width = {"qwen3.attention.key_length": 32, "qwen3.attention.value_length": 32}
        pre = {"tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.add_bos_token": None}
        write_gguf(path, tiny, packing, "qwen3", {**width, **pre})
        ours, theirs = (normalise(read(p), "x") for p in (path, tmp_path / packing))
        assert (ours.family, ours.float_activations) == (theirs.family, True)
        for a, b in zip(ours.blocks, theirs.blocks, strict=True):
            for role in ROLES:
                assert np.array_equal(getattr(a, role).scale, getattr(b, role).scale)
        assert np.array_equal(Reference(ours).logits(TOKENS), Reference(theirs).logits(TOKENS))
        t = ours.tokenizer
        assert (t.max_digits, t.nfc, t.ignore_merges, t.prefix) == (1, True, False, ())


def test_binary_weights_are_trits_without_zeros(tmp_path: Path) -> None:
    tiny = one_model("bitnet", "autobitlinear")
    for trits in tiny.trits.values():
        trits[trits == 0] = -1
    write_gguf(tmp_path / "a.gguf", tiny, "Q1_0", "bitnet")
    model = normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="silu")
    expected = tiny.trits["model.layers.1.mlp.up_proj.weight"]
    assert np.array_equal(model.blocks[1].w_up.load(), expected)


# --- the vocabulary ------------------------------------------------------------------------------


def test_end_tokens(tmp_path: Path) -> None:
    ids = special_ids(320)
    write_gguf(tmp_path / "a.gguf", tiny_checkpoint(ffn_dim=128))
    model = normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="relu2")
    assert model.eos == (ids[EOS], ids["<|eot_id|>"])


def test_bos_and_eos_around_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    ids = special_ids(320)
    bos, eos = ids["<|begin_of_text|>"], ids[EOS]
    for add_bos, add_eos, expected in (
        (None, None, ((bos,), ())),
        (False, None, ((), ())),
        (True, True, ((bos,), (eos,))),
    ):
        changes = {
            "tokenizer.ggml.add_bos_token": add_bos,
            "tokenizer.ggml.add_eos_token": add_eos,
        }
        write_gguf(path, tiny_checkpoint(ffn_dim=128), metadata=changes)
        tokenizer = read(path).tokenizer()
        assert (tokenizer.prefix, tokenizer.suffix) == expected


def test_other_vocabularies_come_from_beside_the_file(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(ffn_dim=128)
    path = tmp_path / "a.gguf"
    for changes, message in (
        ({"tokenizer.ggml.pre": "falcon3"}, r'pre: "falcon3" is not supported.*tokenizer.json'),
        ({"tokenizer.ggml.pre": None}, r"pre: is missing"),
        ({"tokenizer.ggml.model": "bert"}, r'model: "bert" is not supported'),
    ):
        write_gguf(path, tiny, metadata=changes)
        with pytest.raises(BitnetcError, match=message):
            read(path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    assert read(path).tokenizer().vocab == 320
    assert [s.path.name for s in read(path).sources] == ["tokenizer.json", "a.gguf"]
    big = tiny_checkpoint(vocab=330).tokenizer
    (tmp_path / "tokenizer.json").write_text(json.dumps(big))
    with pytest.raises(BitnetcError, match="has 330 pieces"):
        read(path).tokenizer()


# --- refusals of the container -------------------------------------------------------------------

ONE: dict[str, Any] = {"w": ("F32", (2, 3), bytes(24))}


def header(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def info(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    out = text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    return out + struct.pack("<IQ", kind, offset)


def filled(data: bytes, *infos: bytes) -> bytes:
    head = header(len(infos), 0, b"".join(infos))
    return head + bytes(-len(head) % 32) + data


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "three bytes": (b"GGU", "needs 4 bytes"),
    "magic": (b"GGML" + bytes(40), "does not begin with GGUF"),
    "only magic": (b"GGUF", "version: needs 4 bytes, of which the file has 0"),
    "version 1": (header(0, 0, version=1), "version: version 1, not supported"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version: big-endian"),
    "tensors huge": (header(1 << 63, 0), "number of tensors: 9223372036854775808, more than"),
    "keys huge": (header(0, 1 << 40), "number of keys: 1099511627776, more than"),
    "keys missing": (header(0, 3), "key 0: needs 8 bytes"),
    "key huge": (header(0, 1, struct.pack("<Q", 1 << 62)), "key 0: 4611686018427387904 bytes"),
    "key cut": (header(0, 1, struct.pack("<Q", 9) + b"abc"), "key 0: needs 9 bytes"),
    "key not UTF-8": (header(0, 1, text(b"\xff") + value(U8, 1)), "key 0: is not UTF-8"),
    "key twice": (header(0, 2, 2 * (text("a") + value(U8, 1))), "a: appears twice"),
    "type unknown": (header(0, 1, text("a") + struct.pack("<I", 13)), "a: unknown type 13"),
    "bool 2": (header(0, 1, text("a") + value(BOOL, 1)[:4] + b"\2"), "a: 2 is neither"),
    "text huge": (
        header(0, 1, text("a") + struct.pack("<IQ", TEXT, 1 << 60)),
        "a: 1152921504606846976 bytes long",
    ),
    "array huge": (
        header(0, 1, text("a") + struct.pack("<IIQ", ARRAY, F32, 1 << 61)),
        "a: needs 9223372036854775808 bytes",
    ),
    "array of texts huge": (
        header(0, 1, text("a") + struct.pack("<IIQ", ARRAY, TEXT, 1 << 61)),
        "a: needs 18446744073709551616 bytes",
    ),
    "array nested": (
        header(0, 1, text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1)),
        "a: an array of arrays",
    ),
    "array of unknown": (
        header(0, 1, text("a") + struct.pack("<IIQ", ARRAY, 99, 1)),
        "a: unknown type 99 of an array",
    ),
    "alignment 0": (gguf_bytes({"general.alignment": 0}, ONE), "general.alignment: 0 is no power"),
    "alignment 24": (gguf_bytes({"general.alignment": 24}, ONE), "24 is no power of two"),
    "alignment a text": (gguf_bytes({"general.alignment": "x"}, ONE), '"x" is no power of two'),
    "no dimensions": (filled(b"", info("w", (), 0, 0)), "w: 0 dimensions"),
    "five dimensions": (filled(b"", info("w", (1,) * 5, 0, 0)), "w: 5 dimensions"),
    "dimensions huge": (
        filled(b"", text("w") + struct.pack("<I", 1 << 31)),
        "w: 2147483648 dimensions",
    ),
    "dimension 0": (filled(bytes(32), info("w", (0, 4), 0, 0)), "shape [4, 0] is not sane"),
    "product overflows": (
        filled(bytes(32), info("w", (1 << 32, 1 << 32), 0, 0)),
        "w: shape [4294967296, 4294967296] is not sane",
    ),
    "tensor twice": (
        filled(bytes(64), info("w", (1,), 0, 0), info("w", (1,), 0, 32)),
        "w: appears twice",
    ),
    "overlap": (
        filled(bytes(64), info("v", (8,), 0, 0), info("w", (1,), 0, 4)),
        "v: F32 [8] needs 32 bytes, and there are 4",
    ),
    "same place": (
        filled(bytes(64), info("v", (8,), 0, 0), info("w", (1,), 0, 0)),
        "needs 32 bytes, and there are 0",
    ),
    "hole": (
        filled(bytes(96), info("v", (8,), 0, 0), info("w", (1,), 0, 64)),
        "w: begins at 64 and leaves a hole, which ends at 32",
    ),
    "hole first": (filled(bytes(64), info("w", (1,), 0, 32)), "begins at 32 and leaves a hole"),
    "offset huge": (filled(bytes(64), info("w", (1,), 0, 1 << 63)), "and leaves a hole"),
    "data cut": (gguf_bytes({}, ONE)[:-9], "w: F32 [2, 3] needs 24 bytes, and there are 23"),
    "table cut": (header(1, 0, text("w")), "w: needs 4 bytes"),
    "unknown type": (filled(bytes(32), info("w", (8,), 99, 0)), "w: unknown tensor type 99"),
    "TL1": (filled(bytes(64), info("w", (64,), 38, 0)), "stored as TL1, which is laid out by a"),
    "TL2": (filled(bytes(64), info("w", (256,), 39, 0)), "stored as TL2, which is laid out by a"),
    "MXFP4": (
        filled(bytes(160), info("w", (256,), 39, 0)),
        "stored as MXFP4, which is not ternary",
    ),
    "I8_S": (filled(bytes(64), info("w", (32,), 37, 0)), "stored as I8_S, which holds int8"),
    "NVFP4": (filled(bytes(64), info("w", (64,), 40, 0)), "stored as NVFP4 or an early Q1_0"),
    "I2_S ragged": (
        filled(bytes(96), info("w", (100, 2), 36, 0)),
        "I2_S holds blocks of 128 weights, and 2 x 100 are no multiple",
    ),
    "IQ4_NL_4_4": (
        filled(bytes(576), info("w", (256, 4), 36, 0)),
        "type 36 may mean I2_S, and 576 bytes fit none",
    ),
    "TQ2_0 ragged": (
        filled(bytes(96), info("w", (320, 1), 35, 0)),
        "TQ2_0 holds blocks of 256 columns, and 320",
    ),
    "IQ2_BN_R4 ragged": (
        filled(bytes(96), info("w", (64, 3), 335, 0)),
        "IQ2_BN_R4 holds groups of 4 rows, and 3",
    ),
    "Q2_0 of neither block": (
        filled(bytes(1024), info("w", (256, 8), 42, 0)),
        "type 42 may mean Q2_0 and Q2_0 (128), and 1024 bytes fit none",
    ),
    "Q2_0 of both blocks": (
        filled(bytes(64), info("w", (128,), 42, 0)),
        "and 64 bytes fit both",
    ),
}


def check_error(error: BitnetcError, where: str, message: str) -> None:
    """One line that names the file, says `message`, and says what to do."""
    shown = str(error)
    assert shown.startswith(where), shown
    assert message in shown, shown
    assert "\n" not in shown and len(shown) < 600, shown
    assert error.hint or "tokenizer.ggml: " in shown, f"no remedy: {shown}"


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(BitnetcError) as error:
        gguf.read_file(path, "128")
    check_error(error.value, str(path), message)


def test_containers_that_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    kinds = {"u": value(U64, 1 << 63), "i": value(I32, -5), "t": "ä", "b": True, "a": [1, 2]}
    path.write_bytes(gguf_bytes({**kinds, "general.alignment": 64}, ONE, 64, version=2) + bytes(99))
    file = gguf.read_file(path, "128")
    assert file.metadata["u"] == 1 << 63 and file.metadata["i"] == -5
    assert file.metadata["t"] == "ä" and file.metadata["b"] is True
    assert file.tensors["w"].shape == (2, 3)
    assert file.tensors["w"].array().shape == (2, 3)
    assert len(file.notes) == 1 and "99 bytes after the last tensor" in file.notes[0]


def test_files_of_the_gguf_package_are_read(tmp_path: Path) -> None:
    """Written by the official writer; and what is written here, its reader reads."""
    package: Any = pytest.importorskip("gguf")
    path = tmp_path / "a.gguf"
    chance = np.random.default_rng(0)
    trits = chance.integers(-1, 2, (6, 512)).astype(np.float32)
    kinds = package.GGMLQuantizationType
    arrays = {
        "tq1": (package.quants.quantize(trits * 0.5, kinds.TQ1_0), kinds.TQ1_0),
        "tq2": (package.quants.quantize(trits * 0.5, kinds.TQ2_0), kinds.TQ2_0),
        "q8": (package.quants.quantize(trits, kinds.Q8_0), kinds.Q8_0),
        "f16": (trits.astype(np.float16), None),
        "f32": (chance.standard_normal(7).astype(np.float32), None),
    }
    writer = package.GGUFWriter(path, "bitnet")
    writer.add_context_length(99)
    writer.add_bool("a.bool", True)
    writer.add_float64("a.double", 0.1)
    writer.add_array("a.texts", ["x", "", "\u00e9"])
    writer.add_array("a.numbers", [3, -1])
    for name, (array, kind) in arrays.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.read_file(path, "128")
    assert file.notes == ()
    assert file.metadata["general.architecture"] == "bitnet"
    assert file.metadata["bitnet.context_length"] == 99
    assert (file.metadata["a.bool"], file.metadata["a.double"]) == (True, 0.1)
    texts, numbers = file.metadata["a.texts"], file.metadata["a.numbers"]
    assert isinstance(texts, gguf.Texts) and list(texts) == ["x", "", "\u00e9"]
    assert isinstance(numbers, np.ndarray) and numbers.tolist() == [3, -1]
    for name, (array, _) in arrays.items():
        tensor = file.tensors[name]
        assert tensor.raw.tobytes() == array.tobytes()
        assert tensor.shape == (array.shape if name == "f32" else (6, 512))
    for name in ("tq1", "tq2"):
        tensor = file.tensors[name]
        assert np.array_equal(PACKINGS[tensor.dtype].decode(tensor.raw, 6, 512), trits)

    tiny = one_model("bitnet", "autobitlinear")
    write_gguf(path, tiny, "TQ1_0", "bitnet")
    theirs = {tensor.name: tensor for tensor in package.GGUFReader(path).tensors}
    ours = gguf.read_file(path, "128").tensors
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.raw.tobytes() == theirs[name].data.tobytes()
        assert tensor.shape == tuple(int(size) for size in theirs[name].shape[::-1])


@pytest.mark.parametrize("packing", ["Q2_0", "Q2_0 (128)"])
def test_the_block_of_q2_0_is_told_by_size(tmp_path: Path, packing: str) -> None:
    tiny = one_model("bitnet", "autobitlinear")
    write_gguf(tmp_path / "a.gguf", tiny, packing)
    kinds = {t.dtype for t in read(tmp_path / "a.gguf").tensors.values()}
    assert packing in kinds and not kinds & ({"Q2_0", "Q2_0 (128)"} - {packing})


HOSTILE: dict[str, bytes] = {
    "many empty texts": text("a") + struct.pack("<IIQ", ARRAY, TEXT, 2 << 20) + bytes(16 << 20),
    "many numbers": text("a") + struct.pack("<IIQ", ARRAY, U8, 60 << 20) + bytes(60 << 20),
    "beyond what is sane": text("a") + struct.pack("<IIQ", ARRAY, U8, 70 << 20) + bytes(70 << 20),
    "long texts": b"".join(text(f"k{i}") + value(TEXT, "x" * (1 << 20)) for i in range(70)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_neither_hang_nor_fill_memory(tmp_path: Path, case: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(header(0, 70 if case == "long texts" else 1, HOSTILE[case]))
    begin = time.process_time()
    tracemalloc.start()
    try:
        gguf.read_file(path, "128")
    except BitnetcError as error:
        assert "sane" in str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100 << 20
    assert time.process_time() - begin < 30  # tracing slows it some tenfold


# --- refusals of the model -----------------------------------------------------------------------

B = "bitnet-b1.58."
Q = "blk.0.attn_q.weight"
GROUPS = np.ones((256, 1), np.float16)

# case -> (metadata, tensors, where the message starts, what it says)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "no architecture": ({"general.architecture": None}, {}, "general.architecture", "is missing"),
    "architecture a number": ({"general.architecture": 3}, {}, "general.arch", "must be a text"),
    "split": ({"split.count": value(U16, 3)}, {}, "split.count", "one of 3 parts, which is not"),
    "adapter": ({"general.type": "adapter"}, {}, "general.type", '"adapter" is not supported'),
    "phi3": ({"general.architecture": "phi3"}, {}, "general.architecture", '"phi3" is not'),
    "gemma2": ({"general.architecture": "gemma2"}, {}, "general.architecture", '"gemma2" is not'),
    "no width": ({B + "embedding_length": None}, {}, B + "embedding_length", "is missing; convert"),
    "width a text": ({B + "embedding_length": "64"}, {}, B + "embedding_length", "whole number"),
    "width by layer": (
        {B + "attention.head_count": [4, 4]}, {}, B + "attention.head_count", "whole number"
    ),
    "layers huge": ({B + "block_count": value(U64, 1 << 50)}, {}, B + "block_count", "from 1 to"),
    "no eps": (
        {B + "attention.layer_norm_rms_epsilon": None}, {}, "layer_norm_rms_epsilon", "is missing"
    ),
    "context": ({B + "context_length": 0}, {}, B + "context_length", "from 1 to"),
    "rope scaling": (
        {B + "rope.scaling.type": "yarn"}, {}, B + "rope.scaling.type", '"yarn" with factor 1.0'
    ),
    "rope stretched": (
        {B + "rope.scaling.type": "linear", B + "rope.scaling.factor": 4.0},
        {},
        B + "rope.scaling.type",
        '"linear" with factor 4.0',
    ),
    "partial rope": (
        {B + "attention.key_length": 64, B + "rope.dimension_count": 32},
        {},
        B + "rope.dimension_count",
        "32 is not supported where heads are 64 wide",
    ),
    "values of another width": (
        {B + "attention.value_length": 128}, {}, B + "attention.value_length", "128 is not"
    ),
    "experts": ({B + "expert_count": 8}, {}, B + "expert_count", "8 is not supported"),
    "softcap": ({B + "final_logit_softcapping": 30.0}, {}, B + "final_logit_soft", "30.0 is not"),
    "pooling": ({B + "pooling_type": 1}, {}, B + "pooling_type", "1 is not supported"),
    "window": ({B + "attention.sliding_window": 9}, {}, B + "attention.sliding_w", "9 is not"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, {}, "tokenizer.ggml.tokens", "is missing"),
    "types of others": (
        {"tokenizer.ggml.token_type": [1, 1]}, {}, "token_type", "2 types for 320 tokens"
    ),
    "types as text": ({"tokenizer.ggml.token_type": "x"}, {}, "token_type", "no list of numbers"),
    "token twice": (
        {"tokenizer.ggml.tokens": ["a"] * 320}, {}, "tokenizer.ggml.tokens", "is listed twice"
    ),
    "no merges": ({"tokenizer.ggml.merges": None}, {}, "tokenizer.ggml.merges", "is missing"),
    "merge unknown": (
        {"tokenizer.ggml.merges": ["a zzzz"]}, {}, "tokenizer.ggml", "is not in model.vocab"
    ),
    "bos missing": (
        {"tokenizer.ggml.bos_token_id": None}, {}, "tokenizer.ggml.bos_token_id", "is missing"
    ),
    "bos beyond": (
        {"tokenizer.ggml.bos_token_id": 999}, {}, "tokenizer.ggml.bos_token_id", "999 is no token"
    ),
    "add_bos a number": (
        {"tokenizer.ggml.add_bos_token": 1}, {}, "add_bos_token", "must be true or false"
    ),
    "eos beyond": (
        {"tokenizer.ggml.eos_token_id": 320}, {}, "tokenizer.ggml.eos_token_id", "below vocab_size"
    ),
    "layers uncounted": ({B + "block_count": 1}, {}, B + "block_count", 'holds "blk.1.'),
    "layers missing": ({B + "block_count": 3}, {}, "tensor blk.2.attn_norm.weight", "is missing"),
    "weight missing": ({}, {Q: None}, "tensor blk.0.attn_q.weight", "is missing"),
    "no sub-norms": (
        {},
        {f"blk.{i}.{n}_sub_norm.weight": None for i in range(2) for n in ("attn", "ffn")},
        "tensor blk.0.attn_sub_norm.weight",
        'is missing, although general.architecture is "bitnet-b1.58"',
    ),
    "weight in floats": ({}, {Q: ("F16", (256, 256), bytes(131072))}, Q, "stored as F16, but"),
    "weight in Q8_0": ({}, {Q: ("Q8_0", (256, 256), bytes(69632))}, Q, "stored as Q8_0, but"),
    "shape": (
        {},
        {Q: ("I2_S", (128, 256), bytes(8224))},
        Q,
        "has shape [128, 256]; the metadata asks for [256, 256]",
    ),
    "norm ternary": (
        {},
        {"output_norm.weight": ("I2_S", (256,), bytes(96))},
        "output_norm.weight",
        "stored as I2_S, but this tensor must hold floats",
    ),
    "embedding in IQ3_S": (
        {},
        {"token_embd.weight": (21, (320, 256), bytes(35200))},
        "token_embd.weight",
        "stored as IQ3_S, but this tensor must hold floats",
    ),
    "embedding infinite": (
        {},
        {"token_embd.weight": ("Q8_0", (320, 256), b"\0\x7c" + bytes(87038))},
        "token_embd.weight: row 0, column 0",
        "is infinite or not a number",
    ),
    "scale NaN": (
        {},
        {Q: ("I2_S", (256, 256), b"\x55" * 16384 + b"\0\0\xc0\x7f" + bytes(28))},
        Q + ": row 0, group 0",
        "has the scale nan",
    ),
    "scale negative": (
        {},
        {Q: ("I2_S", (256, 256), b"\x55" * 16384 + b"\0\0\x80\xbf" + bytes(28))},
        Q + ": row 0, group 0",
        "has the scale -1.0",
    ),
    "code 3": (
        {},
        {Q: ("I2_S", (256, 256), b"\x55" * 16383 + b"\xd5\0\0\x80\x3f" + bytes(28))},
        Q,
        "holds code 3, which is no trit",
    ),
    "scales per group": (
        {},
        {
            Q: (
                "Q2_0",
                (256, 256),
                b"".join(
                    struct.pack("<e", 0.5 + i % 2) + b"\x55" * 16 for i in range(1024)
                ),
            )
        },
        Q + ": row 0, group 0",
        "scales per group need float activations",
    ),
    "scale beside, zero": (
        {},
        {"blk.0.attn_q.scale": ("F32", (1,), bytes(4))},
        "blk.0.attn_q.scale",
        "must be one positive and finite number",
    ),
    "bias": ({}, {"blk.0.attn_q.bias": ("F32", (256,), bytes(1024))}, "blk.0.attn_q.bias", "bias"),
    "q_norm": (
        {}, {"blk.0.attn_q_norm.weight": ("F32", (64,), bytes(256))}, "attn_q_norm", "normalises"
    ),
    "norm_in": (
        {},
        {"blk.0.attn_q_norm_in.weight": ("F32", (256,), bytes(1024))},
        "attn_q_norm_in",
        "bitnet-embedding",
    ),
    "rope_freqs": (
        {}, {"rope_freqs.weight": ("F32", (32,), bytes(128))}, "rope_freqs", "rotary embedding"
    ),
    "experts' weights": (
        {},
        {"blk.0.ffn_up_exps.weight": ("F32", (4, 4, 4), bytes(256))},
        "ffn_up_exps",
        "mixture of experts",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def small() -> TinyCheckpoint:
    return tiny_checkpoint(dim=256, ffn_dim=256)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_models_are_refused_by_name(tmp_path: Path, small: TinyCheckpoint, case: str) -> None:
    metadata, tensors, where, message = REFUSED[case]
    path = tmp_path / "a.gguf"
    write_gguf(path, small, metadata=metadata, tensors=tensors)
    with pytest.raises(BitnetcError) as error:
        load_everything(normalise(read(path), "x", ffn_activation="relu2"))
    check_error(error.value, str(path), message)
    assert where in str(error.value), str(error.value)


def test_sub_norms_under_llama(tmp_path: Path, small: TinyCheckpoint) -> None:
    write_gguf(tmp_path / "a.gguf", small, architecture="llama")
    with pytest.raises(BitnetcError, match='"llama" has no sub-norms, but the file holds them'):
        normalise(read(tmp_path / "a.gguf"), "x")


def test_a_folder_with_a_gguf_says_so(tmp_path: Path, small: TinyCheckpoint) -> None:
    write_gguf(tmp_path / "a.gguf", small)
    with pytest.raises(BitnetcError, match=r"holds a\.gguf, a GGUF file; pass .*a\.gguf itself"):
        read(tmp_path)
    (tmp_path / "b.gguf").write_bytes(b"<html>")
    with pytest.raises(BitnetcError, match="does not begin with GGUF"):
        read(tmp_path / "b.gguf")


def test_unknown_layouts_are_refused(tmp_path: Path, small: TinyCheckpoint) -> None:
    write_gguf(tmp_path / "a.gguf", small)
    with pytest.raises(BitnetcError, match='unknown layout "32"; '):
        read(tmp_path / "a.gguf", i2s_layout="32")  # type: ignore[arg-type]


def test_unknown_keys_are_noted(tmp_path: Path, small: TinyCheckpoint) -> None:
    write_gguf(tmp_path / "a.gguf", small, metadata={B + "mystery": 5})
    assert any(
        '"bitnet-b1.58.mystery" has no meaning' in n for n in read(tmp_path / "a.gguf").notes
    )


def load_everything(model: Model) -> None:
    model.embedding.load()
    model.head.load()
    for block in model.blocks:
        for role in ROLES:
            getattr(block, role).load()


def test_junk_in_any_key_gives_one_kind_of_error(tmp_path: Path) -> None:
    """Every key that is read, replaced by every kind of value: a model or a BitnetcError."""
    tiny = tiny_checkpoint(dim=16, ffn_dim=32, layers=1, heads=2, vocab=270)
    path = tmp_path / "a.gguf"
    junk: list[Any] = [
        None, True, False, 0, 1, 3, value(I32, -1), value(U64, 1 << 63), -0.5, 1e30,
        value(F32, float("nan")), "", "x\ny", "\u00e4" * 999, [1, 2], [1], ["a", "b"], ["a"],
        value(ARRAY, (F32, [])), value(ARRAY, (TEXT, [])), value(ARRAY, (BOOL, [True, False])),
    ]  # fmt: skip
    refused = 0
    for beside, base in ((False, {}), (True, sentencepiece_metadata(270))):
        if beside:
            (tmp_path / "config.json").write_text(json.dumps(tiny.config))
        metadata = {**gguf_metadata(tiny, "bitnet"), **base}
        extra = ["general.type", "split.count", "tokenizer.chat_template", "general.alignment"]
        extra += ["bitnet.rope.scaling.type", "bitnet.rope.scaling.factor"]
        extra += ["bitnet.attention.key_length", "bitnet.expert_count"]
        extra += ["tokenizer.ggml.add_eos_token", "tokenizer.ggml.eot_token_id"]
        for key in [*metadata, *extra]:
            for content in junk:
                write_gguf(path, tiny, "I2_S", "bitnet", {**base, key: content})
                try:
                    normalise(read(path), "x", ffn_activation="silu")
                except BitnetcError as error:
                    assert "\n" not in str(error) and len(str(error)) < 1200, str(error)
                    refused += 1
                path.unlink()
    assert refused > 400


# --- mutation ------------------------------------------------------------------------------------


def mutate(content: bytes, chance: random.Random, head: int) -> bytes:
    """A damaged file: bytes or whole numbers of the header changed, or a piece cut or doubled."""
    kind = chance.randrange(6)
    at = chance.randrange(head if chance.random() < 0.95 else len(content))
    if kind == 0:
        return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return content[: chance.randrange(len(content))]
    if kind == 2:  # a count, a length, a type, an offset
        width = chance.choice([4, 8])
        number = chance.choice([0, 1, 2, 3, 8, 9, 31, 32, 33, 36, 255, 2**31, 2**32 - 1, 2**63])
        raw = (number % 2 ** (8 * width)).to_bytes(width, "little")
        return content[:at] + raw + content[at + width :]
    if kind == 3:
        return content[:at] + content[at + chance.randrange(1, 9) :]
    if kind == 4:
        return content[:at] + content[at : at + chance.randrange(1, 40)] + content[at:]
    bit = 1 << chance.randrange(8)
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def fuzz(path: Path, count: int, seed: int) -> int:
    """Reads `count` mutated files; returns how many were taken. Errors: any but BitnetcError."""
    chance = random.Random(seed)
    tiny = tiny_checkpoint(dim=16, ffn_dim=32, layers=1, heads=2, vocab=270)
    contents = []
    for packing in ("I2_S", "IQ2_BN"):
        small = packing == "I2_S"
        base = tiny if small else tiny_checkpoint(dim=64, ffn_dim=64, layers=1, vocab=270)
        metadata = gguf_metadata(base, "bitnet-b1.58")
        tensors = gguf_tensors(base, packing, "bitnet-b1.58")
        whole = gguf_bytes(metadata, tensors)
        contents.append((whole, len(whole) - sum(len(t[2]) for t in tensors.values())))
    taken = 0
    for _ in range(count):
        content, head = chance.choice(contents)
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            content = mutate(content, chance, min(head, len(content) - 1) or 1)
            if len(content) < 2:
                break
        path.unlink(missing_ok=True)  # an earlier mapping must not see its file shrink
        path.write_bytes(content)
        begin = time.process_time()
        try:
            load_everything(normalise(read(path), "x", ffn_activation="relu2"))
            taken += 1
        except BitnetcError as error:
            assert "\n" not in str(error) and len(str(error)) < 900, str(error)
        assert time.process_time() - begin < 5
    return taken


def test_mutated_files_give_one_kind_of_error(tmp_path: Path) -> None:
    taken = fuzz(tmp_path / "x.gguf", 2000, seed=1)
    assert 20 < taken < 1800  # the mutations reach both sides


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50000
    begin = time.time()
    seed = random.randrange(1 << 32)
    with tempfile.TemporaryDirectory() as folder:
        taken = fuzz(Path(folder) / "x.gguf", count, seed)
    print(f"{count} mutated files, seed {seed}, {taken} taken, {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
