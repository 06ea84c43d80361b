"""Every page in a real browser: what it says, that no text of anybody's becomes a script, that everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from scene import console_scene, log_in
from stage import HOSTILE, PLAIN, Stage, populated, stops

from chromium import chromium, fresh_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("console")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=["plain", "hostile"])
def stage(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with console_scene(tmp_path_factory.mktemp("console")) as scene:
        yield populated(scene, PLAIN if request.param == "plain" else HOSTILE)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with fresh_page(browser) as page:
        yield page


def is_ready(page: Page) -> None:
    """Everything is drawn, and the page hears the service."""
    page.locator("#main h1").wait_for()
    page.wait_for_function("() => window.did_handshake === true")


def seen(page: Page) -> str:
    """The text of the page, and of its fields."""
    fields = "els => els.map(e => e.value).join('\\n')"
    return page.inner_text("main") + "\n" + page.locator("main input, main textarea").evaluate_all(fields)


def plainly(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_page_says_what_it_is_and_runs_nobody_s_text(stage: Stage, page: Page) -> None:
    dialogs: list[Any] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    outside: list[str] = []
    missing: list[Any] = []
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((stage.scene.url, "data:", "blob:", "ws:")) else outside.append(asked.url)
        ),
    )
    who = ""
    for stop in sorted(stops(stage), key=lambda stop: stop.who):
        if stop.who != who:
            page.context.clear_cookies()
            log_in(page, stage.scene, stop.who)
            who = stop.who
        answer = page.goto(stage.scene.url + stop.path)
        assert answer is not None
        assert answer.status == 200, stop.name
        is_ready(page)
        text = plainly(seen(page))
        missing += [(stop.name, each, text) for each in (stop.heading, *stop.says) if plainly(each) not in text]
        assert stop.name == "task" or page.locator("#main .fc-error").all_inner_texts() == [], stop.name
        assert page.evaluate("window.__hit") is None, stop.name
        assert page.locator("main img, main script, main iframe, main svg[onload]").count() == 0, stop.name
    assert missing == []
    assert dialogs == []
    assert outside == []  # nothing comes from anywhere else: it works without the internet


def test_every_page_can_be_used_with_a_screen_reader(stage: Stage, page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe

    if stage.words is HOSTILE:
        return  # the same pages
    who, found = "", {}
    for stop in sorted(stops(stage), key=lambda stop: stop.who):
        if stop.who != who:
            page.context.clear_cookies()
            log_in(page, stage.scene, stop.who)
            who = stop.who
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.goto(stage.scene.url + stop.path)
            is_ready(page)
            answer = Axe().run(page)
            serious = [
                (each["id"], each["nodes"][0]["html"][:300], each["nodes"][0].get("failureSummary", "")[:300])
                for each in answer.response["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            if serious:
                found[f"{stop.name} {theme}"] = serious
    assert not found, "\n".join(f"{name}: {each}" for name, faults in found.items() for each in faults)
