"""Tasks as lines, timelines and filters: values in, values out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.console.views.states import TASK_STATES, is_over, state_word
from farcall.console.views.tasks import TaskFilter, result_text, task_row
from farcall.console.views.timeline import timeline
from farcall.wire.states import TaskState

NOW = 1_795_000_000.0


def test_every_state_of_the_protocol_has_a_word_and_its_end() -> None:
    assert list(TASK_STATES) == [state.value for state in TaskState]
    assert [name for name in TASK_STATES if is_over(name)] == [each.value for each in TaskState if each.is_terminal]
    assert len(set(TASK_STATES.values())) == len(TASK_STATES)


def test_a_state_that_nobody_knows_is_shown_by_its_name() -> None:
    assert [state_word(each) for each in ("running", "execution-end", "melted", None, ["x"])] == [
        "Running", "Executed", "melted", "Unknown", "['x']",
    ]  # fmt: skip


def test_a_timeline_tells_how_long_each_state_lasted() -> None:
    drawn = timeline(
        [
            {"state": "received", "at": NOW - 10, "by": "web-service"},
            {"state": "waiting-for-nodes", "at": NOW - 9, "by": "endpoint"},
            {"state": "running", "at": NOW - 5, "by": "worker"},
            {"state": "success", "at": NOW - 0.5, "by": "result-processor"},
        ],
        now=NOW + 1000,
    )
    assert [step.lasted for step in drawn.steps] == ["1.0 s", "4.0 s", "4.5 s", ""]
    assert [step.word for step in drawn.steps][-1] == "Succeeded"
    assert [step.is_now for step in drawn.steps] == [False] * 4
    assert drawn.steps[2].width_percent > drawn.steps[1].width_percent > drawn.steps[0].width_percent > 0
    assert drawn.sentence == (
        "Received for 1.0 s, then Waiting for a worker for 4.0 s, then Running for 4.5 s, then Succeeded. 9.5 s in all."
    )


def test_a_task_that_goes_on_lasts_until_now() -> None:
    drawn = timeline([{"state": "received", "at": NOW - 61, "by": "web-service"}], now=NOW)
    assert (drawn.steps[0].lasted, drawn.steps[0].is_now, drawn.total) == ("1 min 1 s", True, "1 min 1 s")


def test_clocks_that_differ_make_no_negative_time() -> None:
    drawn = timeline([{"state": "received", "at": NOW}, {"state": "running", "at": NOW - 3}], now=NOW + 1)
    assert [step.lasted for step in drawn.steps] == ["0 ms", "4.0 s"]
    assert drawn.steps[0].width_percent == 0


def test_a_timeline_of_nothing_says_so() -> None:
    for nothing in (None, [], "x", [7]):
        assert timeline(nothing, now=NOW).sentence == "No transitions are recorded."


@given(st.lists(st.tuples(st.sampled_from(list(TASK_STATES)), st.floats(0, 1e9)), min_size=1, max_size=30))
def test_the_widths_of_a_timeline_fill_its_bar(entries: list[tuple[str, float]]) -> None:
    drawn = timeline([{"state": state, "at": at, "by": "endpoint"} for state, at in entries], now=1e9)
    total = sum(step.width_percent for step in drawn.steps)
    assert total == pytest.approx(100) or total == 0
    assert all(step.width_percent == 0 or step.width_percent > 1 for step in drawn.steps)


def test_filters_survive_the_way_through_the_address() -> None:
    for asked in (
        TaskFilter(),
        TaskFilter(state="failed", endpoint_id="e", function_id="f", task_group_id="g", last="7d", cursor="c"),
        TaskFilter(since=1_795_000_020.0, until=1_795_000_081.0),
    ):
        assert TaskFilter.from_address(asked.to_address()) == asked


def test_an_address_that_somebody_edited_shows_everything() -> None:
    edited = {
        "state": "<b>",
        "last": "9y",
        "since": "yesterday",
        "until": "1e400",
        "nonsense": "1",
        "task_group_id": "  ",
    }
    assert TaskFilter.from_address(edited) == TaskFilter()
    assert not TaskFilter.from_address(edited).is_narrowed


def test_a_filter_asks_the_interface_for_what_it_shows() -> None:
    asked = TaskFilter(state="running", last="1h", task_group_id="g").to_request(now=NOW, limit=50)
    assert asked == {"state": "running", "task_group_id": "g", "since": str(NOW - 3600), "limit": "50"}


def test_a_row_of_the_table_says_name_before_id_and_counts_to_now() -> None:
    row = task_row(
        {
            "task_id": "t", "state": "running", "submitted_at": NOW - 90, "ended_at": None, "function_id": "f" * 36,
            "function_name": "<script>", "endpoint_id": "e" * 36, "endpoint_name": None, "task_group_id": "g",
        },
        now=NOW,
    )  # fmt: skip
    assert (row["function"], row["endpoint"], row["took"]) == ("<script>", "eeeeeeee", 90)
    assert task_row({"submitted_at": NOW, "ended_at": NOW - 1, "state": "failed"}, now=NOW)["took"] == 0
    assert task_row({}, now=NOW)["took"] is None


def test_a_result_is_told_by_size_and_kind_and_never_by_its_value() -> None:
    assert result_text({"state": "success", "result": {"size_bytes": 2048, "kind_meaning": "JSON"}}) == "2.0 KiB, JSON"
    assert result_text({"state": "success", "withheld": {"code": "LOGIN_REQUIRED"}}) == "Withheld, see above."
    assert result_text({"state": "running"}) == "Not there yet."
    assert result_text({"state": "cancelled"}) == "None: the task ended without a result."
    assert result_text({"state": "success"}) == "No longer kept."
