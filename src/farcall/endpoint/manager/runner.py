"""Carries out what `core` decides: one loop, in the thread that calls `run`, over the lines of the user endpoints,
their ends, the socket on this machine, and whatever other threads put into its inbox.

Everything that may take its time happens in helper threads: whom an identity becomes, questions to the service, ending
what a user endpoint left behind. The broker's threads only put on.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial, singledispatchmethod
from typing import Any, Final

from farcall.amqp import Delivery
from farcall.endpoint.auditlog import AuditLog, AuditLogUnwritable
from farcall.endpoint.manager import texts
from farcall.endpoint.manager.allowance import Allowance
from farcall.endpoint.manager.commands import (
    CommandUnreadable,
    StartRequest,
    StopUserEndpoint,
    parse_command,
)
from farcall.endpoint.manager.config import Blueprint
from farcall.endpoint.manager.control import ControlServer, Reply
from farcall.endpoint.manager.core import ManagerCore
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
from farcall.endpoint.manager.helpers import Helpers
from farcall.endpoint.manager.leftovers import end_adopted, end_leftovers, reap
from farcall.endpoint.manager.line import USER_FRAME_LIMIT_BYTES, Begin, Failed, Frames, LineFault, Order
from farcall.endpoint.manager.links import ManagerLinks, Notices
from farcall.endpoint.manager.resolve import NotResolved
from farcall.endpoint.manager.spawn import Child, end, spawn
from farcall.endpoint.manager.status import status_document
from farcall.wire.errors import FarcallError

__all__ = ["ManagerEnd", "ManagerRunner", "Site"]

_log = logging.getLogger(__name__)

FLUSH_S: Final = 10.0
"""How long the last heartbeat may take. Source: wire protocol, endpoint life."""
NOTICES_S: Final = 5.0
LEFTOVER_GRACE_S: Final = 2.0
FAILURES_LOGGED: Final = 3
"""Of one process: a launcher tells one, an agent one; whoever says more would wash the log away."""
LAST_PIECES: Final = 64
"""Of 64 KiB: more than a socket holds."""


class ManagerEnd(Enum):
    """Why a manager's run ended."""

    REQUESTED = "requested"
    REPLACED = "replaced"
    AUDIT = "audit"


@dataclass(frozen=True, kw_only=True)
class Site:
    """What surrounds a manager, as functions: real ones, or doubles in tests.

    Attributes:
        resolve: whom a request runs as, and what it is made of; raises NotResolved. Called by helper threads.
        order: what a launcher is told.
        begin: what an agent is told.
        ask: why the broker login of a user endpoint does not count; None if it does: `why_credential_refused`.
            Called by helper threads; takes the id, the broker's words and its address with the login.
        spawn: begins a process.
    """

    resolve: Callable[[StartRequest], tuple[Person, Blueprint]]
    order: Callable[[StartRequest, Person, Blueprint], Order]
    begin: Callable[[StartRequest], Begin]
    ask: Callable[[str, str, str], str | None]
    spawn: Callable[[Order, Begin], Child] = spawn


