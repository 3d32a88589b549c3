"""What every container is read into: tensors by name and what is said about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bitnetc.checkpoint.fields import Fields, read_bytes
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.model import Source
from bitnetc.tokenizer import MAX_FILE_BYTES, Tokenizer

# Files of a folder that describe its tokenizer and its conversations.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as found. Keys of both configs are those of transformers.

    own_keys:    config key -> the key as the container spells it, for messages; where it differs.
    interleaved: rows of query and key heads are in the order that turns neighbours, not halves.
    config_file: the config.json that `config` was read from; None where the container holds it.
    weight_only: why activations are known to stay floats; empty where they are quantised to int8.
    nested:      the key of config.json that `config` stands under; empty where it is the whole.
    described:   the files a folder would hold for the tokenizer, where the container holds it.
    """

    path: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]  # empty when absent
    tensors: Mapping[str, Tensor] = field(repr=False)
    sources: tuple[Source, ...]  # every file the model comes from
    tokenizer: Callable[[], Tokenizer] = field(repr=False)
    notes: tuple[str, ...] = ()  # what a person should know about the files
    container: Literal["folder", "gguf", "onnx", "pt"] = "folder"
    own_keys: Mapping[str, str] = field(default_factory=dict)
    interleaved: bool = False
    config_file: Path | None = None
    weight_only: str = ""
    nested: str = ""
    described: Callable[[], Mapping[str, bytes]] | None = None

    @property
    def described_by(self) -> str:
        """What to call the place of the config in a message."""
        if self.config_file:
            return "config.json"
        return "the published model" if self.container == "pt" else "the metadata"

    @property
    def folder(self) -> Path:
        """Where the files beside the weights lie."""
        if self.config_file:
            return self.config_file.parent
        return self.path.parent

    def carried(self) -> dict[str, bytes]:
        """name -> content of the files that describe tokens and conversations."""
        if self.described:
            return dict(self.described())
        found = {}
        for name in TOKENIZER_FILES:
            if (self.folder / name).is_file():
                found[name] = read_bytes(self.folder / name, MAX_FILE_BYTES)
        return found

    @property
    def fields(self) -> Fields:
        where = str(self.config_file or self.path) + (f": {self.nested}" if self.nested else "")
        return Fields(where, self.config, self.own_keys)

    @property
    def generation_fields(self) -> Fields:
        if self.config_file:
            where = str(self.config_file.parent / "generation_config.json")
            return Fields(where, self.generation_config)
        return Fields(str(self.path), self.generation_config, self.own_keys)
