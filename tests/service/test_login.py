"""The pages of the login, used as a browser does; and what must not be possible with them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from browser import Browser, Program, ask_token, let_in
from hypothesis import given
from hypothesis import strategies as st
from service_world import Play, Site

from farcall.service.accounts.passwords import hash_password
from farcall.service.accounts.rules import Authentication
from farcall.service.audit.rules import operator
from farcall.service.audit.store import tail
from farcall.service.login.rules import (
    PENDING_S,
    Pending,
    Session,
    demand_of_query,
    pending_text,
    read_pending,
    safe_next,
    to_come_back_to,
    unmet_demand,
)
from farcall.service.users.store import add_user
from farcall.service.web.csrf import csrf_token, is_csrf_token
from farcall.wire.auth import SessionDemand

PASSWORD = "correct horse battery"
_HASH = hash_password(PASSWORD)
ME = operator("test")


async def person(site: Site, name: str = "ada", must_change: bool = False) -> Any:
    def make(conn: Any) -> Any:
        return add_user(
            conn,
            f"{name}@local",
            _HASH,
            must_change=must_change,
            display_name=name.title(),
            email=None,
            organization=None,
            actor=ME,
            now=site.clock.now,
        )

    return await site.service.db.write(make)


# --- Logging in


@pytest.mark.parametrize("typed", ["ada", "ada@local", " ADA@Local "])
def test_an_account_is_found_however_its_name_is_typed(play: Play, typed: str) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        assert (await browser.log_in(typed, PASSWORD)).status_code == 200
        assert "ada@local" in browser.answer.text

    play(story)


def test_wrong_password_and_unknown_name_look_the_same(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        pages = []
        for name, password in (("ada", "wrong"), ("eve", "wrong"), ("eve", PASSWORD)):
            answer = await browser.log_in(name, password)
            assert answer.status_code == 403
            pages.append(answer.text.replace(f'value="{name}"', ""))
        assert len(set(pages)) == 1
        assert [each.outcome for each in await site.service.db.read(tail, 3, "login")] == ["refused"] * 3
        assert "eve" not in str(await site.service.db.read(tail, 3, "login"))

    play(story)


def test_guessing_is_slowed_by_account_and_by_address(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        for guess in range(5):
            await Browser(site, f"192.0.2.{guess}").log_in("ada", "wrong")
        answer = await Browser(site, "192.0.2.99").log_in("ada", PASSWORD)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        await person(site, "grace")
        same = Browser(site, "198.51.100.7")
        for guess in range(30):
            await same.log_in(f"nobody-{guess}", "wrong")
        assert (await same.log_in("grace", PASSWORD)).status_code == 429
        assert (await Browser(site, "198.51.100.8").log_in("grace", PASSWORD)).status_code == 200

    play(story)


def test_a_password_of_somebody_else_has_to_be_changed_first(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site, must_change=True)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        assert [each.action for each in browser.forms] == ["/login/new-password"]
        assert "farcall_session" not in browser.http.cookies
        await browser.get("/account")
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.log_in("ada", PASSWORD)
        for password, again in (("short", "short"), ("one good pass phrase", "another one here"), (PASSWORD, PASSWORD)):
            await browser.send("/login/new-password", password=password, again=again)
            assert browser.answer.status_code == 400
        await browser.send("/login/new-password", password="one good pass phrase", again="one good pass phrase")
        assert "ada@local" in browser.answer.text
        assert (await Browser(site).log_in("ada", PASSWORD)).status_code == 403
        assert (await Browser(site).log_in("ada", "one good pass phrase")).status_code == 200

    play(story)


def test_a_login_gives_a_new_cookie_and_voids_the_old_one(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        first = browser.http.cookies["farcall_session"]
        await browser.get("/login?again=1")
        await browser.send("/login", username="ada", password=PASSWORD)
        assert browser.http.cookies["farcall_session"] != first
        other = Browser(site)
        other.http.cookies.set("farcall_session", first, domain="service.example")
        await other.get("/account")
        assert [each.action for each in other.forms] == ["/login"]

    play(story)


def test_a_login_ends_after_its_time_and_by_logging_out(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        stolen = browser.http.cookies["farcall_session"]
        await browser.send("/logout")
        browser.http.cookies.set("farcall_session", stolen, domain="service.example")
        await browser.get("/account")
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.log_in("ada", PASSWORD)
        site.clock.now += site.service.settings.login_s
        await browser.get("/account")
        assert [each.action for each in browser.forms] == ["/login"]

    play(story)


# --- The account


def test_one_changes_ones_password_and_other_browsers_are_logged_out(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        here, there = Browser(site), Browser(site)
        await here.log_in("ada", PASSWORD)
        await there.log_in("ada", PASSWORD)
        new = "one good pass phrase"
        await here.send("/account/password", old="wrong", password=new, again=new)
        assert here.answer.status_code == 403
        await here.send("/account/password", old=PASSWORD, password="ada is my name", again="ada is my name")
        assert here.answer.status_code == 200  # three letters of a name are no name
        await here.send("/account/password", old="ada is my name", password=new, again=new)
        assert "The password was changed" in here.answer.text
        await there.get("/account")
        assert [each.action for each in there.forms] == ["/login"]
        await here.get("/account")
        assert "ada@local" in here.answer.text

    play(story)


def test_one_sees_programs_and_logs_all_of_them_out(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser, program = Browser(site), Program()
        await browser.log_in("ada", PASSWORD)
        given = await ask_token(site, **program.form(await let_in(browser, program)))
        await browser.get("/account")
        assert "Farcall</td>" in browser.answer.text
        headers = {"authorization": f"Bearer {given['access_token']}"}
        assert (await site.get("/v3/whoami", headers=headers)).status_code == 200
        await browser.send("/account/revoke")
        assert (await site.get("/v3/whoami", headers=headers)).status_code == 401
        await browser.get("/account")
        assert [each.action for each in browser.forms] == ["/login"]

    play(story)


# --- What must not be possible


@pytest.mark.parametrize("action", ["/login", "/logout", "/account/password", "/account/revoke", "/device"])
def test_a_form_of_somebody_else_is_refused(play: Play, action: str) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        form = {"username": "ada", "password": PASSWORD, "old": PASSWORD, "again": "x", "decision": "allow"}
        for token in ("", "x", csrf_token(b"another secret", browser.http.cookies["farcall_browser"])):
            assert (await browser.http.post(action, data={**form, "csrf": token})).status_code == 403
        await browser.get("/account")
        good = browser.forms[0].fields["csrf"]
        headers = {"origin": "https://evil.example"}
        answer = await browser.http.post(action, data={**form, "csrf": good}, headers=headers)
        assert answer.status_code == 403

    play(story)


def test_pages_run_no_scripts_are_framed_by_nobody_and_kept_by_nobody(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        for path in ("/login?again=1", "/account", "/device", Program().link(), "/v2/web/auth-code?code=x"):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "<script" not in answer.text

    play(story)


def test_cookies_are_out_of_reach_and_secure_where_they_can_be(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        for scheme, secure in (("http", False), ("https", True)):
            browser = Browser(site)
            browser.http.base_url = f"{scheme}://service.example:5000"  # type: ignore[assignment]  # httpx takes text
            answer = await browser.http.get("/login")
            browser.answer = answer
            form = browser.forms[0].fields
            answer = await browser.http.post("/login", data={**form, "username": "ada", "password": PASSWORD})
            cookie = answer.headers["set-cookie"].lower()
            assert cookie.startswith("__host-farcall_session=" if secure else "farcall_session=")
            assert "httponly" in cookie
            assert "samesite=lax" in cookie
            assert ("secure" in cookie.split("; ")) is secure

    play(story)


def test_text_from_links_is_shown_as_text(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        for path in (
            "/v2/web/auth-code?error=<b>x",
            "/v2/web/auth-code?code=<b>x",
            "/login?username=<b>x",
            Program().link(session_message="<b>x"),
        ):
            assert "<b>x" not in (await browser.get(path)).text
            assert "&lt;b&gt;x" in browser.answer.text

    play(story)


# --- Rules


@pytest.mark.parametrize(
    "text",
    ["", None, "https://evil.example/", "//evil.example/", "/\\evil.example", "/a\nb", "account", "/\t/evil.example"],
)
def test_a_login_leads_nowhere_else(text: str | None) -> None:
    assert safe_next(text) == "/account"


@given(st.text())
def test_a_path_that_is_let_through_stays_here(text: str) -> None:
    from urllib.parse import urlsplit

    found = urlsplit(safe_next(text))
    assert (found.scheme, found.netloc) == ("", "")


def test_a_csrf_token_counts_in_its_browser_only() -> None:
    token = csrf_token(b"secret", "this")
    assert is_csrf_token(b"secret", "this", token)
    assert not is_csrf_token(b"secret", "that", token)
    assert not is_csrf_token(b"secret", None, token)
    assert not is_csrf_token(b"secret", "", csrf_token(b"secret", ""))


def test_a_half_done_login_cannot_be_forged_moved_or_kept() -> None:
    pending = Pending(identity_id="1", done=("password",), next="/account", at=1000.0)
    text = pending_text(b"secret", "this", pending)
    assert read_pending(b"secret", "this", text, now=1000.0) == pending
    assert read_pending(b"secret", "that", text, now=1000.0) is None
    assert read_pending(b"other", "this", text, now=1000.0) is None
    assert read_pending(b"secret", "this", text, now=1000.0 + PENDING_S) is None
    forged = pending_text(b"guess", "this", dataclasses.replace(pending, done=("password", "totp")))
    for wrong in ("", ".", "x.y", forged, forged.partition(".")[0] + "." + text.partition(".")[2]):
        assert read_pending(b"secret", "this", wrong, now=1000.0) is None


def session(*authentications: Authentication) -> Session:
    return Session(
        id="s",
        person_id="1",
        person_name="ada@local",
        is_admin=False,
        usernames={"1": "ada@local", "2": "ada@uni.example"},
        authentications=authentications,
        expires_at=9e9,
    )


LOCAL = Authentication(identity_id="1", username="ada@local", at=100.0, mfa=False)
UNI = Authentication(identity_id="2", username="ada@Uni.example", at=200.0, mfa=True, provider="https://uni.example")


@pytest.mark.parametrize(
    ("demand", "proven", "is_met"),
    [
        (SessionDemand(), (LOCAL,), True),
        (SessionDemand(identities=("1",)), (LOCAL,), True),
        (SessionDemand(identities=("2",)), (LOCAL,), False),
        (SessionDemand(identities=("1", "2")), (LOCAL,), False),
        (SessionDemand(identities=("1", "2")), (LOCAL, UNI), True),
        (SessionDemand(identities=("ADA@uni.example",)), (UNI,), True),
        (SessionDemand(domains=("uni.example",)), (LOCAL,), False),
        (SessionDemand(domains=("UNI.example", "x")), (LOCAL, UNI), True),
        (SessionDemand(domains=("example",)), (UNI,), False),
        (SessionDemand(mfa=True), (LOCAL,), False),
        (SessionDemand(mfa=True), (LOCAL, UNI), True),
        (SessionDemand(prompt="login"), (LOCAL, UNI), False),
    ],
)
def test_what_a_login_has_to_satisfy(demand: SessionDemand, proven: tuple[Authentication, ...], is_met: bool) -> None:
    assert (unmet_demand(demand, session(*proven)) is None) is is_met


@pytest.mark.parametrize(("after", "is_met"), [(199.0, True), (200.0, True), (201.0, False), (None, True)])
def test_a_login_has_to_be_newer_than_the_request_for_it(after: float | None, is_met: bool) -> None:
    assert (unmet_demand(SessionDemand(), session(LOCAL, UNI), after) is None) is is_met


def test_coming_back_from_a_login_one_is_not_sent_there_again() -> None:
    path = to_come_back_to("/v2/oauth2/authorize?prompt=login&state=a%26b&farcall_login_after=1", 100.7)
    assert path == "/v2/oauth2/authorize?state=a%26b&farcall_login_after=100"


def test_demands_are_read_from_the_query() -> None:
    query = {
        "session_required_identities": "a, b,",
        "session_required_single_domain": "x.example",
        "session_required_policies": "p",
        "session_required_mfa": "True",
        "session_message": "why",
        "prompt": "login",
    }
    assert demand_of_query(query) == SessionDemand(
        message="why", identities=("a", "b"), domains=("x.example",), policies=("p",), mfa=True, prompt="login"
    )
    assert demand_of_query({"session_required_mfa": "False"}) == SessionDemand()
