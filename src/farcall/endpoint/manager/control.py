"""The manager's socket on this machine, `manager.sock` in its directory: how it is, and stopping user endpoints.

Whoever may connect to it is the account that runs the manager (mode 0600, in a directory of mode 0700). One line of
JSON asks, one answers, and the connection ends. `ask` is the commands' side; `ControlServer` the manager's.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from farcall.wire.errors import FarcallError

__all__ = ["SOCKET_NAME", "ControlServer", "ManagerNotHere", "Reply", "ask"]

SOCKET_NAME: Final = "manager.sock"
_LINE_LIMIT_BYTES: Final = 64 * 1024
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024

Reply = Callable[[Mapping[str, Any]], None]
"""Answers a question, now or later; at most once."""


class ManagerNotHere(FarcallError):
    """Nobody answers at the socket."""

    code = "MANAGER_NOT_HERE"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The manager of endpoint '{self.name}' cannot be asked ({self.reason}). It must run on this machine, as "
            f"the user who asks: `farcall-endpoint start {self.name}` starts it."
        )


def ask(directory: Path, question: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Ask the manager of the endpoint in `directory`.

    Raises:
        ManagerNotHere: there is none, or it does not answer in this time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)
        try:
            with _short(directory) as path:
                line.connect(path)
            line.sendall(json.dumps(question).encode() + b"\n")
            answer = bytearray()
            while more := line.recv(1 << 16):
                answer += more
                if len(answer) > _ANSWER_LIMIT_BYTES:
                    raise ManagerNotHere(directory.name, "its answer is too long")
            document = json.loads(bytes(answer))
        except OSError as exc:
            raise ManagerNotHere(directory.name, exc.strerror or str(exc)) from exc
        except ValueError as exc:
            raise ManagerNotHere(directory.name, "it ended before it answered") from exc
    return document if isinstance(document, dict) else {}


class ControlServer:
    """Listens; used by the manager's loop alone.

    Args:
        directory: of the endpoint.
        on_question: called with each question and how to answer it.

    Raises:
        OSError: the socket cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        selector: selectors.BaseSelector,
        on_question: Callable[[Mapping[str, Any], Reply], None],
    ) -> None:
        self._path = directory / SOCKET_NAME
        self._selector = selector
        self._on_question = on_question
        self._connections: set[_Connection] = set()
        self._path.unlink(missing_ok=True)  # of a killed manager: ours holds the lock of the directory
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with _short(directory) as path:
                self._listener.bind(path)
        except OSError:
            self._listener.close()
            raise
        finally:
            os.umask(before)
        self._listener.listen(16)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for each in list(self._connections):
            each.close()

    def _accept(self, mask: int) -> None:
        del mask
        with contextlib.suppress(OSError):
            line, _ = self._listener.accept()
            line.setblocking(False)
            self._connections.add(_Connection(line, self._selector, self._on_question, self._connections.discard))


class _Connection:
    """One question and its answer."""

    def __init__(
        self,
        line: socket.socket,
        selector: selectors.BaseSelector,
        on_question: Callable[[Mapping[str, Any], Reply], None],
        on_end: Callable[[_Connection], None],
    ) -> None:
        self._line = line
        self._selector = selector
        self._on_question = on_question
        self._on_end = on_end
        self._received = bytearray()
        self._unsent = b""
        self._is_asked = self._is_closed = False
        selector.register(line, selectors.EVENT_READ, self._ready)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._selector.unregister(self._line)
            self._line.close()
            self._on_end(self)

    def _ready(self, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._write()
            else:
                self._read()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _read(self) -> None:
        data = self._line.recv(4096)
        self._received += data
        if not data or len(self._received) > _LINE_LIMIT_BYTES:
            self.close()
        elif b"\n" in data and not self._is_asked:
            self._is_asked = True
            try:
                question = json.loads(self._received)
            except ValueError:
                question = None
            self._on_question(question if isinstance(question, dict) else {}, self._answer)

    def _answer(self, document: Mapping[str, Any]) -> None:
        if self._is_closed or self._unsent:
            return
        self._unsent = json.dumps(document).encode()
        self._selector.modify(self._line, selectors.EVENT_WRITE, self._ready)

    def _write(self) -> None:
        self._unsent = self._unsent[self._line.send(self._unsent) :]
        if not self._unsent:
            self.close()


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """The socket's path by way of a descriptor: addresses of sockets have at most 107 characters (unix(7))."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)
