"""NAME.weights: packed weights as a file of their own, which a program maps or a flash holds.

A header of 128 bytes, little-endian, then the bytes that weights.bin has otherwise:

    0   "BITNETCW"
    8   uint32  version of this header, 1
    12  uint32  bytes of this header, 128
    16  uint64  bytes of the weights
    24  zeros
    32  SHA-256 of the weights: the library has the same one and takes no other
    64  what they are, for people: ASCII, ends with a zero

runtime_c/bnc_weights.h reads it.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from bitnetc.errors import BitnetcError
from bitnetc.plan import Plan

# Where a program has its weights: in itself, in a file beside it, or wherever the caller says.
Weights = Literal["binary", "file", "region"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

HEADER_BYTES = 128
_VERSION = 1
_TITLE_BYTES = 64

# Weights of at least this many bytes lie outside the reach of code, in a section that the linker
# puts behind everything else. The reach is 2 GiB on most machines, and shared with other models.
FAR_BYTES = 1 << 29

# The whole of an executable is addressed by 32 bits on Windows; the others have not been tried.
_NEAR_ONLY = ("windows", "macos")
_NEAR_MOST = 2**31 - 2**27  # leaves room for code and for what it is linked with


@dataclass(frozen=True)
class WeightsFile:
    """A weights file of the bundle. Both functions take the SHA-256 of the weights, 32 bytes."""

    path: str
    header: Callable[[bytes], bytes]
    identity: Callable[[bytes], bytes]  # the content of src/identity.h


def header(digest: bytes, size: int, title: str) -> bytes:
    """The first HEADER_BYTES bytes of a file that holds `size` bytes of weights."""
    shown = re.sub(r"[^ -~]", "?", title).encode()[: _TITLE_BYTES - 1]
    start = struct.pack("<8sIIQ8x", b"BITNETCW", _VERSION, HEADER_BYTES, size)
    return (start + digest + shown).ljust(HEADER_BYTES, b"\0")


def identity(digest: bytes, name: str) -> bytes:
    """src/identity.h: what the library compares the header with."""
    rows = [digest[i : i + 8] for i in range(0, 32, 8)]
    lines = ["    " + ", ".join(f"0x{b:02x}" for b in row) + "," for row in rows]
    return "\n".join(
        (
            f"/* SHA-256 of the weights in {name}.weights, the only ones that this library takes.",
            " * Written by bitnetc. */",
            f"static const uint8_t {name}_identity[32] = {{",
            *lines,
            "};\n",
        )
    ).encode()


def check(plan: Plan, weights: Weights, size: int) -> None:
    """Raises BitnetcError when the target's programs cannot have their weights there."""
    target = plan.target
    if weights == "file" and target.freestanding:
        raise BitnetcError(
            "--weights file",
            f"{target.name} has no operating system and no files",
            "--weights region reads them at an address",
        )
    if weights == "binary" and target.system in _NEAR_ONLY and size > _NEAR_MOST:
        raise BitnetcError(
            "--weights binary",
            f"programs of {target.system} hold less than 2 GiB; the weights are "
            f"{size / 1e9:.1f} GB",
            "--weights file",
        )
