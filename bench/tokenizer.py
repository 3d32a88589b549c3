"""How fast the C tokenizer is, beside the `tokenizers` package, with the vocabulary of Llama-3 or
Mistral.

    python bench/tokenizer.py                       text that comes with Python and gettext
    python bench/tokenizer.py --text english=FILE --text russian=FILE
    python bench/tokenizer.py --cc "gcc -O3"
    python bench/tokenizer.py --tokenizer mistral

One core each; the best of some rounds counts, in 10**6 bytes of text a second. Ids are compared.
"""

import argparse
import gettext
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from fuzz_tokenizer import (  # noqa: E402
    Buffer,
    Compiled,
    build,
    llama3_document,
    mistral_document,
)
from tokenizers import Tokenizer as Oracle  # noqa: E402

from bitnetc.tokenizer import parse_tokenizer  # noqa: E402
from bitnetc.tokenizer.tables import compile_tables  # noqa: E402

DOCUMENTS: dict[str, Callable[[], str]] = {
    "llama3": llama3_document,
    "qwen": lambda: qwen_document(),
    "gpt2": lambda: gpt2_document(),
    "mistral": lambda: mistral_document("metaspace first"),
    "llama2": lambda: mistral_document("llama"),
    "gemma": lambda: mistral_document("gemma"),
}
CHUNK = 100_000  # bytes given to one call, about
LANGUAGES = ("de", "fr", "ru", "el", "ar", "he", "hi", "th", "ja", "ko", "zh_CN", "vi", "ta")


def qwen_document() -> str:
    """The vocabulary of Llama-3 under the rules of Qwen: NFC, single digits, merges only."""
    document = json.loads(llama3_document())
    document["normalizer"] = {"type": "NFC"}
    document["model"]["ignore_merges"] = False
    pattern = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    pattern["Regex"] = pattern["Regex"].replace("{1,3}", "")
    return json.dumps(document)


def gpt2_document() -> str:
    """The vocabulary of Llama-3 under the pattern of GPT-2."""
    document = json.loads(llama3_document())
    document["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    document["pre_tokenizer"]["trim_offsets"] = True
    return json.dumps(document)


def translations(directory: Path, language: str, most: int) -> str:
    """Up to `most` characters of the messages that the installed programs have in a language."""
    texts: list[str] = []
    size = 0
    for path in sorted((directory / language / "LC_MESSAGES").glob("*.mo")):
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)
        except (OSError, ValueError, LookupError):
            continue  # not UTF-8, or damaged
        messages = catalog._catalog  # type: ignore[attr-defined]
        texts += [text for text in messages.values() if isinstance(text, str)]
        size = sum(map(len, texts))
        if size >= most:
            break
    return "\n".join(texts)[:most]


def default_texts() -> dict[str, bytes]:
    import pydoc_data.topics

    texts = {"English (Python manual)": "\n".join(pydoc_data.topics.topics.values())}
    source = Path(gettext.__file__).parent
    texts["Python source"] = "\n".join(
        path.read_text("utf-8") for path in sorted(source.glob("[a-f]*.py"))
    )[:1_000_000]
    system = Path(os.path.realpath(shutil.which("env") or sys.executable)).parents[1]
    locale = system / "share" / "locale"
    parts = {language: translations(locale, language, 150_000) for language in LANGUAGES}
    parts = {language: text for language, text in parts.items() if text}
    if parts:
        texts[f"{len(parts)} languages (gettext)"] = "".join(parts.values())
        texts |= {f"  {language}": text for language, text in parts.items()}
    else:
        print("no translations are installed: English only", file=sys.stderr)
    return {name: text.encode() for name, text in texts.items()}


