"""Graphs as torch.onnx writes them today: weights renamed, equal ones merged, constants folded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from unavailable import Unavailable

from bitnetc.checkpoint import read
from bitnetc.normalise import normalise
from bitnetc.reference import Reference

TOKENS = [256, 104, 101, 108, 108, 111, 44, 32, 87]


@pytest.fixture(scope="module")
def export(unavailable: Unavailable) -> Any:
    """Writes FOLDER/m.onnx from the checkpoint that transformers reads there."""
    for package in ("torch", "transformers", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            unavailable("torch.onnx", f"no {package}")
    import torch
    import transformers

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids=input_ids, use_cache=False).logits

    def write(folder: Path) -> Path:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        path = folder / "m.onnx"
        # torch hides a setting that a test before this one has put back
        kept = getattr(torch._dynamo.config, "disable", False)
        torch._dynamo.config.disable = False
        torch.onnx.export(
            Logits(torch.nn.Module.float(model).eval()),
            (torch.tensor([TOKENS[:5]]),),
            str(path),
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes=({1: torch.export.Dim("length", min=2, max=64)},),
            dynamo=True,
            verbose=False,
        )
        torch._dynamo.config.disable = kept
        return path

    return write


@pytest.mark.parametrize(
    ("options", "int8"),
    [
        ({"storage": "online", "dtype": "f32"}, True),
        ({"family": "trilm", "kv_heads": 4}, False),
    ],
)
def test_exported_graphs(tmp_path: Path, export: Any, options: Any, int8: bool) -> None:
    """Float masters with their quantisers, and floats of three values; ONNX Runtime as judge."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    tiny_checkpoint(layers=1, **options).write(tmp_path)
    theirs = normalise(read(tmp_path), "x")
    path = export(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model = normalise(read(path), "x")
    assert model.float_activations is not int8
    assert model.ffn_activation == theirs.ffn_activation
    for role in ("attn_norm", "ffn_norm"):
        assert np.array_equal(getattr(model.blocks[0], role), getattr(theirs.blocks[0], role))
    for role in ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"):
        ours, other = (getattr(m.blocks[0], role) for m in (model, theirs))
        assert np.array_equal(ours.load(), other.load()), role
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"input_ids": np.array([TOKENS])})[0][0]
    got = Reference(model).logits(TOKENS)
    far = np.abs(got - wanted) / wanted.std()
    assert far.max() < (0.25 if int8 else 0.01)
    assert np.array_equal(got.argmax(1), wanted.argmax(1))
