"""Reads safetensors files, and makes the beginning of one:
`u64 header length | JSON header | data`, little-endian throughout.

The header is parsed here rather than by the `safetensors` package because a refusal must name the
tensor and the field. The rules are that package's own, and the tests hold the two together; we
refuse three things more: tensor names that appear twice, tensors written as JSON lists, and
headers beyond 8 MiB (a 70-layer model needs 0.1).
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bitnetc.checkpoint.fields import first_twice, read_object, shown
from bitnetc.checkpoint.tensor import Tensor, mapped
from bitnetc.errors import BitnetcError, nearest

MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32  # a valid header nests three deep; the parser recurses, so a bound is needed

# Bits per value of every type the format knows; we decode few of them (see tensor.py).
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_AGAIN = "the file is damaged or incomplete: download it again"
_UNSIGNED_END = 2**64


def beginning(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """What stands before the data, which follows in the same order: of each tensor its name, type,
    shape and bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, size in tensors:
        offsets = [end, end + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, in file order; the data is mapped, not read.

    Errors: whatever the official reader refuses, named by tensor and field.
    """
    data = mapped(path, _AGAIN)
    if data.size < 8:
        raise BitnetcError(str(path), f"{data.size} bytes cannot hold a header", _AGAIN)
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > MAX_HEADER_BYTES:
        raise BitnetcError(
            f"{path}: header length",
            f"{length} bytes, more than the {MAX_HEADER_BYTES} that are sane",
            "the file is damaged or no safetensors file",
        )
    if 8 + length > data.size:
        raise BitnetcError(
            f"{path}: header length", f"{length} bytes in a file of {data.size}", _AGAIN
        )
    header = _parse(path, data[8 : 8 + length].tobytes())
    return _tensors(path, header, data[8 + length :])


def _parse(path: Path, raw: bytes) -> list[tuple[str, Any]]:
    """The header's entries in order, `__metadata__` checked and dropped."""
    where = f"{path}: header"

    def bad(what: str) -> BitnetcError:
        return BitnetcError(where, what, _AGAIN)

    def constant(text: str) -> Any:
        raise bad(f"{text} is not JSON")

    def entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise bad(f"{shown(first_twice(pairs))} appears twice")
        return values

    if _depth(raw) > MAX_DEPTH:
        raise bad(f"nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_constant=constant,
            object_pairs_hook=entries,
            # "-0" is no unsigned number although Python would read it as 0
            parse_int=lambda text: -1 if text.startswith("-") else int(text),
        )
        # Python lets escaped half surrogates pass; they are no text
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise bad(f"is not valid JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(value, dict):
        raise bad(f"holds {shown(value)}, not an object")
    metadata = value.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())
    ):
        raise BitnetcError(f"{where}: __metadata__", "must map texts to texts", _AGAIN)
    return list(value.items())


def _depth(raw: bytes) -> int:
    """How deep brackets nest outside texts; exact for JSON, an estimate for anything else."""
    outside = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = np.frombuffer(outside, dtype=np.uint8)
    opened = np.isin(steps, np.frombuffer(b"[{", dtype=np.uint8))
    closed = np.isin(steps, np.frombuffer(b"]}", dtype=np.uint8))
    return int(np.cumsum(opened.astype(np.int64) - closed).max(initial=0))


