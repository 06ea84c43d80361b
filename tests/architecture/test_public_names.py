"""Public means documented and in `__all__`; lazily resolved names resolve."""

import farcall


def test_every_public_name_of_the_package_resolves() -> None:
    for name in farcall.__all__:
        assert getattr(farcall, name) is not None


def test_every_public_name_says_what_it_is() -> None:
    undocumented = [n for n in farcall.__all__ if not n.startswith("_") and not getattr(farcall, n).__doc__]
    assert undocumented == []
