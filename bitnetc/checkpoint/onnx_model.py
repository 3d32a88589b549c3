"""ONNX graph -> Checkpoint, in the names of transformers.

What a graph computes is not derived from its nodes one by one: the structure is what config.json
says, and the graph must be recognisable as that. Exporters keep the names of modules, in nodes
or in weights, which give each matrix its place; the carriers of ternary weights are unpacked; and
what surrounds a matrix (how its input is quantised, what multiplies its output, which function
follows the gate) is read from the nodes. What does not fit is refused by name.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnetc.checkpoint.checkpoint import Checkpoint
from bitnetc.checkpoint.fields import Fields, read_object, shown
from bitnetc.checkpoint.levels import STORED, as_ternary, looks_ternary
from bitnetc.checkpoint.onnx_file import Graph, Initialiser, Node, read_graph, unpack_low_first
from bitnetc.checkpoint.tensor import FloatTensor, IntegerTensor, Tensor, TernaryTensor
from bitnetc.errors import BitnetcError
from bitnetc.model import Source
from bitnetc.tokenizer import read_tokenizer

Floats = NDArray[np.float32]
_NBITS = "com.microsoft.MatMulNBits"
_GATHER_QUANTIZED = "com.microsoft.GatherBlockQuantized"
_MATMULS = ("MatMul", "Gemm", "MatMulInteger", _NBITS)
_TERNARY_HINT = "export a ternary model whose matrices hold -d, 0 and +d"
_HINT = "bitnetc reads exports of BitNet and Llama graphs with the modules' names kept"

# Everything that exporters of decoder-only models emit. Others are refused by name.
_STANDARD = """
    Abs Add And ArgMax Attention Cast CastLike Ceil Clip Concat ConstantOfShape Cos CumSum
    DequantizeLinear Div DynamicQuantizeLinear Einsum Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm Greater GreaterOrEqual Identity IsNaN Less LessOrEqual Log
    MatMul MatMulInteger Max Min Mod Mul Neg Not Or Pow QuantizeLinear RMSNormalization Range
    Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape RotaryEmbedding Round ScatterND
    Shape Sigmoid Sign SimplifiedLayerNormalization Sin Size Slice Softmax Split Sqrt Squeeze Sub
    Swish Tanh Tile Transpose Trilu Unsqueeze Where Xor
"""
_MICROSOFT = """
    MatMulNBits GatherBlockQuantized GroupQueryAttention RotaryEmbedding MultiHeadAttention
    SimplifiedLayerNormalization SkipSimplifiedLayerNormalization QuickGelu Gelu FastGelu
