"""Who may do what an operator does, and to whom. Decides only."""

from __future__ import annotations

from farcall.service.accounts.rules import Identity
from farcall.service.users.rules import Person
from farcall.wire.errors import Conflict, Forbidden

__all__ = ["check_not_oneself", "check_operator"]


def check_operator(caller: Identity) -> None:
    """Raises Forbidden."""
    if not caller.is_admin:
        raise Forbidden(
            f"Only an administrator of this service may see and do this; you are {caller.username}. "
            "(Operators: `farcall-service admin grant`.)"
        )


def check_not_oneself(caller: Identity, person: Person, what: str) -> None:
    """For what would lock out who does it. Raises Conflict.

    Args:
        what: completes "You cannot …".
    """
    if person.id in caller.linked or person.person_id == caller.person_id:
        raise Conflict(
            f"You cannot {what}: you are {caller.username}. Have another administrator do it, or use "
            "`farcall-service` on the service's machine."
        )
