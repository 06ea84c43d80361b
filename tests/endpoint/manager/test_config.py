"""A manager's files: what is a manager, which keys it has, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.configfile import ConfigInvalid
from farcall.endpoint.manager.config import (
    Blueprint,
    BlueprintUnreadable,
    LoadedManager,
    is_manager,
    load_manager_config,
    read_blueprint,
)
from farcall.endpoint.manager.process import registration_of_manager

POLICY = "b3e1c5d0-1111-4222-8333-444455556666"
TEMPLATE = "engine: {type: ThreadPoolEngine}\n"


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def load(directory: Path, text: str, *, is_privileged: bool = False) -> LoadedManager:
    write(directory, config__yaml=text, user_config_template__yaml__j2=TEMPLATE)
    return load_manager_config(directory, is_privileged=is_privileged)


@pytest.mark.parametrize(
    ("config", "template", "expected"),
    [
        ("multi_user: true\n", False, True),
        ("multi_user: 'True'\n", False, True),
        ("display_name: x\n", True, True),
        ("", True, True),
        ("user_config_template_path: /etc/other.j2\n", False, True),
        ("display_name: x\n", False, False),
        ("engine: {type: ThreadPoolEngine}\n", True, False),
        ("engine: {type: ThreadPoolEngine}\nmulti_user: true\n", False, True),
        ("- a list\n", True, False),
        ("{ not yaml", True, False),
    ],
)
def test_a_manager_is_known_by_its_files(tmp_path: Path, config: str, template: bool, expected: bool) -> None:
    write(tmp_path, config__yaml=config)
    if template:
        write(tmp_path, user_config_template__yaml__j2=TEMPLATE)
    assert is_manager(tmp_path) is expected


def test_the_decks_file_is_taken_whole(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "amqp_port: 443\ndisplay_name: My cluster\nidentity_mapping_config_path: mapping.json\nmulti_user: true\n"
        "public: true\nadmins: [b3e1c5d0-1111-4222-8333-444455556666]\nemail: hpc@example.edu\n"
        "pam: {service_name: site}\nmu_child_ep_grace_period_s: 60\n",
        is_privileged=True,
    )
    assert (loaded.config.amqp_port, loaded.config.pam_service, loaded.notices) == (443, "site", [])
    assert loaded.mapping_path == tmp_path / "mapping.json"
    assert loaded.config.mu_child_ep_grace_period_s == 60


@pytest.mark.parametrize(
    ("section", "service"),
    [
        ("", None),
        ("pam: {}\n", "farcall-endpoint"),
        ("pam: true\n", "farcall-endpoint"),
        ("pam: {enable: 'false'}\n", None),
        ("pam: {enable: false, service_name: x}\n", None),
        ("pam: {enable: 'Yes', service_name: x}\n", "x"),
    ],
)
def test_pam_is_asked_if_its_section_is_there(tmp_path: Path, section: str, service: str | None) -> None:
    assert load(tmp_path, section).config.pam_service == service


def test_only_root_maps_and_root_must(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"identity_mapping_config_path: is missing.*runs as root"):
        load(tmp_path, "multi_user: true\n", is_privileged=True)
    loaded = load(tmp_path, "identity_mapping_config_path: map.json\npam: {}\n", is_privileged=False)
    assert loaded.mapping_path is None
    assert [notice.split(":")[0] for notice in loaded.notices] == ["`identity_mapping_config_path", "`pam"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("multi_user: true\nengine: {type: ThreadPoolEngine}\n", ["line 2", "engine", "into the template"]),
        ("idle_heartbeats_soft: 10\n", ["line 1", "idle_heartbeats_soft", "into the template"]),
        ("max_user_endpoint: 3\n", ["line 1", "did you mean 'max_user_endpoints'"]),
        ("max_user_endpoints: 0\n", ["line 1", "max_user_endpoints", "greater than 0"]),
        ("pam: {servicename: x}\n", ["line 1", "pam.servicename", "did you mean 'service_name'"]),
        ("pam: {service_name: ../../x}\n", ["line 1", "pam.service_name"]),
        ("allowed_functions: [x]\n", ["line 1", "not a UUID"]),
        ("high_assurance: true\n", ["line 1", "authentication policy"]),
        ("heartbeat_period: 1\n", ["line 1", "at least 5"]),
    ],
)
def test_a_wrong_file_is_refused_naming_line_key_and_what_to_do(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, text)
    for part in parts:
        assert part in str(caught.value)


def test_a_manager_without_a_template_is_refused(tmp_path: Path) -> None:
    write(tmp_path, config__yaml="multi_user: true\n")
    with pytest.raises(ConfigInvalid, match="configure NAME --multi-user"):
        load_manager_config(tmp_path, is_privileged=False)


def test_the_blueprint_is_read_anew_each_time(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    assert read_blueprint(loaded) == Blueprint(template=TEMPLATE, schema=None, environment={})
    write(tmp_path, user_config_schema__json='{"type": "object"}', user_environment__yaml="A: 1\nB: true\nC:\n")
    found = read_blueprint(loaded)
    assert (found.schema, found.environment) == ({"type": "object"}, {"A": "1", "B": "true", "C": ""})


@pytest.mark.parametrize(
    "files",
    [
        {"user_config_schema__json": "{"},
        {"user_environment__yaml": "[a]"},
        {"user_environment__yaml": "A: [1]"},
        {"user_environment__yaml": "A=B: 1"},
    ],
)
def test_a_broken_blueprint_is_named(tmp_path: Path, files: dict[str, str]) -> None:
    loaded = load(tmp_path, "")
    write(tmp_path, **files)
    with pytest.raises(BlueprintUnreadable, match=str(tmp_path)):
        read_blueprint(loaded)


def test_a_manager_for_high_assurance_vouches_for_the_engines_of_its_user_endpoints(tmp_path: Path) -> None:
    protected = f"high_assurance: true\nauthentication_policy: {POLICY}\nsubscription_id: {POLICY}\n"
    for text, is_encrypted in ((protected, True), ("display_name: x\n", False)):
        loaded = load(tmp_path, text)
        sent = registration_of_manager("site", loaded, read_blueprint(loaded))
        assert (sent.high_assurance, sent.metadata["engine_encrypted"]) == (is_encrypted, is_encrypted)


@pytest.mark.parametrize(
    "text", ["A: [1, 2]\n", "- A\n", "A: {b: c}\n", "A: 2026-13-45\n", "A\n", "on: 1\n", "A: b: c\n", "[" * 3000]
)
def test_an_environment_that_is_none_is_told_of_with_its_file(tmp_path: Path, text: str) -> None:
    loaded = load(write(tmp_path, user_environment__yaml=text), "multi_user: true\n")
    with pytest.raises(BlueprintUnreadable, match=r"user_environment\.yaml cannot be used"):
        read_blueprint(loaded)


@pytest.mark.parametrize("text", ["display_name: 2026-13-45\n", "[" * 3000])
def test_a_configuration_that_no_parser_foresaw_is_told_of_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"config\.yaml cannot be used"):
        load(tmp_path, text)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff\xfe"), lambda path: None])
def test_a_template_that_cannot_be_read_is_told_of_when_somebody_wants_it(tmp_path: Path, make: Any) -> None:
    loaded = load(tmp_path, "multi_user: true\n")
    loaded.template_path.unlink()
    make(loaded.template_path)
    with pytest.raises(BlueprintUnreadable, match=r"user_config_template\.yaml\.j2 cannot be used"):
        read_blueprint(loaded)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1'])
def test_a_schema_that_is_no_json_is_told_of_with_its_file(tmp_path: Path, text: str) -> None:
    loaded = load(write(tmp_path, user_config_schema__json=text), "multi_user: true\n")
    with pytest.raises(BlueprintUnreadable, match=r"user_config_schema\.json cannot be used"):
        read_blueprint(loaded)
