"""The login as a person meets it: a real browser (Chromium), a real service, a real identity provider.

Strict where people and attackers are: keyboard only, every field has a label, no page breaks its own content policy,
and what another site makes the browser send is refused.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pyotp
import pytest
from service_world import ServiceThread
from sqlalchemy import delete, update

from chromium import chromium, fresh_page
from farcall.service.accounts.passwords import hash_password
from farcall.service.audit.rules import operator
from farcall.service.db import tables
from farcall.service.oidc.provider import OidcProvider
from farcall.service.settings import ServiceSettings
from farcall.service.users.store import add_user
from farcall.wire.auth import CLIENT_ID, COMPUTE_SCOPE
from oidc_server import OidcServer, oidc_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.system

PASSWORD = "lamp orbit tuesday"
_HASH = hash_password(PASSWORD)
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass
class Place:
    """A service, its address, and an identity provider."""

    thread: ServiceThread
    provider: OidcServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.thread.running.port}"

    def person(self, **more: Any) -> str:
        """The name of a new account."""
        name = f"u{secrets.token_hex(4)}"
        shown = {"display_name": None, "email": None, "organization": None, "must_change": False, **more}

        def make(conn: Any) -> None:
            add_user(conn, f"{name}@local", _HASH, **shown, actor=operator("test"), now=time.time())

        self.thread.call(lambda service: service.db.write(make))
        return name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with oidc_server() as server:
        provider = OidcProvider(
            name="site", label="Site A", issuer=server.issuer, client_id="farcall", username_domain="site-a.example",
            client_secret=server.client["client_secret"], allowed_domains=("site-a.example",),
        )  # fmt: skip
        data_dir: Path = tmp_path_factory.mktemp("data")
        thread = ServiceThread(ServiceSettings(data_dir=data_dir, port=0, amqp_port=0, oidc=(provider,)))
        thread.start()
        try:
            server.redirect_to(f"http://127.0.0.1:{thread.running.port}/login/oidc/callback")
            yield Place(thread, server)
        finally:
            thread.stop()


@pytest.fixture(scope="module")
def browser(place: Place) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with fresh_page(browser) as page:
        yield page


def log_in(page: Page, place: Place, name: str, password: str = PASSWORD, path: str = "/account") -> None:
    page.goto(f"{place.url}/login?{urlencode({'next': path})}")
    fill_in(page, name, password)


def fill_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in", exact=True).click()


def press_enter(page: Page) -> None:
    """Send the form that the focus is in; returns at the next page."""
    with page.expect_navigation():
        page.keyboard.press("Enter")


def is_logged_in(page: Page, place: Place) -> bool:
    page.goto(f"{place.url}/account")
    return urlsplit(page.url).path == "/account"


def assert_readable(page: Page) -> None:
    """What a screen reader needs."""
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    for field in page.locator("input:not([type=hidden]):visible").all():
        assert field.evaluate("field => field.labels.length") == 1, field.get_attribute("name")
    for button in page.locator("button:visible").all():
        assert (button.get_attribute("aria-label") or button.inner_text()).strip()


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """Answers any path with the page of the server; remembers paths."""

    def do_GET(self) -> None:
        server: Any = self.server
        if self.path != "/favicon.ico":
            server.seen.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(server.page.encode())

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@contextmanager
def elsewhere(page: str = "<h1>Elsewhere</h1>") -> Iterator[Any]:
    """Another web server on this machine: a program that listens for its code, or somebody with bad intentions."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    server.page, server.seen = page, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


# --- Logging in


def test_somebody_logs_in_and_out_by_keyboard_alone(page: Page, place: Place) -> None:
    name = place.person()
    page.goto(f"{place.url}/login")
    assert_readable(page)
    page.keyboard.type(name)  # the first field has the focus
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    press_enter(page)
    page.wait_for_url("**/account")
    assert_readable(page)
    assert f"{name}@local" in page.inner_text("h1")
    cookies = {each["name"]: each for each in page.context.cookies()}
    session = cookies["farcall_session"]
    assert (session["httpOnly"], session["sameSite"]) == (True, "Lax")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Log out").focus()
    press_enter(page)
    page.get_by_role("heading", name="Logged out").wait_for()
    assert not is_logged_in(page, place)
    page.context.add_cookies([session])  # the old cookie is worth nothing
    assert not is_logged_in(page, place)


def test_the_cookie_from_before_a_login_is_not_the_one_after_it(page: Page, place: Place) -> None:
    name = place.person()
    planted = {"name": "farcall_session", "value": "planted", "url": place.url}
    page.context.add_cookies([planted])  # type: ignore[list-item]
    log_in(page, place, name)
    first = {each["name"]: each["value"] for each in page.context.cookies()}["farcall_session"]
    assert first != "planted"
    page.goto(f"{place.url}/login?again=1")
    fill_in(page, name)
    second = {each["name"]: each["value"] for each in page.context.cookies()}["farcall_session"]
    assert second not in ("planted", first)


