"""What a manager decides: who gets a user endpoint, when it is started again, and in which order all ends. Pure.

Events and the clock come in, commands go out; `runner` carries them out. Promises:

- there is at most one process for a user endpoint, from `Launch` to `Ended` or `LaunchFailed`;
- whoever asks for a user endpoint gets one, or is told why not, unless the manager itself is ending, or somebody has
  just stopped that user endpoint: then the service asks again, if it still wants it, when that is over;
- a user endpoint that cannot be started is told of with a text for the submitter; so is one that died, but then the
  service asks for it again as long as tasks wait (they are reconciled then), and counts how often that happens;
- nothing begins after `StopManager`, and `Finish` comes when nothing runs any more.

Source: wire protocol, start commands; feature table, multi-user manager.
"""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, Final

from farcall.endpoint.manager import texts
from farcall.endpoint.manager.commands import StartRequest, StopUserEndpoint, Unusable
from farcall.endpoint.manager.events import (
    Ask,
    AuditFailed,
    CleanUp,
    Command,
    CredentialAnswered,
    Ended,
    Event,
    Finish,
    Launch,
    Launched,
    LaunchFailed,
    LineEnded,
    Notice,
    Person,
    Received,
    Record,
    Resolve,
    Resolved,
    ResolveRefused,
    Said,
    Send,
    Signal,
    StopManager,
    Tick,
)
from farcall.endpoint.manager.line import (
    AuditLine,
    CredentialCounts,
    CredentialRefused,
    Credentials,
    Failed,
    Rendered,
    State,
    Stop,
)

__all__ = ["SKEW_LIMIT_S", "ManagerCore", "ManagerPolicy", "UserEndpoint"]

SKEW_LIMIT_S: Final = 180.0
"""Commands that were sent longer ago, or will be, are refused. Source: wire protocol, start commands."""

STOP_PATIENCE_S: Final = 20.0
"""How long a user endpoint may take to end, on top of what its running tasks get."""
GRACE_LIMIT_S: Final = 600.0
"""The longest time that a template may give to running tasks."""
AT_ONCE_PATIENCE_S: Final = 8.0
TERM_PATIENCE_S: Final = 8.0
LINE_PATIENCE_S: Final = 30.0
"""How long a process may go on without its line: a PAM session may have to be closed."""
QUESTION_GAP_S: Final = 5.0
"""Between the answer to a user endpoint's question about its login, and its next one to the service."""
STOPPED_MEMORY_S: Final = 3.0
"""The service may ask again for a user endpoint that was stopped, before it has heard of that."""


@dataclass(frozen=True, kw_only=True)
class ManagerPolicy:
    """What does not change while a manager runs.

    Attributes:
        own_identities: whose commands count; None: everybody's, since identities are mapped to local users.
        grace_s: how long a start request for what runs is remembered.
    """

    own_identities: frozenset[str] | None
    grace_s: float = 30.0
    max_user_endpoints: int | None = None
    max_user_endpoints_per_user: int | None = None


@dataclass(slots=True)
class UserEndpoint:
    """One user endpoint that is being started, runs, or is ending. Read by the runner for people's eyes.

    Attributes:
        request: the last one that it was started with, or told of.
        person: as whom it runs; None: not found out yet.
        pid: of its process; None: there is none yet.
        launched_s: when the process was begun.
        again: a start request that came while it ran; `is_again_kept`: although it is older than the grace period.
        grace_s: what its running tasks get at its end, as the launcher has said.
        is_asking: it wants to know whether its broker login counts; one question at a time, answered later if it asks
            too often: `question`, to be asked at `question_due_s`.
        next_question_s: not before.
        stop_text: somebody wants it to end: what those are told who wait for it; None: nobody.
    """

    request: StartRequest
    attempt: int
    person: Person | None = None
    is_launched: bool = False
    pid: int | None = None
    launched_s: float = 0.0
    has_been_online: bool = False
    state: State | None = None
    config: str | None = None
    grace_s: float = 10.0
    is_asking: bool = False
    question: str | None = None
    question_due_s: float | None = None
    next_question_s: float = 0.0
    failed: Failed | None = None
    again: StartRequest | None = None
    again_s: float = 0.0
    is_again_kept: bool = False
    stop_text: str | None = None
    next_signal: int | None = None
    signal_due_s: float | None = None

    @property
    def id(self) -> str:
        return self.request.user_endpoint_id

    @property
    def is_stopping(self) -> bool:
        return self.stop_text is not None or (self.state is not None and self.state.phase == "stopping")


