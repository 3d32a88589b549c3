"""How far logits of a rounded head are from those of the checkpoint's own.

    python bench/head.py                        the bundled example on its own kind of text
    python bench/head.py --text FILE MODEL      another checkpoint and text

For each --head: the share of positions whose most likely token is the same, whose ten most likely
are the same set, and the Kullback-Leibler divergence of the probabilities (nats, mean and worst).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bitnetc.compiler import load  # noqa: E402
from bitnetc.head import HEADS, with_integer_head  # noqa: E402
from bitnetc.reference import Reference  # noqa: E402

Floats = NDArray[np.float64]
# The opening of Persuasion, by Jane Austen.
TEXT = """Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own
amusement, never took up any book but the Baronetage; there he found occupation for an idle hour,
and consolation in a distressed one; there his faculties were roused into admiration and respect,
by contemplating the limited remnant of the earliest patents; there any unwelcome sensations,
arising from domestic affairs, changed naturally into pity and contempt as he turned over the
almost endless creations of the last century; and there, if every other leaf were powerless, he
could read his own history with an interest which never failed. This was the page at which the
favourite volume always opened."""


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    found: Floats = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    example = ROOT / "examples" / "austen" / "model"
    parser.add_argument("model", nargs="?", type=Path, default=example)
    parser.add_argument("--text", type=Path)
    arguments = parser.parse_args()
    text = arguments.text.read_text() if arguments.text else TEXT.replace("\n", " ")
    model = load(arguments.model)
    tokenizer = tokenizers.Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    ids = tokenizer.encode(text).ids[: model.shape.context]
    states = Reference(model)
    exact = log_softmax(states.logits(ids))
    print(f"{model.name}: {len(ids)} positions, {model.shape.vocab} tokens")
    print(f"{'--head':<8}{'MB':>8}{'top 1':>9}{'top 10':>9}{'KL mean':>11}{'KL worst':>11}")
    for name, bits in HEADS.items():
        other = log_softmax(Reference(with_integer_head(model, name)).logits(ids))
        read = 4 if name == "screened" else bits or 16
        size = model.head.rows * model.head.cols * read / 8e6
        first = (exact.argmax(axis=1) == other.argmax(axis=1)).mean()
        ten = [
            len(set(a) & set(b)) / 10
            for a, b in zip(
                np.argsort(exact, axis=1)[:, -10:], np.argsort(other, axis=1)[:, -10:], strict=True
            )
        ]
        divergence = (np.exp(exact) * (exact - other)).sum(axis=1)
        print(
            f"{name:<8}{size:>8.2f}{first:>9.1%}{np.mean(ten):>9.1%}"
            f"{divergence.mean():>11.2e}{divergence.max():>11.2e}"
        )


if __name__ == "__main__":
    main()
