"""`config.yaml`: what is understood; what is refused, naming the line, the key and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from farcall.endpoint import config as config_module
from farcall.endpoint.config import ConfigInvalid, LoadedConfig, load_config, parse_config
from farcall.endpoint.manager.config import ManagerConfig

BAD = {
    "unknown key": (
        "debug: true\ndisplay_nme: x\n",
        ["line 2", "display_nme", "did you mean 'display_name'"],
    ),
    "unknown key like no other": (
        "debug: true\nwhatever: x\n",
        ["line 2", "unknown key 'whatever'. Allowed here:\n", "\n      admins, ", "display_name", "engine"],
    ),
    "an engine like no other": (
        "engine:\n  type: NoEngine\n",
        ["line 2", "'NoEngine' is not known. Allowed: GlobusComputeEngine, ", "ThreadPoolEngine"],
    ),
    "unknown engine key": (
        "engine:\n  type: ThreadPoolEngine\n  max_worker: 2\n",
        ["line 3", "engine.max_worker", "did you mean 'max_workers'", "working_dir"],
    ),
    "unknown engine": (
        "engine:\n  type: ThreadPool\n",
        ["line 2", "engine.type", "ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"],
    ),
    "unknown provider": (
        "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: SlurmProvder\n",
        ["line 4", "engine.provider.type", "did you mean 'SlurmProvider'", "LocalProvider"],
    ),
    "engine key of a flattened file": (
        "engine:\n  type: GlobusComputeEngine\nprovider:\n  type: LocalProvider\n  max_block: 3\n",
        ["line 5", "provider.max_block", "did you mean 'max_blocks'"],
    ),
    "wrong type": ("debug: 3\n", ["line 1", "debug", "true or false"]),
    "text for a number": ("engine:\n  type: ThreadPoolEngine\n  max_workers: many\n", ["line 3", "engine.max_workers"]),
    "zero workers": (
        "engine:\n  type: ThreadPoolEngine\n  max_workers: 0\n",
        ["line 3", "max_workers", "greater than 0"],
    ),
    "heartbeat that is no number": ("heartbeat_period: .nan\n", ["line 1", "heartbeat_period", "up to 1000000000"]),
    "heartbeat without end": ("heartbeat_period: .inf\n", ["line 1", "up to 1000000000"]),
    "grace that no clock can wait for": (f"shutdown_grace_period: 1{'0' * 400}\n", ["line 1", "up to 1000000000"]),
    "heartbeat too short": ("heartbeat_period: 2\n", ["line 1", "heartbeat_period", "at least 5 seconds"]),
    "threshold too short": (
        "heartbeat_period: 60\nheartbeat_threshold: 100\n",
        ["line 2", "heartbeat_threshold", "120"],
    ),
    "negative": ("idle_heartbeats_soft: -1\n", ["line 1", "idle_heartbeats_soft"]),
    "port": ("amqp_port: 70000\n", ["line 1", "amqp_port", "65535"]),
    "13 digits in a UUID": (
        "allowed_functions:\n  - aab66753-4b02-4162-a9d3-47374dabcdc4\n  - 94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c\n",
        ["line 3", "allowed_functions[1]", "94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c", "13 digits instead of 12"],
    ),
    "a letter in a UUID": (
        "allowed_functions: [94c7ce20-7a5a-4eb3-ac07-6fc0aabacd5x]\n",
        ["line 1", "allowed_functions[0]", "'x' in group 5"],
    ),
    "no UUID at all": ("authentication_policy: staff\n", ["line 1", "authentication_policy", "'staff' is not a UUID"]),
    "one id where a list belongs": (
        "allowed_functions: aab66753-4b02-4162-a9d3-47374dabcdc4\n",
        ["line 1", "allowed_functions", "a list is expected"],
    ),
    "placeholder as value": (
        "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: SlurmProvider\n    account: {{ ACCOUNT }}\n",
        ["line 5", "account", "{{ ACCOUNT }}", "placeholder"],
    ),
    "placeholder of several words": ("display_name: {{ YOUR NAME }}\n", ["line 1", "{{ YOUR NAME }}", "placeholder"]),
    "placeholder in quotes": ('display_name: "{{ NAME|default(1) }}"\n', ["line 1", "display_name", "placeholder"]),
    "placeholder inside a text": (
        "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: SlurmProvider\n"
        '    scheduler_options: "#SBATCH -C {{ OPTION }}"\n',
        ["line 5", "scheduler_options", "{{ OPTION }}"],
    ),
    "block of a template": ("{% if x %}\ndebug: true\n{% endif %}\n", ["line 1", "placeholder"]),
    "tab": ("engine:\n\ttype: ThreadPoolEngine\n", ["line 2", "tab"]),
    "syntax": ("engine: [\n", ["line 2", "not YAML"]),
    "twice": ("debug: true\ndebug: false\n", ["line 2", "debug", "line 1"]),
    "a list": ("- engine\n", ["keys with values"]),
    "many users": ("multi_user: true\n", ["line 1", "multi_user", "only for managers"]),
}


@pytest.mark.parametrize(("text", "parts"), BAD.values(), ids=BAD.keys())
def test_a_wrong_file_is_refused_naming_line_key_and_what_is_allowed(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(text, "/home/me/config.yaml")
    message = str(caught.value)
    assert "/home/me/config.yaml" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", BAD)
def test_no_line_of_a_refusal_is_too_long_for_a_terminal(name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(BAD[name][0])
    assert max(map(len, str(caught.value).splitlines())) <= 200


def test_many_allowed_keys_are_not_listed_where_one_is_meant() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config("debug: true\ndisplay_nme: x\n")
    assert caught.value.problems == ("line 2: display_nme: unknown key 'display_nme'; did you mean 'display_name'?",)


def test_several_mistakes_are_shown_together_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_config("debug: 1\namqp_port: 0\nheartbeat_period: 1\n")
    assert [text.split(":")[0] for text in caught.value.problems] == ["line 1", "line 2", "line 3"]


DECK = {
    "local": """\
