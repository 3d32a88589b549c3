"""GGUF files of the embedding models, written as BitNet's converter writes them.

Norms are in float16, 1 + w stored of Gemma's own; its vocabulary is written in llama.cpp's form.
"""

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import VARIANTS_EMBEDDING, TinyCheckpoint, tiny_checkpoint
from gguf_files import gguf_name, write_gguf


def embedding_checkpoint(name: str, **more: Any) -> TinyCheckpoint:
    """A tiny model whose norms float16 can hold as 1 + w."""
    config = {"query_pre_attn_scalar": 32} if name.endswith("gemma3") else {}
    tiny = tiny_checkpoint(**{**VARIANTS_EMBEDDING[name], "dtype": "f16", "config": config, **more})
    for key, (dtype, shape, data) in tiny.tensors.items():
        if len(shape) == 1:
            coarse = np.rint(np.frombuffer(data, np.float16) * 512) / 512
            tiny.tensors[key] = (dtype, shape, coarse.astype(np.float16).tobytes())
    return tiny


def write_embedding(
    path: Path,
    tiny: TinyCheckpoint,
    packing: str = "I2_S",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> None:
    gemma = tiny.config["model_type"] == "gemma3_text"
    architecture = "gemma3" if gemma else "qwen3"
    own = {}
    for name, (dtype, shape, data) in tiny.tensors.items() if gemma else ():
        if len(shape) == 1 and "_proj." not in name:
            stored = np.frombuffer(data, np.float16) + np.float16(1)
            own[gguf_name(name, gemma)] = (dtype, shape, stored.tobytes())
    keys = {
        f"{architecture}.attention.key_length": tiny.config["head_dim"],
        f"{architecture}.attention.value_length": tiny.config["head_dim"],
        f"{architecture}.pooling_type": 1,
    }
    if gemma:
        keys |= {
            "gemma3.attention.sliding_window": tiny.config["sliding_window"],
            "gemma3.attention.sliding_window_pattern": 2,
            "gemma3.rope.freq_base_swa": tiny.config["rope_local_base_freq"],
        }
    else:
        keys |= {
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.add_bos_token": None,
            "tokenizer.ggml.add_eos_token": True,
        }
    write_gguf(
        path, tiny, packing, architecture, {**keys, **(metadata or {})}, {**own, **(tensors or {})}
    )


def gemma_tokenizer(vocab: int) -> dict[str, Any]:
    """A tokenizer.json of Gemma's structure: spaces as U+2581, merges of characters by rank, bytes
    to fall back on."""
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz", "."]
    first = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{b:02X}>" for b in range(256))]
    joined = ["th", "the", "\u2581a", "\u2581the", "an", "ing", "in", "ng", "\u2581\u2581", "er"]
    joined += ["man", "wife", "wi", "fe", "uni", "un", "ni", "ife", "erin", "sin", "sing"]
    pieces = [*first, *letters, *joined][:vocab]
    merges = []
    for piece in joined:
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges += [[a, b] for a, b in splits if a in pieces and b in pieces]
    added = [
        {
            "id": i, "content": first[i], "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for i in range(4)
    ]  # fmt: skip
    return {
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges,
        },
    }
