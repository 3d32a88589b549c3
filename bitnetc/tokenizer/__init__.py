"""Tokenizer files -> Tokenizer, the normal form that `tables` compiles for the C runtime.

BPE, in the two forms that models use: of bytes (GPT-2, Llama-3, Qwen), and of characters with
bytes for those that have no piece (SentencePiece: Llama-2, Mistral, Gemma). A text is cut at added
tokens, brought into normal form, cut into words by a fixed pattern, and each word is merged pair by
pair, lowest rank first. The readers accept what the C runtime reproduces exactly and refuse
everything else by name.
"""

import json
from pathlib import Path
from typing import Any

from bitnetc.errors import BitnetcError
from bitnetc.tokenizer.form import (
    ANY_DIGITS,
    MAX_FILE_BYTES,
    PATTERN,
    PATTERN_GPT2,
    PATTERN_HEAD,
    PATTERN_TAIL,
    AddedToken,
    Tokenizer,
)
from bitnetc.tokenizer.sentencepiece_model import from_gguf, parse_model
from bitnetc.tokenizer.sentencepiece_writer import write_model
from bitnetc.tokenizer.tiktoken_file import is_rank_file, parse_ranks
from bitnetc.tokenizer.tokenizer_json import parse_tokenizer

__all__ = [
    "ANY_DIGITS",
    "MAX_FILE_BYTES",
    "PATTERN",
    "PATTERN_GPT2",
    "PATTERN_HEAD",
    "PATTERN_TAIL",
    "AddedToken",
    "Tokenizer",
    "from_gguf",
    "parse_model",
    "parse_ranks",
    "parse_tokenizer",
    "read_tokenizer",
    "write_model",
]


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, from the files in its directory: tokenizer.json, else
    tokenizer.model, a SentencePiece model or a rank file of tiktoken."""
    path = directory / "tokenizer.json"
    data = _read(path)
    if data is not None:
        return parse_tokenizer(data, str(path))
    path = directory / "tokenizer.model"
    data = _read(path)
    if data is None:
        raise BitnetcError(
            str(directory),
            "no tokenizer.json",
            "save the tokenizer beside the weights (tokenizer.save_pretrained)",
        )
    added, eos = _read_config(directory)
    if is_rank_file(data):
        return parse_ranks(data, str(path), added)
    return parse_model(data, str(path), added, eos)


def _read(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BitnetcError(str(path), f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BitnetcError(str(path), f"cannot be read: {error.strerror}") from None


def _read_config(directory: Path) -> tuple[dict[int, str], bool]:
    """What stands beside a tokenizer.model: added tokens by id, and whether texts end with the
    end-of-text token. tokenizer_config.json of transformers, else its older added_tokens.json."""
    path = directory / "tokenizer_config.json"
    config = _read_object(path)
    listed = config.get("added_tokens_decoder")
    added: dict[int, str] = {}
    if isinstance(listed, dict):
        for number, token in listed.items():
            content = token.get("content") if isinstance(token, dict) else None
            if not number.isdecimal() or not isinstance(content, str):
                raise BitnetcError(f"{path}: added_tokens_decoder", f"{number!r} is no token")
            for key in ("lstrip", "rstrip", "single_word"):
                if token.get(key):
                    raise BitnetcError(
                        f"{path}: added_tokens_decoder.{number}.{key}", "true is not supported"
                    )
            added[int(number)] = _checked(content, path)
    else:
        path = directory / "added_tokens.json"
        for content, value in _read_object(path).items():
            if type(value) is not int or value < 0:
                raise BitnetcError(str(path), f"{content!r} has no id")
            added[value] = _checked(content, path)
    return added, config.get("add_eos_token") is True


def _checked(content: str, path: Path) -> str:
    try:
        content.encode()
    except UnicodeEncodeError:
        raise BitnetcError(str(path), f"{content!r} holds half of a surrogate pair") from None
    return content


def _read_object(path: Path) -> dict[str, Any]:
    data = _read(path)
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BitnetcError(str(path), "not JSON") from None
    if not isinstance(value, dict):
        raise BitnetcError(str(path), "not a JSON object")
    return value
