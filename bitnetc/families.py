"""One entry per checkpoint family: config keys, tensor names, quirks; and what is refused by name.

A family is recognised by evidence: the quantisation its config declares and the tensors it has.
`model_type` alone decides nothing, since public checkpoints of different graphs share "llama".
Source: transformers `integrations/bitnet.py`, `models/bitnet`, `models/llama`, and the configs as
published.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitnetc.checkpoint.fields import Fields, misspelt, shown
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import FfnActivation


@dataclass(frozen=True)
class Family:
    """How checkpoints of one family spell what bitnetc.model holds.

    evidence:    tensor names of which one present decides for this family; "N" stands for a layer
    declared_by: config keys, one of which says that the weights are ternary and how they are
                 stored; none where the file itself says so
    defaults:    what a missing key of config.json means, as transformers' config class has it;
                 num_key_value_heads and head_dim follow from other keys where not listed
    activations: hidden_act -> ours
    top:         role -> tensor name
    block:       field of model.Block -> tensor name below `layer`
    """

    name: str
    evidence: tuple[str, ...]
    declared_by: tuple[str, ...]
    defaults: Mapping[str, Any]
    activations: Mapping[str, FfnActivation]
    top: Mapping[str, str]
    layer: str
    block: Mapping[str, str]


# Rows and columns of each matrix, length of each vector, as properties of model.Shape.
EXTENTS: Mapping[str, tuple[str, ...]] = {
    "attn_norm": ("dim",),
    "wq": ("q_dim", "dim"),
    "wk": ("kv_dim", "dim"),
    "wv": ("kv_dim", "dim"),
    "attn_sub_norm": ("q_dim",),
    "wo": ("dim", "q_dim"),
    "ffn_norm": ("dim",),
    "w_gate": ("ffn_dim", "dim"),
    "w_up": ("ffn_dim", "dim"),
    "ffn_sub_norm": ("ffn_dim",),
    "w_down": ("dim", "ffn_dim"),
    "embedding": ("vocab", "dim"),
    "final_norm": ("dim",),
    "head": ("vocab", "dim"),
}
_TOP = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
}
_LAYER = "model.layers.N."
_LLAMA_BLOCK = {
    "attn_norm": "input_layernorm.weight",
    "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight",
    "wv": "self_attn.v_proj.weight",
    "wo": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "w_gate": "mlp.gate_proj.weight",
    "w_up": "mlp.up_proj.weight",
    "w_down": "mlp.down_proj.weight",
}
_COMMON_DEFAULTS = {"max_position_embeddings": 2048, "tie_word_embeddings": False}
_ACTIVATIONS: dict[str, FfnActivation] = {"relu2": "relu2", "silu": "silu", "swish": "silu"}

# microsoft/bitnet-b1.58-2B-4T and its -bf16 masters
BITNET = Family(
    name="bitnet",
    evidence=(
        _LAYER + "self_attn.attn_sub_norm.weight",
        _LAYER + "mlp.ffn_sub_norm.weight",
    ),
    declared_by=("quantization_config",),
    defaults={
        **_COMMON_DEFAULTS,
        "hidden_act": "relu2",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "num_key_value_heads": 5,
    },
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block={
        **_LLAMA_BLOCK,
        "attn_sub_norm": "self_attn.attn_sub_norm.weight",
        "ffn_sub_norm": "mlp.ffn_sub_norm.weight",
    },
)

# HF1BitLLM/Llama3-8B-1.58*, tiiuae/Falcon3-*-1.58bit, tiiuae/Falcon-E-*
LLAMA_BITNET = Family(
    name="llama-bitnet",
    evidence=(_LAYER + "self_attn.q_proj.weight",),
    declared_by=("quantization_config",),
    defaults={
        **_COMMON_DEFAULTS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    },
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block=_LLAMA_BLOCK,
)

# 1bitLLM/bitnet_b1_58-large, -xl, -3B. Their config.json says model_type "llama", and without the
# two norms they are Llamas that write noise: only the names of the norms tell them apart.
BITNET_B1_58 = Family(
    name="bitnet_b1_58",
    evidence=(
        _LAYER + "self_attn.inner_attn_ln.weight",
        _LAYER + "mlp.ffn_layernorm.weight",
    ),
    declared_by=("weight_bits", "quantization_config"),
    defaults={
        **_COMMON_DEFAULTS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "input_bits": 8,
    },
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block={
        **_LLAMA_BLOCK,
        "attn_sub_norm": "self_attn.inner_attn_ln.weight",
        "ffn_sub_norm": "mlp.ffn_layernorm.weight",
    },
)

# The first whose evidence is found counts, so the more specific come first.
FAMILIES = (BITNET, BITNET_B1_58, LLAMA_BITNET)

# The same graphs as GGUF files spell them. They declare their types themselves, and say nothing of
# the activation. rope_theta's default is llama.cpp's.
_GGUF_TOP = {
    "embedding": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
}
_GGUF_LAYER = "blk.N."
_GGUF_BLOCK = {
    "attn_norm": "attn_norm.weight",
    "wq": "attn_q.weight",
    "wk": "attn_k.weight",
    "wv": "attn_v.weight",
    "wo": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "w_gate": "ffn_gate.weight",
    "w_up": "ffn_up.weight",
    "w_down": "ffn_down.weight",
}
GGUF_BITNET = Family(
    name="bitnet",
    evidence=(_GGUF_LAYER + "attn_sub_norm.weight", _GGUF_LAYER + "ffn_sub_norm.weight"),
    declared_by=(),
    defaults={"rope_theta": 10000.0},
    activations=_ACTIVATIONS,
    top=_GGUF_TOP,
    layer=_GGUF_LAYER,
    block={
        **_GGUF_BLOCK,
        "attn_sub_norm": "attn_sub_norm.weight",
        "ffn_sub_norm": "ffn_sub_norm.weight",
    },
)
GGUF_LLAMA = Family(
    name="llama-bitnet",
    evidence=(_GGUF_LAYER + "attn_q.weight",),
    declared_by=(),
    defaults={"rope_theta": 10000.0},
    activations=_ACTIVATIONS,
    top=_GGUF_TOP,
    layer=_GGUF_LAYER,
    block=_GGUF_BLOCK,
)
GGUF_FAMILIES = (GGUF_BITNET, GGUF_LLAMA)


@dataclass(frozen=True)
class Foreign:
    """A tensor that changes the graph in a way no family here computes."""

    pattern: str  # of the whole name, layer number written N
    what: str
    hint: str


_NO_BIAS = "bitnetc compiles models without biases: train or export with attention_bias false"
_FOREIGN = (
    Foreign(
        r".*_proj\.norm\.weight",
        "is a norm inside a projection, as in bitnet-embedding models, not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(
        r".*_proj\.rms_norm\.weight",
        "is a norm inside a projection (use_rms_norm), not supported yet",
        "train with use_rms_norm false",
    ),
    Foreign(
        r".*\.self_attn\.[qk]_norm\.weight",
        "normalises queries or keys, as Qwen3 and Gemma3 do, not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(
        r".*\.(pre|post)_feedforward_layernorm\.weight",
        "marks a Gemma graph, which is not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(r".*\.(q|k|v|o|gate|up|down)_proj\.bias|lm_head\.bias", "is a bias", _NO_BIAS),
    Foreign(
        r".*\.(experts|router|shared_expert)\..*",
        "belongs to a mixture of experts, not supported",
        "use a dense model",
    ),
    Foreign(r".*lora_[AB].*", "is a LoRA adapter", "merge it into the weights (merge_and_unload)"),
    Foreign(r"blk\.N\..*\.bias|output\.bias", "is a bias", _NO_BIAS),
    Foreign(
        r"blk\.N\.attn_[qk]_norm\.weight",
        "normalises queries or keys, as Qwen3 and Gemma3 do, not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(
        r"blk\.N\..*_norm_in\.weight",
        "is a norm inside a projection, as in bitnet-embedding models, not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(
        r"blk\.N\.post_.*norm\.weight",
        "marks a Gemma graph, which is not supported yet",
        "known families: " + ", ".join(family.name for family in FAMILIES),
    ),
    Foreign(
        r"blk\.N\..*_(exps|shexp)\..*|blk\.N\.ffn_gate_inp\..*",
        "belongs to a mixture of experts, not supported",
        "use a dense model",
    ),
    Foreign(
        r"(blk\.N\.)?rope_(freqs|factors_.*)\.weight",
        "scales the rotary embedding, not supported",
        "only the default rotary embedding, without scaling, is known",
    ),
)
# Tensors that say nothing a config does not say.
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")


# Keys of config.json that change the graph unless they have one of these values or are missing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "query_pre_attn_scalar": (),
    "scale_emb": (1, 1.0),
    "scale_depth": (),
    "dim_model_base": (),
    "embedding_multiplier": (1, 1.0),
    "residual_multiplier": (1, 1.0),
    "attention_multiplier": (),
    "logits_scaling": (1, 1.0),
    "logit_scale": (1, 1.0),
    "use_qk_norm": (False,),
    "qk_norm": (False,),
    "num_experts": (0,),
    "num_local_experts": (0, 1),
    "is_encoder_decoder": (False,),
    "alibi": (False,),
    "parallel_attn": (False,),
}


def without_layer(name: str) -> str:
    """The name with its layer number written N: "model.layers.12.x" -> "model.layers.N.x"."""
    return re.sub(r"(\.layers|^blk)\.[0-9]+\.", r"\1.N.", name)


def recognise(
    where: str, fields: Fields, names: Collection[str], known: Sequence[Family] = FAMILIES
) -> Family:
    """The family of a checkpoint, by what it declares and which tensors it has.

    where: the checkpoint's folder or file, for messages; fields: its config.
    known: FAMILIES or GGUF_FAMILIES, by how the container spells names.
    Errors: whatever would change the graph in a way we do not compute, refused by name.
    """
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(without_layer(name), name)
    for foreign in _FOREIGN:
        for kind, name in kinds.items():
            if re.fullmatch(foreign.pattern, kind):
                raise BitnetcError(f"{where}: {shown(name)}", foreign.what, foreign.hint)
    for family in known:
        if any(evidence in kinds for evidence in family.evidence):
            if family.declared_by and not any(fields.has(key) for key in family.declared_by):
                raise fields.error(
                    family.declared_by[0],
                    "is missing, so nothing says that the weights are ternary",
                    "use a BitNet checkpoint: its config.json declares "
                    + ("quant_method bitnet" if family is not BITNET_B1_58 else "weight_bits 1"),
                )
            if "attn_sub_norm" not in family.block and _claims_bitnet(fields.values):
                raise _no_sub_norm(where, fields, known[0])
            if family is GGUF_BITNET and not _claims_bitnet(fields.values):
                raise BitnetcError(
                    f"{where}: general.architecture",
                    f"{shown(fields.values.get('architecture'))} has no sub-norms, but the file "
                    "holds them",
                    "convert the model again, as architecture bitnet-b1.58",
                )
            return family
    wanted = known[-1].evidence[0].replace("N", "0")
    near = misspelt(wanted, names)
    raise BitnetcError(
        where,
        f"no tensor {wanted}, so no known family",
        f"rename {shown(near)} if that is it" if near else "pass a BitNet language model",
    )


def _no_sub_norm(where: str, fields: Fields, bitnet: Family) -> BitnetcError:
    hint = "download the checkpoint again, or set architectures and model_type to Llama's"
    named = "config.json names the architecture BitNetForCausalLM"
    if bitnet is GGUF_BITNET:
        hint = "convert the model again"
        named = f"general.architecture is {shown(fields.values.get('architecture'))}"
    return BitnetcError(
        f"{where}: tensor {bitnet.evidence[0].replace('N', '0')}",
        f"is missing, although {named}",
        hint,
    )


def _claims_bitnet(config: Mapping[str, Any]) -> bool:
    architectures = config.get("architectures")
    return config.get("model_type") == "bitnet" or (
        isinstance(architectures, list) and "BitNetForCausalLM" in architectures
    )


def refuse_unknown_graph(fields: Fields) -> None:
    """Refuses config keys whose values ask for something no family here computes."""
    for key, neutral in _NEUTRAL.items():
        if fields.has(key) and fields.values[key] not in neutral:
            raise fields.error(
                key, f"{shown(fields.values[key])} is not supported", "use a model without it"
            )
    if fields.has("sliding_window") and fields.values.get("use_sliding_window") is not False:
        raise fields.error(
            "sliding_window",
            f"{shown(fields.values['sliding_window'])} is not supported",
            "set it to null if the model attends to every position",
        )
    types = fields.values.get("layer_types")
    if types is not None and (
        not isinstance(types, list) or any(kind != "full_attention" for kind in types)
    ):
        raise fields.error(
            "layer_types", f"{shown(types)} is not supported", "only full_attention is known"
        )


def activation(family: Family, fields: Fields) -> FfnActivation:
    """The feed-forward activation: `hidden_act`, or what the family's models mean without it."""
    default = family.defaults.get("hidden_act")
    if default is None and not fields.has("hidden_act"):
        raise BitnetcError(
            f"{fields.where}: feed-forward activation",
            "is not in the file, and nothing marks it as a published model",
            "say which with --ffn-activation relu2 (BitNet b1.58 2B4T) or silu, or put the "
            "model's config.json beside the file",
        )
    found = fields.text("hidden_act", default)
    if found not in family.activations:
        raise fields.error(
            "hidden_act",
            f"unknown activation {shown(found)}",
            nearest(found, family.activations),
        )
    return family.activations[found]