def _tensors(
    path: Path, header: list[tuple[str, Any]], data: "np.ndarray[Any, np.dtype[np.uint8]]"
) -> dict[str, Tensor]:
    """Checks dtype, shape and offsets of every entry, then that they tile `data` exactly."""
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, Tensor] = {}
    for name, entry in header:
        where = f"{path}: header: {shown(name)}"
        if not isinstance(entry, dict):
            raise BitnetcError(where, f"must be an object, found {shown(entry)}", _AGAIN)
        for key in ("dtype", "shape", "data_offsets"):
            if key not in entry:
                raise BitnetcError(where, f"has no {key}", _AGAIN)
        dtype = entry["dtype"]
        if not isinstance(dtype, str):
            raise BitnetcError(f"{where}: dtype", f"must be a text, found {shown(dtype)}", _AGAIN)
        if dtype not in DTYPE_BITS:
            raise BitnetcError(
                f"{where}: dtype", f"unknown type {shown(dtype)}", nearest(dtype, DTYPE_BITS)
            )
        shape = _sizes(f"{where}: shape", entry["shape"])
        offsets = _sizes(f"{where}: data_offsets", entry["data_offsets"])
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            raise BitnetcError(
                f"{where}: data_offsets",
                f"must be [begin, end] with begin <= end, found {shown(offsets)}",
                _AGAIN,
            )
        begin, end = offsets
        if end > data.size:
            raise BitnetcError(
                f"{where}: data_offsets", f"end at {end} of {data.size} data bytes", _AGAIN
            )
        bits = DTYPE_BITS[dtype] * _count(f"{where}: shape", shape)
        if bits >= _UNSIGNED_END:
            raise BitnetcError(f"{where}: shape", f"{shown(shape)} is beyond 64 bits", _AGAIN)
        if bits % 8 or end - begin != bits // 8:
            raise BitnetcError(
                f"{where}: data_offsets",
                f"hold {end - begin} bytes; {dtype} {shown(list(shape))} needs {bits / 8:g}",
                _AGAIN,
            )
        spans.append((begin, end, name))
        tensors[name] = Tensor(name, dtype, shape, path, data[begin:end])
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            what = "overlap the tensor before" if begin < position else "leave a hole"
            raise BitnetcError(
                f"{path}: header: {shown(name)}: data_offsets",
                f"begin at {begin} and {what}, which ends at {position}",
                _AGAIN,
            )
        position = end
    if position != data.size:
        raise BitnetcError(
            str(path), f"{data.size} data bytes, of which the tensors cover {position}", _AGAIN
        )
    return tensors


def _sizes(where: str, value: Any) -> tuple[int, ...]:
    """A list of unsigned 64-bit numbers; bool and float are no integers here."""
    if not isinstance(value, list) or any(
        type(size) is not int or not 0 <= size < _UNSIGNED_END for size in value
    ):
        raise BitnetcError(
            where, f"must be a list of unsigned numbers, found {shown(value)}", _AGAIN
        )
    return tuple(value)


def _count(where: str, shape: tuple[int, ...]) -> int:
    """Product of the sizes; overflow counts even where a later size is 0, as officially."""
    count = 1
    for size in shape:
        count *= size
        if count >= _UNSIGNED_END:
            raise BitnetcError(where, f"{shown(shape)} is beyond 64 bits", _AGAIN)
    return count


def read_sharded(index: Path) -> tuple[dict[str, Tensor], tuple[Path, ...], tuple[str, ...]]:
    """Tensors of all shards an index names, the shard files, and notes.

    The index decides which shard a tensor comes from. Errors: names that leave the folder,
    shards that are missing, tensors that are not where the index says.
    """
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BitnetcError(f"{index}: weight_map", "is missing or empty", _AGAIN)
    shards: dict[str, dict[str, Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    for name, file in weight_map.items():
        where = f"{index}: weight_map: {shown(name)}"
        if not isinstance(file, str) or not re.fullmatch(r"[\w][\w.+-]{0,200}\.safetensors", file):
            raise BitnetcError(
                where,
                f"{shown(file)} is not the plain name of a .safetensors file",
                "shards must lie beside the index",
            )
        if file not in shards:
            if not (index.parent / file).exists():
                raise BitnetcError(
                    where, f"shard {shown(file)} not found", "download the checkpoint again"
                )
            shards[file] = read(index.parent / file)
        if name not in shards[file]:
            raise BitnetcError(where, f"is not in {shown(file)}", "download the checkpoint again")
        tensors[name] = shards[file][name]
    notes = [
        f"{file}: {shown(name)} is in no line of the index and was ignored"
        for file, found in shards.items()
        for name in found
        if name not in tensors
    ]
    return tensors, tuple(index.parent / file for file in shards), tuple(notes)
