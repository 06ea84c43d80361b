"""Sharing, authentication policies and high assurance over the routes, with a real store and broker behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from browser import Browser, Program, ask_token, parameters
from policy_world import HTTPS, group, guarded_endpoint, person, policy, subscription
from service_world import CODE, PAYLOAD, Caller, Play, Site

from farcall.service.accounts.local import LocalLogin
from farcall.service.accounts.passwords import hash_password
from farcall.service.accounts.rules import Identity, token_hash
from farcall.service.accounts.store import find_token
from farcall.service.audit.rules import NOBODY as NO_ACTOR
from farcall.service.audit.store import tail
from farcall.service.relay.results import ParsedResult
from farcall.service.relay.store import read_result_page, record_results
from farcall.service.users.rules import Person
from farcall.service.users.store import add_user
from farcall.wire.auth import COMPUTE_SCOPE, MANAGE_PROJECTS_SCOPE, session_demand

NOBODY = "11111111-2222-4333-8444-555555555555"
DAY = 86400.0


PASSWORD = "correct horse battery"


async def add_person(site: Site) -> Person:
    """Ada, with a password."""

    def make(conn: Any) -> Person:
        told: dict[str, Any] = {"must_change": False, "display_name": None, "email": None, "organization": None}
        return add_user(conn, "ada@local", hash_password(PASSWORD), **told, actor=NO_ACTOR, now=site.clock.now)

    return await site.service.db.write(make)


async def identity_of(site: Site, token: str) -> Identity:
    found = await site.service.db.read(find_token, token_hash(token))
    assert found is not None
    return found[0]


async def finish(site: Site, endpoint_id: str, *task_ids: str) -> Any:
    """Results as the endpoint sends them."""
    results = [
        ParsedResult(sender=f"{endpoint_id}.results", body=b"secret", task_id=each, data="secret") for each in task_ids
    ]
    return await site.service.db.write(record_results, results, site.clock.now)


async def told(site: Site, action: str) -> Sequence[Any]:
    """What the audit table says of an action, oldest first."""
    return await site.service.db.read(tail, 100, action)


# --- functions


def test_a_function_for_a_group_is_run_by_its_members_and_nobody_else(play: Play) -> None:
    async def story(site: Site) -> None:
        lab = await group(site, "lab")
        ada = await person(site, "ada@example.org", member_of=[lab])
        bob = await person(site, "bob@example.org", member_of=[lab])
        eve = await person(site, "eve@example.org")
        function_id = await ada.caller.function(group=lab)
        await bob.caller.submit(await bob.caller.endpoint(), function_id)
        await bob.caller.ask("GET", f"/v2/functions/{function_id}")
        refused = await eve.caller.submit(await eve.caller.endpoint(), function_id, status=403)
        assert refused["code"] == "FUNCTION_NOT_PERMITTED"
        assert "eve@example.org" in refused["message"]
        await eve.caller.ask("GET", f"/v2/functions/{function_id}", status=403)
        await bob.caller.ask("DELETE", f"/v2/functions/{function_id}", status=403)
        body = {"function_name": "triple", "function_code": CODE, "group": lab}
        assert "not in a group" in (await eve.caller.ask("POST", "/v3/functions", body, status=403))["message"]

    play(story)


# --- shares


def test_an_endpoint_is_shared_with_people_and_groups_until_that_is_taken_back(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        lab = await group(site, "lab")
        ada, bob, eve = [await person(site, f"{name}@example.org") for name in ("ada", "bob", "eve")]
        cleo = await person(site, "cleo@example.org", member_of=[lab])
        endpoint_id = await ada.caller.endpoint()
        shares = f"/v3/endpoints/{endpoint_id}/shares"
        for who in (bob, cleo):
            await who.caller.submit(endpoint_id, await who.caller.function(), status=403)
        made = await ada.caller.ask("PUT", shares, {"identities": ["Bob@Example.org".lower()], "groups": ["lab"]})
        assert [(each["kind"], each["name"]) for each in made["shares"]] == [
            ("identity", "bob@example.org"),
            ("group", "lab"),
        ]
        assert "as its owner's account" in made["notice"]
        for who in (bob, cleo):
            await who.caller.submit(endpoint_id, await who.caller.function())
            assert endpoint_id in [each["uuid"] for each in await who.caller.ask("GET", "/v2/endpoints?role=any")]
            await who.caller.ask("GET", f"/v2/endpoints/{endpoint_id}")
            await who.caller.ask("PUT", shares, {"identities": [eve.id]}, status=403)
            await who.caller.ask("GET", shares, status=403)
        await eve.caller.submit(endpoint_id, await eve.caller.function(), status=403)
        await ada.caller.ask("DELETE", f"{shares}?identity=bob@example.org")
        await bob.caller.submit(endpoint_id, await bob.caller.function(), status=403)
        assert (await ada.caller.ask("DELETE", shares))["shares"] == []
        await cleo.caller.submit(endpoint_id, await cleo.caller.function(), status=403)
        assert [each.outcome for each in await told(site, "endpoint.share")] == ["done"]
        assert len(await told(site, "endpoint.unshare")) == 2

    play(story, store=store_url)


@pytest.mark.parametrize(
    ("body", "status"),
    [({"identities": ["nobody@example.org"]}, 404), ({"groups": [NOBODY]}, 404), ({}, 422), ({"users": ["x"]}, 422)],
)
def test_sharing_with_nobody_that_is_known_changes_nothing(play: Play, body: Any, status: int) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        shares = f"/v3/endpoints/{await ada.caller.endpoint()}/shares"
        await ada.caller.ask("PUT", shares, body, status=status)
        assert (await ada.caller.ask("GET", shares))["shares"] == []

    play(story)


def test_linked_identities_are_one_person(play: Play) -> None:
    async def story(site: Site) -> None:
        home = await person(site, "ada@example.org")
        work = await person(site, "ada@lab.example.edu", person_id=home.id)
        endpoint_id, function_id = await home.caller.endpoint(), await home.caller.function()
        await work.caller.submit(endpoint_id, function_id)
        await work.caller.ask("GET", f"/v3/endpoints/{endpoint_id}/shares")
        again = {"endpoint_name": "here", "direct": True, "metadata": {}}
        await work.caller.ask("PUT", f"/v3/endpoints/{endpoint_id}", again)
        assert [each["uuid"] for each in await work.caller.ask("GET", "/v2/endpoints")] == [endpoint_id]

    play(story)


# --- policies


def test_a_policy_of_60_seconds_asks_again_after_a_minute(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        policy_id = await policy(ada, display_name="Fresh", timeout_s=60)
        endpoint_id = await ada.caller.endpoint(authentication_policy=policy_id)
        function_id = await ada.caller.function()
        site.clock.now += 60
        await ada.caller.submit(endpoint_id, function_id)
        site.clock.now += 1
        refused = await ada.caller.submit(endpoint_id, function_id, status=403)
        assert refused["code"] == "LOGIN_REQUIRED"
        parameters = refused["authorization_parameters"]
        assert parameters["session_required_policies"] == [policy_id]
        assert parameters["session_required_identities"] == [ada.id]
        assert parameters["prompt"] == "login"
        for part in ("ada@example.org", "'Fresh'", endpoint_id):
            assert part in refused["message"]
        await ada.log_in_again()
        await ada.caller.submit(endpoint_id, function_id)
        assert [each.outcome for each in await told(site, "task.submit")] == ["done", "refused", "done"]

    play(story)


def test_domains_are_those_of_the_persons_identities(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org", is_admin=True)
        policy_id = await policy(ada, include=["*.example.edu"])
        endpoint_id = await ada.caller.endpoint(authentication_policy=policy_id)
        function_id = await ada.caller.function()
        refused = await ada.caller.submit(endpoint_id, function_id, status=403)
        assert "*.example.edu" in refused["message"]
        work = await person(site, "ada@lab.example.edu", person_id=ada.id)
        await work.caller.submit(endpoint_id, function_id)

    play(story)


def test_a_changed_policy_counts_from_the_next_request_on(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        policy_id = await policy(ada)
        endpoint_id = await ada.caller.endpoint(authentication_policy=policy_id)
        function_id = await ada.caller.function()
        await ada.caller.submit(endpoint_id, function_id)
        changed = await ada.caller.ask("PUT", f"/v3/policies/{policy_id}", {"required_mfa": True})
        assert changed["required_mfa"] is True
        refused = await ada.caller.submit(endpoint_id, function_id, status=403)
        assert refused["authorization_parameters"]["session_required_mfa"] is True
        await ada.log_in_again(mfa=True)
        await ada.caller.submit(endpoint_id, function_id)
        assert (
            "protects endpoint" in (await ada.caller.ask("DELETE", f"/v3/policies/{policy_id}", status=409))["message"]
        )
        await ada.caller.ask("DELETE", f"/v3/endpoints/{endpoint_id}")
        await ada.caller.ask("DELETE", f"/v3/policies/{policy_id}")
        await ada.caller.ask("GET", f"/v3/policies/{policy_id}", status=404)

    play(story, store=store_url)


def test_a_registration_names_a_policy_that_its_owner_may_use(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await person(site, "ada@example.org"), await person(site, "bob@example.org")
        root = await person(site, "root@example.org", is_admin=True)
        body = {"endpoint_name": "here", "direct": True, "metadata": {}}
        for policy_id in (NOBODY, await policy(ada)):
            wanted = {**body, "authentication_policy": policy_id}
            assert policy_id in (await bob.caller.ask("POST", "/v3/endpoints", wanted, status=404))["message"]
        of_site = await root.caller.ask("POST", "/v3/policies", {"of_site": True, "display_name": "Everybody"})
        assert of_site["project_id"] is None
        endpoint_id = await bob.caller.endpoint(authentication_policy=of_site["id"])
        shown = await bob.caller.ask("GET", f"/v2/endpoints/{endpoint_id}")
        assert shown["authentication_policy"] == of_site["id"]
        await bob.caller.ask("POST", "/v3/policies", {"of_site": True}, status=403)
        await bob.caller.ask("PUT", f"/v3/policies/{of_site['id']}", {"required_mfa": True}, status=403)

    play(story)


def test_projects_and_policies_in_the_ecosystems_form(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org", scopes=[MANAGE_PROJECTS_SCOPE])
        compute = await person(site, "bob@example.org", scopes=[COMPUTE_SCOPE])
        for who, path in ((compute, "/v2/api/projects"), (ada, "/v3/policies")):
            assert "does not open this part" in (await who.caller.ask("GET", path, status=403))["message"]
        project = {"display_name": "Mine", "contact_email": "a@b.c", "admin_ids": [ada.id], "admin_group_ids": []}
        made = (await ada.caller.ask("POST", "/v2/api/projects", {"project": project}))["project"]
        assert (made["display_name"], made["admin_ids"]) == ("Mine", [ada.id])
        assert [each["id"] for each in (await ada.caller.ask("GET", "/v2/api/projects"))["projects"]] == [made["id"]]
        wanted = {
            "project_id": made["id"],
            "display_name": "Staff",
            "description": "made by a test",
            "domain_constraints_include": ["*.example.org"],
            "authentication_assurance_timeout": 60,
        }
        document = (await ada.caller.ask("POST", "/v2/api/policies", {"policy": wanted}))["policy"]
        assert document == {
            **wanted,
            "id": document["id"],
            "domain_constraints_exclude": [],
            "high_assurance": True,
            "required_mfa": False,
        }
        path = f"/v2/api/policies/{document['id']}"
        assert (await ada.caller.ask("GET", path))["policy"] == document
        changed = await ada.caller.ask("PUT", path, {"policy": {"authentication_assurance_timeout": None}})
        assert changed["policy"] == {**document, "authentication_assurance_timeout": None}
        await ada.caller.ask("POST", "/v2/api/policies", {"policy": {**wanted, "project_id": NOBODY}}, status=404)
        await ada.caller.ask("DELETE", path)
        assert (await ada.caller.ask("GET", "/v2/api/policies"))["policies"] == []
        assert [each.action for each in await told(site, "policy.")] == [
            "policy.create",
            "policy.update",
            "policy.delete",
        ]

    play(story)


def test_what_a_refusal_asks_for_leads_through_the_pages_of_the_login_to_a_token_that_passes(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await add_person(site)
        browser = Browser(site)
        await browser.log_in("ada", PASSWORD)

        async def submit(token: str, status: int) -> Any:
            headers = {"authorization": f"Bearer {token}"}
            body = {"tasks": {function_id: [PAYLOAD]}}
            answer = await site.client.post(f"/v3/endpoints/{endpoint_id}/submit", headers=headers, json=body)
            assert answer.status_code == status, answer.text
            return answer.json()

        async def token(**demand: str) -> str:
            program = Program()
            await browser.get(program.link(**demand))
            if any(form.action == "/login" for form in browser.forms):
                asked.append(browser.answer.text)
                await browser.send("/login", username="ada", password=PASSWORD)
            await browser.send("/v2/oauth2/authorize", decision="allow")
            code = parameters(browser.left_to)["code"]
            answer = await ask_token(site, **program.form(code))
            documents = (answer, *answer["other_tokens"])
            return str(next(each["access_token"] for each in documents if each["resource_server"] == "funcx_service"))

        asked: list[str] = []
        first = await token()
        owner = Caller(site.client, LocalLogin(identity=await identity_of(site, first), token=first))
        assert owner.identity.id == ada.id
        made = await owner.ask("POST", "/v3/policies", {"authentication_assurance_timeout": 60})
        endpoint_id = await owner.endpoint(authentication_policy=made["id"])
        function_id = await owner.function()
        await submit(first, 200)
        site.clock.now += 61
        refused = await submit(first, 403)
        assert asked == []
        wanted = session_demand(refused)
        assert wanted is not None
        again = await token(**wanted.to_query())
        assert len(asked) == 1
        assert "logins of the last 60 seconds" in asked[0]
        await submit(again, 200)

    play(story)


# --- high assurance


def test_high_assurance_says_what_is_missing_and_cannot_be_switched(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        policy_id = await policy(ada, timeout_s=600)
        endpoint_id = await guarded_endpoint(ada, policy_id)
        shown = await ada.caller.ask("GET", f"/v2/endpoints/{endpoint_id}")
        assert (shown["high_assurance"], shown["authentication_policy"]) == (True, policy_id)
        body = {
            "endpoint_name": "guarded",
            "direct": True,
            "high_assurance": True,
            "authentication_policy": policy_id,
            "subscription_uuid": await subscription(site, ada.id),
            "metadata": {"engine_encrypted": True},
        }
        plain = await ada.caller.ask("POST", "/v3/endpoints", body, status=422)
        assert "TLS" in plain["message"]
        ordinary = {"endpoint_name": "guarded", "direct": True, "metadata": {}}
        path = f"{HTTPS}/v3/endpoints/{endpoint_id}"
        assert "cannot change" in (await ada.caller.ask("PUT", path, ordinary, status=422))["message"]
        await ada.caller.ask("PUT", path, body)

    play(story, amqp_advertised_scheme="amqps")


def test_results_of_high_assurance_are_read_through_the_policy_and_only_announced(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        endpoint_id = await guarded_endpoint(ada, await policy(ada, timeout_s=60))
        function_id = await ada.caller.function(ha_endpoint_id=endpoint_id)
        answer = await ada.caller.submit(endpoint_id, function_id, create_queue=True)
        assert "ha_warning" not in answer
        task_id = answer["tasks"][function_id][0]
        other = await ada.caller.one_task()
        site.clock.now += 61
        for path in (f"/v2/tasks/{task_id}",):  # it has not ended, so there is nothing to protect
            assert "result" not in await ada.caller.ask("GET", path)
        await finish(site, endpoint_id, task_id)
        for method, path, body in (
            ("GET", f"/v2/tasks/{task_id}", None),
            ("POST", "/v2/batch_status", {"task_ids": [other, task_id]}),
        ):
            refused = await ada.caller.ask(method, path, body, status=403)
            assert refused["authorization_parameters"]["session_required_identities"] == [ada.id]
            assert refused["task_ids"] == [task_id]
            assert "secret" not in str(refused)
        await ada.caller.ask("POST", "/v2/batch_status", {"task_ids": [other]})
        page, _ = await site.service.db.read(read_result_page, answer["task_group_id"], ada.id, 0, 10, 10_000, True)
        assert [(each.task_id, each.is_protected) for each in page] == [(task_id, True)]
        await ada.log_in_again()
        assert (await ada.caller.ask("GET", f"/v2/tasks/{task_id}"))["result"] == "secret"
        assert [each.outcome for each in await told(site, "task.read")] == ["refused", "refused"]

    play(story, store=store_url, amqp_advertised_scheme="amqps")


def test_a_function_for_high_assurance_runs_only_at_its_endpoint(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await person(site, "ada@example.org"), await person(site, "bob@example.org")
        endpoint_id = await guarded_endpoint(ada, await policy(ada, high_assurance=True))
        body = {"function_name": "triple", "function_code": CODE, "ha_endpoint_id": endpoint_id}
        made = await ada.caller.ask("POST", "/v3/functions", body)
        assert "90 days" in made["ha_warning"]
        refused = await ada.caller.submit(await ada.caller.endpoint(), made["function_uuid"], status=403)
        assert endpoint_id in refused["message"]
        await bob.caller.ask("POST", "/v3/functions", body, status=403)
        elsewhere = {**body, "ha_endpoint_id": await bob.caller.endpoint()}
        await bob.caller.ask("POST", "/v3/functions", elsewhere, status=422)
        ordinary = await ada.caller.function()
        assert "ordinary" in (await ada.caller.submit(endpoint_id, ordinary))["ha_warning"]

    play(story, amqp_advertised_scheme="amqps")


def test_a_function_for_high_assurance_is_deleted_90_days_after_its_last_task(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        endpoint_id = await guarded_endpoint(ada, await policy(ada, high_assurance=True))
        used, unused = [await ada.caller.function(ha_endpoint_id=endpoint_id) for _ in range(2)]
        ordinary = await ada.caller.function()
        site.clock.now += 60 * DAY
        await ada.caller.submit(endpoint_id, used)
        site.clock.now += 31 * DAY
        await site.service.relay._sweeper.sweep()
        await ada.caller.ask("GET", f"/v2/functions/{unused}", status=404)
        for kept in (used, ordinary):
            await ada.caller.ask("GET", f"/v2/functions/{kept}")
        site.clock.now += 60 * DAY
        await site.service.relay._sweeper.sweep()
        await ada.caller.ask("GET", f"/v2/functions/{used}", status=404)
        assert [each.object_id for each in await told(site, "function.expire")] == [unused, used]
        await ada.caller.submit(endpoint_id, used, status=404)

    play(story, store=store_url, amqp_advertised_scheme="amqps")


def test_a_repeated_submission_gets_the_same_warning(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await person(site, "ada@example.org")
        endpoint_id = await guarded_endpoint(ada, await policy(ada, high_assurance=True))
        body = {"tasks": {await ada.caller.function(): [PAYLOAD]}}
        path, key = f"/v3/endpoints/{endpoint_id}/submit", {"Idempotency-Key": "once"}
        first = await ada.caller.ask("POST", path, body, headers=key)
        assert await ada.caller.ask("POST", path, body, headers=key) == first
        assert "ha_warning" in first

    play(story, amqp_advertised_scheme="amqps")
