"""Boards: what fits is said before anything is built, and what does not is refused with numbers."""

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bitnetc.board import Board, boards, describe, fit, load_board, refuse_too_large, speed, suits
from bitnetc.cli import main
from bitnetc.compiler import Options, compile_model, load
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.plan import Plan, plan
from bitnetc.target import load_target, target_names

EXAMPLE = Path(__file__).parents[2] / "examples" / "austen" / "model"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(EXAMPLE)


@pytest.fixture(scope="module")
def planned(model: Model) -> Plan:
    return plan(model, load_target("rpi4"))


def small(free: int) -> Board:
    return dataclasses.replace(load_board("rpi4-2gb"), free=free)


def test_the_list() -> None:
    found = boards()
    pi4 = [f"rpi4-{size}gb" for size in (1, 2, 4, 8)]
    pi5 = [f"rpi5-{size}gb" for size in (1, 2, 4, 8, 16)]
    assert {"rpi-zero", "rpi2-1gb", "rpi-zero2", "rpi3-1gb", *pi4, *pi5} <= set(found)
    for name, board in found.items():
        assert board.name == name and board.target in target_names()
        assert suits(board, load_target(board.target))
        assert 0 < board.free < board.ram and board.ram % 2**20 == 0
        assert 1 <= board.cores <= 64 and 1e8 < board.hertz < 1e10
    assert found["rpi4-4gb"].ram == 4 * 2**30


def test_a_core_has_its_share_of_the_memory() -> None:
    """The planner's bytes per cycle are those of a core while all of them read."""
    for name in ("rpi-zero2", "rpi3-1gb", "rpi4-2gb", "rpi5-4gb", "spacemit-k1-4gb"):
        board = load_board(name)
        assert board.bytes_per_second
        share = board.bytes_per_second / board.cores / board.hertz
        assert load_target(board.target).cost.bytes_per_cycle == pytest.approx(share, rel=0.02)


def test_what_the_system_leaves() -> None:
    """A Zero 2 W was measured to have 291.6 MiB available."""
    assert abs(load_board("rpi-zero2").free / 2**20 - 291.6) < 0.5


def test_an_unknown_board_is_named_with_the_nearest() -> None:
    with pytest.raises(BitnetcError, match=r'unknown board "rpi4-3gb".*rpi4-[248]gb'):
        load_board("rpi4-3gb")


def test_boards_run_what_they_can() -> None:
    zero2, pi5 = load_board("rpi-zero2"), load_board("rpi5-8gb")
    assert suits(zero2, load_target("rpi")) and suits(pi5, load_target("rpi"))
    assert suits(pi5, load_target("armv8-neon")) and suits(pi5, load_target("armv7-neon"))
    assert not suits(zero2, load_target("armv8.2-dotprod"))
    assert not suits(zero2, load_target("x86_64"))
    assert not suits(load_board("rpi2-1gb"), load_target("rpi"))


def test_the_sizes_are_those_of_the_program(model: Model, planned: Plan) -> None:
    need = fit(planned, model, load_board("rpi4-2gb"))
    assert need.arena == planned.memory.arena_bytes(planned.context, 4)
    assert need.flash == need.weights + need.tokenizer + need.code
    assert need.total == need.flash + need.arena
    assert refuse_too_large(planned, model, small(need.total)) == need
    text = "\n".join(describe(planned, model, load_board("rpi4-2gb"), need))
    assert f"{need.total / 1e6:,.1f} MB of the " in text


def test_what_is_too_large_is_refused_with_what_fits(model: Model, planned: Plan) -> None:
    need = fit(planned, model, small(0))
    board = small(need.total - 400_000)
    with pytest.raises(BitnetcError) as refused:
        refuse_too_large(planned, model, board)
    said = str(refused.value)
    for size in (need.flash, need.arena, need.total, board.free):
        assert f"{size / 1e6:,.1f} MB" in said
    context = int(re.findall(r"--context (\d+) fits", said)[0])
    target = load_target("rpi4")
    for positions, fits in ((context, True), (context + 1, False)):
        total = fit(plan(model, target, positions), model, board).total
        assert (total <= board.free) == fits
    assert "rpi-zero2 has room for all" in said


def test_where_no_context_fits_the_weights_are_named(model: Model, planned: Plan) -> None:
    need = fit(planned, model, small(0))
    with pytest.raises(BitnetcError) as refused:
        refuse_too_large(planned, model, small(need.weights))
    assert " fits" not in str(refused.value)
    assert f"of weights, and these are {need.weights / 1e6:,.1f} MB" in str(refused.value)


def test_nothing_is_built_for_a_board_that_is_too_small(model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BitnetcError, match="--board rpi4-2gb"):
        compile_model(model, Options("rpi4", board=small(1_000_000)), out)
    assert not list(tmp_path.iterdir())


def test_the_projection(model: Model, planned: Plan) -> None:
    """Bound by memory here, and by arithmetic where memory is fast."""
    board = load_board("rpi4-2gb")
    found = speed(planned, model, board)
    head = model.shape.vocab * model.shape.dim * 2
    cache = planned.memory.cache_bytes_per_position * planned.context // 2
    assert found and found.bytes == planned.ternary_bytes + head + cache
    assert found.tokens_per_second == pytest.approx(4.5e9 / found.bytes)
    fast = speed(planned, model, dataclasses.replace(board, bytes_per_second=1e13))
    assert fast and fast.tokens_per_second == pytest.approx(4 * 1.5e9 / found.cycles)
    assert speed(planned, model, dataclasses.replace(board, bytes_per_second=None)) is None


def test_the_command_line() -> None:
    done = CliRunner().invoke(main, ["plan", str(EXAMPLE), "--board", "rpi5-4gb"])
    assert done.exit_code == 0, done.output
    assert "for rpi5: " in done.output and "a projection and no measurement" in done.output
    done = CliRunner().invoke(main, ["plan", str(EXAMPLE), "--board", "rpi-zero"])
    assert done.exit_code == 0 and "not projected" in done.output
    done = CliRunner().invoke(
        main, ["plan", str(EXAMPLE), "--board", "rpi3-1gb", "--target", "rpi5"]
    )
    assert done.exit_code == 2 and "rpi3-1gb does not run rpi5 programs" in done.output
