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
FfnActivation = Literal["relu2", "silu"]


@dataclass(frozen=True)
class Ternary:
    """A ternary matrix: real weight [m, k] = trits[m, k] * scale[m or 0].

    scale: float32, shape [1] (per tensor) or [rows] (per row); always a multiplier, whatever
    the checkpoint stored.
    load:  decodes the trits, int8 [rows, cols] with values -1, 0, +1.
    """

    rows: int
    cols: int
    scale: Vector
    load: Callable[[], Trits]


@dataclass(frozen=True)
class Dense:
    """A float matrix kept in its stored type; `load` gives [rows, cols] as
    float32, float16, or (bf16) the upper halves of float32 words as uint16."""

    rows: int
    cols: int
    dtype: DenseType
    load: Callable[[], NDArray[np.generic]]

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


@dataclass(frozen=True)
class Block:
    """One transformer block; activations are quantised to int8 per token before each matrix.

    a = rmsnorm(x) * attn_norm;  q, k, v = wq a, wk a, wv a;  o = attention(rope(q), rope(k), v)
    x = x + wo [rmsnorm(o) * attn_sub_norm]
    b = rmsnorm(x) * ffn_norm;   g = act(w_gate b) * (w_up b)
    x = x + w_down [rmsnorm(g) * ffn_sub_norm]           [..] only where the sub-norm exists
    """

    attn_norm: Vector  # [dim]
    wq: Ternary  # [q_dim, dim]
    wk: Ternary  # [kv_dim, dim]
    wv: Ternary  # [kv_dim, dim]
    attn_sub_norm: Vector | None  # [q_dim]
    wo: Ternary  # [dim, q_dim]
    ffn_norm: Vector  # [dim]
    w_gate: Ternary  # [ffn_dim, dim]
    w_up: Ternary  # [ffn_dim, dim]
    ffn_sub_norm: Vector | None  # [ffn_dim]
    w_down: Ternary  # [dim, ffn_dim]


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
    rope_theta: float
    embedding: Dense  # [vocab, dim]
    blocks: tuple[Block, ...]
    final_norm: Vector  # [dim]
    head: Dense  # [vocab, dim]; the embedding itself when tied
    tokenizer: Tokenizer
    eos: tuple[int, ...]  # generation stops on any of these
    sampling: Sampling
    sources: tuple[Source, ...]
    notes: tuple[str, ...]  # assumptions a person should know of
    chat: ChatTemplate | None = None  # None: no template, or none that a program can follow

    @property
    def tied(self) -> bool:
        return self.head is self.embedding

    @property
    def sub_norms(self) -> bool:
        return self.blocks[0].attn_sub_norm is not None
