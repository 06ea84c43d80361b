"""The directory of an endpoint: which files it has, and what `endpoint.json` remembers of its registration.

Names are the other ecosystem's, so that a site's existing files work when copied. Source: feature table, endpoint
directory and files.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farcall.client.settings import canonical_url
from farcall.wire.errors import FarcallError
from farcall.wire.messages import is_uuid_text
from farcall.wire.names import endpoint_name_fault

__all__ = ["EndpointDirectory", "Registration", "RegistrationUnreadable", "find_endpoints"]


class RegistrationUnreadable(FarcallError):
    """`endpoint.json` is there, and makes no sense."""

    code = "REGISTRATION_UNREADABLE"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be read: {self.reason}. Repair it, or move it away to register this endpoint anew "
            "(it then gets another id)."
        )


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What `endpoint.json` remembers.

    Args:
        endpoint_id: the latest one.
        service_url: with which service; None if the file comes from elsewhere and does not say.
        others: ids with other services, by canonical URL.
    """

    endpoint_id: str
    service_url: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    def id_with(self, service_url: str) -> str | None:
        """The id that this endpoint has with a service; None if it was never registered there."""
        url = canonical_url(service_url)
        if self.service_url is None or canonical_url(self.service_url) == url:
            return self.endpoint_id
        return self.others.get(url)

    def registered(self, endpoint_id: str, service_url: str) -> Registration:
        """What to remember after registering with a service; earlier ids with other services are kept."""
        others = dict(self.others)
        if self.service_url is not None:
            others[canonical_url(self.service_url)] = self.endpoint_id
        others.pop(canonical_url(service_url), None)
        return Registration(endpoint_id=endpoint_id, service_url=service_url, others=others)


class EndpointDirectory:
    """One endpoint's files. `path` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def __repr__(self) -> str:
        return f"EndpointDirectory({str(self.path)!r})"

    def make_private(self) -> None:
        """Take the rights of others away: the journal holds arguments and results, whatever the files' own modes."""
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o700)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def registration_path(self) -> Path:
        return self.path / "endpoint.json"

    @property
    def log_path(self) -> Path:
        return self.path / "endpoint.log"

    @property
    def pid_path(self) -> Path:
        return self.path / "daemon.pid"

    @property
    def journal_path(self) -> Path:
        return self.path / "journal.db"

    @property
    def is_configured(self) -> bool:
        return self.config_path.exists() or (self.path / "config.py").exists()

    @property
    def ca_file(self) -> Path | None:
        """What `ca_file:` in config.yaml names; None if it does not, or the file makes no sense (which others say)."""
        import yaml

        try:
            document = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None
        named = document.get("ca_file") if isinstance(document, dict) else None
        return self.path / Path(named).expanduser() if isinstance(named, str) and named else None

    def registration(self) -> Registration | None:
        """What is remembered; None before the first registration.

        Raises:
            RegistrationUnreadable: the file makes no sense.
        """
        try:
            document = json.loads(self.registration_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise RegistrationUnreadable(str(self.registration_path), str(exc)) from exc
        endpoint_id = document.get("endpoint_id") if isinstance(document, dict) else None
        if not isinstance(endpoint_id, str) or not is_uuid_text(endpoint_id.lower()):
            raise RegistrationUnreadable(str(self.registration_path), "it has no 'endpoint_id' that is a UUID")
        url, others = document.get("service_url"), document.get("other_services")
        return Registration(
            endpoint_id=endpoint_id.lower(),
            service_url=url if isinstance(url, str) else None,
            others=dict(others) if isinstance(others, dict) else {},
        )

    def remember(self, registration: Registration) -> None:
        """Write `endpoint.json`, whole or not at all."""
        document: dict[str, Any] = {"endpoint_id": registration.endpoint_id, "service_url": registration.service_url}
        if registration.others:
            document["other_services"] = dict(registration.others)
        _replace(self.registration_path, json.dumps(document, indent=2) + "\n")


def find_endpoints(base: Path) -> list[EndpointDirectory]:
    """The endpoints that are configured below `base`, by name; empty if there is no such directory."""
    if not base.is_dir():
        return []
    found = (EndpointDirectory(path) for path in sorted(base.iterdir()) if path.is_dir())
    return [each for each in found if each.is_configured and endpoint_name_fault(each.name) is None]


def _replace(path: Path, text: str) -> None:
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
