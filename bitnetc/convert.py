"""convert: any checkpoint that is read -> a Hugging Face folder of packed safetensors.

Matrices become 2-bit codes in the form that transformers reads and bitnetc reads fastest, with
float32 scales that multiply (linear_class autobitlinear, offline), so that the converted model is
the same in every bit. Weights are streamed: one matrix is in memory at a time.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc import families
from bitnetc.checkpoint import Checkpoint, I2sLayout, read
from bitnetc.checkpoint.safetensors import beginning
from bitnetc.errors import BitnetcError
from bitnetc.model import Block, Dense, FfnActivation, Integers, Model, Ternary, Trits, Vector
from bitnetc.normalise import as_masters, normalise
from bitnetc.tokenizer import Tokenizer, read_tokenizer

Progress = Callable[[str, int, int], None]

_TYPES = {"f32": ("F32", "float32"), "f16": ("F16", "float16"), "bf16": ("BF16", "bfloat16")}
_CHUNK = 1 << 24  # bytes of a dense matrix written at a time
_MARGIN = 64 << 20  # bytes of free disk beyond the weights, for the tokenizer
# Keys of a config that describe tokens, not the graph; and those that say how weights are stored.
_KEPT_KEYS = ("bos_token_id", "pad_token_id", "unk_token_id")
_DROPPED_KEYS = frozenset(
    ["quantization_config", "weight_bits", "input_bits", "is_bitnet_config", "auto_map", "dtype"]
)


@dataclass(frozen=True)
class _Stored:
    """A tensor to be written; `pieces` yields its bytes in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # in bytes
    pieces: Callable[[], Iterator[bytes]]


