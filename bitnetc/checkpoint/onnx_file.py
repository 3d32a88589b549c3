"""Reads ONNX files: nodes, and initialisers whose bytes stay where they are until asked for.

The `onnx` package parses the protobuf; external data is mapped here, since its location is a path
written by a stranger.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.fields import shown
from bitnetc.checkpoint.tensor import mapped
from bitnetc.errors import BitnetcError

MAX_FILE_BYTES = 2**31 - 1  # of a protobuf
MAX_NODES = 1 << 20
MAX_INITIALISERS = 1 << 18
_AGAIN = "the file is damaged or incomplete: download it again"

# TensorProto.DataType -> (name, bits of a value)
TYPES: Mapping[int, tuple[str, int]] = {
    1: ("F32", 32),
    2: ("U8", 8),
    3: ("I8", 8),
    4: ("U16", 16),
    5: ("I16", 16),
    6: ("I32", 32),
    7: ("I64", 64),
    9: ("BOOL", 8),
    10: ("F16", 16),
    11: ("F64", 64),
    16: ("BF16", 16),
    21: ("U4", 4),
    22: ("I4", 4),
    25: ("U2", 2),
    26: ("I2", 2),
}
# The field of a TensorProto that holds values of a type when raw_data does not.
_FIELDS: Mapping[str, tuple[str, str]] = {
    "F32": ("float_data", "<f4"),
    "F64": ("double_data", "<f8"),
    "I64": ("int64_data", "<i8"),
    "I32": ("int32_data", "<i4"),
    "F16": ("int32_data", "<u2"),
    "BF16": ("int32_data", "<u2"),
    "U16": ("int32_data", "<u2"),
    "I16": ("int32_data", "<i2"),
}


_SMALL = {"U8": 8, "I8": 8, "U4": 4, "I4": 4, "U2": 2, "I2": 2}


@dataclass(frozen=True)
class Initialiser:
    """A constant tensor. Values below a byte are packed, first one in the low bits."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    raw: NDArray[np.uint8] = field(repr=False, compare=False)

    @property
    def where(self) -> str:
        return f"{self.file}: {shown(self.name)}"

    @property
    def count(self) -> int:
        return count(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in ("F32", "F16", "BF16", "F64")

    def floats(self) -> NDArray[np.float32]:
        """float32 [shape] of a float tensor."""
        if self.dtype == "BF16":
            wide = self.raw.view("<u2").astype(np.uint32) << np.uint32(16)
            return wide.view(np.float32).reshape(self.shape)
        view = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[self.dtype]
        with np.errstate(over="ignore"):
            return self.raw.view(view).astype(np.float32).reshape(self.shape)

    def integers(self) -> NDArray[np.int16]:
        """Values of an integer tensor of at most 8 bits, as stored, [shape]."""
        if self.dtype not in _SMALL:
            raise BitnetcError(
                self.where, f"stored as {self.dtype}", "integers of 2, 4 or 8 bits are known"
            )
        bits = _SMALL[self.dtype]
        if bits == 8:
            return (
                self.raw.view("i1" if self.dtype == "I8" else "u1")
                .reshape(self.shape)
                .astype(np.int16)
            )
        values = unpack_low_first(self.raw, bits)[: self.count].astype(np.int16)
        if self.dtype in ("I4", "I2"):
            values -= (values >= 1 << (bits - 1)) * np.int16(1 << bits)
        return values.reshape(self.shape)


def unpack_low_first(raw: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes of `bits` bits, those in the low bits first, along the last axis."""
    if bits == 8:
        return raw
    per = 8 // bits
    out = np.empty((*raw.shape, per), dtype=np.uint8)
    for i in range(per):
        np.right_shift(raw, bits * i, out=out[..., i])
    out &= (1 << bits) - 1
    return out.reshape(*raw.shape[:-1], -1)


def count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


@dataclass(frozen=True)
class Node:
    op: str  # with its domain before it unless that is ONNX's own
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  # numbers, texts and lists of numbers only
    module: str = ""  # the module that computes it, as torch.onnx says; "" where nothing does

    def integer(self, name: str, default: int) -> int:
        """An attribute; -1, which none may be here, where it is of another type."""
        value = self.attributes.get(name, default)
        return value if type(value) is int else -1


@dataclass(frozen=True)
class Graph:
    """nodes in file order; makers: value -> the node that computes it; users: value -> nodes."""

    path: Path
    nodes: tuple[Node, ...]
    initialisers: Mapping[str, Initialiser]
    makers: Mapping[str, Node]
    users: Mapping[str, tuple[Node, ...]]
    outputs: tuple[str, ...]
    files: tuple[Path, ...]  # of external data
    subgraphs: tuple[str, ...]  # ops of nodes that hold graphs


def is_onnx(path: Path) -> bool:
    return path.suffix == ".onnx"


def read_graph(path: Path) -> Graph:
    """Parses the file. Errors: no ONNX, and whatever is out of bounds or inconsistent."""
    import onnx  # half a second, and only needed here
    from google.protobuf.message import DecodeError

    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BitnetcError(
                str(path), f"{size} bytes, more than a protobuf holds", "save with external data"
            )
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise BitnetcError(str(path), f"cannot be read: {error.strerror}") from None
    except (DecodeError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split())[:120]
        raise BitnetcError(str(path), f"is no ONNX file: {detail}", _AGAIN) from None
    graph = proto.graph
    if not graph.node:
        raise BitnetcError(str(path), "holds no graph, so it is no ONNX model", _AGAIN)
    if proto.functions:
        raise BitnetcError(
            str(path), "defines functions of its own, not supported", "inline them: onnx.inliner"
        )
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_INITIALISERS:
        raise BitnetcError(str(path), "holds more nodes or tensors than is sane", _AGAIN)
    if graph.sparse_initializer:
        raise BitnetcError(str(path), "holds sparse tensors, not supported", "save them dense")
    reader = _Reader(path)
    initialisers: dict[str, Initialiser] = {}
    for tensor in graph.initializer:
        name = _text(tensor.name)
        if name in initialisers:
            raise BitnetcError(f"{path}: {shown(name)}", "appears twice", _AGAIN)
        initialisers[name] = reader.tensor(tensor, name)
    nodes: list[Node] = []
    makers: dict[str, Node] = {}
    users: dict[str, list[Node]] = {}
    subgraphs: set[str] = set()
    for node_proto in graph.node:
        node = _node(node_proto)
        if any(a.type in _GRAPHS for a in node_proto.attribute):
            subgraphs.add(node.op)
        if node.op == "Constant" and len(node.outputs) == 1:
            values = [a.t for a in node_proto.attribute if a.name == "value"]
            if values and node.outputs[0] not in initialisers:
                initialisers[node.outputs[0]] = reader.tensor(values[0], node.outputs[0])
                continue
        if not node.outputs or len(node.inputs) < _LEAST_INPUTS.get(node.op, 0):
            raise BitnetcError(
                f"{path}: node {shown(node.name or node.op)}", "lacks inputs or outputs", _AGAIN
            )
        nodes.append(node)
        for value in node.outputs:
            if value and (value in makers or value in initialisers):
                raise BitnetcError(f"{path}: {shown(value)}", "is computed twice", _AGAIN)
            makers[value] = node
        for value in dict.fromkeys(node.inputs):
            users.setdefault(value, []).append(node)
    return Graph(
        path,
        tuple(nodes),
        initialisers,
        makers,
        {value: tuple(found) for value, found in users.items()},
        tuple(_text(value.name) for value in graph.output),
        tuple(reader.files),
        tuple(sorted(subgraphs)),
    )


_LEAST_INPUTS: Mapping[str, int] = {
    "MatMul": 2,
    "Gemm": 2,
    "MatMulInteger": 2,
    "DequantizeLinear": 2,
    "Gather": 2,
    "Mul": 2,
    "Div": 2,
    "Round": 1,
    "ReduceMax": 1,
    "com.microsoft.MatMulNBits": 3,
    "com.microsoft.GatherBlockQuantized": 3,
}
_MOST_SCOPES = 4096  # letters of them
_GRAPHS = (5, 10)  # AttributeProto.GRAPH, GRAPHS


def _text(value: str | bytes) -> str:
    """A text of the protobuf, which gives bytes for those that are not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _node(proto: Any) -> Node:
    attributes: dict[str, Any] = {}
    for a in proto.attribute:
        name = _text(a.name)
        if a.type == 1:
            attributes[name] = a.f
        elif a.type == 2:
            attributes[name] = a.i
        elif a.type == 3:
            attributes[name] = _text(a.s)
        elif a.type == 6:
            attributes[name] = tuple(a.floats)
        elif a.type == 7:
            attributes[name] = tuple(a.ints)
    domain = _text(proto.domain)
    prefix = "" if domain in ("", "ai.onnx") else domain + "."
    return Node(
        prefix + _text(proto.op_type),
        _text(proto.name),
        tuple(map(_text, proto.input)),
        tuple(map(_text, proto.output)),
        attributes,
        _module(proto),
    )


def _module(proto: Any) -> str:
    """The last but one of "['', 'model', ..., 'model.layers.0.mlp.up_proj', 'linear']"."""
    for entry in proto.metadata_props:
        if _text(entry.key) == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", _text(entry.value)[:_MOST_SCOPES])
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


class _Reader:
    """Finds the bytes of tensors; each external file is mapped once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[Path, NDArray[np.uint8]] = {}

    def tensor(self, proto: Any, name: str) -> Initialiser:
        where = f"{self.path}: {shown(name)}"
        if proto.data_type not in TYPES:
            return Initialiser(name, f"type {proto.data_type}", (0,), self.path, _NOTHING)
        dtype, bits = TYPES[proto.data_type]
        shape = tuple(proto.dims)
        if len(shape) > 8 or any(not 0 <= size < 1 << 40 for size in shape):
            raise BitnetcError(where, f"shape {shown(list(shape))} is not sane", _AGAIN)
        size = -(-count(shape) * bits // 8)
        if proto.data_location == 1:
            file, raw = self.external(proto, where, size)
        elif proto.HasField("raw_data"):
            file, raw = self.path, np.frombuffer(proto.raw_data, np.uint8)
        else:
            file, raw = self.path, _typed(proto, dtype)
        if raw.size != size:
            raise BitnetcError(
                where,
                f"{dtype} {shown(list(shape))} needs {size} bytes, and has {raw.size}",
                _AGAIN,
            )
        return Initialiser(name, dtype, shape, file, raw)

    def external(self, proto: Any, where: str, size: int) -> tuple[Path, NDArray[np.uint8]]:
        said = {_text(entry.key): _text(entry.value) for entry in proto.external_data}
        location = said.get("location", "")
        if not re.fullmatch(r"[\w][\w.+-]{0,200}", location):
            raise BitnetcError(
                f"{where}: external data",
                f"{shown(location)} is not the plain name of a file",
                "external data must lie beside the file",
            )
        numbers = {}
        for key, default in (("offset", 0), ("length", size)):
            text = said.get(key, str(default))
            if not (text.isascii() and text.isdecimal() and len(text) < 16):
                raise BitnetcError(
                    f"{where}: external data: {key}", f"{shown(text)} is no number", _AGAIN
                )
            numbers[key] = int(text)
        file = self.path.parent / location
        if file not in self.files:
            self.files[file] = mapped(file, "it holds the weights: download it too")
        data = self.files[file]
        begin, length = numbers["offset"], numbers["length"]
        if begin + length > data.size:
            raise BitnetcError(
                f"{where}: external data",
                f"ends at {begin + length} of {data.size} bytes of {location}",
                _AGAIN,
            )
        return file, data[begin : begin + length]


_NOTHING = np.empty(0, np.uint8)


def _typed(proto: Any, dtype: str) -> NDArray[np.uint8]:
    """The bytes of values kept in one of the typed fields."""
    name, view = _FIELDS.get(dtype, ("int32_data", "u1"))
    wide = {"float_data": np.float32, "double_data": np.float64}.get(name, np.int64)
    return np.array(getattr(proto, name), dtype=wide).astype(view).view(np.uint8)
