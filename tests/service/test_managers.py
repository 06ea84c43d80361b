"""Managers, between a real store and a real broker: pika plays the manager and the user endpoints that it starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from relay_scene import Agent, Link, Scene, ids_of
from service_world import PAYLOAD, Rest

from farcall.service.managers.runner import START_FAILED
from farcall.service.relay.sweeper import ENDPOINT_DELETED
from farcall.wire.messages import EndpointStatusReport, pack_message

RUNTIME = {
    "globus_compute_sdk_version": "4.19.0",
    "python": {"version": "3.11.7", "version_tuple": [3, 11, 7]},
    "platform": {"node": "laptop"},
}
ONE, TWO = {"start_unix": 100.0, "posix_pid": 1}, {"start_unix": 200.0, "posix_pid": 2}


class Site:
    """A manager of Ada's, whose commands are read."""

    def __init__(self, here: Scene, **registration: Any) -> None:
        self.here = here
        document = {"endpoint_name": "there", "metadata": {}, **registration}
        self.registration = here.ada.ask("POST", "/v3/endpoints", document)
        self.id: str = self.registration["endpoint_id"]
        self.commands: Link | None = None
        self._read = 0

    def attach(self) -> Link:
        info = self.registration["command_queue_info"]
        self.commands = Link(info["connection_url"], info["queue"])
        self.here.links.append(self.commands)
        return self.commands

    def again(self) -> None:
        """Registers again, as a process that was started again does."""
        document = {"endpoint_name": "there", "metadata": {}}
        self.registration = self.here.ada.ask("PUT", f"/v3/endpoints/{self.id}", document)

    def submit(self, count: int = 1, who: Rest | None = None, function_id: str | None = None, **more: Any) -> list[str]:
        who, function_id = who or self.here.ada, function_id or self.here.function_id
        answer = who.submit(self.id, function_id, count, user_runtime=RUNTIME, **more)
        assert answer["endpoint_id"] == self.id
        return list(answer["tasks"][function_id])

    def submit_group(self, count: int, **more: Any) -> tuple[list[str], str]:
        """Tasks whose results are read by somebody; their ids, and the group's."""
        function_id = self.here.function_id
        answer = self.here.ada.submit(self.id, function_id, count, user_runtime=RUNTIME, create_queue=True, **more)
        return list(answer["tasks"][function_id]), str(answer["task_group_id"])

    def next_order(self) -> Any:
        """Of the next start command: `kwargs`."""
        commands = self.commands or self.attach()
        self._read += 1
        return json.loads(commands.wait(self._read)[self._read - 1][2])["kwargs"]

    def start(self) -> Agent:
        """The user endpoint that is asked for next."""
        return self.agent(self.next_order()["amqp_creds"])

    def agent(self, credentials: Any) -> Agent:
        agent = Agent(credentials)
        self.here.links.append(agent)
        return agent


@pytest.fixture
def site(scene: Callable[..., Scene]) -> Site:
    return Site(scene())


def ack(agent: Agent, count: int) -> None:
    agent.channel.basic_ack(agent.got[count - 1][0].delivery_tag, multiple=True)


only_embedded = pytest.mark.parametrize("broker", ["embedded"], indirect=True)
"""RabbitMQ does not tell what was acknowledged: there, everything that is open is sent again."""


def test_a_submission_asks_the_manager_for_a_user_endpoint_and_its_tasks_go_there(site: Site) -> None:
    before = int(time.time())
    ids, group_id = site.submit_group(3, user_endpoint_config={"workers": 2})
    (_, properties, body), *_ = site.attach().wait(1)
    assert properties.content_type == "application/json"
    assert before <= properties.timestamp <= time.time()
    assert properties.expiration == "180000"
    command = json.loads(body)
    order, ada = command["kwargs"], site.here.ada.identity
    user_endpoint_id = order["amqp_creds"]["endpoint_id"]
    assert (command["command"], command["args"]) == ("cmd_start_endpoint", [])
    assert (command["globus_effective_identity"], command["globus_username"]) == (ada.id, ada.username)
    assert [each["sub"] for each in command["globus_identity_set"]] == [ada.id]
    assert order["name"] == f"uep.{site.id}.{user_endpoint_id}"
    assert (order["user_opts"], order["user_runtime"]) == ({"workers": 2}, RUNTIME)
    for purpose, exchange in (("result", "results"), ("heartbeat", "heartbeats")):
        info = order["amqp_creds"][f"{purpose}_queue_info"]
        assert (info["exchange"], info["queue"]) == (exchange, exchange)
        assert info["queue_publish_kwargs"] == {
            "exchange": exchange,
            "routing_key": f"{user_endpoint_id}.{exchange}",
            "mandatory": True,
            "properties": {"delivery_mode": 2},
        }
    agent = site.agent(order["amqp_creds"])
    assert ids_of(agent.wait(3)) == ids
    agent.report(**ONE, heartbeat_period=30, active=True)
    agent.finish(ids[0])
    site.here.sdk(group_id).wait(1)
    assert site.here.task(ids[0])["status"] == "success"


