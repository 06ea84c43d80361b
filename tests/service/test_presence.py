from __future__ import annotations

import pytest

from farcall.service.relay.presence import Presence, after_report, as_stored, attached, detached, is_online

REPORT = {"heartbeat_period": 30, "active": True}


def test_an_endpoint_that_was_never_attached_is_offline() -> None:
    assert not is_online(after_report(Presence(), REPORT, now=100.0), now=100.0)


def test_an_attached_endpoint_is_online_before_its_first_report() -> None:
    assert is_online(attached(Presence(), now=100.0), now=101.0)


def test_reports_keep_an_endpoint_online_for_two_and_a_half_periods() -> None:
    presence = after_report(attached(Presence(), now=0.0), {"heartbeat_period": 10}, now=100.0)
    assert is_online(presence, now=125.0)
    assert not is_online(presence, now=125.1)


def test_an_endpoint_without_connection_is_offline_at_once() -> None:
    presence = after_report(attached(Presence(), now=100.0), REPORT, now=101.0)
    assert not is_online(detached(presence), now=101.0)


@pytest.mark.parametrize("last", [{"active": False, "heartbeat_period": 30}, {"heartbeat_period": 0}])
def test_the_last_report_takes_an_endpoint_offline_until_it_attaches_again(last: dict[str, object]) -> None:
    gone = after_report(attached(Presence(), now=100.0), last, now=101.0)
    assert not is_online(gone, now=101.0)
    assert is_online(attached(gone, now=102.0), now=102.0)


def test_a_report_of_an_error_changes_nothing() -> None:
    presence = attached(Presence(), now=100.0)
    assert after_report(presence, {"error": "no", "heartbeat_period": 0}, now=101.0) == presence


@pytest.mark.parametrize("period", [None, "soon", True, 0.001])
def test_a_senseless_period_is_not_believed(period: object) -> None:
    presence = after_report(attached(Presence(), now=0.0), {"heartbeat_period": period}, now=100.0)
    assert presence.period_s >= 5
    assert is_online(presence, now=105.0)


def test_the_database_tells_the_same() -> None:
    goodbye = {"active": False, "heartbeat_period": 30}
    assert is_online(as_stored(100.0, None, None), now=101.0)
    assert is_online(as_stored(0.0, {"heartbeat_period": 10}, 100.0), now=125.0)
    assert not is_online(as_stored(0.0, {"heartbeat_period": 10}, 100.0), now=125.1)
    assert not is_online(as_stored(None, REPORT, 100.0), now=100.0)
    assert not is_online(as_stored(100.0, goodbye, 101.0), now=101.0)
    assert is_online(as_stored(102.0, goodbye, 101.0), now=102.0)
