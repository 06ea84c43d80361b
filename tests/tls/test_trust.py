"""Whose certificates are accepted: the order of what says so, and files that make no sense."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from certificates import Authority
from farcall.tls import CaFileUnusable, Trust, find_trust

EVERYWHERE = {
    "FARCALL_CA_FILE": "/ours.pem",
    "REQUESTS_CA_BUNDLE": "/requests.pem",
    "SSL_CERT_FILE": "/openssl.pem",
    "SSL_CERT_DIR": "/openssl",
}
ORDER = [
    ("/given.pem", "ca_file"),
    ("/ours.pem", "FARCALL_CA_FILE"),
    ("/remembered.pem", "login"),
    ("/requests.pem", "REQUESTS_CA_BUNDLE"),
    ("/openssl.pem", "SSL_CERT_FILE"),
    ("/openssl", "SSL_CERT_DIR"),
]


@pytest.mark.parametrize("place", range(len(ORDER)), ids=[origin for _, origin in ORDER])
def test_each_place_counts_when_those_before_it_are_silent(place: int) -> None:
    left = dict(ORDER[place:])
    environment = {name: path for name, path in EVERYWHERE.items() if path in left}
    found = find_trust(
        "/given.pem" if "/given.pem" in left else None,
        remembered="/remembered.pem" if "/remembered.pem" in left else None,
        remembered_by="login",
        environment=environment,
    )
    assert (found.path, found.origin) == ORDER[place]


def test_the_system_counts_when_nobody_says_anything() -> None:
    assert find_trust(environment={"FARCALL_CA_FILE": ""}) == Trust()
    assert str(Trust()) == "the certificate authorities of this system"
    assert Trust().context().cert_store_stats()["x509_ca"] > 0


def test_a_context_always_looks_at_certificate_and_host_name(authority: Authority) -> None:
    for trust in (Trust(), Trust(path=str(authority.ca_file)), Trust(path=str(authority.directory))):
        context = trust.context()
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_ones_own_authorities_replace_the_systems(authority: Authority) -> None:
    assert Trust(path=str(authority.ca_file)).context().cert_store_stats()["x509_ca"] == 1


def test_a_file_without_certificates_is_named_with_who_named_it(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(CaFileUnusable, match=r"empty.pem \(named by SSL_CERT_FILE\).*no certificate in it"):
        find_trust(environment={"SSL_CERT_FILE": str(tmp_path / "empty.pem")}).context()
    with pytest.raises(CaFileUnusable, match=r"gone.pem \(named by ca_file\).*no such file"):
        find_trust(tmp_path / "gone.pem").context()
