"""The console of a service that speaks HTTPS: logins, cookies, web sockets; and pages that ask for a newer login."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from scene import PASSWORD, ConsoleScene, console_scene, log_in
from service_world import PAYLOAD, Rest
from sqlalchemy import update

from certificates import Authority
from chromium import chromium, fresh_page
from farcall.console.sessions import Session
from farcall.service.audit.rules import NOBODY
from farcall.service.db.tables import session_authentications
from farcall.service.ids import new_id
from farcall.service.policies.rules import Subscription
from farcall.service.policies.store import add_subscription
from farcall.wire.errors import ApiError, LoginRequired

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("console")]

HOURS_S = 7200.0


@dataclass(frozen=True)
class Place:
    scene: ConsoleScene
    browser: Browser
    ada: Rest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root: Path = tmp_path_factory.mktemp("https")
    authority = Authority(root / "ca")
    cert, key = authority.server()
    with (
        pytest.MonkeyPatch.context() as patch,
        chromium() as browser,
        console_scene(root, tls_cert=cert, tls_key=key) as scene,
    ):
        patch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        yield Place(scene, browser, scene.person("ada"))


@pytest.fixture
def page(place: Place) -> Iterator[Page]:
    with fresh_page(place.browser, ignore_https_errors=True) as page:
        yield page


def is_ready(page: Page) -> None:
    page.locator("#main h1").wait_for()
    page.wait_for_function("() => window.did_handshake === true")


def log_in_again(page: Page) -> str:
    """On the login page, where something has led; gives what it says there."""
    page.wait_for_url("**/login?**")
    said = page.inner_text("main")
    assert "You have to log in again." in said
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in", exact=True).click()
    return said


def test_a_login_over_https_and_pages_that_are_live(place: Place, page: Page) -> None:
    scene, sockets = place.scene, []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    log_in(page, scene, "ada")
    cookies = {each["name"]: each for each in page.context.cookies()}
    for name in ("__Host-farcall_console", "__Host-farcall_console_browser"):
        held = cookies[name]
        assert (held["secure"], held["httpOnly"], held["sameSite"], held["path"]) == (True, True, "Lax", "/"), name
        assert name.removeprefix("__Host-") not in cookies
    scene.hurry()
    page.reload()
    is_ready(page)
    assert {urlsplit(url).scheme for url in sockets} == {"wss"}
    page.get_by_text("No endpoints yet.").wait_for()
    place.ada.ask("POST", "/v3/endpoints", {"endpoint_name": "pushed", "direct": True, "metadata": {}})
    page.locator(".fc-card h2", has_text="pushed").wait_for()  # nobody reloads
    page.get_by_role("button", name="Your login").click()
    with page.expect_navigation():
        page.get_by_role("menuitem", name="Log out").click()
    page.get_by_role("heading", name="Logged out").wait_for()
    page.context.add_cookies([cookies["__Host-farcall_console"]])
    page.goto(f"{scene.url}/compute")
    assert urlsplit(page.url).path == "/login"


def test_what_is_withheld_from_an_old_login_is_shown_after_a_new_one(place: Place, page: Page) -> None:
    scene = place.scene
    log_in(page, scene, "ada")
    (session,) = scene.sessions()
    task_id = guarded_task(place, session)
    page.goto(f"{scene.url}/tasks/{task_id}")
    is_ready(page)
    assert "TASK_CANCELLED" in page.inner_text("main")
    age(scene, HOURS_S)
    page.reload()
    is_ready(page)
    assert "TASK_CANCELLED" not in page.inner_text("main")
    page.get_by_text("2 hours ago").first.wait_for()
    page.get_by_role("link", name="Log in as it asks").click()
    log_in_again(page)
    page.wait_for_url(f"{scene.url}/tasks/{task_id}")
    is_ready(page)
    assert "TASK_CANCELLED" in page.inner_text("main")
    assert page.get_by_role("link", name="Log in as it asks").count() == 0
    page.context.clear_cookies()


@pytest.mark.parametrize("when", ["as it is loaded", "by a button"])
def test_a_page_that_needs_another_login_leads_to_it_and_back(
    place: Place, page: Page, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interface refuses that to tasks alone today; whatever it refuses so tomorrow is met by any page."""
    scene = place.scene
    place.ada.ask("POST", "/v3/endpoints", {"endpoint_name": "away", "direct": True, "metadata": {}})
    path = f"/compute/endpoints/{place.ada.ask('GET', '/v3/endpoints')['endpoints'][0]['endpoint_id']}"
    log_in(page, scene, "ada", path)
    is_ready(page)
    session = scene.sessions()[-1]
    parameters = {"session_required_identities": [session.identity_id], "prompt": "login", "session_message": "Again!"}
    refusal = LoginRequired("Log in again.", {"authorization_parameters": parameters})
    monkeypatch.setattr(session.api, "get", refusing(refusal))  # this login's alone
    if when == "by a button":
        page.get_by_role("button", name="Last day").click()
    else:
        page.reload()
    assert "Again!" in log_in_again(page)
    page.wait_for_url(f"{scene.url}{path}**")
    is_ready(page)
    assert session not in scene.sessions()  # there is one login in its place
    assert page.get_by_role("alert").count() == 0


def refusing(error: ApiError) -> Any:
    async def get(_path: str, **_query: Any) -> Any:
        raise error

    return get


def guarded_task(place: Place, session: Session) -> str:
    """A task of high assurance that is over, of who has this login."""
    service, owner = place.scene.thread, place.ada.identity.id
    wanted = Subscription(
        id=new_id(), name="Hospital", high_assurance=True, admin_ids=frozenset({owner}), group_ids=frozenset()
    )
    service.call(lambda told: told.db.write(lambda conn: add_subscription(conn, wanted, NOBODY, told.clock())))
    policy = place.ada.ask(
        "POST",
        "/v3/policies",
        {
            "display_name": "Fresh logins",
            "description": "Of the last hour",
            "high_assurance": True,
            "authentication_assurance_timeout": 3600,
        },
    )
    place.ada.http.headers["authorization"] = f"Bearer {session.api._token}"  # one that rests on a login
    endpoint = place.ada.ask(
        "POST",
        "/v3/endpoints",
        {
            "endpoint_name": "guarded",
            "direct": True,
            "high_assurance": True,
            "authentication_policy": policy["id"],
            "subscription_uuid": wanted.id,
            "metadata": {"engine_encrypted": True},
        },
    )["endpoint_id"]
    function_id = place.ada.function()
    call = {"tasks": {function_id: [PAYLOAD]}}
    (task_id,) = place.ada.ask("POST", f"/v3/endpoints/{endpoint}/submit", call)["tasks"][function_id]
    place.ada.ask("POST", f"/v3/tasks/{task_id}/cancel")
    return str(task_id)


def age(scene: ConsoleScene, seconds: float) -> None:
    """Every login was so much earlier than it was."""
    at = session_authentications.c.at
    scene.thread.call(
        lambda told: told.db.write(
            lambda conn: conn.execute(update(session_authentications).values(at=at - seconds)) and None
        )
    )
    scene.thread.call(lambda told: told.authenticator.forget())
