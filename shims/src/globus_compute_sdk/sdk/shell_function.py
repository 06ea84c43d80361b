"""See `farcall.worker.shell`."""

from farcall import ShellFunction, ShellResult

__all__ = ["ShellFunction", "ShellResult"]
