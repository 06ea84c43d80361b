"""When a status report is due and what it tells of tasks; when an idle endpoint ends. Pure.

A report goes out at once after connecting, then once a period, and sooner (but never closer together than the gap)
if there is news. Tasks that end between two reports are not mentioned: their results overtake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farcall.endpoint.agent.events import AgentPolicy, StopReason
from farcall.wire.messages import TaskTransition
from farcall.wire.states import Actor, TaskState

__all__ = ["Load", "ReportPacer"]


@dataclass(frozen=True, slots=True)
class Load:
    """What the endpoint has: tasks that wait, tasks in the engine, results that are not confirmed."""

    queued: int
    started: int
    unconfirmed: int

    @property
    def is_idle(self) -> bool:
        return not (self.queued or self.started or self.unconfirmed)


class ReportPacer:
    """Times reports and collects what they say about tasks."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy = policy
        self._is_connected = False
        self._last_s: float | None = None
        self._period_began_s: float | None = None
        self._told: tuple[int, int] | None = None
        self._transitions: dict[str, tuple[TaskTransition, ...]] = {}
        self._has_moved = False
        self._has_worked = False
        self._quiet_periods = 0

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def connected(self) -> None:
        """Tell the service at once how we are."""
        self._is_connected = True
        self._last_s = None

    def disconnected(self) -> None:
        self._is_connected = False

    def moved(self) -> None:
        """Something happened to some task: the endpoint is not idle."""
        self._has_moved = self._has_worked = True

    def note(self, task_id: str, state: TaskState, *, unix_s: float) -> None:
        """A task that has not ended entered a state."""
        transition = TaskTransition(timestamp=int(unix_s * 1e9), state=state.value, actor=Actor.ENDPOINT.value)
        earlier = self._transitions.get(task_id)
        self._transitions[task_id] = (*earlier, transition) if earlier else (transition,)

    def ended(self, task_id: str) -> None:
        """The task's result says more than any report."""
        self._transitions.pop(task_id, None)

    def next_s(self, load: Load, *, now_s: float) -> float | None:
        """When the next report is due; None: not before there is a connection."""
        if not self._is_connected:
            return None
        if self._last_s is None:
            return now_s
        has_news = self._transitions or self._told != (load.queued, load.started)
        gap_s = self._policy.report_gap_s if has_news else self._policy.heartbeat_period_s
        return self._last_s + min(gap_s, self._policy.heartbeat_period_s)

    def take_transitions(self, load: Load) -> Mapping[str, tuple[TaskTransition, ...]]:
        """What the report that goes out now tells of tasks: at most as many as the policy allows, oldest first."""
        self._told = (load.queued, load.started)
        limit = self._policy.report_transitions
        if len(self._transitions) <= limit:
            told, self._transitions = self._transitions, {}
            return told
        return {task_id: self._transitions.pop(task_id) for task_id in list(self._transitions)[:limit]}

    def reported(self, load: Load, *, now_s: float) -> StopReason | None:
        """A report goes out now.

        Returns:
            Why the endpoint should end, if it has been quiet for as many periods as the configuration allows.
        """
        self._last_s = now_s
        began_s = self._period_began_s
        if began_s is not None and now_s - began_s < self._policy.heartbeat_period_s:
            return None
        self._period_began_s = now_s
        self._quiet_periods = 0 if self._has_moved or began_s is None else self._quiet_periods + 1
        self._has_moved = False
        return self._enough(load)

    def idle_until_s(self, load: Load) -> float | None:
        """When the endpoint ends if nothing happens any more; None: never, or not before something has."""
        began_s = self._period_began_s
        limits = [limit for limit, _ in self._limits(load)]
        if began_s is None or not limits:
            return None
        quiet = -1 if self._has_moved else self._quiet_periods
        return began_s + (min(limits) - quiet) * self._policy.heartbeat_period_s

    def _enough(self, load: Load) -> StopReason | None:
        return next((why for limit, why in self._limits(load) if self._quiet_periods >= limit), None)

    def _limits(self, load: Load) -> list[tuple[int, StopReason]]:
        """After how many quiet periods it ends, and why. One that has not had a task yet waits for it longer: tasks may
        take a while to come, and for them it was started. Source: wire protocol, user endpoints."""
        soft, hard = self._policy.idle_heartbeats_soft, self._policy.idle_heartbeats_hard
        limits = []
        if soft and load.is_idle and self._has_worked:
            limits.append((soft, StopReason.IDLE))
        if hard:
            limits.append((hard, StopReason.IDLE if load.is_idle else StopReason.STUCK))
        return limits
