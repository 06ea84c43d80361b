"""Functions, the audit log and charts, as values."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.console.views.audit import AuditFilter, audit_csv, audit_line, detail_text
from farcall.console.views.charts import COLORS, bars_by_day, utilisation
from farcall.console.views.functions import function_line, run_snippet, source_of, versions_text

EVIL = "<img src=x onerror=alert(1)>"


def luminance(color: str) -> float:
    """Relative luminance. Source: WCAG 2.1."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
@pytest.mark.parametrize("color", COLORS)
def test_lines_of_a_chart_are_seen_on_light_and_dark_ground(color: str, ground: str) -> None:
    brighter, darker = sorted((luminance(color), luminance(ground)), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= 3


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(keys_of(each) for each in value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, (list, tuple)) else set()


def test_what_users_named_is_never_a_key_of_a_charts_options() -> None:
    # NiceGUI takes the value of a key with a colon before it for a script.
    options = bars_by_day(["2026-11-23"], [(":evil", [1.0]), (EVIL, [2.0])])
    assert not any(key.startswith(":") or EVIL in key for key in keys_of(options))
    assert options["tooltip"]["renderMode"] == "richText"
    assert [each["name"] for each in options["series"]] == [":evil", EVIL]


def test_utilisation_is_workers_and_those_with_a_task() -> None:
    points = [
        {"at": 10, "workers": 8, "idle_workers": 6},
        {"at": 70, "workers": 8, "idle_workers": None},
        {"at": None, "workers": 8},
        "x",
    ]
    everything, busy = utilisation(points)["series"]
    assert everything["data"] == [[10000, 8], [70000, 8]]
    assert busy["data"] == [[10000, 2], [70000, None]]
    assert utilisation(None)["series"][0]["data"] == []


@pytest.mark.parametrize(
    ("document", "shared"),
    [
        ({}, "Only its owner"),
        ({"public": True}, "Everybody who knows its id"),
        ({"group_ids": ["g"]}, "Members of 1 group"),
        ({"group_ids": ["g", "h"], "ha_endpoint_id": "e"}, "Members of 2 groups, at one high-assurance endpoint"),
    ],
)
def test_a_function_says_who_may_run_it(document: dict[str, Any], shared: str) -> None:
    assert function_line(document).shared == shared


def test_a_function_is_shown_with_what_there_is_of_it() -> None:
    line = function_line({"function_id": "0123456789", "name": EVIL, "owner": {"username": "ada"}, "runs": 1200})
    assert (line.name, line.owner, line.runs) == (EVIL, "ada", "1,200")
    assert function_line({"function_id": "0123456789", "owner": None}).name == "01234567"
    assert source_of({"source": "def f(): ...", "source_note": "as sent"}) == ("def f(): ...", "as sent")
    assert source_of({"source": " "})[0] is None
    assert source_of({})[1].startswith("The service keeps the function in a form")
    assert versions_text({"versions": {"python": "3.12.1"}}) == {"Python": "3.12.1", "SDK": "–", "dill": "–"}
    compile(run_snippet("0123"), "snippet", "exec")


def test_filters_of_the_audit_log_survive_the_way_through_the_address() -> None:
    asked = AuditFilter(action="user.", actor="ada", object="o", outcome="refused", since=60.0, cursor="7")
    assert AuditFilter.from_address(asked.to_address()) == asked
    assert AuditFilter.from_address({"outcome": "maybe", "since": "soon"}) == AuditFilter()
    assert asked.is_narrowed
    assert not AuditFilter(cursor="7").is_narrowed
    assert asked.to_request(limit=100)["action"] == "user."


def test_an_entry_says_who_did_what_with_what_end() -> None:
    line = audit_line(
        {
            "seq": 3, "at": 0.0, "actor_name": "=ada", "action": "user.disable", "object_kind": "user",
            "object_id": "u1", "address": None, "outcome": "refused", "detail": {"why": EVIL, "n": [1]},
        }
    )  # fmt: skip
    assert (line.object, line.address, line.outcome.word) == ("user u1", "–", "Refused")
    assert line.detail == f"why: {EVIL}; n: [1]"
    assert b"3,1970-01-01 00:00:00,'=ada,user.disable,user u1" in audit_csv([line])
    assert (detail_text(None), detail_text("x")) == ("", "x")
