"""Every kernel against its layout's reference: exact integers, every target, every CPU."""

import functools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import HERE, CompilerFailed, Variant, build, kernels_of, variants

from bitnetc.kernels import KERNELS
from bitnetc.target import load_target

VARIANTS = variants()
Check = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def check(program: Check) -> Check:
    """Runs the check program of a variant."""
    return functools.partial(program, HERE / "check_kernels.c.jinja")


def totals(done: "subprocess.CompletedProcess[bytes]") -> tuple[int, int]:
    """The counts of the last line, `N passed, N failed`."""
    output = done.stdout.decode()
    match = re.search(r"^(\d+) passed, (\d+) failed\n\Z", output, re.M)
    assert match, f"the program did not finish:\n{(done.stderr.decode() + output)[-4000:]}"
    return int(match[1]), int(match[2])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_kernels_equal_the_reference(variant: Variant, check: Check) -> None:
    done = check(variant)
    output = done.stdout.decode()
    passed, failed = totals(done)
    assert failed == 0 and done.returncode == 0, output[-4000:]
    for kernel in kernels_of(load_target(variant.target)):
        found = re.search(rf"^{re.escape(kernel.name)}: (\d+) passed, 0 failed$", output, re.M)
        assert found and int(found[1]) > 400, f"{kernel.name} was not checked:\n{output}"
    print(f"{variant}: {passed} passed")


@pytest.mark.parametrize("target", sorted({v.target for v in VARIANTS}))
def test_no_sum_overflows_at_the_most_columns(target: str, check: Check) -> None:
    # Once for each target: what overflows does so on every CPU. Natively where that is possible.
    here = [v for v in VARIANTS if v.target == target and not v.flags]
    done = check(max(here, key=lambda v: (v.native, v.cpu == "host")), "--limits")
    passed, failed = totals(done)
    assert failed == 0 and passed > 0, done.stdout.decode()


def test_every_kernel_is_checked_on_some_target() -> None:
    checked = {k.name for v in VARIANTS for k in kernels_of(load_target(v.target))}
    assert checked == set(KERNELS)


# The check itself: a mistake planted in every case must be reported in every case.


@pytest.mark.parametrize("plant", ["trit", "overwrite"])
def test_a_planted_mistake_is_reported(plant: str, check: Check) -> None:
    done = check(VARIANTS[0], "--plant", plant)
    passed, failed = totals(done)
    assert done.returncode == 1
    assert passed == 0 and failed > 500
    assert re.search(r"^FAIL \S+ \d+ x \d+, \d+ tokens, .*, seed 1: ", done.stdout.decode(), re.M)


def test_a_byte_read_beyond_the_weights_dies(check: Check) -> None:
    done = check(VARIANTS[0], "--plant", "overread")
    assert done.returncode != 0
    assert done.stdout.startswith(b"DIED with a signal in "), done.stdout


def test_compiler_errors_are_not_skips(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return }\n")
    with pytest.raises(CompilerFailed, match=r"wrong\.c"):
        build(source, tmp_path / "wrong", load_target("scalar"), False)


# With AVX-512 rows are listed by its instructions, and read in another order.
LISTS = [v for v in VARIANTS if v.target == "scalar" or str(v) == "x86_64-avx512-host-cc-sanitised"]


@pytest.mark.parametrize("variant", LISTS, ids=str)
def test_chosen_rows_equal_all_rows(variant: Variant, program: Check) -> None:
    passed, failed = totals(program(HERE / "check_gated.c", variant))
    assert passed == 500 and failed == 0
