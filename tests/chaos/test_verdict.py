from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos.records import Execution
from chaos.verdict import ORPHAN_S, Evidence, judge


def ran(call: str, began_s: float, endpoint: str = "once") -> Execution:
    return Execution(call=call, endpoint=endpoint, pid=1, began_s=began_s)


def evidence(
    *,
    outcomes: Mapping[str, Sequence[str]] | None = None,
    states: Mapping[str, str] | None = None,
    executions: Sequence[Execution] = (ran("0.1", 100.0), ran("1.1", 100.0, "again")),
    kills: Mapping[str, Sequence[float]] | None = None,
) -> Evidence:
    """Two calls, one on each endpoint; with nothing given all is well."""
    return Evidence(
        numbers=[0, 1],
        accepted={"t0": (0, "0.1"), "t1": (1, "1.1")},
        reloaded=frozenset(),
        outcomes=outcomes or {"t0": ["value 0.1"], "t1": ["value 1.1"]},
        states=states or {"t0": "success", "t1": "success"},
        endpoint_of={0: "once", 1: "again"},
        retries={"once": 0, "again": 2},
        executions=executions,
        kills=kills or {},
    )


def rules(found: Evidence) -> set[str]:
    return {finding.rule for finding in judge(found).findings}


def test_all_is_well() -> None:
    assert rules(evidence()) == set()


def test_a_task_that_has_not_ended_is_found() -> None:
    assert rules(evidence(states={"t0": "running", "t1": "success"})) == {"not ended"}


def test_a_task_whose_end_no_client_saw_is_found() -> None:
    assert rules(evidence(outcomes={"t0": ["value 0.1"]})) == {"silent", "missing"}


def test_a_task_that_was_accepted_for_a_client_that_had_died_needs_to_end_and_no_more() -> None:
    after = replace(evidence(), states={"t0": "success", "t1": "success", "t2": "success"})
    assert rules(after) == set()
    assert judge(after).counts["of these, accepted after it had come back: nobody waits for them"] == 1
    assert rules(replace(after, reloaded={"t2"})) == {"silent"}
    assert rules(replace(after, states={**after.states, "t2": "received"})) == {"not ended"}


def test_a_task_that_the_service_forgot_is_found() -> None:
    assert rules(evidence(states={"t0": "success"})) == {"forgotten"}


def test_a_submission_that_was_refused_is_found() -> None:
    assert rules(replace(evidence(), refused=["ServiceUnreachable"])) == {"refused"}


def test_two_incarnations_that_saw_different_outcomes_are_found() -> None:
    seen = {"t0": ["value 0.1", "error EndpointLost ENDPOINT_LOST"], "t1": ["value 1.1"]}
    assert rules(evidence(outcomes=seen)) == {"two outcomes"}


def test_a_client_that_saw_another_outcome_than_the_service_is_found() -> None:
    assert rules(evidence(states={"t0": "failed", "t1": "success"})) == {"two outcomes"}


def test_the_value_of_another_call_is_found() -> None:
    assert "wrong value" in rules(evidence(outcomes={"t0": ["value 1.1"], "t1": ["value 1.1"]}))


def test_a_value_without_an_execution_is_found() -> None:
    assert rules(evidence(executions=[ran("0.1", 100.0)])) == {"not executed"}


def test_an_error_other_than_a_loss_is_found() -> None:
    seen = {"t0": ["error ValueError"], "t1": ["value 1.1"]}
    assert rules(evidence(outcomes=seen, states={"t0": "failed", "t1": "success"})) == {"error"}


def test_a_loss_needs_more_kills_than_retries() -> None:
    lost = {
        "outcomes": {"t0": ["value 0.1"], "t1": ["error WorkerLost WORKER_LOST"]},
        "states": {"t0": "success", "t1": "failed"},
    }
    assert rules(evidence(**lost, kills={"again": [101.0, 102.0]})) == {"lost"}
    assert rules(evidence(**lost, kills={"again": [101.0, 102.0, 103.0]})) == set()


def test_a_second_execution_needs_a_kill_and_leave() -> None:
    twice = [ran("0.1", 100.0), ran("1.1", 100.0, "again"), ran("1.1", 105.0, "again")]
    assert rules(evidence(executions=twice)) == {"twice"}
    assert rules(evidence(executions=twice, kills={"again": [102.0]})) == set()
    assert rules(evidence(executions=twice, kills={"again": [100.0 - ORPHAN_S - 1]})) == {"twice"}
    assert rules(evidence(executions=twice, kills={"again": [106.0]})) == {"twice"}
    assert rules(evidence(executions=twice, kills={"once": [102.0]})) == {"twice"}


def test_an_endpoint_without_retries_runs_nothing_twice_whatever_was_killed() -> None:
    twice = [ran("0.1", 100.0), ran("0.1", 105.0), ran("1.1", 100.0, "again")]
    assert rules(evidence(executions=twice, kills={"once": [102.0]})) == {"too often"}


def test_counts_tell_what_clients_submitted_again() -> None:
    found = replace(
        evidence(), states={"t0": "success", "t1": "success", "t2": "success"},
        outcomes={"t0": ["value 0.1", "value 0.1"], "t1": ["value 1.1"], "t2": ["value 0.0"]},
        executions=[ran("0.0", 99.0), ran("0.1", 100.0), ran("1.1", 100.0, "again")],
    )  # fmt: skip
    verdict = judge(found)
    assert verdict.findings == []
    assert verdict.counts["of them submitted again by a client that came back"] == 1
    assert verdict.counts["whose acceptance the client did not see before its kill"] == 1
    assert verdict.counts["outcomes seen again by a later client"] == 1
