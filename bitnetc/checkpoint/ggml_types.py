"""The types of tensors in GGUF files: their sizes, and how those that BitNet files use decode.

Ternary types give trits and multipliers exactly as stored; float types that serve embeddings are
widened to float32 by the formulas of ggml. Sources: ggml `ggml-common.h`, `ggml-quants.c`;
microsoft/BitNet `src/ggml-bitnet-mad.cpp` (I2_S); ik_llama.cpp `iqk_quantize.cpp` (IQ1_BN, IQ2_BN).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitnetc.layout import Code, Layout

Bytes = NDArray[np.uint8]
Trits = NDArray[np.int8]
Floats = NDArray[np.float32]

I2sLayout = Literal["128", "64", "rows4"]
I2S_LAYOUTS: tuple[I2sLayout, ...] = ("128", "64", "rows4")

_CHUNK = 1 << 18  # trits per step, so that temporaries stay in cache


class NoTrit(ValueError):
    """A code that stands for no trit."""


@dataclass(frozen=True)
class Block:
    """A type of values in blocks of `count` neighbours in a row, `bytes` each."""

    name: str
    count: int
    bytes: int

    def misfit(self, rows: int, cols: int) -> str:
        """Why a matrix cannot be stored so; empty when it can."""
        if cols % self.count:
            return f"{self.name} holds blocks of {self.count} columns, and {cols} are no multiple"
        return ""

    def size(self, rows: int, cols: int) -> int:
        return rows * cols // self.count * self.bytes


@dataclass(frozen=True)
class Packing:
    """A ternary type: real weight = trit * scale.

    misfit: why a matrix of rows x cols cannot be stored so; empty when it can
    size:   bytes of a matrix
    step:   rows that can be decoded by themselves, from bytes of their own; 0: only all at once
    scales: float32 multipliers of the whole matrix, [1, 1], [rows, 1] or [rows, groups]
    trits:  int8 [rows, cols] of some whole steps. Errors: NoTrit
    """

    name: str
    misfit: Callable[[int, int], str]
    size: Callable[[int, int], int]
    step: int
    scales: Callable[[Bytes, int, int], Floats]
    trits: Callable[[Bytes, int, int], Trits]

    def decode(self, raw: Bytes, rows: int, cols: int) -> Trits:
        """All trits, int8 [rows, cols]. Errors: NoTrit."""
        if not self.step:
            return self.trits(raw, rows, cols)
        out = np.empty((rows, cols), dtype=np.int8)
        step = max(1, _CHUNK // (cols * self.step)) * self.step
        row_bytes = self.size(rows, cols) // rows
        for begin in range(0, rows, step):
            end = min(rows, begin + step)
            part = raw[begin * row_bytes : end * row_bytes]
            out[begin:end] = self.trits(part, end - begin, cols)
        return out


def _check_codes(codes: Bytes) -> None:
    """Errors: a 2-bit code 3 anywhere."""
    both = codes >> 1
    both &= codes
    both &= 0x55
    if both.any():
        raise NoTrit


def _spread(codes: Bytes, shifts: tuple[int, ...], out: NDArray[np.uint8]) -> None:
    """out[..., i, :] = the 2-bit code of `codes` at shifts[i], less 1 (255 is -1)."""
    for i, shift in enumerate(shifts):
        into = out[..., i, :]
        np.right_shift(codes, shift, out=into)
        np.bitwise_and(into, 3, out=into)
        np.subtract(into, 1, out=into)


def _f16(raw: Bytes) -> Floats:
    """float16 in the last axis of 2 bytes, widened."""
    return np.ascontiguousarray(raw).view("<f2")[..., 0].astype(np.float32)


def _f32(raw: Bytes) -> Floats:
    return np.ascontiguousarray(raw).view("<f4")[..., 0].astype(np.float32)


def _fitting(name: str, cols: int, rows: int = 1) -> Callable[[int, int], str]:
    def misfit(m: int, k: int) -> str:
        if m % rows:
            return f"{name} holds groups of {rows} rows, and {m} are no multiple"
        if k % cols:
            return f"{name} holds blocks of {cols} columns, and {k} are no multiple"
        return ""

    return misfit


# --- I2_S ----------------------------------------------------------------------------------------


# Codes, then a tail of 32 bytes that begins with the float32 multiplier. Blocks run over the
# flattened matrix, so that of 5460 columns some straddle rows; as one long row it is whole blocks.
@dataclass(frozen=True)
class _Single(Code):
    """One trit a code: no division is needed, which halves the time of decoding."""

    def decode(self, codes: Bytes) -> Trits:
        return codes.view(np.int8) - np.int8(1)


_TRIT = _Single(trits=1, lanes=4)
_I2_S: Mapping[I2sLayout, Layout] = {
    "128": Layout("i2_k128", "m, kb kq:4 kl:32 -> m kb kl | kq", _TRIT),
    "64": Layout("i2_k64", "m, kb kq:4 kl:16 -> m kb kl | kq", _TRIT),
    "rows4": Layout("i2_m4k1", "mo mi:4, k -> mo k | mi", _TRIT),
}
_I2_S_TAIL = 32


def _i2_s(kind: I2sLayout) -> Packing:
    layout = _I2_S[kind]
    flat = layout.rows == 1
    name = "I2_S" if kind == "128" else f"I2_S ({kind})"

    def misfit(rows: int, cols: int) -> str:
        if flat and rows * cols % layout.cols:
            return (
                f"{name} holds blocks of {layout.cols} weights, and {rows} x {cols} are no multiple"
            )
        return "" if rows % layout.rows == 0 else f"{name} holds rows in fours, and {rows} are not"

    def scales(raw: Bytes, rows: int, cols: int) -> Floats:
        return _f32(raw[rows * cols // 4 :][None, :4])[:, None]

    def trits(raw: Bytes, rows: int, cols: int) -> Trits:
        codes = raw[: rows * cols // 4]
        out = np.empty(rows * cols, dtype=np.int8)
        step = max(1, _CHUNK // (cols * layout.rows)) * layout.rows * cols
        if flat:
            step = _CHUNK
        for begin in range(0, rows * cols, step):
            end = min(rows * cols, begin + step)
            part = codes[begin // 4 : end // 4]
            _check_codes(part)
            shape = (1, end - begin) if flat else ((end - begin) // cols, cols)
            out[begin:end] = layout.unpack(part.tobytes(), *shape).reshape(-1)
        return out.reshape(rows, cols)

    return Packing(name, misfit, lambda m, k: m * k // 4 + _I2_S_TAIL, 0, scales, trits)


# --- blocks with a float16 multiplier each -------------------------------------------------------

# [digit, byte] -> trit as uint8, of bytes that hold five trits as a fraction of 256, first trit
# most significant: ((byte * 3^digit mod 256) * 3) >> 8.
_FRACTION = np.array(
    [[((((b * 3**n) & 255) * 3 >> 8) - 1) & 255 for b in range(256)] for n in range(5)], np.uint8
)


def _blocks(
    name: str,
    cols: int,
    size: int,
    scale_at: int,
    unpack: Callable[[Bytes, NDArray[np.uint8]], None],
) -> Packing:
    """Blocks of `cols` trits in `size` bytes; unpack fills uint8 [n, cols] from [n, size]."""

    def scales(raw: Bytes, rows: int, k: int) -> Floats:
        return _f16(raw.reshape(-1, size)[:, scale_at : scale_at + 2]).reshape(rows, -1)

    def trits(raw: Bytes, rows: int, k: int) -> Trits:
        out = np.empty((rows * k // cols, cols), dtype=np.uint8)
        unpack(raw.reshape(-1, size), out)
        return out.reshape(rows, k).view(np.int8)

    return Packing(name, _fitting(name, cols), lambda m, k: m * k // cols * size, 1, scales, trits)


def _tq2_0(raw: Bytes, out: NDArray[np.uint8]) -> None:
    """Element e: byte 32 * (e / 128) + e % 32, at bit 2 * (e % 128 / 32)."""
    codes = raw[:, :64]
    _check_codes(codes)
    _spread(codes.reshape(-1, 2, 32), (0, 2, 4, 6), out.reshape(-1, 2, 4, 32))


def _tq1_0(raw: Bytes, out: NDArray[np.uint8]) -> None:
    """Five trits a byte: 32 bytes for elements 0 to 159, 16 for 160 to 239, 4 of four trits."""
    for digit in range(5):
        out[:, 32 * digit : 32 * digit + 32] = _FRACTION[digit][raw[:, :32]]
        out[:, 160 + 16 * digit : 176 + 16 * digit] = _FRACTION[digit][raw[:, 32:48]]
    for digit in range(4):
        out[:, 240 + 4 * digit : 244 + 4 * digit] = _FRACTION[digit][raw[:, 48:52]]


def _ptq1_0(raw: Bytes, out: NDArray[np.uint8]) -> None:
    """As TQ1_0 with 16 + 8 bytes of five trits and 2 of four."""
    for digit in range(5):
        out[:, 16 * digit : 16 * digit + 16] = _FRACTION[digit][raw[:, :16]]
        out[:, 80 + 8 * digit : 88 + 8 * digit] = _FRACTION[digit][raw[:, 16:24]]
    for digit in range(4):
        out[:, 120 + 2 * digit : 122 + 2 * digit] = _FRACTION[digit][raw[:, 24:26]]


def _q2_0(raw: Bytes, out: NDArray[np.uint8]) -> None:
    """Neighbours in a byte, low bits first. Code 3 is +2, legal here but no trit."""
    codes = raw[:, 2:]
    _check_codes(codes)
    for i in range(4):
        into = out[:, i::4]
        np.right_shift(codes, 2 * i, out=into)
        np.bitwise_and(into, 3, out=into)
        np.subtract(into, 1, out=into)


def _q1_0(raw: Bytes, out: NDArray[np.uint8]) -> None:
    """One bit a weight, low bits first: 1 is +1, 0 is -1."""
    bits = np.unpackbits(raw[:, 2:], axis=1, bitorder="little")
    np.subtract(bits * np.uint8(2), 1, out=out)


# --- rows with a multiplier at their head --------------------------------------------------------

# [digit, byte] -> trit as uint8: v = byte * 3^(4 - digit) mod 256, code (v + v / 2) >> 7.
_IQ1_POWERS = (81, 27, 9, 3, 1)
_IQ1 = np.array(
    [
        [(((v := (b * power) & 255) + (v >> 1) >> 7) - 1) & 255 for b in range(256)]
        for power in _IQ1_POWERS
    ],
    np.uint8,
)


def _iq1_bn_trits(raw: Bytes, rows: int, cols: int) -> Trits:
    """float16 head; per 64 columns 12 bytes of five trits and one with the last of each 16."""
    codes = raw.reshape(rows, -1)[:, 2:].reshape(rows, -1, 13)
    out = np.empty((rows, cols // 64, 4, 16), dtype=np.uint8)
    fives = codes[..., :12].reshape(rows, -1, 4, 3)
    for digit in range(5):
        out[..., digit:15:5] = _IQ1[digit][fives]
    for i in range(4):
        out[..., i, 15] = _IQ1[i][codes[..., 12]]
    return out.reshape(rows, cols).view(np.int8)


def _iq2_bn_trits(raw: Bytes, rows: int, cols: int) -> Trits:
    """float32 head; per 64 columns 16 bytes, byte j holding columns j, 16 + j, 32 + j, 48 + j."""
    codes = raw.reshape(rows, -1)[:, 4:].reshape(rows, -1, 16)
    _check_codes(codes)
    out = np.empty((rows, cols // 64, 4, 16), dtype=np.uint8)
    _spread(codes, (0, 2, 4, 6), out)
    return out.reshape(rows, cols).view(np.int8)


def _iq2_bn_r4_trits(raw: Bytes, rows: int, cols: int) -> Trits:
    """Four float32 heads; per 64 columns 64 bytes: field p of byte 16l + 4k + i is row k, column
    16l + 4p + i."""
    codes = raw.reshape(rows // 4, -1)[:, 16:].reshape(rows // 4, -1, 4, 4, 4)  # r b l k i
    _check_codes(codes)
    out = np.empty((rows // 4, 4, cols // 64, 4, 4, 4), dtype=np.uint8)  # r k b l p i
    _spread(codes.transpose(0, 3, 1, 2, 4), (0, 2, 4, 6), out)
    return out.reshape(rows, cols).view(np.int8)


PACKINGS: Mapping[str, Packing] = {
    packing.name: packing
    for packing in (
        *(_i2_s(kind) for kind in I2S_LAYOUTS),
        _blocks("TQ1_0", 256, 54, 52, _tq1_0),
        _blocks("TQ2_0", 256, 66, 64, _tq2_0),
        _blocks("Q2_0", 64, 18, 0, _q2_0),
        _blocks("Q2_0 (128)", 128, 34, 0, _q2_0),
        _blocks("PQ2_0", 128, 34, 0, _q2_0),
        _blocks("PTQ1_0", 128, 28, 26, _ptq1_0),
        _blocks("Q1_0", 128, 18, 0, _q1_0),
        Packing(
            "IQ1_BN",
            _fitting("IQ1_BN", 64),
            lambda m, k: m * (2 + 13 * (k // 64)),
            1,
            lambda raw, m, k: _f16(raw.reshape(m, -1)[:, :2])[:, None],
            _iq1_bn_trits,
        ),
        Packing(
            "IQ2_BN",
            _fitting("IQ2_BN", 64),
            lambda m, k: m * (4 + k // 4),
            1,
            lambda raw, m, k: _f32(raw.reshape(m, -1)[:, :4])[:, None],
            _iq2_bn_trits,
        ),
        Packing(
            "IQ2_BN_R4",
            _fitting("IQ2_BN_R4", 64, rows=4),
            lambda m, k: m * (4 + k // 4),
            4,
            lambda raw, m, k: _f32(raw.reshape(m // 4, -1)[:, :16].reshape(m, 4))[:, None],
            _iq2_bn_r4_trits,
        ),
    )
}
# Those whose only runtimes quantise activations; the others also carry weight-only models.
TAKES_INT8 = frozenset(
    [name for name in PACKINGS if name.startswith(("I2_S", "IQ"))] + ["TL1", "TL2"]
)


# --- floats --------------------------------------------------------------------------------------


def _q8_0(raw: Bytes) -> Floats:
    """[n, 34]: float16 d, int8 [32]."""
    return _f16(raw[:, :2])[:, None] * raw[:, 2:].view(np.int8).astype(np.float32)


def _nibbles(raw: Bytes) -> Bytes:
    """Low nibbles of 16 bytes, then the high ones."""
    return np.concatenate([raw & 15, raw >> 4], axis=1)


def _q4_0(raw: Bytes) -> Floats:
    """[n, 18]: float16 d, nibbles less 8."""
    codes = _nibbles(raw[:, 2:]).view(np.int8) - np.int8(8)
    return _f16(raw[:, :2])[:, None] * codes.astype(np.float32)


def _q4_1(raw: Bytes) -> Floats:
    """[n, 20]: float16 d and m, nibbles: d * nibble + m."""
    scaled: Floats = _f16(raw[:, :2])[:, None] * _nibbles(raw[:, 4:]).astype(np.float32)
    scaled += _f16(raw[:, 2:4])[:, None]
    return scaled


def _fives(low: Bytes, high: Bytes) -> Floats:
    """5-bit codes [n, 32]: nibbles [n, 16], and the upper bits of all in 4 bytes."""
    upper = np.unpackbits(high, axis=1, bitorder="little")
    return (_nibbles(low) | upper << np.uint8(4)).astype(np.float32)


def _q5_0(raw: Bytes) -> Floats:
    """[n, 22]: float16 d, upper bits [4], nibbles; codes less 16."""
    return _f16(raw[:, :2])[:, None] * (_fives(raw[:, 6:], raw[:, 2:6]) - np.float32(16))


def _q5_1(raw: Bytes) -> Floats:
    """[n, 24]: float16 d and m, upper bits [4], nibbles: d * code + m."""
    scaled: Floats = _f16(raw[:, :2])[:, None] * _fives(raw[:, 8:], raw[:, 4:8])
    scaled += _f16(raw[:, 2:4])[:, None]
    return scaled


def _q2_k(raw: Bytes) -> Floats:
    """[n, 84]: scale and minimum in a byte for each 16 [16], 2-bit codes [64], float16 d, dmin."""
    packed, codes = raw[:, :16], raw[:, 16:80]
    scale = _f16(raw[:, 80:82])[:, None] * (packed & 15).astype(np.float32)
    minimum = _f16(raw[:, 82:84])[:, None] * (packed >> 4).astype(np.float32)
    fields = codes.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    scaled: Floats = scale[..., None] * fields.reshape(-1, 16, 16).astype(np.float32)
    scaled -= minimum[..., None]
    return scaled.reshape(-1, 256)


_IQ4_NL = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)


def _iq4_nl(raw: Bytes) -> Floats:
    """[n, 18]: float16 d, nibbles that index a table."""
    values: Floats = _f16(raw[:, :2])[:, None] * _IQ4_NL[_nibbles(raw[:, 2:])]
    return values


def _q4_k(raw: Bytes) -> Floats:
    """[n, 144]: float16 d and dmin, 8 scales and minima of 6 bits in 12 bytes, nibbles [128].

    The scales of the last four groups of 32 have their upper two bits with the first four's.
    """
    return _k_floats(raw, np.zeros(1, np.uint8))


def _q5_k(raw: Bytes) -> Floats:
    """[n, 176]: as Q4_K, and 32 bytes before the nibbles: bit i of each is the fifth of group i."""
    bits = np.arange(8, dtype=np.uint8)[:, None]
    high: Bytes = (raw[:, 16:48].reshape(-1, 1, 32) >> bits & np.uint8(1)) << np.uint8(4)
    return _k_floats(np.delete(raw, np.s_[16:48], axis=1), high)


def _k_floats(raw: Bytes, upper: Bytes) -> Floats:
    """Blocks of Q4_K whose codes [n, 8, 32] have `upper` added."""
    d, least, packed, codes = _f16(raw[:, :2]), _f16(raw[:, 2:4]), raw[:, 4:16], raw[:, 16:]
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([a & 63, (c & 15) | (a >> 2 & 0x30)], axis=1).astype(np.float32)
    minimum = np.concatenate([b & 63, (c >> 4) | (b >> 2 & 0x30)], axis=1).astype(np.float32)
    pairs = codes.reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8)[:, None] & 15
    values = (pairs.reshape(-1, 8, 32) | upper).astype(np.float32)
    scaled: Floats = (d[:, None] * scale)[..., None] * values
    scaled -= (least[:, None] * minimum)[..., None]
    return scaled.reshape(-1, 256)


def _q6_k(raw: Bytes) -> Floats:
    """[n, 210]: low nibbles [128], upper two bits [64], int8 scales [16], float16 d; less 32."""
    low, high = raw[:, :128], raw[:, 128:192]
    scale = _f16(raw[:, 208:])[:, None] * raw[:, 192:208].view(np.int8).astype(np.float32)
    lower = low.reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    upper = high.reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    codes = (lower.reshape(-1, 16, 16) | upper.reshape(-1, 16, 16) << 4).view(np.int8)
    values = (codes - np.int8(32)).astype(np.float32)
    scaled: Floats = scale[..., None] * values
    return scaled.reshape(-1, 256)


@dataclass(frozen=True)
class Widened:
    """Quantised floats: `values` gives float32 [n, count] of blocks uint8 [n, bytes]."""

    block: Block
    values: Callable[[Bytes], Floats]

    def load(self, raw: Bytes, rows: int, cols: int) -> Floats:
        blocks = raw.reshape(-1, self.block.bytes)
        out = np.empty((len(blocks), self.block.count), dtype=np.float32)
        step = max(1, _CHUNK // self.block.count)
        for begin in range(0, len(blocks), step):
            with np.errstate(invalid="ignore", over="ignore"):
                out[begin : begin + step] = self.values(blocks[begin : begin + step])
        return out.reshape(rows, cols)


# --- all types by number -------------------------------------------------------------------------

BLOCKS: Mapping[int, Block] = {
    number: Block(name, count, size)
    for number, name, count, size in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 40),
        (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2),
        (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8), (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
    )
}  # fmt: skip
# Numbers of ternary types.
TERNARY: Mapping[int, tuple[str, ...]] = {
    34: ("TQ1_0",),
    35: ("TQ2_0",),
    36: ("I2_S",),
    41: ("Q1_0",),
    42: ("Q2_0", "Q2_0 (128)"),
    134: ("IQ1_BN",),
    135: ("IQ2_BN",),
    142: ("PQ2_0",),
    143: ("PTQ1_0",),
    335: ("IQ2_BN_R4",),
}
# Numbers that mean something else to other forks, which the size of the tensor tells.
AMBIGUOUS = (36, 42)
MXFP4 = Block("MXFP4", 32, 17)  # shares its number, 39, with TL2
LUT: Mapping[int, str] = {38: "TL1", 39: "TL2"}  # see lut_types.py
# Numbers that are refused by name whatever the size: (name, why, what to do).
_TABLES = "is laid out by a kernel_config.ini that the file does not carry"
_USE_I2S = (
    "use the I2_S file of the same model, which is published beside it, or put the engine's "
    "include/kernel_config.ini beside the file"
)
REFUSED: Mapping[int, tuple[str, str, str]] = {
    37: ("I8_S", "holds int8 weights, not trits, and is not supported", "use a ternary model"),
    38: ("TL1", _TABLES, _USE_I2S),
    39: ("TL2", _TABLES, _USE_I2S),
    40: ("NVFP4 or an early Q1_0", "is not supported", "convert the model to I2_S or TQ2_0"),
}
WIDENED: Mapping[str, Widened] = {
    block.name: Widened(block, values)
    for block, values in (
        (BLOCKS[2], _q4_0),
        (BLOCKS[3], _q4_1),
        (BLOCKS[6], _q5_0),
        (BLOCKS[7], _q5_1),
        (BLOCKS[8], _q8_0),
        (BLOCKS[10], _q2_k),
        (BLOCKS[12], _q4_k),
        (BLOCKS[13], _q5_k),
        (BLOCKS[14], _q6_k),
        (BLOCKS[20], _iq4_nl),
    )
}

Kind = Block | Packing


def kinds(number: int, i2s_layout: I2sLayout) -> tuple[Kind, ...]:
    """What the number of a type may mean; empty when it is unknown."""
    if number in BLOCKS:
        return (BLOCKS[number],)
    names: tuple[Any, ...] = TERNARY.get(number, ())
    if number == 36 and i2s_layout != "128":
        names = (f"I2_S ({i2s_layout})",)
    return tuple(PACKINGS[name] for name in names)
