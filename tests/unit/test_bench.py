"""The programs of bench/ that compare engines: what they read, and what they make of it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import limits  # noqa: E402
import peer_models  # noqa: E402
import peers  # noqa: E402
import sparse  # noqa: E402

from bitnetc.compiler import load  # noqa: E402
from bitnetc.kernels import KERNELS  # noqa: E402
from bitnetc.model import Ternary  # noqa: E402
from bitnetc.target import load_target  # noqa: E402

# By its path: for other tests, `kernels` is the folder tests/kernels.
SPEC = importlib.util.spec_from_file_location("bench_kernels", BENCH / "kernels.py")
assert SPEC and SPEC.loader
kernels = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(kernels)

OURS = """\
model    bitnet-2b, x86_64-avx512, 2 threads
prefill  512 tokens: 131.2 tokens/s
depth    4000 tokens before the first that is decoded
decode   128 tokens: 24.1 tokens/s, 41.494 ms each
bytes    931.2 MB a token (521.0 ternary, 328.3 head, 81.9 cache): 22.44 GB/s
"""


def llama_bench(prompt: int, generated: int, rate: float, **more: object) -> dict[str, object]:
    """One entry of `llama-bench -o json`, without what nobody reads."""
    return {
        "cpu_info": "Intel(R) Xeon(R) Processor", "model_type": "bitnet-b1.58 2B",
        "model_size": 790000000, "n_threads": 2, "n_prompt": prompt, "n_gen": generated,
        "avg_ts": rate, "stddev_ts": 0.0, "samples_ts": [rate], **more,
    }  # fmt: skip


def test_output_of_a_compiled_program() -> None:
    assert peers.read_bitnetc(OURS) == peers.Run(131.2, 24.1, 931.2e6, 4000)
    with pytest.raises(peers.Unreadable, match="decode"):
        peers.read_bitnetc(OURS.replace("decode", "something"))


def test_output_of_llama_bench() -> None:
    tests = [llama_bench(512, 0, 104.5), llama_bench(0, 128, 12.75)]
    found = peers.read_llama_bench("ggml: some notice\n" + json.dumps(tests, indent=2))
    assert found == peers.Run(104.5, 12.75, 790e6)
    # decode after many tokens: llama.cpp's -d, ik_llama.cpp's -gp
    for entry in (
        llama_bench(0, 32, 9.5, n_depth=4000),
        llama_bench(4000, 32, 9.5, test="tg32@pp4000"),
    ):
        assert peers.read_llama_bench(json.dumps([entry])) == peers.Run(0.0, 9.5, 790e6, 4000)
    # one rate for a prompt and what follows is neither
    for wrong in ("", "[", "[]", json.dumps([llama_bench(512, 128, 30.0)])):
        with pytest.raises(peers.Unreadable):
            peers.read_llama_bench(wrong)


def test_engines_at_a_depth() -> None:
    """At a depth take part those that say how, as rows of their own."""
    engines = [
        peers.Engine("ours", "model --depth {depth}", against="a"),
        peers.Engine("peer", "bench -n 128", "bench -gp {depth},128", against="a", peer=True),
        peers.Engine("old", "bench -n 128", peer=True),
    ]
    flat = [(e.name, e.command) for e in peers.at_depth(engines, 0)]
    assert flat == [("ours", "model --depth 0"), ("peer", "bench -n 128"), ("old", "bench -n 128")]
    deep = [(e.name, e.against, e.command) for e in peers.at_depth(engines, 4000)]
    assert deep == [
        ("ours, depth 4000", "a, depth 4000", "model --depth 4000"),
        ("peer, depth 4000", "a, depth 4000", "bench -gp 4000,128"),
    ]
    listed = peers.engines_of(BENCH / "peers.toml")
    assert not any("{deep" in e.command + e.deep or "_tests}" in e.command for e in listed)
    deep_names = {e.name.removesuffix(", depth 4000") for e in peers.at_depth(listed, 4000)}
    left_out = [e.name for e in listed if e.name not in deep_names]
    assert all("bitnet.cpp" in name or "the example" in name for name in left_out), left_out
    assert len(left_out) == 6 and len(deep_names) + 6 == len(listed)


def test_ratios_are_taken_within_a_round() -> None:
    """The machine is half as fast in the second round, and an engine is missing from the third."""
    engines = [
        peers.Engine("ours", against="a"),
        peers.Engine("slow", against="a", peer=True),
        peers.Engine("fast", against="a", peer=True),
        peers.Engine("other", against="b", peer=True),
    ]
    rates = [("ours", 0, 30.0), ("slow", 0, 8.0), ("fast", 0, 10.0), ("other", 0, 99.0)]
    rates += [("ours", 1, 15.0), ("slow", 1, 4.0), ("fast", 1, 5.0), ("ours", 2, 90.0)]
    samples = [
        peers.Sample(number, name, 2, rate, rate, 1e9, 900_000_000, 0.0)
        for name, number, rate in rates
    ]
    lines = peers.table(engines, samples)
    assert lines[2] == "| ours | 2 | 30.0 | 3.00 | 30.0 | 3.00 | 30.0 |  | 900 |"
    assert lines[3] == "| slow | 2 | 6.0 | 0.80 | 6.0 | 0.80 | 6.0 |  | 900 |"
    assert lines[5].startswith("| other | 2 | 99.0 | 1.00 |")


def test_runs_are_kept_and_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both kinds of output through real processes, twice into one file."""
    (tmp_path / "ours.txt").write_text(OURS)
    (tmp_path / "peer.txt").write_text(json.dumps([llama_bench(0, 128, 12.05)]))
    (tmp_path / "engines.toml").write_text(f"""\
[paths]
here = "{tmp_path}"
[[engine]]
name = "ours"
command = "cat {{here}}/ours.txt"
[[engine]]
name = "theirs"
command = "cat {{here}}/peer.txt"
output = "llama-bench"
peer = true
bytes = 1e9
first = "true"
""")
    words = ["peers.py", str(tmp_path / "engines.toml"), "--rounds", "2", "--threads", "1,2"]
    words += ["--json", str(tmp_path / "runs.json")]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", words)
        peers.main()
    _, samples = peers.stored(tmp_path / "runs.json")
    assert [(s.round, s.threads, s.name) for s in samples[:6]] == [
        (0, 1, "ours"), (0, 1, "theirs"), (0, 2, "ours"), (0, 2, "theirs"),
        (1, 1, "theirs"), (1, 1, "ours"),
    ]  # fmt: skip
    assert samples[-1].round == 3 and samples[-2].bytes == 1e9
    assert all(s.rss > 0 for s in samples)
    assert samples[-2].first > 0.0 == samples[-1].first
    table = capsys.readouterr().out.splitlines()[-4:]
    assert table[0].startswith("| ours | 1 | 131.2 |  | 24.1 | 2.00 | 22.4 |")
    (tmp_path / "engines.toml").write_text("[[engine]]\nname = 'x'\nsped = 1\n")
    with pytest.raises(SystemExit, match="sped"):
        peers.main()


