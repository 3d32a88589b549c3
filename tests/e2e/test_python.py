"""The Python module of a compiled model."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers

from bitnetc.compiler import Options, compile_model, load
from bitnetc.errors import BitnetcError
from bitnetc.reference import Reference
from e2e.built import EXAMPLE, Built

PROMPT = "It is a truth universally acknowledged, that"


@pytest.fixture(scope="module")
def folder(built: Callable[..., Built]) -> Path:
    return built(EXAMPLE, "native", name="austen", python=True)[2]


@pytest.fixture(scope="module")
def module(folder: Path) -> ModuleType:
    return imported(folder / "python" / "austen.py")


def imported(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def model(module: ModuleType) -> Iterator[Any]:
    with module.Model(context=64) as opened:
        yield opened


def test_tokens(model: Any) -> None:
    judge = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    for text in (PROMPT, "", "\u00e9t\u00e9 \0 <|end_of_text|>\n"):
        assert model.tokenize(text) == judge.encode(text).ids
    bare = judge.encode(PROMPT, add_special_tokens=False).ids
    assert model.tokenize(PROMPT, add_special=False) == bare
    assert b"".join(map(model.piece, bare)) == PROMPT.encode()
    assert model.piece(10**6) == b""


def test_logits_are_the_references(model: Any) -> None:
    wanted = Reference(load(EXAMPLE)).logits([1, 2, 3])
    assert np.array_equal(np.asarray(model.eval_all([1, 2, 3])), wanted)
    assert len(model) == 3
    model.rewind(1)
    assert np.array_equal(np.asarray(model.eval([2, 3])), wanted[-1])
    assert model.sample() == int(np.argmax(wanted[-1])) == model.sample()
    model.reset()
    assert len(model) == 0
    assert np.asarray(model.embed([1, 2, 3])).shape == (384,)
    assert np.array_equal(np.asarray(model.logits()), wanted[-1])


def test_generate(model: Any, folder: Path) -> None:
    """Lazily, with what the checkpoint asks for or with what is given; the session goes on."""
    pieces = model.generate(PROMPT, max_tokens=20, temperature=0)
    begin = next(pieces)
    held = len(model)
    text = begin + "".join(pieces)
    assert held < len(model)
    own = subprocess.run(
        [folder / "bin" / "austen", "-q", "-p", PROMPT, "-n", "30", "--temp", "0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert text + "".join(model.generate("", max_tokens=10, temperature=0)) + "\n" == own
    model.reset()
    one = "".join(model.generate(PROMPT, max_tokens=12, seed=5))
    model.reset()
    assert one == "".join(model.generate(model.tokenize(PROMPT), max_tokens=12, seed=5))
    model.reset()
    assert one != "".join(model.generate(PROMPT, max_tokens=12, seed=6))
    model.reset()
    assert len("".join(model.generate("And", temperature=1.5, seed=1))) > 0
    assert len(model) <= model.context


def test_mistakes(module: ModuleType, model: Any) -> None:
    with pytest.raises(module.ModelError, match="outside the vocabulary") as wrong:
        model.eval([module.VOCAB])
    assert wrong.value.code == -4
    with pytest.raises(module.ModelError, match="no token has been fed"):
        model.logits()
    with pytest.raises(module.ModelError, match="context is full"):
        model.eval([1] * 65)
    with pytest.raises(module.ModelError, match="context is full"):
        list(model.generate([1] * 65))
    for arguments in ({"context": 0}, {"context": 10**6}, {"threads": 0}, {"threads": 65}):
        with pytest.raises(module.ModelError, match="out of range"):
            module.Model(**arguments)
    other = module.Model(context=8, threads=2)
    other.close()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.eval([1])


def test_library_of_another_build(folder: Path, tmp_path: Path) -> None:
    text = (folder / "python" / "austen.py").read_text()
    (tmp_path / "austen.py").write_text(text.replace("ABI = 0x", "ABI = 0x1"))
    (tmp_path / "libausten.so").symlink_to(folder / "python" / "libausten.so")
    with pytest.raises(ImportError, match="another build"):
        imported(tmp_path / "austen.py").Model()


def test_module_is_clean(folder: Path) -> None:
    """Type hints that hold, and the house style."""
    path = folder / "python" / "austen.py"
    for words in (["mypy", "--strict", path], ["ruff", "check", path]):
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_refused_for_another_system(tmp_path: Path) -> None:
    with pytest.raises(BitnetcError, match="--python"):
        options = Options("armv8-neon", python=True)
        compile_model(load(EXAMPLE), options, tmp_path / "out")
    assert not (tmp_path / "out").exists()
