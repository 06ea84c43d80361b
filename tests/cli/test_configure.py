"""`farcall-endpoint configure --multi-user`: the files, and what is printed about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farcall.cli import configure as command
from farcall.cli.endpoint import main
from farcall.endpoint.config import load_config
from farcall.endpoint.manager.config import is_manager, load_manager_config, read_blueprint
from farcall.endpoint.manager.mapping import IdentityMap

POLICY = "d6071efc-c182-432d-a757-0fd8d975146c"
SUBSCRIPTION = "964be8f5-5f9b-11e4-b64e-12313940394d"
NAME = "mycluster-endpoint-mu"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def configure(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["configure", *arguments])


class Service:
    """What `configure` asks of a service."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def __call__(self) -> Service:
        return self

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def add_policy(self, **fields: Any) -> dict[str, Any]:
        self.made.append(fields)
        return {"id": POLICY}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    double = Service()
    monkeypatch.setattr(command, "open_client", double)
    return double


def test_the_deck_s_output_with_our_paths(base: Path) -> None:
    result = configure(NAME, "--multi-user")
    directory = base / NAME
    assert result.stdout == (
        f"Created multi-user profile for endpoint named <{NAME}>\n\n"
        f"Configuration file: {directory}/config.yaml\n\n"
        f"Example identity mapping configuration: {directory}/example_identity_mapping_config.json\n\n"
        f"User endpoint configuration template: {directory}/user_config_template.yaml.j2\n\n"
        f"User endpoint configuration schema: {directory}/user_config_schema.json\n\n"
        f"User endpoint environment variables: {directory}/user_environment.yaml\n\n"
        "Use the `start` subcommand to run it:\n\n"
        f"    $ farcall-endpoint start {NAME}\n"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in directory.iterdir()} == {0o600}


def test_the_files_are_a_manager_s_and_can_be_used_as_they_are(base: Path) -> None:
    old = os.umask(0o002)
    try:
        configure(NAME, "--multi-user", "--display-name", 'The "big" one', "--contact-email", "hpc@example.org")
    finally:
        os.umask(old)
    loaded = load_manager_config(base / NAME, is_privileged=True)
    config = loaded.config
    assert (config.display_name, config.email, config.public) == ('The "big" one', "hpc@example.org", True)
    assert loaded.notices == []
    assert read_blueprint(loaded).environment == {}
    assert loaded.mapping_path is not None
    IdentityMap.load(loaded.mapping_path)


@pytest.mark.parametrize(
    ("arguments", "is_multi_user"),
    [
        (("--multi-user", NAME), True),
        (("--multi-user", "--display-name", "x", NAME), True),
        ((NAME, "--multi-user", "true"), True),
        (("--multi-user=True", NAME), True),
        (("--multi-user", "false", NAME), False),
        ((NAME,), False),
    ],
)
def test_the_flag_stands_alone_or_has_a_value(base: Path, arguments: tuple[str, ...], is_multi_user: bool) -> None:
    assert configure(*arguments).exit_code == 0
    assert is_manager(base / NAME) is is_multi_user
    if not is_multi_user:
        load_config(base / NAME)


def test_root_is_told_what_a_direct_endpoint_does(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "runs every task as root" in configure("x").stderr
    assert configure("y", "--multi-user", "false").stderr == ""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert configure("z").stderr == ""


def test_without_privilege_there_is_no_mapping_and_a_note(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = configure(NAME, "--multi-user")
    assert "mapping" not in result.stdout
    assert "run as you" in result.stderr
    loaded = load_manager_config(base / NAME, is_privileged=False)
    assert (loaded.notices, loaded.config.public) == ([], False)
    assert not (base / NAME / "example_identity_mapping_config.json").exists()


def test_the_deck_s_policy(base: Path, service: Service) -> None:
    result = configure(
        NAME,
        *("--auth-policy-project-id", "8236ad07-2801-468a-b262-9f1814988cc5"),
        *("--auth-policy-display-name", "Globus Staff Only"),
        *("--allowed-domains", "*.globus.org"),
        *("--auth-timeout", "60"),
        *("--subscription-id", SUBSCRIPTION),
        "--multi-user",
    )
    assert result.exit_code == 0, result.output
    (made,) = service.made
    assert made["domain_constraints_include"] == ["*.globus.org"]
    assert (made["authentication_assurance_timeout"], made["display_name"]) == (60, "Globus Staff Only")
    config = load_manager_config(base / NAME, is_privileged=True).config
    assert (config.authentication_policy, config.subscription_id) == (POLICY, SUBSCRIPTION)


def test_the_deck_s_high_assurance_with_the_name_last(base: Path, service: Service) -> None:
    result = configure(
        "--multi-user",
        *("--auth-policy-project-id", "81954df4-17af-4ef5-83e7-6d1ad251af4a"),
        *("--display-name", "My Cluster Compute Endpoint - HA"),
        *("--allowed-domains", "example.edu"),
        *("--auth-timeout", "36000"),
        *("--subscription-id", SUBSCRIPTION),
        "--high-assurance",
        "gw2025-demo-compute-endpoint-ha",
    )
    assert result.exit_code == 0, result.output
    config = load_manager_config(base / "gw2025-demo-compute-endpoint-ha", is_privileged=True).config
    assert config.high_assurance
    assert config.display_name == "My Cluster Compute Endpoint - HA"


def test_files_are_copied_in_place_of_the_defaults(base: Path, tmp_path: Path) -> None:
    for name in ("manager", "template", "schema", "env", "mapping"):
        (tmp_path / name).write_text(f"{name}: x\n")
    result = configure(
        *("--manager-config", str(tmp_path / "manager"), "--template-config", str(tmp_path / "template")),
        *("--schema-config", str(tmp_path / "schema"), "--user-env-config", str(tmp_path / "env")),
        *("--id-mapping-config", str(tmp_path / "mapping"), "--multi-user", NAME),
    )
    directory = base / NAME
    assert f"Identity mapping configuration: {directory}/identity_mapping_config.json" in result.output
    assert {each.name: each.read_text() for each in directory.iterdir()} == {
        "config.yaml": "manager: x\n",
        "user_config_template.yaml.j2": "template: x\n",
        "user_config_schema.json": "schema: x\n",
        "user_environment.yaml": "env: x\n",
        "identity_mapping_config.json": "mapping: x\n",
    }


def test_options_that_contradict_each_other_leave_nothing_behind(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments in (
        ("--template-config", str(tmp_path / "file")),
        ("--contact-email", "a@b"),
        ("--multi-user", "--manager-config", str(tmp_path / "file"), "--display-name", "x"),
        ("--multi-user", "--template-config", str(tmp_path / "missing")),
        ("--multi-user=perhaps",),
    ):
        assert configure(NAME, *arguments).exit_code == 2
    assert not (base / NAME).exists()
    configure(NAME, "--multi-user")
    assert configure(NAME, "--multi-user").exit_code == 73


def test_a_function_id_with_a_digit_too_many_is_found_in_a_manager_s_file_too(base: Path) -> None:
    configure(NAME, "--multi-user")
    with (base / NAME / "config.yaml").open("a") as file:
        file.write("allowed_functions:\n  - 94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c\n")
    with pytest.raises(Exception, match=r"group 5 \('6fc0aabacd50c'\) has 13 digits instead of 12"):
        load_manager_config(base / NAME, is_privileged=True)
