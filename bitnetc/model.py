"""The normal form of a model: what every stage after `normalise` reads.

Names are ours, matrices are rows x cols (out x in), and nothing optional is left implicit.
A matrix is not in memory until its `load` is called; callers hold one at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitnetc.tokenizer import Tokenizer

Vector = NDArray[np.float32]
Trits = NDArray[np.int8]
DenseType = Literal["f32", "f16", "bf16"]
CacheType = Literal["f16", "q8"]
# Codes of activations: int8; signs; -1, 0 and 1 (rules 3 and 16 of docs/arithmetic.md).
Activations = Literal["int8", "signs", "trits"]
FfnActivation = Literal["relu2", "silu", "gelu_tanh"]
Pooling = Literal["last", "mean", "cls"]


@dataclass(frozen=True)
class Ternary:
    """A ternary matrix: real weight [m, k] = trits[m, k] * scale[m or 0][k's group].

    scale: float32, shape [1] (per tensor), [rows] (per row) or [rows, groups] of equally many
    neighbours in a row each; always a multiplier, whatever the checkpoint stored.
    load:  decodes the trits, int8 [rows, cols] with values -1, 0, +1
    binary: known to have no 0 (binary.py)
    """

    rows: int
    cols: int
    scale: Vector
    load: Callable[[], Trits]
    binary: bool = False

    @property
    def groups(self) -> int:
        """Scales in one row."""
        return self.scale.shape[1] if self.scale.ndim == 2 else 1


@dataclass(frozen=True)
class Integers:
    """A matrix of small integers that reads int8 codes: weight [m, k] = integers[m, k] * scale[m].

    bits:  2, 4, 6 or 8: -2^(bits - 1) <= integer < 2^(bits - 1)
    scale: float32, shape [1] (per matrix) or [rows]; a multiplier
    load:  int8 [rows, cols]
    screen: of a head of 8 bits, whose rows are read where they may matter only; else None
    """

    rows: int
    cols: int
    bits: int
    scale: Vector
    load: Callable[[], NDArray[np.int8]]
    screen: "Screen | None" = None


@dataclass(frozen=True)
class Screen:
    """What says which rows of a matrix of integers matter: docs/arithmetic.md, rule 9.

    trits: a ternary matrix of about the same products, with a scale per row
    error: float32 [rows], the root mean square of the difference between the weights of both
    """

    trits: Ternary
    error: Vector


@dataclass(frozen=True)
class Frequent:
    """High bytes of bfloat16 that are frequent in a matrix, and how many weights have others."""

    table: tuple[int, ...]
    escapes: int


@dataclass(frozen=True)
class Dense:
    """A float matrix kept in its stored type; `load` gives [rows, cols] as
    float32, float16, or (bf16) the upper halves of float32 words as uint16."""

    rows: int
    cols: int
    dtype: DenseType
    load: Callable[[], NDArray[np.generic]]
    frequent: Frequent | None = None  # of bf16, where somebody looked (bf12.py)

    @property
    def bytes_per_value(self) -> int:
        return 4 if self.dtype == "f32" else 2


def to_float32(values: NDArray[np.generic], dtype: DenseType) -> NDArray[np.float32]:
    """Exact widening of stored values (see Dense) to float32."""
    if dtype == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


@dataclass(frozen=True)
class Shape:
    dim: int  # width of the residual stream
    ffn_dim: int  # width between gate/up and down
    layers: int
    heads: int  # query heads
    kv_heads: int  # key/value heads; heads is a multiple of it
    head_dim: int  # width of one head, even; heads * head_dim need not equal dim
    vocab: int  # rows of the embedding
    context: int  # positions the model was made for

    @property
    def q_dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim


Matrix = Ternary | Integers | Dense


# The matrices of a block, by their fields there.
ROLES = ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")


@dataclass(frozen=True)
class Block:
    """One transformer block; every norm but attn_norm and ffn_norm exists in some graphs only.

    a = rmsnorm(x) * attn_norm;  q, k, v = wq n(a), wk n(a), wv n(a)
    o = attention(rope(n(q)), rope(n(k)), v)
    x = x + n(wo n(o))
    b = rmsnorm(x) * ffn_norm;   g = act(w_gate n(b)) * (w_up n(b))
    x = x + n(w_down n(g))

    n(..) is rmsnorm(..) times the norm that belongs there, or nothing: before a matrix wq_norm and
    its like, attn_sub_norm before wo, ffn_sub_norm before w_down; for each head q_norm and k_norm;
    before a residual attn_post_norm and ffn_post_norm. Norms hold what multiplies: 1 + w where a
    checkpoint stores w.

    Ternary matrices read int8 codes or floats, as Model.float_activations says; integers codes;
    dense matrices floats. Blocks may differ, but w_gate and w_up are both dense or neither is.
    Codes are scaled by each token's largest value, or by wq_input and its like (rule 15 of
    docs/arithmetic.md): float32 [1], the reciprocal of what a code stands for. Matrices that share
    an input have equal ones.
    """

    attn_norm: Vector  # [dim]
    wq: Matrix  # [q_dim, dim]
    wk: Matrix  # [kv_dim, dim]
    wv: Matrix  # [kv_dim, dim]
    attn_sub_norm: Vector | None  # [q_dim]
    wo: Matrix  # [dim, q_dim]
    ffn_norm: Vector  # [dim]
    w_gate: Matrix  # [ffn_dim, dim]
    w_up: Matrix  # [ffn_dim, dim]
    ffn_sub_norm: Vector | None  # [ffn_dim]
    w_down: Matrix  # [dim, ffn_dim]
    wq_norm: Vector | None = None  # [dim]; these five all or none
    wk_norm: Vector | None = None
    wv_norm: Vector | None = None
    w_gate_norm: Vector | None = None
    w_up_norm: Vector | None = None
    wq_bias: Vector | None = None  # [q_dim]; these three all or none
    wk_bias: Vector | None = None  # [kv_dim]
    wv_bias: Vector | None = None
    q_norm: Vector | None = None  # [head_dim]; both or none
    k_norm: Vector | None = None
    attn_post_norm: Vector | None = None  # [dim]; both or none
    ffn_post_norm: Vector | None = None
    wq_input: Vector | None = None  # [1]; these seven all or none, in all blocks
    wk_input: Vector | None = None
    wv_input: Vector | None = None
    wo_input: Vector | None = None
    w_gate_input: Vector | None = None
    w_up_input: Vector | None = None
    w_down_input: Vector | None = None
    rope: int = 0  # which of Model.ropes
    window: int = 0  # positions that attention sees, itself included; 0: all


@dataclass(frozen=True)
class Rope:
    """Rotary embedding: element j of a head turns by position * frequencies[j].

    frequencies: float32 [head_dim / 2], scaled as the checkpoint asks.
    factor:      of cosines and sines; 1 but for YaRN.
    """

    theta: float  # the base they were made from
    frequencies: Vector
    factor: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """What the checkpoint's generation_config asks for; greedy when temperature is 0."""

    temperature: float = 0.0
    top_k: int = 0  # 0: no limit
    top_p: float = 1.0


