"""Every reader of files beside damaged files: a model or a BitnetcError, soon, in little memory.

    python tests/fuzz_readers.py --count 50000             # random mutations, every reader
    python tests/fuzz_readers.py --only onnx --seed 7
    python tests/fuzz_readers.py --coverage --count 50000  # guided by coverage, with atheris

What is taken is checked: a file that is impossible must not be taken in silence.
tests/unit/test_fuzz.py runs a slice of it, and keeps what it found.
"""

import argparse
import base64
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
COVERAGE = "--guided" in sys.argv
if COVERAGE:
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["bitnetc"]):
        import bitnetc.inspect
        import bitnetc.tokenizer.tables  # noqa: F401

import numpy as np  # noqa: E402
from checkpoints import (  # noqa: E402
    TinyCheckpoint,
    safetensors_bytes,
    tiny_checkpoint,
    tiny_tokenizer,
)

from bitnetc.checkpoint import read, safetensors  # noqa: E402
from bitnetc.errors import BitnetcError  # noqa: E402
from bitnetc.model import Dense, Model, Ternary, to_float32  # noqa: E402
from bitnetc.normalise import normalise  # noqa: E402
from bitnetc.tokenizer import parse_model, parse_ranks, parse_tokenizer  # noqa: E402
from bitnetc.tokenizer.tables import compile_tables  # noqa: E402

SECONDS = 5.0  # of CPU time that one file may take
MEMORY = 3 << 30  # bytes of address space beyond what is mapped at the start


@dataclass(frozen=True)
class Reader:
    """seeds: whole files; head: bytes of a seed that are worth changing; words: pieces to put in;
    take: reads a file, and checks what it took. Errors of take: BitnetcError only."""

    seeds: list[bytes]
    words: list[bytes]
    take: Callable[[Path, bytes], None]
    head: Callable[[bytes], int] = len


def small(**options: Any) -> TinyCheckpoint:
    return tiny_checkpoint(**{"dim": 32, "ffn_dim": 64, "layers": 1, "vocab": 270, **options})


def check_model(model: Model) -> None:
    """What every model holds, whatever it was read from."""
    for block in model.blocks:
        for name, value in vars(block).items():
            if isinstance(value, Ternary):
                trits = value.load()
                assert trits.shape == (value.rows, value.cols) and trits.dtype == np.int8, name
                assert np.abs(trits).max(initial=0) <= 1, name
                assert np.isfinite(value.scale).all() and (value.scale > 0).all(), name
                assert len(value.scale) in (1, value.rows), name
            elif isinstance(value, np.ndarray):
                assert np.isfinite(value).all(), name
    for end in (model.embedding, model.head):
        assert (end.rows, end.cols) == (model.shape.vocab, model.shape.dim)
        if isinstance(end, Dense):
            values = to_float32(end.load(), end.dtype)
            assert values.shape == (end.rows, end.cols) and np.isfinite(values).all()
    assert model.tokenizer.vocab <= model.shape.vocab
    assert all(0 <= token < model.shape.vocab for token in model.eos)


def replace_file(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # an earlier mapping must not see its file shrink
    path.write_bytes(content)


def folder_of(folder: Path, tiny: TinyCheckpoint) -> None:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps(tiny.config))
        (folder / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))


# --- the readers ---------------------------------------------------------------------------------


def safetensors_reader() -> Reader:
    import safetensors as official

    deserialize: Any = official.deserialize

    def take(folder: Path, content: bytes) -> None:
        path = folder / "x.safetensors"
        replace_file(path, content)
        found = safetensors.read(path)
        theirs = dict(deserialize(content))  # raises where it takes less than we do
        assert set(found) == set(theirs)
        for name, tensor in found.items():
            assert tensor.raw.tobytes() == bytes(theirs[name]["data"])
            assert list(tensor.shape) == list(theirs[name]["shape"])

    tiny = small()
    first = {"a": ("F32", (2, 3), bytes(24)), "b": ("U8", (4,), bytes(4)), "e": ("I64", (0,), b"")}
    seeds = [safetensors_bytes(first), safetensors_bytes(dict(list(tiny.tensors.items())[:6]))]
    words = [b'"dtype"', b'"shape"', b'"data_offsets"', b'"BF16"', b"[]", b"{}", b"-1", b"1e3",
             b"18446744073709551616", b"__metadata__", b"\\ud800"]  # fmt: skip
    return Reader(seeds, words, take, lambda seed: 8 + int.from_bytes(seed[:8], "little"))


