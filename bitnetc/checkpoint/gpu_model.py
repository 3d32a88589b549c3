"""The `.pt` checkpoint of BitNet's GPU engine -> Checkpoint, in the names of transformers.

Query, key and value are one matrix there, gate and up another; trits are 2-bit codes (trit + 2) in
tiles of 16 rows and 32 columns; rows of query and key heads are in the order that turns neighbours.
Source: microsoft/BitNet `gpu/convert_checkpoint.py`, `gpu/pack_weight.py`, `gpu/model.py`.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint import torch_zip
from bitnetc.checkpoint.checkpoint import Checkpoint
from bitnetc.checkpoint.fields import Fields, read_object, shown
from bitnetc.checkpoint.levels import STORED, as_ternary, looks_ternary, words_of
from bitnetc.checkpoint.tensor import Tensor, TernaryTensor
from bitnetc.errors import BitnetcError
from bitnetc.model import DenseType, Source, to_float32
from bitnetc.tokenizer import read_tokenizer

_ROWS, _COLS = 16, 32  # of a tile
_DENSE: Mapping[str, DenseType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_AGAIN = "convert the checkpoint again, with gpu/convert_checkpoint.py"
_CONFIG_HINT = "put the config.json of the original model beside the file"

# gpu/model.py holds these as defaults; the file itself says nothing of heads, theta and eps.
_2B4T: Mapping[str, Any] = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 30,
    "num_attention_heads": 20,
    "num_key_value_heads": 5,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "relu2",
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128009],
}
_TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_NORMS = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.attn_sub_norm": "self_attn.attn_sub_norm",
    "feed_forward.ffn_sub_norm": "mlp.ffn_sub_norm",
}
_MATRICES = {
    "attention.wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.wo": ("self_attn.o_proj",),
    "feed_forward.w13": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.w2": ("mlp.down_proj",),
}
_LAYER = re.compile(r"layers\.(\d{1,4})\.(.+)\.(weight|weight_scale)")


def read_gpu(path: Path) -> Checkpoint:
    """Opens a `.pt` file. Errors: damaged files, and files that hold something else."""
    stored = torch_zip.read(path)
    notes: list[str] = []
    config, files = _config(path, stored, notes)
    fields = Fields(str(files[0] if files else path), config)
    heads = fields.integer("num_attention_heads", 1, 1 << 10)
    kv_heads = fields.integer("num_key_value_heads", 1, 1 << 10, heads)
    dim = fields.integer("hidden_size", 1, 1 << 17)
    head_dim = fields.integer("head_dim", 1, 1 << 12, max(1, dim // heads))
    ffn_dim = fields.integer("intermediate_size", 1, 1 << 19)
    rows = {
        "attention.wqkv": (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim),
        "attention.wo": (dim,),
        "feed_forward.w13": (ffn_dim, ffn_dim),
        "feed_forward.w2": (dim,),
    }
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        found = _LAYER.fullmatch(name)
        if name in _TOP:
            tensors[_TOP[name]] = tensor
        elif not found or found[1] != str(int(found[1])):
            notes.append(f"{path}: tensor {shown(name)} has no role and was ignored")
        elif found[2] in _NORMS and found[3] == "weight":
            tensors[f"model.layers.{found[1]}.{_NORMS[found[2]]}.weight"] = tensor
        elif found[2] in _MATRICES and found[3] == "weight":
            scale = stored.get(f"{name}_scale")
            names = [f"model.layers.{found[1]}.{part}.weight" for part in _MATRICES[found[2]]]
            parts = _split(tensor, scale, rows[found[2]])
            tensors.update(zip(names, parts, strict=True))
        elif found[2] not in _MATRICES:
            notes.append(f"{path}: tensor {shown(name)} has no role and was ignored")
    generation: Mapping[str, Any] = {}
    if (path.parent / "generation_config.json").is_file() and files:
        files.append(path.parent / "generation_config.json")
        generation = read_object(files[-1])
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        if (path.parent / name).is_file():
            files.append(path.parent / name)
    return Checkpoint(
        path=path,
        config=config,
        generation_config=generation,
        tensors=tensors,
        sources=tuple(Source(file, file.stat().st_size) for file in (*files, path)),
        tokenizer=partial(read_tokenizer, path.parent),
        notes=tuple(notes),
        container="pt",
        interleaved=True,
        config_file=files[0] if files and files[0].name == "config.json" else None,
    )


def _config(
    path: Path, stored: Mapping[str, Tensor], notes: list[str]
) -> tuple[dict[str, Any], list[Path]]:
    """config.json beside the file, or what 2B-4T's is known to be when the shapes are its own."""
    beside = path.parent / "config.json"
    if "layers.0.attention.wqkv.weight" not in stored:
        raise BitnetcError(
            str(path),
            "holds no tensor layers.0.attention.wqkv.weight, so it is not of BitNet's GPU engine",
            "save other models as safetensors: save_pretrained of transformers",
        )
    declared = {"quantization_config": {"quant_method": "bitnet"}}
    if beside.is_file():
        config = {**read_object(beside), **declared}
        return config, [beside]
    layers = sum(bool(re.fullmatch(r"layers\.\d+\.attention\.wo\.weight", n)) for n in stored)
    shapes = {name: stored[name].shape for name in _TOP if name in stored}
    if layers != 30 or shapes.get("tok_embeddings.weight") != (128256, 2560):
        raise BitnetcError(
            str(path), "does not say its heads, rope_theta and eps, and is not 2B-4T", _CONFIG_HINT
        )
    notes.append(
        f"{path} has no config.json beside it: heads, rope_theta, eps and activation are taken "
        "from microsoft/bitnet-b1.58-2B-4T, whose shapes it has"
    )
    return {**_2B4T, **declared}, []


