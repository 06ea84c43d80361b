"""The form of an authentication policy: what is in it, what is wrong with it, and the document that it makes.

The service has the last word: `field_of_message` says beside which field its refusal belongs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.console.views.values import number

__all__ = [
    "UNITS",
    "PolicyForm",
    "age_text",
    "domains_of",
    "field_of_message",
    "form_of",
    "policy_row",
]

UNITS: Final = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
"""Units of the authentication timeout, in seconds each."""

_LONGEST_AGE_S: Final = 10 * 365 * 86400
_TEXT_LIMIT_CHARS: Final = 4096
_DOMAINS_LIMIT: Final = 1000
_DOMAIN: Final = re.compile(r"[0-9a-z*_-]+(?:\.[0-9a-z*_-]+)*")
_MEMBER: Final = re.compile(r"member '(\w+)'")
_FIELD_OF_MEMBER: Final = {
    "display_name": "display_name",
    "description": "description",
    "high_assurance": "high_assurance",
    "authentication_assurance_timeout": "timeout",
    "required_mfa": "required_mfa",
    "domain_constraints_include": "include",
    "domain_constraints_exclude": "exclude",
}


@dataclass(frozen=True, kw_only=True)
class PolicyForm:
    """The fields as somebody filled them in.

    Attributes:
        timeout: a number as it was typed; empty: a login of any age will do.
        unit: one of `UNITS`.
        include, exclude: domains, one a line.
    """

    display_name: str = ""
    description: str = ""
    high_assurance: bool = False
    timeout: str = ""
    unit: str = "minutes"
    include: str = ""
    exclude: str = ""
    required_mfa: bool = False

    def errors(self) -> dict[str, str]:
        """What is wrong, by field; empty if it can be sent."""
        found: dict[str, str] = {}
        for field, title in (("display_name", "a display name"), ("description", "a description")):
            typed = getattr(self, field).strip()
            if not typed:
                found[field] = f"Write {title}."
            elif len(typed) > _TEXT_LIMIT_CHARS or "\0" in typed:
                found[field] = f"At most {_TEXT_LIMIT_CHARS:,} characters."
        if self.timeout.strip() and _timeout_s(self.timeout, self.unit) is None:
            found["timeout"] = "Write a whole number of 1 or more (at most ten years), or leave it empty."
        for field in ("include", "exclude"):
            if fault := _fault_in_domains(getattr(self, field)):
                found[field] = fault
        return found

    def document(self) -> dict[str, Any]:
        """The body of `POST /v3/policies` and `PUT /v3/policies/{id}`. `errors()` is empty."""
        return {
            "display_name": self.display_name.strip(),
            "description": self.description.strip(),
            "high_assurance": self.high_assurance,
            "authentication_assurance_timeout": _timeout_s(self.timeout, self.unit),
            "required_mfa": self.required_mfa,
            "domain_constraints_include": domains_of(self.include),
            "domain_constraints_exclude": domains_of(self.exclude),
        }


def form_of(document: Mapping[str, Any]) -> PolicyForm:
    """A stored policy as its form; the timeout in the largest unit in which it is a whole number."""
    seconds = number(document.get("authentication_assurance_timeout"))
    amount, unit = ("", "minutes") if seconds is None else _in_unit(int(seconds))
    return PolicyForm(
        display_name=str(document.get("display_name") or ""),
        description=str(document.get("description") or ""),
        high_assurance=bool(document.get("high_assurance")),
        timeout=str(amount),
        unit=unit,
        include="\n".join(document.get("domain_constraints_include") or ()),
        exclude="\n".join(document.get("domain_constraints_exclude") or ()),
        required_mfa=bool(document.get("required_mfa")),
    )


def policy_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/policies` as a row."""
    return {
        "id": document.get("id"),
        "name": document.get("display_name") or document.get("id"),
        "description": document.get("description"),
        "high_assurance": "Yes" if document.get("high_assurance") else "No",
        "timeout": number(document.get("authentication_assurance_timeout")),
        "included": ", ".join(document.get("domain_constraints_include") or ()) or "any",
        "excluded": ", ".join(document.get("domain_constraints_exclude") or ()) or "none",
        "whose": "the whole site" if document.get("project_id") is None else "a project of yours",
    }


def age_text(seconds: Any) -> str:  # a member of a JSON document
    """`1 minute`, `12 hours`; `any age` for null."""
    known = number(seconds)
    if known is None:
        return "any age"
    amount, unit = _in_unit(int(known))
    return f"{amount:,} {unit[:-1] if amount == 1 else unit}"


def domains_of(typed: str) -> list[str]:
    """The domains in a field, in lower case, each once; empty lines do not count."""
    return list(dict.fromkeys(line.strip().lower() for line in typed.splitlines() if line.strip()))


def field_of_message(message: str) -> str | None:
    """Beside which field a refusal of the service belongs; None: beside none of them."""
    found = _MEMBER.search(message)
    return None if found is None else _FIELD_OF_MEMBER.get(found[1])


def _in_unit(seconds: int) -> tuple[int, str]:
    for unit, length in sorted(UNITS.items(), key=lambda each: -each[1]):
        if seconds % length == 0:
            return seconds // length, unit
    return seconds, "seconds"  # pragma: no cover - a second divides everything


def _timeout_s(typed: str, unit: str) -> int | None:
    """Seconds; None for an empty field, and for what is no such number."""
    typed = typed.strip()
    if not typed.isascii() or not typed.isdigit() or len(typed) > 12:
        return None
    seconds = int(typed) * UNITS[unit]
    return seconds if 1 <= seconds <= _LONGEST_AGE_S else None


def _fault_in_domains(typed: str) -> str | None:
    lines: Sequence[str] = typed.splitlines()
    for place, line in enumerate(lines, start=1):
        domain = line.strip().lower()
        if domain and (len(domain) > 253 or _DOMAIN.fullmatch(domain) is None):
            return (
                f"Line {place}: “{line.strip()[:80]}” is no domain. Write one a line, what stands behind the @ of user "
                "names: example.edu, or with a wildcard, *.example.edu."
            )
    if len(domains_of(typed)) > _DOMAINS_LIMIT:
        return f"At most {_DOMAINS_LIMIT:,} domains."
    return None
