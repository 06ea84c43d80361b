"""Which tasks travel together to a worker, and what becomes of those of a lost bundle. Decides only.

Carrying a task to a worker and its result back costs an engine on a batch system more than a millisecond. So calls of
functions that are known to be short travel together when there are more of them than idle workers: never because one
might wait for company. A bundle is bounded by the time it is expected to take, by count and by bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farcall.endpoint.engines.base import EngineTask
from farcall.worker.bundle import Record

__all__ = ["BUDGET_S", "MAX_CALLS", "PATIENCE_S", "Aftermath", "Durations", "aftermath", "plan"]

BUDGET_S = 0.05
"""What a bundle is expected to take at most."""

PATIENCE_S = 0.2
"""After so long the worker gives back what has not started."""

MAX_CALLS = 64
_MAX_CHARS = 1 << 20
_ENOUGH_SAMPLES = 4
_KEPT_FUNCTIONS = 1000
_QUEUED_PER_SLOT = 2  # one that runs, one that waits at the worker's door


class Durations:
    """How long calls take, by function. Remembers the functions that were used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, float, float]] = OrderedDict()  # samples, mean, fading maximum

    def took(self, function_id: str, seconds: float) -> None:
        """A call of the function has taken so long on a worker."""
        samples, mean_s, longest_s = self._known.pop(function_id, (0, 0.0, 0.0))
        mean_s += (seconds - mean_s) / min(samples + 1, 20)
        longest_s = max(seconds, 0.95 * longest_s + 0.05 * seconds)
        self._known[function_id] = (samples + 1, mean_s, longest_s)
        if len(self._known) > _KEPT_FUNCTIONS:
            self._known.popitem(last=False)

    def forget(self, function_id: str) -> None:
        """A call of it has taken a worker along, or lasted far too long: it goes alone until it has proved itself."""
        self._known.pop(function_id, None)

    def expected_s(self, function_id: str) -> float | None:
        """The expected duration of a call that is certain to be short; None: not short, or not known."""
        samples, mean_s, longest_s = self._known.get(function_id, (0, 0.0, 0.0))
        if samples < _ENOUGH_SAMPLES or longest_s > BUDGET_S / 2:
            return None
        return max(mean_s, longest_s / 4)


def plan(waiting: deque[EngineTask], durations: Durations, *, slots: int, in_flight: int) -> list[list[EngineTask]]:
    """Take from `waiting` what is to be sent now, in order.

    Args:
        waiting: changed: what is not sent stays.
        slots: tasks or bundles that workers can have at a time; positive.
        in_flight: tasks and bundles that are under way.

    Returns:
        What travels together; a list of one is a task by itself.
    """
    room = max(0, _QUEUED_PER_SLOT * slots - in_flight)
    idle = max(1, slots - in_flight)
    share = -(-len(waiting) // idle)  # a burst is spread over idle workers
    bundles: list[list[EngineTask]] = []
    while waiting:
        head_s = _alone_or_expected_s(waiting[0], durations)
        if head_s is None:
            bundles.append([waiting.popleft()])
            room -= 1
            continue
        if room <= 0:
            break
        bundles.append(_bundle(waiting, durations, limit=max(1, min(MAX_CALLS, share))))
        room -= 1
    return bundles


def _alone_or_expected_s(task: EngineTask, durations: Durations) -> float | None:
    if task.resource_specification:
        return None
    return durations.expected_s(task.function_id)


def _bundle(waiting: deque[EngineTask], durations: Durations, *, limit: int) -> list[EngineTask]:
    bundle: list[EngineTask] = []
    total_s, chars = 0.0, 0
    while waiting and len(bundle) < limit:
        expected_s = _alone_or_expected_s(waiting[0], durations)
        if expected_s is None:
            break
        total_s += expected_s
        chars += len(waiting[0].task_buffer)
        if bundle and (total_s > BUDGET_S or chars > _MAX_CHARS):
            break
        bundle.append(waiting.popleft())
    return bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Aftermath:
    """What is known of a lost bundle's calls. Together they are all of them.

    Args:
        finished: task id → its packed result message.
        lost: may have run, in part or whole: the agent's policy decides.
        untouched: certainly not started: to be sent again, in this order.
    """

    finished: Mapping[str, bytes]
    lost: Sequence[EngineTask]
    untouched: Sequence[EngineTask]


def aftermath(tasks: Sequence[EngineTask], record: Record | None, *, is_worker_dead: bool) -> Aftermath:
    """What became of a bundle whose worker will not answer any more.

    Args:
        tasks: of the bundle, in order.
        record: what it left; None: nothing, so any call may have run.
        is_worker_dead: certainly. Else it may go on where nobody hears it, and only what it gave back is untouched.
    """
    if record is None:
        return Aftermath(finished={}, lost=list(tasks), untouched=[])
    never = len(tasks) if record.given_back is None else record.given_back
    first_untouched = min(never, record.started) if is_worker_dead else never
    return Aftermath(
        finished={task.task_id: record.results[index] for index, task in enumerate(tasks) if index in record.results},
        lost=[task for index, task in enumerate(tasks) if index not in record.results and index < first_untouched],
        untouched=list(tasks[first_untouched:]),
    )
