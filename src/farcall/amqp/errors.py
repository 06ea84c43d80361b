"""What `farcall.amqp` raises. Library errors are turned into these, or into events, at the adapter."""

from __future__ import annotations

from farcall.wire.errors import FarcallError

__all__ = ["AmqpError", "ConnectionEnded", "UsedAfterFork"]


class AmqpError(FarcallError):
    """Base of the errors of this part."""

    code = "AMQP_ERROR"


class ConnectionEnded(AmqpError):
    """The connection was closed, or its credential was refused; it will not come back. Make a new one."""

    code = "AMQP_CONNECTION_ENDED"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"The broker connection {self.name!r} has ended ({self.reason}). Make a new AmqpConnection."


class UsedAfterFork(AmqpError):
    """A forked child used its parent's connection. Its thread exists only in the parent."""

    code = "AMQP_USED_AFTER_FORK"

    def __init__(self, name: str, parent_pid: int, child_pid: int) -> None:
        super().__init__(name, parent_pid, child_pid)
        self.name = name
        self.parent_pid = parent_pid
        self.child_pid = child_pid

    def __str__(self) -> str:
        return (
            f"The broker connection {self.name!r} belongs to process {self.parent_pid} and cannot be used in "
            f"its forked child {self.child_pid}. Make a new AmqpConnection there, or use the 'spawn' start method."
        )
