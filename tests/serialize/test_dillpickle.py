from __future__ import annotations

import collections
import pickle
import threading
from collections.abc import Callable
from typing import Any

import dill
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall import MPIFunction, ShellFunction, ShellResult
from farcall.serialize import dillpickle
from farcall.wire.errors import DeserializationError, MaxResultSizeExceeded, TaskPending

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_data_is_the_same_to_dill_and_back(value: Any) -> None:
    pickled = dillpickle.dumps(value)
    assert dill.loads(pickled) == value
    assert dillpickle.loads(dill.dumps(value)) == value


@pytest.mark.parametrize(
    ("define", "check"),
    [
        ("f = lambda x: x + 1", lambda f: f(1) == 2),
        ("class C:\n    def m(self): return 5\nf = C()", lambda c: c.m() == 5),
        ("import collections\nf = [collections.namedtuple('P', 'x y')(1, 2)]", lambda p: p[0].y == 2),
        ("f = {'deep': [lambda: 7]}", lambda d: d["deep"][0]() == 7),
    ],
    ids=["lambda", "instance", "namedtuple", "lambda in data"],
)
def test_what_a_script_defines_travels_by_value(
    in_main: Callable[[str, str], Any], define: str, check: Callable[[Any], bool]
) -> None:
    pickled = dillpickle.dumps(in_main(define, "f"))
    assert check(dillpickle.loads(pickled))
    assert check(dill.loads(pickled))  # the tag behind the pickle disturbs nobody


def test_a_namedtuple_of_a_module_that_is_missing_elsewhere_still_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("only_here")
    module.P = collections.namedtuple("P", "x y")  # type: ignore[attr-defined,misc]
    module.P.__module__ = "only_here"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", module)
    pickled = dillpickle.dumps([module.P(1, 2)])  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "only_here")
    assert dillpickle.loads(pickled) == [(1, 2)]


def test_locks_and_other_things_that_only_dill_knows_travel() -> None:
    assert dillpickle.loads(dillpickle.dumps(threading.Lock())).acquire()


@pytest.mark.parametrize("cls", [ShellFunction, MPIFunction])
def test_shell_functions_go_by_the_name_that_both_ecosystems_load(cls: type[ShellFunction]) -> None:
    function = cls("echo {x}", walltime=3, name="hello")
    pickled = dillpickle.dumps({"inside": [function]})
    assert b"globus_compute_sdk.sdk." in pickled
    assert b"farcall" not in pickled
    back = dillpickle.loads(pickled)["inside"][0]
    assert type(back) is cls
    assert vars(back) == vars(function)


def test_plain_pickle_keeps_our_own_name_for_processes_of_our_own() -> None:
    result = ShellResult("c", "o", "e", 0)
    assert pickle.loads(pickle.dumps(result, 4)) == result


def test_a_class_derived_from_ours_in_a_script_travels(in_main: Callable[[str, str], Any]) -> None:
    made = in_main("from farcall import ShellFunction\nclass Mine(ShellFunction):\n    extra = 1\nf = Mine('ls')", "f")
    back = dillpickle.loads(dillpickle.dumps([made]))[0]
    assert isinstance(back, ShellFunction)
    assert back.extra == 1


def test_errors_of_the_other_ecosystem_become_ours() -> None:
    def foreign(name: str, *args: Any) -> bytes:
        body = pickle.dumps(args, 4)
        head = f"cglobus_compute_sdk.errors.error_types\n{name}\n".encode()
        return b"\x80\x04" + head + body[2:-1] + b"R."

    pending = dillpickle.loads(foreign("TaskPending", "waiting-for-ep"))
    assert (type(pending), pending.state) == (TaskPending, "waiting-for-ep")
    large = dillpickle.loads(foreign("MaxResultSizeExceeded", 3, 2))
    assert isinstance(large, MaxResultSizeExceeded)
    assert "3" in str(large)


def test_a_missing_module_is_named_with_what_to_do() -> None:
    pickled = b"\x80\x04cno_such_package.x\nThing\n."
    with pytest.raises(DeserializationError, match=r"'no_such_package' is not installed.*worker_init"):
        dillpickle.loads(pickled)


def test_a_missing_class_is_named() -> None:
    with pytest.raises(DeserializationError, match="NoSuchThing"):
        dillpickle.loads(b"\x80\x04cjson\nNoSuchThing\n.")


@pytest.mark.parametrize("pickled", [b"", b"\x80", b"garbage", b"\x80\x04.", b"\x80\x04K"])
def test_damaged_bytes_are_a_deserialization_error(pickled: bytes) -> None:
    with pytest.raises(DeserializationError):
        dillpickle.loads(pickled)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        dillpickle.loads(b"\x80\x04" + data.replace(b"c", b"").replace(b"\x93", b"").replace(b"R", b""))
    except DeserializationError:
        pass


def test_a_pickle_over_the_limit_is_given_up() -> None:
    assert dillpickle.dumps(b"x" * 50, limit_bytes=100)
    with pytest.raises(dillpickle.TooLarge):
        dillpickle.dumps([b"x" * 10] * 1000 + [b"y" * 200_000], limit_bytes=100)


def test_an_instance_of_a_class_of_main_becomes_one_of_the_receivers_main(in_main: Callable[[str, str], Any]) -> None:
    pickled = dillpickle.dumps(in_main("class Mine(Exception): pass\nf = Mine('x')", "f"))
    later = in_main("class Mine(Exception): pass", "Mine")
    assert type(dillpickle.loads(pickled)) is later


def test_with_dills_recurse_setting_the_helpers_of_a_function_travel(
    in_main: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    function = in_main("def helper(x):\n    return x + 1\ndef f(x):\n    return helper(x)\n", "f")
    monkeypatch.setitem(dill.settings, "recurse", True)
    pickled = dillpickle.dumps(function)
    del sys.modules["__main__"].helper  # type: ignore[attr-defined]
    assert dillpickle.loads(pickled)(1) == 2


def test_what_a_function_that_came_as_source_makes_can_be_sent_back() -> None:
    from farcall.serialize.source import function_from_source

    text = "class Point:\n    def __init__(self, x):\n        self.x = x\ndef f(x):\n    return Point(x)\n"
    assert dillpickle.loads(dillpickle.dumps(function_from_source("f", text)(3))).x == 3
