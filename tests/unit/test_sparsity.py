"""What is not read because it is multiplied by zero: which kernels the plan takes for it."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from e2e.built import EXAMPLE

from bitnetc.cli import EXIT_MISTAKE, main
from bitnetc.compiler import load
from bitnetc.plan import plan, plan_json
from bitnetc.target import load_target, target_names


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


@pytest.mark.parametrize(
    ("target", "zeros", "up", "down"),
    [
        ("aarch64-macos", None, "neon:tl1_m64k8", "neon:tl1_m64k8"),
        ("aarch64-macos", "0.808,0.88", "neondot:i2_k256", "neondot:i2_m256k4"),
        ("rpi4", None, "neon:i2_k256", "neon:i2_m256k4"),
        ("rpi4", "0.2,0.3", "neon:t5_m4k80", "neon:t5_m4k80"),
        ("rpi4", "1,1", "neon:i2_k256", "neon:i2_m256k4"),
    ],
)
def test_known_zeros_choose_kernels(target: str, zeros: str | None, up: str, down: str) -> None:
    """What a trained model's --bench said changes a plan where the assumed shares were wrong."""
    words = ["plan", str(EXAMPLE), "--json", "--target", target]
    done = CliRunner().invoke(main, words + (["--zeros", zeros] if zeros else []))
    stated = {m["role"]: m for m in json.loads(done.stdout)["groups"][0]["matrices"]}
    assert [stated[role]["kernel"] for role in ("w_up", "w_down")] == [up, down]
    if zeros == "0.808,0.88":
        assert [stated[role]["density"] for role in ("w_up", "w_down")] == [0.192, 0.12]


@pytest.mark.parametrize(
    ("zeros", "more", "said"),
    [
        ("81,88", (), "two shares from 0 to 1"),
        ("0.8", (), "two shares from 0 to 1"),
        ("0.8,nan", (), "two shares from 0 to 1"),
        ("0.8,0.9", ("--ffn-activation", "silu"), "ReLU^2"),
    ],
)
def test_zeros_that_cannot_be_used(zeros: str, more: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["plan", str(EXAMPLE), "--zeros", zeros, *more])
    assert done.exit_code == EXIT_MISTAKE and said in done.stderr
    assert len([line for line in done.stderr.splitlines() if "note: " not in line]) == 1


def test_what_several_tokens_cost_agrees_with_the_targets() -> None:
    """Where a target has figures for many tokens, kernels say about the same of them."""
    found = 0
    for target in map(load_target, target_names()):
        many = target.cost.cycles_many
        for kernel in (k for k in target.kernels if k.skips == "rows" and k.name in many):
            each = 100 * many[kernel.name] / target.cost.cycles_per_block[kernel.name]
            assert abs(kernel.each - each) <= 10, (target.name, kernel.name)
            found += 1
    assert found >= 4
