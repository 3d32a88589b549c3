"""Writes GGUF files: small ones by hand, and a tiny checkpoint of tests/checkpoints as one.

    write_gguf(tmp_path / "tiny.gguf", tiny_checkpoint(), "I2_S")

Independent of the reader: every packing is written here element by element from its published
description.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import TinyCheckpoint
from numpy.typing import NDArray

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
_CODES = {
    U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q",
    I64: "q", F64: "d",
}  # fmt: skip
TYPE_NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "BF16": 30,
    "TQ1_0": 34, "TQ2_0": 35, "I2_S": 36, "I8_S": 37, "TL1": 38, "TL2": 39, "Q1_0": 41, "Q2_0": 42,
    "Q2_0 (128)": 42, "IQ1_BN": 134, "IQ2_BN": 135, "PQ2_0": 142, "PTQ1_0": 143, "IQ2_BN_R4": 335,
    "I2_S (64)": 36, "I2_S (rows4)": 36,
}  # fmt: skip

Tensors = dict[str, tuple[str | int, tuple[int, ...], bytes]]  # name -> type, [rows, cols], data
Trits = NDArray[np.int8]
Scales = NDArray[np.float32]


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: Any) -> bytes:
    """A value with its type before it; an array is (type of its elements, list)."""
    if kind == TEXT:
        return struct.pack("<I", kind) + text(content)
    if kind == ARRAY:
        inner, items = content
        head = struct.pack("<IIQ", kind, inner, len(items))
        if inner == TEXT:
            return head + b"".join(text(item) for item in items)
        return head + struct.pack(f"<{len(items)}{_CODES[inner]}", *items)
    return struct.pack("<I" + _CODES[kind], kind, content)


def guessed(content: Any) -> bytes:
    """A value of the type that converters choose for it."""
    if isinstance(content, bytes):  # already a value
        return content
    if isinstance(content, bool):
        return value(BOOL, content)
    if isinstance(content, int):
        return value(U32, content)
    if isinstance(content, float):
        return value(F32, content)
    if isinstance(content, str):
        return value(TEXT, content)
    return value(ARRAY, (TEXT if isinstance(content[0], str) else I32, content))


def gguf_bytes(
    metadata: Mapping[str, Any], tensors: Tensors, alignment: int = 32, version: int = 3
) -> bytes:
    """A GGUF file; data in the order of `tensors`, each padded to the alignment."""
    out = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    out += [text(key) + guessed(content) for key, content in metadata.items()]
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        number = TYPE_NUMBERS[kind] if isinstance(kind, str) else kind
        out.append(text(name) + struct.pack("<I", len(shape)))
        out.append(struct.pack(f"<{len(shape)}Q", *shape[::-1]))
        out.append(struct.pack("<IQ", number, len(data)))
        data += raw + bytes(-len(raw) % alignment)
    head = b"".join(out)
    return head + bytes(-len(head) % alignment) + data


# --- packing: trits [rows, cols] and multipliers [1] or [rows] -> bytes ---------------------------


def _group_scales(trits: Trits, scales: Scales, groups: int) -> list[list[float]]:
    """A multiplier for each of `groups` groups of each row."""
    each = scales if scales.ndim == 2 else scales[:, None]
    wide = np.repeat(each, groups // each.shape[1], axis=1)
    found: list[list[float]] = np.broadcast_to(wide, (len(trits), groups)).tolist()
    return found


def _row_scales(trits: Trits, scales: Scales) -> list[float]:
    return [float(scales[row if len(scales) > 1 else 0]) for row in range(len(trits))]


def i2_s(trits: Trits, scales: Scales, group: int = 128) -> bytes:
    flat = (trits + 1).reshape(-1).tolist()
    lanes = group // 4
    out = bytearray(len(flat) // 4)
    for block in range(len(flat) // group):
        for j in range(group):
            out[block * lanes + j % lanes] |= flat[block * group + j] << (6 - 2 * (j // lanes))
    assert len(scales) == 1
    return bytes(out) + struct.pack("<f", scales[0]) + bytes(28)


def i2_s_rows4(trits: Trits, scales: Scales) -> bytes:
    rows, cols = trits.shape
    out = bytearray(rows * cols // 4)
    for m in range(rows):
        for k in range(cols):
            out[m // 4 * cols + k] |= int(trits[m, k] + 1) << (6 - 2 * (m % 4))
    return bytes(out) + struct.pack("<f", scales[0]) + bytes(28)


def tq2_0(trits: Trits, scales: Scales) -> bytes:
    out = b""
    for row, d in zip(trits, _row_scales(trits, scales), strict=True):
        for block in row.reshape(-1, 256):
            codes = bytearray(64)
            for e, trit in enumerate(block.tolist()):
                codes[32 * (e // 128) + e % 32] |= (trit + 1) << (2 * (e % 128 // 32))
            out += bytes(codes) + struct.pack("<e", d)
    return out


def _fraction(trits: list[int]) -> int:
    """Up to five trits, first most significant, as a fraction of 256."""
    number = 0
    for trit in [*trits, -1, -1, -1, -1, -1][:5]:
        number = 3 * number + trit + 1
    return -(-number * 256 // 243)


def tq1_0(trits: Trits, scales: Scales) -> bytes:
    out = b""
    for row, d in zip(trits, _row_scales(trits, scales), strict=True):
        for block in row.reshape(-1, 256):
            b = block.tolist()
            codes = [_fraction([b[m + 32 * n] for n in range(5)]) for m in range(32)]
            codes += [_fraction([b[160 + m + 16 * n] for n in range(5)]) for m in range(16)]
            codes += [_fraction([b[240 + m + 4 * n] for n in range(4)]) for m in range(4)]
            out += bytes(codes) + struct.pack("<e", d)
    return out


def ptq1_0(trits: Trits, scales: Scales) -> bytes:
    out = b""
    for row, d in zip(trits, _row_scales(trits, scales), strict=True):
        for block in row.reshape(-1, 128):
            b = block.tolist()
            codes = [_fraction([b[m + 16 * n] for n in range(5)]) for m in range(16)]
            codes += [_fraction([b[80 + m + 8 * n] for n in range(5)]) for m in range(8)]
            codes += [_fraction([b[120 + m + 2 * n] for n in range(4)]) for m in range(2)]
            out += bytes(codes) + struct.pack("<e", d)
    return out


def iq2_bn(trits: Trits, scales: Scales) -> bytes:
    out = b""
    for row, d in zip(trits, _row_scales(trits, scales), strict=True):
        out += struct.pack("<f", d)
        for block in (row.reshape(-1, 64) + 1).tolist():
            out += bytes(
                block[j] | block[16 + j] << 2 | block[32 + j] << 4 | block[48 + j] << 6
                for j in range(16)
            )
    return out


def iq2_bn_r4(trits: Trits, scales: Scales) -> bytes:
    d = _row_scales(trits, scales)
    out = b""
    for first in range(0, len(trits), 4):
        out += struct.pack("<4f", *d[first : first + 4])
        rows = (trits[first : first + 4] + 1).tolist()
        for begin in range(0, trits.shape[1], 64):
            codes = bytearray(64)
            for k in range(4):
                for c in range(64):
                    lane, p, i = c // 16, c // 4 % 4, c % 4
                    codes[16 * lane + 4 * k + i] |= rows[k][begin + c] << (2 * p)
            out += bytes(codes)
    return out


def iq1_bn(trits: Trits, scales: Scales) -> bytes:
    def byte(codes: list[int]) -> int:
        return -(-sum(code * 3**j for j, code in enumerate(codes)) * 256 // 243)

    out = b""
    for row, d in zip(trits, _row_scales(trits, scales), strict=True):
        out += struct.pack("<e", d)
        for block in (row.reshape(-1, 64) + 1).tolist():
            out += bytes(
                byte(block[16 * i + 5 * k : 16 * i + 5 * k + 5]) for i in range(4) for k in range(3)
            )
            out += bytes([byte([block[16 * i + 15] for i in range(4)])])
    return out


def q2_0(trits: Trits, scales: Scales, group: int = 64) -> bytes:
    out = b""
    multipliers = _group_scales(trits, scales, trits.shape[1] // group)
    for row, each in zip(trits, multipliers, strict=True):
        for block, d in zip((row.reshape(-1, group) + 1).tolist(), each, strict=True):
            out += struct.pack("<e", d)
            out += bytes(
                sum(block[4 * j + i] << (2 * i) for i in range(4)) for j in range(group // 4)
            )
    return out


def q1_0(trits: Trits, scales: Scales) -> bytes:
    out = b""
    multipliers = _group_scales(trits, scales, trits.shape[1] // 128)
    for row, each in zip(trits, multipliers, strict=True):
        for block, d in zip((row.reshape(-1, 128) > 0).tolist(), each, strict=True):
            out += struct.pack("<e", d)
            out += bytes(sum(block[8 * j + i] << i for i in range(8)) for j in range(16))
    return out


# Tiles of TL1 and TL2 for every shape of one_model in test_gguf: rows, columns -> bm, bk, bmm.
TL1_TILES = {
    (256, 256): (128, 64, 64), (128, 256): (64, 128, 32), (512, 256): (256, 128, 32),
    (256, 512): (64, 256, 16),
}  # fmt: skip
TL2_TILES = {
    (256, 256): (128, 96, 32), (128, 256): (64, 96, 32), (512, 256): (256, 96, 32),
    (256, 512): (64, 192, 32),
}  # fmt: skip


def kernel_config(tiles: Mapping[tuple[int, int], tuple[int, int, int]]) -> str:
    """The file that BitNet's engine is built with."""
    return "".join(
        f"[Kernels_{i}]\nm = {m}\nk = {k}\nbm = {bm}\nbk = {bk}\nbmm = {bmm}\n\n"
        for i, ((m, k), (bm, bk, bmm)) in enumerate(tiles.items())
    )


