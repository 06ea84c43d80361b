"""What engines tell users about tasks that ended without an answer. Texts only."""

from __future__ import annotations

import os
import signal

__all__ = ["describe_exit", "no_specification_text", "not_started_text", "worker_lost_text"]


def describe_exit(status: int) -> str:
    """How a process ended.

    Args:
        status: as `os.waitpid` gives it.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        hints: dict[int, str] = {
            signal.SIGKILL: "; out of memory? The kernel's log (`dmesg`) tells",
            signal.SIGSEGV: "; a fault in compiled code that the function called",
            signal.SIGABRT: "; compiled code that the function called has given up",
            signal.SIGBUS: "; a memory-mapped file that shrank, or a full file system",
        }
        hint = hints.get(number, "")
        return f"killed by signal {number} ({name}){hint}"
    return f"ended by exit code {os.WEXITSTATUS(status)} (`os._exit`, or a library that ends the process)"


def worker_lost_text(*, worker: str, node: str, how: str, log: str) -> str:
    """For the user whose task a worker took along.

    Args:
        worker: which one, with its process id if known.
        node: host name.
        how: see `describe_exit`.
        log: where the worker's output is.
    """
    return f"The worker that ran this task is gone: {worker} on {node} was {how}. Its output: {log}"


def not_started_text(reason: str) -> str:
    """For the user whose task an engine refused. Source: wire protocol, result contents."""
    return f"Failed to start task: {reason}"


def no_specification_text(engine: str) -> str:
    """For the user who asked a pool on one machine for resources. Source: wire protocol, pitfall 12."""
    return not_started_text(
        f"{engine} does not take a resource specification. Submit without one "
        "(`Executor.resource_specification = None`), or ask the site for an endpoint with GlobusComputeEngine "
        "or GlobusMPIEngine."
    )
