"""A named array that stays on disk until someone asks for it."""

import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError

# How numpy views each stored type. BF16 has no numpy type: its values are the upper halves of
# float32 words (see model.to_float32).
_VIEWS = {"U8": "u1", "BF16": "<u2", "F16": "<f2", "F32": "<f4"}


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
        """A read-only view [shape] of the mapped file: uint8, float16, float32, or for BF16 uint16.

        Errors: a stored type that no BitNet checkpoint uses.
        """
        if self.dtype not in _VIEWS:
            raise BitnetcError(
                self.where,
                f"stored as {self.dtype}",
                "convert it to one of " + ", ".join(sorted(_VIEWS)),
            )
        return self.raw.view(_VIEWS[self.dtype]).reshape(self.shape)


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
    return np.frombuffer(mapping, dtype=np.uint8)
