"""The life of the executor: start, scaling of blocks, who is connected, and a new one when it is beyond help.

One thread. Knows nothing of tasks but how many there are; what becomes of them is the engine's, which is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from parsl.jobs.strategy import Strategy

from farcall.endpoint.engines.base import CODE_NOT_STARTED, EngineFailure
from farcall.endpoint.engines.config import JobStatusConfig
from farcall.endpoint.engines.leftovers import end_marked
from farcall.endpoint.engines.parsl.executor import InterchangeGone
from farcall.endpoint.engines.parsl.failures import blocks_failed, interchange_lost
from farcall.endpoint.engines.parsl.nodes import Nodes, read_nodes
from farcall.endpoint.engines.texts import describe_exit, not_started_text

__all__ = ["Keeper", "Owner"]

_log = logging.getLogger(__name__)

_LOOK_FIRST_S = 0.25  # between looks who is connected, while tasks wait for the first node
_LOOK_BUSY_S = 1.0  # and while tasks are under way
_LEFTOVER_GRACE_S = 2.0
_RESTART_WAIT_S = (0.0, 1.0, 5.0, 15.0, 30.0)
_STABLE_S = 60.0
_BLOCKED_WAIT_S = (30.0, 60.0, 120.0, 300.0, 600.0)


class Owner(Protocol):
    """What the keeper tells the engine, and asks it. From the keeper's thread."""

    def load(self) -> int:
        """Tasks here and waiting in the agent."""

    def executor_ready(self, executor: Any) -> None:
        """Tasks go to this one from now on."""

    def executor_gone(self) -> None:
        """Tasks cannot be given to the executor any more."""

    def executor_lost(self, failure: EngineFailure) -> None:
        """And it has ended, with its blocks: what it had has failed so; what was not given to it can wait."""

    def refuse(self, reason: str) -> None:
        """Fail the tasks that wait, and those to come, until the next `executor_ready`."""

    def nodes_changed(self, nodes: Nodes) -> None: ...

    def look_after(self) -> None:
        """Called now and then while there is work."""

    def gave_up(self, reason: str) -> None: ...


