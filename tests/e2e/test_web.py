"""`--web`: the page in a real browser, and its module in three engines."""

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wasmtime
from browser import Browser, Page, Server, chromium
from checkpoints import write_checkpoint
from unavailable import Unavailable
from unit.test_chat import BITNET_2B_4T
from wasm_module import Module

from bitnetc import resources
from bitnetc.reference import Reference
from bitnetc.web import publish
from e2e.built import EXAMPLE, Built
from e2e.test_chat import give_template
from e2e.test_mistakes import assert_refused, bitnetc

TARGET = "wasm32-simd128"
EXAMPLES = Path(__file__).parents[2] / "examples" / "browser"
PROMPT = '"My dear Mr. Bennet," said his lady'
IDS = [int(i) for i in np.random.default_rng(5).integers(0, 4096, 70)]

SIZES = [(360, 740), (740, 360), (768, 1024), (1280, 800)]


@pytest.fixture(scope="module")
def web(built: Callable[..., Built]) -> Path:
    return built(EXAMPLE, TARGET, name="austen", web=True)[2] / "web"


@pytest.fixture(scope="module")
def browser(unavailable: Unavailable) -> Iterator[Browser]:
    if not chromium():
        unavailable(TARGET, "Chromium is not installed")
    with Browser("--host-resolver-rules=MAP page.test 127.0.0.1") as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.page()
    opened.look(1280, 800, "light")
    yield opened
    opened.close()


