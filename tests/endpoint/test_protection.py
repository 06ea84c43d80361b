"""`farcall-endpoint configure` with options that restrict use; `share` and its sisters against a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farcall.cli.endpoint import main
from farcall.cli.protection import Protection, ProtectionIncomplete
from farcall.endpoint.config import parse_config
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system

POLICY = "8236ad07-2801-468a-b262-9f1814988cc5"
SUBSCRIPTION = "964be8f5-5f9b-11e4-b64e-12313940394d"
NOTHING: dict[str, Any] = {
    "auth_policy": None,
    "allowed_domains": (),
    "excluded_domains": (),
    "auth_timeout": None,
    "auth_policy_mfa_required": False,
    "auth_policy_display_name": None,
    "auth_policy_description": None,
    "auth_policy_project_id": None,
    "subscription_id": None,
    "high_assurance": False,
}


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


def keys(service: Service, **options: Any) -> dict[str, Any]:
    return Protection(**{**NOTHING, **options}).keys("lab", service)  # type: ignore[arg-type]  # a double


def test_without_options_nothing_is_asked_of_a_service() -> None:
    service = Service()
    assert keys(service) == {}
    assert keys(service, subscription_id=SUBSCRIPTION) == {"subscription_id": SUBSCRIPTION}
    assert keys(service, auth_policy=POLICY) == {"authentication_policy": POLICY}
    assert service.made == []


def test_the_policy_demands_what_the_options_say() -> None:
    service = Service()
    found = keys(
        service,
        allowed_domains=("example.edu",),
        auth_timeout=36000,
        auth_policy_project_id=POLICY,
        subscription_id=SUBSCRIPTION,
        high_assurance=True,
    )
    assert found == {"authentication_policy": POLICY, "subscription_id": SUBSCRIPTION, "high_assurance": True}
    (made,) = service.made
    assert made == {
        "project_id": POLICY,
        "display_name": "Policy of endpoint lab",
        "description": "Made by `farcall-endpoint configure` for endpoint lab.",
        "domain_constraints_include": ["example.edu"],
        "authentication_assurance_timeout": 36000,
        "high_assurance": True,
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"auth_policy": POLICY, "allowed_domains": ("x.y",)}, "leave out the options that make one"),
        ({"high_assurance": True, "subscription_id": SUBSCRIPTION}, "needs an authentication policy"),
        ({"high_assurance": True, "auth_policy": POLICY}, "needs a subscription"),
    ],
)
def test_options_that_do_not_go_together_make_nothing(options: dict[str, Any], says: str) -> None:
    service = Service()
    with pytest.raises(ProtectionIncomplete, match=says):
        keys(service, **options)
    assert service.made == []


def invoke(base: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(base), *arguments], env={"COLUMNS": "120"})


def test_configure_writes_the_keys_and_refuses_nonsense(tmp_path: Path) -> None:
    done = invoke(tmp_path, "configure", "lab", "--auth-policy", POLICY, "--subscription-id", SUBSCRIPTION)
    assert done.exit_code == 0, done.output
    assert f"Authentication policy: {POLICY}" in done.output
    config = parse_config((tmp_path / "lab" / "config.yaml").read_text()).config
    assert (config.authentication_policy, config.subscription_id) == (POLICY, SUBSCRIPTION)
    for wrong in (["--auth-policy", "staff"], ["--auth-timeout", "0"], ["--high-assurance"]):
        done = invoke(tmp_path, "configure", "other", *wrong)
        assert done.exit_code == 2, done.output
    assert not (tmp_path / "other").exists()


# Against a real service --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("protection")) as system:
        for user in ("bob", "cleo"):
            system.service.command("user", "add", user)
        system.service.command("group", "create", "lab")
        yield system


@pytest.fixture(scope="module")
def shared(system: ProcessSystem) -> EndpointProcess:
    return system.endpoint("shared", "engine: {type: ThreadPoolEngine, max_workers: 1}\n")


def test_domains_that_name_none_do_not_leave_the_endpoint_open(tmp_path: Path) -> None:
    for option in ("--allowed-domains", "--excluded-domains"):
        for nothing in ("", " , "):
            result = CliRunner().invoke(main, ["-c", str(tmp_path), "configure", "open", option, nothing])
            assert (result.exit_code, "no domain is named" in result.output) == (2, True), result.output
    assert not (tmp_path / "open").exists()


@pytest.mark.system
def test_sharing_says_that_others_run_as_the_owner(shared: EndpointProcess) -> None:
    said = shared.command("share", "shared", "--with", "bob@local", "--group", "lab")
    assert "will run as you" in said.stderr
    assert "bob@local" in said.stdout
    found = json.loads(shared.command("shares", shared.id, "--json").stdout)
    assert [each["name"] for each in found["shares"]] == ["bob@local", "lab"]
    assert "lab" in shared.command("unshare", "shared", "--with", "bob@local").stdout
    assert "with nobody" in shared.command("unshare", "shared", "--all").stdout
    assert "no user 'eve@local'" in shared.command("share", "shared", "--with", "eve@local", status=69).stderr
    for wrong in (["share"], ["unshare"], ["unshare", "--all", "--group", "lab"]):
        shared.command(wrong[0], "shared", *wrong[1:], status=2)


@pytest.mark.system
def test_configure_makes_a_policy_that_the_operator_sees_and_keeps_from_deletion(system: ProcessSystem) -> None:
    place = system.endpoint("guarded", start=False)
    (place.directory / "config.yaml").unlink()
    place.command("configure", "guarded", "--allowed-domains", "*.example.edu", "--excluded-domains", "x.example.edu")
    config = place.directory / "config.yaml"
    config.write_text(config.read_text().split("engine:")[0] + "engine: {type: ThreadPoolEngine, max_workers: 1}\n")
    place.start()
    (found,) = json.loads(system.service.command("policy", "list", "--json").stdout)
    assert (found["display_name"], found["domain_constraints_include"]) == (
        "Policy of endpoint guarded",
        ["*.example.edu"],
    )
    shown = json.loads(system.service.command("policy", "show", found["id"], "--json").stdout)
    assert shown == found
    refused = system.service.command("policy", "delete", found["id"], status=1)
    assert "protects endpoint" in refused.stderr
    changed = system.service.command("policy", "update", found["id"], "--allowed-domains", "", "--json").stdout
    assert json.loads(changed)["domain_constraints_include"] == []
    place.command("delete", "guarded", "--yes", "--force")
    assert "is deleted" in system.service.command("policy", "delete", found["id"]).stdout
