"""Decisions of accounts, functions, endpoints and tasks, by values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.accounts import rules as accounts
from farcall.service.accounts.rules import Identity, TokenRow
from farcall.service.endpoints import rules as endpoints
from farcall.service.endpoints.rules import Endpoint
from farcall.service.functions import rules as functions
from farcall.service.functions.rules import Function
from farcall.service.ids import canonical_uuid, new_id, new_ids
from farcall.service.tasks import rules as tasks
from farcall.service.tasks.rules import Group
from farcall.wire.errors import (
    Conflict,
    EndpointAccessForbidden,
    EndpointNotFound,
    Forbidden,
    FunctionNotFound,
    FunctionNotPermitted,
    InvalidRequest,
    PayloadTooLarge,
    ResourceLocked,
    TaskNotFound,
)
from farcall.wire.framing import pack_buffers, unpack_buffers
from farcall.wire.messages import is_uuid_text
from farcall.wire.rest import EndpointRegistration, FunctionRegistration, SubmitRequest, SubmitResponse
from farcall.wire.topology import BrokerUser, UserKind

ADA = Identity(id=new_id(), username="ada", is_admin=False, credential_generation=1)
BOB = Identity(id=new_id(), username="bob", is_admin=False, credential_generation=1)
ROOT = Identity(id=new_id(), username="root", is_admin=True, credential_generation=1)
# Fixed: they are in the names of tests, and test runners in parallel compare those.
FUNCTION_ID, ENDPOINT_ID = "01a205e2-c194-76de-a39a-d52a416015e5", "01a205e2-c194-76de-a39a-d52a416015e6"
PAYLOAD = pack_buffers(["11\n[7]", "11\n{}"])


def endpoint(**changes: Any) -> Endpoint:
    members: dict[str, Any] = {
        "id": ENDPOINT_ID,
        "owner_id": ADA.id,
        "name": "here",
        "direct": True,
        "public": False,
        "admins": frozenset(),
        "allowed_functions": None,
        "credential_generation": 1,
        "locked_until": None,
        "is_deleted": False,
    }
    return Endpoint(**{**members, **changes})


def function(**changes: Any) -> Function:
    members: dict[str, Any] = {
        "id": FUNCTION_ID,
        "owner_id": ADA.id,
        "public": False,
        "is_deleted": False,
        "code_chars": 9,
    }
    return Function(**{**members, **changes})


# --- ids


def test_new_ids_are_uuids_in_ascending_order_of_time() -> None:
    ids = new_ids(50)
    assert len(set(ids)) == 50
    assert all(is_uuid_text(each) for each in ids)
    assert {each[14] for each in ids} == {"7"}
    assert {each[:8] for each in ids} == {ids[0][:8]}


@given(st.uuids())
def test_every_spelling_of_36_characters_has_one_canonical_form(value: Any) -> None:
    assert canonical_uuid(str(value).upper(), "it") == str(value)


@pytest.mark.parametrize("text", ["", "x" * 36, FUNCTION_ID[:-1], FUNCTION_ID.replace("-", ""), f"{{{FUNCTION_ID}}}"])
def test_what_is_no_uuid_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="member 'x' is not a UUID"):
        canonical_uuid(text, "member 'x'")


# --- accounts


def test_tokens_are_opaque_and_all_different() -> None:
    token = accounts.new_token()
    assert token.startswith("fc_")
    assert len(token) == 46
    assert token != accounts.new_token()
    assert token not in accounts.token_hash(token)


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer ", None), (None, None)],
)
def test_only_a_bearer_token_is_taken_from_the_header(header: str | None, token: str | None) -> None:
    assert accounts.bearer_token(header) == token


def test_a_token_counts_until_it_expires_or_is_revoked() -> None:
    assert accounts.is_token_valid(TokenRow(created_at=0, expires_at=None, revoked_at=None), now=1e12)
    assert not accounts.is_token_valid(TokenRow(created_at=0, expires_at=10.0, revoked_at=None), now=10.0)
    assert not accounts.is_token_valid(TokenRow(created_at=0, expires_at=None, revoked_at=5.0), now=6.0)


def test_a_broker_password_fits_one_user_of_one_generation() -> None:
    secret = b"s" * 32
    user = BrokerUser(kind=UserKind.ENDPOINT, id=ENDPOINT_ID, generation=3)
    password = accounts.broker_password(secret, user)
    assert accounts.is_broker_password(secret, user, password)
    assert not accounts.is_broker_password(b"t" * 32, user, password)
    assert not accounts.is_broker_password(secret, BrokerUser(kind=user.kind, id=user.id, generation=4), password)
    assert not accounts.is_broker_password(secret, user, "é" * 64)


def test_the_broker_url_of_an_ipv6_host_has_brackets() -> None:
    user = BrokerUser(kind=UserKind.SDK, id=ADA.id, generation=1)
    url = accounts.connection_url(b"s", user, host="::1", port=5672, heartbeat_s=30)
    assert url.endswith("@[::1]:5672/%2F?heartbeat=30")


# --- functions


def registration(**changes: Any) -> FunctionRegistration:
    return FunctionRegistration(**{"function_name": "f", "function_code": pack_buffers(["01\nabc"]), **changes})


def test_source_text_is_framed_by_the_service() -> None:
    source = "def f():\n    return 'ä'\n"
    planned = functions.plan_registration(registration(function_code=source, serialized=False), limit_bytes=1000)
    assert unpack_buffers(planned.code) == [f"st\nf:{source}"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"function_name": ""}, "function_name"),
        ({"function_code": "abc"}, "function_code"),
        ({"function_code": pack_buffers(["a", "b"])}, "function_code"),
        ({"function_code": ""}, "function_code"),
        ({"function_code": pack_buffers(["a\0"])}, "NUL"),
        ({"group": "nobody"}, "group"),
        ({"ha_endpoint_id": "here"}, "ha_endpoint_id"),
        ({"ha_endpoint_id": ENDPOINT_ID, "public": True}, "cannot be shared"),
        ({"ha_endpoint_id": ENDPOINT_ID, "group": ENDPOINT_ID}, "cannot be shared"),
    ],
)
def test_a_senseless_function_is_refused_by_member(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        functions.plan_registration(registration(**changes), limit_bytes=1000)


def test_the_size_of_a_function_is_that_of_its_utf8() -> None:
    code = pack_buffers(["ä" * 10])
    functions.plan_registration(registration(function_code=code), limit_bytes=23)
    with pytest.raises(PayloadTooLarge, match="23 bytes"):
        functions.plan_registration(registration(function_code=code), limit_bytes=22)


def test_a_function_is_seen_by_its_owner_or_by_all_if_public() -> None:
    functions.check_read(function(), FUNCTION_ID, ADA)
    functions.check_read(function(public=True), FUNCTION_ID, BOB)
    with pytest.raises(Forbidden):
        functions.check_read(function(), FUNCTION_ID, BOB)
    for gone in (None, function(is_deleted=True)):
        with pytest.raises(FunctionNotFound, match=FUNCTION_ID):
            functions.check_read(gone, FUNCTION_ID, ADA)


def test_a_public_function_is_deleted_only_by_its_owner() -> None:
    functions.check_delete(function(public=True), FUNCTION_ID, ADA)
    with pytest.raises(Forbidden):
        functions.check_delete(function(public=True), FUNCTION_ID, BOB)


# --- endpoints


def test_a_direct_endpoint_may_register() -> None:
    plan = endpoints.plan_registration(
        EndpointRegistration(endpoint_name="here", direct=True, admins=[BOB.id.upper()], allowed_functions=[])
    )
    assert plan.admins == [BOB.id]
    assert plan.allowed_functions is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"multi_user": True}, "direct"),
        ({"multi_user": True}, "multi_user"),
        ({"authentication_policy": "staff"}, "authentication_policy"),
        ({"endpoint_name": "a b"}, "endpoint_name"),
        ({"allowed_functions": [FUNCTION_ID, "94c7ce20"]}, r"allowed_functions\[1\]"),
        ({"admins": ["bob"]}, r"admins\[0\]"),
        ({"subscription_uuid": "x"}, "subscription_uuid"),
        ({"display_name": "\0"}, "display_name"),
    ],
)
def test_a_registration_that_cannot_be_honoured_is_refused_by_member(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        endpoints.plan_registration(EndpointRegistration(**{"endpoint_name": "here", "direct": True, **changes}))


HERE = endpoints.plan_registration(EndpointRegistration(endpoint_name="here", direct=True))


def test_high_assurance_cannot_be_switched_on_or_off() -> None:
    guarded = replace(HERE, high_assurance=True)
    endpoints.check_reregistration(endpoint(high_assurance=True), ENDPOINT_ID, ADA, guarded, now=0.0)
    for before, plan in ((False, guarded), (True, HERE)):
        with pytest.raises(InvalidRequest, match="cannot change"):
            endpoints.check_reregistration(endpoint(high_assurance=before), ENDPOINT_ID, ADA, plan, now=0.0)


def test_only_the_owner_registers_an_endpoint_again_and_not_while_it_is_locked() -> None:
    endpoints.check_reregistration(endpoint(locked_until=10.0), ENDPOINT_ID, ADA, HERE, now=10.0)
    with pytest.raises(ResourceLocked, match="stopped remotely"):
        endpoints.check_reregistration(endpoint(locked_until=10.0), ENDPOINT_ID, ADA, HERE, now=9.9)
    with pytest.raises(EndpointAccessForbidden):
        endpoints.check_reregistration(endpoint(admins=frozenset({BOB.id})), ENDPOINT_ID, BOB, HERE, now=0.0)
    for gone in (None, endpoint(is_deleted=True)):
        with pytest.raises(EndpointNotFound):
            endpoints.check_reregistration(gone, ENDPOINT_ID, ADA, HERE, now=0.0)


def test_admins_have_the_owners_rights_and_the_public_only_sees() -> None:
    shared = endpoint(admins=frozenset({BOB.id}), public=True)
    for check in (endpoints.check_manage, endpoints.check_use, endpoints.check_view):
        check(shared, ENDPOINT_ID, BOB)
        check(shared, ENDPOINT_ID, ADA)
    endpoints.check_view(shared, ENDPOINT_ID, ROOT)
    for check in (endpoints.check_manage, endpoints.check_use):
        with pytest.raises(EndpointAccessForbidden):
            check(shared, ENDPOINT_ID, ROOT)
    with pytest.raises(EndpointAccessForbidden):
        endpoints.check_view(endpoint(), ENDPOINT_ID, BOB)


def test_only_administrators_verify() -> None:
    endpoints.check_verify(ROOT)
    with pytest.raises(Forbidden):
        endpoints.check_verify(ADA)


# --- tasks


def request(**changes: Any) -> SubmitRequest:
    return SubmitRequest(**{"tasks": {FUNCTION_ID: [PAYLOAD, PAYLOAD]}, **changes})


def planned(wanted: SubmitRequest | None = None, caller: Identity = ADA, **limits: Any) -> tasks.SubmissionPlan:
    bounds = {"payload_limit_bytes": 1000, "batch_limit": 10, **limits}
    return tasks.plan_submission(wanted or request(), ENDPOINT_ID, caller, **bounds)


def test_each_call_gets_an_id_in_the_order_of_the_request() -> None:
    plan = planned()
    assert [call.task_id for call in plan.calls] == plan.response.tasks[FUNCTION_ID]
    assert len(set(plan.response.tasks[FUNCTION_ID])) == 2
    assert is_uuid_text(plan.group_id)
    assert plan.response.endpoint_id == ENDPOINT_ID


def test_the_answers_keys_are_the_requests_own_spelling() -> None:
    plan = planned(request(tasks={FUNCTION_ID.upper(): [PAYLOAD]}))
    assert list(plan.response.tasks) == [FUNCTION_ID.upper()]
    assert plan.function_ids == [FUNCTION_ID]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tasks": {}}, "1 to 10"),
        ({"tasks": {FUNCTION_ID: []}}, "1 to 10"),
        ({"tasks": {FUNCTION_ID: [PAYLOAD] * 11}}, "11"),
        ({"tasks": {"triple": [PAYLOAD]}}, "tasks"),
        ({"tasks": {FUNCTION_ID: [PAYLOAD], FUNCTION_ID.upper(): [PAYLOAD]}}, "twice"),
        ({"tasks": {FUNCTION_ID: [PAYLOAD, "zzz"]}}, rf"tasks\[{FUNCTION_ID}\]\[1\]"),
        ({"tasks": {FUNCTION_ID: [pack_buffers(["one"])]}}, "not 1"),
        ({"tasks": {FUNCTION_ID: [pack_buffers(["a", "b", "c"])]}}, "not 3"),
        ({"tasks": {FUNCTION_ID: [pack_buffers(["a\0", "b"])]}}, "NUL"),
        ({"task_group_id": "mine"}, "task_group_id"),
        ({"result_serializers": ["x"] * 33}, "result_serializers"),
        ({"result_serializers": [""]}, "result_serializers"),
        ({"resource_specification": {"x": "y" * 20_000}}, "resource_specification"),
    ],
)
def test_a_senseless_submission_is_refused_by_member(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        planned(request(**changes))


def test_packed_arguments_over_the_limit_are_refused_with_their_size() -> None:
    with pytest.raises(PayloadTooLarge, match=rf"{len(PAYLOAD)} bytes.*{len(PAYLOAD) - 1}"):
        planned(payload_limit_bytes=len(PAYLOAD) - 1)


@pytest.mark.parametrize(
    ("runtime", "version"),
    [
        ({"python": {"version": "3.11.7"}}, "3.11"),
        ({"python_version": "3.10.2 (main, Feb)"}, "3.10"),
        ({"python": {"version": 3}}, None),
        ({"python": "3.11"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_submitters_python_is_found_wherever_clients_put_it(runtime: Any, version: str | None) -> None:
    assert planned(request(user_runtime=runtime)).python_version == version


def test_owner_and_admins_may_submit() -> None:
    tasks.check_submission(planned(), endpoint(), {FUNCTION_ID: function()}, None)
    shared = endpoint(admins=frozenset({BOB.id}))
    tasks.check_submission(planned(caller=BOB), shared, {FUNCTION_ID: function(owner_id=BOB.id)}, None)


@pytest.mark.parametrize(
    ("caller", "where", "what", "error"),
    [
        (ADA, None, function(), EndpointNotFound),
        (ADA, endpoint(is_deleted=True), function(), EndpointNotFound),
        (BOB, endpoint(public=True), function(owner_id=BOB.id), EndpointAccessForbidden),
        (ADA, endpoint(), None, FunctionNotFound),
        (ADA, endpoint(), function(is_deleted=True), FunctionNotFound),
        (ADA, endpoint(), function(owner_id=BOB.id), FunctionNotPermitted),
        (ADA, endpoint(allowed_functions=frozenset({ENDPOINT_ID})), function(), FunctionNotPermitted),
    ],
)
def test_who_may_run_what_where(
    caller: Identity, where: Endpoint | None, what: Function | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        tasks.check_submission(planned(caller=caller), where, {FUNCTION_ID: what} if what else {}, None)


def test_somebody_elses_public_function_on_the_list_may_run() -> None:
    listed = endpoint(allowed_functions=frozenset({FUNCTION_ID}))
    tasks.check_submission(planned(), listed, {FUNCTION_ID: function(owner_id=BOB.id, public=True)}, None)


def test_a_fixed_endpoint_takes_no_configuration() -> None:
    plan = planned(request(user_endpoint_config={"worker_init": "x"}))
    with pytest.raises(InvalidRequest, match="fixed configuration"):
        tasks.check_submission(plan, endpoint(), {FUNCTION_ID: function()}, None)
    tasks.check_submission(planned(request(user_endpoint_config={})), endpoint(), {FUNCTION_ID: function()}, None)


def test_a_group_belongs_to_one_identity() -> None:
    plan = planned()
    mine = Group(id=plan.group_id, owner_id=ADA.id, has_queue=False)
    tasks.check_submission(plan, endpoint(), {FUNCTION_ID: function()}, mine)
    with pytest.raises(Forbidden):
        tasks.check_submission(
            plan, endpoint(), {FUNCTION_ID: function()}, Group(id=mine.id, owner_id=BOB.id, has_queue=False)
        )


def test_a_key_cannot_be_used_for_another_submission() -> None:
    plan = planned()
    tasks.check_replay(plan, planned().response)
    other = SubmitResponse(request_id="r", task_group_id="g", endpoint_id=ENDPOINT_ID, tasks={FUNCTION_ID: ["one"]})
    with pytest.raises(Conflict):
        tasks.check_replay(plan, other)


def test_others_tasks_do_not_exist() -> None:
    tasks.check_task(ADA.id, "t", ADA)
    for owner in (BOB.id, None):
        with pytest.raises(TaskNotFound):
            tasks.check_task(owner, "t", ADA)


@pytest.mark.parametrize("header", ["", "x" * 256, "a\nb"])
def test_a_senseless_key_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        tasks.idempotency_key(header)
