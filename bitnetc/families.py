"""One entry per checkpoint family: config keys, tensor names, quirks; and what is refused by name.

A family is recognised by evidence: the quantisation its config declares and the tensors it has.
`model_type` alone decides nothing, since public checkpoints of different graphs share "llama".
Source: transformers `integrations/bitnet.py`, `models/bitnet`, `models/llama`, and the configs as
published.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bitnetc.checkpoint.fields import Fields, misspelt, shown
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import Activations, FfnActivation


@dataclass(frozen=True)
class Family:
    """How checkpoints of one family spell what bitnetc.model holds.

    evidence:    tensor names of which one present decides for this family; "N" stands for a layer
    declared_by: config keys, one of which says that the weights are ternary and how they are
                 stored; none where the file itself says so
    stored:      "declared" by the config; "online", float masters; "levels", floats of three
                 values a group; "coded", as the container says
    keys:        config keys that must be there, too, since they change the graph
    reads:       config keys that other families refuse
    one_plus:    roles of norms that are stored as w and mean 1 + w
    embeds:      its models make vectors of texts
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
    stored: Literal["declared", "online", "levels", "coded"] = "declared"
    keys: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    one_plus: frozenset[str] = frozenset()
    activation_key: str = "hidden_act"
    embeds: bool = False

    @property
    def float_activations(self) -> bool:
        """Of the published models: whoever trains without quantised activations publishes so."""
        return self.stored == "levels"


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
    "wq_norm": ("dim",),
    "wk_norm": ("dim",),
    "wv_norm": ("dim",),
    "w_gate_norm": ("dim",),
    "w_up_norm": ("dim",),
    "wq_bias": ("q_dim",),
    "wk_bias": ("kv_dim",),
    "wv_bias": ("kv_dim",),
    "q_norm": ("head_dim",),
    "k_norm": ("head_dim",),
    "attn_post_norm": ("dim",),
    "ffn_post_norm": ("dim",),
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
# Of Qwen2's graph, where a checkpoint has them.
_BIASES = {
    "wq_bias": "self_attn.q_proj.bias",
    "wk_bias": "self_attn.k_proj.bias",
    "wv_bias": "self_attn.v_proj.bias",
}
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
_HEAD_NORMS = {"q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight"}


def _inner_norms(name: str) -> dict[str, str]:
    """Norms that belong to the seven projections, each called `name` inside of its own."""
    return {
        "wq_norm": f"self_attn.q_proj.{name}.weight",
        "wk_norm": f"self_attn.k_proj.{name}.weight",
        "wv_norm": f"self_attn.v_proj.{name}.weight",
        "attn_sub_norm": f"self_attn.o_proj.{name}.weight",
        "w_gate_norm": f"mlp.gate_proj.{name}.weight",
        "w_up_norm": f"mlp.up_proj.{name}.weight",
        "ffn_sub_norm": f"mlp.down_proj.{name}.weight",
    }


_COMMON_DEFAULTS = {"max_position_embeddings": 2048, "tie_word_embeddings": False}
_ACTIVATIONS: dict[str, FfnActivation] = {
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
}

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

_QWEN3_DEFAULTS = {
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "head_dim": 128,
}

# Qwen3's graph with quant_method bitnet
QWEN3_BITNET = Family(
    name="qwen3-bitnet",
    evidence=tuple(_LAYER + name for name in _HEAD_NORMS.values()),
    declared_by=("quantization_config",),
    defaults=_QWEN3_DEFAULTS,
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block={**_LLAMA_BLOCK, **_HEAD_NORMS},
)

# microsoft/bitnet-embedding-0.6b: Qwen3's graph with a norm in every projection. Config and
# tensors say nothing of ternary weights, which are float masters: the norms mark them.
EMBEDDING_QWEN3 = Family(
    name="bitnet-embedding-qwen3",
    evidence=(_LAYER + "self_attn.q_proj.norm.weight",),
    declared_by=(),
    defaults={**_QWEN3_DEFAULTS, "tie_word_embeddings": True},
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block={**_LLAMA_BLOCK, **_HEAD_NORMS, **_inner_norms("norm")},
    stored="online",
    embeds=True,
)

