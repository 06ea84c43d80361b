"""When a manager is told to start a user endpoint, and when that is given up. Decides only; `runner` does.

A start command goes out when tasks wait and nobody takes them, and now and then while somebody does: a user endpoint
that is just shutting down for idleness would otherwise miss the tasks that come in that moment (its manager
remembers the command and starts it again). Nothing is sent while the manager is away; when it comes back, every one
of its user endpoints with unfinished tasks is asked for again, since nobody else would.
Source: wire protocol, start commands, what the service must do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Command", "FailTasks", "Look", "SendStart", "Starts", "is_transient"]

KEEP_ALIVE_S: Final = 5.0
"""At most this often is a user endpoint that works asked for."""

FIRST_PATIENCE_S: Final = 10.0
"""How long a start may take before it is asked for again. A manager whose user endpoint is just starting takes a second
request for a keep-alive; one that had not noticed yet that the user endpoint died has only now reason to start it.
"""

PATIENCE_LIMIT_S: Final = 600.0
TRANSIENT_PAUSE_S: Final = 5.0
DEATH_LIMIT: Final = 5
"""So often may a user endpoint die with tasks unfinished, and none finished since it started, until they are failed."""

_TRANSIENT: Final = "Another instance of this endpoint is running"


def is_transient(text: str) -> bool:
    """Whether an error notice says something that passes by itself: an older process's PID file is still fresh."""
    return _TRANSIENT in text


@dataclass(frozen=True, slots=True)
class SendStart:
    """Publish a start command to the manager."""

    manager_id: str
    user_endpoint_id: str


@dataclass(frozen=True, slots=True)
class FailTasks:
    """End every unfinished task of the user endpoint, with this text for the user."""

    user_endpoint_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Look:
    """Find out which of the manager's user endpoints have unfinished tasks, then call `found`.

    Attributes:
        user_endpoint_id: only this one; None means all of the manager's.
    """

    manager_id: str
    user_endpoint_id: str | None = None


Command = SendStart | FailTasks | Look


@dataclass(slots=True)
class _User:
    """One user endpoint."""

    manager_id: str
    is_waited_for: bool = False
    is_attached: bool = False
    asked_at: float | None = None
    patience_s: float = FIRST_PATIENCE_S
    due_at: float | None = None
    deaths: int = 0
    last_words: str = ""  # what its manager said of the latest death
    is_death_told: bool = False  # by its manager, while it was still attached
    is_death_seen: bool = False  # by its detaching, and its manager has not told of it yet


@dataclass(slots=True)
class _Manager:
    is_attached: bool = False
    users: set[str] = field(default_factory=set)


