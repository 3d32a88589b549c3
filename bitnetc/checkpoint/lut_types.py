"""TL1 and TL2, the types of BitNet's look-up-table kernels for Arm and x86, decoded.

A matrix is cut into tiles whose sizes hang on its shape and on a file of the engine's build,
kernel_config.ini, that GGUF files do not carry: without it the bytes mean nothing. The multiplier
stands in 32 bytes after the codes that the table of tensors does not count.
Source: microsoft/BitNet `utils/codegen_tl1.py`, `codegen_tl2.py`, `convert-hf-to-gguf-bitnet.py`.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.fields import read_bytes, shown
from bitnetc.checkpoint.ggml_types import Bytes, Floats, NoTrit, Packing, Trits
from bitnetc.errors import BitnetcError

KERNEL_CONFIG = "kernel_config.ini"
_MAX_BYTES = 1 << 16
_MAX_SIZE = 1 << 20
_TAIL = 32  # begins with the float32 multiplier
_TL2_WIDE = 256  # columns that the payload counts as pairs, whatever the tiles


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a tile, and rows of the pieces that a tile is cut into."""

    bm: int
    bk: int
    bmm: int


Tiles = Mapping[tuple[int, int], Tile]  # by rows, columns


def read_tiles(directory: Path) -> Tiles | None:
    """The tiles by shape of matrix in `directory`'s kernel_config.ini; None when there is none.

    Errors: a file that is no such list.
    """
    path = directory / KERNEL_CONFIG
    if not path.is_file():
        return None
    parser = configparser.ConfigParser(
        interpolation=None, inline_comment_prefixes=("#", ";"), empty_lines_in_values=False
    )
    try:
        parser.read_string(read_bytes(path, _MAX_BYTES).decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())[:120]
        raise BitnetcError(str(path), f"cannot be read: {detail}", "use the engine's own") from None
    tiles: dict[tuple[int, int], Tile] = {}
    for name in parser.sections():
        sizes = []
        for key in ("m", "k", "bm", "bk", "bmm"):
            text = parser[name].get(key, "")
            if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= _MAX_SIZE):
                raise BitnetcError(
                    f"{path}: [{name[:40]}] {key}",
                    f"must be a number from 1 to {_MAX_SIZE}, found {shown(text)}",
                    "use the engine's own",
                )
            sizes.append(int(text[:9]))
        if (sizes[0], sizes[1]) in tiles:
            raise BitnetcError(f"{path}: [{name[:40]}]", "repeats a shape", "use the engine's own")
        tiles[sizes[0], sizes[1]] = Tile(*sizes[2:])
    return tiles


