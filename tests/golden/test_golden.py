"""The emitted text of one tiny model on three targets, to be reviewed as a diff.

`make golden` writes the files anew.
"""

import difflib
from pathlib import Path

import pytest
from checkpoints import write_checkpoint

from bitnetc.compiler import load
from bitnetc.emit import emit
from bitnetc.plan import plan
from bitnetc.target import load_target

HERE = Path(__file__).parent
FILES = (
    "src/model.c",
    "src/state.h",
    "src/step.c",
    "src/weights.h",
    "src/main.c",
    "include/tiny.h",
    "plan.json",
)


@pytest.mark.parametrize("target", ["scalar", "x86_64-avx2", "armv8-neon"])
def test_emitted_text(target: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_checkpoint(tmp_path / "tiny")
    model = load(tmp_path / "tiny")
    bundle = emit(plan(model, load_target(target)), model, "tiny")
    for file in FILES:
        golden = HERE / target / Path(file).name
        text = bundle.files[file].decode()
        if request.config.getoption("--update-golden"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text)
        old = golden.read_text() if golden.is_file() else ""
        difference = difflib.unified_diff(old.splitlines(), text.splitlines(), str(golden), file)
        assert text == old, "\n".join(difference) + "\nUse `make golden` to accept the changes"
