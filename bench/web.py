"""How fast the module of a web page is in each engine, beside programs for this machine.

    python bench/web.py                              examples/austen
    python bench/web.py --checkpoint DIR --context 1024
    python bench/web.py --rounds 9 --native x86_64-avx2

One thread everywhere: half of the context is read in steps of 64 tokens, then 128 one by one. In
each round every engine runs once, so that other work on the machine falls on all of them; the
median of the rounds counts.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mistakes  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, Page, Server, chromium  # noqa: E402
from wasm_module import Module  # noqa: E402

from bitnetc.compiler import Options, compile_model, load  # noqa: E402
from bitnetc.target import load_target, runs_here  # noqa: E402

WEB = "wasm32-simd128"
NATIVE = (
    "x86_64-avx512",
    "x86_64-avx2",
    "x86_64-sse4.1",
    "armv8.2-dotprod",
    "armv8-neon",
    "scalar",
)
Speeds = tuple[float, float]  # tokens a second: prefill, decode

RUN_JS = """
async (base, context, ids, prefill) => {
  globalThis.model ??= await bitnetc.load(base);
  model.start(context);
  const begun = performance.now();
  for (let at = 0; at < prefill; at += 64)
    model.evaluate(ids.slice(at, Math.min(at + 64, prefill)));
  const between = performance.now();
  for (let at = prefill; at < ids.length; at++) model.evaluate([ids[at]]);
  const ended = performance.now();
  return [1e3 * prefill / (between - begun), 1e3 * (ids.length - prefill) / (ended - between)];
}
"""


def in_chromium(page: Page, base: str, ids: list[int], prefill: int) -> Speeds:
    arguments = f"{json.dumps(base)}, {len(ids)}, {json.dumps(ids)}, {prefill}"
    found = page.run(f"({RUN_JS})({arguments})", patience=1200.0)
    return found[0], found[1]


def in_node(web: Path, base: str, ids: list[int], prefill: int) -> Speeds:
    """A process a round; its loading is not timed, and a first run warms the engine up."""
    arguments = f"{json.dumps(base)}, {len(ids)}, {json.dumps(ids)}, {prefill}"
    code = f"require({json.dumps(str(web / 'model.js'))}); const run = {RUN_JS};"
    code += f"run({arguments}).then(() => run({arguments})).then((f) => console.log(f.join(' ')))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    first, second = map(float, done.stdout.split())
    return first, second


def in_wasmtime(module: Module, ids: list[int], prefill: int) -> Speeds:
    module.call("reset")
    begun = time.perf_counter()
    for at in range(0, prefill, 64):
        module.evaluate(ids[at : min(at + 64, prefill)])
    between = time.perf_counter()
    for token in ids[prefill:]:
        module.evaluate([token])
    ended = time.perf_counter()
    return prefill / (between - begun), (len(ids) - prefill) / (ended - between)


def in_program(program: Path, positions: int, prefill: int) -> Speeds:
    """The program's own measurement, which has the same two parts."""
    words = [str(program), "--bench", "-t", "1", "-c", str(positions)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(prefill|decode) +\d+ tokens: ([\d.]+) tokens/s", said))
    assert f"prefill  {prefill} tokens" in said, said
    return float(found["prefill"]), float(found["decode"])


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    words.add_argument("--checkpoint", type=Path, default=ROOT / "examples" / "austen" / "model")
    words.add_argument("--context", type=int, help="to compile for; the model's own")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--native", nargs="*", default=NATIVE, help="targets to compare with")
    chosen = words.parse_args()
    model = load(chosen.checkpoint)
    with tempfile.TemporaryDirectory(prefix="bitnetc-web-") as scratch:
        runs: dict[str, Callable[[], Speeds]] = {}
        most = chosen.context or model.shape.context
        prefill = min(512, (most + 1) // 2)  # as the program's --bench does
        positions = prefill + min(128, most - prefill)
        for target in chosen.native:
            if runs_here(load_target(target)):
                options = Options(target, name="model", context=chosen.context)
                compile_model(model, options, Path(scratch) / target)
                program = Path(scratch) / target / "bin" / "model"
                runs[f"program for {target}"] = partial(in_program, program, most, prefill)
        options = Options(WEB, name="model", context=chosen.context, web=True)
        compile_model(model, options, Path(scratch) / WEB)
        web = Path(scratch) / WEB / "web"
        info = json.loads((web / "model.json").read_text())
        rng = random.Random(0)
        ids = [rng.randrange(info["vocab"]) for _ in range(positions)]
        print(f"{model.name}: {prefill} tokens, then {positions - prefill} one by one; one thread")
        print(f"module {info['module']['bytes']:,} bytes, image {info['image_bytes']:,} bytes")
        with Server(web) as server, Browser() as browser:
            if chromium():
                page = browser.page()
                page.open(server.url + "model.js")
                page.run("fetch('model.js').then((r) => r.text()).then((t) => (0, eval)(t))")
                version = browser.call("Browser.getVersion")["product"].replace("Headless", "")
                runs[version] = lambda: in_chromium(page, server.url, ids, prefill)
            if shutil.which("node"):
                version = subprocess.run(
                    ["node", "-v"], capture_output=True, text=True
                ).stdout.strip()
                runs[f"Node.js {version}"] = lambda: in_node(web, server.url, ids, prefill)
            module = Module(web, positions)
            runs["wasmtime"] = lambda: in_wasmtime(module, ids, prefill)
            found: dict[str, list[Speeds]] = {name: [] for name in runs}
            for _ in range(chosen.rounds + 1):
                for name, run in runs.items():
                    found[name].append(run())
        print(f"{'':28}{'reads':>10}{'writes':>10}   tokens/s, medians of {chosen.rounds} rounds")
        for name, speeds in found.items():  # the first round warms up
            reads, writes = (statistics.median(s[i] for s in speeds[1:]) for i in (0, 1))
            print(f"{name:28}{reads:10.0f}{writes:10.1f}")


if __name__ == "__main__":
    main()
