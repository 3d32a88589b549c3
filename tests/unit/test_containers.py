"""TL1 and TL2, ONNX graphs and `.pt` files give the same model as the folder they were made from;
bad ones are refused by name."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import TinyCheckpoint, tiny_checkpoint
from gguf_files import PACK, TL1_TILES, TL2_TILES, kernel_config, tl1, tl2, write_gguf
from onnx import TensorProto, helper, numpy_helper
from onnx_files import CARRIERS, build, packed, write_onnx
from test_gguf import check_error, check_same, load_everything, one_model, originals, sparse
from torch_files import gpu_state, int2, write_pt

from bitnetc.checkpoint import read, torch_zip
from bitnetc.checkpoint.gpu_model import unpack_tiles
from bitnetc.checkpoint.levels import as_ternary, looks_ternary, words_of
from bitnetc.checkpoint.lut_types import Tile, lut_packing, read_tiles
from bitnetc.checkpoint.onnx_file import unpack_low_first
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.normalise import normalise
from bitnetc.reference import Reference, quantise

__all__ = ["originals"]  # a fixture of test_gguf
TOKENS = [1, 2, 3, 44, 17, 200]


def raw(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)


# --- one model, written in every way -------------------------------------------------------------


@pytest.mark.parametrize("graph", ["bitnet", "llama"])
@pytest.mark.parametrize("packing", ["TL1", "TL2"])
def test_look_up_table_types_are_one_model(
    tmp_path: Path, originals: dict[str, Model], packing: str, graph: str
) -> None:
    tiny = one_model(graph, "autobitlinear")
    architecture = "bitnet-b1.58" if graph == "bitnet" else "llama"
    write_gguf(tmp_path / "a.gguf", tiny, packing, architecture)
    with pytest.raises(BitnetcError, match=rf"{packing}, which .*kernel_config.*use the I2_S file"):
        read(tmp_path / "a.gguf")
    tiles = TL1_TILES if packing == "TL1" else TL2_TILES
    (tmp_path / "kernel_config.ini").write_text(kernel_config(tiles))
    check_same(normalise(read(tmp_path / "a.gguf"), "x", ffn_activation="silu"), originals[graph])


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_onnx_carrier_is_one_model(
    tmp_path: Path, originals: dict[str, Model], carrier: str
) -> None:
    divided = carrier.endswith("divided")
    tiny = one_model("bitnet", "bitlinear" if divided else "autobitlinear")
    path = tmp_path / "onnx" / "model.onnx"
    write_onnx(path, tiny, carrier, external=carrier.endswith(("rows", "floats")))
    model = normalise(read(path), "x")
    assert model.notes == () and model.sources[0].path == path.parent / "config.json"
    check_same(model, originals["bitnet"])


def test_onnx_of_the_other_graphs(tmp_path: Path) -> None:
    for options in ({"family": "llama-bitnet"}, {"family": "bitnet_b1_58", "kv_heads": 4}):
        tiny = tiny_checkpoint(**options)
        tiny.write(tmp_path / "folder")
        write_onnx(tmp_path / "m.onnx", tiny, "MatMulNBits-2")
        ours, theirs = (normalise(read(tmp_path / n), "x") for n in ("m.onnx", "folder"))
        assert (ours.family, ours.tied) == (theirs.family, theirs.tied)
        assert np.array_equal(Reference(ours).logits(TOKENS), Reference(theirs).logits(TOKENS))


@pytest.mark.parametrize("carrier", ["MatMulInteger", "MatMulNBits-4", "MatMulNBits-8",
                                     "MatMulNBits-2-default-zero", "DequantizeLinear",
                                     "DequantizeLinear-int4"])  # fmt: skip
def test_onnx_of_integers(tmp_path: Path, carrier: str) -> None:
    """Layer by layer, where a matrix is not ternary; with ONNX Runtime as judge."""
    bits = 2 if "-2-" in carrier else 4 if carrier.endswith("4") else 8
    tiny = tiny_checkpoint(
        integers={
            "mlp.down_proj": bits,
            "1.self_attn.o_proj": min(bits, 4),
            "0.self_attn.q_proj": bits,
        }
    )
    tiny.write(tmp_path / "folder")
    path = tmp_path / "m.onnx"
    write_onnx(path, tiny, carrier)
    ours, theirs = (normalise(read(p), "x") for p in (path, tmp_path / "folder"))
    assert ours.blocks[1].w_down.bits == bits
    logits, wanted = (Reference(m).logits(TOKENS) for m in (ours, theirs))
    assert np.array_equal(logits, wanted)
    if "int4" in carrier:
        return  # of which the runtime has no kernel here
    runtime: Any = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    judged = session.run(None, {"input_ids": np.array([TOKENS])})[0][0]
    assert (np.abs(logits - judged) / judged.std()).mean() < 0.05


def test_onnx_of_integers_that_cannot_be_read(tmp_path: Path) -> None:
    tiny = tiny_checkpoint(integers={"mlp.down_proj": 4})
    write_onnx(tmp_path / "m.onnx", tiny, "MatMulNBits-4", quantise=False)
    with pytest.raises(BitnetcError, match=r"multiplies a float input by other than trits"):
        read(tmp_path / "m.onnx")
    write_onnx(tmp_path / "m.onnx", tiny, "MatMulNBits-4")
    model = onnx.load(tmp_path / "m.onnx")
    for init in model.graph.initializer:
        if "down_proj" in init.name and init.name.endswith("scales"):
            values = numpy_helper.to_array(init).copy()
            values[0, -1] *= 2
            init.CopyFrom(numpy_helper.from_array(values, init.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(BitnetcError, match=r"a scale for each 32 columns of integers"):
        read(tmp_path / "m.onnx")


@pytest.mark.parametrize("levels", [False, True])
def test_pt_is_one_model(tmp_path: Path, originals: dict[str, Model], levels: bool) -> None:
    pytest.importorskip("torch")
    tiny = one_model("bitnet", "autobitlinear")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    (tmp_path / "generation_config.json").write_text(json.dumps(tiny.generation_config))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    write_pt(tmp_path / "model_state_int2.pt", tiny, levels)
    model = normalise(read(tmp_path / "model_state_int2.pt"), "x")
    assert model.notes == ()
    check_same(model, originals["bitnet"])


@pytest.mark.parametrize("carrier", ["MatMulNBits-2", "MatMulNBits-4", "DequantizeLinear-rows",
                                     "MatMulInteger", "unit-floats"])  # fmt: skip
@pytest.mark.parametrize("activation", ["relu2", "silu"])
def test_onnx_runtime_agrees(tmp_path: Path, carrier: str, activation: Any) -> None:
    """The outside judge. It sums in other orders and rounds no cache to float16, so that now and
    then an activation's code differs by one; a wrong function, norm or scale differs throughout."""
    runtime: Any = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(3)
    tiny = tiny_checkpoint(activation=activation)
    path = tmp_path / "m.onnx"
    write_onnx(path, tiny, carrier, external=True)
    model = normalise(read(path), "x")
    assert model.ffn_activation == activation
    ours = Reference(model).logits(TOKENS)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"input_ids": np.array([TOKENS])})[0][0]
    far = np.abs(ours - theirs) / theirs.std()
    assert far.max() < 0.25 and far.mean() < 0.05
    assert np.array_equal(ours.argmax(1), theirs.argmax(1))


