"""Plan x PackedTensors -> Bundle: the folder that builds without bitnetc.

Templates receive decisions and make none; every number and name they print is computed here.
Equal inputs give equal bytes: no dates, host names or paths.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import numpy as np

from bitnetc import __version__, resources
from bitnetc.memory import STATE_BYTES, Memory
from bitnetc.model import ChatParts, ChatTemplate, Model, Strip
from bitnetc.pack import Slot, group_fields, pack, slots, tokenizer_tables
from bitnetc.plan import Group, Plan, plan_json
from bitnetc.reference import attention_scale
from bitnetc.tokenizer import Tokenizer

ABI = 1  # BNC_RUNTIME_ABI of the runtime that templates are written for

# What of runtime_c every bundle carries; kernels are added by the plan.
_RUNTIME = (
    "bnc_attention.h",
    "bnc_chat.h",
    "bnc_cpu.h",
    "bnc_dense.h",
    "bnc_lanes.h",
    "bnc_layouts.h",
    "bnc_linear.h",
    "bnc_main.c",
    "bnc_math.h",
    "bnc_quantise.h",
    "bnc_runtime.h",
    "bnc_sampler.h",
    "bnc_threads.c",
    "bnc_threads.h",
    "bnc_tokenizer.c",
    "bnc_tokenizer.h",
    "bnc_unicode.h",
)

# The functions of the library that the program calls.
_FUNCTIONS = (
    "arena_bytes",
    "init",
    "close",
    "reset",
    "rewind",
    "eval",
    "eval_all",
    "sample",
    "is_eos",
    "scratch_bytes",
    "tokenize",
    "piece",
)

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


@dataclass(frozen=True)
class Bundle:
    """Path -> content for the small files; the large ones as streams, made when written."""

    name: str  # C identifier: symbols, program and library are called after it
    files: dict[str, bytes]
    streams: dict[str, Callable[[], Iterator[bytes]]]
    stream_bytes: dict[str, int]


@cache
def environment() -> jinja2.Environment:
    """The one Jinja environment."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def identifier(name: str) -> str:
    """A model's name as a C identifier: 'bitnet-b1.58-2B-4T' -> 'bitnet_b1_58_2b_4t'."""
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model"
    return f"m_{word}" if word[0].isdigit() else word


def emit(plan: Plan, model: Model, name: str) -> Bundle:
    """All files of the bundle except manifest.json, which needs the streams' hashes."""
    places = slots(plan, model)
    tables = tokenizer_tables(model)
    weights_bytes = places[-1].offset + places[-1].bytes
    context = _context(plan, model, name, places, weights_bytes, len(tables))
    files = {
        "CMakeLists.txt": _render("CMakeLists.txt.jinja", context),
        f"include/{name}.h": _render("model.h.jinja", context),
        "src/model.c": _render("model.c.jinja", context),
        "src/state.h": _render("state.h.jinja", context),
        "src/step.c": _render("step.c.jinja", context),
        "src/weights.h": _render("weights.h.jinja", context),
        "src/weights.S": _render("weights.S.jinja", context),
        "src/all.c": _render("all.c.jinja", context),
        "src/main.c": _render("main.c.jinja", context),
        "src/tokenizer.bin": tables,
        "plan.json": _json(plan_json(plan, model)),
        "LICENSES/MIT.txt": resources.LICENSE.read_bytes(),
    }
    for path in (*_RUNTIME, *(kernel.header for kernel in plan.kernels)):
        files[f"runtime/{path}"] = (resources.RUNTIME / path).read_bytes()
    return Bundle(
        name=name,
        files=files,
        streams={"src/weights.bin": lambda: _weights(plan, model)},
        stream_bytes={"src/weights.bin": weights_bytes},
    )


def manifest(plan: Plan, model: Model, hashes: dict[str, str]) -> bytes:
    """manifest.json: what the bundle was made from and what it holds.

    hashes: sha256 of every file of the bundle, by path.
    """
    inputs = [
        {"file": s.path.name, "bytes": s.bytes, "sha256": _file_hash(s)} for s in model.sources
    ]
    return _json(
        {
            "bitnetc": __version__,
            "runtime_abi": ABI,
            "model": model.name,
            "family": model.family,
            "target": plan.target.name,
            "notes": list(model.notes),
            "inputs": inputs,
            "files": dict(sorted(hashes.items())),
        }
    )


