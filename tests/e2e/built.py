"""Names that the end-to-end tests share."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bitnetc.build import program_file
from bitnetc.model import Model
from bitnetc.plan import Plan
from bitnetc.target import load_target

EXAMPLE = Path(__file__).parents[2] / "examples" / "austen" / "model"

Built = tuple[Model, Plan, Path]  # model, plan, folder


def program_of(folder: Path, target: str, name: str = "model") -> Path:
    """The program of a compiled folder."""
    return folder / "bin" / program_file(name, load_target(target))


def stack_taken(
    folder: Path, compiler: Sequence[str], scratch: Path, prompt: str, start: Sequence[str] = ()
) -> tuple[int, int]:
    """The most stack that a call of a compiled folder's library takes, painted before and looked at
    behind it, and what its header says. The library's name is "model".

    compiler: with what selects the CPU; start: the words before a program, of an emulator
    """
    source, program = scratch / "check_api.c", scratch / "check_api"
    text = (Path(__file__).parent / "check_api.c").read_text()
    source.write_text(text.replace("first", "model").replace("FIRST", "MODEL"))
    words = [*compiler, f"-I{folder / 'include'}", source, folder / "lib" / "libmodel.a"]
    subprocess.run([*words, "-pthread", "-lm", "-o", program], check=True)
    run = [*start, program, prompt, "stack"]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    found = {k: int(v) for k, v in re.findall(r"^(\w+) (\d+)$", said, re.M)}
    assert found["tokens"] > 40, "kernels for many tokens were not called"
    return max(found[call] for call in ("init", "tokenize", "eval", "generate")), found["limit"]
