"""What one process does of what a service does, and what it needs for that. Decides only."""

from __future__ import annotations

from dataclasses import dataclass

from farcall.service.settings import ServiceSettings
from farcall.wire.errors import FarcallError

__all__ = ["Part", "RoleNeedsServers", "part_of"]

_OF_RELAYS = frozenset({"/healthz", "/readyz", "/metrics", "/v2/version", "/v3/service"})
_OF_CONSOLES = (
    *("/login", "/logout", "/account", "/device", "/static/", "/v2/oauth2/authorize", "/v2/web/"),
    *("/.well-known/", "/jwk.json"),
)
"""What the browser of somebody who logs in to the console asks for besides the console's own pages."""


class RoleNeedsServers(FarcallError):
    """A role that is for one of several processes, and a store or a broker that is of one process alone."""

    code = "ROLE_NEEDS_SERVERS"

    def __init__(self, role: str, missing: str) -> None:
        super().__init__(role, missing)
        self.role = role
        self.missing = missing

    def __str__(self) -> str:
        return (
            f"A process with --role {self.role} works beside others, which takes servers that all of them reach. "
            f"Missing: {self.missing}. Without --role, one process does everything."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What a process does.

    Attributes:
        serves: it answers the whole of HTTP, not only questions about itself.
        feeds: it gives tasks to endpoints and takes results in.
        has_others: other processes may use the same store and broker.
        shows: it has the web console, if that can be had here.
        is_console: nobody but browsers is answered; the rest of HTTP is there for the console in this process.
    """

    serves: bool
    feeds: bool
    has_others: bool
    shows: bool = False
    is_console: bool = False

    def answers(self, path: str) -> bool:
        """Whether it has this route."""
        return self.serves or path in _OF_RELAYS

    def answers_outside(self, path: str) -> bool:
        """Whether somebody who is not in this process is answered at this path; the console's own pages apart."""
        return not self.is_console or path in _OF_RELAYS or path.startswith(_OF_CONSOLES)


def part_of(settings: ServiceSettings) -> Part:
    """What these settings make of a process.

    Raises:
        RoleNeedsServers: see there.
    """
    has_server = settings.store_url.startswith(("postgresql://", "postgres://"))
    missing = [] if has_server else ["PostgreSQL (--store postgresql://…)"]
    missing += [] if settings.broker else ["RabbitMQ (--broker amqp://…)"]
    if settings.role != "all" and missing:
        raise RoleNeedsServers(settings.role, " and ".join(missing))
    return Part(
        serves=settings.role != "relay",
        feeds=settings.role in ("all", "relay"),
        has_others=not missing,
        shows=settings.role == "console" or (settings.role == "all" and settings.console),
        is_console=settings.role == "console",
    )
