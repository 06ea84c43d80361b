"""The line: one socket between a manager and each user endpoint it has started, and what may be said on it.

It is the only tie between the two. The manager puts `Order` and `Begin` on it before the process exists; the launcher
takes exactly the first, the agent that the launcher becomes takes the rest. Whoever reads the end of the line knows
that the other side is gone, however it died.

    manager -> launcher  Order                         what to become, and what to render
    manager -> agent     Begin, Credentials, Stop, CredentialCounts
    launcher -> manager  Failed, Rendered
    agent -> manager     Failed, State, AuditLine, CredentialRefused

A frame is four bytes of length (big-endian) and that many bytes of JSON: an object whose member `kind` names a class
of this module and whose others are its fields. Both ends are the same release, except for the moment of an upgrade:
unknown members are ignored, unknown kinds are refused.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final

from farcall.wire.errors import FarcallError

__all__ = [
    "FRAME_LIMIT_BYTES",
    "PHASES",
    "USER_FRAME_LIMIT_BYTES",
    "AuditLine",
    "Begin",
    "CredentialCounts",
    "CredentialRefused",
    "Credentials",
    "Failed",
    "Frames",
    "LineFault",
    "Message",
    "Order",
    "Rendered",
    "State",
    "Stop",
    "pack",
    "read_exactly_one",
    "unpack",
]

FRAME_LIMIT_BYTES: Final = 8 * 1024 * 1024
USER_FRAME_LIMIT_BYTES: Final = 2 * 1024 * 1024 + 65_536
"""Of what a user's process may say: `Rendered` with the longest output of a template (512 Ki characters)."""
PHASES: Final = ("starting", "online", "offline", "stopping")
_NUMBER_LIMIT: Final = 2.0**53
_TEXT_LIMITS_CHARS: Final = {
    ("failed", "step"): 64,
    ("failed", "text"): 8_192,
    ("failed", "detail"): 16_384,
    ("credential_refused", "reason"): 1_024,
    ("audit_line", "text"): 512,
}
"""Of what people read; what is longer is cut."""
_HEAD: Final = struct.Struct(">I")


class LineFault(FarcallError):
    """What came on the line makes no sense. The two ends are of different releases, or one is broken."""

    code = "LINE_FAULT"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The line between manager and user endpoint carried what cannot be read: {self.reason}."


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a launcher is to do. It carries no credential.

    Attributes:
        name: of the user endpoint's directory and log, `uep.<manager id>.<user endpoint id>`.
        user_endpoint_id: also the id that its broker login is for.
        manager_name: as its directory is called, for people.
        local_user: whom to become; None: stay who the manager is (without privilege).
        pam_service: ask PAM about the account, and keep a session open meanwhile; None: do not.
        allows_system_accounts: `local_user` may be an account of the system.
        base: directory of the user endpoint's directory; None: `.farcall` in the local user's home.
        template: text of the configuration template.
        template_dir: where its includes lie, read by the local user.
        schema: what the user's options must be like; None: anything.
        environment: variables of `user_environment.yaml`.
        user_options: the submitter's `user_endpoint_config`.
        user_runtime: what the submitter said of its Python.
        parent_config: the manager's own configuration, for the template.
        mapped_identity: `{"local": {uname, uid, gid, groups, gecos, shell, dir}, "globus": {"id"}}`; for the template.
        is_debug: verbose log.
    """

    name: str
    user_endpoint_id: str
    manager_name: str
    local_user: str | None
    template: str
    template_dir: str | None = None
    pam_service: str | None = None
    allows_system_accounts: bool = False
    base: str | None = None
    schema: Any = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user_options: Mapping[str, Any] = field(default_factory=dict)
    user_runtime: Mapping[str, Any] = field(default_factory=dict)
    parent_config: Mapping[str, Any] = field(default_factory=dict)
    mapped_identity: Mapping[str, Any] = field(default_factory=dict)
    is_debug: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """What an agent needs to work, besides its configuration, which the launcher gives it.

    Attributes:
        queues: the broker login and queues: members of a registration's answer (`task_queue_info`, …).
        allowed_functions: ids that may run, from the manager's configuration; empty: those that the user endpoint's
            own configuration names, or all.
        authorities_pem: certificates that the broker's must come from; None: the system's.
        amqp_port: in place of that in the queues' addresses.
        is_audited: report every state of every task as `AuditLine`.
        is_encrypted: refuse a configuration that does not encrypt what goes to workers (high assurance).
    """

    user_endpoint_id: str
    queues: Mapping[str, Any]
    allowed_functions: tuple[str, ...] = ()
    authorities_pem: str | None = None
    amqp_port: int | None = None
    is_audited: bool = False
    is_encrypted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A newer broker login, of a start command that came while the user endpoint runs."""

    queues: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """End in order; `is_at_once`: without waiting for running tasks. `reason` is for the log."""

    reason: str
    is_at_once: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialRefused:
    """The broker refuses the login: does it still count? The agent has no login at the service, the manager has."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialCounts:
    """The answer. `why_not`: None if it counts all the same (try again), else what to tell people before the end."""

    why_not: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """It cannot start, or ends with an error.

    Attributes:
        step: where: `order`, `account`, `pam`, `privileges`, `environment`, `home`, `schema`, `template`, `exec` of the
            launcher; `config`, `setup`, `engine`, `run` of the agent.
        text: for the person who submitted; in words that they can act on, without what is only the site's business.
        status: the exit status that follows (sysexits; of a launcher, see there).
        detail: for the manager's log only: what was really refused, paths, a traceback.
    """

    step: str
    text: str
    status: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """The configuration that the template made, as the user endpoint will run it.

    Attributes:
        grace_s: seconds that running tasks get at its end, by this configuration: the manager, which may be root,
            parses nothing that comes from a user's process but these messages.
    """

    config: str
    grace_s: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How a user endpoint is, when it changes.

    Attributes:
        phase: one of PHASES; `offline`: without the broker.
        running, queued, executed: tasks.
        idle_until_unix: when it will end if nothing comes; None: not for that reason.
    """

    phase: str
    running: int = 0
    queued: int = 0
    executed: int = 0
    idle_until_unix: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLine:
    """A line for the manager's audit log, without time, `uid=`, `pid=` and `uep=`, which the manager puts before it."""

    text: str


