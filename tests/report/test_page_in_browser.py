"""The page in a real browser: narrow and wide screens, light and dark, no errors."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import PaperHead
from fastbert.report.data import ReportData
from fastbert.report.page import write_report
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel


class Browser:
    """Chromium without a window, told what to do through a pipe (DevTools protocol)."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._to = os.pipe()
        self._from, replies = os.pipe()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os, sys; os.dup2({commands}, 3); os.dup2({replies}, 4);"
                "os.execv(sys.argv[1], sys.argv[1:])",  # it talks through 3 and 4
                program,
                "--headless=new",
                "--no-sandbox",  # it does not start for root otherwise; the page is our own
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            pass_fds=(commands, replies),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        self._unread = b""
        self._last = 0
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    _session: str | None = None

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._last:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def evaluate(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def open(self, page: Path, width: int, scheme: str) -> None:
        """Show a page and wait until it is there."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[preference])
        self.complaints.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while self.evaluate("document.readyState") != "complete":
            pass

    def screenshot(self) -> bytes:
        """Return the whole page as PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        os.close(self._to)  # it ends when nobody can tell it anything any more
        self._process.wait(timeout=60)
        os.close(self._from)

    def _read(self) -> dict[str, Any]:
        """Return the next reply or event, and remember it if it complains."""
        while b"\0" not in self._unread:
            more = os.read(self._from, 1 << 20)
            assert more, "the browser is gone"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if message.get("method") in {
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
        }:
            self.complaints.append(json.dumps(message["params"]))
        return message


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser, one of {', '.join(names)}")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything a report can have, and words too long for any line."""
    exits, rows, classes = 6, 500, 3
    random = np.random.default_rng(3)
    truth = random.integers(0, classes, rows)
    logits = random.normal(size=(exits, rows, classes))
    logits[:, np.arange(rows), truth] += np.linspace(0.5, 4, exits)[:, None]
    point = {"accuracy": 0.9, "macro_f1": 0.89, "mean_exit_layer": 2.5, "speedup_flops": 2.25}
    epochs = [{"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.9} for epoch in (1, 2)]
    report = ReportData(
        name="<i>" + "model" * 30,
        task=SingleLabel(("no", "x" * 90, "<script>alert(1)</script>")),
        num_layers=exits,
        recorded=RecordedExits(logits),
        truth=truth,
        lengths=random.integers(3, 90, rows),
        shape=ModelShape(64, 256, exits, classes, (PaperHead(),) * (exits - 1)),
        texts=["<script>alert(1)</script> " + "long" * 50] * rows,
        points=[{"thresholds": [0.25] * (exits - 1), **point}],
        doubts=random.random((exits - 1, rows)),
        calibration={"rows": 500, "source": "/a/very/long/path" * 9},
        guarantees=[{"max_drop": 0.01, "metric": "accuracy", "refused": "too few rows " * 9}],
        timings=[
            {"speed": 0.0, "seconds": 9.0, "accuracy": 0.91},
            {"speed": 0.5, "seconds": 3.0, "accuracy": 0.9},
        ],
        history={"teacher": epochs, "students": [{**e, "speedup_flops": 2.0} for e in epochs]},
        facts={"machine": "m" * 120},
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(report, path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_the_screen_and_is_not_blank(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.open(page, width, scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    opened = "document.querySelectorAll('details').forEach(details => details.open = true)"
    browser.evaluate(f"{opened}, document.documentElement.scrollWidth")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width

    assert browser.complaints == []
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0

    shades = grey_levels(browser.screenshot())
    assert shades.std() > 10  # not one colour
    assert (shades.mean() < 128) == (scheme == "dark")


def test_one_of_the_two_drawings_is_shown(browser: Browser, page: Path) -> None:
    shown = (
        "[...document.querySelectorAll('figure svg')].filter(svg => svg.checkVisibility()).length"
    )
    for width in (400, 1400):
        browser.open(page, width, "light")
        figures = browser.evaluate("document.querySelectorAll('figure').length")
        assert browser.evaluate(shown) == figures


def test_letters_in_figures_are_large_enough(browser: Browser, page: Path) -> None:
    smallest = """Math.min(...[...document.querySelectorAll('figure svg text')]
        .filter(text => text.checkVisibility())
        .map(text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().d))"""
    for width in (400, 1400):
        browser.open(page, width, "light")
        assert browser.evaluate(smallest) >= 9


def test_what_scrolls_sideways_can_be_focused(browser: Browser, page: Path) -> None:
    browser.open(page, 400, "light")
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true), 0")
    unreachable = """[...document.querySelectorAll('*')].filter(element =>
        element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
        && getComputedStyle(element).overflowX === 'auto' && element.tabIndex !== 0).length"""
    assert browser.evaluate(unreachable) == 0


def grey_levels(png: bytes) -> np.ndarray:
    """Return the pixels of a PNG, 0 black to 255 white."""
    return np.asarray(255 * imread(io.BytesIO(png))[:, :, :3].mean(axis=-1))
