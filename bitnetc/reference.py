"""The forward pass in numpy: the definition of correct.

Follows docs/arithmetic.md operation by operation in float32, so that its logits equal the emitted
program's in every bit. It is written for clarity and for whole sequences; speed comes second.

Source of the graph: transformers' BitNet and Llama models, as reference/formats describes them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import (
    Activations,
    Block,
    Dense,
    FfnActivation,
    Integers,
    Matrix,
    Model,
    Pooling,
    Rope,
    Ternary,
    Trits,
    Vector,
    to_float32,
)

F32 = np.float32
Floats = NDArray[np.float32]

LANES = 16  # rule 2
CHUNK = 256  # rule 7


def lane_sum(terms: Floats) -> Floats:
    """Rule 2 over the last axis: sixteen lanes in order, then the fixed tree."""
    n = terms.shape[-1]
    lanes = np.zeros((*terms.shape[:-1], LANES), F32)
    for i in range(0, n, LANES):
        part = terms[..., i : i + LANES]
        lanes[..., : part.shape[-1]] += part
    return tree(lanes)


def lanes_of(a: Floats, b: Floats) -> Floats:
    """The sixteen lanes of rule 2 of a * b over the last axis, broadcast; holds one sixteen-wide
    product at a time."""
    n = a.shape[-1]
    shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    lanes = np.zeros((*shape, LANES), F32)
    for i in range(0, n, LANES):
        part = a[..., i : i + LANES] * b[..., i : i + LANES]
        lanes[..., : part.shape[-1]] += part
    return lanes


def tree(lanes: Floats) -> Floats:
    """The fixed tree of rule 2 over the last axis, sixteen wide."""
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    total: Floats = lanes[..., 0]
    return total


def lane_dot(a: Floats, b: Floats) -> Floats:
    """Rule 2 of a * b over the last axis, broadcast."""
    return tree(lanes_of(a, b))


_EXP_LIMIT = F32(-69.31471)  # exp gives 2^-100 here, and 0 from here down
_EXP_TERMS = [
    F32(c)
    for c in (1.98412698e-4, 1.38888889e-3, 8.33333333e-3, 4.16666667e-2, 1.66666667e-1, 0.5, 1, 1)
]


def exp(x: Floats) -> Floats:
    """Rule 5: exp(x) for x <= 0, as runtime_c/bnc_math.h computes it."""
    clamped = np.where(x > _EXP_LIMIT, x, _EXP_LIMIT)
    n = np.rint(clamped * F32(1.44269504))
    r = (clamped - n * F32(0.693359375)) - n * F32(-2.12194440e-4)
    p = np.full_like(r, _EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        p = p * r + term
    scale = ((n.astype(np.int32) + 127) << 23).view(F32)
    return np.where(x > _EXP_LIMIT, p * scale, F32(0))


def silu(x: Floats) -> Floats:
    """x * sigmoid(x), through exp(-|x|)."""
    e = exp(-np.abs(x))
    y: Floats = x * (np.where(x < 0, e, F32(1)) / (F32(1) + e))
    return y


def gelu_tanh(x: Floats) -> Floats:
    """0.5 x (1 + tanh(u)) = x * sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    with np.errstate(over="ignore"):
        v = F32(1.59576912) * (x + F32(0.044715) * ((x * x) * x))
    e = exp(-np.abs(v))
    y: Floats = x * (np.where(v < 0, e, F32(1)) / (F32(1) + e))
    return y


def relu2(x: Floats) -> Floats:
    """max(x, 0)^2."""
    r = np.maximum(x, F32(0))
    y: Floats = r * r
    return y


ACTIVATIONS: dict[FfnActivation, Callable[[Floats], Floats]] = {
    "relu2": relu2,
    "silu": silu,
    "gelu_tanh": gelu_tanh,
}


