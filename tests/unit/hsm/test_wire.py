"""Frames between the pool and its workers."""

import io

import pytest

from hsm.wire import LENGTH_BYTES, from_body, read_message, to_frame


def test_what_is_sent_arrives() -> None:
    message = ["sign", b"\x00\xff", [b"a", b"b"], 1, None, {"KEK": 1}]
    frame = to_frame(message)
    assert from_body(frame[LENGTH_BYTES:]) == message
    stream = io.BytesIO(frame * 2)
    assert [read_message(stream), read_message(stream), read_message(stream)] == [message, message, None]


def test_a_stream_that_ends_early_is_an_end() -> None:
    frame = to_frame(["random", 8])
    assert [read_message(io.BytesIO(frame[:size])) for size in range(len(frame))] == [None] * len(frame)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x01", b"\xa0", b"\x82\x01", b"\x5f"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="message"):
        from_body(body)
