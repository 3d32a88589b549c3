"""What all tests share. Its folder is on sys.path, so tests import modules beside it by name."""

import os
from typing import NoReturn, Protocol

import pytest

from bitnetc import target as targets


class Unavailable(Protocol):
    def __call__(self, target: str, reason: str) -> NoReturn: ...


@pytest.fixture(scope="session")
def unavailable() -> Unavailable:
    """Ends a test whose compiler or emulator is missing: a skip that names target and reason.

    With BITNETC_NO_SKIP=1 it is a failure, so that "green" cannot mean "not run". Only a CPU cannot
    be installed: where no emulator plays it, the test stays a skip, listed in pytest's summary.
    """

    def end(target: str, reason: str) -> NoReturn:
        if needs_this_cpu(target):
            pytest.skip(f"{target}: only a CPU that this machine does not have runs it")
        if os.environ.get("BITNETC_NO_SKIP") == "1":
            pytest.fail(f"not run: {target}: {reason}", pytrace=False)
        pytest.skip(f"{target}: {reason}")

    return end


def needs_this_cpu(name: str) -> bool:
    """Whether the target that `name` begins with has no emulator and does not run here."""
    found = max((t for t in targets.target_names() if name.startswith(t)), key=len, default=None)
    if found is None:
        return False
    target = targets.load_target(found)
    emulated = target.checks != ("host",) or target.system != targets.host_system()
    return target.arch == targets.host_arch() and not emulated and not targets.runs_here(target)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
