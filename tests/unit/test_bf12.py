"""bfloat16 in twelve bits a weight: what is found, when it is chosen, and what it takes.

That C reads what Python packs is tested in tests/kernels/test_float_layer.py.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from numpy.typing import NDArray

from bitnetc import bf12
from bitnetc.compiler import load
from bitnetc.head import with_integer_head
from bitnetc.model import Dense, Frequent
from bitnetc.pack import pack, slots
from bitnetc.plan import plan
from bitnetc.target import load_target


def dense(words: NDArray[np.uint16]) -> Dense:
    found = bf12.frequent(np.bincount(words.reshape(-1) >> 8, minlength=256))
    return Dense(*words.shape, "bf16", lambda: words, found)


def normal(rows: int, cols: int) -> NDArray[np.uint16]:
    values = np.random.default_rng(5).standard_normal((rows, cols)).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def test_the_frequent_have_codes_and_the_others_escape() -> None:
    words = normal(64, 1000)
    found = dense(words).frequent
    assert found and len(set(found.table)) == 15
    high = words >> 8
    assert found.escapes == (~np.isin(high, found.table)).sum()
    left = set(range(256)) - set(found.table)
    least = min(int((high == h).sum()) for h in found.table)
    assert all((high == h).sum() <= least for h in left)
    assert 0 < found.escapes < words.size / 1000


@pytest.mark.parametrize("shape", [(1, 1), (3, 63), (2, 64), (5, 65), (4, 190), (256, 256)])
def test_unpack_inverts_pack(shape: tuple[int, int]) -> None:
    rows, cols = shape
    words = np.random.default_rng(6).permutation(2**16).astype(np.uint16)[: rows * cols]
    matrix = dense(words.reshape(shape))
    data = b"".join(bf12.pack(matrix))
    assert matrix.frequent
    assert len(data) == bf12.packed_bytes(rows, cols, matrix.frequent.escapes)
    assert (bf12.unpack(data, rows, cols) == words.reshape(shape)).all()


def test_pack_refuses_other_weights_than_were_counted() -> None:
    words = normal(64, 128)
    found = dense(words).frequent
    assert found
    wrong = Dense(64, 128, "bf16", lambda: words, Frequent(found.table, found.escapes + 1))
    with pytest.raises(AssertionError, match="escapes"):
        list(bf12.pack(wrong))


def test_it_pays_where_it_is_smaller_and_escapes_are_few() -> None:
    assert bf12.pays(dense(normal(64, 1024)))
    assert not bf12.pays(dense(normal(64, 96)))  # padded to 128
    assert not bf12.pays(replace(dense(normal(64, 1024)), frequent=None))
    patterns = np.random.default_rng(6).permutation(2**16).astype(np.uint16).reshape(64, -1)
    assert not bf12.pays(dense(patterns))


@pytest.mark.parametrize("target", ["x86_64-avx2", "scalar"])
def test_what_the_planner_takes(target: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny")
    model = load(tmp_path / "tiny")
    known = bf12.find_frequent(model)
    assert known.tied and isinstance(known.head, Dense) and known.head.frequent
    chosen = load_target(target)
    assert plan(model, chosen).own_head.dtype == "bf16"  # nobody looked at the weights
    decided = plan(known, chosen)
    assert decided.own_head.dtype == decided.embedding.dtype
    assert decided.own_head.dtype == ("bf12" if chosen.bf12 else "bf16")
    rounded = bf12.find_frequent(with_integer_head(model, "int8"))
    assert plan(rounded, chosen).embedding.dtype == "bf12"  # single rows are read
    for view, weights in ((decided, known), (plan(rounded, chosen), rounded)):
        place = next(slot for slot in slots(view, weights) if slot.name == "embedding")
        content = next(c for slot, c in pack(view, weights) if slot == place)
        assert sum(map(len, content)) == place.bytes == view.embedding.bytes
    assert not load_target("x86_64").bf12 or all(v.bf12 for v in load_target("x86_64").variants)
