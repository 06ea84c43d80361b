"""What a manager publishes: its heartbeats, and notices in the names of user endpoints."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

import pytest

from farcall.amqp import ConnectionEnded, Delivery
from farcall.amqp.memory import MemoryBroker
from farcall.endpoint.manager.links import ManagerLinks, Notices
from farcall.wire.messages import EndpointStatusReport, unpack_message
from farcall.wire.rest import PublishKwargs, QueueInfo, RegistrationResponse

MANAGER = "11111111-0000-4000-8000-000000000001"
UEP = "22222222-0000-4000-8000-000000000002"


def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.declare_exchange("heartbeats", "topic")
    made.declare_queue("heartbeats")
    made.bind("heartbeats", "heartbeats", "*.heartbeats")
    made.declare_queue("commands")
    return made


def heartbeats_of(endpoint_id: str) -> QueueInfo:
    how = PublishKwargs(exchange="heartbeats", routing_key=f"{endpoint_id}.heartbeats")
    return QueueInfo(
        connection_url=f"amqp://memory/{endpoint_id}",
        queue="heartbeats",
        exchange="heartbeats",
        queue_publish_kwargs=how,
    )


def reported(made: MemoryBroker) -> tuple[str, dict[str, Any]]:
    message = made.take("heartbeats")
    report = unpack_message(message.body)
    assert isinstance(report, EndpointStatusReport)
    assert message.routing_key == f"{report.endpoint_id}.heartbeats"
    return report.endpoint_id, dict(report.global_state)


def test_a_manager_takes_commands_and_says_when_it_is_here_and_when_not() -> None:
    made = broker()
    registration = RegistrationResponse(
        endpoint_id=MANAGER,
        heartbeat_queue_info=heartbeats_of(MANAGER),
        command_queue_info=QueueInfo(connection_url=f"amqp://memory/{MANAGER}", queue="commands"),
    )
    links = ManagerLinks(registration, factory=made.connection, on_trouble=lambda reason: None)
    online, came = threading.Event(), threading.Event()
    taken: list[Delivery] = []

    def take(deliveries: list[Delivery]) -> None:
        taken.extend(deliveries)
        came.set()

    links.start(
        on_commands=take,
        on_online=online.set,
        on_offline=online.clear,
        on_refused=lambda reason: None,
    )
    assert online.wait(10)
    links.heartbeat(30.0)
    assert reported(made) == (MANAGER, {"heartbeat_period": 30})
    made.publish("", "commands", b"{}", content_type="application/json", timestamp=7)
    assert came.wait(10)
    assert (taken[0].content_type, taken[0].timestamp) == ("application/json", 7)
    links.ack(taken)
    links.heartbeat(0)
    links.flush(10)
    assert reported(made) == (MANAGER, {"heartbeat_period": 0})
    links.close()
    assert made.bodies("commands") == []


def test_a_notice_is_the_user_endpoints_own_and_leaves_no_connection() -> None:
    made, connections = broker(), []

    def connect(*args: Any, **kwargs: Any) -> Any:
        connections.append(made.connection(*args, **kwargs))
        return connections[-1]

    notices = Notices(factory=connect)
    queues = {"heartbeat_queue_info": asdict(heartbeats_of(UEP))}
    notices.send(UEP, queues, "WORKERS must be a number", is_final=True)
    assert reported(made) == (
        UEP,
        {"error": "WORKERS must be a number", "heartbeat_period": 3, "error_is_final": True},
    )
    notices.close(10)
    (connection,) = connections
    with pytest.raises(ConnectionEnded):
        connection.wait_connected(0)


def test_a_notice_without_an_address_is_dropped_and_the_next_one_sent() -> None:
    made = broker()
    notices = Notices(factory=made.connection)
    notices.send(UEP, {}, "lost", is_final=False)
    notices.send(UEP, {"heartbeat_queue_info": asdict(heartbeats_of(UEP))}, "sent", is_final=False)
    assert reported(made)[1]["error"] == "sent"
    notices.close(10)
