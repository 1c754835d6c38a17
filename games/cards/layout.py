"""Where things lie in a card: its preview, its head, its blocks.

    PNG … IEND                  the preview
    int32 100                   product number
    string                      marker of the game, e.g. 【AIS_Chara】; string: version
    int32, string, string       language, userID, dataID           (AI*Shoujo, Honey Select 2)
    int32 n, n bytes            another PNG, the face              (Koikatsu)
    int32 n, n bytes            MessagePack {"lstInfo": [{"name", "version", "pos", "size"}, …]}
    int64 n, n bytes            the blocks; each at its pos, in any order

Numbers are little endian. Every length and every place is checked against the file before anything is read there.
"""

from typing import NamedTuple

from games.cards.creators import Creator, creator_of
from games.cards.fields import CardError, Change, Fields, quoted, splice
from games.cards.msgpack import Value, pack_integer, pack_map, pack_text

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: What every card has after its preview.
_PRODUCT_NUMBER = 100

#: Sides that a preview may have, pixels; the games' own have 252×352.
_LONGEST_SIDE = 4096


class Block(NamedTuple):
    """A block, and its entry in the card's index."""

    name: str
    version: str
    start: int  #: in the file
    end: int
    place: Value  #: "pos" of its entry
    size: Value  #: "size" of its entry


class Layout(NamedTuple):
    """Where things lie in a card's bytes."""

    data: bytes
    preview_end: int  #: the preview is data[:preview_end]
    preview_size: tuple[int, int]  #: width, height in pixels
    creator: Creator
    marker: str
    version: str
    ids: tuple[str, ...]  #: userID and dataID, where the game has them
    header: Value  #: the map with lstInfo; its length is in the four bytes before it
    blocks_start: int  #: the eight bytes before it are the length of all blocks
    blocks_end: int
    blocks: dict[str, Block]  #: in the order of the index

    def block(self, name: str) -> Block:
        """A block by its name. Raises CardError if there is none."""
        if name not in self.blocks:
            raise CardError(f"it has no block {name}; it has {', '.join(map(quoted, self.blocks)) or 'no blocks'}")
        return self.blocks[name]


def read_layout(data: bytes) -> Layout:
    """Find the parts of a card.

    Raises:
        CardError: no PNG picture, no card behind it, another game's, an end that is missing, blocks that overlap or
            point outside.
    """
    preview_end, preview_size = png_end(data)
    if preview_end == len(data):
        raise CardError("it is a picture without a character: nothing follows its PNG; expected a character card")
    fields = Fields(data, preview_end, len(data))
    number = fields.integer(4, "the product number")
    if number != _PRODUCT_NUMBER:
        raise CardError(f"it is no character card: {number} follows its picture; expected {_PRODUCT_NUMBER}")
    marker = fields.string("the game's marker")
    creator = creator_of(marker)
    if creator is None:
        raise CardError(
            f"it is a card of another game or of another kind ({quoted(marker)}); expected a character of AI*Shoujo, "
            "Honey Select 2 or Koikatsu"
        )
    version = fields.string("the version")
    ids = _skip_head(fields, creator)

    # The index, and the blocks behind it.
    index = Value.whole(data, *fields.take(fields.integer(4, "the length of the index"), "the index"), "the index")
    start, end = fields.take(fields.integer(8, "the length of the blocks"), "the blocks")
    blocks = _read_blocks(index, start=start, end=end)
    return Layout(data, preview_end, preview_size, creator, marker, version, ids, index, start, end, blocks)


def _skip_head(fields: Fields, creator: Creator) -> tuple[str, ...]:
    """Read what stands between a card's version and its index: the ids, where the game has them."""
    if creator.key == "koikatsu":
        fields.take(fields.integer(4, "the length of the face's picture"), "the face's picture")
        return ()
    fields.integer(4, "the language")
    return fields.string("the userID"), fields.string("the dataID")


