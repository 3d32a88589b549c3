"""look: what a file or folder is and holds, as far as its container can be read at all.

Nothing here knows models: it describes checkpoints that cannot be compiled as well as others.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitnetc.checkpoint import safetensors, torch_zip
from bitnetc.checkpoint.fields import MAX_JSON_BYTES, read_object, shown
from bitnetc.checkpoint.ggml_types import I2sLayout
from bitnetc.checkpoint.gguf import Texts, read_file
from bitnetc.checkpoint.gguf_model import is_gguf
from bitnetc.checkpoint.onnx_file import is_onnx, read_graph
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.errors import BitnetcError

Type = tuple[str, int, int]  # type, how many tensors, bytes


@dataclass(frozen=True)
class Look:
    """what: in words; known: what the container says of itself; warnings: what is wrong there."""

    container: str  # "folder", "gguf", "onnx", "pt", "unknown"
    what: str
    size: int
    files: tuple[tuple[str, int], ...] = ()
    types: tuple[Type, ...] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def look(path: Path, i2s_layout: I2sLayout = "128") -> Look:
    """Opens what is at `path`. Errors: nothing is there, or it may not be read."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        what = "is neither a file nor a folder" if path.exists() else "not found"
        raise BitnetcError(str(path), what, "pass a checkpoint's folder or file")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise BitnetcError(str(path), f"cannot be read: {error.strerror}") from None
    if is_gguf(path):
        return _told(Look("gguf", "GGUF file", size), lambda seen: _gguf(path, i2s_layout, seen))
    if torch_zip.is_torch_zip(path):
        return _told(
            Look("pt", "zip archive, as torch.save writes it", size), lambda seen: _pt(path, seen)
        )
    if is_onnx(path):
        return _told(Look("onnx", "ONNX graph", size), lambda seen: _onnx(path, seen))
    if path.suffix == ".safetensors":
        return _told(Look("safetensors", "one safetensors file", size), lambda s: _shard(path, s))
    return Look("unknown", _guess(head, size), size)


def _told(seen: Look, more: Callable[[Look], Look]) -> Look:
    """What more tells, or the error it met as a warning."""
    try:
        return more(seen)
    except BitnetcError as error:
        return replace(seen, warnings=(*seen.warnings, str(error)))


def _guess(head: bytes, size: int) -> str:
    """What a file that is no checkpoint is, by its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull`"
    known = (
        (b"\x80\x02", "a bare pickle, which can run code when read"),
        (b"\x80\x04", "a bare pickle, which can run code when read"),
        (b"ggjt", "a GGML file of before GGUF"),
        (b"tjgg", "a GGML file of before GGUF"),
        (b"lmgg", "a GGML file of before GGUF"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a numpy array"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (b"\x7fELF", "a program"),
        (b"<!DOC", "a web page, not a download"),
        (b"<html", "a web page, not a download"),
    )
    for magic, what in known:
        if head.startswith(magic):
            return what
    if not size:
        return "an empty file"
    if not head.strip(b"\0"):
        return "zeros: a download that was not finished"
    if head.lstrip()[:1] == b"{":
        return "a JSON file; pass its folder"
    return "of a kind that is not known"


def _types(tensors: Iterable[Tensor]) -> tuple[Type, ...]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.dtype] += 1
        sizes[tensor.dtype] += tensor.raw.size
    return tuple((kind, counts[kind], size) for kind, size in sizes.most_common())


def _folder(path: Path) -> Look:
    try:
        entries = sorted(entry for entry in path.iterdir() if entry.is_file())
    except OSError as error:
        raise BitnetcError(str(path), f"cannot be listed: {error.strerror}") from None
    files = tuple((entry.name, entry.stat().st_size) for entry in entries)
    seen = Look("folder", "folder", sum(size for _, size in files), files)
    names = [name for name, _ in files]
    shards = [name for name in names if name.endswith(".safetensors")]
    if shards:
        plural = f"{len(shards)} safetensors files" if len(shards) > 1 else "safetensors"
        seen = replace(seen, what=f"Hugging Face folder, {plural}")
    if "config.json" in names:
        seen = _told(seen, lambda now: _config(path / "config.json", now))
    tensors: list[Tensor] = []
    for name in shards[:256]:
        try:
            tensors += safetensors.read(path / name).values()
        except BitnetcError as error:
            seen = replace(seen, warnings=(*seen.warnings, str(error)))
    return replace(seen, types=_types(tensors))


def _config(path: Path, seen: Look) -> Look:
    if path.stat().st_size > MAX_JSON_BYTES:
        return seen
    config = read_object(path)
    known = {
        key: value
        for key, value in config.items()
        if isinstance(value, str | int | float | bool) or key == "architectures"
    }
    return replace(seen, known={key: _plain(value) for key, value in list(known.items())[:40]})


def _plain(value: Any) -> Any:
    """A value as a report may hold it."""
    if isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if text.isprintable() and len(text) <= 80 else shown(text)


def _shard(path: Path, seen: Look) -> Look:
    tensors = safetensors.read(path)
    return replace(
        seen, types=_types(tensors.values()), warnings=("pass the folder that holds the file",)
    )


def _gguf(path: Path, i2s_layout: I2sLayout, seen: Look) -> Look:
    file = read_file(path, i2s_layout, lenient=True)
    known: dict[str, Any] = {}
    for key, value in file.metadata.items():
        if isinstance(value, Texts | np.ndarray):
            known[key[:80]] = f"{len(value)} values"
        elif len(known) < 60:
            known[key[:80]] = _plain(value)
    architecture = known.get("general.architecture", "unknown")
    return replace(
        seen,
        what=f"GGUF file, architecture {architecture}",
        types=_types(file.tensors.values()),
        known=known,
        warnings=tuple(str(error) for error in file.refused[:3])
        + ((f"and {len(file.refused) - 3} more",) if len(file.refused) > 3 else ()),
    )


def _pt(path: Path, seen: Look) -> Look:
    return replace(seen, types=_types(torch_zip.read(path).values()))


def _onnx(path: Path, seen: Look) -> Look:
    graph = read_graph(path)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for init in graph.initialisers.values():
        counts[init.dtype] += 1
        sizes[init.dtype] += init.raw.size
    ops = Counter(node.op for node in graph.nodes)
    listed = ", ".join(f"{count} {op[:40]}" for op, count in ops.most_common(8))
    return replace(
        seen,
        what=f"ONNX graph of {len(graph.nodes)} nodes",
        size=seen.size + sum(file.stat().st_size for file in graph.files),
        files=tuple((file.name, file.stat().st_size) for file in (path, *graph.files)),
        types=tuple((kind, counts[kind], size) for kind, size in sizes.most_common()),
        known={"operators": listed},
    )
