"""A person's mistake ends in one line that says where, what and what to do; exit code 2; nothing
is left behind."""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import VARIANTS, tiny_checkpoint, write_checkpoint
from unavailable import Unavailable

from bitnetc.target import load_target

Edit = Callable[[Path], None]


def bitnetc(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitnetc", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    lines = [line for line in lines if not line.endswith(" ...")]  # progress
    assert len(lines) == 1, done.stderr
    for words in said:
        assert words in lines[0]
    assert "Traceback" not in done.stderr


def set_config(**values: Any) -> Edit:
    def edit(model: Path) -> None:
        path = model / "config.json"
        config = json.loads(path.read_text())
        for key, value in values.items():
            if isinstance(value, dict) and isinstance(config.get(key), dict):
                config[key].update(value)
            else:
                config[key] = value
        path.write_text(json.dumps(config))

    return edit


def weights(model: Path) -> tuple[Path, dict[str, Any], bytes]:
    path = model / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return path, json.loads(data[8 : 8 + size]), data[8 + size :]


def set_header(change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(model: Path) -> None:
        path, header, body = weights(model)
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)

    return edit


def truncate(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def long_header(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 20) + path.read_bytes()[8:])


def code_three(model: Path) -> None:
    path, header, body = weights(model)
    name = next(n for n in header if n.endswith("q_proj.weight"))
    text = json.dumps(header).encode()
    at = header[name]["data_offsets"][0]
    path.write_bytes(struct.pack("<Q", len(text)) + text + body[:at] + b"\xff" + body[at + 1 :])


QPROJ = "model.layers.0.self_attn.q_proj.weight"


def overlap(header: dict[str, Any]) -> None:
    names = sorted(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"]
    )
    start, end = header[names[1]]["data_offsets"]
    header[names[1]]["data_offsets"] = [start - 2, end - 2]


def out_of_range(header: dict[str, Any]) -> None:
    header[QPROJ]["data_offsets"] = [1 << 40, (1 << 40) + 1024]


def wrong_shape(header: dict[str, Any]) -> None:
    rows, cols = header[QPROJ]["shape"]
    header[QPROJ]["shape"] = [cols, rows]


def rename(header: dict[str, Any]) -> None:
    header["model.layers.0.self_attn.other.weight"] = header.pop(QPROJ)


MISTAKES: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "truncated": (truncate, ("model.safetensors",)),
    "header beyond the file": (long_header, ("model.safetensors", "header")),
    "overlapping offsets": (set_header(overlap), ("model.safetensors", "data_offsets")),
    "offsets out of range": (set_header(out_of_range), ("model.safetensors", QPROJ)),
    "missing tensor": (set_header(rename), (QPROJ,)),
    "wrong shape": (set_header(wrong_shape), (QPROJ, "shape")),
    "code 3": (code_three, (QPROJ,)),
    "linear_class": (
        set_config(quantization_config={"linear_class": "autobitliner"}),
        ("config.json", "linear_class", '"autobitlinear"'),
    ),
    "hidden_act": (set_config(hidden_act="gelu"), ("config.json", "hidden_act", "gelu")),
    "rope_scaling": (
        set_config(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        ("config.json", "rope_scaling"),
    ),
    "no tokenizer": (lambda model: (model / "tokenizer.json").unlink(), ("tokenizer.json",)),
    "no config": (lambda model: (model / "config.json").unlink(), ("config.json",)),
    "config is not JSON": (
        lambda model: (model / "config.json").write_text("{"),  # type: ignore[dict-item,return-value]
        ("config.json",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_checkpoint(name: str, tmp_path: Path) -> None:
    edit, said = MISTAKES[name]
    model, out = tmp_path / "model", tmp_path / "out"
    write_checkpoint(model, **VARIANTS["2b4t"])
    edit(model)
    assert_refused(bitnetc("compile", model, "-o", out), *said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_checkpoint().write(tmp_path / "model")
    return tmp_path / "model"


def test_checkpoint_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("no")
    assert_refused(bitnetc("compile", tmp_path / "model", "-o", tmp_path / "out"), "model")
    assert not (tmp_path / "out").exists()


def test_unknown_target(model: Path) -> None:
    done = bitnetc("compile", model, "--target", "armv8-neno", "-o", model.parent / "out")
    assert_refused(done, "--target", "armv8-neno", 'did you mean "armv8-neon"')


def test_unknown_shape(tmp_path: Path) -> None:
    done = bitnetc("synth", "--like", "bitnet-b1.58-2b-5t", "-o", tmp_path / "out")
    assert_refused(done, "bitnet-b1.58-2b-4t")


def test_compiler_missing(model: Path) -> None:
    out = model.parent / "out"
    assert_refused(bitnetc("compile", model, "--cc", "no-such-cc", "-o", out), "--cc", "no-such-cc")
    assert_refused(bitnetc("compile", model, "-o", out, CC="no-such-cc"), "CC", "no-such-cc")
    done = bitnetc("compile", model, "-o", out, CMAKE_TOOLCHAIN_FILE="/nonexistent.cmake")
    assert_refused(done, "CMAKE_TOOLCHAIN_FILE")
    assert not out.exists()


def test_compiler_fails(model: Path) -> None:
    """A compiler that cannot compile: its reason is told, nothing is left."""
    broken = model.parent / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'fatal error: out of cheese' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = bitnetc("compile", model, "--cc", broken, "-o", model.parent / "out")
    assert_refused(done, "broken-cc", "could not use the compiler")
    assert sorted(p.name for p in model.parent.iterdir()) == ["broken-cc", "model"]


def test_disk_full(model: Path, unavailable: Unavailable) -> None:
    disk = model.parent / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=256k tmpfs {disk} || exit 99; "
        f"{sys.executable} -m bitnetc compile {model} -o {disk}/out; code=$?; "
        f'test -z "$(ls -A {disk})" || exit 98; exit $code'
    )
    wrapped = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    if not shutil.which("unshare"):
        unavailable("disk full", "unshare is not installed")
    done = subprocess.run(wrapped, capture_output=True, text=True)
    if done.returncode not in (2, 98):
        unavailable("disk full", f"no private mount here: {done.stderr.strip()[-200:]}")
    assert_refused(done, "disk is full")


def test_destination_is_kept(model: Path) -> None:
    """A folder of somebody else's is not replaced; an older result survives a failure."""
    mine = model.parent / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert_refused(bitnetc("compile", model, "-o", mine), "mine", "did not write")
    assert (mine / "thesis.txt").exists()
    assert_refused(bitnetc("compile", model, "-o", mine / "thesis.txt"), "is a file")

    out = model.parent / "out"
    assert bitnetc("compile", model, "-o", out).returncode == 0
    before = (out / "bin" / "model").read_bytes()
    code_three(model)
    assert_refused(bitnetc("compile", model, "-o", out), QPROJ)
    assert (out / "bin" / "model").read_bytes() == before


def test_context(model: Path) -> None:
    for context in ("4096", "0"):
        done = bitnetc("compile", model, "--context", context, "-o", model.parent / "out")
        assert_refused(done, "--context", context, "128")


def test_runner(model: Path) -> None:
    assert_refused(bitnetc("verify", model, "--runner", "false"), "--runner")
    board = model.parent / "board"  # this machine, reached the way ssh reaches another
    board.mkdir()
    ssh = model.parent / "ssh"
    ssh.write_text(f'#!/bin/sh\ncd {board}\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    done = bitnetc("verify", model, "--runner", ssh, "--weights", "file", "--positions", "12")
    assert done.returncode == 0, done.stderr
    assert f"verified: {load_target('native').name} on {ssh}" in done.stdout
    assert not list(board.iterdir())


def test_program_that_is_not_one(model: Path) -> None:
    assert_refused(bitnetc("verify", model, "--runner", "sh -c true"), "bytes of logits")


def test_names_relative_to_here(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bitnetc", "compile", "model", "-o", "out"],
        cwd=model.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "out/bin/model" in done.stdout and (model.parent / "out/bin/model").is_file()
