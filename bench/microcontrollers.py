"""What the example model takes of microcontrollers, and the largest models that parts of them hold.

    python bench/microcontrollers.py           flash, RAM, stack and instructions, by emulation
    python bench/microcontrollers.py --fits    the planner's answer for parts of two sizes

Sizes come from the linker's map, beside what `bitnetc plan` says. Instructions are counted by
qemu-system-arm, whose clock with -icount advances one nanosecond for each: they are not cycles.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import mistakes  # noqa: F401
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from bitnetc.binary import find_binary  # noqa: E402
from bitnetc.build import build  # noqa: E402
from bitnetc.compiler import load, silent  # noqa: E402
from bitnetc.emit import emit  # noqa: E402
from bitnetc.footprint import footprint, measured  # noqa: E402
from bitnetc.kernels import Kernel  # noqa: E402
from bitnetc.model import ROLES, Dense, Model, Ternary  # noqa: E402
from bitnetc.plan import plan  # noqa: E402
from bitnetc.semihosting import command  # noqa: E402
from bitnetc.target import Target, load_target, target_names  # noqa: E402
from bitnetc.toolchain import choose  # noqa: E402

EXAMPLE = ROOT / "examples" / "freestanding" / "model"
TOKENS = 64

KIB = 1024
PARTS = (("1 MB / 256 KB", 1024 * KIB, 256 * KIB), ("2 MB / 512 KB", 2048 * KIB, 512 * KIB))
LEAST_LAYERS = 4
HEAD_DIM = 16  # as the example; half as many key/value heads as heads, ffn_dim = 3 * dim


def count(model: Model, target: Target, kernel: Kernel, folder: Path) -> dict[str, float]:
    """Sizes and instructions of the model's image with one kernel."""
    target = dataclasses.replace(target, kernels=(kernel,))
    decided = plan(model, target)
    toolchain = choose(target, False, None)
    image = build(emit(decided, model, "tiny"), decided, model, toolchain, folder, silent).program
    words = command(target.checks[0], str(image), ["--bench", "-n", str(TOKENS)], icount=True)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said = {line.rpartition(" ")[0]: int(line.split()[-1]) for line in done.stdout.splitlines()}
    tick = said["loop instructions"] / said["loop ticks"]
    found, need = measured(Path(f"{image}.map").read_text()), footprint(decided, model)
    return {
        "flash": found.flash,
        "flash planned": need.flash,
        "ram": found.ram,
        "ram planned": need.ram,
        "arena": found.arena,
        "arena planned": need.arena,
        "stack": said["stack bytes"],
        "stack kept": need.stack,
        "prefill": tick * said["prefill ticks"] / said["prefill tokens"],
        "decode": tick * said["decode ticks"] / said["decode tokens"],
    }


def signs(model: Model) -> Model:
    """The same with 1 for every 0: all its matrices take one bit a weight."""

    def without_zeros(matrix: object) -> Ternary:
        assert isinstance(matrix, Ternary)
        return dataclasses.replace(matrix, load=lambda: matrix.load() + (matrix.load() == 0))

    blocks = []
    for block in model.blocks:
        changes: dict[str, Any] = {r: without_zeros(getattr(block, r)) for r in ROLES}
        blocks.append(dataclasses.replace(block, **changes))
    return find_binary(dataclasses.replace(model, blocks=tuple(blocks)))


def measure() -> None:
    """The tables of docs/microcontrollers.md."""
    model = load(EXAMPLE)
    sizes, speeds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name in target_names():
            target = load_target(name)
            if not target.freestanding:
                continue
            layouts = ("i2_", "b1_")
            chosen = [k for k in target.kernels if k.layout_name.startswith(layouts)]
            for i, kernel in enumerate(k for k in chosen if k.activation == "int8"):
                held = signs(model) if kernel.layout.code.binary else model
                f = count(held, target, kernel, Path(scratch) / f"{name}-{i}")
                if i == 0:
                    sizes.append(
                        f"| `{name}` | {f['flash']:,} | {f['flash planned']:,} | {f['ram']:,} | "
                        f"{f['ram planned']:,} | {f['arena']:,} | {f['arena planned']:,} | "
                        f"{f['stack']:,} of {f['stack kept']:,} |"
                    )
                speeds.append(
                    f"| `{name}` | `{kernel.name}` | {f['flash']:,} | {f['prefill'] / 1e3:,.0f} | "
                    f"{f['decode'] / 1e3:,.0f} |"
                )
    print("| target | flash | planned | RAM | planned | arena | planned | stack used |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(sizes))
    print("\n| target | kernel | flash | thousand instructions, prefill | decode |")
    print("| --- | --- | ---: | ---: | ---: |")
    print("\n".join(speeds))


def resized(model: Model, dim: int, layers: int) -> Model:
    """The example's graph and tokenizer with other sizes, and no weights."""
    heads = dim // HEAD_DIM
    shape = dataclasses.replace(
        model.shape,
        dim=dim,
        ffn_dim=3 * dim,
        layers=layers,
        heads=heads,
        kv_heads=heads // 2,
        head_dim=HEAD_DIM,
    )

    def nothing() -> np.ndarray:
        raise NotImplementedError

    def matrix(rows: int, cols: int) -> Ternary:
        return Ternary(rows, cols, np.ones(1, np.float32), nothing)

    def vector(n: int) -> np.ndarray:
        return np.ones(n, np.float32)

    block = dataclasses.replace(
        model.blocks[0],
        attn_norm=vector(dim),
        wq=matrix(shape.q_dim, dim),
        wk=matrix(shape.kv_dim, dim),
        wv=matrix(shape.kv_dim, dim),
        attn_sub_norm=vector(shape.q_dim),
        wo=matrix(dim, shape.q_dim),
        ffn_norm=vector(dim),
        w_gate=matrix(shape.ffn_dim, dim),
        w_up=matrix(shape.ffn_dim, dim),
        ffn_sub_norm=vector(shape.ffn_dim),
        w_down=matrix(dim, shape.ffn_dim),
    )
    table = Dense(shape.vocab, dim, "bf16", nothing)
    return dataclasses.replace(
        model,
        shape=shape,
        blocks=(block,) * layers,
        embedding=table,
        head=table,
        final_norm=vector(dim),
    )


def parameters(model: Model) -> int:
    s = model.shape
    matrices = 2 * s.q_dim * s.dim + 2 * s.kv_dim * s.dim + 3 * s.ffn_dim * s.dim
    return s.layers * matrices + s.vocab * s.dim


def fits() -> None:
    """The model of most parameters for each part and context, by the planner."""
    example, target = load(EXAMPLE), load_target("cortex-m4")
    print("| part | context | parameters | width | layers | flash | RAM |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for part, flash, ram in PARTS:
        for context in (64, 128, 256):
            best = None
            for dim in range(64, 513, 32):
                for layers in range(LEAST_LAYERS, 65):
                    model = resized(example, dim, layers)
                    need = footprint(plan(model, target, context), model)
                    if need.flash > flash or need.ram > ram:
                        break
                    if best is None or parameters(model) > parameters(best[0]):
                        best = model, need
            if best is None:
                print(f"| {part} | {context} | nothing fits |")
                continue
            model, need = best
            print(
                f"| {part} | {context} | {parameters(model):,} | {model.shape.dim} | "
                f"{model.shape.layers} | {need.flash:,} | {need.ram:,} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", action="store_true", help="the largest models for two parts")
    (fits if parser.parse_args().fits else measure)()


if __name__ == "__main__":
    main()
