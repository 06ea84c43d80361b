"""A second host: a network namespace with one cable (a veth pair) that can be pulled. Linux; needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Cable", "cable", "why_no_cable"]


def why_no_cable() -> str | None:
    """Why the network cannot be cut here; None if it can."""
    if shutil.which("ip") is None:
        return "no command `ip` (Debian: apt-get install iproute2)"
    if os.geteuid() != 0:
        return "a network namespace needs root"
    name = f"fcprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Cable:
    """The link between this host (`near`) and a second one (`far`)."""

    def __init__(self) -> None:
        number = os.getpid()
        self.namespace = f"fc{number}"
        self._near, self._far = f"fcn{number}"[:15], f"fcf{number}"[:15]
        # 198.18.0.0/15 is set aside for measuring networks (RFC 2544); a piece of four addresses for each run.
        base = f"198.18.{number // 64 % 256}.{number % 64 * 4}"
        prefix, _, last = base.rpartition(".")
        self.near_address, self.far_address = f"{prefix}.{int(last) + 1}", f"{prefix}.{int(last) + 2}"

    def make(self) -> None:
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.namespace)
        _ip("addr", "add", f"{self.near_address}/30", "dev", self._near)
        self._inside("addr", "add", f"{self.far_address}/30", "dev", self._far)
        _ip("link", "set", self._near, "up")
        self._inside("link", "set", "lo", "up")
        self._inside("link", "set", self._far, "up")

    def on_far_host(self, *command: str) -> list[str]:
        """A command line that runs a command on the second host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def cut(self) -> None:
        """Neither end is told anything by the other any more."""
        self._inside("link", "set", self._far, "down")

    def heal(self) -> None:
        self._inside("link", "set", self._far, "up")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)
        subprocess.run(["ip", "link", "del", self._near], capture_output=True)

    def _inside(self, *args: str) -> None:
        _ip("-n", self.namespace, *args)


@contextmanager
def cable() -> Iterator[Cable]:
    """A second host, until the end of the `with` statement."""
    made = Cable()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")
