"""What a machine lacks: named in one place, since every folder has a `conftest` of its own."""

from typing import NoReturn, Protocol

from bitnetc import target as targets


class Unavailable(Protocol):
    def __call__(self, target: str, reason: str) -> NoReturn: ...


def needs_this_cpu(name: str) -> bool:
    """Whether the target that `name` begins with has no emulator and does not run here."""
    found = max((t for t in targets.target_names() if name.startswith(t)), key=len, default=None)
    if found is None:
        return False
    target = targets.load_target(found)
    emulated = target.checks != ("host",) or target.system != targets.host_system()
    return target.arch == targets.host_arch() and not emulated and not targets.runs_here(target)
