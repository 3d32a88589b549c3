"""A named array that stays on disk until someone asks for it."""

import mmap
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError

_MAPPINGS: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()  # of mapped()

# How numpy views each stored type. BF16 has no numpy type: its values are the upper halves of
# float32 words (see model.to_float32).
_VIEWS = {"U8": "u1", "I8": "i1", "BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str  # as the container writes it: "U8", "BF16", "F16", "F32", ...
    shape: tuple[int, ...]
    file: Path
    raw: NDArray[np.uint8] = field(repr=False, compare=False)  # mapped bytes, 1-D, read-only

    @property
    def where(self) -> str:
        return f"{self.file}: {self.name}"

    def array(self) -> NDArray[np.generic]:
        """A read-only view [shape] of the mapped file: uint8, int8, float16, float32, or for BF16
        uint16.

        Errors: a stored type that no BitNet checkpoint uses.
        """
        if self.dtype not in _VIEWS:
            raise BitnetcError(
                self.where,
                f"stored as {self.dtype}",
                "convert it to one of " + ", ".join(sorted(_VIEWS)),
            )
        return self.raw.view(_VIEWS[self.dtype]).reshape(self.shape)


@dataclass(frozen=True)
class TernaryTensor(Tensor):
    """A ternary matrix [rows, cols] whose container says how its trits lie in `raw`.

    scales: float32 multipliers [1, 1], [rows, 1] or [rows, groups] of equally many neighbours in
            a row each: real weight = trit * scale
    trits:  int8 [rows, cols]. Errors: codes that are no trits
    """

    scales: Callable[[], NDArray[np.float32]] = field(repr=False, compare=False)
    trits: Callable[[], NDArray[np.int8]] = field(repr=False, compare=False)


@dataclass(frozen=True)
class FloatTensor(Tensor):
    """A matrix of floats in a coded form; `values` gives float32 [rows, cols]."""

    values: Callable[[], NDArray[np.float32]] = field(repr=False, compare=False)


@dataclass(frozen=True)
class IntegerTensor(Tensor):
    """A matrix of integers in a coded form; dtype is "I8", `values` gives int8 [rows, cols]."""

    values: Callable[[], NDArray[np.int8]] = field(repr=False, compare=False)

    def array(self) -> NDArray[np.generic]:
        return self.values()


def mapped(path: Path, hint: str) -> NDArray[np.uint8]:
    """The bytes of a file, mapped, not read. hint: what to do when there is no such file."""
    if not path.is_file():
        raise BitnetcError(str(path), "is not a file" if path.exists() else "not found", hint)
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return np.empty(0, dtype=np.uint8)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BitnetcError(str(path), f"cannot be read: {error}", "check its permissions") from None
    _MAPPINGS.add(mapping)
    return np.frombuffer(mapping, dtype=np.uint8)


def release() -> None:
    """Gives back the memory of what was read of mapped files; what is needed is read once more."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapping in list(_MAPPINGS):
            mapping.madvise(mmap.MADV_DONTNEED)
