from __future__ import annotations

import pytest

from farcall.wire.auth import SessionDemand, session_demand

POLICY = "54460200-b652-4f43-a918-02882fa6114a"


def test_everything_that_a_refusal_can_ask_for_is_read() -> None:
    demand = session_demand(
        {
            "authorization_parameters": {
                "session_message": "The policy wants a login of today.",
                "session_required_policies": [POLICY],
                "session_required_identities": ["a", "b"],
                "session_required_single_domain": ["uni.edu"],
                "session_required_mfa": True,
                "required_scopes": ["s"],
                "prompt": "login",
            }
        }
    )
    assert demand == SessionDemand(
        message="The policy wants a login of today.",
        policies=(POLICY,),
        identities=("a", "b"),
        domains=("uni.edu",),
        mfa=True,
        scopes=("s",),
        prompt="login",
    )
    assert demand.to_query() == {
        "session_message": "The policy wants a login of today.",
        "session_required_policies": POLICY,
        "session_required_identities": "a,b",
        "session_required_single_domain": "uni.edu",
        "session_required_mfa": "True",
        "prompt": "login",
    }


@pytest.mark.parametrize(
    ("document", "demand"),
    [
        ({"code": "FORBIDDEN", "message": "no"}, None),
        ({"authorization_parameters": "login"}, None),
        ({"authorization_parameters": {}}, SessionDemand()),
        ({"authorization_parameters": {"session_message": None}, "reason": "why"}, SessionDemand(message="why")),
        ({"authorization_parameters": {"session_required_mfa": "yes", "prompt": 3}}, SessionDemand()),
        ({"authorization_parameters": {"session_required_mfa": False}}, SessionDemand(mfa=False)),
        (
            {"authorization_parameters": {"session_required_policies": "p, q", "session_required_single_domain": "d"}},
            SessionDemand(policies=("p", "q"), domains=("d",)),
        ),
        ({"errors": [3, {"authorization_parameters": {"prompt": "login"}}]}, SessionDemand(prompt="login")),
        ({"code": "ConsentRequired", "required_scopes": ["s"]}, SessionDemand(scopes=("s",))),
    ],
)
def test_forms_of_a_demand(document: dict[str, object], demand: SessionDemand | None) -> None:
    assert session_demand(document) == demand


def test_what_is_not_asked_for_is_no_parameter() -> None:
    assert SessionDemand().to_query() == {}
    assert SessionDemand(mfa=False).to_query() == {"session_required_mfa": "False"}
