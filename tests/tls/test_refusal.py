"""What is said about certificates that are not accepted: whose, where, by which authorities, and what to do."""

from __future__ import annotations

import socket
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from certificates import Authority, Shows
from farcall.tls import Certificate, Trust, certificate_from, is_refusal, peer_certificate, why_no_tls


def error_of(port: int, trust: Trust, host: str = "localhost") -> Exception:
    with socket.create_connection(("127.0.0.1", port)) as sock, pytest.raises(ssl.SSLError) as caught:
        trust.context().wrap_socket(sock, server_hostname=host).close()
    return caught.value


def said(port: int, trust: Trust, host: str = "localhost") -> str:
    error = error_of(port, trust, host)
    assert is_refusal(error)
    return (
        why_no_tls(error, host=host, port=port, trust=trust, look=lambda _, at: peer_certificate("127.0.0.1", at)) or ""
    )


def test_another_authority(authority: Authority, shows: Shows, tmp_path: Path) -> None:
    theirs = Authority(tmp_path / "theirs", "Somebody Else's CA")
    port = shows(theirs.server("localhost"))
    trust = Trust(path=str(authority.ca_file), origin="FARCALL_CA_FILE")
    text = said(port, trust)
    assert f"shown by localhost port {port}, was issued by 'Somebody Else's CA', an authority that is not among" in text
    assert f"the certificate authorities in {authority.ca_file} (FARCALL_CA_FILE)" in text
    assert "`farcall login URL --ca-file FILE`" in text


def test_another_host(authority: Authority, shows: Shows) -> None:
    port = shows(authority.server("farcall.example.org", "10.1.2.3"))
    text = said(port, Trust(path=str(authority.ca_file)))
    assert f"the certificate of localhost port {port} is for farcall.example.org, 10.1.2.3, not for localhost." in text


def test_an_expired_one(authority: Authority, shows: Shows) -> None:
    port = shows(authority.expired("localhost", days=3))
    text = said(port, Trust(path=str(authority.ca_file)))
    day = datetime.now(timezone.utc) - timedelta(days=3)
    assert f"expired on {day:%Y-%m-%d}" in text
    assert "the clock of this machine" in text


def test_one_that_does_not_count_yet(authority: Authority, shows: Shows) -> None:
    begin = datetime.now(timezone.utc) + timedelta(days=2)
    port = shows(authority.server("localhost", not_before=begin, not_after=begin + timedelta(days=9)))
    assert f"counts from {begin:%Y-%m-%d}" in said(port, Trust(path=str(authority.ca_file)))


def test_somebody_who_does_not_speak_tls(shows: Shows) -> None:
    port = shows(None)
    error = error_of(port, Trust())
    assert not is_refusal(error)
    text = why_no_tls(error, host="localhost", port=port, trust=Trust())
    assert text is not None
    assert "does not speak TLS; perhaps the address must begin with http://" in text


def test_what_is_not_about_tls_is_not_explained() -> None:
    assert why_no_tls(ConnectionRefusedError("refused"), host="h", port=1, trust=Trust()) is None


def test_without_a_second_look_the_text_says_less(authority: Authority, shows: Shows) -> None:
    port = shows(authority.server("elsewhere"))
    trust = Trust(path=str(authority.ca_file))
    text = why_no_tls(error_of(port, trust), host="localhost", port=port, trust=trust, look=lambda *_: None)
    assert text is not None
    assert "is for other hosts, not for localhost" in text


def test_an_error_is_found_in_what_libraries_make_of_it(authority: Authority, shows: Shows) -> None:
    inner = error_of(shows(authority.server("elsewhere")), Trust(path=str(authority.ca_file)))
    outer = RuntimeError("workflow failed", [ValueError("first"), ValueError(inner)])
    error = KeyError("with a cause")
    error.__cause__ = outer
    assert is_refusal(error)


def test_nobody_to_look_at_is_no_error(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert peer_certificate("127.0.0.1", port) is None


def test_a_certificate_says_what_it_says(authority: Authority) -> None:
    cert, key = authority.server("a.example.org", "*.b.example.org", "10.0.0.1", common_name="the service")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    found = certificate_from(context, cert.read_text())
    assert isinstance(found, Certificate)
    assert list(found.names) == ["a.example.org", "*.b.example.org", "10.0.0.1"]
    assert "the service" in found.subject
    assert found.issuer == "Example Site CA"
    assert found.not_before < datetime.now(timezone.utc) < found.not_after
    assert not found.is_self_signed
