"""Which local user an identity becomes: the documents of an identity mapping file, asked in their order.

Matching is `globus_identity_mapping`'s, one rule at a time, so that it can be said which rule it was. Ours is what is
refused: files that others may write, rules that cannot work, identities and outputs that nobody would write by hand.
Whether the local user exists, and may be become, is `accounts`' to say.

Source: Identity Mapping Guide of Globus Connect Server 5.4, `expression_identity_mapping#1.0.0` and
`external_identity_mapping#1.0.0`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from globus_identity_mapping.errors import IdentityMappingError
from globus_identity_mapping.mappers.expression import ExpressionIdentityMapping
from globus_identity_mapping.mappers.external_program import ExternalIdentityMapping

from farcall.wire.errors import FarcallError

__all__ = ["IdentityMap", "Mapped", "MappingInvalid", "MappingUnavailable", "Unmapped"]

logger = logging.getLogger(__name__)

_POSIX_CONNECTOR: Final = "145812c8-decc-41f1-83cf-bb2a85a2a70b"
_EXPRESSION: Final = "expression_identity_mapping#1.0.0"
_EXTERNAL: Final = "external_identity_mapping#1.0.0"
_RULE_KEYS: Final = {"source", "match", "output", "ignore_case", "literal", "comment"}
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LOCAL_USER: Final = re.compile(r"[^\s/:\x00-\x1f\x7f-][^\s/:\x00-\x1f\x7f]{0,254}")


class MappingInvalid(FarcallError):
    """The identity mapping file cannot be used. One line per problem, with document and mapping."""

    code = "MAPPING_INVALID"

    def __init__(self, path: str, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        return f"The identity mapping {self.path} cannot be used:\n" + "\n".join(f"  {text}" for text in self.problems)


class Unmapped(FarcallError):
    """No rule makes a local user of the identities. The message is for the submitter."""

    code = "IDENTITY_UNMAPPED"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        who = ", ".join(self.names) or "nobody"
        return (
            f"Identity failed to map to a local user name ({who}). Ask the endpoint's administrator for an account, "
            "or submit with an identity that has one."
        )


class MappingUnavailable(Unmapped):
    """It could not be found out; a later try can succeed. The manager's log says more."""

    code = "MAPPING_UNAVAILABLE"
    retryable = True

    def __str__(self) -> str:
        who = ", ".join(self.names) or "nobody"
        return (
            f"The endpoint could not find out which local user its site has for this identity ({who}). Try again "
            "later; if it stays so, tell the endpoint's administrator."
        )


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What was found.

    Attributes:
        local_user: name of the local account; whether there is one has not been asked.
        identity: the one of the set that matched.
        rule: which rule, for people: "document 1, mapping 2".
    """

    local_user: str
    identity: Mapping[str, Any]
    rule: str


class _Rule(Protocol):
    name: str

    def matches(self, identities: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]: ...


class IdentityMap:
    """The rules of one file, as they stood when it was read."""

    def __init__(self, path: Path, gateway_id: str, stamp: _Stamp, rules: Sequence[_Rule]) -> None:
        self._path = path
        self._gateway_id = gateway_id
        self._stamp = stamp
        self._rules = rules

    @classmethod
    def load(cls, path: Path, *, gateway_id: str = "farcall") -> IdentityMap:
        """Read the file.

        Args:
            gateway_id: what external programs get as `-s`: the endpoint's id.

        Raises:
            MappingInvalid: it is missing, others may write it, or it makes no sense.
        """
        try:
            text, stamp = _read(path)
            documents = json.loads(text)
        except (OSError, ValueError, RecursionError) as exc:
            raise MappingInvalid(str(path), (_said(exc),)) from exc
        problems: list[str] = []
        rules = _rules(documents, gateway_id, problems)
        if not rules and not problems:
            problems.append("there is no mapping in it: nobody could use the endpoint")
        if problems:
            raise MappingInvalid(str(path), tuple(problems))
        return cls(path, gateway_id, stamp, rules)

    def map(self, identity_set: Sequence[Mapping[str, Any]]) -> Mapped:
        """The local user of the first rule that matches one of the identities; of those, the first.

        An external program may take five seconds: do not call this where others wait.

        Raises:
            Unmapped: none does.
            MappingUnavailable: an external program did not answer, and the rules behind it are for others.
        """
        for found in self.matches(identity_set):
            return found
        raise Unmapped(_names(identity_set))

    def matches(self, identity_set: Sequence[Mapping[str, Any]]) -> Iterator[Mapped]:
        """All that `map` would choose from, in its order. Raises as `map` does, but not for want of any."""
        usable = [each for each in identity_set if _is_usable(each)]
        for rule in self._rules:
            try:
                for identity, local_user in rule.matches(usable):
                    if _LOCAL_USER.fullmatch(local_user) is None:
                        logger.warning(
                            "The identity mapping makes what cannot be a user's name; the submitter is refused",
                            extra={"event": "mapping.no_name", "rule": rule.name, "output": local_user[:80]},
                        )
                        raise Unmapped(_names(identity_set))
                    yield Mapped(local_user=local_user, identity=identity, rule=rule.name)
            except _NoAnswer as exc:
                logger.error(
                    "A rule of the identity mapping could not be asked; the submitter is told to try again",
                    extra={"event": "mapping.failed", "path": str(self._path), "rule": rule.name, "reason": str(exc)},
                )
                raise MappingUnavailable(_names(identity_set)) from exc

    def refreshed(self) -> IdentityMap:
        """Itself, or the newly read file if it has changed and is valid; if it is not, that is logged once."""
        try:
            stamp = _stamp(os.stat(self._path))
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return self
        self._stamp = stamp  # whatever comes of it: the next look is at the next change
        try:
            found = IdentityMap.load(self._path, gateway_id=self._gateway_id)
        except MappingInvalid as exc:
            logger.error(
                "The identity mapping has changed and cannot be used; the earlier one stays in force",
                extra={"event": "mapping.kept", "path": str(self._path), "reason": "; ".join(exc.problems)},
            )
            return self
        logger.info("The identity mapping was read again", extra={"event": "mapping.read", "path": str(self._path)})
        return found


# Reading -----------------------------------------------------------------------------------------------------------

_Stamp = tuple[int, ...] | None


def _stamp(about: os.stat_result) -> _Stamp:
    return (
        about.st_dev,
        about.st_ino,
        about.st_size,
        about.st_mtime_ns,
        about.st_ctime_ns,  # changes with rights too
    )


def _read(path: Path) -> tuple[str, _Stamp]:
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        _check_rights(str(path), about)
        return file.read().decode(), _stamp(about)


def _check_rights(path: str, about: os.stat_result) -> None:
    """Who writes this file chooses whom the manager becomes. Raises PermissionError."""
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others than its owner may write {path}; take that away: chmod go-w {path}")
    if about.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{path} belongs to another user ({about.st_uid}); give it to the one who starts this")
    parent = os.path.dirname(os.path.realpath(path))
    mode = os.stat(parent).st_mode
    if os.geteuid() == 0 and mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise PermissionError(f"others may replace files in {parent}; take that away: chmod go-w {parent}")


def _rules(documents: Any, gateway_id: str, problems: list[str]) -> list[_Rule]:
    if isinstance(documents, dict):
        documents = [documents]
    if not isinstance(documents, list):
        problems.append('a list of mapping documents is expected: [{"DATA_TYPE": …}]')
        return []
    rules: list[_Rule] = []
    for number, document in enumerate(documents, 1):
        name = f"document {number}"
        kind = document.get("DATA_TYPE") if isinstance(document, dict) else None
        try:
            if kind == _EXPRESSION:
                _only(document, {"DATA_TYPE", "comment", "mappings"})
                rules += _expressions(document, name, problems)
            elif kind == _EXTERNAL:
                _only(document, {"DATA_TYPE", "comment", "command"})
                rules.append(_Program(document, name, gateway_id))
            else:
                raise ValueError(f"DATA_TYPE is {kind!r}; known are {_EXPRESSION} and {_EXTERNAL}")
        except (ValueError, OSError) as exc:
            problems.append(f"{name}: {_said(exc)}")
    return rules


def _expressions(document: Mapping[str, Any], name: str, problems: list[str]) -> Iterator[_Rule]:
    mappings = document.get("mappings")
    if not isinstance(mappings, list):
        raise ValueError("'mappings' must be a list")
    for number, mapping in enumerate(mappings, 1):
        inner = f"{name}, mapping {number}"
        try:
            yield _Expression(mapping, inner)
        except ValueError as exc:
            problems.append(f"{inner}: {exc}")


# Rules -------------------------------------------------------------------------------------------------------------


class _NoAnswer(Exception):
    """A rule that matches, or may do, gives no usable answer. Later rules are not asked: they might make somebody
    another user than the site means."""


class _Expression:
    """One mapping of an expression document."""

    def __init__(self, mapping: Any, name: str) -> None:
        self.name = name
        _check_expression(mapping)
        self._fields = [*_FIELD.findall(mapping["source"]), *_named(mapping["output"])]
        rule = {key: value for key, value in mapping.items() if key != "comment"}
        if not rule.get("literal"):
            # The library anchors an alternative's two ends only: `a|b` would match "ax".
            rule["match"] = f"(?:{rule['match']})"
        document = {"DATA_TYPE": _EXPRESSION, "mappings": [rule]}
        self._mapper = ExpressionIdentityMapping.from_mapping_document(document)
        groups = 0 if rule.get("literal") else re.compile(rule["match"]).groups
        for field in _FIELD.findall(mapping["output"]):
            if field == "" or (field.isdigit() and int(field) >= groups):
                raise ValueError(f"'output' has {{{field}}}, and 'match' has {groups} groups, counted from {{0}}")

    def matches(self, identities: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
        for identity in identities:
            if not all(isinstance(identity.get(field), str) for field in self._fields):
                continue
            try:
                local_user = self._mapper.map_identity(identity)
            except (IdentityMappingError, ValueError, TypeError) as exc:
                raise _NoAnswer(str(exc)) from exc
            if local_user is not None:
                yield identity, local_user


def _check_expression(mapping: Any) -> None:
    if not isinstance(mapping, dict):
        raise ValueError("an object with source, match and output is expected")
    _only(mapping, _RULE_KEYS)
    for key in ("source", "match", "output"):
        if not isinstance(mapping.get(key), str):
            raise ValueError(f"'{key}' must be a text")
    for key in ("ignore_case", "literal"):
        if not isinstance(mapping.get(key, False), bool):
            raise ValueError(f"'{key}' must be true or false")
    for field in _FIELD.findall(mapping["source"]):
        if re.fullmatch(r"[A-Za-z_]\w*", field) is None:
            raise ValueError(f"'source' has {{{field}}}, which is no field of an identity ({{username}}, {{email}}, …)")


def _named(output: str) -> list[str]:
    return [field for field in _FIELD.findall(output) if not field.isdigit()]


class _Program:
    """An external document: a site's own program."""

    def __init__(self, document: Mapping[str, Any], name: str, gateway_id: str) -> None:
        self.name = name
        command = document.get("command")
        if not isinstance(command, list) or not command or not all(isinstance(part, str) for part in command):
            raise ValueError("'command' must be a list: the program's path, and its arguments")
        found = shutil.which(command[0]) if os.path.isabs(command[0]) else None
        if found is None:
            raise ValueError(f"{command[0]!r} is not the absolute path of a program that can be run here")
        _check_rights(found, os.stat(found))
        self._mapper = ExternalIdentityMapping.from_mapping_document(document, _POSIX_CONNECTOR, gateway_id)

    def matches(self, identities: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
        by_id = {str(each.get("id")): each for each in identities}
        try:
            answer = self._mapper.map_identities(list(identities)) if identities else []
        except IdentityMappingError as exc:
            if re.search(r"^ *exit code: \d", str(exc), re.MULTILINE):
                return  # by the guide, this is how a program says that it knows nobody
            raise _NoAnswer(str(exc).partition("\n")[0]) from exc
        except (subprocess.SubprocessError, OSError, ValueError) as exc:
            raise _NoAnswer(str(exc)) from exc
        for each in answer:
            for identity_id, local_users in each.items():
                if identity_id not in by_id:
                    raise _NoAnswer(f"it answered for {identity_id}, for which it was not asked")
                for local_user in local_users:
                    yield by_id[identity_id], local_user


# Small -------------------------------------------------------------------------------------------------------------


def _is_usable(identity: Mapping[str, Any]) -> bool:
    """An identity with line breaks in its names was made to deceive: patterns end at one."""
    return not any(isinstance(value, str) and _CONTROL.search(value) for value in identity.values())


def _names(identity_set: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(each.get("username") or each.get("id") or each.get("sub"))[:200] for each in identity_set[:10])


def _only(document: Mapping[str, Any], known: set[str]) -> None:
    strange = sorted(str(key) for key in document if key not in known)
    if strange:
        raise ValueError(f"'{strange[0]}' is not known here; known: {', '.join(sorted(known))}")


def _said(exc: Exception) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"line {exc.lineno}: this is not JSON ({exc.msg})"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror if exc.filename is None else f"{exc.strerror} ({exc.filename})"
    return str(exc)
