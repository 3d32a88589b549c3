"""The contract: what Python packs is what C reads, trit by trit.

A round trip in Python alone does not show that a rule means the same in both languages; only this
test crosses the border.
"""

import ctypes
import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bitnetc import resources
from bitnetc.emit import environment
from bitnetc.errors import BitnetcError
from bitnetc.layout import LAYOUTS, Layout
from bitnetc.layouts_header import render
from bitnetc.target import load_target
from bitnetc.toolchain import choose

Trits = NDArray[np.int8]
Read = Callable[[Layout, bytes, int, int], Trits]

# Whole blocks, few and many, more rows than columns and the reverse.
BLOCKS = [(1, 1), (1, 2), (2, 1), (3, 5), (7, 2)]

layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))


def compile_readers(folder: Path, header: str) -> Read:
    """Every accessor of the header, as a function that reads whole matrices."""
    source, library = folder / "readers.c", folder / "readers.so"
    (folder / "bnc_layouts.h").write_text(header)
    lines = ['#include "bnc_layouts.h"']
    for name in LAYOUTS:
        lines += [
            f"int {name}_rows(void) {{ return BNC_{name.upper()}_ROWS; }}",
            f"int {name}_cols(void) {{ return BNC_{name.upper()}_COLS; }}",
            f"void {name}_read(int8_t *t, const uint8_t *w, int rows, int cols)",
            "{ for (int m = 0; m < rows; m++) for (int k = 0; k < cols; k++)",
            f"t[m * cols + k] = (int8_t)bnc_{name}_at(w, cols, m, k); }}",
        ]
    source.write_text("\n".join(lines) + "\n")
    compiler = choose(load_target("scalar"), True, None).compiler
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    done = subprocess.run(
        [*compiler, *flags, str(source), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))

    def read(layout: Layout, packed: bytes, rows: int, cols: int) -> Trits:
        assert getattr(loaded, f"{layout.name}_rows")() == layout.rows
        assert getattr(loaded, f"{layout.name}_cols")() == layout.cols
        trits = np.empty((rows, cols), np.int8)
        getattr(loaded, f"{layout.name}_read")(
            trits.ctypes.data_as(ctypes.c_void_p), packed, rows, cols
        )
        return trits

    return read


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[..., None]) -> Read:
    """The committed header, compiled."""
    try:
        choose(load_target("scalar"), True, None)
    except BitnetcError as error:
        unavailable("this machine", str(error))
    header = (resources.RUNTIME / "bnc_layouts.h").read_text()
    return compile_readers(tmp_path_factory.mktemp("layouts"), header)


def random_values(
    layout: Layout, rng: np.random.Generator, shape: tuple[int, int]
) -> NDArray[np.int8]:
    """Every value that a code can hold."""
    code = layout.code
    return (code.step * rng.integers(0, code.base, shape) - code.offset).astype(np.int8)


def check(layout: Layout, read: Read, pack: Callable[[Trits], bytes]) -> int:
    """Trits that C reads wrongly, over all shapes."""
    rng = np.random.default_rng(1)
    wrong = 0
    for block_rows, block_cols in BLOCKS:
        rows, cols = block_rows * layout.rows, block_cols * layout.cols
        trits = random_values(layout, rng, (rows, cols))
        packed = pack(trits)
        assert len(packed) == layout.packed_bytes(rows, cols)
        wrong += int((read(layout, packed, rows, cols) != trits).sum())
    return wrong


@layouts
def test_c_reads_what_python_packs(layout: Layout, read: Read) -> None:
    assert check(layout, read, layout.pack) == 0


@layouts
def test_unpack_inverts_pack(layout: Layout) -> None:
    rng = np.random.default_rng(2)
    for block_rows, block_cols in BLOCKS:
        rows, cols = block_rows * layout.rows, block_cols * layout.cols
        for trits in (
            random_values(layout, rng, (rows, cols)),
            np.ones((rows, cols)),
            2 * np.eye(rows, cols) - 1 if layout.code.binary else -np.eye(rows, cols),
        ):
            codes = trits.astype(np.int8)
            assert (layout.unpack(layout.pack(codes), rows, cols) == codes).all()


def test_the_committed_header_is_fresh() -> None:
    committed = (resources.RUNTIME / "bnc_layouts.h").read_text()
    assert committed == render(), "runtime_c/bnc_layouts.h is stale: run `make layouts`"