Message = (
    Order | Begin | Credentials | Stop | CredentialRefused | CredentialCounts | Failed | Rendered | State | AuditLine
)
_KINDS: Final = {
    "order": Order,
    "begin": Begin,
    "credentials": Credentials,
    "stop": Stop,
    "credential_refused": CredentialRefused,
    "credential_counts": CredentialCounts,
    "failed": Failed,
    "rendered": Rendered,
    "state": State,
    "audit_line": AuditLine,
}
_NAMES: Final = {made: kind for kind, made in _KINDS.items()}


def pack(message: Message) -> bytes:
    """One frame. Raises LineFault if it is too long, or no JSON."""
    members = {each.name: getattr(message, each.name) for each in fields(message)}
    try:
        document = {"kind": _NAMES[type(message)], **members}
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    except (ValueError, TypeError, RecursionError) as exc:
        raise LineFault(f"no JSON ({exc})") from exc
    if len(body) > FRAME_LIMIT_BYTES:
        raise LineFault(f"a message of {len(body)} bytes, and the limit is {FRAME_LIMIT_BYTES}")
    return _HEAD.pack(len(body)) + body


def unpack(body: bytes) -> Message:
    """The message in a frame's body, each member of its declared type. Raises LineFault.

    The other side of a manager's line is a user's process: it may say anything, and harm nobody with it.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise LineFault(f"no JSON ({exc})") from exc
    kind = document.pop("kind", None) if isinstance(document, dict) else None
    made = _KINDS.get(kind) if isinstance(kind, str) else None
    if made is None:
        raise LineFault("a message of no known kind")
    try:
        message: Message = made(
            **{
                each.name: _member(each, document[each.name], _TEXT_LIMITS_CHARS.get((str(kind), each.name)))
                for each in fields(made)
                if each.name in document
            }
        )
    except TypeError as exc:
        raise LineFault(f"a message without all its members ({exc})") from exc
    if isinstance(message, State) and message.phase not in PHASES:
        raise LineFault("a state of no known phase")
    return message


def _member(declared: Field[Any], value: Any, limit_chars: int | None) -> Any:
    """The value as its annotation has it. Raises LineFault."""
    kinds = str(declared.type).split(" | ")
    if value is None and "None" in kinds:
        return None
    kind = kinds[0]
    if kind == "str" and isinstance(value, str):
        return value[:limit_chars].encode(errors="replace").decode()  # half characters, which no log can write
    if kind == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _NUMBER_LIMIT
    if (
        kind == "Any"
        or (kind == "bool" and isinstance(value, bool))
        or (kind == "int" and is_number and isinstance(value, int))
        or (kind == "float" and is_number)
        or (kind.startswith("Mapping[") and isinstance(value, dict))
    ):
        return value
    raise LineFault(f"a message whose {declared.name!r} is no {declared.type}")


class Frames:
    """Cuts what arrives into messages.

    Args:
        limit_bytes: of one frame; USER_FRAME_LIMIT_BYTES where a user's process speaks.
    """

    def __init__(self, *, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self._buffer = bytearray()
        self._limit_bytes = limit_bytes

    def take(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with these bytes. Raises LineFault."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            _check(length, self._limit_bytes)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield unpack(body)


def read_exactly_one(line: socket.socket) -> Message | None:
    """The next message of a blocking socket, and not a byte more: the rest is another program's. None: the line ended.

    Raises:
        LineFault: see there.
    """
    head = _read(line, _HEAD.size)
    if head is None:
        return None
    (length,) = _HEAD.unpack(head)
    _check(length, FRAME_LIMIT_BYTES)
    body = _read(line, length)
    return None if body is None else unpack(body)


def _read(line: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        more = line.recv(length - len(data))
        if not more:
            return None
        data += more
    return bytes(data)


def _check(length: int, limit_bytes: int) -> None:
    if length > limit_bytes:
        raise LineFault(f"a message of {length} bytes is announced, and the limit is {limit_bytes}")
