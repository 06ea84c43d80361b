"""Codes of an app count once and near their time; recovery codes are as good however they are typed."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET

import pytest

from farcall.service.accounts.totp import (
    STEP_S,
    matching_step,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    qr_svg,
    recovery_code_hash,
)

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(("now", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924")])
def test_the_examples_of_rfc_6238(now: int, code: str) -> None:
    assert matching_step(SECRET, code, now=now, last_step=None) == now // STEP_S


def test_a_code_counts_one_step_earlier_and_later_and_not_further_away() -> None:
    def is_taken(now: float) -> bool:
        return matching_step(SECRET, "081804", now=now, last_step=None) is not None

    begin = 1111111109 // STEP_S * STEP_S
    assert [is_taken(begin + n * STEP_S) for n in (-2, -1, 0, 1, 2)] == [False, True, True, True, False]


def test_a_code_counts_once_and_none_before_it_counts_afterwards() -> None:
    step = matching_step(SECRET, "081804", now=1111111109, last_step=None)
    assert step is not None
    assert matching_step(SECRET, "081804", now=1111111109, last_step=step) is None
    assert matching_step(SECRET, "081804", now=1111111109, last_step=step + 1) is None
    assert matching_step(SECRET, "081804", now=1111111109, last_step=step - 1) == step


@pytest.mark.parametrize("code", ["081 804", " 081804\n"])
def test_blanks_as_apps_show_them_do_not_matter(code: str) -> None:
    assert matching_step(SECRET, code, now=1111111109, last_step=None) is not None


@pytest.mark.parametrize("code", ["", "08180", "0818044", "08180a", "٠٨١٨٠٤", "-81804", "000000"])
def test_anything_else_is_refused(code: str) -> None:
    assert matching_step(SECRET, code, now=1111111109, last_step=None) is None


def test_secrets_differ_and_have_160_bits() -> None:
    assert len(base64.b32decode(new_totp_secret())) == 20
    assert new_totp_secret() != new_totp_secret()


def test_the_qr_code_is_one_element_without_styles_or_scripts() -> None:
    uri = provisioning_uri(SECRET, "ada@local", "farcall.example:5000")
    assert uri.startswith("otpauth://totp/")
    assert SECRET in uri
    root = ET.fromstring(qr_svg(uri))
    assert root.tag.endswith("svg")
    assert not [each for each in root.iter() if each.tag.endswith(("script", "style")) or "style" in each.attrib]


def test_recovery_codes_differ_and_are_known_however_they_are_typed() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == len(codes) == 10
    assert recovery_code_hash(codes[0].upper().replace("-", " ")) == recovery_code_hash(codes[0])
    assert len({recovery_code_hash(code) for code in codes}) == 10