def test_wrong_passwords_look_the_same_for_everybody_and_are_slowed(page: Page, place: Place) -> None:
    name = place.person()
    texts = []
    for who in (name, f"nobody{secrets.token_hex(3)}"):
        log_in(page, place, who, "wrong wrong wrong")
        texts.append(page.get_by_role("alert").inner_text())
        assert page.get_by_label("User name").input_value() == who
        assert page.get_by_label("Password", exact=True).input_value() == ""
    assert texts[0] == texts[1]
    place.thread.call(lambda service: _guess(service, name))
    fill_in(page, name)  # even the right one
    assert "too many attempts" in page.get_by_role("alert").inner_text()
    assert not is_logged_in(page, place)


def _guess(service: Any, name: str) -> None:
    """Somebody has guessed for a while, from elsewhere."""
    now = service.clock()
    for minutes in range(15, -1, -1):
        assert service.attempts.begin(f"{name}@local", "192.0.2.1", now - 61 * minutes) == 0


def test_a_password_made_by_somebody_else_has_to_be_changed(page: Page, place: Place) -> None:
    name = place.person(must_change=True)
    log_in(page, place, name)
    assert_readable(page)
    for chosen, reason in (("short", "12 characters"), (f"{name} is my name", "user name"), (PASSWORD, "another one")):
        page.get_by_label("New password").fill(chosen)
        page.get_by_label("The same again").fill(chosen)
        with page.expect_navigation():
            page.get_by_role("button").click()
        assert reason in page.get_by_role("alert").inner_text()
    page.get_by_label("New password").fill("quiet river stone")
    page.get_by_label("The same again").fill("quiet river stone")
    page.get_by_role("button").click()
    page.wait_for_url("**/account")
    page.get_by_label("Password now").fill("quiet river stone")
    page.get_by_label("New password").fill("seven grey pebbles")
    page.get_by_label("The same again").fill("seven grey pebbles")
    page.get_by_role("button", name="Change the password").click()
    assert "was changed" in page.get_by_role("status").inner_text()
    assert is_logged_in(page, place)


# --- Second factor


def test_an_app_is_set_up_and_asked_for(page: Page, place: Place) -> None:
    name = place.person()
    log_in(page, place, name)
    page.get_by_role("link", name="Set up an app").click()
    assert_readable(page)
    picture = page.locator("svg").bounding_box()
    assert picture is not None
    assert picture["width"] >= 150
    app = pyotp.TOTP(page.inner_text("#secret").replace(" ", ""))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Six digits").fill(app.now())
    page.get_by_role("button", name="Ask for it from now on").click()
    codes = page.locator("#codes li").all_inner_texts()
    assert len(codes) == 10
    page.get_by_role("link").click()
    page.get_by_role("button", name="Log out").click()
    log_in(page, place, name)
    assert_readable(page)
    assert not is_logged_in(page, place)
    log_in(page, place, name)
    page.keyboard.type("000000")  # the field has the focus
    press_enter(page)
    assert "wrong" in page.get_by_role("alert").inner_text()
    forget_last_step(place)  # as if half a minute had passed
    page.get_by_label("Code").fill(app.now())
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/account")
    page.get_by_role("button", name="Log out").click()
    log_in(page, place, name)
    page.get_by_label("Code").fill(codes[0])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/account")


def forget_last_step(place: Place) -> None:
    statement = update(tables.local_accounts).values(totp_last_step=None)
    place.thread.call(lambda service: service.db.write(lambda conn: conn.execute(statement) and None))


# --- Programs


def test_a_program_on_this_computer_is_let_in(page: Page, place: Place) -> None:
    name = place.person()
    verifier = secrets.token_urlsafe(48)
    with elsewhere() as program:
        redirect_uri = f"http://127.0.0.1:{program.server_port}/callback"
        asked = {
            "client_id": CLIENT_ID, "redirect_uri": redirect_uri, "scope": f"{COMPUTE_SCOPE} openid", "state": "s1",
            "response_type": "code", "access_type": "offline", "code_challenge_method": "S256",
            "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("="),
        }  # fmt: skip
        page.goto(f"{place.url}/v2/oauth2/authorize?{urlencode(asked)}")
        fill_in(page, name)
        assert_readable(page)
        assert "Farcall" in page.inner_text("h1")
        assert "this computer" in page.inner_text("main")
        page.get_by_role("button", name="Allow", exact=True).click()
        page.get_by_role("heading", name="Elsewhere").wait_for()  # the content policy lets the browser go
        answer = dict(parse_qsl(urlsplit(program.seen[-1]).query))
        assert answer["state"] == "s1"
        form = {
            "grant_type": "authorization_code", "client_id": CLIENT_ID, "code": answer["code"],
            "code_verifier": verifier, "redirect_uri": redirect_uri,
        }  # fmt: skip
        tokens = httpx.post(f"{place.url}/v2/oauth2/token", data=form).json()
        asking = {"authorization": f"Bearer {tokens['access_token']}"}
        assert httpx.get(f"{place.url}/v2/authenticate", headers=asking).json() == f"{name}@local"
        page.goto(f"{place.url}/v2/oauth2/authorize?{urlencode({**asked, 'state': 's2'})}")
        page.get_by_role("button", name="Do not allow").click()
        page.get_by_role("heading", name="Elsewhere").wait_for()
        assert dict(parse_qsl(urlsplit(program.seen[-1]).query))["error"] == "access_denied"


