"""The arena: where every activation lies, known before the program runs.

    arena = state | buffers | scratch of each thread | cache

Buffers that are never alive at the same time share memory. The sizes of the last two depend on
the context and the number of threads, by the formula that NAME.h states as a macro.
"""

from dataclasses import dataclass

from bitnetc.errors import BitnetcError
from bitnetc.model import Shape

ALIGN = 64  # a cache line, and the widest vector
STATE_BYTES = 12288  # the C struct at the start of the arena; a static assertion keeps it true
LANES = 16  # docs/arithmetic.md, rule 2
HEADS_TOGETHER = 4  # runtime_c/bnc_attention.h


@dataclass(frozen=True)
class Buffer:
    """Bytes alive from phase `first` to phase `last` of a step (see _PHASES)."""

    name: str
    bytes: int
    first: int
    last: int
    meaning: str


@dataclass(frozen=True)
class Memory:
    buffers: dict[str, Buffer]
    offsets: dict[str, int]  # from the start of the arena
    fixed_bytes: int  # state and buffers
    acc_bytes: int  # per thread: int32 sums of one tile
    row_bytes: int  # per thread: one normalised token
    score_bytes_per_position: int  # per thread and position of context
    cache_bytes_per_position: int

    def thread_bytes(self, context: int) -> int:
        """Scratch of one thread."""
        return align(self.acc_bytes + self.row_bytes + self.score_bytes_per_position * context)

    def arena_bytes(self, context: int, threads: int) -> int:
        """What NAME_ARENA_BYTES(context, threads) gives."""
        cache = self.cache_bytes_per_position * context
        return self.fixed_bytes + threads * self.thread_bytes(context) + cache


def align(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


# A step in phases; a bnc_sync() stands between them.
_PHASES = ("norm", "qkv", "rope", "attend", "norm_o", "o", "norm_f", "gate", "norm_d", "down")
_HEAD = len(_PHASES)


def memory_plan(shape: Shape, batch: int, stride: int, lut: bool, tile: int) -> Memory:
    """Offsets of all buffers for `batch` tokens at a time.

    stride: columns between two quantised tokens; lut: look-up tables are needed;
    tile: the most rows that any kernel computes at a time (gate and up hold two tiles).
    """
    at = {name: i for i, name in enumerate(_PHASES)}
    always = (0, _HEAD)
    buffers = [
        Buffer("x", batch * shape.dim * 4, *always, "residual stream"),
        Buffer("q", batch * shape.q_dim * 4, at["qkv"], at["norm_o"], "queries, then attention"),
        Buffer("k", batch * shape.kv_dim * 4, at["qkv"], at["rope"], "keys of these tokens"),
        Buffer("v", batch * shape.kv_dim * 4, at["qkv"], at["rope"], "values of these tokens"),
        Buffer("h", batch * shape.ffn_dim * 4, at["gate"], at["norm_d"], "gate * up"),
        Buffer("normed", batch * shape.dim * 4, _HEAD, _HEAD, "the head's input"),
        Buffer("act_q", batch * stride, *always, "quantised activations"),
        Buffer("act_sum", batch * 4, *always, "their sums"),
        Buffer("act_scale", batch * 4, *always, "their scales"),
        Buffer("logits", shape.vocab * 4, *always, "logits of the last token"),
        Buffer("odds", shape.vocab * 4, *always, "the sampler's weights"),
        Buffer("order", shape.vocab * 4, *always, "the sampler's order"),
    ]
    if lut:
        buffers.append(Buffer("act_lut", batch * stride * 16, *always, "look-up tables"))
    offsets, end = _place(buffers, STATE_BYTES)
    head_stride = -(-shape.head_dim // LANES) * LANES
    row = max(shape.dim, shape.q_dim, shape.ffn_dim)
    memory = Memory(
        buffers={b.name: b for b in buffers},
        offsets=offsets,
        fixed_bytes=end,
        acc_bytes=2 * tile * batch * 4,
        row_bytes=align(row * 4),
        score_bytes_per_position=4 * min(HEADS_TOGETHER, shape.heads // shape.kv_heads),
        cache_bytes_per_position=2 * shape.layers * shape.kv_heads * head_stride * 2,
    )
    if memory.fixed_bytes >= 2**31:
        raise BitnetcError(
            "memory plan",
            f"activations need {memory.fixed_bytes:,} bytes, 2 GiB is the limit",
            "use a smaller --max-batch",
        )
    return memory


def _place(buffers: list[Buffer], start: int) -> tuple[dict[str, int], int]:
    """Largest first, each at the lowest offset that collides with nothing alive with it."""
    placed: list[tuple[int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda b: (-b.bytes, b.name)):
        offset = start
        for other_offset, other in sorted(placed, key=lambda p: p[0]):
            alive_together = other.first <= buffer.last and buffer.first <= other.last
            if alive_together and other_offset < offset + align(buffer.bytes):
                offset = max(offset, other_offset + align(other.bytes))
        placed.append((offset, buffer))
    end = max(offset + align(b.bytes) for offset, b in placed)
    return {b.name: offset for offset, b in placed}, end
