"""The table of docs/howto/shell-functions.md, and more of its kind."""

from __future__ import annotations

import re
import string
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.worker.template import fill

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "shell-functions.md"


@pytest.mark.parametrize(
    ("command", "arguments", "filled"),
    [
        # what str.format accepts means what str.format makes of it
        ("echo {x}", {"x": 3}, "echo 3"),
        ("echo {x:03d} {y!r} {z.real} {w[0]}", {"x": 3, "y": "a", "z": 1, "w": [9]}, "echo 003 'a' 1 9"),
        ("echo '{{}}'", {}, "echo '{}'"),
        ("awk '{{print ${col}}}' {file}", {"col": 2, "file": "f"}, "awk '{print $2}' f"),
        ("echo ${{HOME}} {x}", {"x": 1}, "echo ${HOME} 1"),
        ("echo {x}", {"x": 1, "unused": 2}, "echo 1"),
        ("{{{x}}}", {"x": 1}, "{1}"),
        # anything else is shell text
        ("echo {}", {}, "echo {}"),
        ("find . -exec ls {} \\;", {}, "find . -exec ls {} \\;"),
        ("find {d} -exec ls {} \\;", {"d": "/x"}, "find /x -exec ls {} \\;"),
        ("awk '{print $1}' {file}", {"file": "f"}, "awk '{print $1}' f"),
        ("awk '{print}'", {}, "awk '{print}'"),
        ("echo ${HOME} $x", {}, "echo ${HOME} $x"),
        ("echo ${HOME} {x}", {"x": 1}, "echo ${HOME} 1"),
        ("for f in *; do echo ${f%.txt}; done", {}, "for f in *; do echo ${f%.txt}; done"),
        ("cp a.{txt,bak} {1..3} {a..z}", {"a": 1}, "cp a.{txt,bak} {1..3} {a..z}"),
        ('curl -d \'{"a": {"b": {x}}}\'', {"x": 1}, 'curl -d \'{"a": {"b": 1}}\''),
        ('echo \'{"a":{"b":1}}\'', {}, 'echo \'{"a":{"b":1}}\''),
        ("echo {", {}, "echo {"),
        ("echo } {x}", {"x": 1}, "echo } 1"),
        ("f() { echo hi; }; f {x:>3}", {"x": 1}, "f() { echo hi; }; f   1"),
        # doubled braces are single ones there too
        ("awk '{{print $1}}' {file} | jq '{a: .b}'", {"file": "f"}, "awk '{print $1}' f | jq '{a: .b}'"),
        ("echo {{x}} {x} | jq '{a: .b}'", {"x": 1}, "echo {x} 1 | jq '{a: .b}'"),
        ("echo {{{x}}} | jq '{a: .b}'", {"x": 1}, "echo {1} | jq '{a: .b}'"),
        ("echo {{a,b},{c,d}} {x}", {"x": 1}, "echo {{a,b},{c,d}} 1"),
        ("", {}, ""),
    ],
)
def test_braces_are_read_as_documented(command: str, arguments: dict[str, Any], filled: str) -> None:
    assert fill(command, arguments) == filled


def test_a_misspelt_argument_is_noticed() -> None:
    with pytest.raises(TypeError, match=r"has \{message\}, for which no argument.*arguments mesage are not used"):
        fill("echo {message}", {"mesage": "hi"})


def test_a_field_without_argument_stays_or_fails_as_one_likes() -> None:
    assert fill("echo {message}", {}) == "echo {message}"
    assert fill("echo ${message}", {}, missing="error") == "echo ${message}"
    with pytest.raises(TypeError, match=r"\{message\}"):
        fill("echo {message}", {}, missing="error")


def test_an_argument_that_cannot_be_formatted_as_asked_is_named() -> None:
    with pytest.raises(ValueError, match=r"argument n \(of type str\).*\{n:03d\}"):
        fill("echo {n:03d}", {"n": "many"})
    with pytest.raises(ValueError, match=r"argument n .*SimpleNamespace.*nope"):
        fill("echo {n.nope}", {"n": SimpleNamespace()})


NAMES = st.sampled_from(["x", "file", "n_1"])
PIECES = st.one_of(
    st.text(string.ascii_letters + " $'\"|;\\", max_size=6),
    NAMES.map(lambda name: "{" + name + "}"),
    st.sampled_from(["{{", "}}", "{", "}", "{}", "{0}", "${HOME}", "{a,b}", '{"k": 1}']),
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_what_str_format_accepts_is_what_it_says(command: str) -> None:
    arguments = {"x": 1, "file": "/a b", "n_1": 2.5}
    try:
        formatted = command.format(**arguments)
    except (LookupError, ValueError):
        with suppress(TypeError):  # an unfilled field beside unused arguments
            fill(command, arguments)
    else:
        assert fill(command, arguments) == formatted


@given(st.lists(PIECES, max_size=8).map("".join))
def test_behind_any_shell_text_a_field_is_filled(text: str) -> None:
    with suppress(TypeError):
        assert fill(text + " {word} ;}", {"x": 1, "file": "f", "n_1": 2.5, "word": "hi"}).endswith(" hi ;}")


@given(st.text(string.printable, max_size=40))
def test_without_arguments_only_doubled_braces_change(command: str) -> None:
    assert fill(command, {}).replace("{", "").replace("}", "") == command.replace("{", "").replace("}", "")


def test_the_how_to_shows_what_happens() -> None:
    rows = re.findall(
        r"^\| `(?P<cmd>[^`]+)` \| (?:`(?P<args>[^`]+)`|none) \| `(?P<run>[^`]+)` \|", HOWTO.read_text(), re.M
    )
    assert len(rows) > 8
    for command, arguments, ran in rows:
        command, ran = command.replace(r"\|", "|"), ran.replace(r"\|", "|")
        assert fill(command, eval(f"dict({arguments})")) == ran
