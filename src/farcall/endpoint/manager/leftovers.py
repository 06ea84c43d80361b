"""What a user endpoint leaves behind: found among the processes that the kernel gave the manager, and ended.

A manager is the parent of every descendant whose own parent has ended (`privileges.take_in_orphans`). So whatever it
has as a child, and has not started, comes from a user endpoint; nobody else's process can ever be meant, and because
only the manager can reap such a child, and whoever reaps in it keeps out of the others' way (`guard`), no number can
be another process's by the time it gets a signal. When those end, their children come to the manager in turn: nothing
has to be searched for in depth.

Whose it is, if several user endpoints live: its session, or the mark in its environment. A process that has left both
behind (sudo, `env -i setsid`) counts as the gone one's if no other user endpoint of that uid lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from farcall.endpoint.manager.marks import MARK_VARIABLE

__all__ = ["Adopted", "Origin", "adopted", "end_adopted", "end_leftovers", "left_by", "reap"]


class Origin(Protocol):
    """As much of a `spawn.Child` as matters here."""

    @property
    def pid(self) -> int: ...
    @property
    def mark(self) -> str: ...
    @property
    def uid(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A child that we have not started. `mark` is None if its environment has none, or cannot be read."""

    pid: int
    session: int
    uid: int
    mark: str | None
    is_zombie: bool = False


def left_by(gone: Origin, found: Iterable[Adopted], living: Collection[Origin]) -> list[Adopted]:
    """Which of them the gone user endpoint has left; pure.

    Args:
        living: all others that live.
    """
    uids = {each.uid for each in living}
    left = []
    for each in found:
        if each.session == gone.pid:
            left.append(each)
        elif any(each.session == one.pid for one in living):
            continue
        elif _is_marked(each, gone):
            left.append(each)
        elif any(_is_marked(each, one) for one in living):
            continue
        elif not living or (each.uid == gone.uid and gone.uid not in uids):
            left.append(each)
    return left


def _is_marked(process: Adopted, origin: Origin) -> bool:
    """Anybody can write any mark into their own environment: it counts for that user, and for whom root works there."""
    return process.mark == origin.mark and (origin.uid is None or process.uid in (origin.uid, 0))


def end_leftovers(
    gone: Origin,
    living: Callable[[], Collection[Origin]],
    *,
    grace_s: float,
    guard: contextlib.AbstractContextManager[Any] | None = None,
) -> int:
    """End what `gone`, which has ended and been waited for, has left: in order first, after `grace_s` seconds at once.

    Blocks until they are gone, or cannot be ended (a file system that does not answer) for ten seconds more; call it in
    a thread. What the others have left so far stays.

    Args:
        living: all others that live, also those that were started meanwhile.
        guard: held while it looks and signals, by whoever starts one until `living` has it, and by whoever calls
            `reap`; reusable.

    Returns:
        How many there were.
    """

    def look() -> list[Adopted]:
        others = living()
        return left_by(gone, adopted({each.pid for each in others}), others)

    return _end(look, grace_s, guard or contextlib.nullcontext())


def end_adopted(*, grace_s: float) -> int:
    """End every child of this process, which has not started any that still lives. See `end_leftovers`."""
    return _end(lambda: list(_children()), grace_s, contextlib.nullcontext())


def reap(started: Collection[int]) -> None:
    """Take the status of what has ended and was not started by us, or it stays in the process table: at each SIGCHLD.

    Quick; what hides behind an ended process of ours is seen when that one's status has been taken.

    Args:
        started: ids of the user endpoints' processes, whose status somebody wants.
    """
    session = os.getsid(0)
    with contextlib.suppress(ChildProcessError, ProcessLookupError):  # no child has ended, or it is taken already
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in started or os.getsid(ended.si_pid) == session:
                return
            _wait(ended.si_pid)


def adopted(started: Collection[int]) -> list[Adopted]:
    """Our children that we have not started: not in `started`, and not of our own session, in which a manager runs all
    its other programs (an identity mapping's, for one). [] where there is no /proc."""
    session = os.getsid(0)
    return [each for each in _children() if each.pid not in started and each.session != session]


_HOPELESS_S = 10.0
_LOOK_AGAIN_S = 0.5


def _end(look: Callable[[], list[Adopted]], grace_s: float, guard: contextlib.AbstractContextManager[Any]) -> int:
    begun = time.monotonic()
    asked: set[int] = set()
    while True:
        with guard:
            found = look()
            passed_s = time.monotonic() - begun
            alive = _signalled(found, asked, is_over=passed_s >= grace_s)
        if not found or passed_s > grace_s + _HOPELESS_S:
            return len(asked)
        left_s = grace_s - passed_s
        _wait_for_one(alive, min(left_s, _LOOK_AGAIN_S) if left_s > 0 else _LOOK_AGAIN_S)


def _signalled(found: list[Adopted], asked: set[int], *, is_over: bool) -> list[int]:
    """Take the status of those that have ended, and have the others end; `asked` knows who was told so before.

    Returns:
        Their ids.
    """
    alive = []
    for each in found:
        if each.is_zombie and _wait(each.pid):
            continue
        alive.append(each.pid)
        if is_over or each.pid not in asked:
            asked.add(each.pid)
            with contextlib.suppress(OSError):
                os.kill(each.pid, signal.SIGKILL if is_over else signal.SIGTERM)
                os.kill(each.pid, signal.SIGCONT)
    return alive


def _children() -> Iterator[Adopted]:
    parent = os.getpid()
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and (each := _look(int(entry), parent)) is not None:
                yield each


def _wait_for_one(pids: list[int], patience_s: float) -> None:
    """Until one of our children has ended, or it takes too long."""
    watched = []
    try:
        for pid in pids:
            watched.append(os.pidfd_open(pid))
        if watched:
            poll = select.poll()
            for fd in watched:
                poll.register(fd, select.POLLIN)
            poll.poll(patience_s * 1000)
    except (AttributeError, OSError):  # a kernel before 5.3, or too many open files
        time.sleep(min(patience_s, 0.05))
    finally:
        for fd in watched:
            os.close(fd)


def _wait(pid: int) -> bool:
    """Take its status; False: only its first thread has ended, and others go on (`Z` in its `stat` as well)."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _look(pid: int, parent: int) -> Adopted | None:
    """The process, if it is a child of `parent`'s. Source: proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, ppid, _, session, *_ = file.read().rpartition(b")")[2].split()
        if int(ppid) != parent:
            return None
        return Adopted(
            pid=pid,
            session=int(session),
            uid=_uid(pid),
            mark=_mark(pid),
            is_zombie=state in b"ZX",
        )
    except OSError:
        return None


def _uid(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        line = next(line for line in file if line.startswith("Uid:"))
    return int(line.split()[1])


def _mark(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            members = file.read().split(b"\0")
    except OSError:
        return None
    head = f"{MARK_VARIABLE}=".encode()
    return next((each[len(head) :].decode(errors="replace") for each in members if each.startswith(head)), None)
