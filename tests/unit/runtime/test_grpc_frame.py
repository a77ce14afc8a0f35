"""gRPC's length-prefixed messages and timeouts: a value or a status for any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.runtime.grpc_frame import CallRefused, MessageBuffer, Status, frame, is_grpc, parse_timeout, take_message


@given(st.binary(max_size=64))
def test_any_body_is_a_message_or_refused(body: bytes) -> None:
    try:
        message = take_message(body, 32)
    except CallRefused as refusal:
        assert refusal.status in {Status.INTERNAL, Status.UNIMPLEMENTED, Status.RESOURCE_EXHAUSTED}  # noqa: PT017 - either way is right
    else:
        assert frame(message) == body


@given(st.binary(max_size=40), st.data())
def test_pieces_say_what_the_whole_says(body: bytes, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from([body, frame(body), frame(body)[:-1], frame(body) + b"x"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    def whole() -> bytes | Status:
        try:
            return take_message(body, 32)
        except CallRefused as refusal:
            return refusal.status

    def pieced() -> bytes | Status:
        buffer = MessageBuffer(32)
        try:
            for piece in pieces:
                buffer.add(piece)
            return buffer.finish()
        except CallRefused as refusal:
            return refusal.status

    assert pieced() == whole()


@given(st.binary(max_size=12))
def test_any_timeout_is_seconds_or_refused(value: bytes) -> None:
    try:
        assert parse_timeout(value) >= 0
    except CallRefused as refusal:
        assert refusal.status is Status.INTERNAL  # noqa: PT017 - either way is right


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"0m", 0)],
)
def test_each_unit_of_a_timeout_is_known(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"1S\n", b"\xd9\xa1S", b"+1S", b"1 S", b"1SS"])
def test_what_resembles_a_timeout_is_none(value: bytes) -> None:
    with pytest.raises(CallRefused):
        parse_timeout(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"application/grpc", True),
        (b"Application/GRPC ; a=b", True),
        (b"application/grpc+proto", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"", False),
    ],
)
def test_only_protocol_buffers_over_grpc_are_served(value: bytes, expected: bool) -> None:
    assert is_grpc(value) is expected
