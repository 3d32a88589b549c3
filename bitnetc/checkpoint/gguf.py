"""Reads GGUF files: `"GGUF" | u32 version | u64 tensors | u64 keys | keys.. | tensors.. | data`.

Little-endian throughout; the rules are those of ggml's gguf.cpp. The `gguf` package is no help:
it refuses the types of BitNet's forks and takes TL2 for MXFP4. Files come from strangers, so every
count is checked against the bytes that are left before anything is made of it.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.fields import shown
from bitnetc.checkpoint.ggml_types import (
    AMBIGUOUS,
    LUT,
    MXFP4,
    REFUSED,
    WIDENED,
    I2sLayout,
    Kind,
    NoTrit,
    Packing,
    Trits,
    kinds,
)
from bitnetc.checkpoint.lut_types import Tiles, lut_packing, read_tiles
from bitnetc.checkpoint.tensor import FloatTensor, Tensor, TernaryTensor, mapped
from bitnetc.errors import BitnetcError

MAX_HEADER_BYTES = 64 * 1024 * 1024  # keys and tensors; those of a 262144-piece model need 15
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 1 << 20  # of one value; chat templates have some 10 KB
MAX_DIMS = 4
MAX_ELEMENTS = 1 << 48
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32

_AGAIN = "the file is damaged or incomplete: download it again"
_SCALARS: Mapping[int, struct.Struct] = {
    number: struct.Struct("<" + code)
    for number, code in {
        0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d",
    }.items()
}  # fmt: skip
_VIEWS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "u1", 10: "<u8",
          11: "<i8", 12: "<f8"}  # fmt: skip
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Texts:
    """An array of texts, checked to lie within the file and not decoded yet."""

    where: str
    data: memoryview
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        """Errors: a text that is not UTF-8, or too long to be a token."""
        position = self.start
        for index in range(self.count):
            (length,) = _LENGTH.unpack_from(self.data, position)
            position += 8
            if length > MAX_TEXT_BYTES:
                raise BitnetcError(f"{self.where}[{index}]", f"{length} bytes long", _AGAIN)
            raw = self.data[position : position + length]
            position += length
            try:
                yield str(raw, "utf-8")
            except UnicodeDecodeError:
                raise BitnetcError(f"{self.where}[{index}]", "is not UTF-8", _AGAIN) from None


Value = int | float | bool | str | Texts | NDArray[np.generic]


@dataclass(frozen=True)
class File:
    metadata: Mapping[str, Value]
    tensors: Mapping[str, Tensor]  # in file order; shapes are [rows, cols]
    notes: tuple[str, ...]
    refused: tuple[BitnetcError, ...]  # of tensors that cannot be decoded, when that was asked for


@dataclass(frozen=True)
class _Info:
    """A line of the tensor table; dims as in the file, innermost first."""

    name: str
    dims: tuple[int, ...]
    type: int
    offset: int

    @property
    def rows_cols(self) -> tuple[int, int]:
        count = 1
        for size in self.dims:
            count *= size
        return count // self.dims[0], self.dims[0]


class _Cursor:
    """Walks the header; nothing is read beyond it."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data, self.position = path, data, 0
        self.end = min(len(data), MAX_HEADER_BYTES)

    def skip(self, count: int, where: str) -> int:
        """Passes over `count` bytes and returns where they begin. Errors: not so many left."""
        if count > self.end - self.position:
            if self.end == MAX_HEADER_BYTES:
                raise BitnetcError(
                    where, f"lies beyond the {MAX_HEADER_BYTES} bytes that are sane", _AGAIN
                )
            raise BitnetcError(
                where,
                f"needs {count} bytes, of which the file has {self.end - self.position}",
                _AGAIN,
            )
        begin = self.position
        self.position += count
        return begin

    def scalar(self, kind: int, where: str) -> int | float:
        format = _SCALARS[kind]
        value: int | float = format.unpack_from(self.data, self.skip(format.size, where))[0]
        return value

    def number(self, kind: int, where: str) -> int:
        return int(self.scalar(kind, where))

    def text(self, where: str, limit: int) -> str:
        length = self.number(10, where)
        if length > limit:
            raise BitnetcError(
                where, f"{length} bytes long, more than the {limit} that are sane", _AGAIN
            )
        begin = self.skip(length, where)
        try:
            return str(self.data[begin : begin + length], "utf-8")
        except UnicodeDecodeError:
            raise BitnetcError(where, "is not UTF-8", _AGAIN) from None

    def value(self, where: str) -> Value:
        kind = self.number(4, where)
        if kind == _TEXT:
            return self.text(where, MAX_TEXT_BYTES)
        if kind == _ARRAY:
            return self._array(where)
        if kind not in _SCALARS:
            raise BitnetcError(where, f"unknown type {kind}", _AGAIN)
        value = self.scalar(kind, where)
        if kind == _BOOL:
            if value not in (0, 1):
                raise BitnetcError(where, f"{value} is neither true nor false", _AGAIN)
            return bool(value)
        return value

    def _array(self, where: str) -> Value:
        kind = self.number(4, where)
        count = self.number(10, where)
        if kind == _TEXT:
            if count > (self.end - self.position) // 8:
                self.skip(8 * count, where)
            return self._texts(where, count)
        if kind == _ARRAY:
            raise BitnetcError(where, "an array of arrays is not supported", _AGAIN)
        if kind not in _SCALARS:
            raise BitnetcError(where, f"unknown type {kind} of an array", _AGAIN)
        begin = self.skip(count * _SCALARS[kind].size, where)
        return np.frombuffer(self.data, _VIEWS[kind], count, begin)

    def _texts(self, where: str, count: int) -> Texts:
        begin = position = self.position
        for _ in range(count):  # millions, so not by `skip`
            if position > self.end - 8:
                position = self.end + 1  # the next length is cut off
                break
            position += 8 + _LENGTH.unpack_from(self.data, position)[0]
        self.skip(position - begin, where)
        return Texts(where, self.data, begin, count)


