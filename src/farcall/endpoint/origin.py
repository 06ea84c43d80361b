"""Where the configuration and the queues of one run come from.

An endpoint that a person starts reads its `config.yaml` and registers with the service (`registered.Registered`); a
user endpoint is given both by its manager (`handed.Handed`) and has no login at the service. `process` runs either.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from farcall.endpoint.auditlog import AuditEntry
from farcall.tls import Trust
from farcall.wire.errors import FarcallError
from farcall.wire.rest import RegistrationResponse

if TYPE_CHECKING:
    from farcall.endpoint.config import LoadedConfig

__all__ = ["AuditSink", "Origin", "QueuesRefused", "usable_amqp_port"]

PROBE_S: Final = 4.0


class QueuesRefused(FarcallError):
    """Nobody gives this endpoint queues. `status`: the exit status that supervisors rely on."""

    code = "QUEUES_REFUSED"

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, status)
        self.text = text
        self.status = status

    def __str__(self) -> str:
        return self.text


class AuditSink(Protocol):
    """Where the states of tasks are recorded."""

    def write(self, entries: Iterable[AuditEntry]) -> None:
        """Record, and return when nothing can be lost any more.

        Raises:
            AuditLogUnwritable: it was not recorded, so nothing may happen.
        """


class Origin(Protocol):
    """See above. `load` is called first, then `queues`, each once."""

    @property
    def broker_name(self) -> str:
        """For people: `the message broker of http://…`."""

    @property
    def trust(self) -> Trust:
        """Whose certificates the broker may have; after `load`."""

    def load(self) -> LoadedConfig:
        """The configuration.

        Raises:
            ConfigInvalid: it cannot be used.
            CaFileUnusable: the authorities that it names cannot.
        """

    def queues(
        self, loaded: LoadedConfig, *, cancelled: threading.Event, on_waiting: Callable[[str], None]
    ) -> RegistrationResponse | None:
        """Where tasks come from; may take as long as somebody does not answer. None: it was cancelled.

        Raises:
            QueuesRefused: somebody said no.
            RegistrationUnreadable: `endpoint.json` makes no sense.
        """

    def newest(self) -> RegistrationResponse:
        """The queues with the newest login; after `queues`."""

    def why_refused(self, used: RegistrationResponse, reason: str) -> str | None:
        """Asked in a thread when the broker refuses the login of `used`.

        Returns:
            A sentence for people, or None if it is to be tried again with `newest()`.
        """

    def is_audited(self, loaded: LoadedConfig) -> bool:
        """Whether every state of every task is recorded."""

    def audit(self, loaded: LoadedConfig, endpoint_id: str) -> contextlib.AbstractContextManager[AuditSink | None]:
        """Where; for as long as the endpoint works. Raises AuditLogUnwritable."""


def usable_amqp_port(url: str, configured: int | None) -> tuple[int | None, str | None]:
    """Which port to use in place of the URL's own, and a notice if that is not the configured one.

    Files written for other services name their ports (443): where nobody listens there, the service's own is used.
    """
    parts = urlsplit(url)
    usual = 5671 if parts.scheme == "amqps" else 5672
    if configured is None or configured == (parts.port or usual) or parts.hostname is None:
        return None, None
    if _is_listening(parts.hostname, configured) or not _is_listening(parts.hostname, parts.port or usual):
        return configured, None
    own = parts.port or usual
    return None, f"`amqp_port: {configured}` has no effect: {parts.hostname} does not listen there; {own} is used."


def _is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PROBE_S).close()
    except OSError:
        return False
    return True
