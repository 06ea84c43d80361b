"""Logging in with a second factor and with a real identity provider, page by page, over ASGI."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import policy_world
import pyotp
import pytest
import service_world
from browser import Browser, Program, parameters
from service_world import Clock, Play, Site
from sqlalchemy import update

from farcall.service.accounts.passwords import hash_password
from farcall.service.accounts.totp import STEP_S
from farcall.service.audit.rules import operator
from farcall.service.audit.store import tail
from farcall.service.db import tables
from farcall.service.login.rules import LATELY_S
from farcall.service.oidc.provider import OidcProvider
from farcall.service.users.store import add_user, find_people, set_disabled
from oidc_server import OidcServer, Visitor, oidc_server

PASSWORD = "lamp orbit tuesday"
_HASH = hash_password(PASSWORD)
CALLBACK = "http://service.example:5000/login/oidc/callback"


async def account(site: Site, name: str = "ada", *, must_change: bool = False) -> str:
    def make(conn: Any) -> str:
        shown = {"display_name": None, "email": None, "organization": None}
        actor = operator("test")
        made = add_user(conn, f"{name}@local", _HASH, must_change=must_change, **shown, actor=actor, now=site.clock.now)
        return made.id

    return await site.service.db.write(make)


async def actions(site: Site) -> list[tuple[str, str]]:
    return [(entry.action, entry.outcome) for entry in await site.service.db.read(tail, 100)]


def secret_of(browser: Browser) -> str:
    found = re.search(r'id="secret">([A-Z2-7 ]+)<', browser.answer.text)
    assert found, browser.answer.text
    return found[1].replace(" ", "")


async def with_app(site: Site, name: str = "ada") -> tuple[str, list[str]]:
    """An account with a second factor: the app's secret, and the recovery codes."""
    browser = Browser(site)
    await browser.log_in(name, PASSWORD)
    await browser.get("/account/totp")
    secret = secret_of(browser)
    assert "<svg" in browser.answer.text
    await browser.send("/account/totp/confirm", password=PASSWORD, code=pyotp.TOTP(secret).at(site.clock.now))
    codes = re.findall(r"<li>([a-z2-7-]{19})</li>", browser.answer.text)
    assert len(codes) == 10
    site.clock.now += STEP_S
    return secret, codes


# --- Second factor


