# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Just enough of the WebDriver protocol to drive Debian's chromium by its chromedriver."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A headless window."""

    def __init__(self, width: int = 1280, height: int = 900, *, phone: bool = False, dark: bool = False) -> None:
        # The profile goes with the browser, so that nothing of it stays behind.
        self._profile = tempfile.TemporaryDirectory()
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        port = None
        while port is None:
            line = self._driver.stdout.readline()
            assert line, "chromedriver ended before it listened"
            port = re.search(r"successfully on port (\d+)", line)
        self._base = f"http://127.0.0.1:{port.group(1)}/session"
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            f"--user-data-dir={self._profile.name}",
            f"--window-size={width},{height}",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--lang=en-GB",
        ]
        options: dict[str, Any] = {"args": [*flags, *(["--force-dark-mode"] if dark else [])]}
        if phone:
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0}}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            self._base += "/" + self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._driver.terminate()
        self._driver.wait(30)
        self._driver.stdout.close()
        self._profile.cleanup()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{method} {path}: {exc.read().decode()[:2000]}") from exc

    def open(self, url: str) -> None:
        """Load a page to its end."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script's body in the page; return what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str) -> Any:
        """Run a script in the page until it returns something true, for 30 seconds at most."""
        return self._call(
            "POST",
            "/execute/async",
            {
                "args": [],
                "script": """
            const done = arguments[0], end = Date.now() + 25000;
            const look = () => {
              const found = (() => { %s })();
              if (found || Date.now() > end) done(found); else requestAnimationFrame(look);
            };
            look();"""
                % script,
            },
        )

    def press(self, keys: str) -> None:
        """Type into the element that has the focus."""
        element = self._call("GET", "/element/active")[_ELEMENT]
        self._call("POST", f"/element/{element}/value", {"text": keys})

    def console(self) -> list[str]:
        """Return what the console got since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Run a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def set_clock(self, stamp: str) -> None:
        """Have pages that are opened from now on believe that this is the time."""
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source="Date.now = () => Date.parse('%s');" % stamp)

    def picture(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))