def _file_hash(source: Any) -> str:
    with open(source.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _render(template: str, context: dict[str, Any]) -> bytes:
    return environment().get_template(template).render(context).encode()


def _weights(plan: Plan, model: Model) -> Iterator[bytes]:
    """weights.bin in order, gaps filled with zeros."""
    position = 0
    for slot, content in pack(plan, model):
        yield bytes(slot.offset - position)
        position = slot.offset
        for chunk in content:
            yield chunk
            position += len(chunk)
        assert position == slot.offset + slot.bytes, slot


def _context(
    plan: Plan, model: Model, name: str, places: list[Slot], weights_bytes: int, table_bytes: int
) -> dict[str, Any]:
    shape, memory = plan.shape, plan.memory
    at = {(slot.block, slot.name): slot.offset for slot in places}
    fields = _fields(plan, model)
    dense = {"f32": "BNC_F32", "f16": "BNC_F16", "bf16": "BNC_BF16"}
    return {
        "version": __version__,
        "abi": ABI,
        "name": name,
        "prefix": name.upper(),
        "title": re.sub(r'[^ -~]|["\\]', "?", model.name),
        "model": model,
        "target": plan.target,
        "plan": plan,
        "shape": shape,
        "memory": memory,
        "kernels": plan.kernels,
        "constants": _constants(plan),
        "norm_eps": c_float(model.norm_eps),
        "attention_scale": c_float(float(attention_scale(shape.head_dim))),
        "buffers": _buffers(memory),
        "state_bytes": STATE_BYTES,
        "groups": _group_views(plan),
        "embedding_type": dense[model.embedding.dtype],
        "head_type": dense[model.head.dtype],
        "head_at": "AT_EMBEDDING" if model.tied else "AT_HEAD",
        "head_bytes": model.head.rows * model.head.cols * model.head.bytes_per_value,
        "eos_test": " || ".join(f"token == {e}" for e in model.eos) or "0 * token",
        "cpu_checks": [f for f in plan.target.features if f != "neon"],
        "functions": _FUNCTIONS,
        "chat": _chat_view(model.chat, model.tokenizer) if model.chat else None,
        "weights_bytes": weights_bytes,
        "tokenizer_bytes": table_bytes,
        "whole": commented(
            (
                f"static const uint64_t AT_{s.name.upper()} = {s.offset};",
                f"{s.layout} {_by(s.shape)}",
            )
            for s in places
            if s.block is None
        ),
        "fields": commented((f"uint64_t {field};", meaning) for field, meaning in fields),
        "blocks": [[at[i, field] for field, _ in fields] for i in range(shape.layers)],
    }


def commented(lines: Iterable[tuple[str, str]]) -> list[str]:
    """Statements with their comments in one column."""
    found = list(lines)
    width = max(len(statement) for statement, _ in found)
    return [f"{statement:{width}} /* {comment} */" for statement, comment in found]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _buffers(memory: Memory) -> list[str]:
    places = sorted(memory.offsets.items(), key=lambda o: (o[1], o[0]))
    lines = [(f"AT_{b.upper()} = {at},", memory.buffers[b].meaning) for b, at in places]
    lines.append((f"AT_THREADS = {memory.fixed_bytes}", "scratch of each thread, then the cache"))
    return commented(lines)


def _constants(plan: Plan) -> list[str]:
    s = plan.shape
    constants = [
        ("DIM", s.dim, "width of the residual stream"),
        ("FFN_DIM", s.ffn_dim, "width between gate/up and down"),
        ("HEADS", s.heads, "query heads"),
        ("KV_HEADS", s.kv_heads, f"key/value heads, each shared by {s.heads // s.kv_heads}"),
        ("HEAD_DIM", s.head_dim, "width of one head"),
        ("HEAD_STRIDE", -(-s.head_dim // 16) * 16, "the same, as it lies in the cache"),
        ("Q_DIM", s.q_dim, "HEADS * HEAD_DIM"),
        ("KV_DIM", s.kv_dim, "KV_HEADS * HEAD_DIM"),
        ("VOCAB", s.vocab, "rows of the embedding"),
        ("BATCH", plan.batch, "most tokens in one step"),
        ("STRIDE", plan.stride, "columns between two quantised tokens"),
    ]
    return commented((f"{name} = {value},", meaning) for name, value, meaning in constants)


def c_float(value: float) -> str:
    """The shortest C literal that reads back as exactly float32(value)."""
    text = str(np.float32(value))
    return (text if "." in text or "e" in text else text + ".0") + "f"


def _group_views(plan: Plan) -> list[dict[str, Any]]:
    views = []
    for i, group in enumerate(plan.groups):
        only = len(plan.groups) == 1
        views.append(
            {
                "first": group.first,
                "last": group.last,
                "matrices": group.matrices,
                "function": "block" if only else f"block_{i}",
                "prefix": "" if only else f"block_{i}_",
                "title": _title(group),
            }
        )
    return views


def _title(group: Group) -> str:
    if group.first == group.last:
        return f"Block {group.first}."
    return f"Blocks {group.first} to {group.last}: one shape, one plan."


def _fields(plan: Plan, model: Model) -> list[tuple[str, str]]:
    """Members of the block table with their meaning; all blocks have the same ones."""
    group, shape = plan.groups[0], plan.shape
    meanings = {
        "attn_norm": f"[{shape.dim}]",
        "attn_sub_norm": f"[{shape.q_dim}]",
        "ffn_norm": f"[{shape.dim}]",
        "ffn_sub_norm": f"[{shape.ffn_dim}]",
    }
    fields = []
    for field in group_fields(group, model.blocks[0]):
        if field in meanings:
            fields.append((field, meanings[field]))
        elif field.endswith("_scale"):
            m = group.matrices[field.removesuffix("_scale")]
            fields.append((field, f"[{m.rows}]" if m.per_row else "[1]"))
        else:
            m = group.matrices[field]
            fields.append((field, f"{m.padded_rows} x {m.padded_cols}, {m.kernel.layout_name}"))
    return fields


_STRIP = {
    Strip.NONE: "0",
    Strip.LEFT: "BNC_CHAT_LEFT",
    Strip.RIGHT: "BNC_CHAT_RIGHT",
    Strip.BOTH: "BNC_CHAT_LEFT | BNC_CHAT_RIGHT",
}


def _chat_view(chat: ChatTemplate, tokenizer: Tokenizer) -> dict[str, Any]:
    places = {
        "head": chat.head,
        "system_head": chat.system_head,
        "system_user": chat.system_user,
        "user_assistant": chat.user_assistant,
        "assistant_user": chat.assistant_user,
        "generation": chat.generation,
    }
    return {
        "places": {place: _chat_parts(parts, tokenizer) for place, parts in places.items()},
        "takes_system": int(chat.takes_system),
        "strip_system": _STRIP[chat.strip_system],
        "strip_user": _STRIP[chat.strip_user],
        "strip_assistant": _STRIP[chat.strip_assistant],
    }


def _chat_parts(parts: ChatParts, tokenizer: Tokenizer) -> str:
    """Elements of an array of struct bnc_chat_part; a long text is several."""
    lines = []
    for part in parts:
        if isinstance(part, int):
            shown = tokenizer.pieces[part].decode("utf-8", "replace")
            shown = re.sub(r"[^ -~]|[*][/]|/(?=[*])", "?", shown)
            lines.append(f"    BNC_CHAT_TOKEN({part}), /* {shown} */")
        else:
            for piece in re.findall(rb"[^\n]{1,60}\n*|\n+", part):
                lines.append(f"    BNC_CHAT_TEXT({c_string(piece)}),")
    return "\n".join(lines)


def c_string(text: bytes) -> str:
    """A C string literal of exactly these bytes; each byte that is not plain has three digits."""
    named = {ord("\n"): "\\n", ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
    shown = (named.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text)
    return '"' + "".join(shown) + '"'
