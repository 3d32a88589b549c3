"""normalise: Checkpoint -> Model. Finds the role of every tensor, checks it, decodes trits.

Trits and scales keep the checkpoint's own meaning exactly; the only arithmetic done here is the
reciprocal of scales that divide, and the absolute-mean quantisation of float masters. No matrix
is in memory before its `load` is called.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc import families
from bitnetc.chat import read_chat
from bitnetc.checkpoint import Checkpoint, Tensor
from bitnetc.checkpoint.fields import Fields, misspelt, shown
from bitnetc.checkpoint.gguf_model import ACTIVATION_NOTE
from bitnetc.checkpoint.levels import STORED, as_ternary, looks_ternary, words_of
from bitnetc.checkpoint.tensor import FloatTensor, TernaryTensor
from bitnetc.errors import BitnetcError
from bitnetc.families import Family, Quantisation
from bitnetc.model import (
    Block,
    Dense,
    DenseType,
    FfnActivation,
    Integers,
    Matrix,
    Model,
    Pooling,
    Sampling,
    Shape,
    Ternary,
    Trits,
    Vector,
    to_float32,
)
from bitnetc.pooling import POOLING_NOTE, read_pooling
from bitnetc.ropes import read_ropes

# No public model comes near these; beyond them a config is damaged or hostile.
MAX_DIM = 1 << 17
MAX_FFN_DIM = 1 << 19
MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_HEAD_DIM = 4096
MAX_VOCAB = 1 << 22
MAX_CONTEXT = 1 << 24

_DENSE: Mapping[str, DenseType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_MANTISSA_BITS: Mapping[DenseType, int] = {"f32": 23, "f16": 10, "bf16": 7}
_EXPONENT_BIAS: Mapping[DenseType, int] = {"f32": 127, "f16": 15, "bf16": 127}
_CHUNK = 1 << 20  # values per step, so that temporaries stay in cache

_INPUT_SCALE = ".input_scale"  # ends the names of scales of static activations
_LEAST_INPUT = 1e-30  # of such a scale: it, its reciprocal and products stay normal numbers
_MASTERS = "weight_bits 1 without quantization_config"
_DAMAGED = "the file is damaged: download the checkpoint again"


def as_masters(ckpt: Checkpoint) -> Checkpoint:
    """A folder whose matrices are float masters although nothing says so, as one that says it: they
    are quantised by their absolute mean, activations to int8 per token.

    Errors: a checkpoint that says how its weights are quantised, or is no folder.
    """
    where = "--quantise absmean"
    if ckpt.container != "folder":
        raise BitnetcError(where, f"{ckpt.path.name} holds quantised weights", "leave it out")
    for key in ("quantization_config", "weight_bits"):
        if ckpt.fields.has(key):
            raise BitnetcError(where, f"config.json has {key}, which says how", "leave it out")
    if _stores_levels(_prefixed(ckpt)):
        raise BitnetcError(where, "the matrices are ternary as they are stored", "leave it out")
    online = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
    }
    note = "float masters are quantised by their absolute mean, and activations to int8, as asked"
    config = {**ckpt.config, "quantization_config": online}
    return replace(ckpt, config=config, notes=(*ckpt.notes, note))


def normalise(ckpt: Checkpoint, name: str, *, ffn_activation: FfnActivation | None = None) -> Model:
    """The normal form of a checkpoint. Errors name the file, the field or tensor, and a remedy.

    ffn_activation: takes the place of what the checkpoint says or is known for.
    """
    ckpt = _prefixed(ckpt)
    fields = ckpt.fields
    known = families.GGUF_FAMILIES if ckpt.container == "gguf" else families.FAMILIES
    levels = bool(ckpt.weight_only) or _stores_levels(ckpt)
    family = families.recognise(str(ckpt.path), fields, ckpt.tensors, known, levels)
    families.refuse_unknown_graph(family, fields)
    quant = families.quantisation(family, fields)
    shape = _shape(family, fields)
    activation, ckpt_notes = ffn_activation, list(ckpt.notes)
    if activation is None:
        activation = families.activation(family, fields)
    else:
        ckpt_notes = [n for n in ckpt_notes if not n.startswith(ACTIVATION_NOTE)]
        if fields.values.get("hidden_act") != activation:
            ckpt_notes.append(f"{ACTIVATION_NOTE} {activation}, as asked")
    norm_eps = fields.number("rms_norm_eps", 0.0, 1.0, family.defaults.get("rms_norm_eps"))
    ropes, layers = read_ropes(family, fields, shape)
    tied = fields.boolean("tie_word_embeddings", family.defaults.get("tie_word_embeddings"))
    eos = _eos(ckpt, shape.vocab)
    sampling = _sampling(ckpt)

    reader = _Reader(ckpt, family, quant, shape)
    embedding, head = reader.ends(tied)
    blocks = tuple(reader.block(i, *layer) for i, layer in enumerate(layers))
    final_norm = reader.vector("final_norm")
    embedding_scale = 1.0
    if "query_pre_attn_scalar" in family.reads:  # Gemma's
        embedding_scale = math.sqrt(shape.dim)
    if "scale_depth" in family.reads:
        embedding_scale, blocks, final_norm = _minicpm(fields, shape, blocks, final_norm)
    pooling, pooling_notes = _pooling(ckpt, family)
    if family.float_activations:
        ckpt_notes.append(
            ckpt.weight_only
            or "weights are floats of three values, and nothing quantises what "
            "they multiply: activations stay floats"
        )
    tokenizer = ckpt.tokenizer()
    chat, chat_notes = read_chat(
        ckpt.path if ckpt.container == "gguf" else ckpt.folder, ckpt.config, tokenizer
    )
    return Model(
        name=name,
        family=family.name,
        shape=shape,
        ffn_activation=activation,
        norm_eps=norm_eps,
        ropes=ropes,
        embedding=embedding,
        blocks=blocks,
        final_norm=final_norm,
        head=head,
        tokenizer=tokenizer,
        eos=eos,
        sampling=sampling,
        sources=ckpt.sources,
        notes=(
            *ckpt_notes,
            *_defaulted(ckpt, family),
            *_endless(eos),
            *reader.notes,
            *reader.unused(),
            *chat_notes,
            *pooling_notes,
        ),
        chat=chat,
        float_activations=family.float_activations,
        activations=quant.activations,
        sub_norm_eps=quant.inner_norm_eps,
        score_dim=_score_dim(family, fields),
        embedding_scale=embedding_scale,
        pooling=pooling,
    )


def _prefixed(ckpt: Checkpoint) -> Checkpoint:
    """Names of a model saved without its head lack "model.", which is put before them."""
    if "embed_tokens.weight" not in ckpt.tensors:
        return ckpt
    return replace(
        ckpt,
        tensors={
            name if name.startswith(("model.", "lm_head.")) else "model." + name: tensor
            for name, tensor in ckpt.tensors.items()
        },
    )


def _stores_levels(ckpt: Checkpoint) -> bool:
    """Whether nothing declares how weights are quantised and the first matrix is ternary as it is:
    floats of three values a group."""
    if any(ckpt.fields.has(key) for key in ("quantization_config", "weight_bits")):
        return False
    tensor = ckpt.tensors.get("model.layers.0.self_attn.q_proj.weight")
    if tensor is None or tensor.dtype not in STORED or len(tensor.shape) != 2:
        return False
    return looks_ternary(words_of(tensor))


def _score_dim(family: Family, fields: Fields) -> float | None:
    key = "query_pre_attn_scalar"
    if key not in family.reads:
        return None
    return fields.number(key, 0.0, 1e6, family.defaults.get(key))


def _minicpm(
    fields: Fields, shape: Shape, blocks: tuple[Block, ...], final_norm: Vector
) -> tuple[float, tuple[Block, ...], Vector]:
    """MiniCPM scales what a block adds by scale_depth / sqrt(layers) and logits by
    dim_model_base / dim: both are taken into the scales of wo and w_down and into the last norm.
    """
    residual = np.float32(fields.number("scale_depth", 0.0, 1e6) / math.sqrt(shape.layers))
    base = fields.number("dim_model_base", 0.0, MAX_DIM, float(shape.dim))

    def scaled(matrix: Matrix, role: str) -> Matrix:
        if isinstance(matrix, Dense):
            raise fields.error("scale_depth", f"cannot be taken into {role}, which is not ternary")
        return replace(matrix, scale=matrix.scale * residual)

    blocks = tuple(
        replace(b, wo=scaled(b.wo, "wo"), w_down=scaled(b.w_down, "w_down")) for b in blocks
    )
    final_norm = final_norm * np.float32(base / shape.dim)
    return fields.number("scale_emb", 0.0, 1e6, 1.0), blocks, final_norm


def _pooling(ckpt: Checkpoint, family: Family) -> tuple[Pooling | None, list[str]]:
    if not family.embeds:
        return None, []
    if ckpt.container == "gguf":
        found: Pooling | None = ckpt.config.get("pooling")
        return found or "mean", [] if found else [POOLING_NOTE.format("the file names no pooling")]
    pooling, note = read_pooling(ckpt.folder)
    return pooling, [note] if note else []


def _shape(family: Family, fields: Fields) -> Shape:
    dim = fields.integer("hidden_size", 1, MAX_DIM)
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    kv_heads = fields.integer(
        "num_key_value_heads", 1, MAX_HEADS, family.defaults.get("num_key_value_heads", heads)
    )
    if heads % kv_heads:
        raise fields.error(
            "num_key_value_heads", f"{kv_heads} does not divide num_attention_heads, {heads}"
        )
    usual = family.defaults.get("head_dim")
    if not fields.has("head_dim") and usual is None and dim % heads:
        raise fields.error(
            "hidden_size",
            f"{dim} is no multiple of num_attention_heads, {heads}",
            "correct one of them, or add head_dim",
        )
    head_dim = fields.integer("head_dim", 1, MAX_HEAD_DIM, usual or dim // heads)
    if head_dim % 2:
        raise fields.error(
            "head_dim", f"{head_dim} is odd; rotary embedding turns pairs", "use an even head_dim"
        )
    return Shape(
        dim=dim,
        ffn_dim=fields.integer("intermediate_size", 1, MAX_FFN_DIM),
        layers=fields.integer("num_hidden_layers", 1, MAX_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=fields.integer("vocab_size", 1, MAX_VOCAB),
        context=fields.integer(
            "max_position_embeddings",
            1,
            MAX_CONTEXT,
            family.defaults.get("max_position_embeddings"),
        ),
    )


def _defaulted(ckpt: Checkpoint, family: Family) -> list[str]:
    """Says which values the config left out, since a guess may be wrong."""
    fields = ckpt.fields
    missing = [key for key in family.defaults if not fields.has(key)]
    rope = fields.values.get("rope_scaling") or fields.values.get("rope_parameters") or {}
    if "rope_theta" in rope and "rope_theta" in missing:
        missing.remove("rope_theta")
    if fields.has("quantization_config") and "input_bits" in missing:
        missing.remove("input_bits")  # int8 is what quant_method bitnet means
    return [
        f"{ckpt.described_by} has no {fields.shown_key(key)}; "
        f"taken as {shown(family.defaults[key])}"
        for key in missing
    ]


def _endless(eos: tuple[int, ...]) -> list[str]:
    return [] if eos else ["no eos_token_id: generation ends at the length limit only"]


def _eos(ckpt: Checkpoint, vocab: int) -> tuple[int, ...]:
    """Token ids that end generation: generation_config's, else config's, as transformers does."""
    for fields in (ckpt.generation_fields, ckpt.fields):
        found = fields.values.get("eos_token_id")
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        if not all(type(token) is int and 0 <= token < vocab for token in ids):
            raise fields.error(
                "eos_token_id",
                f"must be token ids below vocab_size, {vocab}; found {shown(found)}",
            )
        return tuple(dict.fromkeys(ids))
    return ()


def _sampling(ckpt: Checkpoint) -> Sampling:
    """What generation_config asks for; greedy unless do_sample is true.

    Missing values are transformers' own: temperature 1, top_k 50, top_p 1.
    """
    fields = ckpt.generation_fields
    if not fields.boolean("do_sample", False):
        return Sampling()
    return Sampling(
        temperature=fields.number("temperature", 0.0, 1000.0, 1.0),
        top_k=fields.integer("top_k", 0, MAX_VOCAB, 50),
        top_p=fields.number("top_p", 0.0, 1.0, 1.0),
    )


class _Reader:
    """Takes tensors by role and remembers which were taken, so that none is passed over."""

    def __init__(self, ckpt: Checkpoint, family: Family, quant: Quantisation, shape: Shape) -> None:
        self.ckpt, self.family, self.quant, self.shape = ckpt, family, quant, shape
        self.taken: set[str] = set()
        self.matrices: set[str] = set()  # the modules of blocks
        self.notes: list[str] = []

    def block(self, layer: int, rope: int, window: int) -> Block:
        block = self.family.block
        found: dict[str, Any] = {"attn_sub_norm": None, "ffn_sub_norm": None}
        for role in block:
            read = self.matrix if len(families.EXTENTS[role]) == 2 else self.vector
            found[role] = read(role, layer)
        if self.quant.floats:  # AutoBitLinear multiplies its bias by the scale, too
            for role in ("wq", "wk", "wv"):
                if role + "_bias" in found and isinstance(found[role], Ternary):
                    found[role + "_bias"] = found[role + "_bias"] * found[role].scale
        gate, up = found["w_gate"], found["w_up"]
        if isinstance(gate, Dense) != isinstance(up, Dense):
            raise BitnetcError(
                f"{self.ckpt.path}: layer {layer}",
                "one of gate_proj and up_proj is ternary and the other is not, not supported",
                "keep both in float, or neither",
            )
        found |= self.inputs(layer)
        return Block(**found, rope=rope, window=window)

    def inputs(self, layer: int) -> dict[str, Vector]:
        """Reciprocals of the scales of static int8 activations, by the fields of Block; empty where
        activations are scaled per token.

        Errors: scales of some matrices only, or that differ where matrices share an input.
        """
        if not any(name.endswith(_INPUT_SCALE) for name in self.ckpt.tensors):
            return {}
        found: dict[str, Vector] = {}
        for role in (role for role in self.family.block if len(families.EXTENTS[role]) == 2):
            name = self._name(role, layer)
            tensor = self._take(name.removesuffix(".weight") + _INPUT_SCALE)
            if self.family.float_activations or self.quant.keeps(name.removesuffix(".weight")):
                raise BitnetcError(
                    tensor.where,
                    f"scales int8 activations, and {shown(name)} reads floats",
                    "keep no module in float, or remove the scales of activations",
                )
            if self.quant.activations != "int8":
                raise BitnetcError(
                    tensor.where,
                    "scales int8 activations, and quantization_config has activation_bits",
                    "leave one of them out",
                )
            stored = to_float32(tensor.array(), self._dense_type(tensor)).reshape(-1)
            if stored.shape != (1,) or not _LEAST_INPUT <= stored[0] <= 1 / _LEAST_INPUT:
                raise BitnetcError(
                    tensor.where,
                    f"must be one number from {_LEAST_INPUT:g} to {1 / _LEAST_INPUT:g}",
                    _DAMAGED,
                )
            found[role + "_input"] = np.float32(1) / stored
        own = "wq_norm" in self.family.block  # inputs, one for each matrix
        for first, *others in () if own else (("wq", "wk", "wv"), ("w_gate", "w_up")):
            for other in others:
                if found[other + "_input"] != found[first + "_input"]:
                    name = self._name(other, layer).removesuffix(".weight") + _INPUT_SCALE
                    raise BitnetcError(
                        self.ckpt.tensors[name].where,
                        f"differs from that of {shown(self._name(first, layer))}, which reads the "
                        "same input",
                        "calibrate both together",
                    )
        return found

    def ends(self, tied: bool) -> tuple[Ternary | Dense, Ternary | Dense]:
        """Embedding and head, tied as transformers 5 ties them.

        Where the config ties them but the file holds both, they are tied if equal and kept apart
        if not; where it holds only the head, the head serves as both.
        """
        names = self.family.top
        if not tied:
            if names["head"] not in self.ckpt.tensors:
                raise self._missing(
                    names["head"],
                    ", or set tie_word_embeddings to true if the embedding is the head",
                )
            return self.end("embedding"), self.end("head")
        if names["head"] not in self.ckpt.tensors:
            embedding = self.end("embedding")
            return embedding, embedding
        if names["embedding"] not in self.ckpt.tensors:
            head = self.end("head")
            self.notes.append(f"{names['embedding']} is missing; {names['head']} serves as both")
            return head, head
        embedding, head = self.end("embedding"), self.end("head")
        dtypes = [self.ckpt.tensors[names[role]].dtype for role in ("embedding", "head")]
        if dtypes[0] == dtypes[1] and np.array_equal(
            self.ckpt.tensors[names["embedding"]].raw, self.ckpt.tensors[names["head"]].raw
        ):
            return embedding, embedding
        self.notes.append(
            f"tie_word_embeddings is true, but {names['head']} differs from {names['embedding']}:"
            " kept apart, as transformers 5 does"
        )
        return embedding, head

    def vector(self, role: str, layer: int | None = None) -> Vector:
        tensor = self._take(self._name(role, layer))
        self._check_shape(tensor, self._extents(role))
        dtype = self._dense_type(tensor)
        values = to_float32(tensor.array(), dtype)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise BitnetcError(tensor.where, f"value {bad[0]} is {values[bad[0]]}", _DAMAGED)
        heads = {"wq_bias": self.shape.heads, "wk_bias": self.shape.kv_heads}.get(role)
        if heads and self.ckpt.interleaved:
            values = halves_paired(values[:, None], heads)[:, 0]
        if role in self.family.one_plus:
            values = np.float32(1) + values
        return np.ascontiguousarray(values, dtype=np.float32)

    def end(self, role: str) -> Ternary | Dense:
        """Embedding or head: ternary where the container or its values say so."""
        name = self._name(role)
        tensor = self.ckpt.tensors.get(name)
        if self.family.float_activations and tensor is not None and len(tensor.shape) == 2:
            if isinstance(tensor, TernaryTensor):
                self._take(name)
                return self._coded(tensor, role, *self._extents(role))
            if tensor.dtype in STORED and looks_ternary(words_of(tensor)):
                coded = as_ternary(tensor, partial(words_of, tensor))
                try:
                    coded.scales()
                except BitnetcError:
                    return self.dense(role)  # rows that are all zero, say, looked ternary
                self._take(name)
                return self._coded(coded, role, *self._extents(role))
        return self.dense(role)

    def dense(self, role: str, layer: int | None = None) -> Dense:
        tensor = self._take(self._name(role, layer))
        rows, cols = self._extents(role)
        if isinstance(tensor, FloatTensor):
            self._check_shape(tensor, (rows, cols))
            self.notes.append(f"{tensor.name} is stored as {tensor.dtype} and widened to float32")
            return Dense(rows, cols, "f32", partial(_load_widened, tensor, rows, cols))
        dtype = self._dense_type(tensor)
        self._check_shape(tensor, (rows, cols))
        return Dense(rows, cols, dtype, partial(_load_dense, tensor, dtype))

    def matrix(self, role: str, layer: int) -> Matrix:
        name = self._name(role, layer)
        tensor = self._take(name)
        rows, cols = self._extents(role)
        self.matrices.add(name.removesuffix(".weight"))
        if isinstance(tensor, TernaryTensor):
            return self._coded(tensor, role, rows, cols)
        if self.quant.keeps(name.removesuffix(".weight")):
            return self.dense(role, layer)
        bits = self.quant.bits(name.removesuffix(".weight"))
        if bits:
            return self._integers(tensor, name, bits, rows, cols)
        if self.family.stored == "levels" and self.ckpt.container != "gguf":
            self._check_shape(tensor, (rows, cols))
            if tensor.dtype in STORED and looks_ternary(words_of(tensor)):
                return self._coded(as_ternary(tensor, partial(words_of, tensor)), role, rows, cols)
            return self.dense(role, layer)
        if self.ckpt.container == "gguf" and not (self.quant.online and tensor.dtype in _DENSE):
            raise BitnetcError(
                tensor.where,
                f"stored as {tensor.dtype}, but this tensor must be ternary",
                "convert the model to one of I2_S, TQ1_0, TQ2_0, IQ2_BN",
            )
        if self.quant.online:
            return self._online(tensor, rows, cols)
        if tensor.dtype == "U8":
            self._check_shape(tensor, (-(-rows // 4), cols), f" for {rows} packed rows")
            load = partial(_load_packed, tensor, rows)
        elif self.quant.floats and tensor.dtype in _DENSE:
            self._check_shape(tensor, (rows, cols))
            load = partial(_load_ternary_floats, tensor, self._dense_type(tensor))
        elif tensor.dtype == "I8":
            raise BitnetcError(
                tensor.where,
                "stored as I8, and nothing says how many bits its integers have",
                'name the module in quantization_config: "modules": {"mlp.down_proj": {"bits": 8}}',
            )
        else:
            raise BitnetcError(
                tensor.where,
                f"stored as {tensor.dtype}, but linear_class bitlinear stores packed U8",
                "for float masters set linear_class autobitlinear and quantization_mode online;"
                " otherwise use the packed revision of the model",
            )
        return Ternary(rows, cols, self._scale(name, rows, self.quant.divides), load)

    def _integers(self, tensor: Tensor, name: str, bits: int, rows: int, cols: int) -> Integers:
        """Integers as int8 [rows, cols], and multipliers in the weight_scale beside them."""
        if tensor.dtype != "I8":
            raise BitnetcError(
                tensor.where,
                f"stored as {tensor.dtype}, but quantization_config.modules gives it {bits} bits",
                "store such integers as I8, one to a byte",
            )
        self._check_shape(tensor, (rows, cols))
        scale = self._scale(name, rows, divides=False)
        return Integers(rows, cols, bits, scale, partial(_load_integers, tensor, bits))

    def unused(self) -> list[str]:
        """Notes on tensors without a role. Errors: layers that the config does not count, bits of
        modules that are no matrix of a block."""
        notes = []
        for entry in self.quant.unmatched(self.matrices):
            raise self.ckpt.fields.error(
                "quantization_config",
                f"modules: {shown(entry)} names no matrix of a block",
                "the matrices are " + ", ".join(sorted(self.matrices)[:2]) + " and so on",
            )
        counted = {self.family.layer.replace("N", str(layer)) for layer in range(self.shape.layers)}
        roles = self._block_names()
        for name in self.ckpt.tensors:
            if name in self.taken or families.IGNORED.fullmatch(name):
                continue
            below = families.without_layer(name).removeprefix(self.family.layer)
            if below in roles and name.removesuffix(below) not in counted:
                raise self.ckpt.fields.error(
                    "num_hidden_layers",
                    f"{self.shape.layers}, but the checkpoint holds {shown(name)}",
                )
            notes.append(f"tensor {shown(name)} has no role in family {self.family.name}; ignored")
        return notes

    def _coded(self, tensor: TernaryTensor, role: str, rows: int, cols: int) -> Ternary:
        """A matrix whose container holds its scales. A tensor named .scale multiplies them:
        mainline's first BitNet files have trits of scale 1 and the scale beside them."""
        self._check_shape(tensor, (rows, cols))
        scale, zeros = fold_scales(tensor, self.family.float_activations)
        beside = tensor.name.removesuffix(".weight") + ".scale"
        if beside in self.ckpt.tensors:
            scale = scale * self._multiplier(self._take(beside))
        heads = {"wq": self.shape.heads, "wk": self.shape.kv_heads}.get(role)
        if not self.ckpt.interleaved:
            heads = None
        if heads and len(scale) > 1:
            paired = halves_paired(scale.reshape(rows, -1), heads)
            scale = np.ascontiguousarray(paired).reshape(scale.shape)
        return Ternary(rows, cols, scale, partial(_load_coded, tensor, rows, zeros, heads))

    def _multiplier(self, tensor: Tensor) -> np.float32:
        values = to_float32(tensor.array(), self._dense_type(tensor)).reshape(-1)
        if values.shape != (1,) or not (np.isfinite(values[0]) and values[0] > 0):
            raise BitnetcError(
                tensor.where, "must be one positive and finite number", "convert the model again"
            )
        return np.float32(values[0])

    def _online(self, tensor: Tensor, rows: int, cols: int) -> Ternary:
        if tensor.dtype not in _DENSE:
            declared = "quantization_config" in self.ckpt.config
            raise BitnetcError(
                tensor.where,
                f"stored as {tensor.dtype}, but "
                + ("quantization_mode online" if declared else _MASTERS)
                + " needs float masters",
                "set quantization_mode to offline if the weights are packed"
                if declared
                else "use the model as published",
            )
        dtype = self._dense_type(tensor)
        self._check_shape(tensor, (rows, cols))
        inverse = absmean_inverse(tensor, dtype)
        scale = np.array([np.float32(1) / inverse], dtype=np.float32)
        return Ternary(rows, cols, scale, partial(_load_online, tensor, dtype, inverse))

    def _scale(self, weight: str, rows: int, divides: bool) -> Vector:
        """Multipliers, float32 [1] or [rows], from the `weight_scale` beside a weight."""
        tensor = self._take(weight + "_scale")
        if tensor.shape not in ((), (1,), (rows,), (rows, 1)):
            raise BitnetcError(
                tensor.where,
                f"has shape {shown(list(tensor.shape))}; must be [1], or [{rows}], one per row",
                _DAMAGED,
            )
        stored = to_float32(tensor.array(), self._dense_type(tensor)).reshape(-1)
        with np.errstate(all="ignore"):
            scale = np.float32(1) / stored if divides else stored
        bad = np.flatnonzero(~(np.isfinite(stored) & (stored > 0) & np.isfinite(scale)))
        if bad.size:
            raise BitnetcError(
                tensor.where,
                f"value {bad[0]} is {stored[bad[0]]}; a scale must be positive and finite",
                _DAMAGED,
            )
        return np.ascontiguousarray(scale, dtype=np.float32)

    def _name(self, role: str, layer: int | None = None) -> str:
        if layer is None:
            return self.family.top[role]
        return self.family.layer.replace("N", str(layer)) + self.family.block[role]

    def _extents(self, role: str) -> tuple[int, ...]:
        return tuple(getattr(self.shape, extent) for extent in families.EXTENTS[role])

    def _take(self, name: str) -> Tensor:
        if name not in self.ckpt.tensors:
            raise self._missing(name)
        self.taken.add(name)
        return self.ckpt.tensors[name]

    def _missing(self, name: str, alternative: str = "") -> BitnetcError:
        known = {*self.family.top.values(), *(self.family.layer + n for n in self._block_names())}
        odd = [n for n in self.ckpt.tensors if families.without_layer(n) not in known]
        near = misspelt(name, odd)
        hint = f"rename {shown(near)} if that is it" if near else "download the checkpoint again"
        return BitnetcError(f"{self.ckpt.path}: tensor {name}", "is missing", hint + alternative)

    def _block_names(self) -> set[str]:
        """Names below a layer that may occur, scales included."""
        names = set(self.family.block.values())
        if self.ckpt.container == "gguf":
            return names | {name.removesuffix(".weight") + ".scale" for name in names}
        scales = {name + "_scale" for name in names}
        return names | scales | {name.removesuffix(".weight") + _INPUT_SCALE for name in names}

    def _check_shape(self, tensor: Tensor, wanted: tuple[int, ...], why: str = "") -> None:
        if tensor.shape != wanted:
            raise BitnetcError(
                tensor.where,
                f"has shape {shown(list(tensor.shape))}; {self.ckpt.described_by} asks for "
                f"{list(wanted)}{why}",
                "correct config.json, or download the checkpoint again"
                if self.ckpt.container == "folder"
                else "convert the model again",
            )

    def _dense_type(self, tensor: Tensor) -> DenseType:
        if tensor.dtype not in _DENSE:
            raise BitnetcError(
                tensor.where,
                f"stored as {tensor.dtype}, but this tensor must hold floats",
                "convert it to one of " + ", ".join(_DENSE),
            )
        return _DENSE[tensor.dtype]


