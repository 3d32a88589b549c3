"""Trains a small BitNet b1.58 language model on Jane Austen and the King James Bible.

The network is microsoft/bitnet-b1.58-2B-4T made small: ternary weights (one absmean scale per
matrix), 8-bit activations (one absmax scale per token), squared ReLU, grouped-query attention,
sub-norms before the output and down projections, tied embedding. It is trained from scratch with
quantisation in the loop and exported in the packed safetensors form of that checkpoint.

Usage:
    python train.py WORK --steps N                   # train; WORK keeps checkpoints and caches
    python train.py WORK --steps N --resume          # go on from the last checkpoint in WORK
    python train.py WORK --export DIR                # write the trained model to DIR
    python train.py WORK --sample "It is a truth"    # print a continuation

Add `--debs DIR` to take the text from Debian packages already downloaded (see corpus.py).
The run is decided by its arguments: same seed, same steps, same machine, same model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import corpus
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn

BOS = "<|begin_of_text|>"
EOS = "<|end_of_text|>"

# The pre-tokenisation pattern of Llama 3, which the 2B-4T checkpoint uses too.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Config:
    """Shape of the network. Sizes are in elements, `context` is in tokens."""

    vocab: int = 4096
    hidden: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 1024
    context: int = 512
    rope_theta: float = 10000.0
    eps: float = 1e-5


# Shapes by their number of parameters: the model beside this script, and the one of
# examples/freestanding.
SIZES = {
    "11m": Config(),
    "280k": Config(
        vocab=512, hidden=64, layers=5, heads=4, kv_heads=2, head_dim=16, ff=192, context=256
    ),
}


# ---------------------------------------------------------------- tokenizer


def train_tokenizer(texts: list[str], vocab: int) -> Tokenizer:
    """Trains a byte-level BPE of `vocab` entries, built node for node like Llama 3's.

    The two special tokens take the last two ids, and every byte has a token of its own, so any
    text can be encoded.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - 2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([BOS, EOS])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A",
                pair=f"{BOS} $A {BOS}:1 $B:1",
                special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
            ),
        ]
    )
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"tokenizer has {tokenizer.get_vocab_size()} entries, wanted {vocab}")
    return tokenizer


# ---------------------------------------------------------------- network


