"""Documentation that names things names things that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("conformance/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_in_pages_compiles(page: Path) -> None:
    for number, block in enumerate(PYTHON.findall(page.read_text())):
        compile(block, f"{page.name} block {number}", "exec")


def test_every_part_in_the_architecture_exists_and_the_other_way_round() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    parts = {p.parent.name for p in (ROOT / "src" / "farcall").glob("*/__init__.py")}
    assert named == parts


def test_make_targets_that_are_documented_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {t for page in PAGES for t in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert used <= targets
