"""1bitLLM's graph against torch: its two norms and its quantisers, put into transformers' Llama."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS_1BITLLM, write_checkpoint

from bitnetc.checkpoint import read
from bitnetc.families import without_layer
from bitnetc.normalise import normalise
from bitnetc.reference import Reference


def weight_quant(weight: Any) -> Any:
    """Of 1bitLLM's utils_quant.py."""
    scale = 1 / weight.float().abs().mean().clamp(min=1e-5)
    return (weight * scale).round().clamp(-1, 1) / scale


def activation_quant(x: Any) -> Any:
    scale = 127 / x.float().abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


@pytest.mark.parametrize("name", VARIANTS_1BITLLM)
def test_1bitllm_equals_its_own_definition(tmp_path: Path, name: str) -> None:
    torch: Any = pytest.importorskip("torch")
    transformers: Any = pytest.importorskip("transformers")
    safetensors: Any = pytest.importorskip("safetensors.torch")
    write_checkpoint(tmp_path, **VARIANTS_1BITLLM[name])
    ours = normalise(read(tmp_path), name)

    class BitLinear(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, linear: Any, norm: Any) -> None:
            super().__init__()
            self.weight, self.norm = linear.weight, norm

        def forward(self, x: Any) -> Any:
            if self.norm is not None:
                x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + ours.norm_eps) * self.norm
            return torch.nn.functional.linear(activation_quant(x), weight_quant(self.weight))

    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    stored = safetensors.load_file(tmp_path / "model.safetensors")
    for i, layer in enumerate(theirs.model.layers):
        prefix = f"model.layers.{i}."
        norms = {
            "o_proj": stored[prefix + "self_attn.inner_attn_ln.weight"].float(),
            "down_proj": stored[prefix + "mlp.ffn_layernorm.weight"].float(),
        }
        for part in (layer.self_attn, layer.mlp):
            for key, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(part, key, BitLinear(linear, norms.get(key)))
    tokens = [5, 99, 17, 230, 64, 8, 301]
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    found = Reference(ours).logits(tokens)
    # our cache holds 16-bit keys and values, and a code at the edge of rounding then differs
    assert np.abs(found - expected).max() < 0.1 * expected.std()
    assert np.median(np.abs(found - expected)) < 0.02 * expected.std()


def test_layer_numbers_are_taken_out_of_names() -> None:
    assert without_layer("model.layers.12.mlp.x.weight") == "model.layers.N.mlp.x.weight"
    assert without_layer("blk.7.attn_q.weight") == "blk.N.attn_q.weight"
    assert without_layer("a.blk.7.x") == "a.blk.7.x"
