"""Commands that try out templates and mappings, and that make a manager of an endpoint."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farcall.cli.endpoint import main
from farcall.client.rest import ApiClient
from farcall.endpoint.config import parse_config
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.manager import accounts
from farcall.endpoint.manager.commands import StartRequest
from farcall.endpoint.manager.config import is_manager, load_manager_config, read_blueprint
from farcall.endpoint.manager.events import Person
from farcall.endpoint.manager.process import ManagerRun
from farcall.endpoint.pidfile import PidFile

ANYBODY = next(each.pw_name for each in pwd.getpwall() if each.pw_uid not in (0, os.geteuid()) and each.pw_gid != 0)


@pytest.fixture(autouse=True)
def persons_begin_at_1(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine where tests run may have no person's account."""
    if "mapping" in request.fixturenames:
        monkeypatch.setattr(accounts, "system_uid_limit", lambda: 0)
        monkeypatch.setattr(accounts, "_NOBODIES", ())


TEMPLATE = "engine:\n  type: ThreadPoolEngine\n  max_workers: {{ WORKERS }}\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "endpoints"


def invoke(base: Path, *arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(base), *arguments], input=text)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.yaml.j2"
    path.write_text(TEMPLATE)
    return path


# render-user-config ------------------------------------------------------------------------------------------------


def test_a_manager_s_template_is_rendered_as_its_user_endpoints_would_get_it(base: Path) -> None:
    invoke(base, "configure", "cluster", "--multi-user")
    directory = base / "cluster"
    config = (directory / "config.yaml").read_text().splitlines()
    config = [line for line in config if not line.startswith(("public:", "multi_user:", "description:"))]
    (directory / "config.yaml").write_text("\n".join([*config, "multi_user: 'yes'", "description:", ""]))
    template = directory / "user_config_template.yaml.j2"
    template.write_text(
        "engine: {type: ThreadPoolEngine, max_workers: {{ N }}}\n"
        "display_name: {{ _GC.parent_config.public }} {{ _GC.parent_config.multi_user }} "
        "{{ _GC.parent_config.heartbeat_period }} {{ _GC.parent_config.description|default(7) }} "
        "{{ mapped_identity.local.uname }} {{ user_runtime.python.version }} "
        "{{ _GC.env.SITE }} {{ _GC.env.FLAG }} {{ _GC.env.EMPTY|length }} {{ _GC.env.GC_USER_PYTHON_VERSION }} "
        "{{ _GC.env.HOME }}\n"
    )
    (directory / "user_environment.yaml").write_text("SITE: here\nFLAG: true\nEMPTY:\nHOME: /nowhere\n")
    runtime = '{"python": {"version": "3.9.1"}}'
    given = ("render-user-config", "-e", "cluster", "-o", '{"N": 3}', "--user-runtime", runtime)
    result = invoke(base, *given)
    assert result.exit_code == 0, result.output
    user = pwd.getpwuid(os.geteuid())
    home = user.pw_dir if os.geteuid() == 0 else os.environ["HOME"]
    end = f'{user.pw_name} "3.9.1" here true 0 3.9.1 {home}'
    assert parse_config(result.stdout).config.display_name == f"false true 30.0 7 {end}"
    # Another config.yaml is taken as a manager takes its own.
    result = invoke(base, *given, "--parent-config", '{"public": true, "description": "9"}')
    assert parse_config(result.stdout).config.display_name == f"true false 30.0 9 {end}"
    assert "did you mean 'public'" in invoke(base, *given, "--parent-config", '{"publik": true}').stderr


