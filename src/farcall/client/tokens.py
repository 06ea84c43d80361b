"""The tokens that a user has for services, kept in `tokens.json` in the user's directory (mode 0600).

Owns the file: every change is read, made and written under a lock, and replaces the file at once, so that
several processes may log in at the same time and a reader never sees half a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farcall.client.settings import canonical_url, user_dir

try:
    import fcntl
except ImportError:  # the SDK also imports where there is no flock; the replacement stays atomic there
    fcntl = None  # type: ignore[assignment]

__all__ = ["StoredToken", "TokenStore", "canonical_url"]

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StoredToken:
    """What a service gave a user at login.

    Attributes:
        expires_at: unix seconds; None if it does not expire.
    """

    access_token: str
    identity_id: str
    username: str
    expires_at: float | None = None

    def __repr__(self) -> str:  # a token must not end up in a log or a traceback
        return f"StoredToken(identity_id={self.identity_id!r}, username={self.username!r}, access_token=…)"


class TokenStore:
    """Tokens by service address, and the address that is used if none is named.

    Addresses are compared in canonical form (`settings.canonical_url`). A missing file is an empty store.

    Args:
        path: of the file; `tokens.json` in `settings.user_dir()` if None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = Path(path) if path is not None else user_dir() / "tokens.json"

    def get(self, url: str) -> StoredToken | None:
        """The token for a service, or None.

        Raises:
            ValueError: `url` is no address, or the file is not one of ours.
        """
        entry = self._read()["services"].get(canonical_url(url))
        return None if entry is None else _token_from_entry(entry, self.path)

    def put(self, url: str, token: StoredToken) -> None:
        """Keep `token` for a service in place of what was there."""
        key = canonical_url(url)
        with self._changing() as document:
            document["services"][key] = asdict(token)

    def remove(self, url: str) -> None:
        """Forget a service's token, and that it is the default; nothing happens if it is not there. Whose certificates
        are accepted from it stays, for the next login."""
        key = canonical_url(url)
        with self._changing() as document:
            document["services"].pop(key, None)
            if document.get("default_url") is not None and canonical_url(document["default_url"]) == key:
                document["default_url"] = None

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
            yield document
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


def _token_from_entry(entry: Any, path: Path) -> StoredToken:  # any JSON value may stand in a user's file
    try:
        expires_at = entry.get("expires_at")
        return StoredToken(
            access_token=str(entry["access_token"]),
            identity_id=str(entry["identity_id"]),
            username=str(entry["username"]),
            expires_at=None if expires_at is None else float(expires_at),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{path} holds an entry that is no token. Move it away and log in again.") from exc