def unpack(packed: NDArray[np.uint8], rows: int) -> Trits:
    """Trits [rows, cols] of 2-bit codes [ceil(rows / 4), cols].

    Bits 2i and 2i+1 of packed[p, k] are row p + i * packed.rows, column k; the code is trit + 1.
    Fields past the last row are padding. Code 3 yields 2: see find_bad_code.
    Source: transformers `integrations/bitnet.py`, pack_weights.
    """
    quarter, cols = packed.shape
    out = np.empty((rows, cols), dtype=np.uint8)
    step = max(1, _CHUNK // 8 // max(1, cols))
    for begin in range(0, quarter, step):
        part = packed[begin : begin + step]
        for field in range(4):
            first = field * quarter + begin
            into = out[first : first + len(part)]  # shorter, or empty, at the padding
            np.right_shift(part[: len(into)], 2 * field, out=into)
            np.bitwise_and(into, 3, out=into)
            np.subtract(into, 1, out=into)  # 0 wraps to 255, which is -1 as int8
    return out.view(np.int8)


def find_bad_code(packed: NDArray[np.uint8], rows: int) -> tuple[int, int] | None:
    """(row, col) of the first code 3, which no writer emits; None when there is none."""
    quarter, cols = packed.shape
    step = max(1, _CHUNK // 8 // max(1, cols))
    for begin in range(0, quarter, step):
        part = packed[begin : begin + step]
        both = part >> 1
        both &= part
        both &= 0x55
        if not both.any():
            continue
        for field in range(4):
            first = field * quarter + begin
            hits = np.argwhere((both[: max(0, rows - first)] >> (2 * field)) & 1)
            if len(hits):
                return first + int(hits[0, 0]), int(hits[0, 1])
    return None


def fold_scales(
    tensor: TernaryTensor, groups: bool = False
) -> tuple[Vector, NDArray[np.bool_] | None]:
    """Multipliers [1] or [rows] of a matrix, and where [rows, groups] its weights are all zero;
    [rows, groups] where they differ within a row and `groups` allows it.

    Groups that store the scale 0 hold zeros whatever their codes, so they take part in any scale.
    Errors: scales that differ within a row, since int8 activations ask for one scale a row; groups
    that are no whole sixteens.
    """
    stored = tensor.scales()
    bad = np.argwhere(~(np.isfinite(stored) & (stored >= 0)))
    if len(bad):
        row, group = bad[0]
        raise BitnetcError(
            f"{tensor.where}: row {row}, group {group}",
            f"has the scale {stored[row, group]}; a scale must be positive and finite",
            _DAMAGED,
        )
    zeros = stored == 0
    largest = stored.max(axis=1, initial=0)
    differing = np.argwhere((stored != largest[:, None]) & ~zeros)
    if len(differing) and groups:
        width = tensor.shape[1] // stored.shape[1]
        if width % 16:
            raise BitnetcError(
                tensor.where,
                f"has one scale for {width} neighbours, not supported",
                "only groups of whole sixteens are",
            )
        scale = np.ascontiguousarray(np.broadcast_to(stored, (tensor.shape[0], stored.shape[1])))
        return scale, zeros if zeros.any() else None
    if len(differing):
        row, group = differing[0]
        raise BitnetcError(
            f"{tensor.where}: row {row}, group {group}",
            f"has the scale {stored[row, group]}, and another group of the row {largest[row]}; "
            "scales per group need float activations",
            "use a model with one scale a matrix or a row, as BitNet defines it",
        )
    kept = zeros if zeros.any() else None
    whole = largest.max(initial=0)
    if np.all((largest == whole) | (largest == 0)):
        return np.array([whole or 1], dtype=np.float32), kept
    return np.where(largest > 0, largest, np.float32(1)).astype(np.float32), kept


def halves_paired(matrix: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of query or key heads from the order that turns neighbours (row 2j + half of a head)
    to the one that turns halves (row half * head_dim / 2 + j)."""
    rows, cols = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, cols)
    return pairs.swapaxes(1, 2).reshape(rows, cols)


def _load_coded(
    tensor: TernaryTensor, rows: int, zeros: NDArray[np.bool_] | None, heads: int | None
) -> Trits:
    trits = tensor.trits()
    if zeros is not None:
        groups = np.broadcast_to(zeros, (rows, zeros.shape[1]))
        trits.reshape(rows, zeros.shape[1], -1)[groups] = 0
    return halves_paired(trits, heads) if heads else trits


def _load_widened(tensor: FloatTensor, rows: int, cols: int) -> NDArray[np.generic]:
    values = tensor.values()
    step = max(1, _CHUNK // cols)
    for begin in range(0, rows, step):
        bad = np.argwhere(~np.isfinite(values[begin : begin + step]))
        if len(bad):
            raise BitnetcError(
                f"{tensor.where}: row {begin + bad[0, 0]}, column {bad[0, 1]}",
                "is infinite or not a number",
                _DAMAGED,
            )
    return values


def _load_packed(tensor: Tensor, rows: int) -> Trits:
    packed = tensor.array().view(np.uint8)
    bad = find_bad_code(packed, rows)
    if bad:
        raise BitnetcError(
            f"{tensor.where}: row {bad[0]}, column {bad[1]}",
            "holds code 3, which is no trit",
            _DAMAGED,
        )
    return unpack(packed, rows)


def _load_integers(tensor: Tensor, bits: int) -> NDArray[np.int8]:
    values = tensor.array().view(np.int8)
    limit = 1 << (bits - 1)
    step = max(1, _CHUNK // values.shape[1])
    for begin in range(0, values.shape[0] if bits < 8 else 0, step):
        part = values[begin : begin + step]
        bad = np.argwhere((part < -limit) | (part >= limit))
        if len(bad):
            row, col = int(bad[0, 0]), int(bad[0, 1])
            raise BitnetcError(
                f"{tensor.where}: row {begin + row}, column {col}",
                f"{part[row, col]} is no integer of {bits} bits",
                "correct the bits in quantization_config.modules",
            )
    return values


def _bits(tensor: Tensor, dtype: DenseType) -> NDArray[np.unsignedinteger]:
    """The stored floats as unsigned words: order of magnitudes is order of words without sign."""
    return tensor.raw.view("<u4" if dtype == "f32" else "<u2").reshape(tensor.shape)


def absmean_inverse(tensor: Tensor, dtype: DenseType) -> np.float32:
    """float32 `1 / max(mean|w|, 1e-5)` over a matrix of float masters.

    The mean is that of the exact sum: whole mantissas are added per exponent as integers, so it is
    the same on every host and depends on no order. It is rounded to float64, then to float32.
    transformers sums in float32 in an order of its own, which can differ in the last bit.
    """
    mantissa_bits = _MANTISSA_BITS[dtype]
    sums = _mantissa_sums(tensor, dtype)
    total = sum(int(part) << max(exponent, 1) for exponent, part in enumerate(sums))
    count = tensor.raw.size // (4 if dtype == "f32" else 2)
    mean = total / (count << (_EXPONENT_BIAS[dtype] + mantissa_bits))
    return np.float32(1) / max(np.float32(mean), np.float32(1e-5))


def _mantissa_sums(tensor: Tensor, dtype: DenseType) -> NDArray[np.int64]:
    """Per biased exponent, the sum of mantissas with their leading ones. Errors: inf and NaN."""
    mantissa_bits = _MANTISSA_BITS[dtype]
    leading = 1 << mantissa_bits
    flat = _bits(tensor, dtype).reshape(-1)
    sign = flat.dtype.type(1 << (8 * flat.itemsize - 1))
    exponents = int(sign) >> mantissa_bits
    sums = np.zeros(exponents, dtype=np.int64)
    counts = np.zeros(int(sign) if dtype != "f32" else 0, dtype=np.int64)
    for begin in range(0, flat.size, _CHUNK):
        magnitude = flat[begin : begin + _CHUNK] & ~sign
        if dtype != "f32":
            counts += np.bincount(magnitude, minlength=int(sign))
            continue
        exponent = magnitude >> mantissa_bits
        mantissa = magnitude & (leading - 1)
        mantissa[exponent > 0] += leading
        # float64 holds these sums exactly: 2**20 values below 2**24
        sums += np.bincount(exponent, mantissa, minlength=exponents).astype(np.int64)
    if dtype != "f32":
        mantissas = np.arange(int(sign), dtype=np.int64) & (leading - 1)
        mantissas[leading:] += leading
        sums = (counts * mantissas).reshape(exponents, leading).sum(axis=1)
        special = int(counts[-leading:].sum())
    else:
        special = int(sums[-1])
    if special:
        raise BitnetcError(tensor.where, "holds infinities or NaNs", _DAMAGED)
    return sums


def _load_online(tensor: Tensor, dtype: DenseType, inverse: np.float32) -> Trits:
    """clip(round_half_even(w * inverse), -1, 1) in float32, as transformers' WeightQuant.

    Rounding is monotone, so the trit is the sign wherever |w| reaches the least magnitude that
    rounds to 1: one integer comparison per weight.
    """
    flat = _bits(tensor, dtype).reshape(-1)
    sign_bit = 8 * flat.itemsize - 1
    magnitudes = flat.dtype.type((1 << sign_bit) - 1)
    least = flat.dtype.type(_least_rounding_to_one(dtype, inverse))
    out = np.empty(flat.size, dtype=np.int8)
    step = _CHUNK // 8
    for begin in range(0, flat.size, step):
        part = flat[begin : begin + step]
        into = out[begin : begin + step]
        np.greater_equal(part & magnitudes, least, out=into.view(np.bool_))
        negative = part > magnitudes  # the sign bit is set
        negative &= into.view(np.bool_)
        into -= negative.view(np.int8)
        into -= negative.view(np.int8)
    return out.reshape(tensor.shape)


def _least_rounding_to_one(dtype: DenseType, inverse: np.float32) -> int:
    """The least word whose value times `inverse` rounds to at least 1, by bisection."""
    word = np.uint32 if dtype == "f32" else np.uint16

    def reaches(pattern: int) -> bool:
        stored = np.array([pattern], dtype=word)
        value = to_float32(stored if dtype == "bf16" else stored.view(f"f{word().itemsize}"), dtype)
        with np.errstate(over="ignore"):
            return bool(np.rint(value * inverse)[0] >= 1)

    low = 0  # does not reach 1
    # the word of infinity reaches it
    high = ((1 << (8 * word().itemsize - 1)) - 1) >> _MANTISSA_BITS[dtype] << _MANTISSA_BITS[dtype]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _load_ternary_floats(tensor: Tensor, dtype: DenseType) -> Trits:
    """Floats that already are -1, 0 or +1, as transformers takes them in offline mode."""
    out = np.empty(tensor.shape, dtype=np.int8)
    values = tensor.array()
    step = max(1, _CHUNK // max(1, tensor.shape[1]))
    for begin in range(0, tensor.shape[0], step):
        part = to_float32(values[begin : begin + step], dtype)
        bad = np.argwhere(~((part == 0) | (np.abs(part) == 1)))
        if len(bad):
            row, col = int(bad[0, 0]), int(bad[0, 1])
            raise BitnetcError(
                f"{tensor.where}: row {begin + row}, column {col}",
                f"{part[row, col]} is none of -1, 0, +1, which quantization_mode offline needs",
                "set quantization_mode to online if these are float masters",
            )
        out[begin : begin + step] = part
    return out


def _load_dense(tensor: Tensor, dtype: DenseType) -> NDArray[np.generic]:
    """The mapped values, checked to be finite; nothing is copied."""
    words = _bits(tensor, dtype)
    mantissa_bits = _MANTISSA_BITS[dtype]
    special = words.dtype.type(
        ((1 << (8 * words.itemsize - 1)) - 1) >> mantissa_bits << mantissa_bits
    )
    step = max(1, _CHUNK // max(1, words.shape[1]))
    for begin in range(0, words.shape[0], step):
        bad = np.argwhere((words[begin : begin + step] & special) == special)
        if len(bad):
            raise BitnetcError(
                f"{tensor.where}: row {begin + bad[0, 0]}, column {bad[0, 1]}",
                "is infinite or not a number",
                _DAMAGED,
            )
    return tensor.array()
