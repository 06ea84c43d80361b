"""`login --ca-file`: which certificate authorities this user accepts for a service, remembered beside the token."""

from __future__ import annotations

import os
from pathlib import Path

from farcall.client.tokens import TokenStore
from farcall.tls import CA_VARIABLE, Trust

__all__ = ["make_ca_variable_absolute", "remember_ca_file"]

_SYSTEM = Path("system")


def remember_ca_file(store: TokenStore, url: str, path: Path | None) -> None:
    """Keep `path` for the service at `url`; None changes nothing, `system` forgets what was kept.

    Raises:
        CaFileUnusable: there are no certificates in it. Nothing is changed.
    """
    if path is None:
        return
    if path == _SYSTEM:
        store.set_ca_file(url, None)
        return
    absolute = str(path.expanduser().absolute())
    Trust(path=absolute, origin="--ca-file").context()
    store.set_ca_file(url, absolute)


def make_ca_variable_absolute() -> None:
    """For a child process that works in another directory."""
    path = os.environ.get(CA_VARIABLE)
    if path:
        os.environ[CA_VARIABLE] = str(Path(path).expanduser().absolute())
