"""Writes a GGUF file with random weights for engines to be measured beside a compiled program.

    bitnetc synth --like bitnet-b1.58-2b-4t -o shape
    python bench/peer_models.py shape --type IQ2_BN_R4 --head Q6_K -o iq2_bn_r4.gguf

The shape and the vocabulary are those of the checkpoint folder, its weights are not read: every
code and every block of the head is random, within what the type allows. So the file says how fast
an engine is, and nothing else. Only heads that share the embedding's matrix are written.
"""

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mistakes  # noqa: F401
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from gguf_files import TYPE_NUMBERS, guessed, text  # noqa: E402

Bytes = NDArray[np.uint8]
ALIGNMENT = 32
CHUNK = 1 << 22  # bytes made at a time


@dataclass(frozen=True)
class Block:
    """A float type's block: its weights, its bytes, and where it keeps float16 multipliers."""

    weights: int
    size: int
    scales: tuple[int, ...]


HEADS = {
    "Q4_0": Block(32, 18, (0,)),
    "Q4_K": Block(256, 144, (0, 2)),
    "Q6_K": Block(256, 210, (208,)),
    "Q8_0": Block(32, 34, (0,)),
    "F16": Block(1, 2, (0,)),
}
# Types of two bits a weight: multipliers before a row's codes, after each 256 codes, or at the end.
TERNARY = ("I2_S", "IQ2_BN", "IQ2_BN_R4", "TQ2_0")
# A byte of four codes 0 to 2, whatever order a layout has.
_FOUR = np.array([a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3)
                  for c in range(3) for d in range(3)], np.uint8)  # fmt: skip


def codes(random: np.random.Generator, count: int) -> Bytes:
    found: Bytes = _FOUR[random.integers(0, len(_FOUR), count, np.uint8)]
    return found


