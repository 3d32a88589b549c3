"""The tokenizer: what is read, what is refused, and C beside the `tokenizers` package."""

import ctypes
import itertools
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_tokenizer as fuzz
import numpy as np
import pytest
from fuzz_tokenizer import NO_ROOM, NO_SCRATCH, TOO_LONG, Compiled
from numpy.typing import NDArray
from tokenizers import Tokenizer as Oracle

from bitnetc.chat import reached_controls
from bitnetc.errors import BitnetcError
from bitnetc.tokenizer import (
    ANY_DIGITS,
    PATTERN_HEAD,
    PATTERN_TAIL,
    AddedToken,
    parse_tokenizer,
    read_tokenizer,
    unicode_tables,
)
from bitnetc.tokenizer.tables import HEADER, compile_tables

Classes = NDArray[np.uint8]


@pytest.fixture(scope="session")
def lib(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return fuzz.build(tmp_path_factory.mktemp("tokenizer"), [])


@pytest.fixture(scope="session")
def llama3(lib: ctypes.CDLL) -> Compiled:
    """Fails without the llama-models package, unless BITNETC_SKIP_LLAMA3=1 allows a skip."""
    try:
        fuzz.llama3_model()
    except ImportError:
        wanted = os.environ.get("BITNETC_NO_SKIP") == "1"
        if os.environ.get("BITNETC_SKIP_LLAMA3") == "1" and not wanted:
            pytest.skip("llama-models is not installed and BITNETC_SKIP_LLAMA3=1")
        raise
    return Compiled(lib, fuzz.llama3_document())


@pytest.fixture(scope="session")
def trained(lib: ctypes.CDLL) -> Compiled:
    return Compiled(lib, fuzz.trained_document(False))


# ---- Llama-3 ----


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hello world", [15339, 1917]),
        ("The capital of France is", [791, 6864, 315, 9822, 374]),
        ("12345", [4513, 1774]),
        ("it's", [275, 596]),
        ("IT'S", [964, 13575]),
        ("  leading", [220, 6522]),
        ("Hello,\tworld!\r\n", [9906, 11, 77608, 46726]),
        (" été 😀", [24560, 91416]),
        (
            "User: How are you?<|eot_id|>Assistant: ",
            [1502, 25, 2650, 527, 499, 30, 128009, 72803, 25, 220],
        ),
        ("", []),
    ],
)
def test_known_ids(llama3: Compiled, text: str, ids: list[int]) -> None:
    assert llama3.encode(text.encode()) == ids
    assert llama3.encode(text.encode(), special=True) == [128000, *ids]


def test_llama3_tables(llama3: Compiled) -> None:
    tokenizer = llama3.tokenizer
    assert (tokenizer.vocab, tokenizer.model_pieces) == (128256, 128000)
    assert tokenizer.merges.shape == (280147, 3)
    assert (tokenizer.prefix, tokenizer.suffix) == ((128000,), ())
    assert tokenizer.added[9] == AddedToken(128009, b"<|eot_id|>", True, False)
    for number, piece in enumerate(tokenizer.pieces):
        assert llama3.piece(number) == piece
        assert llama3.is_special(number) == (number >= 128000)


def test_pieces_encode_as_in_tokenizers(llama3: Compiled) -> None:
    oracle = Oracle.from_str(fuzz.llama3_document())
    pieces = llama3.tokenizer.pieces
    fuzz.compare(oracle, llama3, [*pieces[:128000:17], *pieces[128000:]])


@pytest.mark.usefixtures("llama3")
def test_fuzz(lib: ctypes.CDLL) -> None:
    assert fuzz.fuzz(lib, fuzz.all_documents(), strings=5000, seed=1) >= 5000


def test_fuzz_sanitized() -> None:
    """Under ASan and UBSan; a process of its own, since they must be loaded before Python."""
    assert fuzz.run_sanitized(["--sanitize", "--strings", "1000"], llama3=False) == 0


# ---- words ----


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_long_words(lib: ctypes.CDLL, ignore_merges: bool) -> None:
    """Around the sizes where the runtime changes its method, and far beyond them."""
    rng = random.Random(3)
    document = fuzz.stirred_document(ignore_merges)
    oracle, compiled = Oracle.from_str(document), Compiled(lib, document)
    texts = ["a" * n for n in (63, 64, 65, 66, 255, 256, 257, 4095, 4096, 4097)]
    texts += [fuzz.random_word(rng, most) for most in (80, 300, 5000) for _ in range(100)]
    fuzz.compare(oracle, compiled, [text.encode() for text in texts])


