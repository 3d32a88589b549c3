"""synth: published shapes, written fast and in little memory, that the reader and others take."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnetc import families, synth
from bitnetc.checkpoint import read
from bitnetc.errors import BitnetcError
from bitnetc.model import Ternary
from bitnetc.normalise import normalise
from bitnetc.reference import Reference
from bitnetc.synth import SHAPES, Published, byte_level_tokenizer, made_up_merges

SUPPORTED = [
    name
    for name, model in SHAPES.items()
    if model.family in {family.name for family in families.FAMILIES}
]


def ternary_weights(model: Published) -> int:
    shape = model.shape
    attention = 2 * shape.dim * (shape.q_dim + shape.kv_dim)
    return shape.layers * (attention + 3 * shape.dim * shape.ffn_dim)


def test_shapes_have_the_published_sizes() -> None:
    """Counts of ternary weights that others counted in the files."""
    assert ternary_weights(SHAPES["bitnet-b1.58-2b-4t"]) == 2_084_044_800
    assert ternary_weights(SHAPES["falcon-e-1b"]) == 1_585_446_912
    assert ternary_weights(SHAPES["falcon-e-3b"]) == 2_919_235_584
    assert round(ternary_weights(SHAPES["llama3-8b-1.58"]) / 1e6) == 6979
    assert round(ternary_weights(SHAPES["falcon3-1b-1.58bit"]) / 1e6) == 1132
    for name, total in (("99m", 99), ("390m", 390), ("1.5b", 1515), ("3.9b", 3990)):
        model = SHAPES["trilm-" + name]
        ends = 2 * model.shape.vocab * model.shape.dim
        assert abs((ternary_weights(model) + ends) / 1e6 / total - 1) < 0.02


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """A shape like 2B-4T's, but small, under a name of its own."""
    shape = replace(
        SHAPES["bitnet-b1.58-2b-4t"].shape, dim=256, ffn_dim=512, layers=4, heads=4, kv_heads=2,
        head_dim=64,
    )  # fmt: skip
    models = {**SHAPES, "small": replace(SHAPES["bitnet-b1.58-2b-4t"], shape=shape)}
    monkeypatch.setattr(synth, "SHAPES", models)
    return "small"


@pytest.mark.parametrize("like", SUPPORTED)
def test_every_supported_shape_is_read_back(tmp_path: Path, like: str, monkeypatch: Any) -> None:
    """One layer of each, with the vocabulary of the original."""
    model = SHAPES[like]
    narrow = replace(model.shape, dim=64, ffn_dim=128)
    monkeypatch.setitem(SHAPES, like, replace(model, shape=narrow))
    synth.synth(like, tmp_path / "model", seed=1, layers=1)
    ours = normalise(read(tmp_path / "model"), like)
    assert ours.shape == replace(narrow, layers=1)
    assert ours.family == model.family
    assert ours.tied == model.tied
    gelu = {"gelu_pytorch_tanh": "gelu_tanh"}
    assert ours.ffn_activation == gelu.get(model.activation, model.activation)
    assert (ours.norm_eps, ours.rope_theta) == (model.norm_eps, model.rope_theta)
    told = [n for n in ours.notes if "pooled by their mean" in n or "stay floats" in n]
    assert ours.eos and list(ours.notes) == told
    assert ours.float_activations == (model.form == "levels")
    assert len(ours.tokenizer.pieces) == model.shape.vocab
    for matrix in (ours.blocks[0].wq, ours.blocks[0].w_down):
        trits = matrix.load()
        zeros = np.count_nonzero(trits == 0) / trits.size
        expected = 0.31 if model.form == "online" else 0.42
        assert abs(zeros - expected) < 0.03
        # what goes through keeps its size
        assert isinstance(matrix, Ternary)
        gain = matrix.scale.flat[0] * np.sqrt((1 - zeros) * matrix.cols)
        assert 0.6 < gain < 1.6
    assert abs(ours.blocks[0].attn_norm.mean() - 1) < 0.05


def test_same_seed_same_bytes(tmp_path: Path, small: str) -> None:
    synth.synth(small, tmp_path / "a", seed=7)
    synth.synth(small, tmp_path / "b", seed=7)
    synth.synth(small, tmp_path / "c", seed=8)
    synth.synth(small, tmp_path / "d", seed=7, layers=2)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    whole, other, part = (read(tmp_path / name).tensors for name in "acd")
    name = "model.layers.1.mlp.up_proj.weight"
    assert np.array_equal(whole[name].raw, part[name].raw)
    assert not np.array_equal(whole[name].raw, other[name].raw)
    assert "model.layers.2.mlp.up_proj.weight" not in part


