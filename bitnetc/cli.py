"""The command line: every line a person reads is printed here."""

import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from bitnetc import __version__
from bitnetc.board import Board, boards, describe, fit, load_board, suits
from bitnetc.board import refuse_too_large as refuse_board
from bitnetc.build import Artifact, check_destination
from bitnetc.checkpoint import I2S_LAYOUTS, I2sLayout
from bitnetc.compiler import Options, compile_prepared, load, prepare
from bitnetc.convert import convert
from bitnetc.emit import identifier
from bitnetc.errors import BitnetcError
from bitnetc.footprint import footprint, measured, refuse_too_large
from bitnetc.head import HEADS, with_integer_head
from bitnetc.inspect import inspect, report_json
from bitnetc.inspect_view import view
from bitnetc.model import CacheType, FfnActivation, Model
from bitnetc.package import package
from bitnetc.plan import MatrixPlan, Plan, plan, plan_json
from bitnetc.synth import synth
from bitnetc.target import BATCH, load_target, runs_here, target_names
from bitnetc.totals import totals, totals_json
from bitnetc.verify import verify
from bitnetc.weights_file import WEIGHTS, Weights

PLAIN_WIDTH = 132  # of tables when the output is not a terminal
out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
err = Console(stderr=True)

EXIT_MISTAKE = 2
Zeros = tuple[float, float] | None  # Model.zeros


class _Group(click.Group):
    """Prints a BitnetcError as one line and exits with 2; --debug shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BitnetcError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"bitnetc: {' '.join(str(error).split())}", err=True)
            ctx.exit(EXIT_MISTAKE)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bitnetc")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Compiles a BitNet checkpoint into one dependency-free program."""


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _zeros(ctx: click.Context, option: click.Parameter, text: str | None) -> Zeros:
    """Two shares, from "0.8,0.88"."""
    if text is None:
        return None
    try:
        products, codes = (float(word) for word in text.split(","))
    except ValueError:
        products = codes = -1.0
    if not (0 <= products <= 1 and 0 <= codes <= 1):
        hint = "write the two shares that a program's --bench shows, as 0.81,0.88"
        raise BitnetcError("--zeros", f'"{text}" is not two shares from 0 to 1', hint)
    return products, codes


def _compile_options(command: Callable[..., None]) -> Callable[..., None]:
    """What compile, plan and verify share: the model (its first argument), the target, sizes."""

    @functools.wraps(command)
    def with_model(
        checkpoint: Path,
        i2s_layout: I2sLayout,
        ffn_activation: FfnActivation | None,
        quantise: str | None,
        head: str,
        kv: CacheType,
        zeros: Zeros,
        **more: Any,
    ) -> None:
        board = more["board"] and load_board(more["board"])
        more["board"] = board
        if board and more["target"] == "native":
            more["target"] = board.target
        target = load_target(more["target"])  # a misspelt one is said before a model is read
        if board and not suits(board, target):
            raise BitnetcError("--board", f"{board.name} does not run {target.name} programs")
        model = with_integer_head(
            load(checkpoint, i2s_layout, ffn_activation, bool(quantise)), head
        )
        if zeros and model.ffn_activation != "relu2":
            what = "is for a model with ReLU^2, and this one has another activation"
            raise BitnetcError("--zeros", what, "leave it out")
        model = replace(model, kv=kv, zeros=zeros)
        for note in model.notes:
            _note(note)
        command(model, **more)

    for option in reversed(
        (
            click.argument("checkpoint", type=click.Path(path_type=Path)),
            click.option(
                "--target", default="native", metavar="T", help="See `bitnetc targets`; native."
            ),
            click.option("--board", metavar="B", help="Refuse what does not fit, e.g. rpi4-2gb."),
            click.option("--context", type=int, help="Positions to compile for; the model's own."),
            click.option(
                "--max-batch",
                type=int,
                help=f"Tokens in one step; the target's own, {BATCH} for most.",
            ),
            click.option(
                "--i2s-layout",
                type=click.Choice(I2S_LAYOUTS),
                default="128",
                help="Of I2_S tensors in a GGUF file: 128 as published, or as some builds write.",
            ),
            click.option(
                "--ffn-activation",
                type=click.Choice(["relu2", "silu"]),
                help="Instead of what the checkpoint says or is known for.",
            ),
            click.option(
                "--quantise",
                type=click.Choice(["absmean"]),
                help="Of float masters of a ternary model whose config.json does not say so.",
            ),
            click.option(
                "--head",
                type=click.Choice(list(HEADS)),
                default="exact",
                help="What logits come from: the checkpoint's own floats, or rounded integers.",
            ),
            click.option(
                "--kv",
                type=click.Choice(get_args(CacheType)),
                default="f16",
                help="Keys and values in the cache: float16, or int8 with a scale for each head.",
            ),
            click.option(
                "--zeros",
                metavar="P,C",
                callback=_zeros,
                help="Behind ReLU^2, as --bench shows them: 0.81,0.88. Kernels are chosen for it.",
            ),
        )
    ):
        with_model = option(with_model)
    return with_model


