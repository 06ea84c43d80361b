"""Which environment a user endpoint has: made from nothing for a local user, from the manager's own without one.

Decides only. A privileged manager's environment never reaches a user: it is not even in the launcher's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from farcall.endpoint.manager.accounts import LocalAccount
from farcall.endpoint.manager.line import Order
from farcall.endpoint.manager.marks import MARK_VARIABLE
from farcall.wire.errors import FarcallError

__all__ = ["DEFAULT_PATH", "RESERVED", "EnvironmentRefused", "user_environment"]

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

RESERVED: Final = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "PWD", MARK_VARIABLE})
"""What no file of the site's sets: they say who the user is, and which user endpoint this is."""

_SECRETS: Final = frozenset({"FARCALL_TOKEN", "FARCALL_CLIENT_ID", "FARCALL_CLIENT_SECRET"})
_OF_THE_SUPERVISOR: Final = re.compile(
    r"NOTIFY_SOCKET|LISTEN_(FDS|PID|FDNAMES)|WATCHDOG_(PID|USEC)|INVOCATION_ID|JOURNAL_STREAM"
)
_NAME: Final = re.compile(r"[^=\0]+")
_VERSION: Final = re.compile(r"[0-9A-Za-z.+_-]{1,64}")


class EnvironmentRefused(FarcallError):
    """A variable that no process can have."""

    code = "ENVIRONMENT_REFUSED"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"The endpoint's user_environment.yaml sets {self.name!r}, which cannot be an environment variable. "
            "Tell the endpoint's administrators."
        )


def user_environment(
    order: Order,
    account: LocalAccount | None,
    *,
    mark: str,
    inherited: Mapping[str, str],
    of_session: Mapping[str, str],
) -> dict[str, str]:
    """The environment of the agent, and so of all that it starts.

    The later wins: our defaults (or, without a local user, the manager's own), what PAM's modules set, what the site's
    `user_environment.yaml` sets, what the submitter said of its Python, who the user is.

    Args:
        account: None: stay who the manager is; then `inherited` counts, without the manager's credentials.
        mark: see MARK_VARIABLE.
        of_session: of PAM.

    Raises:
        EnvironmentRefused: a name or value that the kernel cannot take.
    """
    made: dict[str, str] = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"}
    if account is None:
        made = {name: value for name, value in inherited.items() if not _is_the_managers(name)}
    site = {**of_session, **order.environment}
    for name, value in site.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise EnvironmentRefused(name)
    made |= {name: value for name, value in site.items() if name not in RESERVED}
    made |= _of_submitter(order.user_runtime)
    if account is not None:
        made |= {
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": account.shell,
            "PWD": account.home,
        }
    made[MARK_VARIABLE] = mark
    return made


def _is_the_managers(name: str) -> bool:
    return name in _SECRETS or _OF_THE_SUPERVISOR.fullmatch(name) is not None


def _of_submitter(runtime: Mapping[str, Any]) -> dict[str, str]:
    """For a site's own start script. It is what a stranger said, and a shell may read it: so only what looks right."""
    python = runtime.get("python")
    said = {
        "GC_USER_PYTHON_VERSION": python.get("version") if isinstance(python, Mapping) else None,
        "GC_USER_SDK_VERSION": runtime.get("globus_compute_sdk_version"),
    }
    return {name: value for name, value in said.items() if isinstance(value, str) and _VERSION.fullmatch(value)}
