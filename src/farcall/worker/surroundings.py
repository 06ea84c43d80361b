"""What a task finds around it: environment variables, working directory, sandbox, and their restoration.

The environment and the working directory belong to the process. In a process that runs one task at a time
(Parsl's workers, a process pool) a task has them for itself. In a pool of threads the variables are those of the
task that started last, and the working directory is never changed; `current_task()` is right everywhere, and
ShellFunctions use it, so that they see their own task's directory and variables in threads too.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType

from farcall.worker.task import WorkerTask

__all__ = ["Surroundings", "current_task"]

_current = threading.local()


def current_task() -> Surroundings | None:
    """The surroundings of the task that this thread runs; None outside of tasks."""
    return getattr(_current, "surroundings", None)


class Surroundings:
    """A context manager around one call.

    Args:
        task: its working and sandbox directories are made if they do not exist.

    Raises:
        OSError: on entering: a directory cannot be made or entered.

    Source: wire protocol, names that pickles refer to (`GC_TASK_UUID`, `GC_TASK_SANDBOX_DIR`); with the other
    ecosystem's agent a task's current directory is the endpoint's `working_dir`, or the sandbox in it.
    """

    def __init__(self, task: WorkerTask) -> None:
        self.task_id = task.task_id
        self.directory = task.working_dir
        self.variables = {"GC_TASK_UUID": task.task_id, "FARCALL_TASK_UUID": task.task_id}
        if task.sandbox:
            self.directory = os.path.join(task.working_dir or os.getcwd(), task.task_id)
            self.variables["GC_TASK_SANDBOX_DIR"] = self.variables["FARCALL_TASK_SANDBOX_DIR"] = self.directory
        self.owns_process = False
        self._outer: Surroundings | None = None
        self._came_from: str | None = None

    @property
    def current_directory(self) -> str:
        """Where the task is: the process's directory, but in a thread beside others its own."""
        return os.getcwd() if self.owns_process or self.directory is None else self.directory

    def __enter__(self) -> Surroundings:
        if self.directory is not None and not os.path.isdir(self.directory):
            os.makedirs(self.directory, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            self.owns_process = True
            self._came_from = _working_directory()
            if self.directory is not None:
                os.chdir(self.directory)
        os.environ.update(self.variables)
        self._outer = current_task()
        _current.surroundings = self
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        _current.surroundings = self._outer
        for name, value in self.variables.items():
            if os.environ.get(name) == value:  # else a task in another thread has set its own
                del os.environ[name]
        if self._outer is not None:
            os.environ.update(self._outer.variables)
        if self._came_from is not None and _working_directory() != self._came_from:
            os.chdir(self._came_from)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return os.sep
