"""Reads the files that torch.save writes, without torch and without running what a pickle asks for.

Such a file is a zip archive of stored (not compressed) members: `NAME/data.pkl`, a pickle of the
object, and `NAME/data/KEY`, the bytes of each storage. The pickle is walked by a small machine that
knows the opcodes a dict of tensors needs and builds nothing else: a global is a name, and the only
calls are those that stand for a tensor or an ordered dict. Everything else is refused by name.
"""

import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.fields import shown
from bitnetc.checkpoint.tensor import Tensor, mapped
from bitnetc.errors import BitnetcError

MAX_PICKLE_BYTES = 16 * 1024 * 1024  # a model of 70 layers needs 0.2
MAX_MEMBERS = 1 << 16
MAX_NAME = 1024  # characters of a tensor's name
MAX_STEPS = 1 << 22
_AGAIN = "the file is damaged or incomplete: download it again"
_SAFE = "save the tensors as safetensors, or as a plain dict with torch.save"

# storage class -> (type as safetensors has it, bytes of a value)
_STORAGES: Mapping[str, tuple[str, int]] = {
    "BFloat16Storage": ("BF16", 2),
    "HalfStorage": ("F16", 2),
    "FloatStorage": ("F32", 4),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "DoubleStorage": ("F64", 8),
    "IntStorage": ("I32", 4),
    "LongStorage": ("I64", 8),
    "ShortStorage": ("I16", 2),
    "BoolStorage": ("BOOL", 1),
}


def is_torch_zip(path: Path) -> bool:
    """Whether the file begins as a zip archive, as torch.save writes it."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    value_bytes: int
    key: str
    count: int


@dataclass(frozen=True)
class _View:
    """A contiguous tensor within a storage."""

    storage: _Storage
    offset: int  # in values
    shape: tuple[int, ...]


class _Mark:
    pass


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a saved dict by name, in file order; their data is mapped, not read.

    Dicts within the dict that hold tensors give names joined with dots. Errors: what is no such
    file, and pickles that ask for anything but tensors.
    """
    data = mapped(path, _AGAIN)
    members = _members(path, data)
    prefix = _prefix(path, members)
    begin, end = members[f"{prefix}data.pkl"]
    if end - begin > MAX_PICKLE_BYTES:
        raise BitnetcError(
            f"{path}: data.pkl",
            f"{end - begin} bytes, more than the {MAX_PICKLE_BYTES} sane",
            _SAFE,
        )
    if f"{prefix}byteorder" in members:
        first, last = members[f"{prefix}byteorder"]
        if data[first : min(last, first + 16)].tobytes() != b"little":
            raise BitnetcError(f"{path}: byteorder", "is not little", "save the model again")
    found = _unpickle(f"{path}: data.pkl", data[begin:end].tobytes())
    if not isinstance(found, dict):
        raise BitnetcError(f"{path}: data.pkl", "holds no dict of tensors", _SAFE)
    tensors: dict[str, Tensor] = {}
    for name, view in _flat(found, str(path)):
        where = f"{path}: {shown(name)}"
        if name in tensors:
            raise BitnetcError(where, "appears twice", _AGAIN)
        storage = view.storage
        member = members.get(f"{prefix}data/{storage.key}")
        if member is None:
            raise BitnetcError(where, f"its storage {shown(storage.key)} is missing", _AGAIN)
        size = member[1] - member[0]
        if size != storage.count * storage.value_bytes:
            raise BitnetcError(
                where,
                f"its storage has {size} bytes, and {storage.count} values of {storage.dtype} need "
                f"{storage.count * storage.value_bytes}",
                _AGAIN,
            )
        count = 1
        for extent in view.shape:
            count *= extent
        if view.offset + count > storage.count:
            raise BitnetcError(where, "reaches beyond its storage", _AGAIN)
        first = member[0] + view.offset * storage.value_bytes
        raw = data[first : first + count * storage.value_bytes]
        tensors[name] = Tensor(name, storage.dtype, view.shape, path, raw)
    if not tensors:
        raise BitnetcError(f"{path}: data.pkl", "holds no tensors", _SAFE)
    return tensors


