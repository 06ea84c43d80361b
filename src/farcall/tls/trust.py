"""Whose certificates are accepted: an authority's of one's own, or the system's; and where that choice comes from."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farcall.wire.errors import FarcallError

__all__ = ["CA_VARIABLE", "CaFileUnusable", "Trust", "find_trust"]

CA_VARIABLE = "FARCALL_CA_FILE"
_VARIABLES_OF_OTHERS = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What sites set for all their Python programs, the most specific first. Source: requests, "SSL Cert Verification";
OpenSSL, SSL_CTX_load_verify_locations(3)."""


class CaFileUnusable(FarcallError):
    """The file that should hold certificate authorities cannot be read, or holds none."""

    code = "CA_FILE_UNUSABLE"

    def __init__(self, path: str, origin: str, reason: str) -> None:
        super().__init__(path, origin, reason)
        self.path = path
        self.origin = origin
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The certificate authorities in {self.path} (named by {self.origin}) cannot be used: {self.reason}. "
            "It must be a PEM file with one or more certificates (-----BEGIN CERTIFICATE-----)."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trust:
    """Whose certificates are accepted.

    Attributes:
        path: PEM file, or directory as of `openssl rehash`, in place of the system's authorities; None for those.
        origin: where `path` was found, in words.
    """

    path: str | None = None
    origin: str = ""

    def __str__(self) -> str:
        if self.path is None:
            return "the certificate authorities of this system"
        return f"the certificate authorities in {self.path} ({self.origin})"

    def context(self) -> ssl.SSLContext:
        """For one or more connections: TLS 1.2 or newer, with a look at the certificate and at the host name. Reads the
        file anew, which takes some ten milliseconds.

        Raises:
            CaFileUnusable: it is missing, or no such file.
        """
        if self.path is None:
            return _system_context()
        try:
            if os.path.isdir(self.path):
                return ssl.create_default_context(capath=self.path)
            return ssl.create_default_context(cafile=self.path)
        except ssl.SSLError as exc:  # also an OSError
            raise CaFileUnusable(self.path, self.origin, "there is no certificate in it") from exc
        except OSError as exc:
            raise CaFileUnusable(self.path, self.origin, (exc.strerror or str(exc)).lower()) from exc


def find_trust(
    given: str | os.PathLike[str] | None = None,
    given_by: str = "ca_file",
    *,
    remembered: str | None = None,
    remembered_by: str = "",
    environment: Mapping[str, str] | None = None,
) -> Trust:
    """The first that says something: what is given, `FARCALL_CA_FILE`, what is remembered, what the site has set for
    all its Python programs (`REQUESTS_CA_BUNDLE`, `SSL_CERT_FILE`, `SSL_CERT_DIR`), the system.

    Args:
        given, remembered: a PEM file, or a directory as of `openssl rehash`.
        given_by, remembered_by: where they come from, in words.
        environment: `os.environ` if None.
    """
    variables = os.environ if environment is None else environment
    found = [(given, given_by), (variables.get(CA_VARIABLE), CA_VARIABLE), (remembered, remembered_by)]
    found += [(variables.get(name), name) for name in _VARIABLES_OF_OTHERS]
    for path, origin in found:
        if path:
            return Trust(path=str(Path(path).expanduser().absolute()), origin=origin)
    return Trust()


def _system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    has_own = paths.cafile is not None or (paths.capath is not None and any(os.scandir(paths.capath)))
    if not has_own:  # a Python, or a container, without the system's list
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context
