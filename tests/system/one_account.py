"""A manager without privilege, run by the real command: as a local user made for the tests if root runs them.

Root's managers become other users (`tests/endpoint/manager`, and `test_multi_user_root.py`); this one does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farcall.client.tokens import TokenStore
from farcall.testing.processes import ProcessSystem, kill_and_wait
from local_users import local_users, open_directory, python_for_everybody

__all__ = ["Account", "Manager", "account_for"]

COMMAND_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who runs the manager, with which Python, and where its files lie."""

    python: Path
    home: Path
    prefix: tuple[str, ...] = ()
    uid: int | None = None


@contextmanager
def account_for(directory: Path) -> Iterator[Account]:
    """Yourself; for root a local user made for it. `directory` is used if it can be."""
    if os.geteuid() != 0:
        yield Account(python=Path(sys.executable), home=directory)
        return
    with ExitStack() as stack:
        person = stack.enter_context(local_users()).a
        python = python_for_everybody(stack.enter_context(open_directory()))
        prefix = ("setpriv", f"--reuid={person.uid}", f"--regid={person.gid}", "--init-groups", "--")
        yield Account(python=python, home=person.home, prefix=prefix, uid=person.uid)


@dataclass
class Manager:
    """One `farcall-endpoint` that is a manager."""

    system: ProcessSystem
    account: Account
    name: str = "site"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return self.account.home / ".farcall"

    @property
    def directory(self) -> Path:
        return self.base / self.name

    @property
    def id(self) -> str:
        return str(json.loads((self.directory / "endpoint.json").read_text())["endpoint_id"])

    @property
    def pid(self) -> int:
        return int((self.directory / "daemon.pid").read_text().split()[0])

    def write(self, **files: str) -> None:
        """Write files of the endpoint's directory (`config__yaml` is config.yaml), as the account's own."""
        for path in (self.base, self.directory):
            path.mkdir(mode=0o700, exist_ok=True)
            self._give(path)
        for name, text in files.items():
            path = self.directory / name.replace("__", ".")
            path.write_text(text)
            self._give(path)

    def _give(self, path: Path) -> None:
        if self.account.uid is not None:
            os.chown(path, self.account.uid, -1)

    def command(self, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `farcall-endpoint` as the account."""
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FARCALL_")},
            "HOME": str(self.account.home),
            "COLUMNS": "300",
            "NO_COLOR": "1",
            **(self.env if "FARCALL_SERVICE_URL" in self.env else {**self._login(), **self.env}),
        }
        done = subprocess.run(
            [*self.account.prefix, str(self.account.python), "-m", "farcall.cli.endpoint", *args],
            env=env,
            cwd=self.account.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert status is None or done.returncode == status, f"{args} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _login(self) -> dict[str, str]:
        url = self.system.service.url
        stored = TokenStore(self.system.root / "user" / "tokens.json").get(url)
        assert stored is not None, "who starts a service is logged in to it"
        return {"FARCALL_SERVICE_URL": url, "FARCALL_TOKEN": stored.access_token}

    def start(self) -> None:
        self.command("start", self.name, "--detach")

    def stop(self) -> None:
        self.command("stop", self.name, status=None)

    def kill(self) -> None:
        kill_and_wait(self.pid)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.command("status", self.name, "--json").stdout)
        return document

    def user_endpoints(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.status()["user_endpoints"]
        return rows
