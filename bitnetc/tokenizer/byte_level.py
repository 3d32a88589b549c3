"""Byte-level text: each byte written as a character."""


def _alphabet() -> dict[int, int]:
    """str.translate table of byte-level text: code point -> byte; the alphabet of GPT-2.

    Printable Latin-1 stands for itself; the other 68 bytes, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(printable))
    return _Alphabet({b: b for b in printable} | {0x100 + i: b for i, b in enumerate(rest)})


class _Alphabet(dict[int, int]):
    """Sends a code point outside the alphabet to U+FFFF, which then does not encode to Latin-1."""

    def __missing__(self, key: int) -> int:
        return 0xFFFF


BYTES = _alphabet()
CHARACTERS = {byte: character for character, byte in BYTES.items()}


def to_bytes(text: str) -> bytes | None:
    """The bytes that byte-level text stands for, or None when it is not byte-level text."""
    try:
        return text.translate(BYTES).encode("latin-1")
    except UnicodeEncodeError:
        return None