@layouts
def test_the_picture_is_right(layout: Layout) -> None:
    """The comment in C: each byte drawn holds the trits it says, high bits first."""
    lines = layout.picture()
    size = layout.packed_bytes(layout.rows, layout.cols)
    assert [int(re.findall(r"\d+", line)[0]) for line in lines] == [0, 1, size - 1]
    header = (resources.RUNTIME / "bnc_layouts.h").read_text()
    for line in lines:
        assert line in header
        byte, *numbers = map(int, re.findall(r"\d+", line))
        places = list(zip(numbers[::2], numbers[1::2], strict=True))
        shared = layout.code.parts > 1  # the fourth code's bits above a whole one
        part = byte // layout.part_bytes % layout.code.parts
        assert len(places) == (2 if shared else layout.code.lanes)
        for lane, (m, k) in enumerate(places):
            trits = np.zeros((layout.rows, layout.cols), np.int8)
            zero = np.frombuffer(layout.pack(trits), np.uint8).astype(int)
            trits[m, k] = 4**part if shared and lane == 0 else 1
            one = np.frombuffer(layout.pack(trits), np.uint8).astype(int)
            assert np.flatnonzero(one != zero).tolist() == [byte]
            if shared:
                assert one[byte] - zero[byte] == (64, 1)[lane]
                continue
            if layout.code.lanes == 5:
                # Zeros are 121 = 9 * 13 + 4: the upper three digits count eights, not nines.
                assert one[byte] - zero[byte] == [72, 24, 8, 3, 1][lane]
                continue
            shift = 8 - 8 // layout.code.lanes * (lane + 1)
            if layout.code.unary:
                assert one[byte] - zero[byte] == 0b11 - 0b01 << shift
                continue
            # The first trit of a code is its highest digit base 3.
            assert one[byte] - zero[byte] == 3 ** (layout.code.trits - 1) << shift


@layouts
def test_a_ragged_matrix_is_refused(layout: Layout) -> None:
    ragged = [(layout.rows, layout.cols + 1), (layout.rows, layout.cols // 2)]
    if layout.rows > 1:
        ragged.append((layout.rows + 1, layout.cols))
    for rows, cols in ragged:
        with pytest.raises(BitnetcError) as error:
            layout.pack(np.zeros((rows, cols), np.int8))
        text = str(error.value)
        assert layout.name in text and f"{layout.rows} x {layout.cols}" in text
        assert f"{rows} x {cols} is not whole blocks" in text
        assert "plan() pads first" in text


# Planted bugs: the same check must see them.


def swapped(layout: Layout) -> list[Layout]:
    """The layout with two neighbouring digits of the memory order exchanged, in every way."""
    left, right = layout.rule.split("->")
    *words, last = right.replace("|", " ").split()
    found = []
    for i in range(len(words) - 1):
        if words[i + 1] == "*" and not layout.digits[words[i]].size:
            continue  # a star stands behind the digits without a size
        order = words[:]
        order[i], order[i + 1] = order[i + 1], order[i]
        found.append(dataclasses.replace(layout, rule=f"{left}-> {' '.join(order)} | {last}"))
    return found


@layouts
def test_two_swapped_digits_are_seen(layout: Layout, read: Read) -> None:
    mistakes = swapped(layout)
    assert mistakes
    for wrong in mistakes:
        assert check(layout, read, wrong.pack) > 0, wrong.rule
        # The mistake is a layout like any other: a round trip alone does not see it.
        few = [-1, 1, 1, 1] if layout.code.binary else [-1, 0, 1, 1]
        trits = np.resize(np.array(few, np.int8), (3 * layout.rows, 5 * layout.cols))
        assert (wrong.unpack(wrong.pack(trits), *trits.shape) == trits).all()


@pytest.mark.parametrize(
    "layout", [x for x in LAYOUTS.values() if x.code.lanes > 1], ids=lambda x: x.name
)
def test_swapped_lanes_in_a_byte_are_seen(layout: Layout, read: Read) -> None:
    def reversed_lanes(trits: Trits) -> bytes:
        return layout.join(layout.split(layout.pack(trits))[:, ::-1])

    assert check(layout, read, reversed_lanes) > 0


@layouts
def test_one_dropped_trit_is_seen(layout: Layout, read: Read) -> None:
    def drop(trits: Trits) -> bytes:
        damaged = trits.copy()
        m, k = np.argwhere(trits != 0)[-1]
        damaged[m, k] = -damaged[m, k] if layout.code.binary else 0
        return layout.pack(damaged)

    assert check(layout, read, drop) == len(BLOCKS)


@layouts
def test_a_header_rendered_from_another_rule_is_seen(layout: Layout, tmp_path: Path) -> None:
    rules = {**LAYOUTS, layout.name: swapped(layout)[-1]}
    header = environment().get_template("bnc_layouts.h.jinja").render(layouts=rules.values())
    assert check(layout, compile_readers(tmp_path, header), layout.pack) > 0
