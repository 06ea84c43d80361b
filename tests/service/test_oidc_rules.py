"""What is believed of a provider's answers, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farcall.service.oidc.provider import OidcProvider, is_domain_allowed, is_safe_url
from farcall.service.oidc.rules import (
    PENDING_S,
    Discovery,
    LoginRefused,
    ProviderUnavailable,
    authorization_parameters,
    check_answer,
    check_claims,
    claims_are_missing,
    discovery_from,
    new_pending,
    person_from,
)

NOW = 1_700_000_000.0
ISSUER = "https://login.site-a.example/realm"
PROVIDER = OidcProvider(
    name="site-a", label="Site A", issuer=ISSUER, client_id="farcall", allowed_domains=("site-a.example",),
    username_domain="site-a.example",
)  # fmt: skip
PENDING = new_pending(PROVIDER, redirect_uri="https://farcall.example/login/oidc/callback", now=NOW)
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": ISSUER + "/auth",
    "token_endpoint": ISSUER + "/token",
    "jwks_uri": ISSUER + "/jwks",
    "userinfo_endpoint": ISSUER + "/me",
    "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256"],
    "token_endpoint_auth_methods_supported": ["client_secret_post"],
}
DISCOVERY = discovery_from(PROVIDER, DOCUMENT)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "aud": "farcall", "sub": "u-1", "iat": NOW, "exp": NOW + 300, "nonce": PENDING.nonce,
    "preferred_username": "Ada", "name": "Ada L", "email": "ada@site-a.example", "email_verified": True,
}  # fmt: skip


def answered(**changes: Any) -> Any:
    answer = {"state": PENDING.state, "code": "c", **changes}
    names_itself = answer.pop("names_itself", False)
    now = answer.pop("now", NOW)
    discovery: Discovery = replace(DISCOVERY, names_itself=names_itself)
    answer = {key: value for key, value in answer.items() if value is not None}
    return check_answer(PROVIDER, discovery, PENDING, answer, now)


def test_each_login_has_secrets_of_its_own_and_shows_only_the_hash_of_the_verifier() -> None:
    other = new_pending(PROVIDER, redirect_uri="x", now=NOW)
    assert len({PENDING.state, PENDING.nonce, PENDING.verifier, other.state, other.nonce, other.verifier}) == 6
    shown = authorization_parameters(PROVIDER, DISCOVERY, PENDING)
    assert PENDING.verifier not in shown.values()
    assert shown["code_challenge_method"] == "S256"
    assert "prompt" not in shown
    assert "max_age" not in shown
    assert 43 <= len(PENDING.verifier) <= 128


def test_a_fresh_login_and_a_second_factor_are_asked_for_in_the_provider_s_words() -> None:
    assert "login_hint" not in authorization_parameters(PROVIDER, DISCOVERY, PENDING)
    shown = authorization_parameters(PROVIDER, DISCOVERY, replace(PENDING, max_age_s=0, wants_mfa=True, hint="ada"))
    assert shown["login_hint"] == "ada"
    assert (shown["prompt"], shown["max_age"]) == ("login", "0")
    assert shown["acr_values"] == "https://refeds.org/profile/mfa"
    assert authorization_parameters(PROVIDER, DISCOVERY, replace(PENDING, max_age_s=60))["max_age"] == "60"
    assert "prompt" not in authorization_parameters(PROVIDER, DISCOVERY, replace(PENDING, max_age_s=60))


def test_when_and_how_somebody_logged_in_is_asked_for_where_it_can_be() -> None:
    assert "claims" not in authorization_parameters(PROVIDER, DISCOVERY, PENDING)
    able = discovery_from(PROVIDER, {**DOCUMENT, "claims_parameter_supported": True})
    assert "auth_time" in authorization_parameters(PROVIDER, able, PENDING)["claims"]


def test_algorithms_whose_key_is_shared_or_missing_are_not_taken() -> None:
    assert DISCOVERY.algorithms == ("RS256", "ES256")
    with pytest.raises(ProviderUnavailable, match="by no method"):
        discovery_from(PROVIDER, {**DOCUMENT, "id_token_signing_alg_values_supported": ["none", "HS256"]})


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"},
        {"issuer": ISSUER + "/"},
        {"token_endpoint": "http://login.site-a.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": None},
        {"userinfo_endpoint": 7},
    ],
)
def test_a_description_of_somebody_else_or_with_unsafe_places_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProviderUnavailable):
        discovery_from(PROVIDER, {**DOCUMENT, **change})
    with pytest.raises(ProviderUnavailable):
        discovery_from(PROVIDER, ["no", "object"])


def test_the_answer_s_code_is_taken() -> None:
    assert answered() == "c"
    assert answered(iss=ISSUER, names_itself=True) == "c"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "other"}, "another login"),
        ({"state": None}, "another login"),
        ({"now": NOW + PENDING_S + 1}, "too long"),
        ({"iss": "https://evil.example"}, "not from Site A"),
        ({"names_itself": True}, "not from Site A"),
        ({"error": "access_denied"}, "cancelled"),
        ({"error": "server_error", "error_description": "<b>broken</b>"}, "b broken  b"),
        ({"code": None}, "no code"),
    ],
)
def test_any_other_answer_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoginRefused, match=reason):
        answered(**change)


def test_a_good_id_token_is_believed() -> None:
    check_claims(PROVIDER, PENDING, CLAIMS, NOW)
    check_claims(PROVIDER, PENDING, {**CLAIMS, "aud": ["farcall"]}, NOW)
    check_claims(PROVIDER, PENDING, {**CLAIMS, "aud": ["farcall", "other"], "azp": "farcall"}, NOW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "other"}, "meant for another"),
        ({"aud": None}, "meant for another"),
        ({"aud": ["farcall", "other"]}, "given to another"),
        ({"azp": "other"}, "given to another"),
        ({"exp": NOW - 61}, "expired"),
        ({"exp": None}, "expired"),
        ({"exp": True}, "expired"),
        ({"exp": float("nan")}, "expired"),
        ({"exp": float("inf")}, "expired"),
        ({"exp": 10**400}, "expired"),
        ({"iat": NOW + 61}, "future"),
        ({"nonce": "other"}, "another login"),
        ({"nonce": None}, "another login"),
        ({"sub": ""}, "nobody"),
        ({"sub": 7}, "nobody"),
        ({"sub": "x" * 256}, "nobody"),
        ({"sub": "x\0y"}, "nobody"),
    ],
)
def test_an_id_token_that_is_not_for_this_login_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LoginRefused, match=reason):
        check_claims(PROVIDER, PENDING, {**CLAIMS, **change}, NOW)


def test_a_login_that_had_to_be_fresh_must_say_when_it_was_and_be_it() -> None:
    fresh = replace(PENDING, max_age_s=0)
    check_claims(PROVIDER, fresh, {**CLAIMS, "auth_time": NOW + 20}, NOW + 20)
    with pytest.raises(LoginRefused, match="does not say when"):
        check_claims(PROVIDER, fresh, CLAIMS, NOW)
    with pytest.raises(LoginRefused, match="is older"):
        check_claims(PROVIDER, fresh, {**CLAIMS, "auth_time": NOW - 120}, NOW)
    check_claims(PROVIDER, replace(PENDING, max_age_s=100), {**CLAIMS, "auth_time": NOW - 120}, NOW)


def test_who_it_is() -> None:
    person = person_from(PROVIDER, {**CLAIMS, "amr": ["pwd"], "auth_time": NOW - 5}, {}, NOW)
    assert (person.username, person.subject, person.issuer) == ("ada@site-a.example", "u-1", ISSUER)
    assert (person.display_name, person.email) == ("Ada L", "ada@site-a.example")
    assert (person.at, person.mfa) == (NOW - 5, False)


@pytest.mark.parametrize(
    ("claims", "mfa"),
    [
        ({"amr": ["pwd", "mfa"]}, True),
        ({"amr": "mfa"}, True),
        ({"acr": "https://refeds.org/profile/mfa"}, True),
        ({"acr": "0", "amr": ["pwd", "otp"]}, False),
        ({"acr": ["https://refeds.org/profile/mfa"]}, False),
        ({}, False),
    ],
)
def test_more_than_one_factor_is_what_the_provider_says_in_the_words_that_the_operator_names(
    claims: dict[str, Any], mfa: bool
) -> None:
    assert person_from(PROVIDER, {**CLAIMS, **claims}, {}, NOW).mfa is mfa


def test_a_login_in_the_future_counts_from_now() -> None:
    assert person_from(PROVIDER, {**CLAIMS, "auth_time": NOW + 50}, {}, NOW).at == NOW
    assert person_from(PROVIDER, CLAIMS, {}, NOW).at == NOW


def test_userinfo_fills_gaps_only_and_must_be_about_the_same_person() -> None:
    bare = {key: CLAIMS[key] for key in ("iss", "aud", "sub", "iat", "exp", "nonce")}
    assert claims_are_missing(PROVIDER, bare)
    assert not claims_are_missing(PROVIDER, CLAIMS)
    more = {"sub": "u-1", "preferred_username": "eve", "organization": "Site A"}
    assert person_from(PROVIDER, bare, more, NOW).username == "eve@site-a.example"
    person = person_from(PROVIDER, CLAIMS, more, NOW)
    assert (person.username, person.organization) == ("ada@site-a.example", "Site A")
    with pytest.raises(LoginRefused, match="two different people"):
        person_from(PROVIDER, CLAIMS, {**more, "sub": "u-2"}, NOW)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("ada@site-b.example", "has not allowed the domain site-b.example"),
        ("ada@sub.site-a.example", "has not allowed"),
        ("ada@site-a.example@site-b.example", "cannot be used"),
        ("ada lovelace", "cannot be used"),
        ("", "does not tell"),
        (None, "does not tell"),
        (7, "does not tell"),
        ("x" * 300, "cannot be used"),
        ("ada@site-a.example\u202e@x", "cannot be used"),
    ],
)
def test_user_names_of_other_domains_or_of_strange_form_are_refused(given: object, reason: str) -> None:
    with pytest.raises(LoginRefused, match=reason):
        person_from(PROVIDER, {**CLAIMS, "preferred_username": given}, {}, NOW)


def test_what_cannot_be_shown_or_stored_is_left_out() -> None:
    person = person_from(PROVIDER, {**CLAIMS, "name": "Ada\0\u202e L\n", "acr": "a\0", "amr": ["x\0", "y"]}, {}, NOW)
    assert (person.display_name, person.acr, person.amr) == ("Ada L", "a", ("y",))


def test_names_that_look_alike_become_one() -> None:
    names = {
        person_from(PROVIDER, {**CLAIMS, "preferred_username": name}, {}, NOW).username
        for name in ("ada", "ADA", "ada@SITE-A.example", "\uff41da")
    }
    assert names == {"ada@site-a.example"}


def test_an_address_counts_as_a_name_only_if_it_is_verified_or_the_provider_is_trusted() -> None:
    by_mail = replace(PROVIDER, username_claim="email")
    assert person_from(by_mail, CLAIMS, {}, NOW).username == "ada@site-a.example"
    for verified in (False, None, "true"):
        with pytest.raises(LoginRefused, match="has not verified"):
            person_from(by_mail, {**CLAIMS, "email_verified": verified}, {}, NOW)
    trusted = replace(by_mail, trust_unverified_email=True)
    assert person_from(trusted, {**CLAIMS, "email_verified": None}, {}, NOW).username == "ada@site-a.example"
    assert person_from(PROVIDER, {**CLAIMS, "email_verified": False}, {}, NOW).email is None


@pytest.mark.parametrize(
    ("domain", "patterns", "allowed"),
    [
        ("site-a.example", ("site-a.example",), True),
        ("SITE-a.example", ("Site-A.example",), True),
        ("sub.site-a.example", ("site-a.example",), False),
        ("sub.site-a.example", ("*.site-a.example",), True),
        ("site-a.example", ("*.site-a.example",), False),
        ("evilsite-a.example", ("*.site-a.example", "site-a.example"), False),
        ("anything", ("*",), True),
        ("anything", (), False),
    ],
)
def test_which_domains_are_allowed(domain: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert is_domain_allowed(domain, patterns) is allowed


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example/x", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://login.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("https://user@login.example", False),
        ("https://login.example/#x", False),
        ("javascript:alert(1)", False),
        ("https://", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_which_places_are_safe(url: str, safe: bool) -> None:
    assert is_safe_url(url) is safe


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "Site A"}, "'name'"),
        ({"name": "callback"}, "'name'"),
        ({"issuer": "http://login.example"}, "'issuer'"),
        ({"client_id": ""}, "'client_id'"),
        ({"client_secret": "x", "client_secret_file": Path("y")}, "give one"),
        ({"allowed_domains": ()}, "nobody could log in"),
        ({"allowed_domains": ("a.*",)}, "write example.org"),
        ({"username_domain": "*.example.org"}, "'username_domain'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(PROVIDER, **change)


def test_the_secret_is_not_shown_and_may_be_in_a_file_that_changes(tmp_path: Path) -> None:
    assert "hidden" not in repr(replace(PROVIDER, client_secret="hidden"))
    file = tmp_path / "secret"
    file.write_text("one\n")
    by_file = replace(PROVIDER, client_secret_file=file)
    assert by_file.secret() == "one"
    file.write_text("two")
    assert by_file.secret() == "two"
