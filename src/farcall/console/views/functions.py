"""Functions as lines and as a page: whose they are, who may run them, and what there is to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farcall.console.views.formats import count, number, plural, short_id, text

__all__ = ["FunctionLine", "function_line", "run_snippet", "source_of", "versions_text", "who_may_run"]


@dataclass(frozen=True, kw_only=True)
class FunctionLine:
    """A line of the table of functions; times in Unix seconds."""

    function_id: str
    name: str
    description: str
    owner: str
    is_mine: bool
    shared: str
    registered_at: float | None
    last_run_at: float | None
    runs: str


def function_line(document: Mapping[str, Any]) -> FunctionLine:
    """One entry of `GET /v3/functions`."""
    owner = document.get("owner")
    function_id = str(document.get("function_id") or "")
    return FunctionLine(
        function_id=function_id,
        name=str(document.get("name") or "") or short_id(function_id),
        description=str(document.get("description") or ""),
        owner=text(owner.get("username") if isinstance(owner, Mapping) else owner),
        is_mine=bool(document.get("is_mine")),
        shared=who_may_run(document),
        registered_at=number(document.get("registered_at")),
        last_run_at=number(document.get("last_run_at")),
        runs=count(document.get("runs")),
    )


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
    told = document.get("versions")
    versions = told if isinstance(told, Mapping) else {}
    return {
        title: text(versions.get(member)) for title, member in (("Python", "python"), ("SDK", "sdk"), ("dill", "dill"))
    }


def run_snippet(function_id: str) -> str:
    """A program that runs a registered function. The id is the service's, never a user's text."""
    return (
        "from farcall import Executor\n\n"
        'with Executor(endpoint_id="ENDPOINT_ID") as executor:\n'
        f'    future = executor.submit_to_registered_function("{function_id}", args=())\n'
        "    print(future.result())\n"
    )
