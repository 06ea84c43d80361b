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


def test_an_unanswered_demand_stays_the_error_that_it_was() -> None:
    parameters = {"authorization_parameters": {"session_required_mfa": True}}
    error = unanswered(FunctionNotPermitted("No.", parameters), SessionDemand(mfa=True), "U", "Nobody is here.")
    assert isinstance(error, FunctionNotPermitted)
    assert error.detail == parameters
    assert str(error).startswith("No.\nNobody is here.")
