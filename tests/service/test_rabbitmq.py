"""What holds on RabbitMQ beyond the contract of `test_relay`: it is guarded, outlives the service, and forgets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pika.exceptions
import pytest
from relay_scene import Agent, Broker, Link, Scene, ids_of
from service_world import Rest, ServiceThread

from farcall.wire.messages import Result, pack_message
from farcall.wire.topology import group_queue
from rabbitmq_server import RabbitServer, rabbitmq_server

pytestmark = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
MakeScene = Callable[..., Scene]


@pytest.fixture
def own_scene(service_thread: Callable[..., ServiceThread]) -> Iterator[Scene]:
    """On a RabbitMQ of its own, to be broken."""
    with rabbitmq_server() as server:
        here = Scene(service_thread, Broker(server))
        yield here
        for link in here.links:
            link.close()


def task_of(message: Any) -> str:
    return str(json.loads(message[2][1:])["data"]["task_id"])


def server_of(here: Scene) -> RabbitServer:
    assert here.broker.server is not None
    return here.broker.server


@contextlib.contextmanager
def service_link(here: Scene) -> Iterator[Link]:
    """RabbitMQ as the service's account sees it."""
    link = Link(server_of(here).url)
    yield link
    link.close()


def drop(here: Scene) -> None:
    """All links have broken, and are forgotten."""
    for link in here.links:
        link.close()
    here.links.clear()


# --- Guarded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["agent", "sdk"])
def test_clients_can_make_nothing_and_publish_nowhere_else(scene: MakeScene, who: str) -> None:
    here = scene()
    _, group_id = here.submit()
    link = here.agent() if who == "agent" else here.sdk(group_id)
    own = f"{here.endpoint_id}.tasks" if who == "agent" else group_queue(here.ada.identity.id, group_id)
    for forbidden in (
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_declare("", exclusive=True),
        lambda channel: channel.queue_delete(own),
        lambda channel: channel.exchange_declare("mine"),
        lambda channel: channel.exchange_delete("tasks"),
        lambda channel: channel.queue_bind(own, "groups", "anything"),
        lambda channel: channel.queue_bind(own, "amq.rabbitmq.event", "#"),
        lambda channel: channel.basic_get("heartbeats"),
    ):
        channel = link.connection.channel()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            forbidden(channel)
    for exchange, key in (
        ("", f"{here.endpoint_id}.tasks"),
        ("", group_queue(here.ada.identity.id, group_id)),
        ("tasks", f"{here.endpoint_id}.tasks"),
        ("groups", group_queue(here.ada.identity.id, group_id)),
        ("heartbeats", "11111111-2222-4333-8444-555555555555.heartbeats"),
    ):
        channel = link.connection.channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.basic_publish(exchange, key, b"forged")


def test_an_endpoint_reads_its_own_queue_only(scene: MakeScene) -> None:
    here = scene()
    other = Rest(here.thread, "bob@localhost").endpoint()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        Link(here.registration["task_queue_info"]["connection_url"], other["task_queue_info"]["queue"])


def test_a_logout_cuts_the_sdk(scene: MakeScene) -> None:
    here = scene()
    _, group_id = here.submit()
    sdk = here.sdk(group_id)
    here.ada.ask("POST", "/v3/logout")
    assert sdk.is_cut()


def test_nobody_logs_in_while_the_service_does_not_answer(scene: MakeScene) -> None:
    here = scene()
    server_of(here).lead_to(None)
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        Agent(here.registration)
    here.broker.serves(here.thread)
    here.agent()


# --- Results out -----------------------------------------------------------------------------------------------


def test_each_reader_of_a_group_gets_what_ends_from_then_on(scene: MakeScene) -> None:
    here = scene()
    ids, group_id = here.submit(3)
    agent = here.agent()
    info = here.ada.ask("GET", "/v2/get_amqp_result_connection_url")
    readers = [Link(info["connection_url"], f"{info['queue_prefix']}{group_id}.{name}") for name in ("one", "two")]
    here.links += [*readers]
    shared = here.sdk(group_id)
    for task_id in ids:
        agent.finish(task_id)
    for link in (*readers, shared):
        assert sorted(map(task_of, link.wait(3))) == sorted(ids)


