"""Which variables a user endpoint gets, and which never."""

from pathlib import Path

import pytest

from farcall.endpoint.manager import accounts
from farcall.endpoint.manager.accounts import AccountRefused, LocalAccount, check_may_become
from farcall.endpoint.manager.environment import DEFAULT_PATH, EnvironmentRefused, user_environment
from farcall.endpoint.manager.line import Order

ACCOUNT = LocalAccount(
    name="ann", uid=1001, gid=1001, groups=(1001, 2000), home="/home/ann", shell="/bin/zsh", gecos="Ann"
)
WHO = {"HOME": "/home/ann", "USER": "ann", "LOGNAME": "ann", "SHELL": "/bin/zsh", "PWD": "/home/ann"}
MARK = {"FARCALL_USER_ENDPOINT": "uep/1"}


def order(environment: dict[str, str] | None = None, runtime: dict[str, object] | None = None) -> Order:
    return Order(
        name="uep", user_endpoint_id="e", manager_name="m", local_user="ann", template="",
        environment=environment or {}, user_runtime=runtime or {},
    )  # fmt: skip


def made(
    account: LocalAccount | None = ACCOUNT,
    *,
    inherited: dict[str, str] | None = None,
    of_session: dict[str, str] | None = None,
    site: dict[str, str] | None = None,
    runtime: dict[str, object] | None = None,
) -> dict[str, str]:
    return user_environment(
        order(site, runtime), account, mark="uep/1", inherited=inherited or {}, of_session=of_session or {}
    )


def test_a_local_user_gets_nothing_of_the_managers_environment() -> None:
    inherited = {"LD_PRELOAD": "/root/evil.so", "AWS_SECRET": "x", "PATH": "/root/bin", "LANG": "de_DE"}
    assert made(inherited=inherited) == {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8", **WHO, **MARK}


def test_the_site_says_more_than_pam_and_neither_says_who_the_user_is() -> None:
    lies = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/false", "PWD": "/", **MARK, "A": "pam"}
    got = made(
        of_session={**lies, "B": "pam"}, site={**lies, "FARCALL_USER_ENDPOINT": "other", "A": "site", "PATH": "/opt"}
    )
    assert got == {"PATH": "/opt", "LANG": "C.UTF-8", "A": "site", "B": "pam", **WHO, **MARK}


def test_without_a_local_user_it_is_the_managers_own_but_for_its_credentials() -> None:
    inherited = {
        "HOME": "/home/own", "PYTHONPATH": "/src", "FARCALL_TOKEN": "t", "FARCALL_CLIENT_SECRET": "s",
        "FARCALL_CLIENT_ID": "i", "NOTIFY_SOCKET": "/run/x", "LISTEN_FDS": "1",
    }  # fmt: skip
    assert made(None, inherited=inherited) == {"HOME": "/home/own", "PYTHONPATH": "/src", **MARK}


@pytest.mark.parametrize(("name", "value"), [("A=B", "c"), ("", "c"), ("A\0", "c"), ("A", "c\0d")])
def test_what_no_process_can_have_is_refused(name: str, value: str) -> None:
    with pytest.raises(EnvironmentRefused):
        made(site={name: value})


def test_what_a_stranger_says_of_its_python_is_passed_on_only_if_it_looks_right() -> None:
    got = made(runtime={"python": {"version": "3.11.7"}, "globus_compute_sdk_version": "4.1.0; rm -rf /"})
    assert got["GC_USER_PYTHON_VERSION"] == "3.11.7"
    assert "GC_USER_SDK_VERSION" not in got
    assert made(runtime={"python": "3.11", "globus_compute_sdk_version": 4}) == made()


@pytest.mark.parametrize("members", [{"uid": 0}, {"uid": 77}, {"gid": 0}])
def test_nobody_becomes_root_or_the_manager_by_whatever_name(members: dict[str, int]) -> None:
    given = {**vars(ACCOUNT), **members}
    with pytest.raises(AccountRefused, match="'ann'"):
        check_may_become(LocalAccount(**given), own_uid=77)
    check_may_become(ACCOUNT, own_uid=77)
    with pytest.raises(AccountRefused, match="'ann'"):
        check_may_become(LocalAccount(**given), own_uid=77, allows_system=True)


@pytest.mark.parametrize(
    ("login_defs", "refused", "passes"),
    [
        ("UID_MIN 500\nSYS_UID_MAX\t\t 499 # as on old systems\n", [1, 499, 65534, 4294967294], [500, 1000]),
        ("#SYS_UID_MAX 100\nUID_MIN 2000\n", [101, 1999, 65534], [2000]),
        ("SYS_UID_MAX all\n", [999, 65534], [1000]),
        (None, [1, 999, 65534], [1000, 60000]),
    ],
)
def test_accounts_of_the_system_are_refused_unless_the_site_means_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login_defs: str | None, refused: list[int], passes: list[int]
) -> None:
    path = tmp_path / "login.defs"
    monkeypatch.setattr(accounts, "LOGIN_DEFS", path)
    if login_defs is not None:
        path.write_text(login_defs)
    for uid in refused:
        account = LocalAccount(**{**vars(ACCOUNT), "uid": uid})
        with pytest.raises(AccountRefused, match="account of the system"):
            check_may_become(account, own_uid=77)
        check_may_become(account, own_uid=77, allows_system=True)
    for uid in passes:
        check_may_become(LocalAccount(**{**vars(ACCOUNT), "uid": uid}), own_uid=77)
