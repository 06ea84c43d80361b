import pytest

from farcall.wire.names import endpoint_name_fault
from farcall.wire.versions import is_at_least, python_minor


@pytest.mark.parametrize("name", ["default", "my-first-endpoint", "ä", "a" * 128, "uep.1.2", "a-"])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert endpoint_name_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".hidden",
        "-x",
        "--help",
        "a b",
        "a/b",
        "a\\b",
        "it's",
        'a"b',
        "a\nb",
        "a" * 129,
        "11111111-2222-4333-8444-555555555555",
    ],
)
def test_names_that_cannot_be_a_directory_or_look_like_an_id_are_refused(name: str) -> None:
    assert endpoint_name_fault(name)


@pytest.mark.parametrize(
    ("have", "need", "enough"),
    [("4.19.0", "4.19", True), ("4.9.1", "4.10.0", False), ("4.10.0a1", "4.10", True), ("v1", "0.9", True)],
)
def test_versions_compare_by_numbers(have: str, need: str, enough: bool) -> None:
    assert is_at_least(have, need) is enough


def test_the_python_version_is_found_in_its_long_text() -> None:
    assert python_minor("3.11.7 (main, Dec 2023)") == "3.11"
    assert python_minor("PyPy") is None