def test_pre_tokenizer_trees(lib: ctypes.CDLL) -> None:
    """Random trees of all nodes that are read: before and after the pattern, and after ByteLevel,
    where bytes are the characters."""
    refused = 0
    for seed in range(150):
        rng = random.Random(seed)
        document = fuzz.random_tree_document(rng)
        try:
            compiled = Compiled(lib, document)
        except BitnetcError as error:
            assert "after a Metaspace that splits" in str(error)
            refused += 1
            continue
        oracle = Oracle.from_str(document)
        texts = [fuzz.random_text(rng, 12) for _ in range(40)]
        for text, wanted in zip(texts, oracle.encode_batch(texts), strict=True):
            assert compiled.encode(text.encode(), special=True) == wanted.ids, (seed, text)
    assert refused < 30


def test_no_tree_is_slow(lib: ctypes.CDLL) -> None:
    """A quadratic step takes minutes here."""
    steps = [fuzz.split({"Regex": p}, "MergedWithNext") for p in ("[ab]{3,}", "a{2}", "[^a]+")]
    document = fuzz.tree_document([*steps, *fuzz.TREES["falcon"], *steps])
    compiled = Compiled(lib, document)
    for text in (b"a", b"aab ", b"ab", b"1", "é".encode(), b"a "):
        started = time.perf_counter()
        assert compiled.call((text * 1_000_000)[:1_000_000])[0] > 0
        assert time.perf_counter() - started < 10


def test_words_that_are_pieces(lib: ctypes.CDLL) -> None:
    """Without ignore_merges, exactly the pieces that their own merges lead to are found whole."""
    document = fuzz.stirred_document(False)
    model = Oracle.from_str(document).model
    compiled = Compiled(lib, document)
    vocab = json.loads(document)["model"]["vocab"]
    whole = {number for text, number in vocab.items() if len(model.tokenize(text)) == 1}
    fields = dict(zip(HEADER, np.frombuffer(compiled.blob, "<u4"), strict=False))
    words = np.frombuffer(compiled.blob, "<u4")[len(HEADER) + 4] // 8
    merges = np.frombuffer(compiled.blob, "<u4")[len(HEADER) + 5] // 8
    slots = np.frombuffer(compiled.blob, "<u8")[words:merges]
    found = slots[slots != 2**64 - 1] & 0xFFFFFFFF
    assert sorted(found.tolist()) == sorted(whole)
    assert 300 < len(whole) < fields["vocab"] - 50, "both kinds must occur"


@pytest.mark.parametrize(
    ("digits", "most"),
    [(r"\p{N}", 1), (r"\p{N}{1,3}", 3), (r"\p{N}{1,9}", 9), (r"\p{N}+", ANY_DIGITS)],
)
def test_digits(lib: ctypes.CDLL, digits: str, most: int) -> None:
    document = fuzz.trained_document(True, digits, 300)
    oracle, compiled = Oracle.from_str(document), Compiled(lib, document)
    assert compiled.tokenizer.max_digits == most
    texts = ["1" * n + end for n in range(25) for end in ("", "x", " ", "½٣")]
    fuzz.compare(oracle, compiled, [text.encode() for text in texts])


WORST = {
    "a letter": b"a",
    "spaces": b" ",
    "newlines": b"\n",
    "spaces and newlines": b" \n",
    "carriage returns": b"\r ",
    "wide spaces": "\u3000".encode(),
    "punctuation": b"=",
    "apostrophes": b"'",
    "beginnings of added tokens": b"<|bos|",
    "digits": b"1",
    "NUL": b"\0",
    "not UTF-8": b"\xff",
    "half characters": b"\xf0\x9f\x98",
}


@pytest.mark.parametrize("text", WORST.values(), ids=WORST.keys())
def test_no_text_is_slow(trained: Compiled, text: bytes) -> None:
    """A quadratic step anywhere takes minutes here; this takes well under a second."""
    started = time.perf_counter()
    count, _ = trained.call((text * 1_000_000)[:1_000_000])
    assert count > 0
    assert time.perf_counter() - started < 10


