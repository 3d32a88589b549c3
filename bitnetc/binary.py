"""Model -> Model that says which of its ternary matrices have no zero: they take one bit a weight.

A plan is made from shapes; this is what it knows of the weights themselves.
"""

from dataclasses import replace

import numpy as np

from bitnetc.model import ROLES, Model, Ternary


def find_binary(model: Model) -> Model:
    """Reads the first block, and of the others the roles that had no zero in all before: of a
    ternary model one block. A binary matrix that comes after one with zeros stays ternary."""
    if model.float_activations:
        return model
    left = list(ROLES)
    blocks = []
    for block in model.blocks:
        left = [role for role in left if _binary(getattr(block, role))]
        found = {role: replace(getattr(block, role), binary=True) for role in left}
        blocks.append(replace(block, **found))
    return replace(model, blocks=tuple(blocks))


def _binary(matrix: object) -> bool:
    return isinstance(matrix, Ternary) and bool(np.all(matrix.load()))