# microsoft/bitnet-embedding-270m: Gemma 3's graph with a norm in every projection. Gemma's own
# norms are stored as w and mean 1 + w; those of the projections are plain.
EMBEDDING_GEMMA3 = Family(
    name="bitnet-embedding-gemma3",
    evidence=(
        _LAYER + "pre_feedforward_layernorm.weight",
        _LAYER + "post_feedforward_layernorm.weight",
    ),
    declared_by=(),
    defaults={
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    activations=_ACTIVATIONS,
    top=_TOP,
    layer=_LAYER,
    block={
        **_LLAMA_BLOCK,
        **_HEAD_NORMS,
        **_inner_norms("norm"),
        "attn_post_norm": "post_attention_layernorm.weight",
        "ffn_norm": "pre_feedforward_layernorm.weight",
        "ffn_post_norm": "post_feedforward_layernorm.weight",
    },
    stored="online",
    reads=frozenset({"query_pre_attn_scalar", "sliding_window", "layer_types"}),
    one_plus=frozenset(
        {
            "attn_norm", "attn_post_norm", "ffn_norm", "ffn_post_norm", "q_norm", "k_norm",
            "final_norm",
        }
    ),
    activation_key="hidden_activation",
    embeds=True,
)  # fmt: skip

# Weight-only models: floats of three values a group, and activations that stay floats.
# prism-ml/Ternary-Bonsai-*-unpacked
BONSAI = replace(QWEN3_BITNET, name="ternary-bonsai", declared_by=(), stored="levels")
# openbmb/BitCPM*: MiniCPM's graph, a Llama's whose embedding, residuals and logits are scaled
BITCPM = replace(
    LLAMA_BITNET,
    name="bitcpm",
    declared_by=(),
    stored="levels",
    keys=("scale_depth",),
    reads=frozenset({"scale_emb", "scale_depth", "dim_model_base"}),
)
# SpectraSuite/TriLM_*_Unpacked
TRILM = replace(LLAMA_BITNET, name="trilm", declared_by=(), stored="levels")

# The first whose evidence is found counts, so the more specific come first. Of two with the same
# evidence one is for weights stored as levels, and the other not.
FAMILIES = (
    BITNET,
    BITNET_B1_58,
    EMBEDDING_GEMMA3,
    EMBEDDING_QWEN3,
    QWEN3_BITNET,
    BONSAI,
    BITCPM,
    TRILM,
    LLAMA_BITNET,
)

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
    stored="coded",
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
    stored="coded",
)
# Of Qwen2's graph, as the decoder of VibeVoice-ASR-BitNet has it.
_GGUF_BIASES = {
    "wq_bias": "attn_q.bias",
    "wk_bias": "attn_k.bias",
    "wv_bias": "attn_v.bias",
}
_GGUF_HEAD_NORMS = {"q_norm": "attn_q_norm.weight", "k_norm": "attn_k_norm.weight"}
GGUF_QWEN3 = replace(
    GGUF_LLAMA,
    name="qwen3-bitnet",
    evidence=tuple(_GGUF_LAYER + name for name in _GGUF_HEAD_NORMS.values()),
    block={**_GGUF_BLOCK, **_GGUF_HEAD_NORMS},
)
# The embedding models: 1 + w is what their converter stores of Gemma's own norms.
_GGUF_EMBEDDING = replace(
    GGUF_QWEN3,
    name="bitnet-embedding-qwen3",
    evidence=(_GGUF_LAYER + "attn_q_norm_in.weight",),
    block={
        **GGUF_QWEN3.block,
        "wq_norm": "attn_q_norm_in.weight",
        "wk_norm": "attn_k_norm_in.weight",
        "wv_norm": "attn_v_norm_in.weight",
        "attn_sub_norm": "attn_output_norm_in.weight",
        "w_gate_norm": "ffn_gate_norm_in.weight",
        "w_up_norm": "ffn_up_norm_in.weight",
        "ffn_sub_norm": "ffn_down_norm_in.weight",
    },
    stored="online",
    embeds=True,
)
GGUF_EMBEDDING_GEMMA3 = replace(
    _GGUF_EMBEDDING,
    name="bitnet-embedding-gemma3",
    evidence=(_GGUF_LAYER + "post_attention_norm.weight", _GGUF_LAYER + "post_ffw_norm.weight"),
    block={
        **_GGUF_EMBEDDING.block,
        "attn_post_norm": "post_attention_norm.weight",
        "ffn_post_norm": "post_ffw_norm.weight",
    },
    reads=EMBEDDING_GEMMA3.reads,
)
GGUF_FAMILIES = (
    GGUF_BITNET,
    GGUF_EMBEDDING_GEMMA3,
    _GGUF_EMBEDDING,
    replace(GGUF_QWEN3, name="ternary-bonsai", stored="levels"),
    GGUF_QWEN3,
    replace(GGUF_LLAMA, name="trilm", stored="levels"),
    GGUF_LLAMA,
)


