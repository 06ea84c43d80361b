"""Tests of what decides in the chaos suite; the suite itself is `make chaos`, and a short one is in tests/system."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
