"""synth: a checkpoint with random ternary weights in the shape of a published model.

For measuring speed, memory and file sizes where the real weights cannot be had. The text such a
model writes is noise; everything else is as in the original: shapes, packing, scales that divide
or multiply, tying, and a tokenizer of the same size and structure.
"""

import json
import os
import shutil
import statistics
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from bitnetc import families
from bitnetc.checkpoint.safetensors import beginning
from bitnetc.errors import BitnetcError, nearest
from bitnetc.model import Shape

# multiply, divide: packed 2-bit codes whose weight_scale multiplies or divides.
# online: float masters, quantised by whoever reads them. levels: floats of three values per group.
Form = Literal["multiply", "divide", "online", "levels"]

ZERO_FRACTION = 0.42  # of 2B-4T; other published models have 30 to 43 %
_CHUNK = 1 << 22  # random 16-bit words per step
_FIXED = 64  # divides all widths and _CHUNK


@dataclass(frozen=True)
class Published:
    """A public model: what its config.json says. `unsure` lists what no source confirms."""

    family: str  # an entry of families.py, or the name of one that is still to come
    form: Form
    shape: Shape
    rope_theta: float
    norm_eps: float
    tied: bool
    activation: str = "silu"
    specials: str = "llama3"  # which special tokens the vocabulary has, see _SPECIALS
    rope_scaling: Mapping[str, Any] | None = None
    unsure: tuple[str, ...] = field(default=(), kw_only=True)


def _shape(
    layers: int, dim: int, ffn: int, heads: int, kv: int, head_dim: int, vocab: int, context: int
) -> Shape:
    return Shape(
        dim=dim, ffn_dim=ffn, layers=layers, heads=heads, kv_heads=kv, head_dim=head_dim,
        vocab=vocab, context=context,
    )  # fmt: skip


def _falcon3(layers: int, dim: int, ffn: int, heads: int) -> Published:
    return Published(
        "llama-bitnet",
        "divide",
        _shape(layers, dim, ffn, heads, 4, 256, 131072, 32768),
        1000042.0,
        1e-6,
        False,
        specials="falcon3",
        unsure=("norm_eps", "context"),
    )


def _falcon_e(layers: int, ffn: int) -> Published:
    return Published(
        "llama-bitnet",
        "divide",
        _shape(layers, 2048, ffn, 16, 2, 128, 32768, 32768),
        1000042.0,
        1e-5,
        False,
        specials="falcon-e",
        unsure=("heads", "rope_theta", "norm_eps", "context", "special token ids"),
    )