def test_the_preview_renders_what_a_manager_would_order(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke(base, "configure", "cluster", "--multi-user")
    directory = EndpointDirectory(base / "cluster")
    (directory.path / "user_environment.yaml").write_text("FLAG: false\nNUMBER: 1.50\nEMPTY:\n")
    (directory.path / "user_config_schema.json").write_text(" ")
    loaded = load_manager_config(directory.path)
    run = ManagerRun(directory, ApiClient("http://service.test", "token"), announcer=SimpleNamespace())  # type: ignore[arg-type]
    site = run._site(loaded, SimpleNamespace(resolve=None), None)  # type: ignore[arg-type]
    request = StartRequest(
        name="uep.x",
        user_endpoint_id="",
        queues={},
        options={},
        runtime={"python": {"version": "3.9.1"}},
        identity_id="",
        username="",
        identity_set=(),
        sent_unix_s=0.0,
    )
    person = Person(key="", local_user=None, account="", uid=0, mapped_identity={"local": {"uname": "ann"}})
    order = site.order(request, person, read_blueprint(loaded))
    seen: dict[str, Any] = {}

    def render(template: str, **values: Any) -> str:
        seen.update(values, template=template)
        return "engine: {type: ThreadPoolEngine}\n"

    monkeypatch.setattr("farcall.endpoint.templates.render", render)
    told = ("--user-runtime", json.dumps(order.user_runtime), "--mapped-identity", json.dumps(order.mapped_identity))
    assert invoke(base, "render-user-config", "-e", "cluster", *told).exit_code == 0
    for name in ("template", "schema", "parent_config", "user_runtime", "mapped_identity"):
        assert seen[name] == getattr(order, name), name
    assert str(seen["template_dir"]) == order.template_dir
    assert order.environment.items() <= seen["environment"].items()
    assert order.environment == {"FLAG": "false", "NUMBER": "1.5", "EMPTY": ""}


def test_what_no_manager_would_start_with_is_not_rendered(base: Path) -> None:
    invoke(base, "configure", "cluster", "--multi-user")
    directory = base / "cluster"
    environment, config = directory / "user_environment.yaml", directory / "config.yaml"
    for path, text, said in (
        (environment, "A=B: x\n", "'A=B' is no environment variable"),
        (directory / "user_config_schema.json", "{", "it is not JSON"),
        (config, config.read_text() + "idle_heartbeats_soft: 3\n", "move it into the template"),
    ):
        before = path.read_text()
        path.write_text(text)
        result = invoke(base, "render-user-config", "-e", "cluster")
        assert (result.exit_code, result.stdout) == (78, "")
        assert said in result.stderr
        path.write_text(before)


def test_files_and_standard_input_are_read(base: Path, template: Path, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text('{"WORKERS": 4}')
    given = ("render-user-config", "-t", str(template))
    result = invoke(base, *given, "-o", str(tmp_path / "options.json"))
    assert (result.exit_code, result.stdout) == (0, TEMPLATE.replace("{{ WORKERS }}", "4"))
    assert invoke(base, *given, "-o", "-", text='{"WORKERS": 4}').stdout == result.stdout
    assert invoke(base, "render-user-config", "-t", "-", "-o", '{"WORKERS": 4}', text=TEMPLATE).stdout == result.stdout
    twice = invoke(base, *given, "-o", "-", "-s", "-", text="{}")
    assert twice.exit_code == 2
    assert "standard input is read by" in twice.output


def test_what_does_not_fit_or_cannot_be_used_is_said(base: Path, template: Path) -> None:
    given = ("render-user-config", "-t", str(template))
    schema = '{"properties": {"WORKERS": {"maximum": 8}}}'
    result = invoke(base, *given, "-s", schema, "-o", '{"WORKERS": 9}')
    assert result.exit_code == 65
    assert "WORKERS: 9 is greater than the maximum of 8" in result.stderr
    result = invoke(base, *given)
    assert result.exit_code == 78
    assert "needs the option 'WORKERS'" in result.stderr
    result = invoke(base, *given, "-o", '{"WORKERS": "many"}')
    assert result.exit_code == 78
    assert 'max_workers: "many"' in result.stdout
    assert "line 3: engine.max_workers" in result.stderr
    assert invoke(base, *given, "-o", "[1]").exit_code == 2
    assert invoke(base, *given, "-o", "{").exit_code == 2
    assert invoke(base, "render-user-config").exit_code == 78
    template.write_text(TEMPLATE + "high_assurance: true\n")
    assert "belongs into the config.yaml" in invoke(base, *given, "-o", '{"WORKERS": 1}').stderr


# validate-mapping --------------------------------------------------------------------------------------------------


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    rules = [
        {"source": "{username}", "match": "(.*)@example\\.org", "output": "{0}"},
        {"source": "{email}", "match": "(.*)@lab\\.org", "output": "{0}"},
        {"source": "{username}", "match": ".*@example\\.org", "output": "no-body"},
    ]
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}]))
    path.chmod(0o600)
    return path


def test_it_says_who_becomes_whom_and_why(base: Path, mapping: Path) -> None:
    given = ("validate-mapping", "-m", str(mapping))
    by_email = json.dumps({"username": "x@y", "email": f"{ANYBODY}@lab.org"})
    result = invoke(base, *given, f"{ANYBODY}@example.org", by_email)
    assert result.output.splitlines() == [
        f"{ANYBODY}@example.org: {ANYBODY}, by document 1, mapping 1",
        f"x@y: {ANYBODY}, by document 1, mapping 2",
    ]
    assert result.exit_code == 0
    result = invoke(base, *given, "--all", f"{ANYBODY}@example.org")
    assert result.output.splitlines() == [
        f"{ANYBODY}@example.org: {ANYBODY}, by document 1, mapping 1 (counts)",
        f"{ANYBODY}@example.org: no-body, by document 1, mapping 3 (does not count); this machine has no such user",
    ]
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ann@elsewhere", "no local user; no rule matches"),
        ("no-such@example.org", "this machine has no such user"),
        ("root@example.org", "refused: it is root"),
    ],
)
def test_who_becomes_nobody_makes_the_status_1(base: Path, mapping: Path, name: str, said: str) -> None:
    result = invoke(base, "validate-mapping", "-m", str(mapping), name)
    assert said in result.output
    assert result.exit_code == 1


