"""What a firmware image takes of a microcontroller: flash, RAM and stack, before anything is built.

    flash = weights | tokenizer tables | code          RAM = arena | stack | variables

Weights, tables and arena are known to the byte. The code is an estimate from figures in the
target's file, and the stack what that file keeps for it.
"""

from dataclasses import dataclass

from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.pack import ALIGN, slots, tokenizer_tables
from bitnetc.plan import Plan, plan
from bitnetc.target import Target

_SECTIONS = (".weights", ".text", ".stack", ".data", ".bss", ".arena")
VARIABLES = 2064  # runtime_c/freestanding/bnc_firmware.c: the command line, and a few words


@dataclass(frozen=True)
class Footprint:
    """Bytes of a firmware image with its command line."""

    weights: int  # packed matrices, norms, embedding and RoPE tables
    tokenizer: int
    code: int  # an estimate
    arena: int
    stack: int
    variables: int

    @property
    def flash(self) -> int:
        return self.weights + self.tokenizer + self.code

    @property
    def ram(self) -> int:
        return self.arena + self.stack + self.variables


@dataclass(frozen=True)
class Image:
    """Bytes of a linked image, from its map."""

    flash: int
    ram: int
    arena: int


def measured(map_text: str) -> Image:
    """The output sections of the linker script, as LLD and GNU ld print them.

    Raises BitnetcError when a section is not in the text.
    """
    sizes: dict[str, int] = {}
    for line in map_text.splitlines():
        words = line.split()
        if len(words) == 5 and words[4] in _SECTIONS:  # LLD: addresses, size, alignment, name
            sizes[words[4]] = int(words[2], 16)
        elif len(words) >= 3 and line.startswith(".") and words[0] in _SECTIONS:  # GNU ld
            sizes[words[0]] = int(words[2], 16)
    lacking = [name for name in _SECTIONS if name not in sizes]
    if lacking:
        raise BitnetcError("map of the image", f"has no section {lacking[0]}")
    return Image(
        flash=sizes[".weights"] + sizes[".text"] + sizes[".data"],
        ram=sizes[".stack"] + sizes[".data"] + sizes[".bss"] + sizes[".arena"],
        arena=sizes[".arena"],
    )


def footprint(decided: Plan, model: Model) -> Footprint:
    """The image of a freestanding target, for the plan's context.

    Raises BitnetcError for a target with an operating system.
    """
    firmware = decided.target.firmware
    if not firmware:
        raise BitnetcError(
            "--flash and --ram",
            f"{decided.target.name} programs run under an operating system",
            "choose a freestanding target, such as cortex-m4",
        )
    last = slots(decided, model)[-1]
    groups = len(decided.groups)
    return Footprint(
        weights=-(-(last.offset + last.bytes) // ALIGN) * ALIGN,
        tokenizer=len(tokenizer_tables(model)),
        code=firmware.code + firmware.code_per_group * groups,
        arena=decided.memory.arena_bytes(decided.context, 1),
        stack=firmware.stack,
        variables=VARIABLES,
    )


def fitting_context(
    model: Model, target: Target, batch: int | None, flash: int | None, ram: int | None
) -> int:
    """The most positions with which the model fits; 0 when not even one does."""
    low, high = 0, model.shape.context
    while low < high:
        middle = (low + high + 1) // 2
        found = footprint(plan(model, target, middle, batch), model)
        if found.flash <= (flash or found.flash) and found.ram <= (ram or found.ram):
            low = middle
        else:
            high = middle - 1
    return low


def refuse_too_large(decided: Plan, model: Model, flash: int | None, ram: int | None) -> None:
    """Raises BitnetcError, with the numbers and the context that fits, when the image is larger
    than `flash` or `ram` bytes; None is no limit."""
    need = footprint(decided, model)
    over = [
        f"{name} needs {used:,} bytes, the part has {limit:,}"
        for name, used, limit in (("flash", need.flash, flash), ("RAM", need.ram, ram))
        if limit is not None and used > limit
    ]
    if not over:
        return
    context = fitting_context(model, decided.target, decided.batch, flash, ram)
    raise BitnetcError(
        f"{model.name} with context {decided.context} and batch {decided.batch}",
        "; ".join(over),
        f"--context {context} fits" if context else "no context fits: choose a smaller model",
    )
