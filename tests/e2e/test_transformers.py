"""The reference against transformers in float32, on the same checkpoints.

Two float32 programs that add in different orders differ in the last bits, and where a value lies
within that of a rounding boundary, its int8 code differs by one; everything computed from it then
differs visibly (transformers disagrees with itself in this way between its own two attention
implementations). So the codes that enter every matrix are compared too: almost all are equal, the
others are one apart, and every position that depends on equal codes only has equal logits.

transformers keeps keys and values in float32 here, the model's definition (docs/arithmetic.md,
rules 7 and 8) in float16, and what they are multiplied by in 13 bits: its cache, queries and
weights are rounded to match. One test takes transformers as it is.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TRANSFORMERS_VARIANTS, VARIANTS, write_checkpoint
from numpy.typing import NDArray

from bitnetc.compiler import load
from bitnetc.model import Model
from bitnetc.reference import Floats, Reference

torch = pytest.importorskip("torch")
torch._dynamo.config.disable = (
    True  # eager float32 is what we compare with; compiling takes minutes
)
transformers = pytest.importorskip("transformers")
from transformers.masking_utils import eager_mask  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "austen" / "model"
INPUTS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
Codes = NDArray[np.int8]


class HalfCache(transformers.DynamicCache):  # type: ignore[misc]
    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        return super().update(keys.half().float(), values.half().float(), *args, **kwargs)


def shortened(x: Any) -> Any:
    """13 significant bits, by the remainder that Dekker's splitting of a float leaves."""
    wide = x * 2049.0
    return wide - (wide - x)


def attention(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any
) -> tuple[Any, None]:
    """Softmax over shortened exponentials, of shortened queries; torch adds in its own order."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    score = shortened(query) @ key.transpose(2, 3) * scaling
    score = score + mask[..., : key.shape[2]] if mask is not None else score
    e = shortened(torch.exp(score - score.amax(-1, keepdim=True)))
    return (e @ value / e.sum(-1, keepdim=True)).transpose(1, 2).contiguous(), None


SHORTENED = "shortened"
transformers.AttentionInterface.register(SHORTENED, attention)
transformers.AttentionMaskInterface.register(SHORTENED, eager_mask)


class Recorder(Reference):
    """Keeps the codes that enter wq, wo, w_gate and w_down of each block, in that order."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.codes: list[Codes] = []
        roles = ("wq", "wo", "w_gate", "w_down")
        self._kept = {id(getattr(b, role)) for b in model.blocks for role in roles}

    def _linear(self, codes: Codes, scale: Floats, matrix: Any) -> Floats:
        if id(matrix) in self._kept:
            self.codes.append(codes)
        return super()._linear(codes, scale, matrix)


class Judge:
    """transformers' model with the codes that its linear layers compute with."""

    def __init__(self, folder: Path, as_it_is: bool = False) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        # Packed checkpoints keep their own type whatever is asked for, and a quantised model
        # forbids its own .float().
        self.model = torch.nn.Module.float(model).eval()
        if not as_it_is:
            self.model.set_attn_implementation(SHORTENED)
        self.codes: list[Codes] = []
        self.listen()

    def listen(self) -> None:
        for name, module in self.model.named_modules():
            if name.endswith(INPUTS) and type(module) is not torch.nn.Linear:
                module.register_forward_pre_hook(self._record)

    def _record(self, module: Any, inputs: tuple[Any, ...]) -> None:
        x = inputs[0][0]
        if getattr(module, "rms_norm", None) is not None:  # use_rms_norm
            x = module.rms_norm(x)
        scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
        self.codes.append((x * scale).round().clamp(-128, 127).to(torch.int8).numpy())

    def logits(self, tokens: list[int]) -> Floats:
        self.codes = []
        cache = HalfCache(config=self.model.config)
        with torch.no_grad():
            out = self.model(torch.tensor([tokens]), past_key_values=cache)
        found: Floats = out.logits[0].float().numpy()
        return found


class Tally:
    """What a comparison found."""

    def __init__(self) -> None:
        self.positions = self.same = self.codes = self.flipped = 0
        self.largest = self.largest_of_all = 0.0

    def add(self, ours: Recorder, judge: Judge, tokens: list[int]) -> None:
        ours.codes = []
        mine, theirs = ours.logits(tokens), judge.logits(tokens)
        clean = np.ones(len(tokens), bool)
        for a, b in zip(ours.codes, judge.codes, strict=True):
            apart = np.abs(a.astype(int) - b.astype(int))
            so_far = np.logical_and.accumulate(clean)  # what follows from a difference is no news
            assert apart[so_far].max(initial=0) <= 1
            self.codes += apart[so_far].size
            self.flipped += int((apart[so_far] > 0).sum())
            clean &= (apart == 0).all(-1)
        clean = np.logical_and.accumulate(clean)  # a position sees all before it
        difference = np.abs(mine - theirs).max(-1) / np.ptp(theirs)
        self.positions += len(tokens)
        self.same += int(clean.sum())
        self.largest = max(self.largest, float(difference[clean].max(initial=0)))
        self.largest_of_all = max(self.largest_of_all, float(difference.max()))
        assert (mine.argmax(-1) == theirs.argmax(-1))[clean].all()

    def check(self, flips: float = 1e-4) -> None:
        print(
            f"{self.same} of {self.positions} positions with equal codes: logits differ by at most "
            f"{self.largest:.1e} of their range ({self.largest_of_all:.1e} over all positions); "
            f"{self.flipped:,} of {self.codes:,} codes are the first to differ"
        )
        assert self.same >= 350, "too few positions to judge by"
        assert self.largest < 1e-3
        assert self.flipped <= flips * self.codes


# transformers no longer understands the config with which 2B-4T was first published, and divides.
@pytest.mark.parametrize("name", [n for n in TRANSFORMERS_VARIANTS if n != "2b4t-legacy-config"])
def test_random_models(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", **VARIANTS[name])
    model = load(tmp_path / "model")
    ours, judge, tally = Recorder(model), Judge(tmp_path / "model"), Tally()
    rng = np.random.default_rng(0)
    for length in itertools.islice(itertools.cycle((1, 2, 5, 17, 40)), 75):
        tally.add(ours, judge, [int(t) for t in rng.integers(0, model.shape.vocab, length)])
    tally.check()


def example_tokens() -> list[list[int]]:
    """Its own kind of text: the samples in its README and whatever else stands there."""
    text = (EXAMPLE.parent / "README.md").read_text()
    tokens = transformers.AutoTokenizer.from_pretrained(EXAMPLE)(text)["input_ids"][:1000]
    return [tokens[start : start + 6] for start in range(0, len(tokens), 6)]


def test_example_model() -> None:
    ours, judge, tally = Recorder(load(EXAMPLE)), Judge(EXAMPLE), Tally()
    for tokens in example_tokens():
        tally.add(ours, judge, tokens)
    tally.check()


def test_example_model_beside_transformers_as_it_is() -> None:
    """What 13 bits cost: less than a code that falls to the other side of its boundary."""
    ours, judge = Reference(load(EXAMPLE)), Judge(EXAMPLE, as_it_is=True)
    mine, theirs = (
        torch.tensor(np.concatenate([model.logits(tokens) for tokens in example_tokens()]))
        for model in (ours, judge)
    )
    same = (mine.argmax(-1) == theirs.argmax(-1)).float().mean()
    kl = torch.nn.functional.kl_div(
        mine.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True
    )
    print(f"{len(mine)} positions: {same:.1%} with the same most likely token, {kl:.1e} nats")
    assert same > 0.98 and kl < 1e-4
