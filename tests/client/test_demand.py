from __future__ import annotations

import pytest

from farcall.client.demand import command, sentence, unanswered
from farcall.wire.auth import SessionDemand
from farcall.wire.errors import FunctionNotPermitted


@pytest.mark.parametrize(
    ("demand", "words", "line"),
    [
        (SessionDemand(), "You are asked to log in afresh.", "farcall login --force U"),
        (
            SessionDemand(message="Why.", mfa=True),
            "Why. You are asked to use a second factor.",
            "farcall login --session-mfa U",
        ),
        (
            SessionDemand(domains=("uni.edu", "lab.gov"), policies=("p",)),
            "You are asked to log in with an account of uni.edu or lab.gov in the way that policy p demands.",
            "farcall login --session-policy p --session-domain uni.edu --session-domain lab.gov U",
        ),
        (
            SessionDemand(identities=("ada l",), prompt="login", scopes=("s",)),
            "You are asked to log in afresh as ada l and agree that Farcall may do more in your name.",
            "farcall login --session-identity 'ada l' --scope s --force U",
        ),
    ],
)
def test_a_demand_in_words_and_as_a_command(demand: SessionDemand, words: str, line: str) -> None:
    assert sentence(demand) == words
    assert command(demand, "U") == line


def test_what_was_told_is_not_told_again_and_known_identities_have_names() -> None:
    demand = SessionDemand(message="It admits logins of today. (policy 'Fresh')", identities=("i-1", "i-2"))
    told = "Refused by 'Fresh': It admits logins of today. Log in again."
    assert sentence(demand, told=told, names={"i-1": "ada@here"}) == "You are asked to log in as ada@here and i-2."
    assert str(unanswered(FunctionNotPermitted(told), demand, "U", "Nobody.")).count("admits") == 1
    assert "admits" in sentence(demand, told="Refused.")


def test_an_unanswered_demand_stays_the_error_that_it_was() -> None:
    parameters = {"authorization_parameters": {"session_required_mfa": True}}
    error = unanswered(FunctionNotPermitted("No.", parameters), SessionDemand(mfa=True), "U", "Nobody is here.")
    assert isinstance(error, FunctionNotPermitted)
    assert error.detail == parameters
    assert str(error).startswith("No.\nNobody is here.")
