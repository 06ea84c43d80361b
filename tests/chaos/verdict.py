"""Whether what was written down is what may come of a storm. Pure: records in, findings and counts out.

The rules, for a call = one submission that the service accepted (it has one task id):

- It ends: the service says so, and a client that knows of it (from the acceptance, or from reloading its group) has
  seen it. What clients saw, in all their incarnations, is one outcome, and the service says the same.
- A value is the call's own, and the call has begun at least once.
- Before an execution that is not a call's first lies a kill of a worker, an interchange or an agent at its endpoint:
  after the one before has begun, or at most `ORPHAN_S` earlier (what a dead agent has handed out may begin before its
  workers notice). And there are at most `retries` + 1 executions. So with `retries` 0 there is one.
- An error is that of a lost worker or endpoint (nothing else can go wrong in these calls), and then there have been
  more such kills at its endpoint than it has retries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

from chaos.records import Execution

__all__ = ["Evidence", "Finding", "Verdict", "judge"]

ORPHAN_S = 10.0
_LOST = frozenset({"ENDPOINT_LOST", "WORKER_LOST"})
_TERMINAL = frozenset({"success", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known after a storm.

    Attributes:
        numbers: what was to be computed.
        accepted: task id → (number, call), where a client has seen that it was accepted.
        reloaded: task ids that a client found in its group when it came back. What a killed client had just sent can be
            accepted after that (the service stood still with the request in its hands); then nobody knows of it.
        outcomes: task id → what clients saw, in order; equal texts for equal outcomes: `value CALL` or
            `error CLASS CODE`.
        states: task id → state, of all tasks of the clients' groups, as the service says at the end.
        endpoint_of: number → endpoint's name.
        retries: by endpoint's name.
        executions: in the order of their begin.
        kills: endpoint's name → when a worker, interchange or agent of it was killed, on the clock of `executions`.
        refused: why submissions were refused for good.
    """

    numbers: Sequence[int]
    accepted: Mapping[str, tuple[int, str]]
    reloaded: Set[str]
    outcomes: Mapping[str, Sequence[str]]
    states: Mapping[str, str]
    endpoint_of: Mapping[int, str]
    retries: Mapping[str, int]
    executions: Sequence[Execution]
    kills: Mapping[str, Sequence[float]]
    refused: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that may not be. `task_id` or `call` may be empty: it is not about one."""

    rule: str
    text: str
    task_id: str = ""
    call: str = ""


@dataclass(kw_only=True)
class Verdict:
    """What came of it."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, rule: str, text: str, *, task_id: str = "", call: str = "") -> None:
        self.findings.append(Finding(rule=rule, text=text, task_id=task_id, call=call))


def judge(evidence: Evidence) -> Verdict:
    """Apply the rules."""
    verdict = Verdict()
    runs: dict[str, list[Execution]] = defaultdict(list)
    for execution in evidence.executions:
        runs[execution.call].append(execution)
    _check_ends(evidence, verdict)
    for task_id, seen in evidence.outcomes.items():
        _check_outcome(evidence, verdict, task_id, seen, runs)
    for call, executions in runs.items():
        _check_executions(evidence, verdict, call, executions)
    _count(evidence, verdict, runs)
    return verdict


def _check_ends(evidence: Evidence, verdict: Verdict) -> None:
    for why in evidence.refused:
        verdict.add("refused", f"a submission was refused for good: {why}")
    for task_id, (_, call) in evidence.accepted.items():
        if task_id not in evidence.states:
            verdict.add("forgotten", "the service accepted it and does not know it", task_id=task_id, call=call)
    for task_id, state in evidence.states.items():
        call = evidence.accepted.get(task_id, (0, ""))[1]
        if state not in _TERMINAL:
            verdict.add("not ended", f"the service says {state}", task_id=task_id, call=call)
        elif task_id not in evidence.outcomes and _is_known(evidence, task_id):
            verdict.add("silent", f"the service says {state}, and no client has seen it", task_id=task_id, call=call)
    done = {number for task_id, (number, _) in evidence.accepted.items() if task_id in evidence.outcomes}
    for number in sorted(set(evidence.numbers) - done):
        verdict.add("missing", f"number {number} has no call that ended in the sight of its client")


