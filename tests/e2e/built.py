"""Names that the end-to-end tests share."""

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