def rope_theta(family: Family, fields: Fields) -> float:
    """Base of the rotary angles, top-level or in `rope_parameters` (transformers 5).

    `rope_scaling` takes the place of `rope_parameters` where both are given, as in transformers.
    """
    key = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    rope = fields.nested(key)
    if any(isinstance(value, dict) for value in rope.values.values()):
        raise fields.error(key, "differs by layer type, not supported", "use a model without it")
    kind_key = "rope_type" if rope.has("rope_type") else "type"
    kind = rope.text(kind_key, "default")
    if kind != "default":
        raise rope.error(
            kind_key,
            f"{shown(kind)} is not supported",
            "only the default rotary embedding, without scaling, is known",
        )
    if rope.has("factor") and rope.values["factor"] != 1:
        raise rope.error("factor", f"{shown(rope.values['factor'])} is not supported")
    if rope.has("partial_rotary_factor") and rope.values["partial_rotary_factor"] != 1:
        raise rope.error(
            "partial_rotary_factor",
            f"{shown(rope.values['partial_rotary_factor'])} is not supported",
        )
    source = rope if rope.has("rope_theta") else fields
    return source.number("rope_theta", 1.0, 1e12, family.defaults["rope_theta"])


@dataclass(frozen=True)
class Quantisation:
    """How the ternary matrices are stored, where the types of the tensors do not say it.

    divides: real weight = trit / weight_scale (BitLinear) instead of trit * weight_scale
    online:  stored as float masters, to be quantised by their absolute mean
    floats:  transformers takes unpacked ternary values in float tensors as they are
    """

    divides: bool
    online: bool
    floats: bool


