"""Tokenizers other than Llama-3's: SentencePiece, tiktoken files, GPT-2's pattern, NFC.

Needs the packages mistral-common and sentencepiece for real vocabularies and llama-models and
tiktoken for that of Llama-3; what needs a missing one is skipped, unless BITNETC_NO_SKIP=1.
"""

import contextlib
import ctypes
import json
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import fuzz_tokenizer as fuzz
import numpy as np
import pytest
from fuzz_tokenizer import NO_SCRATCH, Compiled
from tokenizers import Tokenizer as Oracle

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer import (
    Tokenizer,
    from_gguf,
    parse_model,
    parse_ranks,
    parse_tokenizer,
    read_tokenizer,
    unicode_tables,
)
from bitnetc.tokenizer.tables import compile_tables


def need(name: str) -> ModuleType:
    if os.environ.get("BITNETC_NO_SKIP") == "1":
        __import__(name)
    else:
        pytest.importorskip(name)
    return sys.modules[name]


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return fuzz.build(tmp_path_factory.mktemp("tokenizer"), [])


def random_texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    texts = [fuzz.random_text(rng, 14) for _ in range(count)]
    return texts + [fuzz.random_word(rng, 4000) for _ in range(count // 50)]


# ---- SentencePiece ----


def test_sentencepiece_models(lib: ctypes.CDLL) -> None:
    """Encoding, decoding and the begin-of-text token of every model that mistral-common has."""
    need("mistral_common")
    package = need("sentencepiece")
    paths = sorted(fuzz.mistral_model().parent.glob("*.model.v*"))
    assert len(paths) >= 2
    for seed, path in enumerate(paths):
        judge = package.SentencePieceProcessor(model_file=str(path))
        compiled = Compiled(lib, parse_model(path.read_bytes(), path.name, {}))
        for text in [*random_texts(seed, 500), "[INST] x [/INST] [REFERENCE_DOC_3]"]:
            ids = compiled.encode(text.encode())
            assert ids == judge.encode(text), text
            if "\0" not in text:  # where the package ends a text
                assert compiled.decode(ids) == judge.decode(ids).encode()
        assert compiled.encode(b"x", special=True) == judge.encode("x", add_bos=True)
        assert [compiled.is_special(i) for i in (0, 1, 2, 9999)] == [True, True, True, False]


@pytest.mark.parametrize("rules", fuzz.CHARACTER_RULES)
def test_mistral_as_tokenizer_json(lib: ctypes.CDLL, rules: str) -> None:
    need("mistral_common")
    need("sentencepiece")
    document = fuzz.mistral_document(rules, added=True)
    texts = [text.encode() for text in random_texts(1, 300)]
    fuzz.compare(Oracle.from_str(document), Compiled(lib, document), texts)


def test_known_ids(lib: ctypes.CDLL) -> None:
    need("mistral_common")
    compiled = Compiled(lib, parse_model(fuzz.mistral_model().read_bytes(), "m", {}))
    assert compiled.encode("Hello\n😀 </s>".encode(), special=True) == [
        1, 22557, 13, 30575, 1867, 28713, 28767,
    ]  # fmt: skip
    found = Compiled(lib, parse_model(fuzz.mistral_model().read_bytes(), "m", {2: "</s>"}))
    assert found.encode(b"Hello</s>") == [22557, 2]


def field(number: int, value: int | bytes) -> bytes:
    def varint(n: int) -> bytes:
        n &= (1 << 64) - 1
        out = bytearray()
        while n >= 0x80:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        return bytes([*out, n])

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def model(
    trainer: dict[int, int | bytes] | None = None,
    normalizer: dict[int, int | bytes] | None = None,
    pieces: tuple[tuple[str, float, int], ...] = (),
) -> bytes:
    """A small tokenizer.model."""
    listed = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    listed += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    listed += [("▁", -9.0, 1), ("a", -8.0, 1), ("b", -8.0, 1), ("ab", -1.0, 1), ("▁ab", -2.0, 1)]
    data = b""
    for text, score, kind in (*listed, *pieces):
        piece = field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind)
        data += field(1, piece)
    for number, fields in (
        (2, {3: 2, 35: 1} | (trainer or {})),
        (3, {1: b"identity", 4: 0} | (normalizer or {})),
    ):
        data += field(number, b"".join(field(key, value) for key, value in fields.items()))
    return data


def test_small_model(lib: ctypes.CDLL) -> None:
    compiled = Compiled(lib, parse_model(model(), "m", {264: "<pad>"}, eos=True))
    assert compiled.encode("abé<pad>b".encode(), special=True) == [
        1, 263, 3 + 0xC3, 3 + 0xA9, 264, 259, 261, 2,
    ]  # fmt: skip
    assert compiled.piece(263) == b" ab" and compiled.piece(3 + 0xC3) == b"\xc3"
    bare = Compiled(lib, parse_model(model(normalizer={3: 0}), "m", {}))
    assert bare.encode(b"ab") == [262]
    assert bare.lib.bnc_stripped_spaces(bare.t) == 0


def test_equal_scores_go_from_the_left(lib: ctypes.CDLL) -> None:
    package = need("sentencepiece")
    pieces = tuple((text, -1e9, 1) for text in ("aa", "aaa", "aaaa", "bb", "aab", "abb"))
    data = model(pieces=pieces, trainer={40: 0})
    judge = package.SentencePieceProcessor(model_proto=data)
    compiled = Compiled(lib, parse_model(data, "m", {}))
    rng = random.Random(4)
    for _ in range(3000):
        text = "".join(rng.choice("aab ") for _ in range(rng.randrange(90)))
        assert compiled.encode(text.encode()) == judge.encode(text), text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no pieces"),
        (b"\x0a", "cut short"),
        (b"\x0a\xff\xff", "cut short"),
        (b"\x0b", "cut short or unknown"),
        (b"\xff" * 20, "too long"),
        (field(1, 5), "a number where a message belongs"),
        (field(1, field(1, b"\xff") + b"\x15" + bytes(4)), "pieces[0]: not UTF-8"),
        (field(1, field(1, 7)), "pieces[0]: no piece with a score"),
        (model(trainer={3: 1}), "trainer_spec.model_type: not BPE"),
        (model(trainer={35: 0}), "trainer_spec.byte_fallback: false"),
        (model(trainer={24: 1}), "treat_whitespace_as_suffix: true"),
        (model(trainer={41: 999}), "trainer_spec.bos_id: 999 is no id"),
        (model(normalizer={1: b"nmt_nfkc", 2: b"x"}), 'normalizer_spec: "nmt_nfkc" is not'),
        (model(normalizer={4: 1}), "remove_extra_whitespaces: true"),
        (model(normalizer={5: 0}), "escape_whitespaces: false"),
        (model(pieces=(("cd", 0, 1),)), "piece 264 ('cd') holds 'c', which is no piece"),
        (model(pieces=(("x", 0, 5),)), "piece 264 ('x') has the type 5"),
        (model(pieces=(("ab", 0, 1),)), "piece 264 ('ab') is listed twice"),
        (model(pieces=(("<0x00>", 0, 6),)), "listed twice"),
        (model(pieces=(("", 0, 1),)), "piece 264 has 0 bytes"),
        (model(pieces=(("ba", float("nan"), 1),)), "a score is not finite"),
    ],
)
def test_refuses_models(data: bytes, message: str) -> None:
    with pytest.raises(BitnetcError) as error:
        parse_model(data, "tokenizer.model", {})
    assert str(error.value).startswith("tokenizer.model")
    assert message in str(error.value)