amqp_port: 443
display_name: My Endpoint
engine:
  type: GlobusComputeEngine
provider:
  type: LocalProvider
""",
    "delta": """\
amqp_port: 443
display_name: NCSA Delta 2 CPU
engine:
  type: GlobusComputeEngine
  max_workers_per_node: 2

address:
  type: address_by_interface
  ifname: eth6.560

provider:
  type: SlurmProvider
  partition: cpu
  account: abc-delta-cpu

launcher:
  type: SrunLauncher

worker_init: source activate env
""",
    "batch": """\
display_name: My First Endpoint
engine:
  provider:
    type: SlurmProvider
    partition: compute
    account: abc
  launcher:
    type: SrunLauncher
  scheduler_options: "#SBATCH -C quad"
  worker_init: module load x
  walltime: 01:00:00
  nodes_per_block: 1
  type: GlobusComputeEngine
  max_workers_per_node: 8
""",
    "scaling": """\
engine:
  type: GlobusComputeEngine
  nodes_per_block: 8
  init_blocks: 1
  min_blocks: 0
  max_blocks: 4

  max_workers_per_node: 8

provider:
  type: SlurmProvider
  partition: compute
""",
}


@pytest.mark.parametrize("text", DECK.values(), ids=DECK.keys())
def test_files_as_slides_print_them_are_understood_with_notices(text: str) -> None:
    loaded = parse_config(text)
    assert loaded.engine.type == "GlobusComputeEngine"
    assert loaded.engine.provider is not None  # type: ignore[union-attr]
    assert loaded.notices
    assert all("belongs in" in notice for notice in loaded.notices)
    assert loaded.text == text


def test_an_empty_file_means_the_defaults() -> None:
    for text in ("", "# only a comment\n", "engine:\nendpoint_setup:\n"):
        config = parse_config(text).config
        assert config.engine.type == "GlobusComputeEngine"
        assert config.heartbeat_period == 30
        assert config.allowed_functions == []


def test_commands_with_double_braces_are_no_placeholders() -> None:
    text = "endpoint_setup: docker ps --format '{{.Names}}' && echo ${{HOME}}\n"
    assert parse_config(text.replace("${{HOME}}", "")).config.endpoint_setup is not None


def test_keys_that_have_no_effect_are_accepted_and_named() -> None:
    loaded = parse_config(
        "environment: production\npam: {enable: true}\nlog_dir: /tmp\n"
        "mu_child_ep_grace_period_s: 30\nlocal_compute_services: false\nemail: a@b.c\n"
    )
    named = [notice.split(":")[0].strip("`") for notice in loaded.notices]
    assert set(named) == {
        "environment",
        "pam",
        "log_dir",
        "mu_child_ep_grace_period_s",
        "local_compute_services",
    }


def test_identity_mapping_is_refused_to_root_and_without_effect_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "identity_mapping_config_path: /etc/map.json\n"
    monkeypatch.setattr(config_module, "_is_root", lambda: True)
    with pytest.raises(ConfigInvalid, match="Move `engine:` into user_config_template"):
        parse_config(text)
    monkeypatch.setattr(config_module, "_is_root", lambda: False)
    assert "identity_mapping_config_path" in parse_config(text).notices[0]


def load(directory: Path, **files: str) -> LoadedConfig:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return load_config(directory)


def test_a_template_beside_an_engine_is_said_to_do_nothing(tmp_path: Path) -> None:
    template = tmp_path / "user_config_template.yaml.j2"
    template.write_text("engine: {type: GlobusComputeEngine}\n")
    loaded = load(tmp_path, config__yaml="engine: {type: ThreadPoolEngine}\n")
    assert any("user_config_template" in notice for notice in loaded.notices)


def test_a_missing_file_and_a_python_file_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="does not exist"):
        load_config(tmp_path)
    with pytest.raises(ConfigInvalid, match=r"config\.py"):
        load(tmp_path, config__py="config = 1\n")


def test_a_file_that_is_no_text_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid, match="decode"):
        load_config(tmp_path)


def test_aliases_and_anchors_work() -> None:
    text = "x: &a\n  type: ThreadPoolEngine\n"
    assert parse_config("engine: &a {type: ThreadPoolEngine}\n").engine.type == "ThreadPoolEngine"
    with pytest.raises(ConfigInvalid, match="line 1: x"):
        parse_config(text + "engine: *a\n")


# The pages about it -----------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("reference/config-yaml.md", "howto/run-an-endpoint.md")


def test_every_key_has_its_entry_in_the_reference() -> None:
    page = (DOCS / "reference" / "config-yaml.md").read_text()
    keys = {*config_module.EndpointConfig.model_fields, *ManagerConfig.model_fields}
    assert {key for key in keys if f"`{key}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES)
def test_examples_in_the_pages_are_valid(page: str) -> None:
    examples = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        parse_config(example)
