"""The tasks that an engine on a batch system holds: those that wait here, and those under way, alone or in bundles.

Pure bookkeeping over `bundling`'s decisions: each task that was added comes out exactly once, as finished, as lost, or
as cancelled. The engine sends, reads records and reports.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from farcall.endpoint.engines.base import EngineTask
from farcall.endpoint.engines.bundling import BUDGET_S, Durations, aftermath, plan
from farcall.worker.bundle import Answer, Record

__all__ = ["Flight", "Flights", "Outcome"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flight:
    """Tasks that travel together under one number.

    Args:
        tasks: in the order in which the worker runs them.
        record: path of the record that the worker keeps; None for a single task.
        sent_s: when, by a monotonic clock.
        settled: ids of those that are accounted for although the flight has not landed.
    """

    tasks: Sequence[EngineTask]
    record: str | None
    sent_s: float
    settled: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came out of a flight: packed results by task id, and the tasks that may have run without leaving one."""

    finished: Mapping[str, bytes]
    lost: Sequence[EngineTask] = ()


class Flights:
    """All tasks of an engine."""

    def __init__(self) -> None:
        self._waiting: deque[EngineTask] = deque()
        self._flights: dict[int, Flight] = {}
        self._durations = Durations()
        self.held = 0
        """Tasks here, waiting or under way."""

    @property
    def in_flight(self) -> int:
        """Tasks and bundles under way."""
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """Tasks that were not sent yet."""
        return len(self._waiting)

    def add(self, task: EngineTask) -> None:
        """A task to run, after those before it."""
        self._waiting.append(task)
        self.held += 1

    def cancel(self, task_id: str) -> bool:
        """Forget a task that waits. False: no such task waits here."""
        for task in self._waiting:
            if task.task_id == task_id:
                self._waiting.remove(task)
                self.held -= 1
                return True
        return False

    def take_waiting(self) -> list[EngineTask]:
        """All that was not sent; it is no longer here."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self.held -= len(waiting)
        return waiting

    def next(self, *, slots: int) -> list[list[EngineTask]]:
        """What to send now; call `departed` for each."""
        return plan(self._waiting, self._durations, slots=slots, in_flight=len(self._flights))

    def departed(self, number: int, flight: Flight) -> None:
        """The flight was sent under this number."""
        self._flights[number] = flight

    def landed(self, number: int, answers: Sequence[Answer]) -> Outcome:
        """The worker has answered. What it gave back waits again, in front. An unknown number: nothing comes out."""
        flight = self._flights.pop(number, None)
        if flight is None:
            return Outcome(finished={})
        finished: dict[str, bytes] = {}
        given_back: list[EngineTask] = []
        for task, answer in zip(flight.tasks, answers, strict=True):
            if answer is not None:
                self._learn(task.function_id, answer[1], is_bundled=len(flight.tasks) > 1)
            if task.task_id in flight.settled:
                continue
            if answer is None:
                given_back.append(task)
            else:
                finished[task.task_id] = answer[0]
        self._return(given_back)
        self.held -= len(finished)
        return Outcome(finished=finished)

    def crashed(self, number: int, record: Record | None, *, is_worker_dead: bool) -> Outcome:
        """No answer will come. What has certainly not started waits again, in front."""
        flight = self._flights.pop(number, None)
        if flight is None:
            return Outcome(finished={})
        after = aftermath(flight.tasks, record, is_worker_dead=is_worker_dead)
        for task in after.lost:
            self._durations.forget(task.function_id)
        finished = {task_id: result for task_id, result in after.finished.items() if task_id not in flight.settled}
        lost = [task for task in after.lost if task.task_id not in flight.settled]
        self._return([task for task in after.untouched if task.task_id not in flight.settled])
        self.held -= len(finished) + len(lost)
        return Outcome(finished=finished, lost=lost)

    def overdue(self, *, sent_before_s: float) -> list[tuple[int, Flight]]:
        """Bundles that were sent before that moment and have not been given back: their records may say why."""
        return [
            (number, flight)
            for number, flight in self._flights.items()
            if flight.record is not None and flight.sent_s < sent_before_s and not flight.settled
        ]

    def looked(self, number: int, record: Record | None) -> Outcome:
        """The record of an overdue bundle: if it was given back, only the call that runs remains with it."""
        flight = self._flights.get(number)
        if flight is None or record is None or record.given_back is None:
            return Outcome(finished={})
        finished = {
            task.task_id: record.results[index] for index, task in enumerate(flight.tasks) if index in record.results
        }
        given_back = flight.tasks[record.given_back :]
        for task in given_back:
            self._durations.forget(task.function_id)
        flight.settled.update(finished, (task.task_id for task in given_back))
        self._return(given_back)
        self.held -= len(finished)
        return Outcome(finished=finished)

    def flight(self, number: int) -> Flight | None:
        """What is under way under this number."""
        return self._flights.get(number)

    def numbers(self) -> list[tuple[int, Flight]]:
        """All that is under way."""
        return list(self._flights.items())

    def _return(self, tasks: Iterable[EngineTask]) -> None:
        self._waiting.extendleft(reversed(list(tasks)))

    def _learn(self, function_id: str, seconds: float, *, is_bundled: bool) -> None:
        if is_bundled and seconds > BUDGET_S:
            self._durations.forget(function_id)
        self._durations.took(function_id, seconds)
