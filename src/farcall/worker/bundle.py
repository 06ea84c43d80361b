"""What an engine on a batch system runs on a worker: one task, or a bundle of short ones that travel as one.

The bytes in both directions are opaque to what carries them (Parsl). Which tasks travel together, and what becomes of
those of a lost bundle, is the engine's (`farcall.endpoint.engines.bundling`).

A bundle leaves a record that outlives the worker: an append-only file into which it writes, before each call, that the
call starts, and with that what the call before it returned. A bundle has patience, not only a length: when it has
lasted too long, what has not started is given back, also while a call still runs; the record says so, and it is true
before it is written.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from farcall.worker.run import run_task
from farcall.worker.task import WorkerTask

__all__ = ["Answer", "Record", "pack_tasks", "read_record", "run_packed", "unpack_answers"]

_ENTRY = struct.Struct("<cII")  # kind, index of the call, length of what follows
_STARTED, _FINISHED, _GIVEN_BACK = b"s", b"f", b"g"

Answer = tuple[bytes, float] | None
"""A packed result message and the seconds it took; None: given back, certainly not started."""


def pack_tasks(tasks: Sequence[WorkerTask], *, record: str | None = None, patience_s: float = 0.0) -> bytes:
    """The bytes that `run_packed` takes; readable by any supported Python version.

    Args:
        tasks: at least one.
        record: path of the record, in a directory that exists if the worker sees it; None: no record.
        patience_s: what has not started so long after the first call did is given back. Not for a single task.
    """
    return pickle.dumps(([tuple(task) for task in tasks], record, patience_s), 5)


def run_packed(packed: bytes) -> bytes:
    """Run the tasks one after the other; one that fails does not touch the others.

    Args:
        packed: from `pack_tasks`.

    Returns:
        For `unpack_answers`.
    """
    members, record, patience_s = pickle.loads(packed)  # noqa: S301  # from the agent that started us
    tasks = [WorkerTask(*task) for task in members]
    answers = [_run(tasks[0])] if len(tasks) == 1 else _Bundle(tasks, record, patience_s).run()
    return pickle.dumps(answers, 5)


def unpack_answers(packed: bytes) -> list[Answer]:
    """What became of the tasks, in their order."""
    answers: list[Answer] = pickle.loads(packed)  # noqa: S301  # workers are started by, and run as, the agent's user
    return answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a bundle's record says.

    Args:
        results: index of the call → its packed result message.
        started: how many calls have started, the finished ones included.
        given_back: index of the first call that was given back; None: none was.
    """

    results: dict[int, bytes] = field(default_factory=dict)
    started: int = 0
    given_back: int | None = None


def read_record(path: str) -> Record | None:
    """Read a bundle's record, which may end in the middle of an entry. None: there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    results: dict[int, bytes] = {}
    started, given_back, at = 0, None, 0
    while at + _ENTRY.size <= len(data):
        kind, index, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + length
        if at > len(data):
            break
        if kind == _STARTED:
            started = max(started, index + 1)
        elif kind == _FINISHED:
            results[index] = data[at - length : at]
        elif kind == _GIVEN_BACK:
            given_back = index
    return Record(results=results, started=started, given_back=given_back)


class _Bundle:
    def __init__(self, tasks: Sequence[WorkerTask], record: str | None, patience_s: float) -> None:
        self._tasks = tasks
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._current = -1
        self._is_given_back = False
        self._path = record
        self._descriptor = _open_record(record)

    def run(self) -> list[Answer]:
        answers: list[Answer] = [None] * len(self._tasks)
        watch = threading.Timer(self._patience_s, self._give_back)
        watch.daemon = True
        watch.start()
        try:
            finished = b""
            for index, task in enumerate(self._tasks):
                with self._lock:
                    if self._is_given_back:
                        break
                    self._current = index
                    self._write(finished + _ENTRY.pack(_STARTED, index, 0))
                answer = answers[index] = _run(task)
                finished = _ENTRY.pack(_FINISHED, index, len(answer[0])) + answer[0]
            with self._lock:
                self._write(finished)
        finally:
            watch.cancel()
            if self._descriptor is not None:
                with self._lock:
                    os.close(self._descriptor)
                    self._descriptor = None
        return answers

    def _give_back(self) -> None:
        """Time is up: the call that runs is the last one."""
        with self._lock:
            if self._is_given_back or self._descriptor is None:
                self._is_given_back = True
                return
            self._is_given_back = True
            self._write(_ENTRY.pack(_GIVEN_BACK, self._current + 1, 0))
            try:
                os.fsync(self._descriptor)  # other machines see it now, not when the call ends
            except OSError:
                pass

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, data)
        except OSError:  # no space: better no record than a wrong one
            os.close(self._descriptor)
            self._descriptor = None
            if self._path is not None:
                os.unlink(self._path)


def _run(task: WorkerTask) -> tuple[bytes, float]:
    began_s = perf_counter()
    result = run_task(task)
    return result, perf_counter() - began_s


def _open_record(path: str | None) -> int | None:
    if path is None:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except OSError:
        return None  # this node does not share the agent's files
