"""Rotary embeddings as config.json asks for them: base, scaling, and which layer has which.

Frequencies are float32, computed as transformers does: powers of the base first, then the scaling.
Source: transformers `modeling_rope_utils.py`, and Gemma 3's configuration for local layers.
"""

import math
from typing import Any

import numpy as np

from bitnetc.checkpoint.fields import Fields, shown
from bitnetc.families import Family
from bitnetc.model import Rope, Shape, Vector

F32 = np.float32
_KINDS = ("default", "linear", "llama3", "yarn", "longrope")
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_LOCAL_THETA = 10000.0  # of Gemma 3, where its config does not say
_PATTERN = 6  # every sixth layer of Gemma 3 is global, where its config does not say


def frequencies(head_dim: int, theta: float) -> Vector:
    """float32 [head_dim / 2]: 1 / theta^(2j / head_dim), as torch rounds it."""
    exponent = np.arange(0, head_dim, 2, dtype=F32) / F32(head_dim)
    return np.array([F32(1.0 / F32(theta ** float(e))) for e in exponent], F32)


def read_ropes(
    family: Family, fields: Fields, shape: Shape
) -> tuple[tuple[Rope, ...], tuple[tuple[int, int], ...]]:
    """(the ropes, and for each layer which of them and its window, 0 for all positions).

    `rope_scaling` takes the place of `rope_parameters` where both are given, as in transformers.
    Errors: scalings that are unknown or depend on the length of the text.
    """
    key = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    rope = fields.nested(key)
    if "sliding_window" not in family.reads:
        if any(isinstance(value, dict) for value in rope.values.values()):
            raise fields.error(key, "differs by layer type, not supported", "use another model")
        return (_rope(family, fields, rope, shape),), ((0, 0),) * shape.layers
    kinds = _layer_kinds(fields, shape.layers)
    if _LOCAL not in kinds:
        if any(isinstance(value, dict) for value in rope.values.values()):
            rope = rope.nested(_GLOBAL)
        return (_rope(family, fields, rope, shape),), ((0, 0),) * shape.layers
    if any(isinstance(value, dict) for value in rope.values.values()):
        whole = _rope(family, fields, rope.nested(_GLOBAL), shape)
        local = _rope(family, fields, rope.nested(_LOCAL), shape, _LOCAL_THETA)
    else:
        whole = _rope(family, fields, rope, shape)
        theta = fields.number("rope_local_base_freq", 1.0, 1e12, _LOCAL_THETA)
        local = Rope(theta, frequencies(shape.head_dim, theta))
    window = fields.integer("sliding_window", 1, 1 << 24, family.defaults.get("sliding_window"))
    layers = tuple((1, window) if kind == _LOCAL else (0, 0) for kind in kinds)
    return (whole, local), layers


def _layer_kinds(fields: Fields, layers: int) -> list[str]:
    kinds = fields.values.get("layer_types")
    if kinds is None:
        pattern = fields.integer("sliding_window_pattern", 1, 1 << 10, _PATTERN)
        return [_LOCAL if (i + 1) % pattern else _GLOBAL for i in range(layers)]
    if not isinstance(kinds, list) or any(kind not in (_GLOBAL, _LOCAL) for kind in kinds):
        raise fields.error(
            "layer_types", f"{shown(kinds)} is not supported", f"only {_GLOBAL} and {_LOCAL} are"
        )
    if len(kinds) != layers:
        raise fields.error("layer_types", f"names {len(kinds)} layers of {layers}")
    return kinds


def _rope(
    family: Family, fields: Fields, rope: Fields, shape: Shape, default: float | None = None
) -> Rope:
    source = rope if rope.has("rope_theta") else fields
    if default is not None and source is fields:
        theta = default
    else:
        theta = source.number("rope_theta", 1.0, 1e12, family.defaults["rope_theta"])
    kind_key = "rope_type" if rope.has("rope_type") else "type"
    kind = rope.text(kind_key, "default")
    if kind not in _KINDS:
        raise rope.error(
            kind_key,
            f"{shown(kind)} is not supported",
            "known scalings of the rotary embedding: " + ", ".join(_KINDS),
        )
    if rope.has("partial_rotary_factor") and rope.values["partial_rotary_factor"] != 1:
        raise rope.error(
            "partial_rotary_factor",
            f"{shown(rope.values['partial_rotary_factor'])} is not supported",
        )
    plain = frequencies(shape.head_dim, theta)
    if kind == "default":
        if rope.has("factor") and rope.values["factor"] != 1:
            raise rope.error("factor", f"{shown(rope.values['factor'])} is not supported")
        return Rope(theta, plain)
    if kind == "longrope":
        return _longrope(fields, rope, shape, theta, plain)
    factor = rope.number("factor", 0.0, 1e6)
    if kind == "linear":
        return Rope(theta, plain / F32(factor))
    original = rope.integer(
        "original_max_position_embeddings", 1, 1 << 24, shape.context if kind == "yarn" else None
    )
    if kind == "llama3":
        return Rope(theta, _llama3(rope, plain, factor, original))
    return _yarn(rope, shape.head_dim, theta, factor, original)