def _members(path: Path, data: NDArray[np.uint8]) -> dict[str, tuple[int, int]]:
    """name -> where its bytes lie in the file."""
    found: dict[str, tuple[int, int]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        detail = " ".join(str(error).split())[:120]
        raise BitnetcError(str(path), f"is no zip archive: {detail}", _AGAIN) from None
    if len(infos) > MAX_MEMBERS:
        raise BitnetcError(
            str(path), f"{len(infos)} members, more than the {MAX_MEMBERS} that are sane", _AGAIN
        )
    spans: list[tuple[int, int]] = []
    for info in infos:
        where = f"{path}: {shown(info.filename)}"
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise BitnetcError(
                where, "is compressed or encrypted", "save the model with torch.save"
            )
        if info.filename in found:
            raise BitnetcError(where, "appears twice", _AGAIN)
        head = info.header_offset
        if head < 0 or head + 30 > data.size or data[head : head + 4].tobytes() != b"PK\x03\x04":
            raise BitnetcError(where, "has no header", _AGAIN)
        name_bytes, extra_bytes = struct.unpack("<HH", data[head + 26 : head + 30].tobytes())
        begin = head + 30 + name_bytes + extra_bytes
        if info.file_size != info.compress_size or begin + info.file_size > data.size:
            raise BitnetcError(where, "reaches beyond the file", _AGAIN)
        found[info.filename] = begin, begin + info.file_size
        spans.append((head, begin + info.file_size))
    spans.sort()
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            raise BitnetcError(str(path), "has members that overlap", _AGAIN)
    return found


def _prefix(path: Path, members: Mapping[str, tuple[int, int]]) -> str:
    for name in members:
        if name == "data.pkl" or name.endswith("/data.pkl"):
            return name.removesuffix("data.pkl")
    what = "holds no data.pkl, so torch.save did not write it"
    if any(name.endswith("constants.pkl") for name in members):
        what = "is a TorchScript program"
    raise BitnetcError(str(path), what, _SAFE)


def _flat(values: Mapping[Any, Any], where: str) -> list[tuple[str, _View]]:
    """Tensors by dotted name, without recursion."""
    found: list[tuple[str, _View]] = []
    stack: list[tuple[str, Mapping[Any, Any], int]] = [("", values, 0)]
    seen = 0
    while stack:
        prefix, level, depth = stack.pop()
        seen += len(level)
        if seen > MAX_MEMBERS or len(prefix) > MAX_NAME:
            raise BitnetcError(where, f"holds more than the {MAX_MEMBERS} names sane", _SAFE)
        for key, value in level.items():
            if not isinstance(key, str) or len(key) > MAX_NAME:
                continue
            if isinstance(value, _View):
                found.append((prefix + key, value))
            elif isinstance(value, dict) and value:
                if depth > 3:
                    raise BitnetcError(where, "nests dicts more than four deep", _SAFE)
                stack.append((f"{prefix}{key}.", value, depth + 1))
    return found


def _unpickle(where: str, raw: bytes) -> Any:
    try:
        return _Machine(where).run(raw)
    except BitnetcError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise BitnetcError(where, f"is no valid pickle: {detail}", _AGAIN) from None


class _Machine:
    """The stack machine of pickle, for dicts of tensors."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if steps > MAX_STEPS:
                raise self.bad(f"has more than {MAX_STEPS} steps")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _PUSH:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise self.bad(f"uses opcode {name}, which no dict of tensors needs")
        raise self.bad("does not end")

    def bad(self, what: str) -> BitnetcError:
        return BitnetcError(self.where, what, _SAFE)

    def popped(self) -> list[Any]:
        """What lies above the last mark, taken off with it."""
        for at in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[at], _Mark):
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise ValueError("no mark")

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("stack is empty")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def drop(self, _: object) -> None:
        self.pop(1)

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def tuple_of_marked(self, _: object) -> None:
        self.stack.append(tuple(self.popped()))

    def tuple_of(self, count: int) -> None:
        self.stack.append(tuple(self.pop(count)))

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_Global(module, name))

    def stack_global(self, _: object) -> None:
        module, name = self.pop(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("names a global by what is no text")
        self.stack.append(_Global(module, name))

    def set_items(self, pairs: list[Any]) -> None:
        into = self.stack[-1]
        if not isinstance(into, dict):
            raise ValueError("sets items of what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | float):
                raise self.bad("has keys that are no texts or numbers")
            into[key] = value

    def append(self, values: list[Any]) -> None:
        into = self.stack[-1]
        if not isinstance(into, list):
            raise ValueError("appends to what is no list")
        into.extend(values)

    def persistent(self, _: object) -> None:
        """('storage', class, key, device, count)"""
        (found,) = self.pop(1)
        if not isinstance(found, tuple) or len(found) != 5 or found[0] != "storage":
            raise self.bad("refers to something that is no storage")
        kind, key, count = found[1], found[2], found[4]
        if not isinstance(kind, _Global) or kind.module != "torch" or kind.name not in _STORAGES:
            name = f"{kind.module}.{kind.name}" if isinstance(kind, _Global) else "nothing known"
            raise self.bad(f"has a storage of type {shown(name)}, which is not supported")
        if not isinstance(key, str) or type(count) is not int or not 0 <= count < 1 << 48:
            raise self.bad("has a storage whose key or number of values is not sane")
        self.stack.append(_Storage(*_STORAGES[kind.name], key, count))

    def reduce(self, _: object) -> None:
        callee, arguments = self.pop(2)
        if not isinstance(callee, _Global) or not isinstance(arguments, tuple):
            raise ValueError("calls what is no name")
        full = f"{callee.module}.{callee.name}"
        if full == "collections.OrderedDict" and not arguments:
            self.stack.append({})
        elif full == "torch._utils._rebuild_tensor_v2":
            self.stack.append(self.tensor(arguments))
        elif full == "torch._utils._rebuild_parameter" and arguments:
            self.stack.append(arguments[0])
        else:
            raise self.bad(f"asks to call {shown(full)}, which could run anything and is refused")

    def tensor(self, arguments: tuple[Any, ...]) -> _View:
        """(storage, offset, shape, stride, ...)"""
        storage, offset, shape, stride = arguments[:4]
        sizes = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride)
        if (
            not isinstance(storage, _Storage)
            or not sizes
            or len(shape) > 8
            or any(type(n) is not int or not 0 <= n < 1 << 48 for n in (offset, *shape, *stride))
        ):
            raise self.bad("describes a tensor that is not sane")
        step = 1
        for size, jump in zip(shape[::-1], stride[::-1], strict=True):
            if size != 1 and jump != step:
                raise self.bad("holds a tensor that is transposed or strided, not supported")
            step *= size
        return _View(storage, offset, shape)

    def build(self, _: object) -> None:
        """The state of an ordered dict (its _metadata), which says nothing of the tensors."""
        self.pop(1)
        if not isinstance(self.stack[-1], dict):
            raise self.bad("sets the state of an object, which could run anything and is refused")


_PUSH = frozenset(
    ["BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1",
     "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINBYTES", "BINBYTES"]
)  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "MARK": _Mark,
}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.tuple_of_marked,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.popped()),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.popped()),
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "POP": _Machine.drop,
}