def test_damaged_models_raise_nothing_else() -> None:
    whole = model()
    rng = random.Random(6)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        with contextlib.suppress(BitnetcError):
            compile_tables(parse_model(bytes(data), "m", {}))


def gguf(**other: object) -> dict[str, object]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "a", "b", "ab", "▁ab"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-9.0, -8.0, -8.0, -1.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 5],
    } | {f"tokenizer.ggml.{key}": value for key, value in other.items()}


def test_gguf(lib: ctypes.CDLL) -> None:
    compiled = Compiled(lib, from_gguf(gguf(), "m.gguf"))
    assert compiled.encode(b"ab</s>ab", special=True) == [1, 263, 2, 263]
    assert compiled.decode([263, 262]) == b"abab"
    plain = from_gguf(gguf(add_space_prefix=False, add_bos_token=False), "m.gguf")
    assert Compiled(lib, plain).encode(b"ab ab", special=True) == [262, 263]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "bert"),
        ("tokens", None),
        ("tokens", ["a", 1]),
        ("tokens", ["\ud800"]),
        ("scores", None),
        ("scores", [1.0]),
        ("token_type", ["x"]),
        ("bos_token_id", 264),
        ("bos_token_id", "x"),
        ("add_space_prefix", 1),
        ("remove_extra_whitespaces", True),
    ],
)
def test_refuses_gguf(key: str, value: object) -> None:
    with pytest.raises(BitnetcError) as error:
        from_gguf(gguf(**{key: value}), "m.gguf")
    assert str(error.value).startswith(f"m.gguf: tokenizer.ggml.{key}")


