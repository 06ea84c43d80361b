"""Keeps a process running, as systemd would: whatever ends is started again, until it is told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["RESTART_S", "Supervised"]

RESTART_S = 1.0
_STOP_S = 40.0


class Supervised:
    """One command that is to run all the time.

    Args:
        name: for people.
        log: what it prints is appended here.
        on_line: gets each line of its standard output instead (in a thread of ours).
        ends: status 0 means that it is done; else it is started again after that, too.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None] | None = None,
        ends: bool = False,
    ) -> None:
        self.name = name
        self.is_finished = threading.Event()
        self.starts = 0
        self.unexpected: list[int] = []
        """Statuses with which it ended although nobody had killed it."""
        self._command, self._env, self._log = list(command), dict(env), log
        self._on_line, self._ends = on_line, ends
        self._stopping = threading.Event()
        self._pause_s: float | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_running, name=f"supervisor of {name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """None while it is down."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        self._thread.start()

    def kill(self, restart_s: float = RESTART_S) -> bool:
        """SIGKILL; it is started again after `restart_s`. False: it is down already."""
        with self._lock:
            if self.pid is None:
                return False
            self._pause_s = restart_s
            return self._signal(signal.SIGKILL)

    def freeze(self) -> Callable[[], None] | None:
        """SIGSTOP; what is returned lets it go on. None: it is down."""
        pid = self.pid
        if pid is None or not self._signal(signal.SIGSTOP):
            return None

        def thaw() -> None:
            if self.pid == pid:
                self._signal(signal.SIGCONT)

        return thaw

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help; not started again."""
        self._stopping.set()
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join(_STOP_S)

    def _signal(self, number: int) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            return False
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _keep_running(self) -> None:
        while not self._stopping.is_set():
            status = self._run_once()
            if status == 0 and self._ends:
                self.is_finished.set()
                return
            with self._lock:
                pause_s, self._pause_s = self._pause_s, None
            if pause_s is None and not self._stopping.is_set():
                self.unexpected.append(status)
            self._stopping.wait(RESTART_S if pause_s is None else pause_s)

    def _run_once(self) -> int:
        self.starts += 1
        with open(self._log, "a") as log:
            process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._on_line else log,
                stderr=log,
                text=True,
            )
        self._process = process
        if self._stopping.is_set():
            process.terminate()
        if self._on_line is not None and process.stdout is not None:
            for line in process.stdout:
                self._on_line(line)
            process.stdout.close()
        return process.wait()
