"""Whatever a submitter sends stands where the template put it, and says what it said: YAML, Jinja and shell attacks."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from farcall.endpoint.templates import TemplateRefused, render
from farcall.endpoint.yamlfile import parse_yaml

ATTACKS = [
    "a\nevil: 1",
    "a\r\nevil: 1",
    "a\revil: 1",
    "a\u2028evil: 1",
    "a\u2029evil: 1",
    "a\x85evil: 1",
    "a\x0bevil: 1\x0cevil: 2",
    "a\x00evil: 1",
    '"\nevil: 1\nb: "',
    '", evil: 1, b: "',
    "', evil: 1, b: '",
    "a, evil: 1",
    "a: 1",
    "a #",
    "{evil: 1}",
    "[evil]",
    "}, evil: {",
    "*anchor",
    "&anchor x",
    "!!python/object/apply:os.system [id]",
    "!!binary aGk=",
    "<<",
    "- evil",
    "? evil",
    "| evil",
    "---\nevil: 1",
    "...",
    "%YAML 1.1",
    "\ufeffevil: 1",
    "\\\nevil: 1",
    '\\"\nevil: 1',
    "\\u000aevil: 1",
    "\\x27; id; \\x27",
    "{{ 7*7 }}",
    "{% include '/etc/passwd' %}",
    "{{ ''.__class__.__mro__ }}",
    "{# ",
    "#}",
    "{% raw %}",
    "{% endraw %}",
    "{{ parent_config }}",
    "$(id)",
    "`id`",
    "; id",
    "' ; id ; '",
    '" ; id ; "',
    "| id",
    "&& id",
    "$HOME",
    "~",
    "-rf",
    "*",
    "!!",
    " leading",
    "trailing ",
    "\t",
    "",
    "null",
    "true",
    "1e3",
    "12:30:45",
    "0o17",
    "2001-01-01",
    "😀 ünï \U0010ffff \U000e0001",
    "\u200b\u202e\ufdd0\ufffd",
    "x" * 5000,
]

PLACES = {
    "whole": "x: @\nlast: 1\n",
    "in a plain text": "x: before @ after\nlast: 1\n",
    "at the end of a plain text": "x: before @\nlast: 1\n",
    "in a double-quoted text": 'x: "before @ after"\nlast: 1\n',
    "in a single-quoted text": "x: 'before @ after'\nlast: 1\n",
    "in a block": "x: |\n  before\n    @ after\n  @\nlast: 1\n",
    "at the beginning of a block": "x: |-\n  @\nlast: 1\n",
    "in a folded block": "x: >\n  before\n  @\n  after\nlast: 1\n",
    "in a list": "x:\n  - @\n  - b\nlast: 1\n",
    "in a flow list": "x: [@, b]\nlast: 1\n",
    "in a flow mapping": "x: {a: @, b: run @ c}\nlast: 1\n",
    "with a tag and an anchor": "x: &a !!str @\ny: *a\nlast: 1\n",
    "in a comment": "x: 1 # of @\n# and @\nlast: 1\n",
    "in an indented macro": "{% macro m(v) %}\nx: @v\n{% endmacro %}y:\n{{ m(X)|indent(2) }}last: 1\n",
}


def made(template: str, *, schema: Any = None, **options: Any) -> str:
    return render(
        template,
        options=options,
        schema=schema,
        template_dir=None,
        parent_config={},
        user_runtime={},
        mapped_identity={},
    )


def shape(value: Any) -> Any:
    """What keys and lists there are."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


def at(place: str, expression: str) -> str:
    template = PLACES[place]
    return template.replace("@v", f"{{{{ {expression.replace('X', 'v')} }}}}").replace("@", f"{{{{ {expression} }}}}")


@pytest.mark.parametrize("expression", ["X", "X|shell_escape", "X|replace('\"', '')", "'-' ~ X", "[X]|join(' ')"])
@pytest.mark.parametrize("place", PLACES)
def test_no_text_adds_a_key_anywhere(place: str, expression: str) -> None:
    template = at(place, expression)
    harmless = shape(yaml.safe_load(made(template, X="harmless")))
    refused = []
    for attack in ATTACKS:
        try:
            text = made(template, X=attack)
        except TemplateRefused:  # saying no is safe; how often, is below
            refused.append(attack)
        else:
            assert shape(yaml.safe_load(text)) == harmless, attack
            parse_yaml(text, is_rendered=True)
    if expression == "X" and place != "in a comment":
        assert refused == [], "a quoted value fits everywhere"


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_whole_value_says_what_it_said(attack: str) -> None:
    assert yaml.safe_load(made("x: {{ X }}", X=attack)) == {"x": attack}
    assert yaml.safe_load(made("x: {{ X.a[0] }}", X={"a": [attack]})) == {"x": attack}
    assert yaml.safe_load(made("x: {{ X }}", X={attack[:200]: [attack]})) == {"x": {attack[:200]: [attack]}}
    assert yaml.safe_load(made('x: "<{{ X }}>"', X=attack)) == {"x": f"<{attack}>"}


SHELL_PLACES = ["x: printf %s @", "x: |\n  printf %s @", 'x: "printf %s @"', "x: 'printf %s @'", "x: [a, printf %s @]"]


