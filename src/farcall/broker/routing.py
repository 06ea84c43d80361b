"""Exchanges and what is bound to them: which queues a routing key leads to.

Knows nothing of messages. The queues of an exchange are whatever hashable things the caller binds.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["Exchange", "ExchangeKind", "topic_matches"]

Q = TypeVar("Q", bound=Hashable)
K = TypeVar("K")


class ExchangeKind(Enum):
    """How an exchange reads the key of a binding: literally, as a pattern, or not at all."""

    DIRECT = "direct"
    TOPIC = "topic"
    FANOUT = "fanout"


class Exchange(Generic[Q]):
    """One exchange and its bindings.

    Args:
        name: as declared.
        kind: cannot change later.
        durable, auto_delete, internal: kept for the comparison when it is declared again; `auto_delete` also
            has the core delete it with its last binding.
    """

    def __init__(
        self,
        name: str,
        kind: ExchangeKind,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self._literal: dict[str, dict[Q, None]] = {}  # dicts for sets that keep their order
        self._patterns: dict[tuple[str, ...], dict[Q, None]] = {}

    @property
    def in_use(self) -> bool:
        return bool(self._literal or self._patterns)

    def bind(self, queue: Q, key: str) -> None:
        """Lead `key` to `queue`. Binding twice is binding once."""
        if self._is_pattern(key):
            self._patterns.setdefault(tuple(key.split(".")), {})[queue] = None
        else:
            self._literal.setdefault(key, {})[queue] = None

    def unbind(self, queue: Q, key: str) -> bool:
        """Undo `bind`; False if there was no such binding."""
        if self._is_pattern(key):
            return _discard(self._patterns, tuple(key.split(".")), queue)
        return _discard(self._literal, key, queue)

    def route(self, key: str) -> tuple[Q, ...]:
        """The queues of a message with this key, each once, in the order of their bindings."""
        if self.kind is ExchangeKind.FANOUT:
            return tuple({queue: None for queues in self._literal.values() for queue in queues})
        literal = self._literal.get(key, {})
        if not self._patterns:
            return tuple(literal)
        found = dict(literal)
        words = key.split(".")
        for pattern, queues in self._patterns.items():
            if topic_matches(pattern, words):
                found.update(queues)
        return tuple(found)

    def _is_pattern(self, key: str) -> bool:
        if self.kind is not ExchangeKind.TOPIC:
            return False
        words = key.split(".")
        return "*" in words or "#" in words


def _discard(table: dict[K, dict[Q, None]], key: K, queue: Q) -> bool:
    queues = table.get(key)
    if queues is None or queue not in queues:
        return False
    del queues[queue]
    if not queues:
        del table[key]
    return True


def topic_matches(pattern: tuple[str, ...], words: list[str]) -> bool:
    """Whether a pattern of words fits: `*` is any one word, `#` any number of words, none included.

    Takes at most len(pattern) × len(words) steps, whatever the pattern.
    """
    p = w = 0
    hash_at = -1  # the last "#" met; everything before it has matched for good
    retry_at = 0
    while w < len(words):
        if p < len(pattern) and pattern[p] == "#":
            hash_at, retry_at = p, w
            p += 1
        elif p < len(pattern) and pattern[p] in ("*", words[w]):
            p += 1
            w += 1
        elif hash_at >= 0:
            retry_at += 1
            p, w = hash_at + 1, retry_at
        else:
            return False
    return all(word == "#" for word in pattern[p:])
