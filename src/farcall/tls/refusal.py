"""Why a secure connection did not come about, in words that help: which certificate, which host, whose authorities."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Final

from farcall.tls.certificate import Certificate, peer_certificate
from farcall.tls.trust import CA_VARIABLE, Trust

__all__ = ["is_refusal", "why_no_tls"]

# Source: OpenSSL, X509_STORE_CTX_get_error(3).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset({62, 64})
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21, 27})
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_OTHER_VERSION: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"})

Look = Callable[[str, int], Certificate | None]


def is_refusal(error: BaseException) -> bool:
    """Whether we, on this side, did not accept the other's certificate."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in _within(error))


def why_no_tls(
    error: BaseException, *, host: str, port: int, trust: Trust, look: Look = peer_certificate
) -> str | None:
    """Half a sentence or more about a failed handshake, with what to do; None if `error` is not about TLS.

    Args:
        error: as a library raised it; TLS's own is looked for in its causes and arguments.
        look: fetches the certificate once more, to say what is in it.
    """
    found = next((each for each in _within(error) if isinstance(each, ssl.SSLError)), None)
    if found is None:
        return None
    at = f"{host} port {port}"
    if isinstance(found, ssl.SSLCertVerificationError):
        return _of_certificate(found, host, at, trust, look(host, port))
    reason = found.reason or ""
    if reason in _NOT_TLS:
        return f"what listens on {at} does not speak TLS; perhaps the address must begin with http:// or amqp://"
    if reason in _OTHER_VERSION:
        return f"{at} speaks no version of TLS in common with this Python (1.2 or newer is required)"
    return f"TLS with {at} failed: {reason or found}"


def _of_certificate(
    error: ssl.SSLCertVerificationError, host: str, at: str, trust: Trust, seen: Certificate | None
) -> str:
    code = error.verify_code
    whose = "its certificate" if seen is None else f"its certificate ({seen.subject})"
    if code in _OTHER_NAME:
        names = ", ".join(seen.names) if seen is not None and seen.names else "other hosts"
        return (
            f"the certificate of {at} is for {names}, not for {host}. Use a name that it is for, or have its "
            f"operator get a certificate that names {host}"
        )
    if code in (_EXPIRED, _NOT_YET_VALID):
        which = "has expired" if code == _EXPIRED else "is not valid yet"
        if seen is not None:
            which = f"expired on {_day(seen.not_after)}" if code == _EXPIRED else f"counts from {_day(seen.not_before)}"
        now = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        return (
            f"{whose}, shown by {at}, {which}. Its operator must renew it, or the clock of this machine is wrong "
            f"(it says {now})"
        )
    if code in _UNKNOWN_ISSUER:
        if seen is not None and seen.is_self_signed:
            issued = f"is signed by itself, and not among {trust}"
        else:
            issuer = "an authority" if seen is None else f"'{seen.issuer}', an authority"
            issued = f"was issued by {issuer} that is not among {trust}"
        return (
            f"{whose}, shown by {at}, {issued}. If your site has a certificate authority of its own, name the file "
            f"with its certificate: {CA_VARIABLE}=FILE, `farcall login URL --ca-file FILE`, or `ca_file: FILE` in an "
            "endpoint's config.yaml"
        )
    return f"{whose}, shown by {at}, was not accepted by {trust}: {error.verify_message or error}"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _within(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it stands for: causes, contexts, and (as pika has it) arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, (list, tuple)):
            waiting.extend(each)
        elif isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__, each.args]
            waiting += [getattr(each, name, None) for name in ("exception", "exceptions")]