def test_a_device_is_let_in_by_its_code(page: Page, place: Place) -> None:
    name = place.person()
    asked = {"client_id": CLIENT_ID, "scope": f"{COMPUTE_SCOPE} openid"}
    device = httpx.post(f"{place.url}/v2/oauth2/device", data=asked).json()
    page.goto(device["verification_uri"])
    fill_in(page, name)
    assert_readable(page)
    page.get_by_label("Code").fill("BCDF-GHJK")
    press_enter(page)
    assert "No device waits" in page.get_by_role("alert").inner_text()
    page.get_by_label("Code").fill(device["user_code"].lower().replace("-", " "))
    press_enter(page)
    assert device["user_code"] in page.inner_text("main")
    assert_readable(page)
    page.get_by_role("button", name="Allow", exact=True).click()
    page.get_by_role("heading", name="The device is logged in").wait_for()
    form = {"grant_type": DEVICE_GRANT, "client_id": CLIENT_ID, "device_code": device["device_code"]}
    tokens = httpx.post(f"{place.url}/v2/oauth2/token", data=form).json()
    assert tokens["resource_server"] == "funcx_service"


# --- Identity providers


def forget_people_of_providers(place: Place) -> None:
    def forget(conn: Any) -> None:
        conn.execute(delete(tables.provider_subjects))
        conn.execute(update(tables.identities).where(tables.identities.c.provider.is_not(None)).values(username=_gone))

    _gone = tables.identities.c.id
    place.thread.call(lambda service: service.db.write(forget))


def sign_in_at_the_site(page: Page) -> None:
    page.get_by_label("Site user").fill("u-ada")
    page.get_by_label("Site password").fill("ada's")
    page.get_by_role("button", name="Sign in at the site").click()
    page.get_by_role("button", name="Allow").click()


def test_a_provider_s_people_log_in_there(page: Page, place: Place) -> None:
    forget_people_of_providers(place)
    page.goto(f"{place.url}/login")
    assert_readable(page)
    page.get_by_role("link", name="Log in with Site A").click()
    sign_in_at_the_site(page)
    page.wait_for_url("**/account")
    assert "ada@site-a.example" in page.inner_text("h1")
    assert "Site A" in page.inner_text("table")
    assert_readable(page)
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in again").click()
    page.get_by_role("link", name="Log in with Site A").click()
    page.wait_for_url("**/account")  # is still logged in at the site


def test_somebody_links_two_identities_and_separates_them(page: Page, place: Place) -> None:
    forget_people_of_providers(place)
    name = place.person()
    log_in(page, place, name)
    page.get_by_role("link", name="Link another identity: Site A").click()
    sign_in_at_the_site(page)
    assert_readable(page)
    assert f"{name}@local" in page.inner_text("main")
    page.get_by_role("button", name="Yes, link them").click()
    page.wait_for_url("**/account")
    assert "ada@site-a.example" in page.inner_text("table")
    assert_readable(page)
    page.get_by_role("button", name="Separate ada@site-a.example").click()
    page.wait_for_url("**/login")
    log_in(page, place, name)
    assert "ada@site-a.example" not in page.inner_text("main")


# --- Other sites


def test_a_form_of_another_site_is_refused(page: Page, place: Place) -> None:
    name = place.person()
    log_in(page, place, name)
    fields = {"old": PASSWORD, "password": "chosen by mallory", "again": "chosen by mallory", "csrf": "0" * 64}
    inputs = "".join(f'<input name="{key}" value="{value}">' for key, value in fields.items())
    for action in ("/account/password", "/logout", "/account/revoke", "/account/unlink", "/login"):
        form = f'<form method="post" action="{place.url}{action}">{inputs}<button>Win a prize</button></form>'
        with elsewhere(form) as mallory:
            page.goto(f"http://127.0.0.1:{mallory.server_port}/")
            with page.expect_response(lambda answer, path=action: urlsplit(answer.url).path == path) as answer:
                page.get_by_role("button").click()
            assert answer.value.status == 403, action
            assert "does not come from a page" in page.get_by_role("alert").inner_text()
    assert is_logged_in(page, place)
    page.get_by_role("button", name="Log out").click()
    log_in(page, place, name)  # with the old password
    assert is_logged_in(page, place)


def test_no_page_can_be_put_into_one_of_another_site(page: Page, place: Place) -> None:
    name = place.person()
    log_in(page, place, name)
    with elsewhere(f'<iframe src="{place.url}/account"></iframe>') as mallory:
        with page.expect_response(re.compile("/account$")):
            page.goto(f"http://127.0.0.1:{mallory.server_port}/")
        page.wait_for_load_state("load")
        inside = page.frames[1]
        assert name not in inside.content()
        assert inside.url.startswith("chrome-error:")


def test_a_login_leads_nowhere_else(page: Page, place: Place) -> None:
    name = place.person()
    for target in (
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "\t//evil.example",
    ):
        page.context.clear_cookies()
        log_in(page, place, name, path=target)
        assert page.url == f"{place.url}/account"
