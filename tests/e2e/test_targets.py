"""What each target promises beyond equal bits: a CPU below its floor gets a sentence, and a program
of another format is what its name says."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from unavailable import Unavailable

from bitnetc.compiler import Options, compile_model, load
from bitnetc.errors import BitnetcError
from bitnetc.head import with_integer_head
from bitnetc.plan import plan
from bitnetc.run import command
from bitnetc.target import host_arch, load_target, runs_here, target_names
from bitnetc.toolchain import zig
from bitnetc.verify import verify
from e2e.built import EXAMPLE, Built, program_of, stack_taken

# One step below the floor, where an emulator plays such a CPU -> what the sentence names.
BELOW = [
    ("x86_64-sse4.1", "Conroe", "SSE4.1"),
    ("x86_64-avx2", "Nehalem", "AVX2, F16C, FMA"),
    ("armv8.2-dotprod", "cortex-a53", "the dot product"),
    ("armv8.6-i8mm", "cortex-a76", "int8 matrix multiplication"),
    ("armv7-neon", "arm1176", "NEON"),
    ("riscv64-rvv", "rv64,v=false", "the vector extension"),
    ("wasm32-simd128", "wasmtime,simd=off", "SIMD"),
]

# e_machine of the ELF header and its class.
ELF = {"x86_64": (62, 2), "aarch64": (183, 2), "arm": (40, 1), "riscv64": (243, 2)}


@pytest.mark.parametrize(("target", "cpu", "lacks"), BELOW, ids=[b[0] for b in BELOW])
def test_an_older_cpu_is_refused(
    target: str, cpu: str, lacks: str, built: Callable[..., Built], unavailable: Unavailable
) -> None:
    try:
        words = command(load_target(target), Path("program"), cpu, None)[:-1]
    except BitnetcError as error:
        unavailable(target, str(error))
    program = program_of(built(EXAMPLE, target)[2], target)
    done = subprocess.run([*words, program, "--version"], capture_output=True, text=True)
    assert done.returncode == 3, done
    assert f"compiled for {target}, which needs {lacks}" in done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "target", [t for t in target_names() if not (load_target(t).variants or load_target(t).base)]
)
def test_the_file_is_of_the_target(target: str, built: Callable[..., Built]) -> None:
    head = program_of(built(EXAMPLE, target)[2], target).read_bytes()[:20]
    arch = load_target(target).arch
    if arch == "wasm32":
        assert head[:8] == b"\0asm\1\0\0\0"
        return
    if load_target(target).system in ("macos", "windows"):
        return  # test_desktop.py
    machine, word = ELF[host_arch() if arch == "host" else arch]
    assert head[:4] == b"\x7fELF" and head[4] == word
    assert int.from_bytes(head[18:20], "little") == machine


# Each has figures of its own in bitnetc/plan.py. A screened head has the kernels of a block, too.
@pytest.mark.parametrize(
    ("target", "head"),
    [("x86_64-avx2", "screened"), ("x86_64-avxvnni", "exact"), ("armv8.6-i8mm", "exact")],
)
def test_no_call_takes_more_stack_than_stated(
    target: str, head: str, built: Callable[..., Built], tmp_path: Path, unavailable: Unavailable
) -> None:
    """This machine's best target is measured by test_api.py. No emulator plays AVX-VNNI: without it
    that target is a skip, which pytest lists."""
    described = load_target(target)
    cpu = "host" if runs_here(described) else described.checks[-1]
    try:
        start = command(described, tmp_path / "check_api", cpu, None)[:-1]
    except BitnetcError as error:
        unavailable(target, str(error))
    folder = tmp_path / "out"
    if head == "exact":
        folder = built(EXAMPLE, target)[2]
    else:
        model = with_integer_head(load(EXAMPLE), head)
        compile_model(model, Options(target=target, name="model"), folder)
    chosen = zig(described)
    compiler = [*chosen.compiler, "-target", chosen.triple, "-static"]
    prompt = "It is a truth universally acknowledged, that " * 4
    taken, stated = stack_taken(folder, compiler, tmp_path, prompt, start)
    # A tenth is left for other models and compilers.
    assert 1024 < taken < 0.9 * stated


def test_node(built: Callable[..., Built], unavailable: Unavailable) -> None:
    """The second engine for WebAssembly; the first is the target's own check."""
    model, plan, folder = built(EXAMPLE, "wasm32-simd128")
    try:
        for outcome in verify(model, plan, folder / "bin" / "model", "node"):
            assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"
    except BitnetcError as error:
        if "is not installed" not in str(error):
            raise
        unavailable("wasm32-simd128", str(error))


@pytest.mark.parametrize("target", target_names())
def test_what_32_bits_cannot_address_is_refused(target: str) -> None:
    model = load(EXAMPLE)
    long = dataclasses.replace(model, shape=dataclasses.replace(model.shape, context=4_000_000))
    if not load_target(target).narrow:
        plan(long, load_target(target))
        return
    with pytest.raises(BitnetcError, match="for 4000000 positions are"):
        plan(long, load_target(target))
    plan(long, load_target(target), context=512)
