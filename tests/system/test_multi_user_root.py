"""A manager of root's: two people at once, each as their local user, with PAM and without; a kill leaves nothing."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from manager_of_root import Manager

from deck import WORKERS
from farcall.testing.processes import kill_and_wait, process_system
from local_users import (
    LocalUsers,
    PamService,
    Person,
    local_users,
    open_directory,
    pam_service,
    python_for_everybody,
)
from official import Client, OfficialSide, OurSide, official_side

pytestmark = pytest.mark.xdist_group("local-users")

THREADS = """\
heartbeat_period: 5
engine:
  type: ThreadPoolEngine
  max_workers: {{ WORKERS }}
"""
PATIENCE_S = 60


@dataclass(frozen=True)
class World:
    people: LocalUsers
    session: PamService
    plain: Manager
    with_pam: Manager
    ann: OurSide
    ben: OurSide
    late: OurSide
    stranger: OurSide
    ben_elsewhere: OfficialSide


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("multi-user")
    with (
        local_users() as people,
        open_directory() as directory,
        pam_service(people, directory) as session,
        process_system(root / "system") as system,
        official_side(root, system) as elsewhere,
    ):
        python = python_for_everybody(directory)
        clients = {name: Client(system, name) for name in ("ann", "late", "stranger")} | {"ben": elsewhere.client}
        sides = {name: OurSide(root / name, system, client) for name, client in clients.items()}
        become = {"ann": people.a, "ben": people.b, "late": people.expired}
        mapping = {clients[name].id: person.name for name, person in become.items()}
        managers: list[Manager] = []
        try:
            managers.append(Manager(system, python, "plain", WORKERS, mapping))
            pam = f"pam:\n  enable: true\n  service_name: {session.name}\n"
            managers.append(Manager(system, python, "with-pam", THREADS, mapping, config=pam))
            yield World(people, session, *managers, **sides, ben_elsewhere=elsewhere)
        finally:
            for each in managers:
                each.command("stop", each.name)


def groups_of(person: Person) -> list[int]:
    return sorted(os.getgrouplist(person.name, person.gid))


def check_was(facts: dict[str, Any], person: Person) -> None:
    assert facts["uids"] == [person.uid] * 3
    assert facts["gids"] == [person.gid] * 3
    assert facts["groups"] == groups_of(person)
    assert facts["umask"] == 0o077
    assert facts["capabilities"] == ["0" * 16] * 4
    environ = facts["environ"]
    assert {environ[name] for name in ("USER", "LOGNAME")} == {person.name}
    assert environ["HOME"] == str(person.home)
    assert environ["FCT_SITE"] == "of-the-site"
    assert not [name for name in environ if name.startswith("FARCALL_") and ("TOKEN" in name or "SECRET" in name)]


def of_user(person: Person) -> list[int]:
    """Ids of all processes of a local user."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if (
                os.stat(f"/proc/{entry}").st_uid == person.uid
                and b") Z" not in Path(f"/proc/{entry}/stat").read_bytes()
            ):
                found.append(int(entry))
        except OSError:
            continue
    return found


def wait_for_end_of(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([fd], [], [], PATIENCE_S)[0], Path(f"/proc/{pid}/cmdline").read_bytes()
        os.close(fd)


def test_two_people_at_once_run_the_decks_template_each_as_their_own_local_user(world: World) -> None:
    calls = [("as_local_user", {"endpoint": world.plain.id, "config": {"WORKERS": 5}, "count": 5})]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda side: side.programs(calls)[0]["value"], (world.ann, world.ben)))
    for person, facts in zip((world.people.a, world.people.b), answers, strict=True):
        assert isinstance(facts, list), facts
        for each in facts:
            check_was(each, person)
            assert each["no_new_privs"] == "1"
        status = json.loads(world.plain.command("status", world.plain.name, "--json"))
        assert person.name in json.dumps(status)
        directories = [each for each in (person.home / ".farcall").iterdir() if each.name.startswith("uep.")]
        assert [oct(each.stat().st_mode & 0o777) for each in directories] == ["0o700"]
        assert of_user(person)


