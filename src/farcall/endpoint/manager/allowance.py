"""How much a user endpoint may say on its line, so that none takes the manager's time, disk or log from the others.

Pure; the clock comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from farcall.endpoint.manager.line import AuditLine, LineFault, Message

__all__ = ["Allowance", "Bucket"]

AUDIT_LINES_PER_S: Final = 5_000.0
"""Three for each task: more than an agent can do for long."""
MESSAGES_PER_S: Final = 20.0
"""An agent tells its state once a second, and when its phase changes."""
BURST_S: Final = 10.0


@dataclass(slots=True)
class Bucket:
    """So much a second in the long run, and what ten seconds bring at once."""

    per_s: float
    _left: float = -1.0
    _at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """Take one; False: there is none."""
        limit = self.per_s * BURST_S
        self._left = limit if self._left < 0 else min(limit, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Allowance:
    """Of one line."""

    def __init__(self) -> None:
        self._audit = Bucket(AUDIT_LINES_PER_S)
        self._others = Bucket(MESSAGES_PER_S)

    def take(self, message: Message, now_s: float) -> None:
        """Raises LineFault: no agent says that much."""
        bucket = self._audit if isinstance(message, AuditLine) else self._others
        if not bucket.take(now_s):
            raise LineFault(f"more than {bucket.per_s:.0f} messages a second for {BURST_S:.0f} seconds")
