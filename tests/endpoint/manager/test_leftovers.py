"""Nothing of a user endpoint survives it, and nothing of another's is ended."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from farcall.endpoint.manager.leftovers import Adopted, adopted, end_leftovers, left_by, reap
from farcall.endpoint.manager.privileges import take_in_orphans
from farcall.endpoint.manager.spawn import end
from local_users import LocalUsers, PamService

from .conftest import Start


@dataclass(frozen=True)
class Gone:
    pid: int = 100
    mark: str = "uep.a/1"
    uid: int | None = 1001


SAME_USER = Gone(200, "uep.b/1", 1001)
OTHER_USER = Gone(300, "uep.c/1", 1002)


@pytest.mark.parametrize(
    ("process", "living", "is_left"),
    [
        (Adopted(pid=7, session=100, uid=1001, mark=None), [SAME_USER], True),
        (Adopted(pid=7, session=7, uid=1001, mark="uep.a/1"), [SAME_USER], True),
        (Adopted(pid=7, session=7, uid=1001, mark="uep.a/2"), [], True),  # of an earlier start, which is gone, too
        (Adopted(pid=7, session=200, uid=1001, mark=None), [SAME_USER], False),
        (Adopted(pid=7, session=7, uid=1001, mark="uep.b/1"), [SAME_USER], False),
        (Adopted(pid=7, session=7, uid=1001, mark=None), [SAME_USER], False),
        (Adopted(pid=7, session=7, uid=1001, mark=None), [OTHER_USER], True),
        (Adopted(pid=7, session=7, uid=0, mark=None), [OTHER_USER], False),
        (Adopted(pid=7, session=7, uid=0, mark=None), [], True),
        (Adopted(pid=7, session=300, uid=1002, mark="uep.a/1"), [OTHER_USER], False),  # a mark that somebody copied
    ],
)
def test_whose_an_orphan_is(process: Adopted, living: list[Gone], is_left: bool) -> None:
    assert bool(left_by(Gone(), [process], living)) is is_left


def is_alive(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


WITHOUT_ITS_FIRST_THREAD = """
import ctypes, signal, threading
libc = ctypes.CDLL(None)
libc.pthread_self.restype = ctypes.c_ulong
libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
first = libc.pthread_self()
def go_on():
    libc.pthread_join(first, None)
    print("alone", flush=True)
    libc.pause()
threading.Thread(target=go_on).start()
libc.pthread_exit(None)
"""
MAKES_ONE_END = f"""
import subprocess, sys
from farcall.endpoint.manager.leftovers import end_adopted
left = subprocess.Popen([sys.executable, "-c", {WITHOUT_ITS_FIRST_THREAD!r}], stdout=subprocess.PIPE)
assert left.stdout.readline() == b"alone\\n"
print(end_adopted(grace_s=0))
assert left.stdout.read() == b""
"""


def test_a_process_whose_first_thread_has_ended_is_ended_too() -> None:
    done = subprocess.run([sys.executable, "-c", MAKES_ONE_END], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.system
@pytest.mark.xdist_group("local-users")
def test_what_a_killed_user_endpoint_leaves_is_ended_and_anothers_orphans_live_on(
    start: Start, people: LocalUsers
) -> None:
    take_in_orphans()  # until the end of this test: others' orphans are not for pytest
    ours = subprocess.Popen(["sleep", "1000"])
    try:
        of_a, of_b = start(people.a.name, wish="leave"), start(people.b.name, wish="leave")
        left, kept = of_a.facts()["left"], of_b.facts()["left"]
        os.kill(kept[0], signal.SIGKILL)
        kept = kept[1:]
        end(of_a.child, signal.SIGKILL)
        assert of_a.wait() == -signal.SIGKILL
        assert {each.pid for each in adopted([of_b.child.pid])} == set(left)

        assert end_leftovers(of_a.child, lambda: [of_b.child], grace_s=0.3) == len(left) + 1, (
            "what the deaf one started"
        )
        assert [pid for pid in left if is_alive(pid)] == []
        assert all(map(is_alive, kept))
        assert is_alive(ours.pid)

        end(of_b.child, signal.SIGKILL)
        of_b.wait()
        os.kill(kept[0], signal.SIGKILL)
        select.select([os.pidfd_open(kept[0])], [], [])
        reap([])
        assert not Path(f"/proc/{kept[0]}").exists()
        assert end_leftovers(of_b.child, list, grace_s=0) == len(kept)
        assert is_alive(ours.pid)
    finally:
        ours.kill()
        ours.wait()
        assert ctypes.CDLL(None).prctl(36, 0, 0, 0, 0) == 0


MANAGER = """
import sys, json, signal; sys.path.insert(0, {source!r})
from farcall.endpoint.manager.spawn import spawn
from farcall.endpoint.manager.line import *
from farcall.endpoint.manager.privileges import take_in_orphans
take_in_orphans()
for pam in None, {pam!r}:
    child = spawn(Order(name="uep.k.%s" % bool(pam), user_endpoint_id="x", manager_name="m", local_user={user!r},
                        pam_service=pam, template="wish: {{{{ wish }}}}", user_options={{"wish": "stuck"}},
                        environment={{"PATH": {path!r}}}),
                  Begin(user_endpoint_id="x", queues={{}}), interpreter={interpreter!r})
    child.line.setblocking(True)
    read_exactly_one(child.line)
    facts = json.loads(read_exactly_one(child.line).config)
    print(json.dumps([child.pid, facts["pid"]]), flush=True)
    globals()["kept%s" % bool(pam)] = child
signal.pause()
"""


@pytest.mark.system
@pytest.mark.xdist_group("local-users")
@pytest.mark.parametrize("victim", ["manager", "keeper", "agent"])
def test_after_kill_9_of_any_of_them_the_others_end(
    site: tuple[str, str, str], people: LocalUsers, pam: PamService, victim: str
) -> None:
    before = len(pam.sessions())
    script = MANAGER.format(source=site[2], pam=pam.name, user=people.a.name,
                            path=site[1], interpreter=site[0])  # fmt: skip
    manager = subprocess.Popen([site[0], "-I", "-c", script], stdout=subprocess.PIPE, text=True)
    assert manager.stdout is not None
    with manager.stdout:
        plain, kept = (json.loads(manager.stdout.readline()) for _ in range(2))
    pids = {*plain, *kept}
    watched = {pid: os.pidfd_open(pid) for pid in pids}
    os.kill({"manager": manager.pid, "keeper": kept[0], "agent": kept[1]}[victim], signal.SIGKILL)
    expected = pids if victim == "manager" else set(kept)
    ended = {pid for pid in expected if select.select([watched[pid]], [], [], 60)[0]}
    assert ended == expected
    if victim != "manager":
        assert is_alive(plain[1]), "the other user endpoint lives on"
        manager.kill()
        assert select.select([watched[plain[1]]], [], [], 60)[0]
    manager.wait()
    if victim != "keeper":
        assert pam.sessions()[before:] == [f"open_session {people.a.name}", f"close_session {people.a.name}"]
    for fd in watched.values():
        os.close(fd)
