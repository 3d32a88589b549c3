"""JSON files of a checkpoint, read with suspicion: every error names the file and the field."""

import json
import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bitnetc.errors import BitnetcError

MAX_JSON_BYTES = 16 * 1024 * 1024  # config.json and the shard index; real ones are below 100 KB


def shown(value: object) -> str:
    """A value from a file as a one-line message may show it: escaped, at most 80 characters."""
    text = json.dumps(value, default=str).replace("\x7f", "\\u007f")
    return text if len(text) <= 80 else text[:77] + "..."


def misspelt(word: str, found: Iterable[str]) -> str | None:
    """The name found that is very likely `word` misspelt; looser guesses belong in errors.nearest.

    Only the first 1000 names count: comparing is slow, and a hostile file can hold 100 times more.
    """
    close = get_close_matches(word, sorted(found)[:1000], n=1, cutoff=0.85)
    return close[0] if close else None


def first_twice(pairs: list[tuple[str, Any]]) -> str:
    """The first key that repeats an earlier one; there must be one."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    raise ValueError("no key appears twice")


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; refuses pipes, devices and files beyond `limit` bytes."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "not found"
        raise BitnetcError(str(path), what, "download the checkpoint again")
    try:
        size = path.stat().st_size
        if size > limit:
            raise BitnetcError(
                str(path),
                f"{size} bytes, more than the {limit} that are sane for this file",
                "download the checkpoint again",
            )
        return path.read_bytes()
    except OSError as error:
        raise BitnetcError(
            str(path), f"cannot be read: {error.strerror or error}", "check its permissions"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object a file holds. Duplicate keys are refused: readers differ on which counts."""
    raw = read_bytes(path, MAX_JSON_BYTES)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            twice = shown(first_twice(pairs))
            raise BitnetcError(str(path), f"key {twice} appears twice", "remove one of them")
        return values

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise BitnetcError(
            str(path), f"is not valid JSON: {detail}", "download the checkpoint again"
        ) from None
    if not isinstance(value, dict):
        raise BitnetcError(
            str(path), f"holds {_kind(value)}, not a JSON object", "download the checkpoint again"
        )
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a true/false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


class Fields:
    """Typed access to one JSON object; a value of null counts as missing.

    where:    the file, and the field that holds the object when it is nested.
    own_keys: key -> how the file spells it, where that differs.
    """

    def __init__(
        self, where: str, values: Mapping[str, Any], own_keys: Mapping[str, str] | None = None
    ) -> None:
        self.where, self.values, self.own_keys = where, values, own_keys or {}

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._value(key, default)
        if type(value) is not int:
            raise self.error(key, f"must be a whole number, found {shown(value)}")
        if not low <= value <= high:
            raise self.error(key, f"must be from {low} to {high}, found {shown(value)}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """low < value <= high; the open end keeps zero out of what must be positive."""
        value = self._value(key, default)
        if type(value) not in (int, float):
            raise self.error(key, f"must be a number, found {shown(value)}")
        if not (low < value <= high) or not math.isfinite(value):
            raise self.error(
                key, f"must be above {low:g} and at most {high:g}, found {shown(value)}"
            )
        return float(value)

    def boolean(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if type(value) is not bool:
            raise self.error(key, f"must be true or false, found {shown(value)}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if type(value) is not str:
            raise self.error(key, f"must be a text, found {shown(value)}")
        return value

    def nested(self, key: str) -> "Fields":
        """The object under `key`; an empty one when missing."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be an object, found {shown(value)}")
        return Fields(f"{self.where}: {key}", value)

    def error(self, key: str, what: str, hint: str = "") -> BitnetcError:
        return BitnetcError(f"{self.where}: {self.shown_key(key)}", what, hint or self._remedy())

    def shown_key(self, key: str) -> str:
        own = self.own_keys.get(key, key)
        return own if own.isascii() and own.isprintable() else shown(own)

    def _remedy(self) -> str:
        return "convert the model again" if self.own_keys else "correct the value"

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            near = None if self.own_keys else misspelt(key, self.values)
            hint = self._remedy() if self.own_keys else "add it"
            if near:
                hint = f"rename {shown(near)} if that is it"
            raise BitnetcError(f"{self.where}: {self.shown_key(key)}", "is missing", hint)
        return value
