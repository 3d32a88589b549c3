"""Compiled programs, shared between the end-to-end tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import VARIANTS, write_checkpoint

from bitnetc.compiler import Options, compile_model, load
from e2e.built import Built


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Compiles a checkpoint for a target once a session; warnings are errors."""
    done: dict[tuple[Path, Options], Built] = {}

    def compile_once(checkpoint: Path, target: str, **options: object) -> Built:
        chosen = Options(target=target, werror=True, **options)  # type: ignore[arg-type]
        if (checkpoint, chosen) not in done:
            model = load(checkpoint)
            folder = tmp_path_factory.mktemp("built") / "out"
            plan, _ = compile_model(model, chosen, folder)
            done[checkpoint, chosen] = (model, plan, folder)
        return done[checkpoint, chosen]

    return compile_once


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a variant's checkpoint, called "model", written once a session."""
    written: dict[str, Path] = {}

    def write(variant: str) -> Path:
        if variant not in written:
            written[variant] = tmp_path_factory.mktemp("tiny") / "model"
            write_checkpoint(written[variant], **VARIANTS[variant])
        return written[variant]

    return write
