"""The float layer in C against bitnetc/reference.py: equal in every bit, on every target and CPU.

The C side is check_math.c, a filter from arrays to arrays. Equality of bits, not of values: -0 is
not +0 here.
"""

import os
import re
import struct
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from programs import HERE, Variant, build, run, variants

from bitnetc import bf12, reference
from bitnetc.layout import LAYOUTS
from bitnetc.model import Dense, DenseType, Frequent, Rope, to_float32
from bitnetc.ropes import frequencies
from bitnetc.target import load_target

F32 = np.float32
Floats = NDArray[np.float32]
Math = Callable[..., bytes]
# Left out: Windows, because Wine takes a second to start a program (whole ones are compared in
# tests/e2e), targets that differ from a listed one in integer instructions only, and CPUs beyond a
# target's floor, but for the length of their vectors: the float code is the same.
_AS_ANOTHER = {"x86_64-amx", "x86_64-avxvnni", "cortex-m33"}


def _counts(v: Variant) -> bool:
    target = load_target(v.target)
    if target.system == "windows" or v.target in _AS_ANOTHER:
        return False
    return v.native or v.cpu == target.checks[0] or v.cpu.endswith("vlen=1024")


VARIANTS = [v for v in variants() if _counts(v)]


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def math(variant: Variant, program: Callable[..., Any]) -> Math:
    """math(function, numbers..., arrays...) -> the bytes that the C function gives."""

    def call(function: str, *inputs: "int | np.float32 | NDArray[Any]") -> bytes:
        numbers = [str(bits(i)) for i in inputs if not isinstance(i, np.ndarray)]
        arrays = [i.tobytes() for i in inputs if isinstance(i, np.ndarray)]
        done: subprocess.CompletedProcess[bytes] = program(
            HERE / "check_math.c", variant, function, *numbers, stdin=b"".join(arrays)
        )
        assert done.returncode == 0, f"{function}: {done.stderr.decode(errors='replace')}"
        return done.stdout

    return call


def bits(number: "int | np.float32") -> int:
    """Integers as they are, floats as their bits."""
    if isinstance(number, int):
        return number
    return int(struct.unpack("<I", struct.pack("<f", number))[0])


def same(got: bytes, want: NDArray[Any], inputs: NDArray[Any] | None = None) -> None:
    """Equal bits, or the first difference."""
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[want.dtype.itemsize]
    a, b = np.frombuffer(got, kind), np.ascontiguousarray(want).reshape(-1).view(kind)
    assert a.size == b.size, f"{a.size} values, the reference has {b.size}"
    different = np.flatnonzero(a != b)
    if different.size:
        i = int(different[0])
        given = "" if inputs is None else f" for {inputs.reshape(-1)[i]!r}"
        pytest.fail(
            f"{different.size} of {a.size} differ, first [{i}]{given}: {int(a[i]):#x} "
            f"({a.view(want.dtype)[i]!r}), reference {int(b[i]):#x} ({b.view(want.dtype)[i]!r})"
        )


def wild(rng: np.random.Generator, *shape: int) -> Floats:
    """Normal numbers times random powers of two: sums that round at every step."""
    scale = np.ldexp(F32(1), rng.integers(-12, 12, shape))
    return (rng.standard_normal(shape).astype(F32) * scale.astype(F32)).astype(F32)


def every_exponent(rng: np.random.Generator, count: int) -> Floats:
    """Random finite float32 of all exponents and both signs, denormals included."""
    pattern = rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    values = pattern.view(F32)
    return values[np.isfinite(values)]


# Element by element.

EXP_ULP = 1.22  # runtime_c/bnc_math.h: the error of bnc_exp


@cache
def exp_inputs() -> Floats:
    """Dense in [-80, 0] by bits and by value, and the places where the computation changes."""
    rng = np.random.default_rng(3)
    by_bits = np.arange(0x80000000, bits(F32(-80)), 2503, dtype=np.uint32)
    by_value = -rng.uniform(0, 80, 200_000).astype(F32)
    edges = [F32(-69.31471), *(F32(-(n + 0.5) * np.log(2)) for n in range(101))]
    near = [np.array(edges, F32)]
    for _ in range(3):
        near.append(np.nextafter(near[-1], F32(0)))
    near.append(np.nextafter(near[0], F32(-100)))
    special = np.array([0.0, -0.0, -1e-45, -1.2e-38, -104, -1e4, -3.4e38, -np.inf], F32)
    return np.concatenate([by_bits.view(F32), by_value, *near, special])