class ManagerCore:
    """All user endpoints of one manager."""

    def __init__(self, policy: ManagerPolicy) -> None:
        self._policy = policy
        self._users: dict[str, UserEndpoint] = {}
        self._attempts = itertools.count(1)
        self._stopped: dict[str, float] = {}
        self._stopping: StopManager | None = None
        self._is_finished = False

    @property
    def user_endpoints(self) -> Mapping[str, UserEndpoint]:
        """Those that are being started, run, or are ending, by id."""
        return self._users

    @property
    def is_stopping(self) -> bool:
        return self._stopping is not None

    @property
    def due_at(self) -> float | None:
        """When `Tick` is wanted; None: not at all."""
        users = self._users.values()
        times = [time_s for each in users for time_s in (each.signal_due_s, each.question_due_s)]
        return min((each for each in times if each is not None), default=None)

    def handle(self, event: Event, *, now_s: float) -> list[Command]:
        """Take an event in. `now_s`: monotonic seconds."""
        commands = list(self._on(event, now_s))
        if self._stopping is not None and not self._users and not self._is_finished:
            self._is_finished = True
            commands.append(Finish())
        return commands

    @singledispatchmethod
    def _on(self, event: Any, now_s: float) -> Iterator[Command]:
        raise TypeError(f"not an event: {event!r}")

    # Commands that came in ---------------------------------------------------------------------------------------

    @_on.register
    def _received(self, event: Received, now_s: float) -> Iterator[Command]:
        command = event.command
        if self._stopping is not None:
            return  # the service asks again when a manager is back
        if isinstance(command, Unusable):
            yield Notice(user_endpoint_id=command.user_endpoint_id, queues=command.queues, text=command.text)
            return
        skew_s = event.at_unix_s - command.sent_unix_s
        is_skewed = abs(skew_s) > SKEW_LIMIT_S
        if isinstance(command, StopUserEndpoint):
            if not is_skewed:
                yield from self._stop_user_endpoint(command, now_s)
        elif is_skewed:
            yield _notice(command, texts.skewed(skew_s, SKEW_LIMIT_S))
        elif not self._trusts(command):
            yield _notice(command, texts.untrusted(command.username))
        else:
            yield from self._wanted(command, now_s)

    def _trusts(self, request: StartRequest) -> bool:
        own = self._policy.own_identities
        return own is None or any(each.get("sub") in own for each in request.identity_set)

    def _wanted(self, request: StartRequest, now_s: float) -> Iterator[Command]:
        user = self._users.get(request.user_endpoint_id)
        if user is None:
            stopped_s = self._stopped.get(request.user_endpoint_id)
            if stopped_s is None or now_s - stopped_s > STOPPED_MEMORY_S:
                yield from self._begin(request)
        elif not user.is_launched:
            user.request = request  # with its credentials it will be launched
        elif user.stop_text is None:
            user.again, user.again_s, user.is_again_kept = request, now_s, user.is_stopping
            yield Send(user_endpoint_id=user.id, message=Credentials(queues=request.queues))

    def _begin(self, request: StartRequest) -> Iterator[Command]:
        self._stopped.pop(request.user_endpoint_id, None)
        limit = self._policy.max_user_endpoints
        if limit is not None and len(self._users) >= limit:
            yield _notice(request, texts.too_many(limit))
            return
        user = UserEndpoint(request=request, attempt=next(self._attempts))
        self._users[user.id] = user
        yield Resolve(request=request, attempt=user.attempt)

    def _stop_user_endpoint(self, command: StopUserEndpoint, now_s: float) -> Iterator[Command]:
        user = next((each for each in self._users.values() if command.which in (each.id, each.request.name)), None)
        if user is None or user.stop_text is not None:
            return
        user.stop_text = texts.stopped(user.id, command)
        if user.is_launched:
            yield from self._end(user, command.reason or "somebody stopped it", now_s, is_at_once=False)
        else:
            del self._users[user.id]
            yield self._told_stopped(user, user.stop_text, now_s)

    def _told_stopped(self, user: UserEndpoint, text: str, now_s: float) -> Notice:
        self._stopped = {each: at_s for each, at_s in self._stopped.items() if now_s - at_s <= STOPPED_MEMORY_S}
        self._stopped[user.id] = now_s
        return _notice(user.again or user.request, text)

    # Starting ----------------------------------------------------------------------------------------------------

    @_on.register
    def _resolved(self, event: Resolved, now_s: float) -> Iterator[Command]:
        user = self._waiting(event.user_endpoint_id, event.attempt)
        if user is None:
            return
        limit = self._policy.max_user_endpoints_per_user
        counts = Counter(each.person.key for each in self._users.values() if each.person is not None)
        if limit is not None and counts[event.person.key] >= limit:
            del self._users[user.id]
            yield _notice(user.request, texts.too_many_of_one(limit))
            return
        user.person, user.is_launched, user.launched_s = event.person, True, now_s
        yield Launch(request=user.request, person=event.person)

    @_on.register
    def _resolve_refused(self, event: ResolveRefused, now_s: float) -> Iterator[Command]:
        del now_s
        user = self._waiting(event.user_endpoint_id, event.attempt)
        if user is not None:
            del self._users[user.id]
            yield _notice(user.request, event.text)

    def _waiting(self, user_endpoint_id: str, attempt: int) -> UserEndpoint | None:
        user = self._users.get(user_endpoint_id)
        return user if user is not None and user.attempt == attempt and not user.is_launched else None

    @_on.register
    def _launched(self, event: Launched, now_s: float) -> Iterator[Command]:
        del now_s
        self._users[event.user_endpoint_id].pid = event.pid
        yield from ()

    @_on.register
    def _launch_failed(self, event: LaunchFailed, now_s: float) -> Iterator[Command]:
        del now_s
        user = self._users.pop(event.user_endpoint_id)
        if self._stopping is None:
            yield _notice(user.request, event.text)

    # What user endpoints say -------------------------------------------------------------------------------------

    @_on.register
    def _said(self, event: Said, now_s: float) -> Iterator[Command]:
        user = self._users.get(event.user_endpoint_id)
        if user is None:
            return
        message = event.message
        if isinstance(message, Rendered):
            user.config, user.grace_s = message.config, min(max(message.grace_s, 0.0), GRACE_LIMIT_S)
        elif isinstance(message, State):
            user.state = message
            user.has_been_online = user.has_been_online or message.phase == "online"
        elif isinstance(message, Failed):
            user.failed = message
        elif isinstance(message, AuditLine) and user.person is not None:
            yield Record(user_endpoint_id=user.id, uid=user.person.uid, pid=user.pid or 0, text=message.text)
        elif isinstance(message, CredentialRefused) and not user.is_asking:
            user.is_asking = True
            if now_s >= user.next_question_s:
                yield _question(user, message.reason)
            else:
                user.question, user.question_due_s = message.reason, user.next_question_s

    @_on.register
    def _credential_answered(self, event: CredentialAnswered, now_s: float) -> Iterator[Command]:
        user = self._users.get(event.user_endpoint_id)
        if user is not None:
            user.is_asking, user.next_question_s = False, now_s + QUESTION_GAP_S
            yield Send(user_endpoint_id=event.user_endpoint_id, message=CredentialCounts(why_not=event.why_not))

    @_on.register
    def _line_ended(self, event: LineEnded, now_s: float) -> Iterator[Command]:
        user = self._users.get(event.user_endpoint_id)
        if user is not None and user.next_signal is None:
            user.next_signal, user.signal_due_s = signal.SIGTERM, now_s + LINE_PATIENCE_S
        yield from ()

    @_on.register
    def _ended(self, event: Ended, now_s: float) -> Iterator[Command]:
        user = self._users.pop(event.user_endpoint_id)
        yield CleanUp(user_endpoint_id=user.id, pid=user.pid or 0)
        if self._stopping is not None:
            return
        latest = user.again or user.request
        if user.stop_text is not None:
            yield self._told_stopped(user, user.stop_text, now_s)
        elif user.failed is not None:
            yield _notice(latest, user.failed.text, is_final=not user.has_been_online)
        elif event.status != 0:
            text = texts.ended(user.id, event.status, has_been_online=user.has_been_online)
            yield _notice(latest, text, is_final=False)
        elif user.again is not None and (user.is_again_kept or now_s - user.again_s <= self._policy.grace_s):
            yield from self._begin(user.again)

    # Ending ------------------------------------------------------------------------------------------------------

    @_on.register
    def _stop_manager(self, event: StopManager, now_s: float) -> Iterator[Command]:
        if self._stopping is not None and not event.is_at_once:
            return
        self._stopping = event
        for user in list(self._users.values()):
            if not user.is_launched:
                del self._users[user.id]
            else:
                yield from self._end(user, event.reason, now_s, is_at_once=event.is_at_once)

    @_on.register
    def _audit_failed(self, event: AuditFailed, now_s: float) -> Iterator[Command]:
        yield from self._stop_manager(StopManager(reason=event.text, is_at_once=True), now_s)

    def _end(self, user: UserEndpoint, reason: str, now_s: float, *, is_at_once: bool) -> Iterator[Command]:
        patience_s = AT_ONCE_PATIENCE_S if is_at_once else STOP_PATIENCE_S + user.grace_s
        due_s = now_s + patience_s
        if user.next_signal is None or (user.signal_due_s is not None and due_s < user.signal_due_s):
            user.next_signal, user.signal_due_s = user.next_signal or signal.SIGTERM, due_s
        yield Send(user_endpoint_id=user.id, message=Stop(reason=reason, is_at_once=is_at_once))

    @_on.register
    def _tick(self, event: Tick, now_s: float) -> Iterator[Command]:
        del event
        for user in self._users.values():
            if user.question is not None and user.question_due_s is not None and now_s >= user.question_due_s:
                yield _question(user, user.question)
                user.question = user.question_due_s = None
            if user.signal_due_s is None or now_s < user.signal_due_s or user.next_signal is None:
                continue
            yield Signal(user_endpoint_id=user.id, number=user.next_signal)
            user.next_signal, user.signal_due_s = signal.SIGKILL, now_s + TERM_PATIENCE_S


def _question(user: UserEndpoint, reason: str) -> Ask:
    return Ask(user_endpoint_id=user.id, queues=(user.again or user.request).queues, reason=reason)


def _notice(request: StartRequest, text: str, *, is_final: bool = True) -> Notice:
    return Notice(user_endpoint_id=request.user_endpoint_id, queues=request.queues, text=text, is_final=is_final)
