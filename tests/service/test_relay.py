"""The relay between a real store and a real broker, embedded or RabbitMQ, with pika as endpoint and SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions
import pytest
from relay_scene import PATIENCE_S, Agent, Link, Scene, ids_of
from service_world import CODE, PAYLOAD, Rest
from sqlalchemy import Connection, update

from farcall.service.db.tables import endpoints
from farcall.service.relay import store
from farcall.service.relay.sweeper import TASK_EXPIRED
from farcall.wire.messages import (
    EndpointStatusReport,
    ErrorDetails,
    Result,
    Task,
    TaskCancel,
    TaskTransition,
    pack_message,
    unpack_message,
)


def test_tasks_wait_in_the_store_and_reach_the_endpoint_when_it_comes(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, _ = here.submit(3, resource_specification={"num_nodes": 2}, result_serializers=["a.B"])
    method, properties, body = here.agent().wait(3)[0]
    assert ids_of(here.links[0].got) == ids
    assert unpack_message(body) == Task(task_id=ids[0], task_buffer=CODE + PAYLOAD)
    assert properties.headers == {
        "task_uuid": ids[0],
        "function_uuid": here.function_id,
        "resource_specification": '{"num_nodes": 2}',
        "result_serializers": ["a.B"],
    }
    assert (method.exchange, method.routing_key) == ("tasks", f"{here.endpoint_id}.tasks")


def test_tasks_reach_an_endpoint_that_is_there_at_once_and_in_order(scene: Callable[..., Scene]) -> None:
    here = scene()
    agent = here.agent()
    expected = [task_id for _ in range(5) for task_id in here.submit(20)[0]]
    assert ids_of(agent.wait(100)) == expected


def test_a_backlog_is_fed_within_the_window_as_it_is_taken(scene: Callable[..., Scene]) -> None:
    here = scene(feed_window_messages=10, broker_window_messages=10, page_tasks=4)
    expected = here.submit(35)[0]
    agent = here.agent()
    seen = finished = 0
    while seen < 35:
        seen = len(agent.wait(seen + 1))
        depth = here.thread.call(lambda service: service.relay._tasks._feedings[here.endpoint_id].feed.unacknowledged)
        assert depth <= 10
        agent.ack_all()
        if not here.broker.tells_acks:  # what it tells is how tasks end
            for task_id in expected[finished:seen]:
                agent.finish(task_id)
            finished = seen
    assert ids_of(agent.got) == expected


def test_a_result_is_stored_before_it_is_confirmed_and_goes_to_its_group(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), group_id = here.submit()
    sdk = here.sdk(group_id)
    agent = here.agent()
    agent.wait(1)
    body = pack_message(Result(task_id=task_id, data="value", details={"os": "Linux"}))
    agent.send(body)
    if here.broker.confirms_what_is_stored:
        assert here.task(task_id)["status"] == "success"
    _, properties, forwarded = sdk.wait(1)[0]
    task = here.task(task_id)
    assert (task["status"], task["result"]) == ("success", "value")
    assert forwarded == body
    assert abs(properties.timestamp - time.time()) < 60


def test_results_wait_for_a_client_that_comes_later(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, group_id = here.submit(3)
    agent = here.agent()
    for task_id in ids:
        agent.finish(task_id)
    got = [unpack_message(body) for _, _, body in here.sdk(group_id).wait(3)]
    assert [each.task_id for each in got if isinstance(each, Result)] == ids


def test_results_of_high_assurance_are_announced_and_never_on_the_stream(scene: Callable[..., Scene]) -> None:
    def protect(conn: Connection) -> None:
        conn.execute(update(endpoints).where(endpoints.c.id == here.endpoint_id).values(high_assurance=True))

    here = scene()
    here.thread.call(lambda service: service.db.write(protect))
    ids, group_id = here.submit(3)
    there, own = here.sdk(group_id), here.sdk(f"{group_id}.reader")
    agent = here.agent()
    agent.finish(ids[0], "SECRET value")
    failure = ErrorDetails(code="RemoteExecutionError", user_message="SECRET in a traceback")
    agent.send(pack_message(Result(task_id=ids[1], data="SECRET traceback", error_details=failure)))
    here.ada.ask("POST", f"/v3/tasks/{ids[2]}/cancel")
    seen = [*there.wait(3), *own.wait(3)]
    for link in (there, own):
        link.close()
    seen += here.sdk(group_id).wait(3)  # from the store
    assert len(seen) == 9
    for _, properties, body in seen:
        assert properties.headers == {"high_assurance": True}
        assert properties.timestamp
        message = unpack_message(body)
        assert isinstance(message, Result)
        assert (message.data, message.error_details, message.details) == ("", None, None)
        assert b"SECRET" not in body
    assert sorted(unpack_message(body).task_id for _, _, body in seen) == sorted(3 * ids)


def test_results_that_a_client_has_acknowledged_do_not_come_again(scene: Callable[..., Scene]) -> None:
    here = scene(presence_write_period_s=0.0)
    ids, group_id = here.submit(4)
    agent = here.agent()
    for task_id in ids[:3]:
        agent.finish(task_id)
    first = here.sdk(group_id)
    first.wait(3)
    first.channel.basic_ack(first.got[1][0].delivery_tag, multiple=True)
    first.close()
    second = here.sdk(group_id)
    agent.finish(ids[3])
    assert [json.loads(body[1:])["data"]["task_id"] for _, _, body in second.wait(2)] == ids[2:]


def test_an_unread_result_survives_the_service(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), group_id = here.submit()
    here.agent().finish(task_id)
    here.restart()
    assert json.loads(here.sdk(group_id).wait(1)[0][2][1:])["data"]["task_id"] == task_id


def test_tasks_survive_the_service_and_are_sent_again(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, _ = here.submit(5)
    agent = here.agent()
    agent.wait(5)
    agent.ack_all()
    agent.finish(ids[1])
    here.restart()
    assert ids_of(here.agent().wait(4)) == [ids[0], *ids[2:]]


def test_an_endpoint_that_comes_again_gets_all_its_open_tasks_again(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, _ = here.submit(3)
    first = here.agent()
    first.wait(3)
    first.ack_all()
    first.close()
    assert ids_of(here.agent().wait(3)) == ids


def test_the_second_result_of_a_task_is_dropped_and_counted(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), _ = here.submit()
    agent = here.agent()
    agent.finish(task_id, "first")
    agent.finish(task_id, "second")
    here.results_taken(2)
    assert here.task(task_id)["result"] == "first"
    assert (here.counters().stored, here.counters().duplicate) == (1, 1)


def test_an_endpoint_cannot_end_anothers_task(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), _ = here.submit()
    bob = Rest(here.thread, "bob@localhost")
    stranger = here.agent(bob.endpoint())
    stranger.finish(task_id)
    here.results_taken(1)
    assert here.task(task_id)["status"] == "received"
    assert here.counters().foreign == 1
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        stranger.send(b"", key=f"{here.endpoint_id}.results")


def test_noise_on_the_result_queue_is_confirmed_and_counted(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), group_id = here.submit()
    agent = here.agent()
    for noise in (b"", b"\x01{", b"\x02", b"\x01" + b"\xff" * 100):
        agent.send(noise)
    here.results_taken(4)
    assert here.counters().unreadable == 4
    agent.send(b'\x01{"message_type":"result","data":{"task_id":"%s"}}' % task_id.encode())
    here.results_taken(5)
    task = here.task(task_id)
    assert task["reason"].startswith("MALFORMED_RESULT: ")
    forwarded = unpack_message(here.sdk(group_id).wait(1)[0][2])
    assert isinstance(forwarded, Result)
    assert forwarded.is_error


def test_one_result_that_the_store_does_not_take_keeps_no_other_out(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = scene()
    ids, _ = here.submit(3)
    agent = here.agent()
    real = store._result_row

    def picky(ended: store.EndedTask) -> Any:
        if ended.result.data == "poison":
            raise ValueError("no")
        return real(ended)

    monkeypatch.setattr(store, "_result_row", picky)
    for task_id, data in zip(ids, ["a", "poison", "c"], strict=True):
        agent.finish(task_id, data)
    here.results_taken(3)
    found = [here.task(task_id) for task_id in ids]
    assert [task["status"] for task in found] == ["success", "failed", "success"]
    assert found[1]["reason"].startswith("MALFORMED_RESULT: ")
    assert here.counters().unstorable == 1


def test_a_page_that_could_not_be_read_is_read_later(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = scene()
    ids, _ = here.submit(2)
    real, calls = store.read_task_page, []

    def failing_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise OSError("the disk is away")
        return real(*args)

    monkeypatch.setattr(store, "read_task_page", failing_once)
    assert ids_of(here.agent().wait(2)) == ids


def test_nobody_reads_anothers_queues(scene: Callable[..., Scene]) -> None:
    here = scene()
    (_, group_id) = here.submit()
    bob = Rest(here.thread, "bob@localhost")
    sdk = bob.ask("GET", "/v2/get_amqp_result_connection_url")
    theirs = bob.endpoint()
    for url, queue in (
        (sdk["connection_url"], f"tg.{here.ada.identity.id}.{group_id}"),
        (sdk["connection_url"], f"{here.endpoint_id}.tasks"),
        (sdk["connection_url"], "results"),
        (theirs["task_queue_info"]["connection_url"], f"{here.endpoint_id}.tasks"),
        (theirs["task_queue_info"]["connection_url"], "results"),
    ):
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            Link(url, queue)


def test_a_wrong_password_is_refused(scene: Callable[..., Scene]) -> None:
    here = scene()
    user, _, host = here.registration["task_queue_info"]["connection_url"].rpartition("@")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        Link(user[:-1] + ("0" if user[-1] != "0" else "1") + "@" + host)


def test_a_new_registration_cuts_the_older_process_for_good(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, _ = here.submit(2)
    old = here.agent()
    old.wait(2)
    again = {"endpoint_name": "here", "direct": True, "metadata": {}}
    registration = here.ada.ask("PUT", f"/v3/endpoints/{here.endpoint_id}", again)
    assert old.is_cut()
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        Agent(here.registration)
    assert ids_of(here.agent(registration).wait(2)) == ids


def test_a_lock_cuts_the_endpoint_for_good(scene: Callable[..., Scene]) -> None:
    here = scene()
    agent = here.agent()
    here.ada.ask("POST", f"/v3/endpoints/{here.endpoint_id}/lock")
    assert agent.is_cut()
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        Agent(here.registration)


def test_deleting_an_endpoint_cuts_it_and_tells_the_groups(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, group_id = here.submit(3)
    agent, sdk = here.agent(), here.sdk(group_id)
    agent.wait(3)
    here.ada.ask("DELETE", f"/v2/endpoints/{here.endpoint_id}")
    assert agent.is_cut()
    messages = [unpack_message(body) for _, _, body in sdk.wait(3)]
    assert [each.task_id for each in messages if isinstance(each, Result) and each.is_error] == ids


def test_cancelling_tells_the_endpoint_and_the_group(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), group_id = here.submit()
    agent, sdk = here.agent(), here.sdk(group_id)
    agent.wait(1)
    here.ada.ask("POST", f"/v3/tasks/{task_id}/cancel")
    assert unpack_message(agent.wait(2)[1][2]) == TaskCancel(task_id=task_id)
    told = unpack_message(sdk.wait(1)[0][2])
    assert isinstance(told, Result)
    assert told.error_details is not None
    assert told.error_details.code == "TASK_CANCELLED"
    agent.finish(task_id)
    here.results_taken(1)
    assert here.task(task_id)["status"] == "failed"


def test_a_cancelled_task_is_not_sent_to_an_endpoint_that_comes_later(scene: Callable[..., Scene]) -> None:
    here = scene()
    ids, _ = here.submit(3)
    here.ada.ask("POST", f"/v3/tasks/{ids[1]}/cancel")
    assert ids_of(here.agent().wait(2)) == [ids[0], ids[2]]


def wait_for_status(here: Scene, status: str) -> Any:
    """Reports are not confirmed, so there is nothing to wait for but their effect."""
    until = time.monotonic() + PATIENCE_S
    while True:
        found = here.ada.ask("GET", f"/v2/endpoints/{here.endpoint_id}/status")
        if found["status"] == status or time.monotonic() > until:
            return found


def test_an_endpoint_is_online_while_it_is_attached_and_alive(scene: Callable[..., Scene]) -> None:
    here = scene()
    agent = here.agent()
    assert wait_for_status(here, "online")["status"] == "online"
    agent.report(heartbeat_period=30, active=True, total_workers=4)
    agent.report(heartbeat_period=30, active=False, total_workers=4)
    found = wait_for_status(here, "offline")
    assert (found["status"], found["details"]["total_workers"]) == ("offline", 4)


def test_an_endpoint_whose_connection_drops_is_offline(scene: Callable[..., Scene]) -> None:
    here = scene()
    agent = here.agent()
    assert wait_for_status(here, "online")["status"] == "online"
    agent.close()
    assert wait_for_status(here, "offline")["status"] == "offline"


def test_reports_outlive_the_service_and_move_tasks(scene: Callable[..., Scene]) -> None:
    here = scene()
    (task_id,), _ = here.submit()
    agent = here.agent()
    running = TaskTransition(timestamp=1, state="running", actor="endpoint")
    agent.report(heartbeat_period=30, engine_type="X", config_raw="secret", task_statuses={task_id: (running,)})
    agent.close()
    wait_for_status(here, "offline")
    here.restart()
    assert here.task(task_id)["status"] == "running"
    console = here.ada.ask("GET", f"/v3/endpoints/{here.endpoint_id}/console")["user_endpoints"][0]
    assert (console["engine_type"], console["active"]) == ("X", False)
    assert "config" not in console
    path = f"/v3/endpoints/{here.endpoint_id}/console?include_fields=config"
    assert here.ada.ask("GET", path)["user_endpoints"][0]["config"] == "secret"


def test_an_endpoint_cannot_report_for_another(scene: Callable[..., Scene]) -> None:
    here = scene()
    bob = Rest(here.thread, "bob@localhost")
    stranger = here.agent(bob.endpoint())
    report = EndpointStatusReport(endpoint_id=here.endpoint_id, global_state={"total_workers": 1})
    stranger.out.basic_publish("heartbeats", f"{stranger.id}.heartbeats", pack_message(report))
    stranger.finish(stranger.id)
    here.results_taken(1)  # after the report was taken
    assert here.ada.ask("GET", f"/v2/endpoints/{here.endpoint_id}/status")["details"] == {}


def test_a_task_that_outlives_its_time_fails_with_a_reason(scene: Callable[..., Scene]) -> None:
    here = scene(task_lifetime_s=0.0)
    (task_id,), group_id = here.submit()
    sdk = here.sdk(group_id)
    here.thread.call(lambda service: service.relay._sweeper.sweep())
    assert json.loads(sdk.wait(1)[0][2][1:])["data"]["error_details"]["code"] == TASK_EXPIRED
    assert here.task(task_id)["reason"].startswith(TASK_EXPIRED)


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_queues_of_groups_cost_nothing_while_nobody_reads_them(scene: Callable[..., Scene]) -> None:
    here = scene(group_queue_idle_s=-1.0)
    (_, group_id) = here.submit()
    queue = f"tg.{here.ada.identity.id}.{group_id}"

    def has_queue(service: Any) -> bool:
        return bool(service.relay._transport._broker.has_queue(queue))

    assert here.thread.call(has_queue)
    here.thread.call(lambda service: service.relay._sweeper.sweep())
    assert not here.thread.call(has_queue)
    link = here.sdk(group_id)
    assert here.thread.call(has_queue)
    link.close()
    here.ada.ask("GET", "/healthz")
    assert not here.thread.call(has_queue)


def test_an_sdk_cannot_make_queues_that_are_no_groups(scene: Callable[..., Scene]) -> None:
    here = scene()
    info = here.ada.ask("GET", "/v2/get_amqp_result_connection_url")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        Link(info["connection_url"], info["queue_prefix"] + "anything")
