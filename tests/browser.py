"""Chromium without a window, driven through the pipe of its DevTools protocol, and a server of
static files that tests can slow down and spoil.

    with Server(folder) as server, Browser() as browser:
        page = browser.page()
        page.open(server.url)
        page.until("document.readyState === 'complete'")
        page.screenshot(path)
"""

import base64
import contextlib
import http.server
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0  # seconds until a wait is a failure
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser's program, where it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A browser with an empty profile of its own."""

    def __init__(self, *flags: str) -> None:
        program = chromium()
        assert program, "Chromium is not installed"
        self._profile = tempfile.mkdtemp(prefix="bitnetc-browser-")
        command_read, self._write = os.pipe()
        self._read, event_write = os.pipe()
        words = [
            program,
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",  # CI runs as root
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            f"--user-data-dir={self._profile}",
            *flags,
            "about:blank",
        ]
        # The protocol speaks on descriptors 3 and 4.
        given = {"BNC_IN": str(command_read), "BNC_OUT": str(event_write)}
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3<&"$BNC_IN" 4>&"$BNC_OUT"', "chromium", *words],
            pass_fds=(command_read, event_write),
            env={**os.environ, **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(event_write)
        self._held = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self.call("Browser.close", patience=5.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def page(self) -> "Page":
        """A new tab."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attach = {"targetId": target, "flatten": True}
        return Page(self, self.call("Target.attachToTarget", attach)["sessionId"])

    def call(
        self,
        method: str,
        parameters: dict[str, Any] | None = None,
        session: str | None = None,
        patience: float = PATIENCE,
    ) -> dict[str, Any]:
        """The result of one command; what happens meanwhile is added to `events`."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + patience
        while True:
            answer = self._message(end - time.monotonic())
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") != self._last:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self, seconds: float) -> dict[str, Any] | None:
        end = time.monotonic() + seconds
        while b"\0" not in self._held:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return None
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._held += chunk
        text, _, self._held = self._held.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, patience: float = PATIENCE, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, parameters, self._session, patience)

    def close(self) -> None:
        self.call("Page.close")
        self._browser.events.clear()

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def before_load(self, script: str) -> None:
        """Runs a script in every document before its own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def run(self, expression: str, patience: float = PATIENCE) -> Any:
        """The value of an expression; of a promise, what it becomes."""
        done = self.call(
            "Runtime.evaluate",
            patience,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def until(self, condition: str, patience: float = PATIENCE) -> None:
        """Waits for an expression to be true."""
        end = time.monotonic() + patience
        while True:
            with contextlib.suppress(RuntimeError):  # between two documents
                if self.run(f"Boolean({condition})"):
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}; the page says: {self.text('body')!r}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What a person reads of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def write(self, text: str) -> None:
        """Text into the element that has the focus, as from a keyboard."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key such as Enter or Escape; modifiers: 8 is Shift."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        more: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        more["modifiers"] = modifiers
        self.call("Input.dispatchKeyEvent", type="keyDown", **more, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def look(self, width: int, height: int, scheme: str, scale: float = 1.0) -> None:
        """The size of the screen in CSS pixels, and "light" or "dark"."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def offline(self, is_offline: bool) -> None:
        self.call(
            "Network.emulateNetworkConditions",
            offline=is_offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the browser and the page's scripts complained about since the last call."""
        self.run("0")
        found = []
        for event in self._browser.events:
            said = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
                found.append(f"{said['entry']['text']} {said['entry'].get('url', '')}".strip())
            elif event.get("method") == "Runtime.exceptionThrown":
                found.append(said["exceptionDetails"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and said["type"] == "error":
                found.append(" ".join(str(a.get("value", a)) for a in said["args"]))
        self._browser.events.clear()
        return found


class Server:
    """A folder over HTTP on this machine, as any server of static files serves it.

    Names that match are answered otherwise: `slow` sends bytes a second, `refuse` a status,
    `spoil` changes the last byte, `cut` ends in the middle. `log` has the paths asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        self.slow: dict[str, float] = {}
        self.refuse: dict[str, int] = {}
        self.spoil: set[str] = set()
        self.cut: set[str] = set()
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                name = path.rpartition("/")[2]
                server.log.append(path)
                if name in server.refuse:
                    self.send_error(server.refuse[name])
                    return
                file = self.send_head()
                if file is None:
                    return
                with file, contextlib.suppress(ConnectionError):
                    for chunk in server._chunks(name, file.read()):
                        self.wfile.write(chunk)

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _chunks(self, name: str, data: bytes) -> Iterator[bytes]:
        if name in self.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if name in self.cut:
            data = data[: len(data) // 2]
        rate = self.slow.get(name)
        if not rate:
            yield data
            return
        step = max(1, int(rate * 0.05))
        for at in range(0, len(data), step):
            yield data[at : at + step]
            time.sleep(0.05)
