"""A browser for tests: Debian's Chromium, headless, driven by Playwright; or the reason why there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PAGE_SOURCES = Path(__file__).parent.parent / "page"


def chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def missing() -> str | None:
    """Why there is no browser here; None if there is one."""
    if find_spec("playwright") is None:
        return "needs the package playwright: pip install playwright"
    if chromium() is None:
        return "needs Chromium: apt-get install chromium"
    return None


@contextmanager
def launched() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without Chromium's own sandbox, which root has no use for in a container.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab that remembers everything it should not have seen: console errors, other hosts, policy violations."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url
        self.wrong: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        self.page.on("request", self._request)
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " event => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`))"
        )

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        self.requests.append((request.method, request.url))
        if not request.url.startswith(self.url + "/"):
            self.wrong.append(f"request: {request.url}")

    def open(self, ghost: bool = True) -> Tab:
        """Opens the page; with `ghost`, returns once the example's suggestion is complete."""
        self.page.goto(self.url + "/")
        if ghost:
            self.settled()
        return self

    @property
    def text(self) -> str:
        """The editor's text without the ghost's."""
        script = """() => Array.from(document.querySelectorAll('.cm-line'), line => {
            const copy = line.cloneNode(true);
            copy.querySelectorAll('.ghost').forEach(ghost => ghost.remove());
            return copy.textContent;
        }).join('\\n')"""
        return str(self.page.evaluate(script))

    @property
    def ghost(self) -> str:
        """The ghost text; empty where there is none."""
        return str(self.page.evaluate("() => document.querySelector('.ghost')?.textContent ?? ''"))

    def settled(self) -> str:
        """The ghost text once it is complete."""
        script = """() => document.querySelector('.ghost')
            && document.querySelector('#tokens').getAttribute('aria-busy') === 'false'"""
        self.page.wait_for_function(script, timeout=20_000)
        return self.ghost

    def clear(self) -> None:
        """Empties the editor and puts the cursor there."""
        self.page.click(".cm-content")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Delete")

    def close(self) -> None:
        """Closes the tab; nothing forbidden was seen."""
        self.context.close()
        assert not self.wrong, self.wrong
