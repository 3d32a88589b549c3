"""The C tokenizer beside the `tokenizers` package: the same strings, the same ids.

    python tests/fuzz_tokenizer.py --strings 200000
    python tests/fuzz_tokenizer.py --sanitize --strings 20000
    python tests/fuzz_tokenizer.py --files FILE...
    python tests/fuzz_tokenizer.py --only mistral --strings 20000

tests/unit/test_tokenizer.py runs a slice of it and uses what stands here.
"""

import argparse
import base64
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Oracle

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bitnetc.tokenizer import (  # noqa: E402
    PATTERN,
    PATTERN_HEAD,
    PATTERN_TAIL,
    Tokenizer,
    parse_tokenizer,
)
from bitnetc.tokenizer.tables import compile_tables  # noqa: E402

RUNTIME = ROOT / "runtime_c"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
GUARD = 64  # bytes beside each buffer
GUARD_BYTE = 0xA5

NO_ROOM, NO_SCRATCH, TOO_LONG = -1, -2, -3
AROUND, PLAIN = 1, 2  # flags of bnc_encode

# Names the two functions of the header that have no symbol of their own.
SHIM = """
#include "bnc_tokenizer.h"
#include "bnc_unicode.h"
size_t shim_struct_bytes(void);
void shim_classes(uint8_t *classes);
size_t shim_struct_bytes(void)
{
    return sizeof(struct bnc_tokenizer);
}
void shim_classes(uint8_t *classes)
{
    for (uint32_t c = 0; c < 0x110000; c++) {
        classes[c] = (uint8_t)bnc_unicode_class(c);
    }
}
"""


def build(directory: Path, flags: list[str]) -> ctypes.CDLL:
    """Compiles the runtime with the host compiler ($CC or cc) and loads it."""
    (directory / "shim.c").write_text(SHIM)
    library = directory / "tokenizer.so"
    sources = [str(RUNTIME / "bnc_tokenizer.c"), str(directory / "shim.c")]
    command = [*os.environ.get("CC", "cc").split(), *WARNINGS, "-O2", *flags, "-shared", "-fPIC"]
    subprocess.run([*command, "-I", str(RUNTIME), *sources, "-o", str(library)], check=True)
    lib = ctypes.CDLL(str(library))
    lib.shim_struct_bytes.restype = ctypes.c_size_t
    lib.bnc_tokenizer_init.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    lib.bnc_encode_scratch_bytes.restype = ctypes.c_size_t
    lib.bnc_encode_scratch_bytes.argtypes = [ctypes.c_size_t]
    lib.bnc_encode.restype = ctypes.c_ssize_t
    lib.bnc_encode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    lib.bnc_piece.restype = ctypes.c_void_p
    lib.bnc_piece.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_size_t)]
    lib.bnc_stripped_spaces.restype = ctypes.c_size_t
    lib.bnc_stripped_spaces.argtypes = [ctypes.c_void_p]
    lib.bnc_is_special.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    return lib


SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


class Buffer:
    """`size` bytes with GUARD bytes before and after, which `intact` looks at. Under a sanitizer
    the allocation ends with the buffer instead, so that reading beyond it is seen as well."""

    def __init__(self, size: int, content: bytes = b"") -> None:
        self.end = GUARD + size
        self.owner = ctypes.create_string_buffer(self.end + (0 if SANITIZED else GUARD))
        self.memory = np.frombuffer(memoryview(self.owner).cast("B"), np.uint8)
        self.memory[:] = GUARD_BYTE
        self.memory[GUARD : GUARD + len(content)] = np.frombuffer(content, np.uint8)
        self.address = ctypes.addressof(self.owner) + GUARD

    def intact(self) -> bool:
        ends = self.memory[:GUARD], self.memory[self.end :]
        return all(bool((end == GUARD_BYTE).all()) for end in ends)


