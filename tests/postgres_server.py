"""A PostgreSQL server of the tests' own, on loopback: started, stopped and killed by them.

PostgreSQL refuses to be run by root; then it runs as the user `postgres`, which its packages make. Imported by the
`conftest.py` of the directories beside this file.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_SERVER_USER = "postgres"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "restart_after_crash": "off",
}


def find_binaries() -> Path | None:
    """Where the newest PostgreSQL server's programs are, 15 at least; None if there are none."""
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists() and path.parent.name.isdigit()]
    newest = max(versions, key=lambda path: int(path.parent.name), default=None)
    if newest is not None and int(newest.parent.name) >= 15:
        return newest
    found = shutil.which("initdb")
    if found is None:
        return None
    directory = Path(found).resolve().parent
    number = subprocess.run([str(directory / "postgres"), "-V"], capture_output=True, text=True).stdout.split()[-1]
    return directory if number.partition(".")[0].isdigit() and int(number.partition(".")[0]) >= 15 else None


class PostgresServer:
    """One server with one role, `farcall`; `database()` makes empty databases."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self.home = Path(tempfile.mkdtemp(prefix="farcall-postgres-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", f"--reuid={_SERVER_USER}", f"--regid={_SERVER_USER}", "--init-groups", "--"]
            shutil.chown(self.home, _SERVER_USER, _SERVER_USER)
        self.password = secrets.token_hex(8)
        self.port = _free_port()
        password_file = self.home / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)  # its directory is private
        self._run("initdb", "-D", self._data, "-U", "farcall", "-A", "scram-sha-256", f"--pwfile={password_file}",
                  "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")  # fmt: skip

    @property
    def _data(self) -> str:
        return str(self.home / "data")

    def start(self) -> None:
        """Returns when it accepts connections."""
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        options += f" -p {self.port} -c unix_socket_directories="
        self._run("pg_ctl", "-D", self._data, "-l", str(self.home / "log"), "-w", "-t", "60", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is a crash as seen by everybody connected; the next start recovers from the log."""
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """SIGKILL of the postmaster; returns when its children have noticed, too."""
        postmaster = self._postmaster()
        postmaster.suspend()  # so that it makes no more children
        ends = [os.pidfd_open(each.pid) for each in (postmaster, *postmaster.children())]
        postmaster.kill()
        for end in ends:
            assert select.select([end], [], [], 30)[0], "PostgreSQL outlives its postmaster"
            os.close(end)
        # Where nobody reaps the dead, their numbers stay taken, and the file would keep the next one from starting.
        (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """The postmaster and its children, as they are now."""
        postmaster = self._postmaster()
        return [postmaster, *postmaster.children()]

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.home / "data" / "postmaster.pid").read_text().split()[0]))

    def database(self) -> str:
        """The URL, with password, of a new empty database."""
        import psycopg

        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://farcall:{self.password}@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        subprocess.run(
            [*self._as_user, str(self._binaries / "pg_ctl"), "-D", self._data, "-m", "immediate", "-w", "stop"],
            cwd="/",
            capture_output=True,
        )
        shutil.rmtree(self.home, ignore_errors=True)

    def _run(self, program: str, *args: str) -> None:
        # Not into pipes: the server inherits them, and would hold them open.
        with tempfile.TemporaryFile() as output:
            command = [*self._as_user, str(self._binaries / program), *args]
            done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            output.seek(0)
            log = self.home / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            assert done.returncode == 0, (program, output.read().decode(errors="replace"), said)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs. Without the programs the test is skipped; in CI (`CI=true`) it fails."""
    binaries = find_binaries()
    if binaries is None:
        reason = "no PostgreSQL 15 or newer here (Debian: apt-get install postgresql; as root: scripts/ci-services.sh)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
