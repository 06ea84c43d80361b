"""What templates can do, what they are told when they cannot, and the files that a new manager begins with."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from deck import ACCOUNT, ACCOUNT_SCHEMA, WORKERS
from farcall.endpoint.config import parse_config
from farcall.endpoint.templates import TemplateRefused, known_options, render, rendering

DEFAULTS = files("farcall.endpoint.templates") / "default"


def made(template: str, *, schema: Any = None, directory: Path | None = None, **options: Any) -> str:
    return render(
        template,
        options=options,
        schema=schema,
        template_dir=directory,
        parent_config={"display_name": "The cluster: A", "heartbeat_period": 30},
        user_runtime={"python_version": "3.11.2", "python": {"version": "3.11.2 # x"}},
        mapped_identity={"local": {"uname": "ann", "uid": 1001, "groups": [1001, 27]}, "globus": {"id": "the-id"}},
    )


def loaded(template: str, **options: Any) -> Any:
    return yaml.safe_load(made(template, **options))


def refused(template: str, **options: Any) -> TemplateRefused:
    with pytest.raises(TemplateRefused) as caught:
        made(template, **options)
    return caught.value


# The deck's examples -----------------------------------------------------------------------------------------------


def test_the_decks_workers() -> None:
    config = parse_config(made(WORKERS, WORKERS=5)).config
    assert config.engine.max_workers_per_node == 5
    said = str(refused(WORKERS))
    assert "needs the option 'WORKERS'" in said
    assert "Options that it names: WORKERS." in said


def test_the_decks_account_and_walltime() -> None:
    provider = parse_config(made(ACCOUNT, ACCOUNT_ID="314159265", WALLTIME="00:02:00")).config.engine.provider
    assert (provider.type, provider.account, provider.walltime) == ("SlurmProvider", "314159265", "00:02:00")
    assert provider.launcher.type == "SrunLauncher"
    provider = parse_config(made(ACCOUNT, schema=ACCOUNT_SCHEMA, ACCOUNT_ID="pi-chard")).config.engine.provider
    assert (provider.account, provider.walltime) == ("pi-chard", "00:30:00")


def test_the_decks_schema_says_what_is_allowed() -> None:
    error = refused(ACCOUNT, schema=ACCOUNT_SCHEMA, ACCOUNT_ID="314159265", WALLTIME="02:00:00", QUEUE="x")
    assert (error.step, error.status) == ("schema", 65)
    assert str(error).splitlines() == [
        "user_endpoint_config does not fit this endpoint's schema:",
        "  user_endpoint_config: 'QUEUE' is not known here; known: ACCOUNT_ID, WALLTIME",
        '  ACCOUNT_ID: "314159265" is not allowed; allowed: "pi-chard", "pi-foster" '
        "(Account identifier, limited to specific project values)",
        '  WALLTIME: "02:00:00" does not match the pattern ^0[0-1]:[0-5][0-9]:[0-5][0-9]$ '
        "(Wall-clock time limit in format 'HH:MM:SS', limited to maximum 01:59:59)",
    ]


# Schemas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "options", "said"),
    [
        ({"required": ["A", "B"]}, {"A": 1}, "user_endpoint_config: 'B' is missing"),
        ({"properties": {"A": {"type": "integer"}}}, {"A": "5"}, 'A: "5" is not of type integer'),
        ({"properties": {"A": {"maximum": 4}}}, {"A": 5}, "A: 5 is greater than the maximum of 4"),
        ({"properties": {"A": {"items": {"const": 1}}}}, {"A": [1, 2]}, "A[1]: 2 is not allowed; allowed: 1"),
        ({"properties": {"A": {"anyOf": [{"type": "null"}, {"pattern": "^x"}]}}}, {"A": "y"}, "A: "),
        ({"$defs": {"a": {"const": 1}}, "properties": {"A": {"$ref": "#/$defs/a"}}}, {"A": 2}, "A: 2 is not allowed"),
        ({"properties": {"A": {"maxLength": 3}}}, {"A": "x" * 10_000}, "A: 'xxx"),
        (False, {"A": 1}, "user_endpoint_config: "),
    ],
)
def test_a_fault_names_the_option_and_what_is_allowed(schema: Any, options: dict[str, Any], said: str) -> None:
    error = refused("x: 1", schema=schema, **options)
    assert (error.step, error.status) == ("schema", 65)
    assert said in str(error)
    assert len(str(error)) < 500


def test_the_draft_is_the_one_that_the_schema_names() -> None:
    tuple_of_draft_7 = {"properties": {"A": {"items": [{"type": "string"}]}}}
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", **tuple_of_draft_7}
    assert refused("x: 1", schema=draft_7, A=[1]).status == 65
    assert "schema for options is broken" in str(refused("x: 1", schema=tuple_of_draft_7, A=[1]))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "refers to 'http://127.0.0.1:9/schema.json'"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"$ref": "#/nowhere"}, "refers to '/nowhere'"),
        ({"type": "strin"}, "schema for options is broken"),
        ({"$schema": "https://example.org/mine"}, "no draft that is known"),
        ({"$ref": "#"}, "refers to itself without end"),
        ([], "a JSON Schema is an object"),
    ],
)
def test_a_broken_schema_is_the_sites_fault(schema: Any, said: str) -> None:
    error = refused("x: 1", schema=schema, A=1)
    assert (error.step, error.status) == ("schema", 78)
    assert said in str(error)


@pytest.mark.parametrize("name", ["_GC", "_FARCALL", "parent_config", "user_runtime", "mapped_identity", "range"])
def test_reserved_names_are_no_options(name: str) -> None:
    error = refused("x: 1", **{name: 1})
    assert (error.step, error.status) == ("schema", 65)
    assert f"'{name}' cannot be the name of an option" in str(error)


# The language ------------------------------------------------------------------------------------------------------


def test_every_template_knows_manager_runtime_and_identity() -> None:
    for prefix in ("", "_GC.", "_FARCALL."):
        found = loaded(
            f"name: {{{{ {prefix}parent_config.display_name }}}}\n"
            f"dir: /scratch/{{{{ {prefix}mapped_identity.local.uname }}}}/{{{{ {prefix}mapped_identity.globus.id }}}}\n"
            f"uid: {{{{ {prefix}mapped_identity.local.uid }}}}\n"
            f"groups: {{{{ {prefix}mapped_identity.local.groups }}}}\n"
            f"python: {{{{ {prefix}user_runtime.python_version }}}}\n"
            f"whole: {{{{ {prefix}user_runtime.python.version }}}}\n"
        )
        assert found == {
            "name": "The cluster: A",
            "dir": "/scratch/ann/the-id",
            "uid": 1001,
            "groups": [1001, 27],
            "python": "3.11.2",
            "whole": "3.11.2 # x",
        }
    environment = {"SITE": "a"}
    text = render(
        "x: {{ _GC.env.SITE }}",
        options={},
        schema=None,
        template_dir=None,
        parent_config={},
        user_runtime={},
        mapped_identity={},
        environment=environment,
    )
    assert yaml.safe_load(text) == {"x": "a"}


def test_texts_are_compared_with_their_quotes() -> None:
    template = "x: {% if KIND == '\"gpu\"' %}gpu{% elif KIND in ['\"a\"', '\"b\"'] %}ab{% else %}other{% endif %}"
    assert [loaded(template, KIND=kind)["x"] for kind in ("gpu", "a", "c")] == ["gpu", "ab", "other"]


def test_values_stay_values_through_filters_blocks_and_macros() -> None:
    template = """\
{%- macro provider(account) %}
type: SlurmProvider
account: {{ account }}
{%- endmacro %}
engine:
  provider:
    {{- provider(A)|indent(4) }}
{%- if EXCLUSIVE %}{{ "\\n    exclusive: true" if EXCLUSIVE else "" }}{% endif %}
{% set options %}a: {{ A }}{% endset -%}
options: { {{ options }} }
upper: {{ A|upper }}
list: [{{ NAMES|join(", ") }}]
number: {{ COUNT + 1 }}
first: {{ NAMES[0] }}
same: {{ NAMES }}
json: {{ NAMES|tojson }}
said: {{ options == 'a: "p: 1"' }}
"""
    assert loaded(template, A="p: 1", EXCLUSIVE=True, NAMES=["x, y", "z"], COUNT=2) == {
        "engine": {"provider": {"type": "SlurmProvider", "account": "p: 1", "exclusive": True}},
        "options": {"a": "p: 1"},
        "upper": "P: 1",
        "list": ["x, y", "z"],
        "number": 3,
        "first": "x, y",
        "same": ["x, y", "z"],
        "json": ["x, y", "z"],
        "said": True,
    }


def test_comments_of_the_template_stay() -> None:
    text = made("# Of the site.\nx: {{ A }}  # the account {{ A }}\n", A="p")
    assert text == '# Of the site.\nx: "p"  # the account "p"\n'


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("x: {{ A", "is broken (line 1"),
        ("x: 1\ny: {% if %}", "is broken (line 2"),
        ("x: {{ A.b.c }}", "has no attribute 'b'"),
        ("x: {{ A|nofilter }}", "No filter named 'nofilter'"),
        ("x: {{ 1 / 0 }}", "division by zero"),
        ("x: {{ range }}", "a function cannot be printed"),
        ("x: {{ A|map('upper') }}", "cannot be printed"),
        ("- {{ A }}", "has no keys"),
        ("just text", "has no keys"),
        ("", "has no keys"),
        ("x: 1\ny", "(line 2 of it)"),
        ("x: 1\n---\ny: 1", "is not YAML"),
        ("x: !!python/name:os.system", "is not YAML"),
        ("x: 2001-99-99", "is not YAML"),
        ('x: {{ "a: b" ~ A }} y: {{ A }}', "is not YAML"),
        ("{% autoescape true %}x: {{ A }}{% endautoescape %}", "autoescape is for web pages"),
        ("x: {% include 'other' %}", "includes 'other'"),
    ],
)
def test_what_a_template_cannot_do_is_said(template: str, said: str) -> None:
    error = refused(template, A={})
    assert (error.step, error.status) == ("template", 78)
    assert said in str(error)


def test_a_template_names_its_options() -> None:
    assert known_options(
        "{{ B }}{{ A|default(1) }}{% set c = 1 %}{{ c }}{{ _GC.x }}{{ user_runtime }}{{ range(2) }}"
    ) == (
        "A",
        "B",
    )


# Limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(10**9) %}a{% endfor %}", "far too large"),
        ("{% for i in range(99999) %}aaaaaaaaaaaaa{% endfor %}", "more than 512 KiB"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
        ("x: {{ 'x' * 10**9 }}", "too long"),
        ("x: {{ [1] * N }}", "too long"),
        ("x: {{ 9 ** 99999 }}", "too large"),
        ("x: {{ '%1000000000d'|format(1) }}", "999 places"),
        ("x: {{ 'a'.center(N) }}", "unsafe"),
        ("x: {{ 'a'|indent(N) }}", "80 characters"),
    ],
)
def test_templates_that_grow_without_end_are_stopped(template: str, said: str) -> None:
    assert said in str(refused(template, N=10**10))


@pytest.mark.parametrize(
    ("template", "schema"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", None),
        ("x: 1", {"properties": {"A": {"pattern": "^(a|a)*$"}}}),
    ],
    ids=["loop", "pattern"],
)
def test_templates_and_patterns_that_take_forever_are_stopped(
    template: str, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.2)
    assert "was not done within" in str(refused(template, schema=schema, A="a" * 100 + "b"))


# Includes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    inner = tmp_path / "templates"
    (inner / "parts").mkdir(parents=True)
    (inner / "parts" / "base.j2").write_text("engine:\n  type: {% block kind %}ThreadPoolEngine{% endblock %}\n")
    (inner / "macros.j2").write_text("{% macro two(x) %}[{{ x }}, {{ x }}]{% endmacro %}")
    (inner / "link.j2").symlink_to("parts/base.j2")
    (inner / "escape.j2").symlink_to("/etc/passwd")
    (inner / "escape").symlink_to("/etc")
    os.mkfifo(inner / "fifo")
    (tmp_path / "secret").write_text("x: secret")
    return inner


def test_templates_extend_include_and_import_from_their_directory(site: Path) -> None:
    extended = "{% extends 'parts/base.j2' %}{% block kind %}{{ super() }} # {{ A }}{% endblock %}"
    assert yaml.safe_load(made(extended, directory=site, A="x\ny: 1")) == {"engine": {"type": "ThreadPoolEngine"}}
    imported = (
        "{% import 'macros.j2' as m %}{% include 'link.j2' %}x: {{ m.two(A) }}\n{% from 'macros.j2' import two %}"
    )
    assert yaml.safe_load(made(imported, directory=site, A="a, b"))["x"] == ["a, b", "a, b"]


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "escape.j2", "escape/passwd", "parts/../../secret", "fifo", "parts", "", ".", "no"],
)
def test_nothing_outside_of_the_directory_is_read(site: Path, name: str) -> None:
    said = str(refused("{% include '" + name + "' %}", directory=site))
    assert "which the local user cannot read beside it" in said
    assert str(site) not in said


def test_a_user_chooses_no_include(site: Path) -> None:
    assert "includes" in str(refused("{% include A %}", directory=site, A="parts/base.j2"))


# What `configure --multi-user` writes ------------------------------------------------------------------------------


def test_the_default_template_takes_its_two_options_and_none() -> None:
    template = (DEFAULTS / "user_config_template.yaml.j2").read_text()
    schema = json.loads((DEFAULTS / "user_config_schema.json").read_text())
    assert known_options(template) == ("endpoint_setup", "worker_init") == tuple(schema["properties"])
    config = parse_config(made(template, schema=schema)).config
    provider = config.engine.provider
    assert (provider.type, provider.init_blocks, provider.min_blocks, provider.max_blocks) == ("LocalProvider", 0, 0, 1)
    assert (config.idle_heartbeats_soft, config.idle_heartbeats_hard, config.endpoint_setup) == (10, 5760, None)
    assert provider.worker_init == ""

    commands = "module load python\nsource ~/env/bin/activate # mine\necho {{json .}}"
    text = made(template, schema=schema, endpoint_setup=commands, worker_init=commands, other=1)
    config = parse_config(text, is_rendered=True).config
    assert (config.endpoint_setup, config.engine.provider.worker_init) == (commands, commands)
    assert refused(template, schema=schema, worker_init=5).status == 65


def test_the_default_environment_is_empty_and_the_example_mapping_valid(tmp_path: Path) -> None:
    assert yaml.safe_load((DEFAULTS / "user_environment.yaml").read_text()) is None
    from farcall.endpoint.manager.mapping import IdentityMap

    path = tmp_path / "mapping.json"
    path.write_text((DEFAULTS / "example_identity_mapping_config.json").read_text())
    path.chmod(0o600)
    assert IdentityMap.load(path).map([{"username": "ann@example.org"}]).local_user == "ann"