def _b1_58(layers: int, dim: int, ffn: int, heads: int) -> Published:
    shape = _shape(layers, dim, ffn, heads, heads, dim // heads, 32002, 2048)
    return Published("bitnet_b1_58", "online", shape, 10000.0, 1e-5, True, specials="llama2")


def _trilm(layers: int, dim: int, ffn: int, heads: int) -> Published:
    shape = _shape(layers, dim, ffn, heads, heads, dim // heads, 50304, 2048)
    return Published("trilm", "levels", shape, 10000.0, 1e-5, False, specials="neox")


def _bonsai(
    layers: int, dim: int, ffn: int, heads: int, tied: bool, context: int = 32768
) -> Published:
    shape = _shape(layers, dim, ffn, heads, 8, 128, 151936, context)
    unsure = ("vocab", "context", "tied")
    return Published(
        "ternary-bonsai", "levels", shape, 1e6, 1e-6, tied, specials="qwen", unsure=unsure
    )


def _bitcpm(layers: int, dim: int, ffn: int, heads: int, head_dim: int, tied: bool) -> Published:
    shape = _shape(layers, dim, ffn, heads, 2, head_dim, 73448, 32768)
    unsure = ("heads", "context", "rope_theta")
    return Published(
        "bitcpm", "levels", shape, 10000.0, 1e-6, tied, specials="llama2", unsure=unsure
    )


_2B4T = Published(
    "bitnet",
    "multiply",
    _shape(30, 2560, 6912, 20, 5, 128, 128256, 4096),
    500000.0,
    1e-5,
    True,
    activation="relu2",
)

SHAPES: Mapping[str, Published] = {
    "bitnet-b1.58-2b-4t": _2B4T,
    "bitnet-b1.58-2b-4t-bf16": replace(_2B4T, form="online"),
    "llama3-8b-1.58": Published(
        "llama-bitnet",
        "divide",
        _shape(32, 4096, 14336, 32, 8, 128, 128256, 8192),
        500000.0,
        1e-5,
        False,
    ),
    "falcon3-1b-1.58bit": _falcon3(18, 2048, 8192, 8),
    "falcon3-3b-1.58bit": _falcon3(22, 3072, 9216, 12),
    "falcon3-7b-1.58bit": _falcon3(28, 3072, 23040, 12),
    "falcon3-10b-1.58bit": _falcon3(40, 3072, 23040, 12),
    "falcon-e-1b": _falcon_e(24, 9216),
    "falcon-e-3b": _falcon_e(32, 13312),
    "bitnet_b1_58-large": _b1_58(24, 1536, 4096, 16),
    "bitnet_b1_58-xl": _b1_58(24, 2048, 5460, 32),
    "bitnet_b1_58-3b": _b1_58(26, 3200, 8640, 32),
    "bitnet-embedding-0.6b": Published(
        "bitnet-embedding-qwen3",
        "online",
        _shape(28, 1024, 3072, 16, 8, 128, 151936, 32768),
        1e6,
        1e-6,
        True,
        specials="qwen",
    ),
    "bitnet-embedding-270m": Published(
        "bitnet-embedding-gemma3",
        "online",
        _shape(18, 640, 2048, 4, 1, 256, 262144, 32768),
        10000.0,
        1e-6,
        True,
        activation="gelu_pytorch_tanh",
        specials="gemma",
    ),
    # heads of the sizes between 190M and 3.9B fit the parameter counts, no source was at hand
    "trilm-99m": _trilm(16, 512, 1280, 8),
    "trilm-190m": _trilm(16, 768, 2048, 12),
    "trilm-390m": _trilm(24, 1024, 2560, 16),
    "trilm-560m": _trilm(24, 1280, 3072, 20),
    "trilm-830m": _trilm(24, 1536, 4096, 24),
    "trilm-1.1b": _trilm(24, 1792, 5120, 28),
    "trilm-1.5b": _trilm(24, 2048, 6144, 32),
    "trilm-2.4b": _trilm(30, 2304, 7680, 36),
    "trilm-3.9b": _trilm(30, 3072, 9216, 24),
    "ternary-bonsai-1.7b": _bonsai(28, 2048, 6144, 16, tied=True),
    "ternary-bonsai-4b": _bonsai(36, 2560, 9728, 32, tied=True),
    "ternary-bonsai-8b": replace(
        _bonsai(36, 4096, 12288, 32, tied=False, context=65536),
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16384,
        },
    ),
    "bitcpm-0.5b": _bitcpm(24, 1024, 4096, 16, 64, tied=True),
    "bitcpm-1b": _bitcpm(28, 2048, 6144, 16, 128, tied=True),
    "bitcpm-3b": _bitcpm(32, 2560, 10240, 20, 128, tied=True),
    "bitcpm-8b": _bitcpm(32, 4096, 16384, 32, 128, tied=False),
}


@dataclass(frozen=True)
class _Specials:
    tokens: Mapping[int, str]
    bos: int | None
    eos: int | list[int]
    prefix_bos: bool  # the tokenizer puts BOS before every text
    chat_template: str = ""


def _llama3_specials() -> dict[int, str]:
    named = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        9: "<|eot_id|>",
    }
    reserved = iter(range(256))
    return {
        128000 + i: named.get(i) or f"<|reserved_special_token_{next(reserved)}|>"
        for i in range(256)
    }


_TEMPLATE_2B4T = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = message['role'] | capitalize + ': '+ message['content'] | trim"
    " + '<|eot_id|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
