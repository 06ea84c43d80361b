"""The page docs/howto/use-the-sdk.md is true: its Python blocks run, in order, as one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from farcall.testing import local_system

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "use-the-sdk.md"

START = "import os\nendpoint_id = os.environ['FARCALL_ENDPOINT_ID']\n"
END = "with local_system() as system:\n    test_area(system)\nprint('total', total, 'areas', areas)\n"


def test_the_pages_examples_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) > 8
    program = tmp_path / "example.py"
    program.write_text("\n".join([START, *blocks, END]))
    with local_system() as system:
        done = subprocess.run(
            [sys.executable, str(program)],
            env={**os.environ, **system.environment()},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    assert "total 190.0 areas [0.0, 1.0, 2.0]" in done.stdout
    assert "('negative', -1)" in done.stdout
    assert "Measuring: 20 of 20 done" in done.stderr
