"""Parsl's HighThroughputExecutor as this engine uses it: without a DataFlowKernel, and with an eye on its interchange.

Owns the interchange process and the three sockets to it. What is different from Parsl's own: results arrive in batches
at a callback instead of one by one at futures; a command to an interchange that has died fails at once; the death
itself is reported; and the backlog in the agent counts when blocks are scaled. Written against exactly the Parsl
release that `pyproject.toml` names.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from parsl import curvezmq
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput import zmq_pipes
from parsl.executors.high_throughput.mpi_executor import MPIExecutor
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.states import JobState, JobStatus
from parsl.serialize import deserialize

__all__ = ["AttachedExecutor", "AttachedMPIExecutor", "InterchangeGone", "interchange_command"]

_log = logging.getLogger(__name__)

_COMMAND_TIMEOUT_S = 30.0
_LOOK_MS = 50
_BATCH = 256
_RUN = "farcall.worker.bundle.run_packed"


class InterchangeGone(Exception):
    """The interchange has ended, or does not answer."""


def interchange_command(marker: str | None) -> list[str]:
    """How to start our interchange: with this very interpreter, whatever PATH says.

    Args:
        marker: of the processes on this machine that it ends if the agent is killed; None: none are here.
    """
    command = [sys.executable, "-m", "farcall.endpoint.engines.parsl.interchange", "--agent", str(os.getpid())]
    return command if marker is None else [*command, "--marker", marker]


class _Commands(zmq_pipes.CommandClient):  # type: ignore[misc]  # Parsl is not typed for us
    """The request channel to the interchange; looks whether it is still there while it waits for the reply."""

    is_gone: Callable[[], bool]

    def run(self, message: Any, max_retries: int = 3, timeout_s: float | None = None) -> Any:
        with self._lock:
            if not self.ok or self.is_gone():
                raise InterchangeGone("the interchange has ended")
            self._wait_for(zmq.POLLOUT, timeout_s or _COMMAND_TIMEOUT_S)
            self.zmq_socket.send_pyobj(message)
            self._wait_for(zmq.POLLIN, timeout_s or _COMMAND_TIMEOUT_S)
            return self.zmq_socket.recv_pyobj()

    def _wait_for(self, event: int, timeout_s: float) -> None:
        for _ in range(int(timeout_s * 1000 / _LOOK_MS) + 1):
            if self.zmq_socket.poll(_LOOK_MS, event):
                return
            if self.is_gone():
                break
        self.ok = False  # a request socket that got no reply takes no other request
        raise InterchangeGone(f"no reply from the interchange in {timeout_s:g} s")


class _Attached(HighThroughputExecutor):  # type: ignore[misc]  # Parsl is not typed for us
    """The differences; mixed into Parsl's two executors.

    Set before `start`, and called from threads of the executor's own:

    * `on_results`: with messages of the interchange, each with `task_id` (see `send`) and either `result` or
      `exception`, as Parsl serializes them;
    * `on_interchange_ended`: nobody asked it to; with its wait status;
    * `on_disorder`: blocks cannot be started, or Parsl has given up for another reason;
    * `load`: tasks here and waiting to come, for scaling.
    """

    on_results: Callable[[Sequence[dict[str, Any]]], None]
    on_interchange_ended: Callable[[int], None]
    on_disorder: Callable[[Exception], None]
    load: Callable[[], int]
    _is_ending = False

    def start(self) -> None:
        """Start the interchange and connect to it; blocks come with scaling.

        Raises:
            InterchangeGone: it ended at once or does not answer; `interchange.log` tells why.
            OSError, zmq.ZMQError: no program, no free port.
        """
        os.makedirs(self.logdir, exist_ok=True)
        BlockProviderExecutor.start(self)
        self.cert_dir = curvezmq.create_certificates(self.logdir) if self.encrypted else None
        self.logconf_path = None
        where = (self.loopback_address, self.interchange_port_range, self.cert_dir)
        self.outgoing_q = zmq_pipes.TasksOutgoing(*where)
        self.incoming_q = zmq_pipes.ResultsIncoming(*where)
        self.command_client = _Commands(*where)
        self.command_client.is_gone = lambda: (
            self._is_ending or (self.interchange_proc is not None and self.interchange_proc.poll() is not None)
        )
        self._sending = threading.Lock()
        self._stop_reader, self._stop_writer = os.pipe()
        self._start_result_queue_thread()
        self._start_local_interchange_process()
        self.initialize_scaling()
        threading.Thread(target=self._wait_for_interchange, name="farcall-interchange-watch", daemon=True).start()

    def send(self, packed: bytes, resource_specification: dict[str, Any] | None = None) -> int:
        """Give the interchange something for a worker; returns the number under which the answer comes."""
        context: dict[str, Any] = {"task_executor": {"f": _RUN}}
        if resource_specification:
            context["resource_spec"] = resource_specification
        with self._sending:
            self._task_counter += 1
            number = int(self._task_counter)
            self.outgoing_q.put({"task_id": number, "context": context, "buffer": packed})
        return number

    def outstanding(self) -> int:
        """What scaling sees: all tasks that the engine has or that wait for it."""
        return self.load()

    def set_bad_state_and_fail_all(self, exception: Exception) -> None:
        self._executor_exception = exception
        self._executor_bad_state.set()
        self.on_disorder(exception)

    def hold_nodes(self) -> None:
        """Send nothing more to any node; what is there runs on. Does nothing if the interchange is gone."""
        try:
            for manager in self.connected_managers():
                self._hold_manager(manager["manager"])
        except InterchangeGone:
            pass

    def tasks_at_nodes(self) -> int:
        """How many tasks nodes have; 0 if the interchange is gone."""
        try:
            return sum(manager["tasks"] for manager in self.connected_managers())
        except InterchangeGone:
            return 0

    def cancel_blocks(self) -> None:
        """Give back all blocks, without asking the interchange."""
        live = [
            self.blocks_to_job_id[block]
            for block, status in self._status.items()
            if block in self.blocks_to_job_id and not status.terminal
        ]
        if live:
            self.provider.cancel(live)
        for block in self._status:
            self._status[block] = JobStatus(JobState.SCALED_IN)

    def close(self, timeout_s: float = 10.0) -> None:
        """End the interchange and the threads; blocks are not touched. Callable after a failed `start` too."""
        self._is_ending = True
        process = self.interchange_proc
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_s)
            except Exception:
                process.kill()
                process.wait()
        if self._result_queue_thread is not None:
            os.close(self._stop_writer)
            self._result_queue_thread.join()
            os.close(self._stop_reader)
        elif hasattr(self, "incoming_q"):
            self.incoming_q.close()
        for pipe in ("outgoing_q", "command_client"):
            if hasattr(self, pipe):
                getattr(self, pipe).zmq_socket.setsockopt(zmq.LINGER, 0)
                getattr(self, pipe).close()

    def _result_queue_worker(self) -> None:
        receiver = self.incoming_q.results_receiver
        poller = zmq.Poller()
        poller.register(receiver, zmq.POLLIN)
        poller.register(self._stop_reader, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if receiver in ready:
                messages = [pickle.loads(raw) for raw in _drain(receiver)]  # noqa: S301  # as Parsl does
                try:
                    self.on_results(self._without_disorder(messages))
                except Exception:  # tasks would never end: let recovery account for all that is under way
                    _log.exception("Results could not be taken in", extra={"event": "engine.results_failed"})
                    self.interchange_proc.kill()
            elif self._stop_reader in ready:
                receiver.setsockopt(zmq.LINGER, 0)
                self.incoming_q.close()
                return

    def _without_disorder(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Parsl reports that it gives up (versions that do not fit) as the failure of a task number -1."""
        for message in messages:
            if message.get("task_id") == -1:
                self.on_disorder(_as_exception(deserialize(message["exception"])))
        return [message for message in messages if message["type"] == "result" and message["task_id"] != -1]

    def _wait_for_interchange(self) -> None:
        assert self.interchange_proc is not None
        code = self.interchange_proc.wait()
        if not self._is_ending:
            self.on_interchange_ended(-code if code < 0 else code << 8)


class AttachedExecutor(_Attached):
    """For single-node tasks."""


class AttachedMPIExecutor(_Attached, MPIExecutor):  # type: ignore[misc]  # Parsl is not typed for us
    """For multi-node tasks."""


def _as_exception(value: Any) -> Exception:
    return value if isinstance(value, Exception) else RuntimeError(str(value))


def _drain(receiver: Any) -> list[bytes]:  # a zmq.Socket
    messages: list[bytes] = []
    try:
        while len(messages) < _BATCH:
            messages.append(receiver.recv(zmq.NOBLOCK))
    except zmq.Again:
        pass
    return messages
