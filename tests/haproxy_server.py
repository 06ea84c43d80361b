"""A real HAProxy of the tests' own that runs `deploy/haproxy.cfg`, with ports and certificate of the test put in.

Imported by the `conftest.py` of the directories beside this file.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "haproxy.cfg"


class HAProxy:
    """Listens on `port` of this machine from the beginning; answers once `start` was called."""

    def __init__(self, program: str, directory: Path, certificate: Path) -> None:
        self._program = program
        self._directory = directory
        self._certificate = certificate
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "haproxy.log"

    def start(self, http: Sequence[int], amqp: Sequence[int]) -> None:
        """Begin to pass on, to these ports of this machine. Returns when it does."""
        text = CONFIGURATION.read_text()
        text = _replaced(
            text,
            "bind :443 ssl crt /etc/haproxy/farcall.pem",
            f"bind fd@{self._listener.fileno()} ssl crt {self._certificate}",
        )
        text = _replaced(text, "server api1 127.0.0.1:5000", _servers("api", http))
        text = _replaced(text, "server broker1 127.0.0.1:5672", _servers("broker", amqp))
        path = self._directory / "haproxy.cfg"
        path.write_text(text)
        check = subprocess.run([self._program, "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True)
        # Nothing but the certificate, which is not there, may be wrong with the file as it is delivered.
        assert not [line for line in check.stderr.splitlines() if "WARNING" in line], check.stderr
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-db", "-f", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._listener.fileno()],
            )
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock:
                context.wrap_socket(sock).close()
        except OSError:
            pytest.fail(f"HAProxy does not answer:\n{self.log.read_text()}")

    def stop(self) -> None:
        """At once; the port stays taken, so that clients wait instead of being refused. `start` goes on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._listener.close()


@contextmanager
def haproxy(directory: Path, certificate: Path) -> Iterator[HAProxy]:
    """Without the program the test is skipped; in CI (`CI=true`) it fails."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        reason = "no HAProxy here (Debian: apt-get install haproxy; as root: scripts/ci-services.sh)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    directory.mkdir(parents=True, exist_ok=True)
    proxy = HAProxy(program, directory, certificate)
    try:
        yield proxy
    finally:
        proxy.close()


def _servers(name: str, ports: Sequence[int]) -> str:
    return "\n    ".join(f"server {name}{number} 127.0.0.1:{port}" for number, port in enumerate(ports, 1))


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"deploy/haproxy.cfg no longer says {old!r} once"
    return text.replace(old, new)
