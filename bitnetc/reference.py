"""The forward pass in numpy: the definition of correct.

Follows docs/arithmetic.md operation by operation in float32, so that its logits equal the emitted
program's in every bit. It is written for clarity and for whole sequences; speed comes second.

Source of the graph: transformers' BitNet and Llama models, as reference/formats describes them.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnetc.model import Block, Dense, Model, Ternary, Trits, Vector, to_float32

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
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    total: Floats = lanes[..., 0]
    return total


def lane_dot(a: Floats, b: Floats) -> Floats:
    """Rule 2 of a * b over the last axis, broadcast; holds one sixteen-wide product at a time."""
    n = a.shape[-1]
    shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    lanes = np.zeros((*shape, LANES), F32)
    for i in range(0, n, LANES):
        part = a[..., i : i + LANES] * b[..., i : i + LANES]
        lanes[..., : part.shape[-1]] += part
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    total: Floats = lanes[..., 0]
    return total


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


def relu2(x: Floats) -> Floats:
    """max(x, 0)^2."""
    r = np.maximum(x, F32(0))
    y: Floats = r * r
    return y


def rmsnorm(x: Floats, weight: Vector, eps: float) -> Floats:
    """x * (1 / sqrt(mean(x^2) + eps)) * weight over the last axis."""
    mean = lane_sum(x * x) / F32(x.shape[-1])
    inverse = F32(1) / np.sqrt(mean + F32(eps))
    y: Floats = (x * inverse[..., None]) * weight
    return y


def quantise(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rule 3: int8 codes and the scale that multiplied x, per token (last axis)."""
    largest = np.maximum(np.abs(x).max(-1), F32(1e-5))
    scale = F32(127) / largest
    codes = np.clip(np.rint(x * scale[..., None]), -128, 127)
    return codes.astype(np.int8), scale


def linear(codes: NDArray[np.int8], scale: Floats, matrix: Ternary, trits: Trits) -> Floats:
    """Rule 4: [n, cols] codes through a ternary matrix -> [n, rows].

    The float32 product is exact: its partial sums are integers below 127 * cols < 2^24 for every
    matrix of fewer than 132,104 columns; wider ones use float64.
    """
    wide = F32 if matrix.cols < 132_104 else np.float64
    acc = (codes.astype(wide) @ trits.T.astype(wide)).astype(F32)
    y: Floats = acc * (matrix.scale[None, :] / scale[:, None])
    return y


def rope_table(context: int, head_dim: int, theta: float) -> Floats:
    """[context, head_dim]: the cosines of each position, then its sines (rule 6).

    As transformers defines them: frequency and angle are float32, the functions of that angle are
    rounded once, here from float64.
    """
    exponent = np.arange(0, head_dim, 2, dtype=F32) / F32(head_dim)
    frequency = np.array([F32(1.0 / F32(theta ** float(e))) for e in exponent], F32)
    angle = np.arange(context, dtype=F32)[:, None] * frequency[None, :]
    wide = angle.astype(np.float64)
    table: Floats = np.concatenate([np.cos(wide), np.sin(wide)], axis=1).astype(F32)
    return table


def rope(x: Floats, table: Floats) -> Floats:
    """Rotates [n, heads, head_dim] by the rows of table [n, head_dim], halves paired."""
    half = x.shape[-1] // 2
    cosine, sine = table[:, None, :half], table[:, None, half:]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def to_half(x: Floats) -> NDArray[np.float16]:
    """Rule 8: round half to even, saturating."""
    return np.clip(x, F32(-65504), F32(65504)).astype(np.float16)


def attention_scale(head_dim: int) -> np.float32:
    return F32(1.0 / math.sqrt(head_dim))