def gguf_reader() -> Reader:
    from gguf_files import (
        gguf_bytes,
        gguf_metadata,
        gguf_tensors,
        kernel_config,
        sentencepiece_metadata,
    )

    sizes: dict[bytes, int] = {}
    for packing, architecture, options in (
        ("I2_S", "bitnet-b1.58", {"dim": 16, "ffn_dim": 32, "heads": 2}),
        ("IQ2_BN", "bitnet-25", {"dim": 64, "ffn_dim": 64}),
        ("I2_S", "bitnet", {"dim": 16, "ffn_dim": 32, "heads": 2, "kv_heads": 2}),
        ("TL1", "bitnet-b1.58", {"dim": 256, "ffn_dim": 512, "kv_heads": 2}),
        ("IQ1_BN", "llama", {"family": "llama-bitnet", "dim": 64, "ffn_dim": 64}),
    ):
        tiny = small(**options)
        metadata = gguf_metadata(tiny, architecture)
        if architecture == "bitnet":
            vocab = sentencepiece_metadata(270)
            metadata = {k: v for k, v in {**metadata, **vocab}.items() if v is not None}
        tensors = gguf_tensors(tiny, packing, architecture)
        whole = gguf_bytes(metadata, tensors)
        sizes[whole] = len(whole) - sum(len(data) for _, _, data in tensors.values())

    def take(folder: Path, content: bytes) -> None:
        from gguf_files import TL1_TILES

        if not (folder / "kernel_config.ini").exists():
            (folder / "kernel_config.ini").write_text(kernel_config(TL1_TILES))
        replace_file(folder / "x.gguf", content)
        check_model(normalise(read(folder / "x.gguf"), "x", ffn_activation="relu2"))

    words = [n.to_bytes(w, "little") for w in (4, 8) for n in (0, 8, 9, 31, 36, 38, 39, 42, 135)]
    words += [b"general.architecture", b"llama", b"tokenizer.ggml.pre", b"blk.0.attn_q.weight"]
    return Reader(list(sizes), words, take, lambda seed: sizes.get(seed, len(seed)))


def onnx_reader() -> Reader:
    from onnx_files import build

    tiny = small()

    def take(folder: Path, content: bytes) -> None:
        folder_of(folder, tiny)
        replace_file(folder / "x.onnx", content)
        check_model(normalise(read(folder / "x.onnx"), "x"))

    carriers = ("MatMulNBits-2", "DequantizeLinear-rows", "MatMulInteger", "floats")
    seeds = [build(tiny, carrier).SerializeToString() for carrier in carriers]
    words = [b"MatMulNBits", b"com.microsoft", b"DequantizeLinear", b"Transpose", b"q_proj",
             b"k_proj", b"block_size", b"bits", b"Round", b"Cast", b"Identity"]  # fmt: skip
    return Reader(seeds, words, take)


def pt_reader() -> Reader:
    import io

    import torch
    from torch_files import gpu_state

    tiny = small(heads=2)

    def saved(levels: bool) -> bytes:
        stream = io.BytesIO()
        torch.save(gpu_state(tiny, levels), stream)
        return stream.getvalue()

    def take(folder: Path, content: bytes) -> None:
        folder_of(folder, tiny)
        replace_file(folder / "x.pt", content)
        check_model(normalise(read(folder / "x.pt"), "x"))

    words = [b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem\n", b"PK\x01\x02", b"R.",
             b"PK\x03\x04", b"storage", b"data.pkl", b"\x85", b"q\x00", b"h\x01", b"(",
             b"Q"]  # fmt: skip
    return Reader([saved(False), saved(True)], words, take)


def tokenizer_json_reader() -> Reader:
    def take(folder: Path, content: bytes) -> None:
        check_tokenizer(parse_tokenizer(content, "tokenizer.json"))

    seeds = [json.dumps(tiny_tokenizer(270)).encode(), json.dumps(characters_document()).encode()]
    words = [b'"BPE"', b'"Metaspace"', b"null", b"true", b"[]", b'"byte_fallback"', b'"merges"',
             b'"Split"', b'"Sequence"', b'"NFC"', b"-1", b"1e9", b"\\u0000"]  # fmt: skip
    return Reader(seeds, words, take)


