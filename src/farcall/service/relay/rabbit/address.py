"""Where RabbitMQ is, from the settings: for ourselves, for its management interface, and for clients. Decides only."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from farcall.wire.errors import FarcallError

__all__ = ["BrokerAddress", "BrokerMisnamed", "broker_address"]

_PORTS = {"amqp": 5672, "amqps": 5671}
_MANAGEMENT_PORT = 15672
_HEARTBEAT_S = 10
"""So that what a stopped relay holds goes to others soon."""


class BrokerMisnamed(FarcallError):
    """The setting `broker` or `broker_management` is no URL of RabbitMQ."""

    code = "BROKER_MISNAMED"


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """RabbitMQ as the settings name it.

    Attributes:
        url: of our own connections, password and all: never shown or logged.
        scheme, host, port, vhost: parts of it.
        management_url: of the HTTP interface, without credentials.
        management_login: user and password for it.
        shown: the URL without a password.
    """

    url: str = field(repr=False)
    scheme: str
    host: str
    port: int
    vhost: str
    management_url: str
    management_login: tuple[str, str] = field(repr=False)
    shown: str

    @property
    def is_local(self) -> bool:
        """On this machine, by a name that means another one elsewhere."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def broker_address(broker: str, management: str | None) -> BrokerAddress:
    """Read the settings `broker` and `broker_management`.

    Raises:
        BrokerMisnamed: one of them cannot be meant; the text shows no password.
    """
    parts = urlsplit(broker)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BrokerMisnamed(
            "The setting 'broker' must be a URL like amqp://USER:PASSWORD@HOST/VHOST or amqps://…; "
            f"this one begins with {parts.scheme[:10]!r} and names {'a' if parts.hostname else 'no'} host."
        )
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as exc:
        raise BrokerMisnamed(f"The port in the setting 'broker' is none: {exc}.") from exc
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    # As everywhere: no path, or a lone slash, is the vhost "/". Source: RabbitMQ URI specification, as clients read it.
    vhost = unquote(parts.path[1:]) or "/"
    options = dict(parse_qsl(parts.query))
    options.setdefault("heartbeat", str(_HEARTBEAT_S))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = f"{host}:{port}/{quote(vhost, safe='')}"
    management_url, login = _management(management, host, (user, password))
    return BrokerAddress(
        url=f"{parts.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{where}?{urlencode(options)}",
        scheme=parts.scheme,
        host=parts.hostname,
        port=port,
        vhost=vhost,
        management_url=management_url,
        management_login=login,
        shown=f"{parts.scheme}://{quote(user, safe='')}@{where}",
    )


def _management(url: str | None, host: str, login: tuple[str, str]) -> tuple[str, tuple[str, str]]:
    if url is None:
        return f"http://{host}:{_MANAGEMENT_PORT}", login
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BrokerMisnamed("The setting 'broker_management' must be a URL like http://USER:PASSWORD@HOST:15672.")
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = shown if parts.port is None else f"{shown}:{parts.port}"
    if parts.username:
        login = unquote(parts.username), unquote(parts.password or "")
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}", login
