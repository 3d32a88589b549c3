"""The contract: a size that Python plans with is the one that C computes with."""

import re
import subprocess
from pathlib import Path

import pytest

from bitnetc import emit, memory, plan, resources
from bitnetc.target import load_target
from bitnetc.toolchain import choose

# Header, its name in C, what Python plans with.
SIZES = [
    ("bnc_lanes.h", "BNC_LANES", memory.LANES),
    ("bnc_quantise.h", "BNC_LUT", memory.LUT),
    ("bnc_attention.h", "BNC_HEADS_TOGETHER", memory.HEADS_TOGETHER),
    ("bnc_attention.h", "BNC_CHUNK", memory.CHUNK),
    ("bnc_attention.h", "BNC_MAX_HEAD_DIM", plan.MAX_HEAD_DIM),
    ("bnc_attention_batch.h", "BNC_ATTEND_ROWS", memory.ATTEND_ROWS),
    ("bnc_attention_batch.h", "BNC_ATTEND_VALUES", memory.ATTEND_VALUES),
    ("bnc_streams.h", "BNC_STREAMS", plan.STREAMS),
    ("bnc_threads.h", "BNC_MAX_THREADS", plan.MAX_THREADS),
    ("bnc_runtime.h", "BNC_RUNTIME_ABI", emit.ABI),
]


def values(folder: Path, flags: list[str], names: list[tuple[str, str]]) -> dict[str, int]:
    """What the compiler makes of names, each defined by the header before it."""
    lines = [f'#include "{header}"' for header, _ in names]
    lines += [f"int value_{name} = {name};" for _, name in names]
    (folder / "sizes.c").write_text("\n".join(lines) + "\n")
    compiler = choose(load_target("scalar"), True, None).compiler
    command = [*compiler, "-std=c11", *flags, "-DBNC_THREADS=1", f"-I{resources.RUNTIME}"]
    done = subprocess.run(
        [*command, "-S", "-o", "-", "sizes.c"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^value_(\w+):\n\s+\.long\s+(-?\d+)", done.stdout, re.M)
    return {name: int(value) for name, value in found}


def test_sizes(tmp_path: Path) -> None:
    found = values(tmp_path, [], [(header, name) for header, name, _ in SIZES])
    assert found == {name: value for _, name, value in SIZES}


@pytest.mark.parametrize("target", ["scalar", "x86_64-avx2", "x86_64-avx512"])
def test_rows_that_attend_together_are_whole_steps(target: str, tmp_path: Path) -> None:
    """Scratch is planned in steps of Python's number, whatever a CPU's registers hold."""
    found = values(
        tmp_path, list(load_target(target).flags), [("bnc_attention_batch.h", "BNC_ATTEND_STEP")]
    )
    assert memory.ATTEND_STEP % found["BNC_ATTEND_STEP"] == 0