_QUANT_KEYS = (
    "quant_method", "linear_class", "quantization_mode", "use_rms_norm", "rms_norm_eps",
    "modules_to_not_convert", "offline_quantization",
)  # fmt: skip
_LINEAR_CLASSES = ("bitlinear", "autobitlinear")
_MODES = ("offline", "online")


def quantisation(family: Family, fields: Fields) -> Quantisation:
    """Reads `quantization_config`. Whether a scale divides or multiplies hangs on `linear_class`.

    The first revision of 2B-4T wrote {"offline_quantization": true} instead, which meant
    autobitlinear, offline. Everything else without `linear_class` is BitLinear. 1bitLLM's models
    say weight_bits 1 and input_bits 8 instead, and store float masters.
    """
    if not family.declared_by:
        return Quantisation(divides=False, online=False, floats=False)
    if not fields.has("quantization_config"):
        for key, bits in (("weight_bits", 1), ("input_bits", 8)):
            found = fields.integer(key, 1, 64, family.defaults.get(key))
            if found != bits:
                raise fields.error(
                    key,
                    f"{found} is not supported",
                    "bitnetc compiles ternary weights (weight_bits 1) and int8 activations "
                    "(input_bits 8)",
                )
        return Quantisation(divides=False, online=True, floats=False)
    quant = fields.nested("quantization_config")
    method = quant.text("quant_method")
    if method != "bitnet":
        raise quant.error(
            "quant_method",
            f"{shown(method)} is not supported",
            "bitnetc compiles ternary models, quant_method bitnet",
        )
    for key in quant.values:
        near = misspelt(key, _QUANT_KEYS)
        if near not in (None, key):
            raise quant.error(key, "unknown key", f'did you mean "{near}"?')
    linear_class = quant.text("linear_class", _legacy_linear_class(fields, quant))
    if linear_class not in _LINEAR_CLASSES:
        raise quant.error(
            "linear_class",
            f"unknown class {shown(linear_class)}",
            nearest(linear_class, _LINEAR_CLASSES),
        )
    mode = quant.text("quantization_mode", "offline")
    if mode not in _MODES:
        raise quant.error("quantization_mode", f"unknown mode {shown(mode)}", nearest(mode, _MODES))
    if quant.boolean("use_rms_norm", False):
        raise quant.error(
            "use_rms_norm",
            "true (a norm inside each projection) is not supported",
            "use a model trained with use_rms_norm false",
        )
    _all_projections_ternary(family, quant)
    auto = linear_class == "autobitlinear"
    online = auto and mode == "online"  # BitLinear ignores the mode
    return Quantisation(divides=not auto, online=online, floats=auto and not online)


