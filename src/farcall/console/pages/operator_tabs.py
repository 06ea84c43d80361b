"""The way between the pages for operators."""

from __future__ import annotations

from typing import Final

from farcall.console.pages.parts import tabs

__all__ = ["operator_tabs"]

_TABS: Final = (
    ("health", "Service health", "/operator"),
    ("users", "Users", "/operator/users"),
    ("clients", "Clients", "/operator/clients"),
    ("groups", "Groups", "/operator/groups"),
    ("audit", "Audit log", "/operator/audit"),
    ("usage", "Usage", "/usage?scope=all"),
)


def operator_tabs(shown: str) -> None:
    """Links to all of them."""
    tabs("Operator", [(title, path, name == shown) for name, title, path in _TABS])
