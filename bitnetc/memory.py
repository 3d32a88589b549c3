"""The arena: where every activation lies, known before the program runs.

    arena = state | buffers | scratch of each thread | what threads share | cache

Buffers that are never alive at the same time share memory. The sizes of the last three depend on
the context and the number of threads, by the formula that NAME.h states as a macro.
"""

from dataclasses import dataclass

from bitnetc.errors import BitnetcError
from bitnetc.model import Shape

ALIGN = 64  # a cache line, and the widest vector
# The C struct at the start of the arena, with and without a pool of threads; a static assertion
# keeps it true.
STATE_BYTES = {True: 12288, False: 512}
LANES = 16  # docs/arithmetic.md, rule 2
LUT = 12  # BNC_LUT of runtime_c/bnc_quantise.h
HEADS_TOGETHER, CHUNK = 4, 256  # runtime_c/bnc_attention.h
ATTEND_ROWS, ATTEND_STEP, ATTEND_VALUES = 32, 4, 32  # runtime_c/bnc_attention_batch.h


@dataclass(frozen=True)
class Buffer:
    """Bytes alive from phase `first` to phase `last` of a step (see _PHASES)."""

    name: str
    bytes: int
    first: int
    last: int
    meaning: str


@dataclass(frozen=True)
class Graph:
    """What some graphs need beyond others."""

    inputs: int = 1  # activations that the matrices of one phase read: 3 where each has a norm
    float_stride: int = 0  # columns between two tokens for matrices that read floats; 0: none do
    post_norms: bool = False  # what a block adds is normalised first
    texts: bool = False  # several texts in one batch


