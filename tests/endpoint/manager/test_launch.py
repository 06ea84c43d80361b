"""A user endpoint's process is the local user's, nothing else: seen from inside and outside, with PAM and without."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.manager.environment import DEFAULT_PATH
from farcall.endpoint.manager.launch import STATUSES
from farcall.endpoint.manager.line import Failed, Rendered
from farcall.endpoint.manager.marks import MARK_VARIABLE
from farcall.endpoint.manager.spawn import end
from local_users import LocalUsers, PamService, Person

from .conftest import Running, Start

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("local-users")]

NO_CAPABILITY = "0" * 16


def groups_of(person: Person) -> list[int]:
    return sorted(os.getgrouplist(person.name, person.gid))


def private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o700


def check_is(facts: dict, person: Person) -> None:
    assert facts["resuid"] == [person.uid] * 3
    assert facts["resgid"] == [person.gid] * 3
    assert facts["groups"] == groups_of(person)
    assert facts["umask"] == 0o077
    assert facts["core"][0] == 0
    assert facts["cwd"] == str(person.home)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert facts["status"][name] == NO_CAPABILITY
    assert facts["ignored"] == []
    assert facts["mask"] == []
    directory = person.home / ".farcall" / facts["argv"][1]
    assert private(directory)
    assert directory.stat().st_uid == person.uid
    log = str(directory / "endpoint.log")
    line_fd, config_fd = facts["argv"][3], facts["argv"][5]
    fds = {
        fd: what
        for fd, what in facts["fds"].items()
        if not what.startswith("/proc/") and not what.endswith("/programs/farcall-endpoint")
    }
    assert {"0": "/dev/null", "1": log, "2": log} == {fd: fds.pop(fd) for fd in "012"}
    assert fds.pop(line_fd).startswith("socket:")
    assert "farcall-config" in fds.pop(config_fd)
    assert fds == {}


def test_without_pam_the_process_is_the_users_and_can_never_gain_anything(
    start: Start, people: LocalUsers, monkeypatch
) -> None:
    monkeypatch.setenv("FARCALL_TOKEN", "of-the-manager")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/root/lib")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "/root/python"))
    leaked = os.open("/etc/shadow", os.O_RDONLY)
    begin_process = subprocess.Popen

    def leak(*arguments: Any, pass_fds: Sequence[int], **keywords: Any) -> subprocess.Popen[bytes]:
        """As a library might that opens something in the launcher, and lets programs have it."""
        return begin_process(*arguments, pass_fds=[*pass_fds, leaked], **keywords)

    monkeypatch.setattr(subprocess, "Popen", leak)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.umask(os.umask(0o022))
    running = start(
        people.a.name, wish="helper", environment={"SITE": "1", "HOME": "/tmp", "USER": "root", "SHELL": "/bin/evil"}
    )
    assert running.listen(Rendered).config == 'wish: "helper"\n'
    facts = running.facts()
    os.close(leaked)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)

    check_is(facts, people.a)
    assert facts["status"]["CapBnd"] == NO_CAPABILITY
    assert facts["status"]["NoNewPrivs"] == "1"
    assert facts["helper"] != 0
    path = facts["environ"].pop("PATH")
    assert path.endswith(":/usr/bin:/bin")
    assert facts["environ"].pop(MARK_VARIABLE) == running.child.mark
    facts["environ"].pop("LC_CTYPE", None)  # of the interpreter
    assert facts["environ"] == {
        "HOME": str(people.a.home), "USER": people.a.name, "LOGNAME": people.a.name, "SHELL": "/bin/bash",
        "PWD": str(people.a.home), "LANG": "C.UTF-8", "SITE": "1",
    }  # fmt: skip
    assert facts["sid"] == facts["pid"] == running.child.pid
    assert facts["begin"]["user_endpoint_id"] == facts["config"]["user_endpoint_id"]
    assert facts["config"]["base"] == str(people.a.home / ".farcall")
    outside = Path(f"/proc/{running.child.pid}/status").read_text()
    assert f"Uid:\t{people.a.uid}\t{people.a.uid}\t{people.a.uid}\t{people.a.uid}\n" in outside

    running.child.close()  # as when the manager dies
    running.child.process.wait(60)
    assert running.child.status() == 0


def test_with_pam_a_session_is_open_while_it_lives_with_limits_and_variables(
    start: Start, people: LocalUsers, pam: PamService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARCALL_TOKEN", "of-the-manager")
    before = len(pam.sessions())
    running = start(people.b.name, wish="helper", pam_service=pam.name)
    facts = running.facts()
    check_is(facts, people.b)
    assert facts["nofile"] == [777, 777]
    assert facts["environ"]["FCT_SITE"] == "of-pam"
    assert facts["environ"]["HOME"] == str(people.b.home)
    assert facts["helper"] == 0, "set-user-id programs work, as after a login"
    assert facts["ppid"] == facts["sid"] == running.child.pid
    keeper = Path(f"/proc/{running.child.pid}")
    assert "Uid:\t0\t0\t0\t0\n" in (keeper / "status").read_text()
    assert {each.partition(b"=")[0] for each in (keeper / "environ").read_bytes().split(b"\0")} == {
        b"",
        b"PATH",
        b"LANG",
    }
    assert not any(
        os.readlink(fd).startswith("socket:[") and os.readlink(fd) == facts["fds"][facts["argv"][3]]
        for fd in (keeper / "fd").iterdir()
    )
    assert pam.sessions()[before:] == [f"open_session {people.b.name}"]

    end(running.child, signal.SIGTERM)
    assert running.wait() == -signal.SIGTERM
    assert pam.sessions()[before:] == [f"open_session {people.b.name}", f"close_session {people.b.name}"]


def test_what_pam_tells_people_reaches_them_and_a_session_that_does_not_open_starts_nothing(
    start: Start, people: LocalUsers, pam: PamService
) -> None:
    before = pam.sessions()
    for file, words in ((pam.nologin, "Back on Monday."), (pam.is_closed, "log tells")):
        file.write_text("Maintenance.\nBack on Monday.\n")
        try:
            running = start(people.a.name, pam_service=pam.name)
            failed = running.listen(Failed)
            assert (failed.step, running.wait()) == ("pam", STATUSES["pam"])
            assert words in failed.text
            assert "pam_" in failed.detail
        finally:
            file.unlink()
    assert pam.sessions() == before
    with pam.without_credentials():
        check_is(start(people.a.name, pam_service=pam.name).facts(), people.a)


def test_a_session_is_closed_however_the_agent_ends(start: Start, people: LocalUsers, pam: PamService) -> None:
    opened, closed = f"open_session {people.a.name}", f"close_session {people.a.name}"
    before = len(pam.sessions())
    running = start(people.a.name, wish="status 7", pam_service=pam.name)
    assert running.wait() == 7
    running = start(people.a.name, pam_service=pam.name)
    os.kill(running.facts()["pid"], signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    running = start(people.a.name, wish="deaf", pam_service=pam.name)
    running.facts()
    end(running.child, signal.SIGTERM)  # it does not hear that
    end(running.child, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    running = start(people.a.name, wish="leave", pam_service=pam.name)
    left = running.facts()["left"]
    running.child.line.close()
    assert running.wait() == 0
    assert [pid for pid in left if Path(f"/proc/{pid}").exists()] == []
    assert pam.sessions()[before:] == [opened, closed] * 4


@pytest.mark.parametrize(
    ("who", "members", "step", "words"),
    [
        ("nobody-of-this-name", {}, "account", "no local user"),
        ("root", {}, "account", "is root"),
        (None, {}, "account", "root"),
        ("expired", {"pam": True}, "pam", "expired"),
        ("nobody", {"pam": True, "allows_system_accounts": True}, "pam", "cannot be used"),
        ("nobody", {}, "account", "account of the system"),
        ("homeless", {}, "home", "no home directory"),
        ("a", {"name": "../../etc/x"}, "order", "could not start"),
        ("a", {"template": "wish: {{ wsh }}"}, "template", "wsh"),
        ("a", {"schema": {"properties": {"wish": {"type": "integer"}}}}, "schema", "integer"),
        ("a", {"environment": {"A=B": "c"}}, "environment", "A=B"),
        ("a", {"base": "/etc"}, "home", "Permission denied"),
    ],
)
def test_what_fails_is_told_to_the_submitter_and_by_the_status(
    start: Start, people: LocalUsers, pam: PamService, who: str | None, members: dict, step: str, words: str
) -> None:
    if members.get("pam"):
        members = {**members, "pam_service": pam.name}
        del members["pam"]
    running = start(getattr(people, who).name if who and hasattr(people, who) else who, **members)
    failed = running.listen(Failed)
    assert (failed.step, failed.status) == (step, STATUSES[step])
    assert words in failed.text
    assert "Traceback" not in failed.text
    assert "/root" not in failed.text
    assert running.wait() == STATUSES[step]


@pytest.mark.parametrize(
    "members",
    [{"template": "wish: {{ wsh }}"}, {"schema": {"properties": {"wish": {"type": "integer"}}}}],
    ids=["template", "schema"],
)
def test_a_refused_start_leaves_nothing_in_the_persons_home(start: Start, people: LocalUsers, members: dict) -> None:
    name = f"uep.refused.{'-'.join(members)}"
    running = start(people.a.name, name=name, **members)
    running.listen(Failed)
    running.wait()
    assert not (people.a.home / ".farcall" / name).exists()
    assert start(people.a.name, name=name).facts()["pid"]
    assert (people.a.home / ".farcall" / name / "endpoint.log").is_file()


@pytest.mark.parametrize("is_asked", [True, False], ids=["pam", "no-pam"])
def test_users_cannot_reach_each_other_nor_the_manager(
    start: Start, people: LocalUsers, pam: PamService, tmp_path: Path, is_asked: bool
) -> None:
    secret = tmp_path / "credentials.json"
    secret.write_text("of the manager")
    secret.chmod(0o600)
    key, libc = _add_key_to_our_session(), ctypes.CDLL(None)
    other = start(people.b.name)
    its = other.facts()
    (people.b.home / "data").write_text("of b")
    (people.b.home / "data").chmod(0o666)
    journal = people.b.home / ".farcall" / its["argv"][1] / "endpoint.log"
    read = [
        str(secret),
        "/etc/shadow",
        str(people.b.home / "data"),
        str(journal),
        f"/proc/{its['pid']}/environ",
        f"/proc/{its['pid']}/mem",
    ]
    aims = {
        "read": read,
        "list": [str(people.b.home), f"/proc/{its['pid']}/fd", f"/proc/{os.getpid()}/fd"],
        "signal": [os.getpid(), its["pid"]],
        "keyctl_read": [] if key is None else [_KEYCTL[platform.machine()], 11, key, 0, 0],
    }
    service = pam.name if is_asked else None
    facts = start(people.a.name, wish="attack " + json.dumps(aims), pam_service=service).facts()
    refused = {"Permission denied", "Operation not permitted"}
    assert {aim: got for aim, got in facts["attempts"].items() if got not in refused} == {}
    assert facts["key"] == -1
    if key is not None:
        assert libc.syscall(*[ctypes.c_long(each) for each in aims["keyctl_read"]]) >= 0, (
            "we ourselves can read the key"
        )


_KEYCTL = {"x86_64": 250, "aarch64": 219}


def _add_key_to_our_session() -> int | None:
    add = {"x86_64": 248, "aarch64": 217}.get(platform.machine())
    libc = ctypes.CDLL(None)
    if add is None or libc.syscall(ctypes.c_long(_KEYCTL[platform.machine()]), 1, None) < 0:
        return None
    key = libc.syscall(ctypes.c_long(add), b"user", b"farcall-test", b"secret", ctypes.c_size_t(6), ctypes.c_long(-3))
    return key if key > 0 else None


def test_nothing_that_a_user_or_an_environment_plants_is_imported(
    start: Start, people: LocalUsers, monkeypatch
) -> None:
    trap = "import os; open('/tmp/farcall-trap-%d' % os.getuid(), 'w'); raise SystemExit(99)\n"
    home = people.a.home
    usersite = home / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    usersite.mkdir(parents=True)
    for directory in (home, usersite):
        for name in ("jinja2", "yaml", "jsonschema", "ctypes", "json", "usercustomize", "sitecustomize", "farcall"):
            (directory / f"{name}.py").write_text(trap)
    subprocess.run(["chown", "-R", people.a.name, str(home)], check=True)
    monkeypatch.setenv("PYTHONPATH", str(home))
    monkeypatch.setenv("PYTHONUSERBASE", str(home / ".local"))
    monkeypatch.setenv("PYTHONSTARTUP", str(home / "json.py"))
    monkeypatch.chdir(home)
    try:
        running = start(people.a.name)
        assert running.facts()["resuid"] == [people.a.uid] * 3
        assert not list(Path("/tmp").glob("farcall-trap-*"))
    finally:
        for path in [*home.glob("*.py"), *usersite.glob("*.py"), *Path("/tmp").glob("farcall-trap-*")]:
            path.unlink()


def test_links_in_a_home_directory_gain_nothing(start: Start, people: LocalUsers) -> None:
    target = people.a.home / "notes"
    target.write_text("untouched")
    os.chown(target, people.a.uid, people.a.gid)

    def refused(number: int) -> str:
        running = start(people.a.name, name=f"uep.links.{number}")
        failed = running.listen(Failed)
        assert failed.step == "home"
        assert running.wait() == STATUSES["home"]
        return failed.detail

    base = people.a.home / ".farcall"
    for number, make in enumerate(("ln -s {target} {dir}/endpoint.log", "mkfifo {dir}/endpoint.log")):
        directory = base / f"uep.links.{number}"
        assert people.a.run("mkdir", "-p", str(directory)).returncode == 0
        assert people.a.run("sh", "-c", make.format(target=target, dir=directory)).returncode == 0
        directory.chmod(0o755)
        refused(number)
        assert private(directory)
    assert people.a.run("ln", "-s", str(people.b.home), str(base / "uep.links.2")).returncode == 0
    refused(2)
    os.mkdir(base / "uep.links.3")  # of root's
    assert "somebody else" in refused(3)
    assert target.read_text() == "untouched"


def test_an_order_larger_than_any_socket_buffer_does_not_hold_up_the_manager(start: Start, people: LocalUsers) -> None:
    running = start(
        people.a.name, user_options={"wish": "facts", "more": "x" * 3_000_000}, parent_config={"y": "y" * 3_000_000}
    )
    assert running.child.has_unsent
    assert running.facts()["config"]["config"] == 'wish: "facts"\n'


def test_it_outlives_the_thread_that_started_it_and_its_end_is_noticed_on_old_kernels_too(
    start: Start, people: LocalUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    found: list[Running] = []
    thread = threading.Thread(target=lambda: found.append(start(people.a.name)))
    thread.start()
    thread.join()
    (running,) = found
    assert running.facts()["resuid"] == [people.a.uid] * 3
    running.child.line.close()
    assert running.wait() == 0


def test_a_manager_whose_kernel_would_let_privileges_come_back_starts_nothing(
    site: tuple[str, str, str], people: LocalUsers
) -> None:
    """Secure bits that keep capabilities over setresuid, and locked: the launcher must notice."""
    script = f"""
