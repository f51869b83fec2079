# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A headless Chromium for tests of pages: what it complains of, what is visible, clicks, pixels.

It is spoken to by the DevTools protocol over a pipe (JSON messages that end with a zero byte, to
file descriptor 3 and from 4), so that no driver and no package is needed. The fixture `browser`
(tests/conftest.py) starts one for all tests of a process:

    page = browser.open(path, width=1280)
    page.click("button")
    assert page.shown("figure") == 3
    assert page.problems == []

Without Chromium these tests are skipped; with DEFRCN_REQUIRE_BROWSER=1 they fail then.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path

import pytest
from PIL import Image

REQUIRED = "DEFRCN_REQUIRE_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
    # as root in a container: no sandbox, and /dev/shm may be small
    *("--no-sandbox", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--force-color-profile=srgb", "--hide-scrollbars", "--mute-audio"),
)
TIMEOUT = 60.0
COMPLAINTS = ("error", "warning", "assert")
CLICKS = 5  # tries to hit something on a page that moves
# The middle of an element in the window, once what is in the window has loaded and stands still;
# whether nothing covers it. That it was clicked will be noted.
PLACE = """async (selector) => {
  const one = document.querySelector(selector);
  if (!one) return null;
  const frame = () => new Promise(requestAnimationFrame);
  const inWindow = (box) => box.bottom > 0 && box.top < innerHeight;
  const loading = () =>
    [...document.images].some((one) => !one.complete && inWindow(one.getBoundingClientRect()));
  const place = () => {
    one.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
    return one.getBoundingClientRect();
  };
  let box = place(), before;
  do {
    before = box;
    await frame();
    await frame();
    box = place();
  } while (loading() || box.x !== before.x || box.y !== before.y);
  window.clickedByTest = false;
  const note = () => { window.clickedByTest = true; };
  one.addEventListener("click", note, {once: true, capture: true});
  const x = box.x + box.width / 2, y = box.y + box.height / 2;
  const top = document.elementFromPoint(x, y);
  return {x, y, free: top === one || one.contains(top)};
}"""
# Whether something takes room on the page and is not hidden by style.
SHOWN = "(one) => one.checkVisibility({visibilityProperty: true, opacityProperty: true})"


class BrowserError(AssertionError):
    """The browser ended, refused a command or did not answer in time."""


