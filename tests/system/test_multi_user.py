"""One installation, many configurations: a manager starts a user endpoint for each, and every task ends.

The manager has no privilege here, so all of it runs as one account.
"""

from __future__ import annotations

import os
import pwd
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from one_account import Account, Manager, account_for

from farcall import Executor
from farcall.client.rest import ApiClient
from farcall.testing.functions import by_value
from farcall.testing.processes import ProcessSystem, kill_and_wait, process_system

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(120)]

TIMEOUT_S = 60.0

TEMPLATE = """\
engine:
  type: ProcessPoolEngine
  max_workers: {{ WORKERS | default(1) }}
idle_heartbeats_soft: 10
shutdown_grace_period: 1
{% if SETUP is defined %}
endpoint_setup: {{ SETUP }}
{% endif %}
"""


@by_value
def where() -> tuple[int, int, str]:
    import os

    return os.getuid(), os.getppid(), os.getcwd()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("mu")) as running:
        yield running


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with account_for(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="module")
def site(system: ProcessSystem, account: Account) -> Iterator[Manager]:
    manager = Manager(system, account)
    manager.write(config__yaml="display_name: One account\n", user_config_template__yaml__j2=TEMPLATE)
    manager.start()
    yield manager
    manager.stop()


def test_a_task_runs_in_a_user_endpoint_made_of_the_template(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 1}) as ex:
        uid, _, _ = ex.submit(where).result(TIMEOUT_S)
    assert uid == (site.account.uid or os.getuid())


def parent(executor: Executor) -> int:
    """The process that runs a task's worker: the user endpoint's own."""
    return executor.submit(where).result(TIMEOUT_S)[1]


def pids(manager: Manager) -> set[int]:
    return {each["pid"] for each in manager.user_endpoints()}


def test_another_configuration_starts_another_user_endpoint_and_the_same_one_is_used_again(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 2}) as two:
        two.submit(where).result(TIMEOUT_S)
        first = {each["id"]: each for each in site.user_endpoints()}
        with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 3}) as three:
            three.submit(where).result(TIMEOUT_S)
        with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 2}) as again:
            again.submit(where).result(TIMEOUT_S)
    second = {each["id"]: each for each in site.user_endpoints()}
    assert len(second) == len(first) + 1
    assert all(second[known]["pid"] == row["pid"] for known, row in first.items())
    configs = sorted(str(each["config"]).split("max_workers: ")[1][0] for each in second.values())
    assert configs[-2:] == ["2", "3"]


def test_status_shows_each_user_endpoint_and_its_configuration(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 2}) as ex:
        ex.submit(where).result(TIMEOUT_S)
    row = next(each for each in site.user_endpoints() if each["options"] == {"WORKERS": 2})
    assert row["state"] == "online"
    assert (row["local_user"], row["executed"] > 0) == (_name_of(row["pid"]), True)
    shown = site.command("status", site.name).stdout
    assert {row["id"], str(row["pid"])} <= set(shown.replace("│", " ").split())
    config = site.command("status", site.name, "--config", row["id"]).stdout
    assert "max_workers: 2" in config


def _name_of(pid: int) -> str:
    return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name


