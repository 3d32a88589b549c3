"""convert: what is written is the same model in every bit, and what transformers reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS, pack, tiny_checkpoint, write_checkpoint
from click.testing import CliRunner
from gguf_files import sentencepiece_metadata, write_gguf
from onnx_files import write_onnx
from test_gguf import check_error
from torch_files import write_pt

from bitnetc import convert as module
from bitnetc.checkpoint import read
from bitnetc.cli import main
from bitnetc.convert import _difference, convert
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.normalise import normalise
from bitnetc.reference import Reference

TOKENS = [3, 77, 200, 5, 19]


def model_of(path: Path, activation: Any = None) -> Model:
    return normalise(read(path), "x", ffn_activation=activation)


def check_converted(source: Path, out: Path, activation: Any = None) -> Model:
    convert(source, out, ffn_activation=activation)
    before, after = model_of(source, activation), model_of(out)
    assert after.shape == before.shape and after.tied == before.tied
    assert (after.eos, after.sampling) == (before.eos, before.sampling)
    assert _difference(after, before) == ""
    assert (after.chat is None) == (before.chat is None)
    for a, b in zip(after.blocks, before.blocks, strict=True):
        assert np.array_equal(a.wq.scale, b.wq.scale) and np.array_equal(a.wq.load(), b.wq.load())
    assert np.array_equal(Reference(after).logits(TOKENS), Reference(before).logits(TOKENS))
    assert [p.name for p in out.parent.iterdir() if ".partial" in p.name] == []
    return after


# All others have what the packed form of transformers cannot hold.
FITS = [
    name
    for name in VARIANTS
    if name.startswith(("2b4t", "llama3", "falcon", "1bitllm", "qwen3", "binary"))
    and name not in ("llama3-inner-norms", "llama3-kept", "llama3-mlp-kept")
]
NO_ROOM = [name for name in VARIANTS if name not in FITS]


@pytest.mark.parametrize("name", NO_ROOM)
def test_other_models_are_refused_by_name(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "in", **VARIANTS[name])
    with pytest.raises(BitnetcError, match=r"has no room for [a-z_]+.*; compile the checkpoint as"):
        convert(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", FITS)
def test_every_variant_converts_to_itself(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path / "in", **VARIANTS[name])
    after = check_converted(tmp_path / "in", tmp_path / "out")
    assert after.notes == ()
    stored = read(tmp_path / "out").tensors
    assert {t.dtype for n, t in stored.items() if n.endswith("_proj.weight")} == {"U8"}
    # once more changes nothing
    convert(tmp_path / "out", tmp_path / "again")
    one, other = ((tmp_path / f / "model.safetensors").read_bytes() for f in ("out", "again"))
    assert one == other


@pytest.mark.parametrize("vocabulary", ["gpt2", "llama"])
def test_gguf_files_get_a_tokenizer_of_their_own(tmp_path: Path, vocabulary: str) -> None:
    tiny = tiny_checkpoint(ffn_dim=128)
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
    metadata = {"tokenizer.chat_template": template}
    if vocabulary == "llama":
        metadata |= sentencepiece_metadata(320)
    write_gguf(tmp_path / "a.gguf", tiny, metadata=metadata)
    check_converted(tmp_path / "a.gguf", tmp_path / "out", "relu2")
    found = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert found["chat_template"] == template
    if vocabulary == "gpt2":
        tokenizers: Any = pytest.importorskip("tokenizers")
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
        original = tokenizers.Tokenizer.from_str(json.dumps(tiny.tokenizer))
        for text in ("It is a truth, 12345", "x\n\n  y <|eot_id|>"):
            assert theirs.encode(text).ids == original.encode(text).ids
            assert theirs.decode(theirs.encode(text).ids) == original.decode(
                original.encode(text).ids
            )
    else:
        pieces: Any = pytest.importorskip("sentencepiece")
        loaded = pieces.SentencePieceProcessor(str(tmp_path / "out" / "tokenizer.model"))
        assert loaded.vocab_size() == 320 and loaded.bos_id() == 1 and loaded.eos_id() == 2
        assert [loaded.id_to_piece(i) for i in range(320)] == metadata["tokenizer.ggml.tokens"]
        assert loaded.decode(loaded.encode("in the \u00e9nd")) == "in the \u00e9nd"


def test_onnx_and_pt(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tiny = tiny_checkpoint(tied=False)
    write_onnx(tmp_path / "m" / "m.onnx", tiny, "MatMulNBits-2")
    check_converted(tmp_path / "m" / "m.onnx", tmp_path / "a")
    tiny = tiny_checkpoint()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "config.json").write_text(json.dumps(tiny.config))
    (tmp_path / "p" / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    write_pt(tmp_path / "p" / "m.pt", tiny)
    check_converted(tmp_path / "p" / "m.pt", tmp_path / "b")


@pytest.mark.parametrize("name", ["llama3", "1bitllm-f32", "2b4t-online-bf16"])
def test_transformers_reads_it(tmp_path: Path, name: str) -> None:
    """1bitLLM's graph, which transformers lacks, is BitNet's with another function."""
    transformers: Any = pytest.importorskip("transformers")
    torch: Any = pytest.importorskip("torch")
    torch._dynamo.config.disable = True  # compiling takes minutes
    write_checkpoint(tmp_path / "in", **VARIANTS[name])
    convert(tmp_path / "in", tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    )
    theirs = torch.nn.Module.float(theirs).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    ours = Reference(model_of(tmp_path / "in")).logits(TOKENS)
    assert (np.abs(ours - logits) / logits.std()).mean() < 0.05
    assert np.array_equal(ours.argmax(1), logits.argmax(1))


def test_masters_that_nothing_declares(tmp_path: Path) -> None:
    options = {"linear_class": "autobitlinear", "storage": "online"}
    tiny = tiny_checkpoint(family="llama-bitnet", **options)
    tiny.write(tmp_path / "said")
    del tiny.config["quantization_config"]
    tiny.write(tmp_path / "unsaid")
    with pytest.raises(BitnetcError):
        convert(tmp_path / "unsaid", tmp_path / "packed")
    words = ["convert", str(tmp_path / "unsaid"), "-o", str(tmp_path / "packed")]
    done = CliRunner().invoke(main, [*words, "--quantise", "absmean"])
    assert done.exit_code == 0, done.output
    models = [normalise(read(tmp_path / name), "x") for name in ("packed", "said")]
    logits, wanted = (Reference(model).logits([3, 77, 200, 5]) for model in models)
    assert np.array_equal(logits, wanted)


def test_packing_is_that_of_transformers() -> None:
    trits = np.random.default_rng(0).integers(-1, 2, (13, 7)).astype(np.int8)
    assert np.array_equal(module.pack(trits), pack(trits))
    published = np.array([[-1, 0], [0, 1], [1, -1], [1, 1], [0, 0], [-1, -1], [1, 0], [0, 1]])
    assert module.pack(published.astype(np.int8)).tolist() == [[0x98, 0x51], [0x49, 0x8A]]


def test_refusals_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    for out, message in (("in", "is not empty"), ("file", "is a file")):
        with pytest.raises(BitnetcError) as error:
            convert(tmp_path / "in", tmp_path / out)
        check_error(error.value, f"-o {tmp_path / out}", message)
    with pytest.raises(BitnetcError, match="not found"):
        convert(tmp_path / "nowhere", tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_tensors", full)
    with pytest.raises(BitnetcError, match=r"cannot be written: No space left.*nothing was left"):
        convert(tmp_path / "in", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "in"]


def test_command(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "in", shards=2)
    (tmp_path / "out").mkdir()  # an empty folder is taken
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0 and "(bitnet)" in done.output
    assert model_of(tmp_path / "out").family == "bitnet"
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "in"), "-o", str(tmp_path / "in")])
    assert done.exit_code == 2