# --- golden bytes --------------------------------------------------------------------------------


def test_published_examples_of_tl1_and_tl2() -> None:
    trits = np.zeros((256, 256), np.int8)
    trits[0, :2], trits[1, :2], trits[16, :2], trits[0, 4] = (1, -1), (-1, -1), (1, 1), 1
    data = tl1(trits, np.ones(1, np.float32), (256, 128, 32))
    assert {i: data[i] for i in (0, 1, 16, 32, 33)} == {0: 0x64, 1: 4, 16: 0x74, 32: 0x84, 33: 0x44}
    packing = lut_packing("TL1", {(256, 256): Tile(256, 128, 32)})
    assert np.array_equal(packing.decode(raw(data), 256, 256), trits)

    trits = np.zeros((256, 512), np.int8)
    trits[0, :3], trits[1, :3], trits[0, 480:482] = (1, -1, 0), (-1, 1, 0), (1, -1)
    data = tl2(trits, np.full(1, 0.5, np.float32), (256, 96, 32))
    signs, pairs = 256 * 480 // 6, 256 * 480 // 6 + 256 * 480 // 24
    assert (data[0], data[1], data[signs + 3], data[pairs]) == (0x60, 0x60, 0x80, 0x64)
    assert len(data) == 30037 + 11 + 32
    packing = lut_packing("TL2", {(256, 512): Tile(256, 96, 32)})
    assert packing.size(256, 512) == len(data)
    assert np.array_equal(packing.decode(raw(data), 256, 512), trits)
    assert packing.scales(raw(data), 256, 512).tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("name", "shape", "tile"),
    [
        ("TL1", (320, 640), (160, 64, 32)),
        ("TL1", (128, 512), (64, 64, 16)),
        ("TL2", (320, 640), (160, 96, 32)),
        ("TL2", (128, 512), (128, 192, 32)),
        ("TL2", (128, 384), (64, 96, 32)),  # no pairs
    ],
)
def test_look_up_table_types_round_trip(name: str, shape: Any, tile: Any) -> None:
    trits = np.random.default_rng(0).integers(-1, 2, shape).astype(np.int8)
    data = {"TL1": tl1, "TL2": tl2}[name](trits, np.ones(1, np.float32), tile)
    packing = lut_packing(name, {shape: Tile(*tile)})
    assert packing.misfit(*shape) == "" and packing.size(*shape) == len(data)
    assert np.array_equal(packing.decode(raw(data), *shape), trits)
    assert packing.misfit(shape[0], shape[1] + 1)


