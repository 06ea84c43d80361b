"""HAProxy before the service, as on a real site: one address for all processes; who does not answer is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["haproxy_config"]

_CONFIG = """\
global
  maxconn 4000
defaults
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  retries 2
  option redispatch
frontend http
  mode http
{http_binds}
  default_backend api
backend api
  mode http
  balance roundrobin
  option httpchk GET /healthz
  default-server check inter 500ms fastinter 500ms fall 3 rise 1 on-marked-down shutdown-sessions
  timeout check 1s
  timeout server 60s
{http_servers}
"""
_AMQP = """\
listen amqp
  mode tcp
{binds}
  server broker 127.0.0.1:{port}
"""


def haproxy_config(
    path: Path,
    *,
    http_addresses: Sequence[str],
    http_port: int,
    api_ports: Sequence[int],
    amqp_addresses: Sequence[str],
    amqp_port: int,
) -> None:
    """Write the configuration.

    Args:
        http_addresses: where it takes HTTP, at `http_port`.
        api_ports: of the API processes, on loopback.
        amqp_addresses: where it takes AMQP, at the port that the broker has on loopback.
    """
    text = _CONFIG.format(
        http_binds="\n".join(f"  bind {each}:{http_port}" for each in http_addresses),
        http_servers="\n".join(f"  server api{number} 127.0.0.1:{port}" for number, port in enumerate(api_ports)),
    )
    if amqp_addresses:
        binds = "\n".join(f"  bind {each}:{amqp_port}" for each in amqp_addresses)
        text += _AMQP.format(binds=binds, port=amqp_port)
    path.write_text(text)