def worst_texts() -> dict[str, bytes]:
    """One megabyte each of what a careless tokenizer is slow on."""
    size = 1_000_000
    return {
        "one letter": b"a" * size,
        "spaces": b" " * size,
        "newlines": b"\n" * size,
        "' \\n'": b" \n" * (size // 2),
        "<": b"<" * size,
        "zero bytes": bytes(size),
        "invalid bytes": b"\xff" * (size // 2),
        "one word of Chinese": "天地玄黃宇宙洪荒".encode() * (size // 24),
        "not NFC": "e\u0323\u0301".encode() * (size // 5),
        "marks": "\u0301\u0323".encode() * (size // 4),
    }


def chunks(text: bytes) -> list[bytes]:
    """Pieces of about CHUNK bytes, cut after newlines where there are any."""
    parts, start = [], 0
    while start < len(text):
        end = text.find(b"\n", start + CHUNK) + 1 or len(text)
        parts.append(text[start:end])
        start = end
    return parts


def best_seconds(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(compiled: Compiled, oracle: Oracle | None, text: bytes, rounds: int) -> str:
    parts = chunks(text)
    longest = max(len(part) for part in parts)
    need = compiled.lib.bnc_encode_scratch_bytes(longest)
    ids, work = Buffer(4 * 3 * longest), Buffer(need)
    sources = [Buffer(len(part), part) for part in parts]

    def encode() -> int:
        total = 0
        for part, source in zip(parts, sources, strict=True):
            total += compiled.lib.bnc_encode(
                compiled.t,
                source.address,
                len(part),
                0,
                ids.address,
                3 * longest,
                work.address,
                need,
            )
        return total

    count = encode()
    ours = len(text) / best_seconds(encode, rounds) / 1e6
    line = f"{len(text) / 1e6:6.2f} {len(text) / max(count, 1):9.2f} {ours:8.1f}"
    if oracle:
        strings = [part.decode("utf-8", "replace") for part in parts]
        theirs = len(text) / best_seconds(
            lambda: [oracle.encode(s, add_special_tokens=False) for s in strings], 1
        )
        wanted = [i for s in strings for i in oracle.encode(s, add_special_tokens=False).ids]
        same = wanted == [i for part in parts for i in compiled.encode(part)]
        line += f" {theirs / 1e6:10.1f}  {'equal' if same else 'DIFFERENT'}"
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", action="append", metavar="NAME=FILE", help="instead of our own")
    parser.add_argument("--tokenizer", choices=DOCUMENTS, default="llama3")
    parser.add_argument("--cc", help="compiler and flags (default: $CC or cc, -O2)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.cc:
        os.environ["CC"] = args.cc

    document = DOCUMENTS[args.tokenizer]()
    started = time.perf_counter()
    tokenizer = parse_tokenizer(document.encode(), "tokenizer.json")
    read = time.perf_counter()
    blob = compile_tables(tokenizer)
    print(f"{tokenizer.vocab} pieces, {len(tokenizer.merges)} merges: {len(blob)} bytes of tables;")
    print(f"read {read - started:.2f} s, compiled {time.perf_counter() - read:.2f} s\n")

    if args.text:
        texts = {n: Path(f).read_bytes() for n, f in (t.split("=", 1) for t in args.text)}
    else:
        texts = default_texts()
    oracle = Oracle.from_str(document)
    with tempfile.TemporaryDirectory() as directory:
        compiled = Compiled(build(Path(directory), []), document)
        init = compiled.lib.bnc_tokenizer_init
        blob_at, size = compiled.memory.ctypes.data, len(compiled.blob)
        seconds = best_seconds(lambda: init(compiled.t, blob_at, size), 1000)
        print(f"bnc_tokenizer_init: {seconds * 1e6:.1f} us, the call from Python included\n")
        print(f"{'':28}    MB bytes/id   C MB/s tokenizers")
        for name, text in texts.items():
            print(f"{name:28}", measure(compiled, oracle, text, args.rounds), flush=True)
        print()
        for name, text in worst_texts().items():
            print(f"{name:28}", measure(compiled, None, text, 1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
