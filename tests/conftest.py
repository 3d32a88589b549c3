"""What all tests share. Its folder is on sys.path, so tests import modules beside it by name."""

import os

# Test processes fill the cores already: threads of numpy and torch would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from typing import NoReturn

import pytest
from unavailable import Unavailable, needs_this_cpu


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
