"""GGUF file -> Checkpoint: its metadata in the keys of transformers, its vocabulary as a tokenizer.

What a GGUF file does not say is taken from config.json beside it, when that describes the same
model, or from what marks the published files; each such step leaves a note. Without either it is
refused, since a wrong guess compiles into a program that writes noise.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bitnetc.checkpoint.checkpoint import TOKENIZER_FILES, Checkpoint
from bitnetc.checkpoint.decoder import decoder_config
from bitnetc.checkpoint.fields import read_bytes, read_object, shown
from bitnetc.checkpoint.ggml_types import TAKES_INT8, I2sLayout
from bitnetc.checkpoint.gguf import Texts, Value, read_file
from bitnetc.checkpoint.tensor import TernaryTensor
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import FfnActivation, Pooling, Source
from bitnetc.tokenizer import (
    MAX_FILE_BYTES,
    PATTERN,
    PATTERN_HEAD,
    PATTERN_TAIL,
    Tokenizer,
    from_gguf,
    parse_tokenizer,
    read_tokenizer,
    write_model,
)

Metadata = Mapping[str, Value]

ACTIVATION_NOTE = "the feed-forward activation is taken as"

# Both 2B-4T (ReLU squared) and 1bitLLM's models (SiLU) go by the first three.
BITNET_ARCHITECTURES = ("bitnet", "bitnet-b1.58", "bitnet-25")
ARCHITECTURES = (*BITNET_ARCHITECTURES, "llama", "qwen2", "qwen3", "gemma3")
# Pre-tokenizers that are Llama-3's, by the names llama.cpp has given it.
LLAMA3_PRE = ("llama-bpe", "llama3", "llama-v3")
# Qwen's: single digits, texts in NFC, merges before whole words.
QWEN_PRE = ("qwen2",)
# Only models with int8 activations are published with these vocabularies and ternary weights.
_FALCON_PRE = ("falcon3", "falcon_e")
LLAMA3_VOCAB = 128256
# Control tokens that end a turn besides eos; llama.cpp finds them by their text as well.
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>")

# Keys below the architecture's name.
_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
}
# The same in Gemma 3's graph, whose layers see a window but for every sixth.
_GEMMA_KEYS = {
    "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "rope_local_base_freq": "rope.freq_base_swa",
}
# What its files do not say of a model that config.json beside them describes.
_GEMMA_BESIDE = (
    "sliding_window", "layer_types", "sliding_window_pattern", "rope_local_base_freq",
    "query_pre_attn_scalar", "rope_parameters", "rope_scaling",
)  # fmt: skip
# As the format numbers them, 0 for none.
_POOLINGS: Mapping[int, Pooling] = {1: "mean", 2: "cls", 3: "last"}
_NORM_IN = "_norm_in.weight"  # ends the names of norms that only embedding models have
_READ = {
    *_KEYS.values(),
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "vocab_size",
}
# Keys that change the graph unless they have one of these values.
_NEUTRAL: Mapping[str, tuple[Value, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attention.scale": (),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (1.0, 0.0),
    "residual_scale": (1.0, 0.0),
    "embedding_scale": (1.0, 0.0),
    "use_parallel_residual": (False,),
    "pooling_type": (0,),
    "rope.dimension_sections": (),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scale_linear": (1.0,),
    "swin_norm": (False,),
}
# Beyond these a vocabulary is damaged or hostile; Gemma's has 262144 tokens, 580 thousand merges.
MAX_TOKENS = 1 << 20
MAX_MERGES = 1 << 21
_ARRAYS = frozenset("tokenizer.ggml." + key for key in ("tokens", "token_type", "scores", "merges"))
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4


def is_gguf(path: Path) -> bool:
    """Whether the file begins as a GGUF file."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def read_gguf(path: Path, i2s_layout: I2sLayout) -> Checkpoint:
    """Opens a GGUF file. Errors: damaged files, architectures and types that are refused."""
    file = read_file(path, i2s_layout)
    metadata = _scalars(file.metadata)
    architecture = _text(path, metadata, "general.architecture")
    if architecture not in ARCHITECTURES:
        raise BitnetcError(
            f"{path}: general.architecture",
            f"{shown(architecture)} is not supported",
            nearest(architecture, ARCHITECTURES),
        )
    notes = list(file.notes)
    _refuse_parts(path, metadata)
    embeds = any(name.endswith(_NORM_IN) for name in file.tensors)
    _refuse_unknown_graph(path, architecture, metadata, embeds)
    config = _config(path, architecture, metadata)
    if embeds:
        config["pooling"] = _pooling(path, architecture, metadata)
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    beside, generation, files = _beside(path, config, notes)
    if architecture == "gemma3":
        _add_gemma(config, metadata, beside, notes)

    vocabulary = metadata.get("tokenizer.ggml.model")
    pre = metadata.get("tokenizer.ggml.pre")
    types = {t.dtype for t in file.tensors.values() if isinstance(t, TernaryTensor)}
    weight_only = _weight_only(architecture, types, pre, beside, notes)
    activation, why = _ffn_activation(architecture, config, vocabulary, pre, beside)
    if activation:
        config["hidden_act"] = activation
        notes.append(f"{ACTIVATION_NOTE} {activation}: {why}")
    if "I2_S (64)" in types or "I2_S (rows4)" in types:
        notes.append(f"I2_S tensors are read in the layout {i2s_layout}, as asked")

    tokenizer = _tokenizer_beside(path, metadata)
    if tokenizer:
        notes.append(f"the tokenizer is that of {tokenizer}")
        files = (*files, Source(tokenizer, tokenizer.stat().st_size))
    prefix = architecture + "."
    used = {prefix + key for key in (*_READ, *_NEUTRAL, *_GEMMA_KEYS.values())}
    for key in metadata:
        if key.startswith(prefix) and key not in used:
            notes.append(f"{shown(key)} has no meaning for bitnetc and was ignored")
    own_keys = {key: prefix + own for key, own in {**_KEYS, **_GEMMA_KEYS}.items()}
    own_keys["vocab_size"] = "tokenizer.ggml.tokens"
    own_keys["head_dim"] = prefix + "rope.dimension_count"
    own_keys["hidden_act"] = "feed-forward activation"
    own_keys["eos_token_id"] = "tokenizer.ggml.eos_token_id"
    return Checkpoint(
        path=path,
        config=config,
        generation_config=generation or _generation_config(path, metadata),
        tensors=file.tensors,
        sources=(*files, Source(path, path.stat().st_size)),
        tokenizer=partial(_tokenizer, path, metadata),
        notes=tuple(notes),
        container="gguf",
        own_keys=own_keys,
        interleaved=architecture == "llama",
        weight_only=weight_only,
        described=partial(_described, path, metadata),
    )