def convert(
    path: Path,
    out: Path,
    *,
    i2s_layout: I2sLayout = "128",
    ffn_activation: FfnActivation | None = None,
    masters: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Model:
    """Writes the checkpoint at `path` into `out`, a new or empty folder; returns what was read.

    masters: its matrices are float masters, whatever it does not say
    Everything goes to a folder beside `out` first, which is renamed at the end or removed.
    Errors: whatever reading refuses; models that the packed form cannot hold; folder in use; disk
    full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise BitnetcError(f"-o {out}", what, "name a new folder")
    checkpoint = read(path, i2s_layout=i2s_layout)
    if masters:
        checkpoint = as_masters(checkpoint)
    model = normalise(checkpoint, path.resolve().name, ffn_activation=ffn_activation)
    tensors = _tensors(model)
    part = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        needed = sum(tensor.size for tensor in tensors) + _MARGIN
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise BitnetcError(
                f"-o {out}", f"needs {needed} bytes; {free} are free", "name another disk"
            )
        part.mkdir()
        for name, content in checkpoint.carried().items():
            (part / name).write_bytes(content)
        _write_json(part / "config.json", _config(checkpoint, model))
        _write_json(part / "generation_config.json", _generation_config(checkpoint, model))
        _check_tokenizer(part, path, model.tokenizer)
        _write_tensors(part / "model.safetensors", tensors, progress)
        differing = _difference(normalise(read(part), model.name), model)
        if differing:
            raise _refusal(f"this model's {differing}")
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise BitnetcError(
            f"-o {out}",
            f"cannot be written: {error.strerror or error}",
            "free some space or name another disk; nothing was left behind",
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return model


def _refusal(what: str) -> BitnetcError:
    return BitnetcError(
        "the packed form of transformers",
        f"has no room for {what}",
        "compile the checkpoint as it is",
    )


def _family(model: Model) -> families.Family:
    """The family whose names the tensors get: 1bitLLM's graph is that of BitNet with SiLU."""
    if model.family == families.BITNET_B1_58.name:
        return families.BITNET
    for family in (families.BITNET, families.LLAMA_BITNET, families.QWEN3_BITNET):
        if model.family == family.name and not model.float_activations:
            return family
    raise _refusal(f"models of the family {model.family}")


def _dense_of(what: str, matrix: Ternary | Dense) -> Dense:
    if not isinstance(matrix, Dense):
        raise _refusal(f"a ternary {what}")
    return matrix


def _ternary_of(block: Block, role: str) -> Ternary:
    value = getattr(block, role)
    if not isinstance(value, Ternary):
        raise _refusal(f"{'integers' if isinstance(value, Integers) else 'floats'} as {role}")
    if value.scale.ndim != 1:
        raise _refusal("scales of groups")
    return value


def _tensors(model: Model) -> list[_Stored]:
    """Everything to be written, floats first, so that all are aligned."""
    if model.activations != "int8":
        raise _refusal("activations of one bit or three levels")
    family = _family(model)
    found = [_dense(family.top["embedding"], _dense_of("embedding", model.embedding))]
    if not model.tied:
        found.append(_dense(family.top["head"], _dense_of("head", model.head)))
    found.append(_vector(family.top["final_norm"], model.final_norm))
    packed: list[_Stored] = []
    for layer, block in enumerate(model.blocks):
        prefix = family.layer.replace("N", str(layer))
        for role, value in vars(block).items():
            if not isinstance(value, np.ndarray | Ternary | Integers | Dense):
                continue
            if role not in family.block:
                raise _refusal(role)
            name = prefix + family.block[role]
            if isinstance(value, np.ndarray):
                found.append(_vector(name, value))
                continue
            matrix = _ternary_of(block, role)
            found.append(_vector(f"{name}_scale", matrix.scale))
            packed.append(_packed(name, matrix))
    return [*sorted(found, key=lambda tensor: tensor.dtype != "F32"), *packed]


def _vector(name: str, values: Vector) -> _Stored:
    raw = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return _Stored(name, "F32", values.shape, len(raw), lambda: iter([raw]))


def _dense(name: str, matrix: Dense) -> _Stored:
    def pieces() -> Iterator[bytes]:
        values = matrix.load()
        step = max(1, _CHUNK // (matrix.cols * matrix.bytes_per_value))
        for begin in range(0, matrix.rows, step):
            part = values[begin : begin + step]
            yield np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).tobytes()

    size = matrix.rows * matrix.cols * matrix.bytes_per_value
    return _Stored(name, _TYPES[matrix.dtype][0], (matrix.rows, matrix.cols), size, pieces)


def _packed(name: str, matrix: Ternary) -> _Stored:
    shape = (-(-matrix.rows // 4), matrix.cols)
    size = shape[0] * shape[1]
    return _Stored(name, "U8", shape, size, lambda: iter([pack(matrix.load()).tobytes()]))


def pack(trits: Trits) -> NDArray[np.uint8]:
    """2-bit codes [ceil(rows / 4), cols] of trits [rows, cols]: the inverse of normalise.unpack.

    Fields past the last row hold 0.
    """
    rows, cols = trits.shape
    quarter = -(-rows // 4)
    out = np.zeros((quarter, cols), dtype=np.uint8)
    for field in range(4):
        part = trits[field * quarter : (field + 1) * quarter].view(np.uint8)
        into = out[: len(part)]
        codes = part + np.uint8(1)
        codes <<= np.uint8(2 * field)
        into |= codes
    return out


def _write_tensors(path: Path, tensors: list[_Stored], progress: Progress) -> None:
    start = beginning((t.name, t.dtype, t.shape, t.size) for t in tensors)
    total = sum(t.size for t in tensors)
    done = 0
    with path.open("wb") as file:
        file.write(start)
        for tensor in tensors:
            for piece in tensor.pieces():
                file.write(piece)
                done += len(piece)
                progress("writing model.safetensors", done, total)
        assert file.tell() == len(start) + total


def _config(checkpoint: Checkpoint, model: Model) -> dict[str, Any]:
    """What config.json says already, where there is one; everything that names the graph anew."""
    shape = model.shape
    family = _family(model)
    eos = model.eos[0] if len(model.eos) == 1 else list(model.eos) or None
    kept = {key: checkpoint.config.get(key) for key in _KEPT_KEYS}
    if checkpoint.config_file:
        kept = {k: v for k, v in checkpoint.config.items() if k not in _DROPPED_KEYS}
    named = {
        families.BITNET.name: ("BitNetForCausalLM", "bitnet"),
        families.LLAMA_BITNET.name: ("LlamaForCausalLM", "llama"),
        families.QWEN3_BITNET.name: ("Qwen3ForCausalLM", "qwen3"),
    }[family.name]
    rope = {} if kept.get("rope_parameters") else {"rope_theta": model.rope_theta}
    return {
        **kept,
        "architectures": [named[0]],
        "model_type": named[1],
        "hidden_size": shape.dim,
        "intermediate_size": shape.ffn_dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": model.ffn_activation,
        "rms_norm_eps": model.norm_eps,
        **rope,
        "max_position_embeddings": shape.context,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": model.tied,
        "attention_bias": False,
        "torch_dtype": _TYPES[_dense_of("embedding", model.embedding).dtype][1],
        "eos_token_id": eos,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": None,
        },
    }


def _generation_config(checkpoint: Checkpoint, model: Model) -> dict[str, Any]:
    found = dict(checkpoint.generation_config)
    found["eos_token_id"] = list(model.eos)
    return found


def _check_tokenizer(folder: Path, path: Path, wanted: Tokenizer) -> None:
    """Errors: a tokenizer that would be another one when it is read back."""
    if _difference(read_tokenizer(folder), wanted):
        raise BitnetcError(
            str(path),
            "has a tokenizer that its files cannot say exactly",
            "put the tokenizer.json of the original model beside the file",
        )


# Fields that say where a model came from.
_ORIGIN = frozenset(["name", "family", "sources", "notes", "load"])


def _difference(one: Any, other: Any, name: str = "") -> str:
    """The name of a field in which two values differ; empty when none does. Matrices are compared
    by shape and scales."""
    if is_dataclass(one) and type(one) is type(other):
        for key in fields(one):
            if key.name not in _ORIGIN:
                found = _difference(getattr(one, key.name), getattr(other, key.name), key.name)
                if found:
                    return found
        return ""
    if isinstance(one, tuple) and isinstance(other, tuple) and one and is_dataclass(one[0]):
        pairs = zip(one, other, strict=False)
        differing = (_difference(a, b, name) for a, b in pairs)
        return name if len(one) != len(other) else next((d for d in differing if d), "")
    if isinstance(one, np.ndarray):
        return "" if isinstance(other, np.ndarray) and np.array_equal(one, other) else name
    return "" if type(one) is type(other) and one == other else name


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    kept = {key: item for key, item in value.items() if item is not None}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