def test_limits() -> None:
    found = limits.read_limits(
        "multiply avx2-maddubs 1 151 152\nmultiply avx2-maddubs 2 300 301\n"
        "read 4k 1 0 13.1 13.5\nread 4k 1 2048 14.0 14.1\nread 4k 2 0 25.0 26.0\n"
        "read 4k 2 2048 30.0 30.7\n"
    )
    assert found[0] == limits.Limit("multiply", "avx2-maddubs", 1, 0, 151.0, 152.0)
    assert limits.table(found)[2:] == [
        "| multiply avx2-maddubs, G/s | 151 | 300 |",
        "| read 4k, GB/s | 13.1, 14.0 at 2048 | 25.0, 30.0 at 2048 |",
    ]


@pytest.mark.parametrize("kind", peer_models.TERNARY)
@pytest.mark.parametrize("head", peer_models.HEADS)
def test_random_models_are_gguf(tmp_path: Path, kind: str, head: str) -> None:
    """The reader finds the shape, every trit and finite numbers in what was written."""
    tiny = tiny_checkpoint()
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({**tiny.config, **shape, **heads}))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny.tokenizer))
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        peer_models.write(file, tmp_path, kind, head, "bitnet")
    model = load(path, ffn_activation="silu")
    matrix = model.blocks[0].w_down
    assert isinstance(matrix, Ternary)
    trits = matrix.load()
    assert trits.shape == (256, 512) and set(np.unique(trits)) == {-1, 0, 1}
    assert np.isfinite(model.embedding.load()).all()


def test_kernels_that_are_timed() -> None:
    target = load_target("x86_64-avx2")
    picked = {role: kernels.picked(target, role) for role in kernels.SHAPES}
    assert set(picked.values()) <= {k.name for k in target.kernels}
    found = sparse.contestants(target)
    assert {c.kernel.skips for c in found} == {"nothing", "rows", "columns"}
    assert {bool(c.gate) for c in found} == {True, False}
    assert all(c.kernel.layout.code.base == 3 for c in found)


def test_timing_programs_build_and_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = load_target("scalar")
    bench = kernels.Bench(KERNELS["scalar:i2_k64"], "wk", *kernels.SHAPES["wk"], 0, 64)
    lines = kernels.measure(target, [bench], 32, 1)
    timed = {tuple(words[3:6]) for words in lines if words[0] == "kernel" and float(words[6]) > 0}
    assert len(timed) == 4 and {"lut16", "stream", "dense", "attend"} <= {w[0] for w in lines}
    words = ["sparse", "--target=scalar", "--copies=1", "--rounds=1", "--tokens=2"]
    monkeypatch.setattr(sys, "argv", words)
    sparse.main()
    assert capsys.readouterr().out.count("1.00x") == 2 * len(sparse.DENSITIES)
    monkeypatch.setattr(sys, "argv", [*words, "--tokens=0"])
    with pytest.raises(SystemExit):
        sparse.main()
    assert "--tokens takes 1 to 256" in capsys.readouterr().err