def _scalars(metadata: Metadata) -> dict[str, Value]:
    """Arrays only where they belong; elsewhere a text, which no number or name is mistaken for."""
    return {
        key: "an array" if key not in _ARRAYS and isinstance(value, Texts | np.ndarray) else value
        for key, value in metadata.items()
    }


def _text(path: Path, metadata: Metadata, key: str) -> str:
    value = metadata.get(key)
    if not isinstance(value, str):
        found = "is missing" if value is None else f"must be a text, found {_show(value)}"
        raise BitnetcError(f"{path}: {key}", found, "convert the model again")
    return value


def _show(value: Value) -> str:
    return "an array" if isinstance(value, Texts | np.ndarray) else shown(value)


def _refuse_parts(path: Path, metadata: Metadata) -> None:
    """Files that hold something else than one whole model, or hold more than is sane."""
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise BitnetcError(
            f"{path}: general.type", f"{_show(kind)} is not supported", "pass the model's own file"
        )
    count = metadata.get("split.count", 1)
    if count not in (0, 1):
        raise BitnetcError(
            f"{path}: split.count",
            f"the file is one of {_show(count)} parts, which is not supported",
            "join them first: llama-gguf-split --merge",
        )
    for key, most in (("tokens", MAX_TOKENS), ("merges", MAX_MERGES)):
        found = metadata.get("tokenizer.ggml." + key)
        if isinstance(found, Texts) and len(found) > most:
            raise BitnetcError(
                f"{path}: tokenizer.ggml.{key}",
                f"{len(found)}, more than the {most} that are sane",
                "the file is damaged: download it again",
            )


