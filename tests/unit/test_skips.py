"""The one thing that CI may skip: a CPU that is not there and that no emulator plays."""

import pytest
from unavailable import needs_this_cpu

import bitnetc.target


@pytest.mark.parametrize(
    "name, expected",
    [
        ("x86_64-amx", True),
        ("x86_64-amx-host-cross", True),
        ("x86_64-avx512", True),
        ("x86_64-avx2-Haswell-cross", False),
        ("x86_64", False),
        ("x86_64-windows", False),
        ("armv8-neon", False),
        ("native", False),
        ("disk full", False),
    ],
)
def test_only_a_cpu_that_cannot_be_installed_is_skipped(
    name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitnetc.target, "host_arch", lambda: "x86_64")
    monkeypatch.setattr(bitnetc.target, "host_features", lambda: {"sse41", "avx2"})
    assert needs_this_cpu(name) is expected


def test_a_cpu_that_is_there_is_never_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = set(bitnetc.target.load_target("x86_64-amx").features)
    monkeypatch.setattr(bitnetc.target, "host_features", lambda: everything)
    assert not needs_this_cpu("x86_64-amx")
