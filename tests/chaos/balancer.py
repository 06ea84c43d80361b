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
listen amqp
  mode tcp
{amqp_binds}
  server broker 127.0.0.1:{amqp_port}
"""


def haproxy_config(
    path: Path, *, addresses: Sequence[str], http_port: int, amqp_bind: int, api_ports: Sequence[int], amqp_port: int
) -> None:
    """Write the configuration.

    Args:
        addresses: to listen on, each with `http_port` and `amqp_bind`.
        api_ports: of the API processes, on loopback.
        amqp_port: of the broker, on loopback.
    """
    path.write_text(
        _CONFIG.format(
            http_binds="\n".join(f"  bind {each}:{http_port}" for each in addresses),
            amqp_binds="\n".join(f"  bind {each}:{amqp_bind}" for each in addresses),
            http_servers="\n".join(f"  server api{number} 127.0.0.1:{port}" for number, port in enumerate(api_ports)),
            amqp_port=amqp_port,
        )
    )
