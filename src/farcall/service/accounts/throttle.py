"""How guessing is slowed: who has failed several times in a row waits, twice as long after each further failure.

Decides only; the clock is passed in. Two of these work together, one by account and one by the address that asks
(`address_key`): the first protects one account from many addresses, the second many accounts from one address.

An attempt counts as failed from the moment it is let in until `succeeded` takes it back: otherwise hundreds that
arrive together would all be let in before the first of them has failed.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

__all__ = ["Attempts", "Throttle", "address_key"]

_IPV6_NETWORK: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    failures: int
    last_s: float


class Throttle:
    """Waiting times by key.

    Args:
        free: attempts that may fail before there is any wait; at least 1.
        first_s: the wait after that many; it doubles with each further failure.
        longest_s: no wait is longer. Somebody else's guessing keeps the rightful owner out for no longer either.
        forget_s: so long after its last failure a key starts anew; at least `longest_s`.
        remembered: keys in memory; of more, the one whose last attempt is longest ago is forgotten.
    """

    def __init__(
        self, *, free: int, first_s: float = 1.0, longest_s: float = 60.0, forget_s: float = 3600.0,
        remembered: int = 20_000,
    ) -> None:  # fmt: skip
        if free < 1 or first_s <= 0 or longest_s < first_s or forget_s < longest_s or remembered < 1:
            raise ValueError("a throttle needs free >= 1, 0 < first_s <= longest_s <= forget_s and remembered >= 1")
        self._free = free
        self._first_s = first_s
        self._longest_s = longest_s
        self._forget_s = forget_s
        self._remembered = remembered
        self._records: dict[str, _Record] = {}  # the least recently attempted first

    def __len__(self) -> int:
        return len(self._records)

    def wait_s(self, key: str, now_s: float) -> float:
        """After how many seconds `key` may try again; 0.0: now. Counts nothing.

        Args:
            now_s: of a clock that does not stand still; if it goes backwards, no time has passed.
        """
        record = self._records.get(key)
        if record is None:
            return 0.0
        passed = max(0.0, now_s - record.last_s)
        if passed >= self._forget_s:
            return 0.0
        return max(0.0, self._wait_after(record.failures) - passed)

    def attempt(self, key: str, now_s: float) -> float:
        """Let in one attempt and count it as failed, unless `key` has to wait.

        Returns:
            0.0 if it is let in; else after how many seconds one would be, and nothing is counted.
        """
        wait_s = self.wait_s(key, now_s)
        if wait_s:
            return wait_s
        record = self._records.pop(key, None)
        failures = record.failures if record and now_s - record.last_s < self._forget_s else 0
        if len(self._records) >= self._remembered:
            del self._records[next(iter(self._records))]
        self._records[key] = _Record(failures=failures + 1, last_s=now_s)
        return 0.0

    def succeeded(self, key: str) -> None:
        """The owner of `key` was there: its failures are forgotten."""
        self._records.pop(key, None)

    def take_back(self, key: str) -> None:
        """The attempt that was last let in did not fail; those before it still count."""
        record = self._records.get(key)
        if record is None:
            return
        if record.failures <= 1:
            del self._records[key]
        else:
            self._records[key] = _Record(failures=record.failures - 1, last_s=record.last_s)

    def _wait_after(self, failures: int) -> float:
        if failures < self._free:
            return 0.0
        doublings = min(failures - self._free, 60)  # beyond, the power would outgrow a float before the minimum
        return min(self._first_s * 2.0**doublings, self._longest_s)


class Attempts:
    """Both throttles of one kind of secret: ask `begin` before looking at it, call `succeeded` if it was right.

    An account waits a minute at most, so that its owner is not locked out by others for long; an address, behind
    which an institute may sit, has more attempts for nothing and then waits up to a quarter of an hour.
    """

    def __init__(self, *, account: Throttle | None = None, address: Throttle | None = None) -> None:
        self._account = account or Throttle(free=5, longest_s=60.0)
        self._address = address or Throttle(free=30, longest_s=900.0)

    def begin(self, account: str, address: str | None, now_s: float) -> float:
        """Let in one attempt at `account` from `address`, and count it as failed until `succeeded`.

        Args:
            account: the name as it was given, whether there is such an account or not: an answer that differs
                would tell.
            address: as the request shows it; None if it is not known.

        Returns:
            0.0, or the seconds to wait; then the secret must not be looked at.
        """
        name, where = account.casefold(), address_key(address)
        wait_s = max(self._account.wait_s(name, now_s), self._address.wait_s(where, now_s))
        if wait_s:
            return wait_s
        self._account.attempt(name, now_s)
        self._address.attempt(where, now_s)
        return 0.0

    def succeeded(self, account: str, address: str | None) -> None:
        """The attempt was right. Failures at other accounts from the same address still count."""
        self._account.succeeded(account.casefold())
        self._address.take_back(address_key(address))


def address_key(address: str | None) -> str:
    """What counts as one address: of IPv6 the /64 network, which is what one customer has at least.

    Source: RFC 6177, section 2.
    """
    if address is None:
        return "-"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
    return str(parsed)
