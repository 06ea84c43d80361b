"""MPI programs as functions: a shell command behind the launcher prefix that the engine prepares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farcall.worker.shell import ShellFunction

__all__ = ["MPIFunction"]


class MPIFunction(ShellFunction):
    """A `ShellFunction` whose command is run by the engine's MPI launcher.

    The engine puts the launcher with its options (ranks, nodes: the task's `resource_specification`) into the
    variable PARSL_MPI_PREFIX, which stands before the command; where it is not set, the command runs as it is.
    Only the first command of a longer script is launched so.
    """

    def command_line(self, arguments: Mapping[str, Any]) -> str:
        return "$PARSL_MPI_PREFIX " + super().command_line(arguments)
