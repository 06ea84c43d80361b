"""Functions, the audit log and what operators see, as values."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.console.views.audit import AuditFilter, audit_row, detail_text
from farcall.console.views.functions import function_row, run_snippet, source_of, versions_text
from farcall.console.views.operators import amounts, client_row, group_row, health_facts, user_row

EVIL = "<img src=x onerror=alert(1)>"


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
    assert function_row(document)["shared"] == shared


def test_a_function_is_shown_with_what_there_is_of_it() -> None:
    row = function_row({"function_id": "0123456789", "name": EVIL, "owner": {"username": "ada"}, "runs": 12})
    assert (row["name"], row["owner"], row["runs"]) == (EVIL, "ada", 12)
    row = function_row({"function_id": "0123456789", "owner": None, "is_mine": True})
    assert (row["name"], row["owner"]) == ("23456789", "you")
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
    row = audit_row(
        {
            "at": 0.0, "actor_name": "=ada", "action": "user.disable", "object_kind": "user",
            "object_id": "u1", "address": None, "outcome": "refused", "detail": {"why": EVIL, "n": [1]},
        }
    )  # fmt: skip
    assert (row["object_kind"], row["object_id"], row["address"], row["outcome"]) == ("user", "u1", None, "refused")
    assert row["detail"] == f"why: {EVIL}; n: [1]"
    assert (detail_text(None), detail_text("x")) == ("", "x")


def test_people_programs_and_groups_are_told_by_state_and_not_by_number() -> None:
    row = user_row({"id": "u", "username": "ada", "kind": "client", "disabled_at": 7.0, "is_admin": True})
    assert (row["kind"], row["state"], row["operator"], row["provider"]) == (
        "program",
        "disabled",
        "Yes",
        "this service",
    )
    assert user_row({"disabled_at": None})["state"] == "enabled"
    assert client_row({"revoked_at": 1.0, "redirect_uris": ["https://a", "https://b"]})["state"] == "revoked"
    members = [{"username": "ada", "role": "manager"}, {"username": EVIL, "role": "member"}]
    row = group_row({"name": "lab", "members": members})
    assert (row["count"], row["members"]) == (2, f"ada (manager), {EVIL}")


def test_how_the_service_goes_is_told_also_while_its_parts_are_down() -> None:
    everything = dict(fact for facts in health_facts({}).values() for fact in facts)
    assert (everything["Kind"], everything["State"], everything["Free on disk"], everything["Tasks"]) == (
        None, "down", None, None,
    )  # fmt: skip
    known = health_facts(
        {
            "now": 100.0, "process": {"started_at": 40.0, "pid": 7}, "disk": {"free_bytes": 1024, "total_bytes": 4096},
            "endpoints": {"direct": 3, "manager": 0},
        }
    )  # fmt: skip
    assert ("Running", "1 min") in known["Service"]
    assert ("Free on disk", "1.0 KiB (25 %)") in known["Store"]
    assert ("Endpoints", "direct: 3") in known["What there is"]
    assert amounts("x") is None
    assert "Schema revision" in everything
    assert "Slots" not in everything  # one process alone
    assert ("Slots", "12") in health_facts({"process": {"slots": 12}})["Service"]
