"""Targets: a TOML file each, data only, inheritance resolved, unknown keys refused."""

import platform
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnetc import resources
from bitnetc.errors import BitnetcError, nearest
from bitnetc.kernels import KERNELS, Kernel

_KEYS = {
    "": {"summary", "inherits", "isa", "cc", "run", "kernels", "cost", "check"},
    "isa": {"arch", "features"},
    "cc": {"triple", "flags", "zig_flags", "zig_baseline", "threads"},
    "run": {"emulator"},
    "kernels": {"matmul"},
    "cost": {"bytes_per_cycle", "cycles_per_block", "cycles_per_lut16"},
    "check": {"cpu"},
}
# Our name of a feature -> its names in /proc/cpuinfo.
_CPUINFO = {
    "sse41": {"sse4_1"},
    "avx2": {"avx2"},
    "f16c": {"f16c"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512vnni": {"avx512_vnni"},
    "dotprod": {"asimddp"},
    "neon32": {"neon"},
}
ARCHES = ("host", "x86_64", "aarch64", "arm", "riscv64", "wasm32")


@dataclass(frozen=True)
class Cost:
    """Figures of one core, each with its source beside it in the target file."""

    bytes_per_cycle: float  # weights read from memory
    cycles_per_block: dict[str, float]  # kernel name -> cycles for one block of its layout
    cycles_per_lut16: float  # building one table of sixteen entries


@dataclass(frozen=True)
class Target:
    name: str
    summary: str
    arch: str  # "host" builds for this machine
    features: tuple[str, ...]  # what kernels may ask for and the program checks at start
    triple: str  # for the cross compiler; empty when arch is "host"
    flags: tuple[str, ...]  # flags of GCC and Clang that select the instruction set
    zig_flags: tuple[str, ...]  # the same for zig cc, which spells some of them differently
    zig_baseline: tuple[str, ...]  # zig cc's for every file, the C library and the CPU check too
    threads: bool  # whether the platform has POSIX threads
    kernels: tuple[Kernel, ...]  # candidates for the planner
    cost: Cost
    emulator: str  # program that runs foreign binaries; empty when there is none
    checks: tuple[str, ...]  # emulated CPUs; "host" runs natively

    @property
    def narrow(self) -> bool:
        """Whether addresses have 32 bits: program and memory must stay below 2 GiB."""
        return self.arch in ("arm", "wasm32")

    @property
    def file(self) -> str:
        return f"targets/{self.name}.toml"


def target_names() -> list[str]:
    """All targets that can be chosen; "native" stands for the best of them here."""
    return sorted(p.stem for p in resources.TARGETS.glob("*.toml") if not p.stem.startswith("_"))


def load_target(name: str) -> Target:
    """Reads targets/<name>.toml. Raises BitnetcError on an unknown name, key or kernel."""
    if name == "native":
        name = _native()
    if name.startswith("_") or name not in target_names():
        raise BitnetcError(
            "--target", f'unknown target "{name}"', nearest(name, [*target_names(), "native"])
        )
    data = _merged(name)
    file = f"targets/{name}.toml"
    isa, cc, run, cost = (data.get(k, {}) for k in ("isa", "cc", "run", "cost"))
    if isa.get("arch") not in ARCHES:
        raise BitnetcError(f"{file}: isa.arch", f"unknown architecture {isa.get('arch')!r}")
    kernels = []
    for kernel_name in data.get("kernels", {}).get("matmul", []):
        kernel = KERNELS.get(kernel_name)
        if kernel is None:
            raise BitnetcError(
                f"{file}: kernels.matmul",
                f'unknown kernel "{kernel_name}"',
                nearest(kernel_name, KERNELS),
            )
        lacking = set(kernel.features) - set(isa.get("features", ()))
        if lacking:
            raise BitnetcError(
                f"{file}: kernels.matmul",
                f"{kernel_name} needs {', '.join(sorted(lacking))}, which isa.features lacks",
            )
        kernels.append(kernel)
    if not kernels:
        raise BitnetcError(f"{file}: kernels.matmul", "no kernel is listed")
    cycles = cost.get("cycles_per_block", {})
    for kernel in kernels:
        if kernel.name not in cycles:
            raise BitnetcError(f"{file}: cost.cycles_per_block", f"no figure for {kernel.name}")
    return Target(
        name=name,
        summary=data["summary"],
        arch=isa["arch"],
        features=tuple(isa.get("features", ())),
        triple=cc.get("triple", ""),
        flags=tuple(cc.get("flags", ())),
        zig_flags=tuple(cc.get("zig_flags", cc.get("flags", ()))),
        zig_baseline=tuple(cc.get("zig_baseline", ())),
        threads=cc.get("threads", True),
        kernels=tuple(kernels),
        cost=Cost(float(cost["bytes_per_cycle"]), dict(cycles), float(cost["cycles_per_lut16"])),
        emulator=run.get("emulator", ""),
        checks=tuple(check["cpu"] for check in data.get("check", ())),
    )


def host_arch() -> str:
    """The architecture bitnetc runs on, in our names."""
    machine = platform.machine().lower()
    if machine.startswith("arm") and machine != "arm64":
        return "arm"  # armv6l, armv7l
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def host_features() -> set[str]:
    """Instruction-set features of this CPU that targets ask for, from /proc/cpuinfo."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        words = set()
    found = {name for name, flags in _CPUINFO.items() if flags <= words}
    if host_arch() == "aarch64":
        found.add("neon")
    if any(re.match(r"rv64[a-z]*v", word) for word in words):  # rv64imafdcv_zicsr...
        found.add("rvv")
    return found


def _native() -> str:
    """The target with the most features among those this CPU can run."""
    here = [load_target(n) for n in target_names()]
    able = [t for t in here if t.arch in ("host", host_arch()) and runs_here(t)]
    return max(able, key=lambda t: (len(t.features), t.arch != "host", t.name)).name


def runs_here(target: Target) -> bool:
    """Whether this CPU runs the target's programs without an emulator."""
    return target.arch == "host" or (
        target.arch == host_arch() and set(target.features) <= host_features()
    )


def _merged(name: str) -> dict[str, Any]:
    """The file over what it inherits, table by table."""
    path = resources.TARGETS / f"{name}.toml"
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BitnetcError(f"targets/{name}.toml", str(error)) from None
    _refuse_unknown(f"targets/{name}.toml", data)
    base = data.pop("inherits", None)
    if base is None:
        return data
    merged = _merged(base)
    for key, value in data.items():
        if isinstance(value, dict):
            merged[key] = merged.get(key, {}) | value
        else:
            merged[key] = value
    return merged


def _refuse_unknown(file: str, data: dict[str, Any]) -> None:
    for table, known in _KEYS.items():
        found = data if table == "" else data.get(table, {})
        for part in found if isinstance(found, list) else [found]:
            for key in part:
                if key not in known:
                    where = f"{file}: {table}.{key}" if table else f"{file}: {key}"
                    raise BitnetcError(where, "unknown key", nearest(key, known))