def test_with_pam_a_session_is_open_as_long_as_the_user_endpoint(world: World) -> None:
    before = len(world.session.sessions())
    (facts,) = world.ann.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 2})
    check_was(facts, world.people.a)
    assert facts["environ"]["FCT_SITE"] == "of-the-site", "of the site rather than of PAM"
    opened = f"open_session {world.people.a.name}"
    assert world.session.sessions()[before:] == [opened]
    keeper = int(Path(f"/proc/{facts['pid']}/status").read_text().split("PPid:\t")[1].split()[0])
    (directory,) = (world.people.a.home / ".farcall").glob(f"uep.{world.with_pam.id}.*")
    world.with_pam.command("stop-user-endpoint", directory.name.rpartition(".")[2])
    wait_for_end_of([facts["pid"], keeper])
    assert world.session.sessions()[before:] == [opened, opened.replace("open", "close")]


def test_the_official_sdk_runs_as_the_local_user_too(world: World) -> None:
    (facts,) = world.ben_elsewhere.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 1})
    check_was(facts, world.people.b)


def test_who_may_not_is_told_why_in_the_futures_exception(world: World) -> None:
    told = world.late.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 1})
    assert "expired" in told
    assert world.people.expired.name in told
    told = world.stranger.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 1})
    assert "map" in told
    told = world.ben.program("as_local_user", endpoint=world.plain.id, config={"WRKERS": 1})
    assert "WORKERS" in told


def test_a_task_that_attacks_the_manager_harms_no_other_user(world: World) -> None:
    manager = world.with_pam
    pid = manager.pid
    calls = {"endpoint": manager.id, "config": {"WORKERS": 1}}
    (facts,) = world.ben.program("as_local_user", **calls)
    world.ann.program("attack", **calls)
    (again,) = world.ben.program("as_local_user", **calls)
    assert again["pid"] == facts["pid"]
    (after,) = world.ann.program("as_local_user", **calls)
    check_was(after, world.people.a)
    assert manager.pid == pid
    assert "line.fault" in manager.log
    assert "\x1b" not in manager.log


def test_after_kill_9_of_a_user_endpoint_what_its_tasks_left_is_ended_and_the_next_task_starts_another(
    world: World,
) -> None:
    for manager, workers in ((world.plain, 5), (world.with_pam, 1)):
        calls = {"endpoint": manager.id, "config": {"WORKERS": workers}}
        (facts,) = world.ann.program("as_local_user", **calls, leave=True)
        left = of_user(world.people.a)
        (user_endpoint,) = [pid for pid in left if is_agent(pid, manager.id)]
        os.kill(user_endpoint, signal.SIGKILL)
        wait_for_end_of([user_endpoint, facts["left"]])
        (again,) = world.ann.program("as_local_user", **calls)
        check_was(again, world.people.a)
        assert again["pid"] != facts["pid"]


def is_agent(pid: int, manager_id: str) -> bool:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"_start-user-endpoint" in arguments and any(manager_id.encode() in each for each in arguments)


def test_after_kill_9_of_the_managers_nothing_of_any_user_is_left(world: World) -> None:
    users = (world.people.a, world.people.b)
    world.ann.program("as_local_user", endpoint=world.plain.id, config={"WORKERS": 5})
    world.ben.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 1})
    pids = [pid for person in users for pid in of_user(person)]
    assert len(pids) > 4
    for manager in (world.plain, world.with_pam):
        kill_and_wait(manager.pid, signal.SIGKILL)
    wait_for_end_of(pids)
    assert [of_user(person) for person in users] == [[], []]
    closed = [each for each in world.session.sessions() if each.startswith("close_session")]
    assert len(closed) == len(world.session.sessions()) / 2
    world.with_pam.start()
    (facts,) = world.ben.program("as_local_user", endpoint=world.with_pam.id, config={"WORKERS": 1})
    check_was(facts, world.people.b)
