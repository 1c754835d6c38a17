"""A character card as one object: read, and with another face.

    card = Card.read(Path("mine.png"))
    card.sliders["nose_width"]                                   # 0 to 1 is the slider's 0 to 100
    changed = card.with_sliders({"nose_width": 0.25})            # another Card, of as many bytes
    changed.with_bones({"cf_J_Chin_rs": Bone(length=1.1)}).with_preview(png).data

A card is never encoded anew: the bytes of what changes are exchanged, all others are the template's. Every changed card
is read again, and what was not to change is compared, before anybody gets it.
"""

import math
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from games.cards import abmx
from games.cards.abmx import Bone
from games.cards.creators import Creator
from games.cards.fields import CardError, Change, Fields, quoted, splice
from games.cards.layout import Layout, png_end, read_layout, with_block, with_new_block
from games.cards.msgpack import Value, pack_float

#: A larger file is refused: the largest cards, with pictures of plug-ins inside, have some ten megabytes.
_LARGEST_FILE = 256 << 20

#: Blocks by which a card of Honey Select 2 is told from one of AI*Shoujo.
_ONLY_HS2 = {"Parameter2", "GameInfo2"}


class Face(NamedTuple):
    """What a card says of a face."""

    head_id: int
    shape: tuple[Value, ...]  #: the numbers of shapeValueFace, each a float32


class Card:
    """A character card; `Card.read` and `Card.parse` make one. Raises CardError for bytes that are none.

    Attributes:
        data: its bytes.
        layout: where things lie in them.
        creator: whose card it is.
        head_id: which of the game's heads its sliders act on.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.layout: Layout = read_layout(data)
        self.creator: Creator = self.layout.creator
        self._face = _read_face(self.layout)
        self.head_id = self._face.head_id

    @classmethod
    def parse(cls, data: bytes) -> "Card":
        """The card in some bytes.

        Raises:
            CardError: they are no card, or one that is damaged in what is read here.
        """
        return cls(data)

    @classmethod
    def read(cls, path: Path) -> "Card":
        """The card in a file.

        Raises:
            CardError: as `parse`; the file is missing or too large.
        """
        try:
            if path.exists() and not path.is_file():  # a pipe or a device has no end
                raise CardError(f"it is a {'folder' if path.is_dir() else 'device'}; expected a character card")
            size = path.stat().st_size
            if size > _LARGEST_FILE:
                raise CardError(f"it has {size >> 20} MiB; expected a character card of at most {_LARGEST_FILE >> 20}")
            return cls(path.read_bytes())
        except OSError as error:
            raise CardError(f"it cannot be read: {error.strerror}") from None

    # --- what it holds ----------------------------------------------------------------------------

    @property
    def game(self) -> str:
        """The game's name."""
        if self.creator.key == "koikatsu":
            return "Koikatsu Sunshine" if "Sun" in self.layout.marker else "Koikatsu"
        return "Honey Select 2" if _ONLY_HS2 & self.layout.blocks.keys() else "AI*Shoujo"

    @property
    def sliders(self) -> dict[str, float]:
        """All sliders of the face by name, in the card's order; 0 to 1 is the slider's 0 to 100."""
        return {name: value.number() for name, value in zip(self.creator.order, self._face.shape, strict=True)}

    @cached_property
    def plugins(self) -> dict[str, Value]:
        """The data of plug-ins by their names; none where the card has no block KKEx. Raises CardError if damaged."""
        return abmx.read_plugins(self.block(abmx.BLOCK)) if abmx.BLOCK in self.layout.blocks else {}

    @cached_property
    def bones(self) -> dict[str, Bone]:
        """The bones that the plug-in ABMX changes, by name. Raises CardError where its data is damaged."""
        return abmx.read_bones(self.plugins)

    @property
    def preview_size(self) -> tuple[int, int]:
        """Width and height of its picture in pixels."""
        return self.layout.preview_size

    def block(self, name: str) -> bytes:
        """The bytes of a block. Raises CardError if there is none of that name."""
        found = self.layout.block(name)
        return self.data[found.start : found.end]

    # --- another face -----------------------------------------------------------------------------

    def with_sliders(self, values: Mapping[str, float]) -> "Card":
        """The card with other values of sliders, in the game's units, by name.

        Raises:
            CardError: a name that is no slider of the card, or a value that is no finite number.
        """
        changes = []
        for name, value in values.items():
            if name not in self.creator.order:
                raise CardError(f"{quoted(name)} is no slider of {self.game}")
            place = self._face.shape[self.creator.order.index(name)]
            changes.append(Change(place.start, place.end, pack_float(_finite(name, value))))
        made = Card(splice(self.data, changes))

        expected = self.sliders | {name: _as_float32(value) for name, value in values.items()}
        _expect_same("the sliders", _bits(made.sliders), _bits(expected))
        made._expect_others_unchanged(self, changed="Custom")
        _expect_same("the length", len(made.data), len(self.data))
        return made

    def with_bones(self, bones: Mapping[str, Bone]) -> "Card":
        """The card with other bones, by name; bones that are not named stay, as do all other plug-ins' bytes.

        Raises:
            CardError: the card's plug-in data is damaged, or a value is no finite number.
        """
        for name, bone in bones.items():
            for number in (*bone.scale, bone.length, *bone.position, *bone.rotation):
                _finite(name, number)
        if abmx.BLOCK in self.layout.blocks:
            data = with_block(self.layout, abmx.BLOCK, abmx.with_bones(self.block(abmx.BLOCK), bones))
        else:
            content = abmx.new_block(bones)
            data = with_new_block(self.layout, abmx.BLOCK, version=abmx.BLOCK_VERSION, content=content)
        made = Card(data)

        _expect_same("the bones", _bytes_by_name({name: made.bones[name] for name in bones}), _bytes_by_name(bones))
        kept = abmx.other_entries(self.plugins, bones)
        _expect_same("the other bones", abmx.other_entries(made.plugins, bones), kept)
        others = {name: value.raw for name, value in self.plugins.items() if name != abmx.PLUGIN}
        found = {name: value.raw for name, value in made.plugins.items() if name != abmx.PLUGIN}
        _expect_same("the other plug-ins' data", found, others)
        made._expect_others_unchanged(self, changed=abmx.BLOCK)
        return made

    def with_preview(self, png: bytes) -> "Card":
        """The card with another picture, a whole PNG. Raises CardError for anything else."""
        end, _ = png_end(png)
        if end != len(png):
            raise CardError("the new preview has bytes after PNG's end; expected none")
        made = Card(png + self.data[self.layout.preview_end :])
        _expect_same("what follows the preview", made.data[len(png) :], self.data[self.layout.preview_end :])
        return made

    def _expect_others_unchanged(self, template: "Card", *, changed: str) -> None:
        """Compare all that a new content of one block must leave alone."""
        layout, before = self.layout, template.layout
        _expect_same("the preview", self.data[: layout.preview_end], template.data[: before.preview_end])
        for what in ("marker", "version", "ids"):
            _expect_same(f"the {what}", getattr(layout, what), getattr(before, what))
        _expect_same("headId", self.head_id, template.head_id)
        _expect_same("what follows the blocks", self.data[layout.blocks_end :], template.data[before.blocks_end :])
        names = [name for name in before.blocks if name != changed]
        _expect_same("the blocks", [name for name in layout.blocks if name != changed], names)
        for name in names:
            _expect_same(f"block {quoted(name)}", self.block(name), template.block(name))


