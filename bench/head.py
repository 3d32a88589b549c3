"""How far logits of a rounded head are from those of the checkpoint's own.

    python bench/head.py                        the bundled example on its own kind of text
    python bench/head.py --text FILE MODEL      another checkpoint and text
    python bench/head.py --random 128256        so many rows of 2,560 normal weights

For each --head: the megabytes that a token reads; the share of positions whose most likely token is
the same, and of the ten most likely that are; the Kullback-Leibler divergence of the probabilities
(nats, mean and worst); of a screened head, how many rows are read exactly, mean and most. Random
states and weights have logits with a standard deviation of 3, as the example has.
"""

import argparse
import sys
from pathlib import Path

import mistakes  # noqa: F401
import numpy as np
import tokenizers
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bitnetc.compiler import load  # noqa: E402
from bitnetc.head import HEADS, integer_head  # noqa: E402
from bitnetc.model import Dense, Integers, Ternary  # noqa: E402
from bitnetc.reference import Reference, linear, quantise, screen_reach, screened  # noqa: E402

Floats = NDArray[np.float64]
Logits = NDArray[np.float32]
COLS, STATES, BLOCK = 2560, 32, 8192
# The opening of Persuasion, by Jane Austen.
TEXT = """Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own
amusement, never took up any book but the Baronetage; there he found occupation for an idle hour,
and consolation in a distressed one; there his faculties were roused into admiration and respect,
by contemplating the limited remnant of the earliest patents; there any unwelcome sensations,
arising from domestic affairs, changed naturally into pity and contempt as he turned over the
almost endless creations of the last century; and there, if every other leaf were powerless, he
could read his own history with an interest which never failed. This was the page at which the
favourite volume always opened."""


def log_softmax(logits: Logits) -> Floats:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    found: Floats = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return found


def product(codes: NDArray[np.int8], scale: Logits, matrix: Integers | Ternary) -> Logits:
    """Some rows at a time: the reference's product is in float64."""
    values, parts = matrix.load(), []
    for start in range(0, matrix.rows, BLOCK):
        kept = values[start : start + BLOCK]
        rows, scales = len(kept), matrix.scale[start : start + BLOCK]
        part = Integers(rows, matrix.cols, 8, scales, lambda: kept)  # noqa: B023
        parts.append(linear(codes, scale, part, kept))
    return np.concatenate(parts, axis=1)


def rounded(states: Logits, integers: Integers) -> tuple[Logits, NDArray[np.int64]]:
    """Logits, and of each position how many rows were read exactly."""
    codes, scale = quantise(states)
    exact = product(codes, scale, integers)
    if not integers.screen:
        return exact, np.full(len(states), integers.rows)
    rough = product(codes, scale, integers.screen.trits)
    y = screened(rough, exact, screen_reach(codes, scale), integers.screen.error)
    return y, (y != rough).sum(axis=1)


def random_head(rows: int) -> tuple[str, Dense, Logits, Logits]:
    random = np.random.default_rng(1)
    weights = random.standard_normal((rows, COLS), np.float32) * np.float32(3 / COLS**0.5)
    states = random.standard_normal((STATES, COLS), np.float32)
    head = Dense(rows, COLS, "f32", lambda: weights)
    return "normal weights", head, states, states @ weights.T


def model_head(path: Path, text: str) -> tuple[str, Dense | Ternary, Logits, Logits]:
    model = load(path)
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = tokenizer.encode(text).ids[: model.shape.context]
    reference = Reference(model)
    return model.name, model.head, reference.states(ids), reference.logits(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    example = ROOT / "examples" / "austen" / "model"
    parser.add_argument("model", nargs="?", type=Path, default=example)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--random", type=int, metavar="ROWS")
    arguments = parser.parse_args()
    text = arguments.text.read_text() if arguments.text else TEXT.replace("\n", " ")
    rows = arguments.random
    name, head, states, logits = random_head(rows) if rows else model_head(arguments.model, text)
    exact = log_softmax(logits)
    likely = np.argsort(exact, axis=1)[:, -10:]
    print(f"{name}: {len(states)} positions, {head.rows} tokens")
    print(f"{'--head':<8}{'MB':>8}{'top 1':>9}{'top 10':>9}{'KL mean':>11}{'KL worst':>11}  rows")
    for kind, bits in HEADS.items():
        integers = integer_head(head, kind)
        some = "all"
        if not integers:
            other, size = exact, 2.0 * head.rows * head.cols
        else:
            found, read = rounded(states, integers)
            other, size = log_softmax(found), bits / 8 * head.rows * head.cols
            if integers.screen:
                size = (head.rows / 5 + float(read.mean())) * head.cols
                some = f"{read.mean():.0f}, at most {read.max()}"
        first = (exact.argmax(axis=1) == other.argmax(axis=1)).mean()
        mine = np.argsort(other, axis=1)[:, -10:]
        ten = [len(set(a) & set(b)) / 10 for a, b in zip(likely, mine, strict=True)]
        divergence = (np.exp(exact) * (exact - other)).sum(axis=1)
        print(
            f"{kind:<8}{size / 1e6:>8.2f}{first:>9.1%}{np.mean(ten):>9.1%}"
            f"{divergence.mean():>11.2e}{divergence.max():>11.2e}  {some}"
        )


if __name__ == "__main__":
    main()