class Keeper:
    """Keeps an executor.

    Args:
        make_executor: a fresh one, not started.
        owner: the engine.
        strategy: Parsl's name of the scaling strategy.
        job_status: its periods.
        log_dir, scripts_dir: for texts.
        marker: of what blocks on this machine start; None: they run elsewhere.
    """

    def __init__(
        self,
        *,
        make_executor: Callable[[], Any],
        owner: Owner,
        strategy: str,
        job_status: JobStatusConfig,
        log_dir: str,
        scripts_dir: str,
        marker: str | None,
    ) -> None:
        self._make_executor = make_executor
        self._owner = owner
        self._strategy_name = strategy
        self._period_s = max(0.1, float(job_status.strategy_period))
        self._max_idletime_s = float(job_status.max_idletime)
        self._log_dir = log_dir
        self._scripts_dir = scripts_dir
        self._marker = marker
        self._changed = threading.Condition()
        self._is_stopping = False
        self._is_short = False
        self._is_scaling_wanted = False
        self._ended_how: str | None = None
        self._disorder: Exception | None = None
        self._executor: Any = None
        self._strategy: Any = None
        self._nodes = Nodes()
        self._versions: dict[str, str] = {}
        self._next_scaling_s = 0.0
        self._started_s = 0.0
        self._restarts = 0
        self._blocked_times = 0
        self._thread = threading.Thread(target=self._keep, name="farcall-parsl-keeper", daemon=True)

    def start(self) -> None:
        """Start the first executor and the thread. Raises what the executor raises."""
        try:
            self._start_executor()
        except InterchangeGone as exc:
            # Somebody may have killed it. A configuration with which it cannot run ends the second one, too.
            _log.warning(
                "The interchange ended while it was started; tried again",
                extra={"event": "engine.start_again", "reason": str(exc)},
            )
            self._start_executor()
        self._thread.start()

    def shortage(self) -> None:
        """There is work and nobody to do it: scale now, not at the next period. Cheap; for any thread."""
        if self._is_short:
            return
        with self._changed:
            self._is_short = self._is_scaling_wanted = True
            self._changed.notify()

    def stop(self) -> Any:
        """End the thread. Returns the executor, which goes on; None if there is none."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        return self._executor

    def end(self, executor: Any) -> None:
        """Give the blocks back, end the executor and what it may have left on this machine."""
        try:
            executor.cancel_blocks()
        except Exception:
            _log.exception("Blocks could not be cancelled", extra={"event": "engine.cancel_failed"})
        executor.close()
        if self._marker is not None:
            end_marked(self._marker, grace_s=_LEFTOVER_GRACE_S)

    # -- from the executor's threads

    def interchange_ended(self, status: int) -> None:
        with self._changed:
            self._ended_how = describe_exit(status)
            self._changed.notify()

    def out_of_order(self, reason: Exception) -> None:
        with self._changed:
            self._disorder = self._disorder or reason
            self._changed.notify()

    # -- the thread

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, timeout=self._pause_s())
                if self._is_stopping:
                    return
                ended_how, self._ended_how = self._ended_how, None
                disorder, self._disorder = self._disorder, None
            try:
                if disorder is not None:
                    self._refuse_for_a_while(disorder)
                elif ended_how is not None:
                    self._recover(ended_how)
                else:
                    self._attend()
            except InterchangeGone:
                if self._executor is not None:
                    self._executor.interchange_proc.kill()  # it hangs; its end is then reported like any other
            except Exception:
                _log.exception("Looking after blocks failed; tried again", extra={"event": "engine.keeper_failed"})

    def _has_work(self) -> bool:
        return bool(self._is_stopping or self._is_scaling_wanted or self._ended_how or self._disorder)

    def _pause_s(self) -> float:
        until_scaling_s = max(0.0, self._next_scaling_s - time.monotonic())
        if self._owner.load() == 0:
            return until_scaling_s
        return min(until_scaling_s, _LOOK_BUSY_S if self._nodes.workers else _LOOK_FIRST_S)

    def _attend(self) -> None:
        now_s = time.monotonic()
        if self._is_scaling_wanted or now_s >= self._next_scaling_s:
            self._is_scaling_wanted = False
            self._next_scaling_s = now_s + self._period_s
            self._executor.poll_facade()
            self._executor.handle_errors(self._executor.status_facade)
            if self._disorder is None:
                self._strategy.strategize([self._executor])
        self._look()

    def _look(self) -> None:
        managers = self._executor.connected_managers()
        if any(manager["manager"] not in self._versions for manager in managers):
            packages = self._executor.connected_managers_packages()
            self._versions = {manager: found.get("farcall", "") for manager, found in packages.items()}
        nodes = read_nodes(managers, self._versions)
        has_changed = nodes.workers != self._nodes.workers
        self._nodes = nodes
        if nodes.workers:
            self._blocked_times = 0
        if nodes.workers or self._owner.load() == 0:
            self._is_short = False
        self._owner.nodes_changed(nodes)
        self._owner.look_after()
        if has_changed:
            _log.info(
                "Connected workers changed",
                extra={"event": "engine.nodes", "managers": nodes.count, "workers": nodes.workers},
            )

    def _start_executor(self) -> None:
        executor = self._make_executor()
        executor.on_interchange_ended = self.interchange_ended
        executor.on_disorder = self.out_of_order
        try:
            executor.start()
        except BaseException:
            executor.close()
            raise
        self._executor, self._nodes, self._versions = executor, Nodes(), {}
        self._strategy = Strategy(strategy=self._strategy_name, max_idletime=self._max_idletime_s)
        self._strategy.add_executors([executor])
        self._next_scaling_s = 0.0
        self._is_short = False
        self._started_s = time.monotonic()
        self._owner.executor_ready(executor)

    def _recover(self, how: str) -> None:
        """The interchange is gone: what it had is lost; a new one takes over."""
        _log.error("Parsl's interchange is gone; starting a new one", extra={"event": "engine.lost", "how": how})
        self._end_own(interchange_lost(how, self._log_dir))
        if time.monotonic() - self._started_s > _STABLE_S:
            self._restarts = 0
        reason = f"the interchange was {how}"
        while self._restarts < len(_RESTART_WAIT_S):
            wait_s = _RESTART_WAIT_S[self._restarts]
            self._restarts += 1
            if self._is_stopped_within(wait_s):
                return
            try:
                self._start_executor()
                return
            except Exception as exc:
                reason = f"{reason}; then: {exc or type(exc).__name__}"
                _log.exception("A new interchange did not start", extra={"event": "engine.restart_failed"})
        self._give_up(f"{reason}; given up after {self._restarts} attempts. Logs: {self._log_dir}")

    def _refuse_for_a_while(self, disorder: Exception) -> None:
        """No block can be started: tasks fail at once, with the reason, until the next attempt."""
        wait_s = _BLOCKED_WAIT_S[min(self._blocked_times, len(_BLOCKED_WAIT_S) - 1)]
        self._blocked_times += 1
        text = blocks_failed(disorder, self._scripts_dir)
        _log.error(
            "No block could be started; tasks fail until the next attempt",
            extra={"event": "engine.blocked", "wait_s": wait_s, "reason": text},
        )
        reason = f"{text}\nThe endpoint tries again {wait_s:g} s after this happened."
        self._owner.refuse(reason)
        self._end_own(EngineFailure(code=CODE_NOT_STARTED, text=not_started_text(reason), is_system_failure=False))
        if self._is_stopped_within(wait_s):
            return
        try:
            self._start_executor()
        except Exception as exc:
            self._give_up(f"a new interchange did not start: {exc or type(exc).__name__}")

    def _end_own(self, failure: EngineFailure) -> None:
        executor, self._executor = self._executor, None
        self._owner.executor_gone()
        self.end(executor)
        self._owner.executor_lost(failure)

    def _give_up(self, reason: str) -> None:
        self._is_stopping = True
        self._owner.gave_up(reason)

    def _is_stopped_within(self, wait_s: float) -> bool:
        with self._changed:
            self._ended_how = None  # of the executor that was just ended
            self._disorder = None
            return self._changed.wait_for(lambda: self._is_stopping, timeout=wait_s)
