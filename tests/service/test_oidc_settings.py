"""Providers in the settings: a table each in the file, JSON in the environment, secrets never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farcall.service.oidc.provider import OidcProvider
from farcall.service.settings import ServiceSettings
from farcall.service.sources import SettingsError, effective_settings, shown

ROOT = Path(__file__).parents[2]
TABLE = {"name": "site", "issuer": "https://login.example", "client_id": "farcall", "allowed_domains": ["*"]}


def settings(file: Path | None = None, **env: str) -> ServiceSettings:
    found = effective_settings(command_line={}, environment=env, file=file, default_data_dir=Path("/var/farcall"))
    return found.settings


def test_each_table_of_the_file_is_a_provider_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text(
        '[[oidc]]\nname = "a"\nissuer = "https://a.example"\nclient_id = "x"\nallowed_domains = ["a.example"]\n'
        'client_secret_file = "secret"\n'
        '[[oidc]]\nname = "b"\nissuer = "https://b.example"\nclient_id = "x"\nallowed_domains = ["*"]\nlabel = "Bee"\n'
    )
    first, second = settings(file).oidc
    assert (first.name, first.client_secret_file, first.shown_as) == ("a", tmp_path / "secret", "a")
    assert (second.name, second.allowed_domains, second.shown_as) == ("b", ("*",), "Bee")


def test_the_environment_has_them_as_json() -> None:
    assert settings(FARCALL_OIDC=json.dumps([TABLE])).oidc == (
        OidcProvider(name="site", issuer="https://login.example", client_id="farcall", allowed_domains=("*",)),
    )


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ("no json", "must be a list of tables"),
        ("{}", "must be a list of tables"),
        ("[7]", "must be a list of tables"),
        ([{**TABLE, "isuer": "x"}], "Did you mean 'issuer'"),
        ([{"name": "site"}], "'issuer' is missing in [[oidc]] number 1"),
        ([{**TABLE, "scopes": "openid"}], "'scopes' in [[oidc]] number 1"),
        ([{**TABLE, "issuer": "http://login.example"}], "'issuer' must be an https URL"),
        ([TABLE, TABLE], "same name"),
        ([{**TABLE, "client_secret": ["hush"]}], "'client_secret'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_no_secret_repeated(tables: object, reason: str) -> None:
    text = tables if isinstance(tables, str) else json.dumps(tables)
    with pytest.raises(SettingsError) as refusal:
        settings(FARCALL_OIDC=text)
    assert reason in str(refusal.value)
    assert "hush" not in str(refusal.value)


def test_secrets_are_not_shown() -> None:
    (provider,) = settings(FARCALL_OIDC=json.dumps([{**TABLE, "client_secret": "hush"}])).oidc
    printed = shown("oidc", (provider,))
    assert "hush" not in printed + repr(provider)
    assert "client_secret = ********" in printed
    assert "issuer = https://login.example" in printed
    assert shown("oidc", ()) == "(none)"


def test_the_example_of_the_page_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "connect-an-identity-provider.md").read_text()
    lines = page.partition("```toml\n")[2].partition("```")[0].splitlines()
    file = tmp_path / "service.toml"
    file.write_text("\n".join(line.strip() for line in lines))
    (provider,) = settings(file).oidc
    assert (provider.name, provider.allowed_domains) == ("site", ("site.example",))


def test_every_member_of_a_table_is_documented() -> None:
    page = (ROOT / "docs" / "howto" / "connect-an-identity-provider.md").read_text()
    table = page.partition("## What a table may say")[2].partition("\n## ")[0]
    documented = {
        name for line in table.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    }
    assert documented == set(OidcProvider.__dataclass_fields__)