def read_file(path: Path, i2s_layout: I2sLayout, *, lenient: bool = False) -> File:
    """Metadata and tensors of one file; tensor data is mapped, not read.

    lenient: tensors of types that are refused become plain ones, with the refusals in `refused`.
    Errors: anything out of bounds or inconsistent, and types that are refused by name.
    """
    data = mapped(path, _AGAIN)
    view = data.data
    cursor = _Cursor(path, view)
    begin = cursor.skip(4, f"{path}: header")
    if bytes(view[begin:4]) != b"GGUF":
        raise BitnetcError(str(path), "does not begin with GGUF", "pass a GGUF file")
    version = cursor.number(4, f"{path}: version")
    if version not in (2, 3):
        why = "big-endian, which is" if version in (2 << 24, 3 << 24) else f"version {version},"
        raise BitnetcError(
            f"{path}: version",
            f"{why} not supported",
            "convert the model again: bitnetc reads GGUF 2 and 3, little-endian",
        )
    tensor_count = cursor.number(10, f"{path}: number of tensors")
    key_count = cursor.number(10, f"{path}: number of keys")
    for what, count, most in (
        ("tensors", tensor_count, MAX_TENSORS),
        ("keys", key_count, MAX_KEYS),
    ):
        if count > most:
            raise BitnetcError(
                f"{path}: number of {what}", f"{count}, more than the {most} that are sane", _AGAIN
            )
    metadata: dict[str, Value] = {}
    for index in range(key_count):
        key = cursor.text(f"{path}: key {index}", MAX_NAME_BYTES)
        where = f"{path}: {_plain(key)}"
        if key in metadata:
            raise BitnetcError(where, "appears twice", _AGAIN)
        metadata[key] = cursor.value(where)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if (
        type(alignment) is not int
        or not 1 <= alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        raise BitnetcError(
            f"{path}: general.alignment",
            f"{shown(alignment)} is no power of two up to {MAX_ALIGNMENT}",
            _AGAIN,
        )
    infos = _table(cursor, tensor_count)
    begin = -(-cursor.position // alignment) * alignment
    tiles = read_tiles(path.parent) if any(info.type in LUT for info in infos) else None
    types = _Types(i2s_layout, tiles, [] if lenient else None)
    tensors, notes = _place(path, infos, data[begin:], alignment, types)
    return File(metadata, tensors, notes, tuple(types.refused or ()))


def _plain(name: str) -> str:
    """A name from the file as it stands when it is an ordinary one, else quoted."""
    return name if name.isascii() and name.isprintable() and len(name) <= 80 else shown(name)


def _table(cursor: _Cursor, count: int) -> list[_Info]:
    infos: list[_Info] = []
    seen: set[str] = set()
    for index in range(count):
        name = cursor.text(f"{cursor.path}: tensor {index}: name", MAX_NAME_BYTES)
        where = f"{cursor.path}: {_plain(name)}"
        if name in seen:
            raise BitnetcError(where, "appears twice", _AGAIN)
        seen.add(name)
        n_dims = cursor.number(4, where)
        if not 1 <= n_dims <= MAX_DIMS:
            raise BitnetcError(where, f"{n_dims} dimensions; there may be 1 to {MAX_DIMS}", _AGAIN)
        dims = tuple(cursor.number(10, where) for _ in range(n_dims))
        elements = 1
        for size in dims:
            elements *= size
        if not 1 <= elements <= MAX_ELEMENTS or min(dims) < 1:
            raise BitnetcError(where, f"shape {shown(list(dims[::-1]))} is not sane", _AGAIN)
        infos.append(_Info(name, dims, cursor.number(4, where), cursor.number(10, where)))
    return infos


@dataclass(frozen=True)
class _Types:
    """What decides the meaning of type numbers beside their sizes.

    refused: where refusals of types go; None: they are raised.
    """

    i2s_layout: I2sLayout
    tiles: Tiles | None
    refused: list[BitnetcError] | None


def _place(
    path: Path, infos: list[_Info], data: NDArray[np.uint8], alignment: int, types: _Types
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Finds the type of every tensor and checks that, padded, they follow one another."""
    order = sorted(infos, key=lambda info: info.offset)
    sizes: dict[str, tuple[Kind | _Unknown, int]] = {}
    position = 0
    for i, info in enumerate(order):
        where = f"{path}: {_plain(info.name)}"
        last = i + 1 == len(order)
        end = data.size if last else order[i + 1].offset
        if info.offset != position:
            what = "overlaps the tensor before" if info.offset < position else "leaves a hole"
            raise BitnetcError(
                where, f"begins at {info.offset} and {what}, which ends at {position}", _AGAIN
            )
        span = max(0, min(end, data.size) - info.offset)
        kind: Kind | _Unknown
        try:
            kind = _kind(where, info, span, alignment, last, types)
        except BitnetcError as error:
            if types.refused is None:
                raise
            types.refused.append(error)
            kind = _Unknown(REFUSED.get(info.type, (f"type {info.type}",))[0], span)
        size = kind.size(*info.rows_cols)
        if size > span:
            raise BitnetcError(
                where, f"{kind.name} {shown(list(info.dims[::-1]))} needs {size} bytes, "
                f"and there are {span}", _AGAIN,
            )  # fmt: skip
        sizes[info.name] = kind, size
        position = info.offset + -(-size // alignment) * alignment
    notes: tuple[str, ...] = ()
    if data.size > position and order:
        notes = (f"{path}: {data.size - position} bytes after the last tensor were ignored",)
    tensors = {}
    for info in infos:
        kind, size = sizes[info.name]
        raw = data[info.offset : info.offset + size]
        tensors[info.name] = _tensor(path, info, kind, raw)
    return tensors, notes


@dataclass(frozen=True)
class _Unknown:
    """A type that cannot be decoded, in all the bytes up to the next tensor."""

    name: str
    span: int

    def size(self, rows: int, cols: int) -> int:
        return self.span


def _tensor(path: Path, info: _Info, kind: Kind | _Unknown, raw: NDArray[np.uint8]) -> Tensor:
    name, shape = info.name, info.dims[::-1]
    if isinstance(kind, Packing):
        return TernaryTensor(
            name,
            kind.name,
            shape,
            path,
            raw,
            partial(kind.scales, raw, *info.rows_cols),
            partial(_trits, f"{path}: {_plain(name)}", kind, raw, *info.rows_cols),
        )
    if kind.name in WIDENED:
        values = partial(WIDENED[kind.name].load, raw, *info.rows_cols)
        return FloatTensor(name, kind.name, shape, path, raw, values)
    return Tensor(name, kind.name, shape, path, raw)


def _trits(where: str, packing: Packing, raw: NDArray[np.uint8], rows: int, cols: int) -> Trits:
    try:
        return packing.decode(raw, rows, cols)
    except NoTrit:
        raise BitnetcError(where, "holds code 3, which is no trit", _AGAIN) from None


def _kind(where: str, info: _Info, span: int, alignment: int, last: bool, types: _Types) -> Kind:
    """What the tensor's type number means here, by the bytes there are. Errors: refused types."""

    def fills(kind: Kind) -> bool:
        if kind.misfit(*info.rows_cols):
            return False
        size = kind.size(*info.rows_cols)
        return span - alignment < size <= span and (
            last or -(-size // alignment) * alignment == span
        )

    if info.type in LUT and types.tiles is not None:
        packing = lut_packing(LUT[info.type], types.tiles)
        if not fills(MXFP4) or fills(packing):
            misfit = packing.misfit(*info.rows_cols)
            if misfit:
                raise BitnetcError(where, misfit, "use the kernel_config.ini it was converted with")
            return packing
    if info.type in REFUSED:
        name, why, hint = REFUSED[info.type]
        if info.type == 39 and fills(MXFP4):
            name, why, hint = "MXFP4", "is not ternary", "use an I2_S or TQ2_0 file of the model"
        raise BitnetcError(where, f"stored as {name}, which {why}", hint)
    possible = kinds(info.type, types.i2s_layout)
    if not possible:
        raise BitnetcError(
            where, f"unknown tensor type {info.type}", "convert the model to I2_S or TQ2_0"
        )
    fitting = [kind for kind in possible if not kind.misfit(*info.rows_cols)]
    if not fitting:
        raise BitnetcError(where, possible[0].misfit(*info.rows_cols), "convert the model again")
    if info.type not in AMBIGUOUS:
        return fitting[0]
    filling = [kind for kind in fitting if fills(kind)]
    if len(filling) == 1:
        return filling[0]
    if len(possible) == 1 and fitting[0].size(*info.rows_cols) > span:
        return fitting[0]  # cut short, which the caller says
    names = " and ".join(kind.name for kind in possible)
    raise BitnetcError(
        where,
        f"type {info.type} may mean {names}, and {span} bytes fit "
        + ("both" if filling else "none"),
        "the file is damaged, or of a fork that bitnetc does not know",
    )
