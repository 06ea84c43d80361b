"""What the console decides without a browser: formats, logins, forms from schemas, programs, cells, headers."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from farcall.console import formats
from farcall.console.components.table import Cell, Column, _cell
from farcall.console.flow import authorization_path, passed_on, returned, safe_next
from farcall.console.headers import nonced, page_headers
from farcall.console.schema_form import FieldFault, FormField, fields_of, value_of
from farcall.console.snippet import snippet

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (float("nan"), "–"), (0.0123, "12 ms"), (1.25, "1.2 s"), (59.6, "1 min"), (200, "3 min 20 s"),
     (3600, "1 h"), (90000, "1 d 1 h"), (-5, "-5.0 s"), (9.99, "10.0 s")],
)  # fmt: skip
def test_durations_have_their_two_largest_units(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (-1, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 1024**4 * 1024, "5120 TiB")],
)
def test_sizes_have_the_unit_of_which_there_is_one(size: float | None, text: str) -> None:
    assert formats.size(size) == text


def test_counts_and_shares() -> None:
    assert formats.count(1234567) == "1\u202f234\u202f567"
    assert (formats.plural(1, "task"), formats.plural(0, "task")) == ("1 task", "0 tasks")
    assert (formats.share(3, 8), formats.share(9, 8), formats.share(1, 0)) == (0.375, 1.0, None)
    assert (formats.percent(0.375), formats.percent(None)) == ("38 %", "–")


def begun(browser: str = "ada's", **more: Any) -> str:
    asked = {"base": "https://here", "next": "/tasks", "demands": {}, "now": 100.0, **more}
    path = authorization_path(KEY, browser, **asked)
    return path.partition("state=")[2].partition("&")[0]


def test_a_login_comes_back_to_the_browser_that_began_it() -> None:
    state = begun()
    back = returned(KEY, "ada's", state, 200.0)
    assert back is not None
    assert (back.next, len(back.verifier)) == ("/tasks", 43)
    assert returned(KEY, "bob's", state, 200.0) is None
    assert returned(b"other", "ada's", state, 200.0) is None
    assert returned(KEY, "ada's", state, 100.0 + 3601) is None
    assert returned(KEY, None, state, 200.0) is None
    assert returned(KEY, "ada's", "x" + state, 200.0) is None
    assert returned(KEY, "ada's", "", 200.0) is None
    assert begun() != state


@pytest.mark.parametrize(
    "target", ["//evil", "/\\evil", "https://evil", "javascript:x", "/a\nb", "", None, "/" + "x" * 3000]
)
def test_a_login_leads_to_a_page_of_ours(target: str | None) -> None:
    assert safe_next(target) == "/compute"
    assert safe_next("/tasks?state=failed") == "/tasks?state=failed"


def test_only_what_a_login_has_to_satisfy_is_passed_on() -> None:
    query = {
        "session_required_mfa": "True",
        "prompt": "login",
        "redirect_uri": "https://evil",
        "scope": "all",
        "next": "/",
    }
    assert passed_on(query) == {"session_required_mfa": "True", "prompt": "login"}


def test_scripts_of_the_template_carry_the_nonce_and_texts_that_look_like_some_do_not() -> None:
    source = "<script>a</script><script type='x'></script>{{ user }}"
    assert nonced(source).count('<script nonce="{{ request.scope["csp_nonce"] }}"') == 2
    policy = page_headers("abc")["content-security-policy"]
    assert "script-src 'self' 'nonce-abc' 'unsafe-eval'" in policy


SCHEMA = {
    "type": "object",
    "required": ["account"],
    "properties": {
        "nodes": {"type": "integer", "minimum": 1, "maximum": 4, "description": "How many"},
        "account": {"type": ["string", "null"], "title": "Who pays"},
        "queue": {"enum": ["short", "long", 3]},
        "gpu": {"type": "boolean"},
        "env": {"type": "object"},
        "odd": True,
    },
}


def test_simple_members_become_fields_and_the_rest_is_typed_as_json() -> None:
    found = {each.name: each for each in fields_of(SCHEMA)}
    assert next(iter(found)) == "account"  # what is required comes first
    kinds = {name: each.kind for name, each in found.items()}
    assert kinds == {
        "account": "text", "nodes": "integer", "queue": "choice", "gpu": "boolean", "env": "json", "odd": "json",
    }  # fmt: skip
    assert found["queue"].choices == ('"short"', '"long"', "3")
    assert (found["account"].description, found["nodes"].maximum) == ("Who pays", 4)


@pytest.mark.parametrize("schema", [None, True, [], "x", {}, {"properties": []}, {"properties": {}, "required": 3}])
def test_a_schema_that_is_none_of_an_object_makes_no_form(schema: Any) -> None:
    assert list(fields_of(schema)) == []


def test_what_is_typed_becomes_a_value_or_is_told_why_not() -> None:
    field = FormField(name="n", kind="integer", minimum=1, maximum=4)
    assert [value_of(field, each) for each in ("2", " 3.0 ", "", None)] == [2, 3, None, None]
    for wrong in ("0", "5", "2.5", "many", "inf"):
        with pytest.raises(FieldFault):
            value_of(field, wrong)
    assert value_of(FormField(name="x", kind="choice"), "3") == 3
    assert value_of(FormField(name="x", kind="json"), '{"a": [1]}') == {"a": [1]}
    assert value_of(FormField(name="x", kind="text"), '"quoted"') == '"quoted"'
    with pytest.raises(FieldFault, match="JSON"):
        value_of(FormField(name="x", kind="json"), "{")


def test_a_program_is_python_whatever_is_in_its_configuration() -> None:
    config = {'a"b': ["''' </script>", None, True, {"n": 1.5}], "x" * 90: "y\n" * 5}
    text = snippet("https://here", "id'\"", config)
    tree = ast.parse(text)
    assigned = next(node for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == config
    assert "user_endpoint_config" not in snippet("https://here", "id", {})


def test_a_cell_says_what_is_shown_sorted_and_linked() -> None:
    row = {"n": 61.0, "s": "failed", "l": ["a", "b"], "c": Cell(value=1, text="one", href="/x")}
    shown = Column(name="n", label="N", kind="number", show=formats.duration)
    assert _cell(shown, row) == {"v": 61.0, "t": "1 min 1 s", "h": None}
    assert _cell(Column(name="s", label="S", kind="status"), row) == {"v": "failed", "t": None, "h": None, "s": "bad"}
    assert _cell(Column(name="l", label="L"), row) == "a, b"
    assert _cell(Column(name="c", label="C"), row) == {"v": 1, "t": "one", "h": "/x"}
    assert _cell(Column(name="none", label="-"), row) is None
