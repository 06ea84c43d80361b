"""The set-ups that system tests, the chaos suite and benchmarks run in: what a service is told, what runs beside it.

embedded    nothing: SQLite, and the broker in the service
servers     a PostgreSQL and a RabbitMQ of their own
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from farcall.testing.processes import ServiceProcess
from postgres_server import PostgresServer, find_binaries, postgres_server
from rabbitmq_server import RabbitServer, find_program, rabbitmq_server

__all__ = ["NO_POSTGRES", "NO_RABBIT", "Servers", "missing_servers", "running_servers"]

NO_POSTGRES = "no PostgreSQL 15 or newer here (Debian: apt-get install postgresql; as root: scripts/ci-services.sh)"
NO_RABBIT = "no RabbitMQ here (Debian: apt-get install rabbitmq-server; as root: scripts/ci-services.sh)"


class Servers:
    """Both servers; for one system after the other."""

    def __init__(self, postgres: PostgresServer, rabbit: RabbitServer) -> None:
        self.postgres, self.rabbit = postgres, rabbit

    def environment(self) -> dict[str, str]:
        """For the service: an empty database, and a broker without queues."""
        self.rabbit.lead_to(None)
        self.rabbit.clear()
        return {"FARCALL_STORE": self.postgres.database(), **self.rabbit.environment}

    def serve(self, service: ServiceProcess) -> None:
        """RabbitMQ asks this service about logins."""
        self.rabbit.lead_to(service.port)

    def pids(self) -> dict[str, int]:
        """Of the servers' first processes, by role."""
        return {"postgresql": self.postgres.processes()[0].pid, "rabbitmq": self.rabbit.pid}


def missing_servers() -> str | None:
    """Why there can be none here; None if there can."""
    if find_binaries() is None:
        return NO_POSTGRES
    return NO_RABBIT if find_program() is None else None


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Both, until the end of the `with` statement; without them the test is skipped, or fails in CI."""
    with postgres_server() as postgres, rabbitmq_server() as rabbit:
        yield Servers(postgres, rabbit)
