from __future__ import annotations

import io
from concurrent.futures import Future

from rich.console import Console

from farcall.sdk.progress import progress


def futures(count: int) -> list[Future[int]]:
    return [Future() for _ in range(count)]


def plain() -> tuple[io.StringIO, Console]:
    out = io.StringIO()
    return out, Console(file=out, width=200)


def test_without_a_terminal_there_is_a_line_for_about_every_tenth() -> None:
    out, console = plain()
    made = futures(40)
    with progress(made, "Sweeping", console=console):
        for n, future in enumerate(made):
            if n == 20:
                future.set_exception(ValueError())
            elif n == 30:
                future.cancel()
            else:
                future.set_result(n)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "Sweeping: 4 of 40 done"
    assert lines[-1] == "Sweeping: 40 of 40 done, 2 failed"


def test_what_has_ended_before_counts() -> None:
    out, console = plain()
    made = futures(2)
    for future in made:
        future.set_result(1)
    with progress(made, "Early", console=console):
        pass
    assert out.getvalue().splitlines()[-1] == "Early: 2 of 2 done"


def test_no_futures_are_no_trouble() -> None:
    out, console = plain()
    with progress([], "Nothing", console=console):
        pass
    assert out.getvalue() == ""


def test_what_ends_later_is_not_shown_any_more() -> None:
    out, console = plain()
    made = futures(1)
    with progress(made, "Left", console=console):
        pass
    made[0].set_result(1)
    assert out.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_with_the_numbers() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    made = futures(3)
    with progress(made, "Sweeping", console=console) as same:
        assert same is console
        made[0].set_result(1)
        made[1].set_exception(ValueError())
        made[2].set_result(1)
    text = out.getvalue()
    assert "Sweeping" in text
    assert "3/3" in text
    assert "1 failed" in text
