"""MessagePack, read in place: where each value of a map or an array starts and ends.

A card is changed by exchanging the bytes of single values, and every other byte stays. That takes the places of values,
which the libraries for MessagePack do not give, so this reads the format itself (github.com/msgpack/msgpack/spec).
Nothing is allocated by a size that the data only claims, and nothing is read by recursion.
"""

import struct
from typing import NamedTuple

from games.cards.fields import CardError, quoted

#: Values that one map or array may hold, those inside them included: as many take a second or two to walk over.
_MOST_VALUES = 2_000_000

#: Values of a map or an array that is looked into: what is looked into here has some hundred.
_MOST_ITEMS = 100_000

#: First byte → kind of a value, and its bytes of content.
_FIXED = {
    0xC0: ("nil", 0),
    0xC2: ("bool", 0),
    0xC3: ("bool", 0),
    0xCA: ("float", 4),
    0xCB: ("float", 8),
    **{0xCC + i: ("uint", 1 << i) for i in range(4)},
    **{0xD0 + i: ("int", 1 << i) for i in range(4)},
    **{0xD4 + i: ("ext", 1 + (1 << i)) for i in range(5)},
}

#: First byte → kind of a value whose length follows, and the bytes of that length.
_SIZED = {
    **{0xC4 + i: ("bin", 1 << i) for i in range(3)},
    **{0xC7 + i: ("ext", 1 << i) for i in range(3)},
    **{0xD9 + i: ("str", 1 << i) for i in range(3)},
    **{0xDC + i: ("array", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
}

#: First byte → (bytes of the number, whether it is signed): integers as they are written, the shortest first.
_INTEGERS = {0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False)} | {
    0xD0: (1, True),
    0xD1: (2, True),
    0xD2: (4, True),
    0xD3: (8, True),
}


class Head(NamedTuple):
    """The first bytes of a value: what it is and how long."""

    kind: str  #: "nil", "bool", "uint", "int", "float", "str", "bin", "ext", "array" or "map"
    content: int  #: where its content starts
    size: int  #: bytes of content; 0 for arrays and maps
    length: int  #: values in an array, pairs in a map; else 0

    @property
    def children(self) -> int:
        """Values that follow the head."""
        return 2 * self.length if self.kind == "map" else self.length


class Value:
    """A value within bytes: `data[start:end]`; `where` names it in messages."""

    def __init__(self, data: bytes, start: int, end: int, where: str) -> None:
        """Find the value that starts at `start` and ends somewhere before `end`. Raises CardError if there is none."""
        self.data, self.start, self.where = data, start, where
        self.head = _head(data, start, end=end, where=where)
        self.end = self.head.content + self.head.size
        if self.head.length:
            self.end = _end_of(data, start, end=end, where=where)

    @classmethod
    def whole(cls, data: bytes, start: int, end: int, where: str) -> "Value":
        """The value that fills `data[start:end]`. Raises CardError if bytes are left over."""
        value = cls(data, start, end, where)
        if value.end != end:
            raise CardError(f"{where} has {end - value.end} bytes after its MessagePack value; expected none")
        return value

    @property
    def raw(self) -> bytes:
        """Its bytes, head and all."""
        return self.data[self.start : self.end]

    @property
    def content(self) -> bytes:
        """The bytes of a string, of binary data or of a number."""
        return self.data[self.head.content : self.end]

    # --- what it holds; each raises CardError where the value is something else ------------------

    def text(self) -> str:
        self._expect("str")
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            raise CardError(f"{self.where} is no UTF-8") from None

    def binary(self) -> bytes:
        self._expect("bin")
        return self.content

    def integer(self) -> int:
        self._expect("uint", "int")
        first = self.data[self.start]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        return int.from_bytes(self.content, "big", signed=self.head.kind == "int")

    def number(self) -> float:
        """A floating-point number of either size, or an integer."""
        if self.head.kind == "float":
            unpacked: float = struct.unpack(">f" if self.head.size == 4 else ">d", self.content)[0]
            return unpacked
        return float(self.integer())

    def items(self) -> list["Value"]:
        """The values of an array."""
        self._expect_few("array")
        values, at = [], self.head.content
        for i in range(self.head.length):
            values.append(Value(self.data, at, self.end, f"{self.where}[{i}]"))
            at = values[-1].end
        return values

    def entries(self) -> dict[str, "Value"]:
        """The values of a map by their keys, which must be strings, each one once."""
        self._expect_few("map")
        values: dict[str, Value] = {}
        at = self.head.content
        for _ in range(self.head.length):
            key = Value(self.data, at, self.end, f"a key of {self.where}")
            name = key.text()
            if name in values:
                raise CardError(f"{self.where} has the key {quoted(name)} twice; expected every key once")
            values[name] = Value(self.data, key.end, self.end, f"{self.where}.{quoted(name).strip('“”')}")
            at = values[name].end
        return values

    def entry(self, name: str) -> "Value":
        """The value of one key of a map."""
        found = self.entries().get(name)
        if found is None:
            raise CardError(f"{self.where} has no {name}")
        return found

    def _expect(self, *kinds: str) -> None:
        if self.head.kind not in kinds:
            raise CardError(f"{self.where} is of MessagePack's kind {self.head.kind}; expected {' or '.join(kinds)}")

    def _expect_few(self, kind: str) -> None:
        self._expect(kind)
        if self.head.length > _MOST_ITEMS:
            raise CardError(f"{self.where} holds {self.head.length} values; expected at most {_MOST_ITEMS}")

    # --- the same value with other content --------------------------------------------------------

    def with_integer(self, number: int) -> bytes:
        """Another number (0 or more) as MessagePack, in as many bytes as this one has where it fits."""
        self._expect("uint", "int")
        size, signed = _INTEGERS.get(self.data[self.start], (0, False))
        if size and number < 1 << (8 * size - signed):
            return self.data[self.start : self.start + 1] + number.to_bytes(size, "big")
        return pack_integer(number)

    def with_count(self, count: int) -> bytes:
        """The head of an array or a map of `count` values, in as many bytes as this one has where it fits."""
        self._expect("array", "map")
        is_map, bytes_of_count = self.head.kind == "map", self.head.content - self.start - 1
        if bytes_of_count == 0 and count < 16:
            return bytes([(0x80 if is_map else 0x90) + count])
        if bytes_of_count <= 2 and count < 1 << 16:
            return bytes([0xDE if is_map else 0xDC]) + count.to_bytes(2, "big")
        return bytes([0xDF if is_map else 0xDD]) + count.to_bytes(4, "big")


def _head(data: bytes, at: int, *, end: int, where: str) -> Head:
    if at >= end:
        raise CardError(f"{where} ends at byte {at}, where a MessagePack value is expected")
    first = data[at]
    kind, size, count, content = "uint", 0, 0, at + 1
    if first in _FIXED:
        kind, size = _FIXED[first]
    elif first in _SIZED:
        kind, width = _SIZED[first]
        content += width
        length = int.from_bytes(data[at + 1 : min(content, end)], "big")
        if kind in ("array", "map"):
            count = length
        else:
            size = length + (kind == "ext")
    elif 0x80 <= first < 0xA0:
        kind, count = ("map" if first < 0x90 else "array"), first & 0x0F
    elif 0xA0 <= first < 0xC0:
        kind, size = "str", first & 0x1F
    elif first >= 0xE0:
        kind = "int"
    elif first == 0xC1:
        raise CardError(f"{where} has the byte 0xc1 at {at}, which MessagePack does not use")

    head = Head(kind, content, size, count)
    if content + size + head.children > end:  # every value has a byte at least
        raise CardError(
            f"{where} claims a {kind} of {size or count} {'bytes' if size else 'values'} at byte {at}, "
            f"where {end - at} bytes are left"
        )
    return head


def _steps() -> tuple[list[int], list[int]]:
    """By a value's first byte: bytes of the value where the byte tells them, else 0; and values that follow it."""
    sizes, children = [1] * 256, [0] * 256
    for first, (_, size) in _FIXED.items():
        sizes[first] = 1 + size
    for first in (*_SIZED, 0xC1):
        sizes[first] = 0
    for length in range(16):
        children[0x80 + length], children[0x90 + length] = 2 * length, length
    for length in range(32):
        sizes[0xA0 + length] = 1 + length
    return sizes, children


_STEP_SIZES, _STEP_CHILDREN = _steps()


def _end_of(data: bytes, at: int, *, end: int, where: str) -> int:
    """Where a value ends, with all that is in it: counted, so that no depth is too deep."""
    expected, seen = 1, 0
    while expected:
        size = _STEP_SIZES[data[at]] if at < end else 0
        if size:
            at += size
            expected += _STEP_CHILDREN[data[at - size]] - 1
        else:
            head = _head(data, at, end=end, where=where)
            at = head.content + head.size
            expected += head.children - 1
        seen += 1
        if seen > _MOST_VALUES or expected > end - at:
            raise CardError(f"{where} holds more values than its bytes, or than {_MOST_VALUES}")
    return at


# --- writing --------------------------------------------------------------------------------------


def pack_integer(number: int) -> bytes:
    """An integer (0 or more) in the fewest bytes."""
    if number < 0x80:
        return bytes([number])
    for first in (0xCC, 0xCD, 0xCE):
        size, _ = _INTEGERS[first]
        if number < 1 << (8 * size):
            return bytes([first]) + number.to_bytes(size, "big")
    return b"\xcf" + number.to_bytes(8, "big")


def pack_text(text: str) -> bytes:
    """A string."""
    content = text.encode("utf-8")
    if len(content) < 32:
        return bytes([0xA0 + len(content)]) + content
    return _sized(0xD9, content)


def pack_binary(content: bytes) -> bytes:
    """Binary data."""
    return _sized(0xC4, content)


def pack_extension(kind: int, content: bytes) -> bytes:
    """An extension of a kind (0 to 127), its length in four bytes."""
    return b"\xc9" + len(content).to_bytes(4, "big") + bytes([kind]) + content


def pack_float(number: float) -> bytes:
    """A float32."""
    return b"\xca" + struct.pack(">f", number)


def pack_array(values: list[bytes]) -> bytes:
    """An array of values that are packed already."""
    if len(values) < 16:
        return bytes([0x90 + len(values)]) + b"".join(values)
    return _counted(0xDC, len(values)) + b"".join(values)


def pack_map(entries: dict[str, bytes]) -> bytes:
    """A map of fewer than 16 values that are packed already."""
    pairs = [pack_text(key) + value for key, value in entries.items()]
    return bytes([0x80 + len(pairs)]) + b"".join(pairs)


def _sized(first: int, content: bytes) -> bytes:
    """Content after a head whose length has one, two or four bytes; `first` is the first byte of the shortest."""
    for i in range(2):
        if len(content) < 1 << (8 << i):
            return bytes([first + i]) + len(content).to_bytes(1 << i, "big") + content
    return bytes([first + 2]) + len(content).to_bytes(4, "big") + content


def _counted(first: int, count: int) -> bytes:
    if count < 1 << 16:
        return bytes([first]) + count.to_bytes(2, "big")
    return bytes([first + 1]) + count.to_bytes(4, "big")
