"""Plan x PackedTensors -> Bundle: the folder that builds without bitnetc.

Templates receive decisions and make none; every number and name they print is computed here.
Equal inputs give equal bytes: no dates, host names or paths.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from bitnetc import __version__, resources
from bitnetc.kernels import Kernel
from bitnetc.memory import CHUNK, STATE_BYTES, Memory
from bitnetc.model import Block, ChatParts, ChatTemplate, Model, Shape, Strip
from bitnetc.pack import (
    Slot,
    group_fields,
    pack,
    rope_names,
    slots,
    tokenizer_tables,
    vector,
)
from bitnetc.plan import Group, Plan, plan_json
from bitnetc.reference import attention_scale
from bitnetc.tokenizer import Tokenizer
from bitnetc.totals import PROGRAM_BYTES, sparse_bytes, totals_json
from bitnetc.weights_file import (
    FAR_BYTES,
    HEADER_BYTES,
    Weights,
    WeightsFile,
    check,
    header,
    identity,
)

ABI = 1  # BNC_RUNTIME_ABI of the runtime that templates are written for
API = 2  # of the functions and types in NAME.h: part of NAME_ABI

# What of runtime_c every bundle carries; kernels are added by the plan.
_RUNTIME = (
    "bnc_amx.h",
    "bnc_assembler.h",
    "bnc_attention.h",
    "bnc_attention_batch.h",
    "bnc_attention_split.h",
    "bnc_bf12.h",
    "bnc_cache.h",
    "bnc_chat.h",
    "bnc_columns.h",
    "bnc_cpu.h",
    "bnc_dense.h",
    "bnc_float_linear.h",
    "bnc_graph.h",
    "bnc_huge.h",
    "bnc_lanes.h",
    "bnc_layouts.h",
    "bnc_linear.h",
    "bnc_main.c",
    "bnc_main_bench.h",
    "bnc_main_chat.h",
    "bnc_main_embed.h",
    "bnc_main_options.h",
    "bnc_main_session.h",
    "bnc_main_weights.h",
    "bnc_math.h",
    "bnc_os.h",
    "bnc_quantise.h",
    "bnc_rows.h",
    "bnc_runtime.h",
    "bnc_sampler.h",
    "bnc_screen.h",
    "bnc_streams.h",
    "bnc_thread_os.h",
    "bnc_threads.c",
    "bnc_threads.h",
    "bnc_tokenizer.c",
    "bnc_tokenizer.h",
    "bnc_unicode.h",
    "bnc_utf8.h",
)

# For weights that are not in the program.
_DETACHED = ("bnc_map.h", "bnc_sha256.h", "bnc_weights.h")

# What stands for the first where there is no operating system.
_HOSTED = (
    "bnc_chat.h",
    "bnc_cpu.h",
    "bnc_huge.h",
    "bnc_main.c",
    "bnc_main_bench.h",
    "bnc_main_chat.h",
    "bnc_main_embed.h",
    "bnc_main_options.h",
    "bnc_main_session.h",
    "bnc_map.h",
    "bnc_os.h",
)
_FREESTANDING = (
    "freestanding/bnc_firmware.c",
    "freestanding/bnc_semihosting.h",
    "freestanding/bnc_start.c",
    "freestanding/string.h",
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
    "logits",
    "sample",
    "generate",
    "options",
    "check",
    "error",
    "is_eos",
    "scratch_bytes",
    "tokenize",
    "piece",
)

_TEXTS_FUNCTIONS = ("embed_texts",)
_ZEROS_FUNCTIONS = ("count_zeros",)
_EXACT_FUNCTIONS = ("exact_rows",)
_DETACHED_FUNCTIONS = ("init_weights", "check_weights")
_VARIANT_FUNCTIONS = ("variant_name", "variant_runs", "use_variant")

Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


@dataclass(frozen=True)
class Bundle:
    """Path -> content for the small files; the large ones as streams, made when written."""

    name: str  # C identifier: symbols, program and library are called after it
    files: dict[str, bytes]
    streams: dict[str, Callable[[], Iterator[bytes]]]
    stream_bytes: dict[str, int]
    weights_file: WeightsFile | None = None  # which of the streams is one


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


def emit(
    plan: Plan,
    model: Model,
    name: str,
    web: bool = False,
    weights: Weights = "binary",
    python: bool = False,
) -> Bundle:
    """All files of the bundle except those that need the streams' hashes, as manifest.json does.

    web: the build makes web/NAME.wasm, too; bitnetc/web.py has the rest of the page.
    weights: where the program has them. Raises BitnetcError when the target does not allow that.
    python: the build makes python/, too: a module over the library as a shared one.
    """
    places = slots(plan, model)
    tables = tokenizer_tables(model)
    weights_bytes = places[-1].offset + places[-1].bytes
    check(plan, weights, weights_bytes)
    detached = weights != "binary"
    far = not detached and weights_bytes >= FAR_BYTES and _reaches_far(plan)
    context = _context(plan, model, name, places, weights_bytes, len(tables)) | {
        "web": web,
        "python": python,
        "detached": detached,
        "weights_beside": weights == "file",
        "weights_file_bytes": HEADER_BYTES + weights_bytes,
        "far": far,
        "weights_symbol": "0" if detached else f"{name}_weights{'_at' if far else ''}",
        "example_init": f"{name}_init(arena, sizeof arena, 512, 1)",
    }
    declared = _declared(name, weights_bytes, len(tables), far, detached, web)
    context["whole"] = [*declared, "", *context["whole"]]
    context["units"] = [
        "variants.c" if context["variants"] else "step.c",
        *("model.c", "generate.c"),
        *(("texts.c",) if model.pooling else ()),
        "facts.c",
        *(("detached.c",) if detached else ()),
    ]
    if detached:
        given = f"{name}_init_weights(arena, sizeof arena, 512, 1, weights, weights_bytes)"
        context["example_init"] = given
        kept = (f for f in context["functions"] if f != "init")
        context["functions"] = (*kept, *_DETACHED_FUNCTIONS)
    files = {
        f"include/{name}.h": _render("model.h.jinja", context),
        "src/model.c": _render("model.c.jinja", context),
        "src/generate.c": _render("generate.c.jinja", context),
        **({"src/texts.c": _render("texts.c.jinja", context)} if model.pooling else {}),
        "src/facts.c": _render("facts.c.jinja", context),
        "src/state.h": _render("state.h.jinja", context),
        "src/step.c": _render("step.c.jinja", context),
        "src/weights.h": _render("weights.h.jinja", context),
        "src/weights.S": _render("weights.S.jinja", context),
        "src/all.c": _render("all.c.jinja", context),
        "src/tokenizer.bin": tables,
        "plan.json": _json(plan_json(plan, model) | {"totals": totals_json(plan, model)}),
        "LICENSES/MIT.txt": resources.LICENSE.read_bytes(),
    }
    runtime: tuple[str, ...] = _RUNTIME
    if detached:
        files["src/detached.c"] = _render("detached.c.jinja", context)
        runtime = (*_RUNTIME, *_DETACHED)
    if python:
        files[f"python/{name}.py"] = _render("python/module.py.jinja", context)
    if far:
        files["src/weights.ld"] = _render("weights.ld.jinja", context)
    if plan.target.firmware:
        context["firmware"] = plan.target.firmware
        runtime = (*(f for f in runtime if f not in _HOSTED), *_FREESTANDING)
        files["src/link.ld"] = _render("freestanding/link.ld.jinja", context)
    for variant in context["variants"]:
        view = context | {"variant": variant}
        files[f"src/step_{variant['identifier']}.c"] = _render("step_variant.c.jinja", view)
        files["src/variants.c"] = _render("variants.c.jinja", context)
    for path in ("CMakeLists.txt", "src/main.c"):
        name_of = ("freestanding/" if plan.target.firmware else "") + Path(path).name
        files[path] = _render(f"{name_of}.jinja", context)
    for path in (*runtime, *_kernel_headers(kernel.header for kernel in plan.kernels)):
        files[f"runtime/{path}"] = (resources.RUNTIME / path).read_bytes()
    title = f"{model.name} for {plan.target.name}, {plan.context} positions"
    path = f"share/{name}.weights" if detached else "src/weights.bin"
    return Bundle(
        name=name,
        files=files,
        streams={path: lambda: _weights(plan, model)},
        stream_bytes={path: weights_bytes},
        weights_file=WeightsFile(
            path,
            lambda digest: header(digest, weights_bytes, title),
            lambda digest: identity(digest, name),
        )
        if detached
        else None,
    )


def _kernel_headers(headers: Iterable[str]) -> list[str]:
    """Headers of kernels, and those of other kernels that they build on."""
    found: dict[str, None] = {}
    left = list(headers)
    while left:
        header = left.pop()
        found[header] = None
        text = (resources.RUNTIME / header).read_text()
        for name in re.findall(r'^#include "(.+)"', text, re.MULTILINE):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(header), name))
            if path.startswith("kernels/") and path not in found:
                left.append(path)
    return sorted(found)


def _declared(
    name: str, weights: int, tables: int, far: bool, detached: bool, web: bool
) -> list[str]:
    """How weights.h declares the data: of `weights` and `tables` bytes."""
    lines = [f"extern const uint8_t {name}_tokenizer[{tables}];"]
    if far:
        what = f"{weights} bytes, out of the reach of code"
        lines.insert(0, f"extern const uint8_t *const {name}_weights_at; /* {what} */")
    elif not detached:
        lines.insert(0, f"extern const uint8_t {name}_weights[{weights}];")
    if not web:
        return lines
    return [
        "#ifdef BNC_WEB /* the page's module has neither: bnc_web_start() says where they are */",
        f"extern const uint8_t *{name}_weights, *{name}_tokenizer;",
        "#else",
        *lines,
        "#endif",
    ]


def _reaches_far(plan: Plan) -> bool:
    """Whether the target's linkers take sections that code cannot reach: ELF of 64 bits."""
    return plan.target.system == "linux" and not plan.target.narrow


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
    head, embedding = plan.own_head, plan.embedding
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
        "chunk": CHUNK,
        "stack_bytes": plan.stack_bytes,
        "program_bytes": PROGRAM_BYTES,
        "sparse_bytes": sparse_bytes(places, model),
        "header_abi": _header_abi(plan, model, weights_bytes, table_bytes),
        "kernels": plan.kernels,
        "permits": sorted(
            {k.permit for k in plan.kernels if k.permit and not plan.target.variants}
        ),
        "variants": _variant_views(plan, name),
        "constants": _constants(plan),
        "norm_eps": c_float(model.norm_eps),
        "attention_scale": c_float(float(attention_scale(model.score_dim or shape.head_dim))),
        "graph": _graph_view(plan, model),
        "buffers": _buffers(memory),
        "head_stride": _head_stride(shape),
        "state_bytes": STATE_BYTES[plan.target.threads],
        "groups": _group_views(plan),
        "ends": {
            "embedding": embedding,
            "head": head,
            "embedding_type": f"BNC_{embedding.dtype.upper()}",
            "head_type": f"BNC_{head.dtype.upper()}",
            "head_at": "AT_EMBEDDING" if model.tied else "AT_HEAD",
            "integers": plan.head,
            "screened": plan.screened,
            "exact_stride": plan.exact_stride,
            "lut": plan.head is not None and plan.head.kernel.activation == "lut16",
        },
        # What a step reads by entries of a list that is among the weights.
        "bf12_lists": [
            (slot.name, embedding if slot.name == "embedding" else head)
            for slot in places
            if slot.layout == "bf12"
        ],
        "head_bytes": plan.head_read_bytes if plan.head else head.bytes,
        "exact_rows": plan.counts_exact,
        "eos_test": " || ".join(f"token == {e}" for e in model.eos) or "0 * token",
        "cpu_checks": [f for f in plan.target.features if f not in ("neon", "dsp", "rv64m")],
        "skipped": {skips: plan.skipped_bytes(skips) for skips in ("rows", "columns")},
        "functions": _FUNCTIONS
        + _ZEROS_FUNCTIONS * plan.counts_zeros
        + _EXACT_FUNCTIONS * plan.counts_exact
        + _VARIANT_FUNCTIONS * bool(plan.target.variants)
        + _TEXTS_FUNCTIONS * bool(model.pooling),
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
        "blocks": [_block_row(model, at, fields, i) for i in range(shape.layers)],
    }


