"""Memory is known beforehand: plan, header and program agree, and so does the kernel."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import safetensors_bytes, tiny_checkpoint

from bitnetc.bf12 import find_frequent
from bitnetc.compiler import load
from bitnetc.head import with_integer_head
from bitnetc.plan import plan
from bitnetc.synth import synth
from bitnetc.target import load_target
from bitnetc.totals import totals
from e2e.built import EXAMPLE, Built

# Linked by the target's own toolchain.
STATIC = "x86_64-avx2" if "avx2" in load_target("native").features else "armv8-neon"
STATIC = STATIC if sys.platform == "linux" else "native"
PROMPT = "It is a truth universally acknowledged, that"


def info(program: Path, context: int, threads: int) -> dict[str, int]:
    said = subprocess.run(
        [program, "--info", "-c", str(context), "-t", str(threads)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {k: int(v) for k, v in re.findall(r"^(\w[\w ]*?) +(\d+) bytes", said, re.M)}


@pytest.mark.parametrize(("context", "threads"), [(1, 1), (64, 1), (300, 3), (512, 64)])
def test_plan_header_and_program_agree(
    context: int, threads: int, built: Callable[..., Built], tmp_path: Path
) -> None:
    """To the byte; the header's macros are evaluated by a compiler."""
    model, decided, folder = built(EXAMPLE, STATIC)
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
    model, _, folder = built(EXAMPLE, STATIC)
    words = [sys.executable, "-m", "bitnetc", "plan", EXAMPLE, "--target", STATIC]
    run = [subprocess.run([*words, *o], capture_output=True, text=True) for o in ([], ["--json"])]
    model = find_frequent(model)
    t = totals(plan(model, load_target(STATIC)), model)
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
    folder = built(EXAMPLE, STATIC)[2]
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


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_head_of_its_own(built: Callable[..., Built], tmp_path: Path) -> None:
    """52 MB of embedding: one token is resident with the least that was said, within 2 %, and
    more tokens with more, up to the most."""
    synth("trilm-99m", tmp_path / "model", 0, 1)
    model, decided, folder = built(tmp_path / "model", STATIC)
    program = folder / "bin" / "model"
    embedding = 2 * model.embedding.rows * model.embedding.cols
    peaks = []
    for count in (1, 256):
        t, shown = totals(decided, model, count, 1), info(program, count, 1)
        assert t.sparse == embedding
        assert (shown["resident"], shown["at least"]) == (t.resident, t.resident_least)
        ids = " ".join(str(97 * i) for i in range(1, count + 1))
        with subprocess.Popen(
            [program, "--logits", "-t", "1", "--batch", "8"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as running:
            assert running.stdin and running.stdout
            running.stdin.write(ids.encode())
            running.stdin.close()
            left = 4 * model.shape.vocab * (count - 1) + 1  # of the last token, its first byte
            while left:
                left -= len(running.stdout.read(min(left, 1 << 16)))
            status = Path(f"/proc/{running.pid}/status").read_text()
            running.kill()
        peaks.append(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10)
        assert 0.98 * t.resident_least < peaks[-1] < 1.02 * t.resident
        if count == 1:
            assert peaks[0] < 1.02 * t.resident_least < 0.6 * t.resident
    assert peaks[1] > peaks[0] + 255 * 4096


def with_large_vocabulary(folder: Path, vocab: int) -> Path:
    """A tiny checkpoint with an embedding of zeros, which takes no room on the disk."""
    tiny = tiny_checkpoint(layers=1)
    tiny.write(folder)
    config = {**tiny.config, "vocab_size": vocab}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {k: v for k, v in tiny.tensors.items() if k != "model.embed_tokens.weight"}
    (folder / "model.safetensors").unlink()
    (folder / "rest.safetensors").write_bytes(safetensors_bytes(tensors))
    shape = (vocab, config["hidden_size"])
    size = 2 * shape[0] * shape[1]
    entry = {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with open(folder / "embedding.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    files = {**dict.fromkeys(tensors, "rest"), "model.embed_tokens.weight": "embedding"}
    index = {"weight_map": {name: f"{file}.safetensors" for name, file in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


COMPILE = """
import sys
from pathlib import Path
from bitnetc import emit
from bitnetc.compiler import Options, compile_model, load
emit.FAR_BYTES = 0
compile_model(load(Path(sys.argv[1])), Options(target=sys.argv[2], name="m"), Path(sys.argv[3]))
"""


def most_resident(leader: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Of a session's first process until it ends, and of any one that it started.

    Not what wait() says: a process that was forked counts what its parent had.
    """
    own = tools = 0
    while leader.poll() is None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                stat, status = (path / "stat").read_text(), (path / "status").read_text()
            except OSError:
                continue
            found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
            if int(stat.rsplit(")", 1)[1].split()[3]) != leader.pid or not found:
                continue
            size = int(found[1]) << 10
            if path.name == str(leader.pid):
                own = max(own, size)
            elif not stat.split("(")[1].startswith("python"):  # forked, and not yet another
                tools = max(tools, size)
        time.sleep(0.02)
    return own, tools


@pytest.mark.skipif(sys.platform != "linux", reason="weights lie far away in ELF files only")
def test_what_compiling_takes(tmp_path: Path) -> None:
    """Of 128 MiB more of weights, 100 as they are packed, compiler, archiver and linker take next
    to nothing: given the weights, zig's assembler and linker take twice as much. bitnetc maps one
    tensor at a time."""
    peaks, sizes = [], []
    given = 128 << 20
    for vocab in (400, 400 + given // 128):
        source = with_large_vocabulary(tmp_path / str(vocab), vocab)
        out = tmp_path / f"{vocab}-out"
        words = [sys.executable, "-c", COMPILE, source, STATIC, out]
        with subprocess.Popen(words, start_new_session=True) as running:
            peaks.append(most_resident(running))
        assert running.returncode == 0
        sizes.append((out / "bin" / "m").stat().st_size)
    more = sizes[1] - sizes[0]
    assert more > 95 << 20
    own, tools = (large - small for small, large in zip(*peaks, strict=True))
    assert tools < 0.1 * more, f"{tools >> 20} MiB"
    assert own < 1.5 * given, f"{own >> 20} MiB"
    for path in tmp_path.glob("*-out"):
        shutil.rmtree(path)


def test_what_is_read_by_the_row() -> None:
    model = load(EXAMPLE)
    target = load_target("x86_64-avx2")
    embedding = 2 * model.embedding.rows * model.embedding.cols
    for head, sparse in (("exact", 0), ("int8", embedding), ("screened", embedding)):
        other = with_integer_head(model, head)
        decided = plan(other, target)
        exact = model.head.rows * 384 if head == "screened" else 0
        t = totals(decided, other)
        assert t.sparse == sparse + exact
        assert t.resident_least == t.resident - (t.sparse + t.tokenizer if t.sparse else 0)