class TernaryMatmul(torch.autograd.Function):
    """y = W8A8-style product of int8 activation codes and ternary weights.

    Forward, for x [..., K] and w [N, K]:
        codes = round(x * sx), sx = 127 / max|x| per token      (int8 range)
        t     = clip(round(w / d), -1, 1), d = mean|w|          (per matrix)
        y     = (codes @ t.T) * d / sx
    Codes and ternary values are exact in bfloat16, so a bf16 matrix unit forms the exact integer
    sums and only the stored result is rounded. Backward treats both roundings as the identity
    (straight-through): dx = (dy * d) @ t, dw = dy.T @ (codes / sx).
    """

    @staticmethod
    def forward(ctx, x: Tensor, scales: Tensor, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        """Several `weights` [N_i, K] sharing one input give their outputs side by side.

        `scales` [sum N_i] holds each row's d, `dtype` is the type of the matrix products.
        """
        x = x.float()
        sx = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        codes = (x * sx).round().clamp(-128, 127).to(dtype)
        ternary = torch.cat(weights)
        ctx.save_for_backward(codes, sx, ternary, scales)
        ctx.rows = [w.shape[0] for w in weights]
        return F.linear(codes, ternary).float() * (scales / sx)

    @staticmethod
    def backward(ctx, dy: Tensor):
        codes, sx, ternary, scales = ctx.saved_tensors
        dx = (dy * scales).to(codes.dtype) @ ternary
        flat = (dy / sx).to(codes.dtype).flatten(0, -2)
        dw = (flat.t() @ codes.flatten(0, -2)).float()
        return dx.float(), None, None, *dw.split(ctx.rows)


class RoundWeight(torch.autograd.Function):
    """w / d rounded to {-1, 0, 1}, d = mean|w|, in `dtype`; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx, w: Tensor, d: Tensor, dtype: torch.dtype) -> Tensor:
        return (w / d).round().clamp(-1, 1).to(dtype)

    @staticmethod
    def backward(ctx, dt: Tensor):
        return dt, None, None


def absmean(w: Tensor) -> Tensor:
    """The scale d of a weight matrix: mean|w|, at least 1e-5. Scalar f32."""
    return w.detach().float().abs().mean().clamp(min=1e-5)


def ternary_linear(x: Tensor, weights: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Applies every master weight [N_i, K], quantised, to x [..., K]: outputs [..., N_i], f32."""
    scales = [absmean(w) for w in weights]
    rounded = [RoundWeight.apply(w, d, dtype) for w, d in zip(weights, scales, strict=True)]
    rows = [w.shape[0] for w in weights]
    per_row = torch.cat([d.expand(n) for d, n in zip(scales, rows, strict=True)])
    return TernaryMatmul.apply(x, per_row, dtype, *rounded).split(rows, -1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension, in f32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split pairing. x [batch, heads, time, dim], cos/sin [time, dim/2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, chunk: int = 128) -> Tensor:
    """Softmax attention of q (already scaled), k and v, each [batch, heads, time, dim].

    Queries are taken in chunks that see only the keys up to their own end, which saves nearly
    half the work. On a CPU this is faster than PyTorch's fused attention, whose backward pass
    does not use the bf16 matrix unit.
    """
    parts = []
    for start in range(0, q.shape[2], chunk):
        end = min(start + chunk, q.shape[2])
        scores = (q[:, :, start:end] @ k[:, :, :end].transpose(-1, -2)).float()
        key = torch.arange(end)
        hidden = key[None, :] > key[start:end, None]
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        parts.append(weights.to(v.dtype) @ v[:, :, :end])
    return torch.cat(parts, 2)


def channel_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout on x [batch, time, channels] with one mask for all positions of a window.

    It needs few random numbers, which on one CPU thread would otherwise take a quarter of the
    training time.
    """
    if not training or p == 0:
        return x
    keep = torch.rand(x.shape[0], 1, x.shape[2]) >= p
    return x * (keep / (1 - p))


class Block(nn.Module):
    """One transformer layer. Its state names are those of the published checkpoint."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.input_layernorm = nn.Parameter(torch.ones(c.hidden))
        self.post_attention_layernorm = nn.Parameter(torch.ones(c.hidden))
        self.attn_sub_norm = nn.Parameter(torch.ones(c.heads * c.head_dim))
        self.ffn_sub_norm = nn.Parameter(torch.ones(c.ff))

        def matrix(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * 0.02)

        self.q_proj = matrix(c.heads * c.head_dim, c.hidden)
        self.k_proj = matrix(c.kv_heads * c.head_dim, c.hidden)
        self.v_proj = matrix(c.kv_heads * c.head_dim, c.hidden)
        self.o_proj = matrix(c.hidden, c.heads * c.head_dim)
        self.gate_proj = matrix(c.ff, c.hidden)
        self.up_proj = matrix(c.ff, c.hidden)
        self.down_proj = matrix(c.hidden, c.ff)

    def forward(
        self, h: Tensor, cos: Tensor, sin: Tensor, dropout: float, dtype: torch.dtype
    ) -> Tensor:
        """h [batch, time, hidden] f32 -> same shape. `dropout` acts on both branch outputs."""
        c = self.c
        batch, time_, _ = h.shape

        a = rms_norm(h, self.input_layernorm, c.eps)
        q, k, v = ternary_linear(a, [self.q_proj, self.k_proj, self.v_proj], dtype)
        q = q.view(batch, time_, c.heads, c.head_dim).transpose(1, 2)
        k = k.view(batch, time_, c.kv_heads, c.head_dim).transpose(1, 2)
        v = v.view(batch, time_, c.kv_heads, c.head_dim).transpose(1, 2)
        group = c.heads // c.kv_heads
        o = causal_attention(
            (rotate(q, cos, sin) * c.head_dim**-0.5).to(dtype),
            rotate(k, cos, sin).to(dtype).repeat_interleave(group, 1),
            v.to(dtype).repeat_interleave(group, 1),
        )
        o = o.transpose(1, 2).reshape(batch, time_, -1)
        o = rms_norm(o, self.attn_sub_norm, c.eps)
        (o,) = ternary_linear(o, [self.o_proj], dtype)
        h = h + channel_dropout(o, dropout, self.training)

        b = rms_norm(h, self.post_attention_layernorm, c.eps)
        gate, up = ternary_linear(b, [self.gate_proj, self.up_proj], dtype)
        g = rms_norm(gate.relu().square() * up, self.ffn_sub_norm, c.eps)
        (g,) = ternary_linear(g, [self.down_proj], dtype)
        return h + channel_dropout(g, dropout, self.training)


class BitNet(nn.Module):
    """The language model; embedding and output layer share one (float) matrix."""

    def __init__(self, c: Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.c = c
        self.dropout = dropout
        self.embed_tokens = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.02)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.Parameter(torch.ones(c.hidden))
        freq = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angle = torch.outer(torch.arange(c.context).float(), freq)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """ids [batch, time] -> logits [batch, time, vocab] f32; products are done in `dtype`."""
        time_ = ids.shape[1]
        h = F.embedding(ids, self.embed_tokens)
        h = channel_dropout(h, self.dropout, self.training)
        for layer in self.layers:
            h = layer(h, self.cos[:time_], self.sin[:time_], self.dropout, dtype)
        h = rms_norm(h, self.norm, self.c.eps)
        return F.linear(h.to(dtype), self.embed_tokens.to(dtype)).float()


def loss_of(model: nn.Module, x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean cross entropy (nats per token) of targets y [batch, time] after inputs x."""
    return F.cross_entropy(model(x, dtype).flatten(0, 1), y.flatten())


# ---------------------------------------------------------------- data


@dataclass
class Data:
    """Encoded corpus: one id array per document, without special tokens."""

    tokenizer: Tokenizer
    train: list[np.ndarray]
    valid: dict[str, list[np.ndarray]]  # by source
    valid_bytes: dict[str, int]  # UTF-8 bytes of the same documents, plus one each for EOS

    @property
    def bos(self) -> int:
        return self.tokenizer.token_to_id(BOS)

    @property
    def eos(self) -> int:
        return self.tokenizer.token_to_id(EOS)


def load_data(work: Path, debs: Path | None, config: Config) -> Data:
    """Reads the corpus (kept in WORK after the first time) and trains or loads the tokenizer."""
    cache = work / "corpus.jsonl"
    if not cache.exists():
        documents = corpus.load(debs)
        lines = [json.dumps(vars(d)) for d in documents]
        cache.write_text("\n".join(lines), encoding="utf-8")
    documents = [corpus.Document(**json.loads(x)) for x in cache.read_text().splitlines()]

    path = work / "tokenizer.json"
    if not path.exists():
        texts = [d.text for d in documents if not d.held_out]
        train_tokenizer(texts, config.vocab).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))

    data = Data(tokenizer, [], {}, {})
    encoded = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    for document, encoding in zip(documents, encoded, strict=True):
        ids = np.array(encoding.ids, dtype=np.int64)
        if document.held_out:
            data.valid.setdefault(document.source, []).append(ids)
            size = len(document.text.encode()) + 1
            data.valid_bytes[document.source] = data.valid_bytes.get(document.source, 0) + size
        else:
            data.train.append(ids)
    return data


def epoch_windows(data: Data, context: int, seed: int, epoch: int) -> np.ndarray:
    """Cuts the shuffled documents into windows [count, context + 1] in a random order.

    Documents are joined as BOS text EOS. The cut starts at a random offset so that each epoch
    sees other windows. Every window begins with BOS, whatever the text before it was: a prompt
    given to the finished model looks just like that.
    """
    rng = np.random.default_rng([seed, epoch])
    parts = []
    for i in rng.permutation(len(data.train)):
        parts += [[data.bos], data.train[i], [data.eos]]
    stream = np.concatenate(parts)[rng.integers(context) :]
    count = len(stream) // context
    windows = np.full((count, context + 1), data.bos)
    windows[:, 1:] = stream[: count * context].reshape(count, context)
    return windows[rng.permutation(count)]


def validate(model: BitNet, data: Data, dtype: torch.dtype) -> dict[str, float]:
    """Loss on the held-out chapters in bits per byte, by source and over "all".

    Each chapter is read in windows of the full context which overlap by half; only the second
    half of a window counts (all of it in the first), so most tokens are predicted from at least
    half a context. EOS counts as one token and one byte.
    """
    context = model.c.context
    half = context // 2
    nats: dict[str, float] = {}
    model.eval()
    with torch.no_grad():
        for source, documents in data.valid.items():
            total = 0.0
            for ids in documents:
                text = np.concatenate([ids, [data.eos]])
                for start in range(0, max(len(text) - half, 1), half):
                    target = text[start : start + context]
                    before = text[start - 1] if start else data.bos
                    x = torch.from_numpy(np.concatenate([[before], target[:-1]]))[None]
                    y = torch.from_numpy(target.copy())
                    losses = F.cross_entropy(model(x, dtype)[0], y, reduction="none")
                    total += losses[half if start else 0 :].sum().item()
            nats[source] = total
    model.train()
    bits = {s: n / math.log(2) / data.valid_bytes[s] for s, n in nats.items()}
    bits["all"] = sum(nats.values()) / math.log(2) / sum(data.valid_bytes.values())
    return bits


# ---------------------------------------------------------------- training


def parameter_groups(model: BitNet) -> list[dict]:
    """AdamW groups: matrices (with weight decay), then norms (never decayed)."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return [{"params": matrices}, {"params": norms, "weight_decay": 0.0}]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then cosine down to a hundredth of it at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part)))


def train(args: argparse.Namespace, data: Data, config: Config) -> None:
    """Trains for `args.steps` steps and leaves the result in WORK/checkpoint.pt."""
    torch.manual_seed(args.seed)
    model = BitNet(config, args.dropout)
    optimizer = torch.optim.AdamW(
        parameter_groups(model), lr=args.lr, betas=(0.9, 0.95), fused=True
    )
    path = args.work / "checkpoint.pt"
    step, spent = 0, 0.0
    if args.resume and path.exists():
        state = torch.load(path, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        step, spent = state["step"], state["seconds"]
        print(f"resumed at step {step}", flush=True)

    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    run = torch.compile(loss_of, dynamic=False) if args.compile else loss_of

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": step,
            "seconds": spent + time.time() - begun,
            "args": {k: str(v) for k, v in vars(args).items()},
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    per_epoch = len(epoch_windows(data, config.context, args.seed, 0)) // args.batch
    tokens = args.batch * config.context
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{count:,} parameters, {tokens} tokens a step, {per_epoch} steps an epoch, "
        f"{args.steps / per_epoch:.1f} epochs",
        flush=True,
    )

    begun = saved = mark = time.time()
    marked_step, running = step, []
    epoch, windows = -1, np.empty(0)
    while step < args.steps:
        # The last, partly filled batch of an epoch is left out, so epochs have equal length.
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            windows = epoch_windows(data, config.context, args.seed, epoch)
        first = step % per_epoch * args.batch
        batch = torch.from_numpy(windows[first : first + args.batch])

        rate = learning_rate(step, args.steps, args.lr, args.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # b1.58 recipe: decay pulls weights towards zero, where they change their ternary value
        # most easily; it is dropped in the second half so that they can settle.
        optimizer.param_groups[0]["weight_decay"] = args.decay if step < args.steps / 2 else 0.0

        loss = run(model, batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), dtype)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running.append(loss.item())
        step += 1

        now = time.time()
        if step % args.log_every == 0 or step == args.steps:
            each = (now - mark) / (step - marked_step)
            print(
                f"step {step}/{args.steps} epoch {step / per_epoch:.2f} "
                f"loss {np.mean(running):.4f} lr {rate:.2e} {tokens / each:.0f} tokens/s "
                f"elapsed {(spent + now - begun) / 60:.1f} min "
                f"ETA {(args.steps - step) * each / 60:.1f} min",
                flush=True,
            )
            mark, marked_step, running = now, step, []
        if step % args.valid_every == 0 or step == args.steps:
            bits = validate(model, data, dtype)
            shown = ", ".join(f"{k} {v:.4f}" for k, v in bits.items())
            print(f"step {step} validation bits per byte: {shown}", flush=True)
            mark, marked_step = time.time(), step
        if now - saved > args.save_minutes * 60 or step == args.steps:
            save()
            saved = time.time()


# ---------------------------------------------------------------- export and use


def load_trained(work: Path, config: Config) -> BitNet:
    """The model of the last checkpoint in WORK, ready for use (no dropout)."""
    state = torch.load(work / "checkpoint.pt", weights_only=False)
    model = BitNet(config)
    model.load_state_dict(state["model"])
    return model.eval()


def pack_ternary(t: Tensor) -> Tensor:
    """Packs ternary t [N, K] (N divisible by 4) to U8 [N/4, K].

    Bits 2i and 2i+1 of row p hold the value, plus one, of row p + i*N/4.
    """
    fields = (t.to(torch.int8) + 1).to(torch.uint8).chunk(4)
    return fields[0] | fields[1] << 2 | fields[2] << 4 | fields[3] << 6


def checkpoint_tensors(model: BitNet) -> dict[str, Tensor]:
    """Tensors of the packed checkpoint by their published names."""
    bf16 = torch.bfloat16
    out = {
        "model.embed_tokens.weight": model.embed_tokens.detach().to(bf16),
        "model.norm.weight": model.norm.detach().to(bf16),
    }
    for i, layer in enumerate(model.layers):
        for name, value in layer.named_parameters():
            value = value.detach()
            part = ""
            if name.startswith(("q_", "k_", "v_", "o_", "attn_")):
                part = "self_attn."
            elif name.startswith(("gate_", "up_", "down_", "ffn_")):
                part = "mlp."
            full = f"model.layers.{i}.{part}{name}.weight"
            if value.dim() == 1:
                out[full] = value.to(bf16)
            else:
                d = absmean(value)
                out[full] = pack_ternary((value / d).round().clamp(-1, 1)).contiguous()
                out[full + "_scale"] = d.to(bf16).reshape(1)
    return out


def export(model: BitNet, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the model to `folder` in the form of microsoft/bitnet-b1.58-2B-4T (packed)."""
    c = model.c
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(checkpoint_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the library leaves it readable by its owner only
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": {
            "architectures": ["BitNetForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "hidden_act": "relu2",
            "hidden_size": c.hidden,
            "initializer_range": 0.02,
            "intermediate_size": c.ff,
            "max_position_embeddings": c.context,
            "model_type": "bitnet",
            "num_attention_heads": c.heads,
            "num_hidden_layers": c.layers,
            "num_key_value_heads": c.kv_heads,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "offline",
            },
            "rms_norm_eps": c.eps,
            "rope_theta": c.rope_theta,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": c.vocab,
        },
        "generation_config.json": {
            "bos_token_id": bos,
            "eos_token_id": [eos],
            "do_sample": True,
            "max_length": c.context,
            "temperature": 0.6,
            "top_p": 0.9,
        },
        "tokenizer_config.json": {
            "bos_token": BOS,
            "eos_token": EOS,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": c.context,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def sample(
    model: BitNet, tokenizer: Tokenizer, prompt: str, count: int, temperature: float, top_p: float
) -> str:
    """Continues `prompt` by at most `count` tokens. Temperature 0 takes the likeliest token."""
    ids = tokenizer.encode(prompt).ids
    for _ in range(count):
        recent = torch.tensor(ids[-model.c.context :])[None]
        logits = model(recent, torch.float32)[0, -1]
        if temperature == 0:
            chosen = int(logits.argmax())
        else:
            p, order = (logits / temperature).softmax(-1).sort(descending=True)
            p[p.cumsum(0) - p > top_p] = 0
            chosen = int(order[torch.multinomial(p, 1)])
        if chosen == tokenizer.token_to_id(EOS):
            break
        ids.append(chosen)
    return tokenizer.decode(ids)


def main() -> None:
    """Command line: see the top of the file."""
    parser = argparse.ArgumentParser(description="Train the Austen BitNet model.")
    parser.add_argument("work", type=Path, help="folder for checkpoints and caches")
    parser.add_argument("--debs", type=Path, help="folder of downloaded Debian packages")
    parser.add_argument("--steps", type=int, default=0, help="length of the whole run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="11m", help="parameters; 11m")
    parser.add_argument("--batch", type=int, default=8, help="windows of a full context a step")
    parser.add_argument("--lr", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay, first half")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16", help="of products")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile (needs a C++ compiler); about twice as fast",
    )
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--valid-every", type=int, default=500)
    parser.add_argument("--save-minutes", type=float, default=3)
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the packed checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="validate the last checkpoint")
    parser.add_argument("--sample", metavar="PROMPT", help="print a continuation")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.9)
    parser.add_argument("--tokens", type=int, default=200, help="length of the sample")
    args = parser.parse_args()

    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    config = SIZES[args.size]
    data = load_data(args.work, args.debs, config)
    if args.steps:
        train(args, data, config)
    if args.export:
        export(load_trained(args.work, config), data.tokenizer, args.export)
        print(f"exported to {args.export}")
    if args.evaluate:
        bits = validate(load_trained(args.work, config), data, torch.float32)
        print("validation bits per byte, f32: " + json.dumps(bits))
    if args.sample is not None:
        model = load_trained(args.work, config)
        torch.manual_seed(args.seed)
        print(sample(model, data.tokenizer, args.sample, args.tokens, args.temperature, args.top_p))


if __name__ == "__main__":
    main()
