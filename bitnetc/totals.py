"""What a program takes of memory, before anything is built.

    resident = weights | tokenizer tables | arena | program

All but the last are known to the byte, and NAME.h says them as constants. The program touches its
whole arena at the start; of weights and tables, which are mapped from its file, what it has read is
resident, and that is all of them once the context was full. Where the head has a matrix of its own,
of the embedding only rows of tokens that occurred are read, each with the pages that the system
maps beside it (on Linux 64 KiB in all); and of a screened head's integers only the rows of likely
tokens. How much that is depends on the text: `resident` is the most, and `resident_least` leaves
them out, and the tokenizer's tables.
"""

from dataclasses import dataclass
from typing import Any

from bitnetc.model import Model
from bitnetc.pack import Slot, slots, tokenizer_tables
from bitnetc.plan import Plan

PROGRAM_BYTES = 416 << 10  # code, C library, stacks: about


@dataclass(frozen=True)
class Totals:
    """Bytes of one program with one session."""

    weights: int
    tokenizer: int
    arena: int
    cache: int  # of the arena: keys and values
    stack: int  # that a call takes at most, of each thread
    program: int  # about
    sparse: int  # of the weights, what is read by the row; 0 where every step reads them all

    @property
    def resident(self) -> int:
        """At most; within 2 % where `sparse` is 0."""
        return self.weights + self.tokenizer + self.arena + self.program

    @property
    def resident_least(self) -> int:
        return self.resident - (self.sparse + self.tokenizer if self.sparse else 0)


def totals(plan: Plan, model: Model, context: int | None = None, threads: int = 1) -> Totals:
    """For a session of `context` positions, by default as many as the plan's."""
    context = context or plan.context
    places = slots(plan, model)
    last = places[-1]
    return Totals(
        weights=last.offset + last.bytes,
        tokenizer=len(tokenizer_tables(model)),
        arena=plan.memory.arena_bytes(context, threads),
        cache=plan.memory.cache_bytes_per_position * context,
        stack=plan.stack_bytes,
        program=PROGRAM_BYTES,
        sparse=sparse_bytes(places, model),
    )


def sparse_bytes(places: list[Slot], model: Model) -> int:
    """Of the weights, what is read by the row: a step needs few of them."""
    own_head = not model.tied or model.integer_head is not None
    names = ("embedding", "head_exact") if own_head else ()
    return sum(slot.bytes for slot in places if slot.name in names)


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
        "resident_least": t.resident_least,
    }