def _refuse_unknown_graph(path: Path, architecture: str, metadata: Metadata, embeds: bool) -> None:
    meant = {"pooling_type"} if embeds else set()
    meant |= set(_GEMMA_KEYS.values()) if architecture == "gemma3" else set()
    for key, neutral in _NEUTRAL.items():
        value = metadata.get(f"{architecture}.{key}")
        if value is not None and value not in neutral and key not in meant:
            raise BitnetcError(
                f"{path}: {architecture}.{key}",
                f"{_show(value)} is not supported",
                "use a model without it",
            )
    kind = metadata.get(f"{architecture}.rope.scaling.type", "none")
    factor = metadata.get(f"{architecture}.rope.scaling.factor", 1.0)
    trivial = isinstance(factor, int | float) and factor in (0, 1)
    if kind not in ("none", "") and not (kind == "linear" and trivial):
        raise BitnetcError(
            f"{path}: {architecture}.rope.scaling.type",
            f"{_show(kind)} with factor {_show(factor)} is not supported",
            "only the default rotary embedding, without scaling, is known",
        )


def _config(path: Path, architecture: str, metadata: Metadata) -> dict[str, Any]:
    """The keys that transformers would have, of values still to be checked."""
    prefix = architecture + "."
    config: dict[str, Any] = {"architecture": architecture}
    config["model_type"] = "bitnet" if architecture in BITNET_ARCHITECTURES else architecture
    for key, own in _KEYS.items():
        value = metadata.get(prefix + own)
        if value is not None:
            config[key] = _decimal(value) if isinstance(value, float) else value
    rotated = metadata.get(prefix + "rope.dimension_count")
    width = metadata.get(prefix + "attention.key_length", rotated)
    for own in ("attention.value_length", "rope.dimension_count"):
        other = metadata.get(prefix + own, width)
        if _show(other or 0) != _show(width or 0):
            raise BitnetcError(
                f"{path}: {prefix}{own}",
                f"{_show(other or 0)} is not supported where heads are {_show(width or 0)} wide",
                "use a model whose keys and values are of one width and wholly rotated",
            )
    if width is not None:
        config["head_dim"] = width
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Texts):
        raise BitnetcError(
            f"{path}: tokenizer.ggml.tokens",
            "is missing or no list of texts",
            "convert the model again, with its vocabulary",
        )
    config["vocab_size"] = metadata.get(prefix + "vocab_size", len(tokens))
    config["chat_template"] = metadata.get("tokenizer.chat_template")
    for key in ("bos_token_id", "eos_token_id"):
        config[key] = metadata.get("tokenizer.ggml." + key)
    return config


def _pooling(path: Path, architecture: str, metadata: Metadata) -> Pooling | None:
    kind = metadata.get(architecture + ".pooling_type", 0)
    if kind == 0:
        return None
    if type(kind) is not int or kind not in _POOLINGS:
        raise BitnetcError(
            f"{path}: {architecture}.pooling_type",
            f"{_show(kind)} is not supported",
            "known poolings: " + ", ".join(f"{n} ({name})" for n, name in _POOLINGS.items()),
        )
    return _POOLINGS[kind]