def test_published_example_of_matmulnbits() -> None:
    assert packed(np.array([2, 0, 1, 2]), 2).tolist() == [0x92]
    assert unpack_low_first(raw(b"\x92"), 2).tolist() == [2, 0, 1, 2]
    assert unpack_low_first(raw(b"\x93\xc5"), 2).tolist() == [3, 0, 1, 2, 1, 1, 0, 3]


def test_tiles_of_the_gpu_engine() -> None:
    """Code e of word t: row t / 16 * 8 + t % 8, column t % 16 / 8 * 16 + e; codes are trit + 2."""
    trits = np.zeros((16, 32), np.int8)
    trits[8, 16] = 1  # word 24, code 0
    trits[0, 5] = -1  # word 0, code 5: bits 8 (5 % 4) + 2 (5 / 4) = 10
    data = int2(trits).tobytes()
    words = np.frombuffer(data, "<u4")
    assert words[0] == 0xAAAAAAAA - (1 << 10) and words[24] == 0xAAAAAAAB and words[1] == 0xAAAAAAAA
    assert np.array_equal(unpack_tiles("x", raw(data), 16, 32), trits)
    with pytest.raises(BitnetcError, match="holds code 0"):
        unpack_tiles("x", raw(bytes(1) + data[1:]), 16, 32)


def test_a_row_of_zeros_is_quantised_to_zeros() -> None:
    codes, scale = quantise(np.zeros((1, 8), np.float32))
    assert not codes.any() and scale[0] == np.float32(127) / np.float32(1e-5)
    ties = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32)
    assert quantise(ties)[0].tolist() == [[127, 0, 2, 2, 0, -2]]


# --- floats that are ternary ---------------------------------------------------------------------


