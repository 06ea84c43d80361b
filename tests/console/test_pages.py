"""Every page in a real browser: what it says, that no text of anybody's becomes a script, that everybody can use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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


@pytest.mark.parametrize("stage", ["plain"], indirect=True)
def test_every_page_can_be_used_with_a_screen_reader(stage: Stage, page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe

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


@pytest.mark.parametrize("stage", ["plain"], indirect=True)
def test_what_narrows_the_list_is_in_the_address(stage: Stage, page: Page) -> None:
    log_in(page, stage.scene, "ada")
    is_ready(page)
    cards = page.locator(".fc-card h2")
    assert sorted(cards.all_inner_texts()) == sorted([PLAIN.endpoint, PLAIN.manager])
    page.get_by_role("checkbox", name="Multi-user").click()
    page.get_by_text("1 Compute Endpoint found").wait_for()
    assert cards.all_inner_texts() == [PLAIN.manager]
    assert page.url.endswith("/compute?multi_user=1")
    page.get_by_label("Search by name, host or id").fill("nowhere")
    page.get_by_text("0 Compute Endpoints found").wait_for()
    page.goto(stage.scene.url + "/compute?search=workstation&online=1&owned=1")  # as somebody was sent it
    is_ready(page)
    assert cards.all_inner_texts() == [PLAIN.endpoint]
    assert page.get_by_role("checkbox", name="Online").is_checked()


@pytest.mark.parametrize("stage", ["plain"], indirect=True)
def test_the_program_of_an_endpoint_runs_and_its_page_shows_what_it_does(
    stage: Stage, page: Page, tmp_path: Path
) -> None:
    log_in(page, stage.scene, "ada", f"/compute/endpoints/{stage.ids['endpoint']}")
    is_ready(page)
    program = page.get_by_role("region", name="Python program").inner_text()
    token = stage.people["ada"].http.headers["authorization"].removeprefix("Bearer ")
    file = tmp_path / "snippet.py"
    file.write_text(program)
    pointed = {**os.environ, "FARCALL_SERVICE_URL": stage.scene.url, "FARCALL_TOKEN": token}
    done = subprocess.run([sys.executable, str(file)], env=pointed, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
    page.reload()
    is_ready(page)
    assert page.get_by_role("link", name="double", exact=True).count() >= 1
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with stage.scene.executor(stage.people["ada"], stage.ids["endpoint"]) as executor:
        future = executor.submit(_hold, str(fifo))
        outstanding = page.locator(".fc-stat", has_text="Outstanding tasks").locator("dd")
        outstanding.get_by_text("1", exact=True).wait_for()  # pushed: nobody reloads
        fifo.write_text("held")
        assert future.result(60) == "held"
        outstanding.get_by_text("0", exact=True).wait_for()


@pytest.mark.parametrize("stage", ["plain"], indirect=True)
def test_the_form_of_an_endpoint_s_schema_changes_the_program(stage: Stage, page: Page) -> None:
    log_in(page, stage.scene, "ada", f"/compute/endpoints/{stage.ids['manager']}")
    is_ready(page)
    program = page.get_by_role("region", name="Python program")
    page.get_by_label("account (required)").fill("phys'042")
    page.get_by_label("nodes").fill("65")
    page.get_by_text("At most 64.").wait_for()
    page.get_by_label("nodes").fill("3")
    page.get_by_label("partition").click()
    page.get_by_role("option", name="long").click()
    program.get_by_text("'partition': 'long'").wait_for()
    text = program.inner_text()
    compile(text, "snippet", "exec")
    assert '"phys\'042"' in text
    assert "'nodes': 3" in text
    assert "user_endpoint_config=config" in text


def _hold(path: str) -> str:
    with open(path) as fifo:  # until somebody writes
        return fifo.read()
