"""A second reader of character cards, written from the layout in docs/cards.md. Shares no code with games/cards."""

import io
import struct
from typing import Any, NamedTuple


class Read(NamedTuple):
    """What a card holds."""

    marker: str
    version: str
    ids: list[str]
    head_id: int
    sliders: list[float]
    blocks: dict[str, bytes]  #: in the order of the index
    plugins: dict[str, Any]
    bones: list[Any] | None  #: ABMX's list
    total: int
    rest: bytes  #: after the blocks


def read_card(data: bytes) -> Read:
    """Read a card that is known to be sound."""
    stream = io.BytesIO(data)
    _skip_png(stream)
    (number,) = struct.unpack("<i", stream.read(4))
    assert number == 100
    marker, version = _net_string(stream), _net_string(stream)
    ids = []
    if marker == "【AIS_Chara】":
        stream.read(4)
        ids = [_net_string(stream), _net_string(stream)]
    else:
        stream.read(struct.unpack("<i", stream.read(4))[0])
    header = unpack(stream.read(struct.unpack("<i", stream.read(4))[0]))
    (total,) = struct.unpack("<q", stream.read(8))
    area, rest = stream.read(total), stream.read()
    blocks = {entry["name"]: area[entry["pos"] : entry["pos"] + entry["size"]] for entry in header["lstInfo"]}

    face = unpack(blocks["Custom"][4 : 4 + struct.unpack_from("<i", blocks["Custom"])[0]])
    plugins = unpack(blocks["KKEx"]) if "KKEx" in blocks else {}
    bones = None
    if plugins.get("KKABMPlugin.ABMData"):
        bones = unpack(plugins["KKABMPlugin.ABMData"][1]["boneData"])
        if isinstance(bones, tuple):
            bones = unpack(_lz4(*bones))
    return Read(marker, version, ids, face["headId"], face["shapeValueFace"], blocks, plugins, bones, total, rest)


def _skip_png(stream: io.BytesIO) -> None:
    stream.read(8)
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", stream.read(8))
        stream.read(length + 4)


def _net_string(stream: io.BytesIO) -> str:
    length = shift = 0
    while True:
        (byte,) = stream.read(1)
        length += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return stream.read(length).decode()


def unpack(data: bytes) -> Any:
    """Plain values of MessagePack; extension 99 as (size, LZ4 block)."""
    stream = io.BytesIO(data)
    value = _value(stream)
    assert stream.read() == b""
    return value


def _value(stream: io.BytesIO) -> Any:
    (first,) = stream.read(1)
    if first < 0x80 or first >= 0xE0:
        return struct.unpack("b", bytes([first]))[0]
    if first < 0x90:
        return _map(stream, first & 15)
    if first < 0xA0:
        return [_value(stream) for _ in range(first & 15)]
    if first < 0xC0:
        return stream.read(first & 31).decode()
    simple = {0xC0: None, 0xC2: False, 0xC3: True}
    if first in simple:
        return simple[first]
    formats = dict(zip(range(0xCA, 0xD4), ("f", "d", "B", "H", "I", "Q", "b", "h", "i", "q"), strict=True))
    if first in formats:
        code = ">" + formats[first]
        return struct.unpack(code, stream.read(struct.calcsize(code)))[0]
    return _long(stream, first)


def _long(stream: io.BytesIO, first: int) -> Any:
    """A value whose length stands in bytes of its own."""
    width = {0xC4: "B", 0xC5: "H", 0xC6: "I", 0xC9: "I", 0xD9: "B", 0xDA: "H", 0xDB: "I"}
    width |= {0xDC: "H", 0xDD: "I", 0xDE: "H", 0xDF: "I"}
    code = ">" + width[first]
    (length,) = struct.unpack(code, stream.read(struct.calcsize(code)))
    if first <= 0xC6:
        return stream.read(length)
    if first == 0xC9:
        assert stream.read(1) == b"\x63"
        content = io.BytesIO(stream.read(length))
        return _value(content), content.read()
    if first <= 0xDB:
        return stream.read(length).decode()
    return [_value(stream) for _ in range(length)] if first <= 0xDD else _map(stream, length)


def _map(stream: io.BytesIO, length: int) -> dict[str, Any]:
    return {_value(stream): _value(stream) for _ in range(length)}


def _lz4(size: int, block: bytes) -> bytes:
    """One LZ4 block: literals and copies in turn, by the format's description."""
    out, stream = bytearray(), io.BytesIO(block)

    def length_from(start: int) -> int:
        length = start
        while start == 15:
            (more,) = stream.read(1)
            length += more
            if more < 255:
                break
        return length

    while token := stream.read(1):
        out += stream.read(length_from(token[0] >> 4))
        offset = stream.read(2)
        if not offset:
            break
        copied, back = length_from(token[0] & 15) + 4, int.from_bytes(offset, "little")
        for _ in range(copied):
            out.append(out[-back])
    assert len(out) == size
    return bytes(out)
