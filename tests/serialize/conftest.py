"""Things that are defined as if in a user's script."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture
def in_main() -> Iterator[Callable[[str, str], Any]]:
    """Executes source in `__main__`, as a script or notebook would, and returns one of the names it defines."""
    namespace = sys.modules["__main__"].__dict__
    before = dict(namespace)

    def define(source: str, name: str) -> Any:
        filename = f"<script {hash(source)}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        exec(compile(source, filename, "exec"), namespace)  # noqa: S102
        return namespace[name]

    yield define
    for name in namespace.keys() - before.keys():
        del namespace[name]
    namespace.update(before)
