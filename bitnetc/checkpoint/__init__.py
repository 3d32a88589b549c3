"""read: bytes on disk -> Checkpoint. Tensors stay on disk until asked for, one at a time."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bitnetc.checkpoint import safetensors
from bitnetc.checkpoint.checkpoint import Checkpoint
from bitnetc.checkpoint.decoder import decoder_config, decoder_tensors
from bitnetc.checkpoint.fields import read_object
from bitnetc.checkpoint.ggml_types import I2S_LAYOUTS, I2sLayout
from bitnetc.checkpoint.gguf_model import is_gguf, read_gguf
from bitnetc.checkpoint.gpu_model import read_gpu
from bitnetc.checkpoint.onnx_file import is_onnx
from bitnetc.checkpoint.onnx_model import read_onnx
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.checkpoint.torch_zip import is_torch_zip
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import Source
from bitnetc.tokenizer import read_tokenizer

__all__ = ["I2S_LAYOUTS", "Checkpoint", "I2sLayout", "Tensor", "read"]

_EXPECTED = (
    "pass the folder that holds config.json and model.safetensors, or a .gguf, .onnx or .pt file"
)


def read(path: Path | str, *, i2s_layout: I2sLayout = "128") -> Checkpoint:
    """Recognises the container at `path` and opens it.

    A folder as Hugging Face publishes it, with config.json and either model.safetensors or shards
    named by model.safetensors.index.json; a GGUF file; an ONNX graph with config.json beside it; or
    a .pt file of BitNet's GPU engine. Errors name the file, the field and a remedy.

    i2s_layout: how I2_S tensors of a GGUF file are laid out, which the file does not say: "128"
                as all published ones, "64" or "rows4" as some builds of llama-quantize write.
    """
    path = Path(path)
    if i2s_layout not in I2S_LAYOUTS:
        raise BitnetcError(
            "--i2s-layout", f'unknown layout "{i2s_layout}"', nearest(i2s_layout, I2S_LAYOUTS)
        )
    if path.is_file():
        if is_gguf(path):
            return read_gguf(path, i2s_layout)
        if is_torch_zip(path):
            return read_gpu(path)
        if is_onnx(path):
            return read_onnx(path)
        raise BitnetcError(str(path), _file_kind(path), _EXPECTED)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "not found"
        raise BitnetcError(str(path), what, _EXPECTED)
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise BitnetcError(
            str(path), f"cannot be listed: {error.strerror}", "check its permissions"
        ) from None
    if not names:
        raise BitnetcError(str(path), "is an empty folder", _EXPECTED)
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs and not any(name.endswith(".safetensors") for name in names):
        raise BitnetcError(
            str(path), f"holds {ggufs[0]}, a GGUF file", f"pass {path / ggufs[0]} itself"
        )
    if "config.json" not in names:
        raise BitnetcError(str(path / "config.json"), "not found", _EXPECTED)
    config: Mapping[str, Any] = read_object(path / "config.json")
    generation_config: Mapping[str, Any] = {}
    if "generation_config.json" in names:
        generation_config = read_object(path / "generation_config.json")

    notes: tuple[str, ...] = ()
    # the order transformers looks in
    if "model.safetensors" in names:
        files: tuple[Path, ...] = (path / "model.safetensors",)
        tensors = safetensors.read(files[0])
    elif "model.safetensors.index.json" in names:
        index = path / "model.safetensors.index.json"
        tensors, shards, notes = safetensors.read_sharded(index)
        files = (index, *shards)
    else:
        raise _no_weights(path, names)
    files = (*(path / name for name in _DESCRIBING if name in names), *files)
    sources = tuple(Source(file, file.stat().st_size) for file in files)
    tokenizer = partial(read_tokenizer, path)
    config, nested = decoder_config(config)
    decoder, left_out = decoder_tensors(str(path), tensors)
    return Checkpoint(
        path,
        config,
        generation_config,
        decoder,
        sources,
        tokenizer,
        (*notes, *left_out),
        config_file=path / "config.json",
        nested=nested,
    )


# Files beside the weights that a model may be read from, for the manifest.
_DESCRIBING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def _file_kind(path: Path) -> str:
    """What a file that is no checkpoint is, by its name."""
    if path.suffix == ".gguf":
        return "does not begin with GGUF, so it is no GGUF file"
    return "is a file, not a checkpoint folder"


def _no_weights(path: Path, names: list[str]) -> BitnetcError:
    where = str(path / "model.safetensors")
    for name in names:
        if name.endswith((".bin", ".pt", ".pth")):
            return BitnetcError(
                where,
                f"not found; the folder holds {name}, a pickle, which can run code when read",
                "save the model again with transformers' save_pretrained",
            )
    for name in names:
        if name.endswith(".safetensors"):
            return BitnetcError(
                where,
                f"not found; the folder holds {name}",
                "rename it to model.safetensors, or add model.safetensors.index.json",
            )
    return BitnetcError(where, "not found", "download the checkpoint again")
