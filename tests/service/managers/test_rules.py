from __future__ import annotations

import uuid

import pytest

from farcall.service.managers.rules import RESERVED_OPTIONS, check_options, user_endpoint_id, user_endpoint_name
from farcall.wire.errors import InvalidRequest
from farcall.wire.messages import is_uuid_text

M, WHO = str(uuid.uuid4()), str(uuid.uuid4())
RUNTIME = {"python_version": "3.11.2", "globus_compute_sdk_version": "4.19.0", "platform": {"node": "laptop"}}


def test_the_id_is_the_same_for_the_same_person_options_and_python() -> None:
    one = user_endpoint_id(M, WHO, {"a": 1, "b": [2]}, RUNTIME)
    other = user_endpoint_id(M, WHO, {"b": [2], "a": 1}, {**RUNTIME, "platform": {"node": "cluster"}})
    assert one == other
    assert is_uuid_text(one)


@pytest.mark.parametrize(
    ("manager", "who", "options", "runtime"),
    [
        (WHO, WHO, {"a": 1}, RUNTIME),
        (M, M, {"a": 1}, RUNTIME),
        (M, WHO, {"a": "1"}, RUNTIME),
        (M, WHO, {}, RUNTIME),
        (M, WHO, {"a": 1}, {**RUNTIME, "python_version": "3.12.0"}),
        (M, WHO, {"a": 1}, {**RUNTIME, "globus_compute_sdk_version": "4.18.0"}),
    ],
)
def test_anything_else_is_another(
    manager: str, who: str, options: dict[str, object], runtime: dict[str, object]
) -> None:
    assert user_endpoint_id(manager, who, options, runtime) != user_endpoint_id(M, WHO, {"a": 1}, RUNTIME)


def test_a_patch_release_of_python_is_the_same() -> None:
    assert user_endpoint_id(M, WHO, {}, RUNTIME) == user_endpoint_id(
        M, WHO, None, {**RUNTIME, "python_version": "3.11.9"}
    )


@pytest.mark.parametrize("name", sorted(RESERVED_OPTIONS))
def test_no_option_can_pass_for_what_the_manager_says(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        check_options({name: {"sub": "root"}})


def test_options_that_do_not_fit_the_pipe_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        check_options({"a": "x" * 40_000})


def test_the_name_fits_a_directory() -> None:
    assert len(user_endpoint_name(M, WHO)) <= 128