@pytest.mark.parametrize("form", ["multiply", "online"])
def test_share_of_gates_that_are_zero(
    tmp_path: Path, small: str, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind ReLU^2 in every layer, by the reference; other weights are as without it."""
    model = synth.SHAPES[small]
    shape = replace(model.shape, vocab=32002)
    model = replace(model, form=form, specials="llama2", shape=shape)
    monkeypatch.setitem(synth.SHAPES, small, model)
    synth.synth(small, tmp_path / "as drawn", seed=1, layers=2)
    synth.synth(small, tmp_path / "leaning", seed=1, layers=2, zeros=0.8)
    shares: list[float] = []
    linear = Reference._linear

    def counted(self: Reference, codes: Any, scale: Any, matrix: Any) -> Any:
        found = linear(self, codes, scale, matrix)
        if any(matrix is block.w_gate for block in self.model.blocks):
            shares.append(float(np.mean(found <= 0)))
        return found

    monkeypatch.setattr(Reference, "_linear", counted)
    tokens = [int(token) for token in np.random.default_rng(1).integers(0, 32000, 48)]
    for folder, expected in (("as drawn", 0.5), ("leaning", 0.8)):
        shares.clear()
        Reference(normalise(read(tmp_path / folder), folder)).states(tokens)
        assert len(shares) == 2 and all(abs(share - expected) < 0.06 for share in shares), shares
    drawn, leaning = (read(tmp_path / name).tensors for name in ("as drawn", "leaning"))
    for name in ("self_attn.q_proj", "mlp.up_proj"):
        name = f"model.layers.1.{name}.weight"
        assert np.array_equal(drawn[name].raw, leaning[name].raw)


def test_official_readers_take_it(tmp_path: Path, small: str) -> None:
    safetensors = pytest.importorskip("safetensors")
    tokenizers = pytest.importorskip("tokenizers")
    synth.synth(small, tmp_path / "model", seed=1)
    with safetensors.safe_open(tmp_path / "model" / "model.safetensors", framework="np") as file:
        assert file.get_tensor("model.layers.3.mlp.down_proj.weight").shape == (64, 512)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 128256
    assert tokenizer.token_to_id("<|eot_id|>") == 128009
    for text in ("Hello, world!", "naïve 12345\n\t", "été 😀", ""):
        ids = tokenizer.encode(text).ids
        assert ids[0] == 128000
        assert tokenizer.decode(ids) == text


def test_vocabulary_with_tokens_in_its_middle(tmp_path: Path) -> None:
    """Falcon3's way: special tokens have low ids."""
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(byte_level_tokenizer(400, {3: "<a>", 11: "<b>", 399: "<c>"}, None)))
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    assert [tokenizer.id_to_token(token) for token in (3, 11, 399)] == ["<a>", "<b>", "<c>"]
    assert sorted(tokenizer.get_vocab().values()) == list(range(400))
    assert tokenizer.encode("x<b><c>").ids[1:] == [11, 399]


def test_made_up_merges_are_distinct_and_known() -> None:
    merges = made_up_merges(30000)
    joined = [left + right for left, right in merges]
    assert len(set(joined)) == 30000
    known = {"Ġ", *"abcdefghijklmnopqrstuvwxyz"}
    for (left, right), whole in zip(merges, joined, strict=True):
        assert left in known and right in known
        known.add(whole)


def test_a_whole_model_is_streamed(tmp_path: Path) -> None:
    """All of Falcon-E-1B, 0.7 GB, without ever holding a quarter of it."""
    tracemalloc.start()
    try:
        synth.synth("falcon-e-1b", tmp_path / "model", seed=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    file = tmp_path / "model" / "model.safetensors"
    assert peak < file.stat().st_size / 4
    file.unlink()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("like", "near"),
    [
        ("bitnet-b1.58-2b4t", 'did you mean "bitnet-b1.58-2b-4t"'),
        ("falcon3-1b", 'did you mean "falcon3-1b-1.58bit"?'),
        ("Falcon-E-1B", 'did you mean "falcon-e-1b"'),
        ("zzz", "known: bitcpm-0.5b, "),
    ],
)
def test_unknown_names_get_the_nearest(tmp_path: Path, like: str, near: str) -> None:
    with pytest.raises(BitnetcError) as error:
        synth.synth(like, tmp_path / "model", seed=1)
    assert near in str(error.value)


def test_folders_in_use_are_refused(tmp_path: Path, small: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    with pytest.raises(BitnetcError, match="used: is not empty; name a new folder"):
        synth.synth(small, tmp_path / "used", seed=1)
    with pytest.raises(BitnetcError, match=r"mine\.txt: is a file; name a new folder"):
        synth.synth(small, tmp_path / "used" / "mine.txt", seed=1)
    (tmp_path / "empty").mkdir()
    synth.synth(small, tmp_path / "empty", seed=1)
    assert (tmp_path / "empty" / "config.json").exists()
    assert (tmp_path / "used" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("like", "zeros", "said"),
    [
        ("falcon-e-1b", 0.8, "no ReLU"),
        ("small", 0.3, "not from 0.5"),
        ("small", float("nan"), "nan"),
    ],
)
def test_zeros_are_checked(tmp_path: Path, small: str, like: str, zeros: float, said: str) -> None:
    with pytest.raises(BitnetcError, match=said):
        synth.synth(like, tmp_path / "new", seed=1, zeros=zeros)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("layers", [0, -1, 5])
def test_layers_are_checked(tmp_path: Path, small: str, layers: int) -> None:
    with pytest.raises(BitnetcError, match="is not from 1 to 4"):
        synth.synth(small, tmp_path / "model", seed=1, layers=layers)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The limit on file size stands in for the disk: writing fails half way."""
    pytest.importorskip("resource")
    code = """
import resource, sys
from bitnetc.errors import BitnetcError
from bitnetc.synth import synth
resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 20, 100 << 20))
try:
    synth("falcon-e-1b", sys.argv[1], 1, layers=1)
except BitnetcError as error:
    sys.exit(str(error))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "model: cannot be written: File too large; free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_too_small_a_disk_is_seen_before_writing(
    tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(BitnetcError, match=r"needs [0-9]+ bytes; 1000 are free"):
        synth.synth(small, tmp_path / "model", seed=1)
    assert not list(tmp_path.iterdir())
