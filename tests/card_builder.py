"""Builds character cards by the layout that docs/cards.md describes. Shares no code with games/cards."""

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lz4.block

#: The marker of a game → sliders in its cards.
SLIDER_COUNTS = {"【AIS_Chara】": 59, "【KoiKatuChara】": 52, "【KoiKatuCharaSP】": 52, "【KoiKatuCharaSun】": 52}

#: One modifier of a bone that does nothing.
NEUTRAL = [[1.0, 1.0, 1.0], 1.0, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


class Int32(int):
    """A number that is written as MessagePack's int32 however small it is, as C# plug-ins do."""


class Raw(bytes):
    """Bytes that are MessagePack already."""


@dataclass(frozen=True)
class Plan:
    """What a card is to hold."""

    marker: str = "【AIS_Chara】"
    version: str = "1.0.0"
    language: int = 0
    ids: tuple[str, str] = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000")
    size: tuple[int, int] = (4, 6)  #: of the preview
    head_id: int = 1
    sliders: tuple[float, ...] = ()  #: empty: an example
    bones: Sequence[Any] | None = None  #: ABMX's list; None: no such plug-in
    compressed: bool = True
    plugins: dict[str, Any] = field(default_factory=dict)  #: of other plug-ins
    with_kkex: bool = False  #: also where no plug-in has data
    extra: dict[str, bytes] = field(default_factory=dict)  #: more blocks
    order: tuple[str, ...] = ()  #: of the blocks in the file; those not named follow
    listed: tuple[str, ...] = ()  #: of the blocks in the index; those not named follow
    wide: bool = False  #: places and sizes as int64
    gap: int = 0  #: bytes between blocks that belong to none
    tail: bytes = b""  #: after the blocks


def example_sliders(count: int) -> tuple[float, ...]:
    """Values of sliders, all different, exact as float32, some outside 0 to 1."""
    return tuple((i * 37 % 96 - 16) / 64 for i in range(count))


def pack(value: Any) -> bytes:
    """MessagePack of plain values; a float is a float32."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, Int32):
        return struct.pack(">Bi", 0xD2, value)
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else struct.pack(">Bq", 0xD3, value)
    if isinstance(value, float):
        return struct.pack(">Bf", 0xCA, value)
    if isinstance(value, str):
        text = value.encode()
        return (bytes([0xA0 | len(text)]) if len(text) < 32 else struct.pack(">BB", 0xD9, len(text))) + text
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDE, len(value))
        return head + b"".join(pack(key) + pack(item) for key, item in value.items())
    head = bytes([0x90 | len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDC, len(value))
    return head + b"".join(map(pack, value))


def png(width: int, height: int, grey: int = 128) -> bytes:
    """A whole picture of one grey."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress((b"\0" + bytes([grey]) * 3 * width) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def net_string(text: str) -> bytes:
    """A .NET string."""
    content, length, head = text.encode(), len(text.encode()), b""
    while length >= 0x80:
        head += bytes([0x80 | length & 0x7F])
        length >>= 7
    return head + bytes([length]) + content


def lz4_extension(content: bytes) -> bytes:
    """MessagePack's extension 99: a size and an LZ4 block."""
    inside = struct.pack(">Bi", 0xD2, len(content)) + lz4.block.compress(content, store_size=False)
    return struct.pack(">BI", 0xC9, len(inside)) + b"\x63" + inside


def custom(plan: Plan) -> bytes:
    """The block Custom: face, body, hair."""
    sliders = plan.sliders or example_sliders(SLIDER_COUNTS[plan.marker])
    face = {
        "version": "0.0.2",
        # Bytes that look like the array of another length, before it.
        "decoy": b"shapeValueFace\xdc\x00\x3b\xca",
        "shapeValueFace": list(sliders),
        "headId": plan.head_id,
        "skinId": Int32(3),
    }
    parts = (face, {"shapeValueBody": [0.5] * 3}, {"parts": [{"id": Int32(2)}]})
    return b"".join(struct.pack("<i", len(pack(part))) + pack(part) for part in parts)


def kkex(plan: Plan) -> bytes:
    """The block KKEx: the data of all plug-ins."""
    plugins = dict(plan.plugins)
    if plan.bones is not None:
        content = pack(plan.bones)
        plugins["KKABMPlugin.ABMData"] = [2, {"boneData": lz4_extension(content) if plan.compressed else content}]
    return pack(plugins)


def blocks_of(plan: Plan) -> dict[str, bytes]:
    """All blocks in their order in the file."""
    blocks = {"Custom": custom(plan), "Coordinate": pack({"clothes": [1, 2]}), "Parameter": pack({"sex": 1})}
    blocks |= plan.extra
    if plan.plugins or plan.bones is not None or plan.with_kkex:
        blocks["KKEx"] = kkex(plan)
    return {name: blocks[name] for name in _in_order(blocks, plan.order)}


def build(plan: Plan) -> bytes:
    """The card."""
    area, index = b"", {}
    for name, content in blocks_of(plan).items():
        index[name] = {"name": name, "version": "3" if name == "KKEx" else "0.0.1"}
        index[name] |= {"pos": _number(len(area), plan.wide), "size": _number(len(content), plan.wide)}
        area += content + b"\xaa" * plan.gap
    listed = pack({"lstInfo": [index[name] for name in _in_order(index, plan.listed)]})

    head = struct.pack("<i", 100) + net_string(plan.marker) + net_string(plan.version)
    if plan.marker == "【AIS_Chara】":
        head += struct.pack("<i", plan.language) + net_string(plan.ids[0]) + net_string(plan.ids[1])
    else:
        face = png(3, 3)
        head += struct.pack("<i", len(face)) + face
    sizes = struct.pack("<i", len(listed)) + listed + struct.pack("<q", len(area))
    return png(*plan.size) + head + sizes + area + plan.tail


def _in_order(names: Sequence[str] | dict[str, Any], first: tuple[str, ...]) -> list[str]:
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _number(number: int, wide: bool) -> Raw:
    if wide:
        return Raw(struct.pack(">BQ", 0xCF, number))
    return Raw(bytes([number]) if number < 128 else struct.pack(">BH", 0xCD, number))


def modifier(number: float) -> list[Any]:
    """A modifier whose ten numbers are all different."""
    numbers = [number + i / 8 for i in range(10)]
    return [numbers[:3], numbers[3], numbers[4:7], numbers[7:]]


#: Bones of a character: two of the face, one of the body, one of an accessory that has a face bone's name.
BONES = [
    ["cf_J_Chin_rs", [modifier(1.0)], 1],
    ["cf_J_Spine01", [modifier(2.0)], 0],
    ["cf_J_Chin_rs", [modifier(3.0)], 12],
    ["cf_J_Mouth_L", [modifier(4.0), modifier(5.0)], 0],
]

#: Plug-ins as C# writes them: small numbers in five bytes, kept by nobody who unpacks and packs them anew.
PLUGINS = {
    "com.first": [Int32(1), {"value": Int32(7), "list": [Int32(0), Int32(-1), 2.5, None, True]}],
    "com.second": [3, {"blob": b"\xc1\xff" * 40, "text": "ü" * 20, "deep": [[[[{"a": Int32(5)}]]]]}],
    "com.none": None,
}

#: Cards of all kinds.
PLANS = {
    "plain": Plan(),
    "bare KKEx": Plan(with_kkex=True),
    "plug-ins": Plan(plugins=PLUGINS),
    "bones": Plan(plugins=PLUGINS, bones=BONES),
    "uncompressed bones": Plan(bones=BONES, compressed=False),
    "no bones": Plan(bones=[], compressed=False, plugins=PLUGINS),
    "KKEx first": Plan(plugins=PLUGINS, bones=BONES, order=("KKEx",), listed=("Parameter", "KKEx")),
    "Custom last": Plan(bones=BONES, order=("KKEx", "Coordinate", "Parameter", "Custom"), wide=True),
    "odd ids": Plan(ids=("", "ü" * 70), language=-1, version="1.0.0.1", tail=b"\x00after"),
    "HS2": Plan(extra={"Parameter2": b"\x80", "GameInfo2": b"\x80", "Unknown.Block": b"\xc1" * 9}, plugins=PLUGINS),
    "gaps": Plan(bones=BONES, gap=3, extra={"empty": b""}, wide=True),
    "sixteen blocks": Plan(extra={f"Block{i}": bytes([i]) * i for i in range(12)}),
    "Koikatsu": Plan(marker="【KoiKatuChara】", bones=BONES, plugins=PLUGINS),
    "Koikatsu SP": Plan(marker="【KoiKatuCharaSP】"),
    "Koikatsu Sunshine": Plan(marker="【KoiKatuCharaSun】", plugins=PLUGINS),
}


def changed(plan: Plan, **changes: Any) -> Plan:
    """A plan with some fields changed."""
    return replace(plan, **changes)


def as_float32(value: float) -> float:
    """What a card keeps of a number."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def write_card(path: Path, plan: Plan) -> Path:
    """Write a card; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(build(plan))
    return path


def characters(count: int, parameters: Sequence[Any], seed: int = 0) -> list[tuple[float, ...]]:
    """Sliders of random characters, as cards have them: those of a table, drawn uniformly, and five ears."""
    rng = random.Random(seed)
    return [(*(p.in_game(rng.random()) for p in parameters), *[0.5] * 5) for _ in range(count)]