@dataclass(frozen=True)
class Foreign:
    """A tensor that changes the graph in a way no family here computes."""

    pattern: str  # of the whole name, layer number written N
    what: str
    hint: str


# VibeVoice-ASR-BitNet's float masters say nothing, and float models have the same tensors.
_MASTERS_HINT = (
    "if these are the float masters of a BitNet model, as VibeVoice-ASR-BitNet's are, "
    "say --quantise absmean, or add to "
    'config.json: "quantization_config": {"quant_method": "bitnet", "linear_class": '
    '"autobitlinear", "quantization_mode": "online"}'
)
_NO_BIAS = "bitnetc compiles models without biases: train or export with attention_bias false"
_KNOWN = "known families: " + ", ".join(family.name for family in FAMILIES)
# Where a family does not name the tensor itself.
_FOREIGN = (
    Foreign(
        r".*_proj\.norm\.weight|blk\.N\..*_norm_in\.weight",
        "is a norm inside a projection, which only the bitnet-embedding models have",
        _KNOWN,
    ),
    Foreign(
        r".*_proj\.rms_norm\.weight",
        "is a norm inside a projection, and quantization_config does not say use_rms_norm",
        _KNOWN,
    ),
    Foreign(
        r".*\.self_attn\.[qk]_norm\.weight|blk\.N\.attn_[qk]_norm\.weight",
        "normalises queries or keys, which no such model is known to do",
        _KNOWN,
    ),
    Foreign(
        r".*\.(pre|post)_feedforward_layernorm\.weight|blk\.N\.post_.*norm\.weight",
        "marks a Gemma graph, but other tensors do not",
        _KNOWN,
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
    "use_bidirectional_attention": (False,),
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
    where: str,
    fields: Fields,
    names: Collection[str],
    known: Sequence[Family] = FAMILIES,
    levels: bool = False,
) -> Family:
    """The family of a checkpoint, by what it declares and which tensors it has.

    where: the checkpoint's folder or file, for messages; fields: its config.
    known: FAMILIES or GGUF_FAMILIES, by how the container spells names.
    levels: the matrices are floats of three values a group, or known to read floats.
    Errors: whatever would change the graph in a way we do not compute, refused by name.
    """
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(without_layer(name), name)
    found = next(
        (
            family
            for family in known
            if any(evidence in kinds for evidence in family.evidence)
            and all(fields.has(key) for key in family.keys)
            and not (levels and family.stored in ("declared", "coded"))
            and not (family.float_activations and not levels)
        ),
        None,
    )
    if found and found.stored == "declared" and _inner_rms_norms(fields):
        if "attn_sub_norm" in found.block:
            raise fields.nested("quantization_config").error(
                "use_rms_norm",
                f"true is not supported where family {found.name} has norms of its own",
                "use a model trained with use_rms_norm false",
            )
        found = replace(found, block={**found.block, **_inner_norms("rms_norm")})
    if found:
        biases = _BIASES if found.layer == _LAYER else _GGUF_BIASES
        if all(found.layer + bias in kinds for bias in biases.values()):
            found = replace(found, block={**found.block, **biases})
    named = {found.layer + name for name in found.block.values()} if found else set()
    for foreign in _FOREIGN:
        for kind, name in kinds.items():
            if kind not in named and re.fullmatch(foreign.pattern, kind):
                raise BitnetcError(f"{where}: {shown(name)}", foreign.what, foreign.hint)
    if found:
        if found.declared_by and not any(fields.has(key) for key in found.declared_by):
            raise fields.error(
                found.declared_by[0],
                "is missing, so nothing says that the weights are ternary",
                _MASTERS_HINT
                if "wq_bias" in found.block
                else "use a BitNet checkpoint: its config.json declares "
                + ("quant_method bitnet" if found is not BITNET_B1_58 else "weight_bits 1"),
            )
        if "attn_sub_norm" not in found.block and _claims_bitnet(fields.values):
            raise _no_sub_norm(where, fields, known[0])
        own_norms = found.layer == _GGUF_LAYER and found.name == GGUF_BITNET.name
        if own_norms and not _claims_bitnet(fields.values):
            raise BitnetcError(
                f"{where}: general.architecture",
                f"{shown(fields.values.get('architecture'))} has no sub-norms, but the file "
                "holds them",
                "convert the model again, as architecture bitnet-b1.58",
            )
        gemma = fields.values.get("architecture") == "gemma3"
        if found.layer == _GGUF_LAYER and gemma != (found.name == GGUF_EMBEDDING_GEMMA3.name):
            raise BitnetcError(
                f"{where}: general.architecture",
                f"{shown(fields.values.get('architecture'))}, but the tensors are those of "
                f"family {found.name}",
                "convert the model again",
            )
        return found
    wanted = known[-1].evidence[0].replace("N", "0")
    near = misspelt(wanted, names)
    raise BitnetcError(
        where,
        f"no tensor {wanted}, so no known family",
        f"rename {shown(near)} if that is it" if near else "pass a BitNet language model",
    )


def _inner_rms_norms(fields: Fields) -> bool:
    quant = fields.values.get("quantization_config")
    return isinstance(quant, dict) and quant.get("use_rms_norm") is True


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


def refuse_unknown_graph(family: Family, fields: Fields) -> None:
    """Refuses config keys whose values ask for something this family does not compute."""
    for key, neutral in _NEUTRAL.items():
        if key not in family.reads and fields.has(key) and fields.values[key] not in neutral:
            raise fields.error(
                key, f"{shown(fields.values[key])} is not supported", "use a model without it"
            )
    if "sliding_window" in family.reads:
        return
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
    key = family.activation_key if fields.has(family.activation_key) else "hidden_act"
    default = family.defaults.get(family.activation_key)
    if default is None and not fields.has(key):
        raise BitnetcError(
            f"{fields.where}: feed-forward activation",
            "is not in the file, and nothing marks it as a published model",
            "say which with --ffn-activation relu2 (BitNet b1.58 2B4T) or silu, or put the "
            "model's config.json beside the file",
        )
    found = fields.text(key, default)
    if found not in family.activations:
        raise fields.error(
            key,
            f"unknown activation {shown(found)}",
            nearest(found, family.activations),
        )
    return family.activations[found]


FLOAT_BITS = 16  # of a module that stays as it is stored


@dataclass(frozen=True)
class Quantisation:
    """How the ternary matrices are stored, where the types of the tensors do not say it.

    divides: real weight = trit / weight_scale (BitLinear) instead of trit * weight_scale
    online:  stored as float masters, to be quantised by their absolute mean
    floats:  transformers takes unpacked ternary values in float tensors as they are
    kept:    modules_to_not_convert, as `keeps` reads it
    modules: names as in `kept`, and the bits of those modules: `bits`
    activations: the codes that activations become
    """

    divides: bool
    online: bool
    floats: bool
    kept: tuple[str, ...] = ()
    inner_norm_eps: float | None = None  # of use_rms_norm
    modules: tuple[tuple[str, int], ...] = ()
    activations: Activations = "int8"

    def keeps(self, module: str) -> bool:
        """Whether a module stays in float."""
        kept = any(_names(entry, module) for entry in self.kept)
        return kept or self.bits(module) == FLOAT_BITS

    def bits(self, module: str) -> int:
        """Of a module's integers, or FLOAT_BITS; 0 where it is ternary. The first entry counts."""
        return next((bits for entry, bits in self.modules if _names(entry, module)), 0)

    def unmatched(self, modules: Collection[str]) -> list[str]:
        """Entries of `modules` that name none of these."""
        entries = (entry for entry, _ in self.modules)
        return [e for e in entries if not any(_names(e, module) for module in modules)]


def _names(entry: str, module: str) -> bool:
    """transformers' rule: an entry matches from the start up to a module boundary, or as a
    suffix."""
    pattern = rf"(?:{entry})(?:(?<=\.)|(?=\.|$))"
    return bool(re.match(pattern, module)) or module.endswith(entry)


_QUANT_KEYS = (
    "quant_method", "linear_class", "quantization_mode", "use_rms_norm", "rms_norm_eps",
    "modules_to_not_convert", "offline_quantization", "modules", "activation_bits",
)  # fmt: skip
_LINEAR_CLASSES = ("bitlinear", "autobitlinear")
_MODES = ("offline", "online")


def quantisation(family: Family, fields: Fields) -> Quantisation:
    """Reads `quantization_config`. Whether a scale divides or multiplies hangs on `linear_class`.

    The first revision of 2B-4T wrote {"offline_quantization": true} instead, which meant
    autobitlinear, offline. Everything else without `linear_class` is BitLinear. 1bitLLM's models
    say weight_bits 1 and input_bits 8 instead, and store float masters.
    """
    if family.stored != "declared":
        return Quantisation(divides=False, online=family.stored == "online", floats=False)
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
    eps = None
    if quant.boolean("use_rms_norm", False):
        eps = quant.number("rms_norm_eps", 0.0, 1.0, 1e-6)
    auto = linear_class == "autobitlinear"
    online = auto and mode == "online"  # BitLinear ignores the mode
    kept = _kept_in_float(quant)
    read = Quantisation(
        *(not auto, online, auto and not online, kept or (), eps),
        *(_modules(quant), _activations(quant)),
    )
    if kept is not None and not read.keeps(family.top["head"].removesuffix(".weight")):
        raise quant.error(
            "modules_to_not_convert",
            "does not list lm_head, so the head would be ternary, not supported",
            "add lm_head to the list, or set it to null",
        )
    return read


def _legacy_linear_class(fields: Fields, quant: Fields) -> str:
    legacy = quant.has("offline_quantization") and _claims_bitnet(fields.values)
    return "autobitlinear" if legacy else "bitlinear"


def _kept_in_float(quant: Fields) -> tuple[str, ...] | None:
    """`modules_to_not_convert`: names, in which transformers takes "." and "*" as regular
    expressions do. Nothing else of those is accepted, since a pattern from a stranger can take for
    ever to match."""
    key = "modules_to_not_convert"
    kept = quant.values.get(key)
    if kept is None:
        return None
    if not isinstance(kept, list):
        raise quant.error(key, f"must be a list of names, found {shown(kept)}")
    return tuple(_module_name(quant, key, entry) for entry in kept)


def _module_name(quant: Fields, key: str, entry: Any) -> str:
    plain = isinstance(entry, str) and re.fullmatch(r"[\w.*-]{1,200}", entry, re.ASCII)
    if not plain or "**" in entry or entry.startswith("*") or entry.count("*") > 3:
        raise quant.error(key, f"{shown(entry)} is not a module name", "write the plain name")
    return str(entry)


_CODES: Mapping[Any, Activations] = {8: "int8", 1: "signs", "ternary": "trits"}


def _activations(quant: Fields) -> Activations:
    """`activation_bits`: 8, 1 or "ternary"; ours, no public format has such a key."""
    key = "activation_bits"
    found = quant.values.get(key, 8)
    if isinstance(found, bool) or not isinstance(found, int | str) or found not in _CODES:
        raise quant.error(key, f"{shown(found)} is not supported", 'it may be 8, 1 or "ternary"')
    return _CODES[found]


_MODULE_BITS = (2, 4, 6, 8, FLOAT_BITS)


def _modules(quant: Fields) -> tuple[tuple[str, int], ...]:
    """`modules`: {name: {"bits": b}} of modules that are not ternary, in order; ours, no public
    format has such a key."""
    key = "modules"
    found: list[tuple[str, int]] = []
    for entry, said in quant.nested(key).values.items():
        name = _module_name(quant, key, entry)
        bits = said.get("bits") if isinstance(said, dict) and set(said) == {"bits"} else None
        if type(bits) is not int or bits not in _MODULE_BITS:
            raise quant.error(
                key,
                f'{shown(name)} must be {{"bits": b}}, b one of {list(_MODULE_BITS)}',
                "leave ternary modules out",
            )
        found.append((name, bits))
    return tuple(found)
