"""Starting a user endpoint's process, and what the manager holds of it: its line, its end.

The process is a fresh interpreter (`launch.py`) that shares nothing with the manager but one end of the line: no other
descriptor, none of a privileged manager's environment, a session of its own. What happens in it is the launcher's; when
to start, stop and start again is decided in the manager's core; what is left of it at its end is for `leftovers.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import farcall
from farcall.endpoint.manager.line import Begin, Message, Order, pack
from farcall.endpoint.manager.marks import KILL_CHILD_SIGNAL

__all__ = ["Child", "end", "spawn"]

# Isolated: neither the working directory nor anything of the environment is an import path. Where the manager's own
# `farcall` lies is added, in case that is not where this interpreter would look.
_BOOT: Final = (
    "import sys\n"
    "where = sys.argv.pop(1)\n"
    "if where not in sys.path: sys.path.insert(0, where)\n"
    "from farcall.endpoint.manager.launch import main\n"
    "main()"
)
_CLEAN: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(eq=False, kw_only=True)
class Child:
    """A user endpoint's process, while it lives and until its end is noticed. Not for several threads at once.

    Attributes:
        name: of the user endpoint (`Order.name`).
        pid: also the id of its session.
        pidfd: becomes readable when the process has ended; closed by `close`.
        line: the manager's end, non-blocking: read it as you like, write with `send` and `flush`.
        mark: value of MARK_VARIABLE in the environment of whatever it starts; another at each start.
        uid: the local user's; None if it is the manager's own, or the order does not say.
        has_session: the process is a launcher that keeps a PAM session for the agent, which is its child.
    """

    name: str
    pid: int
    pidfd: int
    line: socket.socket
    mark: str
    uid: int | None = None
    has_session: bool = False
    process: subprocess.Popen[bytes] = field(repr=False)
    _kills: int = field(default=0, repr=False)
    _unsent: bytearray = field(default_factory=bytearray, repr=False)

    def send(self, message: Message) -> None:
        """Say something; what the line does not take now waits for `flush`. Silent if the other side is gone.

        Raises:
            LineFault: the message is too long.
        """
        self._unsent += pack(message)
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as the line takes it: call it when `line` is writable and `has_unsent`."""
        try:
            while self._unsent:
                del self._unsent[: self.line.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:  # it has ended, which the line's end and `pidfd` tell
            self._unsent.clear()

    @property
    def has_unsent(self) -> bool:
        """Whether to wait for `line` to be writable."""
        return bool(self._unsent)

    def status(self) -> int | None:
        """How the process ended: its exit status, or the negative number of a signal; None while it lives."""
        return self.process.poll()

    def close(self) -> None:
        """Let go of the line and `pidfd`. The process, if it lives, sees the end of the line."""
        self.line.close()
        if self.pidfd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.pidfd)
            self.pidfd = -1


def spawn(order: Order, begin: Begin, *, interpreter: str = sys.executable) -> Child:
    """Start a launcher; returns as soon as its process exists.

    Both messages are on the line, or in `Child`'s buffer, when this returns. If it is called from the main thread, the
    kernel tells the child when the manager dies; from another it does not, because it would do so when that *thread*
    ends (prctl(2), PR_SET_PDEATHSIG), and only the end of the line tells.

    Args:
        interpreter: Python to run it with; the user must be able to read and execute it.

    Raises:
        LineFault: an order that is too long.
        OSError: no process can be started.
    """
    frames = pack(order) + pack(begin)
    mark = f"{order.name}/{os.urandom(8).hex()}"
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                [interpreter, "-I", "-c", _BOOT, str(Path(farcall.__file__).absolute().parents[1]),
                 "--line-fd", str(theirs.fileno()), "--mark", mark, *(["--tied"] if _is_main_thread() else [])],
                # What goes wrong before there is a log of the user's is told where the manager tells.
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env=_CLEAN if os.geteuid() == 0 else None,
                start_new_session=True,
            )  # fmt: skip
        ours.setblocking(False)
        child = Child(
            name=order.name,
            pid=process.pid,
            pidfd=_watched(process.pid),
            line=ours,
            mark=mark,
            uid=order.mapped_identity.get("local", {}).get("uid"),
            has_session=order.pam_service is not None,
            process=process,
        )
    except BaseException:
        ours.close()
        raise
    child._unsent += frames
    child.flush()
    return child


def end(child: Child, signal_number: int) -> None:
    """Send a signal to a user endpoint: SIGTERM ends it in order, SIGKILL at once. Nothing happens if it has ended.

    With a PAM session the launcher passes it on, and closes the session after the agent. A second SIGKILL is for the
    launcher itself, in case a PAM module keeps it.
    """
    if signal_number == signal.SIGKILL:
        child._kills += 1
        if child.has_session and child._kills == 1:
            signal_number = KILL_CHILD_SIGNAL
    child.process.send_signal(signal_number)  # looks first whether the process has been waited for


def _is_main_thread() -> bool:
    return threading.get_native_id() == os.getpid()


def _watched(pid: int) -> int:
    """A descriptor that becomes readable when a child of ours has ended."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # a kernel before 5.3
        reader, writer = os.pipe()

        def wait() -> None:
            with contextlib.suppress(OSError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            os.close(writer)

        threading.Thread(target=wait, name=f"wait-{pid}", daemon=True).start()
        return reader
