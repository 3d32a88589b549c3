"""The module of a web page in wasmtime, with the session that the page has."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import wasmtime


class Module:
    """web: the folder of a page. `started` is what the module's start() answered."""

    def __init__(self, web: Path, context: int) -> None:
        self.info: dict[str, Any] = json.loads((web / "model.json").read_text())
        engine = wasmtime.Engine()
        self.store = wasmtime.Store(engine)
        module = wasmtime.Module.from_file(engine, str(web / self.info["module"]["file"]))
        self.exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.memory: Any = self.exports["memory"]
        self.image = self.call("take", self.info["image_bytes"])
        for part in self.info["parts"]:
            content = (web / part["file"]).read_bytes()
            self.memory.write(self.store, content, self.image + part["at"])
        self.started = self.call("start", self.image, context)

    def call(self, name: str, *arguments: object) -> int:
        """An exported function's result; 0 where it has none."""
        function: Any = self.exports[name]
        return int(function(self.store, *arguments) or 0)

    def write(self, data: bytes) -> None:
        """Into the module's input buffer."""
        at = self.call("input", len(data))
        assert at
        self.memory.write(self.store, data, at)

    def evaluate(self, ids: list[int]) -> int:
        """Feeds ids; where the logits of the last one are, or 0."""
        self.write(np.array(ids, "<i4").tobytes())
        return self.call("evaluate", len(ids))

    def logits(self, ids: list[int]) -> bytes:
        """Feeds ids; the logits of the last one, float32."""
        at = self.evaluate(ids)
        assert at
        return bytes(self.memory.read(self.store, at, at + 4 * self.info["vocab"]))

    def hash(self, pieces: list[bytes]) -> str:
        """SHA-256 of all pieces, each of which fits the input buffer."""
        self.call("hash_begin")
        for piece in pieces:
            self.write(piece)
            self.call("hash", self.call("input", 1), len(piece))
        end = self.call("hash_end")
        return bytes(self.memory.read(self.store, end, end + 32)).hex()