SCHEMA = '{"type": "object", "properties": {"WORKERS": {"type": "integer", "maximum": 8}}}'
BROKEN = {
    "schema": ({"user_config_schema__json": SCHEMA}, {"WORKERS": 99}, ["WORKERS", "99", "8"]),
    "template": (
        {"user_config_template__yaml__j2": "engine: {type: ThreadPoolEngine}\nx: {{ ACCOUNT }}\n"},
        {"CASE": "template"},
        ["ACCOUNT"],
    ),
    "configuration": (
        {"user_config_template__yaml__j2": "engine: {type: ThreadPoolEngine, max_wokers: 1}\n"},
        {"CASE": "configuration"},
        ["max_wokers", "max_workers"],
    ),
    "setup": (
        {"user_config_template__yaml__j2": TEMPLATE},
        {"SETUP": "echo no such module >&2; exit 3"},
        ["endpoint_setup", "status 3", "no such module"],
    ),
    "files": ({"user_environment__yaml": "- no names\n"}, {"CASE": "files"}, ["administrator"]),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_what_keeps_a_user_endpoint_from_starting_is_told_in_the_future(
    site: Manager, case: tuple[dict[str, str], dict[str, Any], list[str]]
) -> None:
    files, options, parts = case
    before = {name.replace("__", "."): (site.directory / name.replace("__", ".")) for name in files}
    texts = {name: path.read_text() if path.exists() else None for name, path in before.items()}
    site.write(**files)
    try:
        with Executor(endpoint_id=site.id, user_endpoint_config=options) as ex:
            error = ex.submit(where).exception(TIMEOUT_S)
    finally:
        for name, text in texts.items():
            if text is None:
                before[name].unlink()
            else:
                before[name].write_text(text)
    assert error is not None
    for part in parts:
        assert part in str(error)
    assert str(site.account.home) not in str(error)


def test_a_killed_user_endpoint_is_started_again_and_its_tasks_end(site: Manager) -> None:
    config = {"WORKERS": 1, "OF": "kill"}
    with Executor(endpoint_id=site.id, user_endpoint_config=config) as ex:
        started = ex.submit(where)
        pid = started.result(TIMEOUT_S)[1]
        row = next(each for each in site.user_endpoints() if each["options"] == config)
        waiting = [ex.submit(where) for _ in range(3)]
        running = ex.submit(sleep_for, 600.0)
        waiting[-1].result(TIMEOUT_S)
        left = os.pidfd_open(pid)
        kill_and_wait(row["pid"])
        after = ex.submit(where)
        assert after.result(TIMEOUT_S)[1] != pid
        assert running.exception(TIMEOUT_S) is not None  # it ran when it was killed, and was not to be run twice
    assert select.select([left], [], [], TIMEOUT_S)[0], "what the user endpoint had started outlived it"
    os.close(left)


@by_value
def sleep_for(seconds: float) -> None:
    import time

    time.sleep(seconds)


def test_an_administrator_stops_one_user_endpoint_and_what_waits_for_it_fails(site: Manager) -> None:
    config = {"WORKERS": 1, "OF": "stop"}
    with Executor(endpoint_id=site.id, user_endpoint_config=config) as ex:
        ex.submit(where).result(TIMEOUT_S)
        row = next(each for each in site.user_endpoints() if each["options"] == config)
        running, waiting = ex.submit(sleep_for, 600.0), ex.submit(where)
        done = site.command("stop-user-endpoint", row["id"], "--reason", "maintenance until noon")
        assert row["id"] in done.stdout
        for each in (running, waiting):
            assert "maintenance until noon" in str(each.exception(TIMEOUT_S))
    assert row["id"] not in {each["id"] for each in site.user_endpoints()}
    unknown = site.command("stop-user-endpoint", row["id"], status=69)
    assert "No user endpoint" in unknown.stderr


def test_the_service_s_way_stops_one_too(site: Manager) -> None:
    config = {"WORKERS": 1, "OF": "rest"}
    with Executor(endpoint_id=site.id, user_endpoint_config=config) as ex, ApiClient() as client:
        ex.submit(where).result(TIMEOUT_S)
        row = next(each for each in site.user_endpoints() if each["options"] == config)
        ended = os.pidfd_open(row["pid"])
        running = ex.submit(sleep_for, 600.0)
        client.stop_user_endpoint(row["id"], "too long")
        assert "too long" in str(running.exception(TIMEOUT_S))
        assert select.select([ended], [], [], TIMEOUT_S)[0], "the manager was not told"
        os.close(ended)


def test_user_endpoints_go_on_while_the_service_is_away(site: Manager) -> None:
    config = {"WORKERS": 1, "OF": "away"}
    with Executor(endpoint_id=site.id, user_endpoint_config=config) as ex:
        ex.submit(where).result(TIMEOUT_S)
        there = next(each["pid"] for each in site.user_endpoints() if each["options"] == config)
        running = ex.submit(sleep_for, 0.5)
        site.system.service.kill()
        site.system.service.start()
        assert running.result(TIMEOUT_S) is None
        with Executor(endpoint_id=site.id, user_endpoint_config={"OF": "after"}) as other:
            other.submit(where).result(TIMEOUT_S)  # the manager is back, too
        ex.submit(where).result(TIMEOUT_S)
    assert there in pids(site)


def test_stopping_the_manager_leaves_nothing_and_what_waited_runs_after_its_next_start(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 1, "OF": "end"}) as ex:
        ex.submit(where).result(TIMEOUT_S)
        there = pids(site)
        site.command("stop", site.name)
        assert [pid for pid in there if Path(f"/proc/{pid}").exists()] == []
        assert of_account(site) == []
        later = ex.submit(where)
        site.start()
        assert later.result(TIMEOUT_S)[1] not in there


