"""The process that keeps a PAM session: root, a fork of the launcher, and idle until the agent ends.

It passes signals on, ends what the agent leaves behind, closes the session and ends as the agent has ended. It holds
neither the line nor anything of the user's; after the fork it executes nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from farcall.endpoint.manager.accounts import LocalAccount
from farcall.endpoint.manager.leftovers import end_adopted
from farcall.endpoint.manager.marks import KILL_CHILD_SIGNAL
from farcall.endpoint.manager.pam import PamSession
from farcall.endpoint.manager.privileges import end_with_parent, take_in_orphans

__all__ = ["InSession", "enter_session"]

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_AWAITED: Final = frozenset({*_PASSED_ON, KILL_CHILD_SIGNAL, signal.SIGCHLD})
_LEFTOVERS_GRACE_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class InSession:
    """What the child takes along: groups that it has in the session, and variables that modules set."""

    keeper_pid: int
    groups: Sequence[int]
    environment: dict[str, str]


def enter_session(service: str, account: LocalAccount, *, line_fd: int, is_tied: bool) -> InSession:
    """Open a session and fork; returns only in the child, which is still root, with the signals of a keeper blocked.

    Args:
        is_tied: the kernel shall tell when the manager's main thread ends.

    Raises:
        PamRefused: there is no session, and no child.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # a session that is half open could not be closed
    os.setgroups(account.groups)  # before modules add to them (pam_setcred(3))
    session = PamSession.open(service, account.name)
    inside = InSession(keeper_pid=os.getpid(), groups=os.getgroups(), environment=session.environment)
    try:
        child = os.fork()
    except OSError:
        session.close()
        raise
    if child == 0:
        return inside
    with contextlib.suppress(OSError):
        os.close(line_fd)
    try:
        if is_tied:
            end_with_parent(signal.SIGTERM)
        take_in_orphans()
        gc.collect()
        status = _wait(child)
        end_adopted(grace_s=_LEFTOVERS_GRACE_S)
    finally:
        session.close()
    return _end_like(status)


def _wait(child: int) -> int:
    """The child's wait status, when it has ended."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number in _PASSED_ON:
            os.kill(child, signal.SIGTERM)
        elif number == KILL_CHILD_SIGNAL:
            os.kill(child, signal.SIGKILL)
        else:
            status = _reap(child)
            if status is not None:
                return status


def _reap(child: int) -> int | None:
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if ended[0] == child:
                found = ended[1]
    return found


def _end_like(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # root's memory is nobody's to find
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
