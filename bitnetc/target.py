"""Targets: a TOML file each, data only, inheritance resolved, unknown keys refused."""

import platform
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnetc import resources
from bitnetc.errors import BitnetcError, nearest
from bitnetc.kernels import KERNELS, Kernel

_KEYS = {
    "": {
        "summary",
        "inherits",
        "variants",
        "isa",
        "cc",
        "plan",
        "firmware",
        "run",
        "kernels",
        "cost",
        "cache",
        "check",
    },
    "isa": {"arch", "features"},
    "cc": {"triple", "flags", "zig_flags", "zig_baseline", "threads"},
    "plan": {"batch", "bf12"},
    "firmware": {"flash", "weights", "ram", "stack", "code", "code_per_group"},
    "run": {"emulator"},
    "kernels": {"matmul"},
    "cost": {"bytes_per_cycle", "cycles_per_block", "cycles_many", "cycles_per_lut16"},
    "cache": {"l1d"},
    "check": {"cpu"},
}
# Our name of a feature -> its names in /proc/cpuinfo.
_CPUINFO = {
    "sse41": {"sse4_1"},
    "avx2": {"avx2"},
    "f16c": {"f16c"},
    "fma": {"fma"},
    "avxvnni": {"avx_vnni"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512vnni": {"avx512_vnni"},
    "avx512vbmi": {"avx512vbmi"},
    "avx512popcnt": {"avx512_vpopcntdq"},
    "amx": {"amx_tile", "amx_int8"},
    "dotprod": {"asimddp"},
    "i8mm": {"i8mm"},
    "neon32": {"neon"},
    "dsp": {"edsp"},
}
BATCH = 64  # tokens of a prompt that go through a block together, unless a target says otherwise
ARCHES = ("host", "x86_64", "aarch64", "arm", "riscv64", "wasm32")


@dataclass(frozen=True)
class Cost:
    """Figures of one core, each with its source beside it in the target file."""

    bytes_per_cycle: float  # weights read from memory, while all other cores read, too
    cycles_per_block: dict[str, float]  # kernel name -> cycles for one block of its layout
    cycles_per_lut16: float  # building one table of sixteen entries
    # Kernel name -> cycles for one block and one token of many; of all kernels of a form or none.
    cycles_many: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """A piece of a board's memory."""

    origin: int
    bytes: int


@dataclass(frozen=True)
class Firmware:
    """The board that the program of a target without operating system is linked for."""

    flash: Region  # vectors and program
    weights: Region  # weights and tokenizer tables
    ram: Region
    stack: int  # bytes kept for the stack
    code: int  # bytes of program and constants, about: beside weights, tokenizer and groups
    code_per_group: int  # bytes that one more group of blocks adds, about


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
    batch: int = BATCH
    bf12: bool = True  # reads bfloat16 in twelve bits a weight as fast as in sixteen
    l1d: int = 0  # bytes of a core's first-level data cache, the smallest of variants; 0: unknown
    firmware: Firmware | None = None  # where there is no operating system
    base: str = ""  # the target whose system it has, where it narrows that one to newer CPUs
    # One program for several CPUs: its forward pass is compiled for each of these, the best first,
    # and chosen at start. `features` and `flags` are then those of the last, `cost` the first's.
    variants: tuple["Target", ...] = ()

    @property
    def identifier(self) -> str:
        """The name as a part of C identifiers: armv8.2-dotprod -> armv8_2_dotprod."""
        return re.sub(r"[^a-z0-9]", "_", self.name)

    @property
    def narrow(self) -> bool:
        """Whether addresses have 32 bits: program and memory must stay below 2 GiB."""
        return self.arch in ("arm", "wasm32")

    @property
    def system(self) -> str:
        """The operating system, as the second word of a triple spells it."""
        return triple_system(self.triple) if self.triple else host_system()

    @property
    def freestanding(self) -> bool:
        """Whether its programs are firmware: no operating system and no C library."""
        return self.system == "freestanding"

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
    isa, cc, run = (data.get(k, {}) for k in ("isa", "cc", "run"))
    if isa.get("arch") not in ARCHES:
        raise BitnetcError(f"{file}: isa.arch", f"unknown architecture {isa.get('arch')!r}")
    variants = _variants(file, data)
    if variants:
        features = variants[-1].features
        kernels = list({k.name: k for v in variants for k in shareable(v)}.values())
        cost = variants[0].cost
    else:
        features = tuple(isa.get("features", ()))
        kernels = _kernels(file, data)
        cost = _cost(file, data, kernels)
    return Target(
        name=name,
        summary=data["summary"],
        arch=isa["arch"],
        features=features,
        triple=cc.get("triple", ""),
        flags=tuple(cc.get("flags", ())),
        zig_flags=tuple(cc.get("zig_flags", cc.get("flags", ()))),
        zig_baseline=tuple(cc.get("zig_baseline", ())),
        threads=cc.get("threads", True),
        kernels=tuple(kernels),
        cost=cost,
        emulator=run.get("emulator", ""),
        checks=tuple(check["cpu"] for check in data.get("check", ())),
        batch=data.get("plan", {}).get("batch", BATCH),
        bf12=all(v.bf12 for v in variants) and data.get("plan", {}).get("bf12", True),
        l1d=min((v.l1d for v in variants if v.l1d), default=0) if variants else _l1d(file, data),
        firmware=_firmware(file, data["firmware"]) if "firmware" in data else None,
        base=_tuned(data),
        variants=variants,
    )


def _tuned(data: dict[str, Any]) -> str:
    """The target that these tables narrow to fewer CPUs: the base of the same system."""
    base: str = data.get("base", "")
    own = data.get("cc", {}).get("triple", "")
    return base if base and _merged(base).get("cc", {}).get("triple", "") == own else ""


def shareable(target: Target) -> list[Kernel]:
    """Kernels that a program for several CPUs may use: all but those of look-up tables, whose
    buffers would be there for all. Planes of bits take little."""
    return [k for k in target.kernels if k.activation != "lut16"]


def _variants(file: str, data: dict[str, Any]) -> tuple[Target, ...]:
    found: list[Target] = []
    for name in data.get("variants", ()):
        variant = load_target(name)
        if variant.variants or variant.firmware or variant.arch != data["isa"]["arch"]:
            raise BitnetcError(f"{file}: variants", f"{name} is not for one CPU of this kind")
        if any(v.identifier == variant.identifier for v in found):
            raise BitnetcError(f"{file}: variants", f"{name} is there twice")
        found.append(variant)
    if found and ({"kernels", "cost", "cache"} & set(data) or "features" in data["isa"]):
        raise BitnetcError(
            f"{file}: variants", "features, kernels, cost and cache are those of variants"
        )
    return tuple(found)


def _kernels(file: str, data: dict[str, Any]) -> list[Kernel]:
    features = data["isa"].get("features", ())
    kernels = []
    for kernel_name in data.get("kernels", {}).get("matmul", []):
        kernel = KERNELS.get(kernel_name)
        if kernel is None:
            raise BitnetcError(
                f"{file}: kernels.matmul",
                f'unknown kernel "{kernel_name}"',
                nearest(kernel_name, KERNELS),
            )
        lacking = set(kernel.features) - set(features)
        if lacking:
            raise BitnetcError(
                f"{file}: kernels.matmul",
                f"{kernel_name} needs {', '.join(sorted(lacking))}, which isa.features lacks",
            )
        kernels.append(kernel)
    if not kernels:
        raise BitnetcError(f"{file}: kernels.matmul", "no kernel is listed")
    return kernels


def _cost(file: str, data: dict[str, Any], kernels: list[Kernel]) -> Cost:
    cost = data.get("cost", {})
    cycles = cost.get("cycles_per_block", {})
    for kernel in kernels:
        if kernel.name not in cycles:
            raise BitnetcError(f"{file}: cost.cycles_per_block", f"no figure for {kernel.name}")
    many = cost.get("cycles_many", {})
    for bits in {k.layout.code.integers for k in kernels}:
        form = {k.name for k in kernels if k.layout.code.integers == bits}
        if form & set(many) and not form <= set(many):
            raise BitnetcError(
                f"{file}: cost.cycles_many", f"no figure for {min(form - set(many))}"
            )
    return Cost(
        float(cost["bytes_per_cycle"]), dict(cycles), float(cost["cycles_per_lut16"]), dict(many)
    )


def _l1d(file: str, data: dict[str, Any]) -> int:
    size = data.get("cache", {}).get("l1d", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= 2**24:
        raise BitnetcError(f"{file}: cache.l1d", f"{size!r} is not a cache's number of bytes")
    return size


def _firmware(file: str, table: dict[str, Any]) -> Firmware:
    def region(name: str) -> Region:
        return Region(int(table[name]["origin"]), int(table[name]["bytes"]))

    try:
        return Firmware(
            flash=region("flash"),
            weights=region("weights"),
            ram=region("ram"),
            stack=int(table["stack"]),
            code=int(table["code"]),
            code_per_group=int(table["code_per_group"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BitnetcError(f"{file}: firmware", f"lacks or misspells {error}") from None


def host_arch() -> str:
    """The architecture bitnetc runs on, in our names."""
    machine = platform.machine().lower()
    if machine.startswith("arm") and machine != "arm64":
        return "arm"  # armv6l, armv7l
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def triple_system(triple: str) -> str:
    """The second word of a triple, without the version that zig cc knows there."""
    return triple.split("-")[1].split(".")[0]


def host_system() -> str:
    """The operating system bitnetc runs on, as the second word of a triple spells it."""
    return {"Darwin": "macos", "Windows": "windows"}.get(platform.system(), "linux")


def host_features() -> set[str]:
    """Instruction-set features of this CPU that targets ask for, from /proc/cpuinfo."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        words = set()
    found = {name for name, flags in _CPUINFO.items() if flags <= words}
    if host_arch() == "aarch64":
        found |= {"neon", "dotprod"} if host_system() == "macos" else {"neon"}
    if host_arch() == "riscv64":
        found.add("rv64m")
    if any(re.match(r"rv64[a-z]*v", word) for word in words):  # rv64imafdcv_zicsr...
        found.add("rvv")
    return found


def _native() -> str:
    """The target with the most features among those this CPU can run."""
    here = [load_target(n) for n in target_names()]
    able = [t for t in here if t.arch in ("host", host_arch()) and runs_here(t)]
    # A plain instruction set before its special cases (a board) and programs for several CPUs.
    return max(
        able,
        key=lambda t: (len(t.features), t.arch != "host", not (t.base or t.variants), t.name),
    ).name


def runs_here(target: Target) -> bool:
    """Whether this machine runs the target's programs without an emulator."""
    return target.arch == "host" or (
        (target.arch, target.system) == (host_arch(), host_system())
        and set(target.features) <= host_features()
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
    if not base.startswith("_"):
        merged["base"] = base
    return _over(merged, data)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`, tables of both merged, those in tables as well."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _over(under, value) if both and under is not None else value
    return merged


def _refuse_unknown(file: str, data: dict[str, Any]) -> None:
    for table, known in _KEYS.items():
        found = data if table == "" else data.get(table, {})
        for part in found if isinstance(found, list) else [found]:
            for key in part:
                if key not in known:
                    where = f"{file}: {table}.{key}" if table else f"{file}: {key}"
                    raise BitnetcError(where, "unknown key", nearest(key, known))