class Compiled:
    """A tokenizer.json, compiled: the same calls as C offers."""

    def __init__(self, lib: ctypes.CDLL, document: str | Tokenizer) -> None:
        self.lib = lib
        if isinstance(document, str):
            document = parse_tokenizer(document.encode(), "tokenizer.json")
        self.tokenizer = document
        self.blob = compile_tables(self.tokenizer)
        self.memory = np.frombuffer(self.blob, np.uint64)
        self.t = ctypes.create_string_buffer(lib.shim_struct_bytes())
        code = lib.bnc_tokenizer_init(self.t, self.memory.ctypes.data, len(self.blob))
        if code != 0:
            raise ValueError(f"bnc_tokenizer_init: {code}")

    def call(
        self,
        text: bytes,
        special: bool = False,
        room: int | None = None,
        scratch: int | None = None,
        plain: bool = False,
    ) -> tuple[int, list[int]]:
        """What bnc_encode returns, and the ids; all buffers are exactly as large as stated."""
        room = 3 * len(text) + 32 if room is None else room
        scratch = self.lib.bnc_encode_scratch_bytes(len(text)) if scratch is None else scratch
        source, ids, work = Buffer(len(text), text), Buffer(4 * room), Buffer(scratch)
        flags = AROUND * special | PLAIN * plain
        count = self.lib.bnc_encode(
            self.t, source.address, len(text), flags, ids.address, room, work.address, scratch
        )
        assert source.intact() and ids.intact() and work.intact(), "wrote outside a buffer"
        stored = ids.memory[GUARD : GUARD + 4 * max(count, 0)].view(np.int32)
        return count, stored.tolist()

    def encode(self, text: bytes, special: bool = False, plain: bool = False) -> list[int]:
        count, ids = self.call(text, special, plain=plain)
        assert count >= 0, count
        return ids

    def piece(self, number: int) -> bytes:
        size = ctypes.c_size_t()
        address = self.lib.bnc_piece(self.t, number, ctypes.byref(size))
        return ctypes.string_at(address, size.value)

    def decode(self, ids: list[int]) -> bytes:
        """The text that a program writes for all tokens of a text."""
        text = b"".join(self.piece(i) for i in ids)
        strip = self.lib.bnc_stripped_spaces(self.t)
        while strip > 0 and text.startswith(b" "):
            text, strip = text[1:], strip - 1
        return text

    def is_special(self, number: int) -> bool:
        return bool(self.lib.bnc_is_special(self.t, number))


# ---- tokenizers to compare ----


def llama3_model() -> Path:
    """The ranks of Llama-3, which the `llama-models` package carries."""
    import llama_models.llama3  # type: ignore[import-untyped]

    return Path(llama_models.llama3.__file__).parent / "tokenizer.model"


