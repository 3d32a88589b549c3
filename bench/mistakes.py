"""Imported first by the programs of this folder: what whoever started one can mend (a file that is
not there, a package or a tool that is missing) is said in one line, without a traceback."""

import sys
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bitnetc.errors import BitnetcError


def one_line(error: BaseException) -> str:
    """What to say; nothing where the mistake is ours."""
    if isinstance(error, BitnetcError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is missing: pip install -e '.[test]' installs it"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return ""


def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = one_line(error)
    if line:
        print(line, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = say
