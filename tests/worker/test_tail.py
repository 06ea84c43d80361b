from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from farcall.worker import tail
from farcall.worker.tail import last_lines

MANY = 1 << 30


@given(
    lines=st.lists(st.text("ab\r é", max_size=5), max_size=30),
    ends=st.booleans(),
    count=st.integers(0, 35),
    block=st.sampled_from([1, 2, 3, 7, 65536]),
)
def test_it_is_the_last_lines_whatever_the_size_of_blocks(
    tmp_path_factory, lines: list[str], ends: bool, count: int, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "tail.txt"
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    path.write_bytes(text.encode())
    tail._BLOCK_BYTES, former = block, tail._BLOCK_BYTES
    try:
        got = last_lines(str(path), count, limit_bytes=MANY)
    finally:
        tail._BLOCK_BYTES = former
    whole = [line + "\n" for line in text.split("\n")]
    whole[-1] = whole[-1][:-1]
    kept = [line for line in whole if line]
    assert got == "".join(kept[len(kept) - count :] if count < len(kept) else kept)


def test_what_stood_there_before_is_not_considered(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\nnew\n")
    assert last_lines(str(tmp_path / "f"), 10, start=4, limit_bytes=MANY) == "new\n"


def test_endless_lines_are_cut_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1_000_000 + b"end")
    got = last_lines(str(tmp_path / "f"), 10, limit_bytes=100)
    assert len(got) == 100
    assert got.endswith("end")


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfeabc\n")
    assert last_lines(str(tmp_path / "f"), 1, limit_bytes=MANY) == "\ufffd\ufffdabc\n"


def test_what_is_no_file_has_no_lines() -> None:
    assert last_lines("/dev/null", 5, limit_bytes=MANY) == ""