def _add_gemma(
    config: dict[str, Any], metadata: Metadata, beside: Mapping[str, Any], notes: list[str]
) -> None:
    """Windows, their rotary embedding and the scale of scores, which the converter of the published
    files leaves out: from config.json beside the file, else as llama.cpp takes it."""
    for key, own in _GEMMA_KEYS.items():
        value = metadata.get("gemma3." + own)
        if value is not None:
            config[key] = _decimal(value) if isinstance(value, float) else value
    for key in _GEMMA_BESIDE:
        if beside.get(key) is not None:
            config.setdefault(key, beside[key])
    config.setdefault("query_pre_attn_scalar", config.get("head_dim"))
    if config.get("sliding_window") in (None, 0):
        config |= {"sliding_window": None, "layer_types": None, "sliding_window_pattern": 1}
        notes.append(
            "no attention.sliding_window: every layer sees every position, as llama.cpp takes it; "
            "the model's config.json beside the file would say which do not"
        )


def _decimal(value: float) -> float:
    """The shortest number that is this float32: 1e-05 rather than 9.999999747378752e-06."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _beside(
    path: Path, config: Mapping[str, Any], notes: list[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any], tuple[Source, ...]]:
    """config.json and generation_config.json of the folder, when they describe this model."""
    found = path.parent / "config.json"
    if not found.is_file():
        return {}, {}, ()
    beside, _ = decoder_config(read_object(found))
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if any(beside.get(key) != config.get(key) for key in keys):
        notes.append(f"{found} describes another model and was ignored")
        return {}, {}, ()
    files = [found]
    generation: Mapping[str, Any] = {}
    if (path.parent / "generation_config.json").is_file():
        files.append(path.parent / "generation_config.json")
        generation = read_object(files[-1])
    return beside, generation, tuple(Source(file, file.stat().st_size) for file in files)


def _weight_only(
    architecture: str,
    types: set[str],
    pre: Value | None,
    beside: Mapping[str, Any],
    notes: list[str],
) -> str:
    """Why activations stay in float, as those of weight-only models (TriLM, Bonsai) do, which makes
    another model; empty where they are quantised.

    BitNet's own architectures and the types of BitNet's engines mean int8 activations; other
    ternary types under `llama` do so only where config.json or the vocabulary says it.
    """
    doubtful = sorted(types - TAKES_INT8)
    if not doubtful:
        return ""
    names = ", ".join(doubtful)
    if architecture in BITNET_ARCHITECTURES:
        notes.append(f"{names}: activations are quantised to int8 per token, as BitNet defines")
        return ""
    quant = beside.get("quantization_config")
    declared = isinstance(quant, dict) and quant.get("quant_method") == "bitnet"
    if declared or pre in _FALCON_PRE:
        why = "config.json beside the file" if declared else f"its vocabulary, {pre}, is Falcon's"
        notes.append(f"{names}: activations are quantised to int8 per token: {why}")
        return ""
    return (
        f"{shown(architecture)} with {names} weights is how weight-only models such as TriLM and "
        "Bonsai are stored: activations stay floats"
    )


def _ffn_activation(
    architecture: str,
    config: Mapping[str, Any],
    vocabulary: Value | None,
    pre: Value | None,
    beside: Mapping[str, Any],
) -> tuple[str | None, str]:
    """(activation or None when nothing tells, why)."""
    key = "hidden_activation" if architecture == "gemma3" else "hidden_act"
    if isinstance(beside.get(key), str):
        return beside[key], "config.json beside the file says so"
    silu: FfnActivation = "silu"
    if architecture == "gemma3":
        return "gelu_tanh", f"all models of architecture {architecture} have it"
    if architecture not in BITNET_ARCHITECTURES:
        return silu, f"all models of architecture {architecture} have it"
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    vocab = config.get("vocab_size")
    if vocabulary == "gpt2" and pre in LLAMA3_PRE and type(vocab) is int:
        if vocab >= LLAMA3_VOCAB and kv_heads not in (None, heads):
            return "relu2", "Llama-3's vocabulary and grouped queries mark BitNet b1.58 2B4T"
    elif vocabulary == "llama" and kv_heads in (None, heads):
        return silu, "a SentencePiece vocabulary without grouped queries marks 1bitLLM's models"
    return None, ""


def _generation_config(path: Path, metadata: Metadata) -> dict[str, Any]:
    """Ids that end generation: eos, and what ends a turn."""
    found = []
    for key in ("eos_token_id", "eot_token_id"):
        value = metadata.get("tokenizer.ggml." + key)
        if value is not None:
            found.append(value)
    tokens, types = _vocabulary(path, metadata)
    found += [
        index
        for index, text in enumerate(tokens)
        if text in _TURN_ENDS and types[index] == _CONTROL
    ]
    return {"eos_token_id": found} if found else {}


def _vocabulary(path: Path, metadata: Metadata) -> tuple[Texts, list[int]]:
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Texts)
    types = metadata.get("tokenizer.ggml.token_type")
    if types is None:
        return tokens, [_NORMAL] * len(tokens)
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu":
        raise BitnetcError(
            f"{path}: tokenizer.ggml.token_type", "is no list of numbers", "convert the model again"
        )
    if len(types) != len(tokens):
        raise BitnetcError(
            f"{path}: tokenizer.ggml.token_type",
            f"{len(types)} types for {len(tokens)} tokens",
            "convert the model again",
        )
    return tokens, types.tolist()


def _tokenizer_beside(path: Path, metadata: Metadata) -> Path | None:
    """The tokenizer file to use instead of the vocabulary in the file, which does not say enough
    when its words are cut by a pattern that llama.cpp knows by name only."""
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model == "llama" or (model == "gpt2" and pre in (*LLAMA3_PRE, *QWEN_PRE)):
        return None
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path.parent / name).is_file():
            return path.parent / name
    hint = "put the tokenizer.json of the original model beside the file"
    if model != "gpt2":
        raise BitnetcError(
            f"{path}: tokenizer.ggml.model",
            "is missing" if model is None else f"{_show(model)} is not supported",
            hint,
        )
    raise BitnetcError(
        f"{path}: tokenizer.ggml.pre",
        ("is missing" if pre is None else f"{_show(pre)} is not supported")
        + ", so how words are cut is not known",
        hint,
    )


def _tokenizer(path: Path, metadata: Metadata) -> Tokenizer:
    beside = _tokenizer_beside(path, metadata)
    if not beside and metadata["tokenizer.ggml.model"] == "llama":
        return from_gguf(metadata, str(path))
    if not beside:
        document = _tokenizer_document(path, metadata)
        return parse_tokenizer(json.dumps(document).encode(), f"{path}: tokenizer.ggml")
    tokenizer = read_tokenizer(path.parent)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Texts)
    if tokenizer.vocab > len(tokens):
        raise BitnetcError(
            str(beside),
            f"has {tokenizer.vocab} pieces, and {path} has {len(tokens)}",
            "put the tokenizer.json of the same model there",
        )
    return tokenizer


def _described(path: Path, metadata: Metadata) -> dict[str, bytes]:
    """The tokenizer as the files of a folder: those beside the file where its own vocabulary does
    not say enough, else tokenizer.json or tokenizer.model made from it, and the chat template."""
    if _tokenizer_beside(path, metadata):
        return {
            name: read_bytes(path.parent / name, MAX_FILE_BYTES)
            for name in TOKENIZER_FILES
            if (path.parent / name).is_file()
        }
    tokens, types = _vocabulary(path, metadata)
    texts = list(tokens)
    config: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    ids: dict[str, int] = {}
    for name in ("bos", "eos"):
        token = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if type(token) is int and 0 <= token < len(texts):
            ids[name] = token
            config[name + "_token"] = texts[token]
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    found: dict[str, bytes] = {}
    if metadata.get("tokenizer.ggml.model") == "llama":
        unknown = types.index(_UNKNOWN) if _UNKNOWN in types else 0
        add_bos = metadata.get("tokenizer.ggml.add_bos_token", True)
        config |= {"tokenizer_class": "LlamaTokenizer", "add_bos_token": add_bos is True}
        config["add_eos_token"] = metadata.get("tokenizer.ggml.add_eos_token", False) is True
        config["added_tokens_decoder"] = {
            str(i): {"content": texts[i], "special": True, "normalized": False}
            for i, kind in enumerate(types)
            if kind in (_CONTROL, _UNKNOWN)
        }
        found["tokenizer.model"] = write_model(
            texts,
            np.asarray(metadata.get("tokenizer.ggml.scores")).tolist(),
            types,
            space_prefix=metadata.get("tokenizer.ggml.add_space_prefix", True) is True,
            bos=ids.get("bos", 1) if add_bos else -1,
            eos=ids.get("eos", 2),
            unknown=unknown,
        )
    else:
        document = _tokenizer_document(path, metadata)
        for token in document["added_tokens"]:
            token |= {"single_word": False, "lstrip": False, "rstrip": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        missing = {"version": "1.0", "truncation": None, "padding": None}
        document = {**missing, **document, "decoder": {**byte_level, "use_regex": True}}
        found["tokenizer.json"] = json.dumps(document, ensure_ascii=False).encode()
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    found["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=2).encode()
    return found


def _tokenizer_document(path: Path, metadata: Metadata) -> dict[str, Any]:
    """A tokenizer.json of Llama-3's structure: its pattern, and whole words before merges; or of
    Qwen's."""
    qwen = metadata.get("tokenizer.ggml.pre") in QWEN_PRE
    texts, types = _vocabulary(path, metadata)
    tokens = list(texts)
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, Texts):
        raise BitnetcError(
            f"{path}: tokenizer.ggml.merges",
            "is missing or no list of texts",
            "convert the model again, with its vocabulary",
        )
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = next(text for text in tokens if text in seen or seen.add(text))  # type: ignore[func-returns-value]
        raise BitnetcError(
            f"{path}: tokenizer.ggml.tokens",
            f"{shown(twice)} is listed twice",
            "convert the model again",
        )
    added = [i for i, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED)]
    pieces = len(tokens)
    while pieces and types[pieces - 1] in (_CONTROL, _USER_DEFINED):
        pieces -= 1
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    pattern = {"Regex": PATTERN_HEAD + r"\p{N}" + PATTERN_TAIL if qwen else PATTERN}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {
        "added_tokens": [
            {
                "id": i,
                "content": tokens[i],
                "special": types[i] == _CONTROL,
                "normalized": False,
            }
            for i in added
        ],
        "normalizer": {"type": "NFC"} if qwen else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": _template(path, metadata, tokens),
        "model": {
            "type": "BPE",
            "ignore_merges": not qwen,
            "vocab": {text: i for i, text in enumerate(tokens[:pieces])},
            "merges": list(merges),
        },
    }