# ---- Unicode ----


@pytest.fixture(scope="session")
def derived_classes() -> Classes:
    return unicode_tables.derive_classes()


def test_classes_of_all_code_points(lib: ctypes.CDLL, derived_classes: Classes) -> None:
    wanted = derived_classes
    classes = np.zeros(0x110000, np.uint8)
    lib.shim_classes(ctypes.c_void_p(classes.ctypes.data))
    assert np.flatnonzero(classes != wanted).tolist() == []
    assert (
        unicode_tables.SETS.read_text("utf-8").splitlines()[5:]
        == (unicode_tables.render_sets(unicode_tables.derive_sets()).splitlines()[5:])
    ), "run python -m bitnetc.tokenizer.unicode_tables"
    unicode_tables.check_folds()

    def without_version(text: str) -> str:
        return re.sub(r"tokenizers [\d.]+", "", text)

    header = unicode_tables.HEADER.read_text("utf-8")
    assert without_version(header) == without_version(
        unicode_tables.render(wanted, unicode_tables.derive_nfc())
    ), "run python -m bitnetc.tokenizer.unicode_tables"


def test_characters_in_context(lib: ctypes.CDLL, derived_classes: Classes) -> None:
    """Characters after, before and between letters, digits, spaces and apostrophes: those up to
    U+3000, and beyond it both ends of every run of one class and of every plane."""
    document = fuzz.trained_document(True, pieces=300)
    oracle, compiled = Oracle.from_str(document), Compiled(lib, document)
    ends = {c + d for c in np.flatnonzero(np.diff(derived_classes)).tolist() for d in (0, 1)}
    ends |= {c for plane in range(0x10000, 0x110001, 0x10000) for c in (plane - 1, plane)}
    points = sorted(c for c in ends | set(range(0x3001)) if c < 0x110000)
    points = [c for c in points if not 0xD800 <= c < 0xE000]
    texts = [
        "".join(f"a{chr(c)}'{chr(c)}e {chr(c)}1{chr(c)}\n" for c in points[i : i + 1000]).encode()
        for i in range(0, len(points), 1000)
    ]
    fuzz.compare(oracle, compiled, texts)


def test_invalid_utf8(trained: Compiled) -> None:
    """Every combination of up to four bytes from the edges of the ranges that UTF-8 tells apart;
    the bytes between them, which are ASCII, keep the cases apart."""
    edges = bytes.fromhex("417f808f909fa0bfc0c1c2dfe0e1ecedeeeff0f1f3f4f5ff")
    for size in (1, 2, 3, 4):
        text = b" ".join(map(bytes, itertools.product(edges, repeat=size)))
        back = b"".join(trained.piece(i) for i in trained.encode(text))
        assert back.decode() == text.decode("utf-8", "replace")
    for end in range(1, 4):  # cut off by the end of the text
        assert trained.encode("😀".encode()[:end]) == trained.encode("\ufffd".encode())


# ---- the C interface ----


def test_room_for_ids(trained: Compiled) -> None:
    for text in (b"", b"the", b"<|bos|>", b"a<|x|>b abc", "日本語".encode() * 50, b"\xff" * 9):
        count, ids = trained.call(text)
        for room in range(count):
            assert trained.call(text, room=room) == (NO_ROOM, [])
        assert trained.call(text, room=count) == (count, ids)


PLAIN = {
    "trained": lambda: fuzz.trained_document(False),
    "nfc": fuzz.nfc_document,
    "neox": fuzz.neox_document,
    **{
        name: lambda name=name: fuzz.character_document(name, *fuzz.characters_vocabulary(False))
        for name in fuzz.CHARACTER_RULES
    },
}


