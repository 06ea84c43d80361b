from __future__ import annotations

from farcall.endpoint.engines.window import Window


def test_long_tasks_want_the_least() -> None:
    window = Window(horizon_s=0.01, least=1, most=100)
    for second in range(100):
        window.completed(1, float(second))
    assert window.extra(100.0) == 1


def test_short_tasks_want_what_is_done_within_the_horizon() -> None:
    window = Window(horizon_s=0.01, least=0, most=100)
    for number in range(4000):
        window.completed(1, number / 2000)  # 2,000 a second
    assert 18 <= window.extra(2.0) <= 22


def test_never_more_than_the_most() -> None:
    window = Window(horizon_s=1.0, least=0, most=10)
    window.completed(10_000, 0.0)
    assert window.extra(0.0) == 10


def test_what_is_long_past_counts_no_more() -> None:
    window = Window(horizon_s=0.01, least=0, most=100)
    window.completed(1_000, 0.0)
    assert window.extra(0.0) > 0
    assert window.extra(60.0) == 0
