"""A shell command of the site's, before the engine starts or after it has ended: run, heard, ended with all its own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from farcall.wire.errors import FarcallError

__all__ = ["SetupFailed", "SiteCommand"]

log = logging.getLogger(__name__)

TAIL_CHARS: Final = 4000


class SetupFailed(FarcallError):
    """The site's own `endpoint_setup` ended with an error."""

    code = "ENDPOINT_SETUP_FAILED"

    def __init__(self, status: int, output: str) -> None:
        super().__init__(status, output)
        self.status = status
        self.output = output

    def __str__(self) -> str:
        return f"endpoint_setup ended with status {self.status}; the endpoint does not start.\n{self.output}".rstrip()


class SiteCommand:
    """Runs once. `end` from any thread or signal handler, also before `run`.

    Args:
        command: for bash.
        key: of the configuration, which it comes from.
        directory: where it runs.
    """

    def __init__(self, command: str, key: str, directory: Path) -> None:
        self._command = command
        self._key = key
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.is_ended = False
        """Whether it was told to end: what `run` says then is of no interest."""

    def run(self) -> None:
        """Run it to its end.

        Raises:
            SetupFailed: its status is not 0.
            OSError: there is no bash.
        """
        log.info("Running the site's command.", extra={"event": "endpoint.shell", "key": self._key})
        with subprocess.Popen(
            ["/bin/bash", "-c", self._command],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "FARCALL_ENDPOINT_DIR": str(self._directory), "FARCALL_PYTHON": sys.executable},
            start_new_session=True,  # so that it can be ended with what it has started
        ) as self._process:
            if self.is_ended:
                self.end()
            output, _ = self._process.communicate()
        status, tail = self._process.returncode, output[-TAIL_CHARS:]
        log.info(
            "The site's command has ended.",
            extra={"event": "endpoint.shell_ended", "key": self._key, "status": status, "output": tail},
        )
        if status:
            raise SetupFailed(status, tail)

    def end(self) -> None:
        """End it and what it has started, unless that has made itself a session of its own."""
        self.is_ended = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
