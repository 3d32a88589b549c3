"""A compiled model from Python, through its shared library and nothing else.

    python model.py LIBRARY [PROMPT]

LIBRARY is libNAME.so; see README.md for how to build it.
"""

import re
import sys
from collections.abc import Iterator
from ctypes import (
    CDLL,
    POINTER,
    addressof,
    byref,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_size_t,
    c_ssize_t,
    c_uint64,
    c_void_p,
    create_string_buffer,
    string_at,
)
from pathlib import Path

ALIGN = 64  # NAME_ARENA_ALIGN


class Session:
    """One session: its arena is a Python buffer, which lives as long as the session."""

    def __init__(self, library: Path, context: int = 256, threads: int = 1) -> None:
        self.name = re.sub(r"^lib|\.so.*$", "", library.name)
        self.library = CDLL(str(library.resolve()))
        size = self._function("arena_bytes", c_size_t, c_int, c_int)(context, threads)
        self.arena = create_string_buffer(size + ALIGN)
        start = c_void_p(-(-addressof(self.arena) // ALIGN) * ALIGN)
        init = self._function("init", c_void_p, c_void_p, c_size_t, c_int, c_int)
        self.model = init(start, size, context, threads)
        if not self.model:
            raise ValueError(f"context {context} or threads {threads} is out of range")

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        room = self._function("scratch_bytes", c_size_t, c_size_t)(len(data))
        ids = (c_int32 * (len(data) + 8))()
        call = self._function(
            "tokenize", c_ssize_t, c_void_p, c_char_p, c_size_t, c_int, POINTER(c_int32), c_size_t,
            c_void_p, c_size_t,
        )  # fmt: skip
        scratch = create_string_buffer(room)
        count = call(self.model, data, len(data), 1, ids, len(ids), scratch, room)
        if count < 0:
            raise ValueError(f"the text cannot be encoded ({count})")
        return ids[:count]

    def generate(
        self, prompt: str, tokens: int = 40, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[bytes]:
        """The pieces of text that follow the prompt; a character may be split between two."""
        evaluate = self._function("eval", c_void_p, c_void_p, POINTER(c_int32), c_int)
        sample = self._function(
            "sample", c_int, c_void_p, c_float, c_int, c_float, POINTER(c_uint64)
        )
        piece = self._function("piece", POINTER(c_char), c_void_p, c_int32, POINTER(c_size_t))
        ids, state, size = self.tokenize(prompt), c_uint64(seed), c_size_t()
        for _ in range(tokens):
            if not evaluate(self.model, (c_int32 * len(ids))(*ids), len(ids)):
                return  # the context is full
            ids = [sample(self.model, temperature, 0, 1.0, byref(state))]
            if self._function("is_eos", c_int, c_int32)(ids[0]):
                return
            at = piece(self.model, ids[0], byref(size))
            yield string_at(at, size.value)

    def close(self) -> None:
        self._function("close", None, c_void_p)(self.model)

    def _function(self, name: str, result: object, *arguments: object):  # type: ignore[no-untyped-def]
        function = self.library[f"{self.name}_{name}"]
        function.restype, function.argtypes = result, arguments
        return function


if __name__ == "__main__":
    prompt = sys.argv[2] if len(sys.argv) > 2 else "My dear Mr. Bennet,"
    session = Session(Path(sys.argv[1]))
    print(prompt + b"".join(session.generate(prompt)).decode("utf-8", "replace"))
    session.close()