def test_a_login_with_an_app_asks_for_its_code_and_says_so_to_programs(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        secret, _ = await with_app(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        assert 'action="/login/totp"' in browser.answer.text
        await browser.get("/account")
        assert browser.answer.url.path == "/login"  # the password alone opens nothing
        await browser.log_in("ada", PASSWORD, "/v2/oauth2/authorize")
        await browser.send("/login/totp", code=pyotp.TOTP(secret).at(site.clock.now))
        await browser.get(Program().link(session_required_mfa="True"))
        assert "Let a program in" in browser.answer.text

    play(story)


def test_a_code_counts_once_and_guessing_it_is_slowed(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        secret, _ = await with_app(site)
        code = pyotp.TOTP(secret).at(site.clock.now)
        first, second = Browser(site), Browser(site, "192.0.2.2")
        for browser in (first, second):
            await browser.log_in("ada", PASSWORD)
        await first.send("/login/totp", code=code)
        assert first.answer.url.path == "/account"
        await second.send("/login/totp", code=code)
        assert "was used before" in second.answer.text
        wrong = "".join(str(9 - int(digit)) for digit in code)
        texts = []
        for _ in range(6):
            await second.send("/login/totp", code=wrong)
            texts.append("too many attempts" in second.answer.text)
        assert texts[0] is False
        assert texts[-1] is True
        right = pyotp.TOTP(secret).at(site.clock.now + STEP_S)
        await second.send("/login/totp", code=right)
        assert "too many attempts" in second.answer.text  # the right one has to wait, too
        site.clock.now += STEP_S
        await second.send("/login/totp", code=right)
        assert second.answer.url.path == "/account"
        assert ("login.code", "refused") in await actions(site)

    play(story)


def test_a_recovery_code_lets_in_once(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        _, codes = await with_app(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        await browser.send("/login/totp", code=codes[0].upper())
        assert browser.answer.url.path == "/account"
        await browser.get("/account/totp")
        assert "9 of 10 recovery codes" in browser.answer.text
        again = Browser(site)
        await again.log_in("ada", PASSWORD)
        await again.send("/login/totp", code=codes[0])
        assert again.answer.status_code == 400
        assert ("login.recovery-code", "done") in await actions(site)

    play(story)


def test_the_factor_is_set_up_and_removed_only_by_who_has_the_password(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        await browser.get("/account/totp")
        secret = secret_of(browser)
        code = pyotp.TOTP(secret).at(site.clock.now)
        await browser.send("/account/totp/confirm", password="wrong", code=code)
        assert "wrong" in browser.answer.text
        assert secret_of(browser) == secret
        await browser.send("/account/totp/confirm", password=PASSWORD, code="000000")
        assert "does not fit" in browser.answer.text
        await browser.send("/account/totp/confirm", password=PASSWORD, code=code)
        site.clock.now += STEP_S
        code = pyotp.TOTP(secret).at(site.clock.now)
        await browser.get("/account/totp")
        assert secret not in browser.answer.text.replace(" ", "")  # never shown again
        await browser.send("/account/totp/recovery", password=PASSWORD, code="000000")
        assert browser.answer.status_code == 400
        await browser.send("/account/totp/recovery", password=PASSWORD, code=code)
        assert len(re.findall(r"<li>([a-z2-7-]{19})</li>", browser.answer.text)) == 10
        site.clock.now += STEP_S
        await browser.get("/account/totp")
        token = next(form for form in browser.forms if form.action == "/account/totp/recovery").fields["csrf"]
        form = {"csrf": token, "password": PASSWORD, "code": pyotp.TOTP(secret).at(site.clock.now)}
        answer = await browser.http.post("/account/totp/remove", data=form)
        assert "was removed" in answer.text
        other = Browser(site)
        await other.log_in("ada", PASSWORD)
        assert other.answer.url.path == "/account"
        done = [action for action, _ in await actions(site)]
        assert [each for each in done if each.startswith("user.")] == [
            "user.add", "user.totp-add", "user.recovery-codes", "user.totp-remove",
        ]  # fmt: skip

    play(story)


def test_a_password_that_others_know_chooses_no_new_one_without_the_app(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        secret, _ = await with_app(site)
        statement = update(tables.local_accounts).values(must_change=True)
        await site.service.db.write(lambda conn: conn.execute(statement) and None)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        assert 'action="/login/totp"' in browser.answer.text
        stolen = browser.forms[0].fields
        chosen = {**stolen, "password": "quiet river stone", "again": "quiet river stone"}
        answer = await browser.http.post("/login/new-password", data=chosen)
        assert answer.status_code == 400
        await browser.send("/login/totp", code=pyotp.TOTP(secret).at(site.clock.now))
        await browser.send("/login/new-password", password="quiet river stone", again="quiet river stone")
        assert browser.answer.url.path == "/account"

    play(story)


def test_attempts_count_by_account_however_its_name_is_typed(play: Play) -> None:
    async def story(site: Site) -> None:
        await account(site)
        names = ["ada", " ada", "ADA", "ada@local", "Ada@Local ", "ada\u2003"]
        for number, name in enumerate(names):
            browser = Browser(site, f"192.0.2.{number + 1}")
            await browser.log_in(name, "wrong")
        assert browser.answer.status_code == 429

    play(story)


def test_nobody_fills_the_store_with_devices_that_wait(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        asked = {"client_id": Program().client_id}
        answers = [(await browser.http.post("/v2/oauth2/device", data=asked)).status_code for _ in range(62)]
        assert answers == [200] * 60 + [429] * 2

    play(story)


def test_a_program_s_words_are_shown_as_its_own(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await browser.get(Program().link(session_message="<b>Call 555</b>"))
        assert "The program that sent you here says: “&lt;b&gt;Call 555&lt;/b&gt;”" in browser.answer.text

    play(story)


# --- Providers


@pytest.fixture(scope="module")
def server() -> Iterator[OidcServer]:
    with oidc_server() as server:
        server.redirect_to(CALLBACK)
        yield server


@pytest.fixture
def visitor(server: OidcServer) -> Iterator[Visitor]:
    visitor = Visitor(server)
    yield visitor
    visitor.close()


def provider_of(server: OidcServer, **more: Any) -> OidcProvider:
    known: dict[str, Any] = {
        "name": "site", "label": "Site A", "issuer": server.issuer, "client_id": "farcall",
        "client_secret": server.client["client_secret"], "username_domain": "site-a.example",
        "allowed_domains": ("site-a.example", "site-b.example"),
    }  # fmt: skip
    return OidcProvider(**{**known, **more})


class NowClock(Clock):
    """The provider has a clock of its own, so ours has to be right. May be set ahead."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    @property
    def now(self) -> float:  # type: ignore[override]
        return time.time() + self._ahead_s

    @now.setter
    def now(self, now: float) -> None:
        self._ahead_s = now - time.time()


async def age_logins(site: Site, by_s: float) -> None:
    """Have all logins been made earlier."""
    at = tables.session_authentications.c.at
    await site.service.db.write(
        lambda conn: conn.execute(update(tables.session_authentications).values(at=at - by_s)) and None
    )


async def through(browser: Browser, visitor: Visitor, user: str | None, **more: Any) -> None:
    """The browser, which has just been sent to the provider, logs in there and comes back."""
    assert browser.left_to is not None, browser.answer.text
    back = urlsplit(await asyncio.to_thread(visitor.visit, browser.left_to, user, **more))
    assert f"{back.scheme}://{back.netloc}{back.path}" == CALLBACK
    await browser.get(f"{back.path}?{back.query}")


async def enter(browser: Browser, visitor: Visitor, user: str | None = "u-ada", next: str = "/account") -> None:
    await browser.get(f"/login/oidc/site?next={next}")
    await through(browser, visitor, user)


def told(play: Play, server: OidcServer, story: Any, **more: Any) -> None:
    """Play with the provider and the real time."""
    original = service_world.Clock
    service_world.Clock = NowClock  # type: ignore[misc]
    try:
        play(story, oidc=(provider_of(server, **more),))
    finally:
        service_world.Clock = original  # type: ignore[misc]


def test_a_provider_s_people_log_in_with_a_button(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await browser.get("/login?next=/account")
        button = re.search(r'href="(/login/oidc/site[^"]*)">Log in with Site A<', browser.answer.text)
        assert button
        await browser.get(button[1].replace("&amp;", "&"))
        await through(browser, visitor, "u-ada")
        assert browser.answer.url.path == "/account"
        assert "ada@site-a.example" in browser.answer.text
        assert "Ada Lovelace" in browser.answer.text
        assert not [name for name in browser.http.cookies if name.startswith("farcall_oidc_")]
        again = Browser(site, "192.0.2.9")
        await enter(again, visitor, None)  # is logged in there
        assert "ada@site-a.example" in again.answer.text
        assert [each for each in await actions(site) if each[0].startswith("user.")] == [("user.add", "done")]

    told(play, server, story)


def test_a_program_is_let_in_by_somebody_from_a_provider(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser, program = Browser(site), Program()
        await browser.get(program.link())
        button = re.search(r'href="(/login/oidc/site[^"]*)"', browser.answer.text)
        assert button
        await browser.get(button[1].replace("&amp;", "&"))
        await through(browser, visitor, "u-ada")
        await browser.send("/v2/oauth2/authorize", decision="allow")
        assert parameters(browser.left_to)["code"]

    told(play, server, story)


def test_an_answer_for_another_browser_logs_nobody_in(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        mallory, victim = Browser(site), Browser(site)
        await mallory.get("/login/oidc/site")
        assert mallory.left_to is not None
        back = urlsplit(await asyncio.to_thread(visitor.visit, mallory.left_to, "u-bob"))
        await victim.get("/login/oidc/site")
        await victim.get(f"{back.path}?{back.query}")
        assert victim.answer.status_code == 403
        assert "has not begun this login" in victim.answer.text
        await victim.get("/account")
        assert victim.answer.url.path == "/login"

    told(play, server, story)


def test_who_is_not_let_in_is_told_why_and_it_is_recorded(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await enter(browser, visitor, "u-bob")
        assert browser.answer.status_code == 403
        assert "has not allowed the domain site-b.example" in browser.answer.text
        assert (await actions(site))[-1] == ("login", "refused")
        before = len(await actions(site))
        await browser.get("/login/oidc/callback?state=x&code=y")
        assert browser.answer.status_code == 403
        assert len(await actions(site)) == before  # costs nothing to send, so it leaves nothing

    told(play, server, story, allowed_domains=("site-a.example",))


def test_no_provider_gives_out_the_names_of_others(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        await account(site)
        browser = Browser(site)
        await enter(browser, visitor)
        assert browser.answer.status_code == 403
        assert "this service&#39;s own domain" in browser.answer.text
        assert len(await site.service.db.read(find_people, (), ("ada@local",))) == 1

    told(play, server, story, username_domain="local", allowed_domains=("*",))


def test_logins_that_were_given_up_do_not_pile_up(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        for _ in range(9):
            await browser.get("/login/oidc/site")
        assert len([name for name in browser.http.cookies if name.startswith("farcall_oidc_")]) == 5
        await through(browser, visitor, "u-ada")
        assert browser.answer.url.path == "/account"

    told(play, server, story)


@pytest.mark.parametrize("header", [{"origin": "http://evil.example"}, {"sec-fetch-site": "same-site"}])
def test_a_form_of_another_place_is_refused_even_with_the_right_token(play: Play, header: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        await account(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        fields = next(form.fields for form in browser.forms if form.action == "/logout")
        assert (await browser.http.post("/logout", data=fields, headers=header)).status_code == 403
        await browser.get("/account")
        assert browser.answer.url.path == "/account"
        assert (await browser.http.post("/logout", data=fields)).status_code == 200

    play(story)


def test_a_login_leads_to_no_other_site(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await enter(browser, visitor, next="https://evil.example/")
        assert browser.left_to is None
        assert browser.answer.url.path == "/account"

    told(play, server, story)


def test_a_fresh_login_is_proved_to_the_provider(play: Play, server: OidcServer, visitor: Visitor) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await enter(browser, visitor)
        await age_logins(site, 100)
        await browser.get(Program().link(prompt="login"))
        assert browser.answer.url.path == "/login"
        button = re.search(r'href="(/login/oidc/site[^"]*)"', browser.answer.text)
        assert button
        await browser.get(button[1].replace("&amp;", "&"))
        assert browser.left_to is not None
        asked = parameters(browser.left_to)
        assert (asked["prompt"], asked["max_age"]) == ("login", "0")
        with pytest.raises(AssertionError, match="asks for a password"):
            await through(browser, visitor, None)
        await browser.get(button[1].replace("&amp;", "&"))
        await through(browser, visitor, "u-ada")
        assert "Let a program in" in browser.answer.text

    told(play, server, story)


def test_a_demand_for_more_factors_is_met_by_what_the_provider_says(
    play: Play, server: OidcServer, visitor: Visitor
) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await enter(browser, visitor)
        await browser.get(Program().link(session_required_mfa="True"))
        assert "second factor" in browser.answer.text
        server.tell(amr=["pwd", "mfa"])
        button = re.search(r'href="(/login/oidc/site[^"]*)"', browser.answer.text)
        assert button
        await browser.get(button[1].replace("&amp;", "&"))
        assert "acr_values" in parameters(browser.left_to)
        await through(browser, visitor, "u-ada")
        assert "Let a program in" in browser.answer.text

    try:
        told(play, server, story)
    finally:
        server.tell(amr=["pwd"])


def test_a_policy_s_largest_age_is_met_by_a_fresh_login_at_the_provider(
    play: Play, server: OidcServer, visitor: Visitor
) -> None:
    async def story(site: Site) -> None:
        owner = await policy_world.person(site, "owner@local")
        policy_id = await policy_world.policy(owner, include=["site-a.example"], timeout_s=60)
        browser = Browser(site)
        await enter(browser, visitor)
        await age_logins(site, 100)
        await browser.get(Program().link(session_required_policies=policy_id))
        assert browser.answer.url.path == "/login"
        assert "asks for more" in browser.answer.text
        button = re.search(r'href="(/login/oidc/site[^"]*)"', browser.answer.text)
        assert button
        await browser.get(button[1].replace("&amp;", "&"))
        assert parameters(browser.left_to)["prompt"] == "login"
        await through(browser, visitor, "u-ada")
        assert "Let a program in" in browser.answer.text

    told(play, server, story)


def test_identities_are_linked_when_both_have_logged_in_and_the_person_says_yes(
    play: Play, server: OidcServer, visitor: Visitor
) -> None:
    async def story(site: Site) -> None:
        local = await account(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        await browser.get("/account/link/site")
        await through(browser, visitor, "u-ada")
        assert "Is this you, too?" in browser.answer.text
        assert len(await site.service.db.read(find_people, (), (), local)) == 1  # not yet
        await browser.send("/account/link")
        assert browser.answer.url.path == "/account"
        assert "ada@site-a.example" in browser.answer.text
        other = Browser(site, "192.0.2.9")
        await enter(other, visitor, None)
        assert "ada@local" in other.answer.text  # the same person from either side
        await browser.send("/account/unlink")
        assert browser.answer.url.path == "/login"
        await other.get("/account")
        assert other.answer.url.path == "/login"  # rested on both
        assert [action for action, _ in await actions(site) if action.startswith("user.")] == [
            "user.add", "user.add", "user.link", "user.unlink",
        ]  # fmt: skip

    told(play, server, story)


def test_linking_takes_a_login_of_late_the_same_browser_and_somebody_who_is_let_in(
    play: Play, server: OidcServer, visitor: Visitor
) -> None:
    async def story(site: Site) -> None:
        local = await account(site)
        await account(site, "eve")
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        await browser.get("/account/link/site")
        await through(browser, visitor, "u-ada")
        fields = browser.forms[0].fields
        eve = Browser(site, "192.0.2.9")
        await eve.log_in("eve", PASSWORD)
        mine = next(form.fields["csrf"] for form in eve.forms if form.action == "/logout")
        answer = await eve.http.post("/account/link", data={**fields, "csrf": mine})
        assert answer.headers["location"].startswith("/login")
        assert (await browser.http.post("/account/link", data={**fields, "csrf": "x"})).status_code == 403
        ada = Browser(site)
        await enter(ada, visitor, None)
        (person,) = await site.service.db.read(find_people, (), ("ada@site-a.example",))
        await site.service.db.write(
            lambda conn: set_disabled(conn, person.id, True, actor=operator("x"), now=site.clock.now) and None
        )
        await browser.send("/account/link")
        assert "is disabled" in browser.answer.text
        site.clock.now += LATELY_S
        await browser.get("/account/link/site")
        assert browser.answer.url.path == "/login"
        assert len(await site.service.db.read(find_people, (), (), local)) == 1

    told(play, server, story)


def test_a_provider_that_is_down_is_named_and_the_login_page_stays(play: Play, server: OidcServer) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await browser.get("/login/oidc/site")
        assert browser.answer.status_code == 503
        assert "Site A cannot be reached" in browser.answer.text
        await browser.get("/login/oidc/other")
        assert browser.answer.status_code == 404

    told(play, server, story, issuer="http://127.0.0.1:1")


# --- Rubbish


RUBBISH = ("", "\0", "\udcff", "x" * 10_000, "e30.e30", "🙂.🙂", "null", "[]", '{"a":1}', "../../x", "%00%ff\r\nx: y")


@pytest.mark.parametrize("path", ["/login/totp", "/login/new-password", "/account/totp/confirm", "/account/totp/remove",
                                  "/account/totp/recovery", "/account/link", "/account/unlink"])  # fmt: skip
def test_no_form_is_a_fault(play: Play, path: str) -> None:
    async def story(site: Site) -> None:
        await account(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)
        token = next(form.fields["csrf"] for form in browser.forms if form.action == "/logout")
        for value in RUBBISH:
            names = ("pending", "code", "sealed", "identity_id", "again", "username")
            form = {**dict.fromkeys(names, value), "csrf": token, "password": value}
            body = urlencode(form, errors="surrogateescape")
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = await browser.http.post(path, content=body, headers=headers)
            assert answer.status_code < 500, (value[:20], answer.text)
            site.clock.now += 100  # so that nothing is slowed
            if (await browser.get("/account")).url.path == "/login":
                await browser.log_in("ada", PASSWORD)

    play(story)


def test_no_answer_of_a_provider_is_a_fault(play: Play, server: OidcServer) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        for value in RUBBISH:
            await browser.get("/login/oidc/site")
            state = parameters(browser.left_to)["state"]
            for given in (value, state):
                query = urlencode({"state": given, "code": value, "iss": value, "error_description": value, "a": value},
                                  errors="surrogateescape")  # fmt: skip
                answer = await browser.http.get(f"/login/oidc/callback?{query}")
                assert 400 <= answer.status_code < 500, (value[:20], answer.text)
            answer = await browser.http.get(f"/login/oidc/{quote(value, safe='', errors='surrogateescape')}")
            assert answer.status_code < 500

    told(play, server, story)