def _hidden_scale(codes: bytes, scale: float) -> bytes:
    """Padding, then the multiplier that the table of tensors does not count."""
    return codes + bytes(-len(codes) % 32) + struct.pack("<f", scale) + bytes(28)


def tl1(trits: Trits, scales: Scales, tile: tuple[int, int, int] | None = None) -> bytes:
    rows, cols = trits.shape
    bm, bk, bmm = tile or TL1_TILES[rows, cols]
    by = 256 // bmm
    out = bytearray(rows * cols // 4)
    values = trits.tolist()
    for r in range(rows):
        t0, r1 = divmod(r, bm)
        t2, r2 = divmod(r1, bmm)
        t4, lane = divmod(r2, 16)
        for c in range(0, cols, 2):
            t1, cr = divmod(c, bk)
            t3, kk = divmod(cr // 2, by // 2)
            t5, half = divmod(kk, 2)
            group = (((t0 * (cols // bk) + t1) * (bm // bmm) + t2) * (bk // by) + t3) * (bmm // 16)
            byte = 16 * ((group + t4) * (by // 4) + t5) + lane
            code = 3 * values[r][c] + values[r][c + 1] + 4
            out[byte] |= code << (0 if half else 4)
    return _hidden_scale(bytes(out), scales[0])


def tl2(trits: Trits, scales: Scales, tile: tuple[int, int, int] | None = None) -> bytes:
    rows, cols = trits.shape
    bm, bk, _ = tile or TL2_TILES[rows, cols]
    narrow = cols % bk
    wide = cols - narrow
    triples, signs = bytearray(rows * wide // 6), bytearray(rows * wide // 24)
    pairs = bytearray(rows * narrow // 4)
    values = trits.tolist()
    for r in range(rows):
        t0, r1 = divmod(r, bm)
        t2, r2 = divmod(r1, 32)
        lane = (0, 2, 1, 3)[r2 // 8] * 8 + r2 % 8
        for c in range(0, wide, 3):
            a, b, d = values[r][c : c + 3]
            v = 9 * a + 3 * b + d
            t1, cr = divmod(c, bk)
            piece = (t0 * (wide // bk) + t1) * (bm // 32) + t2
            t3, h = divmod(cr, 6)
            triples[(piece * (bk // 6) + t3) * 32 + lane] |= abs(v) << (4 if h < 3 else 0)
            g, q = divmod(cr, 24)
            bit = 15 - (2 * (q // 3) + r2 // 16)
            word = (piece * (bk // 24) + g) * 16 + r2 % 16
            signs[2 * word + bit // 8] |= (v < 0) << (bit % 8)
        for c in range(wide, cols, 2):
            t1, cr = divmod(c - wide, 32)
            t3, h = divmod(cr, 4)
            byte = (((t0 * (narrow // 32) + t1) * (bm // 32) + t2) * 8 + t3) * 32 + lane
            pairs[byte] |= (3 * values[r][c] + values[r][c + 1] + 4) << (4 if h < 2 else 0)
    # the writer counts 256 columns as pairs, whatever the tiles
    stored = int((cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8)
    codes = bytes(triples + signs + pairs)
    return _hidden_scale(codes + bytes(stored - len(codes)), scales[0])


PACK: Mapping[str, Callable[[Trits, Scales], bytes]] = {
    "I2_S": i2_s,
    "I2_S (64)": lambda trits, scales: i2_s(trits, scales, 64),
    "I2_S (rows4)": i2_s_rows4,
    "TQ1_0": tq1_0,
    "TQ2_0": tq2_0,
    "IQ1_BN": iq1_bn,
    "IQ2_BN": iq2_bn,
    "IQ2_BN_R4": iq2_bn_r4,
    "Q2_0": q2_0,
    "Q2_0 (128)": lambda trits, scales: q2_0(trits, scales, 128),
    "PQ2_0": lambda trits, scales: q2_0(trits, scales, 128),
    "PTQ1_0": ptq1_0,
    "Q1_0": q1_0,
    "TL1": tl1,
    "TL2": tl2,
}


# --- a checkpoint as GGUF ------------------------------------------------------------------------

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "self_attn.inner_attn_ln": "attn_sub_norm",
    "mlp.ffn_layernorm": "ffn_sub_norm",
    "self_attn.q_proj.norm": "attn_q_norm_in",
    "self_attn.k_proj.norm": "attn_k_norm_in",
    "self_attn.v_proj.norm": "attn_v_norm_in",
    "self_attn.o_proj.norm": "attn_output_norm_in",
    "mlp.gate_proj.norm": "ffn_gate_norm_in",
    "mlp.up_proj.norm": "ffn_up_norm_in",
    "mlp.down_proj.norm": "ffn_down_norm_in",
}
# Where Gemma's graph means something else by a name, or has more.
_GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, gemma: bool = False) -> str:
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight"""
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        name = "model." + name
    prefix, (inner, _, kind) = "", name.rpartition(".")
    if inner.startswith("model.layers."):
        layer, inner = inner.removeprefix("model.layers.").split(".", 1)
        prefix = f"blk.{layer}."
    names = {**_NAMES, **_GEMMA_NAMES} if gemma else _NAMES
    return f"{prefix}{names[inner]}.{kind}"


def permuted(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """llama.cpp's order of query and key rows: of a head, half * hd / 2 + j goes to 2j + half."""
    head_dim = len(rows) // heads
    out = np.empty_like(rows)
    for head in range(heads):
        for half in range(2):
            for j in range(head_dim // 2):
                out[head * head_dim + 2 * j + half] = rows[
                    head * head_dim + half * head_dim // 2 + j
                ]
    return out


def gguf_metadata(tiny: TinyCheckpoint, architecture: str) -> dict[str, Any]:
    """The keys a converter writes."""
    config, tokenizer = tiny.config, tiny.tokenizer
    tokens = dict(tokenizer["model"]["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens |= special
    ordered = sorted(tokens, key=lambda piece: tokens[piece])
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    prefix = architecture + "."
    metadata = {
        "general.architecture": architecture,
        "general.name": "tiny",
        "general.file_type": 40,
        prefix + "vocab_size": config["vocab_size"],
        prefix + "block_count": config["num_hidden_layers"],
        prefix + "embedding_length": config["hidden_size"],
        prefix + "feed_forward_length": config["intermediate_size"],
        prefix + "context_length": config["max_position_embeddings"],
        prefix + "attention.head_count": heads,
        prefix + "attention.head_count_kv": config["num_key_value_heads"],
        prefix + "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        prefix + "rope.dimension_count": head_dim,
        prefix + "rope.freq_base": config["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": ordered,
        "tokenizer.ggml.token_type": [3 if piece in special else 1 for piece in ordered],
        "tokenizer.ggml.merges": list(tokenizer["model"]["merges"]),
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.add_bos_token": True,
        "general.quantization_version": 2,
    }
    return metadata


def sentencepiece_metadata(vocab: int) -> dict[str, Any]:
    """A Llama-2 vocabulary: control tokens, 256 bytes, letters, and pieces of two of them."""
    letters = "\u2581abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(a + b for a in letters for b in letters)][: vocab - 259]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [
            "<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces
        ],
        "tokenizer.ggml.scores": value(ARRAY, (F32, scores)),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }  # fmt: skip


def character_metadata(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """The vocabulary of a tokenizer.json of characters as BitNet's converter writes Gemma's: scores
    are ranks of merges, a list still to be written as `value(ARRAY, (F32, scores))`."""
    vocab, scores = tokenizer["model"]["vocab"], {}
    for rank, pair in enumerate(tokenizer["model"]["merges"]):
        scores.setdefault("".join(pair), -float(rank))
    special = {token["content"] for token in tokenizer["added_tokens"]}
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    kinds = [3 if piece in special else 6 if piece.startswith("<0x") else 1 for piece in pieces]
    ranked = [-1000.0 if piece in special else scores.get(piece, 0.0) for piece in pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": ranked,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": vocab["<bos>"],
        "tokenizer.ggml.eos_token_id": vocab["<eos>"],
    }  # fmt: skip


def gguf_tensors(tiny: TinyCheckpoint, packing: str, architecture: str) -> Tensors:
    """Ternary matrices in `packing`, everything else in its own float type; "floats": all of it."""
    tensors: Tensors = {}
    config = tiny.config
    for name, (dtype, shape, data) in tiny.tensors.items():
        if name.endswith("_scale"):
            continue
        if architecture == "llama" and name.endswith(("q_proj.bias", "k_proj.bias")):
            query = ".q_proj." in name
            words = np.frombuffer(data, np.uint32 if dtype == "F32" else np.uint16)
            data = permuted(
                words, config["num_attention_heads" if query else "num_key_value_heads"]
            ).tobytes()
        if name not in tiny.trits or packing == "floats":
            tensors[gguf_name(name, architecture == "gemma3")] = (dtype, shape, data)
            continue
        trits, scales = tiny.trits[name], tiny.scales[name]
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            query = ".q_proj." in name
            heads = config["num_attention_heads" if query else "num_key_value_heads"]
            trits = permuted(trits, heads)
            scales = permuted(scales, heads) if len(scales) > 1 else scales
        tensors[gguf_name(name)] = (packing, trits.shape, PACK[packing](trits, scales))
    return tensors


def write_gguf(
    path: Path,
    tiny: TinyCheckpoint,
    packing: str = "I2_S",
    architecture: str = "bitnet-b1.58",
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> None:
    """Writes one GGUF file. metadata, tensors: entries to set; None removes one."""
    keys = {**gguf_metadata(tiny, architecture), **(metadata or {})}
    contents = {**gguf_tensors(tiny, packing, architecture), **(tensors or {})}
    path.write_bytes(
        gguf_bytes(
            {key: content for key, content in keys.items() if content is not None},
            {name: entry for name, entry in contents.items() if entry is not None},
        )
    )
