"""What a service asks of a login, as sentences and as a command. Decides only; `wire.auth` reads the documents."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from farcall.wire.auth import SessionDemand
from farcall.wire.errors import ApiError

__all__ = ["command", "sentence", "unanswered"]


def sentence(demand: SessionDemand, *, told: str = "", names: Mapping[str, str] | None = None) -> str:
    """What must be done, in plain words; one or several sentences.

    Args:
        told: what the person has read already, which is not said again.
        names: user names of identities, by id.
    """
    login = ""
    if demand.prompt == "login":
        login += " afresh"
    if demand.identities:
        login += f" as {' and '.join((names or {}).get(each, each) for each in demand.identities)}"
    if demand.domains:
        login += f" with an account of {' or '.join(demand.domains)}"
    if demand.policies:
        login += f" in the way that policy {' and '.join(demand.policies)} demands"
    parts = [f"log in{login}"] if login else []
    if demand.mfa:
        parts.append("use a second factor")
    if demand.scopes:
        parts.append("agree that Farcall may do more in your name")
    parts = parts or ["log in afresh"]
    asked = f"You are asked to {', '.join(parts[:-1])}{' and ' if parts[:-1] else ''}{parts[-1]}."
    message = _news(demand.message, told)
    return f"{message} {asked}" if message else asked


def _news(message: str | None, told: str) -> str:
    """`message`, unless its first sentence is in `told`: services say the same for the page and for the program."""
    text = (message or "").strip()
    return "" if text.partition(". ")[0].rstrip(".") in told else text


def command(demand: SessionDemand, url: str) -> str:
    """What to type for a login that meets the demand."""
    options: list[str] = []
    for name, values in (
        ("--session-policy", demand.policies),
        ("--session-identity", demand.identities),
        ("--session-domain", demand.domains),
        ("--scope", demand.scopes),
    ):
        for value in values:
            options += [name, shlex.quote(value)]
    if demand.mfa:
        options.append("--session-mfa")
    if not options or demand.prompt == "login":
        options.append("--force")
    return " ".join(["farcall login", *options, url])


def unanswered(error: ApiError, demand: SessionDemand, url: str, why: str) -> ApiError:
    """The service's refusal, with why nobody has logged in, and the command for doing so.

    Of the same class and with the same members (`detail["authorization_parameters"]`) as `error`.
    """
    told = error.message.strip()
    told = f"{told} {_news(demand.message, told)}".strip()
    text = f"{told}\n{why} In a terminal, this logs in as it is asked for:\n  {command(demand, url)}"
    return type(error)(text, error.detail, error.http_status, error.wire_code)