def byte_alphabet() -> dict[int, str]:
    """byte -> its character in byte-level text, asked of the package itself."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = {b: level.pre_tokenize_str(chr(b))[0][0] for b in range(0x80)}
    rest = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(alphabet.values()))
    printable = {ord(c): c for c in rest if ord(c) < 0x100}
    others = iter(c for c in rest if ord(c) >= 0x100)
    for byte in range(0x80, 0x100):
        alphabet[byte] = printable.get(byte) or next(others)
    return alphabet


@cache
def llama3_document() -> str:
    """tokenizer.json of Llama-3 as Hugging Face publishes it, made from the rank file.

    Merges: every split of a piece into two pieces, in order of the ranks of whole, left, right.
    """
    lines = llama3_model().read_bytes().split(b"\n")
    ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in lines if line)}
    alphabet = byte_alphabet()
    text = {piece: "".join(alphabet[b] for b in piece) for piece in ranks}
    merges = []
    for piece, rank in ranks.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ranks and right in ranks:
                merges.append((rank, ranks[left], ranks[right], f"{text[left]} {text[right]}"))
    named = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        4: "<|finetune_right_pad_id|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        8: "<|eom_id|>",
        9: "<|eot_id|>",
        10: "<|python_tag|>",
    }
    numbers = iter(range(256))
    added = [
        {
            "id": len(ranks) + i,
            "content": named.get(i) or f"<|reserved_special_token_{next(numbers)}|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i in range(256)
    ]
    bos = "<|begin_of_text|>"
    a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [begin, a],
        "pair": [begin, a, begin, b],
        "special_tokens": {bos: {"id": bos, "ids": [len(ranks)], "tokens": [bos]}},
    }
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": json.loads(_untrained(PATTERN).to_str())["pre_tokenizer"],
        "post_processor": {
            "type": "Sequence",
            "processors": [{**level, "use_regex": True}, template],
        },
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {text[piece]: rank for piece, rank in ranks.items()},
            "merges": [merge for *_, merge in sorted(merges)],
        },
    }
    return json.dumps(document, ensure_ascii=False)


def _untrained(pattern: str, ignore_merges: bool = False) -> Oracle:
    oracle = Oracle(models.BPE(ignore_merges=ignore_merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    oracle.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    oracle.decoder = decoders.ByteLevel()
    return oracle


@cache
def trained_document(ignore_merges: bool, digits: str = r"\p{N}{1,3}", pieces: int = 700) -> str:
    """A small tokenizer trained on awkward text; some of its added tokens begin others."""
    oracle = _untrained(PATTERN_HEAD + digits + PATTERN_TAIL, ignore_merges)
    rng = random.Random(1)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, initial_alphabet=alphabet, show_progress=False, max_token_length=40
    )
    oracle.train_from_iterator([random_text(rng, 60) for _ in range(4000)], trainer)
    oracle.add_special_tokens(["<|bos|>", "<|bos|><", "<", "<|x|>"])
    oracle.add_tokens([AddedToken(t, normalized=True) for t in ("|>", "ab", "abc", " été", "éé")])
    oracle.add_tokens([AddedToken("bcd", normalized=False)])
    return str(oracle.to_str())


def stirred_document(ignore_merges: bool) -> str:
    """The trained tokenizer with its merges in another order: words where merging goes wrong
    ways, pieces that no merge reaches, pairs that outrank what they are made of."""
    document = json.loads(trained_document(ignore_merges))
    merges = document["model"]["merges"]
    random.Random(2).shuffle(merges)
    document["model"]["merges"] = merges[: len(merges) * 9 // 10]
    return json.dumps(document)


def mistral_model() -> Path:
    """The 32000 pieces of Mistral-7B, which the `mistral-common` package carries."""
    import mistral_common  # type: ignore[import-untyped]

    return Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"


@cache
def mistral_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges, as transformers makes them from the scores: every split of a piece into
    two, by falling score."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(mistral_model()))
    vocab = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    merges = []
    for piece, number in vocab.items():
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        found = [(a, b) for a, b in splits if a in vocab and b in vocab]
        found.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(-model.get_score(number), pair) for pair in found]
    merges.sort(key=lambda entry: entry[0])
    return vocab, [pair for _, pair in merges]


# name -> (normalizer, pre-tokeniser, spaces stripped)
CHARACTER_RULES = {
    "llama": ([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")], None, 1),
    "gemma": (
        [normalizers.Replace(" ", "▁")],
        pre_tokenizers.Split(" ", "merged_with_previous"),
        0,
    ),
    **{
        f"metaspace {scheme}{', split' * split}": (
            None,
            pre_tokenizers.Metaspace("▁", scheme, split),
            int(scheme != "never"),
        )
        for scheme in ("first", "always", "never")
        for split in (False, True)
    },
}


def character_document(
    rules: str, vocab: dict[str, int], merges: list[tuple[str, str]], added: bool = True
) -> str:
    """A tokenizer.json of characters with one of the CHARACTER_RULES."""
    normalizer, cut, strip = CHARACTER_RULES[rules]
    model = models.BPE(
        vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"
    )
    oracle = Oracle(model)
    if normalizer:
        oracle.normalizer = normalizers.Sequence(normalizer)
    if cut:
        oracle.pre_tokenizer = cut
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    oracle.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strip)
    oracle.add_special_tokens(["<unk>", "<s>", "</s>"])
    if added:
        texts = ("|>>", "é é", " x1")
        if rules != "llama":  # there the last two are refused
            texts += ("ab", "<")
        oracle.add_tokens([AddedToken(t, normalized=True) for t in texts])
        oracle.add_tokens([AddedToken(t, normalized=False) for t in ("bcd", "▁▁", "<s", "  ")])
    oracle.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return str(oracle.to_str())


def mistral_document(rules: str = "llama", added: bool = False) -> str:
    return character_document(rules, *mistral_vocabulary(), added)


@cache
def characters_vocabulary(stirred: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A few hundred pieces trained on awkward text, whose merges reach across spaces; stirred:
    with the merges in another order."""
    oracle = Oracle(models.BPE())
    oracle.normalizer = normalizers.Replace(" ", "▁")
    rng = random.Random(5)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=1100,
        initial_alphabet=["▁"],
        limit_alphabet=300,
        show_progress=False,
        special_tokens=first,
        max_token_length=12,
    )
    texts = [random_text(rng, 6).replace("<0x", "") for _ in range(3000)]
    oracle.train_from_iterator(texts, trainer)
    model = json.loads(oracle.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    if stirred:
        rng.shuffle(merges)
    return model["vocab"], merges


def nfc_document(gpt2: bool = False) -> str:
    """The trained tokenizer in the form of Qwen: NFC, single digits; gpt2: with ByteLevel's own
    pattern."""
    document = json.loads(trained_document(False, r"\p{N}", 400))
    document["normalizer"] = {"type": "NFC"}
    if gpt2:
        document["pre_tokenizer"] = json.loads(gpt2_document(False))["pre_tokenizer"]
    return json.dumps(document)


@cache
def gpt2_document(add_prefix_space: bool) -> str:
    """The trained tokenizer with the pattern of ByteLevel."""
    document = json.loads(trained_document(False))
    document["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": True,
    }
    return json.dumps(document)


@cache
def neox_document() -> str:
    """The trained tokenizer in the form of GPT-NeoX: NFC, the pattern of ByteLevel, and added
    tokens for 2 to 24 spaces, which are normalized and no control tokens."""
    document = json.loads(nfc_document(True))
    document["added_tokens"] = []
    oracle = Oracle.from_str(json.dumps(document))
    oracle.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    oracle.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    oracle.post_processor = processors.ByteLevel(trim_offsets=True)
    return str(oracle.to_str())


# ---- pre-tokenisers ----

_BEHAVIORS = ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext")
_STRINGS = (" ", "a", "  ", "\n", "é", "▁", "aaa", ".")
_REGEXES = (
    r"\p{N}{1,3}", r"[0-9][0-9][0-9]", r"[^\s]+", r"\s+", r"[a-e]{2,}", r"\d", r"\p{L}+", r"\.",
    "b", r"[^\p{L}\p{N}\s]+", r"[\p{P}]{2}", "[一-龥぀-ゟ゠-ヿ]+", r"[\r\n]+", r"[a\-z.]",
    r"\p{P}{1,}",
)  # fmt: skip


def split(pattern: dict[str, str], behavior: str, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def random_cut(rng: random.Random) -> dict[str, Any]:
    """A node that cuts at characters."""
    kind = rng.randrange(7)
    if kind == 0:
        return {"type": "Digits", "individual_digits": rng.random() < 0.5}
    if kind == 1:
        return {"type": "Punctuation", "behavior": rng.choice(_BEHAVIORS)}
    if kind == 2:
        return {"type": rng.choice(("Whitespace", "WhitespaceSplit"))}
    if kind == 3:
        return {"type": "CharDelimiterSplit", "delimiter": rng.choice(" ae1▁")}
    pattern = {"String": rng.choice(_STRINGS)} if kind == 4 else {"Regex": rng.choice(_REGEXES)}
    return split(pattern, rng.choice(_BEHAVIORS), rng.random() < 0.3)


def random_tree(rng: random.Random) -> dict[str, Any]:
    """A Sequence around ByteLevel, perhaps with the pattern of Llama-3 or GPT-2."""
    own = rng.random() < 0.4
    level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": own}
    before = [random_cut(rng) for _ in range(rng.randrange(3))]
    if not own and rng.random() < 0.5:
        digits = rng.choice((r"\p{N}", r"\p{N}{1,3}"))
        removed = rng.random() < 0.3
        cut = split(
            {"Regex": PATTERN_HEAD + digits + PATTERN_TAIL},
            "Removed" if removed else "Isolated",
            removed,
        )
        before.insert(rng.randrange(len(before) + 1), cut)
    level["add_prefix_space"] = not before and rng.random() < 0.2
    after = [random_cut(rng) for _ in range(rng.randrange(3))]
    return {"type": "Sequence", "pretokenizers": [*before, level, *after]}


# Falcon; StarCoder; words that keep no space.
TREES: dict[str, list[dict[str, Any]]] = {
    "falcon": [
        {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        {"type": "Digits", "individual_digits": False},
        split({"Regex": "[0-9][0-9][0-9]"}, "Isolated"),
    ],
    "starcoder": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
    "whitespace": [
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
    "one word": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}


def tree_document(steps: list[dict[str, Any]], stirred: bool = False) -> str:
    document = json.loads(stirred_document(True) if stirred else trained_document(False))
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    return json.dumps(document)


def random_tree_document(rng: random.Random) -> str:
    """One of bytes, or one of characters that cuts after its spaces have become U+2581."""
    if rng.random() < 0.75:
        return tree_document(random_tree(rng)["pretokenizers"], rng.random() < 0.5)
    rules = rng.choice(list(CHARACTER_RULES))
    document = json.loads(character_document(rules, *characters_vocabulary(rng.random() < 0.5)))
    first = document["pre_tokenizer"]
    cuts = [random_cut(rng) for _ in range(rng.randrange(1, 3))]
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [first, *cuts] if first else cuts,
    }
    return json.dumps(document)


def without_controls(document: str) -> str:
    """The tokenizer less its control tokens: what it makes of text that may not hold any."""
    changed = json.loads(document)
    free = len(changed["model"]["vocab"])
    kept = [token for token in changed["added_tokens"] if not token["special"]]
    for token in kept:
        if token["content"] not in changed["model"]["vocab"]:
            token["id"], free = free, free + 1
    return json.dumps(changed | {"added_tokens": kept, "post_processor": None})


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each member of a JSON value; of long ones to the last few."""
    yield way
    members = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(members)[-4:]:
        if isinstance(value, (dict, list)):
            yield from places(value, (*way, key))
        else:
            yield (*way, key)


# ---- strings ----

_WORDS = (
    "the of and to in is it's IT'S don't we'll they've I'm you'd 'S 'LL 'ſ s'ſx 'Re 'vE ' '' 'x "
    "hello Hello HELLO world été naïve Straße москва Привет мир Ελληνικά עברית العربية हिन्दी "
    "ไทย 日本語 中文字 한국어 İstanbul ǅ ŉ ﬆ ﬁ 😀 👩\u200d👩\u200d👧 🇫🇷 e\u0301 \u0301 "
    "\u200b \u00ad 1 12 123 1234 12345 "
    "١٢٣ ½ Ⅷ ² 𝟘𝟙 x1y2 3.14 1,000 ... --- == != (a) [b] {c} <|eot_id|> "
    "<|begin_of_text|> <|start_header_id|> <|eot_id <|reserved_special_token_12|> <| |> <<|bos|> "
    "▁ ▁a ▁▁ <unk> <s> </s> <0x0A> ＡＢ Å Ω が か\u3099 각 \u1100\u1161\u11a8 \u0344 \u0958 "
    "a\u0323\u0307 a\u0307\u0323 q\u0307\u0323 ệ \u0f73 \U0001d15e \ufb2c "
    "<|bos|>< <|x|> abc abcd ab éa \ufffd \ufeff \x00 \x7f \x85 aaaa abab the the_"
)
WORDS = _WORDS.split(" ")
SPACES = (
    " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\r", "\u00a0", "\u3000",
    "\x0b", "\x85", "\u2028", "\u1680", "\u180e", "\u200b", "", "",
)  # fmt: skip
RANGES = (
    (0x00, 0x80), (0x80, 0x100), (0x100, 0x250), (0x2B0, 0x370), (0x370, 0x590), (0x590, 0x700),
    (0x900, 0xE00), (0xE00, 0x1100), (0x1680, 0x1681), (0x2000, 0x2100), (0x2100, 0x2200),
    (0x2460, 0x2500), (0x3000, 0x3400), (0x4E00, 0xA000), (0xAC00, 0xD7B0), (0xE000, 0xE010),
    (0xF900, 0x10000), (0x10000, 0x11000), (0x1D400, 0x1D800), (0x1F000, 0x1FB00),
    (0x20000, 0x20100), (0xE0000, 0xE0200), (0x10FF00, 0x110000), (0x0, 0x110000),
)  # fmt: skip


def random_character(rng: random.Random) -> str:
    low, high = rng.choice(RANGES)
    point = rng.randrange(low, high)
    return chr(point) if not 0xD800 <= point < 0xE000 else "\ufffd"


def random_text(rng: random.Random, most: int) -> str:
    """Up to `most` parts: words, spaces, single characters, runs."""
    parts = []
    for _ in range(rng.randrange(most + 1)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(WORDS))
        elif kind < 0.75:
            parts.append(rng.choice(SPACES))
        elif kind < 0.93:
            parts.append(random_character(rng))
        else:
            parts.append(rng.choice([*SPACES, *WORDS, random_character(rng)]) * rng.randrange(40))
    return "".join(parts)


def random_word(rng: random.Random, most: int) -> str:
    """One long word of few different letters, so that its merges depend on each other."""
    letters = rng.choice(["a", "ab", "abé", "the of", "日本語中", "=-", "\u0301x"])
    letters = letters.replace(" ", "")
    return "".join(rng.choice(letters) for _ in range(rng.randrange(1, most)))


def random_bytes(rng: random.Random, most: int) -> bytes:
    """UTF-8 with damage: bytes changed, dropped, put in."""
    data = bytearray(random_text(rng, most).encode())
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        new = [rng.choice((0x80, 0xBF, 0xC0, 0xE0, 0xED, 0xA0, 0xF0, 0xF4, 0xFF, 0x41))]
        data[at : at + rng.randrange(3)] = bytes(new * rng.randrange(2))
    return bytes(data)


class Mismatch(AssertionError):
    """A string on which the two tokenizers differ."""


def compare(oracle: Oracle, compiled: Compiled, texts: list[bytes]) -> int:
    """Ids with and without special tokens, and the way back; returns the number of ids."""
    total = 0
    decoded = [text.decode("utf-8", "replace") for text in texts]
    for special in (False, True):
        wanted = oracle.encode_batch(decoded, add_special_tokens=special)
        for text, valid, encoding in zip(texts, decoded, wanted, strict=True):
            ids = compiled.encode(text, special)
            if ids != encoding.ids:
                raise Mismatch(f"{text!r}: tokenizers {encoding.ids}, C {ids}")
            total += len(ids)
            if not special and not decodes(oracle, compiled, ids, valid):
                raise Mismatch(f"{text!r}: decodes to {compiled.decode(ids)!r}")
    return total


def decodes(oracle: Oracle, compiled: Compiled, ids: list[int], text: str) -> bool:
    """Whether the ids of a text become what `tokenizers` makes of them: itself, or its NFC if no
    added token, which stays as it is, cuts it."""
    back = compiled.decode(ids)
    tokenizer = compiled.tokenizer
    if tokenizer.fallback:
        return back == oracle.decode(ids, skip_special_tokens=False).encode()
    if tokenizer.nfc:
        if {token.id for token in tokenizer.added} & set(ids):
            return True
        return back == oracle.normalizer.normalize_str(text).encode()
    drops = any(cut.behavior == "Removed" for cut in (*tokenizer.before, *tokenizer.after))
    return drops or tokenizer.space_prefix != "never" or back == text.encode()


def all_documents(llama3: bool = True) -> dict[str, str]:
    """Small tokenizers of all forms, and with llama3 those of real size as well."""
    large = {}
    if llama3:
        large = {"llama3": llama3_document()} | {
            f"mistral, {name}": mistral_document(name, True)
            for name in ("llama", "gemma", "metaspace first", "metaspace always, split")
        }
    characters = {
        f"{name}{', stirred' * stirred}": character_document(name, *characters_vocabulary(stirred))
        for name in CHARACTER_RULES
        for stirred in (False, True)
    }
    return (
        large
        | characters
        | {
            **{name: tree_document(steps) for name, steps in TREES.items()},
            "neox": neox_document(),
            "nfc": nfc_document(),
            "nfc, gpt2": nfc_document(True),
            "gpt2": gpt2_document(False),
            "gpt2, prefix": gpt2_document(True),
            "trained": trained_document(False),
            "trained, ignore_merges": trained_document(True),
            "trained, one digit": trained_document(False, r"\p{N}", 400),
            "stirred": stirred_document(False),
            "stirred, ignore_merges": stirred_document(True),
        }
    )


def fuzz(
    lib: ctypes.CDLL, documents: dict[str, str], strings: int, seed: int, verbose: bool = False
) -> int:
    """Compares `strings` random texts, a third of them damaged, shared among the tokenizers."""
    done = 0
    for number, (name, document) in enumerate(documents.items()):
        rng = random.Random(seed * 1000 + number)
        oracle, compiled = Oracle.from_str(document), Compiled(lib, document)
        share = strings // len(documents) + 1
        started = time.time()
        ids = 0
        for first in range(0, share, 1000):
            texts = [
                random_bytes(rng, 12) if i % 3 == 0 else random_text(rng, 12).encode()
                for i in range(min(1000, share - first))
            ]
            ids += compare(oracle, compiled, texts)
        done += share
        if verbose:
            print(f"{name:26} {share:8} strings {ids:10} ids {time.time() - started:6.1f} s")
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strings", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sanitize", action="store_true", help="build with ASan and UBSan")
    parser.add_argument("--without-llama3", action="store_true", help="the small tokenizers only")
    parser.add_argument("--documents", type=Path, help="a JSON object of tokenizer.json texts")
    parser.add_argument("--only", help="the tokenizers whose name begins so")
    parser.add_argument("--files", type=Path, nargs="*", help="compare these texts instead")
    args = parser.parse_args()
    if args.sanitize and not SANITIZED:
        return run_sanitized(sys.argv[1:], not args.without_llama3)
    with tempfile.TemporaryDirectory() as directory:
        lib = build(Path(directory), SANITIZERS if args.sanitize else [])
        if args.files:
            document = llama3_document()
            oracle, compiled = Oracle.from_str(document), Compiled(lib, document)
            size = ids = 0
            for path in args.files:
                data = path.read_bytes()
                ids += compare(oracle, compiled, [data])
                size += len(data)
            print(f"{len(args.files)} files, {size} bytes, {ids} ids: equal")
        else:
            if args.documents:
                documents = json.loads(args.documents.read_text("utf-8"))
            else:
                documents = all_documents(not args.without_llama3)
            only = args.only or ""
            documents = {n: text for n, text in documents.items() if n.startswith(only)}
            done = fuzz(lib, documents, args.strings, args.seed, verbose=True)
            print(f"{done} strings: equal")
    return 0


def run_sanitized(arguments: list[str], llama3: bool) -> int:
    """This program again, with the sanitizer's library loaded before Python. The tokenizers are
    made before, since training takes long under it."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    environment = os.environ | {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "documents.json"
        path.write_text(json.dumps(all_documents(llama3)))
        command = [sys.executable, __file__, *arguments, "--documents", str(path)]
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
