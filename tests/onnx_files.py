"""Writes a tiny checkpoint of tests/checkpoints as an ONNX graph that ONNX Runtime can run.

    write_onnx(tmp_path / "model.onnx", tiny_checkpoint(), "MatMulNBits-2")

The graph is that of the model: float32, whole sequences, no cache. The ternary matrices are carried
in one of CARRIERS. Independent of the reader.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from checkpoints import TinyCheckpoint
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CARRIERS = (
    "MatMulNBits-2",
    "MatMulNBits-2-default-zero",
    "MatMulNBits-2-float-zero",
    "MatMulNBits-4",
    "MatMulNBits-8",
    "DequantizeLinear",
    "DequantizeLinear-rows",
    "DequantizeLinear-int4",
    "DequantizeLinear-int2",
    "MatMulInteger",
    "floats",
    "floats-transposed",
    "unit-floats",
    "unit-floats-divided",
)


def widened(dtype: str, shape: tuple[int, ...], data: bytes) -> NDArray[np.float32]:
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    view = {"F16": "<f2", "F32": "<f4"}[dtype]
    return np.frombuffer(data, view).astype(np.float32).reshape(shape)


def packed(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis, first in the low bits."""
    per = 8 // bits
    padded = np.zeros((*codes.shape[:-1], -(-codes.shape[-1] // per) * per), np.uint8)
    padded[..., : codes.shape[-1]] = codes
    out = np.zeros((*codes.shape[:-1], padded.shape[-1] // per), np.uint8)
    for i in range(per):
        out |= padded[..., i::per] << (bits * i)
    return out


class Builder:
    """Collects nodes and initialisers; `op` returns the name of a node's first output."""

    def __init__(self, tiny: TinyCheckpoint, carrier: str) -> None:
        self.tiny, self.carrier = tiny, carrier
        self.nodes: list[Any] = []
        self.initialisers: dict[str, Any] = {}
        self.count = 0

    def constant(self, name: str, values: Any) -> str:
        if name not in self.initialisers:
            self.initialisers[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def op(
        self,
        kind: str,
        *inputs: str,
        name: str = "",
        domain: str = "",
        outputs: int = 1,
        **more: Any,
    ) -> str:
        self.count += 1
        made = [f"{kind}_{self.count}_{i}" for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), made, name or f"n{self.count}", **more)
        node.domain = domain
        self.nodes.append(node)
        return made[0]

    def norm(self, x: str, name: str) -> str:
        weight = self.constant(name, widened(*self.tiny.tensors[name]))
        eps = self.constant("eps", np.float32(self.tiny.config["rms_norm_eps"]))
        square = self.op("Pow", x, self.constant("two", np.float32(2)))
        mean = self.op("ReduceMean", square, self.constant("last", np.array([-1], np.int64)))
        root = self.op("Sqrt", self.op("Add", mean, eps))
        return self.op("Mul", weight, self.op("Div", x, root))

    def quantised(self, x: str) -> tuple[str, str]:
        """Codes as floats, and the scale that multiplied x."""
        last = self.constant("last", np.array([-1], np.int64))
        largest = self.op("ReduceMax", self.op("Abs", x), last, keepdims=1)
        least = self.constant("least", np.float32(1e-5))
        scale = self.op(
            "Div", self.constant("levels", np.float32(127)), self.op("Clip", largest, least)
        )
        rounded = self.op("Round", self.op("Mul", x, scale))
        low, high = self.constant("low", np.float32(-128)), self.constant("high", np.float32(127))
        return self.op("Clip", rounded, low, high), scale

    def linear(self, codes: str, sx: str, name: str) -> str:
        """A projection in the carrier; its node has the module's name as exporters give it."""
        if name in self.tiny.integers:
            trits = self.tiny.integers[name][1]
            scale = widened(*self.tiny.tensors[name + "_scale"])
        else:
            trits, scale = self.tiny.trits[name], self.tiny.scales[name]
        rows, cols = trits.shape
        module = "/" + name.removesuffix(".weight").replace(".", "/").replace("layers/", "layers.")
        node = module + "/MatMul"
        kind, _, form = self.carrier.partition("-")
        one = float(scale[0])
        if kind == "MatMulNBits":
            bits, block = int(form[0]), 32
            zero = 1 if form[1:] else 1 << (bits - 1)
            zero = {"2": 1, "2-default-zero": 2, "2-float-zero": 1}.get(form, 1 << (bits - 1))
            blocks = -(-cols // block)
            whole = np.zeros((rows, blocks * block), np.int64)
            whole[:, :cols] = trits
            values = packed((whole + zero).reshape(rows, blocks, block), bits)
            inputs = [
                codes,
                self.constant(module[1:] + ".weight_quant", values),
                self.constant(
                    module[1:] + ".weight_scales", np.full((rows, blocks), one, np.float32)
                ),
            ]
            if form == "2":
                points = packed(np.full((rows, blocks), 1), 2)
                inputs.append(self.constant(module[1:] + ".weight_zp", points))
            if form == "2-float-zero":
                points = np.full((rows, blocks), 1, np.float32)
                inputs.append(self.constant(module[1:] + ".weight_zp", points))
            y = self.op(
                "MatMulNBits", *inputs, name=node + "_Quant", domain="com.microsoft",
                K=cols, N=rows, bits=bits, block_size=block,
            )  # fmt: skip
            return self.op("Div", y, sx)
        if kind == "DequantizeLinear":
            weight = name + "_q"
            if form in ("int4", "int2"):
                bits = int(form[3:])
                data = packed((trits.T.reshape(-1) & ((1 << bits) - 1)).astype(np.uint8), bits)
                kind_ = TensorProto.INT4 if bits == 4 else TensorProto.INT2
                self.initialisers[weight] = helper.make_tensor(
                    weight, kind_, (cols, rows), data.tobytes(), raw=True
                )
            else:
                self.constant(weight, np.ascontiguousarray(trits.T))
            more: dict[str, Any] = {}
            scales: Any = np.float32(one)
            if form == "rows":
                scales, more = np.full(rows, one, np.float32), {"axis": 1}
            matrix = self.op("DequantizeLinear", weight, self.constant(name + "_s", scales), **more)
            return self.op("Div", self.op("MatMul", codes, matrix, name=node), sx)
        if kind == "MatMulInteger":
            q8 = self.op("Cast", codes, to=TensorProto.INT8)
            weight = self.constant("onnx::MatMul_" + name, np.ascontiguousarray(trits.T))
            acc = self.op("MatMulInteger", q8, weight, name=node)
            acc = self.op("Cast", acc, to=TensorProto.FLOAT)
            return self.op(
                "Mul", acc, self.op("Div", self.constant(name + "_s", np.float32(one)), sx)
            )
        x = self.op("Div", codes, sx)
        if kind == "floats":
            values = (trits * np.float32(one)).astype(np.float32)
            if form == "transposed":
                matrix = self.op("Transpose", self.constant(name, values), perm=[1, 0])
            else:
                matrix = self.constant("onnx::MatMul_" + name, np.ascontiguousarray(values.T))
            return self.op("MatMul", x, matrix, name=node)
        values = np.ascontiguousarray(trits.T.astype(np.float32))
        y = self.op("MatMul", x, self.constant(name + "_t", values), name=node)
        if form == "floats-divided":
            stored = widened(*self.tiny.tensors[name + "_scale"])  # of linear_class bitlinear
            return self.op("Div", y, self.constant(name + "_s", stored))
        return self.op("Mul", y, self.constant(name + "_s", np.array([one], np.float32)))

    def heads(self, x: str, count: int, width: int) -> str:
        shape = self.constant(f"heads_{count}", np.array([0, 0, count, width], np.int64))
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def rotated(self, x: str, cos: str, sin: str, width: int) -> str:
        axis = self.constant("axis3", np.array([3], np.int64))
        begin, middle, end = (
            self.constant(f"at_{i}", np.array([i], np.int64)) for i in (0, width // 2, width)
        )
        first = self.op("Slice", x, begin, middle, axis)
        second = self.op("Slice", x, middle, end, axis)
        turned = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, cos), self.op("Mul", turned, sin))


def build(tiny: TinyCheckpoint, carrier: str, quantise: bool = True) -> onnx.ModelProto:
    """The model; quantise: whether the graph quantises activations."""
    b = Builder(tiny, carrier)
    config = tiny.config
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    embedding = widened(*tiny.tensors["model.embed_tokens.weight"])

    def sub_norm(x: str, *names: str) -> str:
        found = next((name for name in names if name in tiny.tensors), None)
        return b.norm(x, found) if found else x

    def input_of(x: str) -> tuple[str, str]:
        return b.quantised(x) if quantise else (x, b.constant("one", np.float32(1)))

    x = b.op("Gather", b.constant("model.embed_tokens.weight", embedding), "input_ids")
    shape = b.op("Shape", "input_ids")
    length = b.op("Gather", shape, b.constant("i1", np.int64(1)))
    zero, one = b.constant("i0", np.int64(0)), b.constant("i1", np.int64(1))
    positions = b.op("Cast", b.op("Range", zero, length, one), to=TensorProto.FLOAT)
    column = b.op("Unsqueeze", positions, b.constant("a1", np.array([1], np.int64)))
    row = b.op("Unsqueeze", positions, b.constant("a0", np.array([0], np.int64)))
    exponent = np.arange(0, width, 2, dtype=np.float32) / width
    frequency = (1 / np.float32(config["rope_theta"]) ** exponent).astype(np.float32)
    angle = b.op("Mul", column, b.constant("model.rotary_emb.inv_freq", frequency[None]))
    angles = b.op("Concat", angle, angle, axis=-1)
    cos, sin = b.op("Cos", angles), b.op("Sin", angles)
    mask = b.op(
        "Where", b.op("GreaterOrEqual", column, row),
        b.constant("f0", np.float32(0)), b.constant("far", np.float32(-1e30)),
    )  # fmt: skip
    repeats = b.constant("repeats", np.repeat(np.arange(kv_heads), heads // kv_heads))
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        codes = input_of(b.norm(x, prefix + "input_layernorm.weight"))
        q, k, v = (b.linear(*codes, f"{prefix}self_attn.{n}_proj.weight") for n in "qkv")
        q = b.rotated(b.heads(q, heads, width), cos, sin, width)
        k = b.rotated(b.heads(k, kv_heads, width), cos, sin, width)
        k = b.op("Gather", k, repeats, axis=1)
        v = b.op("Gather", b.heads(v, kv_heads, width), repeats, axis=1)
        score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
        score = b.op("Mul", score, b.constant("scaling", np.float32(width**-0.5)))
        weight = b.op("Softmax", b.op("Add", score, mask), axis=-1)
        o = b.op("Transpose", b.op("MatMul", weight, v), perm=[0, 2, 1, 3])
        o = b.op("Reshape", o, b.constant("joined", np.array([0, 0, heads * width], np.int64)))
        names = ("attn_sub_norm", "inner_attn_ln")
        o = sub_norm(o, *(f"{prefix}self_attn.{n}.weight" for n in names))
        x = b.op("Add", x, b.linear(*input_of(o), prefix + "self_attn.o_proj.weight"))
        codes = input_of(b.norm(x, prefix + "post_attention_layernorm.weight"))
        gate = b.linear(*codes, prefix + "mlp.gate_proj.weight")
        up = b.linear(*codes, prefix + "mlp.up_proj.weight")
        if config["hidden_act"] == "relu2":
            relu = b.op("Relu", gate)
            gate = b.op("Mul", relu, relu)
        else:
            gate = b.op("Mul", gate, b.op("Sigmoid", gate))
        g = b.op("Mul", gate, up)
        g = sub_norm(g, prefix + "mlp.ffn_sub_norm.weight", prefix + "mlp.ffn_layernorm.weight")
        x = b.op("Add", x, b.linear(*input_of(g), prefix + "mlp.down_proj.weight"))
    x = b.norm(x, "model.norm.weight")
    head = embedding
    if "lm_head.weight" in tiny.tensors:
        head = widened(*tiny.tensors["lm_head.weight"])
    logits = b.op(
        "MatMul", x, b.constant("onnx::MatMul_head", np.ascontiguousarray(head.T)),
        name="/lm_head/MatMul",
    )  # fmt: skip
    b.nodes[-1].output[0] = "logits"
    del logits
    graph = helper.make_graph(
        b.nodes,
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "length", None])],
        list(b.initialisers.values()),
    )
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    if carrier.endswith("int2"):
        versions[0] = helper.make_opsetid("", 25)
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def write_onnx(
    path: Path, tiny: TinyCheckpoint, carrier: str, quantise: bool = True, external: bool = False
) -> None:
    """Writes the graph, and config.json and tokenizer.json beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "config.json").write_text(json.dumps(tiny.config))
    (path.parent / "generation_config.json").write_text(json.dumps(tiny.generation_config))
    (path.parent / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    model = build(tiny, carrier, quantise)
    if external:
        onnx.save_model(
            model, str(path), save_as_external_data=True, location=path.name + "_data",
            size_threshold=512,
        )  # fmt: skip
        return
    path.write_bytes(model.SerializeToString())
