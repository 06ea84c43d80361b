"""What comes from elsewhere is shown, and commands no terminal."""

from __future__ import annotations

import pytest

from farcall.cli.tables import print_rows, print_table
from farcall.wire.shown import shown

EVIL = "a\x1b[2J\x07\u202eb\u2028\x85\x9b31m\x7f\ud800"


def test_what_moves_the_cursor_is_written_out_and_letters_stay() -> None:
    assert shown(EVIL) == r"a\x1b[2J\x07\u202eb\u2028\x85\x9b31m\x7f\ud800"
    assert shown("Grüße, 東京 😀\u00a0\n\tü\r", keep="\n\t") == "Grüße, 東京 😀\u00a0\n\tü\\r"


def test_tables_and_rows_show_names_that_people_chose(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("Name", "Where"), [(EVIL, "here")])
    print_rows([("name", EVIL)])
    said = capsys.readouterr().out
    assert said.count(shown(EVIL)) == 2
    assert not set(said) & set("\x1b\x07\u202e\u2028\x85\x9b\x7f")
