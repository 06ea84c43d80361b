"""Which strategies a site accepts: reading a list of them, and refusing the others.

Entries are strategies (class, instance or import path, in either ecosystem's spelling) or wildcards. Allowing a
combination (AllCodeStrategies, AllDataStrategies, CombinedCode) allows its parts inside of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from farcall.serialize import strategies
from farcall.serialize.base import SerializationStrategy, StrategyLike, strategy_from
from farcall.wire.errors import DeserializationError

__all__ = ["AllowlistWildcard", "parse_allowlist", "refuse_unless_allowed"]


class AllowlistWildcard(str, Enum):
    """All strategies for functions, or all for data. (Never those that only read old payloads.)"""

    CODE = "globus_compute_sdk.*Code"
    DATA = "globus_compute_sdk.*Data"


_WILDCARDS = {
    **{f"{family}.*Code": True for family in ("globus_compute_sdk", "farcall")},
    **{f"{family}.*Data": False for family in ("globus_compute_sdk", "farcall")},
}


def parse_allowlist(
    entries: Iterable[StrategyLike | AllowlistWildcard] | None,
) -> frozenset[type[SerializationStrategy]]:
    """The strategies that a list names; empty for None or an empty list, which means: all are allowed.

    Raises:
        ValueError: an entry is no strategy, or the list allows no function or no data at all, so that no task
            could ever run.
    """
    if isinstance(entries, str):
        raise ValueError(f"a list of strategies is needed, not the text {entries!r}")
    allowed: set[type[SerializationStrategy]] = set()
    for entry in entries or ():
        wildcard = entry.value if isinstance(entry, AllowlistWildcard) else entry
        if isinstance(wildcard, str) and wildcard in _WILDCARDS:
            allowed |= _all(for_code=_WILDCARDS[wildcard])
        else:
            allowed.add(type(strategy_from(wildcard)))
    for kind, wildcard in ((True, "farcall.*Code"), (False, "farcall.*Data")):
        if allowed and not any(strategy.for_code == kind for strategy in allowed):
            raise ValueError(
                f"The allowed serializers {_names(allowed)} have none for {'functions' if kind else 'data'}, so no "
                f"task could run. Add one, or {wildcard!r} for all of them."
            )
    return frozenset(allowed)


def refuse_unless_allowed(strategy: SerializationStrategy, allowed: frozenset[type[SerializationStrategy]]) -> None:
    """Raises:
    DeserializationError: the list is not empty and the strategy is not on it.
    """
    if not allowed or type(strategy) in allowed:
        return
    what = "functions" if strategy.for_code else "arguments"
    choices = _names(cls for cls in allowed if cls.for_code == strategy.for_code)
    option = "strategy_code" if strategy.for_code else "strategy_data"
    raise DeserializationError(
        f"This endpoint does not accept {what} serialized with {type(strategy).__name__}; it accepts {choices}. "
        f"Choose one: Executor(..., serializer=ComputeSerializer({option}=...))."
    )


def _all(*, for_code: bool) -> set[type[SerializationStrategy]]:
    known = (getattr(strategies, name) for name in strategies.__all__)
    return {cls for cls in known if cls.for_code == for_code and not cls.read_only}


def _names(classes: Iterable[type[SerializationStrategy]]) -> str:
    return ", ".join(sorted(cls.__name__ for cls in classes)) or "none"
