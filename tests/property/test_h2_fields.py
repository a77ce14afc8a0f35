"""Our reading of header blocks beside that of a library: the same fields, the same table, the same refusals, in any order."""

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.runtime import h2_fields as module
from ext_authz.runtime.h2_fields import FieldDecoder

MAXIMUM = 6_000

NAMES = st.sampled_from([b":path", b":method", b"te", b"traceparent", b"x-request-id", b"accept", b"x"])
VALUES = st.one_of(
    st.sampled_from(
        [b"", b"POST", b"trailers", b"/envoy.service.auth.v3.Authorization/Check", b"x" * 130, b"y" * 2_000]
    ),
    st.binary(max_size=140),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)
WRITTEN = st.tuples(FIELDS, st.booleans(), st.sampled_from([None, None, None, 0, 100, 4_096]))
RAW = st.one_of(
    st.binary(max_size=30),
    # mostly indexes, and literals that may be cut off
    st.lists(st.integers(0x80, 0xFF), max_size=40).map(bytes),
    st.lists(
        st.sampled_from([b"\x41", b"\x7f", b"\x7e", b"\x82", b"\x05hello", b"\x84", b"\xff", b"\xbe"]), max_size=9
    ).map(b"".join),
)


def decoded(decoder: Decoder | FieldDecoder, block: bytes) -> list[tuple[bytes, bytes]] | None:
    try:
        if isinstance(decoder, FieldDecoder):
            return decoder.decode(block)
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except HPACKError:
        return None


def agree(blocks: list[bytes]) -> list[list[tuple[bytes, bytes]] | None]:
    """What both say of each block, up to the first that ends the connection."""
    ours, theirs = FieldDecoder(MAXIMUM), Decoder(max_header_list_size=MAXIMUM)
    said: list[list[tuple[bytes, bytes]] | None] = []
    for block in blocks:
        said.append(decoded(ours, block))
        assert said[-1] == decoded(theirs, block)
        if said[-1] is None:
            break
        assert list(ours.table.dynamic_entries) == list(theirs.header_table.dynamic_entries)
        assert ours.table.maxsize == theirs.header_table.maxsize
    return said


@given(st.lists(WRITTEN, max_size=6))
def test_what_an_encoder_writes_is_read_as_the_library_reads_it(
    written: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]],
) -> None:
    encoder, blocks = Encoder(), []
    for fields, huffman, size in written:
        if size is not None:
            encoder.header_table_size = size
        blocks.append(encoder.encode(fields, huffman=huffman))
    for said, (fields, _, _) in zip(agree(blocks), written, strict=False):
        assert said is None or said == [(name, value) for name, value, _ in fields]


@given(st.lists(st.one_of(RAW, FIELDS.map(lambda fields: Encoder().encode(fields))), max_size=5))
def test_any_bytes_are_read_or_refused_as_the_library_does(blocks: list[bytes]) -> None:
    agree(blocks)


def test_the_blocks_of_an_envoy_that_traces_seldom_need_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    library = Decoder.decode

    def counted(self: Decoder, block: bytes, raw: bool = False) -> object:
        asked.append(block)
        return library(self, block, raw)

    monkeypatch.setattr(Decoder, "decode", counted)
    fields = [(":method", "POST"), (":path", "/a"), ("te", "trailers"), ("x-own", "1")]
    encoder, decoder = Encoder(), FieldDecoder(MAXIMUM)
    for number in range(300):
        traced = [*fields, ("traceparent", f"00-{number:032x}-00f067aa0ba902b7-01")]
        expected = [(name.encode(), value.encode()) for name, value in traced]
        assert decoder.decode(encoder.encode(traced)) == expected
    # only when the table is full and a name has to be written out again
    assert 1 <= len(asked) < 30


def test_a_few_bytes_that_name_a_large_field_many_times_are_refused() -> None:
    large = Encoder().encode([("x", "y" * 3_000)], huffman=False)
    assert agree([large, b"\xbe"]) == [[(b"x", b"y" * 3_000)]] * 2
    assert agree([large, b"\xbe" * 2]) == [[(b"x", b"y" * 3_000)], None]


def test_a_block_longer_than_envoys_is_the_librarys_business() -> None:
    fields = [(b"x", b"%d" % number) for number in range(500)]
    block = Encoder().encode(fields)
    assert len(block) > module.LONGEST_PLAIN_BYTES
    assert FieldDecoder(100_000).decode(block) == fields
