"""Layouts as values: sizes, padding, codes. That C agrees is tests/contract's business."""

import re
from itertools import product

import numpy as np
import pytest

from bitnetc.errors import BitnetcError
from bitnetc.layout import FIFTH, LAYOUTS, PAIR, TRIT, Layout

layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))


@layouts
def test_the_name_states_the_block(layout: Layout) -> None:
    found = re.fullmatch(r"(?:b1|u2|q2|i[2468]|t5|tl1)_(?:m(\d+))?k(\d+)", layout.name)
    assert found
    assert (layout.rows, layout.cols) == (int(found[1] or 1), int(found[2]))
    assert LAYOUTS[layout.name] is layout


@layouts
def test_bits_of_a_value(layout: Layout) -> None:
    """An integer's own, one of a sign, 1.6 for five trits to a byte, else two."""
    rows, cols = 3 * layout.rows, 2 * layout.cols
    bits = layout.code.integers or {"t5": 1.6, "b1": 1}.get(layout.name[:2], 2)
    assert layout.packed_bytes(rows, cols) == rows * cols * bits / 8
    assert len(layout.pack(np.zeros((rows, cols), np.int8))) == rows * cols * bits / 8


@layouts
def test_pad_is_the_smallest_whole_shape(layout: Layout) -> None:
    assert layout.pad(1, 1) == (layout.rows, layout.cols)
    assert layout.pad(layout.rows, layout.cols) == (layout.rows, layout.cols)
    assert layout.pad(layout.rows + 1, layout.cols + 1) == (2 * layout.rows, 2 * layout.cols)


@layouts
def test_every_byte_is_made_of_valid_codes(layout: Layout) -> None:
    rng = np.random.default_rng(1)
    trits = rng.integers(-1, 2, (2 * layout.rows, 3 * layout.cols)).astype(np.int8)
    packed = layout.pack(trits)
    codes = layout.split(packed)
    assert codes.shape == (len(packed) // layout.code.parts, layout.code.lanes)
    assert codes.max() < layout.code.base**layout.code.trits
    assert layout.join(codes) == packed
    if layout.code.lanes == 5:
        assert max(packed) < 3**5


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


def test_five_trits_are_one_byte() -> None:
    """All 243, and what kernels rely on: bits 3 to 7 are the first three trits and bits 0 to 2 the
    last two, unless these are +1, +1; then the byte is 216 and the first three."""
    trits = np.array(list(product((-1, 0, 1), repeat=5)), np.int8)
    codes = (trits + 1).astype(np.uint8)
    packed = FIFTH.join(codes)
    assert sorted(packed) == list(range(243))
    assert (FIFTH.split(packed) == codes).all()
    for byte, (a, b, c, d, e) in zip(packed, codes.astype(int), strict=True):
        if (d, e) == (2, 2):
            assert byte == 216 + 9 * a + 3 * b + c
        else:
            assert (byte >> 3, byte & 7) == (9 * a + 3 * b + c, 3 * d + e)


def test_t5_byte_by_byte() -> None:
    """One case by hand: trits 0, 16, 32, 48, 64 of a row share its first byte."""
    trits = np.zeros((4, 80), np.int8)
    trits[1, [0, 16, 32, 48, 64]] = [1, -1, 0, 1, 0]
    trits[2, [1, 17, 33, 49, 65]] = [0, 0, -1, 1, 1]
    packed = LAYOUTS["t5_m4k80"].pack(trits)
    assert packed[16] == 8 * (18 + 0 + 1) + 3 * 2 + 1
    assert packed[33] == 216 + 9 + 3 + 0
    assert set(packed[:16]) == {8 * 13 + 4}


def test_i6_byte_by_byte() -> None:
    """One case by hand: columns 0, 4 and 8 of a row have a byte each, and column 12 two bits of all
    three, which are 64 bytes apart."""
    values = np.full((16, 16), -32, np.int8)
    values[1, [0, 4, 8, 12]] = [-31, 0, 31, 0b10_01_11 - 32]
    packed = LAYOUTS["i6_m16k16"].pack(values)
    assert [packed[4], packed[68], packed[132]] == [0b11 << 6 | 1, 0b01 << 6 | 32, 0b10 << 6 | 63]
    assert sum(byte != 0 for byte in packed) == 3


def test_i2_k64_byte_by_byte() -> None:
    """One case by hand: trits 0, 16, 32, 48 of a row share its first byte, high bits first."""
    trits = np.zeros((1, 64), np.int8)
    trits[0, [0, 16, 32, 48]] = [1, -1, 0, 1]
    packed = LAYOUTS["i2_k64"].pack(trits)
    assert packed[0] == 0b10_00_01_10
    assert set(packed[1:]) == {0b01_01_01_01}


def test_tl1_byte_by_byte() -> None:
    """One case by hand: a byte holds columns 0, 1 and 2, 3 of one row as two codes."""
    trits = np.zeros((32, 4), np.int8)
    trits[5] = [1, -1, 0, 1]
    packed = LAYOUTS["tl1_m32k4"].pack(trits)
    assert packed[5] == (3 * 2 + 0) << 4 | (3 * 1 + 2)
    assert packed[4] == packed[6] == 0x44


@layouts
def test_unpack_refuses_ragged_shapes(layout: Layout) -> None:
    with pytest.raises(BitnetcError, match="is not whole blocks"):
        layout.unpack(b"", layout.rows, layout.cols + 2)
