"""Every route over ASGI, with a real store and broker behind it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from service_world import CODE, PAYLOAD, Play, Site

from farcall.service.ids import new_id
from farcall.service.managers.store import user_endpoints_of
from farcall.service.relay.results import ParsedResult
from farcall.service.relay.store import record_results
from farcall.wire.framing import pack_buffers, unpack_buffers

NOBODY = "11111111-2222-4333-8444-555555555555"


async def finish(site: Site, endpoint_id: str, *task_ids: str, **result: Any) -> None:
    """Results as the endpoint sends them."""
    results = [
        ParsedResult(**{"sender": f"{endpoint_id}.results", "body": b"", "task_id": each, "data": "value", **result})
        for each in task_ids
    ]
    await site.service.db.write(record_results, results, site.clock.now)


def is_error(document: Any, status: int, code: str) -> None:
    """The error object of the protocol, with text where every client looks for it."""
    assert (document["status"], document["code"], document["http_status_code"]) == ("Failed", code, status)
    for member in ("detail", "reason", "message"):
        assert isinstance(document[member], str)
        assert document[member]


# --- service and accounts


def test_the_version_is_open_to_all_in_both_forms(play: Play) -> None:
    async def story(site: Site) -> None:
        assert (await site.get("/v2/version")).json() == "1.0.0"
        everything = (await site.get("/v2/version?service=all")).json()
        assert {"api", "min_sdk_version", "min_ep_version"} <= set(everything)
        is_error((await site.get("/v2/version?service=none")).json(), 422, "SEMANTICALLY_INVALID")

    play(story)


def test_a_token_says_who_asks(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        assert await ada.ask("GET", "/v2/authenticate") == "ada@localhost"
        me = await ada.ask("GET", "/v3/whoami")
        assert me == {"identity_id": ada.identity.id, "username": "ada@localhost", "is_admin": False}

    play(story)


@pytest.mark.parametrize("header", [None, "Basic abc", "Bearer fc_unknown", "Bearer"])
def test_without_a_good_token_nothing_is_told(play: Play, header: str | None) -> None:
    async def story(site: Site) -> None:
        for method, path in (
            ("GET", "/v3/whoami"),
            ("POST", "/v3/functions"),
            ("POST", f"/v3/endpoints/{NOBODY}/submit"),
        ):
            answer = await site.client.request(method, path, headers={"authorization": header} if header else {})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            is_error(answer.json(), 401, "UNAUTHENTICATED")

    play(story)


def test_a_token_is_worth_nothing_after_logout(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        await ada.ask("GET", "/v3/whoami")
        await ada.ask("POST", "/v3/logout")
        await ada.ask("GET", "/v3/whoami", status=401)

    play(story)


def test_a_revoked_token_is_noticed_within_the_caches_time(play: Play) -> None:
    async def story(site: Site) -> None:
        from farcall.service.accounts.rules import token_hash
        from farcall.service.accounts.store import revoke_token

        ada = await site.person()
        await ada.ask("GET", "/v3/whoami")
        await site.service.db.write(revoke_token, token_hash(ada.token), site.clock.now)
        site.clock.now += 60
        await ada.ask("GET", "/v3/whoami", status=401)

    play(story)


def test_the_result_connection_names_the_callers_queues_and_the_host_that_was_asked(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        found = await ada.ask("GET", "/v2/get_amqp_result_connection_url")
        assert found["queue_prefix"] == f"tg.{ada.identity.id}."
        assert found["connection_url"].startswith(f"amqp://sdk.{ada.identity.id}.1:")
        assert f"@service.example:{site.service.amqp_port}/%2F?heartbeat=30" in found["connection_url"]

    play(story)


def test_a_public_host_and_port_can_be_named(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        found = await ada.ask("GET", "/v2/get_amqp_result_connection_url")
        assert "@broker.example.org:443/" in found["connection_url"]

    play(story, public_host="broker.example.org", amqp_advertised_port=443)


def test_health_is_open_and_the_inside_is_for_administrators(play: Play) -> None:
    async def story(site: Site) -> None:
        assert (await site.get("/healthz")).json()["status"] == "ok"
        is_error(await (await site.person()).ask("GET", "/v3/service", status=403), 403, "FORBIDDEN")
        root = await site.person("root@localhost", is_admin=True)
        await root.one_task()
        inside = await root.ask("GET", "/v3/service")
        assert (inside["tasks"], inside["endpoints_online"]) == ({"received": 1}, [])

    play(story)


# --- errors


def test_unknown_paths_and_methods_answer_with_error_objects(play: Play) -> None:
    async def story(site: Site) -> None:
        is_error((await site.get("/v2/nothing")).json(), 404, "NOT_FOUND")
        answer = await site.client.post("/v2/version")
        is_error(answer.json(), 405, "METHOD_NOT_ALLOWED")
        assert "GET" in answer.headers["allow"]

    play(story)


@pytest.mark.parametrize("path", ["/v2/containers", "/v2/containers/types/docker", "/v2/containers/x/build"])
def test_containers_are_not_offered_and_the_answer_says_so(play: Play, path: str) -> None:
    async def story(site: Site) -> None:
        for method in ("GET", "POST"):
            answer = await site.client.request(method, path)
            is_error(answer.json(), 404, "NOT_FOUND")
            assert "container" in answer.json()["message"]

    play(story)


def test_a_fault_of_the_service_shows_nothing_of_its_inside(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("a secret detail")

    async def story(site: Site) -> None:
        ada = await site.person()
        monkeypatch.setattr("farcall.service.endpoints.store.list_endpoints", broken)
        answer = await ada.ask("GET", "/v2/endpoints", status=500)
        is_error(answer, 500, "INTERNAL_ERROR")
        assert "secret" not in json.dumps(answer)

    play(story)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "expected 'object'"),
        (b'{"function_code": "x"}', "function_name"),
        (b'{"function_name": 1, "function_code": "x"}', "member 'function_name'"),
        (b'{"function_name": "f", "function_code": "x", "meta": ' + b"[" * 100_000, ""),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_member(play: Play, body: bytes, word: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        answer = await ada.ask("POST", "/v3/functions", status=422, content=body)
        is_error(answer, 422, "SEMANTICALLY_INVALID")
        assert word in answer["message"]

    play(story)


def test_a_body_that_is_announced_too_large_is_refused_unread(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()

        async def never() -> Any:
            raise AssertionError("the body was read")
            yield b""

        headers = {"content-length": "1001"}
        answer = await ada.ask("POST", "/v3/functions", status=413, content=never(), headers=headers)
        is_error(answer, 413, "TASK_PAYLOAD_TOO_LARGE")
        assert "1001" in answer["message"]

    play(story, request_limit_bytes=1000)


def test_a_body_of_unknown_length_is_read_only_up_to_the_limit(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            while True:
                sent += 1
                assert sent < 20
                yield b" " * 100

        is_error(await ada.ask("POST", "/v3/functions", status=413, content=endless()), 413, "TASK_PAYLOAD_TOO_LARGE")

    play(story, request_limit_bytes=1000)


# --- functions


def test_a_function_comes_back_as_it_was_registered(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id = await ada.function(meta={"python_version": "3.11"}, description="times three")
        assert await ada.ask("GET", f"/v2/functions/{function_id}") == {
            "function_uuid": function_id,
            "function_name": "triple",
            "function_code": CODE,
            "description": "times three",
            "metadata": {"python_version": "3.11"},
        }

    play(story)


def test_registering_again_makes_another_function(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        assert await ada.function() != await ada.function()

    play(story)


def test_source_text_is_framed_on_the_way_in(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id = await ada.function(function_code="def triple(n): ...", serialized=False)
        code = (await ada.ask("GET", f"/v2/functions/{function_id}"))["function_code"]
        assert unpack_buffers(code) == ["st\ntriple:def triple(n): ..."]

    play(story)


def test_old_clients_register_functions_too(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        old = {"function_name": "triple", "function_code": CODE, "metadata": {"a": 1}, "container_uuid": None}
        function_id = (await ada.ask("POST", "/v2/functions", old))["function_uuid"]
        assert (await ada.ask("GET", f"/v2/functions/{function_id}"))["metadata"] == {"a": 1}

    play(story)


def test_functions_are_private_unless_public_and_gone_when_deleted(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        private, public = await ada.function(), await ada.function(public=True)
        is_error(await bob.ask("GET", f"/v2/functions/{private}", status=403), 403, "FORBIDDEN")
        await bob.ask("GET", f"/v2/functions/{public}")
        await bob.ask("DELETE", f"/v2/functions/{public}", status=403)
        assert await ada.ask("DELETE", f"/v2/functions/{public}") == {"result": 302}
        is_error(await ada.ask("GET", f"/v2/functions/{public}", status=404), 404, "FUNCTION_NOT_FOUND")
        is_error(await ada.ask("GET", "/v2/functions/nothing", status=422), 422, "SEMANTICALLY_INVALID")

    play(story)


# --- endpoints


def test_a_direct_endpoint_gets_everything_that_it_needs(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        answer = await ada.ask("POST", "/v3/endpoints", {"endpoint_name": "here", "direct": True, "metadata": {}})
        endpoint_id = answer["endpoint_id"]
        url = answer["task_queue_info"]["connection_url"]
        assert url.startswith(f"amqp://endpoint.{endpoint_id}.1:")
        assert answer["task_queue_info"] == {
            "connection_url": url,
            "exchange": "tasks",
            "queue": f"{endpoint_id}.tasks",
        }
        for name in ("result", "heartbeat"):
            info = answer[f"{name}_queue_info"]
            assert info["connection_url"] == url
            assert info["queue"] == info["exchange"] == f"{name}s"
            assert info["queue_publish_kwargs"] == {
                "exchange": f"{name}s",
                "routing_key": f"{endpoint_id}.{name}s",
                "mandatory": True,
                "properties": {"delivery_mode": 2},
            }
        assert "command_queue_info" not in answer

    play(story)


def test_a_manager_gets_a_command_queue_in_place_of_a_task_queue(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        for path in ("/v2/endpoints", "/v3/endpoints"):
            answer = await ada.ask("POST", path, {"endpoint_name": "here", "metadata": {}})
            assert answer["command_queue_info"]["queue"] == f"{answer['endpoint_id']}.commands"
            assert answer["heartbeat_queue_info"]["queue_publish_kwargs"]["routing_key"].endswith(".heartbeats")
            assert "task_queue_info" not in answer

    play(story)


def test_tasks_for_a_manager_go_to_a_user_endpoint_of_each_person_and_configuration(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        registration = {"endpoint_name": "cluster", "multi_user": True, "metadata": {}}
        manager_id = (await ada.ask("POST", "/v3/endpoints", registration))["endpoint_id"]
        path = f"/v3/endpoints/{manager_id}/submit"
        for person, options in ((ada, None), (ada, {"WORKERS": 5}), (ada, {"WORKERS": 5}), (bob, None)):
            function_id = await person.function()
            body = {"tasks": {function_id: [PAYLOAD]}, "user_endpoint_config": options}
            assert (await person.ask("POST", path, body))["endpoint_id"] == manager_id
        found = await site.service.db.read(user_endpoints_of, manager_id)
        assert len(found) == 3
        assert [each["uuid"] for each in await ada.ask("GET", "/v2/endpoints")] == [manager_id]
        forged = {"tasks": {await ada.function(): [PAYLOAD]}, "user_endpoint_config": {"mapped_identity": {}}}
        is_error(await ada.ask("POST", path, forged, 422), 422, "SEMANTICALLY_INVALID")
        again = {"endpoint_name": "mine", "direct": True, "metadata": {}}
        answer = await ada.ask("PUT", f"/v3/endpoints/{found[0]}", again, 403)
        assert "manager" in answer["message"]

    play(story)


def test_a_manager_without_privilege_runs_only_its_owners_tasks(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        manager_id = (await ada.ask("POST", "/v3/endpoints", {"endpoint_name": "x", "metadata": {}}))["endpoint_id"]
        body = {"tasks": {await bob.function(): [PAYLOAD]}}
        await bob.ask("POST", f"/v3/endpoints/{manager_id}/submit", body, 403)

    play(story)


def test_registering_again_voids_the_older_login_and_needs_the_owner(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        endpoint_id = await ada.endpoint()
        again = {"endpoint_name": "there", "direct": True, "metadata": {"hostname": "h"}}
        answer = await ada.ask("PUT", f"/v3/endpoints/{endpoint_id}", again)
        assert answer["endpoint_id"] == endpoint_id
        assert f"endpoint.{endpoint_id}.2:" in answer["task_queue_info"]["connection_url"]
        await bob.ask("PUT", f"/v3/endpoints/{endpoint_id}", again, 403)
        is_error(await ada.ask("PUT", f"/v3/endpoints/{NOBODY}", again, 404), 404, "ENDPOINT_NOT_FOUND")
        assert (await ada.ask("GET", f"/v2/endpoints/{endpoint_id}"))["name"] == "there"

    play(story)


def test_what_an_endpoint_told_is_shown_and_its_configuration_only_to_its_people(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        told = {"hostname": "h", "local_user": "u", "endpoint_config": "engine: secret", "endpoint_version": "0.1.0"}
        endpoint_id = await ada.endpoint(public=True, display_name="Here", metadata=told)
        mine = await ada.ask("GET", f"/v2/endpoints/{endpoint_id}")
        assert (mine["endpoint_config"], mine["hostname"], mine["owner"]) == ("engine: secret", "h", ada.identity.id)
        theirs = await bob.ask("GET", f"/v2/endpoints/{endpoint_id}")
        assert (theirs["endpoint_config"], theirs["display_name"]) == (None, "Here")
        private = await ada.endpoint()
        is_error(await bob.ask("GET", f"/v2/endpoints/{private}", status=403), 403, "ENDPOINT_ACCESS_FORBIDDEN")
        is_error(await ada.ask("GET", f"/v2/endpoints/{NOBODY}", status=404), 404, "ENDPOINT_NOT_FOUND")

    play(story)


def test_lists_of_endpoints(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        mine, public = await ada.endpoint(), await bob.endpoint(public=True, display_name="Bob's")
        entry = {"uuid": mine, "name": "here", "display_name": None, "owner": ada.identity.id}
        assert await ada.ask("GET", "/v2/endpoints") == [entry]
        found = await ada.ask("GET", "/v2/endpoints?role=any")
        assert [each["uuid"] for each in found] == [mine, public]
        await ada.ask("GET", "/v2/endpoints?role=some", status=422)

    play(story)


def test_an_endpoint_that_never_came_is_offline(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        assert await ada.ask("GET", f"/v2/endpoints/{endpoint_id}/status") == {"status": "offline", "details": {}}
        assert await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/console") == {"user_endpoints": []}

    play(story)


def test_a_lock_refuses_registration_until_it_expires(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        endpoint_id = await ada.endpoint()
        path, again = f"/v3/endpoints/{endpoint_id}", {"endpoint_name": "here", "direct": True, "metadata": {}}
        await bob.ask("POST", f"{path}/lock", status=403)
        lock = await ada.ask("POST", f"{path}/lock")
        assert lock == {"endpoint_id": endpoint_id, "lock_expiration_timestamp": site.clock.now + 5}
        is_error(await ada.ask("PUT", path, again, 423), 423, "RESOURCE_LOCKED")
        site.clock.now += 5
        await ada.ask("PUT", path, again)

    play(story)


def test_old_clients_get_the_lock_as_text(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        lock = await ada.ask("POST", f"/v2/endpoints/{endpoint_id}/lock")
        assert lock["lock_expiration_timestamp"] == "2023-11-14T22:13:25.000000"

    play(story)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_deleting_an_endpoint_ends_its_tasks(play: Play, version: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        submitted = await ada.submit(endpoint_id, function_id, 7)
        assert await ada.ask("DELETE", f"/{version}/endpoints/{endpoint_id}") == {"result": 302}
        await site.service.relay.settle()  # the ending of the tasks goes on after the answer
        for task_id in submitted["tasks"][function_id]:
            task = await ada.ask("GET", f"/v2/tasks/{task_id}")
            assert task["status"] == "failed"
            assert task["reason"].startswith("ENDPOINT_DELETED: ")
        for path in (f"/v2/endpoints/{endpoint_id}", f"/v2/endpoints/{endpoint_id}/status"):
            await ada.ask("GET", path, status=404)
        again = {"endpoint_name": "here", "direct": True, "metadata": {}}
        await ada.ask("PUT", f"/v3/endpoints/{endpoint_id}", again, 404)
        is_error(await ada.submit(endpoint_id, function_id, status=404), 404, "ENDPOINT_NOT_FOUND")

    play(story, sweep_batch=3)


def test_allowed_functions(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id, other = await ada.function(), await ada.function()
        endpoint_id = await ada.endpoint(allowed_functions=[function_id])
        assert await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/allowed_functions") == {
            "endpoint_id": endpoint_id,
            "restricted": True,
            "functions": [function_id],
        }
        await ada.submit(endpoint_id, function_id)
        is_error(await ada.submit(endpoint_id, other, status=403), 403, "FUNCTION_NOT_PERMITTED")
        free = await ada.endpoint()
        answer = await ada.ask("GET", f"/v3/endpoints/{free}/allowed_functions")
        assert (answer["restricted"], answer["functions"]) == (False, [])

    play(story)


def test_the_seal_is_set_by_administrators(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, root = await site.person(), await site.person("root@localhost", is_admin=True)
        endpoint_id = await ada.endpoint()
        path, seal = f"/v3/endpoints/{endpoint_id}/subscription-admin-verified", {"subscription_admin_verified": True}
        await ada.ask("PUT", path, seal, 403)
        assert await root.ask("PUT", path, seal) == seal
        assert (await ada.ask("GET", f"/v2/endpoints/{endpoint_id}"))["subscription_admin_verified"]
        await root.ask("PUT", path.replace(endpoint_id, NOBODY), seal, 404)

    play(story)


# --- tasks


def test_a_submission_answers_with_ids_in_the_order_of_its_payloads(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, first, second = await ada.endpoint(), await ada.function(), await ada.function()
        document = {"tasks": {first: [PAYLOAD] * 2, second: [PAYLOAD] * 3}, "create_queue": True}
        answer = await ada.ask("POST", f"/v3/endpoints/{endpoint_id}/submit", document)
        assert {key: len(ids) for key, ids in answer["tasks"].items()} == {first: 2, second: 3}
        assert answer["endpoint_id"] == endpoint_id
        group = await ada.ask("GET", f"/v2/taskgroup/{answer['task_group_id']}")
        assert [task["id"] for task in group["tasks"]] == answer["tasks"][first] + answer["tasks"][second]
        assert group["taskgroup_id"] == answer["task_group_id"]
        assert group["create_websockets_queue"] is True

    play(story)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({}, "tasks"),
        ({"tasks": []}, "tasks"),
        ({"tasks": {NOBODY: "x"}}, "tasks[...]"),
        ({"tasks": {NOBODY: [1]}}, "tasks[...][0]"),
        ({"tasks": {NOBODY: ["zzz"]}}, f"tasks[{NOBODY}][0]"),
        ({"tasks": {NOBODY: [pack_buffers(["unpaired"])]}}, "two framed buffers"),
        ({"tasks": {NOBODY: [PAYLOAD]}, "create_queue": "yes"}, "create_queue"),
        ({"tasks": {NOBODY: [PAYLOAD]}, "task_group_id": 7}, "task_group_id"),
        ({"tasks": {NOBODY: [PAYLOAD]}, "result_serializers": "x"}, "result_serializers"),
        ({"tasks": {NOBODY: [PAYLOAD]}, "resource_specification": []}, "resource_specification"),
    ],
)
def test_a_submission_that_does_not_fit_is_refused_by_member(play: Play, document: Any, word: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        answer = await ada.ask("POST", f"/v3/endpoints/{await ada.endpoint()}/submit", document, 422)
        is_error(answer, 422, "SEMANTICALLY_INVALID")
        assert word in answer["message"]

    play(story)


def test_what_is_refused_says_whether_function_or_endpoint_and_leaves_nothing(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        is_error(await ada.submit(NOBODY, function_id, status=404), 404, "ENDPOINT_NOT_FOUND")
        is_error(await ada.submit("nothing", function_id, status=422), 422, "SEMANTICALLY_INVALID")
        is_error(await ada.submit(endpoint_id, NOBODY, status=404), 404, "FUNCTION_NOT_FOUND")
        is_error(await bob.submit(endpoint_id, function_id, status=403), 403, "ENDPOINT_ACCESS_FORBIDDEN")
        theirs = await bob.function()
        is_error(await ada.submit(endpoint_id, theirs, status=403), 403, "FUNCTION_NOT_PERMITTED")
        configured = await ada.submit(endpoint_id, function_id, status=422, user_endpoint_config={"a": 1})
        is_error(configured, 422, "SEMANTICALLY_INVALID")
        group_id = (await ada.submit(endpoint_id, function_id))["task_group_id"]
        own = await bob.endpoint()
        is_error(await bob.submit(own, theirs, status=403, task_group_id=group_id), 403, "FORBIDDEN")
        root = await site.person("root@localhost", is_admin=True)
        assert (await root.ask("GET", "/v3/service"))["tasks"] == {"received": 1}

    play(story)


def test_arguments_over_the_limit_are_refused_with_413(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        big = pack_buffers(["x" * 2000, "{}"])
        document = {"tasks": {function_id: [PAYLOAD, big]}}
        answer = await ada.ask("POST", f"/v3/endpoints/{endpoint_id}/submit", document, 413)
        is_error(answer, 413, "TASK_PAYLOAD_TOO_LARGE")
        assert "[1]" in answer["message"]

    play(story, payload_limit_bytes=1000)


def test_a_repeated_key_gets_the_first_answer(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        headers = {"Idempotency-Key": "k1"}
        first = await ada.submit(endpoint_id, function_id, 2, headers=headers, create_queue=True)
        assert await ada.submit(endpoint_id, function_id, 2, headers=headers, create_queue=True) == first
        assert await ada.submit(endpoint_id, function_id, 2, headers={"Idempotency-Key": "k2"}) != first
        is_error(await ada.submit(endpoint_id, function_id, 3, 409, headers=headers), 409, "CONFLICT")
        await ada.submit(endpoint_id, function_id, status=422, headers={"Idempotency-Key": "x" * 300})

    play(story)


def test_equal_submissions_at_once_with_one_key_are_one(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        headers = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(ada.submit(endpoint_id, function_id, headers=headers) for _ in range(8)))
        assert len({json.dumps(answer) for answer in answers}) == 1

    play(story)


def test_equal_submissions_whose_answers_were_delivered_are_different(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        answers = [await ada.submit(endpoint_id, function_id) for _ in range(2)]
        assert answers[0]["tasks"] != answers[1]["tasks"]

    play(story)


def test_a_task_shows_how_it_ended(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        good, bad, open_ = (await ada.submit(endpoint_id, function_id, 3))["tasks"][function_id]
        await finish(site, endpoint_id, good, details_json='{"os":"L"}', transitions_json='{"execution-start":1.5}')
        await finish(site, endpoint_id, bad, data="trace", error_code="WORKER_LOST", error_message="gone")
        assert await ada.ask("GET", f"/v2/tasks/{good}") == {
            "task_id": good,
            "status": "success",
            "result": "value",
            "completion_t": "1700000000.0",
            "details": {"os": "L", "task_transitions": {"execution-start": 1.5}},
        }
        failed = await ada.ask("GET", f"/v2/tasks/{bad}")
        assert "result" not in failed
        assert (failed["status"], failed["exception"], failed["reason"]) == ("failed", "trace", "WORKER_LOST: gone")
        assert await ada.ask("GET", f"/v2/tasks/{open_}") == {"task_id": open_, "status": "received"}
        for who, task_id in ((bob, good), (ada, NOBODY)):
            is_error(await who.ask("GET", f"/v2/tasks/{task_id}", status=404), 404, "TASK_NOT_FOUND")

    play(story)


def test_a_batch_leaves_out_what_is_unknown_or_somebody_elses(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        task_id, theirs = await ada.one_task(), await bob.one_task()
        answer = await ada.ask("POST", "/v2/batch_status", {"task_ids": [task_id, theirs, NOBODY]})
        assert answer == {"response": "batch", "results": {task_id: {"task_id": task_id, "status": "received"}}}
        assert await ada.ask("POST", "/v2/batch_status", {"task_ids": []}) == {"response": "batch", "results": {}}
        await ada.ask("POST", "/v2/batch_status", {"task_ids": ["x"]}, 422)

    play(story)


def test_a_large_batch_comes_whole(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        ids = (await ada.submit(endpoint_id, function_id, 450))["tasks"][function_id]
        await finish(site, endpoint_id, *ids[:300])
        results = (await ada.ask("POST", "/v2/batch_status", {"task_ids": ids}))["results"]
        assert list(results) == ids
        assert [results[each].get("result") for each in ids] == ["value"] * 300 + [None] * 150

    play(story)


def test_a_cancelled_task_has_failed_for_clients_of_the_protocol(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        task_id = await ada.one_task()
        await bob.ask("POST", f"/v3/tasks/{task_id}/cancel", status=404)
        for _ in range(2):
            answer = await ada.ask("POST", f"/v3/tasks/{task_id}/cancel")
            assert answer == {"task_id": task_id, "status": "cancelled"}
        task = await ada.ask("GET", f"/v2/tasks/{task_id}")
        assert (task["status"], task["reason"].split(":")[0]) == ("failed", "TASK_CANCELLED")
        assert task["completion_t"]
        assert "result" not in task

    play(story)


def test_a_group_is_its_owners(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        group_id = (await ada.submit(await ada.endpoint(), await ada.function()))["task_group_id"]
        await ada.ask("GET", f"/v2/taskgroup/{group_id}")
        for who, which in ((bob, group_id), (ada, new_id())):
            is_error(await who.ask("GET", f"/v2/taskgroup/{which}", status=404), 404, "TASK_GROUP_NOT_FOUND")

    play(story)


def test_old_clients_submit_task_by_task(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id, function_id = await ada.endpoint(), await ada.function()
        old = {
            "tasks": [[function_id, endpoint_id, PAYLOAD], [NOBODY, endpoint_id, PAYLOAD], [function_id, "x", PAYLOAD]]
        }
        answer = await ada.ask("POST", "/v2/submit", old)
        assert answer["response"] == "success"
        assert [each["http_status_code"] for each in answer["results"]] == [200, 404, 422]
        group = await ada.ask("GET", f"/v2/taskgroup/{answer['task_group_id']}")
        assert [task["id"] for task in group["tasks"]] == [answer["results"][0]["task_uuid"]]

    play(story)


# --- the description


_WITHOUT_BODY = (
    *("/lock", "/cancel", "/logout", "/stop", "/login-links", "/log-out", "/disable", "/enable", "/revoke"),
    *("/grant-admin", "/revoke-admin", "/remove-factor", "/reset-password"),
)


def test_the_description_covers_every_route_and_all_its_references_lead_somewhere(play: Play) -> None:
    async def story(site: Site) -> None:
        document = (await site.get("/openapi.json")).json()
        text = json.dumps(document)
        for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
            assert name in document["components"]["schemas"], name
        expected = {
            ("post", "/v3/endpoints/{endpoint_id}/submit"),
            ("post", "/v2/batch_status"),
            ("get", "/v2/tasks/{task_id}"),
            ("post", "/v3/functions"),
            ("put", "/v3/endpoints/{endpoint_id}"),
            ("post", "/v3/tasks/{task_id}/cancel"),
        }
        described = {(method, path) for path, methods in document["paths"].items() for method in methods}
        assert expected <= described
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert operation["summary"], (method, path)
                assert operation["responses"]["200"]["content"], (method, path)
                if method in ("post", "put") and not path.endswith(_WITHOUT_BODY):
                    assert operation["requestBody"], (method, path)
        submission = document["components"]["schemas"]["SubmitRequest"]["properties"]
        assert submission["tasks"]["additionalProperties"] == {"type": "array", "items": {"type": "string"}}
        assert "Validation Error" not in text
        page = await site.get("/docs")
        assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert assets
        for asset in assets:  # nothing from elsewhere: a site may have no internet
            assert (await site.get(asset)).status_code == 200, asset

    play(story)
