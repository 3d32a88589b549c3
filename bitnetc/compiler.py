"""The stages in order: what `compile`, `plan` and `verify` share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitnetc.bf12 import find_frequent
from bitnetc.binary import find_binary
from bitnetc.board import Board, refuse_too_large
from bitnetc.build import Artifact, build, check_destination
from bitnetc.checkpoint import I2sLayout, read
from bitnetc.emit import Progress, emit, identifier
from bitnetc.errors import BitnetcError
from bitnetc.model import FfnActivation, Model
from bitnetc.normalise import as_masters, normalise
from bitnetc.plan import Plan, plan
from bitnetc.prune import prune
from bitnetc.target import load_target
from bitnetc.toolchain import Toolchain, choose
from bitnetc.web import publish, refuse_target, with_page
from bitnetc.weights_file import Weights


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


def unsaid(note: str) -> None:
    """No note shown."""


@dataclass(frozen=True)
class Options:
    """What a person can choose about a compilation."""

    target: str = "native"
    name: str | None = None  # symbols and file names; by default from the checkpoint's folder
    context: int | None = None
    batch: int | None = None  # by default the target's
    cc: str | None = None
    threads: bool = True
    werror: bool = False
    web: bool = False  # a page that runs the model in a browser
    python: bool = False  # a Python module over the shared library
    weights: Weights = "binary"  # where the program has them
    board: Board | None = None  # refuses what has no room there


def load(
    path: Path,
    i2s_layout: I2sLayout = "128",
    ffn_activation: FfnActivation | None = None,
    masters: bool = False,
) -> Model:
    """read -> normalise. The options answer what a file may leave open.

    masters: its matrices are float masters, whatever it does not say
    """
    name = path.resolve().stem if path.suffix == ".gguf" else path.resolve().name
    checkpoint = read(path, i2s_layout=i2s_layout)
    if masters:
        checkpoint = as_masters(checkpoint)
    return normalise(checkpoint, name, ffn_activation=ffn_activation)


def _refuse_python(options: Options, toolchain: Toolchain) -> None:
    if options.weights != "binary":
        raise BitnetcError("--python", "the module has its weights inside", "leave out --weights")
    if toolchain.triple:
        raise BitnetcError(
            "--python",
            "a shared library is built by a compiler of the system that Python runs on",
            "--target native, --cc cc, or the folder's own CMakeLists.txt there",
        )


def prepare(model: Model, say: Callable[[str], None] = unsaid) -> Model:
    """prune -> find_binary -> find_frequent: what is planned and packed. Says what they note."""
    prepared = find_frequent(find_binary(prune(model)))
    for note in prepared.notes[len(model.notes) :]:
        say(note)
    return prepared


def compile_model(
    model: Model, options: Options, out: Path, progress: Progress = silent
) -> tuple[Plan, Artifact]:
    """prepare -> plan -> pack -> emit -> build."""
    return compile_prepared(prepare(model), options, out, progress)


def compile_prepared(
    model: Model, options: Options, out: Path, progress: Progress = silent
) -> tuple[Plan, Artifact]:
    """plan -> pack -> emit -> build, of what prepare() made."""
    check_destination(out)
    target = load_target(options.target)
    toolchain = choose(target, options.target == "native", options.cc)
    decided = plan(model, target, options.context, options.batch)
    if options.board:
        refuse_too_large(decided, model, options.board)
    name = identifier(options.name or model.name)
    if options.python:
        _refuse_python(options, toolchain)
    bundle = emit(decided, model, name, options.web, options.weights, options.python)
    if options.web:
        if options.weights != "binary":
            raise BitnetcError("--web", "a page has files of its own", "leave out --weights")
        refuse_target(decided)
        bundle = with_page(bundle, model, options.name or model.name)

    def finish(folder: Path) -> None:
        if options.web:
            publish(folder, name, decided, model)

    artifact = build(
        bundle, decided, model, toolchain, out, progress, options.threads, options.werror, finish
    )
    return decided, artifact
