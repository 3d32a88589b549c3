"""Layouts as values: sizes, padding, codes. That C agrees is tests/contract's business."""

import re
from itertools import product

import numpy as np
import pytest

from bitnetc.errors import BitnetcError
from bitnetc.layout import LAYOUTS, PAIR, TRIT, Layout

layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))


@layouts
def test_the_name_states_the_block(layout: Layout) -> None:
    found = re.fullmatch(r"(?:i[248]|tl1)_(?:m(\d+))?k(\d+)", layout.name)
    assert found
    assert (layout.rows, layout.cols) == (int(found[1] or 1), int(found[2]))
    assert LAYOUTS[layout.name] is layout


@layouts
def test_two_bits_a_trit_and_an_integers_own(layout: Layout) -> None:
    rows, cols = 3 * layout.rows, 2 * layout.cols
    size = rows * cols * (layout.code.integers or 2) // 8
    assert layout.packed_bytes(rows, cols) == size
    assert len(layout.pack(np.zeros((rows, cols), np.int8))) == size


@layouts
def test_pad_is_the_smallest_whole_shape(layout: Layout) -> None:
    assert layout.pad(1, 1) == (layout.rows, layout.cols)
    assert layout.pad(layout.rows, layout.cols) == (layout.rows, layout.cols)
    assert layout.pad(layout.rows + 1, layout.cols + 1) == (2 * layout.rows, 2 * layout.cols)


@layouts
def test_every_byte_is_made_of_valid_codes(layout: Layout) -> None:
    rng = np.random.default_rng(1)
    trits = rng.integers(-1, 2, (2 * layout.rows, 3 * layout.cols)).astype(np.int8)
    packed = np.frombuffer(layout.pack(trits), np.uint8)
    for shift in range(0, 8, layout.code.bits):
        codes = packed >> shift & (2**layout.code.bits - 1)
        assert codes.max() < layout.code.base**layout.code.trits


@layouts
def test_rows_of_blocks_follow_each_other(layout: Layout) -> None:
    """A tile of whole rows of blocks is a slice of the packed matrix: bnc_tile relies on it."""
    rng = np.random.default_rng(2)
    trits = rng.integers(-1, 2, (4 * layout.rows, 2 * layout.cols)).astype(np.int8)
    tiles = [layout.pack(part) for part in np.split(trits, 4)]
    assert layout.pack(trits) == b"".join(tiles)


def test_codes_are_digits_base_3() -> None:
    assert TRIT.encode(np.array([[-1, 0, 1]], np.int8)).tolist() == [[0, 1, 2]]
    pairs = np.array(list(product((-1, 0, 1), repeat=2)), np.int8)
    assert PAIR.encode(pairs).ravel().tolist() == list(range(9))
    assert (PAIR.decode(np.arange(9, dtype=np.uint8)[:, None]) == pairs).all()


def test_i2_k64_byte_by_byte() -> None:
    """One case by hand: trits 0, 16, 32, 48 of a row share its first byte, high bits first."""
    trits = np.zeros((1, 64), np.int8)
    trits[0, [0, 16, 32, 48]] = [1, -1, 0, 1]
    packed = LAYOUTS["i2_k64"].pack(trits)
    assert packed[0] == 0b10_00_01_10
    assert set(packed[1:]) == {0b01_01_01_01}


def test_tl1_byte_by_byte() -> None:
    """One case by hand: a byte holds columns 0, 1 and 2, 3 of one row as two codes."""
    trits = np.zeros((16, 4), np.int8)
    trits[5] = [1, -1, 0, 1]
    packed = LAYOUTS["tl1_m16k4"].pack(trits)
    assert packed[5] == (3 * 2 + 0) << 4 | (3 * 1 + 2)
    assert packed[4] == packed[6] == 0x44


@layouts
def test_unpack_refuses_ragged_shapes(layout: Layout) -> None:
    with pytest.raises(BitnetcError, match="is not whole blocks"):
        layout.unpack(b"", layout.rows, layout.cols + 2)
