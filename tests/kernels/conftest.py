"""Programs for all tests of this folder, each built once per session."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import Variant, build, render, run

from bitnetc.errors import BitnetcError
from bitnetc.target import load_target

Program = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[..., None]) -> Program:
    """Runs a source file of this folder, or what its template renders to, as a variant says."""
    folder = tmp_path_factory.mktemp("programs")
    built: dict[tuple[Path, str, bool, tuple[str, ...]], Path] = {}

    def run_program(
        source: Path, variant: Variant, *arguments: str, stdin: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        target = load_target(variant.target)
        key = (source, variant.target, variant.native, variant.flags)
        try:
            if key not in built:
                output = folder / f"{source.name.split('.')[0]}-{target.name}-{len(built)}"
                text = output.with_suffix(".c")
                text.write_text(
                    render(source, target) if source.suffix == ".jinja" else source.read_text()
                )
                built[key] = build(text, output, target, variant.native, variant.flags)
            return run(variant, built[key], list(arguments), stdin)
        except BitnetcError as error:
            unavailable(str(variant), str(error))
            raise

    return run_program