def _split(tensor: Tensor, scale: Tensor | None, rows: tuple[int, ...]) -> list[Tensor]:
    """The matrices that lie below one another in a tensor."""
    if len(tensor.shape) != 2 or tensor.shape[0] != sum(rows):
        raise BitnetcError(
            tensor.where,
            f"has shape {shown(list(tensor.shape))}; the config asks for {sum(rows)} rows",
            _CONFIG_HINT,
        )
    if tensor.dtype in ("I8", "U8"):
        return _packed(tensor, scale, rows)
    if tensor.dtype not in STORED:
        raise BitnetcError(tensor.where, f"stored as {tensor.dtype}", _AGAIN)
    words = words_of(tensor)
    if not looks_ternary(words):
        raise BitnetcError(
            tensor.where,
            "holds float masters, not trits",
            f"{_AGAIN}, or use the safetensors it was made from",
        )
    parts: list[Tensor] = []
    begin = 0
    for count in rows:
        part = words[begin : begin + count]
        slice_ = Tensor(
            tensor.name, tensor.dtype, part.shape, tensor.file, part.reshape(-1).view(np.uint8)
        )
        parts.append(as_ternary(slice_, partial(words_of, slice_)))
        begin += count
    return parts


def _packed(tensor: Tensor, scale: Tensor | None, rows: tuple[int, ...]) -> list[Tensor]:
    cols = 4 * tensor.shape[1]
    if cols % _COLS or any(count % _ROWS for count in rows):
        raise BitnetcError(
            tensor.where,
            f"{shown([*rows])} x {cols} are no whole tiles of {_ROWS} x {_COLS}",
            _AGAIN,
        )
    if scale is None or scale.dtype not in _DENSE or scale.raw.size == 0:
        what = "has no float weight_scale beside it"
        raise BitnetcError(tensor.where, what, _AGAIN)
    view: NDArray[np.generic] = scale.raw.view(STORED[scale.dtype])
    if scale.dtype != "BF16":
        view = view.view("<f4" if scale.dtype == "F32" else "<f2")
    multipliers = to_float32(view, _DENSE[scale.dtype])
    if len(multipliers) < len(rows):
        raise BitnetcError(
            scale.where, f"has {len(multipliers)} values for {len(rows)} matrices", _AGAIN
        )
    parts: list[Tensor] = []
    begin = 0
    for i, count in enumerate(rows):
        raw = tensor.raw[begin * cols // 4 : (begin + count) * cols // 4]
        d = np.array([[multipliers[i]]], np.float32)
        where = f"{tensor.where}: {count} rows from {begin}"
        parts.append(
            TernaryTensor(
                tensor.name,
                "int2",
                (count, cols),
                tensor.file,
                raw,
                partial(np.copy, d),
                partial(unpack_tiles, where, raw, count, cols),
            )
        )
        begin += count
    return parts


def unpack_tiles(where: str, raw: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.int8]:
    """Trits of 2-bit codes in tiles. Errors: code 0, which is no trit.

    In a tile, word t of 32 holds row t / 16 * 8 + t % 8, columns t % 16 / 8 * 16 and 15 more; code
    e of a word lies at bit 8 (e % 4) + 2 (e / 4).
    """
    out = np.empty((rows, cols), dtype=np.int8)
    # tile down; row / 8, row % 8; tile across, column half, e / 4, e % 4
    into = out.reshape(rows // 16, 2, 8, cols // 32, 2, 4, 4).view(np.uint8)
    # tile down, tile across; row / 8, column half, row % 8; e % 4
    stored = raw.reshape(rows // 16, cols // 32, 2, 2, 8, 4)
    for i in range(rows // 16):
        codes = stored[i].transpose(1, 3, 0, 2, 4)
        for quarter in range(4):
            np.bitwise_and(codes >> np.uint8(2 * quarter), 3, out=into[i, ..., quarter, :])
    if not out.all():
        raise BitnetcError(where, "holds code 0, which is no trit", _AGAIN)
    out -= 2
    return out
