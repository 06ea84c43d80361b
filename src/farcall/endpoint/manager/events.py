"""What happens to a manager, and what it is to do: the values between `core`, which decides, and `runner`, which does.

Times of events are the runner's monotonic clock, given beside them, but for those of commands, which are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farcall.endpoint.manager.commands import StartRequest, StopUserEndpoint, Unusable
from farcall.endpoint.manager.line import Message

__all__ = [
    "Ask",
    "AuditFailed",
    "CleanUp",
    "Command",
    "CredentialAnswered",
    "Ended",
    "Event",
    "Finish",
    "Launch",
    "LaunchFailed",
    "Launched",
    "LineEnded",
    "Notice",
    "Person",
    "Received",
    "Record",
    "Resolve",
    "ResolveRefused",
    "Resolved",
    "Said",
    "Send",
    "Signal",
    "StopManager",
    "Tick",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """As whom a user endpoint runs.

    Attributes:
        key: what the bound per user counts: the local user, or without mapping the identity.
        local_user: whom to become; None: nobody else.
        account: the name of the local account, for people.
        uid: its number.
        mapped_identity: for the template, see `line.Order`.
    """

    key: str
    local_user: str | None
    account: str
    uid: int
    mapped_identity: Mapping[str, Any] = field(default_factory=dict, repr=False)


# Events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A command has come on the queue, or from this machine. `at_unix_s`: when, by this machine's clock."""

    command: StartRequest | StopUserEndpoint | Unusable
    at_unix_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The answer to `Resolve`."""

    user_endpoint_id: str
    attempt: int
    person: Person


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolveRefused:
    """The answer to `Resolve`: nobody. `text` is for the submitter."""

    user_endpoint_id: str
    attempt: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """The answer to `Launch`: a process has begun."""

    user_endpoint_id: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchFailed:
    """The answer to `Launch`: none could be begun. `text` is for the submitter."""

    user_endpoint_id: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A user endpoint, or its launcher, has said something on its line."""

    user_endpoint_id: str
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class LineEnded:
    """Its line has ended, or carries nonsense; the process is there until `Ended`."""

    user_endpoint_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Its process has ended: exit status, or minus the signal's number."""

    user_endpoint_id: str
    status: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialAnswered:
    """The answer to `Ask`. `why_not`: as in `line.CredentialCounts`."""

    user_endpoint_id: str
    why_not: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditFailed:
    """The audit log cannot be written: nothing may run."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StopManager:
    """End, and all user endpoints before. `is_at_once`: without waiting for running tasks."""

    reason: str
    is_at_once: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """The time is `due_at` or later."""


Event = (
    Received
    | Resolved
    | ResolveRefused
    | Launched
    | LaunchFailed
    | Said
    | LineEnded
    | Ended
    | CredentialAnswered
    | AuditFailed
    | StopManager
    | Tick
)

# Commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolve:
    """Find out as whom this runs. Exactly one `Resolved` or `ResolveRefused` with this attempt follows."""

    request: StartRequest
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Begin a process. Exactly one `Launched` or `LaunchFailed` follows, and after the former one `Ended`."""

    request: StartRequest
    person: Person


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """Put this on the user endpoint's line, if there is one still."""

    user_endpoint_id: str
    message: Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """Send its process a signal, if it is there still."""

    user_endpoint_id: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanUp:
    """The user endpoint's process has ended: end whatever it left."""

    user_endpoint_id: str
    pid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Tell the service, in the user endpoint's name, that it could not be started, or was lost.

    Attributes:
        is_final: another start is without hope, and what waits for it fails; else the service asks for it again.
    """

    user_endpoint_id: str
    queues: Mapping[str, Any] = field(repr=False)
    text: str
    is_final: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """Ask the service whether the user endpoint's broker login counts. `CredentialAnswered` follows."""

    user_endpoint_id: str
    queues: Mapping[str, Any] = field(repr=False)
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Write a line into the audit log."""

    user_endpoint_id: str
    uid: int
    pid: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """Nothing runs any more, and nothing is to be done: end."""


Command = Resolve | Launch | Send | Signal | CleanUp | Notice | Ask | Record | Finish