def _header_abi(plan: Plan, model: Model, weights_bytes: int, table_bytes: int) -> str:
    """A number for what NAME.h says: other constants, types or functions give another one."""
    memory, sampling = plan.memory, model.sampling
    said = [
        *(API, model.kv, plan.shape.vocab, plan.shape.dim, plan.context, plan.batch),
        *(weights_bytes, table_bytes, memory.fixed_bytes, memory.acc_bytes, memory.row_bytes),
        *(memory.score_bytes, memory.score_bytes_per_position, memory.cache_bytes_per_position),
        *(memory.shared_bytes_per_position, memory.shared_bytes_per_chunk),
        *(plan.stack_bytes, sampling.temperature, sampling.top_k, sampling.top_p),
    ]
    digest = hashlib.sha256(repr(said).encode()).digest()
    return f"0x{int.from_bytes(digest[:4]) >> 1:08X}"


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
    lines.append(
        (f"AT_THREADS = {memory.fixed_bytes}", "scratch of each thread, what they share, the cache")
    )
    return commented(lines)


def _head_stride(shape: Shape) -> int:
    """A head's width in the cache: whole groups of sixteen lanes."""
    return -(-shape.head_dim // 16) * 16


def _constants(plan: Plan) -> list[str]:
    s = plan.shape
    constants = [
        ("DIM", s.dim, "width of the residual stream"),
        ("FFN_DIM", s.ffn_dim, "width between gate/up and down"),
        ("HEADS", s.heads, "query heads"),
        ("KV_HEADS", s.kv_heads, f"key/value heads, each shared by {s.heads // s.kv_heads}"),
        ("HEAD_DIM", s.head_dim, "width of one head"),
        ("CACHE_ROW", plan.memory.cache_row_bytes // 2, "16-bit words of a head in the cache"),
        ("Q_DIM", s.q_dim, "HEADS * HEAD_DIM"),
        ("KV_DIM", s.kv_dim, "KV_HEADS * HEAD_DIM"),
        ("VOCAB", s.vocab, "rows of the embedding"),
        ("BATCH", plan.batch, "most tokens in one step"),
        ("ATTEND_TOKENS", plan.memory.attend_tokens, "those that attend together"),
        ("STRIDE", plan.stride, "columns between two quantised tokens"),
    ]
    if "act_f" in plan.memory.buffers:
        size = plan.memory.buffers["act_f"].bytes // (4 * plan.batch * plan.inputs)
        constants.append(("FLOAT_STRIDE", size, "columns between two tokens of floats"))
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
                "floats": group.floats,
                "function": "block" if only else f"block_{i}",
                "prefix": "" if only else f"block_{i}_",
                "title": _title(group),
            }
        )
    return views