def test_options_and_persons_have_user_endpoints_of_their_own(scene: Callable[..., Scene]) -> None:
    site = Site(scene(), multi_user=True)
    bob = Rest(site.here.thread, "bob@localhost")
    site.submit()
    site.submit(user_endpoint_config={"workers": 2})
    site.submit(who=bob, function_id=bob.function())
    site.submit(user_endpoint_config={})
    orders = [site.next_order() for _ in range(3)]
    assert len({order["amqp_creds"]["endpoint_id"] for order in orders}) == 3


def test_with_whom_a_manager_is_shared_runs_there_as_its_owner(site: Site) -> None:
    ada, bob = site.here.ada, Rest(site.here.thread, "bob@localhost")
    ada.ask("PUT", f"/v3/endpoints/{site.id}/shares", {"identities": ["bob@localhost"]})
    (task_id,) = site.submit(who=bob, function_id=bob.function())
    command = json.loads(site.attach().wait(1)[0][2])
    assert command["globus_effective_identity"] == ada.identity.id
    assert [each["sub"] for each in command["globus_identity_set"]] == [ada.identity.id]
    agent = site.agent(command["kwargs"]["amqp_creds"])
    assert ids_of(agent.wait(1)) == [task_id]
    assert bob.ask("GET", f"/v2/endpoints/{agent.id}")["owner"] == bob.identity.id


@only_embedded
def test_what_an_agent_without_a_journal_took_is_not_sent_to_it_again(site: Site) -> None:
    ids = site.submit(4)
    order = site.next_order()
    agent = site.agent(order["amqp_creds"])
    agent.wait(4)
    agent.report(**ONE, heartbeat_period=30, active=True)
    ack(agent, 3)
    agent.finish(ids[0])
    agent.close()
    again = site.agent(order["amqp_creds"])
    again.report(**ONE, heartbeat_period=30, active=True)
    assert ids_of(again.wait(1)) == [ids[3]]
    more = site.submit()
    assert ids_of(again.wait(2)) == [ids[3], *more]
    assert site.here.task(ids[1])["status"] == "waiting-for-nodes"


@only_embedded
def test_what_a_process_had_taken_is_sent_to_the_next_one(site: Site) -> None:
    ids = site.submit(4)
    order = site.next_order()
    agent = site.agent(order["amqp_creds"])
    agent.wait(4)
    agent.report(**ONE, heartbeat_period=30, active=True)
    ack(agent, 3)
    agent.finish(ids[0])
    agent.close()
    again = site.agent(order["amqp_creds"])
    assert ids_of(again.wait(1)) == [ids[3]]
    again.report(**TWO, heartbeat_period=30, active=True)
    assert ids_of(again.wait(3)) == [ids[3], ids[1], ids[2]]


@only_embedded
def test_a_restart_of_the_service_leaves_what_was_taken_where_it_is(site: Site) -> None:
    ids = site.submit(4)
    agent = site.start()
    agent.wait(4)
    agent.report(**ONE, heartbeat_period=30, active=True)
    ack(agent, 3)
    agent.finish(ids[0])
    site.here.restart()
    site.again()
    site.commands, site._read = None, 0
    again = site.start()
    again.report(**ONE, heartbeat_period=30, active=True)
    assert ids_of(again.wait(1)) == [ids[3]]
    more = site.submit()
    assert ids_of(again.wait(2)) == [ids[3], *more]


def test_everything_is_sent_again_to_an_agent_with_a_journal(site: Site) -> None:
    ids = site.submit(3)
    order = site.next_order()
    agent = site.agent(order["amqp_creds"])
    agent.wait(3)
    agent.report(**ONE, heartbeat_period=30, active=True, has_journal=True)
    ack(agent, 3)
    agent.finish(ids[0])
    agent.close()
    again = site.agent(order["amqp_creds"])
    again.report(**ONE, heartbeat_period=30, active=True, has_journal=True)
    assert set(ids_of(again.wait(2))) == {ids[1], ids[2]}


@only_embedded
def test_an_agent_that_may_not_know_cancellations_is_told_of_none(site: Site) -> None:
    ids = site.submit(2)
    agent = site.start()
    agent.wait(2)
    agent.report(**ONE, heartbeat_period=30, active=True)
    site.here.ada.ask("POST", f"/v3/tasks/{ids[0]}/cancel")
    (more,) = site.submit()
    assert ids_of(agent.wait(3)) == [*ids, more]


