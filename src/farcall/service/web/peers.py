"""Whether a request comes from this very machine."""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.requests import Request

__all__ = ["is_local"]

_FORWARDED: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


def is_local(request: Request) -> bool:
    """It does; what comes through a proxy does not, however near the proxy."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