# Ids as published for llama3, qwen, gemma and falcon3's <|endoftext|>; the others are made up.
_SPECIALS: Mapping[str, _Specials] = {
    # a byte-level vocabulary stands in for the SentencePiece one of the original
    "llama2": _Specials(
        {0: "<unk>", 1: "<s>", 2: "</s>", 32000: "<pad>", 32001: "<|reserved|>"}, 1, 2, True
    ),
    "llama3": _Specials(_llama3_specials(), 128000, [128001, 128009], True),
    "neox": _Specials({0: "<|endoftext|>", 1: "<|padding|>"}, None, 0, False),
    "qwen": _Specials(
        {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"},
        None,
        [151643, 151645],
        False,
    ),
    # a byte-level vocabulary stands in for the SentencePiece one of the original
    "gemma": _Specials({0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>"}, 2, 1, True),
    "falcon3": _Specials(
        {8: "<|system|>", 9: "<|user|>", 10: "<|assistant|>", 11: "<|endoftext|>"}, None, 11, False
    ),
    "falcon-e": _Specials(
        {
            32764: "<|begin_of_text|>",
            32765: "<|end_of_text|>",
            32766: "<|im_start|>",
            32767: "<|im_end|>",
        },
        32764,
        [32765, 32767],
        True,
    ),
}


def synth(
    like: str,
    directory: Path | str,
    seed: int,
    layers: int | None = None,
    zeros: float | None = None,
) -> None:
    """Writes a checkpoint of the published shape `like` into a new or empty `directory`.

    seed:   same seed, same bytes, on every host; a layer's weights do not depend on `layers`.
    layers: how many layers to write; all of the published model's when None.
    zeros:  about this share of the gates behind ReLU^2 is zero; half of them when None, as random
            weights have it. Speed depends on it: what a zero multiplies is not read.

    The weights are streamed: less than 0.5 GB of memory for any shape. Everything goes to a
    temporary folder beside `directory`, which is renamed at the end or removed.
    Errors: unknown or unsupported name, folder in use, disk full.
    """
    directory = Path(directory)
    model = _published(like)
    shape = model.shape
    if layers is not None:
        if not 1 <= layers <= shape.layers:
            raise BitnetcError(
                "layers", f"{layers} is not from 1 to {shape.layers}, those of {like}"
            )
        shape = replace(shape, layers=layers)
    if zeros is not None:
        if model.activation != "relu2":
            raise BitnetcError("zeros", f"{like} has no ReLU^2", "leave --zeros out")
        if not 0.5 <= zeros <= 0.95:
            raise BitnetcError(
                "zeros", f"{zeros} is not from 0.5 to 0.95", "a share of 1, like 0.8"
            )
    if directory.is_dir() and any(directory.iterdir()):
        raise BitnetcError(str(directory), "is not empty", "name a new folder, or empty this one")
    if directory.exists() and not directory.is_dir():
        raise BitnetcError(str(directory), "is a file", "name a new folder")

    tensors = _tensors(model, shape, None if zeros is None else _Lean(model.shape, zeros))
    partial = directory.parent / f".{directory.name}.{os.getpid()}.partial"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        needed = sum(tensor.bytes for tensor in tensors) + (32 << 20)
        free = shutil.disk_usage(directory.parent).free
        if free < needed:
            raise BitnetcError(
                str(directory), f"needs {needed} bytes; {free} are free", "name another disk"
            )
        partial.mkdir()
        _write_json(partial / "config.json", _config(model, shape))
        _write_json(partial / "generation_config.json", _generation_config(model))
        specials = _SPECIALS[model.specials]
        tokenizer = byte_level_tokenizer(
            shape.vocab, specials.tokens, specials.bos if specials.prefix_bos else None
        )
        _write_json(partial / "tokenizer.json", tokenizer, indent=None)
        _write_json(partial / "tokenizer_config.json", _tokenizer_config(model, shape))
        with (partial / "model.safetensors").open("wb") as file:
            _write_tensors(file, tensors, seed)
        if directory.is_dir():
            directory.rmdir()
        partial.rename(directory)
    except OSError as error:
        raise BitnetcError(
            str(directory),
            f"cannot be written: {error.strerror}",
            "free some space or name another disk; nothing was left behind",
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _published(like: str) -> Published:
    if like not in SHAPES:
        longer = [name for name in SHAPES if like and name.startswith(like.lower())]
        raise BitnetcError(f"shape {like}", "unknown", nearest(like.lower(), longer or SHAPES))
    model = SHAPES[like]
    supported = {family.name for family in families.FAMILIES}
    if model.family not in supported:
        raise BitnetcError(
            f"shape {like}",
            f"family {model.family} is not supported yet",
            "supported: "
            + ", ".join(name for name, known in SHAPES.items() if known.family in supported),
        )
    return model


# --- weights -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stored:
    """A tensor to be written: values drawn from a table of 65536 by random 16-bit words."""

    name: str
    dtype: Literal["U8", "BF16", "F16"]
    shape: tuple[int, ...]
    table: NDArray[np.uint8] | NDArray[np.uint16]
    other: NDArray[np.uint16] | None = None  # the table of every second group of 128 values
    fixed: int | None = None  # the word that every _FIXED-th value is

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.table.itemsize


@dataclass(frozen=True)
class _Lean:
    """What makes about `zeros` of the gates behind ReLU^2 zero, where random weights have half.

    Every 64th element of the residual stream, K in all, is A deviations of an embedding, for every
    token, and what layers add to the stream is kept small beside that. A gate weighs these K with
    -1 and the norm before it passes them with g: so the sum of the other products, whose deviation
    is sqrt((1 - ZERO_FRACTION) dim v), v being the variance of the stream in those of an embedding,
    is moved by -K g A, which is made that deviation's quantile of `zeros`.
    """

    shape: Shape  # the published one: what a layer is does not depend on how many are written
    zeros: float

    above = 3.0  # A: less than a row's largest, so that rows round to few bits as they did

    @property
    def element(self) -> float:
        """Of the embedding."""
        return float(self.above * self.shape.dim**-0.5)

    @property
    def added(self) -> float:
        """The deviation of what wo or w_down adds: all of them together, that of an embedding."""
        return float((self.shape.dim * 2 * self.shape.layers) ** -0.5)

    def passed(self, layer: int) -> float:
        """g, of the norm before the gates of a layer."""
        variance = 1 + (2 * layer + 1) / (2 * self.shape.layers)
        deviation = ((1 - ZERO_FRACTION) * self.shape.dim * variance) ** 0.5
        moved = statistics.NormalDist().inv_cdf(self.zeros) * deviation
        return float(moved / (self.shape.dim // _FIXED * self.above))


def _tensors(model: Published, shape: Shape, lean: _Lean | None = None) -> list[_Stored]:
    """In file order: 16-bit tensors first, so that all are aligned."""
    family = next(entry for entry in families.FAMILIES if entry.name == model.family)
    named = [(role, name, -1) for role, name in family.top.items()]
    for layer in range(shape.layers):
        prefix = family.layer.replace("N", str(layer))
        named += [(role, prefix + name, layer) for role, name in family.block.items()]
    packed = packed_table()
    groups = model.family in (families.BONSAI.name, families.BITCPM.name)
    # 1bitLLM publishes float32; half of that, as in its reference uploads, says as much here
    half = _stored_as(model) == "float16"
    tensors = []

    def floats(
        name: str,
        extents: tuple[int, ...],
        deviation: float,
        mean: float = 0.0,
        fixed: float | None = None,
    ) -> None:
        table = normal_table(deviation, mean, half)
        word = None if fixed is None else int(_bf16(np.array([fixed]))[0])  # ReLU^2: all bf16
        tensors.append(_Stored(name, "F16" if half else "BF16", extents, table, fixed=word))

    for role, name, layer in named:
        extents = tuple(getattr(shape, extent) for extent in families.EXTENTS[role])
        if role == "head" and model.tied:
            continue
        if model.form == "levels" and len(extents) == 2:
            whole = role in ("embedding", "head")
            if not whole or model.family == families.BONSAI.name:
                scale = ((1 - ZERO_FRACTION) * (shape.dim if whole else extents[1])) ** -0.5
                each = [levels_table(scale * factor) for factor in (1.0, 0.8)]
                other = each[1] if groups else None
                tensors.append(_Stored(name, "F16", extents, each[0], other))
                continue
        if role in ("embedding", "head"):
            # logits of a normalised state then have variance 1
            floats(name, extents, shape.dim**-0.5, fixed=lean.element if lean else None)
        elif len(extents) == 1:
            passed = lean.passed(layer) if lean and role == "ffn_norm" else None
            floats(name, extents, 0.1, 0.0 if role in family.one_plus else 1.0, fixed=passed)
        elif model.form == "online":
            gate = lean is not None and role == "w_gate"
            added = lean.added if lean and role in ("wo", "w_down") else 1.0
            deviation = added * extents[1] ** -0.5
            floats(name, extents, deviation, fixed=-2 * deviation if gate else None)
        else:
            rows, cols = extents
            down = 0 if lean and role == "w_gate" else None  # four codes of -1
            tensors.append(_Stored(name, "U8", (-(-rows // 4), cols), packed, fixed=down))
            # keeps the variance of what goes through the matrix
            scale = ((1 - ZERO_FRACTION) * cols) ** -0.5
            scale *= lean.added if lean and role in ("wo", "w_down") else 1.0
            stored = scale if model.form == "multiply" else 1 / scale
            # one value, but not the same in every matrix: a reader that mixes them up is seen
            spread = _bf16(np.linspace(0.8, 1.25, 65536) * stored)
            tensors.append(_Stored(name + "_scale", "BF16", (1,), spread))
    return sorted(tensors, key=lambda tensor: (-tensor.table.itemsize, tensor.name))


def packed_table() -> NDArray[np.uint8]:
    """65536 bytes of four codes each, as frequent as independent trits would make them."""
    frequency = {0: (1 - ZERO_FRACTION) / 2, 1: ZERO_FRACTION, 2: (1 - ZERO_FRACTION) / 2}
    patterns, weights = [], []
    for a, b, c, d in np.ndindex(3, 3, 3, 3):
        patterns.append(a | b << 2 | c << 4 | d << 6)
        weights.append(frequency[a] * frequency[b] * frequency[c] * frequency[d])
    edges = np.rint(np.cumsum([0.0, *weights]) * 65536).astype(np.int64)
    return np.repeat(np.array(patterns, dtype=np.uint8), np.diff(edges))


def levels_table(scale: float) -> NDArray[np.uint16]:
    """65536 values of -scale, 0 and scale as f16, as frequent as trits are."""
    zeros = round(ZERO_FRACTION * 65536)
    signs = np.ones(65536 - zeros)
    signs[::2] = -1
    values = scale * np.concatenate([np.zeros(zeros), signs])
    return values.astype(np.float16).view(np.uint16)


def normal_table(deviation: float, mean: float = 0.0, half: bool = False) -> NDArray[np.uint16]:
    """65536 equally likely values of a normal distribution, as bf16 or f16."""
    values = mean + deviation * _normal_quantiles()
    return values.astype(np.float16).view(np.uint16) if half else _bf16(values)


def _stored_as(model: Published) -> str:
    """torch_dtype of embedding, norms and masters."""
    half = model.family == families.BITNET_B1_58.name or model.form == "levels"
    return "float16" if half else "bfloat16"


_quantiles: list[NDArray[np.float64]] = []


def _normal_quantiles() -> NDArray[np.float64]:
    if not _quantiles:
        inverse = statistics.NormalDist().inv_cdf
        _quantiles.append(np.array([inverse((i + 0.5) / 65536) for i in range(65536)]))
    return _quantiles[0]


def _bf16(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Rounds finite values to bf16, half to even, by way of float32."""
    words = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def _write_tensors(file: BinaryIO, tensors: Sequence[_Stored], seed: int) -> None:
    file.write(beginning((t.name, t.dtype, t.shape, t.bytes) for t in tensors))
    for tensor in tensors:
        file.writelines(values.data for values in _draw(tensor, seed))


def _draw(tensor: _Stored, seed: int) -> Iterator[NDArray[Any]]:
    """The values in pieces. Seeded by name, so that layers do not depend on each other."""
    random = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(tensor.name.encode())]))
    table = tensor.table.astype(tensor.table.dtype.newbyteorder("<"))
    second = np.arange(_CHUNK) // 128 % 2 == 1
    left = int(np.prod(tensor.shape))
    while left:
        count = min(left, _CHUNK)
        # raw words: unlike Generator's methods they are promised never to change
        words = np.asarray(random.random_raw(-(-count // 4)), dtype="<u8").view("<u2")[:count]
        values = np.take(table, words, mode="clip")
        if tensor.other is not None:
            others = np.take(tensor.other.astype("<u2"), words, mode="clip")
            values = np.where(second[:count], others, values)
        if tensor.fixed is not None:
            values[::_FIXED] = tensor.fixed
        yield values
        left -= count


# --- files of text -------------------------------------------------------------------------------


def _write_json(path: Path, value: Mapping[str, Any], indent: int | None = 2) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _config(model: Published, shape: Shape) -> dict[str, Any]:
    bitnet = model.family == "bitnet"
    specials = _SPECIALS[model.specials]
    eos = specials.eos[0] if isinstance(specials.eos, list) else specials.eos
    b1_58 = model.family == families.BITNET_B1_58.name
    quant: dict[str, Any] = {"quant_method": "bitnet", "modules_to_not_convert": None}
    if model.form != "divide":
        mode = "online" if model.form == "online" else "offline"
        quant |= {"linear_class": "autobitlinear", "quantization_mode": mode}
    declared: dict[str, Any] = {"quantization_config": quant}
    if b1_58:
        declared = {"weight_bits": 1, "input_bits": 8}
    if model.form == "levels" or model.family in _GRAPHS:
        declared = {}
    declared |= _GRAPHS.get(model.family, {})
    if model.family == families.EMBEDDING_GEMMA3.name:
        declared["layer_types"] = [
            "full_attention" if (i + 1) % 6 == 0 else "sliding_attention"
            for i in range(shape.layers)
        ]
    llama = "BitnetForCausalLM" if b1_58 else "LlamaForCausalLM"
    return {
        "architectures": ["BitNetForCausalLM" if bitnet else llama],
        "model_type": "bitnet" if bitnet else "llama",
        "hidden_size": shape.dim,
        "intermediate_size": shape.ffn_dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": model.activation,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": model.rope_scaling,
        "max_position_embeddings": shape.context,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": model.tied,
        "attention_bias": False,
        "bos_token_id": specials.bos,
        "eos_token_id": eos,
        "torch_dtype": _stored_as(model),
        **declared,
    }


_QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
# What the configs of other graphs than Llama's say, by family.
_GRAPHS: Mapping[str, Mapping[str, Any]] = {
    families.BONSAI.name: _QWEN3,
    families.EMBEDDING_QWEN3.name: {"architectures": ["Qwen3Model"], "model_type": "qwen3"},
    families.EMBEDDING_GEMMA3.name: {
        "architectures": ["Gemma3TextModel"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "rope_local_base_freq": 10000.0,
    },
    families.BITCPM.name: {
        "architectures": ["MiniCPMForCausalLM"],
        "model_type": "minicpm",
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 256,
    },
}


def _generation_config(model: Published) -> dict[str, Any]:
    specials = _SPECIALS[model.specials]
    found: dict[str, Any] = {"bos_token_id": specials.bos, "eos_token_id": specials.eos}
    if model.family == "bitnet":
        found |= {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096}
    return found


def _tokenizer_config(model: Published, shape: Shape) -> dict[str, Any]:
    specials = _SPECIALS[model.specials]
    eos = specials.eos[0] if isinstance(specials.eos, list) else specials.eos
    found: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": specials.tokens[eos],
        "model_max_length": shape.context,
    }
    if specials.bos is not None:
        found["bos_token"] = specials.tokens[specials.bos]
    if model.family == "bitnet":
        found["chat_template"] = _TEMPLATE_2B4T
    return found


LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_characters() -> list[str]:
    """GPT-2's printable character for each byte: Latin-1 where it prints, else from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def made_up_merges(count: int) -> list[tuple[str, str]]:
    """`count` merges that give distinct pieces: words of lower-case letters, with or without a
    space before them, shortest first, each a known piece and one more letter."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges: list[tuple[str, str]] = []
    words = ["Ġ", *letters]
    while len(merges) < count:
        words = [word + letter for word in words for letter in letters]
        merges += [(word[:-1], word[-1]) for word in words[: count - len(merges)]]
    return merges


def byte_level_tokenizer(
    vocab: int,
    specials: Mapping[int, str],
    bos: int | None,
    merges: Sequence[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE in the Llama-3 structure, for the `tokenizers` package.

    vocab:    ids 0 to vocab - 1, all used.
    specials: id -> text of added tokens. Those at the end of the vocabulary are added to it as in
              Llama-3; those within it are also pieces of the model, as in Falcon3.
    bos:      the special token put before every text, if any.
    merges:   one for each id that is neither byte nor special; made up when None.
    """
    pieces = vocab
    while pieces - 1 in specials:
        pieces -= 1
    inner = {token: text for token, text in specials.items() if token < pieces}
    count = pieces - len(inner) - 256
    if count < 0:
        raise BitnetcError("vocab", f"{vocab} has no room for 256 bytes and the special tokens")
    merges = made_up_merges(count) if merges is None else merges[:count]
    if len(merges) < count:
        raise BitnetcError("vocab", f"{vocab} needs {count} merges, given {len(merges)}")
    # Llama-3's order of single bytes: the printable ones first
    alphabet = sorted(byte_characters())
    contents = iter([*alphabet, *(left + right for left, right in merges)])
    model_vocab = {}
    for token in range(pieces):
        model_vocab[inner[token] if token in inner else next(contents)] = token
    added = [
        {
            "id": token,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, text in sorted(specials.items())
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    after: dict[str, Any] = byte_level
    if bos is not None:
        text = specials[bos]
        first = {"SpecialToken": {"id": text, "type_id": 0}}
        template = {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                first,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": text, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}},
        }
        after = {"type": "Sequence", "processors": [byte_level, template]}
    split = {
        "type": "Split",
        "pattern": {"Regex": LLAMA3_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": after,
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": model_vocab,
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }
