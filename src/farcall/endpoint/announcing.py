"""Who is told how an endpoint's run goes, and the statuses that it ends with; for endpoints of both kinds."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["Announcer", "ExitStatus", "Quiet"]


class ExitStatus:
    """How `farcall-endpoint start` ends. Source: sysexits, as the ecosystem's command uses them."""

    OK: Final = 0
    DATA: Final = 65
    UNAVAILABLE: Final = 69
    SOFTWARE: Final = 70
    CANNOT_CREATE: Final = 73
    IO: Final = 74
    TEMPORARY: Final = 75
    NO_PERMISSION: Final = 77
    CONFIG: Final = 78


class Announcer(Protocol):
    """Who is told what happens. Called by the thread that runs the endpoint (`waiting`: by a helper of it)."""

    def notice(self, text: str) -> None:
        """Something about the configuration that the person who starts it should know."""

    def waiting(self, text: str) -> None:
        """Nothing happens until something outside changes."""

    def registered(self, endpoint_id: str) -> None: ...

    def connecting(self) -> None:
        """The engine runs; tasks come as soon as the broker answers."""

    def online(self) -> None:
        """Tasks can come, for the first time."""

    def failed(self, text: str) -> None:
        """It ends, or does not start, for this reason."""


class Quiet:
    """An announcer that tells nobody."""

    def notice(self, text: str) -> None: ...

    def waiting(self, text: str) -> None: ...

    def registered(self, endpoint_id: str) -> None: ...

    def connecting(self) -> None: ...

    def online(self) -> None: ...

    def failed(self, text: str) -> None: ...
