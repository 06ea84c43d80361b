"""Listening sockets, and who has a port when we cannot have it."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from pathlib import Path

from farcall.wire.errors import FarcallError

__all__ = ["CannotListen", "cannot_listen", "is_loopback", "listen", "port_holder"]


class CannotListen(FarcallError):
    """The operating system does not give us the address. `advice` says what to do about `reason`."""

    code = "CANNOT_LISTEN"

    def __init__(self, what: str, host: str, port: int, reason: str, advice: str) -> None:
        super().__init__(what, host, port, reason, advice)
        self.what = what
        self.host = host
        self.port = port
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"Cannot listen on {self.host} port {self.port} for {self.what}: {self.reason}. {self.advice}"


def listen(what: str, host: str, port: int, option: str) -> socket.socket:
    """A bound TCP socket; the port is held from now on.

    Args:
        what: for the error's text.
        option: of the command, that chooses the port.

    Raises:
        CannotListen: the message names the port and, if that can be found out, who has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise cannot_listen(exc, what, host, port, option) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Listening already now shows a conflict that binding with SO_REUSEADDR does not.
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise cannot_listen(exc, what, host, port, option) from exc
    return sock


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cannot_listen(exc: OSError, what: str, host: str, port: int, option: str) -> CannotListen:
    """The error for a failed `bind`."""
    advice = f"Choose another with `{option} PORT`; `{option} 0` takes any free one and says which."
    if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        is_name = isinstance(exc, socket.gaierror)
        reason = "this is no name that has an address" if is_name else "this is not an address of this machine"
        advice = "Choose one with `--host ADDRESS`: 127.0.0.1 for this machine only, 0.0.0.0 for all of its addresses."
    elif exc.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        reason = "another process has it" if holder is None else f"it is taken by {holder}"
    else:
        reason = (exc.strerror or str(exc)).lower()
    return CannotListen(what, host, port, reason, advice)


def port_holder(port: int) -> str | None:
    """Who listens on a TCP port of this machine, as "process 123 (name)"; None if we may not know."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for fd_dir in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [os.readlink(fd) for fd in fd_dir.iterdir()]
        except OSError:  # somebody else's process, or one that has just ended
            continue
        if inodes.intersection(links):
            return f"process {fd_dir.parent.name} ({_command_of(fd_dir.parent)})"
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            is_listening = fields[3] == "0A"
            if is_listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _command_of(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    # "python -m farcall.cli.service start" says more by its later words than by its first.
    names = [re.sub(r".*/", "", word) for word in words[:3] if word and not word.startswith("-")]
    return " ".join(names) or "?"
