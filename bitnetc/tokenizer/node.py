"""Node: a value in a JSON file and the way to it, so that each refusal can name its place."""

import json
from dataclasses import dataclass
from typing import NoReturn

from bitnetc.errors import BitnetcError


@dataclass(frozen=True)
class Node:
    """A value in the file and the way to it, so that each refusal can name its place."""

    file: str
    path: str
    value: object

    def refuse(self, what: str, hint: str = "") -> NoReturn:
        raise BitnetcError(f"{self.file}: {self.path}" if self.path else self.file, what, hint)

    def show(self) -> str:
        text = json.dumps(self.value)
        return text if len(text) <= 80 else text[:77] + "..."

    def _is(self, kind: type, name: str) -> None:
        if type(self.value) is not kind:
            self.refuse(f"expected {name}, found {self.show()}")

    def get(self, key: str) -> "Node":
        """The member `key`; its value is None when it is absent."""
        path = f"{self.path}.{key}" if self.path else key
        return Node(self.file, path, self.dict().get(key))

    def items(self) -> "list[Node]":
        self._is(list, "a list")
        assert isinstance(self.value, list)
        return [Node(self.file, f"{self.path}[{i}]", v) for i, v in enumerate(self.value)]

    def dict(self) -> "dict[str, object]":
        self._is(dict, "an object")
        assert isinstance(self.value, dict)
        return self.value

    def text(self) -> str:
        self._is(str, "a string")
        assert isinstance(self.value, str)
        return self.value

    def integer(self) -> int:
        self._is(int, "a whole number")
        assert isinstance(self.value, int)
        return self.value

    def flag(self, default: bool | None = None) -> bool:
        if self.value is None and default is not None:
            return default
        self._is(bool, "true or false")
        return bool(self.value)

    def type(self) -> str:
        return self.get("type").text()