def stored(values: Any, dtype: str) -> Tensor:
    view = {"F32": "<f4", "F16": "<f2", "BF16": "<f4"}[dtype]
    data = np.ascontiguousarray(values, dtype=view)
    if dtype == "BF16":
        data = (data.view("<u4") >> 16).astype("<u2")
    return Tensor("w", dtype, values.shape, Path("f"), data.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    ("scales", "shape"),
    [
        ([[0.75]], (1, 1)),
        ([[0.75]] * 4 + [[0.5]] * 4, (8, 1)),  # two shards
        ([[i + 1.0] for i in range(8)], (8, 1)),
        ([[1.5, 2.5]] * 8, (8, 2)),  # groups of 128
        ([[1.5, 2.5, 1.0, 3.0]] * 8, (8, 4)),  # of 64
    ],
)
def test_levels_are_found_exactly(dtype: str, scales: Any, shape: Any) -> None:
    chance = np.random.default_rng(0)
    trits = chance.choice(np.array([-1, 0, 1], np.int8), (8, 256))
    spread = np.repeat(np.array(scales, np.float32), 256 // len(scales[0]), axis=1)
    tensor = stored((trits * spread).astype(np.float32), dtype)
    assert looks_ternary(words_of(tensor))
    found = as_ternary(tensor, lambda: words_of(tensor))
    assert found.scales().shape == shape and np.array_equal(found.scales(), np.array(scales))
    assert np.array_equal(found.trits(), trits)


def test_levels_of_masters_and_of_zeros() -> None:
    masters = stored(np.random.default_rng(0).standard_normal((16, 256)), "BF16")
    assert not looks_ternary(words_of(masters))
    with pytest.raises(BitnetcError, match="more than three values a group, so it is not ternary"):
        as_ternary(masters, lambda: words_of(masters)).scales()
    zeros = stored(-np.zeros((4, 64), np.float32), "F32")
    found = as_ternary(zeros, lambda: words_of(zeros))
    assert found.scales().tolist() == [[0.0]] and not found.trits().any()
    # one unit in the last place apart, as after multiplying by a reciprocal
    near = np.full((4, 64), 0.1, np.float32)
    near[1] = -np.nextafter(np.float32(0.1), np.float32(1))
    tensor = stored(near, "F32")
    found = as_ternary(tensor, lambda: words_of(tensor))
    assert len(found.scales()) == 4 or found.scales().shape == (1, 1)
    assert found.trits()[1].tolist() == [-1] * 64


# --- kernel_config.ini ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"m = 3\n", "cannot be read"),
        (b"[a]\nm = 3\n", '[a] k: must be a number from 1 to 1048576, found ""'),
        (b"[a]\nm = 0\nk = 1\nbm=1\nbk=1\nbmm=1\n", "m: must be a number"),
        (b"[a]\nm = 1\nm = 1\n", "cannot be read"),
        (2 * b"[a]\nm=1\nk=1\nbm=1\nbk=1\nbmm=1\n", "cannot be read"),
        (b"[a]\nm=1\nk=1\nbm=1\nbk=1\nbmm=1\n[b]\nm=1\nk=1\nbm=1\nbk=1\nbmm=1\n", "repeats a sh"),
        (b"[a]\n" + b"x" * 70000, "more than the 65536 that are sane"),
    ],
)
def test_bad_kernel_configs_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "kernel_config.ini").write_bytes(content)
    with pytest.raises(BitnetcError) as error:
        read_tiles(tmp_path)
    check_error(error.value, str(tmp_path / "kernel_config.ini"), message)


def test_tiles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", one_model("bitnet", "autobitlinear"), "TL1")
    for tiles, message in (
        ({(256, 256): (128, 64, 64)}, "has no tiles of TL1 for 128 x 256"),
        ({**TL1_TILES, (128, 256): (96, 64, 32)}, "128 x 256 are no whole tiles of TL1, 96 x 64"),
    ):
        (tmp_path / "kernel_config.ini").write_text(kernel_config(tiles))
        with pytest.raises(BitnetcError, match=message):
            read(tmp_path / "a.gguf")


def test_codes_that_no_writer_emits_are_refused() -> None:
    for name, shape, tile in (
        ("TL1", (256, 256), (256, 128, 32)),
        ("TL2", (256, 512), (256, 96, 32)),
    ):
        data = bytearray({"TL1": tl1, "TL2": tl2}[name](np.zeros(shape, np.int8), np.ones(1), tile))
        data[7] = 0xF0
        packing = lut_packing(name, {shape: Tile(*tile)})
        with pytest.raises(ValueError):
            packing.decode(raw(bytes(data)), *shape)


# --- .pt files that are refused ------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo ran > /tmp/evil-pickle-ran",)


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


DAG: Any = {"a": 1}
for _ in range(40):
    DAG = {"x": DAG, "y": DAG}
