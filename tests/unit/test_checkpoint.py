"""Reading checkpoint files: what the official safetensors reader takes, we take, and no more.

As a script, `PYTHONPATH=tests python tests/unit/test_checkpoint.py 50000` mutates that many files.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors as official
from checkpoints import VARIANTS, TinyCheckpoint, safetensors_bytes, tiny_checkpoint

from bitnetc.checkpoint import read, safetensors
from bitnetc.errors import BitnetcError

SMALL: dict[str, tuple[str, tuple[int, ...], bytes]] = {
    "a": ("F32", (2, 3), bytes(range(24))),
    "b.weight": ("U8", (4,), b"\x01\x02\x03\x04"),
    "c": ("BF16", (2, 1), b"\x80\x3f\x00\x40"),
    "d": ("F16", (), b"\x00\x3c"),
    "empty": ("F32", (0, 5), b""),
}


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header text and data of a well-formed file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]


def read_content(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return safetensors.read(path)


def official_read(content: bytes) -> dict[str, Any]:
    deserialize: Any = official.deserialize  # it has no annotations
    return dict(deserialize(content))


def test_values_and_views(tmp_path: Path) -> None:
    tensors = read_content(tmp_path / "x.safetensors", safetensors_bytes(SMALL))
    assert list(tensors) == list(SMALL)
    for name, (dtype, shape, data) in SMALL.items():
        tensor = tensors[name]
        assert (tensor.dtype, tensor.shape) == (dtype, shape)
        assert tensor.array().shape == shape
        assert tensor.array().tobytes() == data
        assert not tensor.array().flags.writeable
    assert tensors["c"].array().dtype == np.uint16
    assert tensors["d"].array() == np.float16(1)


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    content = safetensors_bytes({"u": ("U8", (1,), b"\x07"), "f": ("F32", (1,), b"\0\0\x80\x3f")})
    assert read_content(tmp_path / "x", content)["f"].array() == 1.0


def test_types_we_cannot_decode_are_refused_when_used(tmp_path: Path) -> None:
    content = safetensors_bytes({"i": ("I64", (1,), bytes(8))})
    tensor = read_content(tmp_path / "x", content)["i"]
    with pytest.raises(BitnetcError, match="stored as I64; convert it"):
        tensor.array()


# --- refusals of single files --------------------------------------------------------------------


def entry(**changes: Any) -> bytes:
    """A file with one tensor "w", U8 [4], some keys of its entry replaced."""
    keys: dict[str, Any] = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes
    keys = {key: value for key, value in keys.items() if value is not None}
    return with_header(json.dumps({"w": keys}).encode(), b"wxyz")


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes cannot hold a header"),
    "too short": (b"1234567", "7 bytes cannot hold a header"),
    "header beyond file": ((100).to_bytes(8, "little") + b"{}", "header length: 100 bytes"),
    "header huge": ((1 << 63).to_bytes(8, "little") + b"{}", "header length: 9223372036854775808"),
    "not JSON": (with_header(b"{'w': 1}"), "header: is not valid JSON"),
    "not UTF-8": (with_header(b'{"\xff": 1}'), "header: is not valid JSON"),
    "half surrogate": (with_header(rb'{"\ud800": 1}'), "header: is not valid JSON"),
    "NaN": (with_header(b'{"w": NaN}'), "header: NaN is not JSON"),
    "list": (with_header(b"[1]"), "header: holds [1], not an object"),
    "deep": (with_header(b"[" * 100000), "header: nested more than 32 deep"),
    "twice": (with_header(b'{"w":1,"w":2}'), 'header: "w" appears twice'),
    "metadata": (with_header(b'{"__metadata__":{"a":1}}'), "__metadata__: must map"),
    "entry a number": (with_header(b'{"w":1}'), '"w": must be an object, found 1'),
    "no dtype": (entry(dtype=None), '"w": has no dtype'),
    "no shape": (entry(shape=None), '"w": has no shape'),
    "no offsets": (entry(data_offsets=None), '"w": has no data_offsets'),
    "dtype a number": (entry(dtype=8), '"w": dtype: must be a text, found 8'),
    "dtype unknown": (entry(dtype="BF61"), 'unknown type "BF61"; did you mean "BF16"'),
    "shape a number": (entry(shape=4), "shape: must be a list of unsigned numbers"),
    "shape negative": (entry(shape=[-4]), "shape: must be a list of unsigned numbers"),
    "shape a float": (entry(shape=[4.0]), "shape: must be a list of unsigned numbers"),
    "shape true": (entry(shape=[True, 4]), "shape: must be a list of unsigned numbers"),
    "shape huge": (entry(shape=[1 << 64]), "shape: must be a list of unsigned numbers"),
    "shape overflows": (entry(shape=[1 << 40, 1 << 40]), "is beyond 64 bits"),
    "shape overflows, then 0": (entry(shape=[1 << 40, 1 << 40, 0]), "is beyond 64 bits"),
    "shape wrong": (entry(shape=[5]), "hold 4 bytes; U8 [5] needs 5"),
    "half a byte": (entry(dtype="F4", shape=[3]), "hold 4 bytes; F4 [3] needs 1.5"),
    "offsets three": (entry(data_offsets=[0, 4, 4]), "data_offsets: must be [begin, end]"),
    "offsets backwards": (entry(data_offsets=[4, 0]), "data_offsets: must be [begin, end]"),
    "offsets beyond": (entry(data_offsets=[0, 5], shape=[5]), "end at 5 of 4 data bytes"),
    "hole before": (entry(data_offsets=[1, 4], shape=[3]), "begin at 1 and leave a hole"),
    "hole after": (entry(data_offsets=[0, 3], shape=[3]), "4 data bytes, of which the tensors"),
    "overlap": (
        with_header(
            b'{"v":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
            b'"w":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
            b"wxyz",
        ),
        '"w": data_offsets: begin at 2 and overlap the tensor before, which ends at 3',
    ),
    "truncated": (safetensors_bytes(SMALL)[:-1], "data bytes"),
    "name with newline": (with_header(b'{"a\\nb":1}'), r'"a\nb": must be an object'),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "bad.safetensors"
    with pytest.raises(BitnetcError) as error:
        read_content(path, content)
    check_error(error.value, str(path), message)
    if case not in ("twice",):  # where the official reader is laxer
        with pytest.raises(official.SafetensorError):
            official_read(content)


def check_error(error: BitnetcError, where: str, message: str) -> None:
    """One line that names the file, says `message`, and says what to do."""
    text = str(error)
    assert text.startswith(where), text
    assert message in text, text
    assert "\n" not in text, text
    assert len(text) < 600, text
    assert error.hint or "; " in text, f"no remedy: {text}"


HOSTILE: dict[str, bytes] = {
    "open lists": b"[" * safetensors.MAX_HEADER_BYTES,
    "open objects": b'{"a":' * 1000000,
    "escaped quotes": b'"' + b'\\"' * 4000000,
    "backslashes": b'"' + b"\\" * 8000000,
    "quotes": b'"' * safetensors.MAX_HEADER_BYTES,
    "many lists": b"[" + b"[]," * 2700000 + b"[]]",
    "long number": b'{"w":' + b"9" * 8000000 + b"}",
    "repeat at the end": b"{" + b",".join(b'"%d":0' % i for i in range(600000)) + b',"599999":0}',
    "many dimensions": b'{"w":{"dtype":"U8","shape":['
    + b"1," * 4000000
    + b'1],"data_offsets":[0,0]}}',
    "many tensors": b"{"
    + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(130000))
    + b"}",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_neither_hang_nor_fill_memory(tmp_path: Path, case: str) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(with_header(HOSTILE[case]))
    begin = time.process_time()
    try:
        safetensors.read(path)
        assert case == "many tensors"
    except BitnetcError as error:
        assert len(str(error)) < 600
    assert time.process_time() - begin < 60  # no hang; a few seconds on an idle core


# --- agreement with the official reader, under mutation ------------------------------------------

# What we refuse although the official reader takes it.
STRICTER = ("appears twice", "must be an object, found [")


def mutate(content: bytes, random: random.Random) -> bytes:
    """A damaged file: a header with another character, number, key or length, or other data."""
    header, data = split(content)
    kind = random.randrange(8)
    if kind == 0:  # a byte anywhere, the header's length included
        at = random.randrange(len(content))
        return content[:at] + bytes([random.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return content[: random.randrange(len(content))]
    if kind == 2:
        return content + bytes(random.randrange(1, 9))
    if kind == 3:  # a character that means something in JSON
        at = random.randrange(len(header))
        new = random.choice(
            [b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b" "]
        )
        cut = random.choice([0, 1])
        return with_header(header[:at] + new + header[at + cut :], data)
    if kind == 4:
        at = random.randrange(len(header))
        return with_header(header[:at] + header[at + random.randrange(1, 4) :], data)
    value = json.loads(header)
    name = random.choice(list(value))
    if kind == 5:  # a field of one entry
        field = random.choice(["dtype", "shape", "data_offsets"])
        junk: list[Any] = [
            None, True, -1, 0, 1, 4, 1.0, 2**63, 2**64, "", "F32", "BF16", "F4", "U16", [], {},
            [0], [4], [2, 2], [0, 4], [4, 8], [24, 28], [0, 24], [2**40, 2**40, 0], [None], [[1]],
        ]  # fmt: skip
        if isinstance(value[name], dict):
            value[name][field] = random.choice(junk)
            if random.random() < 0.2:
                del value[name][field]
    elif kind == 6:  # an offset or a size by a little
        entry = value[name]
        key = random.choice(["shape", "data_offsets"])
        if isinstance(entry.get(key), list) and entry[key]:
            at = random.randrange(len(entry[key]))
            entry[key][at] = max(0, entry[key][at] + random.choice([-1, 1, 4, -4]))
    else:  # another order, an entry gone or doubled, odd metadata
        action = random.randrange(4)
        if action == 0:
            value = dict(random.sample(list(value.items()), len(value)))
        elif action == 1:
            del value[name]
        elif action == 2:
            value[name + "x"] = value[name]
        else:
            value["__metadata__"] = random.choice([None, {}, {"a": "b"}, {"a": 1}, [], "x", 1])
    return with_header(json.dumps(value).encode(), data)


def compare(path: Path, content: bytes) -> bool:
    """Reads with both readers; True when both took the file."""
    theirs: dict[str, Any] | None = None
    with suppress(official.SafetensorError):
        theirs = official_read(content)
    try:
        ours = read_content(path, content)
    except BitnetcError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 600
        assert theirs is None or any(reason in text for reason in STRICTER), text
        return False
    assert theirs is not None, f"only we take {content!r}"
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert list(tensor.shape) == theirs[name]["shape"]
        assert tensor.dtype == theirs[name]["dtype"]
        assert tensor.raw.tobytes() == bytes(theirs[name]["data"])
    return True


def fuzz(path: Path, count: int, seed: int) -> int:
    """Compares `count` mutated files; returns how many both readers took."""
    chance = random.Random(seed)
    contents = [
        safetensors_bytes(SMALL),
        safetensors_bytes({"w": SMALL["a"]}),
        safetensors_bytes(tiny_checkpoint(dim=16, ffn_dim=16, layers=1).tensors),
    ]
    taken = 0
    for _ in range(count):
        content = mutate(chance.choice(contents[: 3 if chance.random() < 0.1 else 2]), chance)
        if chance.random() < 0.2:
            # what is too damaged for a second mutation stays as it is
            with suppress(ValueError, IndexError, KeyError, AttributeError, TypeError):
                content = mutate(content, chance)
        begin = time.process_time()
        taken += compare(path, content)
        assert time.process_time() - begin < 5
    return taken


def test_mutated_files_are_judged_as_officially(tmp_path: Path) -> None:
    taken = fuzz(tmp_path / "x.safetensors", 2500, seed=1)
    assert 100 < taken < 1250  # the mutations reach both sides


# --- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2b4t", "2b4t-sharded", "falcon3-narrow"])
def test_folders_are_read(tmp_path: Path, name: str) -> None:
    tiny = tiny_checkpoint(**VARIANTS[name])
    tiny.write(tmp_path / "model")
    ckpt = read(tmp_path / "model")
    assert ckpt.config == tiny.config
    assert ckpt.generation_config == tiny.generation_config
    assert set(ckpt.tensors) == set(tiny.tensors)
    for key, (dtype, shape, data) in tiny.tensors.items():
        tensor = ckpt.tensors[key]
        assert (tensor.dtype, tensor.shape, tensor.raw.tobytes()) == (dtype, shape, data)
    names = {source.path.name for source in ckpt.sources}
    assert names == {path.name for path in (tmp_path / "model").iterdir()}
    assert all(source.bytes == source.path.stat().st_size for source in ckpt.sources)
    assert ckpt.notes == ()


def edit_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def point_norm_to(file: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        edit_index(folder, lambda index: index["weight_map"].update({"model.norm.weight": file}))

    return change


def replace_with_file(folder: Path) -> None:
    remove_all(folder)
    folder.rmdir()
    folder.write_bytes(b"PK")


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def make_fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file": (replace_with_file, "is a file, not a checkpoint folder; pass the folder"),
    "empty": (remove_all, "is an empty folder; pass the folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: not found"),
    "config a pipe": (make_fifo, "config.json: is not a file"),
    "config not JSON": (
        lambda folder: (folder / "config.json").write_text("{hidden_size: 1}"),
        "config.json: is not valid JSON",
    ),
    "config not UTF-8": (
        lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xff"}'),
        "config.json: is not valid JSON",
    ),
    "config deep": (
        lambda folder: (folder / "config.json").write_text('{"a":' + "[" * 100000),
        "config.json: is not valid JSON",
    ),
    "config a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json: holds a list, not a JSON object",
    ),
    "config key twice": (
        lambda folder: (folder / "config.json").write_text('{"a": 1, "b": 2, "a": 3}'),
        'config.json: key "a" appears twice; remove one',
    ),
    "config huge": (
        lambda folder: (folder / "config.json").write_text(" " * (1 << 24) + "{}"),
        "config.json: 16777218 bytes",
    ),
    "generation config not JSON": (
        lambda folder: (folder / "generation_config.json").write_text(""),
        "generation_config.json: is not valid JSON",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors.index.json").unlink(),
        "model.safetensors: not found; the folder holds model-00001-of-00003.safetensors",
    ),
    "index names parent": (point_norm_to("../x.safetensors"), "is not the plain name"),
    "index names root": (point_norm_to("/x.safetensors"), "is not the plain name"),
    "index names drive": (point_norm_to("c:\\x.safetensors"), "is not the plain name"),
    "index names pickle": (point_norm_to("x.bin"), "is not the plain name"),
    "index names number": (point_norm_to(3), "is not the plain name"),
    "index names missing shard": (
        point_norm_to("x.safetensors"),
        'weight_map: "model.norm.weight": shard "x.safetensors" not found; download',
    ),
    "index names wrong shard": (
        lambda folder: edit_index(
            folder,
            lambda index: index["weight_map"].update(
                {"absent": "model-00001-of-00003.safetensors"}
            ),
        ),
        '"absent": is not in "model-00001-of-00003.safetensors"; download',
    ),
    "index empty": (
        lambda folder: edit_index(folder, lambda index: index.update(weight_map={})),
        "weight_map: is missing or empty",
    ),
    "shard truncated": (
        lambda folder: (folder / "model-00002-of-00003.safetensors").write_bytes(b"123"),
        "model-00002-of-00003.safetensors: 3 bytes cannot hold a header",
    ),
}


@pytest.fixture(scope="module")
def sharded() -> TinyCheckpoint:
    return tiny_checkpoint(shards=3)


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused_by_name(
    tmp_path: Path, sharded: TinyCheckpoint, case: str
) -> None:
    folder = tmp_path / "model"
    sharded.write(folder)
    damage, message = BAD_FOLDERS[case]
    damage(folder)
    with pytest.raises(BitnetcError) as error:
        read(folder)
    check_error(error.value, str(folder), message)


def test_missing_folder() -> None:
    with pytest.raises(BitnetcError, match=r"^no-such-folder: not found; pass the folder"):
        read("no-such-folder")


def test_pickles_are_refused(tmp_path: Path, sharded: TinyCheckpoint) -> None:
    sharded.write(tmp_path)
    for path in tmp_path.glob("model*"):
        path.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BitnetcError, match=r"pytorch_model.bin, a pickle.*save_pretrained"):
        read(tmp_path)


def test_tensors_outside_the_index_are_noted(tmp_path: Path, sharded: TinyCheckpoint) -> None:
    sharded.write(tmp_path)
    edit_index(tmp_path, lambda index: index["weight_map"].pop("model.norm.weight"))
    ckpt = read(tmp_path)
    assert "model.norm.weight" not in ckpt.tensors
    assert len(ckpt.notes) == 1 and '"model.norm.weight"' in ckpt.notes[0]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50000
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        taken = fuzz(Path(folder) / "x.safetensors", count, seed=random.randrange(1 << 32))
    print(f"{count} mutated files, {taken} taken by both readers, {time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
