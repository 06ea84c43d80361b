"""As whom a user endpoint runs, and what it is made of: identity mapping, local accounts, the files of the site.

All of it may take its time (a mapping program, LDAP, a network file system), so the runner asks in helper threads. Who
may be refused for what is written in `mapping`, `accounts` and `config`; here they are asked in their order.
"""

from __future__ import annotations

import logging
import os
import pwd
import threading
from typing import Any

from farcall.endpoint.manager import texts
from farcall.endpoint.manager.accounts import (
    AccountRefused,
    LocalAccount,
    UnknownLocalUser,
    check_may_become,
    local_account,
)
from farcall.endpoint.manager.commands import StartRequest
from farcall.endpoint.manager.config import Blueprint, BlueprintUnreadable, LoadedManager, read_blueprint
from farcall.endpoint.manager.events import Person
from farcall.endpoint.manager.mapping import IdentityMap, Unmapped
from farcall.wire.errors import FarcallError

__all__ = ["NotResolved", "Resolver", "mapped_identity_of", "own_account"]

_log = logging.getLogger(__name__)


class NotResolved(FarcallError):
    """It runs as nobody. The message is for the submitter."""

    code = "NOT_RESOLVED"

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class Resolver:
    """Used by several threads.

    Args:
        gateway_id: what external mapping programs are told: the endpoint's id.

    Raises:
        MappingInvalid: at once, if the identity mapping cannot be used.
    """

    def __init__(self, loaded: LoadedManager, *, gateway_id: str) -> None:
        self._loaded = loaded
        self._lock = threading.Lock()
        self._map = (
            None if loaded.mapping_path is None else IdentityMap.load(loaded.mapping_path, gateway_id=gateway_id)
        )

    def resolve(self, request: StartRequest) -> tuple[Person, Blueprint]:
        """Raises NotResolved."""
        try:
            person = self._own(request) if self._map is None else self._mapped(request)
            return person, read_blueprint(self._loaded)
        except (Unmapped, UnknownLocalUser, AccountRefused) as exc:
            raise NotResolved(str(exc)) from exc
        except BlueprintUnreadable as exc:
            _log.error("A user endpoint cannot be made.", extra={"event": "manager.blueprint", "reason": str(exc)})
            raise NotResolved(texts.no_blueprint(request.user_endpoint_id)) from exc

    def _mapped(self, request: StartRequest) -> Person:
        with self._lock:
            assert self._map is not None
            self._map = current = self._map.refreshed()
        found = current.map(request.identity_set)
        account = local_account(found.local_user)
        check_may_become(account, own_uid=os.geteuid(), allows_system=self._loaded.config.allow_system_accounts)
        _log.info(
            "An identity is mapped.",
            extra={
                "event": "manager.mapped",
                "user_endpoint_id": request.user_endpoint_id,
                "identity": request.username,
                "local_user": account.name,
                "rule": found.rule,
            },
        )
        return Person(
            key=account.name,
            local_user=account.name,
            account=account.name,
            uid=account.uid,
            mapped_identity=mapped_identity_of(account, found.identity.get("id") or request.identity_id),
        )

    def _own(self, request: StartRequest) -> Person:
        account = own_account()
        return Person(
            key=request.identity_id,
            local_user=None,
            account=account.name,
            uid=account.uid,
            mapped_identity=mapped_identity_of(account, request.identity_id),
        )


def own_account() -> LocalAccount:
    """Whom this process runs as, also if the machine does not know them."""
    uid = os.geteuid()
    try:
        return local_account(pwd.getpwuid(uid).pw_name)
    except (KeyError, UnknownLocalUser):  # a container that runs as a number
        home = os.environ.get("HOME", "/")
        groups = tuple(sorted({os.getegid(), *os.getgroups()}))
        return LocalAccount(
            name=str(uid), uid=uid, gid=os.getegid(), groups=groups, home=home, shell="/bin/sh", gecos=""
        )


def mapped_identity_of(account: LocalAccount, identity_id: str) -> dict[str, Any]:
    """What templates know as `mapped_identity`."""
    return {
        "local": {
            "uname": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "groups": list(account.groups),
            "gecos": account.gecos,
            "shell": account.shell,
            "dir": account.home,
        },
        "globus": {"id": identity_id},
    }
