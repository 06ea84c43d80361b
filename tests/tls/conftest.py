"""A certificate authority, and somebody who shows its certificates."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(1, str(Path(__file__).parents[1]))  # pytest's importlib mode leaves it out

from certificates import Authority, Shows


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def shows() -> Iterator[Shows]:
    """Listens on localhost with a certificate and its key, takes connections and says nothing; returns the port."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            try:
                if context is None:
                    taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                else:
                    context.wrap_socket(taken, server_side=True).close()
            except OSError:
                pass  # whom this certificate did not please
            finally:
                taken.close()

    def start(files: tuple[Path, Path] | None) -> int:
        context = None
        if files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
        listener = socket.create_server(("127.0.0.1", 0))
        sockets.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, context)))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for listener in sockets:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()