def lut_packing(name: str, tiles: Tiles) -> Packing:
    """TL1 or TL2 with the tiles of one kernel_config.ini."""
    misfit, payload, trits = {
        "TL1": (_tl1_misfit, _tl1_payload, _tl1_trits),
        "TL2": (_tl2_misfit, _tl2_payload, _tl2_trits),
    }[name]

    def refusal(rows: int, cols: int) -> str:
        tile = tiles.get((rows, cols))
        if tile is None:
            return f"{KERNEL_CONFIG} has no tiles of {name} for {rows} x {cols}"
        return misfit(rows, cols, tile)

    def size(rows: int, cols: int) -> int:
        return -(-payload(rows, cols) // 32) * 32 + _TAIL

    def scales(raw: Bytes, rows: int, cols: int) -> Floats:
        begin = size(rows, cols) - _TAIL
        return np.ascontiguousarray(raw[begin : begin + 4]).view("<f4").reshape(1, 1).copy()

    return Packing(name, refusal, size, 0, scales, lambda raw, m, k: trits(raw, m, k, tiles[m, k]))


def _tl1_misfit(rows: int, cols: int, tile: Tile) -> str:
    by = 256 // tile.bmm
    whole = (
        tile.bmm % 16 == 0
        and 256 % tile.bmm == 0
        and by % 4 == 0
        and rows % tile.bm == 0
        and cols % tile.bk == 0
        and tile.bm % tile.bmm == 0
        and tile.bk % by == 0
    )
    return "" if whole else _no_tiles("TL1", rows, cols, tile)


def _no_tiles(name: str, rows: int, cols: int, tile: Tile) -> str:
    return f"{rows} x {cols} are no whole tiles of {name}, {tile.bm} x {tile.bk} by {tile.bmm}"


def _tl1_payload(rows: int, cols: int) -> int:
    return rows * cols // 4


def _tl1_trits(raw: Bytes, rows: int, cols: int, tile: Tile) -> Trits:
    """Nibbles 3a + b + 4 of neighbours a, b; the high one before the low one.

    Memory order, slowest first: tile down, tile across, piece of bmm rows, piece of 256 / bmm
    columns, 16 rows, 4 columns, row.
    """
    by = 256 // tile.bmm
    tiles = raw[: rows * cols // 4].reshape(
        rows // tile.bm, cols // tile.bk, tile.bm // tile.bmm, tile.bk // by,
        tile.bmm // 16, by // 4, 16,
    )  # fmt: skip
    out = np.empty((rows, cols), dtype=np.int8)
    each = out.reshape(
        rows // tile.bm, tile.bm // tile.bmm, tile.bmm // 16, 16,
        cols // tile.bk, tile.bk // by, by // 4, 2, 2,
    )  # fmt: skip
    for i, part in enumerate(tiles):
        ordered = part.transpose(1, 3, 5, 0, 2, 4)
        for half, codes in enumerate((ordered >> 4, ordered & 15)):
            _pairs(codes, each[i][..., half, :])
    return out


def _pairs(codes: Bytes, out: NDArray[np.int8]) -> None:
    if codes.max(initial=0) > 8:
        raise NoTrit
    out[..., 0] = _PAIR[0][codes]
    out[..., 1] = _PAIR[1][codes]


_PAIR = np.array([[c // 3 - 1 for c in range(9)], [c % 3 - 1 for c in range(9)]], np.int8)
_TRIPLE = np.array(
    [[(v + 13) // 9 - 1, (v + 13) // 3 % 3 - 1, (v + 13) % 3 - 1] for v in range(-13, 14)], np.int8
)
# Where the rows of 8 of a piece of 32 lie among its bytes.
_LANES = np.array([0, 2, 1, 3])


def _tl2_misfit(rows: int, cols: int, tile: Tile) -> str:
    whole = (
        tile.bmm == 32
        and rows % tile.bm == 0
        and tile.bm % 32 == 0
        and tile.bk % 24 == 0
        and cols % tile.bk % 32 == 0
        and cols % tile.bk <= _TL2_WIDE <= cols
    )
    return "" if whole else _no_tiles("TL2", rows, cols, tile)


def _tl2_payload(rows: int, cols: int) -> int:
    """The writer's own sum, as if 256 columns were pairs: no less than the three regions need."""
    return (cols - _TL2_WIDE) * rows * 5 // 24 + _TL2_WIDE * rows // 4


def _tl2_trits(raw: Bytes, rows: int, cols: int, tile: Tile) -> Trits:
    """Triples by magnitude and sign for whole tiles across, pairs for the rest of the columns."""
    narrow = cols % tile.bk
    wide = cols - narrow
    down, pieces = rows // tile.bm, tile.bm // 32
    out = np.empty((rows, cols), dtype=np.int8)
    magnitudes = raw[: rows * wide // 6]
    signs = raw[len(magnitudes) : len(magnitudes) + rows * wide // 24]
    pairs = raw[len(magnitudes) + len(signs) :][: rows * narrow // 4]
    if wide:
        across = wide // tile.bk
        stored = magnitudes.reshape(down, across, pieces, tile.bk // 6, 4, 8)[..., _LANES, :]
        bits = np.unpackbits(signs.reshape(-1, 2)[:, ::-1], axis=1)  # most significant first
        # tile, tile, piece, 24 columns, row % 16, triple of 24, row / 16
        minus = bits.reshape(down, across, pieces, tile.bk // 24, 16, 8, 2)
        into = out[:, :wide].reshape(down, pieces, 32, across, tile.bk // 24, 8, 3)
        for i in range(down):
            lanes = stored[i].reshape(across, pieces, tile.bk // 24, 4, 32)
            values = np.stack([lanes >> 4, lanes & 15], axis=4).reshape(
                across, pieces, tile.bk // 24, 8, 32
            )
            if values.max(initial=0) > 13:
                raise NoTrit
            negative = minus[i].transpose(0, 1, 2, 4, 5, 3).reshape(values.shape)
            signed = np.where(negative == 1, -values.astype(np.int8), values.astype(np.int8))
            into[i] = _TRIPLE[signed + 13].transpose(1, 4, 0, 2, 3, 5)
    if narrow:
        stored = pairs.reshape(down, narrow // 32, pieces, 8, 4, 8)[..., _LANES, :]
        rest = np.empty((down, pieces, 32, narrow // 32, 8, 2, 2), dtype=np.int8)
        lanes = stored.reshape(down, narrow // 32, pieces, 8, 32).transpose(0, 2, 4, 1, 3)
        for half, codes in enumerate((lanes >> np.uint8(4), lanes & np.uint8(15))):
            _pairs(codes, rest[..., half, :])
        out[:, wide:] = rest.reshape(rows, narrow)
    return out
