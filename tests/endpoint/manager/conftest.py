"""Local users, a site's installation that they can read, and a stand-in for the agent that tells what it is."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import farcall
from farcall.endpoint.manager.leftovers import end_leftovers
from farcall.endpoint.manager.line import Begin, Frames, Message, Order, Rendered
from farcall.endpoint.manager.spawn import Child, end, spawn
from local_users import LocalUsers, PamService, local_users, open_directory, pam_service, python_for_everybody

PATIENCE_S = 60.0
UEP = "eeeeeeee-0000-4000-8000-00000000000"
PROBE = Path(__file__).parent / "probe_agent.py"


@pytest.fixture(scope="session")
def people() -> Iterator[LocalUsers]:
    with local_users() as users:
        yield users


@pytest.fixture(scope="session")
def open_dir(people: LocalUsers) -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture(scope="session")
def pam(people: LocalUsers, open_dir: Path) -> Iterator[PamService]:
    with pam_service(people, open_dir) as service:
        yield service


@dataclass
class Running:
    """A spawned child, and what it has said."""

    child: Child
    heard: list[Message] = field(default_factory=list)
    _frames: Frames = field(default_factory=Frames)

    def listen(self, kind: type[Message] | None = None) -> Any:
        """The next message of this kind; None for the kind: all until the line ends, then None."""
        self.child.line.settimeout(PATIENCE_S)
        while True:
            if kind is not None and (found := [each for each in self.heard if isinstance(each, kind)]):
                self.heard.remove(found[0])
                return found[0]
            self.child.flush()
            try:
                data = self.child.line.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert kind is None, f"the line ended; heard: {self.heard}, status {self.wait()}"
                return None
            self.heard += self._frames.take(data)

    def facts(self) -> dict[str, Any]:
        while not (said := self.listen(Rendered).config).startswith("{"):  # the launcher's
            pass
        return json.loads(said)

    def wait(self) -> int | None:
        """Until the process has ended, by its descriptor; its status."""
        assert select.select([self.child.pidfd], [], [], PATIENCE_S)[0], "the process did not end"
        return self.child.status()

    def stop(self) -> None:
        if self.child.status() is None:
            end(self.child, signal.SIGKILL)
            self.wait()
        end_leftovers(self.child, list, grace_s=0)
        self.child.close()


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def site(open_dir: Path, people: LocalUsers) -> tuple[str, str, str]:
    """An interpreter for everybody, the directory where the site's own `farcall-endpoint` lies: the probe, and that of
    our sources."""
    interpreter = str(python_for_everybody(open_dir))
    programs = open_dir / "programs"
    programs.mkdir()
    program = programs / "farcall-endpoint"
    program.write_text(f"#!{interpreter} -I\n" + PROBE.read_text())
    program.chmod(0o755)
    where = "import farcall, pathlib; print(pathlib.Path(farcall.__file__).parents[1])"
    source = subprocess.run([interpreter, "-I", "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    return interpreter, str(programs), source


@pytest.fixture
def start(site: tuple[str, str, str], people: LocalUsers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start the probe as a local user; keywords as of Order, `wish` is what it shall do."""
    interpreter, programs, source = site
    monkeypatch.setattr(farcall, "__file__", f"{source}/farcall/__init__.py")  # where launchers look, too
    running: list[Running] = []

    def start(user: str | None, *, wish: str = "facts", **members: Any) -> Running:
        environment: Mapping[str, str] = {"PATH": f"{programs}:/usr/bin:/bin", **members.pop("environment", {})}
        number = len(running)
        order = Order(**{
            "name": f"uep.test.{number}",
            "user_endpoint_id": f"{UEP}{number}",
            "manager_name": "test",
            "local_user": user,
            "template": "wish: {{ wish }}\n",
            "user_options": {"wish": wish},
            "environment": environment,
            "mapped_identity": {"local": {"uid": next((p.uid for p in (people.a, people.b) if p.name == user), None)}},
            **members,
        })  # fmt: skip
        child = spawn(order, Begin(user_endpoint_id=order.user_endpoint_id, queues={}), interpreter=interpreter)
        running.append(Running(child))
        return running[-1]

    yield start
    for each in running:
        each.stop()
