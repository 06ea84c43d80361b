"""Names of exchanges, queues, routing keys and broker users; headers of a task message; who reaches what.

The names are the service's choice and reach clients inside info objects; only the result queue of an SDK is
derived by the client (prefix + task group id). Source: wire protocol, AMQP topology.

    exchange tasks (direct)      → queue <endpoint>.tasks      service writes, that endpoint reads
    exchange results (topic)     → queue results               endpoint writes <endpoint>.results, service reads
    exchange heartbeats (topic)  → queue heartbeats            endpoint writes <endpoint>.heartbeats, service reads
    default exchange             → queue <endpoint>.commands   service writes, that manager reads
    default exchange             → queue tg.<identity>.<task group>   service writes, that identity reads
    default exchange             → queue tg.<identity>.<task group>.<reader>   ours: each reader gets a copy of its own
    exchange groups (direct)     → both kinds of tg queue, by the name of the shared one; RabbitMQ only
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from farcall.wire.messages import is_uuid_text

__all__ = [
    "COMPAT_SDK_VERSION",
    "EXCHANGES",
    "GROUPS",
    "HEARTBEATS",
    "HEADER_FUNCTION",
    "HEADER_HIGH_ASSURANCE",
    "HEADER_PYTHON_VERSION",
    "HEADER_RESOURCES",
    "HEADER_RESULT_SERIALIZERS",
    "HEADER_TASK",
    "RESULTS",
    "TASKS",
    "BrokerUser",
    "GroupQueue",
    "UserKind",
    "command_queue",
    "command_queue_owner",
    "group_queue",
    "group_queue_prefix",
    "heartbeat_key",
    "is_endpoint_queue",
    "may_access",
    "may_publish",
    "result_key",
    "task_headers",
    "task_queue",
    "task_queue_owner",
]

TASKS: Final = "tasks"
RESULTS: Final = "results"
HEARTBEATS: Final = "heartbeats"
GROUPS: Final = "groups"
"""On RabbitMQ only, and the service's alone."""

EXCHANGES: Final = {TASKS: "direct", RESULTS: "topic", HEARTBEATS: "topic"}
"""Exchange → kind."""

HEADER_TASK: Final = "task_uuid"
HEADER_FUNCTION: Final = "function_uuid"
HEADER_RESOURCES: Final = "resource_specification"
"""JSON *text*, not a table."""
HEADER_RESULT_SERIALIZERS: Final = "result_serializers"
"""Array of import paths, tried in order."""
HEADER_PYTHON_VERSION: Final = "python_version"
"""Ours, additive: the submitter's `major.minor`, so that a worker can refuse bytecode it cannot read."""
HEADER_HIGH_ASSURANCE: Final = "high_assurance"

COMPAT_SDK_VERSION: Final = "4.19.0"
"""Release of the other ecosystem's clients whose wire behaviour we implement; sent where they expect theirs."""


def task_queue(endpoint_id: str) -> str:
    return f"{endpoint_id}.tasks"


def task_queue_owner(queue: str) -> str | None:
    """The endpoint whose task queue this is, or None if it is another kind of queue."""
    return queue[: -len(".tasks")] if queue.endswith(".tasks") else None


def command_queue(endpoint_id: str) -> str:
    return f"{endpoint_id}.commands"


def command_queue_owner(queue: str) -> str | None:
    """The manager whose command queue this is, or None if it is another kind of queue."""
    return queue[: -len(".commands")] if queue.endswith(".commands") else None


def is_endpoint_queue(queue: str) -> bool:
    """Whether an endpoint reads this queue (tasks or commands). Both are bound to the exchange of tasks by name."""
    return task_queue_owner(queue) is not None or command_queue_owner(queue) is not None


def result_key(endpoint_id: str) -> str:
    return f"{endpoint_id}.results"


def heartbeat_key(endpoint_id: str) -> str:
    return f"{endpoint_id}.heartbeats"


def group_queue_prefix(identity_id: str) -> str:
    return f"tg.{identity_id}."


def group_queue(identity_id: str, task_group_id: str) -> str:
    return group_queue_prefix(identity_id) + task_group_id


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupQueue:
    """A queue with the results of one task group.

    The protocol's clients share the queue without a `reader` (who takes a result takes it from the others). Ours
    name themselves: each gets its own copy of what ends from then on, and asks over REST for what had ended before.
    """

    identity_id: str
    task_group_id: str
    reader: str | None = None

    @property
    def name(self) -> str:
        shared = group_queue(self.identity_id, self.task_group_id)
        return shared if self.reader is None else f"{shared}.{self.reader}"

    @classmethod
    def from_name(cls, queue: str) -> GroupQueue | None:
        """Read a queue's name; None if it is another kind of queue."""
        match queue.split("."):
            case ["tg", identity_id, task_group_id, *reader] if len(reader) <= 1 and all(reader):
                if is_uuid_text(identity_id) and is_uuid_text(task_group_id):
                    return cls(
                        identity_id=identity_id, task_group_id=task_group_id, reader=reader[0] if reader else None
                    )
        return None


class UserKind(str, Enum):
    """What a broker login belongs to; the part of the user name before the first dot."""

    ENDPOINT = "endpoint"
    SDK = "sdk"


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerUser:
    """One broker login: an endpoint, or an identity's SDKs. `generation` grows when its credential is revoked."""

    kind: UserKind
    id: str
    generation: int

    @property
    def name(self) -> str:
        return f"{self.kind.value}.{self.id}.{self.generation}"

    @classmethod
    def from_name(cls, name: str) -> BrokerUser | None:
        """Read a user name; None if it is not one of ours."""
        kind, _, rest = name.partition(".")
        user_id, _, generation = rest.rpartition(".")
        if kind not in (UserKind.ENDPOINT.value, UserKind.SDK.value) or not user_id:
            return None
        if not (generation.isascii() and generation.isdigit()):
            return None
        return cls(kind=UserKind(kind), id=user_id, generation=int(generation))


def may_access(user: BrokerUser, action: str, resource: str, name: str) -> bool:
    """Whether a login may touch a queue or an exchange. Everything that is not named here is denied.

    Args:
        action: "configure", "write" or "read".
        resource: "queue" or "exchange".
    """
    if user.kind is UserKind.SDK:
        return action == "read" and resource == "queue" and name.startswith(group_queue_prefix(user.id))
    if action == "read":
        return resource == "queue" and name in (task_queue(user.id), command_queue(user.id))
    # Publishers declare exchange *and* queue passively before they publish: both names need some right.
    return action == "write" and name in (RESULTS, HEARTBEATS)


def may_publish(user: BrokerUser, exchange: str, routing_key: str) -> bool:
    """Whether a login may publish with this routing key: an endpoint speaks only for itself."""
    if user.kind is not UserKind.ENDPOINT:
        return False
    return (exchange, routing_key) in ((RESULTS, result_key(user.id)), (HEARTBEATS, heartbeat_key(user.id)))


def task_headers(
    *,
    task_id: str,
    function_id: str,
    resource_specification: Mapping[str, Any] | None = None,
    result_serializers: Sequence[str] = (),
    python_version: str | None = None,
) -> dict[str, Any]:
    """The AMQP headers of a task message. Source: wire protocol, task consumer."""
    headers: dict[str, Any] = {HEADER_TASK: task_id, HEADER_FUNCTION: function_id}
    if resource_specification:
        headers[HEADER_RESOURCES] = json.dumps(resource_specification)
    if result_serializers:
        headers[HEADER_RESULT_SERIALIZERS] = list(result_serializers)
    if python_version:
        headers[HEADER_PYTHON_VERSION] = python_version
    return headers
