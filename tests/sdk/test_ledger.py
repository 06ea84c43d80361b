from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farcall.sdk.ledger import ResultLedger
from farcall.sdk.outcomes import Ended


def ended(task_id: str, data: str = "d") -> Ended:
    return Ended(task_id=task_id, data=data)


def test_an_outcome_finds_who_waits() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    assert ledger.expect("s", "g", [("t1", "alice"), ("t2", "bob")]).ready == []
    assert ledger.arrived([ended("t2"), ended("t1")], now_s=0) == [("bob", ended("t2")), ("alice", ended("t1"))]
    assert ledger.count("s") == 0


def test_an_early_outcome_waits_for_who_will_wait() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    assert ledger.arrived([ended("t1")], now_s=0) == []
    expected = ledger.expect("s", "g", [("t1", "alice")])
    assert expected.ready == [("alice", ended("t1"))]
    assert ledger.count("s") == 0
    assert ledger.expect("s", "g", [("t1", "alice")]).ready == [], "it is given once"


def test_several_may_wait_for_one_task() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    ledger.expect("s", "g", [("t1", "alice")])
    ledger.expect("s", "g", [("t1", "bob")])
    assert ledger.count("s") == 1
    assert ledger.arrived([ended("t1")], now_s=0) == [("alice", ended("t1")), ("bob", ended("t1"))]


def test_a_second_outcome_finds_nobody() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    ledger.expect("s", "g", [("t1", "alice")])
    assert len(ledger.arrived([ended("t1"), ended("t1")], now_s=0)) == 1


def test_old_early_outcomes_go_and_are_asked_for_by_who_comes_later() -> None:
    ledger: ResultLedger[str] = ResultLedger(keep_s=10)
    ledger.arrived([ended("t1")], now_s=0)
    ledger.arrived([ended("t2")], now_s=11)
    expected = ledger.expect("s", "g", [("t1", "alice"), ("t2", "bob"), ("t3", "carol")])
    assert expected.to_ask_for == ["t1"]
    assert expected.ready == [("bob", ended("t2"))]
    assert ledger.open_ids("s") == ["t1", "t3"]


def test_early_outcomes_are_kept_within_a_size() -> None:
    ledger: ResultLedger[str] = ResultLedger(keep_bytes=10)
    ledger.arrived([ended("t1", "x" * 6), ended("t2", "x" * 6)], now_s=0)
    assert ledger.expect("s", "g", [("t1", "a"), ("t2", "b")]).to_ask_for == ["t1"]


def test_the_ids_of_those_that_went_are_bounded_too() -> None:
    ledger: ResultLedger[str] = ResultLedger(keep_bytes=0, keep_ids=2)
    ledger.arrived([ended(f"t{n}") for n in range(5)], now_s=0)
    assert ledger.expect("s", "g", [(f"t{n}", "a") for n in range(5)]).to_ask_for == ["t3", "t4"]


def test_open_tasks_are_listed_by_stream_and_group() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    one, two = object(), object()
    ledger.expect(one, "g", [("t1", "a")])
    ledger.expect(one, "h", [("t2", "b")])
    ledger.expect(two, "g", [("t3", "c")])
    assert ledger.open_ids(one) == ["t1", "t2"]
    assert ledger.open_ids(one, "g") == ["t1"]
    assert ledger.take_all(one) == ["a", "b"]
    assert ledger.count(one) == 0
    assert ledger.count(two) == 1


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("expect"), st.integers(0, 8)),
            st.tuples(st.just("arrive"), st.integers(0, 8)),
            st.tuples(st.just("later"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_whoever_waits_gets_the_outcome_or_is_told_to_ask(steps: list[tuple[str, int]]) -> None:
    ledger: ResultLedger[int] = ResultLedger(keep_s=5, keep_bytes=3)
    now_s, waiting, arrived, served, asked = 0.0, set(), set(), set(), set()
    for what, n in steps:
        if what == "later":
            now_s += 6
        elif what == "expect" and n not in waiting:
            waiting.add(n)
            expected = ledger.expect("s", "g", [(str(n), n)])
            served |= {waiter for waiter, _ in expected.ready}
            asked |= {int(task_id) for task_id in expected.to_ask_for}
        elif what == "arrive":
            arrived.add(n)
            served |= {waiter for waiter, _ in ledger.arrived([ended(str(n))], now_s=now_s)}
    assert waiting & arrived <= served | asked
    assert served <= arrived
    assert ledger.count("s") == len(waiting - served)


def test_an_announced_outcome_is_asked_for_now_or_once_somebody_waits() -> None:
    ledger: ResultLedger[str] = ResultLedger()
    ledger.expect("s", "g", [("t1", "alice")])
    assert ledger.withheld(["t1", "t2"]) == ["t1"]
    assert ledger.expect("s", "g", [("t2", "bob")]).to_ask_for == ["t2"]
    assert ledger.arrived([ended("t1"), ended("t2")], now_s=0) == [("alice", ended("t1")), ("bob", ended("t2"))]
