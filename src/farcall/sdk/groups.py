"""The task group of Executors that name none: one per process, service and login, made when first needed.

So the calls of a program, from however many Executors, share one queue of results, and one id finds them all again.
"""

from __future__ import annotations

import os
import threading
from uuid import uuid4

__all__ = ["default_group", "replace_default_group"]

_lock = threading.Lock()
_groups: dict[tuple[object, ...], str] = {}


def default_group(identity_key: tuple[object, ...]) -> str:
    """The group's id. A forked child has one of its own: it must not take its parent's results."""
    key = (os.getpid(), *identity_key)
    group = _groups.get(key)
    if group is None:
        with _lock:
            group = _groups.setdefault(key, str(uuid4()))
    return group


def replace_default_group(identity_key: tuple[object, ...], asked: str, got: str) -> None:
    """The service put tasks for the group `asked` into `got`: use that from now on."""
    key = (os.getpid(), *identity_key)
    with _lock:
        if _groups.get(key) == asked:
            _groups[key] = got