@pytest.mark.parametrize("name", PLAIN)
def test_control_tokens_as_text(lib: ctypes.CDLL, name: str) -> None:
    """With BNC_ENCODE_PLAIN the ids are those of the tokenizer that has no control tokens, and
    those that `tokenizers` finds when it is told to take control tokens for text."""
    document = PLAIN[name]()
    compiled = Compiled(lib, document)
    less = fuzz.without_controls(document)
    judge = Oracle.from_str(less)
    numbers = {t["content"]: t["id"] for t in json.loads(document)["added_tokens"]}
    renumbered = {t["id"]: numbers[t["content"]] for t in json.loads(less)["added_tokens"]}
    told = Oracle.from_str(document)
    told.encode_special_tokens = True
    controls = [t.content.decode() for t in compiled.tokenizer.added if t.special]
    others = [t.content.decode() for t in compiled.tokenizer.added if not t.special]
    assert len(controls) >= 2
    assert ("<" in reached_controls(compiled.tokenizer)) == (name in ("trained", "nfc"))
    rng = random.Random(7)
    texts = [*controls, "".join(controls), *(f"a{c}{c}é {c} 1{c[:-1]}" for c in controls)]
    for _ in range(300):
        parts = [fuzz.random_text(rng, 3), rng.choice(controls), fuzz.random_text(rng, 2)]
        texts.append("".join([*parts, rng.choice([*controls, *others]), fuzz.random_text(rng, 2)]))
    differ = 0
    for text in texts:
        ids = [renumbered.get(i, i) for i in judge.encode(text, add_special_tokens=False).ids]
        found = compiled.encode(text.encode(), plain=True)
        assert found == ids, text
        differ += found != compiled.encode(text.encode())
        if name == "neox":  # where no other token begins inside a control token
            assert found == told.encode(text, add_special_tokens=False).ids
        if not reached_controls(compiled.tokenizer):
            assert not any(map(compiled.is_special, found)), text
    assert differ > 250


def test_scratch(trained: Compiled) -> None:
    assert trained.call(b"a" * 64 + b" ..." * 20, scratch=0)[0] > 0
    for text in ("日本語".encode() * 10, b"=" * 65, b"x\xff" * 40, b"\xff" * 70):
        enough = trained.call(text)
        results = [trained.call(text, scratch=n) for n in range(40 * len(text))]
        assert all(result in (enough, (NO_SCRATCH, [])) for result in results)
        need = results.index(enough)
        assert all(result == enough for result in results[need:])
        assert need <= trained.lib.bnc_encode_scratch_bytes(len(text))
        if text.isascii() or b"\xff" not in text:
            assert len(text) < need < 9 * len(text) + 64


def test_too_long(trained: Compiled) -> None:
    count = trained.lib.bnc_encode(trained.t, b"", (1 << 28) + 1, 0, None, 0, None, 0)
    assert count == TOO_LONG


def test_pieces_outside_the_vocabulary(trained: Compiled) -> None:
    for number in (-1, -(2**31), trained.tokenizer.vocab, 2**31 - 1):
        assert trained.piece(number) == b""
        assert not trained.is_special(number)


def test_init_refuses_what_is_no_blob(trained: Compiled) -> None:
    blob, t = trained.blob, ctypes.create_string_buffer(trained.lib.shim_struct_bytes())

    def init(data: bytes, shift: int = 0) -> int:
        memory = np.zeros(len(data) + 16, np.uint8)
        start = -memory.ctypes.data % 8 + shift
        memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
        code = trained.lib.bnc_tokenizer_init(t, memory.ctypes.data + start, len(data))
        return int(code)

    assert init(blob) == init(blob + b"more") == 0
    assert init(blob, shift=4) == -1
    assert init(blob[:-1]) == init(blob[:8]) == init(b"") == init(b"GGUF" + blob[4:]) == -2
    assert init(blob[:4] + b"\x7f" + blob[5:]) == -3


# ---- files ----


def small() -> dict[str, Any]:
    """A tokenizer.json of the 256 bytes, three merges and two added tokens."""
    alphabet = fuzz.byte_alphabet()
    vocab = {alphabet[b]: b for b in range(256)} | {"ab": 256, "abc": 257, "bc": 258}
    document: dict[str, Any] = json.loads(fuzz.trained_document(True, pieces=300))
    document["model"] |= {"vocab": vocab, "merges": [["a", "b"], ["ab", "c"], ["b", "c"]]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    document["added_tokens"] = [
        {"id": 259, "content": "<s>", **flags, "normalized": False, "special": True},
        {"id": 260, "content": "xx", **flags, "normalized": True, "special": False},
    ]
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [259], "tokens": ["<s>"]}},
    }
    return document


def parse(document: object) -> Any:
    return parse_tokenizer(json.dumps(document).encode(), "tokenizer.json")


