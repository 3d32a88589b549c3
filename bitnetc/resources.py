"""Finds templates/, runtime_c/ and targets/, in a checkout or inside an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _root() -> Path:
    """The wheel carries the three folders in bitnetc/_data; a checkout has them beside bitnetc/."""
    inside = _PACKAGE / "_data"
    return inside if inside.is_dir() else _PACKAGE.parent


TEMPLATES = _root() / "templates"
RUNTIME = _root() / "runtime_c"
TARGETS = _root() / "targets"
LICENSE = _root() / "LICENSE"
