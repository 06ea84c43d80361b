"""The worker processes of one machine, and the small process that watches over them.

`python -m farcall.worker.pool --control FD …` is started once by the process-pool engine. It loads what a task
needs, then forks a worker whenever the engine asks for one: a fork of this process takes a few milliseconds, shares
its memory and is as clean as a fresh interpreter, because nothing of a user ever runs here. Tasks do not pass through
it: the engine makes a stream socket for each worker, keeps one end, and this process hands on the other.

It also sees to it that nothing is left behind. It is the parent of the workers and adopts their orphans (Linux), so a
worker that dies takes along what it had started; and when the engine's end of the control socket closes, for whatever
reason, kill -9 of the agent included, it ends all of them and itself. Which task goes where, and what a lost worker
means, is the engine's (`farcall.endpoint.engines.processes`).

Control messages are JSON objects, one per datagram: `{"spawn": worker, "log": path}` (with the worker's socket as
ancillary data) and `{"kill": worker}` to here; `{"spawned": worker, "pid": pid}` and
`{"exited": worker, "pid": pid, "status": wait status}` from here. A frame on a worker's socket is a length in four
bytes, little-endian, and the bytes: a pickled `WorkerTask` to the worker, a packed result message back.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import pickle
import selectors
import signal
import socket
import struct
import sys
import traceback
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any

__all__ = ["FRAME_HEADER", "WORKER_VARIABLE", "main", "serve_tasks"]

FRAME_HEADER = struct.Struct("<I")

WORKER_VARIABLE = "FARCALL_WORKER"
"""Set in each worker's environment, unique per worker process, and inherited by what it starts."""

_CONTROL_LIMIT_BYTES = 64 * 1024
_LOG_LIMIT_BYTES = 100 * 1024 * 1024
_REMEMBERED_DEAD = 64
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str] | None = None) -> None:
    """Watch over workers until the control socket closes. Does not return: ends the process."""
    parser = argparse.ArgumentParser(prog="farcall-worker-pool", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--control", type=int, required=True, help="descriptor of a SOCK_SEQPACKET socket")
    parser.add_argument("--run", default="farcall.worker.run:run_task", help="module:function that runs one task")
    arguments = parser.parse_args(argv)
    if sys.path[0] in ("", os.getcwd()):  # `-m` put it there; a task must not import what lies about by chance
        del sys.path[0]
    module_name, _, function = arguments.run.partition(":")
    module = importlib.import_module(module_name)
    run = getattr(module, function)
    getattr(module, "warm_up", lambda: None)()  # what a first task would have to import, all workers inherit
    status = 1
    try:
        _Nursery(socket.socket(fileno=arguments.control), run).watch()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        _end_descendants()
        os._exit(status)


def serve_tasks(descriptor: int, run: Callable[[Any], bytes]) -> None:
    """A worker's life: read a task, run it, write its result, until the other end closes.

    Args:
        descriptor: of a connected stream socket.
        run: takes a `WorkerTask` (or whatever was pickled), returns the bytes to send back.
    """
    own_pid = os.getpid()
    stream = open(descriptor, "rb", buffering=1 << 16)  # noqa: SIM115  # lives as long as this process
    while True:
        header = stream.read(FRAME_HEADER.size)
        if len(header) < FRAME_HEADER.size:
            return
        task = pickle.loads(stream.read(FRAME_HEADER.unpack(header)[0]))  # noqa: S301  # our own agent's
        result = run(task)
        if os.getpid() != own_pid:  # the user's function forked and returned on both sides
            os._exit(0)
        view = memoryview(FRAME_HEADER.pack(len(result)) + result)
        while view:
            view = view[os.write(descriptor, view) :]


class _Nursery:
    """The process between the engine and its workers."""

    def __init__(self, control: socket.socket, run: Callable[[Any], bytes]) -> None:
        self._control = control
        self._run = run
        self._workers: dict[int, tuple[int, str]] = {}  # pid → (worker, marker in its environment)
        self._dead: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED_DEAD)  # (pid, marker): may have left orphans
        self._spawned = 0
        self._child_ended, self._wake = socket.socketpair()
        for end in (self._child_ended, self._wake):
            end.setblocking(False)

    def watch(self) -> None:
        """Obey the control socket and report ended workers, until the socket closes."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # so that the collector of a worker does not touch (and thereby copy) shared memory
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._child_ended, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._child_ended in ready:
                    self._child_ended.recv(4096)
                    self._reap()
                if self._control in ready and not self._obey():
                    return

    def _obey(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _CONTROL_LIMIT_BYTES, 1)
        except ConnectionError:
            return False
        if not data:
            return False
        message = json.loads(data)
        if "spawn" in message:
            self._spawn(message["spawn"], message["log"], descriptors[0])
        elif "kill" in message:
            for pid, (worker, _) in self._workers.items():
                if worker == message["kill"]:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _spawn(self, worker: int, log: str, descriptor: int) -> None:
        own_pid = os.getpid()
        self._spawned += 1
        marker = f"{own_pid}.{self._spawned}"
        pid = os.fork()
        if pid == 0:
            try:
                self._become_worker(own_pid, marker, log, descriptor)
                serve_tasks(descriptor, self._run)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        os.close(descriptor)
        self._workers[pid] = (worker, marker)
        self._tell({"spawned": worker, "pid": pid})

    def _become_worker(self, parent_pid: int, marker: str, log: str, descriptor: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(0)
        os.setsid()
        for end in (self._control, self._child_ended, self._wake):
            end.close()
        null = os.open(os.devnull, os.O_RDONLY)
        output = _open_log(log)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(output)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # text streams of CPython
        os.environ[WORKER_VARIABLE] = marker

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._workers:
                worker, marker = self._workers.pop(pid)
                self._dead.append((pid, marker))
                self._tell({"exited": worker, "pid": pid, "status": status})
            _end_orphans(self._dead, spare=self._workers)  # also if an orphan ended: it may leave orphans in turn

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            pass  # the engine has gone: the next read says so


def _open_log(path: str) -> int:
    try:
        if os.stat(path).st_size > _LOG_LIMIT_BYTES:
            os.replace(path, path + ".1")
    except OSError:
        pass
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _end_orphans(dead: Iterable[tuple[int, str]], *, spare: Container[int]) -> None:
    """End what dead workers had started: their sessions, and what carries their markers in its environment."""
    sessions = {pid for pid, _ in dead}
    markers = {f"{WORKER_VARIABLE}={marker}".encode() for _, marker in dead}
    for pid in _children() if sessions else ():
        if pid in spare:  # a living worker, possibly with the number of a dead one
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                is_marked = not markers.isdisjoint(environment.read().split(b"\0"))
            if is_marked or os.getsid(pid) in sessions:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # ended meanwhile, or not ours to see


def _end_descendants() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.alarm(5)  # a process that cannot be killed (stuck in the kernel) must not keep us
    while True:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]
    except OSError:
        return []  # not Linux, or a kernel without this file


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