"""
_OPS = frozenset([*_STANDARD.split(), *("com.microsoft." + op for op in _MICROSOFT.split())])
_PROJECTION = re.compile(
    r"layers?[._/](\d{1,4})[._/](?:\w+?[._/])??"
    r"((?:q|k|v|o|qkv|gate|up|down|gate_up)_proj)(?![A-Za-z0-9])"
)
_MODULE = {"q": "self_attn", "k": "self_attn", "v": "self_attn", "o": "self_attn",
           "gate": "mlp", "up": "mlp", "down": "mlp"}  # fmt: skip
_LAYER = re.compile(r"layers?\.(\d{1,4})\.(.+)")
_ROTARY = re.compile(r".*(inv_freq|cos_cache|sin_cache|cos_cached|sin_cached|rotary).*")


@dataclass(frozen=True)
class _Matrix:
    """A weight as the graph stores it.

    rows, cols: of the matrix as out x in
    transposed: stored as [cols, rows]
    init:       floats, or integers with `dequantise`
    factor:     multiplies the scales: one number, or one a row
    """

    node: Node
    init: Initialiser
    rows: int
    cols: int
    transposed: bool
    factor: Floats
    dequantise: "_Dequantise | None" = None


@dataclass(frozen=True)
class _Dequantise:
    """(code - zero) * scale. scale, zero: [rows or 1, groups], groups of `width` columns."""

    scale: Floats
    zero: Floats
    width: int
    bits: int | None = None  # of MatMulNBits' packed codes [rows, groups, bytes]


def read_onnx(path: Path) -> Checkpoint:
    """Opens an ONNX file. Errors: damaged files, and graphs that are none of ours."""
    graph = read_graph(path)
    _refuse_ops(graph)
    config_file = _config_file(path)
    config = read_object(config_file)
    folder = config_file.parent
    generation: Mapping[str, Any] = {}
    files = [config_file]
    if (folder / "generation_config.json").is_file():
        files.append(folder / "generation_config.json")
        generation = read_object(files[-1])
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        if (folder / name).is_file():
            files.append(folder / name)
    files += [path, *graph.files]

    reader = _Reader(graph, Fields(str(config_file), config))
    tensors = reader.tensors()
    notes = list(reader.notes)
    quant = config.get("quantization_config")
    declared = isinstance(quant, dict) and quant.get("quant_method") == "bitnet"
    declared = declared or config.get("weight_bits") == 1
    weight_only = ""
    if not reader.int8:
        if declared:
            notes.append(
                f"{path} leaves activations in float; they are quantised to int8 per token, as "
                "config.json declares"
            )
        else:
            weight_only = (
                f"{path.name} does not quantise activations, and config.json does not declare "
                "BitNet's weights: activations stay floats"
            )
    changed: dict[str, Any] = {"quantization_config": {"quant_method": "bitnet"}}
    if reader.modules:
        changed["quantization_config"]["modules"] = reader.modules
    if reader.activation and not isinstance(config.get("hidden_act"), str):
        changed["hidden_act"] = reader.activation
    return Checkpoint(
        path=path,
        config={**config, **changed},
        generation_config=generation,
        tensors=tensors,
        sources=tuple(Source(file, file.stat().st_size) for file in files),
        tokenizer=partial(read_tokenizer, folder),
        notes=tuple(notes),
        container="onnx",
        config_file=config_file,
        weight_only=weight_only,
    )


def _config_file(path: Path) -> Path:
    for folder in (path.parent, path.parent.parent):
        if (folder / "config.json").is_file():
            return folder / "config.json"
    raise BitnetcError(
        str(path.parent / "config.json"),
        "not found; an ONNX graph says neither heads nor rope_theta",
        "put the model's config.json beside the file",
    )


def _refuse_ops(graph: Graph) -> None:
    if graph.subgraphs:
        raise BitnetcError(
            str(graph.path),
            f"holds {', '.join(graph.subgraphs[:4])} nodes with graphs of their own, not supported",
            _HINT,
        )
    unknown = Counter(node.op for node in graph.nodes if node.op not in _OPS)
    if unknown:
        named = ", ".join(shown(op)[1:-1] for op, _ in unknown.most_common(4))
        raise BitnetcError(str(graph.path), f"computes {named}, which no family here does", _HINT)


class _Reader:
    """Finds the role of each matrix and vector of a graph."""

    def __init__(self, graph: Graph, fields: Fields) -> None:
        self.graph, self.fields = graph, fields
        self.notes: list[str] = []
        self.int8 = True
        self.activation: str | None = None
        self.used: set[str] = set()
        self.modules: dict[str, dict[str, int]] = {}  # as docs/mixed.md has them

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        quantised: dict[str, bool] = {}

        def put(name: str, tensor: Tensor, where: str) -> None:
            if name in found:
                raise BitnetcError(where, f"is a second {name}", _HINT)
            found[name] = tensor

        for node in self.graph.nodes:
            where = f"{self.graph.path}: node {shown(node.name or node.op)}"
            matrix = self.matrix(node, where)
            if matrix is None:
                continue
            # Exporters that fold constants name weights anew, and keep one of equal ones.
            names = (node.module,) if node.module else (matrix.init.name, node.name, *node.outputs)
            places = {(int(m[1]), m[2]) for m in map(_PROJECTION.search, names) if m}
            if len(places) > 1:
                raise BitnetcError(where, "has names of two places", _HINT)
            if not places:
                if (
                    any("lm_head" in name for name in names)
                    or node.outputs[0] in self.graph.outputs
                ):
                    put("lm_head.weight", self.dense(matrix), where)
                    continue
                raise BitnetcError(
                    where, "multiplies by a matrix whose name does not say its place", _HINT
                )
            self.refuse_bias(node, where)
            scales = self.activation_scales(node, where)
            matrix = replace(matrix, factor=matrix.factor * self.after(node, scales or ()))
            quantised[where] = scales is not None
            ((layer, projection),) = places
            role = projection.removesuffix("_proj")
            if role == "gate":
                self.follow_gate(node, where)
            if not _looks_ternary(matrix):
                module = f"model.layers.{layer}.{_MODULE.get(role)}.{role}_proj"
                refused = role not in _MODULE or scales is None
                if refused:
                    what = "several projections" if scales is not None else "a float input"
                    raise BitnetcError(where, f"multiplies {what} by other than trits", _HINT)
                integers, scale, bits = self.integers(matrix, where)
                put(f"{module}.weight", integers, where)
                put(f"{module}.weight_scale", scale, where)
                self.modules[module] = {"bits": bits}
                continue
            for part, tensor in self.parts(role, self.ternary(matrix), where):
                put(f"model.layers.{layer}.{_MODULE[part]}.{part}_proj.weight", tensor, where)
        if not quantised:
            raise BitnetcError(str(self.graph.path), "multiplies by no projection", _HINT)
        if len(set(quantised.values())) > 1:
            one = next(where for where, is_int8 in quantised.items() if not is_int8)
            raise BitnetcError(
                one, "does not quantise its input, although others do, not supported", _HINT
            )
        self.int8 = next(iter(quantised.values()))
        self.embedding(found)
        self.vectors(found)
        self.drop_tied_head(found)
        return found

    # --- matrices ----------------------------------------------------------------------------

    def matrix(self, node: Node, where: str) -> _Matrix | None:
        """The constant matrix that a node multiplies by; None when there is none."""
        if node.op == _NBITS:
            return self.nbits(node, where)
        if node.op not in _MATMULS or len(node.inputs) < 2:
            return None
        transposed = not (node.op == "Gemm" and node.integer("transB", 0))
        if node.op == "Gemm" and (
            node.attributes.get("transA", 0)
            or node.attributes.get("alpha", 1.0) != 1.0
            or node.attributes.get("beta", 1.0) != 1.0
        ):
            raise BitnetcError(where, "is a Gemm with transA, alpha or beta, not supported", _HINT)
        value = node.inputs[1]
        factor = np.ones((1, 1), np.float32)
        dequantise: _Dequantise | None = None
        scale_node: Node | None = None
        for _ in range(8):
            init = self.graph.initialisers.get(value)
            if init is not None:
                break
            maker = self.graph.makers.get(value)
            if maker is None or not maker.inputs:
                return None
            if maker.op == "Transpose" and maker.attributes.get("perm", (1, 0)) == (1, 0):
                transposed = not transposed
            elif maker.op == "DequantizeLinear" and scale_node is None:
                scale_node, scale_transposed = maker, transposed
            elif maker.op == "Mul" and maker.inputs[1] in self.graph.initialisers:
                factor = factor * self.multiplier(maker.inputs[1], transposed, where)
            elif maker.op not in ("Cast", "Identity"):
                return None
            value = maker.inputs[0]
        else:
            return None
        if len(init.shape) != 2 or init.count == 0:
            return None
        rows, cols = init.shape[::-1] if transposed else init.shape
        if scale_node is not None:
            dequantise = self.dequantise_linear(scale_node, scale_transposed, rows, cols, where)
        elif not init.is_float:
            zero = 0.0
            if node.op == "MatMulInteger" and len(node.inputs) > 3 and node.inputs[3]:
                zero = float(self.constant(node.inputs[3], where).integers().reshape(-1)[0])
            dequantise = _Dequantise(
                np.ones((1, 1), np.float32), np.full((1, 1), zero, np.float32), cols
            )
        points = node.inputs[2] if node.op == "MatMulInteger" and len(node.inputs) > 2 else ""
        if points and np.any(self.constant(points, where).integers()):
            raise BitnetcError(where, "has activations with a zero point, not supported", _HINT)
        self.used.add(init.name)
        return _Matrix(node, init, rows, cols, transposed, factor, dequantise)

    def constant(self, name: str, where: str) -> Initialiser:
        init = self.graph.initialisers.get(name)
        if init is None or init.count == 0 or init.dtype.startswith("type"):
            raise BitnetcError(where, f"needs {shown(name)} to be a constant", _HINT)
        self.used.add(name)
        return init

    def multiplier(self, name: str, transposed: bool, where: str) -> Floats:
        """A constant that multiplies a matrix [.., ..]: one number, or one a row of out x in."""
        init = self.constant(name, where)
        if not init.is_float:
            raise BitnetcError(where, "is scaled by integers, not supported", _HINT)
        values = init.floats()
        if values.size == 1:
            return values.reshape(1, 1)
        shape = (1,) * (2 - values.ndim) + values.shape
        if len(shape) == 2 and shape[0 if transposed else 1] == 1:
            return values.reshape(-1, 1)
        raise BitnetcError(where, f"is scaled by {shown(list(init.shape))}, not one a row", _HINT)

    def dequantise_linear(
        self, node: Node, transposed: bool, rows: int, cols: int, where: str
    ) -> _Dequantise:
        scale = self.constant(node.inputs[1], where)
        if not scale.is_float:
            raise BitnetcError(where, "has a scale that is no float", _HINT)
        zero: Initialiser | None = None
        if len(node.inputs) > 2 and node.inputs[2]:
            zero = self.constant(node.inputs[2], where)
        block = node.integer("block_size", 0)
        axis = node.attributes.get("axis", 1)
        if axis not in (-2, -1, 0, 1):
            raise BitnetcError(where, f"has scales along axis {shown(axis)}", _HINT)
        axis = axis + 2 if axis < 0 else axis
        along_rows = axis == (1 if transposed else 0)

        def shaped(values: Floats) -> tuple[Floats, int]:
            if values.size == 1:
                return values.reshape(1, 1), cols
            if values.ndim == 1 and along_rows and values.size == rows and not block:
                return values.reshape(-1, 1), cols
            if values.ndim == 2 and block > 0 and not along_rows:
                ordered = values.T if transposed else values
                if ordered.shape == (rows, -(-cols // block)):
                    return np.ascontiguousarray(ordered), block
            raise BitnetcError(
                where,
                f"has scales {shown(list(scale.shape))} along an axis that is not supported",
                "one scale a matrix, a row, or a block of columns",
            )

        scales, width = shaped(scale.floats())
        zeros, zero_width = np.zeros((1, 1), np.float32), width
        if zero is not None:
            values = zero.floats() if zero.is_float else zero.integers().astype(np.float32)
            zeros, zero_width = shaped(values)
        if zeros.size > 1 and zero_width != width:
            raise BitnetcError(where, "has zero points in other blocks than scales", _HINT)
        return _Dequantise(scales, zeros, width)

    def nbits(self, node: Node, where: str) -> _Matrix:
        """com.microsoft.MatMulNBits: codes [N, blocks, bytes], low bits first."""
        inputs = [*node.inputs, "", "", "", ""]
        cols, rows = node.integer("K", 0), node.integer("N", 0)
        bits, width = node.integer("bits", 4), node.integer("block_size", 0)
        if inputs[4]:
            raise BitnetcError(where, "reorders columns (g_idx), not supported", _HINT)
        if inputs[5]:
            raise BitnetcError(where, "has a bias, not supported", "export a model without biases")
        if bits not in (2, 4, 8) or not 16 <= width <= 1 << 16 or width & (width - 1):
            raise BitnetcError(where, f"has {bits} bits in blocks of {width}, not supported", _HINT)
        if not (0 < rows < 1 << 22 and 0 < cols < 1 << 22):
            raise BitnetcError(where, f"is {rows} x {cols}", "export the model again")
        blocks = -(-cols // width)
        init = self.constant(inputs[1], where)
        scale = self.constant(inputs[2], where)
        if init.dtype != "U8" or init.count != rows * blocks * width * bits // 8:
            raise BitnetcError(
                where,
                f"holds {init.dtype} {shown(list(init.shape))}, and {rows} x {cols} in {bits} bits "
                f"need {rows * blocks * width * bits // 8} bytes",
                "export the model again",
            )
        if not scale.is_float or scale.count != rows * blocks:
            raise BitnetcError(
                where, f"has {scale.count} scales for {rows} x {blocks} blocks", "export it again"
            )
        zero = np.full((1, 1), 1 << (bits - 1), np.float32)
        if inputs[3]:
            points = self.constant(inputs[3], where)
            packed_bytes = -(-blocks * bits // 8)
            if points.is_float and points.count == rows * blocks:
                zero = points.floats().reshape(rows, blocks)
            elif points.dtype == "U8" and points.count == rows * packed_bytes:
                codes = unpack_low_first(points.raw.reshape(rows, packed_bytes), bits)
                zero = codes[:, :blocks].astype(np.float32)
            else:
                raise BitnetcError(where, "has zero points of another shape", "export it again")
        packed = replace(init, shape=(rows, blocks, width * bits // 8))
        dequantise = _Dequantise(scale.floats().reshape(rows, blocks), zero, width, bits)
        one = np.ones((1, 1), np.float32)
        return _Matrix(node, packed, rows, cols, False, one, dequantise)

    def ternary(self, matrix: _Matrix) -> TernaryTensor:
        init, rows, cols = matrix.init, matrix.rows, matrix.cols
        scaling = matrix.dequantise
        if scaling is None:
            if init.dtype not in STORED:
                raise BitnetcError(init.where, f"stored as {init.dtype}", _TERNARY_HINT)
            words = partial(_words, init, matrix.transposed)
            if not looks_ternary(words()):
                raise BitnetcError(init.where, "holds floats that are not ternary", _TERNARY_HINT)
            plain = Tensor(init.name, init.dtype, (rows, cols), init.file, init.raw)
            tensor = as_ternary(plain, words)
            factor = matrix.factor
            return replace(tensor, scales=lambda: (tensor.scales() * factor).astype(np.float32))
        scales = scaling.scale
        if scales.shape[1] > 1 and cols % scaling.width:
            if not np.all(scales == scales[:, :1]):
                raise BitnetcError(
                    init.where, f"{cols} columns are no whole blocks of {scaling.width}", _HINT
                )
            scales = scales[:, :1]
        with np.errstate(all="ignore"):
            scales = (scales * matrix.factor).astype(np.float32)
        if scales.shape[0] == 1 and scales.shape[1] > 1:
            scales = np.repeat(scales, rows, axis=0)
        return TernaryTensor(
            init.name,
            init.dtype if scaling.bits is None else f"{scaling.bits} bits",
            (rows, cols),
            init.file,
            init.raw,
            lambda: scales.copy(),
            partial(_trits, matrix),
        )

    def integers(self, matrix: _Matrix, where: str) -> tuple[IntegerTensor, Tensor, int]:
        """Integers that are no trits, their scales [1] or [rows], and how many bits they have."""
        init, scaling = matrix.init, matrix.dequantise
        assert scaling is not None
        scales = scaling.scale
        if not np.all(scales == scales[:, :1]):
            raise BitnetcError(
                where,
                f"has a scale for each {scaling.width} columns of integers that are no trits, and "
                "sums of int8 products cross them",
                "one scale a row or a matrix",
            )
        with np.errstate(all="ignore"):
            scales = (scales[:, :1] * matrix.factor).astype(np.float32)
        signs = np.where(scales < 0, np.float32(-1), np.float32(1))
        wide = scaling.bits or {"I4": 4, "I2": 2}.get(init.dtype, 8)
        half = 0 if init.dtype in ("I4", "I2") else 1 << (wide - 1)
        exact = wide < 8 and bool(np.all(scaling.zero == half)) and bool(np.all(signs > 0))
        shape = (matrix.rows, matrix.cols)
        values = partial(_integers, matrix, signs)
        positive = np.abs(scales).reshape(-1)
        raw = positive.view(np.uint8)
        scale = Tensor(f"{init.name}_scale", "F32", positive.shape, init.file, raw)
        tensor = IntegerTensor(init.name, "I8", shape, init.file, init.raw, values)
        return tensor, scale, wide if exact else 8

    def dense(self, matrix: _Matrix) -> Tensor:
        """The head: floats as stored, or widened."""
        init = matrix.init
        if matrix.dequantise is not None:
            values: Callable[[], Floats] = partial(_dequantised, matrix)
        elif init.dtype not in STORED:
            raise BitnetcError(init.where, f"stored as {init.dtype}", "convert it to float32")
        elif not matrix.transposed and np.all(matrix.factor == 1):
            return Tensor(init.name, init.dtype, init.shape, init.file, init.raw)
        else:
            values = partial(_transposed, matrix)
        shape = (matrix.rows, matrix.cols)
        return FloatTensor(init.name, init.dtype, shape, init.file, init.raw, values)

    def parts(
        self, role: str, tensor: TernaryTensor, where: str
    ) -> list[tuple[str, TernaryTensor]]:
        """The projections that a matrix holds below one another."""
        if role not in ("qkv", "gate_up"):
            return [(role, tensor)]
        fields = self.fields
        if role == "gate_up":
            each = tensor.shape[0] // 2
            sizes = {"gate": each, "up": tensor.shape[0] - each}
        else:
            heads = fields.integer("num_attention_heads", 1, 1 << 10)
            kv_heads = fields.integer("num_key_value_heads", 1, 1 << 10, heads)
            width = tensor.shape[0] // (heads + 2 * kv_heads)
            sizes = {"q": heads * width, "k": kv_heads * width, "v": kv_heads * width}
        if sum(sizes.values()) != tensor.shape[0]:
            raise BitnetcError(where, f"{tensor.shape[0]} rows are not {shown(sizes)}", _HINT)
        parts = []
        begin = 0
        for part, rows in sizes.items():
            parts.append((part, _rows(tensor, begin, rows)))
            begin += rows
        return parts

    # --- what surrounds a matrix -------------------------------------------------------------

    def maker(self, value: str, through: tuple[str, ...] = ("Cast", "Identity")) -> Node | None:
        """The node behind a value, past nodes that change its type only."""
        for _ in range(8):
            node = self.graph.makers.get(value)
            if node is None or node.op not in through or not node.inputs:
                return node
            value = node.inputs[0]
        return None

    def users(self, value: str) -> tuple[Node, ...]:
        return self.graph.users.get(value, ())

    def activation_scales(self, node: Node, where: str) -> tuple[str, ...] | None:
        """Values that hold the scale of a matrix's quantised input; None when that is float.

        Errors: activations quantised in another way than int8 per token.
        """
        value = node.inputs[0]
        for _ in range(12):
            maker = self.graph.makers.get(value)
            if maker is None or not maker.inputs:
                return None
            if maker.op == "Round":
                return self.token_scales(maker.inputs[0], where)
            if maker.op in ("DynamicQuantizeLinear", "QuantizeLinear"):
                raise BitnetcError(
                    where,
                    f"quantises activations by {maker.op}, not per token as BitNet does",
                    _HINT,
                )
            if maker.op in ("Cast", "Identity", "Clip", "Div", "Mul", "Max", "Min", "Reshape"):
                value = maker.inputs[0]
            else:
                return None
        return None

    def token_scales(self, value: str, where: str) -> tuple[str, ...]:
        """The scale in x * scale or x / scale before Round, which must be 127 / max|x| a token."""
        maker = self.maker(value)
        if maker is None or maker.op not in ("Mul", "Div") or len(maker.inputs) != 2:
            raise BitnetcError(where, "rounds activations that are not scaled", _HINT)
        pairs = [maker.inputs, maker.inputs[::-1]] if maker.op == "Mul" else [maker.inputs]
        for x, scale in pairs:
            seen: set[str] = set()
            names: list[str] = []
            largest: Node | None = None
            levels = False
            stack = [scale]
            while stack and len(seen) < 24:
                name = stack.pop()
                if name in seen:
                    continue
                seen.add(name)
                init = self.graph.initialisers.get(name)
                if init is not None:
                    levels |= init.count == 1 and init.is_float and init.floats().item() == 127
                    continue
                node = self.graph.makers.get(name)
                if node is None:
                    continue
                if node.op == "ReduceMax":
                    behind = self.maker(node.inputs[0])
                    if behind is not None and behind.op == "Abs" and self.equal(behind.inputs, x):
                        largest = node
                elif node.op in ("Div", "Mul", "Reciprocal", "Clip", "Max", "Cast", "Identity"):
                    stack += node.inputs
                    names += node.outputs
            if largest is None:
                continue
            axes = largest.attributes.get("axes", ())
            if len(largest.inputs) > 1 and largest.inputs[1]:
                init = self.constant(largest.inputs[1], where)
                axes = tuple(init.raw.view("<i8").tolist()) if init.dtype == "I64" else ()
            if len(axes) != 1 or axes[0] not in (-1, 2):
                raise BitnetcError(
                    where, f"quantises activations over axes {shown([*axes])}, not per token", _HINT
                )
            if not levels:
                raise BitnetcError(where, "quantises activations to other than 127 levels", _HINT)
            return (scale, *self.same(scale))
        raise BitnetcError(
            where, "quantises activations by another scale than their largest per token", _HINT
        )

    def equal(self, values: tuple[str, ...], other: str) -> bool:
        """Whether the first of values is `other`, up to a change of type."""
        if not values:
            return False
        return not {values[0], *self.same(values[0])}.isdisjoint({other, *self.same(other)})

    def same(self, value: str) -> list[str]:
        """Casts of a value, and what it is a cast of."""
        found = [n.outputs[0] for n in self.users(value) if n.op in ("Cast", "Identity")]
        node = self.graph.makers.get(value)
        if node is not None and node.op in ("Cast", "Identity"):
            found.append(node.inputs[0])
        return found

    def after(self, node: Node, scales: tuple[str, ...]) -> Floats:
        """Constants that multiply the output of a matrix, beside the scale of its input.

        float32 [1, 1] or [rows, 1].
        """
        factor = np.ones((1, 1), np.float32)
        value = node.outputs[0]
        for _ in range(6):
            users = self.users(value)
            if len(users) != 1 or value in self.graph.outputs:
                break
            user = users[0]
            if user.op in ("Cast", "Identity"):
                value = user.outputs[0]
                continue
            if user.op not in ("Mul", "Div") or len(user.inputs) != 2:
                break
            first = user.inputs[0] == value
            if user.op == "Div" and not first:
                break
            found = self.constant_factor(user.inputs[1 if first else 0], scales)
            if found is None:
                break
            with np.errstate(all="ignore"):
                factor = (factor * found if user.op == "Mul" else factor / found).astype(np.float32)
            value = user.outputs[0]
        return factor

    def constant_factor(self, value: str, scales: tuple[str, ...], depth: int = 0) -> Floats | None:
        """The constant part of products of constants and input scales; None for anything else."""
        if value in scales:
            return np.ones((1, 1), np.float32)
        init = self.graph.initialisers.get(value)
        if init is not None:
            row = init.shape in ((init.count,), (1, init.count), (1, 1, init.count))
            if not init.is_float or not (row or init.count == 1):
                return None
            return init.floats().reshape(-1, 1)
        node = self.graph.makers.get(value)
        if node is None or depth > 6:
            return None
        parts = [self.constant_factor(name, scales, depth + 1) for name in node.inputs]
        if any(part is None for part in parts):
            return None
        with np.errstate(all="ignore"):
            if node.op in ("Cast", "Identity"):
                return parts[0]
            if node.op == "Reciprocal" and parts[0] is not None:
                return np.float32(1) / parts[0]
            if node.op in ("Mul", "Div") and parts[0] is not None and parts[1] is not None:
                return parts[0] * parts[1] if node.op == "Mul" else parts[0] / parts[1]
        return None

    def refuse_bias(self, node: Node, where: str) -> None:
        if node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2]:
            raise BitnetcError(where, "has a bias, not supported", "export a model without biases")
        for user in self.users(node.outputs[0]):
            for name in user.inputs if user.op == "Add" else ():
                init = self.graph.initialisers.get(name)
                if init is not None and init.is_float and init.count > 1:
                    raise BitnetcError(
                        where, "has a bias, not supported", "export a model without biases"
                    )

    def follow_gate(self, node: Node, where: str) -> None:
        """The function after a gate projection; all layers must have the same, config.json's."""
        value = node.outputs[0]
        found: str | None = None
        for _ in range(10):
            users = self.users(value)
            ops = {user.op for user in users}
            if "Relu" in ops:
                relu = next(user for user in users if user.op == "Relu")
                squared = any(
                    (u.op == "Mul" and u.inputs[0] == u.inputs[1]) or u.op == "Pow"
                    for u in self.users(relu.outputs[0])
                )
                found = "relu2" if squared else "relu"
            elif ops & {"Sigmoid", "Swish"}:
                found = "silu"
            elif ops & {"Gelu", "Erf", "Tanh", "com.microsoft.Gelu", "com.microsoft.FastGelu"}:
                found = "gelu"
            elif len(users) == 1 and users[0].op in ("Mul", "Div", "Cast", "Identity", "Reshape"):
                value = users[0].outputs[0]
                continue
            break
        if found is None:
            raise BitnetcError(where, "is followed by no activation that is known", _HINT)
        if self.activation not in (None, found):
            raise BitnetcError(where, f"is followed by {found}, others by {self.activation}", _HINT)
        self.activation = found
        said = self.fields.values.get("hidden_act")
        if isinstance(said, str) and {"swish": "silu"}.get(said, said) != found:
            raise self.fields.error(
                "hidden_act",
                f"{shown(said)}, but the graph computes {found}",
                "correct one of them",
            )

    # --- everything else ---------------------------------------------------------------------

    def embedding(self, found: dict[str, Tensor]) -> None:
        """The matrix that token ids pick rows from."""
        vocab = self.fields.integer("vocab_size", 1, 1 << 22)
        for node in self.graph.nodes:
            where = f"{self.graph.path}: node {shown(node.name or node.op)}"
            if node.op == "Gather" and len(node.inputs) == 2:
                init = self.graph.initialisers.get(node.inputs[0])
                if init is None or len(init.shape) != 2 or init.shape[0] != vocab:
                    continue
                if init.dtype not in STORED:
                    raise BitnetcError(where, f"picks from {init.dtype}", "export it as float")
                tensor = Tensor(init.name, init.dtype, init.shape, init.file, init.raw)
                self.used.add(init.name)
            elif node.op == _GATHER_QUANTIZED and len(node.inputs) > 2:
                tensor = self.gather_quantized(node, where)
            else:
                continue
            if "model.embed_tokens.weight" in found:
                raise BitnetcError(where, "is a second embedding", _HINT)
            found["model.embed_tokens.weight"] = tensor

    def gather_quantized(self, node: Node, where: str) -> Tensor:
        """com.microsoft.GatherBlockQuantized: codes [vocab, dim / per byte], scales a block."""
        init, scale = self.constant(node.inputs[0], where), self.constant(node.inputs[2], where)
        bits, width = node.integer("bits", 4), node.integer("block_size", 128)
        axis = node.attributes.get("quantize_axis", 1)
        if init.dtype not in ("U8", "U4") or len(init.shape) != 2 or axis not in (1, -1):
            raise BitnetcError(where, f"picks from {init.dtype} of this form", "export it as float")
        bits = 4 if init.dtype == "U4" else bits
        rows = init.shape[0]
        cols = init.shape[1] * (1 if init.dtype == "U4" else 8 // max(1, bits))
        if bits not in (2, 4, 8) or width < 16 or cols % width or not scale.is_float:
            raise BitnetcError(where, f"has {bits} bits in blocks of {width}", "export it as float")
        blocks = cols // width
        zero = np.full((1, 1), 0 if init.dtype == "U4" else 1 << (bits - 1), np.float32)
        if len(node.inputs) > 3 and node.inputs[3]:
            points = self.constant(node.inputs[3], where)
            size = -(-blocks * bits // 8)
            if points.raw.size != rows * size:
                raise BitnetcError(where, "has zero points of another shape", "export it as float")
            codes = unpack_low_first(points.raw.reshape(rows, size), bits)
            zero = codes[:, :blocks].astype(np.float32)
        if scale.count != rows * blocks:
            raise BitnetcError(where, "has scales of another shape", "export it as float")
        packed = replace(init, dtype="U8", shape=(rows, blocks, width * bits // 8))
        dequantise = _Dequantise(scale.floats().reshape(rows, blocks), zero, width, bits)
        matrix = _Matrix(node, packed, rows, cols, False, np.ones((1, 1), np.float32), dequantise)
        return self.dense(matrix)

    def vectors(self, found: dict[str, Tensor]) -> None:
        """Norms by name. Other vectors of floats change the graph in a way that is not known."""
        for name, init in self.graph.initialisers.items():
            if name in self.used or not init.is_float or init.count <= 1:
                continue
            if name not in self.graph.users:
                continue
            if self.is_rotary(init) or _ROTARY.fullmatch(name):
                continue
            vector = [size for size in init.shape if size != 1]
            if len(vector) > 1:
                continue
            # One of equal vectors is kept for several modules.
            modules = [user.module for user in self.graph.users[name]]
            said = [f"{module}.weight" for module in modules] if all(modules) else [name]
            for place in map(_vector_name, dict.fromkeys(said)):
                if place is None or place in found:
                    raise BitnetcError(
                        init.where, "is a vector whose name does not say its place", _HINT
                    )
                found[place] = Tensor(name, init.dtype, (init.count,), init.file, init.raw)

    def is_rotary(self, init: Initialiser) -> bool:
        """Whether a vector holds the frequencies of rotary embedding for some theta."""
        with np.errstate(all="ignore"):
            values = init.floats().reshape(-1).astype(np.float64)
        if len(values) < 2 or values[0] != 1 or not np.all(np.isfinite(values) & (values > 0)):
            return False
        expected = values[1] ** np.arange(len(values))
        if values[1] >= 1 or not np.allclose(values, expected, rtol=1e-2):
            return False
        theta = float(values[1]) ** -len(values)
        rope = self.fields.values.get("rope_parameters") or self.fields.values.get("rope_scaling")
        said = rope.get("rope_theta") if isinstance(rope, dict) else None
        said = said or self.fields.values.get("rope_theta")
        if isinstance(said, int | float) and said > 0 and abs(theta / said - 1) > 0.05:
            raise self.fields.error(
                "rope_theta",
                f"{shown(said)}, but the graph turns by {theta:.6g}",
                "correct the value",
            )
        return True

    def drop_tied_head(self, found: dict[str, Tensor]) -> None:
        """A head that is the embedding, laid out anew by the exporter, is tied as config says."""
        head, embedding = found.get("lm_head.weight"), found.get("model.embed_tokens.weight")
        if self.fields.values.get("tie_word_embeddings") is not True or not head or not embedding:
            return
        if head.shape != embedding.shape or head.dtype != embedding.dtype:
            return
        if isinstance(embedding, FloatTensor) or head.dtype not in STORED:
            same = head.raw.size == embedding.raw.size and np.array_equal(head.raw, embedding.raw)
        else:
            words = embedding.raw.view(STORED[embedding.dtype]).reshape(embedding.shape)
            other = head.raw.view(STORED[head.dtype])
            other = (
                other.reshape(head.shape[::-1]).T
                if isinstance(head, FloatTensor)
                else other.reshape(head.shape)
            )
            step = max(1, (1 << 22) // max(1, head.shape[1]))
            same = all(
                np.array_equal(words[i : i + step], other[i : i + step])
                for i in range(0, len(words), step)
            )
        if same:
            del found["lm_head.weight"]


def _vector_name(name: str) -> str | None:
    """The name that transformers has for a norm's weight, in the ways exporters spell it."""
    plain = name.replace("/", ".").strip(".")
    if not plain.endswith(("weight", "bias")):
        return None
    if re.search(r"(^|\.)(final_norm_layernorm|norm|final_layernorm)\.weight$", plain) and (
        "layers." not in plain or "final_norm" in plain
    ):
        return "model.norm.weight"
    found = _LAYER.search(plain)
    if not found:
        return None
    inner = re.sub(r"^(attn|attention)\.", "self_attn.", found[2])
    inner = inner.replace("_norm.layernorm.weight", "_norm.weight")
    return f"model.layers.{int(found[1])}.{inner}"


def _words(init: Initialiser, transposed: bool) -> NDArray[np.unsignedinteger]:
    words = init.raw.view(STORED[init.dtype]).reshape(init.shape)
    return words.T if transposed else words


def _rows(tensor: TernaryTensor, begin: int, rows: int) -> TernaryTensor:
    def scales() -> Floats:
        all_ = tensor.scales()
        return all_ if len(all_) == 1 else all_[begin : begin + rows]

    return replace(
        tensor,
        shape=(rows, tensor.shape[1]),
        scales=scales,
        trits=lambda: np.ascontiguousarray(tensor.trits()[begin : begin + rows]),
    )


def _transposed(matrix: _Matrix) -> Floats:
    values = matrix.init.floats()
    values = values.T if matrix.transposed else values
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(values * matrix.factor, dtype=np.float32)


_CHUNK = 1 << 20


def _differences(matrix: _Matrix, begin: int, end: int) -> Floats:
    """code - zero of some rows, float32 [rows, cols]."""
    scaling, init = matrix.dequantise, matrix.init
    assert scaling is not None
    if scaling.bits is not None:
        packed = init.raw.reshape(init.shape)[begin:end]
        codes = unpack_low_first(packed, scaling.bits).astype(np.float32)
        zero = scaling.zero[begin:end] if len(scaling.zero) > 1 else scaling.zero
        codes -= zero[..., None]
        return codes.reshape(end - begin, -1)[:, : matrix.cols]
    stored = init.integers()
    part = (stored.T if matrix.transposed else stored)[begin:end].astype(np.float32)
    zero = scaling.zero[begin:end] if len(scaling.zero) > 1 else scaling.zero
    if zero.shape[1] > 1:
        zero = np.repeat(zero, scaling.width, axis=1)[:, : matrix.cols]
    part -= zero
    return part


def _trits(matrix: _Matrix) -> NDArray[np.int8]:
    out = np.empty((matrix.rows, matrix.cols), dtype=np.int8)
    packed = matrix.dequantise is not None and matrix.dequantise.bits is not None
    step = max(1, _CHUNK // matrix.cols) if packed else matrix.rows
    for begin in range(0, matrix.rows, step):
        part = _differences(matrix, begin, min(matrix.rows, begin + step))
        bad = np.argwhere((part != 0) & (np.abs(part) != 1))
        if len(bad):
            row, col = bad[0]
            raise BitnetcError(
                f"{matrix.init.where}: row {begin + row}, column {col}",
                f"holds {part[row, col]:g}, which is no trit",
                _TERNARY_HINT,
            )
        out[begin : begin + step] = part
    return out


def _looks_ternary(matrix: _Matrix) -> bool:
    """Whether the first rows of integers are trits; floats are looked at elsewhere."""
    if matrix.dequantise is None:
        return True
    return bool(np.abs(_differences(matrix, 0, min(8, matrix.rows))).max() <= 1)


def _integers(matrix: _Matrix, signs: Floats) -> NDArray[np.int8]:
    values = _differences(matrix, 0, matrix.rows) * signs
    if np.any((values < -128) | (values > 127) | (values != np.rint(values))):
        raise BitnetcError(
            matrix.init.where, "holds integers outside -128 to 127", "export it with eight bits"
        )
    return values.astype(np.int8)


def _dequantised(matrix: _Matrix) -> Floats:
    scaling = matrix.dequantise
    assert scaling is not None
    out = np.empty((matrix.rows, matrix.cols), dtype=np.float32)
    packed = scaling.bits is not None
    step = max(1, _CHUNK // matrix.cols) if packed else matrix.rows
    for begin in range(0, matrix.rows, step):
        end = min(matrix.rows, begin + step)
        part = _differences(matrix, begin, end)
        scale = scaling.scale[begin:end] if len(scaling.scale) > 1 else scaling.scale
        if scale.shape[1] > 1:
            scale = np.repeat(scale, scaling.width, axis=1)[:, : matrix.cols]
        with np.errstate(all="ignore"):
            out[begin:end] = part * scale
            out[begin:end] *= matrix.factor[begin:end] if len(matrix.factor) > 1 else matrix.factor
    return out
