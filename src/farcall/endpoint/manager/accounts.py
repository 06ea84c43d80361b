"""Local accounts: what the machine knows of one, and which of them a manager never becomes.

Asks the name service (files, LDAP, SSSD), which may take its time. Who an identity is here says `mapping.py`; whether
the account may be used now says PAM (`pam.py`).
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farcall.wire.errors import FarcallError

__all__ = [
    "AccountRefused",
    "LocalAccount",
    "UnknownLocalUser",
    "check_may_become",
    "local_account",
    "system_uid_limit",
]

LOGIN_DEFS: Final = Path("/etc/login.defs")
_USUAL_SYSTEM_UID_LIMIT: Final = 999
_NOBODIES: Final = (65_534, 65_535, 2**32 - 2, 2**32 - 1)
"""`nobody` and `nfsnobody` of today and of older systems: owners of what has none, or whose owner is not known."""


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
    """An account that no task may run as. `is_certain`: whatever the site says."""

    code = "ACCOUNT_REFUSED"

    def __init__(self, name: str, why: str, *, is_certain: bool = True) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why
        self.is_certain = is_certain

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


def system_uid_limit() -> int:
    """The highest id of a system account here. Source: login.defs(5), SYS_UID_MAX and its default."""
    try:
        text = LOGIN_DEFS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _USUAL_SYSTEM_UID_LIMIT
    words = (line.split() for line in text.splitlines())
    found = {each[0]: each[1] for each in words if len(each) >= 2 and each[1].isdecimal()}
    if "SYS_UID_MAX" in found:
        return int(found["SYS_UID_MAX"])
    return int(found["UID_MIN"]) - 1 if "UID_MIN" in found else _USUAL_SYSTEM_UID_LIMIT


def check_may_become(account: LocalAccount, *, own_uid: int, allows_system: bool = False) -> None:
    """Refuse what must never run a task: root by any name, root's group, and the manager's own account; and system
    accounts, which people do not have: a rule that takes any name would make `slurm` of whoever calls themselves so.

    Args:
        own_uid: the manager's.
        allows_system: the site means it (`allow_system_accounts`).

    Raises:
        AccountRefused: see above.
    """
    if account.uid == 0:
        raise AccountRefused(account.name, "is root")
    if account.uid == own_uid:
        raise AccountRefused(account.name, "is the account that the endpoint itself runs as")
    if account.gid == 0:
        raise AccountRefused(account.name, "has root's group as its own")
    if not allows_system and (account.uid <= system_uid_limit() or account.uid in _NOBODIES):
        raise AccountRefused(account.name, "is an account of the system, not a person's", is_certain=False)
