"""Layouts: where each trit of a weight matrix lies in memory.

A layout is stated once, as one line. The packer, the unpacker, the C accessor and the picture in
the C comment are all derived from that line, and tests/contract checks that Python and C agree on
every trit.

    m, kb kq:4 kl:32 -> m kb kl | kq

Left of the arrow the two indices are split into digits, most significant first:
column k = 128*kb + 32*kq + kl. A digit without a size is as long as the matrix needs. Right of
the arrow is the order in memory, slowest first; what stands after the bar, one digit or two,
selects one of the codes that share a byte, highest first. Where codes share several bytes, a star
says at which place in that order these follow each other, behind the digits without a size.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitnetc.errors import BitnetcError


@dataclass(frozen=True)
class Code:
    """`trits` neighbours in a row, written in `base`, first one highest. What is written is a digit
    0 .. base - 1, and the value is `step` * digit - `offset`: values are trits, signs (-1 and +1,
    two apart), or integers of one code each.

    `lanes` of them share a byte. One, two or four have bits of their own. Five are digits base 3 of
    a number 9 * high + low, high in 0 .. 26 and low in 0 .. 8, and the byte is

        8 * high + low    where low < 8
        216 + high        where low = 8

    so that high and low are five bits and three, but for one range at the end.

    Four codes of six bits share three `parts`, each a byte: the first three codes are the lower six
    bits of one each, and the fourth is two bits above each of them, its lowest in the first byte.
    """

    trits: int
    lanes: int
    base: int = 3
    offset: int = 1
    step: int = 1
    parts: int = 1  # bytes that the lanes share
    unary: bool = False  # a trit's digit is the number of ones among its two bits: 00, 01, 11

    @property
    def bits(self) -> int:
        """Bits of one code; 0 where it has none of its own."""
        return 0 if self.folded else 8 * self.parts // self.lanes

    @property
    def folded(self) -> bool:
        return self.lanes == 5

    @property
    def powers(self) -> NDArray[np.uint8]:
        return np.array([self.base**i for i in reversed(range(self.trits))], np.uint8)

    @property
    def weights(self) -> list[int]:
        """What each lane is worth in the number behind a folded byte."""
        return [self.base**i for i in reversed(range(self.lanes))]

    @property
    def shifts(self) -> NDArray[np.uint8]:
        """Where each lane's bits begin in a byte that is not folded."""
        return (self.bits * np.arange(self.lanes)[::-1]).astype(np.uint8)

    @property
    def integers(self) -> int:
        """Bits of a signed integer that it holds; 0 for trits and signs."""
        return 0 if self.base <= 3 else self.bits

    @property
    def binary(self) -> bool:
        """Whether it holds signs: where there is no weight, in padding, they are -1."""
        return self.base == 2

    def encode(self, trits: NDArray[np.int8]) -> NDArray[np.uint8]:
        """int8 values [rows, cols] -> codes [rows, cols / trits]."""
        digits = trits.view(np.uint8) + np.uint8(self.offset)
        if self.step > 1:
            digits //= np.uint8(self.step)
        if self.trits == 1:
            return digits
        codes = np.zeros((len(trits), trits.shape[1] // self.trits), np.uint8)
        for i, power in enumerate(self.powers):
            codes += digits[:, i :: self.trits] * power
        return codes

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Codes [rows, n] -> int8 values [rows, n * trits]."""
        digits = codes
        if self.trits > 1:
            digits = (codes[..., None] // self.powers % np.uint8(3)).reshape(len(codes), -1)
        return (digits * np.uint8(self.step) - np.uint8(self.offset)).view(np.int8)

    def join(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes [..., lanes] -> bytes [...], or [..., parts] where they are several."""
        if self.parts > 1:
            return codes[..., :-1] | codes[..., -1:] >> _PAIRS << np.uint8(6)
        number = np.zeros(codes.shape[:-1], np.uint8)
        if not self.folded:
            if self.unary:
                codes = codes + (codes >> 1)
            for lane, shift in enumerate(self.shifts):
                number |= codes[..., lane] << shift
            return number
        for lane, weight in enumerate(self.weights):
            number += codes[..., lane] * np.uint8(weight)
        return _FOLD[number]

    def split(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The inverse of join."""
        if self.parts > 1:
            last = np.bitwise_or.reduce(stored >> np.uint8(6) << _PAIRS, axis=-1, keepdims=True)
            return np.concatenate([stored & np.uint8(63), last], axis=-1)
        if not self.folded:
            codes: NDArray[np.uint8] = stored[..., None] >> self.shifts & np.uint8(2**self.bits - 1)
            return codes - (codes >> 1) if self.unary else codes
        return _UNFOLD[stored][..., None] // np.array(self.weights, np.uint8) % np.uint8(3)


# 9 * high + low -> byte, and back; bytes from 243 on stand for nothing.
_FOLD = np.array(
    [8 * (n // 9) + n % 9 if n % 9 < 8 else 216 + n // 9 for n in range(243)], np.uint8
)
_UNFOLD = np.zeros(256, np.uint8)
_UNFOLD[_FOLD] = np.arange(243)
_PAIRS = np.array([0, 2, 4], np.uint8)  # where the bits above each of three bytes belong

SIGN = Code(trits=1, lanes=8, base=2, step=2)
TRIT = Code(trits=1, lanes=4)
UNARY = Code(trits=1, lanes=4, unary=True)
PAIR = Code(trits=2, lanes=2)
FIFTH = Code(trits=1, lanes=5)
QUARTER = Code(trits=1, lanes=4, base=4, offset=2)
NIBBLE = Code(trits=1, lanes=2, base=16, offset=8)
SIXES = Code(trits=1, lanes=4, base=64, offset=32, parts=3)
BYTE = Code(trits=1, lanes=1, base=256, offset=128)


@dataclass(frozen=True)
class Digit:
    name: str
    axis: str  # "m" or "k"
    size: int | None  # None: the leading digit of its axis
    weight: int  # the axis index is the sum of digit * weight


@dataclass(frozen=True)
class Layout:
    """name: `<code>_[m<rows>]k<cols>`, the block it is made of; rule: see the module's text."""

    name: str
    rule: str
    code: Code = TRIT

    @cached_property
    def digits(self) -> dict[str, Digit]:
        found: dict[str, Digit] = {}
        for axis, words in zip("mk", self.rule.split("->")[0].split(","), strict=True):
            weight = 1
            group: list[Digit] = []
            for word in reversed(words.split()):
                name, _, size = word.partition(":")
                group.append(Digit(name, axis, int(size) if size else None, weight))
                weight *= int(size or 1)
            found.update((d.name, d) for d in reversed(group))
        return found

    @cached_property
    def order(self) -> list[Digit]:
        """Memory order, slowest first; the last `inside` digits are those inside the byte."""
        return [self.digits[word] for word in self._words if word != "*"]

    @property
    def inside(self) -> int:
        return len(self.rule.split("|")[1].split())

    @property
    def part_bytes(self) -> int:
        """From one byte that some codes share to the next."""
        return int(np.prod([d.size or 1 for d in self.order[self._star : -self.inside]]))

    @property
    def rows(self) -> int:
        """Rows in one block."""
        return self._extent("m")

    @property
    def cols(self) -> int:
        """Columns in one block."""
        return self.code.trits * self._extent("k")

    def packed_bytes(self, rows: int, cols: int) -> int:
        """Packed size of a matrix of whole blocks."""
        self._shape(rows, cols)
        return rows * cols // (self.code.trits * self.code.lanes) * self.code.parts

    def pad(self, rows: int, cols: int) -> tuple[int, int]:
        """The smallest whole-block shape that holds rows x cols."""
        return -(-rows // self.rows) * self.rows, -(-cols // self.cols) * self.cols

    def pack(self, trits: NDArray[np.int8]) -> bytes:
        """int8 trits [rows, cols], whole blocks -> bytes in memory order."""
        shape = self._shape(*trits.shape)
        codes = self.code.encode(trits).reshape(shape)
        return self.join(codes.transpose(self._axes).reshape(-1, self.code.lanes))

    def unpack(self, data: bytes, rows: int, cols: int) -> NDArray[np.int8]:
        """The inverse of pack."""
        shape = self._shape(rows, cols)
        codes = self.split(data).reshape([shape[a] for a in self._axes])
        return self.code.decode(codes.transpose(np.argsort(self._axes)).reshape(rows, -1))

    def join(self, codes: NDArray[np.uint8]) -> bytes:
        """Codes [n, lanes] in memory order -> bytes."""
        stored = self.code.join(codes)
        if self.code.parts > 1:
            stored = stored.reshape(-1, self.part_bytes, self.code.parts).swapaxes(1, 2)
        return stored.tobytes()

    def split(self, data: bytes) -> NDArray[np.uint8]:
        """The inverse of join."""
        stored = np.frombuffer(data, np.uint8)
        if self.code.parts > 1:
            pieces = stored.reshape(-1, self.code.parts, self.part_bytes)
            stored = pieces.swapaxes(1, 2).reshape(-1, self.code.parts)
        return self.code.split(stored)

    def _extent(self, axis: str) -> int:
        sizes = [d.size for d in self.digits.values() if d.axis == axis and d.size]
        return int(np.prod(sizes))

    def _shape(self, rows: int, cols: int) -> list[int]:
        if rows % self.rows or cols % self.cols:
            raise BitnetcError(
                f"layout {self.name}",
                f"holds blocks of {self.rows} x {self.cols}, and {rows} x {cols} is not whole "
                "blocks",
                "plan() pads first",
            )
        blocks = {"m": rows // self.rows, "k": cols // self.cols}
        return [d.size or blocks[d.axis] for d in self.digits.values()]

    @property
    def _words(self) -> list[str]:
        return self.rule.split("->")[1].replace("|", " ").split()

    @property
    def _star(self) -> int:
        """How many digits stand before the star; all but the last where there is none."""
        return self._words.index("*") if "*" in self._words else len(self._words) - 1

    @property
    def _axes(self) -> list[int]:
        names = list(self.digits)
        return [names.index(d.name) for d in self.order]

    # The same rule, seen from C.

    def c_digits(self) -> list[tuple[str, str]]:
        """Each digit as a C expression of m and k, for those that are not m or k itself."""
        out = []
        for d in self.digits.values():
            weight = d.weight * (self.code.trits if d.axis == "k" else 1)
            text = d.axis if weight == 1 else f"{d.axis} / {weight}"
            out.append((d.name, f"{text} % {d.size}" if d.size else text))
        return [(name, text) for name, text in out if name != text]

    def c_byte(self) -> str:
        """The byte's index, by Horner's rule over the memory order; of several, the first's."""
        first, *rest = self.order[: -self.inside]
        text = first.name
        for i, d in enumerate(rest, 1):
            size = d.size or f"(cols / {self.cols})"
            before = f"{self.code.parts} * " if i == self._star else ""
            text = f"{text if i == 1 else f'({text})'} * {before}{size} + {d.name}"
        return text

    def c_lane(self) -> str:
        """Which of the codes that share a byte."""
        first, *rest = (d for d in self.order[-self.inside :])
        return f"({first.name} * {rest[0].size} + {rest[0].name})" if rest else first.name

    def picture(self) -> list[str]:
        """Where the codes of the first two bytes and of the last one come from, found by
        disturbing one code and unpacking, so that it cannot lie."""
        zero = self.pack(np.zeros((self.rows, self.cols), np.int8))
        before = self.unpack(zero, self.rows, self.cols)
        lines = []
        for byte in sorted({0, 1, len(zero) - 1}):
            cells = []
            for other in self._touched(zero[byte]):
                touched = zero[:byte] + bytes([other]) + zero[byte + 1 :]
                changed = self.unpack(touched, self.rows, self.cols)
                m, k = (int(i[0]) for i in np.nonzero(changed != before))
                cells.append(f"({m}, {k - k % self.code.trits})")
            width = 11 if self.code.lanes < 8 else 10
            lines.append(f"byte {byte:3}:" + "".join(f"{c:>{width}}" for c in cells))
        return lines

    def _touched(self, byte: int) -> list[int]:
        """The byte with one of its codes changed, each in turn."""
        if self.code.parts > 1:
            return [byte ^ 1 << 6, byte ^ 1]
        found = []
        for lane in range(self.code.lanes):
            codes = self.code.split(np.array([byte], np.uint8))
            codes[0, lane] ^= 1
            found.append(int(self.code.join(codes)[0]))
        return found


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        # 2-bit codes; several rows share one stream, so that one prefetcher and one load of the
        # activations serve them all. kl is one vector register: 16 bytes on NEON, 32 on
        # AVX2, 64 on AVX-512.
        Layout("i2_k64", "m, kb kq:4 kl:16 -> m kb kl | kq"),
        # A row is contiguous: rows that do not matter need not be read. A plane has the columns of
        # the widest vector, and an AMX tile's once the words of sixteen rows are exchanged.
        Layout("i2_k256", "m, kb kq:4 kl:64 -> m kb kl | kq"),
        Layout("t5_k320", "m, kb kq:5 kl:64 -> m kb kl | kq", FIFTH),
        Layout("i2_m4k64", "mo mi:4, kb kq:4 kl:16 -> mo kb mi kl | kq"),
        Layout("i2_m4k128", "mo mi:4, kb kq:4 kl:32 -> mo kb mi kl | kq"),
        # 1.6 bits: five codes to a byte. The second as i2_m32k64 below.
        Layout("t5_m4k80", "mo mi:4, kb kq:5 kl:16 -> mo kb mi kl | kq", FIFTH),
        Layout("t5_m32k80", "mo mh:2 mi:16, kb kc:4 kq:5 kl:4 -> mo kb kc mh mi kl | kq", FIFTH),
        # A plane of 16 rows and four columns is an operand of VNNI and a row of an AMX tile.
        Layout("i2_m32k64", "mo mh:2 mi:16, kb kc:4 kq:4 kl:4 -> mo kb kc mh mi kl | kq"),
        # Lanes are rows, as many as the longest registers hold; a byte has four columns of one row.
        Layout("i2_m128k16", "mo mi:128, kb kc:4 kq:4 -> mo kb kc mi | kq"),
        # A column of many rows is contiguous: columns of zero activations need not be read. Rows
        # are split as interleaving the bytes of four columns in 128-bit lanes places them.
        Layout("i2_m256k4", "mo ms:4 mr:4 ml:4 md:4, kb kl:4 -> mo kb kl ml mr md | ms"),
        Layout("t5_m320k4", "mo ms:5 mr:4 ml:4 md:4, kb kl:4 -> mo kb kl ml mr md | ms", FIFTH),
        # Pairs of trits as 4-bit indices; one register holds two columns of pairs of many rows,
        # because a table look-up serves rows, not columns.
        Layout("tl1_m32k4", "mo mi:32, kb kn:2 -> mo kb mi | kn", PAIR),
        Layout("tl1_m64k4", "mo mi:64, kb kn:2 -> mo kb mi | kn", PAIR),
        # Two pairs of a row side by side: a look-up in two tables, then a sum of neighbours.
        Layout("tl1_m64k8", "mo mi:64, kb kn:2 kp:2 -> mo kb mi kp | kn", PAIR),
        # One bit: a matrix without zeros. A row in planes of 16 columns; four rows; planes as those
        # of i2_m32k64; a column of many rows as a mask of lanes that are rows; and halves of bytes
        # as indices of tables, of many rows.
        Layout("b1_k128", "m, kb kq:8 kl:16 -> m kb kl | kq", SIGN),
        Layout("b1_m4k128", "mo mi:4, kb kq:8 kl:16 -> mo kb mi kl | kq", SIGN),
        Layout("b1_m32k64", "mo mh:2 mi:16, kb kc:2 kq:8 kl:4 -> mo kb kc mh mi kl | kq", SIGN),
        Layout("b1_m128k16", "mo mi:16 mq:8, kb kl:16 -> mo kb kl mi | mq", SIGN),
        Layout("b1_m128k8", "mo mi:128, kb kq:8 -> mo kb mi | kq", SIGN),
        # For microcontrollers, whose models are narrow: a byte is four rows of two columns.
        Layout("b1_m4k32", "mo mi:4, kb kq:2 kl:16 -> mo kb kl | kq mi", SIGN),
        # For activations of one bit and three levels: 64 bits of a row are a word, and words of
        # eight rows follow each other. Columns are placed as shifts of words of codes place them.
        Layout("b1_m8k64", "mo mi:8, kb kq:8 kx:8 -> mo kb mi kx | kq", SIGN),
        Layout("u2_m8k64", "mo mi:8, kb kc:2 kq:4 kx:8 -> mo kb kc mi kx | kq", UNARY),
        # Integers of two bits, where trits of two bits lie: the same loops read them.
        Layout("q2_k64", "m, kb kq:4 kl:16 -> m kb kl | kq", QUARTER),
        Layout("q2_m4k64", "mo mi:4, kb kq:4 kl:16 -> mo kb mi kl | kq", QUARTER),
        Layout("q2_m32k64", "mo mh:2 mi:16, kb kc:4 kq:4 kl:4 -> mo kb kc mh mi kl | kq", QUARTER),
        Layout("q2_m128k16", "mo mi:128, kb kc:4 kq:4 -> mo kb kc mi | kq", QUARTER),
        # Wider ones: four neighbouring columns of a row are a lane of a dot product.
        Layout("i4_m16k8", "mo mi:16, kb kq:2 kl:4 -> mo kb mi kl | kq", NIBBLE),
        # Three registers hold the codes of four; that of the fourth takes two shifts and two masks.
        Layout("i6_m16k16", "mo mi:16, kb kq:4 kl:4 -> mo kb * mi kl | kq", SIXES),
        Layout("i8_m16k4", "mo mi:16, kb kq:1 kl:4 -> mo kb mi kl | kq", BYTE),
    )
}