@main.command("compile")
@_compile_options
@click.option("-o", "folder", type=click.Path(path_type=Path), help="Folder to make; NAME-TARGET.")
@click.option("--name", help="Name of program, library and symbols; the checkpoint's.")
@click.option("--cc", help="C compiler to use instead of the one bitnetc chooses.")
@click.option("--no-threads", is_flag=True, help="Build without POSIX threads.")
@click.option("--freestanding", is_flag=True, help="Refuse a target with an operating system.")
@click.option("--web", is_flag=True, help="Also make web/: a page that runs the model.")
@click.option("--python", is_flag=True, help="Also make python/: a module over a shared library.")
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default="binary",
    help="In the program; in share/NAME.weights; or that file at an address or on a partition.",
)
def compile_command(
    model: Model,
    target: str,
    board: Board | None,
    context: int | None,
    max_batch: int | None,
    folder: Path | None,
    name: str | None,
    cc: str | None,
    no_threads: bool,
    freestanding: bool,
    web: bool,
    python: bool,
    weights: Weights,
) -> None:
    """Compile CHECKPOINT into a folder with bin/NAME, lib/libNAME.a and all sources."""
    if freestanding and not load_target(target).freestanding:
        raise BitnetcError(
            "--freestanding", f"{target} programs run under an operating system", "use a cortex-m"
        )
    started = time.monotonic()
    options = Options(
        target,
        name,
        context,
        max_batch,
        cc,
        threads=not no_threads,
        web=web,
        python=python,
        weights=weights,
        board=board,
    )
    folder = folder or Path(f"{identifier(name or model.name)}-{target}")
    check_destination(folder)  # before the weights are read
    model = prepare(model, _note)
    with _progress() as show:
        decided, artifact = compile_prepared(model, options, folder, show)
    _say_compiled(decided, artifact, time.monotonic() - started)
    if board:
        click.echo("\n".join(describe(decided, model, board, fit(decided, model, board))))