def _legacy_linear_class(fields: Fields, quant: Fields) -> str:
    legacy = quant.has("offline_quantization") and _claims_bitnet(fields.values)
    return "autobitlinear" if legacy else "bitlinear"


def _all_projections_ternary(family: Family, quant: Fields) -> None:
    """`modules_to_not_convert` must keep the head in float and nothing else that we compile.

    Entries match as in transformers: from the start up to a module boundary (also as a regular
    expression), or as a suffix. Only "." and "*" are accepted of the latter, since a pattern from
    a stranger can take for ever to match.
    """
    kept = quant.values.get("modules_to_not_convert")
    if kept is None:
        return
    key = "modules_to_not_convert"
    if not isinstance(kept, list):
        raise quant.error(key, f"must be a list of names, found {shown(kept)}")
    for entry in kept:
        if not isinstance(entry, str) or not re.fullmatch(r"[\w.*-]{1,200}", entry, re.ASCII):
            raise quant.error(key, f"{shown(entry)} is not a module name", "write the plain name")
        if "**" in entry or entry.startswith("*") or entry.count("*") > 3:
            raise quant.error(key, f"{shown(entry)} is not a module name", "write the plain name")

    def keeps(module: str) -> bool:
        return any(
            re.match(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))", module) or module.endswith(entry)
            for entry in kept
        )

    for name in family.block.values():
        module = (family.layer + name).replace("N", "0").removesuffix(".weight")
        if "_proj" in module and keeps(module):
            raise quant.error(
                key, f"keeps {module} in float, not supported", "only the head may stay in float"
            )
    if not keeps(family.top["head"].removesuffix(".weight")):
        raise quant.error(
            key,
            "does not list lm_head, so the head would be ternary, not supported",
            "add lm_head to the list, or set it to null",
        )
