"""The conversation that opens a connection: greeting, login, limits, virtual host. Decides only.

we: start → client: start-ok → (login) → we: tune → client: tune-ok, open → we: open-ok
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pamqp import commands

from farcall.broker.errors import AmqpError, Reply

__all__ = ["Credentials", "Handshake", "Limits", "VIRTUAL_HOST"]

VIRTUAL_HOST: Final = "/"
_FRAME_MIN: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a client is offered, or what was agreed with it.

    Attributes:
        channel_max: the highest channel number.
        frame_max: bytes of a frame, its 8 bytes of frame included.
        heartbeat_s: seconds without traffic after which a sign of life is due; 0: none.
    """

    channel_max: int = 2047
    frame_max: int = 131_072
    heartbeat_s: int = 30


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Credentials:
    username: str
    password: str


class _Expects(Enum):
    START_OK = commands.Connection.StartOk
    LOGIN = None  # nothing: the client has to wait
    TUNE_OK = commands.Connection.TuneOk
    OPEN = commands.Connection.Open
    DONE = False


class Handshake:
    """One connection's opening.

    Attributes:
        agreed: after `tune_ok`.
        client_properties: what the client says of itself; empty before `start_ok`.
    """

    def __init__(self, offered: Limits) -> None:
        self.agreed = offered
        self.client_properties: Mapping[str, Any] = {}
        self._offered = offered
        self._expects = _Expects.START_OK

    @property
    def is_done(self) -> bool:
        return self._expects is _Expects.DONE

    def client_can(self, capability: str) -> bool:
        capabilities = self.client_properties.get("capabilities")
        return isinstance(capabilities, Mapping) and capabilities.get(capability) is True

    def start(self) -> Any:
        """The greeting."""
        return commands.Connection.Start(0, 9, _server_properties(), "PLAIN", "en_US")

    def start_ok(self, value: Any) -> Credentials:
        """Raises AmqpError: 503 out of turn, or for another mechanism; 502 if there are no credentials in it."""
        self._turn(value)
        if value.mechanism != "PLAIN":
            raise AmqpError(Reply.COMMAND_INVALID, f"unknown authentication mechanism '{value.mechanism}'; use PLAIN")
        self.client_properties = value.client_properties or {}
        response = value.response if isinstance(value.response, str) else ""
        parts = response.split("\0")
        if len(parts) != 3 or parts[0] not in ("", parts[1]):
            raise AmqpError(Reply.SYNTAX_ERROR, "illegal response for mechanism PLAIN")
        self._expects = _Expects.LOGIN
        return Credentials(username=parts[1], password=parts[2])

    def accepted(self) -> Any:
        """The login is good: our limits."""
        self._expects = _Expects.TUNE_OK
        offered = self._offered
        return commands.Connection.Tune(offered.channel_max, offered.frame_max, offered.heartbeat_s)

    def tune_ok(self, value: Any) -> None:
        """Raises AmqpError: 503 out of turn, 530 for limits beyond ours."""
        self._turn(value)
        _require_within("channel_max", value.channel_max, 1, self._offered.channel_max)
        _require_within("frame_max", value.frame_max, _FRAME_MIN, self._offered.frame_max)
        self.agreed = Limits(channel_max=value.channel_max, frame_max=value.frame_max, heartbeat_s=value.heartbeat)
        self._expects = _Expects.OPEN

    def open(self, value: Any) -> Any:
        """Raises AmqpError: 503 out of turn, 530 for an unknown virtual host."""
        self._turn(value)
        if value.virtual_host != VIRTUAL_HOST:
            raise AmqpError(Reply.NOT_ALLOWED, f"vhost {value.virtual_host} not found")
        self._expects = _Expects.DONE
        return commands.Connection.OpenOk()

    def _turn(self, value: Any) -> None:
        if type(value) is not self._expects.value:
            raise AmqpError(Reply.COMMAND_INVALID, f"{value.name} is out of turn")


def _require_within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise AmqpError(Reply.NOT_ALLOWED, f"negotiated {name} = {value} is not between {least} and {most}")


def _server_properties() -> dict[str, Any]:
    return {
        "product": "Farcall",
        "version": "1",
        "platform": "Python",
        "information": "AMQP 0-9-1 subset, in memory",
        "capabilities": {
            "publisher_confirms": True,
            "exchange_exchange_bindings": False,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": False,
            "consumer_priorities": False,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": False,
        },
    }