def _variant_views(plan: Plan, name: str) -> list[dict[str, Any]]:
    return [
        {
            "name": variant.name,
            "identifier": variant.identifier,
            "step": f"{name}_step_{variant.identifier}",
            "flags": variant.flags,
            "kernels": plan.variant_kernels(i),
            "functions": _kernel_macros(plan.variant_kernels(i)),
            "test": " && ".join(f"bnc_has_{feature}()" for feature in variant.features) or "1",
        }
        for i, variant in enumerate(plan.target.variants)
    ]


def _kernel_macros(kernels: list[Kernel]) -> list[tuple[str, str]]:
    """What step.c calls a variant's kernels, and what they are."""
    found = [(f"MATMUL_{k.layout_name.upper()}", k.symbol) for k in kernels]
    for kernel in kernels:
        if kernel.skips == "rows":
            layout = kernel.layout_name.upper()
            found.append((f"ROWS_{layout}", kernel.rows_symbol))
            found += [(f"EACH_{layout}", str(kernel.each)), (f"ONCE_{layout}", str(kernel.once))]
    return found


def _title(group: Group) -> str:
    if group.first == group.last:
        return f"Block {group.first}."
    return f"Blocks {group.first} to {group.last}: one shape, one plan."


def _graph_view(plan: Plan, model: Model) -> dict[str, Any]:
    """What of the forward pass differs between graphs: see macros/block.jinja."""
    block, names = model.blocks[0], {name for name, _ in _fields(plan, model)}
    constants = []
    if model.sub_norm_eps is not None:
        line = f"static const float SUB_NORM_EPS = {c_float(model.sub_norm_eps)};"
        constants.append((line, "of norms before a matrix"))
    if model.embedding_scale != 1:
        line = f"static const float EMBEDDING_SCALE = {c_float(model.embedding_scale)};"
        constants.append((line, "of a token's vector"))
    return {
        "fields": names,
        "inputs": plan.inputs,
        "static": model.static_activations,
        "floats": "act_f" in plan.memory.buffers,
        "zeros": plan.counts_zeros,
        "post": block.attn_post_norm is not None,
        "ropes": "rope" in names,
        "windows": "window" in names,
        "texts": model.pooling is not None,
        "shared": "m->shared" if plan.memory.shared_bytes_per_position else "0",
        "starts": "m->vectors ? m->starts : 0" if model.pooling else "0",
        "score_dim": "HEAD_DIM" if model.score_dim is None else f"{model.score_dim:g}",
        "units": model.ffn_units if block.ffn_sub_norm is not None else None,
        "sub_eps": "NORM_EPS" if model.sub_norm_eps is None else "SUB_NORM_EPS",
        "embedding_scale": model.embedding_scale != 1,
        "constants": commented(constants) if constants else [],
    }


