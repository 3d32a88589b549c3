"""Bundle -> web/: a folder of static files that runs the model in a browser.

The WebAssembly module holds code only. Weights and tokenizer tables are one image, cut into files
that are small enough for any host of static files; each is called after its content, and model.json
has its SHA-256.
"""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from bitnetc import __version__, resources
from bitnetc.emit import Bundle, environment
from bitnetc.errors import BitnetcError
from bitnetc.model import Model
from bitnetc.plan import Plan

PART_BYTES = 16 << 20  # hosts of static files take 25 MiB and more
_ALIGN = 64  # of the tokenizer's tables in the image; runtime_c/bnc_web.c
_STATIC = ("app.js", "model.js", "style.css", "sw.js", "worker.js")

# The page's words, for a model that holds conversations and for one that continues texts.
_CHAT = {
    "mode": "chat",
    "fresh": "New chat",
    "log": "Conversation",
    "label": "Message",
    "empty": "Say something to begin.",
}
_TEXT = {
    "mode": "text",
    "fresh": "Clear",
    "log": "Texts",
    "label": "The beginning of a text",
    "empty": "Write how a text begins, and the model goes on.",
}


def refuse_target(plan: Plan) -> None:
    """Raises BitnetcError unless the plan's target is WebAssembly."""
    if plan.target.arch != "wasm32":
        raise BitnetcError(
            "--web",
            f"a browser runs WebAssembly, and {plan.target.name} is not",
            "--target wasm32-simd128",
        )


def with_page(bundle: Bundle, model: Model, title: str) -> Bundle:
    """The bundle and the files of its page, except those that are made of what is built."""
    image = _image_bytes(bundle.stream_bytes["src/weights.bin"], _tables(bundle))
    context = {
        "title": escape(title),
        "version": __version__,
        "system": bool(model.chat and model.chat.takes_system),
        "greeting": f"The model runs in this browser: {image / 1e6:,.1f} MB, downloaded once. "
        "What you write stays on this device.",
        **(_CHAT if model.chat else _TEXT),
    }
    page = environment().get_template("web/index.html.jinja").render(context)
    files = {"web/index.html": page.encode()}
    for name in _STATIC:
        files[f"web/{name}"] = (resources.TEMPLATES / "web" / name).read_bytes()
    for name in ("bnc_sha256.h", "bnc_web.c"):
        files[f"runtime/{name}"] = (resources.RUNTIME / name).read_bytes()
    return dataclasses.replace(bundle, files={**bundle.files, **files})


def publish(
    folder: Path, name: str, plan: Plan, model: Model, part_bytes: int = PART_BYTES
) -> None:
    """Writes the parts of the image and model.json beside the built module web/NAME.wasm.

    folder: of the bundle. Raises OSError as the disk does.
    """
    web = folder / "web"
    for old in web.glob(f"{name}.*.bin"):
        old.unlink()
    parts = []
    at = 0
    for index, content in enumerate(_parts(folder / "src", part_bytes)):
        digest = hashlib.sha256(content).hexdigest()
        file = f"{name}.{index:03}.{digest[:12]}.bin"
        (web / file).write_bytes(content)
        parts.append({"file": file, "at": at, "bytes": len(content), "sha256": digest})
        at += len(content)
    module = (web / f"{name}.wasm").read_bytes()
    module_hash = hashlib.sha256(module).digest()
    sampling = dataclasses.asdict(model.sampling)
    value: dict[str, Any] = {
        "bitnetc": __version__,
        "name": name,
        "model": re.sub(r"\s+", " ", model.name),
        "target": plan.target.name,
        "chat": model.chat is not None,
        "vocab": plan.shape.vocab,
        "context": plan.context,
        "batch": plan.batch,
        "sampling": {key: sampling[key] for key in ("temperature", "top_k", "top_p")},
        "module": {
            "file": f"{name}.wasm",
            "bytes": len(module),
            "sha256": module_hash.hex(),
            "integrity": f"sha256-{base64.b64encode(module_hash).decode()}",
        },
        "image_bytes": at,
        "parts": parts,
    }
    text = json.dumps(value, indent=2, ensure_ascii=False)
    (web / "model.json").write_text(text + "\n", encoding="utf-8")


def _tables(bundle: Bundle) -> int:
    return len(bundle.files["src/tokenizer.bin"])


def _image_bytes(weights: int, tables: int) -> int:
    return -(-weights // _ALIGN) * _ALIGN + tables


def _parts(source: Path, size: int) -> Iterator[bytes]:
    """weights.bin, zeros up to a multiple of _ALIGN, and tokenizer.bin, in pieces of `size`."""
    held = b""
    for chunk in _image(source, size):
        held += chunk
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if held:
        yield held


def _image(source: Path, size: int) -> Iterator[bytes]:
    with open(source / "weights.bin", "rb") as file:
        done = 0
        while chunk := file.read(size):
            yield chunk
            done += len(chunk)
    yield bytes(-done % _ALIGN)
    yield (source / "tokenizer.bin").read_bytes()
