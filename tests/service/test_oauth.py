"""The OAuth 2 server over ASGI, with real store and browser-like clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from browser import LOOPBACK, Browser, Program, ask_token, let_in, parameters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_world import Play, Site
from sqlalchemy import Connection, select

from farcall.service.accounts.passwords import hash_password
from farcall.service.audit.rules import operator
from farcall.service.audit.store import tail
from farcall.service.clients.rules import Client, new_secret, secret_hash
from farcall.service.clients.store import add_client, revoke_client
from farcall.service.db.engine import make_engine
from farcall.service.db.migrations import migrate
from farcall.service.db.tables import auth_sessions
from farcall.service.ids import new_id
from farcall.service.login.store import forget_sessions
from farcall.service.oauth import server
from farcall.service.oauth.rules import DEVICE_GRANT, Lifetimes, Refused
from farcall.service.oauth.server import Asking
from farcall.service.oauth.store import forget_expired
from farcall.service.users.rules import Person
from farcall.service.users.store import add_user, set_disabled
from farcall.wire.auth import COMPUTE_SCOPE, MANAGE_PROJECTS_SCOPE, OFFICIAL_CLIENT_ID
from postgres_server import PostgresServer

PASSWORD = "correct horse battery"
_HASH = hash_password(PASSWORD)
ME = operator("test")


async def person(site: Site, name: str = "ada", **more: Any) -> Person:
    def make(conn: Any) -> Person:
        return add_user(
            conn,
            f"{name}@local",
            _HASH,
            **{"must_change": False, "display_name": name.title(), "email": None, "organization": None, **more},
            actor=ME,
            now=site.clock.now,
        )

    return await site.service.db.write(make)


async def confidential(site: Site, *redirect_uris: str) -> tuple[Client, str]:
    secret = new_secret()
    client = Client(
        id=new_id(),
        name="a gateway",
        is_confidential=True,
        redirect_uris=redirect_uris,
        secret_hash=secret_hash(secret),
        created_at=site.clock.now,
    )
    await site.service.db.write(add_client, client, "local", ME)
    return client, secret


async def logged_in(site: Site, name: str = "ada") -> Browser:
    await person(site, name)
    browser = Browser(site)
    await browser.log_in(name, PASSWORD)
    assert f"{name}@local" in browser.answer.text
    return browser


async def bearer(site: Site, path: str, token: str, status: int = 200) -> Any:
    answer = await site.get(path, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == status, answer.text
    return answer.json()


async def tokens_of(site: Site, program: Program | None = None, **more: str) -> dict[str, Any]:
    """resource server → token document."""
    program = program or Program()
    code = await let_in(await logged_in(site), program, **more)
    first = await ask_token(site, **program.form(code))
    return {each["resource_server"]: each for each in (first, *first["other_tokens"])} | {"id_token": first["id_token"]}


# --- Authorization code


def test_a_login_gives_one_token_for_each_resource_server_and_an_id_token(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        code = await let_in(await logged_in(site), program, scope=f"openid {COMPUTE_SCOPE} {MANAGE_PROJECTS_SCOPE}")
        answer = await ask_token(site, **program.form(code))
        assert answer["resource_server"] == "funcx_service"
        assert answer["scope"] == COMPUTE_SCOPE
        assert answer["token_type"] == "Bearer"
        assert answer["expires_in"] == 86400
        (other,) = answer["other_tokens"]
        assert other["resource_server"] == "auth.globus.org"
        assert other["scope"].split() == ["openid", MANAGE_PROJECTS_SCOPE]
        assert (
            len({answer["access_token"], answer["refresh_token"], other["access_token"], other["refresh_token"]}) == 4
        )
        assert (await bearer(site, "/v3/whoami", answer["access_token"]))["username"] == "ada@local"

    play(story)


def test_the_id_token_is_signed_by_the_published_key_and_says_who_and_for_whom(play: Play) -> None:
    async def story(site: Site) -> None:
        from joserfc import jwt
        from joserfc.jwk import KeySet

        program = Program()
        given = await tokens_of(site, program, nonce="once")
        found = (await site.get("/.well-known/openid-configuration")).json()
        assert found["jwks_uri"] == "http://service.example:5000/jwk.json"
        keys = (await site.get("/jwk.json")).json()
        assert "d" not in keys["keys"][0]
        token = jwt.decode(given["id_token"], KeySet.import_key_set(keys), algorithms=["RS256"])
        userinfo = await bearer(site, "/v2/oauth2/userinfo", given["auth.globus.org"]["access_token"])
        assert token.claims["sub"] == userinfo["sub"]
        assert (token.claims["aud"], token.claims["nonce"]) == (program.client_id, "once")
        assert token.claims["auth_time"] == int(site.clock.now)

    play(story)


def test_without_offline_access_there_is_no_refresh_token(play: Play) -> None:
    async def story(site: Site) -> None:
        given = await tokens_of(site, access_type="online")
        assert "refresh_token" not in given["funcx_service"]

    play(story)


def test_state_comes_back_and_so_does_a_no(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        await browser.get(Program().link())
        await browser.send("/v2/oauth2/authorize", decision="deny")
        assert browser.left_to is not None
        assert browser.left_to.startswith(LOOPBACK)
        assert parameters(browser.left_to) == {"error": "access_denied", "state": "my-state"}

    play(story)


def test_who_is_not_logged_in_logs_in_first_and_comes_back(play: Play) -> None:
    async def story(site: Site) -> None:
        await person(site)
        browser, program = Browser(site), Program()
        await browser.get(program.link())
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.send("/login", username="ada", password=PASSWORD)
        await browser.send("/v2/oauth2/authorize", decision="allow")
        await ask_token(site, **program.form(parameters(browser.left_to)["code"]))

    play(story)


def test_a_code_counts_once_and_a_second_use_voids_what_came_of_it(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        code = await let_in(await logged_in(site), program)
        given = await ask_token(site, **program.form(code))
        assert (await ask_token(site, 400, **program.form(code)))["error"] == "invalid_grant"
        await bearer(site, "/v3/whoami", given["access_token"], 401)
        entry = (await site.service.db.read(tail, 1, "oauth.code_reused"))[0]
        assert entry.outcome == "refused"

    play(story)


@pytest.mark.parametrize(
    "wrong",
    [
        {"code_verifier": "x" * 60},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:1/other"},
        {"client_id": OFFICIAL_CLIENT_ID},
        {"code": "guessed"},
    ],
    ids=str,
)
def test_a_code_is_worth_nothing_in_other_hands(play: Play, wrong: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        program = Program()
        code = await let_in(await logged_in(site), program)
        await ask_token(site, 400, **{**program.form(code), **wrong})
        await ask_token(site, **program.form(code))

    play(story)


def test_a_code_expires(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        code = await let_in(await logged_in(site), program)
        site.clock.now += site.service.settings.code_s
        assert (await ask_token(site, 400, **program.form(code)))["error"] == "invalid_grant"

    play(story)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unauthorized_client"),
    ],
    ids=str,
)
def test_a_program_that_asks_in_bad_form_is_told(play: Play, change: dict[str, str], error: str) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        await browser.get(Program().link(**change))
        assert browser.left_to is not None, browser.answer.text
        assert browser.left_to.startswith(LOOPBACK)
        assert parameters(browser.left_to)["error"] == error

    play(story)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/",
        "http://evil.example/v2/web/auth-code",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://service.example:5000@evil.example/v2/web/auth-code",
        "http://service.example:5000/v2/web/auth-code?next=http://evil.example",
        "http://service.example:5000/account",
        "javascript:alert(1)",
        "http://127.0.0.1:1/#fragment",
        "http://127.0.0.1:1/\\evil",
    ],
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(play: Play, uri: str) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        await browser.get(Program(redirect_uri=uri).link())
        assert browser.left_to is None
        assert browser.answer.status_code == 400
        assert "<form" not in browser.answer.text

    play(story)


def test_the_service_shows_the_code_to_people_whose_program_cannot_listen(play: Play) -> None:
    async def story(site: Site) -> None:
        page = "http://service.example:5000/v2/web/auth-code"
        program = Program(client_id=OFFICIAL_CLIENT_ID, redirect_uri=page)
        browser = await logged_in(site)
        await browser.get(program.link())
        answer = await browser.send("/v2/oauth2/authorize", decision="allow")
        code = answer.text.partition('id="code">')[2].partition("<")[0]
        await ask_token(site, **program.form(code))

    play(story)


def test_an_unknown_program_is_told_to_nobody_but_the_person(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        await browser.get(Program(client_id=new_id()).link())
        assert browser.left_to is None
        assert "not known to this service" in browser.answer.text

    play(story)


# --- What is demanded of the login


def test_a_program_can_demand_a_new_login(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        site.clock.now += 100
        await browser.get(Program().link(prompt="login"))
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.send("/login", username="ada", password=PASSWORD)
        assert [each.action for each in browser.forms] == ["/v2/oauth2/authorize"]
        await browser.send("/v2/oauth2/authorize", decision="allow")
        assert "code" in parameters(browser.left_to)

    play(story)


def test_a_program_can_demand_that_somebody_in_particular_logs_in(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        grace = await person(site, "grace")
        await browser.get(Program().link(session_required_identities=grace.id, session_message="Only Grace may."))
        assert "Only Grace may." in browser.answer.text
        await browser.send("/login", username="grace", password=PASSWORD)
        assert "grace@local" in browser.answer.text
        await browser.send("/v2/oauth2/authorize", decision="allow")
        assert "code" in parameters(browser.left_to)

    play(story)


@pytest.mark.parametrize(
    "demand", [{"session_required_mfa": "True"}, {"session_required_single_domain": "uni.example"}], ids=str
)
def test_a_demand_that_the_login_does_not_meet_gets_no_code(play: Play, demand: dict[str, str]) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        await browser.get(Program().link(**demand))
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.send("/login", username="ada", password=PASSWORD)
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.get(Program().link(session_required_single_domain="local"))
        assert [each.action for each in browser.forms] == ["/v2/oauth2/authorize"]

    play(story)


def test_without_asking_there_is_no_consent(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = Browser(site)
        await browser.get(Program().link(prompt="none"))
        assert parameters(browser.left_to)["error"] == "login_required"
        browser = await logged_in(site)
        await browser.get(Program().link(prompt="none"))
        assert parameters(browser.left_to)["error"] == "consent_required"

    play(story)


# --- Refresh tokens


def test_a_refresh_token_is_changed_for_one_new_pair_of_its_own_server(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        given = await tokens_of(site, program)
        old = given["funcx_service"]
        site.clock.now += 1000
        new = await ask_token(
            site, grant_type="refresh_token", refresh_token=old["refresh_token"], client_id=program.client_id
        )
        assert (new["resource_server"], new["other_tokens"]) == ("funcx_service", [])
        assert new["refresh_token"] != old["refresh_token"]
        await bearer(site, "/v3/whoami", new["access_token"])
        await bearer(site, "/v3/whoami", old["access_token"])

    play(story)


def test_a_stolen_refresh_token_ends_the_whole_login(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        given = await tokens_of(site, program)

        async def refresh(token: str, status: int = 200) -> Any:
            site.clock.now += 10
            form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": program.client_id}
            return await ask_token(site, status, **form)

        first = given["funcx_service"]["refresh_token"]
        second = await refresh(first)
        await bearer(site, "/v3/whoami", second["access_token"])
        assert (await refresh(first, 400))["error"] == "invalid_grant"
        await bearer(site, "/v3/whoami", second["access_token"], 401)
        await refresh(second["refresh_token"], 400)
        await refresh(given["auth.globus.org"]["refresh_token"], 400)
        assert (await site.service.db.read(tail, 1, "oauth.refresh_reused"))[0].outcome == "refused"

    play(story)


def test_a_lost_answer_logs_nobody_out(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        token = (await tokens_of(site, program))["funcx_service"]["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": program.client_id}
        site.clock.now += 10
        lost = await ask_token(site, **form)
        site.clock.now += 10
        again = await ask_token(site, **form)
        await bearer(site, "/v3/whoami", lost["access_token"], 401)
        await bearer(site, "/v3/whoami", again["access_token"])
        site.clock.now += 10
        await ask_token(site, **{**form, "refresh_token": again["refresh_token"]})

    play(story)


def test_the_official_client_keeps_its_refresh_token(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program(client_id=OFFICIAL_CLIENT_ID)
        token = (await tokens_of(site, program))["funcx_service"]["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": program.client_id}
        for _ in range(3):
            site.clock.now += site.service.settings.refresh_token_s - 10
            answer = await ask_token(site, **form)
            assert answer["refresh_token"] == token
            await bearer(site, "/v3/whoami", answer["access_token"])

    play(story)


def test_a_refresh_token_expires_and_is_of_one_client(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        token = (await tokens_of(site, program))["funcx_service"]["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": token}
        await ask_token(site, 400, **form, client_id=OFFICIAL_CLIENT_ID)
        assert (await ask_token(site, 400, **form, client_id=program.client_id, scope=MANAGE_PROJECTS_SCOPE))[
            "error"
        ] == "invalid_scope"
        site.clock.now += site.service.settings.refresh_token_s
        assert (await ask_token(site, 400, **form, client_id=program.client_id))["error"] == "invalid_grant"

    play(story)


def test_a_refresh_token_opens_nothing_by_itself(play: Play) -> None:
    async def story(site: Site) -> None:
        given = await tokens_of(site)
        await bearer(site, "/v3/whoami", given["funcx_service"]["refresh_token"], 401)

    play(story)


# --- Scopes


def test_a_token_opens_its_own_server_only(play: Play) -> None:
    async def story(site: Site) -> None:
        given = await tokens_of(site)
        compute, auth = given["funcx_service"]["access_token"], given["auth.globus.org"]["access_token"]
        assert (await bearer(site, "/v3/whoami", auth, 403))["code"] == "FORBIDDEN"
        assert (await bearer(site, "/v2/oauth2/userinfo", compute, 403))["code"] == "FORBIDDEN"
        found = await bearer(site, "/v2/oauth2/userinfo", auth)
        assert [each["sub"] for each in found["identity_set"]] == [found["sub"]]
        assert found["preferred_username"] == "ada@local"
        assert found["last_authentication"] == int(site.clock.now)

    play(story)


# --- Clients with a secret


def test_a_program_logs_in_with_its_secret(play: Play) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site)
        answer = await ask_token(
            site, auth=(client.id, secret), grant_type="client_credentials", scope=f"openid {COMPUTE_SCOPE}"
        )
        assert "refresh_token" not in answer
        assert answer["other_tokens"][0]["resource_server"] == "auth.globus.org"
        me = await bearer(site, "/v3/whoami", answer["access_token"])
        assert (me["identity_id"], me["username"]) == (client.id, f"{client.id}@clients.local")
        info = await bearer(site, "/v2/oauth2/userinfo", answer["other_tokens"][0]["access_token"])
        assert info["identity_set"][0]["sub"] == client.id
        one = await ask_token(site, auth=(client.id, secret), grant_type="client_credentials", scope=COMPUTE_SCOPE)
        assert one["other_tokens"] == []
        posted = {"client_id": client.id, "client_secret": secret}
        await ask_token(site, grant_type="client_credentials", scope=COMPUTE_SCOPE, **posted)

    play(story)


def test_a_wrong_secret_is_refused_and_guessing_is_slowed(play: Play) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site)
        form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}
        for _ in range(30):
            assert (await ask_token(site, 401, auth=(client.id, "wrong"), **form))["error"] == "invalid_client"
        await ask_token(site, 429, auth=(client.id, secret), **form)

    play(story)


def test_a_program_without_a_secret_cannot_log_in_by_itself(play: Play) -> None:
    async def story(site: Site) -> None:
        answer = await ask_token(
            site, 401, grant_type="client_credentials", client_id=Program().client_id, scope=COMPUTE_SCOPE
        )
        assert answer["error"] == "invalid_client"

    play(story)


def test_people_log_in_through_a_registered_program_only_where_it_is_registered(play: Play) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site, "https://gateway.example/back")
        browser = await logged_in(site)
        await browser.get(Program(client_id=client.id, redirect_uri="https://gateway.example/other").link())
        assert browser.left_to is None
        program = Program(client_id=client.id, redirect_uri="https://gateway.example/back")
        code = await let_in(browser, program)
        form = program.form(code)
        await ask_token(site, 401, **form)
        await ask_token(site, auth=(client.id, secret), **form)

    play(story)


def test_a_revoked_program_and_all_that_it_was_given_are_void_at_once(play: Play) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site, LOOPBACK)
        form = {"grant_type": "client_credentials", "scope": COMPUTE_SCOPE}
        own = await ask_token(site, auth=(client.id, secret), **form)
        program = Program(client_id=client.id)
        code = await let_in(await logged_in(site), program)
        given = await ask_token(site, auth=(client.id, secret), **program.form(code))
        await bearer(site, "/v3/whoami", own["access_token"])
        document = {"endpoint_name": "here", "direct": True, "metadata": {}}
        headers = {"authorization": f"Bearer {own['access_token']}"}
        endpoint = (await site.client.post("/v3/endpoints", json=document, headers=headers)).json()
        _, cuts = await site.service.db.write(revoke_client, "a gateway", ME, site.clock.now)
        assert {cut.id for cut in cuts} >= {client.id, endpoint["endpoint_id"]}
        assert len(cuts) == 3  # and the person who had logged in through it
        await site.service.watch.look()
        await bearer(site, "/v3/whoami", own["access_token"], 401)
        await bearer(site, "/v3/whoami", given["access_token"], 401)
        await ask_token(site, 401, auth=(client.id, secret), **form)

    play(story)


# --- Devices


async def begin_device(site: Site, **more: str) -> Any:
    form = {"client_id": Program().client_id, "scope": f"openid {COMPUTE_SCOPE}", **more}
    answer = await site.client.post("/v2/oauth2/device", data=form)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(site: Site, begun: Any, status: int) -> Any:
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    return await ask_token(
        site, status, grant_type=grant, client_id=Program().client_id, device_code=begun["device_code"]
    )


def test_a_device_waits_until_its_person_agrees_elsewhere(play: Play) -> None:
    async def story(site: Site) -> None:
        begun = await begin_device(site)
        assert begun["verification_uri"] == "http://service.example:5000/device"
        assert begun["interval"] == 5
        assert (await poll(site, begun, 400))["error"] == "authorization_pending"
        assert (await poll(site, begun, 400))["error"] == "slow_down"
        browser = await logged_in(site)
        await browser.get("/device")
        await browser.send("/device", user_code=begun["user_code"].lower().replace("-", " "))
        assert begun["user_code"] in browser.answer.text
        await browser.send("/device", decision="allow")
        site.clock.now += 5
        answer = await poll(site, begun, 200)
        assert answer["id_token"]
        assert answer["refresh_token"]
        await bearer(site, "/v3/whoami", answer["access_token"])
        assert (await poll(site, begun, 400))["error"] == "invalid_grant"

    play(story)


def test_a_device_is_told_no_and_too_late(play: Play) -> None:
    async def story(site: Site) -> None:
        refused, forgotten = await begin_device(site), await begin_device(site)
        browser = await logged_in(site)
        await browser.get(refused["verification_uri_complete"])
        await browser.send("/device", decision="deny")
        assert (await poll(site, refused, 400))["error"] == "access_denied"
        site.clock.now += site.service.settings.device_code_s
        assert (await poll(site, forgotten, 400))["error"] == "expired_token"
        await browser.get(forgotten["verification_uri_complete"])
        assert browser.answer.status_code == 404

    play(story)


def test_codes_of_devices_cannot_be_guessed(play: Play) -> None:
    async def story(site: Site) -> None:
        begun = await begin_device(site)
        browser = await logged_in(site)
        for _ in range(10):
            assert (await browser.get("/device?user_code=BBBB-BBBB")).status_code == 404
        assert (await browser.get(begun["verification_uri_complete"])).status_code == 429

    play(story)


def test_a_device_can_demand_a_new_login(play: Play) -> None:
    async def story(site: Site) -> None:
        browser = await logged_in(site)
        site.clock.now += 100
        begun = await begin_device(site, prompt="login")
        await browser.get(begun["verification_uri_complete"])
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.send("/login", username="ada", password=PASSWORD)
        await browser.send("/device", decision="allow")
        site.clock.now += 5
        await poll(site, begun, 200)

    play(story)


# --- Revocation and introspection


def test_a_revoked_token_is_void_at_once(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        given = (await tokens_of(site, program))["funcx_service"]
        await bearer(site, "/v3/whoami", given["access_token"])
        for token in (given["access_token"], given["refresh_token"], "unknown"):
            form = {"token": token, "client_id": program.client_id}
            answer = await site.client.post("/v2/oauth2/token/revoke", data=form)
            assert (answer.status_code, answer.json()) == (200, {"active": False})
        await bearer(site, "/v3/whoami", given["access_token"], 401)
        await ask_token(
            site, 400, grant_type="refresh_token", refresh_token=given["refresh_token"], client_id=program.client_id
        )

    play(story)


def test_revoking_a_refresh_token_voids_what_came_of_it(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        given = await tokens_of(site, program)
        compute = given["funcx_service"]
        form = {"token": compute["refresh_token"], "client_id": program.client_id}
        await site.client.post("/v2/oauth2/token/revoke", data=form)
        await bearer(site, "/v3/whoami", compute["access_token"], 401)
        await bearer(site, "/v2/oauth2/userinfo", given["auth.globus.org"]["access_token"])

    play(story)


def test_another_program_cannot_revoke_a_token(play: Play) -> None:
    async def story(site: Site) -> None:
        given = (await tokens_of(site))["funcx_service"]
        form = {"token": given["access_token"], "client_id": OFFICIAL_CLIENT_ID}
        assert (await site.client.post("/v2/oauth2/token/revoke", data=form)).status_code == 200
        await bearer(site, "/v3/whoami", given["access_token"])

    play(story)


def test_a_program_with_a_secret_learns_what_a_token_is_worth(play: Play) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site)
        given = (await tokens_of(site))["funcx_service"]

        async def introspect(token: str, auth: Any, status: int = 200) -> Any:
            answer = await site.client.post("/v2/oauth2/token/introspect", data={"token": token}, auth=auth)
            assert answer.status_code == status, answer.text
            return answer.json()

        found = await introspect(given["access_token"], (client.id, secret))
        assert (found["active"], found["username"], found["scope"]) == (True, "ada@local", COMPUTE_SCOPE)
        assert await introspect("fc_unknown", (client.id, secret)) == {"active": False}
        assert (await introspect(given["access_token"], (client.id, "wrong"), 401))["error"] == "invalid_client"
        await introspect(given["access_token"], None, 401)

    play(story)


def test_somebody_who_is_disabled_keeps_nothing(play: Play) -> None:
    async def story(site: Site) -> None:
        program = Program()
        browser = await logged_in(site)
        given = await ask_token(site, **program.form(await let_in(browser, program)))
        me = await bearer(site, "/v3/whoami", given["access_token"])

        def disable(conn: Any) -> None:
            set_disabled(conn, me["identity_id"], True, actor=ME, now=site.clock.now)

        await site.service.db.write(disable)
        await site.service.watch.look()
        await bearer(site, "/v3/whoami", given["access_token"], 401)
        await ask_token(
            site, 400, grant_type="refresh_token", refresh_token=given["refresh_token"], client_id=program.client_id
        )
        await browser.get("/account")
        assert [each.action for each in browser.forms] == ["/login"]
        await browser.send("/login", username="ada", password=PASSWORD)
        assert browser.answer.status_code == 403

    play(story)


# --- Who is who


def test_people_are_found_by_id_and_by_name(play: Play) -> None:
    async def story(site: Site) -> None:
        token = (await tokens_of(site))["auth.globus.org"]["access_token"]
        grace = await person(site, "grace")
        found = await bearer(site, f"/v2/api/identities?ids={grace.id}", token)
        assert [each["username"] for each in found["identities"]] == ["grace@local"]
        found = await bearer(site, "/v2/api/identities?usernames=Grace@Local,nobody@local", token)
        assert [each["id"] for each in found["identities"]] == [grace.id]
        assert (await bearer(site, f"/v2/api/identities/{grace.id}", token))["identity"]["name"] == "Grace"
        await bearer(site, f"/v2/api/identities/{new_id()}", token, 404)
        await bearer(site, "/v2/api/identities?ids=x", token, 422)

    play(story)


def test_one_sees_ones_own_consents_only(play: Play) -> None:
    async def story(site: Site) -> None:
        token = (await tokens_of(site))["auth.globus.org"]["access_token"]
        me = (await bearer(site, "/v2/oauth2/userinfo", token))["sub"]
        found = await bearer(site, f"/v2/api/identities/{me}/consents", token)
        assert {each["scope_name"] for each in found["consents"]} == {COMPUTE_SCOPE, "openid"}
        await bearer(site, f"/v2/api/identities/{(await person(site, 'grace')).id}/consents", token, 403)

    play(story)


# --- On PostgreSQL


def test_logins_work_on_postgresql_too(play: Play, postgres: PostgresServer) -> None:
    async def story(site: Site) -> None:
        client, secret = await confidential(site)
        program = Program()
        browser = await logged_in(site)
        await browser.get("/login?again=1")
        await browser.send("/login", username="ada", password=PASSWORD)
        given = await ask_token(site, **program.form(await let_in(browser, program)))
        form = {"grant_type": "refresh_token", "client_id": program.client_id}
        site.clock.now += 10
        new = await ask_token(site, **form, refresh_token=given["refresh_token"])
        info = await bearer(site, "/v2/oauth2/userinfo", given["other_tokens"][0]["access_token"])
        assert info["last_authentication"] == int(site.clock.now) - 10
        await bearer(site, "/v3/whoami", new["access_token"])
        site.clock.now += 10
        await ask_token(site, 400, **form, refresh_token=given["refresh_token"])
        await bearer(site, "/v3/whoami", new["access_token"], 401)
        begun = await begin_device(site)
        await browser.get(begun["verification_uri_complete"])
        await browser.send("/device", decision="allow")
        device = await poll(site, begun, 200)
        posted = {"token": device["access_token"]}
        answer = await site.client.post("/v2/oauth2/token/introspect", data=posted, auth=(client.id, secret))
        assert answer.json()["username"] == "ada@local"
        lookup = device["other_tokens"][0]["access_token"]
        assert await bearer(site, "/v2/api/identities?usernames=a%00b", lookup) == {"identities": []}
        assert (await Browser(site).log_in("a\0b@local", PASSWORD)).status_code == 403
        await browser.get("/account")
        await browser.send("/account/revoke")
        await bearer(site, "/v3/whoami", device["access_token"], 401)
        await site.service.db.write(forget_expired, site.clock.now + 1e9, 0.0)
        await site.service.db.write(forget_sessions, site.clock.now + 1e9)
        assert await site.service.db.read(find_session_count) == 0

    play(story, store=postgres.database())


def find_session_count(conn: Any) -> int:
    return len(conn.execute(select(auth_sessions.c.id)).all())


# --- Rubbish


@pytest.mark.parametrize("path", ["token", "token/revoke", "token/introspect", "device"])
@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b"grant_type=%zz", b"grant_type=a&grant_type=b", b"token=x"])
def test_rubbish_is_refused_as_oauth_does(play: Play, path: str, body: bytes) -> None:
    async def story(site: Site) -> None:
        for kind in ("application/x-www-form-urlencoded", "application/json"):
            answer = await site.client.post(f"/v2/oauth2/{path}", content=body, headers={"content-type": kind})
            assert answer.status_code in (400, 401), answer.text
            assert isinstance(answer.json()["error"], str)
            assert answer.headers["cache-control"] == "no-store"

    play(story)


_KEYS = [
    *("grant_type", "client_id", "client_secret", "code", "code_verifier", "redirect_uri", "refresh_token", "scope"),
    *("device_code", "token", "token_type_hint", "response_type", "state", "prompt", "code_challenge", "claims"),
    *("code_challenge_method", "response_mode", "access_type", "nonce", "max_age", "id_token_hint", "audience"),
]
_VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("authorization_code", "refresh_token", "client_credentials", "password", DEVICE_GRANT),
            *("code", "token", "none", "S256", "plain", "openid", COMPUTE_SCOPE, LOOPBACK, "fragment", "form_post"),
            *(Program().client_id, Program().client_id.upper(), OFFICIAL_CLIENT_ID, "http://[::1", "x" * 5000),
        ]
    ),
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    engine = make_engine(f"sqlite:///{tmp_path_factory.mktemp('fuzz') / 'a.db'}")
    migrate(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.lists(st.tuples(st.sampled_from(_KEYS), _VALUES), max_size=8),
    header=st.one_of(st.none(), st.text(max_size=30), st.text(max_size=30).map(lambda text: f"Basic {text}")),
    raw=st.one_of(st.none(), st.text(max_size=40)),
)
def test_no_request_is_a_fault(
    connection: Connection, form: list[tuple[str, str]], header: str | None, raw: str | None
) -> None:
    text = urlencode(form) if raw is None else raw
    headers = {"content-type": "application/x-www-form-urlencoded"}
    asking = Asking(
        base="http://service.example",
        host="service.example",
        uri="http://service.example/v2/oauth2/token",
        body=text,
        headers=headers if header is None else {**headers, "authorization": header},
        address=None,
        now=1000.0,
        lifetimes=Lifetimes(access_s=1, refresh_s=1, code_s=1, device_code_s=1),
    )
    for run in (partial(server.exchange, key=None), server.revoke, server.introspect, server.begin_device):
        answer = run(connection, asking)
        assert 200 <= answer.status < 500
        assert answer.status == 200 or isinstance(answer.document["error"], str)
    link = replace(asking, body="", uri=f"http://service.example/v2/oauth2/authorize?{text}")
    checked = server.check_authorization(connection, link)
    if isinstance(checked, Refused) and checked.location is not None:
        assert urlsplit(checked.location).hostname == "127.0.0.1"
