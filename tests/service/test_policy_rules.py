"""Who satisfies a policy, and what is asked of whoever does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.accounts.rules import Authentication, Identity
from farcall.service.endpoints import rules as endpoints
from farcall.service.endpoints.rules import Endpoint, NewEndpoint
from farcall.service.policies import rules
from farcall.service.policies.rules import Policy, PolicyFields, Project, Subscription
from farcall.wire.errors import (
    Conflict,
    EndpointAccessForbidden,
    Forbidden,
    InvalidRequest,
    LoginRequired,
    NotFound,
    error_from_document,
)

NOW = 1_700_000_000.0
ADA, WORK, CLIENT = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
POLICY = "00000000-0000-4000-8000-000000000009"
GROUP = "00000000-0000-4000-8000-00000000000a"
NAMES = {ADA: "ada@example.org", WORK: "ada@lab.example.edu"}


def person(*logins: Authentication, **changes: Any) -> Identity:
    members: dict[str, Any] = {"id": ADA, "username": NAMES[ADA], "is_admin": False, "credential_generation": 1}
    return Identity(**{**members, "linked": frozenset(NAMES), "authentications": logins, **changes})


def login(who: str = ADA, age_s: float = 0.0, *, mfa: bool = False) -> Authentication:
    return Authentication(identity_id=who, username=NAMES[who], at=NOW - age_s, mfa=mfa)


def policy(**fields: Any) -> Policy:
    return Policy(id=POLICY, project=None, fields=PolicyFields(display_name="Staff", **fields))


def asked_for(fields: dict[str, Any], caller: Identity) -> dict[str, Any] | None:
    """What a refused caller is asked for; the test fails if the caller is not refused."""
    refusal = rules.judge(policy(**fields), caller, NAMES, now=NOW)
    assert refusal is not None
    assert refusal.reason
    return None if refusal.asked_for is None else dict(refusal.asked_for)


# --- domains


@pytest.mark.parametrize(
    ("pattern", "domain", "is_allowed"),
    [
        ("example.edu", "example.edu", True),
        ("example.edu", "EXAMPLE.edu", True),
        ("Example.EDU", "example.edu", True),
        ("example.edu", "lab.example.edu", False),
        ("example.edu", "exampleXedu", False),
        ("*.example.edu", "lab.example.edu", True),
        ("*.example.edu", "a.b.example.edu", True),
        ("*.example.edu", "example.edu", False),
        ("*.edu", "evil.example.edu.com", False),
        ("*", "anything", True),
        ("uni-*.de", "uni-bonn.de", True),
    ],
)
def test_a_wildcard_stands_for_any_characters_and_nothing_else_does(
    pattern: str, domain: str, is_allowed: bool
) -> None:
    assert rules.is_domain_allowed(domain, [pattern]) is is_allowed


@given(st.from_regex(r"[a-z0-9-]{1,10}(\.[a-z0-9-]{1,10}){0,3}", fullmatch=True))
def test_every_domain_allows_itself_and_no_longer_one(domain: str) -> None:
    assert rules.is_domain_allowed(domain, [domain])
    assert not rules.is_domain_allowed("x" + domain, [domain])
    assert not rules.is_domain_allowed(domain + "x", [domain])


@pytest.mark.parametrize(
    "text", ["", "@example.edu", "ada@example.edu", "a b", "exa mple.edu", "a..b", "x" * 254, "\0"]
)
def test_what_is_no_domain_is_refused_by_member(text: str) -> None:
    with pytest.raises(InvalidRequest, match="domain_constraints_exclude"):
        rules.plan_policy(exclude=["example.edu", text])


def test_a_policy_looks_at_all_identities_of_a_person() -> None:
    assert rules.judge(policy(), person(), NAMES, now=NOW) is None
    assert rules.judge(policy(include=("*.example.edu",)), person(), NAMES, now=NOW) is None
    alone = person(linked=frozenset({ADA}))
    assert asked_for({"include": ("*.example.edu",)}, alone) == {}
    assert asked_for({"include": ("lab.example.edu", "*.gov")}, alone) == {
        "session_required_single_domain": ["lab.example.edu"]
    }


def test_an_excluded_domain_does_not_qualify_even_if_it_is_included() -> None:
    fields = {"include": ("*.edu",), "exclude": ("lab.*",)}
    assert asked_for(fields, person()) == {}
    assert rules.judge(policy(exclude=("lab.*",)), person(), NAMES, now=NOW) is None  # by the other identity


def test_a_name_without_a_domain_is_of_none_that_could_be_named() -> None:
    names = {ADA: "root"}
    root = person(username="root", linked=frozenset())
    assert rules.judge(policy(), root, names, now=NOW) is None
    assert rules.judge(policy(include=("*",)), root, names, now=NOW) is not None


def test_names_of_others_count_for_nothing() -> None:
    alone = person(linked=frozenset({ADA}))
    assert rules.judge(policy(include=("*.edu",)), alone, NAMES, now=NOW) is not None


# --- logins


def test_high_assurance_wants_the_right_identity_in_the_login_itself() -> None:
    fields = {"include": ("*.edu",), "high_assurance": True}
    assert asked_for(fields, person(login(ADA))) == {"session_required_identities": [WORK]}
    assert rules.judge(policy(**fields), person(login(WORK, 1e6)), NAMES, now=NOW) is None


def test_a_token_without_login_is_asked_for_one_as_the_identity_that_it_speaks_for() -> None:
    assert asked_for({"high_assurance": True}, person()) == {"session_required_identities": [ADA]}


def test_the_age_is_that_of_the_right_identity_s_last_login() -> None:
    fields = {"include": ("*.edu",), "timeout_s": 60}
    assert rules.judge(policy(**fields), person(login(WORK, 60.0)), NAMES, now=NOW) is None
    stale = person(login(WORK, 60.1), login(ADA, 0.0))
    assert asked_for(fields, stale) == {"session_required_identities": [WORK], "prompt": "login"}
    assert rules.judge(policy(**fields), person(login(WORK, 900.0), login(WORK, 5.0)), NAMES, now=NOW) is None


def test_a_second_factor_must_be_that_of_a_login_that_counts() -> None:
    fields = {"include": ("*.edu",), "required_mfa": True, "timeout_s": 60}
    wanted = {"session_required_mfa": True, "session_required_identities": [WORK]}
    assert asked_for(fields, person(login(WORK), login(ADA, mfa=True))) == wanted
    assert rules.judge(policy(**fields), person(login(WORK, 30.0, mfa=True)), NAMES, now=NOW) is None
    old_factor = person(login(WORK, 90.0, mfa=True), login(WORK, 1.0))
    assert asked_for(fields, old_factor) == {"session_required_identities": [WORK], "prompt": "login"}


def test_a_client_cannot_log_in_so_nothing_is_asked_of_it() -> None:
    client = person(kind="client", linked=frozenset({ADA}))
    assert rules.judge(policy(include=("example.org",)), client, NAMES, now=NOW) is None
    for fields in ({"high_assurance": True}, {"include": ("*.edu",)}):
        assert asked_for(fields, client) is None
        with pytest.raises(Forbidden) as caught:
            rules.check_policy(policy(**fields), client, NAMES, now=NOW, what="running functions")
        assert not isinstance(caught.value, LoginRequired)


def test_a_refusal_says_who_what_which_policy_and_what_to_do_and_survives_the_wire() -> None:
    with pytest.raises(LoginRequired) as caught:
        rules.check_policy(policy(timeout_s=60), person(login(ADA, 300)), NAMES, now=NOW, what="running functions on X")
    text = str(caught.value)
    for part in ("ada@example.org", "Running functions on X", "'Staff'", POLICY, "5 minutes ago", "Log in again"):
        assert part in text
    document = caught.value.to_document()
    again = error_from_document(403, document)
    assert isinstance(again, LoginRequired)
    parameters = again.authorization_parameters
    assert parameters["session_required_policies"] == [POLICY]
    assert isinstance(parameters.pop("session_message"), str)
    for value in parameters.values():  # strict clients take lists of texts, truth values and texts
        assert isinstance(value, (bool, str)) or all(isinstance(each, str) for each in value)


# --- making and using


@pytest.mark.parametrize("seconds", [0, -1, 10**10])
def test_an_age_that_makes_no_sense_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidRequest, match="authentication_assurance_timeout"):
        rules.plan_policy(timeout_s=seconds)


def test_an_age_or_a_second_factor_make_a_policy_one_for_high_assurance() -> None:
    assert rules.plan_policy(timeout_s=60).high_assurance
    assert rules.plan_policy(required_mfa=True).high_assurance
    assert not rules.plan_policy(include=["example.edu"]).high_assurance
    assert not rules.plan_policy(timeout_s=60, high_assurance=False).high_assurance


def test_policies_are_their_projects_admins_and_those_of_the_site_the_operators() -> None:
    project = Project(
        id="p", display_name="P", contact_email=None, admin_ids=frozenset({ADA}), admin_group_ids=frozenset({GROUP})
    )
    of_project = replace(policy(), project=project)
    stranger = person(id=CLIENT, linked=frozenset())
    member = person(id=CLIENT, linked=frozenset(), groups=frozenset({GROUP}))
    root = person(id=CLIENT, linked=frozenset(), is_admin=True)
    for who in (person(), member, root):
        rules.check_delete(of_project, POLICY, who, endpoints=[])
    with pytest.raises(NotFound):
        rules.check_use_of_policy(of_project, POLICY, stranger)
    rules.check_use_of_policy(policy(), POLICY, stranger)
    rules.check_delete(policy(), POLICY, root, endpoints=[])
    with pytest.raises(Forbidden):
        rules.check_delete(policy(), POLICY, person(), endpoints=[])


def test_what_endpoints_rely_on_stays() -> None:
    root = person(is_admin=True)
    guarding = policy(high_assurance=True)
    with pytest.raises(Conflict, match="relies on it"):
        rules.check_change(guarding, POLICY, root, PolicyFields(), ha_endpoints=["e"])
    rules.check_change(guarding, POLICY, root, PolicyFields(), ha_endpoints=[])
    rules.check_change(guarding, POLICY, root, PolicyFields(high_assurance=True, timeout_s=60), ha_endpoints=["e"])
    with pytest.raises(Conflict, match="e and 1 more"):
        rules.check_delete(guarding, POLICY, root, endpoints=["e", "f"])


# --- what high assurance needs


PLAN = NewEndpoint(
    name="here",
    display_name=None,
    description=None,
    public=False,
    direct=True,
    subscription_id="s",
    allowed_functions=None,
    admins=None,
    metadata={"engine_encrypted": True},
    high_assurance=True,
    policy_id=POLICY,
)
SUBSCRIPTION = Subscription(
    id="s", name="Hospital", high_assurance=True, admin_ids=frozenset({ADA}), group_ids=frozenset({GROUP})
)


def protect(plan: NewEndpoint = PLAN, caller: Identity | None = None, **given: Any) -> Any:
    members: dict[str, Any] = {"policy": policy(high_assurance=True), "subscription": SUBSCRIPTION}
    encrypted = given.pop("is_encrypted", True)
    members.update(given)
    return endpoints.check_protection(
        plan, caller or person(), members["policy"], members["subscription"], is_encrypted=encrypted
    )


def test_high_assurance_is_given_to_who_has_all_that_it_needs() -> None:
    assert protect() == ()
    member = person(id=CLIENT, linked=frozenset(), groups=frozenset({GROUP}))
    assert protect(caller=member) == ()


@pytest.mark.parametrize(
    ("plan", "given", "says"),
    [
        (replace(PLAN, policy_id=None), {"policy": None}, "and none is named"),
        (PLAN, {"policy": policy()}, "'Staff' .* is not"),
        (replace(PLAN, subscription_id=None), {"subscription": None}, "a subscription .* none is named"),
        (PLAN, {"subscription": None}, "no subscription s that"),
        (PLAN, {"subscription": replace(SUBSCRIPTION, admin_ids=frozenset())}, "no subscription s that"),
        (PLAN, {"subscription": replace(SUBSCRIPTION, high_assurance=False)}, "'Hospital' .* is not"),
        (replace(PLAN, metadata={}), {}, "an encrypted engine"),
        (replace(PLAN, metadata={"engine_encrypted": "yes"}), {}, "an encrypted engine"),
        (PLAN, {"is_encrypted": False}, "TLS"),
    ],
)
def test_each_thing_that_high_assurance_lacks_is_said(plan: NewEndpoint, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"high_assurance.*needs.*{says}"):
        protect(plan, **given)


def test_a_policy_must_exist_and_be_ones_own_or_the_sites() -> None:
    ordinary = replace(PLAN, high_assurance=False)
    assert protect(ordinary, policy=policy()) == ()
    with pytest.raises(NotFound, match=POLICY):
        protect(ordinary, policy=None)
    assert "no effect" in protect(ordinary, subscription=None)[0]


# --- shares


def test_those_with_whom_an_endpoint_is_shared_use_and_see_it_and_no_more() -> None:
    shared = Endpoint(
        id="e",
        owner_id=CLIENT,
        name="here",
        direct=True,
        public=False,
        admins=frozenset(),
        allowed_functions=None,
        credential_generation=1,
        locked_until=None,
        is_deleted=False,
        shared_with=frozenset({WORK}),
        shared_groups=frozenset({GROUP}),
    )
    linked = person()
    member = person(linked=frozenset(), groups=frozenset({GROUP}))
    stranger = person(linked=frozenset(), groups=frozenset({"other"}))
    for who in (linked, member):
        endpoints.check_use(shared, "e", who)
        endpoints.check_view(shared, "e", who)
        for check in (endpoints.check_manage, endpoints.check_share):
            with pytest.raises(EndpointAccessForbidden, match=r"ada@example\.org"):
                check(shared, "e", who)
    for check in (endpoints.check_use, endpoints.check_view):
        with pytest.raises(EndpointAccessForbidden):
            check(shared, "e", stranger)
