"""inspect describes every checkpoint, also those that cannot be compiled, and quickly."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    VARIANTS,
    VARIANTS_LEVELS,
    VARIANTS_MIXED,
    safetensors_bytes,
    tiny_checkpoint,
    write_checkpoint,
)
from click.testing import CliRunner
from gguf_files import gguf_bytes, write_gguf
from onnx_files import write_onnx
from test_gguf import one_model
from torch_files import write_pt

from bitnetc.cli import main
from bitnetc.errors import BitnetcError
from bitnetc.inspect import inspect, report_json


def screen(path: Path, *options: str) -> str:
    done = CliRunner().invoke(main, ["inspect", str(path), *options])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_described(tmp_path: Path, name: str) -> None:
    tiny = tiny_checkpoint(**VARIANTS[name])
    tiny.write(tmp_path)
    report = inspect(tmp_path)
    assert report.compiles and not report.problem and not report.look.warnings
    ternary = sum(trits.size for trits in tiny.trits.values())
    zeros = sum(int((trits == 0).sum()) for trits in tiny.trits.values())
    assert report.ternary_parameters == ternary
    assert report.zeros == zeros / ternary and report.counted_weights == ternary
    others = sum(
        int(np.prod(shape))
        for name, (_, shape, _) in tiny.tensors.items()
        if name not in tiny.trits and not name.endswith("_scale")
    )
    assert report.parameters == ternary + others
    assert re.match(r"it holds (model\.)?layers\.0\.", report.evidence[0])
    gate = next(matrix for matrix in report.matrices if matrix.role == "w_gate")
    if name in VARIANTS_MIXED:
        assert re.fullmatch("(ternary|int[248]|f16|bf16|, )+", gate.stored)
    elif name not in VARIANTS_LEVELS and name not in ("llama3-kept", "llama3-mlp-kept"):
        scales = [tiny.scales[n] for n in tiny.scales if ".gate_proj." in n]
        assert gate.scale_low == min(s.min() for s in scales)
        assert gate.scale_high == max(s.max() for s in scales)
        assert gate.scales == ("per row" if "per-row" in name else "per matrix")
    json.dumps(report_json(report))


def test_layers_are_sampled_and_all_compared(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(layers=9)
    tiny.write(tmp_path)
    report = inspect(tmp_path)
    assert report.compiles and report.facts["layers"] == 9
    ternary = sum(trits.size for trits in tiny.trits.values())
    assert report.ternary_parameters == ternary and report.counted_weights == ternary // 3
    assert "a sample of" in screen(tmp_path)
    seen = {f"model.layers.{layer}." for layer in (0, 4, 8)}
    sample = [t for name, t in tiny.trits.items() if any(name.startswith(s) for s in seen)]
    assert report.zeros == sum(int((t == 0).sum()) for t in sample) / sum(t.size for t in sample)

    tensors = dict(tiny.tensors)
    del tensors["model.layers.6.mlp.up_proj.weight"]
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    assert "model.layers.6.mlp.up_proj.weight: is missing" in inspect(tmp_path).problem
    tensors = dict(tiny.tensors)
    tensors["model.layers.7.mlp.up_proj.weight"] = ("U8", (1, 64), bytes(64))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    assert "layers.7.mlp.up_proj.weight: has shape [1, 64]; config" in inspect(tmp_path).problem
    tensors = {n: t for n, t in tiny.tensors.items() if ".layers.5." not in n}
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    assert "model.layers.5." in inspect(tmp_path).problem
    # an error in a sampled layer names it as the file does
    tensors = dict(tiny.tensors)
    tensors["model.layers.8.mlp.up_proj.weight_scale"] = ("F32", (1,), b"\0\0\xc0\x7f")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    assert "model.layers.8.mlp.up_proj.weight_scale: value 0 is nan" in inspect(tmp_path).problem


def test_other_containers(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(ffn_dim=128)
    write_gguf(tmp_path / "a.gguf", tiny)
    report = inspect(tmp_path / "a.gguf", ffn_activation="relu2")
    assert report.compiles and report.look.what == "GGUF file, architecture bitnet-b1.58"
    assert "ternary tensors: 14 I2_S" in report.evidence
    text = screen(tmp_path / "a.gguf", "--ffn-activation", "relu2")
    assert "taken as relu2, as asked" in text and "I2_S" in text

    write_onnx(tmp_path / "o" / "m.onnx", tiny_checkpoint(), "MatMulNBits-2")
    report = inspect(tmp_path / "o" / "m.onnx")
    assert report.compiles and "MatMulNBits" in report.look.known["operators"]
    assert "14 2 bits" in " ".join(report.evidence)

    pytest.importorskip("torch")
    (tmp_path / "p").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "p" / name).write_bytes((tmp_path / "o" / name).read_bytes())
    write_pt(tmp_path / "p" / "m.pt", tiny_checkpoint())
    report = inspect(tmp_path / "p" / "m.pt")
    assert report.compiles and "interleaved" in " ".join(report.evidence)


def test_what_cannot_be_compiled_is_still_described(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tl1.gguf", one_model("bitnet", "autobitlinear"), "TL1")
    text = screen(tmp_path / "tl1.gguf")
    assert "cannot be compiled" in text and "kernel_config.ini" in text
    assert "general.architecture" in text and "TL1" in text

    unknown = {"w": (99, (8,), bytes(32))}
    (tmp_path / "u.gguf").write_bytes(gguf_bytes({"general.architecture": "rwkv"}, unknown))
    text = screen(tmp_path / "u.gguf")
    assert "architecture rwkv" in text and "type 99" in text and "unknown tensor type 99" in text

    write_checkpoint(tmp_path / "plain", config={"quantization_config": None})
    report = inspect(tmp_path / "plain")
    assert not report.compiles and report.look.known["hidden_size"] == 64
    assert dict((kind, count) for kind, count, _ in report.look.types)["U8"] == 14

    write_checkpoint(tmp_path / "cut")
    whole = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(whole[:-1])
    report = inspect(tmp_path / "cut")
    assert not report.compiles and "data bytes" in report.problem and report.look.warnings


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"", "an empty file"),
        (bytes(4096), "not finished"),
        (b"{}", "a JSON file"),
        (b"nonsense", "not known"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    text = " ".join(screen(tmp_path / "x.bin").split())
    assert what in text and "cannot be compiled" in text


def test_missing_files_are_mistakes(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "gone")])
    assert done.exit_code == 2
    with pytest.raises(BitnetcError, match="not found"):
        inspect(tmp_path / "gone")


def test_json_is_for_programs(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    found: dict[str, Any] = json.loads(screen(tmp_path, "--json"))
    assert found["compiles"] is True and found["problem"] is None
    assert found["structure"]["layers"] == 2 and found["family"] == "bitnet"
    assert 0.3 < found["zero_fraction"] < 0.5
    assert {m["role"] for m in found["matrices"]} >= {"wq", "w_down"}
    assert found["tokenizer"]["pieces"] == 320


def test_large_files_are_sampled(tmp_path: Path) -> None:
    """Files with holes stand in for large ones: 1.3 GB in 80 layers, none of it read."""
    tiny = tiny_checkpoint(dim=512, ffn_dim=1024, heads=8, layers=1, storage="online")
    layer = {n: t for n, t in tiny.tensors.items() if ".layers.0." in n}
    header: dict[str, Any] = {}
    parts: list[tuple[int, bytes]] = []
    end = 0
    for i in range(250):
        for name, (dtype, shape, data) in layer.items():
            header[name.replace(".0.", f".{i}.")] = {
                "dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]
            }  # fmt: skip
            if i in (0, 125, 249):
                parts.append((end, data))
            end += len(data)
    for name, (dtype, shape, data) in tiny.tensors.items():
        if name not in layer:
            header[name] = {
                "dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]
            }  # fmt: skip
            parts.append((end, data))
            end += len(data)
    tiny.write(tmp_path)
    tiny.config["num_hidden_layers"] = 250
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at, data in parts:
            file.seek(8 + len(text) + at)
            file.write(data)
        file.truncate(8 + len(text) + end)
    begin = time.process_time()
    report = inspect(tmp_path)
    assert time.process_time() - begin < 5
    assert report.compiles, report.problem
    assert report.look.size > 1 << 30 and report.parameters > 500_000_000
