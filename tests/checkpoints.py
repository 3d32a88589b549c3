"""Writes tiny random checkpoints of every variant that bitnetc reads.

    write_checkpoint(tmp_path / "ckpt", **VARIANTS["2b4t"])

Independent of the reader: packing, scales and the container are written here from the published
description, so that a test of the reader tests it against something else.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Model, Ternary, Trits
from bitnetc.synth import byte_characters, byte_level_tokenizer

Family = Literal[
    "bitnet",
    "llama-bitnet",
    "bitnet_b1_58",
    "qwen3-bitnet",
    "bitnet-embedding-qwen3",
    "bitnet-embedding-gemma3",
    "trilm",
    "ternary-bonsai",
    "bitcpm",
]
Storage = Literal["packed", "online", "floats", "levels"]
LinearClass = Literal["bitlinear", "autobitlinear"]
FloatType = Literal["bf16", "f16", "f32"]

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
SPECIAL_TEXTS = (BOS, EOS, "<|start_header_id|>", "<|end_header_id|>", EOT)

# What the matrices of a block are called in a checkpoint, by what bitnetc calls them.
MODULES = {
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}

# Every variant, by a name for test ids. Options left out have write_checkpoint's defaults.
VARIANTS: Mapping[str, dict[str, Any]] = {
    "2b4t": {},
    "2b4t-legacy-config": {"legacy": True},
    "2b4t-online-bf16": {"storage": "online"},
    "2b4t-online-f16": {"storage": "online", "dtype": "f16"},
    "2b4t-online-f32": {"storage": "online", "dtype": "f32"},
    "2b4t-unpacked-ternary": {"storage": "floats"},
    "2b4t-bitlinear": {"linear_class": "bitlinear"},
    "2b4t-untied": {"tied": False},
    "2b4t-silu": {"activation": "silu"},
    "2b4t-f16": {"dtype": "f16"},
    "2b4t-f32": {"dtype": "f32"},
    "2b4t-sharded": {"shards": 3, "layers": 3},
    "2b4t-rope-parameters": {"rope": "parameters"},
    "2b4t-odd-sizes": {"dim": 160, "ffn_dim": 220, "heads": 8, "kv_heads": 2},  # head_dim 20
    "2b4t-head-dim-100": {"dim": 200, "ffn_dim": 268, "heads": 2, "kv_heads": 1},
    "2b4t-gqa-8": {"dim": 128, "heads": 8, "kv_heads": 1},
    "2b4t-mha": {"kv_heads": 4},
    "2b4t-per-row": {"per_row": True},
    "2b4t-rows-not-in-fours": {"dim": 66, "ffn_dim": 90, "heads": 3, "kv_heads": 3},
    "llama3": {"family": "llama-bitnet"},
    "llama3-legacy-config": {"family": "llama-bitnet", "legacy": True},
    "llama3-mha": {"family": "llama-bitnet", "kv_heads": 4},
    "llama3-gqa-8": {"family": "llama-bitnet", "dim": 128, "heads": 8, "kv_heads": 1},
    "llama3-autobitlinear": {"family": "llama-bitnet", "linear_class": "autobitlinear"},
    "llama3-online": {
        "family": "llama-bitnet",
        "linear_class": "autobitlinear",
        "storage": "online",
    },
    "llama3-relu2": {"family": "llama-bitnet", "activation": "relu2"},
    "llama3-per-row": {"family": "llama-bitnet", "per_row": True},
    "falcon3": {"family": "llama-bitnet", "head_dim": 32, "dtype": "f16"},  # q_dim 128, dim 64
    "falcon3-narrow": {"family": "llama-bitnet", "dim": 96, "head_dim": 12, "shards": 2},
    "falcon-e-tied": {"family": "llama-bitnet", "tied": True, "kv_heads": 2},
    "llama3-odd-sizes": {
        "family": "llama-bitnet",
        "dim": 100,
        "ffn_dim": 340,
        "heads": 5,
        "kv_heads": 5,
    },
}
VARIANTS_1BITLLM: Mapping[str, dict[str, Any]] = {
    "1bitllm-f32": {"family": "bitnet_b1_58", "kv_heads": 4},
    "1bitllm-f16": {"family": "bitnet_b1_58", "kv_heads": 4, "dtype": "f16"},
    "1bitllm-bf16": {"family": "bitnet_b1_58", "kv_heads": 4, "dtype": "bf16"},
    "1bitllm-untied": {"family": "bitnet_b1_58", "kv_heads": 4, "tied": False},
    "1bitllm-xl": {"family": "bitnet_b1_58", "dim": 128, "ffn_dim": 340, "kv_heads": 4},
    "1bitllm-large": {"family": "bitnet_b1_58", "dim": 192, "heads": 2, "kv_heads": 2},  # hd 96
    "1bitllm-3b": {"family": "bitnet_b1_58", "dim": 200, "heads": 2, "kv_heads": 2},  # hd 100
}
# Graphs with norms of heads, norms inside projections, matrices kept in float, scaled frequencies.
VARIANTS_GRAPHS: Mapping[str, dict[str, Any]] = {
    "qwen3": {"family": "qwen3-bitnet", "head_dim": 32, "kv_heads": 2},
    "qwen2": {"family": "llama-bitnet", "biases": True, "kv_heads": 2},
    "qwen2-autobitlinear": {
        "family": "llama-bitnet",
        "biases": True,
        "linear_class": "autobitlinear",
    },
    "qwen3-yarn": {
        "family": "qwen3-bitnet",
        "kv_heads": 2,
        "config": {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    },
    "llama3-rope-scaling": {
        "family": "llama-bitnet",
        "config": {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    },
    "llama3-linear": {
        "family": "llama-bitnet",
        "config": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    },
    "llama3-inner-norms": {"family": "llama-bitnet", "inner_norms": "rms_norm"},
    "llama3-kept": {
        "family": "llama-bitnet",
        "kept": ("lm_head", "model.layers.0.self_attn.o_proj", "model.layers.1.mlp"),
    },
    # no int8 matrix is as wide as the floats
    "llama3-mlp-kept": {
        "family": "llama-bitnet",
        "ffn_dim": 320,
        "kept": ("lm_head", "model.layers.0.mlp", "model.layers.1.mlp"),
    },
}
# Scales of int8 activations stated by the checkpoint, some of which clamp.
VARIANTS_STATIC: Mapping[str, dict[str, Any]] = {
    "static": {"static": True},
    "static-llama3": {"family": "llama-bitnet", "static": True, "biases": True, "kv_heads": 2},
    "static-inner-norms": {"family": "llama-bitnet", "static": True, "inner_norms": "rms_norm"},
}
# Matrices of other widths beside ternary ones, also where two share an input.
VARIANTS_MIXED: Mapping[str, dict[str, Any]] = {
    "mixed": {
        "layers": 3,
        "ffn_dim": 352,
        "integers": {
            "model.layers.0.mlp.gate_proj": 4,
            "model.layers.0.self_attn.k_proj": 8,
            "model.layers.0.self_attn.o_proj": 6,
            "model.layers.1.self_attn": 2,
            "mlp.down_proj": 8,
            "model.layers.2.mlp": 16,
        },
    },
    "mixed-bitlinear": {
        "family": "llama-bitnet",
        "dim": 100,
        "ffn_dim": 340,
        "heads": 5,
        "kv_heads": 5,
        "per_row": True,
        "biases": True,
        "integers": {
            "self_attn.q_proj": 8,
            "model.layers.*.mlp": 4,
            "0.self_attn.o_proj": 6,
            "1.self_attn.o_proj": 2,
        },
    },
    "mixed-static": {"static": True, "integers": {"model.layers.*.self_attn": 4, "mlp.up_proj": 8}},
}
# Weights of one bit, in sizes that fill no block; activations of one bit and of three levels.
VARIANTS_LOW: Mapping[str, dict[str, Any]] = {
    "binary-per-row": {"zeros": 0.0, "dim": 240, "ffn_dim": 350, "heads": 8, "per_row": True},
    "signs": {"activation_bits": 1, "zeros": 0.0, "dim": 160, "ffn_dim": 220, "heads": 8},
    "three-levels": {
        "family": "llama-bitnet",
        "activation_bits": "ternary",
        "dim": 100,
        "ffn_dim": 340,
        "heads": 5,
        "kv_heads": 5,
    },
}
# Weight-only models: floats of three values, which activations do not follow into int8.
VARIANTS_LEVELS: Mapping[str, dict[str, Any]] = {
    "trilm": {"family": "trilm", "kv_heads": 4},
    "trilm-shards": {"family": "trilm", "kv_heads": 4, "scale_shape": "shards"},
    "trilm-odd-sizes": {"family": "trilm", "dim": 100, "ffn_dim": 340, "heads": 5, "kv_heads": 5},
    "bonsai": {"family": "ternary-bonsai", "dim": 128, "ffn_dim": 256, "kv_heads": 2},
    "bonsai-binary": {"family": "ternary-bonsai", "dim": 128, "ffn_dim": 256, "zeros": 0.0},
    "bonsai-untied": {"family": "ternary-bonsai", "dim": 128, "ffn_dim": 256, "tied": False},
    "bitcpm": {"family": "bitcpm", "dim": 128, "ffn_dim": 256, "kv_heads": 2},
}
# Models that make vectors of texts.
VARIANTS_EMBEDDING: Mapping[str, dict[str, Any]] = {
    "embedding-qwen3": {"family": "bitnet-embedding-qwen3", "head_dim": 32, "kv_heads": 2},
    "embedding-gemma3": {"family": "bitnet-embedding-gemma3", "head_dim": 32},
}
# transformers has no per-row scale, packs whole groups of four rows only, and lacks 1bitLLM's graph
TRANSFORMERS_VARIANTS = (
    *(name for name in VARIANTS if "per-row" not in name and "rows-not" not in name),
    *VARIANTS_GRAPHS,
)
VARIANTS = {
    **VARIANTS,
    **VARIANTS_1BITLLM,
    **VARIANTS_GRAPHS,
    **VARIANTS_LEVELS,
    **VARIANTS_EMBEDDING,
    **VARIANTS_STATIC,
    **VARIANTS_MIXED,
    **VARIANTS_LOW,
}


@dataclass(frozen=True)
class TinyCheckpoint:
    """What write_checkpoint writes, with the truth a reader must find."""

    config: dict[str, Any]
    generation_config: dict[str, Any]
    tokenizer: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, data
    trits: dict[str, NDArray[np.int8]]  # of each ternary matrix, by the name of its weight
    scales: dict[str, NDArray[np.float32]]  # its multiplier, [1], [rows] or [rows, groups]
    shards: int
    integers: dict[str, tuple[int, NDArray[np.int8]]]  # bits and values of each matrix of integers

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        _write_json(directory / "config.json", self.config)
        _write_json(directory / "generation_config.json", self.generation_config)
        _write_json(directory / "tokenizer.json", self.tokenizer)
        _write_json(
            directory / "tokenizer_config.json",
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS},
        )
        if self.shards == 1:
            (directory / "model.safetensors").write_bytes(safetensors_bytes(self.tensors))
            return
        names = list(self.tensors)
        weight_map: dict[str, str] = {}
        for shard in range(self.shards):
            file = f"model-{shard + 1:05d}-of-{self.shards:05d}.safetensors"
            part = {name: self.tensors[name] for name in names[shard :: self.shards]}
            (directory / file).write_bytes(safetensors_bytes(part))
            weight_map |= dict.fromkeys(part, file)
        total = sum(len(data) for _, _, data in self.tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(directory / "model.safetensors.index.json", index)


def write_checkpoint(directory: Path, **options: Any) -> None:
    """Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the
    weights into `directory`, which is made. For the options see tiny_checkpoint."""
    tiny_checkpoint(**options).write(directory)


def tiny_checkpoint(
    *,
    family: Family = "bitnet",
    storage: Storage | None = None,
    linear_class: LinearClass | None = None,
    legacy: bool = False,
    dim: int = 64,
    ffn_dim: int = 96,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 1,
    head_dim: int | None = None,
    vocab: int = 320,
    context: int = 128,
    activation: Literal["relu2", "silu"] | None = None,
    tied: bool | None = None,
    dtype: FloatType | None = None,
    per_row: bool = False,
    scale_shape: Literal["tensor", "shards", "groups"] | None = None,
    inner_norms: Literal["norm", "rms_norm"] | None = None,
    kept: tuple[str, ...] = (),
    integers: Mapping[str, int] | None = None,
    biases: bool = False,
    static: bool = False,
    activation_bits: int | str | None = None,
    shards: int = 1,
    rope: Literal["theta", "parameters"] = "theta",
    rope_theta: float = 10000.0,
    norm_eps: float = 1e-5,
    zeros: float = 0.42,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    generation_config: Mapping[str, Any] | None = None,
) -> TinyCheckpoint:
    """A random checkpoint in memory.

    family:       "bitnet" has sub-norms and defaults to relu2, tied, autobitlinear (2B-4T);
                  "llama-bitnet" has none and defaults to silu, untied, bitlinear (Llama3, Falcon);
                  "bitnet_b1_58" has them by other names and defaults to silu, tied, f32 masters,
                  without quantization_config (1bitLLM);
                  "qwen3-bitnet" is Qwen3's graph, packed;
                  "bitnet-embedding-*" have float masters and norms inside projections;
                  "trilm", "ternary-bonsai" and "bitcpm" have floats of three values.
    storage:      "packed" 2-bit codes; "online" float masters, to be quantised by their absolute
                  mean; "floats" -1, 0, +1 unpacked. The last two need autobitlinear.
    linear_class: "bitlinear" stores a weight_scale that divides, "autobitlinear" one that
                  multiplies.
    legacy:       the config as first published: offline_quantization for autobitlinear, no
                  linear_class and is_bitnet_config for bitlinear.
    head_dim:     dim / heads when None, and then also left out of config.json.
    vocab:        256 bytes, 5 special tokens, and merges trained on a small text: at most 384.
    dtype:        of embedding, head, norms, scales and masters.
    per_row:      one weight_scale per row instead of one per matrix.
    scale_shape:  of levels: one per matrix, for each quarter of its rows, or for 64 columns.
    inner_norms:  the name of a norm inside each projection.
    kept:         modules that stay in float, as modules_to_not_convert lists them.
    integers:     start (".*" stands for any text) or end of a module's name -> 2, 4 or 8 bits, or
                  16 for floats; the first that fits counts.
    biases:       of queries, keys and values, as Qwen2 has them.
    activation_bits: 1 or "ternary", as quantization_config says it.
    static:       with an input_scale beside each matrix, equal where matrices share an input.
    shards:       1 writes model.safetensors; more write shards and their index.
    rope:         rope_theta as a key of its own, or inside rope_parameters (transformers 5).
    zeros:        fraction of trits that are 0.
    config, generation_config: keys to set; None removes a key.
    """
    random = np.random.default_rng(seed)
    bitnet, b1_58 = family == "bitnet", family == "bitnet_b1_58"
    embeds, gemma = family.startswith("bitnet-embedding"), family.endswith("gemma3")
    levels = family in ("trilm", "ternary-bonsai", "bitcpm")
    head_norms = gemma or family in (
        "qwen3-bitnet",
        "bitnet-embedding-qwen3",
        "ternary-bonsai",
    )
    linear_class = linear_class or ("bitlinear" if family == "llama-bitnet" else "autobitlinear")
    storage = storage or (
        "online" if b1_58 or embeds else "levels" if levels else "packed"
    )  # fmt: skip
    dtype = dtype or ("f32" if b1_58 else "f16" if levels else "bf16")
    activation = activation or ("relu2" if bitnet else "silu")
    tied = family not in ("llama-bitnet", "trilm") if tied is None else tied
    scale_shape = scale_shape or ("groups" if family in ("ternary-bonsai", "bitcpm") else "tensor")
    inner_norms = "norm" if embeds else inner_norms
    width = head_dim or dim // heads
    if head_norms:
        head_dim = width  # Qwen3's and Gemma's configs have defaults of their own
    sub_norms = {
        "bitnet": ("self_attn.attn_sub_norm.weight", "mlp.ffn_sub_norm.weight"),
        "bitnet_b1_58": ("self_attn.inner_attn_ln.weight", "mlp.ffn_layernorm.weight"),
    }.get(family)
    q_dim, kv_dim = heads * width, kv_heads * width
    assert storage == "packed" or linear_class == "autobitlinear"
    assert not (per_row and storage == "online")

    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    trits: dict[str, NDArray[np.int8]] = {}
    scales: dict[str, NDArray[np.float32]] = {}
    whole: dict[str, tuple[int, NDArray[np.int8]]] = {}

    def floats(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        """Stores values rounded to `dtype`; returns what was stored."""
        data, stored = rounded(values, dtype)
        tensors[name] = (dtype.upper(), values.shape, data)
        return stored

    def norm(name: str, size: int, mean: float = 1.0) -> None:
        floats(name, mean + 0.1 * random.standard_normal(size))

    def matrix(name: str, rows: int, cols: int) -> None:
        if inner_norms and "_proj" in name:
            norm(name.replace("_proj.", f"_proj.{inner_norms}."), cols)
        spread = 1 / np.sqrt((1 - zeros) * cols)
        bits = next((b for m, b in (integers or {}).items() if _within(name, m)), 0)
        if any(name.startswith(module) for module in kept) or bits == 16:
            floats(name, random.standard_normal((rows, cols)) / np.sqrt(cols))
            return
        if bits:
            edge = 1 << (bits - 1)
            values = random.integers(-edge, edge, (rows, cols), dtype=np.int8)
            whole[name] = bits, values
            tensors[name] = ("I8", values.shape, values.tobytes())
            step = np.sqrt(3 / cols) / edge
            multiplier = step * random.uniform(0.7, 1.4, (rows, 1) if per_row else 1)
            scales[name] = floats(name + "_scale", multiplier).reshape(-1)
            return
        if storage == "online":
            stored = floats(name, spread * random.standard_normal((rows, cols)))
            inverse = 1 / np.maximum(np.abs(stored).mean(dtype=np.float64), 1e-5)
            inverse = np.float32(1) / np.float32(1 / inverse)
            trits[name] = np.clip(np.rint(stored * inverse), -1, 1).astype(np.int8)
            scales[name] = np.array([np.float32(1) / inverse], dtype=np.float32)
            return
        sign = random.choice(np.array([-1, 1], dtype=np.int8), (rows, cols))
        trits[name] = sign * (random.random((rows, cols)) >= zeros).astype(np.int8)
        if storage == "levels":
            count = {"tensor": (1, 1), "shards": (4, 1), "groups": (rows, cols // 64)}[scale_shape]
            each = rounded(spread * random.uniform(0.7, 1.4, count), dtype)[1]
            scale = np.repeat(each, rows // count[0], axis=0)
            floats(name, trits[name] * np.repeat(scale, cols // count[1], axis=1))
            scales[name] = each[0] if count == (1, 1) else scale if count[1] > 1 else scale[:, 0]
            return
        if storage == "packed":
            packed = pack(trits[name])
            tensors[name] = ("U8", packed.shape, packed.tobytes())
        else:
            floats(name, trits[name].astype(np.float32))
        multiplier = spread * random.uniform(0.7, 1.4, rows if per_row else 1)
        divides = linear_class == "bitlinear"
        stored = floats(name + "_scale", 1 / multiplier if divides else multiplier)
        scales[name] = (np.float32(1) / stored if divides else stored).astype(np.float32)

    def end(name: str) -> None:
        if scale_shape == "groups" and family == "ternary-bonsai":
            matrix(name, vocab, dim)
        else:
            floats(name, 3 / np.sqrt(dim) * random.standard_normal((vocab, dim)))

    mean = 0.0 if gemma else 1.0  # Gemma's norms mean 1 + w
    top = "" if embeds else "model."
    end(top + "embed_tokens.weight")
    for layer in range(layers):
        prefix = f"{top}layers.{layer}."
        norm(prefix + "input_layernorm.weight", dim, mean)
        if head_norms:
            norm(prefix + "self_attn.q_norm.weight", width, mean)
            norm(prefix + "self_attn.k_norm.weight", width, mean)
        matrix(prefix + "self_attn.q_proj.weight", q_dim, dim)
        matrix(prefix + "self_attn.k_proj.weight", kv_dim, dim)
        matrix(prefix + "self_attn.v_proj.weight", kv_dim, dim)
        for part, rows in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)) if biases else ():
            floats(f"{prefix}self_attn.{part}_proj.bias", random.standard_normal(rows))
        if sub_norms:
            norm(prefix + sub_norms[0], q_dim)
        matrix(prefix + "self_attn.o_proj.weight", dim, q_dim)
        norm(prefix + "post_attention_layernorm.weight", dim, mean)
        if gemma:
            norm(prefix + "pre_feedforward_layernorm.weight", dim, mean)
            norm(prefix + "post_feedforward_layernorm.weight", dim, mean)
        matrix(prefix + "mlp.gate_proj.weight", ffn_dim, dim)
        matrix(prefix + "mlp.up_proj.weight", ffn_dim, dim)
        if sub_norms:
            norm(prefix + sub_norms[1], ffn_dim)
        matrix(prefix + "mlp.down_proj.weight", dim, ffn_dim)
    norm(top + "norm.weight", dim, mean)
    if not tied:
        end("lm_head.weight")

    step = 0.01
    for name in [name for name in tensors if static and name.endswith("_proj.weight")]:
        shared = ("k_proj", "v_proj", "up_proj") if not inner_norms else ()
        if not any(part in name for part in shared):
            step = 0.01 * random.uniform(0.7, 1.4)
        scale = np.array([step], np.float32)
        tensors[name.replace(".weight", ".input_scale")] = ("F32", (1,), scale.tobytes())

    specials = special_ids(vocab)
    bos, eos, eot = (specials[text] for text in (BOS, EOS, EOT))
    keys: dict[str, Any] = {
        "architectures": [
            {"bitnet": "BitNetForCausalLM", "bitnet_b1_58": "BitnetForCausalLM"}.get(
                family, "LlamaForCausalLM"
            )
        ],
        "model_type": "bitnet" if bitnet else "llama",
        "hidden_size": dim,
        "intermediate_size": ffn_dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": activation,
        "rms_norm_eps": norm_eps,
        "max_position_embeddings": context,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype],
        "quantization_config": _quantization_config(linear_class, storage, legacy),
    }
    if kept:
        keys["quantization_config"]["modules_to_not_convert"] = list(kept)
    if integers:
        keys["quantization_config"]["modules"] = {m: {"bits": b} for m, b in integers.items()}
    if activation_bits is not None:
        keys["quantization_config"]["activation_bits"] = activation_bits
    if inner_norms == "rms_norm":
        keys["quantization_config"] |= {"use_rms_norm": True, "rms_norm_eps": 1e-6}
    if embeds or levels:
        del keys["quantization_config"]
    keys |= _graph_keys(family, layers)
    if biases:
        keys |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    if b1_58:
        del keys["quantization_config"]
        keys |= {"weight_bits": 1, "input_bits": 8, "rope_scaling": None}
    if legacy and not bitnet:
        keys["is_bitnet_config"] = True
    if rope == "theta":
        keys["rope_theta"] = rope_theta
    else:
        keys["rope_parameters"] = {"rope_type": "default", "rope_theta": rope_theta}
    generation: dict[str, Any] = {"bos_token_id": bos, "eos_token_id": [eos, eot]}
    return TinyCheckpoint(
        config=_with(keys, config),
        generation_config=_with(generation, generation_config),
        tokenizer=tiny_tokenizer(vocab),
        tensors=tensors,
        trits=trits,
        scales=scales,
        shards=shards,
        integers=whole,
    )


def _within(name: str, module: str) -> bool:
    """Whether a weight belongs to a module whose name is given from its start or to its end."""
    start = module.replace(".", r"\.").replace(r"\.*", ".*")
    return bool(re.match(start + r"\.", name)) or name.endswith(module + ".weight")


def _graph_keys(family: Family, layers: int) -> dict[str, Any]:
    """What the config of a graph that is not Llama's says."""
    if family == "bitnet-embedding-gemma3":
        return {
            "architectures": ["Gemma3TextModel"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_act": None,
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "layer_types": (["sliding_attention", "full_attention"] * layers)[:layers],
            "rope_local_base_freq": 1000.0,
        }
    if family == "bitcpm":
        return {
            "architectures": ["MiniCPMForCausalLM"],
            "model_type": "minicpm",
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 32,
        }
    if family in ("qwen3-bitnet", "bitnet-embedding-qwen3", "ternary-bonsai"):
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    return {}


def _quantization_config(
    linear_class: LinearClass, storage: Storage, legacy: bool
) -> dict[str, Any]:
    if legacy and linear_class == "autobitlinear":
        return {"quant_method": "bitnet", "offline_quantization": True}
    keys: dict[str, Any] = {"quant_method": "bitnet", "modules_to_not_convert": None}
    if legacy:
        return keys
    mode = "online" if storage == "online" else "offline"
    return keys | {"linear_class": linear_class, "quantization_mode": mode}


def _with(keys: dict[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**keys, **(changes or {})}
    return {key: value for key, value in merged.items() if value is not None}


def pack(trits: NDArray[np.int8]) -> NDArray[np.uint8]:
    """2-bit codes uint8 [ceil(rows / 4), cols]: row p + i * quarter in bits 2i, 2i+1 of row p."""
    quarter = -(-len(trits) // 4)
    packed = np.zeros((quarter, trits.shape[1]), dtype=np.uint8)
    for row, values in enumerate(trits):
        packed[row % quarter] |= ((values + 1) << (2 * (row // quarter))).astype(np.uint8)
    return packed


def rounded(values: NDArray[Any], dtype: FloatType) -> tuple[bytes, NDArray[np.float32]]:
    """Values as stored in `dtype`: the bytes, and what they mean as float32."""
    single = values.astype(np.float32)
    if dtype == "f32":
        return single.tobytes(), single
    if dtype == "f16":
        half = single.astype(np.float16)
        return half.tobytes(), half.astype(np.float32)
    words = single.view(np.uint32)
    upper = ((words + np.uint32(0x7FFF) + ((words >> 16) & 1)) >> 16).astype(np.uint16)
    return upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32)


def safetensors_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A safetensors file: name -> (dtype, shape, data)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        end = offset + len(data)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(data for _, _, data in tensors.values())
    return len(text).to_bytes(8, "little") + text + data


def special_ids(vocab: int) -> dict[str, int]:
    """The special tokens, which have the last ids of the vocabulary."""
    first = vocab - len(SPECIAL_TEXTS)
    return {text: first + i for i, text in enumerate(SPECIAL_TEXTS)}


def tiny_tokenizer(vocab: int) -> dict[str, Any]:
    """A byte-level BPE in the Llama-3 structure, merges trained on TEXT."""
    specials = special_ids(vocab)
    merges = trained_merges()
    needed = vocab - 256 - len(specials)
    assert 0 <= needed <= len(merges), f"vocab {vocab}: needs 261 to {261 + len(merges)}"
    by_id = {token: text for text, token in specials.items()}
    return byte_level_tokenizer(vocab, by_id, specials[BOS], merges[:needed])


TEXT = """It is a truth universally acknowledged, that a single man in possession of a good fortune,
must be in want of a wife. However little known the feelings or views of such a man may be on his
first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding
families, that he is considered the rightful property of some one or other of their daughters.
"My dear Mr. Bennet," said his lady to him one day, "have you heard that Netherfield Park is let
at last?" Mr. Bennet replied that he had not. "But it is," returned she; "for Mrs. Long has just
been here, and she told me all about it." Mr. Bennet made no answer. "Do you not want to know who
has taken it?" cried his wife impatiently. "You want to tell me, and I have no objection to hearing
it." This was invitation enough. "Why, my dear, you must know, Mrs. Long says that Netherfield is
taken by a young man of large fortune from the north of England; that he came down on Monday in a
chaise and four to see the place, and was so much delighted with it that he agreed with Mr. Morris
immediately; that he is to take possession before Michaelmas, and some of his servants are to be
in the house by the end of next week."
"""


@cache
def trained_merges(count: int = 123) -> tuple[tuple[str, str], ...]:
    """Byte-pair merges of TEXT, most frequent pair first, ties by text."""
    characters = byte_characters()
    words = Counter(
        tuple(characters[byte] for byte in word.encode())
        for word in re.findall(r" ?[A-Za-z]+|[^A-Za-z]", TEXT)
    )
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            parts: list[str] = []
            for piece in word:
                if parts and (parts[-1], piece) == best:
                    parts[-1] += piece
                else:
                    parts.append(piece)
            joined[tuple(parts)] += times
        words = joined
    return tuple(merges)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def without(matrix: object, rows: list[int]) -> Ternary:
    """The matrix with these rows zero."""
    assert isinstance(matrix, Ternary)

    def load_planted() -> Trits:
        trits = matrix.load().copy()
        trits[rows] = 0
        return trits

    return replace(matrix, load=load_planted)


def planted(model: Model) -> Model:
    """In each block other units of zeros: by the gate, by up, and by both."""
    blocks = []
    for i, block in enumerate(model.blocks):
        gate = without(block.w_gate, [i, 17, *range(32, 64)])
        up = without(block.w_up, [40, 95, 16 + i, *range(64, 80 + i)])
        blocks.append(replace(block, w_gate=gate, w_up=up))
    return replace(model, blocks=tuple(blocks))