def give_notice(site: Site, credentials: Any, text: str, **more: Any) -> None:
    """As a manager does in the name of a user endpoint that it could not start."""
    info = credentials["heartbeat_queue_info"]
    link = Link(info["connection_url"])
    state = {"error": text, "heartbeat_period": 3, **more}
    report = EndpointStatusReport(endpoint_id=credentials["endpoint_id"], global_state=state, task_statuses={})
    where = info["queue_publish_kwargs"]
    link.channel.basic_publish(where["exchange"], where["routing_key"], pack_message(report), mandatory=True)
    link.close()


def test_a_failed_start_fails_what_waited_for_it_with_the_reason(site: Site) -> None:
    ids, group_id = site.submit_group(2)
    credentials = site.next_order()["amqp_creds"]
    results = site.here.sdk(group_id)
    give_notice(site, credentials, "no such account")
    results.wait(2)
    for task_id in ids:
        task = site.here.task(task_id)
        assert (task["status"], task["exception"]) == ("failed", "no such account")
        assert task["reason"].startswith(START_FAILED)
    site.submit()
    assert site.next_order()["amqp_creds"]["endpoint_id"] == credentials["endpoint_id"]


def test_user_endpoints_that_never_worked_are_listed_only_while_tasks_wait_for_them(site: Site) -> None:
    ada = site.here.ada

    def listed() -> list[set[str]]:
        documents = (ada.ask("GET", f"/v3/endpoints/{site.id}/{path}") for path in ("console", "live?wait_s=0"))
        return [{each["user_endpoint_id"] for each in document["user_endpoints"]} for document in documents]

    (_,), group_id = site.submit_group(1, user_endpoint_config={"workers": 99})
    refused = site.next_order()["amqp_creds"]
    version = ada.ask("GET", f"/v3/endpoints/{site.id}/live")["version"]
    assert listed() == [{refused["endpoint_id"]}] * 2
    results = site.here.sdk(group_id)
    give_notice(site, refused, "workers: 99 is more than 8", error_is_final=True)
    results.wait(1)
    ada.ask("GET", f"/v3/endpoints/{site.id}/live?after={version}")  # answers when the row goes
    assert listed() == [set(), set()]
    (by_id,) = ada.ask("GET", f"/v3/endpoints/{site.id}/console?user_endpoint_id={refused['endpoint_id']}")[
        "user_endpoints"
    ]
    assert (by_id["user_endpoint_id"], by_id["active"]) == (refused["endpoint_id"], False)

    (task_id,), group_id = site.submit_group(1)
    agent, results = site.start(), site.here.sdk(group_id)
    agent.wait(1)
    agent.report(**ONE, heartbeat_period=30, active=True)
    agent.finish(task_id)
    results.wait(1)
    assert listed()[0] == {agent.id}
    agent.close()
    assert listed()[0] == {agent.id}, "one that has worked stays"


def test_what_was_stopped_for_good_fails_what_its_agent_still_has(site: Site) -> None:
    (task_id,), group_id = site.submit_group(1)
    credentials = site.next_order()["amqp_creds"]
    agent, results = site.agent(credentials), site.here.sdk(group_id)
    agent.wait(1)
    give_notice(site, credentials, "stopped by the administrator", error_is_final=True)
    results.wait(1)
    assert site.here.task(task_id)["exception"] == "stopped by the administrator"


@only_embedded
def test_one_that_died_without_a_word_is_asked_for_again(site: Site) -> None:
    (task_id,) = site.submit()
    credentials = site.next_order()["amqp_creds"]
    agent = site.agent(credentials)
    agent.wait(1)
    give_notice(site, credentials, "its process was killed by signal 9", error_is_final=False)
    agent.close()
    again = site.start()
    assert ids_of(again.wait(1)) == [task_id]


def test_a_notice_in_the_name_of_the_manager_says_nothing_of_its_user_endpoints(site: Site) -> None:
    (task_id,), group_id = site.submit_group(1)
    order = site.next_order()
    info = site.registration["heartbeat_queue_info"]
    give_notice(site, {"endpoint_id": site.id, "heartbeat_queue_info": info}, "one of them failed")
    agent = site.agent(order["amqp_creds"])
    agent.wait(1)
    agent.finish(task_id)
    site.here.sdk(group_id).wait(1)
    assert site.here.task(task_id)["status"] == "success"


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_manager_that_is_stopped_loses_its_user_endpoints(site: Site, version: str) -> None:
    site.submit()
    agent, commands = site.start(), site.commands
    assert commands is not None
    site.here.ada.ask("POST", f"/{version}/endpoints/{site.id}/lock")
    assert agent.is_cut()
    assert commands.is_cut()
    refused = site.here.ada.http.put(f"/v3/endpoints/{site.id}", json={"endpoint_name": "there", "metadata": {}})
    assert refused.status_code == 423


