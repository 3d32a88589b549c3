"""The list of all kernels: what each computes, what it needs, and where its C is.

A kernel is a plain C function in runtime_c/kernels/<isa>/<op>_<layout>.h. The check program and
the benchmark are rendered from this list, so an entry without a check cannot exist.
"""

from dataclasses import dataclass
from typing import Literal

from bitnetc.layout import LAYOUTS, Layout

Activation = Literal["int8", "lut16", "bits"]
Skips = Literal["nothing", "rows", "columns"]


@dataclass(frozen=True)
class Kernel:
    """A ternary matmul: acc[i][m] = sum over k of trit[m][k] * q[i][k], exact in int32."""

    isa: str  # folder under runtime_c/kernels
    layout_name: str
    activation: Activation  # the form of the activations it reads: runtime_c/bnc_quantise.h
    features: tuple[str, ...]  # what the target's [isa] features must hold
    max_cols: int  # the header's "Bounds:" prove that no accumulator overflows up to here
    guards: str  # preprocessor condition under which the header compiles
    # What of one token need not be read: columns of zero activations; rows that nobody asks for.
    skips: Skips = "nothing"
    permit: str = ""  # C function that must return 0 before a process first uses the kernel
    # Rows that are unpacked and multiplied together for several tokens, column by column of the
    # codes, so that their sums are read and written several times: the planner may cut a tile into
    # slices of a multiple of these. 0: it may not.
    unit: int = 0
    # Of a kernel that skips rows: what several tokens cost together, each of them and all of them
    # once, in hundredths of one alone whose weights are in a cache: measured, on Arm llvm-mca's.
    # Where their zeros make it less, they go one after the other: docs/performance.md, "Zeros of a
    # prompt".
    each: int = 0
    once: int = 0

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
    def rows_symbol(self) -> str:
        """The function that computes chosen rows, of a kernel that skips rows."""
        return f"bnc_rows_{self.layout_name}_{self.isa}"

    @property
    def header(self) -> str:
        return f"kernels/{self.isa}/matmul_{self.layout_name}.h"


