"""The text decoder inside a larger checkpoint, as speech and vision models have one.

Its config is nested in the model's, its tensors stand behind a prefix, and what surrounds it (audio
or image encoders, connectors, diffusion heads) is no part of the program and is left out.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bitnetc.checkpoint.fields import shown
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.errors import BitnetcError

_CONFIGS = ("decoder_config", "text_config", "language_config", "llm_config")
# Of the whole model's config; they hold for its decoder unless that says otherwise.
_SHARED = ("quantization_config", "tie_word_embeddings", "bos_token_id", "eos_token_id")
_PREFIXES = ("model.language_model.", "language_model.")
_INNER = ("model.", "lm_head.")  # of a decoder that is saved whole, with its head


def decoder_config(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """(the config of the decoder, the key it stands under); the config itself and "" where that
    describes a language model already."""
    if config.get("hidden_size") is not None:
        return config, ""
    for key in _CONFIGS:
        nested = config.get(key)
        if isinstance(nested, Mapping) and nested.get("hidden_size") is not None:
            shared = {k: config[k] for k in _SHARED if config.get(k) is not None}
            return {**shared, **{k: v for k, v in nested.items() if v is not None}}, key
    return config, ""


def decoder_tensors(
    where: str, tensors: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """(tensors of the decoder under the names they have in a model of their own, a note on the
    others); all tensors and no note where no prefix marks a decoder.

    Errors: two tensors that would have one name.
    """
    prefix = next((p for p in _PREFIXES if _holds_layers(p, tensors)), None)
    if prefix is None or _holds_layers("", tensors):
        return tensors, ()
    found: dict[str, Tensor] = {}
    others: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            inner = name.removeprefix(prefix)
            inner = inner if inner.startswith(_INNER) else "model." + inner
        elif name.startswith("lm_head."):
            inner = name
        else:
            others[".".join(name.split(".")[: 2 if name.startswith("model.") else 1])] += 1
            continue
        if inner in found:
            raise BitnetcError(
                f"{where}: {shown(name)}", f"is another {inner}", "keep one of the two"
            )
        found[inner] = tensor
    note = f"the model is the text decoder below {prefix.removesuffix('.')}"
    if others:
        parts = [f"{shown(part)[1:-1]} ({count})" for part, count in others.most_common(6)]
        more = "" if len(others) <= 6 else " and others"
        note += f"; {others.total()} tensors are left out: {', '.join(parts)}{more}"
    return found, (note,)


def _holds_layers(prefix: str, tensors: Mapping[str, Tensor]) -> bool:
    marks = (prefix + "model.layers.0.", prefix + "layers.0.")
    return any(name.startswith(marks) for name in tensors)
