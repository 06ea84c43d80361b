from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.serialize import mime
from farcall.wire.errors import DeserializationError


@given(st.binary(max_size=400))
def test_text_is_that_of_the_standard_library_and_reads_back(data: bytes) -> None:
    text = mime.encode(data)
    assert text == base64.encodebytes(data).decode()
    assert mime.decode(text) == data


@pytest.mark.parametrize("text", ["abcde", "a===", "é" * 4])
def test_damaged_text_is_a_deserialization_error(text: str) -> None:
    with pytest.raises(DeserializationError, match="base64"):
        mime.decode(text)
