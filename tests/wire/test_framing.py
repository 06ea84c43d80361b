import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.wire.errors import FramingError
from farcall.wire.framing import pack_buffers, unpack_buffers


@given(st.lists(st.text(max_size=50), max_size=6))
def test_what_is_packed_comes_apart_again(buffers: list[str]) -> None:
    assert unpack_buffers(pack_buffers(buffers)) == buffers


def test_lengths_count_characters_not_bytes() -> None:
    assert pack_buffers(["äö€😀", "x"]) == "4\näö€😀1\nx"


def test_the_worked_example_of_the_protocol() -> None:
    code = "st\ntriple:def triple(n):\n    return 3 * n\n"
    payload = pack_buffers(["11\n[7]", "11\n{}"])
    assert payload == "6\n11\n[7]5\n11\n{}"
    assert pack_buffers([code]) + payload == f"42\n{code}{payload}"
    assert unpack_buffers(pack_buffers([code]) + payload) == [code, "11\n[7]", "11\n{}"]


@pytest.mark.parametrize("text", ["5\nabc", "abc", "-1\n", "1", "\n", "٣\nabc", "9" * 40 + "\n"])
def test_a_broken_frame_is_refused(text: str) -> None:
    with pytest.raises(FramingError):
        unpack_buffers(text)


@given(st.text(max_size=80))
def test_random_text_is_either_frames_or_refused(text: str) -> None:
    try:
        buffers = unpack_buffers(text)
    except FramingError:
        return
    assert all(buffer in text for buffer in buffers)
