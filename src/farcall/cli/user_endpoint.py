"""`farcall-endpoint _start-user-endpoint`: what a manager's launcher executes as the local user.

A command of its own so that a site can put a program of this name before it (on the PATH of `user_environment.yaml`),
which loads modules, sets limits and so on, and then executes the real one with the same arguments and descriptors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from farcall.endpoint.userendpoint import UserEndpoint

__all__ = ["start_user_endpoint"]

_EX_PROTOCOL = 76


@click.command("_start-user-endpoint", hidden=True)
@click.argument("name")
@click.option("--line-fd", type=int, required=True, help="The line to the manager.")
@click.option("--config-fd", type=int, required=True, help="What the launcher has rendered.")
def start_user_endpoint(name: str, line_fd: int, config_fd: int) -> None:
    """Run a user endpoint for the manager at the other end of the line."""
    from farcall.endpoint.manager.line import LineFault
    from farcall.endpoint.userendpoint import UserEndpoint, read_handover

    for fd in (line_fd, config_fd):  # neither is for the engine's processes, which would keep the line open
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
    try:
        line = socket.socket(fileno=line_fd)
        endpoint = UserEndpoint(read_handover(config_fd, name), line)
    except (OSError, LineFault) as exc:
        click.echo(f"Error: only a manager starts user endpoints ({exc}).", err=True)
        sys.exit(_EX_PROTOCOL)
    _end_on_signals(endpoint)
    status = endpoint.run()
    logging.shutdown()
    if any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread()):
        os._exit(status)  # a task in a thread of ours had its grace; nothing else can end it
    sys.exit(status)


def _end_on_signals(endpoint: UserEndpoint) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        endpoint.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, handle)
