"""Local accounts: what the machine knows of one, and which of them a manager never becomes.

Asks the name service (files, LDAP, SSSD), which may take its time. Who an identity is here says `mapping.py`; whether
the account may be used now says PAM (`pam.py`).
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from farcall.wire.errors import FarcallError

__all__ = ["AccountRefused", "LocalAccount", "UnknownLocalUser", "check_may_become", "local_account"]


class UnknownLocalUser(FarcallError):
    """This machine knows no such account, or cannot find out just now."""

    code = "UNKNOWN_LOCAL_USER"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"There is no local user {self.name!r} on the endpoint's machine. Ask its administrators for an account, "
            "or to map your identity to the one that you have."
        )


class AccountRefused(FarcallError):
    """An account that no task may ever run as."""

    code = "ACCOUNT_REFUSED"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why

    def __str__(self) -> str:
        return (
            f"Nobody's tasks run as local user {self.name!r} here: it {self.why}. Ask the endpoint's administrators "
            "to map your identity to another account."
        )


@dataclass(frozen=True, kw_only=True)
class LocalAccount:
    """An account as the name service has it.

    Attributes:
        name: as the name service writes it; what was asked for may have been an alias.
        groups: ids, the account's own group among them; ascending.
        shell: "" counts as /bin/sh.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    gecos: str


def local_account(name: str) -> LocalAccount:
    """Look an account up.

    Raises:
        UnknownLocalUser: there is none of this name.
    """
    try:
        found = pwd.getpwnam(name)
        groups = os.getgrouplist(found.pw_name, found.pw_gid)
    except (KeyError, ValueError, OSError) as exc:  # ValueError: a name with a null character
        raise UnknownLocalUser(name) from exc
    return LocalAccount(
        name=found.pw_name,
        uid=found.pw_uid,
        gid=found.pw_gid,
        groups=tuple(sorted({found.pw_gid, *groups})),
        home=found.pw_dir,
        shell=found.pw_shell or "/bin/sh",
        gecos=found.pw_gecos,
    )


def check_may_become(account: LocalAccount, *, own_uid: int) -> None:
    """Refuse what must never run a task: root by any name, root's group, and the manager's own account.

    Args:
        own_uid: the manager's.

    Raises:
        AccountRefused: see above.
    """
    if account.uid == 0:
        raise AccountRefused(account.name, "is root")
    if account.uid == own_uid:
        raise AccountRefused(account.name, "is the account that the endpoint itself runs as")
    if account.gid == 0:
        raise AccountRefused(account.name, "has root's group as its own")