# All kernels sum codes 0 .. 2 times q, or table entries of two columns, which int32 holds for 8.4
# million columns. No model is as wide as these, and a check of them takes a second.
_WIDE = 2**17
# Integers of two bits: codes of 0 .. 3, 64 times as large in one kernel, last for 88,069 columns.
# All stay below, for checks that take less time.
_TWOS = 2**16
# Codes of wider ones, at most 255 times q; of 4 bits masked in place, at most 240.
_BYTES = (2**31 - 1) // (255 * 127)
# Of 6 bits, four times as large where the last of four is put together in place.
_SIXES = (2**31 - 1) // (252 * 127)

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("scalar", "i2_k64", "int8", (), _WIDE, "1"),
        Kernel("scalar", "b1_m8k64", "bits", (), _WIDE, "1"),
        Kernel("scalar", "u2_m8k64", "bits", (), _WIDE, "1"),
        Kernel("avx2", "b1_m8k64", "bits", ("avx2",), _WIDE, "defined(__AVX2__)"),
        Kernel("avx2", "u2_m8k64", "bits", ("avx2",), _WIDE, "defined(__AVX2__)"),
        Kernel(
            "avx512popcnt",
            "b1_m8k64",
            "bits",
            ("avx512", "avx512popcnt"),
            _WIDE,
            "defined(__AVX512VPOPCNTDQ__)",
        ),
        Kernel(
            "avx512popcnt",
            "u2_m8k64",
            "bits",
            ("avx512", "avx512popcnt"),
            _WIDE,
            "defined(__AVX512VPOPCNTDQ__)",
        ),
        Kernel("neon", "b1_m8k64", "bits", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel("neon", "u2_m8k64", "bits", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel("neon32", "b1_m8k64", "bits", ("neon32",), _WIDE, "defined(__ARM_NEON)"),
        Kernel("neon32", "u2_m8k64", "bits", ("neon32",), _WIDE, "defined(__ARM_NEON)"),
        Kernel("sse41", "b1_m8k64", "bits", ("sse41",), _WIDE, "defined(__SSE4_1__)"),
        Kernel("sse41", "u2_m8k64", "bits", ("sse41",), _WIDE, "defined(__SSE4_1__)"),
        Kernel("wasm128", "b1_m8k64", "bits", ("simd128",), _WIDE, "defined(__wasm_simd128__)"),
        Kernel("wasm128", "u2_m8k64", "bits", ("simd128",), _WIDE, "defined(__wasm_simd128__)"),
        Kernel("scalar", "b1_k128", "int8", (), _WIDE, "1"),
        Kernel("avx2", "b1_m32k64", "int8", ("avx2",), _WIDE, "defined(__AVX2__)", unit=32),
        Kernel(
            "avx512vnni",
            "b1_m32k64",
            "int8",
            ("avx512", "avx512vnni"),
            _WIDE,
            "defined(__AVX512VNNI__)",
            unit=64,
        ),
        Kernel(
            "amx",
            "b1_m32k64",
            "int8",
            ("avx512", "avx512vnni", "amx"),
            _WIDE,
            "defined(__AMX_INT8__)",
            permit="bnc_permit_amx",
            unit=32,
        ),
        Kernel("neon", "b1_m4k128", "int8", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel(
            "neondot",
            "b1_m4k128",
            "int8",
            ("neon", "dotprod"),
            _WIDE,
            "defined(__ARM_FEATURE_DOTPROD)",
            unit=8,
        ),
        Kernel("scalar", "q2_k64", "int8", (), _TWOS, "1"),
        Kernel("rv64m", "q2_k64", "int8", ("rv64m",), _TWOS, "__riscv_xlen == 64"),
        Kernel("sse41", "q2_m32k64", "int8", ("sse41",), _TWOS, "defined(__SSE4_1__)", unit=32),
        Kernel("avx2", "q2_m32k64", "int8", ("avx2",), _TWOS, "defined(__AVX2__)", unit=32),
        Kernel(
            "avxvnni",
            "q2_m32k64",
            "int8",
            ("avx2", "avxvnni"),
            _TWOS,
            "defined(__AVXVNNI__)",
            unit=32,
        ),
        Kernel(
            "avx512vnni",
            "q2_m32k64",
            "int8",
            ("avx512", "avx512vnni"),
            _TWOS,
            "defined(__AVX512VNNI__)",
            unit=64,
        ),
        Kernel(
            "amx",
            "q2_m32k64",
            "int8",
            ("avx512", "avx512vnni", "amx"),
            _TWOS,
            "defined(__AMX_INT8__)",
            permit="bnc_permit_amx",
            unit=32,
        ),
        Kernel("neon", "q2_m4k64", "int8", ("neon",), _TWOS, "defined(__aarch64__)"),
        Kernel(
            "neondot",
            "q2_m4k64",
            "int8",
            ("neon", "dotprod"),
            _TWOS,
            "defined(__ARM_FEATURE_DOTPROD)",
            unit=8,
        ),
        Kernel(
            "neoni8mm",
            "q2_m4k64",
            "int8",
            ("neon", "dotprod", "i8mm"),
            _TWOS,
            "defined(__ARM_FEATURE_MATMUL_INT8)",
        ),
        Kernel("neon32", "q2_m4k64", "int8", ("neon32",), _TWOS, "defined(__ARM_NEON)", unit=4),
        Kernel("dsp", "q2_m4k64", "int8", ("dsp",), _TWOS, "defined(__ARM_FEATURE_SIMD32)"),
        Kernel("mve", "q2_m4k64", "int8", ("mve",), _TWOS, "defined(__ARM_FEATURE_MVE)"),
        Kernel("rvv", "q2_m128k16", "int8", ("rvv",), _TWOS, "defined(__riscv_vector)"),
        Kernel(
            "wasm128",
            "q2_m4k64",
            "int8",
            ("simd128",),
            _TWOS,
            "defined(__wasm_simd128__)",
        ),
        Kernel(
            "wasmrelaxed",
            "q2_m4k64",
            "int8",
            ("simd128", "relaxed"),
            _TWOS,
            "defined(__wasm_relaxed_simd__)",
        ),
        Kernel("scalar", "i4_m16k8", "int8", (), _WIDE, "1"),
        Kernel("scalar", "i6_m16k16", "int8", (), _SIXES, "1"),
        Kernel("scalar", "i8_m16k4", "int8", (), _BYTES, "1"),
        Kernel("avx2", "i4_m16k8", "int8", ("avx2",), _WIDE, "defined(__AVX2__)"),
        Kernel("avx2", "i6_m16k16", "int8", ("avx2",), _SIXES, "defined(__AVX2__)"),
        Kernel("avx2", "i8_m16k4", "int8", ("avx2",), _BYTES, "defined(__AVX2__)"),
        Kernel(
            "avx512vnni", "i4_m16k8", "int8", ("avx512vnni",), _BYTES, "defined(__AVX512VNNI__)"
        ),
        Kernel(
            "avx512vnni", "i6_m16k16", "int8", ("avx512vnni",), _SIXES, "defined(__AVX512VNNI__)"
        ),
        Kernel(
            "avx512vnni", "i8_m16k4", "int8", ("avx512vnni",), _BYTES, "defined(__AVX512VNNI__)"
        ),
        Kernel(
            "neondot", "i4_m16k8", "int8", ("dotprod",), _BYTES, "defined(__ARM_FEATURE_DOTPROD)"
        ),
        Kernel(
            "neondot", "i6_m16k16", "int8", ("dotprod",), _SIXES, "defined(__ARM_FEATURE_DOTPROD)"
        ),
        Kernel(
            "neondot", "i8_m16k4", "int8", ("dotprod",), _BYTES, "defined(__ARM_FEATURE_DOTPROD)"
        ),
        Kernel("neon", "i8_m16k4", "int8", ("neon",), _BYTES, "defined(__aarch64__)"),
        Kernel(
            "avx2",
            "i2_k256",
            "int8",
            ("avx2",),
            _WIDE,
            "defined(__AVX2__)",
            skips="rows",
            each=52,
            once=50,
            unit=4,
        ),
        Kernel(
            "neon",
            "i2_k256",
            "int8",
            ("neon",),
            _WIDE,
            "defined(__aarch64__)",
            skips="rows",
            each=90,
            once=0,
        ),
        Kernel(
            "neondot",
            "i2_k256",
            "int8",
            ("neon", "dotprod"),
            (2**31 - 1) // (32 * 127),
            "defined(__ARM_FEATURE_DOTPROD)",
            skips="rows",
            each=39,
            once=0,
            unit=8,
        ),
        Kernel(
            "avx512vnni",
            "i2_k256",
            "int8",
            ("avx512", "avx512vnni"),
            (2**31 - 1) // (128 * 127),
            "defined(__AVX512VNNI__)",
            skips="rows",
            each=30,
            once=200,
            unit=64,
        ),
        Kernel(
            "amx",
            "i2_k256",
            "int8",
            ("avx512", "avx512vnni", "amx"),
            (2**31 - 1) // (128 * 127),
            "defined(__AMX_INT8__)",
            skips="rows",
            each=2,
            once=60,
            permit="bnc_permit_amx",
            unit=32,
        ),
        Kernel("avx2", "i2_m4k128", "int8", ("avx2",), _WIDE, "defined(__AVX2__)"),
        Kernel("avx2", "i2_m32k64", "int8", ("avx2",), _WIDE, "defined(__AVX2__)", unit=32),
        Kernel(
            "avxvnni",
            "i2_m32k64",
            "int8",
            ("avx2", "avxvnni"),
            2**21,
            "defined(__AVXVNNI__)",
            unit=32,
        ),
        Kernel("avx2", "tl1_m32k4", "lut16", ("avx2",), _WIDE, "defined(__AVX2__)"),
        Kernel("neon", "i2_m4k64", "int8", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel("neon", "tl1_m64k4", "lut16", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel("neon", "tl1_m64k8", "lut16", ("neon",), _WIDE, "defined(__aarch64__)"),
        Kernel(
            "sse41",
            "i2_k256",
            "int8",
            ("sse41",),
            _WIDE,
            "defined(__SSE4_1__)",
            skips="rows",
            each=55,
            once=50,
            unit=4,
        ),
        Kernel(
            "sse41", "i2_m256k4", "int8", ("sse41",), _WIDE, "defined(__SSE4_1__)", skips="columns"
        ),
        Kernel("sse41", "i2_m4k64", "int8", ("sse41",), _WIDE, "defined(__SSE4_1__)"),
        Kernel("sse41", "i2_m32k64", "int8", ("sse41",), _WIDE, "defined(__SSE4_1__)", unit=32),
        Kernel(
            "avx512vnni",
            "i2_m32k64",
            "int8",
            ("avx512", "avx512vnni"),
            (2**31 - 1) // (128 * 127),
            "defined(__AVX512VNNI__)",
            unit=64,
        ),
        Kernel("neon32", "i2_m4k64", "int8", ("neon32",), _WIDE, "defined(__ARM_NEON)", unit=4),
        Kernel("neon32", "tl1_m64k4", "lut16", ("neon32",), _WIDE, "defined(__ARM_NEON)"),
        Kernel("dsp", "i2_m4k64", "int8", ("dsp",), _WIDE, "defined(__ARM_FEATURE_SIMD32)"),
        Kernel("rv64m", "i2_k64", "int8", ("rv64m",), _WIDE, "__riscv_xlen == 64"),
        Kernel("rv64m", "b1_k128", "int8", ("rv64m",), _WIDE, "__riscv_xlen == 64"),
        Kernel("dsp", "b1_m4k32", "int8", ("dsp",), _WIDE, "defined(__ARM_FEATURE_SIMD32)"),
        Kernel("mve", "b1_m4k32", "int8", ("mve",), _WIDE, "defined(__ARM_FEATURE_MVE)"),
        Kernel("mve", "i2_m4k64", "int8", ("mve",), _WIDE, "defined(__ARM_FEATURE_MVE)"),
        Kernel("rvv", "i2_m128k16", "int8", ("rvv",), _WIDE, "defined(__riscv_vector)"),
        Kernel("sse41", "b1_m32k64", "int8", ("sse41",), _WIDE, "defined(__SSE4_1__)", unit=32),
        Kernel("neon32", "b1_m128k8", "int8", ("neon32",), _WIDE, "defined(__ARM_NEON)"),
        Kernel("wasm128", "b1_m128k8", "int8", ("simd128",), _WIDE, "defined(__wasm_simd128__)"),
        Kernel("rvv", "b1_m128k16", "int8", ("rvv",), _WIDE, "defined(__riscv_vector)"),
        Kernel("wasm128", "tl1_m64k4", "lut16", ("simd128",), _WIDE, "defined(__wasm_simd128__)"),
        Kernel("wasm128", "i8_m16k4", "int8", ("simd128",), _BYTES, "defined(__wasm_simd128__)"),
        Kernel("wasm128", "i6_m16k16", "int8", ("simd128",), _SIXES, "defined(__wasm_simd128__)"),
        Kernel(
            "wasmrelaxed",
            "i6_m16k16",
            "int8",
            ("simd128", "relaxed"),
            _SIXES,
            "defined(__wasm_relaxed_simd__)",
        ),
        Kernel(
            "wasm128",
            "i4_m16k8",
            "int8",
            ("simd128",),
            (2**31 - 1) // (16 * 15 * 127),
            "defined(__wasm_simd128__)",
        ),
        Kernel(
            "wasmrelaxed",
            "i2_m4k64",
            "int8",
            ("simd128", "relaxed"),
            (2**31 - 1) // (48 * 127),
            "defined(__wasm_relaxed_simd__)",
        ),
        Kernel(
            "wasmrelaxed",
            "i4_m16k8",
            "int8",
            ("simd128", "relaxed"),
            _WIDE,
            "defined(__wasm_relaxed_simd__)",
        ),
        Kernel(
            "neoni8mm",
            "t5_m4k80",
            "int8",
            ("neon", "dotprod", "i8mm"),
            _WIDE,
            "defined(__ARM_FEATURE_MATMUL_INT8)",
        ),
        Kernel(
            "neoni8mm",
            "i2_m4k64",
            "int8",
            ("neon", "dotprod", "i8mm"),
            (2**31 - 1) // (32 * 127),
            "defined(__ARM_FEATURE_MATMUL_INT8)",
        ),
        Kernel(
            "neondot",
            "i2_m4k64",
            "int8",
            ("neon", "dotprod"),
            (2**31 - 1) // (32 * 127),
            "defined(__ARM_FEATURE_DOTPROD)",
            unit=8,
        ),
        Kernel(
            "avx512vbmi",
            "t5_m32k80",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi"),
            _WIDE,
            "defined(__AVX512VBMI__) && defined(__AVX512VNNI__)",
            unit=64,
        ),
        Kernel(
            "amx",
            "t5_m32k80",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi", "amx"),
            _WIDE,
            "defined(__AMX_INT8__) && defined(__AVX512VBMI__)",
            permit="bnc_permit_amx",
            unit=32,
        ),
        Kernel(
            "avx512vbmi",
            "t5_k320",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi"),
            _WIDE,
            "defined(__AVX512VBMI__) && defined(__AVX512VNNI__)",
            skips="rows",
            each=26,
            once=165,
            unit=64,
        ),
        Kernel(
            "amx",
            "t5_k320",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi", "amx"),
            _WIDE,
            "defined(__AMX_INT8__) && defined(__AVX512VBMI__)",
            skips="rows",
            each=2,
            once=60,
            permit="bnc_permit_amx",
            unit=32,
        ),
        Kernel(
            "avx512vbmi",
            "t5_m320k4",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi"),
            _WIDE,
            "defined(__AVX512VBMI__) && defined(__AVX512VNNI__)",
            skips="columns",
        ),
        Kernel(
            "amx",
            "t5_m320k4",
            "int8",
            ("avx512", "avx512vnni", "avx512vbmi", "amx"),
            _WIDE,
            "defined(__AMX_INT8__) && defined(__AVX512VBMI__)",
            skips="columns",
            permit="bnc_permit_amx",
        ),
        Kernel("neon", "t5_m4k80", "int8", ("neon",), _WIDE, "defined(__aarch64__)", unit=4),
        Kernel(
            "neondot",
            "t5_m4k80",
            "int8",
            ("neon", "dotprod"),
            _WIDE,
            "defined(__ARM_FEATURE_DOTPROD)",
            unit=8,
        ),
        Kernel("avx2", "i2_m256k4", "int8", ("avx2",), _WIDE, "defined(__AVX2__)", skips="columns"),
        Kernel(
            "neon", "i2_m256k4", "int8", ("neon",), _WIDE, "defined(__aarch64__)", skips="columns"
        ),
        Kernel(
            "neondot",
            "i2_m256k4",
            "int8",
            ("neon", "dotprod"),
            _WIDE,
            "defined(__ARM_FEATURE_DOTPROD)",
            skips="columns",
        ),
        Kernel(
            "avx512vnni",
            "i2_m256k4",
            "int8",
            ("avx512", "avx512vnni"),
            (2**31 - 1) // (128 * 127),
            "defined(__AVX512VNNI__)",
            skips="columns",
        ),
        Kernel(
            "amx",
            "i2_m256k4",
            "int8",
            ("avx512", "avx512vnni", "amx"),
            (2**31 - 1) // (128 * 127),
            "defined(__AMX_INT8__)",
            skips="columns",
            permit="bnc_permit_amx",
        ),
        Kernel(
            "amx",
            "i2_m32k64",
            "int8",
            ("avx512", "avx512vnni", "amx"),
            (2**31 - 1) // (128 * 127),
            "defined(__AMX_INT8__)",
            permit="bnc_permit_amx",
            unit=32,
        ),
    )
}
