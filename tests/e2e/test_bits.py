"""One model, one answer: the compiled programs against the reference, bit for bit."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import VARIANTS, planted
from unavailable import Unavailable

from bitnetc.build import build
from bitnetc.compiler import Options, compile_model, load, silent
from bitnetc.emit import emit
from bitnetc.errors import BitnetcError
from bitnetc.kernels import KERNELS
from bitnetc.plan import plan
from bitnetc.run import command
from bitnetc.target import load_target, target_names
from bitnetc.toolchain import choose
from bitnetc.verify import Case, cases, compare, program_logits, verify
from e2e.built import EXAMPLE, Built, program_of

# Each target on each CPU that its file names; the floor CPU dies on any newer instruction.
# Programs for several CPUs, and tuned ones, are in test_cpus.py.
PLACES = [
    (target.name, cpu)
    for target in map(load_target, target_names())
    if not (target.variants or target.base)
    for cpu in target.checks
]
# Quicker to build, and undefined behaviour stops the program; other tests compile as users do.
UNOPTIMISED = "-O0 -fsanitize=undefined -fsanitize-undefined-trap-on-error"
PROMPT = "It is a truth universally acknowledged, that \u00e9\U0001f600"


def start(target: str, program: Path, cpu: str, unavailable: Unavailable) -> list[str]:
    """The words that start a program, when this machine can run or emulate it."""
    try:
        return command(load_target(target), program, cpu, None)
    except BitnetcError as error:
        unavailable(target, str(error))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(
    variant: str,
    built: Callable[..., Built],
    tiny: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CFLAGS", UNOPTIMISED)
    model, plan, folder = built(tiny(variant), "native")
    for outcome in verify(model, plan, folder / "bin" / "model"):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


def test_units_of_zeros_are_left_out(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFLAGS", UNOPTIMISED)
    model = planted(load(tiny("2b4t")))
    decided, artifact = compile_model(model, Options(werror=True), tmp_path / "out")
    assert decided.shape.ffn_dim < model.shape.ffn_dim
    for outcome in verify(model, decided, artifact.program):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


# Odd sizes on every CPU; what its floor CPU computes, a target's other CPUs do in
# test_same_text_everywhere.
@pytest.mark.parametrize(
    ("variant", "target", "cpu"),
    [("2b4t-odd-sizes", *place) for place in PLACES]
    + [("example", *place) for place in PLACES if place[1] == load_target(place[0]).checks[0]],
)
def test_every_target(
    variant: str,
    target: str,
    cpu: str,
    built: Callable[..., Built],
    tiny: Callable[[str], Path],
    unavailable: Unavailable,
) -> None:
    start(target, Path("program"), cpu, unavailable)
    model, plan, folder = built(EXAMPLE if variant == "example" else tiny(variant), target)
    long = 24 if variant == "example" else 96
    for outcome in verify(model, plan, program_of(folder, target), cpu, long=long):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


# Floats through ternary matrices; norms, windows and an activation of other graphs. One CPU of each
# way in which sixteen lanes are computed.
@pytest.mark.parametrize(
    ("variant", "target", "cpu"),
    [
        ("bonsai", "armv7-neon", "cortex-a8"),
        ("llama3-per-row", "armv6", "arm1176"),
        ("llama3-per-row", "armv8-neon", "cortex-a53"),
        ("llama3-per-row", "riscv64-rvv", "rv64,v=true,vext_spec=v1.0,vlen=256"),
        ("llama3-per-row", "wasm32-simd128", "wasmtime"),
        ("embedding-gemma3", "armv8-neon", "cortex-a53"),
        ("bonsai", "wasm32-simd128", "wasmtime"),
        ("embedding-gemma3", "x86_64-sse4.1", "Penryn"),
        ("static", "x86_64-sse4.1", "Penryn"),
        ("static-inner-norms", "armv8-neon", "cortex-a53"),
        ("mixed", "armv8.2-dotprod", "cortex-a76"),
        ("mixed-bitlinear", "wasm32-simd128", "wasmtime"),
        ("signs", "rpi", "cortex-a53"),
        ("three-levels", "wasm32-simd128", "wasmtime"),
    ],
)
def test_other_graphs_elsewhere(
    variant: str,
    target: str,
    cpu: str,
    built: Callable[..., Built],
    tiny: Callable[[str], Path],
    unavailable: Unavailable,
) -> None:
    start(target, Path("program"), cpu, unavailable)
    model, plan, folder = built(tiny(variant), target)
    for outcome in verify(model, plan, program_of(folder, target), cpu):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


# No plan picks look-up tables here: the memory is what counts. So they are the only kernel.
@pytest.mark.parametrize(
    ("target", "cpu", "kernel"),
    [
        ("x86_64-avx2", "host", "avx2:tl1_m32k4"),
        ("armv8-neon", "cortex-a72", "neon:tl1_m64k4"),
        ("armv8-neon", "cortex-a53", "neon:tl1_m64k8"),
    ],
)
def test_look_up_tables(
    target: str,
    cpu: str,
    kernel: str,
    tmp_path: Path,
    tiny: Callable[[str], Path],
    unavailable: Unavailable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(target, Path("program"), cpu, unavailable)
    monkeypatch.setenv("CFLAGS", "-O1")
    model = load(tiny("2b4t-odd-sizes"))
    only = replace(load_target(target), kernels=(KERNELS[kernel],))
    decided = plan(model, only)
    bundle = emit(decided, model, "model")
    toolchain = choose(only, False, None)
    artifact = build(bundle, decided, model, toolchain, tmp_path / "out", silent)
    for outcome in verify(model, decided, artifact.program, cpu):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


def test_chunks_of_attention(built: Callable[..., Built]) -> None:
    """Beyond 256 positions, attention adds chunks; threads that do not divide the heads share out
    those of a token unless they wait for cores (bnc_calm()), with the same bits. The steps
    of that are checked whatever the machine does in tests/kernels/test_float_layer.py."""
    model, plan, folder = built(EXAMPLE, "native")
    for outcome in verify(model, plan, folder / "bin" / "model", long=400):
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"
    words, vocab = [str(folder / "bin" / "model")], model.shape.vocab
    tokens = cases(vocab, plan.context, plan.batch, 400)[-1].tokens
    whole = program_logits(words, Case("whole", tokens, plan.batch, 1), vocab, plan.context)
    for count, threads in ((257, 3), (321, 4), (385, 5)):  # whose last step is one token
        case = Case(f"{count} tokens, {threads} threads", tokens[:count], 64, threads)
        outcome = compare(case, program_logits(words, case, vocab, plan.context), whole[:count])
        assert outcome.equal, f"{outcome.case.title}: {outcome.detail}"


def test_without_threads(built: Callable[..., Built]) -> None:
    _, _, folder = built(EXAMPLE, "native", threads=False)
    program = folder / "bin" / "model"
    with_threads = built(EXAMPLE, "native")[2] / "bin" / "model"
    assert text(program, "-t", "1") == text(with_threads, "-t", "1")
    refused = subprocess.run([program, "-p", "x", "-t", "2"], capture_output=True, text=True)
    assert refused.returncode == 2 and "-t" in refused.stderr


def text(program: Path, *options: str, words: list[str] | None = None) -> bytes:
    arguments = ["-p", PROMPT, "-n", "16", "-q", "--temp", "0.8", "--top-p", "0.9", "--seed", "7"]
    done = subprocess.run(
        [*(words or [str(program)]), *arguments, *options], capture_output=True, check=True
    )
    return done.stdout


def test_same_text_everywhere(built: Callable[..., Built], unavailable: Unavailable) -> None:
    """Every target and CPU; on a target's first CPU 1, 2 and 4 threads, and the prompt whole and
    token by token."""
    texts = {}
    for target, cpu in PLACES:
        program = program_of(built(EXAMPLE, target)[2], target)
        words = start(target, program, cpu, unavailable)
        several = [("2", "1"), ("4", "64")] if load_target(target).threads else [("1", "1")]
        first = cpu == load_target(target).checks[0]
        for threads, batch in [("1", "64"), *several] if first else several[:1]:
            got = text(program, "-t", threads, "--batch", batch, words=words)
            texts[target, cpu, threads, batch] = got
    assert len(set(texts.values())) == 1, texts
    assert len(next(iter(texts.values()))) > 20
