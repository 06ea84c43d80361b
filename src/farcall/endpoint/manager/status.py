"""What a manager knows of its user endpoints, for people and scripts. Pure.

Numbers of nodes and workers are not among it: the agents report those to the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farcall.endpoint.manager.core import UserEndpoint

__all__ = ["status_document"]


def status_document(
    about: Mapping[str, Any], user_endpoints: Mapping[str, UserEndpoint], *, now_s: float, now_unix_s: float
) -> dict[str, Any]:
    """The answer to `status` on the manager's socket.

    Args:
        about: of the manager itself.
        now_s: monotonic, as in `UserEndpoint`; `now_unix_s`: the same moment.
    """
    return {
        "manager": dict(about),
        "user_endpoints": [_row(each, now_s, now_unix_s) for each in user_endpoints.values()],
    }


def _row(user: UserEndpoint, now_s: float, now_unix_s: float) -> dict[str, Any]:
    state = user.state
    return {
        "id": user.id,
        "name": user.request.name,
        "identity": user.request.username,
        "local_user": user.person.account if user.person is not None else None,
        "pid": user.pid,
        "state": _phase(user),
        "since_unix": now_unix_s - (now_s - user.launched_s) if user.is_launched else None,
        "running": state.running if state is not None else 0,
        "queued": state.queued if state is not None else 0,
        "executed": state.executed if state is not None else 0,
        "idle_until_unix": state.idle_until_unix if state is not None else None,
        "options": dict(user.request.options),
        "config": user.config,
    }


def _phase(user: UserEndpoint) -> str:
    if user.is_stopping:
        return "stopping"
    if user.state is not None:
        return user.state.phase
    return "starting"
