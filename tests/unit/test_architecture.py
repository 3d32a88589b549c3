"""The shape of the code: stages import earlier stages only, templates schedule and do not think."""

import ast
import re
from pathlib import Path

import pytest

from bitnetc import resources
from bitnetc.emit import environment

PACKAGE = Path(__file__).parents[2] / "bitnetc"

# read -> normalise -> plan -> pack -> emit -> build -> verify: a stage may import what is above it.
ORDER = [
    ("errors", "resources", "layout"),
    ("tokenizer", "kernels"),
    ("model", "target"),
    ("checkpoint", "cost", "memory", "reference"),
    ("families", "chat", "pooling"),
    ("ropes",),
    ("normalise", "synth"),
    ("head", "prune", "binary", "bf12"),
    ("plan", "convert", "inspect"),
    ("pack",),
    ("footprint", "weights_file", "board", "totals", "elf"),
    ("emit", "toolchain", "wasi", "semihosting"),
    ("build", "layouts_header", "web"),
    ("run", "compiler", "wasi", "package"),
    ("verify", "package"),
    ("inspect_view",),
    ("cli",),
    ("__main__",),
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imports(path: Path) -> set[str]:
    """Modules of bitnetc that a file imports, by their first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "bitnetc":
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("bitnetc.")}
    return found - {"__version__"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_one_way_flow(path: Path) -> None:
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if module == "__init__":
        return
    assert module in RANK, f"say in ORDER where {module} stands"
    for other in imports(path) - {module}:
        assert RANK[other] <= RANK[module], f"{module} imports {other}, a later stage"


@pytest.mark.parametrize("path", sorted(resources.TEMPLATES.rglob("*.jinja")), ids=lambda p: p.name)
def test_templates(path: Path) -> None:
    text = path.read_text()
    environment().parse(text)
    if path.parent.name == "macros" or path.name == "bnc_layouts.h.jinja":
        return  # not an emitted file: pieces of one, and a development-time table
    lines = [line for line in text.splitlines() if line.strip()]
    control = [line for line in lines if re.match(r"\s*\{%", line)]
    assert 4 * len(control) <= len(lines), "more than one line in four is a control line"
    intrinsics = re.findall(r"\b(_mm\w+|v[a-z]+q?_[su]\d+|__builtin\w+|__ARM\w+|__AVX\w+)\b", text)
    assert not intrinsics, "instruction sets belong in runtime_c/kernels"


def test_magic_numbers() -> None:
    """`/* check: EXPRESSION */` comments hold."""
    checked = 0
    for path in resources.RUNTIME.rglob("*.[ch]"):
        for expression in re.findall(r"/\* check: (.*?) \*/", path.read_text()):
            assert re.fullmatch(r"[0-9+*/() =.,a-z]+", expression), expression
            assert eval(expression, {"__builtins__": {"round": round}}), f"{path}: {expression}"
            checked += 1
    assert checked
