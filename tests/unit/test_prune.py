"""Units of zeros are left out, and no logit changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import VARIANTS, planted, write_checkpoint
from click.testing import CliRunner

from bitnetc.cli import main
from bitnetc.compiler import load
from bitnetc.model import Model
from bitnetc.plan import plan, plan_json
from bitnetc.prune import prune
from bitnetc.reference import Reference
from bitnetc.target import load_target

TOKENS = [1, 5, 9, 250, 3, 77, 8, 8, 120, 31]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    def write(variant: str) -> Model:
        folder = tmp_path_factory.mktemp("prune") / "model"
        write_checkpoint(folder, **VARIANTS[variant])
        return load(folder)

    return write


@pytest.mark.parametrize("variant", ["2b4t", "llama3", "llama3-per-row", "2b4t-odd-sizes"])
def test_the_reference_keeps_every_bit(variant: str, loaded: Callable[[str], Model]) -> None:
    model = planted(loaded(variant))
    pruned = prune(model)
    # A norm keeps lanes: as wide as the fullest of sixteen.
    alive = [b.w_gate.load().any(axis=1) & b.w_up.load().any(axis=1) for b in model.blocks]
    units = [np.flatnonzero(a) for a in alive]
    if model.blocks[0].ffn_sub_norm is None:
        expected = max(map(len, units))
    else:
        expected = 16 * max(np.bincount(u % 16, minlength=16).max() for u in units)
    assert pruned.shape.ffn_dim == expected < model.shape.ffn_dim == pruned.ffn_units
    assert any("were left out" in note for note in pruned.notes)
    want = Reference(model).logits(TOKENS)
    got = Reference(pruned).logits(TOKENS)
    assert np.array_equal(want.view(np.uint32), got.view(np.uint32))
    assert prune(pruned) is pruned
    said = plan_json(plan(pruned, load_target("scalar")), pruned)
    assert said["ffn_units_of"] == model.shape.ffn_dim
    assert said["model"]["ffn_dim"] == expected


@pytest.mark.parametrize("variant", ["2b4t", "trilm", "static"])
def test_what_cannot_be_proved_stays(variant: str, loaded: Callable[[str], Model]) -> None:
    model = loaded(variant)
    assert prune(model) is model  # nothing is zero, or floats, or scales that are given
    if variant != "2b4t":
        changed = planted(model)
        assert prune(changed) is changed
    else:  # an infinite product would be NaN, not zero
        blocks = [
            replace(b, w_up=replace(b.w_up, scale=np.array([1e30], np.float32)))
            for b in planted(model).blocks
        ]
        changed = replace(model, blocks=tuple(blocks))
        assert prune(changed) is changed


def test_a_norm_of_fewer_would_differ(loaded: Callable[[str], Model]) -> None:
    model = planted(loaded("2b4t"))
    wrong = replace(prune(model), ffn_units=None)
    assert not np.array_equal(Reference(model).logits(TOKENS), Reference(wrong).logits(TOKENS))


def test_every_command_says_what_was_left_out(
    loaded: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = planted(loaded("2b4t"))
    monkeypatch.setattr("bitnetc.cli.load", lambda *options: model)

    def notes(*words: str) -> list[str]:
        done = CliRunner().invoke(main, [*words, "--target", "scalar", "--max-batch", "0"])
        assert done.exit_code == 2, done.output  # of the batch: nothing has to be built
        return [line for line in done.output.splitlines() if line.startswith("note: ")]

    compiled = notes("compile", "model", "-o", str(tmp_path / "out"))
    assert sum("were left out" in note for note in compiled) == 1
    assert notes("plan", "model") == notes("verify", "model") == compiled