def test_reads_a_directory(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(small()))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.vocab == 261
    assert tokenizer.model_pieces == 259
    assert tokenizer.pieces[0x20] == b" "
    assert tokenizer.pieces[0xE9] == b"\xe9"
    assert tokenizer.pieces[256:] == (b"ab", b"abc", b"bc", b"<s>", b"xx")
    assert tokenizer.merges.tolist() == [[97, 98, 256], [256, 99, 257], [98, 99, 258]]
    assert tokenizer.ignore_merges is True
    assert (tokenizer.pattern, tokenizer.max_digits) == ("llama3", 3)
    assert tokenizer.added == (
        AddedToken(259, b"<s>", True, False),
        AddedToken(260, b"xx", False, True),
    )
    assert (tokenizer.prefix, tokenizer.suffix) == ((259,), ())


def test_both_forms_of_merges_and_equal_bytes() -> None:
    document = small()
    blob = compile_tables(parse(document))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    assert compile_tables(parse(document)) == blob


def test_no_merges_and_no_added_tokens(lib: ctypes.CDLL) -> None:
    document = small()
    document["model"]["merges"] = []
    document["added_tokens"] = []
    document["post_processor"] = None
    compiled = Compiled(lib, json.dumps(document))
    assert compiled.encode(b"abc d", special=True) == [257, 32, 100]
    document["model"]["ignore_merges"] = False
    assert Compiled(lib, json.dumps(document)).encode(b"abc") == [97, 98, 99]


@pytest.mark.parametrize("normalized", [False, True])
def test_added_token_of_the_vocabulary(lib: ctypes.CDLL, normalized: bool) -> None:
    """It keeps its id, and is found inside words as well."""
    document = small()
    token = document["added_tokens"][0] | {"id": 256, "content": "ab", "normalized": normalized}
    document["added_tokens"].insert(0, token)
    text = json.dumps(document)
    oracle, compiled = Oracle.from_str(text), Compiled(lib, text)
    assert compiled.encode(b"xabc abxx") == [120, 256, 99, 32, 256, 260]
    assert compiled.is_special(256)
    fuzz.compare(oracle, compiled, [b"xabc abxx", b"ab", b"abab<s>ab"])


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """An edit: sets the member at "a.b.0.c", or deletes it when value is ...."""

    def edit(document: dict[str, Any]) -> None:
        *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        node: Any = document
        for key in way:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value

    return edit


