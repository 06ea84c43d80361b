from __future__ import annotations

import uuid
from typing import Any

import pytest

from farcall.service.cluster.plan import slot_of
from farcall.service.managers.rules import RESERVED_OPTIONS, check_options, user_endpoint_id, user_endpoint_name
from farcall.wire.errors import InvalidRequest
from farcall.wire.messages import is_uuid_text

M, WHO = str(uuid.uuid4()), str(uuid.uuid4())


def _id(
    manager_id: str = M,
    identity_id: str = WHO,
    options: dict[str, object] | None = None,
    python_version: str | None = "3.11",
    sdk: str = "4.19.0",
    node: str = "laptop",
) -> str:
    runtime = {"globus_compute_sdk_version": sdk, "platform": {"node": node}}
    return user_endpoint_id(manager_id, identity_id, options, python_version=python_version, runtime=runtime)


def test_the_id_is_the_same_for_the_same_person_options_and_python() -> None:
    one = _id(options={"a": 1, "b": [2]})
    assert one == _id(options={"b": [2], "a": 1}, node="cluster")
    assert is_uuid_text(one)
    assert _id(options={}) == _id(options=None)


@pytest.mark.parametrize(
    "change",
    [
        {"manager_id": WHO},
        {"identity_id": M},
        {"options": {"a": 1}},
        {"python_version": "3.12"},
        {"sdk": "4.18.0"},
    ],
)
def test_anything_else_is_another(change: dict[str, Any]) -> None:
    assert _id(**change) != _id()


def test_a_user_endpoint_is_in_the_slot_of_its_manager() -> None:
    for number in range(30):
        manager_id = str(uuid.UUID(int=number))
        assert slot_of(_id(manager_id=manager_id, options={"n": number})) == slot_of(manager_id)


@pytest.mark.parametrize("name", sorted(RESERVED_OPTIONS))
def test_no_option_can_pass_for_what_the_manager_says(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        check_options({name: {"sub": "root"}})


def test_options_that_do_not_fit_the_pipe_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        check_options({"a": "x" * 40_000})


def test_the_name_fits_a_directory() -> None:
    assert len(user_endpoint_name(M, WHO)) <= 128