class ManagerRunner:
    """One run. `run` blocks, in the main thread (see `spawn.spawn`); `stop` from any thread or signal handler.

    Args:
        about: what `status` shows of the manager itself.
        why_refused: asked, in a helper thread, if the broker refuses the manager's own login.
        control: makes the socket on this machine; None: there is none.
    """

    def __init__(
        self,
        core: ManagerCore,
        site: Site,
        *,
        links: ManagerLinks,
        notices: Notices,
        heartbeat_period_s: float,
        why_refused: Callable[[str], str | None],
        on_connection: Callable[[bool], None],
        audit_log: AuditLog | None = None,
        control: Callable[..., ControlServer] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._core = core
        self._site = site
        self._links = links
        self._notices = notices
        self._period_s = heartbeat_period_s
        self._why_refused = why_refused
        self._on_connection = on_connection
        self._audit_log = audit_log
        self._about = dict(about or {})
        self._inbox: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        for each in (self._woken, self._waker):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain_wakes)
        self._control = None if control is None else control(self._selector, self._on_question)
        self._children: dict[str, _Held] = {}
        self._starting = threading.Lock()
        """Held from the moment that a process exists until `_children` has it, since whoever looks for leftovers must
        not take it for one; and while statuses are taken, since ids that were just looked up are then others'."""
        self._blueprints: dict[str, Blueprint] = {}
        self._helpers = Helpers("farcall-manager")
        self._askers = Helpers("farcall-manager-ask")  # questions wait as long as the service does not answer
        self._stop_replies: dict[str, list[Reply]] = {}
        self._unrecorded: list[Record] = []
        """Of the piece that is being read: all of one user endpoint, put on disk together."""
        self._beat_due_s: float | None = None
        self._is_connected = self._is_finished = False
        self._end = ManagerEnd.REQUESTED
        self.end_text = ""

    def stop(self, *, at_once: bool = False) -> None:
        """End in order; `at_once`: without waiting for running tasks."""
        self._put(StopManager(reason="the manager was stopped", is_at_once=at_once))

    def run(self) -> ManagerEnd:
        """Work until the end. Nothing of any user endpoint is left then."""
        self._links.start(
            on_commands=lambda deliveries: self._soon(partial(self._take, deliveries)),
            on_online=lambda: self._soon(partial(self._set_connected, True)),
            on_offline=lambda: self._soon(partial(self._set_connected, False)),
            on_refused=lambda reason: self._soon(partial(self._login_refused, reason)),
        )
        try:
            with self._told_of_ended_orphans():
                while not self._is_finished:
                    self._turn()
                self._leave()
        finally:
            self._close()
        return self._end

    # The loop ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        for key, mask in self._selector.select(self._patience_s()):
            key.data(mask)
        while self._inbox:
            self._inbox.popleft()()
        now_s = time.monotonic()
        due_s = self._core.due_at
        if due_s is not None and now_s >= due_s:
            self._handle(Tick())
        if self._beat_due_s is not None and now_s >= self._beat_due_s:
            self._beat()

    def _patience_s(self) -> float | None:
        if self._inbox:
            return 0.0
        due = [each for each in (self._core.due_at, self._beat_due_s) if each is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _soon(self, work: Callable[[], None]) -> None:
        """Have the loop do this. From any thread, and from signal handlers."""
        self._inbox.append(work)
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._waker.send(b"\0")

    def _put(self, event: Event) -> None:
        self._soon(lambda: self._handle(event))

    def _drain_wakes(self, mask: int) -> None:
        del mask
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _handle(self, event: Event) -> None:
        for command in self._core.handle(event, now_s=time.monotonic()):
            self._do(command)

    def _leave(self) -> None:
        self._beat_due_s = None
        self._links.heartbeat(0)
        self._links.flush(FLUSH_S)
        self._notices.close(NOTICES_S)
        self._helpers.close(LEFTOVER_GRACE_S + FLUSH_S)
        if self._site.spawn is spawn:
            end_adopted(grace_s=0.0)

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        self._links.close()
        for held in self._children.values():  # only after an error: they see the end of their line
            held.child.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    # The broker --------------------------------------------------------------------------------------------------

    def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            try:
                command = parse_command(
                    delivery.body, content_type=delivery.content_type, sent_unix_s=delivery.timestamp
                )
            except CommandUnreadable as exc:
                _log.warning("A command was dropped.", extra={"event": "command.dropped", "reason": exc.reason})
                continue
            if isinstance(command, StartRequest):
                _log.info(
                    "A user endpoint is asked for.",
                    extra={
                        "event": "command.start",
                        "user_endpoint_id": command.user_endpoint_id,
                        "identity_id": command.identity_id,
                        "identity": command.username,
                    },
                )
            self._handle(Received(command=command, at_unix_s=time.time()))
        # As soon as it is taken up: what is lost with us, the service asks for again.
        self._links.ack(deliveries)

    def _set_connected(self, is_connected: bool) -> None:
        has_changed, self._is_connected = is_connected != self._is_connected, is_connected
        if is_connected:
            self._beat()
        if has_changed:
            self._on_connection(is_connected)

    def _beat(self) -> None:
        self._beat_due_s = time.monotonic() + self._period_s
        if self._is_connected:  # else it would be sent when it is no longer true
            self._links.heartbeat(self._period_s)
        self._notices.prune()
        self._reap()

    def _login_refused(self, reason: str) -> None:
        def asked() -> None:
            text = self._why_refused(reason)
            self._soon(partial(self._login_judged, text))

        self._askers.do(asked)

    def _login_judged(self, text: str | None) -> None:
        if text is None:
            self._links.reconnect()
            return
        self.end_text, self._end = text, ManagerEnd.REPLACED
        _log.error("The manager's login is void; it ends.", extra={"event": "manager.replaced", "reason": text})
        self._handle(StopManager(reason="another manager has taken over"))

    # What the core wants -----------------------------------------------------------------------------------------

    @singledispatchmethod
    def _do(self, command: Command) -> None:
        raise TypeError(f"not a command: {command!r}")

    @_do.register
    def _resolve(self, command: Resolve) -> None:
        request, attempt = command.request, command.attempt

        def work() -> None:
            try:
                person, blueprint = self._site.resolve(request)
            except NotResolved as exc:
                self._put(ResolveRefused(user_endpoint_id=request.user_endpoint_id, attempt=attempt, text=exc.text))
            except Exception:
                _log.exception("A start failed unexpectedly.", extra={"event": "manager.resolve_failed"})
                text = texts.unexpected(request.user_endpoint_id)
                self._put(ResolveRefused(user_endpoint_id=request.user_endpoint_id, attempt=attempt, text=text))
            else:
                self._soon(partial(self._resolved, request.user_endpoint_id, attempt, person, blueprint))

        self._helpers.do(work)

    def _resolved(self, user_endpoint_id: str, attempt: int, person: Person, blueprint: Blueprint) -> None:
        self._blueprints[user_endpoint_id] = blueprint
        self._handle(Resolved(user_endpoint_id=user_endpoint_id, attempt=attempt, person=person))
        self._blueprints.pop(user_endpoint_id, None)

    @_do.register
    def _launch(self, command: Launch) -> None:
        request, person = command.request, command.person
        try:
            order = self._site.order(request, person, self._blueprints[request.user_endpoint_id])
            begin = self._site.begin(request)
            with self._starting:
                child = self._site.spawn(order, begin)
                held = self._children[request.user_endpoint_id] = _Held(child)
        except (FarcallError, OSError) as exc:
            _log.error(
                "No process could be started for a user endpoint.",
                extra={
                    "event": "manager.spawn_failed",
                    "user_endpoint_id": request.user_endpoint_id,
                    "reason": str(exc),
                },
            )
            text = texts.launch_failed(request.user_endpoint_id)
            self._handle(LaunchFailed(user_endpoint_id=request.user_endpoint_id, text=text))
            return
        _log.info(
            "A user endpoint is started.",
            extra={
                "event": "manager.started",
                "user_endpoint_id": request.user_endpoint_id,
                "local_user": person.account,
                "pid": child.pid,
            },
        )
        self._selector.register(child.line, selectors.EVENT_READ, partial(self._on_line, request.user_endpoint_id))
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._on_end, request.user_endpoint_id))
        self._watch_writes(held)
        self._handle(Launched(user_endpoint_id=request.user_endpoint_id, pid=child.pid))

    @_do.register
    def _send(self, command: Send) -> None:
        held = self._children.get(command.user_endpoint_id)
        if held is not None and not held.is_line_over:
            held.child.send(command.message)
            self._watch_writes(held)

    @_do.register
    def _signal(self, command: Signal) -> None:
        held = self._children.get(command.user_endpoint_id)
        if held is not None:
            _log.warning(
                "A user endpoint takes too long to end; it gets a signal.",
                extra={
                    "event": "manager.signal",
                    "user_endpoint_id": command.user_endpoint_id,
                    "pid": held.child.pid,
                    "signal": int(command.number),
                },
            )
            end(held.child, command.number)

    @_do.register
    def _clean_up(self, command: CleanUp) -> None:
        with self._starting:
            gone = self._children.pop(command.user_endpoint_id).child

        def work() -> None:
            count = end_leftovers(gone, self._living, grace_s=LEFTOVER_GRACE_S, guard=self._starting)
            if count:
                _log.warning(
                    "Processes that a user endpoint left behind were ended.",
                    extra={
                        "event": "manager.leftovers",
                        "user_endpoint_id": command.user_endpoint_id,
                        "count": count,
                    },
                )

        self._helpers.do(work)

    @_do.register
    def _notice(self, command: Notice) -> None:
        _log.warning(
            "A user endpoint could not be started, or was lost.",
            extra={
                "event": "manager.notice",
                "user_endpoint_id": command.user_endpoint_id,
                "reason": command.text,
                "is_final": command.is_final,
            },
        )
        self._notices.send(command.user_endpoint_id, command.queues, command.text, is_final=command.is_final)

    @_do.register
    def _ask(self, command: Ask) -> None:
        info = command.queues.get("task_queue_info") or {}

        def work() -> None:
            why_not = self._site.ask(command.user_endpoint_id, command.reason, str(info.get("connection_url")))
            self._put(CredentialAnswered(user_endpoint_id=command.user_endpoint_id, why_not=why_not))

        self._askers.do(work)

    @_do.register
    def _record(self, command: Record) -> None:
        self._unrecorded.append(command)

    def _write_records(self) -> None:
        records, self._unrecorded = self._unrecorded, []
        if self._audit_log is None or not records:
            return
        first, said = records[0], [each.text for each in records]
        try:
            self._audit_log.write_of(first.user_endpoint_id, uid=first.uid, pid=first.pid, texts=said)
        except AuditLogUnwritable as exc:
            if self._end is not ManagerEnd.AUDIT:
                self.end_text, self._end = str(exc), ManagerEnd.AUDIT
                _log.critical("The audit log cannot be written.", extra={"event": "audit.failed", "reason": str(exc)})
                self._put(AuditFailed(text="the endpoint's audit log cannot be written"))

    @_do.register
    def _finish(self, command: Finish) -> None:
        del command
        self._is_finished = True

    # User endpoints ----------------------------------------------------------------------------------------------

    def _watch_writes(self, held: _Held) -> None:
        if held.is_line_over:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if held.child.has_unsent else 0)
        key = self._selector.get_key(held.child.line)
        if key.events != events:
            self._selector.modify(held.child.line, events, key.data)

    def _on_line(self, user_endpoint_id: str, mask: int) -> None:
        held = self._children.get(user_endpoint_id)
        if held is None:
            return
        if mask & selectors.EVENT_WRITE:
            held.child.flush()
            self._watch_writes(held)
        if mask & selectors.EVENT_READ:
            self._read(user_endpoint_id, held)

    def _read(self, user_endpoint_id: str, held: _Held, *, pieces: int = 1) -> None:
        """What has come on a line: one piece, so that nobody starves the others; or all that an ended process has said,
        and not more: another process of the user's may hold its end, and go on."""
        while not held.is_line_over:
            try:
                data = held.child.line.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._line_over(user_endpoint_id, held)
                return
            try:
                for message in held.frames.take(data):
                    held.allowance.take(message, time.monotonic())
                    if isinstance(message, Failed):
                        held.failures += 1
                        if held.failures <= FAILURES_LOGGED:
                            _log_failure(user_endpoint_id, message)
                    self._handle(Said(user_endpoint_id=user_endpoint_id, message=message))
            except LineFault as exc:
                _log.error(
                    "A user endpoint speaks nonsense on its line.",
                    extra={"event": "line.fault", "user_endpoint_id": user_endpoint_id, "reason": str(exc)},
                )
                self._line_over(user_endpoint_id, held)
                return
            finally:
                self._write_records()
            pieces -= 1
            if pieces <= 0:
                return

    def _line_over(self, user_endpoint_id: str, held: _Held) -> None:
        held.is_line_over = True
        self._selector.unregister(held.child.line)
        with contextlib.suppress(OSError):
            held.child.line.shutdown(socket.SHUT_RDWR)
        self._handle(LineEnded(user_endpoint_id=user_endpoint_id))

    def _on_end(self, user_endpoint_id: str, mask: int) -> None:
        del mask
        held = self._children[user_endpoint_id]
        status = held.child.status()
        if status is None:
            return
        self._read(user_endpoint_id, held, pieces=LAST_PIECES)  # its last words
        self._selector.unregister(held.child.pidfd)
        if not held.is_line_over:
            held.is_line_over = True
            self._selector.unregister(held.child.line)
        held.child.close()
        _log.info(
            "A user endpoint has ended.",
            extra={"event": "manager.ended", "user_endpoint_id": user_endpoint_id, "status": status},
        )
        self._handle(Ended(user_endpoint_id=user_endpoint_id, status=status))
        for reply in self._stop_replies.pop(user_endpoint_id, ()):
            reply({"stopped": user_endpoint_id, "status": status})

    @contextlib.contextmanager
    def _told_of_ended_orphans(self) -> Iterator[None]:
        """At once: to whom it belonged (Parsl, to which a job script's end is a block's), an ended process still lives
        until its status is taken. Outside the main thread, where no signal can be heard, at each heartbeat."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGCHLD, lambda number, frame: self._soon(self._reap))
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, before)

    def _reap(self) -> None:
        with self._starting:
            reap([each.pid for each in self._living()])

    def _living(self) -> list[Child]:
        return [held.child for held in self._children.values()]

    # This machine ------------------------------------------------------------------------------------------------

    def _on_question(self, question: Mapping[str, Any], reply: Reply) -> None:
        asked = question.get("ask")
        if asked == "status":
            about = {**self._about, "is_connected": self._is_connected, "is_stopping": self._core.is_stopping}
            reply(status_document(about, self._core.user_endpoints, now_s=time.monotonic(), now_unix_s=time.time()))
        elif asked == "stop":
            self._stop_asked(str(question.get("which")), str(question.get("reason") or ""), reply)
        else:
            reply({"error": "the manager does not know this question; is it of another release?"})

    def _stop_asked(self, which: str, reason: str, reply: Reply) -> None:
        known = self._core.user_endpoints.values()
        user = next((each for each in known if which in (each.id, each.request.name)), None)
        if user is None:
            reply({"error": f"No user endpoint {which} runs here. `farcall-endpoint status NAME` lists those that do."})
            return
        if user.is_launched:
            self._stop_replies.setdefault(user.id, []).append(reply)
        now = time.time()
        wish = StopUserEndpoint(which=user.id, reason=reason, username="", sent_unix_s=now)
        self._handle(Received(command=wish, at_unix_s=now))
        if not user.is_launched:
            reply({"stopped": user.id, "status": None})


class _Held:
    """What the loop has of a user endpoint's process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.frames = Frames(limit_bytes=USER_FRAME_LIMIT_BYTES)
        self.allowance = Allowance()
        self.failures = 0
        self.is_line_over = False


def _log_failure(user_endpoint_id: str, failed: Failed) -> None:
    _log.error(
        "A user endpoint failed.",
        extra={
            "event": "manager.failed",
            "user_endpoint_id": user_endpoint_id,
            "step": failed.step,
            "status": failed.status,
            "reason": failed.text,
            "detail": failed.detail,
        },
    )
