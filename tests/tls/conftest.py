"""A certificate authority, and somebody who shows its certificates."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(1, str(Path(__file__).parents[1]))  # pytest's importlib mode leaves it out

from certificates import Authority, Shows, tls_listener


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def shows() -> Iterator[Shows]:
    with contextlib.ExitStack() as closing:
        yield lambda files: closing.enter_context(tls_listener(files))
