"""What comes on a manager's command queue: start commands, and ours to stop a user endpoint. Parses only.

As tolerant as the other ecosystem's manager: unknown members pass, and what is wrong with a command whose sender can be
told is told (`Unusable`), by way of the user endpoint's own status reports. What does not even say whom to tell is
dropped. Source: wire protocol, start commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from farcall.wire.errors import FarcallError
from farcall.wire.messages import is_uuid_text
from farcall.wire.names import endpoint_name_fault

__all__ = [
    "COMMANDS",
    "START",
    "STOP",
    "CommandUnreadable",
    "StartRequest",
    "StopUserEndpoint",
    "Unusable",
    "parse_command",
]

START: Final = "cmd_start_endpoint"
STOP: Final = "cmd_stop_user_endpoint"
"""Ours."""

COMMANDS: Final = (START, STOP)
"""What this manager understands; it says so when it registers."""

_CONTENT_TYPE: Final = "application/json"
_QUEUES: Final = ("task_queue_info", "result_queue_info", "heartbeat_queue_info")


class CommandUnreadable(FarcallError):
    """It makes no sense, and nobody can be told. Dropped."""

    code = "COMMAND_UNREADABLE"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"A command cannot be read: {self.reason}."


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRequest:
    """A user endpoint is wanted.

    Attributes:
        name: of its directory.
        queues: its broker login and queues.
        options, runtime: the submitter's `user_endpoint_config` and `user_runtime`.
        identity_id, username: who submitted.
        identity_set: all identities of that person, as identity mapping sees them.
        sent_unix_s: by the service's clock.
    """

    name: str
    user_endpoint_id: str
    queues: Mapping[str, Any] = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    runtime: Mapping[str, Any]
    identity_id: str
    username: str
    identity_set: Sequence[Mapping[str, Any]]
    sent_unix_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StopUserEndpoint:
    """An administrator wants a user endpoint to end. `which`: its id or its name."""

    which: str
    reason: str
    username: str
    sent_unix_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A command that cannot be carried out, and whose sender can be told. `text` is for the submitter."""

    user_endpoint_id: str
    queues: Mapping[str, Any] = field(repr=False)
    text: str


def parse_command(
    body: bytes, *, content_type: str | None, sent_unix_s: float | None
) -> StartRequest | StopUserEndpoint | Unusable:
    """The command in a message.

    Raises:
        CommandUnreadable: see there.
    """
    if content_type != _CONTENT_TYPE:
        raise CommandUnreadable(f"its content type is {content_type!r}, not {_CONTENT_TYPE!r}")
    if sent_unix_s is None:
        raise CommandUnreadable("it does not say when it was sent")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError
        raise CommandUnreadable("it is not JSON") from exc
    if not isinstance(document, dict):
        raise CommandUnreadable("it is not a JSON object")
    command, kwargs = document.get("command"), document.get("kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    if command == STOP:
        return _stop(document, kwargs, sent_unix_s)
    user_endpoint_id, queues = _whom_to_tell(kwargs)
    fault = _fault(document, command, kwargs, queues)
    if fault is not None:
        return Unusable(user_endpoint_id=user_endpoint_id, queues=queues, text=fault)
    return StartRequest(
        name=kwargs["name"],
        user_endpoint_id=user_endpoint_id,
        queues=queues,
        options=kwargs.get("user_opts") or {},
        runtime=kwargs.get("user_runtime") or {},
        identity_id=document["globus_effective_identity"],
        username=document["globus_username"],
        identity_set=document["globus_identity_set"],
        sent_unix_s=sent_unix_s,
    )


def _stop(document: Mapping[str, Any], kwargs: Mapping[str, Any], sent_unix_s: float) -> StopUserEndpoint:
    which = kwargs.get("user_endpoint_id") or kwargs.get("name")
    if not isinstance(which, str):
        raise CommandUnreadable("it does not say which user endpoint is to be stopped")
    reason, username = kwargs.get("reason"), document.get("globus_username")
    return StopUserEndpoint(
        which=which,
        reason=reason if isinstance(reason, str) else "",
        username=username if isinstance(username, str) else "",
        sent_unix_s=sent_unix_s,
    )


def _whom_to_tell(kwargs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The user endpoint and its queues. Raises CommandUnreadable."""
    queues = kwargs.get("amqp_creds")
    if not isinstance(queues, dict) or not _is_queue(queues.get("heartbeat_queue_info")):
        raise CommandUnreadable("it has no broker login for the user endpoint")
    user_endpoint_id = queues.get("endpoint_id")
    if not isinstance(user_endpoint_id, str) or not is_uuid_text(user_endpoint_id.lower()):
        raise CommandUnreadable("it does not say for which user endpoint it is")
    return user_endpoint_id.lower(), queues


def _fault(
    document: Mapping[str, Any], command: Any, kwargs: Mapping[str, Any], queues: Mapping[str, Any]
) -> str | None:
    """Why it cannot be carried out, for the submitter; None if it can."""
    if command != START:
        return f"The endpoint's manager does not know the command {str(command)[:100]!r}; is it older than the service?"
    name = kwargs.get("name")
    if not isinstance(name, str) or endpoint_name_fault(name) is not None:
        return "The service's request to start a user endpoint has no usable name; tell the service's operator."
    if not all(_is_queue(queues.get(each)) for each in _QUEUES):
        return "The service's request to start a user endpoint lacks some of its queues; tell the service's operator."
    if not all(isinstance(kwargs.get(each, {}) or {}, dict) for each in ("user_opts", "user_runtime")):
        return "The `user_endpoint_config` of a submission is not an object with names and values."
    identities = document.get("globus_identity_set")
    if (
        not isinstance(document.get("globus_effective_identity"), str)
        or not isinstance(document.get("globus_username"), str)
        or not isinstance(identities, list)
        or not identities
        or not all(isinstance(each, dict) for each in identities)
    ):
        return "The service's request to start a user endpoint does not say for whom; tell the service's operator."
    return None


def _is_queue(info: Any) -> bool:
    return isinstance(info, dict) and isinstance(info.get("connection_url"), str) and isinstance(info.get("queue"), str)
