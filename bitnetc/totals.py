"""What a program takes of memory, before anything is built.

    resident = weights | tokenizer tables | arena | program

All but the last are known to the byte, and NAME.h says them as constants. The program touches its
whole arena at the start; of weights and tables, which are mapped from its file, what it has read is
resident, and that is all of them once the context was full, but for embeddings of tokens that did
not occur where the head has a matrix of its own.
"""

from dataclasses import dataclass
from typing import Any

from bitnetc.model import Model
from bitnetc.pack import slots, tokenizer_tables
from bitnetc.plan import Plan

PROGRAM_BYTES = 288 << 10  # code, C library, stacks: about


@dataclass(frozen=True)
class Totals:
    """Bytes of one program with one session."""

    weights: int
    tokenizer: int
    arena: int
    cache: int  # of the arena: keys and values
    stack: int  # that a call takes at most, of each thread
    program: int  # about

    @property
    def resident(self) -> int:
        return self.weights + self.tokenizer + self.arena + self.program


def totals(plan: Plan, model: Model, context: int | None = None, threads: int = 1) -> Totals:
    """For a session of `context` positions, by default as many as the plan's."""
    context = context or plan.context
    last = slots(plan, model)[-1]
    return Totals(
        weights=last.offset + last.bytes,
        tokenizer=len(tokenizer_tables(model)),
        arena=plan.memory.arena_bytes(context, threads),
        cache=plan.memory.cache_bytes_per_position * context,
        stack=plan.stack_bytes,
        program=PROGRAM_BYTES,
    )


def totals_json(plan: Plan, model: Model) -> dict[str, Any]:
    """As plan.json states them: at the plan's context, and with one thread."""
    t = totals(plan, model)
    return {
        "weights": t.weights,
        "tokenizer": t.tokenizer,
        "arena": t.arena,
        "cache": t.cache,
        "stack_per_thread": t.stack,
        "program_about": t.program,
        "resident": t.resident,
    }
