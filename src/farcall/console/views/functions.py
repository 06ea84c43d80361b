"""Functions as rows and as a page: whose they are, who may run them, and what there is to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farcall.console.formats import MISSING, plural
from farcall.console.views.values import mapping, number, short_id, text

__all__ = ["function_row", "run_snippet", "source_of", "versions_text", "who_may_run"]


def function_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/functions` as a row."""
    owner = mapping(document.get("owner"))
    return {
        "function_id": document.get("function_id"),
        "name": document.get("name") or short_id(document.get("function_id")),
        "description": document.get("description"),
        "owner": "you" if document.get("is_mine") else owner.get("username"),
        "shared": who_may_run(document),
        "registered": number(document.get("registered_at")),
        "last_run": number(document.get("last_run_at")),
        "runs": number(document.get("runs")),
    }


def who_may_run(document: Mapping[str, Any]) -> str:
    """Who may run a function besides its owner, in a few words."""
    groups = document.get("group_ids")
    if document.get("public"):
        told = "Everybody who knows its id"
    elif isinstance(groups, list) and groups:
        told = f"Members of {plural(len(groups), 'group')}"
    else:
        told = "Only its owner"
    return f"{told}, at one high-assurance endpoint" if document.get("ha_endpoint_id") else told


def source_of(document: Mapping[str, Any]) -> tuple[str | None, str]:
    """The source of a function, or None, and what there is to say of it."""
    source, note = document.get("source"), document.get("source_note")
    if isinstance(source, str) and source.strip():
        return source, str(note or "")
    told = "The service keeps the function in a form that it does not open, and has no source of it."
    return None, str(note or told)


def versions_text(document: Mapping[str, Any]) -> dict[str, str]:
    """With which versions a function was registered: name, version."""
    versions = mapping(document.get("versions"))
    titles = {"Python": "python", "SDK": "sdk", "dill": "dill"}
    return {title: text(versions.get(member)) or MISSING for title, member in titles.items()}


def run_snippet(function_id: str) -> str:
    """A program that runs a registered function. The id is the service's, never a user's text."""
    return (
        "from farcall import Executor\n\n"
        'with Executor(endpoint_id="ENDPOINT_ID") as executor:\n'
        f'    future = executor.submit_to_registered_function("{function_id}", args=())\n'
        "    print(future.result())\n"
    )
