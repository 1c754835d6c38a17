"""Numbers and strings out of bytes, each read within bounds; what is wrong with a card is a `CardError`."""

from typing import NamedTuple

from utils.pictures import printable

#: Bytes that a string of a card's head may have; the longest real one is an id of 36 characters.
_LONGEST_STRING = 1024


class CardError(Exception):
    """A file that is no card, or a card that cannot be used; the message says what was found and what was expected."""


class Change(NamedTuple):
    """Bytes from `start` to `end` that others take the place of."""

    start: int
    end: int
    content: bytes


def splice(data: bytes, changes: list[Change]) -> bytes:
    """The bytes with some of them changed; what no change covers is copied as it is. Changes must not overlap."""
    parts, at = [], 0
    for change in sorted(changes):
        parts += [data[at : change.start], change.content]
        at = change.end
    return b"".join([*parts, data[at:]])


def quoted(text: str, longest: int = 40) -> str:
    """A text of a card for a message: short, on one line, between quotes."""
    shown = printable(text[:longest])
    return f"“{shown}…”" if len(text) > longest else f"“{shown}”"


class Fields:
    """A reader of little-endian fields, from `start` to `end` of some bytes.

    Every method moves `at` past what it reads, and raises CardError where the bytes end before.
    """

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data, self.at, self.end = data, start, end

    def take(self, count: int, what: str) -> tuple[int, int]:
        """Start and end of the next `count` bytes."""
        left = self.end - self.at
        if not 0 <= count <= left:
            raise CardError(f"{what} needs {count} bytes at byte {self.at}, where {max(left, 0)} are left")
        start, self.at = self.at, self.at + count
        return start, self.at

    def integer(self, size: int, what: str) -> int:
        """A signed integer of `size` bytes."""
        start, end = self.take(size, what)
        return int.from_bytes(self.data[start:end], "little", signed=True)

    def string(self, what: str) -> str:
        """A .NET string: its length in bytes, seven bits per byte, lowest first, then UTF-8."""
        length = 0
        for shift in range(0, 35, 7):
            start, end = self.take(1, what)
            length |= (self.data[start] & 0x7F) << shift
            if self.data[start] < 0x80:
                break
        else:
            raise CardError(f"the length of {what} at byte {self.at} has more than five bytes")
        if length > _LONGEST_STRING:
            raise CardError(f"{what} is said to have {length} bytes; expected at most {_LONGEST_STRING}")
        start, end = self.take(length, what)
        try:
            return self.data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise CardError(f"{what} at byte {start} is no UTF-8") from None
