"""Bytecode of another Python is never loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dill
import pytest

from farcall.serialize import AllCodeStrategies, ComputeSerializer, DillCode, bytecode, dillpickle, mime
from farcall.wire.errors import DeserializationError

HERE = "{}.{}".format(*sys.version_info[:2])
OTHER = "3.99"
BODIES = {  # of `def triple(n): return 3 * n`, as these versions compile it
    "3.10": "640 17c 001 400 530 0",
    "3.11": "97006401 7c007a05 00005300",
    "3.13": "95005301 58002d05 00002400",
}


@pytest.fixture
def triple(in_main: Callable[[str, str], Any]) -> Any:
    return in_main("def triple(n):\n    return 3 * n\n", "triple")


def test_our_bytecode_names_its_python_behind_the_pickle(triple: Any) -> None:
    assert bytecode.read_tag(dillpickle.dumps(triple)) == HERE
    assert bytecode.read_tag(dillpickle.dumps([1, 2])) is None
    assert bytecode.read_tag(dill.dumps(triple)) is None


def test_bytecode_tagged_by_another_python_is_refused_and_says_both_versions(triple: Any) -> None:
    pickled = dillpickle.dumps(triple).replace(f"python={HERE};".encode(), f"python={OTHER};".encode())
    with pytest.raises(DeserializationError) as caught:
        dillpickle.loads(pickled)
    assert f"Python {OTHER}" in str(caught.value)
    assert sys.version.split()[0] in str(caught.value)
    assert "AllCodeStrategies" in str(caught.value)


def test_bytecode_of_a_sender_that_is_known_to_be_another_python_is_refused(triple: Any) -> None:
    text = "01\n" + mime.encode(dill.dumps(triple))
    with pytest.raises(DeserializationError, match=r"Python 3\.9"):
        ComputeSerializer().deserialize(text, python_version="3.9.18 (main, Jan 1 2024)")
    assert ComputeSerializer().deserialize(text, python_version=sys.version)(2) == 6
    assert ComputeSerializer().deserialize(text)(2) == 6


def test_the_tag_counts_more_than_what_the_task_says_of_the_submitter(triple: Any) -> None:
    # A function that was registered with this Python, submitted from another one.
    text = DillCode().serialize(triple)
    assert ComputeSerializer().deserialize(text, python_version="3.9.1")(2) == 6


def test_data_without_bytecode_crosses_versions() -> None:
    text = ComputeSerializer().serialize({"x": [1, 2.5, "y"]})
    assert ComputeSerializer().deserialize(text, python_version=OTHER) == {"x": [1, 2.5, "y"]}


def test_functions_of_modules_and_shell_functions_cross_versions() -> None:
    import textwrap

    from farcall import ShellFunction

    serializer = ComputeSerializer()
    assert serializer.deserialize(serializer.serialize(textwrap.dedent), python_version=OTHER) is textwrap.dedent
    assert serializer.deserialize(serializer.serialize(ShellFunction("ls")), python_version=OTHER).cmd == "ls"


def test_an_argument_whose_class_carries_bytecode_is_refused_too(in_main: Callable[[str, str], Any]) -> None:
    value = in_main("class C:\n    def m(self): return 1\nf = C()", "f")
    text = "00\n" + mime.encode(dill.dumps((value,)))
    with pytest.raises(DeserializationError, match="bytecode"):
        ComputeSerializer().deserialize(text, python_version=OTHER)


def test_all_code_strategies_fall_back_to_source_on_another_python(triple: Any) -> None:
    text = AllCodeStrategies().serialize(triple)
    assert ComputeSerializer().deserialize(text, python_version=OTHER)(5) == 15


def test_no_code_of_this_python_looks_foreign() -> None:
    import argparse
    import asyncio.base_events
    import inspect

    def codes(code: Any) -> Any:
        yield code
        for constant in code.co_consts:
            if hasattr(constant, "co_code"):
                yield from codes(constant)

    functions = [
        f
        for module in (argparse, asyncio.base_events, inspect)
        for thing in vars(module).values()
        for f in (thing, *(vars(thing).values() if isinstance(thing, type) else ()))
        if hasattr(f, "__code__")
    ]
    assert len(functions) > 300
    for function in functions:
        for code in codes(function.__code__):
            assert bytecode.looks_native(code), code


@pytest.mark.parametrize("version", sorted(BODIES))
def test_code_of_other_versions_is_noticed_when_nobody_knows_the_version(triple: Any, version: str) -> None:
    body = bytes.fromhex(BODIES[version].replace(" ", ""))
    if body == triple.__code__.co_code:
        assert bytecode.looks_native(triple.__code__)
        return
    foreign = dill.dumps(triple)
    native = triple.__code__.co_code
    foreign = foreign.replace(bytes([len(native)]) + native, bytes([len(body)]) + body)
    frame = int.from_bytes(foreign[3:11], "little") - len(native) + len(body)
    foreign = foreign[:3] + frame.to_bytes(8, "little") + foreign[11:]
    with pytest.raises(DeserializationError, match="bytecode"):
        dillpickle.loads(foreign)
