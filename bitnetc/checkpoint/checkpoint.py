"""What every container is read into: tensors by name and what is said about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bitnetc.checkpoint.fields import Fields
from bitnetc.checkpoint.tensor import Tensor
from bitnetc.model import Source
from bitnetc.tokenizer import Tokenizer


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as found. Keys of both configs are those of transformers.

    own_keys:    config key -> the key as the container spells it, for messages; where it differs.
    interleaved: rows of query and key heads are in the order that turns neighbours, not halves.
    """

    path: Path
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]  # empty when absent
    tensors: Mapping[str, Tensor] = field(repr=False)
    sources: tuple[Source, ...]  # every file the model comes from
    tokenizer: Callable[[], Tokenizer] = field(repr=False)
    notes: tuple[str, ...] = ()  # what a person should know about the files
    container: Literal["folder", "gguf"] = "folder"
    own_keys: Mapping[str, str] = field(default_factory=dict)
    interleaved: bool = False

    @property
    def described_by(self) -> str:
        """What to call the place of the config in a message."""
        return "config.json" if self.container == "folder" else "the metadata"

    @property
    def fields(self) -> Fields:
        where = f"{self.path}/config.json" if self.container == "folder" else str(self.path)
        return Fields(where, self.config, self.own_keys)

    @property
    def generation_fields(self) -> Fields:
        if self.container == "folder":
            return Fields(str(self.path / "generation_config.json"), self.generation_config)
        return Fields(str(self.path), self.generation_config, self.own_keys)