def description(web: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((web / "model.json").read_text())
    return found


def parts(web: Path) -> list[str]:
    return [part["file"] for part in description(web)["parts"]]


def ready(page: Page) -> None:
    page.until("document.body.dataset.state === 'ready'")


def choose(page: Page, **settings: object) -> None:
    for name, value in settings.items():
        name = json.dumps(name.replace("_", "-"))
        page.run(f"document.getElementById({name}).value = {json.dumps(str(value))}")


def answer(page: Page) -> str:
    """What the model has said last."""
    return str(page.run("[...document.querySelectorAll('.said')].pop()?.textContent ?? ''"))


def native(program: Path, *arguments: object, stdin: bytes = b"") -> str:
    words = [str(word) for word in (program, "-q", *arguments)]
    done = subprocess.run(words, input=stdin, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


# ---- the folder ----


def test_only_the_module_is_special(web: Path) -> None:
    """Code without imports in less than 300 KB; everything else are plain files beside it."""
    code = (web / "austen.wasm").read_bytes()
    assert len(code) < 300_000
    module = wasmtime.Module(wasmtime.Engine(), code)
    assert not module.imports
    assert {"take", "start", "read", "next"} <= {export.name for export in module.exports}
    info = description(web)
    assert info["module"]["sha256"] == hashlib.sha256(code).hexdigest()
    assert info["module"]["integrity"].removeprefix("sha256-") == (
        base64.b64encode(hashlib.sha256(code).digest()).decode()
    )
    image = b"".join((web / name).read_bytes() for name in parts(web))
    assert len(image) == info["image_bytes"]
    weights = (web.parent / "src" / "weights.bin").read_bytes()
    tables = (web.parent / "src" / "tokenizer.bin").read_bytes()
    assert image[: len(weights)] == weights and image[-len(tables) :] == tables
    assert (len(image) - len(tables)) % 64 == 0


def test_nothing_from_elsewhere(web: Path) -> None:
    """No address of another server in any file of the page, and a policy that allows none."""
    for path in web.iterdir():
        if path.suffix in (".html", ".js", ".css", ".json"):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(https?:)?//[\w-]+\.\w", text), path.name
    policy = re.search(
        r'Content-Security-Policy" content="([^"]*)"', (web / "index.html").read_text()
    )
    assert policy and "default-src 'none'" in policy[1] and "unsafe-inline" not in policy[1]
    assert "connect-src 'self'" in policy[1] and "unsafe-eval'" not in policy[1].replace(
        "wasm-unsafe-eval'", ""
    )


def test_other_targets_are_refused(tmp_path: Path) -> None:
    done = bitnetc("compile", EXAMPLE, "--target", "scalar", "--web", "-o", tmp_path / "out")
    assert_refused(done, "--web", "WebAssembly", "--target wasm32-simd128")
    assert not (tmp_path / "out").exists()


def test_contrast() -> None:
    """Text and its ground differ by 4.5 to 1, as WCAG asks, in light and dark."""
    style = (resources.TEMPLATES / "web" / "style.css").read_text()
    schemes = [
        dict(re.findall(r"--([a-z-]+): (#\w{6});", part)) for part in style.split("@media")[:2]
    ]

    def light(colour: str) -> float:
        linear = []
        for at in (1, 3, 5):
            value = int(colour[at : at + 2], 16) / 255
            linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colours in schemes:
        assert len(colours) >= 9
        for text, grounds in {
            "ink": ("paper", "raised", "tint"),
            "soft": ("paper", "raised"),
            "accent": ("paper",),
            "alarm": ("paper",),
            "on-accent": ("accent",),
        }.items():
            for ground in grounds:
                high, low = sorted((light(colours[text]), light(colours[ground])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


# ---- bits ----


# In the page and in Node.js: SHA-256 of the logits of IDS, one at a time and then seven at a time.
LOGITS_JS = """
async (base) => {
  const model = await bitnetc.load(base);
  model.start(512);
  const ids = %s;
  const found = [];
  for (const step of [1, 7]) {
    model.reset();
    const all = [];
    for (let at = 0; at < ids.length; at += step)
      all.push(...new Uint32Array(model.evaluate(ids.slice(at, at + step)).slice().buffer));
    const bytes = new Uint8Array(Uint32Array.from(all).buffer);
    const digest = await crypto.subtle.digest("SHA-256", bytes);
    found.push(Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join(""));
  }
  return found;
}
""" % json.dumps(IDS)  # noqa: UP031


@pytest.fixture(scope="module")
def expected(built: Callable[..., Built]) -> list[str]:
    """What LOGITS_JS must find, by the numpy reference."""
    model, plan, _ = built(EXAMPLE, TARGET, name="austen", web=True)
    logits = Reference(model, plan.context).logits(IDS)
    return [hashlib.sha256(logits[step - 1 :: step].tobytes()).hexdigest() for step in (1, 7)]


def test_bits_in_wasmtime(web: Path, expected: list[str]) -> None:
    module = Module(web, 512)
    assert module.started == 0
    for step, digest in zip((1, 7), expected, strict=True):
        module.call("reset")
        steps = [IDS[at : at + step] for at in range(0, len(IDS), step)]
        logits = b"".join(module.logits(ids) for ids in steps)
        assert hashlib.sha256(logits).hexdigest() == digest


def test_bits_in_chromium(web: Path, page: Page, expected: list[str]) -> None:
    with Server(web) as server:
        page.open(server.url)
        ready(page)
        assert page.run(f"({LOGITS_JS})({json.dumps(server.url)})") == expected


def test_bits_in_node(web: Path, expected: list[str], unavailable: Unavailable) -> None:
    node = shutil.which("node") or unavailable(TARGET, "Node.js is not installed")
    with Server(web) as server:
        code = f"require({json.dumps(str(web / 'model.js'))});"
        code += f"({LOGITS_JS})({json.dumps(server.url)}).then((f) => console.log(f.join(' ')))"
        done = subprocess.run([node, "-e", code], capture_output=True, text=True)
    assert done.stdout.split() == expected, done.stderr


def test_hash(web: Path) -> None:
    """SHA-256 at every length around its blocks, whole and in uneven pieces."""
    module = Module(web, 16)
    data = np.random.default_rng(1).bytes(400)
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 300, 400):
        text = data[:size]
        pieces = [text[at : at + 37] for at in range(0, size, 37)]
        digest = hashlib.sha256(text).hexdigest()
        assert module.hash([text]) == digest and module.hash(pieces) == digest


def test_what_the_module_refuses(web: Path) -> None:
    """No memory, a session of the wrong size, too much input: an answer, never a trap."""
    module = Module(web, 8)
    assert module.started == 0
    assert module.call("take", 2**31 - 1) == 0
    assert module.call("input", 16 * 8 + 4096) and not module.call("input", 16 * 8 + 4097)
    assert module.call("read", 64) == -1
    assert not module.evaluate([-1]) and not module.evaluate([4096]) and not module.evaluate([])
    assert not module.call("evaluate", -3) and not module.evaluate([1] * 9)
    text = b"It is a truth universally acknowledged, that a single man"
    module.write(text)
    assert module.call("prompt", len(text)) < 0
    assert module.call("prompt", 5) == 3 and module.call("read", 64) == 0
    sizes = [module.call("next", 0.0, 0, 1.0) for _ in range(8)]
    assert min(sizes[:5]) >= 0 and sizes[6:] == [-2, -2]
    for context in (0, -1, 513):
        assert module.call("start", module.image, context) == -1


# ---- the page ----


def test_from_loading_to_offline(
    web: Path, page: Page, built: Callable[..., Built], tmp_path: Path
) -> None:
    """Progress, a streamed text that is the program's, stop, and then without any server."""
    program = built(EXAMPLE, "native", name="austen")[2] / "bin" / "austen"
    (part,) = parts(web)
    with Server(web) as server:
        server.slow[part] = 3e6
        page.open(server.url)
        seen = []
        page.until("document.querySelector('progress').value > 0")
        while page.run("document.body.dataset.state") == "loading":
            seen.append(page.run("document.querySelector('progress').value"))
        assert seen == sorted(seen) and len(set(seen)) >= 5 and 0 < seen[0] < 0.5
        ready(page)
        assert page.run("document.activeElement.id") == "text"
        assert server.log.count(f"/{part}") == 1

        choose(page, seed=3, most=120, temperature=0.8, top_k=40, top_p=0.95)
        page.write(PROMPT)
        page.press("Enter")
        grown = [answer(page)]
        while page.run("document.body.dataset.state") == "busy":
            grown.append(answer(page))
        assert len(set(grown)) >= 3 and all(b.startswith(a) for a, b in itertools.pairwise(grown))
        options = ("--temp", 0.8, "--top-k", 40, "--top-p", 0.95, "--seed", 3, "-t", 1)
        # -q prints what follows the prompt
        assert answer(page) == PROMPT + native(program, "-p", PROMPT, "-n", 120, *options)[:-1]
        assert "tokens/s, 120 tokens" in page.text(".after") and "MB of memory" in page.text(
            "#facts"
        )

        # On from there: the text is that of 200 tokens at once.
        choose(page, most=80)
        page.run("[...document.querySelectorAll('.after button')].pop().click()")
        ready(page)
        assert answer(page) == PROMPT + native(program, "-p", PROMPT, "-n", 200, *options)[:-1]

        # A long text is read in steps, and they are shown.
        page.run(
            "globalThis.steps = [], new MutationObserver(() => "
            "steps.push(document.getElementById('status').textContent))"
            ".observe(document.getElementById('status'), { childList: true })"
        )
        choose(page, most=1)
        page.write("of the house of the LORD " * 30)
        page.press("Enter")
        ready(page)
        steps = [re.match(r"Reading: (\d+) of (\d+) tokens", said) for said in page.run("steps")]
        assert len([int(step[1]) for step in steps if step]) >= 2

        # Stop, by the key and by the button.
        for stop in (lambda: page.press("Escape"), lambda: page.click("#stop")):
            choose(page, most=500, temperature=0)
            page.write("And it came to pass")
            page.press("Enter")
            page.until("[...document.querySelectorAll('.said')].pop().textContent.length > 60")
            stop()
            ready(page)
            stopped = answer(page)
            greedy = native(program, "-p", "And it came to pass", "-n", 490, "--temp", 0, "-t", 1)
            assert ("And it came to pass" + greedy).startswith(stopped)
            assert len(stopped) < len(greedy) and "stopped" in page.text(
                "article:last-child .after"
            )
        assert page.complaints() == []

        # Again: the server is asked for the page only.
        page.until("navigator.serviceWorker.controller !== null")
        server.log.clear()
        page.open(server.url)
        ready(page)
        assert page.run("document.body.dataset.cached") == "true"
        assert not [path for path in server.log if path.endswith((".bin", ".wasm"))]
        assert "/model.json" in server.log
        address = server.url
    page.open(address + "?offline")
    ready(page)
    choose(page, most=5, seed=1)
    page.write("It is")
    page.press("Enter")
    page.until("document.querySelector('.after p')")
    assert answer(page).startswith("It is") and len(answer(page)) > 5


def test_without_https(web: Path, page: Page) -> None:
    """As from a phone in the same network: no Cache, and files are compared all the same."""
    with Server(web) as server:
        server.spoil.update(parts(web))
        page.open(server.url.replace("127.0.0.1", "page.test"))
        assert "damaged" in problem(page)
        assert page.run("isSecureContext || 'caches' in window") is False
        server.spoil.clear()
        page.click("#again")
        ready(page)
        choose(page, most=3)
        page.write("It is")
        page.press("Enter")
        page.until("document.querySelector('.after p')")
        assert len(answer(page)) > 5


def test_keyboard(web: Path, page: Page) -> None:
    with Server(web) as server:
        page.open(server.url)
        ready(page)
        assert page.run("document.getElementById('send').disabled")
        page.press("Enter")
        assert page.run("document.querySelector('article')") is None
        page.write("One")
        one = page.run("document.getElementById('text').offsetHeight")
        page.press("Enter", 8)
        page.write("two")
        assert page.run("document.getElementById('text').value") == "One\ntwo"
        assert page.run("document.getElementById('text').offsetHeight") > one
        choose(page, most=3)
        page.press("Enter")
        page.until("document.querySelector('.after p')")
        assert page.run("document.getElementById('text').value") == ""
        assert answer(page).startswith("One\ntwo")
        page.click("#fresh")
        assert page.run("document.querySelector('article')") is None
        # What is too long is said, and stays where it was written.
        page.write("word " * 600)
        page.press("Enter")
        page.until("document.getElementById('status').textContent.includes('does not fit')")
        assert page.run("document.getElementById('text').value.length") == 3000
        # Wrong settings are shown and not used.
        page.click("#tune")
        choose(page, temperature=-1, top_p=7, most=0)
        assert page.run("document.querySelectorAll('input:invalid').length") == 3
        page.click("#defaults")
        assert page.run("document.querySelectorAll('input:invalid').length") == 0


def test_every_control_has_a_name(web: Path, page: Page) -> None:
    with Server(web) as server:
        page.open(server.url)
        ready(page)
        page.click("#tune")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            named.setdefault(node["role"]["value"], []).append(name.strip())
    for role in ("button", "textbox", "spinbutton", "log", "form", "navigation", "heading"):
        assert named[role] and all(named[role]), role
    assert len(named["spinbutton"]) == 5 and "status" in named


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_screen(web: Path, page: Page, scheme: str, tmp_path: Path) -> None:
    """Nothing is wider than the screen, in any state; colours follow the scheme."""
    with Server(web) as server:
        page.open(server.url)
        ready(page)
        choose(page, most=40, seed=1)
        page.write("An unbreakable " + "w" * 300)
        page.press("Enter")
        page.until("document.querySelector('.after p')")
        for width, height in SIZES:
            page.look(width, height, scheme)
            for opened in (False, True):
                if opened:
                    page.click("#tune")
                page.screenshot(tmp_path / f"{width}-{scheme}-{opened}.png")
                wide = page.run(
                    "[document.documentElement, ...document.querySelectorAll('body, main *')]"
                    ".filter((e) => e.scrollWidth > innerWidth).length"
                )
                assert wide == 0
                assert page.run("document.documentElement.scrollHeight <= innerHeight")
                box = "document.getElementById('send').getBoundingClientRect()"
                assert page.run(f"{box}.right <= innerWidth && {box}.bottom <= innerHeight")
            page.click("#tune")
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(250, 249, 246)", "dark": "rgb(22, 23, 21)"}[scheme]


# ---- what goes wrong ----


def problem(page: Page) -> str:
    page.until("document.body.dataset.state === 'problem'")
    return page.text("#problem")


def test_without_simd(web: Path, page: Page) -> None:
    page.before_load("WebAssembly.validate = () => false")
    with Server(web) as server:
        page.open(server.url)
        said = problem(page)
        assert "no WebAssembly SIMD" in said and "Safari 16.4" in said
        assert not [path for path in server.log if path.endswith((".bin", ".wasm"))]


def test_from_a_file(web: Path, page: Page) -> None:
    page.open((web / "index.html").as_uri())
    assert "python3 -m http.server" in problem(page)


def test_failed_downloads(built: Callable[..., Built], page: Page, tmp_path: Path) -> None:
    """Each ends in one sentence; trying again asks only for what is missing."""
    model, plan, compiled = built(EXAMPLE, TARGET, name="austen", web=True)
    shutil.copytree(compiled, tmp_path / "out")
    publish(tmp_path / "out", "austen", plan, model, part_bytes=1 << 20)
    web = tmp_path / "out" / "web"
    first, *_, last = names = parts(web)
    assert len(names) >= 5
    with Server(web) as server:
        server.refuse[last] = 503
        page.open(server.url)
        said = problem(page)
        assert "answered 503" in said and last in said
        assert server.log.count(f"/{last}") == 3 and server.log.count(f"/{first}") == 1
        server.refuse.clear()
        server.cut.add(last)
        page.click("#again")
        assert "connection was lost" in problem(page)
        server.cut.clear()
        server.spoil.add(last)
        page.click("#again")
        assert "damaged" in problem(page)
        server.spoil.clear()
        page.click("#again")
        ready(page)
        assert all(server.log.count(f"/{name}") == 1 for name in names[:-1])
        # A new version: what it shares with the old one is not downloaded again.
        server.log.clear()
        (web / last).rename(web / f"new.{last}")
        info = (web / "model.json").read_text().replace(last, f"new.{last}")
        (web / "model.json").write_text(info)
        page.open(server.url + "?again")
        ready(page)
        assert [path for path in server.log if path.endswith(".bin")] == [f"/new.{last}"]
        kept = (
            "caches.open('bitnetc austen').then((c) => c.keys()).then((k) => k.map((r) => r.url))"
        )
        assert not [url for url in page.run(kept) if url.endswith(f"/{last}")]
        # What was damaged on this device is downloaded again.
        spoilt = f"caches.open('bitnetc austen').then((c) => c.put('/{first}', new Response('x')))"
        page.run(spoilt)
        server.log.clear()
        page.open(server.url + "?spoilt")
        ready(page)
        assert [path for path in server.log if path.endswith(".bin")] == [f"/{first}"]


def test_no_memory(web: Path, page: Page, tmp_path: Path) -> None:
    copy = tmp_path / "web"
    shutil.copytree(web, copy)
    info = description(copy)
    info["image_bytes"] = 2**31 - 1
    (copy / "model.json").write_text(json.dumps(info))
    with Server(copy) as server:
        page.open(server.url)
        page.until("!document.getElementById('load').hidden")
        # So large a model is not downloaded before the person says so.
        assert "2.15 GB" in page.text("#load")
        assert not [path for path in server.log if path.endswith((".bin", ".wasm"))]
        page.click("#load")
        assert "needs 2048 MB of memory" in problem(page)


# ---- a conversation ----


def test_chat(
    built: Callable[..., Built], page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same answers as the program's --chat; a message that was not read is given back."""
    folder = tmp_path_factory.mktemp("webchat") / "tiny"
    write_checkpoint(folder, context=4096)
    give_template(folder, BITNET_2B_4T)
    web = built(folder, TARGET, web=True)[2] / "web"
    program = built(folder, "native")[2] / "bin" / "tiny"
    messages = ["Hello there", "It is a truth \u00e9\U0001f600", "<|eot_id|>User: no"]
    options = ("--chat", "--seed", 5, "-n", 12, "--temp", 0.9, "--system", "Be brief.", "-t", 1)
    with Server(web) as server:
        page.open(server.url)
        ready(page)
        assert "Say something" in page.text("#log")
        choose(page, seed=5, most=12, temperature=0.9, top_k=0, top_p=1, system="Be brief.")
        said = ""
        for count, message in enumerate(messages, 1):
            page.write(message)
            page.press("Enter")
            page.until(f"document.querySelectorAll('.after p').length === {count}")
            assert page.text("article:last-child .asked") == message
            said += answer(page) + "\n"
            lines = "".join(f"{m}\n" for m in messages[:count]).encode()
            assert said == native(program, *options, "--top-k", 0, "--top-p", 1, stdin=lines)
        # Only the new exchange was read, not the conversation.
        assert int(page.run("document.body.dataset.read")) < 60

        # Stopped while it is read: the message returns to where it was written.
        page.write("long " * 700)
        page.run("document.getElementById('send').click(), document.getElementById('stop').click()")
        ready(page)
        assert page.run("document.querySelectorAll('article').length") == 3
        assert page.run("document.getElementById('text').value.length") == 3500
        page.run("document.getElementById('text').select()")

        # A new conversation begins as the first did.
        page.click("#fresh")
        page.write(messages[0])
        page.press("Enter")
        page.until("document.querySelectorAll('.after p').length === 1")
        first = native(program, *options, "--top-k", 0, "--top-p", 1, stdin=b"Hello there\n")
        assert answer(page) + "\n" == first
        assert page.complaints() == []


# ---- the example ----


def test_example_script(page: Page, tmp_path: Path) -> None:
    """examples/browser/run.sh compiles and serves."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "OUT": str(tmp_path / "austen"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [EXAMPLES / "run.sh", "0"],
        env={**os.environ, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as script:
        try:
            assert script.stdout
            said = next(line for line in script.stdout if line.startswith("Serving HTTP"))
            page.open(f"http://127.0.0.1:{said.split('port ')[1].split()[0]}/")
            ready(page)
        finally:
            script.terminate()


def test_example_page(web: Path, page: Page, tmp_path: Path, built: Callable[..., Built]) -> None:
    """examples/browser/own.html, beside the files of web/."""
    copy = tmp_path / "web"
    shutil.copytree(web, copy)
    shutil.copy(EXAMPLES / "own.html", copy)
    program = built(EXAMPLE, "native", name="austen")[2] / "bin" / "austen"
    with Server(copy) as server:
        page.open(server.url + "own.html")
        page.until("document.querySelector('output').dataset.done")
        begun = "It is a truth universally acknowledged, that"
        text = begun + native(program, "-p", begun, "-n", 60, "--temp", 0, "-t", 1)[:-1]
        assert page.run("document.querySelector('output').textContent") == text
        favicon = [said for said in page.complaints() if not said.endswith("/favicon.ico")]
        assert favicon == []


def test_example_node(web: Path, built: Callable[..., Built], unavailable: Unavailable) -> None:
    node = shutil.which("node") or unavailable(TARGET, "Node.js is not installed")
    program = built(EXAMPLE, "native", name="austen")[2] / "bin" / "austen"
    words = [node, str(EXAMPLES / "write.js"), str(web), PROMPT]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PROMPT + native(program, "-p", PROMPT, "-n", 60, "--seed", 1, "-t", 1)
