"""Logging in at a real provider, as far as who it is; and what is refused on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from farcall.service.oidc.check import check_providers
from farcall.service.oidc.client import OidcClient
from farcall.service.oidc.provider import OidcProvider
from farcall.service.oidc.rules import LoginRefused, OidcPerson, Pending, ProviderUnavailable, new_pending
from oidc_server import OidcServer, Visitor, oidc_server

CALLBACK = "http://127.0.0.1:1/login/oidc/callback"


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


def provider_of(server: OidcServer, **changes: Any) -> OidcProvider:
    known: dict[str, Any] = {
        "name": "site", "issuer": server.issuer, "client_id": server.client["client_id"],
        "client_secret": server.client.get("client_secret"), "allowed_domains": ("site-a.example", "site-b.example"),
        "username_domain": "site-a.example",
    }  # fmt: skip
    return OidcProvider(**{**known, **changes})


def with_client(provider: OidcProvider, story: Callable[[OidcClient], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        client = OidcClient(provider, time.time)
        try:
            return await story(client)
        finally:
            await client.close()

    return asyncio.run(whole())


async def log_in(client: OidcClient, visitor: Visitor, user: str | None = "u-ada", **wishes: Any) -> OidcPerson:
    pending = new_pending(client.provider, redirect_uri=CALLBACK, now=time.time(), **wishes)
    return await client.finish(pending, await answer_to(client, visitor, pending, user))


async def answer_to(
    client: OidcClient, visitor: Visitor, pending: Pending, user: str | None = "u-ada", **more: Any
) -> dict[str, str]:
    url = await client.authorization_url(pending)
    back = await asyncio.to_thread(visitor.visit, url, user, **more)
    assert back.startswith(CALLBACK)
    return dict(parse_qsl(urlsplit(back).query))


def test_somebody_logs_in_and_again_without_typing(server: OidcServer, visitor: Visitor) -> None:
    async def story(client: OidcClient) -> None:
        person = await log_in(client, visitor)
        assert (person.username, person.subject) == ("ada@site-a.example", "u-ada")
        assert (person.display_name, person.organization) == ("Ada Lovelace", "Site A")
        assert person.email == "ada@site-a.example"
        assert abs(person.at - time.time()) < 60
        again = await log_in(client, visitor, user=None)
        assert again.subject == "u-ada"

    with_client(provider_of(server), story)


def test_what_the_id_token_leaves_out_is_asked_for(visitor: Visitor) -> None:
    with oidc_server(claims_at_userinfo_only=True) as server:
        server.redirect_to(CALLBACK)
        visitor = Visitor(server)
        person = with_client(provider_of(server), lambda client: log_in(client, visitor))
        visitor.close()
    assert (person.username, person.display_name) == ("ada@site-a.example", "Ada Lovelace")


def test_a_public_client_needs_no_secret() -> None:
    client = {"client_id": "open", "token_endpoint_auth_method": "none", "redirect_uris": ["http://127.0.0.1/x"]}
    with oidc_server(client=client) as server:
        server.redirect_to(CALLBACK)
        visitor = Visitor(server)
        provider = provider_of(server)
        assert with_client(provider, lambda client: log_in(client, visitor)).subject == "u-ada"
        visitor.close()


def test_a_fresh_login_has_the_provider_ask_again_and_is_fresh(server: OidcServer, visitor: Visitor) -> None:
    async def story(client: OidcClient) -> None:
        await log_in(client, visitor)
        began = time.time()
        with pytest.raises(AssertionError, match="asks for a password"):
            await log_in(client, visitor, user=None, max_age_s=0)
        person = await log_in(client, visitor, max_age_s=0)
        assert person.at >= int(began)

    with_client(provider_of(server), story)


def test_more_than_one_factor_is_recognised(server: OidcServer, visitor: Visitor) -> None:
    async def story(client: OidcClient) -> None:
        assert not (await log_in(client, visitor)).mfa
        server.tell(amr=["pwd", "otp", "mfa"])
        person = await log_in(client, visitor, max_age_s=0, wants_mfa=True)
        assert person.mfa
        assert "mfa" in person.amr

    try:
        with_client(provider_of(server), story)
    finally:
        server.tell(amr=["pwd"])


def test_a_new_signing_key_of_the_provider_is_fetched_when_it_is_met(server: OidcServer) -> None:
    async def story(client: OidcClient) -> None:
        for rotate in (False, True):
            if rotate:
                await asyncio.to_thread(server.tell, rotate=True)
            visitor = Visitor(server)
            assert (await log_in(client, visitor)).subject == "u-ada"
            visitor.close()

    with_client(provider_of(server), story)


def test_a_code_counts_once_and_only_with_the_login_that_it_was_given_to(server: OidcServer, visitor: Visitor) -> None:
    async def story(client: OidcClient) -> None:
        pending = new_pending(client.provider, redirect_uri=CALLBACK, now=time.time())
        answer = await answer_to(client, visitor, pending)
        with pytest.raises(LoginRefused, match="another login"):
            await client.finish(replace(pending, state="other"), answer)
        assert (await client.finish(pending, answer)).subject == "u-ada"
        with pytest.raises(LoginRefused, match="used already"):
            await client.finish(pending, answer)
        answer = await answer_to(client, visitor, pending)
        with pytest.raises(LoginRefused, match="used already"):  # PKCE: another verifier
            await client.finish(replace(pending, verifier="v" * 64), answer)
        answer = await answer_to(client, visitor, pending)
        with pytest.raises(LoginRefused, match="belongs to another login"):
            await client.finish(replace(pending, nonce="other"), answer)

    with_client(provider_of(server), story)


def test_no_means_no(server: OidcServer, visitor: Visitor) -> None:
    async def story(client: OidcClient) -> None:
        pending = new_pending(client.provider, redirect_uri=CALLBACK, now=time.time())
        answer = await answer_to(client, visitor, pending, consent=False)
        assert answer["error"] == "access_denied"
        with pytest.raises(LoginRefused, match="cancelled"):
            await client.finish(pending, answer)

    with_client(provider_of(server), story)


@pytest.mark.parametrize(
    ("user", "changes", "reason"),
    [
        ("u-ada", {"allowed_domains": ("site-b.example",)}, "has not allowed the domain site-a.example"),
        ("u-bob", {"username_claim": "email"}, "has not verified"),
        ("u-nameless", {}, "does not tell your user name"),
    ],
)
def test_who_is_not_meant_to_log_in_does_not(
    server: OidcServer, visitor: Visitor, user: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoginRefused, match=reason):
        with_client(provider_of(server, **changes), lambda client: log_in(client, visitor, user))


def test_a_wrong_client_secret_is_the_operator_s_fault_and_is_not_repeated(
    server: OidcServer, visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProviderUnavailable, match="invalid_client") as fault:
        with_client(provider_of(server, client_secret="sesame-open"), lambda client: log_in(client, visitor))
    assert "sesame-open" not in str(fault.value) + caplog.text
    assert "login.provider_fault" in {getattr(record, "event", None) for record in caplog.records}


def test_a_provider_that_is_not_there_is_named(server: OidcServer) -> None:
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        with_client(provider_of(server, issuer="http://127.0.0.1:1"), lambda client: client.discover())
    with pytest.raises(ProviderUnavailable, match="describes itself as issuer"):
        with_client(provider_of(server, issuer=server.issuer + "/"), lambda client: client.discover())


def test_a_provider_that_is_down_is_asked_again_after_a_pause(server: OidcServer) -> None:
    now = [1000.0]

    async def whole() -> None:
        client = OidcClient(provider_of(server, issuer="http://127.0.0.1:1"), lambda: now[0])
        try:
            for _ in range(2):
                with pytest.raises(ProviderUnavailable, match="cannot be reached"):
                    await client.discover()
            client.provider = provider_of(server)  # it is back
            with pytest.raises(ProviderUnavailable):
                await client.discover()
            now[0] += 5
            assert (await client.discover()).issuer == server.issuer
        finally:
            await client.close()

    asyncio.run(whole())


def test_an_operator_is_told_beforehand_which_providers_do_not_work(server: OidcServer) -> None:
    good, gone = provider_of(server), provider_of(server, name="gone", issuer="http://127.0.0.1:1", label="Gone")
    secretless = provider_of(server, name="x", client_secret=None, client_secret_file=Path("/nowhere/secret"))
    found = check_providers([good, gone, secretless])
    assert [finding.status for finding in found] == ["ok", "warning", "warning"]
    assert "Gone cannot be reached" in found[1].text
    assert "client_secret_file" in found[2].text