def _size(ctx: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Bytes, from a number that may end in K or M."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in ("", "K", "M"):
        raise BitnetcError(f"--{option.name}", f'"{text}" is not a size', "write 262144 or 256K")
    return int(number) * {"": 1, "K": 1024, "M": 1024**2}[unit]


@main.command("plan")
@_compile_options
@click.option("--json", "as_json", is_flag=True, help="Print plan.json.")
@click.option("--flash", callback=_size, help="Refuse what needs more, e.g. 1M; cortex-m targets.")
@click.option("--ram", callback=_size, help="Refuse what needs more, e.g. 256K; cortex-m targets.")
def plan_command(
    model: Model,
    target: str,
    board: Board | None,
    context: int | None,
    max_batch: int | None,
    as_json: bool,
    flash: int | None,
    ram: int | None,
) -> None:
    """Show kernel, layout and cost of every matrix, and what else was considered."""
    model = prepare(model, _note)
    decided = plan(model, load_target(target), context, max_batch)
    if flash is not None or ram is not None:
        refuse_too_large(decided, model, flash, ram)
    need = refuse_board(decided, model, board) if board else None
    if as_json:
        said = plan_json(decided, model) | {"totals": totals_json(decided, model)}
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
        return
    _say_plan(decided, model)
    if board and need:
        click.echo("\n".join(describe(decided, model, board, need)))


@main.command("verify")
@_compile_options
@click.option("--cc", help="C compiler to use instead of the one bitnetc chooses.")
@click.option("--cpu", help="Emulated CPU; by default this machine or the target's first check.")
@click.option("--runner", help="Command that reaches a board, e.g. 'ssh pi@host'.")
@click.option(
    "--weights",
    type=click.Choice([w for w in WEIGHTS if w != "region"]),
    default="binary",
    help="In the program, or in a file beside it, for a program that cannot hold them.",
)
@click.option("--positions", type=int, default=96, help="Length of the long sequence; 96.")
def verify_command(
    model: Model,
    target: str,
    board: Board | None,
    context: int | None,
    max_batch: int | None,
    cc: str | None,
    cpu: str | None,
    runner: str | None,
    weights: Weights,
    positions: int,
) -> None:
    """Compile CHECKPOINT, run it, and compare its logits with the reference bit for bit."""
    chosen = load_target(target)
    if not cpu and not runs_here(chosen) and chosen.checks:
        cpu = chosen.checks[0]
    with tempfile.TemporaryDirectory(prefix="bitnetc-") as scratch:
        options = Options(target, None, context, max_batch, cc, weights=weights, board=board)
        prepared = prepare(model, _note)
        with _progress() as show:
            decided, artifact = compile_prepared(prepared, options, Path(scratch) / "out", show)
        failed = 0
        for outcome in verify(
            model, decided, artifact.program, cpu, runner, positions, artifact.weights
        ):
            failed += not outcome.equal
            word = "equal" if outcome.equal else "DIFFERENT"
            count = f"{outcome.positions} position{'s' if outcome.positions > 1 else ''}"
            click.echo(f"  {word:9}  {outcome.case.title}: {count}, {outcome.detail}")
    where = runner or (f"emulated {cpu}" if cpu and cpu != "host" else "this machine")
    if failed:
        click.echo(f"NOT verified: {chosen.name} on {where} differs from the reference")
        sys.exit(1)
    click.echo(f"verified: {chosen.name} on {where} equals the reference in every bit")


@main.command("package")
@click.argument("compiled", type=click.Path(path_type=Path))
@click.option("-o", "folder", type=click.Path(path_type=Path), help="Folder; COMPILED-packages.")
@click.option("--cmake", "kinds", flag_value="cmake", multiple=True, help="Built, for CMake.")
@click.option("--pkgconfig", "kinds", flag_value="pkgconfig", multiple=True, help="For pkg-config.")
@click.option("--yocto", "kinds", flag_value="yocto", multiple=True, help="A layer.")
@click.option("--buildroot", "kinds", flag_value="buildroot", multiple=True, help="A tree.")
@click.option("--deb", "kinds", flag_value="deb", multiple=True, help="Debian packages.")
def package_command(compiled: Path, folder: Path | None, kinds: tuple[str, ...]) -> None:
    """Make packages of COMPILED, the folder that compile wrote; the sources as a tarball always."""
    for path in package(compiled, folder or Path(f"{compiled}-packages"), kinds):
        click.echo(path)


@main.command("targets")
def targets_command() -> None:
    """List the targets."""
    best = load_target("native").name
    table = Table(box=None, pad_edge=False)
    for column in ("target", "what it is", "kernels", ""):
        table.add_column(column, no_wrap=column in ("target", ""))
    for name in target_names():
        target = load_target(name)
        here = "native" if name == best else "runs here" if runs_here(target) else ""
        kernels = ", ".join(k.name for k in target.kernels)
        if target.variants:
            kernels = "those of " + ", ".join(v.name for v in target.variants)
        table.add_row(name, target.summary, kernels, here)
    out.print(table)
    click.echo(f"\nboards, for --board: {', '.join(boards())}")


@main.command("inspect")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--i2s-layout", type=click.Choice(I2S_LAYOUTS), default="128", help="As for compile.")
@click.option("--ffn-activation", type=click.Choice(["relu2", "silu"]), help="As for compile.")
@click.option("--quantise", type=click.Choice(["absmean"]), help="As for compile.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect_command(
    checkpoint: Path,
    i2s_layout: I2sLayout,
    ffn_activation: FfnActivation | None,
    quantise: str | None,
    as_json: bool,
) -> None:
    """Show what CHECKPOINT is and holds, what is assumed of it, and what is wrong with it."""
    report = inspect(
        checkpoint,
        i2s_layout=i2s_layout,
        ffn_activation=ffn_activation,
        masters=bool(quantise),
    )
    if as_json:
        click.echo(json.dumps(report_json(report), indent=2, ensure_ascii=False))
        return
    for part in view(report):
        out.print(part)


@main.command("convert")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "folder", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--i2s-layout", type=click.Choice(I2S_LAYOUTS), default="128", help="As for compile.")
@click.option("--ffn-activation", type=click.Choice(["relu2", "silu"]), help="As for compile.")
@click.option("--quantise", type=click.Choice(["absmean"]), help="As for compile.")
def convert_command(
    checkpoint: Path,
    folder: Path,
    i2s_layout: I2sLayout,
    ffn_activation: FfnActivation | None,
    quantise: str | None,
) -> None:
    """Write CHECKPOINT as a Hugging Face folder of packed safetensors, the same in every bit."""
    with _progress() as show:
        model = convert(
            checkpoint,
            folder,
            i2s_layout=i2s_layout,
            ffn_activation=ffn_activation,
            masters=bool(quantise),
            progress=show,
        )
    for note in model.notes:
        _note(note)
    size = sum(f.stat().st_size for f in folder.iterdir())
    click.echo(f"{folder}: {model.name} ({model.family}), {size / 1e6:,.1f} MB")


@main.command("synth")
@click.option("--like", required=True, help="A public model's name; an unknown one lists them.")
@click.option("-o", "folder", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--seed", default=0, help="Of the random weights; 0.")
@click.option("--layers", type=int, help="Fewer layers than the model has.")
@click.option(
    "--zeros", type=float, help="Share of zeros among the gates behind ReLU^2, as 0.8; 0.5."
)
def synth_command(
    like: str, folder: Path, seed: int, layers: int | None, zeros: float | None
) -> None:
    """Write a checkpoint with random weights in the shape of a public model."""
    synth(like, folder, seed, layers, zeros)
    size = sum(f.stat().st_size for f in folder.iterdir())
    click.echo(f"{folder}: random weights in the shape of {like}, {size / 1e6:,.1f} MB")


def _say_compiled(decided: Plan, artifact: Artifact, seconds: float) -> None:
    size = artifact.program.stat().st_size
    click.echo(f"{artifact.program}  {size / 1e6:,.1f} MB, {decided.target.name}")
    click.echo(f"{artifact.library}")
    if (artifact.folder / "web").is_dir():
        page = artifact.folder / "web"
        click.echo(f"{page}  to see it: python3 -m http.server -d {page}")
    if artifact.weights:
        weights = artifact.weights.stat().st_size
        firmware = decided.target.firmware
        place = f", for flash at {firmware.weights.origin:#x}" if firmware else ""
        click.echo(f"{artifact.weights}  {weights / 1e6:,.1f} MB{place}")
        size += weights
    arena = decided.memory.arena_bytes(decided.context, 1)
    if decided.target.freestanding:
        image = measured(Path(f"{artifact.program}.map").read_text())
        click.echo(
            f"flash: {image.flash:,} bytes; RAM: {image.ram:,} bytes, {image.arena:,} of them the "
            f"arena at context {decided.context} and batch {decided.batch}"
        )
        click.echo(f"built by {artifact.toolchain} in {seconds:.1f} s")
        return
    click.echo(
        f"memory: {size / 1e6:,.1f} MB program{' and weights' if artifact.weights else ''} + "
        f"{arena / 1e6:,.1f} MB arena at context {decided.context}, one thread"
    )
    click.echo(f"built by {artifact.toolchain} in {seconds:.1f} s")


def _planned(name: str, m: MatrixPlan, blocks: int) -> tuple[str, ...]:
    """A line of the table: a matrix of so many blocks."""
    runner = min(m.rejected, key=lambda c: c.cost.cycles if c.cost else float("inf"), default=None)
    each = [v.cost.cycles for v in m.variants] or [m.cost.cycles]
    return (
        name,
        f"{m.rows} x {m.cols}",
        f"{len(m.variants)} x {m.kernel.layout_name}" if m.variants else m.kernel.name,
        f"{m.bytes * blocks / 1e6:,.2f}",
        "-".join(f"{c * blocks / 1e3:,.0f}" for c in sorted({min(each), max(each)})),
        f"{runner.kernel.name}: {runner.reason}" if runner else "no other kernel",
    )


def _say_plan(p: Plan, model: Model) -> None:
    table = Table(box=None, pad_edge=False, title_justify="left", header_style="bold")
    table.add_column("matrix", no_wrap=True)
    for name in ("shape", "kernel", "MB", "k cycles"):
        table.add_column(name, justify="right" if name in ("MB", "k cycles") else "left")
    table.add_column("runner-up, and why it lost")
    for group in p.groups:
        table.add_section()
        blocks = group.last - group.first + 1
        table.add_row(f"[bold]blocks {group.first}-{group.last}[/bold]")
        for m in group.matrices.values():
            table.add_row(*_planned(f"  {m.role} x{blocks}", m, blocks))
        for f in group.floats.values():
            table.add_row(
                f"  {f.role} x{blocks}",
                f"{f.rows} x {f.cols}",
                f"float {f.dtype}",
                f"{f.bytes * blocks / 1e6:,.2f}",
                f"{f.bytes * blocks / p.target.cost.bytes_per_cycle / 1e3:,.0f}",
                "it reads floats" + (f", {f.groups} scales a row" if f.groups > 1 else ""),
            )
    table.add_section()
    head = p.own_head
    name = "head" + (" (tied)" if model.tied and not p.head else "")
    if p.head:
        table.add_row(*_planned(name, p.head, 1))
    else:
        table.add_row(
            name,
            f"{head.rows} x {head.cols}",
            f"float {head.dtype}" if head.dtype == "trits" else f"dense {head.dtype}",
            f"{head.bytes / 1e6:,.2f}",
            f"{head.bytes / p.target.cost.bytes_per_cycle / 1e3:,.0f}",
            f"bfloat16, {head.escapes:,} escapes"
            if head.dtype == "bf12"
            else "as the checkpoint stores it",
        )
    if p.screened:
        size = f"{head.rows * p.exact_stride / 1e6:,.2f}"
        shape, why = f"{head.rows} x {head.cols}", "rows that may matter are read"
        table.add_row("  its integers", shape, "int8", size, "", why)
    out.print(f"{model.name} ({model.family}) for {p.target.name}: {p.target.summary}")
    out.print(table)
    for i, variant in enumerate(p.target.variants):
        kernels = ", ".join(k.name for k in p.variant_kernels(i))
        click.echo(f"on {variant.name}: {kernels}")
    if p.slices:
        rows = " or ".join(str(s) for s in p.slices)
        click.echo(
            f"tiles: for several tokens {rows} rows at a time, of whose sums {p.batch} tokens have "
            f"{4 * p.slices[-1] * p.batch:,} bytes in a first-level cache of {p.target.l1d:,}"
        )
    memory = p.memory
    click.echo(
        f"arena: {memory.fixed_bytes:,} bytes + {memory.thread_bytes(p.context):,} a thread + "
        f"{memory.cache_bytes_per_position:,} a position; "
        f"{memory.arena_bytes(p.context, 1):,} at context {p.context} and one thread"
    )
    t = totals(p, model)
    click.echo(f"stack: {t.stack:,} bytes a thread at most")
    if not p.target.firmware:
        click.echo(
            f"resident: {t.resident:,} bytes = {t.weights:,} weights + {t.tokenizer:,} tokenizer + "
            f"{t.arena:,} arena + about {t.program:,} program"
        )
        if t.sparse:
            click.echo(
                f"          at least {t.resident_least:,}: {t.sparse:,} of the weights, and the "
                f"tokenizer, are read as the text needs them"
            )
    if p.target.firmware:
        need = footprint(p, model)
        click.echo(
            f"flash: {need.flash:,} bytes = {need.weights:,} weights + {need.tokenizer:,} "
            f"tokenizer + {need.code:,} code (an estimate)"
        )
        click.echo(
            f"RAM: {need.ram:,} bytes = {need.arena:,} arena + {need.stack:,} stack + "
            f"{need.variables:,} variables"
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; one plain line for each stage elsewhere."""
    if not err.is_terminal:
        said: set[str] = set()

        def plainly(what: str, done: int, total: int) -> None:
            if what not in said:
                said.add(what)
                click.echo(f"{what} ...", err=True)

        yield plainly
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done)

        yield show
