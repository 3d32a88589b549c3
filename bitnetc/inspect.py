"""inspect: what a checkpoint file is, what it holds, and whether it can be compiled.

Quick on large files: a few layers go through `normalise`, the others are compared with them by the
names and shapes in the headers; zeros are counted in a sample, and the report says so.
Whatever cannot be compiled is still described as far as its container can be read.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc import families
from bitnetc.checkpoint import Checkpoint, I2sLayout, Tensor, read
from bitnetc.checkpoint.fields import shown
from bitnetc.checkpoint.look import Look, look
from bitnetc.checkpoint.tensor import FloatTensor, TernaryTensor
from bitnetc.errors import BitnetcError
from bitnetc.model import Dense, FfnActivation, Integers, Model, Ternary
from bitnetc.normalise import as_masters, normalise

SAMPLED_LAYERS = 3  # first, middle and last
SAMPLED_WEIGHTS = 1 << 28  # whose zeros are counted, at most
_LAYER = re.compile(r"^((?:model\.)?layers\.|blk\.)(\d+)\.(.+)$")


@dataclass(frozen=True)
class Matrix:
    """One role of the blocks, over all sampled layers."""

    role: str
    rows: int
    cols: int
    stored: str  # "ternary" or the type of its floats
    scales: str  # "per matrix", "per row", "32 a row"
    scale_low: float
    scale_high: float
    zeros: float | None  # fraction; None where nothing was counted


@dataclass(frozen=True)
class Report:
    """compiles: whether `normalise` takes it; problem: why not, in one line, else empty."""

    path: Path
    look: Look
    compiles: bool
    problem: str
    family: str = ""
    evidence: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the structure, in order
    parameters: int = 0
    ternary_parameters: int = 0
    packed_bytes: int = 0  # of the trits at 2 bits, and everything else as stored
    matrices: tuple[Matrix, ...] = ()
    zeros: float | None = None
    counted_weights: int = 0
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    chat: str = ""
    sampling: str = ""
    assumed: tuple[str, ...] = ()


def inspect(
    path: Path | str,
    *,
    i2s_layout: I2sLayout = "128",
    ffn_activation: FfnActivation | None = None,
    masters: bool = False,
) -> Report:
    """Describes what is at `path`. Errors: nothing is there, or it cannot be opened at all.

    masters: its matrices are float masters, whatever it does not say
    """
    path = Path(path)
    seen = look(path, i2s_layout)
    try:
        checkpoint = read(path, i2s_layout=i2s_layout)
        if masters:
            checkpoint = as_masters(checkpoint)
        name = path.resolve().name
        try:
            thin = _thinned(checkpoint) if _uniform(checkpoint) else checkpoint
            model = normalise(thin, name, ffn_activation=ffn_activation)
        except BitnetcError:
            # the whole checkpoint, so that the message names layers as the file does
            model = normalise(checkpoint, name, ffn_activation=ffn_activation)
    except BitnetcError as error:
        return Report(path, seen, False, str(error))
    return _describe(path, seen, checkpoint, model)


def _layers_of(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """layer -> name below it -> tensor"""
    found: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        part = _LAYER.match(name)
        if part and len(part[2]) < 6:
            found[int(part[2])][part[3]] = tensor
    return found


def _uniform(checkpoint: Checkpoint) -> bool:
    """Whether all layers that the config counts are there and alike by names and shapes.

    Types are not compared: published files mix them between layers.
    """
    layers = _layers_of(checkpoint.tensors)
    count = checkpoint.config.get("num_hidden_layers")
    if type(count) is not int or count > 1 << 12 or sorted(layers) != list(range(count)):
        return False
    shapes = [{name: tensor.shape for name, tensor in layer.items()} for layer in layers.values()]
    return all(each == shapes[0] for each in shapes)


def _thinned(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with some of its layers only, numbered anew."""
    count = checkpoint.config.get("num_hidden_layers")
    if type(count) is not int or count <= SAMPLED_LAYERS or count > 1 << 12:
        return checkpoint
    kept = [0, count // 2, count - 1]
    place = {layer: i for i, layer in enumerate(kept)}
    tensors: dict[str, Tensor] = {}
    for name, tensor in checkpoint.tensors.items():
        part = _LAYER.match(name)
        if not part or len(part[2]) > 5:
            tensors[name] = tensor
        elif int(part[2]) in place:
            anew = f"{part[1]}{place[int(part[2])]}.{part[3]}"
            tensors[anew] = replace(tensor, name=anew) if tensor.name == name else tensor
    config = {
        key: [value[layer] for layer in kept]
        if isinstance(value, list) and len(value) == count
        else value
        for key, value in checkpoint.config.items()
    }
    config["num_hidden_layers"] = len(kept)
    return replace(checkpoint, config=config, tensors=tensors)


def _describe(path: Path, seen: Look, checkpoint: Checkpoint, model: Model) -> Report:
    count = checkpoint.config.get("num_hidden_layers", len(model.blocks))
    ternary, others = _parameters(model, count)
    matrices, zeros, counted = _matrices(model)
    shape = model.shape
    facts: dict[str, Any] = {
        "layers": count,
        "width": shape.dim,
        "feed-forward width": shape.ffn_dim,
        "query heads": shape.heads,
        "key/value heads": shape.kv_heads,
        "head width": shape.head_dim,
        "vocabulary": shape.vocab,
        "context": shape.context,
        "activation": model.ffn_activation,
        "rope theta": model.rope_theta,
        "norm epsilon": model.norm_eps,
        "head": "tied to the embedding" if model.tied else "its own",
        "embedding stored as": _stored(model.embedding),
        "ternary inputs": _inputs(model),
    }
    packed = ternary // 4 + others[1]
    return Report(
        path=path,
        look=seen,
        compiles=True,
        problem="",
        family=model.family,
        evidence=_evidence(checkpoint, model),
        facts=facts,
        parameters=ternary + others[0],
        ternary_parameters=ternary,
        packed_bytes=packed,
        matrices=matrices,
        zeros=zeros,
        counted_weights=counted,
        tokenizer=_tokenizer(model),
        chat="a template that programs follow" if model.chat else "none that programs follow",
        sampling=_sampling(model),
        assumed=tuple(note.replace(str(path) + ": ", "") for note in model.notes),
    )


def _inputs(model: Model) -> str:
    if model.float_activations:
        return "float"
    if model.static_activations:
        return "int8 by stated scales"
    codes = {"int8": "int8", "signs": "signs (1 bit)", "trits": "-1, 0 and 1 (3 levels)"}
    return f"{codes[model.activations]} per token"


def _stored(matrix: Ternary | Integers | Dense) -> str:
    if isinstance(matrix, Integers):
        return f"int{matrix.bits}"
    return matrix.dtype if isinstance(matrix, Dense) else "ternary"


def _parts(model: Model) -> list[tuple[str, Ternary | Integers | Dense | NDArray[Any]]]:
    """Fields of all blocks that hold weights."""
    found = []
    for block in model.blocks:
        for role, value in vars(block).items():
            if isinstance(value, Ternary | Integers | Dense | np.ndarray):
                found.append((role, value))
    return found


def _ends(model: Model) -> dict[str, Ternary | Dense]:
    return {"embedding": model.embedding} | ({} if model.tied else {"head": model.head})


def _parameters(model: Model, layers: int) -> tuple[int, tuple[int, int]]:
    """Ternary parameters, and (number, bytes) of all others, in all layers."""
    ternary, others, size = 0, 0, 0
    share = layers / max(1, len(model.blocks))
    for role, value in _parts(model):
        if role.endswith("_input"):
            continue  # a scale, as weights have them
        if isinstance(value, Ternary):
            ternary += value.rows * value.cols
        elif isinstance(value, Dense):
            others += value.rows * value.cols
            size += value.rows * value.cols * value.bytes_per_value
        elif isinstance(value, Integers):
            others += value.rows * value.cols
            size += value.rows * value.cols * value.bits // 8
        else:
            others += value.size
            size += 4 * value.size
    ternary, others, size = round(ternary * share), round(others * share), round(size * share)
    for end in _ends(model).values():
        if isinstance(end, Ternary):
            ternary += end.rows * end.cols
        else:
            others += end.rows * end.cols
            size += end.rows * end.cols * end.bytes_per_value
    return ternary, (others + model.shape.dim, size + 4 * model.shape.dim)


def _matrices(model: Model) -> tuple[tuple[Matrix, ...], float | None, int]:
    """Roles in order; zeros are counted in the middle layer first, while the sample lasts."""
    by_role: dict[str, list[Ternary | Integers | Dense]] = defaultdict(list)
    for role, value in _parts(model):
        if isinstance(value, Ternary | Integers | Dense):
            by_role[role].append(value)
    for role, end in _ends(model).items():
        if isinstance(end, Ternary):
            by_role[role].append(end)
    zeros: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    order = sorted(range(len(model.blocks)), key=lambda i: abs(i - len(model.blocks) // 2))
    for at, i in enumerate(order):
        for role, values in by_role.items():
            # matrices that are not of blocks come last, with the last of the blocks
            own = len(values) == len(model.blocks) and role in vars(model.blocks[0])
            last = 0 if at + 1 == len(order) and not own else None
            place = i if own else last
            matrix = values[place] if place is not None else None
            if not isinstance(matrix, Ternary):
                continue
            size = matrix.rows * matrix.cols
            if counted.total() and counted.total() + size > SAMPLED_WEIGHTS:
                continue
            trits = matrix.load()
            zeros[role] += size - int(np.count_nonzero(trits))
            counted[role] += size
    found = []
    for role, values in by_role.items():
        first = values[0]
        scales = [v.scale for v in values if not isinstance(v, Dense)]
        flat = np.concatenate([s.reshape(-1) for s in scales]) if scales else np.zeros(1)
        a_row = first.groups if isinstance(first, Ternary) else 0
        per = "per matrix" if scales and scales[0].size == 1 else "per row"
        found.append(
            Matrix(
                role,
                first.rows,
                first.cols,
                ", ".join(dict.fromkeys(_stored(v) for v in values)),
                (per if a_row <= 1 else f"{a_row} a row") if scales else "",
                float(flat.min()),
                float(flat.max()),
                zeros[role] / counted[role] if counted[role] else None,
            )
        )
    total = counted.total()
    return tuple(found), zeros.total() / total if total else None, total


def _evidence(checkpoint: Checkpoint, model: Model) -> tuple[str, ...]:
    """What made the reader take the model for what it says."""
    found: list[str] = []
    names: dict[str, str] = {}
    for name in checkpoint.tensors:
        names.setdefault(families.without_layer(name), name)
        # some are published without the first word
        names.setdefault(families.without_layer("model." + name), name)
    known = families.GGUF_FAMILIES if checkpoint.container == "gguf" else families.FAMILIES
    family = next((f for f in known if f.name == model.family), None)
    if family:
        mark = next((e for e in family.evidence if e in names), None)
        if mark:
            found.append(f"it holds {names[mark]}")
    quant = checkpoint.config.get("quantization_config")
    if isinstance(quant, dict) and checkpoint.container == "folder":
        parts = [f"{key} {shown(value)[:40]}" for key, value in quant.items() if value is not None]
        found.append("quantization_config: " + ", ".join(parts[:4]).replace('"', ""))
    elif checkpoint.config.get("weight_bits") is not None:
        found.append(f"weight_bits {shown(checkpoint.config['weight_bits'])}")
    if "architecture" in checkpoint.config:
        found.append(f"general.architecture {shown(checkpoint.config['architecture'])}")
    kinds = Counter(
        tensor.dtype for tensor in checkpoint.tensors.values() if isinstance(tensor, TernaryTensor)
    )
    if kinds:
        found.append("ternary tensors: " + ", ".join(f"{n} {k}" for k, n in kinds.most_common(4)))
    coded = [t.dtype for t in checkpoint.tensors.values() if isinstance(t, FloatTensor)]
    if coded:
        found.append("widened to float32: " + ", ".join(sorted(set(coded))))
    if checkpoint.interleaved:
        found.append("rows of query and key heads are put back from interleaved order")
    return tuple(found)


def _tokenizer(model: Model) -> dict[str, Any]:
    t = model.tokenizer
    specials = [token for token in t.added if token.special]
    pattern = {"llama3": f"Llama-3's, up to {t.max_digits} digits", "gpt2": "GPT-2's"}
    if t.max_digits > 99:
        pattern["llama3"] = "Llama-3's, any digits"
    words = [pattern[t.pattern]] if t.pattern in pattern else []
    cuts = len(t.before) + len(t.after)
    words += [f"{cuts} set{'s' * (cuts > 1)} of characters"] if cuts else []

    def named(ids: tuple[int, ...]) -> str:
        if not ids:
            return "none"
        return " ".join(f"{t.pieces[i].decode('utf-8', 'replace')!r} ({i})" for i in ids[:6])

    return {
        "kind": "BPE of characters with bytes to fall back on" if t.fallback else "byte-level BPE",
        "pieces": t.vocab,
        "merges": len(t.merges),
        "added tokens": f"{len(t.added)}, {len(specials)} of them special",
        "words are cut by": " and ".join(words) or "nothing: a text is one word",
        "before a text": named(t.prefix),
        "after a text": named(t.suffix),
        "ends an answer": named(model.eos),
    }


def _sampling(model: Model) -> str:
    s = model.sampling
    if not s.temperature:
        return "greedy"
    parts = [f"temperature {s.temperature:g}"]
    parts += [f"top-k {s.top_k}"] if s.top_k else []
    parts += [f"top-p {s.top_p:g}"] if s.top_p < 1 else []
    return ", ".join(parts)


def report_json(report: Report) -> dict[str, Any]:
    """The report for programs: plain values only."""
    seen = report.look
    return {
        "path": str(report.path),
        "container": seen.container,
        "what": seen.what,
        "bytes": seen.size,
        "files": [{"name": name, "bytes": size} for name, size in seen.files],
        "compiles": report.compiles,
        "problem": report.problem or None,
        "warnings": list(seen.warnings),
        "family": report.family or None,
        "evidence": list(report.evidence),
        "structure": dict(report.facts),
        "parameters": report.parameters or None,
        "ternary_parameters": report.ternary_parameters or None,
        "packed_bytes": report.packed_bytes or None,
        "zero_fraction": report.zeros,
        "zero_fraction_of_weights": report.counted_weights,
        "matrices": [vars(matrix) for matrix in report.matrices],
        "tensors": [
            {"type": kind, "tensors": count, "bytes": size} for kind, count, size in seen.types
        ],
        "known": dict(seen.known),
        "tokenizer": dict(report.tokenizer),
        "chat": report.chat or None,
        "sampling": report.sampling or None,
        "assumed": list(report.assumed),
    }