def _check_outcome(
    evidence: Evidence, verdict: Verdict, task_id: str, seen: Sequence[str], runs: Mapping[str, Sequence[Execution]]
) -> None:
    first = seen[0]
    kind, _, rest = first.partition(" ")
    call = evidence.accepted.get(task_id, (0, rest if kind == "value" else ""))[1]
    if len(set(seen)) > 1:
        verdict.add("two outcomes", f"clients saw {sorted(set(seen))}", task_id=task_id, call=call)
    state = evidence.states.get(task_id)
    if state in _TERMINAL and (state == "success") != (kind == "value"):
        verdict.add("two outcomes", f"a client saw {first!r}, the service says {state}", task_id=task_id, call=call)
    if kind == "value":
        if call != rest:
            verdict.add("wrong value", f"it is {rest!r}", task_id=task_id, call=call)
        if not runs.get(rest):
            verdict.add("not executed", "it has a value and never began", task_id=task_id, call=call)
        return
    code = first.rpartition(" ")[2]
    if code not in _LOST:
        verdict.add("error", f"clients saw {first!r}", task_id=task_id, call=call)
    elif call:
        site = _site_of(evidence, call)
        if len(evidence.kills.get(site, ())) <= evidence.retries[site]:
            verdict.add("lost", f"{code}, though endpoint {site} lost too few processes", task_id=task_id, call=call)


def _check_executions(evidence: Evidence, verdict: Verdict, call: str, executions: Sequence[Execution]) -> None:
    site = executions[0].endpoint
    limit = 1 + evidence.retries[site]
    if len(executions) > limit:
        verdict.add("too often", f"began {len(executions)} times; {site} allows {limit}", call=call)
    for earlier, later in pairwise(executions):
        if not any(earlier.began_s - ORPHAN_S < at <= later.began_s for at in evidence.kills.get(site, ())):
            verdict.add(
                "twice", f"began again after {later.began_s - earlier.began_s:.1f} s; no kill explains it", call=call
            )


def _count(evidence: Evidence, verdict: Verdict, runs: Mapping[str, Sequence[Execution]]) -> None:
    calls = {call for _, call in evidence.accepted.values()}
    firsts = Counter(seen[0].partition(" ")[0] for seen in evidence.outcomes.values())
    executed = Counter(len(each) for each in runs.values())
    verdict.counts = {
        "numbers": len(evidence.numbers),
        "tasks accepted": len(evidence.states),
        "of them submitted again by a client that came back": len(evidence.states) - len(evidence.numbers),
        "whose acceptance the client did not see before its kill": len(
            evidence.states.keys() - evidence.accepted.keys()
        ),
        "of these, accepted after it had come back: nobody waits for them": sum(
            not _is_known(evidence, task_id) for task_id in evidence.states
        ),
        "ended with a value": firsts["value"],
        "ended with an error (lost, no retries left)": firsts["error"],
        "outcomes seen again by a later client": sum(len(seen) - 1 for seen in evidence.outcomes.values()),
        "calls that began once": executed[1],
        "calls that began twice": executed[2],
        "calls that began more often": sum(count for times, count in executed.items() if times > 2),
        "accepted calls that never began": len(calls - runs.keys()),
    }
    for site in sorted(evidence.retries):
        more = sum(len(each) - 1 for each in runs.values() if each[0].endpoint == site)
        verdict.counts[f"repeated executions on endpoint '{site}' (retries {evidence.retries[site]})"] = more


def _is_known(evidence: Evidence, task_id: str) -> bool:
    return task_id in evidence.accepted or task_id in evidence.reloaded


def _site_of(evidence: Evidence, call: str) -> str:
    return evidence.endpoint_of[int(call.partition(".")[0])]


def findings_by_rule(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Grouped, the most frequent first."""
    grouped: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        grouped[finding.rule].append(finding)
    return dict(sorted(grouped.items(), key=lambda item: -len(item[1])))
