"""SQL of stopping user endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import actor_of
from farcall.service.audit.store import record
from farcall.service.endpoints import rules
from farcall.service.endpoints.store import read_endpoint
from farcall.service.managers.commands import Submitter, knows_stop
from farcall.service.managers.store import submitter_of
from farcall.wire.errors import Conflict

__all__ = ["ToStop", "plan_stop"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToStop:
    """A user endpoint that may be stopped. `by`: who wants that, as its manager is told."""

    user_endpoint_id: str
    manager_id: str
    by: Submitter


def plan_stop(
    conn: Connection, endpoint_id: str, caller: Identity, reason: str | None, now: float, address: str | None
) -> ToStop:
    """Whether the caller may stop a user endpoint, and whether its manager can; recorded for audit if so.

    Raises:
        EndpointNotFound, EndpointAccessForbidden, Conflict: see `rules.check_stop_user_endpoint`.
        Conflict: its manager does not know that command.
    """
    found = read_endpoint(conn, endpoint_id)
    rights = None if found is None else found.rights
    manager = None if rights is None or rights.manager_id is None else read_endpoint(conn, rights.manager_id)
    rights = rules.check_stop_user_endpoint(rights, endpoint_id, caller, None if manager is None else manager.rights)
    assert manager is not None
    if not knows_stop(manager.metadata):
        version = manager.metadata.get("endpoint_version")
        name = f"{manager.rights.name} ({manager.rights.id}{f', version {version}' if version else ''})"
        raise Conflict(
            f"The manager {name} does not know how to stop one of its user endpoints. Its administrator can end the "
            f"process of {endpoint_id} on its machine (its process id is in the console), or stop the whole manager. "
            "Cancel tasks to end them; idle user endpoints end by themselves."
        )
    detail = {"manager_id": manager.rights.id, "user_id": rights.owner_id, "reason": reason}
    record(conn, actor_of(caller, address), "endpoint.stop-user", "endpoint", endpoint_id, at=now, detail=detail)
    return ToStop(user_endpoint_id=endpoint_id, manager_id=manager.rights.id, by=submitter_of(conn, caller.id))
