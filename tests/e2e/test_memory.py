"""Memory is known beforehand: plan, header and program agree, and so does the kernel."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bitnetc.plan import plan
from bitnetc.target import load_target
from bitnetc.totals import totals
from e2e.built import EXAMPLE, Built

PROMPT = "It is a truth universally acknowledged, that"


def info(program: Path, context: int, threads: int) -> dict[str, int]:
    said = subprocess.run(
        [program, "--info", "-c", str(context), "-t", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {k: int(v) for k, v in re.findall(r"^(\w+) +(\d+) bytes", said, re.M)}


@pytest.mark.parametrize(("context", "threads"), [(1, 1), (64, 1), (300, 3), (512, 64)])
def test_plan_header_and_program_agree(
    context: int, threads: int, built: Callable[..., Built], tmp_path: Path
) -> None:
    """To the byte; the header's macros are evaluated by a compiler."""
    model, decided, folder = built(EXAMPLE, "native")
    t = totals(decided, model, context, threads)
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include <stdio.h>\n#include "model.h"\nint main(void)\n{\n'
        '    printf("%zu %zu %zu %zu %zu\\n", MODEL_WEIGHTS_BYTES, MODEL_TOKENIZER_BYTES,\n'
        f"           MODEL_ARENA_BYTES({context}, {threads}), MODEL_CACHE_BYTES({context}),\n"
        "           MODEL_STACK_BYTES);\n}\n"
    )
    binary = tmp_path / "sizes"
    subprocess.run(["cc", f"-I{folder / 'include'}", source, "-o", binary], check=True)
    sizes = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()
    said = [t.weights, t.tokenizer, t.arena, t.cache, t.stack]
    assert [int(size) for size in sizes] == said
    shown = info(folder / "bin" / "model", context, threads)
    assert shown["arena"] == t.arena and shown["weights"] == t.weights
    assert shown["resident"] == t.resident and shown["stack"] == t.stack
    assert (folder / "src" / "tokenizer.bin").stat().st_size == t.tokenizer
    assert (folder / "src" / "weights.bin").stat().st_size == t.weights


def test_plan_command(built: Callable[..., Built]) -> None:
    model, _, folder = built(EXAMPLE, "native")
    words = [sys.executable, "-m", "bitnetc", "plan", EXAMPLE]
    run = [subprocess.run([*words, *o], capture_output=True, text=True) for o in ([], ["--json"])]
    t = totals(plan(model, load_target("native")), model)
    stated = json.loads((folder / "plan.json").read_text())["totals"]
    assert json.loads(run[1].stdout)["totals"] == stated
    assert stated["resident"] == t.resident and stated["stack_per_thread"] == t.stack
    assert f"resident: {t.resident:,} bytes" in run[0].stdout
    assert f"stack: {t.stack:,} bytes a thread" in run[0].stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("context", "threads"), [(64, 1), (256, 2), (512, 1)])
def test_resident_memory(context: int, threads: int, built: Callable[..., Built]) -> None:
    """The peak the kernel counted, with the context full, is what was said within 2 %.

    A program linked by the target's own toolchain: a distribution's C library is shared with
    others. The program is held at its end by its last message, which goes to a full pipe.
    """
    folder = built(
        EXAMPLE, "x86_64-avx2" if "avx2" in load_target("native").features else "armv8-neon"
    )[2]
    program = folder / "bin" / "model"
    said = info(program, context, threads)["resident"]
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    try:
        while True:
            filled += os.write(write, bytes(4096))
    except BlockingIOError:
        os.set_blocking(write, True)
    arguments = ["-p", PROMPT, "-n", "1000", "-c", str(context), "-t", str(threads)]
    process = subprocess.Popen(
        [program, *arguments, "--temp", "1.1", "--seed", "4"],
        stdout=subprocess.PIPE,
        stderr=write,
    )
    try:
        state = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 120
        status = ""
        while time.monotonic() < deadline:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "sleeping" in status and "pipe" in state.read_text():
                break
            time.sleep(0.05)
        else:
            pytest.fail("the program did not come to its end")
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10
    finally:
        os.close(write)
        left = 0
        while left < filled:
            left += len(os.read(read, 65536))
        rest = os.read(read, 4096).decode()
        os.close(read)
        process.communicate()
    assert "context is full" in rest, "the text ended before the context"
    assert abs(peak / said - 1) < 0.02, f"{peak:,} bytes resident, {said:,} were said"