def characters_document() -> dict[str, Any]:
    """A tokenizer.json of SentencePiece's kind, as transformers writes it."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", *"abcde"]
    pieces += ["\u2581a", "ab", "\u2581ab"]
    mark = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    return {
        "added_tokens": [
            {"id": i, "content": pieces[i], "special": True, "normalized": False} for i in range(3)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                mark,
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": ["\u2581 a", "a b", "\u2581a b"],
        },
    }


def check_tokenizer(tokenizer: Any) -> None:
    """Whatever was taken can be compiled, and its ids are its own."""
    vocab = tokenizer.vocab
    assert (
        tokenizer.merges.size == 0 or 0 <= tokenizer.merges.min() <= tokenizer.merges.max() < vocab
    )
    assert all(0 <= token.id < vocab for token in tokenizer.added)
    assert all(0 <= token < vocab for token in (*tokenizer.prefix, *tokenizer.suffix))
    compile_tables(tokenizer)


def tokenizer_model_reader() -> Reader:
    from gguf_files import sentencepiece_metadata

    from bitnetc.tokenizer import write_model

    metadata = sentencepiece_metadata(300)
    texts = metadata["tokenizer.ggml.tokens"]
    types = metadata["tokenizer.ggml.token_type"]
    scores = [0.0] * 259 + [-float(i) for i in range(len(texts) - 259)]
    seed = write_model(texts, scores, types, space_prefix=True, bos=1, eos=2, unknown=0)

    def take(folder: Path, content: bytes) -> None:
        for added in ({}, {0: "<unk>", 1: "<s>", 2: "</s>", len(texts): "<pad>"}):
            check_tokenizer(parse_model(content, "tokenizer.model", added))

    return Reader([seed], [b"\x0a", b"\x12", b"\x1a", b"<0x00>", b"\xe2\x96\x81"], take)


def tiktoken_reader() -> Reader:
    pieces = [bytes([b]) for b in range(256)] + [b"ab", b"abc", b" a", b"the", b" th"]
    seed = b"".join(b"%s %d\n" % (base64.b64encode(p), i) for i, p in enumerate(pieces))

    def take(folder: Path, content: bytes) -> None:
        check_tokenizer(parse_ranks(content, "tokenizer.model", {}))

    return Reader([seed], [b"\n", b" ", b"=", b"YWI= 256", b"-1", b"99999999999"], take)


def config_reader() -> Reader:
    tinies = [small(), small(family="llama-bitnet"), small(family="bitnet_b1_58", kv_heads=4)]
    seeds = [json.dumps(tiny.config).encode() for tiny in tinies]

    def take(folder: Path, content: bytes) -> None:
        for i, tiny in enumerate(tinies):
            each = folder / str(i)
            if not each.exists():
                tiny.write(each)
            (each / "config.json").write_bytes(content)
        refused: list[BitnetcError] = []
        for i in range(len(tinies)):
            try:
                check_model(normalise(read(folder / str(i)), "x"))
            except BitnetcError as error:
                check_message(error)
                refused.append(error)
        if len(refused) == len(tinies):
            raise refused[0]

    words = [b"null", b"true", b"-1", b"0", b"1e400", b"[]", b"{}", b'"bitnet"', b'"online"',
             b'"bitlinear"', b'"rope_scaling"', b"NaN", b'"yarn"', b"65536", b"0.5"]  # fmt: skip
    return Reader(seeds, words, take)


READERS: dict[str, Callable[[], Reader]] = {
    "safetensors": safetensors_reader,
    "gguf": gguf_reader,
    "onnx": onnx_reader,
    "pt": pt_reader,
    "tokenizer.json": tokenizer_json_reader,
    "tokenizer.model": tokenizer_model_reader,
    "tiktoken": tiktoken_reader,
    "config.json": config_reader,
}


# --- mutation ------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 7, 8, 31, 32, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1,
           2**47, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def mutate(content: bytes, chance: random.Random, head: int, words: list[bytes]) -> bytes:
    """One change: a byte, a number, a word, a piece cut, doubled or moved, the end cut off."""
    at = chance.randrange(
        max(1, min(head, len(content)) if chance.random() < 0.9 else len(content))
    )
    kind = chance.randrange(9)
    if kind == 0:
        return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    if kind == 2:
        width = chance.choice([1, 2, 4, 8])
        raw = (chance.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")
        return content[:at] + raw + content[at + width :]
    if kind == 3:
        return content[:at] + content[at + chance.choice([1, 1, 2, 4, 8, 50]) :]
    if kind == 4:
        return content[:at] + content[at : at + chance.randrange(1, 60)] + content[at:]
    if kind == 5:
        word = chance.choice(words)
        return content[:at] + word + content[at + chance.choice([0, len(word)]) :]
    if kind == 6:
        size, to = chance.randrange(1, 40), chance.randrange(len(content))
        return content[:to] + content[at : at + size] + content[to + size :]
    if kind == 7:  # a number in text
        match = re.compile(rb"\d+").search(content, at)
        if not match:
            return content[:at]
        text = str(chance.choice([*NUMBERS, -1, 1.5])).encode()
        return content[: match.start()] + text + content[match.end() :]
    return content[: chance.randrange(len(content))]


def check_message(error: BitnetcError) -> None:
    text = str(error)
    assert "\n" not in text and len(text) < 1500 and text.isprintable(), repr(text)


def run_one(reader: Reader, folder: Path, content: bytes) -> bool:
    """Whether the file was taken. Errors: whatever should not happen."""
    begin = time.process_time()
    try:
        reader.take(folder, content)
        taken = True
    except BitnetcError as error:
        check_message(error)
        taken = False
    used = time.process_time() - begin
    assert used < SECONDS, f"took {used:.1f} s"
    return taken


def fuzz(name: str, count: int, seed: int, folder: Path) -> tuple[int, int]:
    """(files taken, files kept because they found trouble)"""
    reader = READERS[name]()
    for content in reader.seeds:
        assert run_one(reader, folder, content) or name in ("gguf", "config.json"), "a seed is bad"
    chance = random.Random(seed)
    taken = kept = 0
    for _ in range(count):
        content = chance.choice(reader.seeds)
        head = reader.head(content)
        for _ in range(chance.choice([1, 1, 1, 2, 3, 5])):
            if len(content) > 1:
                content = mutate(content, chance, head, reader.words)
        try:
            taken += run_one(reader, folder, content)
        except Exception as error:
            kept += 1
            place = Path(f"fuzz-{name}-{kept}.bin")
            place.write_bytes(content)
            print(f"  {place}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            if kept >= 10:
                raise
    return taken, kept


def guided(name: str, count: int, folder: Path) -> None:
    """Runs atheris on one reader; ends the process."""
    reader = READERS[name]()
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(reader.seeds):
        (corpus / str(i)).write_bytes(seed)
    (folder / "words").write_text(
        "".join('"' + "".join(f"\\x{b:02x}" for b in word) + '"\n' for word in reader.words)
    )
    statistics = {"taken": 0}

    def one(content: bytes) -> None:
        statistics["taken"] += run_one(reader, folder, content)

    longest = max(len(seed) for seed in reader.seeds) + 4096
    flags = [f"-runs={count}", f"-max_len={longest}", f"-dict={folder / 'words'}", "-timeout=20"]
    flags += ["-rss_limit_mb=3000", "-print_final_stats=1", "-len_control=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=50000, help="files a reader; 50000")
    parser.add_argument("--only", choices=READERS, action="append", help="this reader")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--coverage", action="store_true", help="guided by coverage (atheris)")
    parser.add_argument("--guided", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("FUZZ_TMP")) as scratch:
        if options.guided:
            guided(options.guided, options.count, Path(scratch))
            return
        bad = 0
        for name in options.only or READERS:
            begin = time.time()
            if options.coverage:
                command = [
                    sys.executable,
                    __file__,
                    "--guided",
                    name,
                    "--count",
                    str(options.count),
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                lines = done.stderr.splitlines()
                last = [line for line in lines if " cov: " in line][-1:] or lines[-1:]
                bad += done.returncode != 0
                seconds = time.time() - begin
                print(f"{name}: exit {done.returncode}, {seconds:.0f} s; {' '.join(last)}")
                sys.stdout.flush()
                if done.returncode:
                    print("\n".join(lines[-25:]))
                continue
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            folder = Path(scratch) / name
            folder.mkdir()
            taken, kept = fuzz(name, options.count, options.seed, folder)
            bad += kept
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            print(
                f"{name}: {options.count} damaged files, seed {options.seed}: {taken} taken, "
                f"{kept} with trouble, {time.time() - begin:.0f} s, peak {peak} MiB so far",
                flush=True,
            )
        sys.exit(bool(bad))


if __name__ == "__main__":
    main()
