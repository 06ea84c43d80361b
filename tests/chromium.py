"""Chromium without a screen, driven by Playwright. Imported by the `conftest.py` of directories beside this file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that runs. Without one the test is skipped; in CI (`CI=true`) it fails."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        reason = "no Chromium here (Debian: apt-get install chromium; as root: scripts/ci-services.sh)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    arguments = [*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def fresh_page(browser: Browser, **more: Any) -> Iterator[Page]:
    """A page of somebody without cookies. What goes wrong on it (scripts, refused resources) fails the test.

    Args:
        more: of the browser's context.
    """
    context = browser.new_context(viewport={"width": 900, "height": 900}, **more)
    page = context.new_page()
    page.set_default_timeout(20_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))

    def hear(message: ConsoleMessage) -> None:
        # That a page refuses to be framed is for a test to see.
        if "Content Security Policy" in message.text and "frame-ancestors" not in message.text:
            faults.append(message.text)

    page.on("console", hear)
    try:
        yield page
        assert faults == []
    finally:
        context.close()
