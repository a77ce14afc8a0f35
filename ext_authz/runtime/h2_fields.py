"""Header blocks of one connection to fields (RFC 7541), quickly where they are as Envoy writes them.

An Envoy that traces sends another `traceparent` with each call. It adds it to the table, so that the index of every other field
moves on, and no block is like the one before. Such a block is indexes and short literals; the library, which knows everything
else, takes twice as long for it.
"""

from collections.abc import Iterator
from typing import TypeAlias

from hpack import Decoder, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable, table_entry_size

__all__ = ["FieldDecoder"]

LONGEST_PLAIN_BYTES = 1_024
"""Of a block that is looked at here before the library is asked: five times what Envoy's are."""

# RFC 7541 §6.1 and §6.2.1: an index below the prefix's last value is in the first byte, and so is a length
_INDEXED, _LITERAL = 0x80, 0x40
_LAST_INDEX, _LAST_NAME, _LAST_LENGTH = 0x7F, 0x3F, 0x7F
_HUFFMAN = 0x80

_Step: TypeAlias = tuple[int, bytes | None, bool]
"""An index, with the value of a literal that has its name, and whether it is Huffman-coded."""


class _Table(HeaderTable):
    """A table that tells whether a block has changed it."""

    changed = False

    def add(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().add(name, value)


class FieldDecoder:
    """The blocks of one connection, in order.

    Attributes:
        table: the dynamic one.
    """

    def __init__(self, maximum_bytes: int) -> None:
        """Begin with an empty table.

        Args:
            maximum_bytes: of the fields of a block, each with the 32 bytes that RFC 7541 §4.1 counts for it.
        """
        self._maximum_bytes = maximum_bytes
        self._decoder = Decoder(max_header_list_size=maximum_bytes)
        self.table = self._decoder.header_table = _Table()

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of `block`.

        Raises:
            HPACKError: it cannot be decoded, and no later one can.
        """
        steps = _steps(block) if len(block) <= LONGEST_PLAIN_BYTES else None
        if steps is None:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        return list(self._taken(steps))

    def _taken(self, steps: list[_Step]) -> Iterator[tuple[bytes, bytes]]:
        table, size = self.table, 0
        for index, literal, is_huffman in steps:
            name, value = table.get_by_index(index)
            if literal is not None:
                value = decode_huffman(literal) if is_huffman else literal
                table.add(name, value)
            size += table_entry_size(name, value)
            # a few bytes can name a large entry many times
            if size > self._maximum_bytes:
                raise OversizedHeaderListError
            yield bytes(name), bytes(value)


def _steps(block: bytes) -> list[_Step] | None:
    """What `block` says, or None when it says anything but indexes and short literals. Changes nothing."""
    steps: list[_Step] = []
    at, end = 0, len(block)
    while at < end:
        first = block[at]
        if _INDEXED < first < _INDEXED + _LAST_INDEX:
            steps.append((first - _INDEXED, None, False))
            at += 1
        elif _LITERAL < first < _LITERAL + _LAST_NAME and at + 1 < end:
            length = block[at + 1] & _LAST_LENGTH
            following = at + 2 + length
            if length == _LAST_LENGTH or following > end:
                return None
            steps.append((first - _LITERAL, block[at + 2 : following], bool(block[at + 1] & _HUFFMAN)))
            at = following
        else:
            return None
    return steps