def alone(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """An edit of a file without added tokens, whose ids would have to follow the vocabulary."""

    def edit(document: dict[str, Any]) -> None:
        document |= {"added_tokens": [], "post_processor": None}
        change(path, value)(document)

    return edit


SPLIT = "pre_tokenizer.pretokenizers.0"
LEVEL = "pre_tokenizer.pretokenizers.1"
REFUSED = [
    (change("normalizer", {"type": "NFKC"}), 'normalizer: "NFKC" is not supported'),
    (
        change("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}),
        'normalizer.normalizers[0]: "Lowercase" is not supported',
    ),
    (change("decoder", {"type": "Metaspace"}), 'decoder: "Metaspace" is not supported'),
    (change("pre_tokenizer", None), "pre_tokenizer: missing"),
    (change("pre_tokenizer", {"type": "Whitespace"}), 'pre_tokenizer: "Whitespace" is not'),
    (change("pre_tokenizer.pretokenizers", []), "pre_tokenizer: missing"),
    (change(f"{SPLIT}.type", "Digits"), "individual_digits: expected true or false, found null"),
    (change(f"{SPLIT}.type", "UnicodeScripts"), '[0]: "UnicodeScripts" is not supported; supp'),
    (change(f"{SPLIT}.type", "BertPreTokenizer"), '[0]: "BertPreTokenizer" is not supported'),
    (change(f"{SPLIT}.type", "ByteLevel"), "[1]: a second ByteLevel is not supported"),
    (change(f"{SPLIT}", {"type": "CharDelimiterSplit", "delimiter": "ab"}), "expected one char"),
    (change(f"{SPLIT}.pattern", {}), "Regex: expected a string, found null"),
    (change(f"{SPLIT}.pattern", {"String": "ab"}), '"ab" is not supported; supported: one char'),
    (change(f"{SPLIT}.pattern", {"String": ""}), 'String: "" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"[a-z]*"), 'the pattern "[a-z]*" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"[z-a]"), 'the pattern "[z-a]" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"[[a]&&b]"), 'the pattern "[[a]&&b]" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"[0-9]|b"), 'the pattern "[0-9]|b" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"a{3,2}"), 'the pattern "a{3,2}" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", r"\p{Han}"), 'p{Han}" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", ""), 'the pattern "" is not supported'),
    (change("pre_tokenizer.pretokenizers", [{"type": "Digits"}] * 2), "a Sequence of Digits, Digi"),
    (
        lambda d: d["pre_tokenizer"]["pretokenizers"].extend(
            {"type": "Digits", "individual_digits": True} for _ in range(16)
        ),
        "pre_tokenizer: too many pre-tokenisers; supported: 15",
    ),
    (change(f"{SPLIT}.pattern.Regex", r"\w+"), r'the pattern "\\w+" is not supported'),
    (change(f"{SPLIT}.pattern.Regex", PATTERN_HEAD + r"\d" + PATTERN_TAIL), "is not supported"),
    (change(f"{SPLIT}.pattern.Regex", PATTERN_HEAD[:-1] + PATTERN_TAIL), "is not supported"),
    (change(f"{SPLIT}.behavior", "Removed"), 'behavior: "Removed" is not supported with'),
    (change(f"{SPLIT}.invert", True), 'behavior: "Isolated" is not supported with this'),
    (change(f"{LEVEL}.add_prefix_space", True), "add_prefix_space: true is not supported"),
    (change(f"{LEVEL}.use_regex", True), "use_regex: true is not supported"),
    (change(f"{LEVEL}.use_regex", ...), "use_regex: true is not supported"),
    (change("model", None), "model: expected an object, found null"),
    (change("model.type", "Unigram"), 'model: "Unigram" is not supported; only "BPE" is'),
    (change("model.dropout", 0.1), "model.dropout: 0.1 is not supported"),
    (change("model.byte_fallback", True), 'decoder: "ByteLevel" is not supported'),
    (change("model.end_of_word_suffix", "</w>"), 'end_of_word_suffix: "</w>" is not'),
    (change("model.continuing_subword_prefix", "##"), 'subword_prefix: "##" is not'),
    (change("model.ignore_merges", 1), "model.ignore_merges: expected true or false, found 1"),
    (change("model.vocab", []), "model.vocab: expected an object, found []"),
    (change("model.vocab", {}), "model.vocab: 0 pieces"),
    (change("model.vocab.ab", 300), 'piece "ab" has id 300, outside 0 to 258'),
    (change("model.vocab.ab", -1), 'piece "ab" has id -1, outside'),
    (change("model.vocab.ab", 256.0), 'piece "ab" has id 256.0, outside'),
    (change("model.vocab.ab", True), 'piece "ab" has id true, outside'),
    (change("model.vocab.ab", 257), "two pieces have id 257"),
    (change("model.vocab.ab", ...), 'piece "bc" has id 258, outside 0 to 257; ids must have no'),
    (alone("model.vocab.", 259), "piece 259 has 0 bytes"),
    (alone("model.vocab.日", 259), 'vocab: "\\u65e5" is not byte-level text'),
    (alone("model.vocab.a b", 259), 'vocab: "a b" is not byte-level text'),
    (change("model.merges", None), "model.merges: expected a list, found null"),
    (change("model.merges.0", "a"), 'model.merges[0]: expected "left right"'),
    (change("model.merges.0", "a b c"), 'model.merges[0]: expected "left right"'),
    (change("model.merges.0", ["a"]), 'model.merges[0]: expected "left right"'),
    (change("model.merges.0", ["a", 1]), 'model.merges[0]: expected "left right"'),
    (change("model.merges.0", 7), 'model.merges[0]: expected "left right"'),
    (change("model.merges.0", ["a", "日"]), 'model.merges[0]: "\\u65e5" is not in model.vocab'),
    (change("model.merges.0", ["a", "a"]), 'model.merges[0]: "aa" is not in model.vocab'),
    (change("model.merges.2", "a b"), 'model.merges[2]: "a b" is listed twice'),
    (change("added_tokens", {}), "added_tokens: expected a list, found {}"),
    (change("added_tokens.0", "<s>"), 'added_tokens[0]: expected an object, found "<s>"'),
    (change("added_tokens.0.content", ""), "added_tokens[0].content: 0 bytes"),
    (change("added_tokens.0.content", "x" * 1025), "1025 bytes; supported: 1 to 1024"),
    (change("added_tokens.0.content", "\ud800"), "holds half of a surrogate pair"),
    (change("added_tokens.0.content", "xx"), 'added_tokens[1]: "xx" is listed twice'),
    (change("added_tokens.0.content", None), "content: expected a string, found null"),
    (change("added_tokens.0.lstrip", True), "added_tokens[0].lstrip: true is not supported"),
    (change("added_tokens.0.rstrip", True), "added_tokens[0].rstrip: true is not supported"),
    (change("added_tokens.0.single_word", True), "added_tokens[0].single_word: true is not"),
    (change("added_tokens.0.id", 5), 'added_tokens[0].id: "<s>" has id 5, expected 259'),
    (change("added_tokens.0.id", 261), 'added_tokens[0].id: "<s>" has id 261, expected 259'),
    (change("added_tokens.0.id", "259"), 'id: expected a whole number, found "259"'),
    (change("added_tokens.1.content", "abc"), 'id: "abc" has id 260, expected 257'),
    (change("post_processor", {"type": "BertProcessing"}), '"BertProcessing" is not supported'),
    (change("post_processor.single", []), "single: expected the text, sequence A, once"),
    (change("post_processor.single.1.Sequence.id", "B"), "expected the text, sequence A"),
    (change("post_processor.single.0", {}), "expected SpecialToken or Sequence"),
    (change("post_processor.special_tokens", {}), 'special_tokens: no entry "<s>"'),
    (change("post_processor.special_tokens.<s>.ids", [261]), "261 is outside 0 to 260"),
    (change("post_processor.special_tokens.<s>.ids", [0] * 17), "more than 16 special tokens"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refuses(edit: Callable[[dict[str, Any]], None], message: str) -> None:
    document = small()
    edit(document)
    with pytest.raises(BitnetcError) as error:
        parse(document)
    assert str(error.value).startswith("tokenizer.json: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON: Expecting value (line 1, column 1)"),
        (b"{", "not JSON"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b"[]", "expected an object, found []"),
        (b"[" * 200_000, "not JSON: nested too deeply"),
        (b'{"a":' * 200_000, "not JSON: nested too deeply"),
        (b"1" * 10_000, "not JSON: a number has too many digits"),
        (b"{}", "model: expected an object, found null"),
    ],
)
def test_refuses_bytes(data: bytes, message: str) -> None:
    with pytest.raises(BitnetcError) as error:
        parse_tokenizer(data, "tokenizer.json")
    assert str(error.value).startswith("tokenizer.json")
    assert message in str(error.value)


def test_a_byte_without_a_piece_is_named() -> None:
    document = small()
    vocab = document["model"]["vocab"]
    vocab["zz"] = vocab.pop("z")
    with pytest.raises(BitnetcError, match=r'no piece for the byte 0x7A \("z"\); train with'):
        parse(document)


def test_missing_file_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(BitnetcError, match=r"no tokenizer\.json") as error:
        read_tokenizer(tmp_path)
    assert error.value.where == str(tmp_path)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(BitnetcError, match="cannot be read"):
        read_tokenizer(tmp_path)


def test_any_change_is_refused_or_understood(lib: ctypes.CDLL) -> None:
    """Puts odd values everywhere. No other exception than BitnetcError; and what we read and
    `tokenizers` loads encodes alike."""
    odd: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "a", "a b", "\ud800", [], [[]], {}]
    texts = [t.encode() for t in ("abc", "a 12345 <s>xx", "ab<s", "\n \n x", "it's été")]
    understood = 0
    for way, value in itertools.product(list(fuzz.places(small())), [*odd, ...]):
        if not way:
            continue
        document: Any = small()
        node = document
        for key in way[:-1]:
            node = node[key]
        if value is ...:
            del node[way[-1]]
        else:
            node[way[-1]] = value
        text = json.dumps(document)
        try:
            compiled = Compiled(lib, text)
        except BitnetcError as error:
            assert "\n" not in str(error)
            continue
        try:
            oracle = Oracle.from_str(text)
        except Exception:
            continue  # `tokenizers` is stricter here, and nobody can have made such a file
        fuzz.compare(oracle, compiled, texts)
        understood += 1
    assert understood > 30
