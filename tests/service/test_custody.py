from __future__ import annotations

from typing import Any

from farcall.service.relay.custody import Adopt, Custody, FeedAll, Incarnation, NoteTaken, speaker

ONE, TWO = Incarnation(100.5, 11), Incarnation(200.5, 22)


def report(who: Incarnation, **more: Any) -> dict[str, Any]:
    return {"start_unix": who.started_at, "posix_pid": who.pid, **more}


def test_what_is_taken_before_the_first_report_is_noted_after_it() -> None:
    custody = Custody()
    assert custody.taken([1, 2]) == []
    assert custody.unnoted == [1, 2]
    assert custody.reported(report(ONE)) == [Adopt(ONE), NoteTaken([1, 2])]
    assert custody.unnoted == []
    assert custody.taken([3]) == [NoteTaken([3])]


def test_further_reports_of_the_same_process_change_nothing() -> None:
    custody = Custody()
    custody.reported(report(ONE))
    assert custody.reported(report(ONE)) == []


def test_of_two_processes_that_report_at_once_the_one_that_started_last_is_believed() -> None:
    custody = Custody()
    custody.reported(report(ONE))
    assert custody.reported(report(TWO)) == [Adopt(TWO)]
    assert custody.reported(report(ONE)) == []


def test_a_report_that_does_not_say_who_speaks_is_no_ground_to_give_custody() -> None:
    custody = Custody()
    assert custody.reported({"start_unix": True, "posix_pid": 1}) == []
    assert custody.reported({"start_unix": 1.0, "posix_pid": "1"}) == []
    assert custody.taken([1]) == []
    assert speaker({}) is None


def test_an_agent_with_a_journal_is_fed_everything() -> None:
    custody = Custody()
    custody.taken([1])
    assert custody.reported(report(ONE, has_journal=True)) == [FeedAll()]
    assert custody.has_journal
    assert custody.unnoted == []
    assert custody.taken([2]) == []
    assert custody.reported(report(TWO, has_journal=True)) == []