def test_accounts_of_the_system_are_refused_unless_the_managers_config_means_them(
    base: Path, mapping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "system_uid_limit", lambda: 2**31)
    invoke(base, "configure", "cluster", "--multi-user")
    given = ("validate-mapping", "-e", "cluster", "-m", str(mapping), f"{ANYBODY}@example.org")
    for extra, status in (("", 1), ("allow_system_accounts: true\n", 0)):
        config = base / "cluster" / "config.yaml"
        config.write_text(config.read_text() + extra)
        result = invoke(base, *given)
        assert ("account of the system" in result.output) == (status == 1)
        assert result.exit_code == status


def test_identities_come_from_files_too_and_what_is_wrong_makes_the_status_2(
    base: Path, mapping: Path, tmp_path: Path
) -> None:
    given = ("validate-mapping", "-m", str(mapping))
    people = json.dumps({"identities": [{"username": f"{ANYBODY}@example.org"}]})
    assert invoke(base, *given, "-i", "-", text=people).exit_code == 0
    (tmp_path / "people.json").write_text(people)
    assert invoke(base, *given, str(tmp_path / "people.json")).exit_code == 0
    assert "can be used" in invoke(base, *given).output
    assert invoke(base, *given, "{").exit_code == 2
    mapping.write_text("[{}]")
    result = invoke(base, *given, "a")
    assert result.exit_code == 2
    assert "document 1: DATA_TYPE is None" in result.output
    invoke(base, "configure", "cluster", "--multi-user", "false")
    assert invoke(base, "validate-mapping", "-e", "cluster", "a").exit_code == 2


# migrate-to-template-capable ---------------------------------------------------------------------------------------

DIRECT = """\
# Of the site.
display_name: "Mine: all"
amqp_port: 443

# How tasks run.
engine:
  type: GlobusComputeEngine
  # Four.
  max_workers_per_node: 4
  provider:
    type: LocalProvider
    worker_init: docker ps --format {{.Names}}
heartbeat_period: 20
idle_heartbeats_soft: 5
allowed_functions:
- 54460200-b652-4f43-a918-02882fa6114a
"""


def test_an_endpoint_becomes_a_manager_whose_user_endpoints_do_what_it_did(base: Path) -> None:
    invoke(base, "configure", "x")
    directory = base / "x"
    (directory / "config.yaml").write_text(DIRECT)
    before = parse_config(DIRECT).config
    with PidFile(directory / "daemon.pid"):
        assert invoke(base, "migrate-to-template-capable", "x", "--yes").exit_code == 69
    assert invoke(base, "migrate-to-template-capable", "x", text="n\n").exit_code == 1
    assert not is_manager(directory)
    result = invoke(base, "migrate-to-template-capable", "x", "--yes")
    assert result.exit_code == 0, result.output
    assert "Moves to user_config_template.yaml.j2: engine, heartbeat_period, idle_heartbeats_soft" in result.output
    assert is_manager(directory)
    assert (directory / "config.yaml.before-template").read_text() == DIRECT
    kept = (directory / "config.yaml").read_text()
    assert '# Of the site.\ndisplay_name: "Mine: all"\namqp_port: 443\n' in kept
    assert "engine" not in kept
    assert "# Four." in (directory / "user_config_template.yaml.j2").read_text()
    rendered = invoke(base, "render-user-config", "-e", "x")
    assert rendered.exit_code == 0, rendered.output
    after = parse_config(rendered.stdout, is_rendered=True).config
    assert after.engine == before.engine
    assert (after.heartbeat_period, after.idle_heartbeats_soft) == (20, 5)
    again = invoke(base, "migrate-to-template-capable", "x", "--yes")
    assert again.exit_code == 65
    assert "has a template already" in again.output


def test_what_cannot_be_divided_is_left_alone(base: Path) -> None:
    invoke(base, "configure", "x")
    text = "{display_name: x, engine: {type: ThreadPoolEngine}}\n"
    (base / "x" / "config.yaml").write_text(text)
    result = invoke(base, "migrate-to-template-capable", "x", "--yes")
    assert result.exit_code == 65
    assert "divided" in result.output
    assert (base / "x" / "config.yaml").read_text() == text