def ternary_bytes(random: np.random.Generator, kind: str, rows: int, cols: int) -> bytes:
    """One matrix of random trits, multiplied by about 1 / sqrt(cols)."""
    scale = cols**-0.5
    if kind == "I2_S":  # one multiplier, in a tail of 32 bytes
        return codes(random, rows * cols // 4).tobytes() + struct.pack("<f28x", scale)
    if kind == "TQ2_0":
        blocks = np.empty((rows * cols // 256, 66), np.uint8)
        blocks[:, :64] = codes(random, blocks.shape[0] * 64).reshape(-1, 64)
        blocks[:, 64:] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
        return blocks.tobytes()
    # One float32 a row before it; the interleaved type has those of four rows before the four.
    together = 4 if kind == "IQ2_BN_R4" else 1
    packed = np.empty((rows // together, together * (4 + cols // 4)), np.uint8)
    front = np.full(together, scale, "<f4").view(np.uint8)
    packed[:, : len(front)] = front
    body = packed[:, len(front) :]
    body[:] = codes(random, body.size).reshape(body.shape)
    return packed.tobytes()


def head_pieces(random: np.random.Generator, kind: str, rows: int, cols: int) -> Iterator[bytes]:
    """An embedding of random blocks, a few million bytes at a time."""
    block = HEADS[kind]
    left = rows * cols // block.weights
    while left:
        count = min(left, CHUNK // block.size)
        some = random.integers(0, 256, (count, block.size), np.uint8)
        for at in block.scales:
            values = random.uniform(0.001, 0.004, count).astype(np.float16)
            some[:, at : at + 2] = values.view(np.uint8).reshape(-1, 2)
        yield some.tobytes()
        left -= count


def metadata(
    config: dict[str, Any], tokenizer: dict[str, Any], architecture: str
) -> dict[str, Any]:
    """What the engines' own converters write."""
    model = tokenizer["model"]
    names = dict(model["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    names |= special
    pieces = sorted(names, key=lambda piece: names[piece])[: config["vocab_size"]]
    pieces += [f"<unused {i}>" for i in range(len(pieces), config["vocab_size"])]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    heads = config["num_attention_heads"]
    own = {
        "vocab_size": config["vocab_size"],
        "block_count": config["num_hidden_layers"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "context_length": config["max_position_embeddings"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads", heads),
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": config.get("head_dim") or config["hidden_size"] // heads,
        "rope.freq_base": float(config.get("rope_theta", 10000.0)),
    }
    return {
        "general.architecture": architecture,
        "general.name": "random",
        "general.quantization_version": 2,
        **{f"{architecture}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [3 if piece in special else 1 for piece in pieces],
        "tokenizer.ggml.merges": merges or ["a b"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, rows first; vectors are norms."""
    dim, ffn = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    each = config.get("head_dim") or dim // heads
    keys = config.get("num_key_value_heads", heads) * each
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config["vocab_size"], dim),
        "output_norm.weight": (dim,),
    }
    for layer in range(config["num_hidden_layers"]):
        own = {
            "attn_norm": (dim,),
            "attn_q": (heads * each, dim),
            "attn_k": (keys, dim),
            "attn_v": (keys, dim),
            "attn_sub_norm": (heads * each,),
            "attn_output": (dim, heads * each),
            "ffn_norm": (dim,),
            "ffn_gate": (ffn, dim),
            "ffn_up": (ffn, dim),
            "ffn_sub_norm": (ffn,),
            "ffn_down": (dim, ffn),
        }
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in own.items()}
    return found


def stored(shape: tuple[int, ...], kind: str, head: str, name: str) -> tuple[int, int]:
    """Type number and bytes of a tensor in the file."""
    if len(shape) == 1:
        return TYPE_NUMBERS["F32"], 4 * shape[0]
    rows, cols = shape
    if name == "token_embd.weight":
        block = HEADS[head]
        if cols % block.weights:
            raise SystemExit(f"{head}: {cols} columns are not whole blocks of {block.weights}")
        return TYPE_NUMBERS[head], rows * cols // block.weights * block.size
    whole = {"I2_S": 128, "TQ2_0": 256}.get(kind, 64)
    if cols % whole:
        raise SystemExit(f"{kind}: {cols} columns are not whole blocks of {whole}")
    extra = {"I2_S": 32, "TQ2_0": rows * cols // 128}.get(kind, 4 * rows)
    return TYPE_NUMBERS[kind], rows * cols // 4 + extra


def write(file: BinaryIO, folder: Path, kind: str, head: str, architecture: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    keys, tensors = metadata(config, tokenizer, architecture), shapes(config)
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    for key, content in keys.items():
        file.write(text(key) + guessed(content))
    at = 0
    for name, shape in tensors.items():
        number, size = stored(shape, kind, head, name)
        file.write(text(name) + struct.pack("<I", len(shape)))
        file.write(struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", number, at))
        at += size + -size % ALIGNMENT
    random = np.random.default_rng(1)
    file.write(bytes(-file.tell() % ALIGNMENT))
    for name, shape in tensors.items():
        start = file.tell()
        if len(shape) == 1:
            file.write(np.ones(shape, "<f4").tobytes())
        elif name == "token_embd.weight":
            file.writelines(head_pieces(random, head, *shape))
        else:
            file.write(ternary_bytes(random, kind, *shape))
        assert file.tell() - start == stored(shape, kind, head, name)[1], name
        file.write(bytes(-file.tell() % ALIGNMENT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder: config.json, tokenizer.json")
    parser.add_argument("-o", dest="file", type=Path, required=True)
    parser.add_argument("--type", choices=TERNARY, required=True)
    parser.add_argument("--head", choices=HEADS, default="Q6_K")
    parser.add_argument("--arch", default="bitnet-b1.58", help="llama.cpp itself knows `bitnet`")
    given = parser.parse_args()
    try:
        with given.file.open("wb") as file:
            write(file, given.checkpoint, given.type, given.head, given.arch)
    except BaseException:
        given.file.unlink(missing_ok=True)  # no half of a file stays
        raise


if __name__ == "__main__":
    main()