TENSOR = (
    b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n("
    b"(X\x07\0\0\0storagectorch\n%s\n"
    b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ%s%s\x85%s\x85\x89Ntq\0Rs."
)


def tensor_pickle(
    kind: bytes = b"FloatStorage", offset: int = 0, size: int = 4, step: int = 1
) -> bytes:
    """A dict with a tensor "w" in a storage of four values."""
    numbers = (b"K" + bytes([n]) for n in (offset, size, step))
    return TENSOR % (kind, *numbers)


BAD_PT: dict[str, tuple[dict[str, bytes], str]] = {
    "no pickle": ({"a/b": b""}, "holds no data.pkl"),
    "TorchScript": ({"a/constants.pkl": b""}, "is a TorchScript program"),
    "runs a command": ({"a/data.pkl": pickle.dumps(Evil(), 2)}, 'call "posix.system", which could'),
    "runs a command, protocol 4": ({"a/data.pkl": pickle.dumps(Evil(), 4)}, "which could run any"),
    "imports by name": ({"a/data.pkl": pickle.dumps(print, 2)}, "holds no dict of tensors"),
    "an object": ({"a/data.pkl": b"\x80\x02c__main__\nA\n)\x81."}, "uses opcode NEWOBJ"),
    "an extension": ({"a/data.pkl": b"\x80\x02\x82\x01."}, "uses opcode EXT1"),
    "a list": ({"a/data.pkl": pickle.dumps([1], 2)}, "holds no dict of tensors"),
    "nothing in it": ({"a/data.pkl": pickle.dumps({}, 2)}, "holds no tensors"),
    "numbers": ({"a/data.pkl": pickle.dumps({"a": 1}, 2)}, "holds no tensors"),
    "cut": ({"a/data.pkl": pickle.dumps({"a": 1}, 2)[:-1]}, "is no valid pickle"),
    "empty": ({"a/data.pkl": b""}, "is no valid pickle"),
    "stack empty": ({"a/data.pkl": b"\x80\x02R."}, "is no valid pickle"),
    "memo empty": ({"a/data.pkl": b"\x80\x02h\x07."}, "is no valid pickle"),
    "dicts in dicts": ({"a/data.pkl": pickle.dumps(DAG, 2)}, "nests dicts more than four deep"),
    "storage missing": ({"a/data.pkl": tensor_pickle()}, 'its storage "0" is missing'),
    "storage short": (
        {"a/data.pkl": tensor_pickle(), "a/data/0": bytes(15)},
        "its storage has 15 bytes, and 4 values of F32 need 16",
    ),
    "beyond its storage": (
        {"a/data.pkl": tensor_pickle(offset=1), "a/data/0": bytes(16)}, "reaches beyond its stor"
    ),
    "strided": (
        {"a/data.pkl": tensor_pickle(size=2, step=2), "a/data/0": bytes(16)}, "transposed or strid"
    ),
    "complex": (
        {"a/data.pkl": tensor_pickle(b"ComplexFloatStorage"), "a/data/0": bytes(32)},
        'a storage of type "torch.ComplexFloatStorage", which is not supported',
    ),
    "big-endian": (
        {"a/data.pkl": tensor_pickle(), "a/data/0": bytes(16), "a/byteorder": b"big"}, "is not lit"
    ),
    "another model": (
        {"a/data.pkl": tensor_pickle(), "a/data/0": bytes(16)}, "not of BitNet's GPU engine"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PT)
def test_bad_pt_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    members, message = BAD_PT[case]
    zipped(tmp_path / "a.pt", members)
    with pytest.raises(BitnetcError) as error:
        read(tmp_path / "a.pt")
    check_error(error.value, str(tmp_path / "a.pt"), message)
    assert not Path("/tmp/evil-pickle-ran").exists()


def test_zip_archives_are_read_with_suspicion(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    members = {"a/data.pkl": tensor_pickle(), "a/data/0": bytes(16)}
    zipped(path, members)
    assert torch_zip.read(path)["w"].array().tolist() == [0, 0, 0, 0]
    whole = path.read_bytes()
    zipped(path, members, zipfile.ZIP_DEFLATED)
    with pytest.raises(BitnetcError, match="is compressed or encrypted"):
        read(path)
    path.write_bytes(whole[:-30])
    with pytest.raises(BitnetcError, match="is no zip archive"):
        read(path)
    # two members over the same bytes
    at = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 1)
    changed = whole[: at + 42] + struct.pack("<I", 0) + whole[at + 46 :]
    path.write_bytes(changed)
    with pytest.raises(BitnetcError, match=r"overlap|reaches beyond"):
        read(path)


def test_pt_needs_a_config_unless_it_is_2b4t(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_pt(tmp_path / "a.pt", tiny_checkpoint())
    with pytest.raises(BitnetcError, match=r"does not say its heads.*config.json of the original"):
        read(tmp_path / "a.pt")


def test_pt_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tiny = tiny_checkpoint()
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    qkv = "layers.0.attention.wqkv.weight"

    def refuse(message: str, **changes: Any) -> None:
        state = {**gpu_state(tiny), **{key.replace("__", "."): v for key, v in changes.items()}}
        state = {key: v for key, v in state.items() if v is not None}
        torch.save(state, tmp_path / "a.pt")
        with pytest.raises(BitnetcError, match=message):
            load_everything(normalise(read(tmp_path / "a.pt"), "x"))

    state = gpu_state(tiny)
    refuse("asks for 96 rows", **{qkv: state[qkv][:-16]})
    refuse("no float weight_scale beside it", **{qkv + "_scale": None})
    refuse("has 2 values for 3 matrices", **{qkv + "_scale": state[qkv + "_scale"][:2]})
    refuse("holds code 0", **{qkv: torch.zeros_like(state[qkv])})
    refuse("holds float masters", **{qkv: torch.randn(96, 64)})
    refuse("stored as I64", **{qkv: state[qkv].to(torch.int64)})
    refuse("is missing", **{"norm.weight": None})


# --- ONNX graphs that are refused ----------------------------------------------------------------


def changed(edit: Callable[[Any], None], carrier: str = "floats", **options: Any) -> bytes:
    model = build(tiny_checkpoint(**options), carrier)
    edit(model)
    return model.SerializeToString()


def node_named(model: Any, name: str) -> Any:
    return next(
        node for node in model.graph.node if name in (node.name, node.op_type) or name in node.name
    )


def replaced(name: str, values: Any) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        init = next(i for i in model.graph.initializer if name in i.name)
        init.CopyFrom(numpy_helper.from_array(values, init.name))

    return edit


def renamed(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        node.name = node.name.replace(old, new)
        for i, value in enumerate(node.input):
            node.input[i] = value.replace(old, new)
    for init in model.graph.initializer:
        init.name = init.name.replace(old, new)


def set_attribute(name: str, key: str, value: Any) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        node = node_named(model, name)
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(key, value)])

    return edit


def add_bias(model: Any) -> None:
    name = "/model/layers.0/self_attn/q_proj/MatMul"
    node = node_named(model, name)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(64, np.float32), "b"))
    old = node.output[0]
    node.output[0] = "before_bias"
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at + 1, helper.make_node("Add", ["before_bias", "b"], [old], "add"))


