"""A load balancer of the tests' own: spreads TCP connections over the backends that answer /healthz, and cuts those
to one that does not any more. What a site's does (HAProxy: `option httpchk`, `on-marked-down shutdown-sessions`).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator, Sequence

__all__ = ["Balancer", "balancer"]

_CHECK_S = 0.3
_PATIENCE_S = 2.0


class Balancer:
    """Listens on a port of its own.

    Attributes:
        port: to connect to.
        backends: ports of this machine; may be changed at any time.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.backends: Sequence[int] = ()
        self._up: frozenset[int] = frozenset()
        self._next = 0
        self._lock = threading.Lock()
        self._connections: dict[int, set[socket.socket]] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._check, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for port in list(self._connections):
            self._cut(port)

    def wait_up(self, count: int, timeout_s: float = 60) -> None:
        """Wait until so many backends are ready."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._up) == count, timeout_s), f"{len(self._up)} are ready"

    def _check(self) -> None:
        while not self._closing.wait(_CHECK_S):
            up = frozenset(port for port in self.backends if _is_healthy(port))
            for port in self._up - up:
                self._cut(port)
            with self._changed:
                self._up = up
                self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        for _ in range(len(self.backends)):
            up = sorted(self._up)
            if not up:
                break
            with self._lock:
                self._next += 1
                port = up[self._next % len(up)]
            try:
                server = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
            except OSError:
                continue
            server.settimeout(None)
            with self._lock:
                self._connections.setdefault(port, set()).update((client, server))
            threading.Thread(target=self._pump, args=(port, client, server), daemon=True).start()
            self._pump(port, server, client)
            return
        client.close()

    def _pump(self, port: int, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._connections.get(port, set()).discard(source)
        source.close()

    def _cut(self, port: int) -> None:
        with self._lock:
            cut = list(self._connections.pop(port, ()))
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def balancer() -> Iterator[Balancer]:
    made = Balancer()
    try:
        yield made
    finally:
        made.close()
