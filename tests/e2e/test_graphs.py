"""The graphs that transformers lacks, written as changes to those it has, against the reference.

Embedding models: transformers' Qwen3 and Gemma 3 with each projection normalising its input and
quantising its weights and activations. Weight-only models: transformers as it is, since stored
values are the weights. Judged as in test_transformers.py.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import VARIANTS, VARIANTS_EMBEDDING, VARIANTS_LEVELS, write_checkpoint

from bitnetc.compiler import load
from bitnetc.reference import Floats, Reference
from e2e.test_transformers import SHORTENED, HalfCache, Judge, Recorder, Tally, torch, transformers

LENGTHS = (1, 2, 5, 17, 40)


def quantised(x: Any) -> Any:
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


class Projection(torch.nn.Module):  # type: ignore[misc]
    """RMSNorm, int8 codes per token, ternary weights by the mean of their magnitudes."""

    def __init__(self, weight: Any, norm: Any, eps: float) -> None:
        super().__init__()
        inverse = 1 / weight.abs().mean().clamp(min=1e-5)
        self.weight = (weight * inverse).round().clamp(-1, 1) / inverse
        self.norm, self.eps = norm, eps

    def rms_norm(self, x: Any) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.norm

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.linear(quantised(self.rms_norm(x)), self.weight)


class EmbeddingJudge(Judge):
    """transformers' backbone with such projections; "logits" are the states behind its norm."""

    def __init__(self, folder: Path) -> None:
        config = transformers.AutoConfig.from_pretrained(folder)
        stored = dict(safetensors(folder))
        kind = {"qwen3": transformers.Qwen3Model, "gemma3_text": transformers.Gemma3TextModel}
        self.model = kind[config.model_type](config).float().eval()
        self.model.set_attn_implementation(SHORTENED)
        plain = {name: value for name, value in stored.items() if "_proj.norm." not in name}
        self.model.load_state_dict(plain)
        self.codes = []
        for i, layer in enumerate(self.model.layers):
            for part, name in ((layer.self_attn, "self_attn"), (layer.mlp, "mlp")):
                for key, linear in list(part.named_children()):
                    if isinstance(linear, torch.nn.Linear):
                        norm = stored[f"layers.{i}.{name}.{key}.norm.weight"]
                        replaced = Projection(linear.weight.data, norm, config.rms_norm_eps)
                        setattr(part, key, replaced)
        self.listen()

    def logits(self, tokens: list[int]) -> Floats:
        self.codes = []
        cache = HalfCache(config=self.model.config)
        with torch.no_grad():
            out = self.model(torch.tensor([tokens]), past_key_values=cache)
        found: Floats = out.last_hidden_state[0].numpy()
        return found


def safetensors(folder: Path) -> Any:
    from safetensors.torch import load_file

    return {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}


class States(Recorder):
    def logits(self, tokens: list[int], cache: Any = None) -> Floats:
        return self.states(tokens, cache)


@pytest.mark.parametrize("name", VARIANTS_EMBEDDING)
def test_embedding_models(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", **VARIANTS[name])
    model = load(tmp_path / "model")
    ours, judge, tally = States(model), EmbeddingJudge(tmp_path / "model"), Tally()
    rng = np.random.default_rng(0)
    for length in itertools.islice(itertools.cycle(LENGTHS), 75):
        tally.add(ours, judge, [int(t) for t in rng.integers(0, model.shape.vocab, length)])
    # a norm magnifies what is small before it is quantised, and Gemma has eleven in a block
    tally.check(flips=3e-4)


def scaled_as_minicpm(model: Any, config: dict[str, Any]) -> None:
    """MiniCPM's graph: a Llama's with a scaled embedding, scaled residuals and scaled logits."""
    residual = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
    shrink = config["hidden_size"] / config["dim_model_base"]
    model.model.embed_tokens.register_forward_hook(lambda m, i, out: out * config["scale_emb"])
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(lambda m, i, out: out * residual)
        layer.mlp.down_proj.register_forward_hook(lambda m, i, out: out * residual)
    model.lm_head.register_forward_pre_hook(lambda m, inputs: (inputs[0] / shrink,))


@pytest.mark.parametrize("name", VARIANTS_LEVELS)
def test_weight_only_models(name: str, tmp_path: Path) -> None:
    minicpm = VARIANTS[name]["family"] == "bitcpm"
    write_checkpoint(tmp_path / "model", **VARIANTS[name])
    model = load(tmp_path / "model")
    assert model.float_activations
    config = dict(load_json(tmp_path / "model" / "config.json"))
    if minicpm:  # which transformers does not know
        write_json(tmp_path / "model" / "config.json", {**config, "model_type": "llama"})
    judge = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    ).eval()
    judge.set_attn_implementation(SHORTENED)
    if minicpm:
        scaled_as_minicpm(judge, config)
    ours, rng = Reference(model), np.random.default_rng(0)
    for length in LENGTHS:
        tokens = [int(t) for t in rng.integers(0, model.shape.vocab, length)]
        with torch.no_grad():
            cache = HalfCache(config=judge.config)
            theirs = judge(torch.tensor([tokens]), past_key_values=cache).logits[0].numpy()
        # no codes that could flip: sums in another order, and halves of the cache at their edges
        apart = np.abs(ours.logits(tokens) - theirs).max() / np.ptp(theirs)
        print(f"{length} tokens: logits differ by at most {apart:.1e} of their range")
        assert apart < 2e-4


def load_json(path: Path) -> Any:
    import json

    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    import json

    path.write_text(json.dumps(value))