def test_a_killed_manager_leaves_nothing_and_every_task_ends(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 2, "OF": "orphans"}) as ex:
        ex.submit(where).result(TIMEOUT_S)
        running = ex.submit(sleep_for, 600.0)  # so that it takes its time to end
        there = [os.pidfd_open(pid) for pid in pids(site)]
        site.kill()
        later = ex.submit(where)
        site.start()
        for fd in there:
            assert select.select([fd], [], [], TIMEOUT_S)[0], "a user endpoint outlived its manager"
            os.close(fd)
        assert later.result(TIMEOUT_S)
        running.exception(TIMEOUT_S)  # an outcome, whichever


def of_account(site: Manager) -> list[str]:
    """What runs as the account, besides this test if it is its own."""
    if site.account.uid is None:
        return []
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}").st_uid == site.account.uid:
                found.append(Path(f"/proc/{entry}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [each for each in found if each]


def test_a_manager_stays_small(site: Manager) -> None:
    with Executor(endpoint_id=site.id, user_endpoint_config={"WORKERS": 2}) as ex:
        ex.submit(where).result(TIMEOUT_S)
    lines = Path(f"/proc/{site.pid}/smaps_rollup").read_text().splitlines()
    pss_kb = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert pss_kb <= 60 * 1024
    print(f"manager: {pss_kb / 1024:.1f} MB PSS")


def test_every_task_is_in_the_managers_audit_log_and_without_it_everything_ends(
    system: ProcessSystem, account: Account
) -> None:
    manager = Manager(system, account, name="audited")
    manager.write(config__yaml="audit_log_path: audit.log\n", user_config_template__yaml__j2=TEMPLATE)
    manager.start()
    log = manager.directory / "audit.log"
    try:
        with Executor(endpoint_id=manager.id, user_endpoint_config={"WORKERS": 1}) as ex:
            ex.submit(where).result(TIMEOUT_S)
            task = ex.submit(where)
            task.result(TIMEOUT_S)
            (row,) = manager.user_endpoints()
            who = f"uid={account.uid or os.getuid()} pid={row['pid']} uep={row['id']} "
            lines = [line.partition(" ")[2] for line in log.read_text().splitlines()]
            assert [line.rpartition(" ")[2] for line in lines[:4]] == [
                "SESSION_BEGIN", "RECEIVED", "EXEC_START", "EXEC_END",
            ]  # fmt: skip
            assert all(line.startswith(who) for line in lines[1:])
            assert any(str(task.task_id) in line for line in lines)
            left = [os.pidfd_open(pid) for pid in (manager.pid, row["pid"])]
            log.rename(manager.directory / "moved.log")
            log.mkdir()
            ex.submit(where)
            for fd in left:
                assert select.select([fd], [], [], TIMEOUT_S)[0], "it goes on unrecorded"
                os.close(fd)
            waiting = ex.submit(where)
            log.rmdir()
            manager.start()
            waiting.result(TIMEOUT_S)
    finally:
        manager.stop()
