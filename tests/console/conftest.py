"""For tests of the console: the service's test people, and a browser."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
sys.path.insert(1, str(Path(__file__).parents[1] / "service"))
sys.path.insert(2, str(Path(__file__).parents[1]))
