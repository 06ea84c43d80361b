"""Logging in to the console, and what keeps others out: a real browser, a real service, real web sockets."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from scene import PASSWORD, ConsoleScene, console_scene, log_in

from chromium import chromium, fresh_page
from farcall.service.login.once import login_link_path

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("console")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def scene(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleScene]:
    with console_scene(tmp_path_factory.mktemp("login")) as scene:
        for name in ("ada", "bob"):
            scene.person(name)
        yield scene


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with fresh_page(browser) as page:
        yield page


def cookies_of(page: Page) -> dict[str, Any]:
    return {each["name"]: each for each in page.context.cookies()}


def test_a_browser_holds_no_token_and_logging_out_ends_everything(scene: ConsoleScene, page: Page) -> None:
    log_in(page, scene, "ada", "/compute?online=1")
    assert page.url.endswith("/compute?online=1")  # where they wanted to go
    session = cookies_of(page)["farcall_console"]
    assert (session["httpOnly"], session["sameSite"], session["path"]) == (True, "Lax", "/")
    held = page.content() + page.evaluate(
        "document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
    )
    tokens = scene.tokens()
    assert tokens
    assert not [each for each in tokens if each in held]
    page.wait_for_function("() => window.did_handshake === true")
    page.get_by_role("button", name="Your login").click()
    with page.expect_navigation():
        page.get_by_role("menuitem", name="Log out").click()
    page.get_by_role("heading", name="Logged out").wait_for()
    for token in tokens:  # void, and not only forgotten
        asking = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{scene.url}/v2/authenticate", headers=asking).status_code == 401
    page.context.add_cookies([session])
    page.goto(f"{scene.url}/compute")
    assert urlsplit(page.url).path == "/login"  # and the browser's own login is over, too


def test_an_open_page_leaves_when_its_login_ends_elsewhere(scene: ConsoleScene, page: Page) -> None:
    log_in(page, scene, "bob")
    page.wait_for_function("() => window.did_handshake === true")
    with page.context.expect_page() as other:
        page.evaluate("window.open('/compute')")
    other.value.wait_for_function("() => window.did_handshake === true")  # a click before that is lost
    other.value.get_by_role("button", name="Your login").click()
    other.value.get_by_role("menuitem", name="Log out").click()
    page.wait_for_url("**/login?**")  # nobody touched this one


def test_a_code_counts_in_the_browser_that_asked_for_it(scene: ConsoleScene, page: Page, browser: Browser) -> None:
    page.goto(f"{scene.url}/console/login?next=//evil.example/")
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    seen: list[str] = []
    page.on("request", lambda asked: seen.append(asked.url))
    with page.expect_navigation():
        page.get_by_role("button", name="Log in", exact=True).click()
    page.wait_for_url(f"{scene.url}/compute")  # no other place
    callback = next(each for each in seen if "/console/callback" in each)
    with fresh_page(browser) as victim:
        victim.goto(callback)
        assert "does not fit" in victim.inner_text("h1")
        assert "farcall_console" not in cookies_of(victim)
    page.goto(callback)
    assert "Not logged in" in page.inner_text("h1")  # it was used


def test_a_code_goes_to_the_console_s_own_address_alone(scene: ConsoleScene, page: Page) -> None:
    log_in(page, scene, "ada")
    path = httpx.get(f"{scene.url}/console/login").headers["location"]
    for other in (
        "http://127.0.0.1:9/console/callback",
        "https://evil.example/console/callback",
        f"{scene.url}/compute",
    ):
        page.goto(scene.url + re.sub("redirect_uri=[^&]*", f"redirect_uri={other}", path))
        assert urlsplit(page.url).path == "/v2/oauth2/authorize"
        assert page.get_by_role("alert").count() == 1, other


def test_a_web_socket_is_for_the_page_of_this_login(scene: ConsoleScene, page: Page, browser: Browser) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    log_in(page, scene, "ada")
    page.wait_for_function("() => window.did_handshake === true")
    url = sockets[-1]
    assert parse_qs(urlsplit(url).query)["client_id"]
    cookie = cookies_of(page)["farcall_console"]["value"]
    with fresh_page(browser) as others:
        log_in(others, scene, "bob")
        stranger = cookies_of(others)["farcall_console"]["value"]
    tries = [
        (scene.url, f"farcall_console={cookie}", True),
        ("https://evil.example", f"farcall_console={cookie}", False),
        ("http://127.0.0.1:1", f"farcall_console={cookie}", False),
        (None, f"farcall_console={cookie}", False),
        (scene.url, "", False),
        (scene.url, "farcall_console=guessed", False),
        (scene.url, f"farcall_console={stranger}", False),
    ]
    for origin, held, is_let_in in tries:
        try:
            with connect(url, origin=origin, additional_headers={"Cookie": held}):
                was_let_in = True
        except InvalidStatus:
            was_let_in = False
        assert was_let_in is is_let_in, (origin, held)
    polling = url.replace("ws://", "http://").replace("transport=websocket", "transport=polling")
    assert httpx.get(polling, headers={"Cookie": f"farcall_console={cookie}"}).status_code == 404


def test_a_login_link_counts_once_and_on_this_machine(scene: ConsoleScene, page: Page, browser: Browser) -> None:
    operator = scene.person("ops", is_operator=True)
    path = str(operator.ask("POST", "/v3/login-links")["path"])
    far = {"x-forwarded-for": "192.0.2.1"}
    assert httpx.get(scene.url + path, headers=far).status_code == 403
    page.goto(scene.url + path)
    page.wait_for_url(f"{scene.url}/compute")
    assert page.get_by_role("link", name="Operator").count() == 1
    with fresh_page(browser) as second:
        second.goto(scene.url + path)
        assert "does not count" in second.inner_text("h1")
        second.goto(scene.url + login_link_path("guessed"))
        assert "does not count" in second.inner_text("h1")


def test_a_script_that_is_not_ours_does_not_run(scene: ConsoleScene, browser: Browser) -> None:
    page = browser.new_page()  # not a fresh_page: what the browser says of a script that it refused is no fault
    log_in(page, scene, "ada")
    answer = page.goto(f"{scene.url}/compute")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    page.wait_for_function("() => window.did_handshake === true")
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.__hit = 1'; document.body.append(s)"
    )
    assert page.evaluate("window.__hit") is None
    page.context.close()


def test_the_interface_is_what_it_was(scene: ConsoleScene) -> None:
    assert httpx.get(f"{scene.url}/v2/version").json()
    assert httpx.get(f"{scene.url}/healthz").status_code == 200
    assert httpx.get(f"{scene.url}/v3/endpoints").json()["code"] == "UNAUTHENTICATED"
    assert httpx.get(f"{scene.url}/nothing").json()["code"] == "NOT_FOUND"
    assert httpx.get(f"{scene.url}/docs").status_code == 200
    assert httpx.get(f"{scene.url}/_nicegui/nothing").status_code == 404


def test_an_address_that_is_no_page_is_told_in_our_frame_with_a_way_back(scene: ConsoleScene, page: Page) -> None:
    log_in(page, scene, "ada")
    unknown = str(uuid.uuid4())
    for path, section in (
        ("/compute/nosuch", "Compute"),
        (f"/compute/{unknown}", "Compute"),
        (f"/compute/endpoints/{unknown}", "Compute"),
        ("/tasks/NO-ID", "Tasks"),
        (f"/tasks/{unknown}/<b>x</b>", "Tasks"),
        (f"/functions/{unknown}", "Functions"),
        (f"/console/compute/{unknown}/{unknown}/more", "Console"),
        (f"/policies/{unknown}", "Policies"),
        ("/usage/nosuch", "Usage"),
        ("/operator/nosuch", "Operator"),
    ):
        answer = page.goto(scene.url + path)
        assert answer is not None
        assert answer.status in (404, 400, 422), (path, answer.status)
        assert page.locator("#main").get_by_role("alert").count() == 1, path
        assert page.locator("#main b").count() == 0
        assert "HTTPException" not in page.inner_text("body"), path
        back = page.get_by_role("link", name=f"Back to {section}")
        assert back.count() == 1, path
    page.goto(f"{scene.url}/tasks/NO-ID")
    page.wait_for_function("() => window.did_handshake === true")
    page.get_by_role("link", name="Back to Tasks").click()
    page.wait_for_url(f"{scene.url}/tasks")
    page.goto(f"{scene.url}//compute/?online=1")  # no other host, and no other page
    assert page.url == f"{scene.url}/compute?online=1"
    answer = page.goto(f"{scene.url}/nosuch")
    assert answer is not None
    assert answer.json()["code"] == "NOT_FOUND"
