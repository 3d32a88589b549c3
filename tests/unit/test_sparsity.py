"""What is not read because it is multiplied by zero: which kernels the plan takes for it."""

from dataclasses import replace

import pytest
from e2e.built import EXAMPLE

from bitnetc.compiler import load
from bitnetc.plan import plan, plan_json
from bitnetc.target import load_target


@pytest.mark.parametrize(
    "target",
    [
        "x86_64-amx",
        "x86_64-avx512",
        "x86_64-avx2",
        "armv8-neon",
        "armv8.2-dotprod",
        "rpi",
        "x86_64",
    ],
)
def test_rows_behind_zero_gates_are_skipped(target: str) -> None:
    model = load(EXAMPLE)
    decided = plan(model, load_target(target))
    gate, up = (decided.groups[0].matrices[role] for role in ("w_gate", "w_up"))
    assert up.chosen and up.kernel.skips == "rows" and up.density == 0.5
    assert not gate.chosen and gate.tile == up.tile and up.padded_rows % up.tile == 0
    stated = {m["role"]: m for m in plan_json(decided, model)["groups"][0]["matrices"]}
    assert stated["w_up"]["density"] == 0.5 and "density" not in stated["w_gate"]


def test_nothing_is_skipped_behind_other_activations() -> None:
    model = replace(load(EXAMPLE), ffn_activation="silu")
    for matrix in plan(model, load_target("x86_64-amx")).groups[0].matrices.values():
        assert not matrix.chosen and matrix.density == 1


@pytest.mark.parametrize("target", ["x86_64-avx2", "x86_64-avxvnni", "x86_64", "armv8-neon", "rpi"])
def test_columns_of_zero_activations_are_skipped(target: str) -> None:
    down = plan(load(EXAMPLE), load_target(target)).groups[0].matrices["w_down"]
    kernels = [down.kernel, *(v.kernel for v in down.variants)]
    assert down.density == 0.4 and {k.skips for k in kernels} == {"columns"}
