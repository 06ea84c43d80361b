"""Which user endpoint a submission to a manager belongs to, and what may be asked of it. Decides only.

A user endpoint is an endpoint of its own as far as queues, logins and presence go; it exists because somebody
submitted to its manager, and its id follows from who, what configuration, and which Python.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from functools import lru_cache
from itertools import count
from typing import Any, Final

from farcall.service.cluster.plan import slot_of
from farcall.wire.errors import InvalidRequest

__all__ = [
    "NAME_LIMIT_CHARS",
    "RESERVED_OPTIONS",
    "check_options",
    "user_endpoint_id",
    "user_endpoint_name",
]

RESERVED_OPTIONS: Final = frozenset({"parent_config", "user_runtime", "mapped_identity", "_GC", "_FARCALL"})
"""Names that templates get from the manager; an option of that name would forge them. Source: wire protocol, start
commands.
"""

NAME_LIMIT_CHARS: Final = 128
_OPTIONS_LIMIT_CHARS: Final = 32 * 1024
"""The agent of the other ecosystem hands template and options to the user endpoint through a pipe of 64 KiB."""

_NAMESPACE: Final = uuid.UUID("2f7f1c0e-5a3b-5d0c-9a53-0b3f6c3f5f10")


def check_options(options: Mapping[str, Any] | None) -> None:
    """Whether a submission's `user_endpoint_config` can be given to a manager.

    Raises:
        InvalidRequest: it names what only the manager may say, or is too long.
    """
    if not options:
        return
    forged = sorted(RESERVED_OPTIONS.intersection(options))
    if forged:
        raise InvalidRequest(
            f"member 'user_endpoint_config' may not contain {', '.join(map(repr, forged))}: "
            "templates get these from the endpoint's manager. Rename the option."
        )
    size = len(_canonical(options))
    if size > _OPTIONS_LIMIT_CHARS:
        raise InvalidRequest(
            f"member 'user_endpoint_config' has {size} characters as JSON, and the limit is {_OPTIONS_LIMIT_CHARS}. "
            "Put large inputs into the task's arguments."
        )


def user_endpoint_id(
    manager_id: str,
    identity_id: str,
    options: Mapping[str, Any] | None,
    *,
    python_version: str | None,
    runtime: Mapping[str, Any] | None,
) -> str:
    """The user endpoint that a submission belongs to: the same for the same manager, person, options and Python.

    Of the submitter's runtime only what a template may sensibly depend on counts (the versions of Python, to the
    minor, and of the SDK): a process of its own for every laptop and kernel version would help nobody.

    Args:
        python_version: the submitter's, `major.minor`.
        runtime: `user_runtime` of the submission.
    """
    sdk = str((runtime or {}).get("globus_compute_sdk_version") or "")
    return _id_beside(manager_id, _canonical([manager_id, identity_id, dict(options or {}), python_version, sdk]))


@lru_cache(maxsize=1024)
def _id_beside(manager_id: str, key: str) -> str:
    """An id that belongs to the slot of the manager's, so that one relay process sees to both. One in 64 does."""
    slot = slot_of(manager_id)
    ids = (str(uuid.uuid5(_NAMESPACE, f"{number} {key}")) for number in count())
    return next(each for each in ids if slot_of(each) == slot)


def user_endpoint_name(manager_id: str, user_endpoint_id: str) -> str:
    """The name that a manager knows a user endpoint by, and names its directory. Source: wire protocol, start
    commands.
    """
    return f"uep.{manager_id}.{user_endpoint_id}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