@cache
def exp_outputs() -> Floats:
    return reference.exp(exp_inputs())


def test_exp(math: Math) -> None:
    x = exp_inputs()
    same(math("exp", x), exp_outputs(), x)


def test_exp_is_accurate_and_vanishes_below_its_limit() -> None:
    x, y = exp_inputs(), exp_outputs()
    exact = np.exp(x.astype(np.float64))
    inside = x > F32(-69.31471)
    ulp = np.spacing(exact[inside].astype(F32)).astype(np.float64)
    assert np.max(np.abs(y[inside] - exact[inside]) / ulp) < EXP_ULP
    assert (y[~inside] == 0).all() and not np.signbit(y).any()
    assert reference.exp(np.array([0.0, -0.0], F32)).tolist() == [1.0, 1.0]


def test_activations_and_round(math: Math) -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([wild(rng, 200_000), every_exponent(rng, 100_000), exp_inputs()])
    x = x[np.isfinite(x)]
    both = np.concatenate([x, -x])
    same(math("silu", both), reference.silu(both), both)
    small = both[np.abs(both) < 1e18]
    same(math("relu2", small), reference.relu2(small), small)
    same(math("gelu_tanh", small), reference.gelu_tanh(small), small)
    halves = np.arange(-4096, 4096, dtype=F32) / F32(2)
    ties = np.concatenate([halves, np.nextafter(halves, F32(1e9)), np.nextafter(halves, F32(-1e9))])
    # The sum with a large number turns -0 into +0; a code is an integer, so nothing sees it.
    same(math("round", ties), np.rint(ties) + F32(0), ties)


def thirteen_bits(x: Floats) -> Floats:
    """Rule 7's ~x by its words, in float64."""
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        magnitude = np.abs(x.astype(np.float64))
    magnitude = np.where(magnitude <= 2.0**100, magnitude, 2.0**100)  # NaN, too
    mantissa, exponent = np.frexp(magnitude)  # 0.5 <= mantissa < 1
    rounded = np.ldexp(np.rint(mantissa * 2.0**13), exponent - 13)
    rounded = np.where(magnitude < 2.0**-100, 0, rounded)
    return np.copysign(rounded.astype(F32), x)


@cache
def shorten_inputs() -> Floats:
    """What decides about rounding, bits 0 to 11, below the least, the largest and other upper bits
    and in all kinds of exponents; what surrounds the limits; infinities and NaN."""
    rng = np.random.default_rng(15)
    upper = np.array([0, 0x7FE, 0x7FF, *rng.integers(0, 0x800, 2)], np.uint32) << 12
    exponents = np.array([0, 26, 27, 127, 226, 227, 255], np.uint32) << 23
    dense = exponents[:, None, None] | upper[:, None] | np.arange(0x1000, dtype=np.uint32)
    limits = np.array([0, 27 << 23, 227 << 23, 0x7F800000], np.int64)[:, None]
    near = (limits + np.arange(-0x1801, 0x1802)).clip(0, 0x7FFFFFFF).astype(np.uint32)
    every = every_exponent(rng, 30_000).view(np.uint32) & np.uint32(0x7FFFFFFF)
    bits = np.concatenate([dense.ravel(), near.ravel(), every])
    return np.concatenate([bits, bits | np.uint32(0x80000000)]).view(F32)


@cache
def shortened() -> Floats:
    return thirteen_bits(shorten_inputs())


