"""The list of all kernels: what each computes, what it needs, and where its C is.

A kernel is a plain C function in runtime_c/kernels/<isa>/<op>_<layout>.h. The check program and
the benchmark are rendered from this list, so an entry without a check cannot exist.
"""

from dataclasses import dataclass
from typing import Literal

from bitnetc.layout import LAYOUTS, Layout

Activation = Literal["int8", "lut16"]


@dataclass(frozen=True)
class Kernel:
    """A ternary matmul: acc[i][m] = sum over k of trit[m][k] * q[i][k], exact in int32."""

    isa: str  # folder under runtime_c/kernels
    layout_name: str
    activation: Activation  # the form of the activations it reads: runtime_c/bnc_quantise.h
    features: tuple[str, ...]  # what the target's [isa] features must hold
    max_cols: int  # the header's "Bounds:" prove that no accumulator overflows up to here
    guards: str  # preprocessor condition under which the header compiles

    @property
    def name(self) -> str:
        """As target files write it."""
        return f"{self.isa}:{self.layout_name}"

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.layout_name]

    @property
    def symbol(self) -> str:
        return f"bnc_matmul_{self.layout_name}_{self.isa}"

    @property
    def header(self) -> str:
        return f"kernels/{self.isa}/matmul_{self.layout_name}.h"


# 254 * columns < 2^31 for the kernels that sum codes 0..2, 127 * columns for those that sum trits.
_CODES = (2**31 - 1) // 254
_TRITS = (2**31 - 1) // 127

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("scalar", "i2_k64", "int8", (), _CODES, "1"),
        Kernel("avx2", "i2_m4k128", "int8", ("avx2",), _CODES, "defined(__AVX2__)"),
        Kernel("avx2", "tl1_m32k4", "lut16", ("avx2",), _CODES, "defined(__AVX2__)"),
        Kernel("neon", "i2_m4k64", "int8", ("neon",), _TRITS, "defined(__aarch64__)"),
        Kernel("neon", "tl1_m16k4", "lut16", ("neon",), _CODES, "defined(__aarch64__)"),
    )
}