import sys; sys.path.insert(0, {site[2]!r})
from farcall.endpoint.manager.spawn import spawn
from farcall.endpoint.manager.line import *
child = spawn(Order(name="uep.x", user_endpoint_id="x", manager_name="m", template="a: 1",
                    local_user={people.a.name!r}),
              Begin(user_endpoint_id="x", queues={{}}), interpreter={site[0]!r})
child.line.setblocking(True)
print(read_exactly_one(child.line).step, child.process.wait())
"""
    done = subprocess.run(
        ["setpriv", "--securebits", "+no_setuid_fixup,+no_setuid_fixup_locked", site[0], "-I", "-c", script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["privileges", str(STATUSES["privileges"])], done.stderr


@pytest.mark.parametrize("call", ["setresuid", "setresgid", "setgroups"])
def test_a_drop_that_does_not_drop_is_noticed(people: LocalUsers, site: tuple[str, str, str], call: str) -> None:
    script = f"""
import os, sys; sys.path.insert(0, {site[2]!r})
from farcall.endpoint.manager.accounts import local_account
from farcall.endpoint.manager.privileges import become
account = local_account({people.a.name!r})
os.setgroups([0])
os.{call} = lambda *ids: None
try:
    become(account, account.groups, keeps_helpers=False)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    done = subprocess.run([site[0], "-I", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("PrivilegesRemain"), done


def test_capabilities_that_a_manager_passes_on_to_its_programs_reach_no_user(
    site: tuple[str, str, str], people: LocalUsers
) -> None:
    script = f"""
import sys, json; sys.path.insert(0, {site[2]!r})
from farcall.endpoint.manager.spawn import spawn
from farcall.endpoint.manager.line import *
child = spawn(Order(name="uep.caps", user_endpoint_id="x", manager_name="m", local_user={people.a.name!r},
                    template="wish: {{{{ wish }}}}", user_options={{"wish": "facts"}},
                    environment={{"PATH": {site[1]!r}}}),
              Begin(user_endpoint_id="x", queues={{}}), interpreter={site[0]!r})
child.line.setblocking(True)
read_exactly_one(child.line)
print(read_exactly_one(child.line).config)
"""
    done = subprocess.run(
        ["setpriv", "--inh-caps=+net_admin,+kill", "--ambient-caps=+net_admin", site[0], "-I", "-c", script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    check_is(json.loads(done.stdout), people.a)


def test_without_root_it_stays_who_it_is_and_becomes_nobody_else(
    site: tuple[str, str, str], people: LocalUsers
) -> None:
    script = f"""
import sys, json; sys.path.insert(0, {site[2]!r})
from farcall.endpoint.manager.spawn import spawn
from farcall.endpoint.manager.line import *
for user in None, {people.b.name!r}:
    child = spawn(Order(name="uep.own", user_endpoint_id="x", manager_name="m", local_user=user,
                        template="wish: {{{{ wish }}}}", user_options={{"wish": "facts"}},
                        environment={{"PATH": {site[1]!r}}}),
                  Begin(user_endpoint_id="x", queues={{}}), interpreter={site[0]!r})
    child.line.setblocking(True)
    heard = read_exactly_one(child.line)
    if isinstance(heard, Failed):
        print(heard.step)
    else:
        facts = json.loads(read_exactly_one(child.line).config)
        print(facts["resuid"][0], facts["environ"]["KEPT"], facts["environ"].get("FARCALL_TOKEN"), facts["umask"])
    child.close(); child.process.wait()
"""
    done = subprocess.run(
        ["setpriv", f"--reuid={people.a.uid}", f"--regid={people.a.gid}", "--init-groups", site[0], "-I", "-c", script],
        capture_output=True, text=True, timeout=60,
        env={"HOME": str(people.a.home), "KEPT": "kept", "FARCALL_TOKEN": "secret", "PATH": DEFAULT_PATH}, cwd="/",
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{people.a.uid} kept None {0o077}", "account"], done.stderr


def test_without_a_program_of_the_sites_ours_is_run_and_the_home_directory_is_no_import_path(
    start: Start, people: LocalUsers
) -> None:
    for name in ("click", "farcall", "json"):
        (people.a.home / f"{name}.py").write_text("raise SystemExit(99)\n")
    try:
        running = start(people.a.name, environment={"PATH": "relative:/usr/bin"}, template="engine: nonsense")
        assert running.listen(Failed).step == "run", "which the agent says: the probe's queues are none"
        assert running.wait() == 76
    finally:
        for path in people.a.home.glob("*.py"):
            path.unlink()
