"""What a certificate says about itself, read with the standard library alone.

Python decodes a certificate only after a handshake in which it was trusted. So here it is made its own authority, and
the handshake with its holder repeated: in memory for one whose key is ours, over the network for somebody else's.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

__all__ = ["Certificate", "certificate_from", "peer_certificate"]

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which Python does not name. Source: OpenSSL, X509_VERIFY_PARAM_set_flags(3)."""
_PEER_S: Final = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What a certificate says.

    Attributes:
        names: hosts and addresses that it is for.
    """

    subject: str
    issuer: str
    names: Sequence[str]
    not_before: datetime
    not_after: datetime

    @property
    def is_self_signed(self) -> bool:
        return self.subject == self.issuer


def certificate_from(context: ssl.SSLContext, pem: str) -> Certificate:
    """The certificate that a server with this context shows; `pem` holds it (what follows it does no harm).

    Raises:
        ssl.SSLError: it cannot be used, for example since the key is another's.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = _trusting(pem).wrap_bio(to_client, to_server)
    sides, done = (client, server), 0
    while done < len(sides):
        done = sum(_step(side) for side in sides)
    return _from_dict(client.getpeercert() or {})


def peer_certificate(host: str, port: int, timeout_s: float = _PEER_S) -> Certificate | None:
    """The certificate that somebody shows who is not trusted; None if that cannot be found out. Blocks."""
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    try:
        with _connected(careless, host, port, timeout_s) as sock:
            pem = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True) or b"")
        with _connected(_trusting(pem), host, port, timeout_s) as sock:
            return _from_dict(sock.getpeercert() or {})
    except (OSError, ValueError):
        return None


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _connected(context: ssl.SSLContext, host: str, port: int, timeout_s: float) -> ssl.SSLSocket:
    sock = socket.create_connection((host, port), timeout=timeout_s)
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _trusting(pem: str) -> ssl.SSLContext:
    """Trusts this very certificate, whatever it says. To look at it, not to talk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags = ssl.VerifyFlags(_NO_CHECK_TIME | ssl.VERIFY_X509_PARTIAL_CHAIN)
    context.load_verify_locations(cadata=pem)
    return context


def _from_dict(members: dict[str, Any]) -> Certificate:  # as of SSLSocket.getpeercert
    return Certificate(
        subject=_name(members.get("subject", ())),
        issuer=_name(members.get("issuer", ())),
        names=[value for _, value in members.get("subjectAltName", ())],
        not_before=_time(members["notBefore"]),
        not_after=_time(members["notAfter"]),
    )


def _name(parts: Any) -> str:  # ((("commonName", "x"),), …)
    members = {key: value for part in parts for key, value in part}
    words = [members.get("commonName"), members.get("organizationName")]
    return ", ".join(word for word in words if word) or "(no name)"


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), timezone.utc)
