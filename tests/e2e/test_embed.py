"""Vectors of texts: the program's against the reference's, bit for bit, however texts are mixed."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_embedding import embedding_checkpoint, gemma_tokenizer, write_embedding
from gguf_files import ARRAY, F32, character_metadata, value

from bitnetc.model import Model
from bitnetc.reference import Reference
from e2e.built import Built, program_of

LINES = [
    "It is a truth universally acknowledged",
    "that a single man",
    "x",
    "must be in want of a wife. " * 6,
    "\u00e9\U0001f600",
    "However little known the feelings or views of such a man may be",
]


@pytest.fixture(params=["embedding-qwen3", "embedding-gemma3"])
def embedder(
    request: pytest.FixtureRequest, built: Callable[..., Built], tiny: Callable[[str], Path]
) -> tuple[Model, Path]:
    model, _, folder = built(tiny(request.param), "native")
    return model, program_of(folder, "native")


def run(program: Path, *options: str, lines: list[str] = LINES) -> bytes:
    text = "".join(line + "\n" for line in lines).encode()
    return subprocess.run(
        [program, "--embed", *options], input=text, capture_output=True, check=True
    ).stdout


def expected(model: Model, program: Path, pooling: str, unit: bool) -> np.ndarray:
    reference = Reference(model)
    found = []
    for line in LINES:
        ids = subprocess.run([program, "--tokens", "-p", line], capture_output=True, check=True)
        tokens = [int(i) for i in ids.stdout.split()]
        found.append(reference.embed(tokens, pooling, unit))  # type: ignore[arg-type]
    return np.array(found)


def test_vectors_equal_the_reference(embedder: tuple[Model, Path]) -> None:
    model, program = embedder
    for pooling, unit in (("last", True), ("mean", True), ("cls", False)):
        want = expected(model, program, pooling, unit)
        options = ["--pooling", pooling, "--as", "f32"] + ([] if unit else ["--no-unit"])
        for more in (["-t", "1"], ["-t", "3"], ["-t", "2", "-c", "100"]):
            got = np.frombuffer(run(program, *options, *more), "<f4").reshape(want.shape)
            assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), (pooling, more)
    own = np.frombuffer(run(program, "--as", "f32"), "<f4").reshape(want.shape)
    assert model.pooling == "mean"
    mean = expected(model, program, "mean", True)
    assert np.array_equal(own, mean)


def test_a_vector_does_not_depend_on_its_neighbours(embedder: tuple[Model, Path]) -> None:
    _, program = embedder
    together = run(program, "--as", "f32", "-t", "2")
    apart = b"".join(run(program, "--as", "f32", lines=[line]) for line in LINES)
    by_prompt = [
        subprocess.run([program, "--embed", "--as", "f32", "-p", line], capture_output=True)
        for line in LINES
    ]
    many = run(program, "--as", "f32", lines=LINES * 200)
    assert together == apart == b"".join(done.stdout for done in by_prompt)
    assert many == together * 200


@pytest.mark.parametrize("name", ["embedding-qwen3", "embedding-gemma3"])
def test_a_gguf_file_gives_the_vectors_of_its_folder(
    name: str, built: Callable[..., Built], tmp_path: Path
) -> None:
    tiny = embedding_checkpoint(name)
    metadata: dict[str, Any] = {}
    if name.endswith("gemma3"):  # whose vocabulary the converter writes in another form
        tiny.tokenizer.clear()
        tiny.tokenizer.update(gemma_tokenizer(320))
        for key in ("bos_token_id", "eos_token_id"):
            tiny.config[key] = {"bos_token_id": 2, "eos_token_id": 1}[key]
        metadata = character_metadata(tiny.tokenizer)
        rest = 320 - len(metadata["tokenizer.ggml.tokens"])
        assert rest > 0
        metadata["tokenizer.ggml.tokens"] += [f"[PAD{i}]" for i in range(rest)]
        metadata["tokenizer.ggml.token_type"] += [5] * rest
        ranked = [*metadata["tokenizer.ggml.scores"], *[-10000.0] * rest]
        metadata["tokenizer.ggml.scores"] = value(ARRAY, (F32, ranked))
    else:
        metadata = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": True}
        metadata["tokenizer.ggml.add_eos_token"] = False
    tiny.write(tmp_path / "folder" / "model")
    write_embedding(tmp_path / "model.gguf", tiny, metadata=metadata)
    programs = [
        program_of(built(path, "native", name="model")[2], "native")
        for path in (tmp_path / "model.gguf", tmp_path / "folder" / "model")
    ]
    for line in LINES:
        one, other = (
            subprocess.run([p, "--tokens", "-p", line], capture_output=True, check=True).stdout
            for p in programs
        )
        assert one == other, line
    ours, theirs = (run(program, "--as", "f32") for program in programs)
    assert ours == theirs and len(set(ours)) > 50


def test_forms(embedder: tuple[Model, Path]) -> None:
    model, program = embedder
    floats = np.frombuffer(run(program, "--as", "f32"), "<f4").reshape(len(LINES), -1)
    text = run(program).decode().split("\n")[:-1]
    assert np.array_equal(np.array([line.split() for line in text], np.float32), floats)
    codes = np.frombuffer(run(program, "--as", "int8"), np.int8).reshape(floats.shape)
    largest = np.abs(floats).max(1, keepdims=True)
    assert np.array_equal(codes, np.rint(floats * (np.float32(127) / largest)).astype(np.int8))
    bits = np.frombuffer(run(program, "--as", "binary"), np.uint8).reshape(len(LINES), -1)
    assert np.array_equal(np.unpackbits(bits, axis=1)[:, : model.shape.dim], floats > 0)


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (["--pooling", "max"], "x\n", "--pooling: is none of"),
        (["--as", "int4"], "x\n", "--as: is none of"),
        (["-c", "4"], "a long line of many words\n", "--embed: line 1 has more tokens"),
    ],
)
def test_mistakes(
    options: list[str],
    text: str,
    message: str,
    built: Callable[..., Built],
    tiny: Callable[[str], Path],
) -> None:
    _, _, folder = built(tiny("embedding-qwen3"), "native")
    done = subprocess.run(
        [program_of(folder, "native"), "--embed", *options],
        input=text.encode(),
        capture_output=True,
    )
    assert done.returncode == 2 and message in done.stderr.decode()
    assert done.stdout == b""