def test_thirteen_bits(math: Math) -> None:
    n = 100  # of 112 with the zeros: a tail for registers of any length
    x, want = (a[: a.size // n * n] for a in (shorten_inputs(), shortened()))
    rows = np.zeros((x.size // n, 112), F32)
    rows[:, :n] = want.reshape(-1, n)
    got = math("shorten", n, x)
    same(got[: rows.nbytes], rows)
    same(got[rows.nbytes :], want, x)


@pytest.mark.parametrize("positions", [16, 41])
def test_thirteen_bits_of_exp(math: Math, positions: int) -> None:
    """The weights of positions, whose largest score is 0 here."""
    scores = np.random.default_rng(16).permutation(exp_inputs())[:60_000]
    x = scores[: scores.size // positions * positions].reshape(-1, positions).copy()
    x[:, 0] = 0
    want = thirteen_bits(reference.exp(x))
    whole = np.zeros((len(x), -(-positions // 16) * 16), F32)
    whole[:, :positions] = want
    same(math("weights", positions, x), np.concatenate([want, whole], axis=1))


def test_the_reference_has_thirteen_bits() -> None:
    x, want = shorten_inputs(), shortened()
    same(reference.shorten(x).tobytes(), want, x)
    assert want[x == 1 + 2.0**-13].tolist() == [1.0]
    assert want[x == 1 + 3 * 2.0**-13].tolist() == [1 + 2.0**-11]
    assert np.signbit(want).sum() == want.size // 2 and np.isnan(x).any()


def half_inputs() -> Floats:
    """All halves, the ties between neighbours, their float32 neighbours, and all exponents."""
    rng = np.random.default_rng(5)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(F32)
    ties = (halves[:-1] + halves[1:]) / F32(2)
    parts = [halves, ties]
    for x in (halves, ties):
        parts += [np.nextafter(x, F32(0)), np.nextafter(x, F32(np.inf))]
    parts.append(np.arange(0, 0x7F800000, 9973, dtype=np.uint32).view(F32))
    parts.append(np.array([65504, 65519.996, 65520, 65536, 1e30, 3.4028235e38], F32))
    x = np.concatenate([*parts, np.abs(every_exponent(rng, 100_000))])
    return np.concatenate([x, -x])


def test_half(math: Math) -> None:
    x = half_inputs()
    want = reference.to_half(x)
    same(math("half", x), want, x)
    for n in (1, 7, 8, 9, 16, 23):
        whole = x[: x.size // n * n]
        same(math("halves", n, whole), reference.to_half(whole), whole)


def test_unhalf(math: Math) -> None:
    pattern = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    finite = pattern[np.isfinite(pattern.view(np.float16))]
    same(math("unhalf", finite), finite.view(np.float16).astype(F32), finite)
    same(math("widen", 0, finite), finite.view(np.float16).astype(F32), finite)
    # bfloat16 is the upper half of float32: infinities and all.
    wide = (pattern.astype(np.uint32) << 16).view(F32)
    same(math("widen", 1, pattern), wide, pattern)


# Sums in sixteen lanes.


def test_dot_and_sum_of_every_tail(math: Math) -> None:
    rng = np.random.default_rng(6)
    for n in [*range(1, 41), 128, 2559, 2560, 6912]:
        a, b = wild(rng, 20, n), wild(rng, 20, n)
        a[0], b[1] = -0.0, -0.0
        pairs = np.stack([a, b], axis=1)
        same(math("dot", n, pairs), reference.lane_dot(a, b))
        same(math("sum", n, a), reference.lane_sum(a))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 2560, 6912])
def test_rmsnorm(math: Math, n: int) -> None:
    rng = np.random.default_rng(7)
    weight, x = wild(rng, n), wild(rng, 12, n)
    x[3] = 0
    for eps in (F32(1e-5), F32(1e-6)):
        same(math("rmsnorm", n, eps, weight, x), reference.rmsnorm(x, weight, float(eps)))


@pytest.mark.parametrize("head_dim", [2, 20, 64, 100, 128])
def test_rope(math: Math, head_dim: int) -> None:
    rng = np.random.default_rng(8)
    table = reference.rope_table(300, Rope(500_000.0, frequencies(head_dim, 500_000.0)))
    x = wild(rng, 300, head_dim)
    want = reference.rope(x[:, None, :], table)
    same(math("rope", head_dim, np.stack([table, x], axis=1)), want)


# Activations.


def activation_rows(cols: int) -> Floats:
    """Random rows, and those meant to leave -127 .. 127 or to sit on a tie."""
    rng = np.random.default_rng(9)
    rows = [wild(rng, cols) for _ in range(20)]
    rows.append(np.zeros(cols, F32))
    rows.append(np.full(cols, -0.0, F32))
    for tiny in (1e-45, 1e-38, 9.99e-6, 1e-5, 1.00001e-5):
        rows.append((rng.choice([-1, 1], cols) * F32(tiny)).astype(F32))
    for huge in (3.4028235e38, 1e38, 3e4):
        rows.append((rng.uniform(-1, 1, cols) * huge).astype(F32))
        rows[-1][0] = -F32(huge)
    # Ties: with the largest value 127 the scale is 1 and x + 0.5 lies between two codes.
    rows.append(np.resize(np.arange(-126, 127, dtype=F32) + F32(0.5), cols))
    rows[-1][-1] = -127
    # The maximum itself times its rounded reciprocal, for many mantissas.
    for _ in range(200):
        largest = F32(np.ldexp(rng.uniform(1, 2), int(rng.integers(-16, 120))))
        near = np.nextafter(largest, F32(0))
        rows.append(rng.choice([largest, -largest, near, -near], cols).astype(F32))
    return np.array(rows, F32)


@pytest.mark.parametrize(
    ("cols", "stride"), [(4, 4), (20, 64), (64, 128), (300, 384), (2560, 2560)]
)
def test_quantise(math: Math, cols: int, stride: int) -> None:
    x = activation_rows(cols)
    n = len(x)
    codes, scale = reference.quantise(x)
    assert np.abs(codes.astype(int)).max() == 127
    padded = np.zeros((n, stride), np.int8)
    padded[:, :cols] = codes
    sums = codes.sum(1, dtype=np.int32)
    a, b = padded[:, 0::2].astype(np.int16), padded[:, 1::2].astype(np.int16)
    wide = np.abs(a) + np.abs(b) > 127  # whose second code is left to a list
    assert wide.any() and not wide.all()
    entries = np.zeros((n, stride // 2, 16), np.int8)
    for code in range(9):
        entries[:, :, code] = (code // 3 - 1) * a + (code % 3 - 1) * np.where(wide, 0, b)
    lists = np.zeros((n, stride), np.uint32)
    for i, pairs in enumerate(map(np.flatnonzero, wide)):
        lists[i, 0] = pairs.size
        lists[i, 1 : 1 + pairs.size] = pairs << 8 | b[i, pairs].astype(np.int8).view(np.uint8)
    tables = np.concatenate([lists.view(np.uint8), entries.reshape(n, -1).view(np.uint8)], axis=1)
    got = math("quantise", cols, stride, n, x)
    ends = np.cumsum([padded.nbytes, sums.nbytes, scale.nbytes, tables.nbytes])
    parts = [
        got[e - v.nbytes : e] for e, v in zip(ends, (padded, sums, scale, tables), strict=True)
    ]
    same(parts[0], padded)
    same(parts[1], sums)
    same(parts[2], scale)
    same(parts[3], tables)
    assert len(got) == ends[-1]


@pytest.mark.parametrize("step", [88.7, 1e30])
def test_quantise_by(math: Math, step: float) -> None:
    """Rule 15, where codes are clamped and products overflow."""
    x = activation_rows(300)
    codes, scale = reference.quantise_by(x, F32(step))
    assert np.abs(codes.astype(int)).max() == 127
    parts = (codes, codes.sum(1, dtype=np.int32), scale)
    got = math("quantise_by", 300, len(x), np.array([step], F32), x)
    assert bytes(got) == b"".join(part.tobytes() for part in parts)


def test_quantise_few(math: Math) -> None:
    """Rule 16, with halves of the scale and zeros of both signs."""
    x = activation_rows(300)
    x[0] = 1.0
    x[0, :4] = [0.5, -0.5, 0.0, -0.0]
    x[0, 4:7] = [3.0, -3.0, -0.0]  # the mean is 1
    for levels, few in ((2, reference.quantise_signs), (3, reference.quantise_trits)):
        codes, scale = few(x)
        assert set(codes.reshape(-1).tolist()) == ({-1, 1} if levels == 2 else {-1, 0, 1})
        parts = (codes, codes.sum(1, dtype=np.int32), scale)
        got = math("quantise_few", levels, 300, len(x), x)
        assert bytes(got) == b"".join(part.tobytes() for part in parts)


@pytest.mark.parametrize("per_row", [0, 1])
@pytest.mark.parametrize("what", ["store", "add", "gated"])
def test_linear(math: Math, what: str, per_row: int) -> None:
    layout, rng = LAYOUTS["i2_k64"], np.random.default_rng(10)
    cases = [
        (1, 64, 1, 1, 1, 0),
        (37, 128, 3, 8, 1, 0),
        (50, 192, 2, 16, 3, 4),
        (9, 64, 1, 8, 1, 2),
    ]
    for rows, cols, n, tile, workers, slice_rows in cases:
        padded = -(-rows // tile) * tile

        def matrix() -> tuple[NDArray[np.int8], NDArray[np.uint8], Floats]:
            trits = np.zeros((padded, cols), np.int8)  # noqa: B023
            trits[:rows] = rng.integers(-1, 2, (rows, cols))  # noqa: B023
            packed = np.frombuffer(layout.pack(trits), np.uint8)
            return trits[:rows], packed, np.abs(wild(rng, rows if per_row else 1))  # noqa: B023

        x, y = wild(rng, n, cols), wild(rng, n, rows)
        codes, act_scale = reference.quantise(x)
        gate, packed, scale = matrix()

        def product(trits: NDArray[np.int8], factor: Floats) -> Floats:
            acc = (codes.astype(np.int64) @ trits.T.astype(np.int64)).astype(F32)  # noqa: B023
            result: Floats = acc * (factor[None, :] / act_scale[:, None])  # noqa: B023
            return result

        want = product(gate, scale)
        second: list[NDArray[Any]] = []
        if what == "add":
            want = y + want
        elif what == "gated":
            up, packed_up, scale_up = matrix()
            second = [packed_up, scale_up]
            want = reference.silu(want) * product(up, scale_up)
        number = ["store", "add", "gated"].index(what)
        shape = [number, rows, cols, n, tile, per_row, workers, slice_rows]
        same(math("linear", *shape, packed, scale, *second, x, y), want)


# Float matrices.


def stored(values: Floats, dtype: DenseType) -> NDArray[Any]:
    """float32 values as a checkpoint stores them: bfloat16 is kept as its bits."""
    if dtype == "bf16":
        return values.astype(ml_dtypes.bfloat16).view(np.uint16)
    return values.astype({"f32": F32, "f16": np.float16}[dtype])


def packed(words: NDArray[np.uint16], few: bool = False) -> NDArray[np.uint8]:
    """A bfloat16 matrix in twelve bits a weight; few: most of the weights are escapes."""
    counts = np.bincount(words.reshape(-1) >> 8, minlength=256)
    if few:
        counts = np.where(counts, counts.max() + 1 - counts, 0)
    table = bf12.frequent(counts).table
    escapes = int((~np.isin(words >> 8, table)).sum())
    matrix = Dense(*words.shape, "bf16", lambda: words, Frequent(table, escapes))
    data = b"".join(bf12.pack(matrix))
    assert len(data) == bf12.packed_bytes(*words.shape, escapes)
    assert (bf12.unpack(data, *words.shape) == words).all()
    return np.frombuffer(data, np.uint8)


def test_every_bfloat16(math: Math) -> None:
    """NaN with what they carry, denormals, infinities and zeros of both signs."""
    words = np.random.default_rng(13).permutation(2**16).astype(np.uint16)
    for cols, few in ((1024, False), (100, True)):
        table = words[: words.size // cols * cols].reshape(-1, cols)
        data = packed(table, few)
        same(math("embed", 3, *table.shape, data.nbytes, data), to_float32(table, "bf16"))


def test_twelve_bits(math: Math) -> None:
    rng = np.random.default_rng(14)
    for rows, cols, few in [(1, 1, True), (5, 65, False), (6, 190, True), (10, 2560, False)]:
        words = stored(rng.standard_normal((rows, cols)).astype(F32), "bf16")
        data, x = packed(words, few), wild(rng, 3, cols)
        want = np.stack([reference.lane_dot(row[None], to_float32(words, "bf16")) for row in x])
        same(math("dense", 3, rows, cols, 3, cols, 2, data.nbytes, data, x), want)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_dense_and_embedding(math: Math, dtype: DenseType) -> None:
    rng = np.random.default_rng(11)
    number = ["f32", "f16", "bf16"].index(dtype)
    shapes = [(1, 1), (3, 15), (4, 16), (5, 17), (7, 20), (9, 40), (13, 100), (66, 256), (10, 2560)]
    for rows, cols in shapes:
        w = stored(rng.standard_normal((rows, cols)).astype(F32), dtype)
        wide = to_float32(w, dtype)
        same(math("embed", number, rows, cols, w.nbytes, w), wide)
        for n, stride, workers in [(1, cols, 1), (3, cols + 5, 2)]:
            x = wild(rng, n, stride)
            want = np.stack([reference.lane_dot(row[None, :cols], wide) for row in x])
            flat = x.reshape(-1)[: (n - 1) * stride + cols].copy()
            same(math("dense", number, rows, cols, n, stride, workers, w.nbytes, w, flat), want)


# Attention.


@pytest.mark.parametrize("head_dim", [20, 64, 100, 128])
def test_attention_across_chunks(math: Math, head_dim: int) -> None:
    rng = np.random.default_rng(12)
    scale = reference.attention_scale(head_dim)
    # kv_heads of `group` heads; workers that share out chunks, 0: no sharing.
    cases = [(1, 1, 1, 0), (2, 4, 1, 0), (17, 1, 1, 0), (255, 2, 1, 2), (256, 1, 2, 0)]
    cases += [(257, 3, 1, 2), (600, 2, 1, 0), (600, 7, 1, 2), (257, 4, 2, 3), (300, 1, 5, 2)]
    for positions, group, kv_heads, workers in cases:
        q = wild(rng, 1, kv_heads * group, head_dim) / F32(8)
        k, v = wild(rng, positions, kv_heads, head_dim), wild(rng, positions, kv_heads, head_dim)
        keys, values = reference.to_half(k), reference.to_half(v)
        out = reference.attend(q, keys.astype(F32), values.astype(F32), positions - 1)
        stride = -(-head_dim // 16) * 16
        cache = np.zeros((2, kv_heads, positions, stride), np.float16)
        cache[..., :head_dim] = np.stack([keys, values]).swapaxes(1, 2)
        got = math("attend", positions, group, head_dim, scale, kv_heads, workers, q, k, v)
        same(got[: out.nbytes], out)
        same(got[out.nbytes :], cache)


def test_attention_that_threads_share_out(program: Callable[..., Any]) -> None:
    """Heads that are left over, chunk by chunk, whoever takes which."""
    flags = ("-O1", "-UBNC_THREADS", "-DBNC_THREADS=1", "-pthread")
    here = Variant("native", "host", True, flags)
    done = program(HERE / "check_split.c", here, "2", "3", "4", "5", "7")
    assert done.returncode == 0 and done.stdout == b"0 of 204 jobs differ\n", done


# Sampling.

SETTINGS = [
    (temperature, top_k, top_p)
    for temperature in (0.0, 0.01, 0.7, 1.0, 5.0)
    for top_k in (0, 1, 2, 40, 1000, 5000)
    for top_p in (1e-6, 0.1, 0.9, 0.9999999, 1.0)
]


def logit_rows(rng: np.random.Generator, count: int, vocab: int) -> Floats:
    """Random logits, with equal ones, all equal ones, and one far above the rest."""
    x = (rng.standard_normal((count, vocab)) * 4).astype(F32)
    x[0] = 1.5
    x[1] = np.round(x[1])
    x[2, vocab // 2] = 200
    x[3 % count] = np.linspace(0, -90, vocab, dtype=F32)
    return x


def test_sampling(math: Math, variant: Variant) -> None:
    rng = np.random.default_rng(13)
    # A few of them where a program takes long to start; the sampler has no code of one CPU's own.
    some = SETTINGS if variant.native else SETTINGS[::7]
    for i, (temperature, top_k, top_p) in enumerate(some):
        count, vocab = [(12, 7), (8, 257), (5, 2000)][i % 3]
        logits = logit_rows(rng, count, vocab)
        state = first = int(rng.integers(0, 2**63))
        want = []
        for row in logits:
            token, state = reference.sample(row, temperature, top_k, top_p, state)
            want += [token, state]
        setting = (vocab, F32(temperature), top_k, F32(top_p), first)
        got = np.frombuffer(math("sample", *setting, logits), np.uint64)
        differ = np.flatnonzero(got != np.array(want, np.uint64))
        assert not differ.size, (setting, int(differ[0]) // 2, got[differ[0]], want[differ[0]])


# All float32 in exp's range: minutes, so only when asked for.


@pytest.mark.skipif(
    os.environ.get("BITNETC_EXHAUSTIVE") != "1", reason="BITNETC_EXHAUSTIVE=1 runs it: minutes"
)
def test_exp_of_every_float(tmp_path: Path) -> None:
    target = load_target("scalar")
    program = build(HERE / "check_exp.c", tmp_path / "check_exp", target, True, ("-lm",))
    done = run(Variant("scalar", "host", True), program, [])
    output = done.stdout.decode()
    found = re.search(r"^largest error ([0-9.]+) ulp at ", output, re.M)
    assert done.returncode == 0 and found and float(found[1]) < EXP_ULP, output
