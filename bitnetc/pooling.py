"""How an embedding model makes one vector of a text's many: what sentence-transformers' files say.

modules.json lists the steps, 1_Pooling/config.json says which vectors count.
"""

import json
from pathlib import Path
from typing import Any

from bitnetc.checkpoint.fields import MAX_JSON_BYTES, Fields, read_bytes, read_object, shown
from bitnetc.errors import BitnetcError
from bitnetc.model import Pooling

_MODES: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"


def read_pooling(folder: Path) -> tuple[Pooling, str]:
    """(the pooling, a note that is empty where the files say it).

    Errors: steps that change vectors in other ways, and poolings that are unknown.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return "mean", POOLING_NOTE.format("there is no modules.json")
    try:
        modules = json.loads(read_bytes(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        raise BitnetcError(str(path), "is not valid JSON", "download the model again") from None
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        raise BitnetcError(str(path), "must be a list of objects", "download the model again")
    place = None
    for module in modules:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind not in (_TRANSFORMER, _POOLING, _NORMALIZE):
            raise BitnetcError(
                str(path),
                f"{shown(module.get('type'))} is not supported",
                f"known steps: {_TRANSFORMER}, {_POOLING}, {_NORMALIZE}",
            )
        if kind == _POOLING:
            place = module.get("path")
    if place is None:
        return "mean", POOLING_NOTE.format("modules.json names none")
    if not isinstance(place, str) or not place or "/" in place or place.startswith("."):
        raise BitnetcError(str(path), f"{shown(place)} is no folder of the model")
    return _mode(folder / place / "config.json"), ""


POOLING_NOTE = "{}: vectors are pooled by their mean unless the program is told otherwise"


def _mode(path: Path) -> Pooling:
    values: dict[str, Any] = read_object(path)
    fields = Fields(str(path), values)
    chosen = [key for key in values if key.startswith("pooling_mode_") and values[key] is True]
    unknown = [key for key in chosen if key not in _MODES]
    if unknown or len(chosen) != 1:
        raise fields.error(
            unknown[0] if unknown else "pooling_mode_mean_tokens",
            "is not supported" if unknown else "exactly one pooling must be true",
            "known poolings: " + ", ".join(_MODES),
        )
    return _MODES[chosen[0]]
