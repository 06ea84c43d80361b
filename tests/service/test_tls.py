"""The service's certificate, and from whom it takes what proxies say."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from service_world import ServiceThread

from certificates import Authority
from farcall.service.accounts.local import local_login
from farcall.service.ports import is_loopback
from farcall.service.settings import ServiceSettings
from farcall.service.sources import SettingsError, effective_settings, shown
from farcall.service.tls import CertificateUnusable, NotProtected, ServerCertificate, check_tls, own_certificate

Start = Callable[..., ServiceThread]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def settings(tmp_path: Path, **more: object) -> ServiceSettings:
    return ServiceSettings(data_dir=tmp_path, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_alone_needs_no_certificate(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    assert own_certificate(settings(tmp_path, host=host)) is None
    assert check_tls(settings(tmp_path, host=host)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "farcall.example.org"])
def test_a_network_needs_one_or_a_word(tmp_path: Path, host: str) -> None:
    with pytest.raises(NotProtected, match=f"does not listen on {host} without TLS.*--tls-cert.*--insecure"):
        own_certificate(settings(tmp_path, host=host))
    assert own_certificate(settings(tmp_path, host=host, insecure=True)) is None
    assert [finding.status for finding in check_tls(settings(tmp_path, host=host))] == ["failed"]


def test_key_and_certificate_may_be_one_file(authority: Authority) -> None:
    assert list(ServerCertificate(authority.both("here")).certificate.names) == ["here"]


def test_what_cannot_be_used_is_named(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.server()
    (tmp_path / "nothing.pem").write_text("nothing")
    for files, reason in {
        (tmp_path / "nothing.pem", key): "no certificate, or no key, in PEM form",
        (cert, tmp_path / "gone.key"): "gone.key: no such file",
        (cert, authority.server(file="other")[1]): "the key belongs to another certificate",
    }.items():
        with pytest.raises(CertificateUnusable, match=reason):
            ServerCertificate(*files)
    with pytest.raises(CertificateUnusable, match="tls_key is set, tls_cert is not"):
        own_certificate(settings(tmp_path, tls_key=key))


def test_a_key_with_a_passphrase_does_not_ask_the_terminal(tmp_path: Path, authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization as s

    cert, key = authority.server()
    locked = s.load_pem_private_key(key.read_bytes(), None).private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"hush")
    )
    key.write_bytes(locked)
    with pytest.raises(CertificateUnusable, match="passphrase"):
        ServerCertificate(cert, key)


def test_the_end_is_announced_two_weeks_before(authority: Authority) -> None:
    now = datetime.now(timezone.utc)
    found = ServerCertificate(*authority.server(not_after=now + timedelta(days=20)))
    assert found.warning(now.timestamp()) is None
    assert "in 10 days" in str(found.warning((now + timedelta(days=10)).timestamp()))
    assert "expired on" in str(found.warning((now + timedelta(days=21)).timestamp()))


def test_check_says_how_long_it_is_good(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.server("farcall.example.org")
    (finding,) = check_tls(settings(tmp_path, tls_cert=cert, tls_key=key))
    assert finding.status == "ok"
    assert "farcall.example.org, by Example Site CA, until" in finding.text
    cert, key = authority.expired("farcall.example.org")
    (finding,) = check_tls(settings(tmp_path, tls_cert=cert, tls_key=key))
    assert finding.status == "warning"


def test_an_old_version_of_tls_can_be_left_out(authority: Authority, service_thread: Start) -> None:
    cert, key = authority.server()
    old = ssl.create_default_context(cafile=str(authority.ca_file))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new = ssl.create_default_context(cafile=str(authority.ca_file))
    thread = service_thread(tls_cert=cert, tls_key=key)
    assert httpx.get(f"{thread.running.url}/healthz", verify=old).status_code == 200
    thread.stop()
    running = service_thread(tls_cert=cert, tls_key=key, tls_minimum_version="1.3").running
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.url}/healthz", verify=old)
    assert httpx.get(f"{running.url}/healthz", verify=new).status_code == 200


@pytest.mark.parametrize(
    ("trusted", "seen"),
    [((), "127.0.0.1"), (("10.0.0.0/8",), "127.0.0.1"), (("127.0.0.0/8", "::1"), "203.0.113.9")],
    ids=["nobody", "others", "this one"],
)
def test_only_configured_proxies_are_believed(service_thread: Start, trusted: tuple[str, ...], seen: str) -> None:
    thread = service_thread(trusted_proxies=trusted)
    login = thread.call(lambda service: local_login(service, "me@localhost", None))
    headers = {"authorization": f"Bearer {login.token}", "x-forwarded-for": "203.0.113.9"}
    with httpx.Client(base_url=thread.running.url, headers=headers) as client:
        registration = {"endpoint_name": "there", "direct": True, "metadata": {}}
        endpoint_id = client.post("/v3/endpoints", json=registration).json()["endpoint_id"]
        assert client.get(f"/v2/endpoints/{endpoint_id}").json()["ip_address"] == seen


def test_a_proxy_that_is_no_address_is_refused(service_thread: Start) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies.*proxy.example.org"):
        service_thread(trusted_proxies=("proxy.example.org",))


def test_files_are_relative_to_the_settings_file_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text('tls_cert = "chain.pem"\ntls_key = "/etc/key.pem"\ntrusted_proxies = ["10.0.0.1", "10.0.0.2"]\n')
    found = effective_settings(command_line={}, environment={}, file=file, default_data_dir=tmp_path).settings
    assert found.tls_cert == tmp_path / "chain.pem"
    assert shown("tls_key", found.tls_key) == "/etc/key.pem"
    assert shown("trusted_proxies", found.trusted_proxies) == "10.0.0.1,10.0.0.2"
    assert shown("trusted_proxies", ()) == "(none)"
