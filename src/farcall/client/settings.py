"""Which service a client talks to, and where it keeps things: the order of arguments, environment and files.

Decides addresses and paths only; `tokens` owns the file, `rest` does the talking.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from farcall.tls import Trust, find_trust

if TYPE_CHECKING:
    from farcall.client.tokens import TokenStore

__all__ = ["DEFAULT_SERVICE_URL", "canonical_url", "is_loopback_url", "service_url", "trust_for", "user_dir"]

DEFAULT_SERVICE_URL = "http://localhost:5000"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def user_dir() -> Path:
    """The directory of a user's Farcall files: `FARCALL_USER_DIR`, else `~/.farcall`. It may not exist yet."""
    configured = os.environ.get("FARCALL_USER_DIR")
    return Path(configured).expanduser() if configured else Path.home() / ".farcall"


def service_url(explicit: str | None = None, store: TokenStore | None = None) -> str:
    """The address of the service: argument, `FARCALL_SERVICE_URL`, what `farcall login` remembered, localhost.

    Args:
        store: where to look for the remembered one; the user's own store if None.

    Raises:
        ValueError: the address is not an http or https URL.
    """
    chosen = explicit or os.environ.get("FARCALL_SERVICE_URL")
    if not chosen:
        if store is None:
            from farcall.client.tokens import TokenStore

            store = TokenStore()
        chosen = store.default_url or DEFAULT_SERVICE_URL
    _split(chosen)
    return chosen.strip().rstrip("/")


def trust_for(url: str, ca_file: str | os.PathLike[str] | None, store: TokenStore) -> Trust:
    """Whose certificates are accepted from a service: argument, `FARCALL_CA_FILE`, what `farcall login --ca-file`
    remembered for this address, what the site has set for all its Python programs, the system.
    """
    remembered = None
    with contextlib.suppress(OSError, ValueError):  # without a store there is nothing to remember
        remembered = store.ca_file(url)
    return find_trust(ca_file, remembered=remembered, remembered_by=f"`farcall login --ca-file`, in {store.path}")


def canonical_url(url: str) -> str:
    """One text per service: lower case, no default port, no trailing slash, one name for this machine.

    `http://127.0.0.1:5000/`, `http://[::1]:5000` and `http://LOCALHOST:5000` are all `http://localhost:5000`.

    Raises:
        ValueError: not an http or https URL.
    """
    scheme, host, port, path = _split(url)
    host = "localhost" if host in _LOOPBACK else f"[{host}]" if ":" in host else host
    at = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{at}{path}"


def is_loopback_url(url: str) -> bool:
    """Whether `url` is on this machine.

    Raises:
        ValueError: not an http or https URL.
    """
    return _split(url)[1] in _LOOPBACK


def _split(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is not the address of a service: {exc}") from exc
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(
            f"{url!r} is not the address of a service: it must look like http://localhost:5000 or https://farcall.example.org"
        )
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")
