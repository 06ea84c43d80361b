"""Shell commands as functions: `ShellFunction`, and what it returns, `ShellResult`.

An instance travels as data (its attributes) under the class path of the other ecosystem, so each family's
workers run what the other's SDK sends (`farcall.serialize.aliases`). Called on a worker or at home, it does the
same. Source: wire protocol, names that pickles refer to; behaviour of globus-compute-sdk 4.19.0, with the
differences that docs/howto/shell-functions.md lists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from farcall.worker.process import run_in_session
from farcall.worker.surroundings import Surroundings, current_task
from farcall.worker.tail import last_lines
from farcall.worker.template import fill
from farcall.worker.time_limit import limit_from_environment

__all__ = ["ShellFunction", "ShellResult"]

_SHELL = "/bin/bash"
_TIMED_OUT = 124
_SNIPPET_LIMIT_BYTES = 2 * 1024 * 1024
"""Of each stream: both together, in base64, stay below the limit of a result."""


@dataclass
class ShellResult:
    """What a shell command did.

    Args:
        cmd: the command that was run, with its arguments.
        stdout, stderr: the last lines of each stream.
        returncode: the shell's; negative for the signal that ended it; 124 if its time was up.
        exception_name: "subprocess.CalledProcessError" if the return code is not 0, "subprocess.TimeoutExpired" if
            its time was up, else None.
    """

    cmd: str
    stdout: str
    stderr: str
    returncode: int
    exception_name: str | None = None

    def __str__(self) -> str:
        outcome = f"exit code {self.returncode}"
        if self.exception_name:
            outcome += f" ({self.exception_name})"
        parts = [f"$ {self.cmd}", outcome]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                parts.append(f"--- {name} ---\n{text.rstrip()}")
        return "\n".join(parts)


class ShellFunction:
    """A shell command that can be submitted like a function, with keyword arguments for its `{fields}`.

    Args:
        cmd: the command, run by /bin/bash. How braces are read: `farcall.worker.template`.
        stdout, stderr: files to append the streams to, relative to the task's directory; by default files there
            that are named after the task.
        walltime: seconds after which the command and everything that it started is ended; None: never.
        snippet_lines: how many of the last lines of each stream are returned; 0: none.
        name: what the function is called in lists; a Python identifier.
        return_dict: return a dict with the members of ShellResult, which can be read without this package.

    Raises:
        TypeError, ValueError: an argument that makes no sense, named in the message.
    """

    missing = "keep"
    """Class or instance attribute: "keep" leaves a `{name}` without argument as it is, "error" fails the call."""

    def __init__(
        self,
        cmd: str,
        stdout: str | os.PathLike[str] | None = None,
        stderr: str | os.PathLike[str] | None = None,
        walltime: float | None = None,
        snippet_lines: int = 1000,
        name: str | None = None,
        return_dict: bool = False,
    ) -> None:
        if not isinstance(cmd, str):
            raise TypeError(f"cmd must be the command as one text, not of type {type(cmd).__name__}")
        if walltime is not None and (isinstance(walltime, bool) or not isinstance(walltime, (int, float))):
            raise TypeError(f"walltime must be a number of seconds or None, not {walltime!r}")
        if walltime is not None and not walltime >= 0:
            raise ValueError(f"walltime must be a number of seconds of at least 0, not {walltime!r}")
        if isinstance(snippet_lines, bool) or not isinstance(snippet_lines, int) or snippet_lines < 0:
            raise ValueError(f"snippet_lines must be a number of lines of at least 0, not {snippet_lines!r}")
        if name and not name.isidentifier():
            raise ValueError(f"name must be a valid name of a Python function, not {name!r}")
        self.cmd = cmd
        self.stdout = os.fspath(stdout) if stdout is not None else None
        self.stderr = os.fspath(stderr) if stderr is not None else None
        self.walltime = walltime
        self.snippet_lines = snippet_lines
        self.__name__ = name or type(self).__name__
        self.return_dict = return_dict

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({shown})"

    def __call__(self, /, *args: Any, **kwargs: Any) -> ShellResult | dict[str, Any]:
        """Run the command here, with these arguments for its fields, and wait for its end.

        A command that fails or runs out of time is a result, not an exception.

        Raises:
            TypeError: positional arguments, or a field without argument (`farcall.worker.template.fill`).
            ValueError: an argument that cannot be formatted as its field asks.
            OSError: the shell cannot be started, or an output file not be opened.
        """
        if args:
            raise TypeError(
                f"{self.__name__} takes keyword arguments only, one for each {{field}} of its command; got "
                f"{len(args)} positional"
            )
        result = self._run(self.command_line(kwargs))
        return asdict(result) if self.return_dict else result

    def command_line(self, arguments: Mapping[str, Any]) -> str:
        """The command as the shell gets it. Raises as `farcall.worker.template.fill`."""
        return fill(self.cmd, arguments, missing=self.missing)

    def _run(self, command: str) -> ShellResult:
        task = current_task()
        cwd = task.current_directory if task else os.getcwd()
        env = {**os.environ, **task.variables} if task else None
        with _output_files(self.stdout, self.stderr, cwd) as (out, err):
            returncode = run_in_session(
                (_SHELL, "-c", command),
                stdout=out.descriptor,
                stderr=err.descriptor,
                cwd=cwd,
                env=env,
                walltime_s=self._walltime_s(task),
            )
            exception_name = None
            if returncode is None:
                returncode, exception_name = _TIMED_OUT, "subprocess.TimeoutExpired"
            elif returncode != 0:
                exception_name = "subprocess.CalledProcessError"
            return ShellResult(
                cmd=command,
                stdout=out.last_lines(self.snippet_lines),
                stderr=err.last_lines(self.snippet_lines),
                returncode=returncode,
                exception_name=exception_name,
            )

    def _walltime_s(self, task: Surroundings | None) -> float | None:
        # In a thread beside others the site's limit cannot interrupt our waiting (see time_limit), so we watch it.
        limit_s = limit_from_environment() if task and not task.owns_process else None
        return min((s for s in (self.walltime, limit_s) if s is not None), default=None)


class _Output:
    """One open output file, and where in it this command's output begins."""

    def __init__(self, path: str, flags: int = 0) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | flags, 0o666)
        self._start = os.fstat(self.descriptor).st_size

    def last_lines(self, count: int) -> str:
        return last_lines(self.path, count, start=self._start, limit_bytes=_SNIPPET_LIMIT_BYTES)