def png_end(data: bytes) -> tuple[int, tuple[int, int]]:
    """Where the PNG ends that some bytes begin with, and its width and height in pixels.

    Raises:
        CardError: no PNG, one that is cut off, or one of an impossible size.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise CardError("it is no PNG picture; expected a character card, which begins with one")
    at, kind, size = len(_PNG_SIGNATURE), b"", (0, 0)
    while kind != b"IEND":
        if at + 12 > len(data):
            raise CardError(f"its picture is cut off at byte {len(data)}; expected PNG's end, IEND")
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if at == len(_PNG_SIGNATURE):
            if kind != b"IHDR" or length < 13:
                raise CardError("its picture begins without PNG's head, IHDR")
            size = (int.from_bytes(data[at + 8 : at + 12], "big"), int.from_bytes(data[at + 12 : at + 16], "big"))
        at += 12 + length
    if at > len(data):
        raise CardError(f"its picture is cut off at byte {len(data)}; expected PNG's end, IEND")
    if not all(1 <= side <= _LONGEST_SIDE for side in size):
        raise CardError(f"its picture claims {size[0]}×{size[1]} pixels; expected 1 to {_LONGEST_SIDE} per side")
    return at, size


def _read_blocks(index: Value, *, start: int, end: int) -> dict[str, Block]:
    blocks: dict[str, Block] = {}
    for item in index.entry("lstInfo").items():
        entry = item.entries()
        if not {"name", "version", "pos", "size"} <= entry.keys():
            raise CardError(f"{item.where} of the index lacks name, version, pos or size")
        name = entry["name"].text()
        place, size = entry["pos"].integer(), entry["size"].integer()
        if name in blocks:
            raise CardError(f"it has two blocks {quoted(name)}; expected each name once")
        if place < 0 or size < 0 or place + size > end - start:
            raise CardError(
                f"block {quoted(name)} of {size} bytes at {place} lies outside the {end - start} bytes of the blocks"
            )
        first = start + place
        blocks[name] = Block(name, entry["version"].text(), first, first + size, entry["pos"], entry["size"])

    # No byte belongs to two blocks.
    in_order = sorted((b for b in blocks.values() if b.end > b.start), key=lambda block: block.start)
    for one, other in zip(in_order, in_order[1:], strict=False):
        if other.start < one.end:
            raise CardError(f"blocks {quoted(one.name)} and {quoted(other.name)} overlap at byte {other.start}")
    return blocks


# --- another content for a block ------------------------------------------------------------------


def with_block(layout: Layout, name: str, content: bytes) -> bytes:
    """The card's bytes with another content of one block: sizes, places and totals are put right.

    Args:
        layout: of the card.
        name: of a block that the card has.
        content: of any length.
    """
    block = layout.block(name)
    longer = len(content) - (block.end - block.start)
    if not longer:
        return splice(layout.data, [Change(block.start, block.end, content)])
    changes = [_change(block.size, len(content))]
    for other in layout.blocks.values():
        if other.start >= block.end and other.name != name:
            changes.append(_change(other.place, other.place.integer() + longer))
    return _with_index(layout, changes, [Change(block.start, block.end, content)])


def with_new_block(layout: Layout, name: str, *, version: str, content: bytes) -> bytes:
    """The card's bytes with one more block, behind the others."""
    total = layout.blocks_end - layout.blocks_start
    listed = layout.header.entry("lstInfo")
    entry = {
        "name": pack_text(name),
        "version": pack_text(version),
        "pos": pack_integer(total),
        "size": pack_integer(len(content)),
    }
    changes = [
        Change(listed.start, listed.head.content, listed.with_count(listed.head.length + 1)),
        Change(listed.end, listed.end, pack_map(entry)),
    ]
    return _with_index(layout, changes, [Change(layout.blocks_end, layout.blocks_end, content)])


def _change(number: Value, to: int) -> Change:
    return Change(number.start, number.end, number.with_integer(to))


def _with_index(layout: Layout, in_index: list[Change], in_blocks: list[Change]) -> bytes:
    """The card's bytes after changes in its index and its blocks, whose lengths are written anew."""
    header, start = layout.header, layout.blocks_start
    length_of_index = header.end - header.start + _growth(in_index)
    length_of_blocks = layout.blocks_end - start + _growth(in_blocks)
    lengths = [
        Change(header.start - 4, header.start, length_of_index.to_bytes(4, "little")),
        Change(start - 8, start, length_of_blocks.to_bytes(8, "little")),
    ]
    return splice(layout.data, lengths + in_index + in_blocks)


def _growth(changes: list[Change]) -> int:
    return sum(len(change.content) - (change.end - change.start) for change in changes)
