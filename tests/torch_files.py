"""Writes `.pt` files as microsoft/BitNet's GPU engine has them, with torch.save.

Independent of the reader: trits are packed here one by one, from the published description.
"""

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import TinyCheckpoint
from gguf_files import permuted
from numpy.typing import NDArray

_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.attn_sub_norm": "attention.attn_sub_norm",
    "mlp.ffn_sub_norm": "feed_forward.ffn_sub_norm",
}
_FUSED = {
    "attention.wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.wo": ("self_attn.o_proj",),
    "feed_forward.w13": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.w2": ("mlp.down_proj",),
}


def int2(trits: NDArray[np.int8]) -> NDArray[np.int8]:
    """Codes trit + 2, [rows, cols / 4], in tiles of 16 x 32."""
    rows, cols = trits.shape
    words = np.zeros(rows * cols // 16, np.uint32)
    for tile_row in range(rows // 16):
        for tile_col in range(cols // 32):
            tile = trits[16 * tile_row :, 32 * tile_col :]
            base = (tile_row * (cols // 32) + tile_col) * 32
            for t in range(32):
                row, col = t // 16 * 8 + t % 8, 16 * (t % 16 // 8)
                for e in range(16):
                    code = int(tile[row, col + e]) + 2
                    words[base + t] |= np.uint32(code << (8 * (e % 4) + 2 * (e // 4)))
    return words.view(np.int8).reshape(rows, cols // 4)


def gpu_state(tiny: TinyCheckpoint, levels: bool = False) -> dict[str, Any]:
    """Tensors of torch; levels: matrices as floats -d, 0, +d instead of codes."""
    import torch

    config = tiny.config

    def stored(name: str) -> Any:
        dtype, shape, data = tiny.tensors[name]
        kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
        return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)

    state: dict[str, Any] = {}
    for name in tiny.tensors:
        if name in tiny.trits or name.endswith("_scale"):
            continue
        inner, prefix = name.removesuffix(".weight"), ""
        if inner.startswith("model.layers."):
            layer, inner = inner.removeprefix("model.layers.").split(".", 1)
            prefix = f"layers.{layer}."
        state[f"{prefix}{_NAMES[inner]}.weight"] = stored(name)
    state["output.weight"] = state["tok_embeddings.weight"]
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for fused, parts in _FUSED.items():
            trits, scales = [], []
            for part in parts:
                found = tiny.trits[f"model.layers.{layer}.{part}.weight"]
                if part[10] in heads and part.startswith("self_attn"):
                    found = permuted(found, heads[part[10]])
                trits.append(found)
                scales.append(float(tiny.scales[f"model.layers.{layer}.{part}.weight"][0]))
            name = f"layers.{layer}.{fused}.weight"
            if levels:
                each = [t * np.float32(s) for t, s in zip(trits, scales, strict=True)]
                state[name] = torch.from_numpy(np.concatenate(each)).to(torch.bfloat16)
                continue
            state[name] = torch.from_numpy(int2(np.concatenate(trits)))
            padded = [*scales, 0.0, 0.0, 0.0][:4]
            state[name + "_scale"] = torch.tensor(padded, dtype=torch.bfloat16)
    return state


def write_pt(path: Path, tiny: TinyCheckpoint, levels: bool = False) -> None:
    import torch

    torch.save(gpu_state(tiny, levels), path)
