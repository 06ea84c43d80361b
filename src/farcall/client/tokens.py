"""The logins that a user has at services, kept in `tokens.json` in the user's directory (mode 0600).

Owns the file: every change is read, made and written under a lock, and replaces the file at once, so that
several processes may log in at the same time and a reader never sees half a file. Releases before logins by OAuth2
read the file too: what they know stands where it stood, and what they do not know they leave alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from farcall.client.settings import canonical_url, user_dir
from farcall.wire.auth import COMPUTE_SERVER

try:
    import fcntl
except ImportError:  # the SDK also imports where there is no flock; the replacement stays atomic there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Account", "ServerTokens", "StoredToken", "TokenStore", "canonical_url"]

_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class ServerTokens:
    """What counts at one resource server.

    Attributes:
        refresh_token: for the next access token; None if there is none, or none any more.
        expires_at: of the access token, in unix seconds; None if it does not expire.
        renew_at: from then on the next access token is fetched, in unix seconds; None if never.
        scope: what the access token allows, separated by spaces.
    """

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    renew_at: float | None = None
    scope: str = ""

    def __repr__(self) -> str:  # a token must not end up in a log or a traceback
        return f"ServerTokens(expires_at={self.expires_at!r}, scope={self.scope!r}, …)"


@dataclass(frozen=True, kw_only=True)
class StoredToken:
    """One login of a user at a service.

    Attributes:
        expires_at, refresh_token, renew_at, scope: of the access token; see `ServerTokens`.
        client_id: the OAuth2 client that the login was made with; None for a token that somebody handed out, which
            counts at every resource server.
        others: tokens for resource servers besides the one that computes.
    """

    access_token: str
    identity_id: str
    username: str
    expires_at: float | None = None
    refresh_token: str | None = None
    renew_at: float | None = None
    client_id: str | None = None
    scope: str = ""
    others: Mapping[str, ServerTokens] = field(default_factory=dict)

    def __repr__(self) -> str:  # a token must not end up in a log or a traceback
        return f"StoredToken(identity_id={self.identity_id!r}, username={self.username!r}, access_token=…)"

    def at(self, server: str) -> ServerTokens | None:
        """The tokens for a resource server; None if the login has none for it."""
        if server == COMPUTE_SERVER or self.client_id is None:
            return ServerTokens(**_members(self))
        return self.others.get(server)

    def with_tokens(self, server: str, tokens: ServerTokens) -> StoredToken:
        """The same login with other tokens for one resource server."""
        if server == COMPUTE_SERVER or self.client_id is None:
            return replace(self, **_members(tokens))
        return replace(self, others={**self.others, server: tokens})


@dataclass(frozen=True, kw_only=True)
class Account:
    """One kept login.

    Attributes:
        url: of the service, in canonical form.
        is_used: it is the one that counts at this service if none is named.
    """

    url: str
    login: StoredToken
    is_used: bool


class TokenStore:
    """Logins by service address and user name, and the address that is used if none is named.

    At each service one login is in use; others are kept beside it. Addresses are compared in canonical form
    (`settings.canonical_url`). A missing file is an empty store.

    Args:
        path: of the file; `tokens.json` in `settings.user_dir()` if None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = Path(path) if path is not None else user_dir() / "tokens.json"

    def get(self, url: str, username: str | None = None) -> StoredToken | None:
        """A login at a service, or None.

        Args:
            username: whose; the one in use if None.

        Raises:
            ValueError: `url` is no address, or the file is not one of ours.
        """
        document, key = self._read(), canonical_url(url)
        entry = document["services"].get(key)
        if username is not None and _username(entry) != username:
            entry = _aside(document, key).get(username)
        return None if entry is None else _token_from_entry(entry, self.path)

    def accounts(self, url: str | None = None) -> list[Account]:
        """Every kept login (at one service): ordered by service and user name, the one in use first.

        Raises:
            ValueError: as `get`.
        """
        document = self._read()
        keys = {*document["services"], *(document.get("aside") or ())} if url is None else {canonical_url(url)}
        found: list[Account] = []
        for key in sorted(keys):
            entry = document["services"].get(key)
            if entry is not None:
                found.append(Account(url=key, login=_token_from_entry(entry, self.path), is_used=True))
            for _, other in sorted(_aside(document, key).items()):
                found.append(Account(url=key, login=_token_from_entry(other, self.path), is_used=False))
        return found

    def put(self, url: str, token: StoredToken, *, use: bool = True) -> None:
        """Keep a login, in place of an earlier one of the same user at this service.

        Args:
            use: it is the one in use from now on; else only if it was before, or none is.
        """
        key, entry = canonical_url(url), _entry(token)
        with self._changing() as document:
            used, aside = document["services"].get(key), _aside(document, key)
            aside.pop(token.username, None)
            if used is None or use or _username(used) == token.username:
                if _username(used) not in (None, token.username):
                    aside[_username(used)] = used
                document["services"][key] = entry
            else:
                aside[token.username] = entry
            _set_aside(document, key, aside)

    def replace(self, url: str, before: StoredToken, after: StoredToken) -> bool:
        """Put `after` where `before` is; False, and nothing happens, if it has been removed or changed meanwhile."""
        key = canonical_url(url)
        with self._changing() as document:
            used, aside = document["services"].get(key), _aside(document, key)
            is_used = _username(used) == before.username
            entry = used if is_used else aside.get(before.username)
            if entry is None or _token_from_entry(entry, self.path) != before:
                return False
            if is_used:
                document["services"][key] = _entry(after)
            else:
                aside[before.username] = _entry(after)
                _set_aside(document, key, aside)
            return True

    def use(self, url: str, username: str) -> StoredToken | None:
        """Have a kept login be the one in use at its service; None if there is none of this user."""
        login = self.get(url, username)
        if login is not None:
            self.put(url, login)
        return login

    def remove(self, url: str, username: str | None = None) -> None:
        """Forget a login, by default the one in use; nothing happens if it is not there.

        With a service's last login it is also forgotten that the service is the default. Whose certificates are
        accepted from it stays, for the next login.
        """
        key = canonical_url(url)
        with self._changing() as document:
            aside = _aside(document, key)
            if username is None or _username(document["services"].get(key)) == username:
                document["services"].pop(key, None)
            else:
                aside.pop(username, None)
            _set_aside(document, key, aside)
            if key in document["services"] or aside:
                return
            if document.get("default_url") is not None and canonical_url(document["default_url"]) == key:
                document["default_url"] = None

    @contextlib.contextmanager
    def renewing(self, url: str, username: str) -> Iterator[None]:
        """Hold the right to renew one login, against all processes and threads. Waits for whoever holds it.

        A lock of its own, because a renewal takes a request, which changes of other logins should not wait for.
        """
        name = hashlib.sha256(f"{canonical_url(url)} {username}".encode()).hexdigest()[:16]
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.path.with_name(f"{self.path.name}.{name}.lock")):
            yield

    def ca_file(self, url: str) -> str | None:
        """The file of certificate authorities that a service's certificate must come from; None for no such."""
        files = self._read().get("ca_files")
        found = files.get(canonical_url(url)) if isinstance(files, dict) else None
        return found if isinstance(found, str) else None

    def set_ca_file(self, url: str, path: str | None) -> None:
        """Remember such a file, by its absolute path; None forgets it."""
        key = canonical_url(url)
        with self._changing() as document:
            files = document.setdefault("ca_files", {})
            files.pop(key, None)
            if path is not None:
                files[key] = path

    @property
    def default_url(self) -> str | None:
        """The address that `farcall login` remembered, as it was given."""
        url = self._read().get("default_url")
        return url if isinstance(url, str) else None

    def set_default(self, url: str | None) -> None:
        """Remember an address as the default; None forgets it."""
        if url is not None:
            canonical_url(url)
        with self._changing() as document:
            document["default_url"] = url

    def _read(self) -> dict[str, Any]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"format": _FORMAT, "default_url": None, "services": {}}
        try:
            document = json.loads(text)
        except ValueError as exc:
            raise ValueError(f"{self.path} is not JSON ({exc}). Move it away and log in again.") from exc
        if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
            raise ValueError(f"{self.path} is not a token store. Move it away and log in again.")
        return document

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.path.with_name(self.path.name + ".lock")):
            document = self._read()
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before or not self.path.exists():
                document["format"] = max(_FORMAT, document.get("format") or 0)
                _replace(self.path, json.dumps(document, indent=2) + "\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, text: str) -> None:
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")  # mkstemp makes it 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _members(tokens: ServerTokens | StoredToken) -> dict[str, Any]:
    return {each.name: getattr(tokens, each.name) for each in fields(ServerTokens)}


def _entry(token: StoredToken) -> dict[str, Any]:
    return {**asdict(token), "others": {server: _members(tokens) for server, tokens in token.others.items()}}


def _username(entry: Any) -> str | None:  # any JSON value may stand in a user's file
    name = entry.get("username") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None


def _aside(document: dict[str, Any], key: str) -> dict[Any, Any]:
    """The logins at a service that are not in use, by user name; a copy."""
    aside = (document.get("aside") or {}).get(key)
    return dict(aside) if isinstance(aside, dict) else {}


def _set_aside(document: dict[str, Any], key: str, entries: dict[Any, Any]) -> None:
    aside = dict(document.get("aside") or {})
    if entries:
        aside[key] = entries
    else:
        aside.pop(key, None)
    document["aside"] = aside


def _token_from_entry(entry: Any, path: Path) -> StoredToken:
    try:
        tokens = _server_tokens(entry)
        client_id = entry.get("client_id")
        return StoredToken(
            **_members(tokens),
            identity_id=str(entry["identity_id"]),
            username=str(entry["username"]),
            client_id=None if client_id is None else str(client_id),
            others={str(server): _server_tokens(each) for server, each in (entry.get("others") or {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{path} holds an entry that is no token. Move it away and log in again.") from exc


def _server_tokens(entry: Any) -> ServerTokens:
    refresh_token = entry.get("refresh_token")
    return ServerTokens(
        access_token=str(entry["access_token"]),
        refresh_token=None if refresh_token is None else str(refresh_token),
        expires_at=_seconds(entry.get("expires_at")),
        renew_at=_seconds(entry.get("renew_at")),
        scope=str(entry.get("scope") or ""),
    )


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
