"""Shapes of the REST interface: what goes into a request and what comes back.

Frozen dataclasses of standard types, so that the SDK needs no third party to read them and the service's JSON
library can fill them. Member names are the protocol's; members that only Farcall knows are marked "ours" and
are always optional. Source: wire protocol, REST.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

__all__ = [
    "EndpointRegistration",
    "FunctionRegistration",
    "PublishKwargs",
    "QueueInfo",
    "RegistrationResponse",
    "ResultConnection",
    "SubmitRequest",
    "SubmitResponse",
    "queue_info_from_document",
    "to_document",
]

IDEMPOTENCY_HEADER = "Idempotency-Key"
"""Ours: a submission with a key that was seen in the last day is answered as the first one was."""


@dataclass(frozen=True, kw_only=True)
class PublishKwargs:
    """How a client publishes: passed to its AMQP library as it is."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    properties: dict[str, Any] = field(default_factory=lambda: {"delivery_mode": 2})


@dataclass(frozen=True, kw_only=True)
class QueueInfo:
    """Where a client connects (`amqp[s]://user:password@host:port/vhost?heartbeat=30`) and what it uses there."""

    connection_url: str
    queue: str
    exchange: str = ""
    queue_publish_kwargs: PublishKwargs | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointRegistration:
    """POST /v3/endpoints and PUT /v3/endpoints/{id}. Replaces all that was known: absent means unset."""

    endpoint_name: str
    display_name: str | None = None
    public: bool = False
    multi_user: bool = False
    high_assurance: bool = False
    allowed_functions: list[str] | None = None
    admins: list[str] | None = None
    authentication_policy: str | None = None
    subscription_uuid: str | None = None
    description: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    direct: bool = False
    """Ours: this process runs tasks itself and works its own task queue; otherwise it is a manager."""


@dataclass(frozen=True, kw_only=True)
class RegistrationResponse:
    """The answer to a registration. A direct endpoint gets task and result queues, a manager a command queue."""

    endpoint_id: str
    heartbeat_queue_info: QueueInfo
    task_queue_info: QueueInfo | None = None
    result_queue_info: QueueInfo | None = None
    command_queue_info: QueueInfo | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ResultConnection:
    """GET /v2/get_amqp_result_connection_url. The queue to consume is `queue_prefix` + task group id."""

    queue_prefix: str
    connection_url: str
    reader_queues: bool = False
    """Ours: `.` and a name of one's own may be appended, for a queue that is shared with nobody."""


@dataclass(frozen=True, kw_only=True)
class FunctionRegistration:
    """POST /v3/functions. `function_code` is a framed buffer, or source text if `serialized` is False."""

    function_name: str
    function_code: str
    serialized: bool = True
    meta: dict[str, Any] | None = None
    description: str | None = None
    public: bool = False
    group: str | None = None
    ha_endpoint_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitRequest:
    """POST /v3/endpoints/{id}/submit: function id → packed arguments (framed arguments and keywords) per call."""

    tasks: dict[str, list[str]]
    create_queue: bool = False
    task_group_id: str | None = None
    resource_specification: dict[str, Any] | None = None
    user_endpoint_config: dict[str, Any] | None = None
    user_runtime: dict[str, Any] | None = None
    result_serializers: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitResponse:
    """Task ids in the order of the request's payloads, per function id."""

    request_id: str
    task_group_id: str
    endpoint_id: str
    tasks: dict[str, list[str]]
    ha_warning: str | None = None
    """For people: something about protected data that they should know."""


def to_document(value: Any) -> dict[str, Any]:  # any of the dataclasses above
    """A dataclass as JSON members, without those that are None (the protocol tells absent from null)."""
    return {key: member for key, member in asdict(value).items() if member is not None}


def queue_info_from_document(document: Any) -> QueueInfo | None:
    """A member like `task_queue_info`; None if there is none. Unknown members are ignored. Raises TypeError."""
    if document is None:
        return None
    info: QueueInfo = _known(QueueInfo, document)
    publish = document.get("queue_publish_kwargs")
    return info if publish is None else replace(info, queue_publish_kwargs=_known(PublishKwargs, publish))


def _known(made: type[Any], document: Any) -> Any:  # one of the dataclasses above
    if not isinstance(document, dict):
        raise TypeError(f"an object is expected for {made.__name__}")
    names = {each.name for each in fields(made)}
    return made(**{name: value for name, value in document.items() if name in names})