def test_the_tasks_of_a_deleted_manager_end(site: Site) -> None:
    (task_id,), group_id = site.submit_group(1)
    order = site.next_order()
    agent, results = site.agent(order["amqp_creds"]), site.here.sdk(group_id)
    agent.wait(1)
    site.here.ada.ask("DELETE", f"/v2/endpoints/{site.id}")
    results.wait(1)
    assert site.here.task(task_id)["reason"].startswith(ENDPOINT_DELETED)
    assert agent.is_cut()
    site.here.ada.ask("GET", f"/v2/endpoints/{agent.id}", status=404)
    site.here.ada.ask("POST", f"/v3/endpoints/{site.id}/submit", {"tasks": {site.here.function_id: [PAYLOAD]}}, 404)


def test_a_manager_is_online_while_it_takes_commands(site: Site) -> None:
    def status() -> str:
        return str(site.here.ada.ask("GET", f"/v2/endpoints/{site.id}/status")["status"])

    assert status() == "offline"
    site.submit()
    site.next_order()
    assert status() == "online"


def test_a_user_endpoint_is_seen_by_its_user_and_by_who_has_the_manager(scene: Callable[..., Scene]) -> None:
    site = Site(scene(), multi_user=True)
    ada, bob = site.here.ada, Rest(site.here.thread, "bob@localhost")
    eve = Rest(site.here.thread, "eve@localhost")
    (task_id,) = site.submit(who=bob, function_id=bob.function())
    agent = site.start()
    agent.wait(1)
    agent.report(**ONE, heartbeat_period=30, active=True, engine_type="ThreadPoolEngine", total_workers=3)
    agent.finish(task_id)
    for who in (ada, bob):
        assert who.ask("GET", f"/v2/endpoints/{agent.id}")["owner"] == bob.identity.id
        assert who.ask("GET", f"/v2/endpoints/{agent.id}/status")["details"]["total_workers"] == 3
        assert agent.id not in {each["uuid"] for each in who.ask("GET", "/v2/endpoints?role=any")}
    eve.ask("GET", f"/v2/endpoints/{agent.id}", status=403)
    bob.ask("GET", f"/v3/endpoints/{site.id}/console", status=403)
    (entry,) = ada.ask("GET", f"/v3/endpoints/{site.id}/console")["user_endpoints"]
    expected = {"user_endpoint_id": agent.id, "active": True, "client_sdk_versions": ["4.19.0"], "posix_pid": 1}
    assert entry.items() >= expected.items()
    assert ada.ask("GET", f"/v3/endpoints/{site.id}/console?user_endpoint_id={site.id}") == {"user_endpoints": []}


def test_a_user_endpoint_is_nobodys_to_register_use_or_delete(site: Site) -> None:
    site.submit()
    user_endpoint_id, ada = site.next_order()["amqp_creds"]["endpoint_id"], site.here.ada
    ada.ask("PUT", f"/v3/endpoints/{user_endpoint_id}", {"endpoint_name": "mine", "metadata": {}}, 403)
    call = {"tasks": {site.here.function_id: [PAYLOAD]}}
    ada.ask("POST", f"/v3/endpoints/{user_endpoint_id}/submit", call, 403)
    ada.ask("DELETE", f"/v2/endpoints/{user_endpoint_id}", status=403)
    ada.ask("POST", f"/v3/endpoints/{user_endpoint_id}/lock", status=403)


def test_a_manager_with_a_list_of_functions_takes_no_others(scene: Callable[..., Scene]) -> None:
    here = scene()
    site = Site(here, allowed_functions=[here.function_id])
    other = here.ada.function()
    refusal = here.ada.ask("POST", f"/v3/endpoints/{site.id}/submit", {"tasks": {other: [PAYLOAD]}}, 403)
    assert refusal["code"] == "FUNCTION_NOT_PERMITTED"
    (task_id,) = site.submit()
    assert ids_of(site.start().wait(1)) == [task_id]


def test_only_the_owner_may_use_a_manager_that_runs_everything_as_itself(site: Site) -> None:
    bob = Rest(site.here.thread, "bob@localhost")
    call = {"tasks": {bob.function(): [PAYLOAD]}}
    refusal = bob.ask("POST", f"/v3/endpoints/{site.id}/submit", call, 403)
    assert refusal["code"] == "ENDPOINT_ACCESS_FORBIDDEN"
    reserved = {"tasks": {site.here.function_id: [PAYLOAD]}, "user_endpoint_config": {"user_runtime": {}}}
    assert "user_runtime" in site.here.ada.ask("POST", f"/v3/endpoints/{site.id}/submit", reserved, 422)["message"]
