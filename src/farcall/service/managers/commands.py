"""Start commands as they travel on a manager's command queue. Source: wire protocol, start commands.

They carry the user endpoint's broker login, so they are made when they are sent, kept nowhere, and never logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from farcall.broker import Properties
from farcall.service.managers.rules import user_endpoint_name
from farcall.service.relay.messages import Outgoing
from farcall.wire.rest import PublishKwargs, QueueInfo, to_document
from farcall.wire.topology import HEARTBEATS, RESULTS, TASKS, heartbeat_key, result_key, task_queue

__all__ = [
    "COMMAND_LIFE_S",
    "STOP_COMMAND",
    "StartOrder",
    "Submitter",
    "knows_stop",
    "queue_infos",
    "start_command",
    "stop_command",
]

COMMAND_LIFE_S: Final = 180
"""Managers refuse commands that are older; so the broker may drop them then."""

STOP_COMMAND: Final = "cmd_stop_user_endpoint"
"""Ours. A manager that knows it says so when it registers, in member `commands` of its `metadata`."""

_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitter:
    """Who submitted, as identity mapping sees it: one object per linked identity, the effective one first."""

    identity_id: str
    username: str
    identity_set: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class StartOrder:
    """What a user endpoint is started with.

    Attributes:
        options: the submitter's `user_endpoint_config`.
        runtime: the submitter's `user_runtime`.
    """

    manager_id: str
    user_endpoint_id: str
    submitter: Submitter
    options: Mapping[str, Any]
    runtime: Mapping[str, Any]


def queue_infos(endpoint_id: str, url: str) -> dict[str, QueueInfo]:
    """Where what runs tasks takes them, and sends results and status reports.

    Args:
        url: of the broker, with the endpoint's own login.
    """

    def publisher(exchange: str, key: str) -> QueueInfo:
        how = PublishKwargs(exchange=exchange, routing_key=key)
        return QueueInfo(connection_url=url, exchange=exchange, queue=exchange, queue_publish_kwargs=how)

    return {
        "task_queue_info": QueueInfo(connection_url=url, exchange=TASKS, queue=task_queue(endpoint_id)),
        "result_queue_info": publisher(RESULTS, result_key(endpoint_id)),
        "heartbeat_queue_info": publisher(HEARTBEATS, heartbeat_key(endpoint_id)),
    }


def start_command(order: StartOrder, url: str, *, now: float) -> Outgoing:
    """The message that makes a manager start a user endpoint.

    Args:
        url: of the broker, with the user endpoint's own login.
        now: Unix seconds, by a clock that the manager's agrees with.
    """
    infos = {name: to_document(info) for name, info in queue_infos(order.user_endpoint_id, url).items()}
    body = {
        "command": "cmd_start_endpoint",
        "args": [],
        "kwargs": {
            "name": user_endpoint_name(order.manager_id, order.user_endpoint_id),
            "user_opts": order.options,
            "user_runtime": order.runtime,
            "amqp_creds": {"endpoint_id": order.user_endpoint_id, **infos},
        },
        "globus_effective_identity": order.submitter.identity_id,
        "globus_username": order.submitter.username,
        "globus_identity_set": list(order.submitter.identity_set),
    }
    return _outgoing(body, now)


def knows_stop(metadata: Mapping[str, Any]) -> bool:
    """Whether a manager can be told to stop a user endpoint, by what it registered. That of the other ecosystem cannot:
    it takes an unknown command for a fault.
    """
    commands = metadata.get("commands")
    return isinstance(commands, list) and STOP_COMMAND in commands


def stop_command(manager_id: str, user_endpoint_id: str, by: Submitter, reason: str, *, now: float) -> Outgoing:
    """The message that makes a manager end a user endpoint.

    Args:
        by: who wants that.
        reason: for people; who is in it.
        now: Unix seconds, by a clock that the manager's agrees with.
    """
    body = {
        "command": STOP_COMMAND,
        "args": [],
        "kwargs": {
            "name": user_endpoint_name(manager_id, user_endpoint_id),
            "user_endpoint_id": user_endpoint_id,
            "reason": reason,
        },
        "globus_effective_identity": by.identity_id,
        "globus_username": by.username,
        "globus_identity_set": list(by.identity_set),
    }
    return _outgoing(body, now)


def _outgoing(body: Mapping[str, Any], now: float) -> Outgoing:
    properties = Properties(
        content_type="application/json",
        delivery_mode=2,
        timestamp=int(now),
        expiration=str(COMMAND_LIFE_S * 1000),
    )
    return Outgoing(_encoder.encode(body), properties)