class Starts:
    """All managers of this process. Times are Unix seconds or any clock that only goes forward."""

    def __init__(self) -> None:
        self._users: dict[str, _User] = {}
        self._managers: dict[str, _Manager] = {}

    @property
    def manager_ids(self) -> list[str]:
        """All that were heard of and not forgotten."""
        return list(self._managers)

    @property
    def due_at(self) -> float | None:
        """When `tick` wants to be called; None if nothing is waited for."""
        return min((user.due_at for user in self._users.values() if user.due_at is not None), default=None)

    def submitted(self, manager_id: str, user_endpoint_id: str, *, now: float) -> list[Command]:
        """Tasks for a user endpoint have been stored."""
        user = self._user(manager_id, user_endpoint_id)
        user.is_waited_for = True
        return self._ask(user_endpoint_id, user, now=now)

    def found(self, manager_id: str, user_endpoint_ids: Iterable[str], *, now: float) -> list[Command]:
        """These have unfinished tasks, as `Look` asked."""
        commands: list[Command] = []
        for user_endpoint_id in user_endpoint_ids:
            user = self._user(manager_id, user_endpoint_id)
            user.is_waited_for = True
            commands += self._ask(user_endpoint_id, user, now=now)
        return commands

    def attached(self, manager_id: str, user_endpoint_id: str) -> list[Command]:
        """The user endpoint consumes its queue."""
        user = self._user(manager_id, user_endpoint_id)
        user.is_attached, user.is_waited_for = True, False
        user.is_death_told = user.is_death_seen = False
        user.due_at, user.patience_s = None, FIRST_PATIENCE_S
        return []

    def detached(self, manager_id: str, user_endpoint_id: str) -> list[Command]:
        """It does so no longer: it has shut down, was killed, or lost its connection for a moment."""
        user = self._user(manager_id, user_endpoint_id)
        if not user.is_attached:
            return []
        user.is_attached = False
        user.asked_at = None  # it has had its start
        user.deaths += 1
        user.is_death_seen, user.is_death_told = not user.is_death_told, False
        return [Look(manager_id, user_endpoint_id)]

    def progressed(self, user_endpoint_id: str) -> None:
        """A task of it has ended: whatever made it die before is not in every task."""
        user = self._users.get(user_endpoint_id)
        if user is not None:
            user.deaths = 0

    def reported_error(
        self, manager_id: str, user_endpoint_id: str, text: str, *, is_final: bool | None = None, now: float
    ) -> list[Command]:
        """An error notice in the user endpoint's name: it could not be started, or ended by an error.

        Notices in a manager's own name are the caller's to drop (a failed start of one user says nothing of it).

        Args:
            is_final: whether another start is without hope; None: the notice does not say.
        """
        user = self._user(manager_id, user_endpoint_id)
        if is_transient(text):
            user.due_at = now + TRANSIENT_PAUSE_S
            return []
        if is_final is False:
            return self._died(user_endpoint_id, user, text)
        if user.is_attached and not is_final:
            return []  # another process of the same id failed, or this one is about to detach: then we look
        return self._give_up(user_endpoint_id, user, text)

    def _died(self, user_endpoint_id: str, user: _User, text: str) -> list[Command]:
        """Its process ended without a word. One that was attached also detaches, before or after: that is one death."""
        user.last_words = text
        if user.is_attached:
            user.is_death_told = True
            return []
        if user.is_death_seen:
            user.is_death_seen = False
            return []
        user.deaths += 1
        user.asked_at = user.due_at = None
        return [Look(user.manager_id, user_endpoint_id)]

    def manager_attached(self, manager_id: str) -> list[Command]:
        """The manager takes commands."""
        manager = self._managers.setdefault(manager_id, _Manager())
        manager.is_attached = True
        for user_endpoint_id in manager.users:
            self._users[user_endpoint_id].asked_at = None  # asked the one before
        return [Look(manager_id)]

    def manager_detached(self, manager_id: str) -> list[Command]:
        """It takes none."""
        manager = self._managers.setdefault(manager_id, _Manager())
        manager.is_attached = False
        for user_endpoint_id in manager.users:
            self._users[user_endpoint_id].due_at = None
        return []

    def forget(self, endpoint_id: str) -> None:
        """A manager or user endpoint was deleted."""
        manager = self._managers.pop(endpoint_id, None)
        for user_endpoint_id in manager.users if manager else ():
            self._users.pop(user_endpoint_id, None)
        user = self._users.pop(endpoint_id, None)
        if user is not None and user.manager_id in self._managers:
            self._managers[user.manager_id].users.discard(endpoint_id)

    def tick(self, *, now: float) -> list[Command]:
        """The time is `due_at` or later. What was asked for and has not come is looked at again."""
        commands: list[Command] = []
        for user_endpoint_id, user in self._users.items():
            if user.due_at is not None and now >= user.due_at:
                user.due_at = user.asked_at = None
                commands.append(Look(user.manager_id, user_endpoint_id))
        return commands

    def _ask(self, user_endpoint_id: str, user: _User, *, now: float) -> list[Command]:
        if not self._managers[user.manager_id].is_attached:
            return []
        if user.deaths >= DEATH_LIMIT and not user.is_attached:
            text = (
                f"The user endpoint {user_endpoint_id} ended {user.deaths} times in a row before it finished a task. "
                "Its log says why, at the endpoint; if a task ends its process (memory, os._exit), submit it alone."
                + (f" Its manager says of the last time: {user.last_words}" if user.last_words else "")
            )
            return self._give_up(user_endpoint_id, user, text)
        pause_s = KEEP_ALIVE_S if user.is_attached else user.patience_s
        if user.asked_at is not None and now < user.asked_at + pause_s:
            return []
        user.asked_at = now
        if not user.is_attached:
            user.due_at = now + user.patience_s
            user.patience_s = min(2 * user.patience_s, PATIENCE_LIMIT_S)
        return [SendStart(user.manager_id, user_endpoint_id)]

    def _give_up(self, user_endpoint_id: str, user: _User, text: str) -> list[Command]:
        user.is_waited_for = False
        user.asked_at = user.due_at = None
        user.deaths, user.patience_s, user.last_words = 0, FIRST_PATIENCE_S, ""
        return [FailTasks(user_endpoint_id, text)]

    def _user(self, manager_id: str, user_endpoint_id: str) -> _User:
        user = self._users.get(user_endpoint_id)
        if user is None:
            user = self._users[user_endpoint_id] = _User(manager_id)
            self._managers.setdefault(manager_id, _Manager()).users.add(user_endpoint_id)
        return user
