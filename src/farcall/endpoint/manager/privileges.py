"""Becoming a local user for good: every privilege is given up, and then it is proved that none comes back.

Runs in the launcher, before anything of the user's is touched. What was refused is the site's business and not the
submitter's; so one error says it, with a detail for the manager's log.

Sources: credentials(7), capabilities(7), prctl(2), keyctl(2), the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from farcall.endpoint.manager.accounts import LocalAccount
from farcall.wire.errors import FarcallError

__all__ = ["PrivilegesRemain", "become", "end_with_parent", "faults", "forget_what_is_inherited", "take_in_orphans"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_KEYCTL_NUMBERS: Final = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


class PrivilegesRemain(FarcallError):
    """The launcher is not what it should be by now. It must not go on."""

    code = "PRIVILEGES_REMAIN"

    def __init__(self, what: Sequence[str]) -> None:
        super().__init__(what)
        self.what = list(what)

    def __str__(self) -> str:
        return "The privileges of root were not given up as they must be: " + "; ".join(self.what) + "."


def forget_what_is_inherited() -> None:
    """As root: leave behind what a process keeps of its parent beyond ids, and what PAM may then set anew.

    The session keyring is root's, and whoever is in it may read its keys whatever their uid; the manager may be
    protected from the kernel's out-of-memory killer, and its users' tasks must not be.
    """
    _new_session_keyring()
    try:
        with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
            if int(file.read()) < 0:
                file.write(b"0")
    except OSError:
        pass  # there is no /proc; `become` will say so


def become(account: LocalAccount, groups: Sequence[int], *, keeps_helpers: bool) -> None:
    """Turn this process, which is root's and has one thread, into the account's, for good.

    Args:
        groups: supplementary groups, all of them.
        keeps_helpers: programs with a set-user-id bit (sudo, a scheduler's) still work for the user, as after a login.
            Otherwise nothing that is ever executed can gain anything: the capability bounding set is empty and
            no_new_privs is set.

    Raises:
        PrivilegesRemain: the process must end now.
        OSError: likewise; the kernel refused a step.
    """
    _prctl(_PR_SET_SECUREBITS, 0)  # "no setuid fix-up" would keep capabilities over setresuid
    _prctl(_PR_SET_KEEPCAPS, 0)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if not keeps_helpers:
        _drop_bounding_set()
    os.setresgid(account.gid, account.gid, account.gid)
    os.setgroups(groups)
    os.setresuid(account.uid, account.uid, account.uid)
    _drop_capabilities()
    if not keeps_helpers:
        _new_session_keyring()  # the user's own from now on; with PAM it is what its modules have made of it
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    with open("/proc/self/status", encoding="utf-8") as file:
        found = faults(file.read(), account, groups, keeps_helpers=keeps_helpers)
    found += [f"{name} succeeded" for name, attempt in _ATTEMPTS.items() if _succeeds(attempt)]
    if found:
        raise PrivilegesRemain(found)


def faults(status: str, account: LocalAccount, groups: Iterable[int], *, keeps_helpers: bool) -> list[str]:
    """What is wrong with a process that should be the account's, by its /proc/PID/status; [] if nothing is.

    The bounding set may have been beyond our power (root in a container without CAP_SETPCAP); no_new_privs makes it
    meaningless, so only that is demanded.

    Source: proc_pid_status(5).
    """
    found = []
    members = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    read = {name: value.split() for name, value in members.items()}
    wanted = {
        "Uid": [str(account.uid)] * 4,
        "Gid": [str(account.gid)] * 4,
        "Threads": ["1"],
        **{name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")},
        **({} if keeps_helpers else {"NoNewPrivs": ["1"]}),
    }
    for name, value in wanted.items():
        if read.get(name) != value:
            found.append(f"{name} is {' '.join(read.get(name, ['not there']))}, not {' '.join(value)}")
    if sorted(map(int, read.get("Groups", []))) != sorted(set(groups)):
        found.append(f"groups are {' '.join(read.get('Groups', []))}, not {' '.join(map(str, sorted(set(groups))))}")
    return found


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send a signal when the thread that started this process ends. Forgotten at a change of ids."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def take_in_orphans() -> None:
    """Become the parent of descendants whose own has ended (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


_ATTEMPTS: Final[dict[str, Callable[[], object]]] = {
    "setuid(0)": lambda: os.setuid(0),
    "seteuid(0)": lambda: os.seteuid(0),
    "setreuid(0, 0)": lambda: os.setreuid(0, 0),
    "setresuid(0, 0, 0)": lambda: os.setresuid(0, 0, 0),
    "setgid(0)": lambda: os.setgid(0),
    "setresgid(0, 0, 0)": lambda: os.setresgid(0, 0, 0),
    "setgroups([0])": lambda: os.setgroups([0]),
    "chroot": lambda: os.chroot("/"),
}
"""The ways back, tried for real: what /proc shows depends on the kernel's telling the truth in this container."""


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _drop_bounding_set() -> None:
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            return  # EINVAL: there are no more; EPERM: see `faults`


def _drop_capabilities() -> None:
    """All three sets; setresuid has cleared two of them, and never the inheritable one."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise _error("capset")


def _new_session_keyring() -> None:
    number = _KEYCTL_NUMBERS.get(os.uname().machine)
    if number is not None:  # it fails where nobody may use keyrings, as in many containers: then none leaks either
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None))


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        raise _error(f"prctl {option}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