@pytest.mark.parametrize("place", SHELL_PLACES)
def test_an_escaped_word_is_one_word_to_a_real_shell(place: str) -> None:
    template = place.replace("@", "{{ X|shell_escape }}")
    words = [each for each in ATTACKS if len(each) < 1000]
    script, expected, refused = [], [], []
    for attack in words:
        try:
            command = yaml.safe_load(made(template, X=attack))["x"]
        except TemplateRefused:
            refused.append(attack)
            continue
        script.append(command[-1] if isinstance(command, list) else command)
        expected.append(attack)
    assert all(re.search("[\x00-\x1f\x85\u2028\u2029\ufeff]", attack) for attack in refused)
    assert len(expected) > 40
    done = subprocess.run(["/bin/sh", "-c", "; printf '\\036'; ".join(script)], capture_output=True, check=True)
    assert done.stdout.decode().removesuffix("\n").split("\x1e") == expected


def test_an_escaped_word_alone_keeps_its_quotes_for_the_shell() -> None:
    command = yaml.safe_load(made("x: {{ X|shell_escape }}", X="a; id"))["x"]
    assert shlex.split(command) == ["a; id"]
    assert yaml.safe_load(made("x: run {{ X|shell_escape }}", X={"a": ["b'c", None]}))["x"] == (
        "run " + shlex.quote('{"a": ["b\'c", null]}')
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ X }}: &{{ X }} y",
        "x: *{{ X }}",
        "x: !{{ X }} y",
        "%TAG ! {{ X }}\n---\nx: 1",
        "{{ X }}",
    ],
)
def test_a_value_stands_nowhere_but_in_keys_values_and_comments(template: str) -> None:
    with pytest.raises(TemplateRefused):
        made(template, X="a b")


@pytest.mark.parametrize("key", [each[:100] for each in ATTACKS if each])
def test_a_key_that_a_template_makes_of_an_option_is_one_key(key: str) -> None:
    template = "{% for key, value in X.items() %}{{ key }}: {{ value }}\n{% endfor %}"
    assert list(yaml.safe_load(made(template, X={key: "v: w"})).values()) == ["v: w"]


@pytest.mark.parametrize(
    "expression",
    [
        "X.__class__",
        "X|attr('__class__')",
        "''.__class__.__mro__[1].__subclasses__()",
        "X._raw",
        "self._TemplateReference__context",
        "range.__globals__",
        "X.format.__globals__",
        "'{0.__class__}'.format(X)",
        "cycler.__init__.__globals__",
        "lipsum.__globals__",
        "X.append(1)",
        "parent_config.update({'a': 1})",
        "_GC.clear()",
        "namespace.__init__",
    ],
)
def test_the_sandbox_gives_nothing_away(expression: str) -> None:
    with pytest.raises(TemplateRefused):
        made(f"x: {{{{ {expression} }}}}", X=["a"])


# Any value of JSON -------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
LIMITS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@LIMITS
@given(values)
@example(1e16)
@example(5e-324)
@example(-0.0)
@example(2**1000)
@example({"<<": {"a": 1}, "=": 1, "": [[], {}]})
def test_any_value_of_json_comes_out_as_it_went_in(value: Any) -> None:
    found = yaml.safe_load(made("x: {{ v }}\ny:\n  - {{ v }}\nz: [{{ v }}, 1]", v=value))
    for each in (found["x"], found["y"][0], found["z"][0]):
        assert each == value
        assert type(each) is type(value)
        assert not isinstance(value, float) or math.copysign(1, each) == math.copysign(1, value)


@LIMITS
@given(st.dictionaries(st.sampled_from(["A", "B"]), texts, min_size=2), st.sampled_from(sorted(PLACES)))
def test_no_two_values_together_leave_their_places(options: dict[str, str], place: str) -> None:
    template = at(place, "A") + at(place, "B").replace("x:", "xx:").replace("y:", "yy:").replace("last", "end")
    template = template.replace("{% macro m(v) %}", "{% macro m(v) %}", 1)
    if "macro" in place:
        template = at(place, "A").replace("X", "A")
        options = {"A": options["A"]}
    template = template.replace("&a ", "").replace("*a", "z")
    harmless = shape(yaml.safe_load(made(template, **dict.fromkeys(options, "harmless"))))
    assert shape(yaml.safe_load(made(template, **options))) == harmless


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.inf, "inf is not a number"),
        (math.nan, "nan is not a number"),
        ("a\ud800", "half a character"),
        ({"k": ["\udfff"]}, r"v\['k'\]\[0\]: half a character"),
        (2**2000, "more than 1024 bits"),
        ({"k" * 300: 1}, "a key of 300 characters"),
        (b"bytes", "a bytes is no value of JSON"),
        ({1: 2}, "1 is no text"),
    ],
    ids=str,
)
def test_what_no_configuration_can_hold_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(TemplateRefused, match=said) as caught:
        made("x: {{ v }}", v=value)
    assert (caught.value.step, caught.value.status) == ("schema", 65)


def test_depth_is_limited_long_before_python_is() -> None:
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(TemplateRefused, match="32 deep"):
        made("x: {{ v }}", v=deep)