# ---- tiktoken ----


def test_tiktoken(lib: ctypes.CDLL) -> None:
    need("tiktoken")
    llama3 = need("llama_models.llama3.tokenizer")
    judge = llama3.Tokenizer.get_instance()
    names = {number: name for name, number in judge.special_tokens.items()}
    data = fuzz.llama3_model().read_bytes()
    compiled = Compiled(lib, parse_ranks(data, "tokenizer.model", names))
    for text in random_texts(2, 1000):
        wanted = judge.model.encode(text, allowed_special="all")
        assert compiled.encode(text.encode()) == wanted, text
    assert compiled.encode(b"a<|eot_id|>", special=True) == [128000, 64, 128009]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"IQ== 1", "line 1: rank 1, expected 0"),
        (b"IQ== 0\n!", "line 2: expected a piece"),
        (b"IQ== 0\nIQ== 1", "line 2: a piece that is empty, too long or listed twice"),
        (b"IQ== 0", "no piece for the byte 0x00"),
    ],
)
def test_refuses_ranks(data: bytes, message: str) -> None:
    with pytest.raises(BitnetcError) as error:
        parse_ranks(data, "tokenizer.model", {})
    assert str(error.value).startswith("tokenizer.model")
    assert message in str(error.value)


# ---- directories ----


def test_reads_tokenizer_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model())
    assert read_tokenizer(tmp_path).control == (0, 1, 2)
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 264}')
    assert read_tokenizer(tmp_path).pieces[264] == b"<pad>"
    decoder = {"1": {"content": "<s>"}, "264": {"content": "<x>", "special": True}}
    config: dict[str, Any] = {"added_tokens_decoder": decoder, "add_eos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.pieces[264] == b"<x>"
    assert (tokenizer.prefix, tokenizer.suffix, tokenizer.control) == ((1,), (2,), (0, 2))
    for broken in ("[]", "{", '{"added_tokens_decoder": {"x": 1}}'):
        (tmp_path / "tokenizer_config.json").write_text(broken)
        with pytest.raises(BitnetcError, match=r"tokenizer_config\.json"):
            read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(fuzz.gpt2_document(False))
    assert read_tokenizer(tmp_path).pattern == "gpt2"


def test_reads_a_rank_file(tmp_path: Path) -> None:
    import base64

    pieces = [bytes([byte]) for byte in range(256)] + [b"ab", b"abc"]
    lines = [base64.b64encode(piece) + b" %d" % i for i, piece in enumerate(pieces)]
    (tmp_path / "tokenizer.model").write_bytes(b"\n".join(lines) + b"\n")
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.merges.tolist() == [[97, 98, 256], [256, 99, 257]]
    assert tokenizer.pieces[258 + 9] == b"<|eot_id|>"
    assert (tokenizer.vocab, tokenizer.prefix) == (258 + 256, (258,))


# ---- NFC ----


@pytest.fixture(scope="session")
def nfc(lib: ctypes.CDLL) -> Compiled:
    return Compiled(lib, fuzz.nfc_document())


def same_form(judge: Oracle, compiled: Compiled, texts: list[str]) -> None:
    """What C makes of a text, seen in its pieces, is what `tokenizers` makes of it."""
    for text in texts:
        wanted = judge.normalizer.normalize_str(text).encode()
        assert compiled.decode(compiled.encode(text.encode())) == wanted, ascii(text)


def plain_nfc() -> str:
    document = json.loads(fuzz.nfc_document())
    return json.dumps(document | {"added_tokens": [], "post_processor": None})


def test_nfc_of_all_code_points(lib: ctypes.CDLL) -> None:
    judge, compiled = Oracle.from_str(plain_nfc()), Compiled(lib, plain_nfc())
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    same_form(
        judge, compiled, ["\n".join(points[i : i + 4096]) for i in range(0, len(points), 4096)]
    )
    tables = unicode_tables.derive_nfc()
    active = {*np.flatnonzero(tables.classes).tolist(), *(row[0] for row in tables.rows)}
    near = sorted(active | {c + 1 for c in active} | set(range(0xAC00, 0xD7A4, 9)))
    for before, after in (("a", ""), ("", "\u0301"), ("\u0345\u0334", ""), ("a\u0323", "\u0307")):
        same_form(judge, compiled, ["\n".join(before + chr(c) + after for c in near)])


def test_nfc_of_sequences(lib: ctypes.CDLL) -> None:
    judge, compiled = Oracle.from_str(plain_nfc()), Compiled(lib, plain_nfc())
    header = (Path(fuzz.RUNTIME) / "bnc_unicode.h").read_text("utf-8")
    rows = header[header.index("bnc_nfc_rows[") :].split("};")[0]
    points = [int(n) for n in rows.replace("{", " ").replace("}", " ").replace(",", " ").split()
              if n.isdigit()]  # fmt: skip
    parts = sorted({chr(c) for c in points if c} | {chr(c) for c in range(0x300, 0x370)})
    parts += [
        chr(c) for c in (*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3))
    ]
    parts += ["a", "e", "o", "\u0323", "\u0301", "가", "각", " ", "<"] * 30
    rng = random.Random(7)
    texts = ["".join(rng.choices(parts, k=rng.randrange(1, 30))) for _ in range(20_000)]
    marks = [chr(c) for c in (0x301, 0x323, 0x334, 0x345, 0x5B0, 0x93C, 0x302A)]
    texts += ["a" + "".join(rng.choices(marks, k=k)) for k in (15, 16, 17, 18, 300, 5000)]
    same_form(judge, compiled, texts)


