"""Names that the end-to-end tests share."""

from pathlib import Path

from bitnetc.model import Model
from bitnetc.plan import Plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "austen" / "model"

Built = tuple[Model, Plan, Path]  # model, plan, folder
