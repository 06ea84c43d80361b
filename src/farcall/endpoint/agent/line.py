"""A user endpoint's end of the line to its manager: what is heard there, what is said, and that it has ended.

Two threads: one that reads, so that the end of the line is noticed whatever else hangs, and one that says how the
endpoint is, at most once a second. What the words mean is `manager.line`'s to say; what follows is the caller's to do.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

from farcall.endpoint.manager.line import (
    Begin,
    CredentialCounts,
    CredentialRefused,
    Credentials,
    Frames,
    LineFault,
    Message,
    State,
    Stop,
    pack,
    read_exactly_one,
)

__all__ = ["ManagerLine"]

log = logging.getLogger(__name__)

STATE_GAP_S: Final = 1.0
"""Shortest time between two states of the same phase."""
_CHUNK_BYTES: Final = 65536


class ManagerLine:
    """The agent's end. `begin` first, then `start`; the rest from any thread.

    Args:
        line: a blocking stream socket; becomes this object's.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._is_gone = False
        self._is_closed = False
        self._state: State | None = None
        self._told: State | None = None
        self._answer: CredentialCounts | None = None
        self._renewals = 0
        self._writer: threading.Thread | None = None

    def begin(self) -> Begin | None:
        """What to begin with. Waits for it; None: the manager is gone.

        Raises:
            LineFault: it says something else.
        """
        try:
            message = read_exactly_one(self._line)
        except OSError:
            return None
        if message is not None and not isinstance(message, Begin):
            raise LineFault(f"it begins with {type(message).__name__}")
        return message

    def start(
        self,
        *,
        on_stop: Callable[[Stop], None],
        on_credentials: Callable[[Credentials], None],
        on_gone: Callable[[], None],
    ) -> None:
        """Begin to listen. All are called on one thread of this object's; `on_gone` once, as the last of it.

        Args:
            on_stop: the manager wants the endpoint to end.
            on_credentials: there is a newer broker login.
            on_gone: the other end is gone, or nothing on the line can be read any more.
        """
        threading.Thread(
            target=self._read, args=(on_stop, on_credentials, on_gone), name="farcall-line", daemon=True
        ).start()
        self._writer = threading.Thread(target=self._write, name="farcall-line-states", daemon=True)
        self._writer.start()

    def send(self, message: Message) -> bool:
        """Say this now; waits for the manager to have room for it. False: it is gone."""
        data = pack(message)
        try:
            with self._sending:
                self._line.sendall(data, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def tell(self, state: State) -> None:
        """How the endpoint is now. Returns at once; what is outdated before it could be said is not said."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def ask_whether_credential_counts(self, reason: str) -> str | None:
        """Ask the manager, and wait for it. None: it does, or there is a newer one; else why not, for people."""
        with self._changed:
            self._answer, before = None, self._renewals
        if self.send(CredentialRefused(reason=reason)):
            with self._changed:
                self._changed.wait_for(
                    lambda: self._answer is not None or self._renewals != before or self._is_gone or self._is_closed
                )
                if self._answer is not None:
                    return self._answer.why_not
                if self._renewals != before:
                    return None
        return f"The broker refuses the login ({reason}), and the manager that could tell why is gone."

    def close(self) -> None:
        """Say what is still to be said, then let go. A manager that does not read is not waited for long."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(STATE_GAP_S)

    def _read(
        self,
        on_stop: Callable[[Stop], None],
        on_credentials: Callable[[Credentials], None],
        on_gone: Callable[[], None],
    ) -> None:
        frames = Frames()
        try:
            while data := self._line.recv(_CHUNK_BYTES):
                for message in frames.take(data):
                    if isinstance(message, Stop):
                        on_stop(message)
                    elif isinstance(message, Credentials):
                        on_credentials(message)
                        self._heard(None)
                    elif isinstance(message, CredentialCounts):
                        self._heard(message)
        except OSError as exc:
            log.info("The line to the manager has failed.", extra={"event": "line.failed", "reason": str(exc)})
        except LineFault as exc:
            log.error("The manager says what cannot be read.", extra={"event": "line.fault", "reason": str(exc)})
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()
        on_gone()

    def _heard(self, answer: CredentialCounts | None) -> None:
        with self._changed:
            self._answer = answer
            self._renewals += answer is None
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._state != self._told)
                if self._told is not None:
                    self._changed.wait_for(lambda: self._is_over or self._is_urgent, STATE_GAP_S)
                state, is_over = self._state, self._is_over
                is_news, self._told = state != self._told, state
            if is_news and state is not None and not self.send(state):
                return
            if is_over:
                return

    @property
    def _is_over(self) -> bool:
        return self._is_gone or self._is_closed

    @property
    def _is_urgent(self) -> bool:
        return self._state is not None and self._told is not None and self._state.phase != self._told.phase
