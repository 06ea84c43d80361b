"""A local user plays with the files of their own user endpoint: they are told what is wrong, nobody else notices."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from manager_of_root import Manager

from farcall.testing.processes import process_system
from local_users import LocalUsers, local_users, open_directory, python_for_everybody
from official import Client, OurSide

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("local-users")]

THREADS = "heartbeat_period: 5\nengine:\n  type: ThreadPoolEngine\n  max_workers: 1\n"


@dataclass(frozen=True)
class World:
    people: LocalUsers
    manager: Manager
    ann: OurSide
    ben: OurSide

    def told(self, side: OurSide) -> object:
        """What came of a task: facts about it, or the exception's text."""
        return side.program("as_local_user", endpoint=self.manager.id, config={})

    def directory(self) -> Path:
        (found,) = (self.people.a.home / ".farcall").glob(f"uep.{self.manager.id}.*")
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("multi-user-home")
    with local_users() as people, open_directory() as open_dir, process_system(root / "system") as system:
        clients = {name: Client(system, name) for name in ("ann", "ben")}
        become = {clients["ann"].id: people.a.name, clients["ben"].id: people.b.name}
        manager = Manager(system, python_for_everybody(open_dir), "home", THREADS, become)
        try:
            sides = {name: OurSide(root / name, system, client) for name, client in clients.items()}
            yield World(people, manager, **sides)
        finally:
            manager.command("stop", manager.name)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "in the way").touch()


def closed(path: Path) -> None:
    path.touch()
    path.chmod(0)


MISCHIEF = [
    ("endpoint.log", fifo, "endpoint.log is no regular file"),
    ("journal.db", directory, "journal.db cannot be used"),
    ("daemon.pid", fifo, "daemon.pid is no regular file"),
    ("", closed, "Permission denied"),
]


def test_whoever_puts_something_in_the_way_is_told_and_nobody_else_notices(world: World) -> None:
    assert isinstance(world.told(world.ann), list)
    assert isinstance(world.told(world.ben), list)
    place = world.directory()
    world.manager.command("stop-user-endpoint", place.name.rpartition(".")[2])
    aside = place.rename(place.with_name("aside"))
    for name, how, words in MISCHIEF:
        place.mkdir(mode=0o700)
        how(place / name)
        for each in [place, *place.iterdir()]:
            os.chown(each, world.people.a.uid, world.people.a.gid, follow_symlinks=False)
        told = world.told(world.ann)
        assert words in str(told)
        shutil.rmtree(place)
    assert isinstance(world.told(world.ben), list)
    aside.rename(place)
    assert isinstance(world.told(world.ann), list)