def _read_face(layout: Layout) -> Face:
    """The face in block Custom: three maps, each after its length; the first is the face."""
    block = layout.block("Custom")
    fields = Fields(layout.data, block.start, block.end)
    places = []
    for what in ("the face", "the body", "the hair"):
        places.append(fields.take(fields.integer(4, f"the length of {what} in block Custom"), what))
    face = Value.whole(layout.data, *places[0], "the face").entries()
    for name in ("headId", "shapeValueFace"):
        if name not in face:
            raise CardError(f"its face has no {name}")

    shape, count = face["shapeValueFace"].items(), len(layout.creator.order)
    if len(shape) != count:
        raise CardError(f"its shapeValueFace has {len(shape)} values; expected {count} of {layout.creator.title}")
    for name, value in zip(layout.creator.order, shape, strict=True):
        if value.head.kind != "float" or value.head.size != 4:
            raise CardError(f"its slider {name} is no float32; expected {count} of them in shapeValueFace")
    return Face(face["headId"].integer(), tuple(shape))


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value) or abs(value) > 1e30:
        raise CardError(f"{quoted(name)} is to be {value}; expected a finite number")
    return value


def _as_float32(value: float) -> float:
    """What a card keeps of a number."""
    kept: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return kept


def _bytes_of(bone: Bone) -> bytes:
    """A bone's numbers as a card keeps them."""
    return struct.pack("<10f", *bone.scale, bone.length, *bone.position, *bone.rotation)


def _bytes_by_name(bones: Mapping[str, Bone]) -> dict[str, bytes]:
    return {name: _bytes_of(bone) for name, bone in bones.items()}


def _bits(values: Mapping[str, float]) -> dict[str, bytes]:
    """Numbers as their bytes, so that NaN equals itself."""
    return {name: struct.pack("<f", value) for name, value in values.items()}


def _expect_same(what: str, found: object, expected: object) -> None:
    """Refuse a changed card that is not what it should be: a fault of this program, never seen by whoever opens it."""
    if found != expected:
        raise CardError(f"the new card was read again, and {what} did not come out as meant; nothing is written")
