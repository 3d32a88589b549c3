"""The kernel list against the files it names: guards, bounds and symbols."""

import re

import pytest

from bitnetc import resources
from bitnetc.kernels import KERNELS, Kernel
from bitnetc.layout import LAYOUTS
from bitnetc.target import load_target, target_names

kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))


def text(kernel: Kernel) -> str:
    return (resources.RUNTIME / kernel.header).read_text()


def test_every_header_is_listed() -> None:
    listed = {kernel.header for kernel in KERNELS.values()}
    folder = resources.RUNTIME / "kernels"
    found = {f"kernels/{p.relative_to(folder).as_posix()}" for p in folder.rglob("matmul_*.h")}
    assert found == listed


@kernels
def test_the_entry_fits_the_header(kernel: Kernel) -> None:
    assert KERNELS[kernel.name] is kernel
    assert kernel.layout_name in LAYOUTS
    header = text(kernel)
    assert re.search(rf"^BNC_KERNEL void {kernel.symbol}\(", header, re.M)
    if kernel.skips == "rows":
        assert re.search(rf"^BNC_KERNEL void {kernel.rows_symbol}\(", header, re.M)
    assert (kernel.each > 0) == (kernel.skips == "rows") and kernel.once >= 0
    # lut16 kernels read tables and int8 kernels do not.
    assert ("bnc_lut_tables(" in header) == (kernel.activation == "lut16")
    assert kernel.activation != "bits" or "(number of q that are not 0)" in header


@kernels
def test_the_header_proves_its_bounds(kernel: Kernel) -> None:
    header = text(kernel)
    assert "Bounds:" in header
    # An int32 sum of trits * q lasts no longer. tests/kernels runs exactly this many columns.
    least = 2**16 if kernel.layout.code.integers else 2**17
    assert least <= kernel.max_cols <= (2**31 - 1) // 127


@kernels
def test_geometry_is_named_not_copied(kernel: Kernel) -> None:
    """A kernel steps by its layout's constants, or asserts the numbers it is unrolled for."""
    name = kernel.layout_name.upper()
    header = text(kernel)
    assert f"BNC_{name}_COLS" in header
    if kernel.layout.rows > 1:
        assert re.search(
            rf"_Static_assert\(BNC_{name}_ROWS == {kernel.layout.rows} && "
            rf"BNC_{name}_COLS == {kernel.layout.cols}\b",
            header,
        )


def test_every_kernel_serves_a_target() -> None:
    used = {k.name for name in target_names() for k in load_target(name).kernels}
    assert used == set(KERNELS)
