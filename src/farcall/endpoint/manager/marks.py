"""What a manager and its launchers agree on, besides the line. Small: the process that keeps a PAM session loads it."""

from __future__ import annotations

import signal
from typing import Final

__all__ = ["KILL_CHILD_SIGNAL", "MARK_VARIABLE"]

MARK_VARIABLE: Final = "FARCALL_USER_ENDPOINT"
"""In the environment of all that a user endpoint starts: which start of which user endpoint it belongs to."""

KILL_CHILD_SIGNAL: Final = signal.SIGUSR1
"""Tells a launcher that keeps a PAM session to kill the agent, and then to close the session."""
