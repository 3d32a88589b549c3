"""read: bytes on disk -> Checkpoint. Tensors stay on disk until asked for, one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnetc.checkpoint import safetensors
from bitnetc.checkpoint.fields import read_object
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.errors import BitnetcError
from bitnetc.model import Source

__all__ = ["Checkpoint", "Tensor", "read"]

_EXPECTED = "pass the folder that holds config.json and model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    config: Mapping[str, Any]  # config.json as found
    generation_config: Mapping[str, Any]  # generation_config.json as found; empty when absent
    tensors: Mapping[str, Tensor] = field(repr=False)
    sources: tuple[Source, ...]  # every file the model comes from
    notes: tuple[str, ...] = ()  # what a person should know about the files


def read(path: Path | str) -> Checkpoint:
    """Recognises the container at `path` and opens it.

    Today: a folder as Hugging Face publishes it, with config.json and either model.safetensors or
    shards named by model.safetensors.index.json. Errors name the file, the field and a remedy.
    """
    path = Path(path)
    if path.is_file():
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
    if "config.json" not in names:
        raise BitnetcError(str(path / "config.json"), "not found", _EXPECTED)
    config = read_object(path / "config.json")
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
    described = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    files = (*(path / name for name in described if name in names), *files)
    sources = tuple(Source(file, file.stat().st_size) for file in files)
    return Checkpoint(path, config, generation_config, tensors, sources, notes)


def _file_kind(path: Path) -> str:
    """What a file given in place of a folder is, by its first bytes or its name."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if start == b"GGUF":
        return "is a GGUF file, which is not supported yet"
    if path.suffix == ".onnx":
        return "is an ONNX file, which is not supported yet"
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
