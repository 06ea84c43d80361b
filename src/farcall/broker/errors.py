"""Reply codes of AMQP 0-9-1 and the one exception that carries them.

Whether an error closes a channel or a connection belongs to its code. Raised by the core, turned into
`channel.close` / `connection.close` by `protocol`; callers in this process see the exception itself.
"""

from __future__ import annotations

from enum import Enum

from farcall.wire.errors import FarcallError

__all__ = ["AmqpError", "Reply"]


class Reply(Enum):
    """Reply code, and whether the whole connection is closed. Source: AMQP 0-9-1, section 1.2, and RabbitMQ 3.10
    (which closes only the channel for 403, except at login)."""

    NO_ROUTE = (312, False)
    CONNECTION_FORCED = (320, True)
    INVALID_PATH = (402, True)
    ACCESS_REFUSED = (403, False)
    NOT_FOUND = (404, False)
    RESOURCE_LOCKED = (405, False)
    PRECONDITION_FAILED = (406, False)
    FRAME_ERROR = (501, True)
    SYNTAX_ERROR = (502, True)
    COMMAND_INVALID = (503, True)
    CHANNEL_ERROR = (504, True)
    UNEXPECTED_FRAME = (505, True)
    RESOURCE_ERROR = (506, True)
    NOT_ALLOWED = (530, True)
    NOT_IMPLEMENTED = (540, True)
    INTERNAL_ERROR = (541, True)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def closes_connection(self) -> bool:
        return self.value[1]


class AmqpError(FarcallError):
    """An operation that the broker refuses, with the reply code a client is told.

    Args:
        reply: which standard error.
        detail: what happened, to which name; without the code, which `str()` puts in front.
        closes_connection: only where it differs from the code's own (403 at login).
    """

    code = "BROKER_REFUSED"

    def __init__(self, reply: Reply, detail: str, closes_connection: bool | None = None) -> None:
        super().__init__(reply, detail, closes_connection)
        self.reply = reply
        self.detail = detail
        self.closes_connection = reply.closes_connection if closes_connection is None else closes_connection

    def __str__(self) -> str:
        return f"{self.reply.name} - {self.detail}"
