"""The import contracts of pyproject.toml hold, and each of them fails when it is broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    # -P and an explicit path: the copy under test is the one that is read, not the installed package.
    command = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; "
    command += "sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", command], cwd=root, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy_of_tree(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


VIOLATIONS = {
    "service/tasks/__init__.py": "import farcall.serialize",
    "service/app.py": "import pickle",
    "broker/__init__.py": "import farcall.amqp",
    "worker/run.py": "import httpx",
    "wire/messages.py": "import farcall.serialize",
    "sdk/__init__.py": "import farcall.endpoint",
    "endpoint/__init__.py": "import sqlalchemy",
    "console/api.py": "import sqlalchemy",
    "console/live.py": "import farcall.amqp",
}


@pytest.mark.parametrize(("module", "line"), VIOLATIONS.items(), ids=VIOLATIONS)
def test_a_violation_is_caught(copy_of_tree: Path, module: str, line: str) -> None:
    path = copy_of_tree / "src" / "farcall" / module
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint(copy_of_tree)
    assert done.returncode != 0, f"{line!r} in {module} went unnoticed:\n{done.stdout}"