def _llama3(rope: Fields, plain: Vector, factor: float, original: int) -> Vector:
    """Long waves are slowed down by `factor`, short ones kept, those between blended."""
    low = rope.number("low_freq_factor", 0.0, 1e6)
    high = rope.number("high_freq_factor", 0.0, 1e6)
    if not low < high:
        raise rope.error("high_freq_factor", f"{high} is not above low_freq_factor, {low}")
    wave = F32(2 * math.pi) / plain
    slowed = np.where(wave > F32(original / low), plain / F32(factor), plain)
    smooth = (F32(original) / wave - F32(low)) / F32(high - low)
    blend = (F32(1) - smooth) * slowed / F32(factor) + smooth * slowed
    between = (wave >= F32(original / high)) & (wave <= F32(original / low))
    return np.where(between, blend, slowed).astype(F32)


def _yarn(rope: Fields, head_dim: int, theta: float, factor: float, original: int) -> Rope:
    """Waves that turn often within `original` positions are kept, those that turn seldom slowed
    down; cosines and sines grow by the attention factor."""

    def scale_of(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    if rope.has("attention_factor"):
        attention = rope.number("attention_factor", 0.0, 1e3)
    elif rope.has("mscale") and rope.has("mscale_all_dim"):
        above = scale_of(rope.number("mscale", 0.0, 1e3))
        attention = above / scale_of(rope.number("mscale_all_dim", 0.0, 1e3))
    else:
        attention = scale_of(1.0)

    def turns(rotations: float) -> float:
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    if theta <= 1:
        raise rope.error("rope_theta", f"{theta} has no scaling", "yarn needs a base above 1")
    low = turns(rope.number("beta_fast", 0.0, 1e6, 32.0))
    high = turns(rope.number("beta_slow", 0.0, 1e6, 1.0))
    if rope.boolean("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (np.arange(head_dim // 2, dtype=F32) - F32(low)) / F32(
        (high if high != low else high + 0.001) - low
    )
    kept = F32(1) - np.clip(ramp, F32(0), F32(1))
    exponent = np.arange(0, head_dim, 2, dtype=F32) / F32(head_dim)
    power = np.array([F32(theta ** float(e)) for e in exponent], F32)
    found = F32(1) / (F32(factor) * power) * (F32(1) - kept) + F32(1) / power * kept
    return Rope(theta, found.astype(F32), attention)


def _longrope(fields: Fields, rope: Fields, shape: Shape, theta: float, plain: Vector) -> Rope:
    """Within the positions it was first trained for, LongRoPE divides by its short factors; beyond
    them the frequencies of all positions would change with the length of the text."""
    original = fields.integer(
        "original_max_position_embeddings",
        1,
        1 << 24,
        rope.integer("original_max_position_embeddings", 1, 1 << 24, shape.context),
    )
    if shape.context > original:
        raise fields.error(
            "max_position_embeddings",
            f"{shape.context} is beyond {original}, from where LongRoPE changes all positions",
            f"set it to {original}",
        )
    if rope.has("attention_factor") and rope.values["attention_factor"] != 1:
        raise rope.error("attention_factor", "is not supported for longrope")
    return Rope(theta, plain / _factors(rope, "short_factor", len(plain)))


def _factors(rope: Fields, key: str, count: int) -> Vector:
    found: Any = rope.values.get(key)
    if not isinstance(found, list) or len(found) != count:
        raise rope.error(key, f"must be a list of {count} numbers")
    if not all(type(f) in (int, float) and 0 < f < 1e6 for f in found):
        raise rope.error(key, "must hold numbers above 0")
    return np.array(found, F32)
