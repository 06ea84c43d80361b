from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from farcall.serialize import mime
from farcall.serialize.exceptions import EXCEPTION_LIMIT_CHARS, RemoteTraceback, dump_exception, load_exception

TEXT = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\nValueError: 3'


class Particular(Exception):
    """Its class cannot be called with its args."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} failed")
        self.what = what
        self.code = code


class Prefixing(Exception):
    """Called with its args, it would say something else."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what}")


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I have no words")


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(3)


def there_and_back(exc: BaseException) -> Any:
    return load_exception({"exception": dump_exception(exc), "hostname": "node7"}, TEXT, task_id="t-1")


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("bad", 3),
        KeyError("k"),
        OSError(2, "No such file", "/data/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        subprocess.CalledProcessError(3, ["ls"]),
        StopIteration(5),
        Particular("disk", 5),
        Prefixing("luck"),
        Unpicklable("x"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_arrives_as_its_own_type_with_args_and_text(exc: Exception) -> None:
    back = there_and_back(exc)
    assert type(back) is type(exc)
    assert back.args == exc.args
    assert str(back) == str(exc)
    with pytest.raises(type(exc)):
        raise back


def test_attributes_that_can_travel_do_and_others_stay_behind() -> None:
    exc = Particular("disk", 5)
    exc.lock = (i for i in ())  # type: ignore[attr-defined]
    back = there_and_back(exc)
    assert (back.what, back.code, hasattr(back, "lock")) == ("disk", 5, False)


def test_the_remote_traceback_is_the_cause_and_is_shown() -> None:
    back = there_and_back(ValueError(3))
    assert isinstance(back.__cause__, RemoteTraceback)
    assert back.__cause__.text == TEXT
    shown = "".join(traceback.format_exception(type(back), back, back.__traceback__))
    assert 'File "x.py", line 3, in f' in shown
    if sys.version_info >= (3, 11):
        assert "task t-1 on node7" in shown


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_would_end_the_caller_does_not_travel(exc: BaseException) -> None:
    assert dump_exception(exc) is None


def test_an_exception_without_words_does_no_harm() -> None:
    back = there_and_back(Speechless(1))
    assert type(back) is Speechless
    assert back.args == (1,)


def test_too_large_an_exception_stays_behind() -> None:
    assert dump_exception(ValueError("x" * EXCEPTION_LIMIT_CHARS)) is None
    text = dump_exception(ValueError("x" * 45_000))
    assert text is not None
    assert len(text) <= EXCEPTION_LIMIT_CHARS


def test_a_class_of_a_script_arrives_as_the_receivers_own(in_main: Callable[[str, str], Any]) -> None:
    source = "class Odd(Exception):\n    def __init__(self, a, b):\n        super().__init__(a + b)\nexc = Odd(1, 2)\n"
    details = {"exception": dump_exception(in_main(source, "exc"))}
    there = in_main(source, "Odd")  # made anew, as in another process
    back = load_exception(details, TEXT)
    assert type(back) is there
    assert back.args == (3,)


def test_bytecode_of_another_python_is_not_loaded_with_an_exception(in_main: Callable[[str, str], Any]) -> None:
    text = dump_exception(in_main("class Odd(Exception):\n    def m(self): ...\nexc = Odd(1)\n", "exc"))
    assert text is not None
    untagged = "00\n" + mime.encode(mime.decode(text[3:]).partition(b".\x00farcall")[0] + b".")
    assert load_exception({"exception": untagged, "python_version": sys.version}, TEXT) is not None
    assert load_exception({"exception": untagged, "python_version": "3.99.1"}, TEXT) is None


@pytest.mark.parametrize(
    "details",
    [
        None,
        {},
        {"exception": None},
        {"exception": 5},
        {"exception": "01\nxx"},
        {"exception": "00\n!!"},
        {"exception": "00\ngASVBQAAAAAAAABLB4WULg==\n"},
        {"exception": "00\n" + mime.encode(b"\x80\x04cno_such_module\nX\n.")},
        {"exception": "00\n" + mime.encode(b"\x80\x04cbuiltins\nSystemExit\n)R.")},
    ],
    ids=range(9),
)
def test_what_is_no_exception_is_none_and_never_raises(details: Any) -> None:
    assert load_exception(details, TEXT) is None


def test_a_caller_who_wants_no_pickles_gets_none() -> None:
    assert load_exception({"exception": dump_exception(ValueError(1))}, TEXT, allow_dill=False) is None