class Strip(IntFlag):
    """The sides on which a chat template strips whitespace, as Python's str.strip takes it."""

    NONE = 0
    LEFT = 1
    RIGHT = 2
    BOTH = 3

    def apply(self, text: str) -> str:
        text = text.lstrip() if self & Strip.LEFT else text
        return text.rstrip() if self & Strip.RIGHT else text


ChatParts = tuple[bytes | int, ...]  # text as UTF-8, and ids of added tokens


@dataclass(frozen=True)
class ChatTemplate:
    """What stands around the messages of a conversation, in which user and assistant alternate.

    head             user user_assistant assistant assistant_user user ... user generation
    system_head system system_user user ...                          with a system message

    Text between two ids is encoded as one: words may reach from these parts into a message.
    """

    head: ChatParts
    takes_system: bool
    system_head: ChatParts
    system_user: ChatParts
    user_assistant: ChatParts  # of an answer that is history
    assistant_user: ChatParts
    generation: ChatParts  # of the answer to come
    strip_system: Strip
    strip_user: Strip
    strip_assistant: Strip


@dataclass(frozen=True)
class Source:
    """A file the model was read from, for the manifest."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Model:
    name: str  # as the checkpoint's folder is called
    family: str  # the entry of families.py that recognised it
    shape: Shape
    ffn_activation: FfnActivation
    norm_eps: float  # of every RMSNorm; used as float32
    ropes: tuple[Rope, ...]
    embedding: Ternary | Dense  # [vocab, dim]
    blocks: tuple[Block, ...]
    final_norm: Vector  # [dim]
    head: Ternary | Dense  # [vocab, dim]; the embedding itself when tied
    tokenizer: Tokenizer
    eos: tuple[int, ...]  # generation stops on any of these
    sampling: Sampling
    sources: tuple[Source, ...]
    notes: tuple[str, ...]  # assumptions a person should know of
    chat: ChatTemplate | None = None  # None: no template, or none that a program can follow
    float_activations: bool = False  # of the ternary matrices; False: codes, scaled per token
    activations: Activations = "int8"  # of the codes that matrices of blocks read
    sub_norm_eps: float | None = None  # of the norms before a matrix; None: norm_eps
    score_dim: float | None = None  # scores are divided by its root; None: head_dim
    embedding_scale: float = 1.0  # of a token's vector; used as float32
    pooling: Pooling | None = None  # of a model that embeds texts; None: it writes them
    kv: CacheType = "f16"  # of keys and values in the cache
    # Behind ReLU^2 the shares of gated products and of codes before w_down that are zero, where
    # they are known: what the planner expects of a token, and no part of the arithmetic.
    zeros: tuple[float, float] | None = None
    # Units that a norm before w_down divides by, where some that are always zero were left out
    # (prune.py); None: as many as there are.
    ffn_units: int | None = None
    integer_head: Integers | None = None  # logits come from it instead of `head` (head.py)

    @property
    def static_activations(self) -> bool:
        """Whether the scales of int8 activations are the checkpoint's, not each token's."""
        return self.blocks[0].wq_input is not None

    @property
    def tied(self) -> bool:
        return self.head is self.embedding

    @property
    def rope_theta(self) -> float:
        return self.ropes[0].theta