def _template(path: Path, metadata: Metadata, tokens: list[str]) -> dict[str, Any]:
    """BOS before a text unless add_bos_token is false, as llama.cpp has it for Llama-3, not for
    Qwen; EOS after it if add_eos_token is true."""
    ids: dict[str, int] = {}
    single: list[Any] = [{"Sequence": {"id": "A", "type_id": 0}}]
    llama3 = metadata.get("tokenizer.ggml.pre") not in QWEN_PRE
    for name, default in (("bos", llama3), ("eos", False)):
        key = f"tokenizer.ggml.add_{name}_token"
        wanted = metadata.get(key, default)
        if not isinstance(wanted, bool):
            raise BitnetcError(
                f"{path}: {key}",
                f"must be true or false, found {_show(wanted)}",
                "convert the model again",
            )
        if not wanted:
            continue
        key = f"tokenizer.ggml.{name}_token_id"
        token = metadata.get(key)
        if type(token) is not int or not 0 <= token < len(tokens):
            raise BitnetcError(
                f"{path}: {key}",
                "is missing" if token is None else f"{_show(token)} is no token",
                f"convert the model again, or set add_{name}_token to false",
            )
        ids[tokens[token]] = token
        special = {"SpecialToken": {"id": tokens[token], "type_id": 0}}
        single.insert(0 if name == "bos" else 1 << 10, special)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            text: {"id": text, "ids": [token], "tokens": [text]} for text, token in ids.items()
        },
    }
