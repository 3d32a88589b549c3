"""The stages in order: what `compile`, `plan` and `verify` share."""

from dataclasses import dataclass
from pathlib import Path

from bitnetc.build import Artifact, build, check_destination
from bitnetc.checkpoint import I2sLayout, read
from bitnetc.emit import Progress, emit, identifier
from bitnetc.errors import BitnetcError
from bitnetc.model import FfnActivation, Model
from bitnetc.normalise import normalise
from bitnetc.plan import BATCH, Plan, plan
from bitnetc.target import load_target
from bitnetc.toolchain import choose


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Options:
    """What a person can choose about a compilation."""

    target: str = "native"
    name: str | None = None  # symbols and file names; by default from the checkpoint's folder
    context: int | None = None
    batch: int = BATCH
    cc: str | None = None
    threads: bool = True
    werror: bool = False


def load(
    path: Path, i2s_layout: I2sLayout = "128", ffn_activation: FfnActivation | None = None
) -> Model:
    """read -> normalise. The options answer what a GGUF file may leave open."""
    name = path.resolve().stem if path.suffix == ".gguf" else path.resolve().name
    checkpoint = read(path, i2s_layout=i2s_layout)
    return normalise(checkpoint, name, ffn_activation=ffn_activation)


def compile_model(
    model: Model, options: Options, out: Path, progress: Progress = silent
) -> tuple[Plan, Artifact]:
    """plan -> pack -> emit -> build."""
    check_destination(out)
    target = load_target(options.target)
    toolchain = choose(target, options.target == "native", options.cc)
    if options.batch < 1:
        raise BitnetcError("--max-batch", f"{options.batch} is not a number of tokens")
    decided = plan(model, target, options.context, options.batch)
    bundle = emit(decided, model, identifier(options.name or model.name))
    artifact = build(
        bundle, decided, model, toolchain, out, progress, options.threads, options.werror
    )
    return decided, artifact