@dataclass(frozen=True)
class Memory:
    buffers: dict[str, Buffer]
    offsets: dict[str, int]  # from the start of the arena
    fixed_bytes: int  # state and buffers
    attend_tokens: int  # of a prompt that attend together
    acc_bytes: int  # per thread: int32 sums of matrices; or what attention computes in
    row_bytes: int  # per thread: one normalised token
    score_bytes: int  # per thread: what scores reach behind the context
    score_bytes_per_position: int  # per thread and position of context
    cache_bytes_per_position: int
    cache_row_bytes: int  # one head's key or value at one position: runtime_c/bnc_cache.h
    # What threads share of one token's attention (runtime_c/bnc_attention_split.h); 0: one thread.
    shared_bytes_per_position: int = 0
    shared_bytes_per_chunk: int = 0
    inputs: int = 1  # see Graph

    def thread_bytes(self, context: int) -> int:
        """Scratch of one thread."""
        score = self.score_bytes + self.score_bytes_per_position * context
        return align(self.acc_bytes + self.row_bytes + score)

    def arena_bytes(self, context: int, threads: int) -> int:
        """What NAME_ARENA_BYTES(context, threads) gives."""
        cache = self.cache_bytes_per_position * context
        shared = self.shared_bytes(context) if threads > 1 else 0
        return self.fixed_bytes + threads * self.thread_bytes(context) + shared + cache

    def shared_bytes(self, context: int) -> int:
        """What more than one thread needs beside the scratch of each."""
        chunks = -(-context // CHUNK)
        each = self.shared_bytes_per_position * context
        return align(each + self.shared_bytes_per_chunk * chunks)


def align(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


# A step in phases; a bnc_sync() stands between them.
_PHASES = ("norm", "qkv", "rope", "attend", "norm_o", "o", "norm_f", "gate", "norm_d", "down")
_HEAD = len(_PHASES)
_SAMPLE = _HEAD + 1  # after the step


def memory_plan(
    shape: Shape,
    batch: int,
    stride: int,
    lut: bool,
    sums: int,
    threads: bool = True,
    piece: int = 0,
    graph: Graph | None = None,
    q8: bool = False,
    small: bool = False,
    bits: bool = False,
) -> Memory:
    """Offsets of all buffers for `batch` tokens at a time.

    stride: columns between two quantised tokens; lut: look-up tables are needed;
    sums: the most int32 sums that a phase makes at a time;
    threads: whether there may be more than one;
    piece: bytes of the longest token's text;
    graph: by default one that needs nothing of its own;
    q8: the cache holds int8 codes with a scale, not float16;
    small: tokens attend one by one, which takes the least memory;
    bits: planes of bits are needed.
    """
    graph = graph or Graph()
    at = {name: i for i, name in enumerate(_PHASES)}
    always, sampling = (0, _HEAD), (_SAMPLE, _SAMPLE)
    buffers = [
        Buffer("x", batch * shape.dim * 4, *always, "residual stream"),
        Buffer("q", batch * shape.q_dim * 4, at["qkv"], at["norm_o"], "queries, then attention"),
        Buffer("k", batch * shape.kv_dim * 4, at["qkv"], at["rope"], "keys of these tokens"),
        Buffer("v", batch * shape.kv_dim * 4, at["qkv"], at["rope"], "values of these tokens"),
        Buffer("h", batch * shape.ffn_dim * 4, at["gate"], at["norm_d"], "gate * up"),
        Buffer("normed", batch * shape.dim * 4, _HEAD, _HEAD, "the head's input"),
        Buffer("logits", shape.vocab * 4, 0, _SAMPLE, "logits of the last token"),
        Buffer("odds", shape.vocab * 4, *sampling, "the sampler's weights"),
        Buffer("order", shape.vocab * 4, *sampling, "the sampler's order"),
        Buffer("text", piece + 4, *sampling, "text of the token that is delivered"),
    ]
    inputs = graph.inputs * batch
    if stride:
        buffers += [
            Buffer("act_q", inputs * stride, *always, "quantised activations"),
            Buffer("act_sum", inputs * 4, *always, "their sums"),
            Buffer("act_scale", inputs * 4, *always, "their scales"),
        ]
    if bits:
        buffers.append(
            Buffer("act_bits", inputs * stride, *always, "activations as planes of bits")
        )
    if lut:
        buffers.append(Buffer("act_lut", inputs * stride * LUT, *always, "look-up tables"))
    if graph.float_stride:
        size = inputs * graph.float_stride * 4
        buffers.append(Buffer("act_f", size, *always, "activations that stay floats"))
    if graph.post_norms:
        buffers.append(Buffer("o", batch * shape.dim * 4, *always, "what a block is about to add"))
    if graph.texts:
        buffers.append(Buffer("starts", batch * 4, *always, "where each token's text begins"))
        buffers.append(Buffer("texts", batch * 4, *always, "the text of each token"))
    offsets, end = _place(buffers, STATE_BYTES[threads])
    head_stride = -(-shape.head_dim // LANES) * LANES
    cache_row = head_stride + 4 if q8 else 2 * head_stride
    row = max(shape.dim, shape.q_dim, shape.ffn_dim)
    row = row if graph.inputs == 1 else max(row, 2 * shape.dim)
    heads = min(HEADS_TOGETHER, shape.heads // shape.kv_heads)
    together = 1 if small else min(batch, ATTEND_ROWS // heads)
    rows = heads if together == 1 else -(-together * heads // ATTEND_STEP) * ATTEND_STEP
    attend = 0 if together == 1 else (2 * rows + ATTEND_VALUES) * head_stride * 4
    # Scores come in whole groups of lanes, the last of which may reach behind the context.
    behind = 0 if together == 1 else rows * (LANES - 1) * 4
    memory = Memory(
        buffers={b.name: b for b in buffers},
        offsets=offsets,
        fixed_bytes=end,
        attend_tokens=together,
        acc_bytes=align(max(4 * sums, attend)),
        row_bytes=align(row * 4),
        score_bytes=behind,
        score_bytes_per_position=4 * rows,
        cache_bytes_per_position=2 * shape.layers * shape.kv_heads * cache_row,
        cache_row_bytes=cache_row,
        shared_bytes_per_position=4 * shape.heads if threads else 0,
        shared_bytes_per_chunk=4 * shape.heads * (2 + head_stride) if threads else 0,
        inputs=graph.inputs,
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