def _block_row(
    model: Model, at: dict[tuple[int | None, str], int], fields: list[tuple[str, str]], i: int
) -> list[int]:
    """A block's line of the table; 0 for what other blocks have and it has not."""
    block = model.blocks[i]
    own = {"rope": at[None, rope_names(model)[block.rope]], "window": block.window}
    return [own[field] if field in own else at.get((i, field), 0) for field, _ in fields]


def _fields(plan: Plan, model: Model) -> list[tuple[str, str]]:
    """Members of the block table with their meaning: whatever some block has."""
    fields: dict[str, str] = {}
    for group in plan.groups:
        block = model.blocks[group.first]
        for field in group_fields(group, block):
            fields.setdefault(field, _meaning(group, block, field))
    found = list(fields.items())
    if len(model.ropes) > 1:
        found.append(("rope", "the table that its heads are turned by"))
    if any(block.window for block in model.blocks):
        found.append(("window", "positions that attention sees; 0: all"))
    return found


def _meaning(group: Group, block: Block, field: str) -> str:
    if field in group.matrices:
        m = group.matrices[field]
        return f"{m.padded_rows} x {m.padded_cols}, {m.kernel.layout_name}"
    if field in group.floats:
        f = group.floats[field]
        return f"{_by(f.shape)}, {f.dtype}"
    return "[" + "][".join(map(str, vector(block, field).shape)) + "]"


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