@contextmanager
def _output_files(stdout: str | None, stderr: str | None, cwd: str) -> Iterator[tuple[_Output, _Output]]:
    task = current_task()
    task_id = task.task_id if task else os.environ.get("GC_TASK_UUID")
    opened: list[_Output] = []
    scratch = None
    try:
        directory = cwd
        if task_id is None and not (stdout and stderr):
            import tempfile  # not in a task: nobody will look for the files

            scratch = tempfile.TemporaryDirectory(prefix="farcall-shell-")
            directory = scratch.name
        for given, suffix in ((stdout, "stdout"), (stderr, "stderr")):
            opened.append(_open_given(given, cwd) if given else _open_new(directory, task_id or "command", suffix))
        yield opened[0], opened[1]
    finally:
        for output in opened:
            os.close(output.descriptor)
        if scratch is not None:
            scratch.cleanup()


def _open_given(path: str, cwd: str) -> _Output:
    path = os.path.join(cwd, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return _Output(path)


def _open_new(directory: str, stem: str, suffix: str) -> _Output:
    """A file of this name that did not exist: a task may run several commands, or be run again."""
    number = 0
    while True:
        name = f"{stem}.{number}.{suffix}" if number else f"{stem}.{suffix}"
        try:
            return _Output(os.path.join(directory, name), os.O_EXCL)
        except FileExistsError:
            number += 1
