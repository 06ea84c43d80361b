"""The pages, one module each part of the console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farcall.console.page import Page

__all__ = ["all_pages"]


def all_pages() -> Sequence[Page]:
    """Every page that there is."""
    from farcall.console.pages import (
        compute,
        endpoint,
        functions,
        manage,
        nowhere,
        operator_groups,
        operator_service,
        operator_users,
        policies,
        tasks,
        usage,
        user_endpoint,
    )

    parts = (
        compute,
        endpoint,
        tasks,
        functions,
        manage,
        user_endpoint,
        policies,
        usage,
        operator_service,
        operator_users,
        operator_groups,
        nowhere,  # the last: it answers for every address that no other page has
    )
    return [page for part in parts for page in part.PAGES]