def attend(q: Floats, keys: Floats, values: Floats, first: int) -> Floats:
    """Rule 7 for queries [n, heads, head_dim] at positions first.., over cached keys and values
    [positions, kv_heads, head_dim] (float16 values, widened). Returns [n, heads, head_dim]."""
    n, heads, head_dim = q.shape
    positions, kv_heads, _ = keys.shape
    group = heads // kv_heads
    visible = (
        np.arange(positions)[None, :] <= np.arange(first, first + n)[:, None]
    )  # [n, positions]
    out = np.empty_like(q)
    scale = attention_scale(head_dim)
    for head in range(heads):
        key, value = keys[:, head // group], values[:, head // group]
        score = lane_dot(q[:, head][:, None, :], key[None, :, :]) * scale
        largest = np.where(visible, score, F32(-np.inf)).max(-1)
        # An invisible position weighs +0, which changes no sum.
        e = np.where(visible, exp(np.minimum(score - largest[:, None], F32(0))), F32(0))
        total = np.zeros((n, head_dim), F32)
        weight = np.zeros(n, F32)
        for start in range(0, positions, CHUNK):
            part = np.zeros((n, head_dim), F32)
            for t in range(start, min(start + CHUNK, positions)):
                part += value[t][None, :] * e[:, t, None]
            total += part
            weight += lane_sum(e[:, start : start + CHUNK])
        out[:, head] = total * (F32(1) / weight)[:, None]
    return out


@dataclass
class Cache:
    """Keys (rotated) and values of the tokens seen: per block, [positions, kv_heads, head_dim]."""

    keys: list[NDArray[np.float16]]
    values: list[NDArray[np.float16]]

    @property
    def length(self) -> int:
        return len(self.keys[0])


class Reference:
    """Runs a model in numpy. Trits are decoded once and kept: for models that fit in memory."""

    def __init__(self, model: Model, context: int | None = None) -> None:
        self.model = model
        shape = model.shape
        self.table = rope_table(context or shape.context, shape.head_dim, model.rope_theta)
        self._trits: dict[int, Trits] = {}

    def new_cache(self) -> Cache:
        shape = self.model.shape
        empty = np.zeros((0, shape.kv_heads, shape.head_dim), np.float16)
        return Cache([empty] * shape.layers, [empty] * shape.layers)

    def logits(self, tokens: list[int], cache: Cache | None = None) -> Floats:
        """Logits [n, vocab] of every token; the cache, if given, is extended."""
        model = self.model
        cache = cache or self.new_cache()
        x = self._embed(tokens)
        first = cache.length
        for i, block in enumerate(model.blocks):
            x = self._block(x, block, i, cache, first)
        return dense(rmsnorm(x, model.final_norm, model.norm_eps), model.head)

    def _embed(self, tokens: list[int]) -> Floats:
        embedding = self.model.embedding
        return to_float32(embedding.load()[np.asarray(tokens)], embedding.dtype)

    def _linear(self, codes: NDArray[np.int8], scale: Floats, matrix: Ternary) -> Floats:
        key = id(matrix)
        if key not in self._trits:
            self._trits[key] = matrix.load()
        return linear(codes, scale, matrix, self._trits[key])

    def _block(self, x: Floats, block: Block, index: int, cache: Cache, first: int) -> Floats:
        model, shape = self.model, self.model.shape
        n = len(x)
        codes, scale = quantise(rmsnorm(x, block.attn_norm, model.norm_eps))
        q = self._linear(codes, scale, block.wq).reshape(n, shape.heads, shape.head_dim)
        k = self._linear(codes, scale, block.wk).reshape(n, shape.kv_heads, shape.head_dim)
        v = self._linear(codes, scale, block.wv).reshape(n, shape.kv_heads, shape.head_dim)
        table = self.table[first : first + n]
        q, k = rope(q, table), rope(k, table)
        cache.keys[index] = np.concatenate([cache.keys[index], to_half(k)])
        cache.values[index] = np.concatenate([cache.values[index], to_half(v)])
        keys, values = cache.keys[index].astype(F32), cache.values[index].astype(F32)
        o = attend(q, keys, values, first).reshape(n, shape.q_dim)
        if block.attn_sub_norm is not None:
            o = rmsnorm(o, block.attn_sub_norm, model.norm_eps)
        x = x + self._linear(*quantise(o), block.wo)

        codes, scale = quantise(rmsnorm(x, block.ffn_norm, model.norm_eps))
        activation = {"relu2": relu2, "silu": silu}[model.ffn_activation]
        gate = activation(self._linear(codes, scale, block.w_gate))
        g = gate * self._linear(codes, scale, block.w_up)
        if block.ffn_sub_norm is not None:
            g = rmsnorm(g, block.ffn_sub_norm, model.norm_eps)
        y: Floats = x + self._linear(*quantise(g), block.w_down)
        return y


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
