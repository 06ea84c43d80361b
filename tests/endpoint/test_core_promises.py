"""Whatever happens, with a crash at any point: every accepted task ends, with one outcome, and is not run too often.

A model of the world around the core: the service (truth), the broker (copies), the journal (what survives), the
engine. Hypothesis chooses what happens; a crash can come between any two effects of a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from farcall.endpoint.agent.core import AgentCore
from farcall.endpoint.agent.events import (
    Actions,
    AgentPolicy,
    CancelAnswered,
    Connected,
    Delivered,
    Disconnected,
    EngineDied,
    EngineFailed,
    EngineFinished,
    EngineStarted,
    Event,
    Recovered,
    ResultConfirmed,
    ResultRefused,
)
from farcall.endpoint.agent.intake import CancelWish, Incoming
from farcall.endpoint.engines.base import EngineFailure, EngineTask
from farcall.endpoint.journal import JournalBatch, JournalEntry, Phase

FUNCTION = "ffffffff-0000-4000-8000-000000000001"


@dataclass
class Disk:
    """What the journal holds; survives crashes."""

    entries: dict[int, JournalEntry] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)

    def write(self, batch: JournalBatch) -> None:
        for new in batch.inserts:
            assert new.entry.seq not in self.entries, "a task is inserted once"
            self.entries[new.entry.seq] = new.entry
            if new.entry.body_bytes:
                self.bodies[new.entry.seq] = new.body
        for entry in batch.updates:
            assert entry.seq in self.entries, "what is updated is there"
            self.entries[entry.seq] = entry
        for seq, body in batch.results:
            self.results[seq] = body
            self.bodies.pop(seq, None)
        for seq in batch.deletes:
            for table in (self.entries, self.bodies, self.results):
                table.pop(seq, None)  # type: ignore[attr-defined]


class World(RuleBasedStateMachine):
    """Effects are drawn one by one; `crash_after` says after how many of them the agent's process is killed."""

    @initialize(retries=st.integers(0, 2), backlog=st.integers(1, 4), window=st.integers(1, 3))
    def begin(self, retries: int, backlog: int, window: int) -> None:
        self.policy = AgentPolicy(
            endpoint_id="e",
            endpoint_name="e",
            max_retries=retries,
            backlog_tasks=backlog,
            publish_tasks=window,
            memory_bytes=3,
            free_returns=2,
        )
        self.disk = Disk()
        self.now_s = 0.0
        self.count = 0
        self.non_terminal: list[str] = []  # the service's truth
        self.cancelled: set[str] = set()
        self.queue: list[Any] = []  # at the broker, not delivered
        self.unacked: dict[Any, Any] = {}
        self.token = 0
        self.runs: Counter[str] = Counter()
        self.outcomes: dict[str, set[bytes]] = {}
        self.accepted: set[str] = set()
        self.start_agent()

    def start_agent(self) -> None:
        self.core = AgentCore(self.policy)
        self.engine: dict[str, bool] = {}
        self.publishing: dict[str, bytes] = {}
        entries = [self.disk.entries[seq] for seq in sorted(self.disk.entries)]
        self.reconnect()
        self.turn([Recovered(entries=entries), EngineStarted(), Connected()], capacity=0, crash_after=None)

    def reconnect(self) -> None:
        """The service reconciles: the queue is purged, and every non-terminal task is sent again."""
        self.unacked.clear()
        self.queue = list(self.non_terminal)

    def crash(self) -> None:
        self.start_agent()

    # One turn, effect by effect ------------------------------------------------------------------------------

    def turn(self, events: list[Event], *, capacity: int, crash_after: int | None) -> None:
        self.now_s += 1.0
        actions = self.core.turn(events, now_s=self.now_s, unix_s=self.now_s, capacity=capacity)
        followups: list[Event] = []
        for number, effect in enumerate(self.effects(actions, followups)):
            if crash_after is not None and number >= crash_after:
                self.crash()
                return
            effect()
        if followups:
            self.turn(followups, capacity=0, crash_after=None)

    def effects(self, actions: Actions, followups: list[Event]) -> Iterator[Any]:
        yield lambda: self.disk.write(actions.journal)
        for token in actions.acks:
            yield lambda token=token: self.ack(token)
        for task_id in actions.cancels:
            yield lambda task_id=task_id: followups.append(self.engine_cancel(task_id))
        for item in actions.hand_over:
            yield lambda item=item: self.run(item.seq, item.task_id)
        for parcel in actions.publish:
            yield lambda parcel=parcel: self.publish(parcel.seq, parcel.task_id, parcel.body)

    def ack(self, token: Any) -> None:
        item = self.unacked.pop(token, None)
        if isinstance(item, str) and item in self.non_terminal:
            here = {entry.task_id for entry in self.disk.entries.values()}
            assert item in here, "acknowledged, so it is on disk"
            self.accepted.add(item)

    def run(self, seq: int, task_id: str) -> None:
        assert self.disk.entries[seq].phase is Phase.STARTED, "on disk as started before it is started"
        assert seq in self.disk.bodies, "its body is there to be read again"
        self.runs[task_id] += 1
        self.engine[task_id] = True

    def publish(self, seq: int, task_id: str, body: bytes | None) -> None:
        assert self.disk.entries[seq].phase is Phase.FINISHED, "on disk as finished before it is published"
        stored = self.disk.results[seq]
        assert body in (None, stored)
        self.publishing[task_id] = stored

    def engine_cancel(self, task_id: str) -> Event:
        return CancelAnswered(task_id=task_id, was_given_back=False)

    # What can happen -----------------------------------------------------------------------------------------

    @rule(number=st.integers(1, 3))
    def submit(self, number: int) -> None:
        for _ in range(number):
            self.count += 1
            task_id = str(UUID(int=self.count))
            self.non_terminal.append(task_id)
            self.queue.append(task_id)

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        if self.non_terminal:
            self.queue.append(data.draw(st.sampled_from(self.non_terminal)))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.non_terminal:
            task_id = data.draw(st.sampled_from(self.non_terminal))
            self.non_terminal.remove(task_id)
            self.cancelled.add(task_id)
            self.queue.append(CancelWish(task_id=task_id))

    @rule(number=st.integers(1, 4), capacity=st.integers(0, 3), crash=st.none() | st.integers(0, 8))
    def deliver(self, number: int, capacity: int, crash: int | None) -> None:
        items: list[Any] = []
        for _ in range(min(number, len(self.queue))):
            item = self.queue.pop(0)
            self.token += 1
            self.unacked[self.token] = item
            if isinstance(item, CancelWish):
                items.append(CancelWish(task_id=item.task_id, token=self.token))
            else:
                task = EngineTask(task_id=item, function_id=FUNCTION, task_buffer="")
                items.append(Incoming(task=task, headers="{}", body=b"bb", token=self.token))
        self.turn([Delivered(items=items)], capacity=capacity, crash_after=crash)

    @rule(data=st.data(), capacity=st.integers(0, 3), crash=st.none() | st.integers(0, 4))
    def engine_answers(self, data: st.DataObject, capacity: int, crash: int | None) -> None:
        if not self.engine:
            return
        task_id = data.draw(st.sampled_from(sorted(self.engine)))
        del self.engine[task_id]
        kind = data.draw(st.sampled_from(["value", "refused", "lost", "unrun"]))
        event: Event
        if kind == "value":
            event = EngineFinished(task_id=task_id, packed_result=f"{task_id} {self.runs[task_id]}".encode())
        else:
            if kind == "unrun":
                self.runs[task_id] -= 1
            event = EngineFailed(
                task_id=task_id,
                failure=EngineFailure(
                    code="X", text=kind, is_system_failure=kind != "refused", may_have_run=kind != "unrun"
                ),
            )
        self.turn([event], capacity=capacity, crash_after=crash)

    @rule(data=st.data(), is_taken=st.booleans(), crash=st.none() | st.integers(0, 2))
    def broker_answers(self, data: st.DataObject, is_taken: bool, crash: int | None) -> None:
        if not self.publishing:
            return
        task_id = data.draw(st.sampled_from(sorted(self.publishing)))
        body = self.publishing.pop(task_id)
        if not is_taken:
            self.turn([ResultRefused(task_id=task_id)], capacity=0, crash_after=crash)
            return
        self.outcomes.setdefault(task_id, set()).add(body)
        if task_id in self.non_terminal:
            self.non_terminal.remove(task_id)
        self.turn([ResultConfirmed(task_id=task_id)], capacity=0, crash_after=crash)

    @rule()
    def connection_drops(self) -> None:
        self.turn([Disconnected()], capacity=0, crash_after=None)
        self.reconnect()
        self.turn([Connected()], capacity=0, crash_after=None)

    @rule()
    def engine_dies(self) -> None:
        self.engine.clear()
        self.turn([EngineDied(reason="x")], capacity=0, crash_after=None)
        if self.core.is_stopping:
            self.crash()
        else:
            self.turn([EngineStarted()], capacity=0, crash_after=None)

    @rule()
    def killed(self) -> None:
        self.crash()

    @rule(after_s=st.sampled_from([1.0, 40.0]))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s
        self.turn([], capacity=1, crash_after=None)

    # What is always true ---------------------------------------------------------------------------------------

    @invariant()
    def runs_are_within_policy(self) -> None:
        for task_id, runs in self.runs.items():
            assert runs <= 1 + self.policy.max_retries, task_id

    @invariant()
    def a_task_has_one_outcome(self) -> None:
        for task_id, bodies in self.outcomes.items():
            assert len(bodies) == 1, task_id

    @invariant()
    def the_core_and_the_engine_agree_on_what_is_started(self) -> None:
        assert self.core.load.started == len(self.engine)

    def teardown(self) -> None:
        """Left alone, everything that was accepted ends."""
        for _ in range(400):
            if self.core.load.is_idle and not self.queue and not self.unacked:
                break
            self.deliver(number=4, capacity=3, crash=None)
            for task_id in list(self.engine):
                del self.engine[task_id]
                self.turn([EngineFinished(task_id=task_id, packed_result=b"v")], capacity=0, crash_after=None)
            self.now_s += 60.0
            self.turn([], capacity=3, crash_after=None)
            for task_id in list(self.publishing):
                self.outcomes.setdefault(task_id, set()).add(self.publishing.pop(task_id))
                if task_id in self.non_terminal:
                    self.non_terminal.remove(task_id)
                self.turn([ResultConfirmed(task_id=task_id)], capacity=0, crash_after=None)
        assert self.non_terminal == []
        assert self.core.load.is_idle
        for task_id in self.accepted - self.cancelled:
            assert task_id in self.outcomes, "accepted, so it ended"
        self.runs_are_within_policy()


World.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestPromises = World.TestCase
