"""What a template may make: the keys of an endpoint, but not what the site has decided elsewhere."""

from __future__ import annotations

import pytest

from farcall.endpoint.configfile import ConfigInvalid
from farcall.endpoint.manager.line import Begin
from farcall.endpoint.userconfig import parse_user_config

ENGINE = "engine: {type: ThreadPoolEngine}\n"
HTEX = "engine:\n  type: GlobusComputeEngine\n  encrypted: false\n  provider: {type: LocalProvider}\n"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"
OTHER = "ffffffff-0000-4000-8000-000000000002"


def begin(**more: object) -> Begin:
    return Begin(user_endpoint_id="u", queues={}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    ["high_assurance: true", "multi_user: true", f"authentication_policy: {OTHER}", "pam: {enable: true}",
     "identity_mapping_config_path: /etc/mapping.json"],
)  # fmt: skip
def test_what_the_site_decides_cannot_be_set_by_a_template(key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_user_config(f"{ENGINE}{key}\n", begin())
    assert f"line 2: {key.partition(':')[0]}" in str(caught.value)
    assert "manager" in str(caught.value)


@pytest.mark.parametrize("key", ["public: true", f"admins: [{OTHER}]", "audit_log_path: /tmp/x", "ca_file: x.pem"])
def test_what_would_do_nothing_is_told_of(key: str) -> None:
    loaded = parse_user_config(f"{ENGINE}{key}\n", begin())
    assert [key.partition(":")[0] in notice for notice in loaded.notices] == [True]
    assert (loaded.config.ca_file, loaded.config.audit_log_path) == (None, None)


def test_a_switch_that_says_no_is_no_attempt() -> None:
    loaded = parse_user_config(f"{ENGINE}high_assurance: false\nmulti_user: false\n", begin())
    assert loaded.notices == []


def test_the_managers_list_of_functions_counts_and_the_templates_only_without_it() -> None:
    text = f"{ENGINE}allowed_functions: [{FUNCTION}]\n"
    assert parse_user_config(text, begin(allowed_functions=(OTHER,))).config.allowed_functions == [OTHER]
    assert parse_user_config(text, begin()).config.allowed_functions == [FUNCTION]


def test_protected_data_goes_to_no_engine_that_does_not_encrypt() -> None:
    assert not parse_user_config(HTEX, begin()).config.is_encrypted
    with pytest.raises(ConfigInvalid, match="encrypted"):
        parse_user_config(HTEX, begin(is_encrypted=True))
    assert parse_user_config(HTEX.replace("false", "true"), begin(is_encrypted=True)).config.is_encrypted


def test_one_in_which_nothing_moves_ends_after_two_days_unless_it_says_otherwise() -> None:
    assert parse_user_config(ENGINE, begin()).config.idle_heartbeats_hard == 5760
    assert parse_user_config(f"{ENGINE}idle_heartbeats_hard: 0\n", begin()).config.idle_heartbeats_hard == 0


def test_the_managers_port_counts() -> None:
    assert parse_user_config(f"{ENGINE}amqp_port: 5671\n", begin(amqp_port=443)).config.amqp_port == 443
    assert parse_user_config(f"{ENGINE}amqp_port: 5671\n", begin()).config.amqp_port == 5671
