"""What engines that run on the agent's own machine say about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import psutil

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
        "total_mem": round(psutil.virtual_memory().available / _GIB, 1),
        "total_core_hrs": 0,
    }