def executable() -> str:
    """The browser's path; without one the test is skipped, or fails where it is required."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    text = "no Chromium; as root: apt-get install -y chromium"
    if os.environ.get(REQUIRED) == "1" or os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


class Browser:
    """A browser process with an empty profile.

    Args:
        path: Its program.
        folder: For the profile and what the program prints.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._log = folder / "browser.log"
        self._number = 0
        self._rest = b""
        self._pages: dict[str, Page] = {}
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [path, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        # the shell gives the pipe the numbers that the browser expects
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        # MindSpore's allocator is not for it; its settings stay out of the user's
        own = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
        inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "browser", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_browser, from_browser),
                env={**inherited, **own},
            )
        os.close(to_browser)
        os.close(from_browser)

    def open(self, path: Path, *, width: int, height: int = 900) -> Page:
        """Show a file in a window of a size in CSS pixels; returns when all of it has loaded."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"], target)
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.command(f"{domain}.enable")
        page.resize(width, height)
        page.load(path)
        return page

    def close_page(self, page: Page) -> None:
        """Close a page."""
        self.command("Target.closeTarget", targetId=page.target)
        self._pages.pop(page.session)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrowserError, OSError):
            self.command("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def command(self, method: str, session: str = "", **arguments) -> dict:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if session:
            message["sessionId"] = session
        try:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise self._error(f"{method}: {error}") from error
        while True:
            answer = self.receive()
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise self._error(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def receive(self) -> dict:
        """The next message; an event of a page goes to that page as well."""
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else None
            if not part:
                raise self._error("it ended" if ready else f"no answer in {TIMEOUT:.0f} s")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        if message.get("sessionId") in self._pages and "method" in message:
            self._pages[message["sessionId"]].note(message["method"], message["params"])
        return message

    def _error(self, text: str) -> BrowserError:
        lines = deque(self._log.read_text(errors="replace").splitlines(), 8)
        return BrowserError("\n".join([f"browser: {text}", *lines]))


class Page:
    """A page of a browser; made by `Browser.open`.

    Attributes:
        problems: Errors and warnings of the console, exceptions, and files that did not load.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self.session, self.target = session, target
        self.problems: list[str] = []
        self._loaded = False

    def command(self, method: str, **arguments) -> dict:
        """Send a command to this page."""
        return self._browser.command(method, self.session, **arguments)

    def note(self, method: str, event: dict) -> None:
        """Take in what the browser tells of the page."""
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            exception = details.get("exception", {})
            self.problems.append(exception.get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in COMPLAINTS:
            values = (one.get("value", one.get("description")) for one in event["args"])
            self.problems.append(" ".join(map(str, values)))
        elif method == "Log.entryAdded" and event["entry"]["level"] in COMPLAINTS:
            entry = event["entry"]
            self.problems.append(f"{entry['text']} {entry.get('url', '')}".rstrip())
        elif method == "Network.loadingFailed" and not event.get("canceled"):
            self.problems.append(f"{event['type']}: {event['errorText']}")

    def load(self, path: Path) -> None:
        """Show a file."""
        self._loaded = False
        answer = self.command("Page.navigate", url=path.resolve().as_uri())
        assert "errorText" not in answer, (path, answer)
        while not self._loaded:
            self._browser.receive()

    def wait_for_problem(self, words: str) -> None:
        """Return when one of the problems has these words; none in the time limit is an error."""
        while not any(words in problem for problem in self.problems):
            self._browser.receive()

    def wait_until(self, expression: str) -> None:
        """Return when a JavaScript expression is true; in the time limit it has to be."""
        frame = "await new Promise(requestAnimationFrame)"
        self.run(f"(async () => {{ while (!({expression})) {frame}; }})()")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def dark(self, wanted: bool = True) -> None:
        """Have the page believe that the user prefers dark pages, or light ones."""
        value = "dark" if wanted else "light"
        features = [{"name": "prefers-color-scheme", "value": value}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def run(self, expression: str):
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def each(self, selector: str, function: str) -> list:
        """What a JavaScript function gives of each element that a CSS selector finds."""
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map({function})")

    def texts(self, selector: str) -> list[str]:
        """The text of each visible element, in the order of the page."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter({SHOWN})"
            ".map((one) => one.innerText.trim())"
        )

    def shown(self, selector: str) -> int:
        """How many elements are visible."""
        return len(self.texts(selector))

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of the first element that a selector finds.

        It is brought to the middle of the window first; something that lies above it is an error.
        Where the page still moved, so that the mouse missed it, it is done again.
        """
        for _ in range(CLICKS):
            found = self.run(f"({PLACE})({json.dumps(selector)})")
            assert found is not None, f"nothing on the page is {selector}"
            assert found["free"], f"something covers {selector}"
            for kind in ("mousePressed", "mouseReleased"):
                place = {"x": found["x"], "y": found["y"], "button": "left", "clickCount": 1}
                self.command("Input.dispatchMouseEvent", type=kind, **place)
            if self.run("window.clickedByTest"):
                return
        raise BrowserError(f"{CLICKS} clicks did not get to {selector}")

    def load_images(self) -> int:
        """Load all pictures, also those that wait until they are scrolled to; how many there are.

        One that cannot be shown is an error.
        """
        count, broken = self.run(
            """(async () => {
              const images = [...document.images];
              for (const one of images) one.loading = "eager";
              await new Promise(requestAnimationFrame);
              for (const one of images) while (!one.complete) await new Promise((go) => {
                one.addEventListener("load", go);
                one.addEventListener("error", go);
              });
              const broken = images.filter((one) => !one.naturalWidth);
              return [images.length, broken.map((one) => one.currentSrc || one.src)];
            })()"""
        )
        assert not broken, f"pictures that cannot be shown: {broken}"
        return count

    def overflow(self) -> float:
        """By how many pixels the page is wider than its window: 0 if nothing is cut off."""
        return self.run("document.scrollingElement.scrollWidth - innerWidth")

    def screenshot(self, *, whole: bool = False) -> Image.Image:
        """What the window shows, RGB; or the whole page."""
        clip = self._clip() if whole else {}
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        return Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")

    def _clip(self) -> dict:
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def close(self) -> None:
        """Close the page."""
        self._browser.close_page(self)
