"""The process between the agent and the nodes' managers: Parsl's interchange, that ends with its agent.

Run as a program by the executor (`interchange_launch_cmd`), from the agent's own interpreter, so nothing needs to be
on PATH. Where Parsl's would go on for ever after the agent was killed, this one tells the managers to end, which end
their workers, and ends itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import sys
from typing import Any

from parsl.executors.high_throughput.interchange import PKL_SHUTDOWN_CODE, Interchange

from farcall.endpoint.engines.leftovers import end_marked

__all__ = ["main"]

_LINGER_MS = 2000
_GRACE_S = 5.0


class _AttachedInterchange(Interchange):  # type: ignore[misc]  # Parsl is not typed for us
    """Looks, whenever it wakes (at least once per poll period), whether its agent is still there."""

    agent_pid: int
    marker: str | None

    def expire_drained_managers(self, interesting_managers: set[bytes], monitoring_radio: Any) -> None:
        if os.getppid() != self.agent_pid:
            self._end()
        super().expire_drained_managers(interesting_managers, monitoring_radio)

    def _end(self) -> None:
        for manager_id in list(self._ready_managers):
            self.manager_sock.send_multipart([manager_id, PKL_SHUTDOWN_CODE])
        self.zmq_context.destroy(linger=_LINGER_MS)
        if self.marker is not None:
            end_marked(self.marker, grace_s=_GRACE_S)
        os._exit(0)


def main(argv: list[str] | None = None) -> None:
    """Serve until told to stop. Reads the configuration that Parsl's executor writes to standard input."""
    parser = argparse.ArgumentParser(prog="farcall-interchange")
    parser.add_argument("--agent", type=int, required=True, help="process id of the agent")
    parser.add_argument("--marker", help="of processes on this machine that shall not outlive the agent")
    arguments = parser.parse_args(argv)
    with contextlib.suppress(OSError):  # a session leader already
        os.setsid()  # Ctrl-C in the agent's terminal is the agent's to deal with
    config = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our parent
    interchange = _AttachedInterchange(**config)
    interchange.agent_pid, interchange.marker = arguments.agent, arguments.marker
    interchange.start()


if __name__ == "__main__":
    main()
