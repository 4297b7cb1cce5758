"""Chromium without a screen, for the tests of pages: opened once for a look, or driven as its user would.

`open_page` runs it on a file and gives what it wrote and logged. `Browser` speaks the DevTools protocol (devtools-protocol
at chromedevtools.github.io) with a page: clicks, keys and dropped files are the browser's own input events, not scripts'.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 120
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
_KEYS = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
         "ArrowDown": 40, "Tab": 9, " ": 32, "0": 48, "+": 187, "-": 189}  # fmt: skip


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def command_line(chromium: str, folder: Path, *words: str) -> list[str]:
    """What runs it with a profile below `folder`."""
    return [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", *words,
    ]  # fmt: skip


def open_page(chromium: str, folder: Path, page: Path, *words: str) -> tuple[str, str]:
    """Open a file and leave; its standard output and what it logs, the page's console among it."""
    command = command_line(chromium, folder, "--enable-logging=stderr", "--v=0", *words, page.as_uri())
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


class Browser:
    """One browser with one page. What the page says and asks for is kept: `console`, `requests`.

    Downloads land in `downloads` under the names that the page gives them.
    """

    def __init__(self, chromium: str, folder: Path) -> None:
        words = ("--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank")
        self._process = subprocess.Popen(
            command_line(chromium, folder, *words),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        self.downloads = folder / "downloads"
        self.console: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self._last = 0
        self._events: list[dict[str, Any]] = []
        self._socket = connect(self._address(), max_size=None, open_timeout=TIMEOUT_S)
        self._session: str | None = None
        self._begin()

    def _address(self) -> str:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := _LISTENING.search(line):
                return found[1].decode()
        raise AssertionError(f"Chromium ended with {self._process.wait()}")

    def _begin(self) -> None:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        self._socket.close()
        self._process.wait(TIMEOUT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    # ---- the protocol

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command; events that come before it are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            heard = json.loads(self._socket.recv(TIMEOUT_S))
            if heard.get("id") == self._last:
                assert "error" not in heard, (method, heard["error"])
                return heard["result"]
            if "method" in heard:
                self._hear(heard)

    def event(self, method: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The parameters of the next such event, which may have come already; it is taken out."""
        while True:
            for heard in self._events:
                if heard["method"] == method and wanted(heard["params"]):
                    self._events.remove(heard)
                    return heard["params"]
            self._hear(json.loads(self._socket.recv(TIMEOUT_S)))

    def _hear(self, heard: dict[str, Any]) -> None:
        method, params = heard["method"], heard["params"]
        self._events.append(heard)
        if method == "Network.requestWillBeSent":
            self.requests.append((params["request"]["method"], params["request"]["url"]))
        elif method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    # ---- what a user does and sees

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self._events = [heard for heard in self._events if heard["method"] != "Page.loadEventFired"]
        self.send("Page.navigate", url=url)
        self.event("Page.loadEventFired")

    def look(self, expression: str) -> Any:
        """The value of a script's expression in the page; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, expression: str) -> Any:
        """Wait until the expression is true in the page; its value."""
        return self.look(
            "new Promise((done, fail) => { const ends = Date.now() + 100000; const see = () => { const seen = ("
            f"{expression}); if (seen) done(seen); else if (Date.now() > ends) fail(new Error('never: ' + "
            f"{json.dumps(expression)})); else setTimeout(see, 10); }}; see(); }})"
        )

    def text(self, selector: str) -> str:
        return self.look(f"document.querySelector({json.dumps(selector)}).innerText")

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view, once it has come to rest."""
        x, y = self.look(
            f"new Promise((done) => {{ const one = document.querySelector({json.dumps(selector)}); let before = ''; "
            "const see = () => { one.scrollIntoView({block: 'nearest'}); const box = one.getBoundingClientRect(); "
            "const now = [box.x + box.width / 2, box.y + box.height / 2]; if (String(now) === before) done(now); "
            "else { before = String(now); requestAnimationFrame(() => requestAnimationFrame(see)); } }; see(); })"
        )
        return x, y

    def point(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        x, y = self.place(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name: str) -> None:
        code = {"windowsVirtualKeyCode": _KEYS[name], "key": name, "code": "Space" if name == " " else name}
        if name in ("Enter", " "):
            code["text"] = "\r" if name == "Enter" else " "
        self.send("Input.dispatchKeyEvent", type="keyDown", **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def write(self, text: str) -> None:
        """Into whatever has the focus."""
        self.send("Input.insertText", text=text)

    def drop(self, selector: str, *files: Path) -> None:
        """Drag files from outside over an element and let them go."""
        x, y = self.place(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, file: Path) -> None:
        """As in the dialog that a file's input opens."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def downloaded(self, click: str) -> Path:
        """Click on what downloads something; the file, whole."""
        self.click(click)
        begun = self.event("Browser.downloadWillBegin")
        self.event(
            "Browser.downloadProgress", lambda seen: seen["guid"] == begun["guid"] and seen["state"] == "completed"
        )
        return self.downloads / begun["suggestedFilename"]

    def appear(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """A window of this size, for a reader who likes it light or dark."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def screenshot(self) -> bytes:
        """PNG of what is in the window."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
