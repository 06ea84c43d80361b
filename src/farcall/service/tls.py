"""The service's own certificate: one for HTTPS and AMQPS, read again when its files change; and when to do without.

Who answers with it is `server`'s and `app`'s. A file that makes no sense leaves the certificate of before in force.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from farcall.service.db.upkeep import Finding
from farcall.service.ports import is_loopback
from farcall.service.settings import ServiceSettings
from farcall.tls import Certificate, certificate_from
from farcall.wire.errors import FarcallError

__all__ = ["CertificateUnusable", "NotProtected", "ServerCertificate", "check_tls", "own_certificate"]

log = logging.getLogger(__name__)

SOON_S: Final = 14 * 24 * 3600.0
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class CertificateUnusable(FarcallError):
    """The files of the settings `tls_cert` and `tls_key` are no certificate with its key."""

    code = "CERTIFICATE_UNUSABLE"

    def __init__(self, cert: str, key: str, reason: str) -> None:
        super().__init__(cert, key, reason)
        self.cert = cert
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        files = self.cert if self.cert == self.key else f"{self.cert} with the key {self.key}"
        return f"The certificate {files} cannot be used: {self.reason}. See the settings tls_cert and tls_key."


class NotProtected(FarcallError):
    """The service was to listen on a network without TLS."""

    code = "NOT_PROTECTED"

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return (
            f"The service does not listen on {self.host} without TLS: tokens, functions and data would cross the "
            "network in clear text. Give it a certificate (--tls-cert FILE --tls-key FILE); or have it listen on this "
            "machine only (--host 127.0.0.1), alone or behind a proxy that speaks TLS; or, on a network whose every "
            "machine you trust, say --insecure."
        )


class ServerCertificate:
    """A certificate in use. Make a new one only for other files.

    Args:
        cert: PEM: the certificate, then those between it and its authority.
        key: PEM, without passphrase; None: in the same file.
        minimum_version: of TLS, "1.2" or "1.3".

    Raises:
        CertificateUnusable: they cannot be read, or do not belong together.
    """

    def __init__(self, cert: Path, key: Path | None = None, minimum_version: str = "1.2") -> None:
        self.path = cert
        self._key = key or cert
        self._version = _VERSIONS[minimum_version]
        self._stamp = self._look()
        self._inner, self.certificate = self._load()
        # Connections begin with this one, and get the certificate of the day before it is shown.
        self.context = self._inner_context()
        self.context.sni_callback = self._choose

    def reload(self) -> bool:
        """Read the files again, whether they have changed or not. False, and a line in the log: they make no sense."""
        self._stamp = self._look()
        try:
            self._inner, self.certificate = self._load()
        except CertificateUnusable as exc:
            log.error(
                "The new certificate cannot be used; the one of before stays in force.",
                extra={"event": "tls.reload_failed", "reason": str(exc)},
            )
            return False
        log.info(
            "The certificate was read again.",
            extra={"event": "tls.reloaded", "certificate": str(self.path), "expires": str(self.certificate.not_after)},
        )
        return True

    def expires_in_s(self, now_s: float) -> float:
        """Seconds until it expires; negative if it has.

        Args:
            now_s: Unix seconds.
        """
        return self.certificate.not_after.timestamp() - now_s

    def warning(self, now_s: float) -> str | None:
        """What an operator should know about its end; None if it is far away."""
        left_s = self.expires_in_s(now_s)
        if left_s > SOON_S:
            return None
        at = f"{self.certificate.not_after:%Y-%m-%d %H:%M} UTC"
        if left_s <= 0:
            return f"The certificate {self.path} expired on {at}; clients refuse it. A renewed file counts at once."
        return (
            f"The certificate {self.path} expires on {at}, in {left_s / 86400:.0f} days. A renewed file counts at once."
        )

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """At the beginning of each handshake: two calls of `stat`, microseconds, in place of watching the files."""
        del name
        if self._look() != self._stamp:
            self.reload()
        connection.context = self._inner

    def _look(self) -> tuple[object, ...]:
        try:
            found = [os.stat(path) for path in (self.path, self._key)]
        except OSError:
            return ()  # being replaced
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)

    def _load(self) -> tuple[ssl.SSLContext, Certificate]:
        context = self._inner_context()
        try:
            return context, certificate_from(context, _first_certificate(self.path))
        except ssl.SSLError as exc:
            raise self._unusable(getattr(exc, "verify_message", None) or exc.reason or str(exc)) from exc
        except OSError as exc:
            raise self._unusable((exc.strerror or str(exc)).lower()) from exc

    def _inner_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._version
        context.set_alpn_protocols(["http/1.1"])  # who offers none, as AMQP clients, gets none
        try:
            context.load_cert_chain(self.path, self._key, password=self._no_passphrase)
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                raise self._unusable("the key belongs to another certificate") from exc
            raise self._unusable("there is no certificate, or no key, in PEM form in it") from exc
        except OSError as exc:
            raise self._unusable(self._missing(exc)) from exc
        return context

    def _no_passphrase(self) -> str:
        raise self._unusable(
            "the key has a passphrase, which nobody is there to type. Store it without one (mode 0600)"
        )

    def _missing(self, exc: OSError) -> str:
        # load_cert_chain does not say which of the two.
        bad = next((path for path in (self.path, self._key) if not os.access(path, os.R_OK)), self.path)
        return f"{bad}: {(exc.strerror or str(exc)).lower()}"

    def _unusable(self, reason: str) -> CertificateUnusable:
        return CertificateUnusable(str(self.path), str(self._key), reason)


def own_certificate(settings: ServiceSettings) -> ServerCertificate | None:
    """The certificate that the settings name; None if they name none, and none is needed.

    Raises:
        CertificateUnusable: it is no certificate with its key.
        NotProtected: without one, tokens and data would cross a network in clear text.
    """
    if settings.tls_cert is None:
        if settings.tls_key is not None:
            raise CertificateUnusable("(none)", str(settings.tls_key), "tls_key is set, tls_cert is not")
        if not settings.insecure and not is_loopback(settings.host):
            raise NotProtected(settings.host)
        return None
    found = ServerCertificate(settings.tls_cert, settings.tls_key, settings.tls_minimum_version)
    warning = found.warning(datetime.now(timezone.utc).timestamp())
    if warning is not None:
        log.warning(warning, extra={"event": "tls.expires"})
    return found


def check_tls(settings: ServiceSettings) -> Sequence[Finding]:
    """What `farcall-service check` says about this."""
    try:
        found = own_certificate(settings)
    except (CertificateUnusable, NotProtected) as exc:
        return [Finding(what="tls", status="failed", text=str(exc))]
    if found is None:
        return []
    certificate = found.certificate
    warning = found.warning(datetime.now(timezone.utc).timestamp())
    if warning is not None:
        return [Finding(what="tls", status="warning", text=warning, remedy="Have it renewed.")]
    names, until = ", ".join(certificate.names), f"{certificate.not_after:%Y-%m-%d}"
    return [
        Finding(what="tls", status="ok", text=f"{found.path} is for {names}, by {certificate.issuer}, until {until}.")
    ]


def _first_certificate(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return begin + text.partition(begin)[2].partition(end)[0] + end + "\n"