# ---- no text is slow; no memory is too small unseen ----


SLOW = {
    "a letter": "a",
    "words": "the of and ",
    "spaces": " ",
    "marks": "\u0301",
    "marks in two orders": "\u0301\u0323",
    "U+2581": "▁",
    "Chinese": "天地玄黃宇宙洪荒",
    "Hangul": "\u1100\u1161\u11a8",
    "emoji": "😀",
    "apostrophes": "'",
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW.keys())
@pytest.mark.parametrize("kind", ["gemma", "llama", "nfc", "gpt2"])
def test_no_text_is_slow(lib: ctypes.CDLL, kind: str, text: str) -> None:
    if kind in fuzz.CHARACTER_RULES:
        document = fuzz.character_document(kind, *fuzz.characters_vocabulary(False))
    else:
        document = fuzz.nfc_document() if kind == "nfc" else fuzz.gpt2_document(True)
    compiled = Compiled(lib, document)
    data = (text * (1_000_000 // len(text.encode()))).encode()
    started = time.perf_counter()
    count, _ = compiled.call(data)
    assert count > 0
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("document", [fuzz.nfc_document, fuzz.mistral_document])
def test_scratch(lib: ctypes.CDLL, document: Callable[[], str]) -> None:
    """Every size of memory gives the same ids or the error, and what is stated suffices."""
    if document is fuzz.mistral_document:
        need("mistral_common")
        need("sentencepiece")
    compiled = Compiled(lib, document())
    for text in ("a", "e\u0323\u0301" * 9, "\u0344", "▁a" * 40, "\U0001d15e" * 3, "<s>a</s>"):
        data = text.encode()
        enough = compiled.call(data)
        assert enough[0] >= 0
        for size in range(compiled.lib.bnc_encode_scratch_bytes(len(data))):
            assert compiled.call(data, scratch=size) in (enough, (NO_SCRATCH, []))
    for data in (b"\xff\xcc\x81", b"\xcc\x81\xff", b"\xff" * 40, "é\u0323".encode() * 50):
        assert compiled.call(data)[0] > 0


# ---- tokenizer.json of characters: what is refused ----


def characters(rules: str = "llama") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        fuzz.character_document(rules, *fuzz.characters_vocabulary(False))
    )
    return document


def edited(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node: Any = document
    for key in way:
        node = node[key]
    node[last] = value
    return document


@pytest.mark.parametrize(
    ("rules", "path", "value", "message"),
    [
        ("llama", "normalizer.normalizers.0.prepend", "x", 'prepend: "x" is not supported'),
        ("llama", "normalizer.normalizers.1.content", "_", 'content: "_" is not supported'),
        ("llama", "normalizer.normalizers.1.pattern", {"Regex": " "}, "pattern: {"),
        ("llama", "normalizer.normalizers.0.type", "NFKC", "a Sequence of NFKC, Replace"),
        ("llama", "pre_tokenizer", {"type": "UnicodeScripts"}, 'pre_tokenizer: "UnicodeScripts"'),
        ("llama", "decoder", None, "decoder: missing"),
        ("llama", "decoder.decoders.3.stop", 1, "stop: 1 is not supported"),
        ("llama", "decoder.decoders.3.content", "_", 'content: "_" is not supported'),
        ("llama", "model.ignore_merges", True, "model.ignore_merges: true is not supported"),
        ("llama", "model.dropout", 0.5, "model.dropout: 0.5"),
        ("gemma", "pre_tokenizer.pattern", {"String": "ab"}, 'String: "ab" is not'),
        ("gemma", "pre_tokenizer.behavior", "Merged", 'behavior: "Merged" is not one of'),
        ("metaspace first", "pre_tokenizer.replacement", "_", 'replacement: "_" is not'),
        ("metaspace first", "pre_tokenizer.prepend_scheme", "x", 'prepend_scheme: "x", not'),
        ("metaspace first", "pre_tokenizer.split", 1, "split: expected true or false"),
        ("metaspace first", "pre_tokenizer", None, "pre_tokenizer: missing"),
    ],
)
def test_refuses(rules: str, path: str, value: object, message: str) -> None:
    document = edited(characters(rules), path, value)
    with pytest.raises(BitnetcError) as error:
        parse_tokenizer(json.dumps(document).encode(), "tokenizer.json")
    assert message in str(error.value)


def test_refuses_a_missing_byte() -> None:
    document = characters()
    vocab = document["model"]["vocab"]
    vocab["<0xQQ>"] = vocab.pop("<0x41>")
    with pytest.raises(BitnetcError, match=r'no piece "<0x41>"'):
        parse_tokenizer(json.dumps(document).encode(), "tokenizer.json")


def test_equal_tokenizers_give_equal_bytes() -> None:
    made: list[Tokenizer] = [parse_model(model(), "m", {}) for _ in range(2)]
    assert compile_tables(made[0]) == compile_tables(made[1])


@pytest.mark.parametrize("rules", ["llama", "metaspace first"])
def test_any_change_is_refused_or_understood(lib: ctypes.CDLL, rules: str) -> None:
    """Odd values everywhere: no other exception than BitnetcError, and what is read and
    `tokenizers` loads encodes alike."""
    vocab, merges = fuzz.characters_vocabulary(False)
    vocab = {text: number for text, number in vocab.items() if number < 700}
    merges = [pair for pair in merges if {*pair, "".join(pair)} <= vocab.keys()]
    document = fuzz.character_document(rules, vocab, merges)
    texts = [t.encode() for t in ("abc", "a 12345 <s>xx", " \n x", "it's été ▁", "the of and")]
    understood = 0
    for way in fuzz.places(json.loads(document)):
        for value in (None, True, -1, 10**30, 1.5, "", "a b", "▁", "\ud800", [], {}):
            if not way:
                continue
            changed = json.loads(document)
            node = changed
            for key in way[:-1]:
                node = node[key]
            node[way[-1]] = value
            text = json.dumps(changed)
            try:
                compiled = Compiled(lib, text)
                judge = Oracle.from_str(text)
            except BitnetcError as error:
                assert "\n" not in str(error)
                continue
            except Exception:
                continue  # `tokenizers` is stricter here, and nobody can have made such a file
            fuzz.compare(judge, compiled, texts)
            understood += 1
    assert understood > 20
