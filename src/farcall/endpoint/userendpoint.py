"""A user endpoint from its manager's first word to its end: a run that is begun, renewed and stopped by the line.

Composes `process` with the line. What ends it: its own idleness or failure, the manager's word, a signal, and the end
of the line, after which nothing may keep it: in order within the grace period, then at once, then by force.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farcall.endpoint.agent.line import ManagerLine
from farcall.endpoint.agent.runner import Progress
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.handed import Handed
from farcall.endpoint.logfile import configure_logging
from farcall.endpoint.manager.line import Credentials, Failed, LineFault, State, Stop
from farcall.endpoint.pidfile import AlreadyRunning
from farcall.endpoint.process import EndpointRun, ExitStatus, Failure, Quiet

__all__ = ["Handover", "UserEndpoint", "read_handover"]

log = logging.getLogger(__name__)

AT_ONCE_S: Final = 5.0
"""How long what should end at once may take until the process ends by force."""
_ADMINISTRATORS: Final = "Its log tells more: endpoint.log in the user endpoint's directory."


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """What the launcher leaves in the file. `base`: directory of the user endpoint's directory."""

    name: str
    base: Path
    config: str
    is_debug: bool = False


def read_handover(fd: int, name: str) -> Handover:
    """Read it, and close the file.

    Raises:
        LineFault: it is not for `name`, or makes no sense.
    """
    try:
        with open(fd, "rb") as file:
            document = json.load(file)
        handover = Handover(
            name=document["name"],
            base=Path(document["base"]) if document.get("base") else Path.home() / ".farcall",
            config=document["config"],
            is_debug=bool(document.get("is_debug")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise LineFault(f"a configuration file that cannot be read ({exc})") from exc
    if handover.name != name:
        raise LineFault(f"a configuration of {handover.name!r} for {name!r}")
    return handover


class UserEndpoint:
    """One user endpoint. `run` blocks; `stop` from any thread or signal handler, as often as one likes.

    Args:
        handover: from the launcher.
        line: the agent's end.
        run_options: for `EndpointRun`; doubles in tests.
        end_by_force: ends this process with a status, whatever hangs.
    """

    def __init__(
        self,
        handover: Handover,
        line: socket.socket,
        *,
        end_by_force: Callable[[int], Any] = os._exit,
        **run_options: Any,  # as of EndpointRun
    ) -> None:
        self._handover = handover
        self._line = ManagerLine(line)
        self._run_options = run_options
        self._end_by_force = end_by_force
        self._handed: Handed | None = None
        self._run: EndpointRun | None = None
        self._is_stopped = False
        self._has_ended = threading.Event()
        self._was_online = False

    def stop(self) -> None:
        """End in order."""
        if not self._is_stopped:
            self._is_stopped = True
            if self._run is not None:
                self._run.stop()

    def run(self) -> int:
        """Work until the end.

        Returns:
            The exit status; the manager was told of a failure.
        """
        failure: Failure | None = None
        try:
            status, failure = self._work()
        except LineFault as exc:
            text = f"The user endpoint and its manager do not understand each other: {exc}"
            status, failure = 76, Failure(step="run", text=text, status=76)
        except OSError as exc:
            text = f"The user endpoint's directory cannot be used: {exc}. Make room or access there, and submit again."
            status, failure = ExitStatus.IO, Failure(step="run", text=text, status=ExitStatus.IO)
        finally:
            self._has_ended.set()
        self._line.close()
        if failure is not None and _is_told(failure):
            self._line.send(Failed(step=failure.step, text=_for_submitter(failure), status=failure.status))
        return status

    def _work(self) -> tuple[int, Failure | None]:
        directory = EndpointDirectory(self._handover.base / self._handover.name)
        directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        configure_logging(directory.log_path, is_debug=self._handover.is_debug)
        begin = self._line.begin()
        if begin is None:
            log.info("The manager was gone before anything began.", extra={"event": "line.ended"})
            return ExitStatus.OK, None
        self._handed = Handed(self._handover.config, begin, self._line)
        run = EndpointRun(
            directory, self._handed, announcer=Quiet(), on_progress=self._on_progress, **self._run_options
        )
        self._run = run
        if self._is_stopped:
            run.stop()
        self._line.tell(State(phase="starting"))
        self._line.start(on_stop=self._on_stop, on_credentials=self._on_credentials, on_gone=self._on_gone)
        status = run.run()
        return status, run.failure

    # What the manager says; on the line's thread ---------------------------------------------------------------

    def _on_stop(self, stop: Stop) -> None:
        log.info("The manager ends this user endpoint.", extra={"event": "endpoint.stopped", "reason": stop.reason})
        self.stop()
        if stop.is_at_once and self._run is not None:
            self._run.stop(at_once=True)

    def _on_credentials(self, credentials: Credentials) -> None:
        assert self._handed is not None
        self._handed.renew(credentials)

    def _on_gone(self) -> None:
        """Nobody may need a process that nobody watches: it ends within the grace period, whatever hangs."""
        if self._has_ended.is_set():
            return
        log.warning("The manager is gone; this user endpoint ends.", extra={"event": "line.ended"})
        self.stop()
        assert self._run is not None
        if self._has_ended.wait(self._run.grace_s + AT_ONCE_S):
            return
        self._run.stop(at_once=True)
        if not self._has_ended.wait(AT_ONCE_S):
            log.error("This user endpoint hangs; it ends by force.", extra={"event": "endpoint.hangs"})
            self._end_by_force(ExitStatus.SOFTWARE)

    # What it is told; on the run's thread ----------------------------------------------------------------------

    def _on_progress(self, progress: Progress) -> None:
        self._was_online = self._was_online or progress.is_connected
        idle_until_unix = None
        if progress.idle_until_s is not None:
            idle_until_unix = float(round(time.time() + progress.idle_until_s - time.monotonic()))
        self._line.tell(
            State(
                phase=self._phase(progress),
                running=progress.running,
                queued=progress.queued,
                executed=progress.executed,
                idle_until_unix=idle_until_unix,
            )
        )

    def _phase(self, progress: Progress) -> str:
        if progress.is_stopping:
            return "stopping"
        if progress.is_connected:
            return "online"
        return "offline" if self._was_online else "starting"


def _is_told(failure: Failure) -> bool:
    """A damaged journal is the next process's to get over, which begins without it: the manager hears of a death."""
    return failure.status != ExitStatus.IO or failure.error is not None


def _for_submitter(failure: Failure) -> str:
    if isinstance(failure.error, AlreadyRunning):
        return f"Another instance of this endpoint is running: {failure.error}"
    if isinstance(failure.error, OSError):
        what = f"{failure.error.filename or ''} {failure.error.strerror or failure.error}".strip()
        return f"The user endpoint's directory cannot be used: {what}. Make room or access there, and submit again."
    if failure.status == ExitStatus.SOFTWARE and failure.error is not None:
        return f"The user endpoint failed unexpectedly. {_ADMINISTRATORS}"
    return failure.text
