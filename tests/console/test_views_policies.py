"""The form of a policy: units, domains, and errors beside their fields."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.console.views.policies import UNITS, PolicyForm, age_text, field_of_message, form_of, policy_row

WHOLE = PolicyForm(display_name="Site", description="Who works here", include="Example.edu\n\n*.example.org\n")


@pytest.mark.parametrize(
    ("seconds", "amount", "unit"),
    [(None, "", "minutes"), (60, "1", "minutes"), (90, "90", "seconds"), (7200, "2", "hours"), (86400, "1", "days")],
)
def test_a_timeout_is_shown_in_the_largest_whole_unit(seconds: int | None, amount: str, unit: str) -> None:
    form = form_of({"authentication_assurance_timeout": seconds})
    assert (form.timeout, form.unit) == (amount, unit)


@given(st.integers(1, 10 * 365 * 86400))
def test_a_timeout_survives_the_form(seconds: int) -> None:
    form = form_of({"display_name": "a", "description": "b", "authentication_assurance_timeout": seconds})
    assert form.errors() == {}
    assert form.document()["authentication_assurance_timeout"] == seconds


@pytest.mark.parametrize("typed", ["0", "-1", "1.5", "soon", "١", "9" * 400, "3651 "])
def test_a_timeout_that_is_no_such_number_is_said_beside_its_field(typed: str) -> None:
    errors = replace(WHOLE, timeout=typed, unit="days").errors()
    assert set(errors) == {"timeout"}


def test_an_empty_timeout_is_any_age() -> None:
    assert WHOLE.errors() == {}
    assert WHOLE.document()["authentication_assurance_timeout"] is None
    assert (age_text(None), age_text(60), age_text(43200)) == ("any age", "1 minute", "12 hours")


def test_domains_are_one_a_line_in_lower_case_and_once() -> None:
    document = replace(WHOLE, exclude="a.example.edu\r\na.example.EDU").document()
    assert document["domain_constraints_include"] == ["example.edu", "*.example.org"]
    assert document["domain_constraints_exclude"] == ["a.example.edu"]


@pytest.mark.parametrize("typed", ["<b>", "two words", "a@example.edu", "a..b", ".edu", "x" * 254])
def test_what_is_no_domain_is_told_with_its_line(typed: str) -> None:
    errors = replace(WHOLE, exclude=f"example.edu\n{typed}").errors()
    assert set(errors) == {"exclude"}
    assert errors["exclude"].startswith("Line 2: ")


def test_a_name_and_a_description_are_asked_for() -> None:
    assert set(PolicyForm(display_name="  ").errors()) == {"display_name", "description"}
    assert set(replace(WHOLE, description="x" * 4097).errors()) == {"description"}
    assert set(replace(WHOLE, include="\n".join(f"d{n}.org" for n in range(1001))).errors()) == {"include"}


def test_a_refusal_of_the_service_finds_its_field() -> None:
    message = "member 'authentication_assurance_timeout' must be 1 to 315360000 seconds, not 0."
    assert field_of_message(message) == "timeout"
    assert field_of_message("member 'domain_constraints_include': 'x y' is no domain.") == "include"
    assert field_of_message("Policy 7 is not yours.") is None
    assert field_of_message("member 'project_id' is unknown") is None


def test_a_row_says_in_words_what_a_policy_asks() -> None:
    row = policy_row({"id": "p", "display_name": "", "project_id": None, "domain_constraints_exclude": ["a.edu"]})
    assert (row["name"], row["timeout"], row["included"], row["excluded"]) == ("p", None, "any", "a.edu")
    assert (row["high_assurance"], row["whose"]) == ("No", "the whole site")
    assert set(UNITS) == {"seconds", "minutes", "hours", "days"}
