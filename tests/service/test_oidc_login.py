"""A login goes to the provider with the browser and comes back with it, and with no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest

from farcall.service.oidc.login import OidcLogins
from farcall.service.oidc.provider import OidcProvider
from farcall.service.oidc.rules import PENDING_S, LoginRefused
from farcall.wire.errors import NotFound
from oidc_server import OidcServer, Visitor, oidc_server

CALLBACK = "http://127.0.0.1:1/login/oidc/callback"
SECRET = b"s" * 32


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


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def with_logins(server: OidcServer, story: Callable[[OidcLogins, Clock], Awaitable[None]]) -> None:
    provider = OidcProvider(
        name="site", issuer=server.issuer, client_id="farcall", client_secret=server.client["client_secret"],
        allowed_domains=("*",),
    )  # fmt: skip
    clock = Clock()

    async def whole() -> None:
        logins = OidcLogins([provider], SECRET, clock)
        try:
            await story(logins, clock)
        finally:
            await logins.close()

    asyncio.run(whole())


def test_a_login_comes_back_to_where_it_began(server: OidcServer, visitor: Visitor) -> None:
    async def story(logins: OidcLogins, _clock: Clock) -> None:
        begun = await logins.begin("site", redirect_uri=CALLBACK, next="/device?x=1", link_session="s1")
        other = await logins.begin("site", redirect_uri=CALLBACK, next="/account")
        assert begun.cookie != other.cookie
        back = await asyncio.to_thread(visitor.visit, begun.url, "u-ada")
        answer = dict(parse_qsl(urlsplit(back).query))
        finished = await logins.finish(answer, {begun.cookie: begun.value, other.cookie: other.value})
        assert (finished.person.subject, finished.next, finished.link_session) == ("u-ada", "/device?x=1", "s1")
        assert finished.cookie == begun.cookie
        with pytest.raises(LoginRefused, match="used already"):
            await logins.finish(answer, {begun.cookie: begun.value})

    with_logins(server, story)


def test_an_answer_counts_only_in_the_browser_that_began_and_in_time(server: OidcServer, visitor: Visitor) -> None:
    async def story(logins: OidcLogins, clock: Clock) -> None:
        begun = await logins.begin("site", redirect_uri=CALLBACK, next="/account")
        other = await logins.begin("site", redirect_uri=CALLBACK, next="/account")
        back = await asyncio.to_thread(visitor.visit, begun.url, "u-ada")
        answer = dict(parse_qsl(urlsplit(back).query))
        for cookies in ({}, {other.cookie: other.value}, {begun.cookie: begun.value[:-2] + "xx"}):
            with pytest.raises(LoginRefused, match="has not begun"):
                await logins.finish(answer, cookies)
        with pytest.raises(LoginRefused, match="another login"):
            await logins.finish(answer, {begun.cookie: other.value})
        clock.ahead = PENDING_S
        with pytest.raises(LoginRefused, match="has not begun"):
            await logins.finish(answer, {begun.cookie: begun.value})

    with_logins(server, story)


def test_a_provider_that_is_not_set_up_does_not_exist(server: OidcServer) -> None:
    async def story(logins: OidcLogins, _clock: Clock) -> None:
        assert logins.label("site") == "site"
        assert logins.label("other") is None
        with pytest.raises(NotFound, match="other"):
            await logins.begin("other", redirect_uri=CALLBACK, next="/")

    with_logins(server, story)
