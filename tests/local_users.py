"""Local users of the tests' own, made and removed by them; and an installation of Farcall that they can read.

Needs root. Names carry the test process's id, so that two runs on one machine do not meet; what a killed run has left
is removed by the next.
"""

from __future__ import annotations

import grp
import itertools
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import farcall

_PREFIX = "fct"
_NUMBERS = itertools.count()
_PROGRAMS = ("interchange.py", "process_worker_pool.py")
_DEBIAN_PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A local user with a home directory that only they can read."""

    name: str
    uid: int
    gid: int
    home: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        return subprocess.run(
            ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", *command],
            capture_output=True,
            text=True,
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )


@dataclass(frozen=True, kw_only=True)
class LocalUsers:
    """Two users in one group of people who may; one whose account has expired; one whose home directory is missing."""

    a: Person
    b: Person
    expired: Person
    homeless: Person
    group: str
    gid: int


class PamService:
    """A file in /etc/pam.d: members of a group, whose account has not expired; it writes down every session.

    While there is a file `is_closed`, no session opens; while there is a file `nologin`, nobody may, and is told why.
    """

    def __init__(self, name: str, directory: Path, group: str) -> None:
        self.name = name
        self._path = Path("/etc/pam.d") / name
        self.record = directory / "sessions"
        script = directory / "record-session"
        self.is_closed, self.nologin = directory / "no-sessions", directory / "nologin"
        script.write_text(
            f'#!/bin/sh\ntest ! -e {self.is_closed} || exit 1\necho "$PAM_TYPE $PAM_USER" >> {self.record}\n'
        )
        script.chmod(0o755)
        variables, limits = directory / "session.env", directory / "limits.conf"
        variables.write_text("FCT_SITE=of-pam\nHOME=/of-pam\n")
        limits.write_text("* hard nofile 777\n* soft nofile 777\n")
        self._path.write_text(
            "auth     required   pam_rootok.so\n"
            f"account  required   pam_nologin.so file={self.nologin}\n"
            "account  required   pam_unix.so\n"
            f"account  required   pam_succeed_if.so quiet user ingroup {group}\n"
            f"session  required   pam_env.so readenv=1 user_readenv=0 envfile={variables}\n"
            f"session  required   pam_limits.so conf={limits}\n"
            f"session  required   pam_exec.so quiet {script}\n"
        )

    def sessions(self) -> list[str]:
        """What has happened: `open_session NAME` and `close_session NAME`."""
        return self.record.read_text().splitlines() if self.record.exists() else []

    @contextmanager
    def without_credentials(self) -> Iterator[None]:
        """As where a service has no `auth` modules, and those of the service `other` refuse."""
        text = self._path.read_text()
        self._path.write_text(text.replace("pam_rootok.so", "pam_deny.so"))
        try:
            yield
        finally:
            self._path.write_text(text)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def need_users() -> None:
    """Skip the test where no users can be made; fail it in CI."""
    reason = None
    if os.geteuid() != 0:
        reason = "making local users needs root"
    elif shutil.which("useradd") is None or shutil.which("setpriv") is None:
        reason = "useradd (Debian: passwd) and setpriv (util-linux) are missing; scripts/ci-services.sh installs them"
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def local_users() -> Iterator[LocalUsers]:
    """See LocalUsers. They are removed with their homes, and with whatever of theirs still runs."""
    need_users()
    _remove_stale()
    number = f"{next(_NUMBERS)}-{os.getpid()}"
    group = f"{_PREFIX}-may-{number}"
    names = {kind: f"{_PREFIX}-{kind}-{number}" for kind in ("a", "b", "expired", "homeless")}
    subprocess.run(["groupadd", group], check=True)
    try:
        for kind, name in names.items():
            home = "--no-create-home" if kind == "homeless" else "--create-home"
            subprocess.run(
                ["useradd", home, "--shell", "/bin/bash", "--groups", group, "--comment", f"{os.getpid()}",
                 "--key", "HOME_MODE=0700", name],
                check=True,
            )  # fmt: skip
        subprocess.run(["chage", "-E", "0", names["expired"]], check=True)
        yield LocalUsers(**{kind: _person(name) for kind, name in names.items()}, group=group,
                         gid=grp.getgrnam(group).gr_gid)  # fmt: skip
    finally:
        for name in names.values():
            _remove(name)
        subprocess.run(["groupdel", group], check=False, capture_output=True)


@contextmanager
def pam_service(users: LocalUsers, directory: Path) -> Iterator[PamService]:
    """See PamService. Skips where PAM's modules are missing."""
    if not any(Path("/lib").glob("*/security/pam_exec.so")) and not Path("/lib64/security/pam_exec.so").exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PAM's modules are missing (Debian: libpam-modules)")
    service = PamService(users.group, directory, users.group)
    try:
        yield service
    finally:
        service.remove()


@contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that everybody can read; pytest's own are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="farcall-open-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def python_for_everybody(directory: Path) -> Path:
    """An interpreter with Farcall and what it needs that every local user can execute and read.

    That of the tests if it is one; else a virtual environment in `directory` on the distribution's Python, if that is
    the same version, with the packages of the tests' own: where they are if others can read them there, else linked.
    """
    if is_open(Path(sys.executable)) and is_open(Path(sys.prefix)) and is_open(Path(os.__file__)) and is_open(_SOURCE):
        return Path(sys.executable)
    if not Path(_DEBIAN_PYTHON).exists() or not is_open(Path(_DEBIAN_PYTHON)):
        reason = f"other users cannot read {sys.executable}, and there is no {_DEBIAN_PYTHON} in its stead"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    packages = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    packages = [
        path if is_open(path) else _linked(path, directory / f"packages-{n}") for n, path in enumerate(packages)
    ]
    source = _SOURCE
    if not is_open(source):
        source = directory / "src"
        shutil.copytree(_SOURCE / "farcall", source / "farcall", ignore=shutil.ignore_patterns("__pycache__"))
    home = directory / "python"
    subprocess.run([_DEBIAN_PYTHON, "-m", "venv", "--without-pip", str(home)], check=True)
    within = next(home.glob("lib/python3*/site-packages"))
    (within / "farcall-tests.pth").write_text("\n".join(map(str, [source, *packages])) + "\n")
    interpreter = home / "bin" / "python3"
    for program in _PROGRAMS:  # of Parsl: their first line names the interpreter that is to run them
        _, _, text = (Path(sys.prefix) / "bin" / program).read_text().partition("\n")
        (home / "bin" / program).write_text(f"#!{interpreter}\n{text}")
        (home / "bin" / program).chmod(0o755)
    return interpreter


def _linked(path: Path, copy: Path) -> Path:
    """A directory with the same files: links where that can be, and copies elsewhere."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(path, copy, copy_function=link)
    return copy


_SOURCE = Path(farcall.__file__).absolute().parents[1]


def is_open(path: Path) -> bool:
    """Whether anybody may read it, and come there."""
    for each in [path, path.resolve()]:
        if not each.exists() or not each.stat().st_mode & stat.S_IROTH:
            return False
        if not all(parent.stat().st_mode & stat.S_IXOTH for parent in each.parents):
            return False
    return True


def _person(name: str) -> Person:
    found = pwd.getpwnam(name)
    return Person(name=name, uid=found.pw_uid, gid=found.pw_gid, home=Path(found.pw_dir))


def _remove(name: str) -> None:
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}").st_uid == uid:
                os.kill(int(entry), 9)
        except OSError:
            continue
    subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)


def _remove_stale() -> None:
    for found in pwd.getpwall():
        if found.pw_name.startswith(f"{_PREFIX}-") and not Path(f"/proc/{found.pw_gecos.strip(',')}").exists():
            _remove(found.pw_name)
    for path in Path("/etc/pam.d").glob(f"{_PREFIX}-may-*"):
        if not Path(f"/proc/{path.name.rpartition('-')[2]}").exists():
            path.unlink(missing_ok=True)
    for group in grp.getgrall():
        number = group.gr_name.rpartition("-")[2]
        if group.gr_name.startswith(f"{_PREFIX}-may-") and not Path(f"/proc/{number}").exists():
            subprocess.run(["groupdel", group.gr_name], check=False, capture_output=True)