def test_a_shared_queue_that_is_gone_is_made_and_filled_from_the_store(scene: MakeScene) -> None:
    here = scene(page_tasks=2)
    ids, group_id = here.submit(5)
    agent = here.agent()
    for task_id in ids:
        agent.finish(task_id)
    here.results_taken(5)
    here.sdk(group_id).wait(5)
    drop(here)
    with service_link(here) as link:
        link.channel.queue_delete(group_queue(here.ada.identity.id, group_id))
    assert [task_of(message) for message in here.sdk(group_id).wait(5)] == ids


def test_a_result_that_a_relay_took_to_its_grave_reaches_its_group(scene: MakeScene) -> None:
    """Stored, but neither copied nor acknowledged: RabbitMQ delivers it again, and what is stored is copied."""
    here = scene()
    (task_id,), group_id = here.submit()
    here.agent().finish(task_id, "what is stored")
    here.results_taken(1)
    drop(here)
    here.thread.stop()
    with service_link(here) as link:
        again = pack_message(Result(task_id=task_id, data="not what is stored"))
        link.channel.basic_publish("results", f"{here.endpoint_id}.results", again)
        assert next(link.channel.consume("results"))[2] == again  # taken by somebody who goes without acknowledging
        name = group_queue(here.ada.identity.id, group_id)
        link.channel.queue_declare(name, durable=True)  # a reader's, which is there already
        link.channel.queue_bind(name, "groups", name)
    here.start_again()
    assert [json.loads(message[2][1:])["data"]["data"] for message in here.sdk(group_id).wait(1)] == ["what is stored"]
    assert here.counters().duplicate == 1


def test_what_the_service_ended_before_it_died_reaches_its_group(scene: MakeScene) -> None:
    here = scene()
    (task_id,), group_id = here.submit()
    here.sdk(group_id)
    here.ada.ask("POST", f"/v3/tasks/{task_id}/cancel")
    here.links[0].wait(1)
    drop(here)
    here.thread.stop()
    with service_link(here) as link:  # as if the service had died before it sent the copy
        link.channel.queue_purge(group_queue(here.ada.identity.id, group_id))
    here.start_again()
    assert task_of(here.sdk(group_id).wait(1)[0]) == task_id


# --- RabbitMQ comes and goes -----------------------------------------------------------------------------------


def test_tasks_that_were_in_the_queue_of_a_dead_service_are_replaced(scene: MakeScene) -> None:
    """What waits there may have ended meanwhile: whoever attaches is fed anew."""
    here = scene()
    ids, _ = here.submit(3)
    here.agent().wait(3)
    here.restart()
    here.ada.ask("POST", f"/v3/tasks/{ids[1]}/cancel")
    agent = here.agent()
    assert ids_of(agent.wait(2)) == [ids[0], ids[2]]


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps-its-data", "forgets-everything"])
def test_a_rabbitmq_that_was_away_costs_nothing(own_scene: Scene, broker: Broker, forgets: bool) -> None:
    here, server = own_scene, server_of(own_scene)
    ids, group_id = here.submit(4)
    agent, sdk = here.agent(), here.sdk(group_id)
    agent.wait(4)
    agent.finish(ids[0])
    sdk.wait(1)
    agent.finish(ids[1])
    here.results_taken(2)
    server.kill()
    if forgets:
        server.forget()
    drop(here)
    more, _ = here.submit(2, task_group_id=group_id)
    here.ada.ask("POST", f"/v3/tasks/{ids[2]}/cancel")
    server.start()
    agent = here.agent()
    assert ids_of(agent.wait(3)) == [ids[3], *more]
    for task_id in ids_of(agent.got):
        agent.finish(task_id)
    got = {task_of(message) for message in here.sdk(group_id).wait(5)}
    assert got >= {ids[1], ids[2], ids[3], *more}
    assert all(here.task(task_id)["status"] in ("success", "failed") for task_id in [*ids, *more])


def test_a_service_that_starts_before_its_rabbitmq_works_when_that_comes(
    service_thread: Callable[..., ServiceThread], broker: Broker
) -> None:
    with rabbitmq_server() as server:
        server.stop()
        here = Scene(service_thread, Broker(server))
        ids, _ = here.submit(2)
        server.start()
        agent = here.agent()
        assert ids_of(agent.wait(2)) == ids
        assert here.ada.http.get("/readyz").status_code == 200
        agent.close()
        here.thread.stop()
