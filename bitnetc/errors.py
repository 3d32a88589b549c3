"""The one error a person sees: where, what, and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


class BitnetcError(Exception):
    """A mistake in the input, printed as one line; the program ends with exit code 2.

    where: the file, field or option at fault, most general first ("model.safetensors: header").
    what:  what is wrong there, with the numbers.
    hint:  what to do next; empty when `what` says it all.
    """

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        self.where, self.what, self.hint = where, what, hint
        super().__init__(_printable(f"{where}: {what}" + (f"; {hint}" if hint else "")))


def _printable(text: str) -> str:
    """The text with what a terminal would act upon escaped: names from files hold anything."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean "x"?' for a misspelt name, or the list of all names when none is near."""
    names = sorted(known)
    close = get_close_matches(word, names, n=2, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f'"{name}"' for name in close) + "?"
    return "known: " + ", ".join(names)
