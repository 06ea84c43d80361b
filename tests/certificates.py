"""A certificate authority of the tests' own. Imported by the `conftest.py` of the directories beside this file."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme

__all__ = ["Authority", "Shows", "tls_listener"]

Shows = Callable[[tuple[Path, Path] | None], int]
"""Starts a `tls_listener` for the length of a test; returns its port."""


class Authority:
    """Its certificate lies in `ca_file`; `server` writes certificates into the same directory."""

    def __init__(self, directory: Path, name: str = "Example Site CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._ca = trustme.CA(organization_name=name)
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def server(self, *names: str, file: str = "server", **more: Any) -> tuple[Path, Path]:
        """Paths of a certificate for `names` and of its key. Of the same `file` a second time: replaced, as by a
        renewal."""
        made = self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")), **more)
        cert, key = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        for path, text in (
            (key, made.private_key_pem.bytes()),
            (cert, b"".join(b.bytes() for b in made.cert_chain_pems)),
        ):
            new = path.with_suffix(path.suffix + ".new")
            new.write_bytes(text)
            new.replace(path)
        return cert, key

    def expired(self, *names: str, days: int = 3) -> tuple[Path, Path]:
        """The same, that counted until so many days ago."""
        end = datetime.now(timezone.utc) - timedelta(days=days)
        return self.server(*names, file="expired", not_before=end - timedelta(days=30), not_after=end)

    def both(self, *names: str) -> Path:
        """One file with certificate and key, as HAProxy has it."""
        cert, key = self.server(*names, file="both")
        path = self.directory / "both-in-one.pem"
        path.write_bytes(cert.read_bytes() + key.read_bytes())
        return path


@contextlib.contextmanager
def tls_listener(files: tuple[Path, Path] | None) -> Iterator[int]:
    """Listens on this machine with a certificate and its key (None: without TLS), takes connections and says nothing
    more. Gives the port."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_show, args=(listener, context))
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _show(listener: socket.socket, context: ssl.SSLContext | None) -> None:
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
