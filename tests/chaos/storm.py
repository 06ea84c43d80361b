"""Lets tasks flow through a system, breaks it by plan, waits until all is quiet, and gathers the evidence."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.plan import Action, Fault, Victim
from chaos.records import read_executions, read_records
from chaos.setups import ENDPOINTS, ChaosSystem
from chaos.verdict import Evidence, Finding
from farcall.client.rest import ApiClient

__all__ = ["Storm", "Struck"]

CLIENTS = ("one", "two")
_WINDOW = 300
_NOBODY_S = 20.0
"""How long a fault waits for a victim that is just down."""
_ASK_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A fault that came: at how many ended tasks, when (seconds since the begin), whom; empty: nobody was there."""

    fault: Fault
    at_ended: int
    at_s: float
    whom: str


@dataclass(kw_only=True)
class _Progress:
    """How many tasks have ended in the sight of their clients."""

    tasks: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)
    last_s: float = field(default_factory=time.monotonic)

    def ended(self, task_id: str) -> None:
        with self.changed:
            self.tasks.add(task_id)
            self.last_s = time.monotonic()
            self.changed.notify_all()


class Storm:
    """One run.

    Args:
        seconds: after this time no fault comes any more, those that hold end, and the rest has to drain.
        stall_s: without any end of a task for so long, after the last fault, it has failed.
    """

    def __init__(
        self, system: ChaosSystem, plan: Sequence[Fault], *, seed: int, tasks: int, seconds: float, stall_s: float,
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self._system, self._plan, self._say = system, list(plan), say
        self._seed, self._tasks, self._stall_s = seed, tasks, stall_s
        self._began_s = time.monotonic()
        self._ends_s = self._began_s + seconds
        self._progress = _Progress()
        self._groups = {name: str(uuid.uuid4()) for name in CLIENTS}
        self._kills: dict[str, list[float]] = defaultdict(list)
        self._holding: list[threading.Timer] = []
        self.struck: list[Struck] = []
        self.is_stalled = False

    def run(self) -> None:
        """Returns when all tasks have ended in the sight of their clients, or nothing moves any more."""
        share = self._tasks // len(CLIENTS)
        for at, name in enumerate(CLIENTS):
            job = {
                "records": str(self._records(name)), "group": self._groups[name], "first": at * share, "count": share,
                "endpoints": self._system.endpoint_ids, "log": str(self._system.executions), "window": _WINDOW,
                "seed": self._seed,
            }  # fmt: skip
            self._system.add_client(f"client {name}", job, lambda line: self._progress.ended(line.strip()))
        for fault in self._plan:
            if not self._wait_for(fault.after_ended):
                break
            self._strike(fault)
        for timer in self._holding:
            timer.join()
        self._drain()

    # --- faults

    def _wait_for(self, ended: int) -> bool:
        """Until so many have ended. False: the time for faults is over, or all is done."""
        with self._progress.changed:
            while len(self._progress.tasks) < ended:
                left_s = self._ends_s - time.monotonic()
                if left_s <= 0 or not self._progress.changed.wait(min(left_s, self._stall_s)):
                    return False
        return True

    def _strike(self, fault: Fault) -> None:
        until_s = time.monotonic() + _NOBODY_S
        while (whom := self._try(fault)) is None and time.monotonic() < until_s:
            with self._progress.changed:
                self._progress.changed.wait(1.0)
        at_s = time.monotonic() - self._began_s
        self.struck.append(Struck(fault=fault, at_ended=len(self._progress.tasks), at_s=at_s, whom=whom or ""))
        self._say(f"  {at_s:6.1f} s  {len(self._progress.tasks):5d} ended  {fault}: {whom or 'nobody there'}")

    def _try(self, fault: Fault) -> str | None:
        if fault.action is Action.KILL:
            at_s = time.monotonic()
            whom = self._system.kill(fault.victim, fault.which, fault.hold_s)
            if whom is not None and fault.victim in (Victim.AGENT, Victim.INTERCHANGE, Victim.WORKER):
                self._kills[whom.rpartition(" ")[2]].append(at_s)
            return whom
        held = self._system.cut() if fault.action is Action.CUT else self._system.freeze(fault.victim, fault.which)
        if held is None:
            return None
        whom, release = held
        timer = threading.Timer(fault.hold_s, release)
        self._holding.append(timer)
        timer.start()
        return whom

    def _drain(self) -> None:
        for client in self._system.clients:
            while not client.is_finished.wait(1.0):
                if time.monotonic() - self._progress.last_s > self._stall_s:
                    self.is_stalled = True
                    return

    # --- afterwards

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def evidence(self) -> Evidence:
        """What was written down, and what the service says now."""
        accepted: dict[str, tuple[int, str]] = {}
        outcomes: dict[str, list[str]] = defaultdict(list)
        refused: list[str] = []
        reloaded: set[str] = set()
        for name in CLIENTS:
            for record in read_records(self._records(name)):
                if record["kind"] == "accepted":
                    accepted[record["task"]] = (record["number"], record["call"])
                elif record["kind"] == "ended" and record["task"] is not None:
                    outcomes[record["task"]].append(record["outcome"])
                elif record["kind"] == "reloaded":
                    reloaded.update(record["tasks"])
                elif record["kind"] == "refused":
                    refused.append(record["why"])
        share = self._tasks // len(CLIENTS)
        numbers = range(share * len(CLIENTS))
        names = [site.name for site in ENDPOINTS]
        return Evidence(
            numbers=numbers,
            accepted=accepted,
            reloaded=reloaded,
            outcomes=outcomes,
            states=self._states(),
            endpoint_of={number: names[number % len(names)] for number in numbers},
            retries={site.name: site.retries for site in ENDPOINTS},
            executions=read_executions(self._system.executions),
            kills=self._kills,
            refused=refused,
        )

    def _states(self) -> dict[str, str]:
        states: dict[str, str] = {}
        with self._api() as api:
            for group in self._groups.values():
                ids = [str(task["id"]) for task in api.task_group(group)["tasks"]]
                for at in range(0, len(ids), _ASK_AT_ONCE):
                    documents = api.batch_status(ids[at : at + _ASK_AT_ONCE])
                    states |= {task_id: str(document["status"]) for task_id, document in documents.items()}
        return states

    def _api(self) -> ApiClient:
        env = self._system.client_env()
        return ApiClient(self._system.url, env["FARCALL_TOKEN"])

    def last_seen(self, findings: Sequence[Finding], limit: int = 20) -> list[str]:
        """Where each task of the findings was seen last: by the service, in a journal, in a client's records."""
        wanted = [finding.task_id for finding in findings if finding.task_id][:limit]
        with self._api() as api:
            documents = api.batch_status(wanted) if wanted else {}
        lines = self._system.queue_depths()
        self._system.stop_agents()
        for task_id in wanted:
            places: dict[str, Any] = {"service": documents.get(task_id, {}).get("status", "unknown")}
            for site in ENDPOINTS:
                places[f"journal of {site.name}"] = _in_journal(self._system.journal(site.name), task_id)
            for name in CLIENTS:
                kinds = [r for r in read_records(self._records(name)) if r.get("task") == task_id]
                places[f"client {name}"] = [r.get("outcome", r["kind"]) for r in kinds] or None
            lines.append(f"{task_id}: " + ", ".join(f"{place}: {seen}" for place, seen in places.items() if seen))
        return lines

    def _records(self, name: str) -> Path:
        return self._system.root / f"client {name}.records"


def _in_journal(path: Path, task_id: str) -> str | None:
    try:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2.0) as database:
            row = database.execute("SELECT phase, attempts, notes FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
    except sqlite3.Error as exc:
        return f"unreadable ({exc})"
    return None if row is None else f"phase {row[0]}, {row[1]} attempts, notes {row[2]}"
