"""What engines that run on the agent's own machine say about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["machine_status", "usable_cores"]

_GIB = 1 << 30


def usable_cores() -> int:
    """Cores that this process may use (batch systems and `taskset` allow fewer than there are); at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def machine_status() -> Mapping[str, Any]:
    """Members of `global_state` that thread and process pools report. Source: wire protocol, `global_state`; one node
    is ours, so that what people are shown of pools and of clusters has the same columns."""
    return {
        "managers": 1,
        "active_managers": 1,
        "total_cores": os.cpu_count() or 1,
        "total_mem": round(_available_bytes() / _GIB, 1),
        "total_core_hrs": 0,
    }


def _available_bytes() -> int:
    """Memory that could be had without swapping. Source: proc_meminfo(5), MemAvailable."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux: a library that takes a tenth of the agent's start to load
        import psutil

        return int(psutil.virtual_memory().available)