def other_activation(model: Any) -> None:
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"


def external(**said: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        init = next(i for i in model.graph.initializer if "q_proj" in i.name)
        init.ClearField("raw_data")
        init.data_location = TensorProto.EXTERNAL
        for key, value in said.items():
            init.external_data.add(key=key, value=value)

    return edit


LATE = np.where(np.arange(64) < 8, 0, np.full((64, 64), 3)).astype(np.int8)
LATE_CODES = np.where(np.arange(64)[:, None, None] < 8, 0x55, np.full((64, 2, 8), 0xFF)).astype(
    np.uint8
)


EMPTY_GRAPH = helper.make_graph([], "g", [], [])
NBITS = "layers.0/self_attn/q_proj/MatMul_Quant"
BAD_ONNX: dict[str, tuple[bytes, str]] = {
    "no protobuf": (b"\xff\xff\xff", "is no ONNX file"),
    "empty": (b"", "holds no graph"),
    "a Conv": (changed(lambda m: m.graph.node.add(op_type="Conv", output=["x"])), "computes Conv"),
    "an If": (
        changed(
            lambda m: m.graph.node.append(
                helper.make_node("If", ["i0"], ["x"], then_branch=EMPTY_GRAPH)
            )
        ),
        "If nodes with graphs of their own",
    ),
    "another domain": (
        changed(lambda m: setattr(m.graph.node[5], "domain", "mine")), "computes mine."
    ),
    "no names": (
        changed(lambda m: renamed(m, "q_proj", "thing")), "a matrix whose name does not say its pla"
    ),
    "role twice": (
        changed(lambda m: renamed(m, "self_attn/k_proj", "self_attn/q_proj")),
        "has names of two places",
    ),
    "bias": (changed(add_bias), "has a bias, not supported"),
    "masters": (
        changed(replaced("q_proj", np.random.default_rng(0).random((64, 64), np.float32))),
        "holds floats that are not ternary",
    ),
    "int8 weights": (  # that begin as trits do
        changed(replaced("q_proj.weight_q", LATE), "DequantizeLinear"),
        "row 8, column 0: holds 3, which is no trit",
    ),
    "scale by column": (
        changed(set_attribute("DequantizeLinear", "axis", 0), "DequantizeLinear-rows"),
        "has scales",
    ),
    "codes beyond": (  # the same, in codes of two bits
        changed(
            replaced("self_attn/q_proj.weight_quant", LATE_CODES),
            "MatMulNBits-2",
        ),
        "row 8, column 0: holds 2, which is no trit",
    ),
    "reordered columns": (
        changed(lambda m: node_named(m, NBITS).input.append("i0"), "MatMulNBits-2"),
        "reorders columns (g_idx)",
    ),
    "3 bits": (changed(set_attribute(NBITS, "bits", 3), "MatMulNBits-2"), "has 3 bits in blocks"),
    "K a text": (changed(set_attribute(NBITS, "K", "64"), "MatMulNBits-2"), "is 64 x -1"),
    "N beyond": (changed(set_attribute(NBITS, "N", 65), "MatMulNBits-2"), "need 1040 bytes"),
    "scales short": (
        changed(replaced("q_proj.weight_scales", np.ones(7, np.float32)), "MatMulNBits-2"),
        "has 7 scales for 64 x 2 blocks",
    ),
    "per tensor": (
        changed(replaced("last", np.array([1], np.int64))), "over axes [1], not per token"
    ),
    "int4 activations": (
        changed(replaced("levels", np.float32(7))), "quantises activations to other than 127"
    ),
    "another activation": (
        changed(other_activation),
        'hidden_act: "relu2", but the graph computes gelu',
    ),
    "another theta": (
        changed(replaced("inv_freq", (500000.0 ** -(np.arange(8) / 8))[None].astype("f4"))),
        "rope_theta: 10000.0, but the graph turns by 500",
    ),
    "a vector without a place": (
        changed(lambda m: renamed(m, "model.norm.weight", "mystery")), "is a vector whose name does"
    ),
    "norm missing": (
        changed(lambda m: renamed(m, "layers.1.input_layernorm", "layers.7.input_layernorm")),
        "layers.1.input_layernorm.weight: is missing",
    ),
    "external, absolute": (changed(external(location="/etc/passwd")), "is not the plain name of"),
    "external, outside": (changed(external(location="../x")), "is not the plain name of a file"),
    "external, missing": (changed(external(location="gone")), "not found"),
    "external, beyond": (
        changed(external(location="config.json", offset="7", length="16384")), "ends at 16391 of"
    ),
    "external, no number": (
        changed(external(location="config.json", offset="-7")), '"-7" is no number'
    ),
    "computed twice": (
        changed(lambda m: m.graph.node.append(m.graph.node[-1])), "is computed twice"
    ),
    "no inputs": (
        changed(lambda m: node_named(m, "q_proj").ClearField("input")), "lacks inputs or outputs"
    ),
    "short data": (
        changed(lambda m: m.graph.initializer[3].ClearField("raw_data")), "needs"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ONNX)
def test_bad_graphs_are_refused_by_name(tmp_path: Path, case: str) -> None:
    content, message = BAD_ONNX[case]
    tiny = tiny_checkpoint()
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BitnetcError) as error:
        load_everything(normalise(read(tmp_path / "m.onnx"), "x"))
    assert message in str(error.value), str(error.value)
    assert "\n" not in str(error.value) and error.value.hint


def test_graphs_without_quantised_activations(tmp_path: Path) -> None:
    """Weight-only graphs are another model, unless config.json declares BitNet's."""
    tiny = tiny_checkpoint(family="llama-bitnet")
    write_onnx(tmp_path / "m.onnx", tiny, "floats", quantise=False)
    checkpoint = read(tmp_path / "m.onnx")
    assert not checkpoint.weight_only
    assert any("int8 per token, as config.json declares" in note for note in checkpoint.notes)
    del tiny.config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(tiny.config))
    assert "does not quantise activations" in read(tmp_path / "m.onnx").weight_only


def test_onnx_needs_a_config(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "m.onnx"
    write_onnx(path, tiny_checkpoint(), "floats")
    (path.parent / "config.json").rename(path.parent.parent / "config.json")
    (path.parent / "tokenizer.json").rename(path.parent.parent / "tokenizer.json")
    assert normalise(read(path), "x").family == "bitnet"  # as repositories have it
    (path.parent.parent / "config.json").unlink()
    with pytest.raises(BitnetcError, match=r"config\.json: not found; an ONNX graph says neither"):
        read(path)


def test_packings_have_writers() -> None:
    assert {"TL1", "TL2"} <= set(PACK)
    assert isinstance(tiny_checkpoint(), TinyCheckpoint) and sparse((1, 4), e0=1)[0, 0] == 1
    assert onnx.__version__