def rmsnorm(x: Floats, weight: Vector, eps: float, of: int | None = None) -> Floats:
    """x * (1 / sqrt(mean(x^2) + eps)) * weight over the last axis; the mean of `of` elements, where
    some that are zero were left out."""
    mean = lane_sum(x * x) / F32(of or x.shape[-1])
    inverse = F32(1) / np.sqrt(mean + F32(eps))
    y: Floats = (x * inverse[..., None]) * weight
    return y


def quantise(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rule 3: int8 codes and the scale that multiplied x, per token (last axis)."""
    largest = np.maximum(np.abs(x).max(-1), F32(1e-5))
    scale = F32(127) / largest
    codes = np.clip(np.rint(x * scale[..., None]), -128, 127)
    return codes.astype(np.int8), scale


def quantise_by(x: Floats, step: np.float32) -> tuple[NDArray[np.int8], Floats]:
    """Rule 15: int8 codes by a scale that is the same for all tokens, and that scale per token."""
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x * step), -127, 127)
    return codes.astype(np.int8), np.full(x.shape[:-1], step, F32)


def quantise_signs(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rule 16: signs, those of zeros +1, and the reciprocal of the mean magnitude per token."""
    return np.where(x < 0, np.int8(-1), np.int8(1)), _mean_scale(x)


def quantise_trits(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rule 16: codes -1, 0 and 1, in units of the mean magnitude."""
    scale = _mean_scale(x)
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x * scale[..., None]), -1, 1)
    return codes.astype(np.int8), scale


def _mean_scale(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        mean = lane_sum(np.abs(x)) / F32(x.shape[-1])
    scale: Floats = F32(1) / np.maximum(mean, F32(1e-5))
    return scale


QUANTISERS: dict[Activations, Callable[[Floats], tuple[NDArray[np.int8], Floats]]] = {
    "int8": quantise,
    "signs": quantise_signs,
    "trits": quantise_trits,
}


def linear(
    codes: NDArray[np.int8], scale: Floats, matrix: Ternary | Integers, trits: Trits
) -> Floats:
    """Rule 4: [n, cols] codes through a matrix of trits or integers -> [n, rows].

    The float32 product is exact where its partial sums are integers below 2^24, as for trits in
    fewer than 132,104 columns; others use float64.
    """
    most = 1 if isinstance(matrix, Ternary) else 2 ** (matrix.bits - 1)
    wide = F32 if 127 * most * matrix.cols < 2**24 else np.float64
    acc = (codes.astype(wide) @ trits.T.astype(wide)).astype(F32)
    y: Floats = acc * (matrix.scale[None, :] / scale[:, None])
    return y


SCREEN_LIST, SCREEN_BEST, SCREEN_REACH = 64, 10, 4  # rule 9


def screen_reach(codes: NDArray[np.int8], scale: Floats) -> Floats:
    """Rule 9, per token: what a row's error is multiplied by."""
    length = np.zeros(len(codes), F32)
    for first in range(0, codes.shape[1], 65536):
        squares = np.square(codes[:, first : first + 65536].astype(np.int64))
        length += squares.sum(axis=1).astype(F32)
    reach: Floats = F32(SCREEN_REACH) * np.sqrt(length) / scale
    return reach


def screened(rough: Floats, exact: Floats, reach: Floats, error: Vector) -> Floats:
    """Rule 9: exact logits of the rows that may matter, rough ones of all others."""
    y = exact.copy()
    for i, row in enumerate(rough):
        listed = [m for m in np.argsort(-row, kind="stable")[:SCREEN_LIST] if row[m] > -np.inf]
        best = np.sort(exact[i, listed])[::-1]
        least = best[SCREEN_BEST - 1] if len(best) >= SCREEN_BEST else F32(-np.inf)
        kept = row + reach[i] * error < least
        y[i, kept] = row[kept]
    return y


def float_linear(x: Floats, matrix: Ternary, trits: Trits) -> Floats:
    """Rule 11: [n, cols] floats through a ternary matrix -> [n, rows]."""
    n, width = len(x), matrix.cols // matrix.groups
    scale = np.broadcast_to(matrix.scale.reshape(-1, matrix.groups), (matrix.rows, matrix.groups))
    out = np.empty((n, matrix.rows), F32)
    block = max(1, 2**22 // matrix.cols)
    for start in range(0, matrix.rows, block):
        part = trits[start : start + block].astype(F32)
        for i in range(n):
            total = np.zeros((len(part), LANES), F32)
            for g in range(matrix.groups):
                columns = slice(g * width, (g + 1) * width)
                lanes = lanes_of(x[i, columns], part[:, columns])
                total += lanes * scale[start : start + block, g, None]
            out[i, start : start + block] = tree(total)
    return out


def rope_table(context: int, rope: Rope) -> Floats:
    """[context, head_dim]: the cosines of each position, then its sines (rule 6).

    As transformers defines them: frequency and angle are float32, the functions of that angle are
    rounded once, here from float64, and multiplied by the factor.
    """
    angle = np.arange(context, dtype=F32)[:, None] * rope.frequencies[None, :]
    wide = angle.astype(np.float64)
    table: Floats = np.concatenate([np.cos(wide), np.sin(wide)], axis=1).astype(F32)
    return table if rope.factor == 1 else table * F32(rope.factor)


def rope(x: Floats, table: Floats) -> Floats:
    """Rotates [n, heads, head_dim] by the rows of table [n, head_dim], halves paired."""
    half = x.shape[-1] // 2
    cosine, sine = table[:, None, :half], table[:, None, half:]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def to_half(x: Floats) -> NDArray[np.float16]:
    """Rule 8: round half to even, saturating."""
    return np.clip(x, F32(-65504), F32(65504)).astype(np.float16)


def attention_scale(head_dim: float) -> np.float32:
    return F32(1.0 / math.sqrt(head_dim))


def shorten(x: Floats) -> Floats:
    """Rule 7: 13 significant bits, ties to even, magnitudes from 2^-100, below 0, to 2^100."""
    bits = np.ascontiguousarray(x, F32).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    within = np.minimum(magnitude, np.uint32(227 << 23))
    rounded = (within + np.uint32(0x3FF) + (within >> 11 & 1)) & ~np.uint32(0x7FF)
    rounded = np.where(magnitude < 27 << 23, np.uint32(0), rounded)
    signed: Floats = (bits & np.uint32(0x80000000) | rounded).view(F32)
    return signed


def attend(
    q: Floats,
    keys: Floats,
    values: Floats,
    first: int,
    scale: np.float32 | None = None,
    window: int = 0,
    units: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Rule 7 for queries [n, heads, head_dim] at positions first.., over cached keys and values
    [positions, kv_heads, head_dim] (float16 values, widened). Returns [n, heads, head_dim].

    scale:  of scores; 1 / sqrt(head_dim) when None
    window: a query sees so many positions, its own included; 0: all up to its own
    units:  what keys and values are multiplied by, [positions, kv_heads] each (rule 8)
    """
    n, heads, head_dim = q.shape
    scale = attention_scale(head_dim) if scale is None else scale
    if window and first + n > window:
        seen = [slice(max(0, p + 1 - window), p + 1) for p in range(first, first + n)]
        each = [
            attend(
                *(q[i : i + 1], keys[s], values[s], s.stop - s.start - 1, scale),
                units=units and (units[0][s], units[1][s]),
            )
            for i, s in enumerate(seen)
        ]
        return np.concatenate(each)
    positions, kv_heads, _ = keys.shape
    q, group = shorten(q), heads // kv_heads
    visible = (
        np.arange(positions)[None, :] <= np.arange(first, first + n)[:, None]
    )  # [n, positions]
    out = np.empty_like(q)
    for head in range(heads):
        key, value = keys[:, head // group], values[:, head // group]
        score = lane_dot(q[:, head][:, None, :], key[None, :, :])
        if units:
            score = score * units[0][None, :, head // group]
        score = score * scale
        largest = np.where(visible, score, F32(-np.inf)).max(-1)
        # An invisible position weighs +0, which changes no sum.
        e = shorten(exp(np.minimum(score - largest[:, None], F32(0))))
        e = np.where(visible, e, F32(0))
        share = shorten(e * units[1][None, :, head // group]) if units else e
        total = np.zeros((n, head_dim), F32)
        weight = np.zeros(n, F32)
        for start in range(0, positions, CHUNK):
            part = np.zeros((n, head_dim), F32)
            for t in range(start, min(start + CHUNK, positions)):
                part += value[t][None, :] * share[:, t, None]
            total += part
            weight += lane_sum(e[:, start : start + CHUNK])
        out[:, head] = total * (F32(1) / weight)[:, None]
    return out


@dataclass
class Cache:
    """Keys (rotated) and values of the tokens seen: per block, [positions, kv_heads, head_dim].

    key_units, value_units: of codes, per block [positions, kv_heads]; empty for float16
    """

    keys: list[NDArray[np.float16] | NDArray[np.int8]]
    values: list[NDArray[np.float16] | NDArray[np.int8]]
    key_units: list[Floats]
    value_units: list[Floats]

    @property
    def length(self) -> int:
        return len(self.keys[0])

    def put(self, index: int, k: Floats, v: Floats) -> None:
        """Adds keys and values [n, kv_heads, head_dim] of a block: rule 8."""
        for x, rows, units in (
            (k, self.keys, self.key_units),
            (v, self.values, self.value_units),
        ):
            if units:
                codes, scale = quantise(x)
                units[index] = np.concatenate([units[index], F32(1) / scale])
                rows[index] = np.concatenate([rows[index], codes])
            else:
                rows[index] = np.concatenate([rows[index], to_half(x)])

    def units(self, index: int) -> tuple[Floats, Floats] | None:
        return (self.key_units[index], self.value_units[index]) if self.key_units else None


class Input:
    """What matrices read: floats, and their codes once asked for."""

    def __init__(self, x: Floats, activations: Activations = "int8") -> None:
        self.x, self.activations = x, activations

    @cached_property
    def codes(self) -> tuple[NDArray[np.int8], Floats]:
        return QUANTISERS[self.activations](self.x)


class Reference:
    """Runs a model in numpy. Trits are decoded once and kept: for models that fit in memory."""

    def __init__(self, model: Model, context: int | None = None) -> None:
        self.model = model
        shape = model.shape
        self.tables = [rope_table(context or shape.context, rope) for rope in model.ropes]
        self.scale = attention_scale(model.score_dim or shape.head_dim)
        self.sub_eps = model.norm_eps if model.sub_norm_eps is None else model.sub_norm_eps
        self._trits: dict[int, Trits] = {}

    def new_cache(self) -> Cache:
        shape = self.model.shape
        q8 = self.model.kv == "q8"
        empty = np.zeros((0, shape.kv_heads, shape.head_dim), np.int8 if q8 else np.float16)
        units = [np.zeros((0, shape.kv_heads), F32)] * shape.layers if q8 else []
        return Cache([empty] * shape.layers, [empty] * shape.layers, list(units), list(units))

    def logits(self, tokens: list[int], cache: Cache | None = None) -> Floats:
        """Logits [n, vocab] of every token; the cache, if given, is extended."""
        x, head = self.states(tokens, cache), self.model.head
        integers = self.model.integer_head
        if integers:
            codes, scale = quantise(x)
            exact = self._linear(codes, scale, integers)
            if not integers.screen:
                return exact
            rough = self._linear(codes, scale, integers.screen.trits)
            return screened(rough, exact, screen_reach(codes, scale), integers.screen.error)
        if isinstance(head, Ternary):
            return float_linear(x, head, self._decoded(head))
        return dense(x, head)

    def states(self, tokens: list[int], cache: Cache | None = None) -> Floats:
        """The normalised states [n, dim] behind the last block."""
        model = self.model
        cache = cache or self.new_cache()
        x = self._embed(tokens)
        first = cache.length
        for i, block in enumerate(model.blocks):
            x = self._block(x, block, i, cache, first)
        return rmsnorm(x, model.final_norm, model.norm_eps)

    def embed(self, tokens: list[int], pooling: Pooling, unit: bool = True) -> Floats:
        """One vector [dim] of a text (rule 12)."""
        states = self.states(tokens)
        if pooling == "mean":
            total = np.zeros_like(states[0])
            for state in states:
                total = total + state
            vector = total / F32(len(states))
        else:
            vector = states[-1 if pooling == "last" else 0]
        if unit:
            length = np.sqrt(lane_sum(vector * vector))
            vector = vector / np.maximum(length, F32(1e-12))
        pooled: Floats = vector
        return pooled

    def _embed(self, tokens: list[int]) -> Floats:
        embedding, ids = self.model.embedding, np.asarray(tokens)
        if isinstance(embedding, Ternary):
            width = embedding.cols // embedding.groups
            scale = embedding.scale.reshape(-1, embedding.groups)
            scale = np.broadcast_to(scale, (embedding.rows, embedding.groups))[ids]
            x = self._decoded(embedding)[ids].astype(F32) * np.repeat(scale, width, axis=1)
        else:
            x = to_float32(embedding.load()[ids], embedding.dtype)
        factor = F32(self.model.embedding_scale)
        scaled: Floats = x if factor == 1 else x * factor
        return scaled

    def _decoded(self, matrix: Ternary | Integers) -> Trits:
        key = id(matrix)
        if key not in self._trits:
            self._trits[key] = matrix.load()
        return self._trits[key]

    def _linear(self, codes: NDArray[np.int8], scale: Floats, matrix: Ternary | Integers) -> Floats:
        return linear(codes, scale, matrix, self._decoded(matrix))

    def _apply(self, matrix: Matrix, given: Input, step: Vector | None) -> Floats:
        if isinstance(matrix, Dense):
            return dense(given.x, matrix)
        if step is not None:
            return self._linear(*quantise_by(given.x, step[0]), matrix)
        if self.model.float_activations and isinstance(matrix, Ternary):
            return float_linear(given.x, matrix, self._decoded(matrix))
        return self._linear(*given.codes, matrix)

    def _inputs(self, x: Floats, norms: tuple[Vector | None, ...]) -> list[Input]:
        """One input for each matrix: the same, or each normalised by its own norm."""
        if norms[0] is None:
            return [self._input(x)] * len(norms)
        return [self._input(rmsnorm(x, norm, self.sub_eps)) for norm in norms if norm is not None]

    def _input(self, x: Floats) -> Input:
        return Input(x, self.model.activations)

    def _block(self, x: Floats, block: Block, index: int, cache: Cache, first: int) -> Floats:
        model, shape = self.model, self.model.shape
        n, eps = len(x), model.norm_eps
        a = rmsnorm(x, block.attn_norm, eps)
        for_q, for_k, for_v = self._inputs(a, (block.wq_norm, block.wk_norm, block.wv_norm))
        q = _biased(self._apply(block.wq, for_q, block.wq_input), block.wq_bias)
        k = _biased(self._apply(block.wk, for_k, block.wk_input), block.wk_bias)
        v = _biased(self._apply(block.wv, for_v, block.wv_input), block.wv_bias)
        q = q.reshape(n, shape.heads, shape.head_dim)
        k = k.reshape(n, shape.kv_heads, shape.head_dim)
        v = v.reshape(n, shape.kv_heads, shape.head_dim)
        if block.q_norm is not None and block.k_norm is not None:
            q, k = rmsnorm(q, block.q_norm, eps), rmsnorm(k, block.k_norm, eps)
        table = self.tables[block.rope][first : first + n]
        q, k = rope(q, table), rope(k, table)
        cache.put(index, k, v)
        keys, values = cache.keys[index].astype(F32), cache.values[index].astype(F32)
        o = attend(q, keys, values, first, self.scale, block.window, cache.units(index))
        o = o.reshape(n, shape.q_dim)
        o = _normed(o, block.attn_sub_norm, self.sub_eps)
        o = self._apply(block.wo, self._input(o), block.wo_input)
        x = x + _normed(o, block.attn_post_norm, eps)

        b = rmsnorm(x, block.ffn_norm, eps)
        for_gate, for_up = self._inputs(b, (block.w_gate_norm, block.w_up_norm))
        gate = self._apply(block.w_gate, for_gate, block.w_gate_input)
        up = self._apply(block.w_up, for_up, block.w_up_input)
        g = ACTIVATIONS[model.ffn_activation](gate) * up
        g = _normed(g, block.ffn_sub_norm, self.sub_eps, model.ffn_units)
        down = self._apply(block.w_down, self._input(g), block.w_down_input)
        y: Floats = x + _normed(down, block.ffn_post_norm, eps)
        return y


def _normed(x: Floats, norm: Vector | None, eps: float, of: int | None = None) -> Floats:
    return x if norm is None else rmsnorm(x, norm, eps, of)


def _biased(x: Floats, bias: Vector | None) -> Floats:
    return x if bias is None else x + bias


def dense(x: Floats, matrix: Dense) -> Floats:
    """Rule 9: [n, cols] -> [n, rows], rows of the matrix in blocks to bound the memory."""
    stored = matrix.load()
    out = np.empty((len(x), matrix.rows), F32)
    block = max(1, 2**22 // matrix.cols)
    for start in range(0, matrix.rows, block):
        rows = to_float32(stored[start : start + block], matrix.dtype)
        for i in range(len(x)):
            out[i, start : start + block] = lane_dot(x[i][None, :], rows)
    return out


# Sampling (rule 10).


def splitmix64(state: int) -> tuple[int, int]:
    """(next state, 64 random bits)."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return state, z ^ z >> 31


def sample(
    logits: Floats, temperature: float, top_k: int, top_p: float, state: int
) -> tuple[int, int]:
    """(token, next state) by the rule of runtime_c/bnc_sampler.h."""
    best = int(np.argmax(logits))
    if not temperature > 0:
        return best, state
    weights = exp((logits - logits[best]) / F32(temperature))
    vocab = len(weights)
    if top_k == 0 and top_p >= 1:
        kept = list(range(vocab))
        total = _running(weights, kept)[-1]
    else:
        order = np.lexsort((np.arange(vocab), -weights)).tolist()
        if top_k > 0:
            kept = order[:top_k]
            total = _running(weights, kept)[-1]
            if top_p < 1:
                kept, total = _prefix(weights, kept, F32(top_p) * total)
        else:
            kept, total = _prefix(weights, order, F32(top_p) * F32(lane_sum(weights)))
    state, bits = splitmix64(state)
    target = F32(bits >> 40) * F32(2.0**-24) * total
    for token, running in zip(kept, _running(weights, kept), strict=True):
        if running > target:
            return token, state
    return best, state


def _running(weights: Floats, tokens: list[int]) -> Floats:
    """Running sums in float32, one addition after the other."""
    sums = np.empty(len(tokens), F32)
    total = F32(0)
    for i, token in enumerate(tokens):
        total = total + weights[token]
        sums[i] = total
    return sums


def _prefix(weights: Floats, tokens: list[int], wanted: np.float32) -> tuple[list[int], np.float32]:
    sums = _running(weights, tokens)
    count = min(int(np.searchsorted(sums, wanted)) + 1, len(tokens))
    return tokens[:count], sums[count - 1]
