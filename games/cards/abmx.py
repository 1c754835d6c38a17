"""The block KKEx, where plug-ins keep their data, and in it the bones of the plug-in ABMX.

    KKEx        {"KKABMPlugin.ABMData": [2, {"boneData": binary}], …}
    binary      MessagePack, compressed as extension 99: an integer, the bytes uncompressed, then one LZ4 block
    in it       [[name, [[[sx, sy, sz], length, [px, py, pz], [rx, ry, rz]], …], location], …]

Scale and length multiply, position and rotation add. A bone has one modifier, or one per outfit. Locations from 10 on
are accessories, whose bones may share a name with those of the face. What is not changed is copied byte for byte: other
plug-ins' data, and bones that nobody named.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

import lz4.block

from games.cards.fields import CardError, Change, quoted, splice
from games.cards.msgpack import (
    Value,
    pack_array,
    pack_binary,
    pack_extension,
    pack_float,
    pack_integer,
    pack_map,
    pack_text,
)

BLOCK = "KKEx"

#: Version of the block, as its writer puts it into a card's index.
BLOCK_VERSION = "3"

PLUGIN = "KKABMPlugin.ABMData"

#: The only version of the plug-in's data that the layout is known of.
_VERSION = 2

#: The extension that LZ4 is marked by, and the bytes from which on data is compressed.
_LZ4, _COMPRESSED_FROM = 99, 64

#: Most bytes of bones that are unpacked (a face has some ten thousand), and how far LZ4 can compress at all.
_MOST_BYTES, _HIGHEST_RATIO = 16 << 20, 255

#: Locations from here on are accessories.
_FIRST_ACCESSORY = 10

#: Fields of a bone with three numbers, in the order of a modifier; `length` has one, after the scale.
_VECTORS = ("scale", "position", "rotation")


class Bone(NamedTuple):
    """What ABMX does to a bone; the defaults do nothing."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    length: float = 1.0
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)  #: degrees


def read_plugins(block: bytes) -> dict[str, Value]:
    """The plug-ins' data in a block KKEx by their names. Raises CardError where the block is something else."""
    return Value.whole(block, 0, len(block), f"block {BLOCK}").entries()


def read_bones(plugins: Mapping[str, Value]) -> dict[str, Bone]:
    """The bones of a character by name, those of accessories left out; the first outfit's where outfits differ.

    Raises:
        CardError: the plug-in's data is damaged, lies about its size, or is of an unknown version.
    """
    bones: dict[str, Bone] = {}
    for name, entry in _bones_in(plugins):
        bones.setdefault(name, _read_bone(entry))
    return bones


def other_entries(plugins: Mapping[str, Value], names: Container[str]) -> list[bytes]:
    """The bytes of all bones but those of some names, in their order, accessories' bones among them."""
    if _is_empty(plugins):
        return []
    _, content = _bone_data(plugins)
    kept = []
    for entry in Value.whole(content, 0, len(content), "the bones").items():
        name, is_of_body = _name_of(entry)
        if not is_of_body or name not in names:
            kept.append(entry.raw)
    return kept


def with_bones(block: bytes, bones: Mapping[str, Bone]) -> bytes:
    """A block KKEx with other bones.

    Bones that it has and that are not in `bones` stay as they are, as does every other plug-in's data.

    Raises:
        CardError: as `read_bones`.
    """
    plugins = read_plugins(block)
    if _is_empty(plugins):
        bone_data = pack_map({"boneData": pack_binary(_compress(_changed_list(b"\x90", bones)))})
        return _with_plugin(block, plugins.get(PLUGIN), pack_array([pack_integer(_VERSION), bone_data]))
    holder, content = _bone_data(plugins)
    changed = pack_binary(_compress(_changed_list(content, bones)))
    return splice(block, [Change(holder.start, holder.end, changed)])


def new_block(bones: Mapping[str, Bone]) -> bytes:
    """A block KKEx that holds bones alone."""
    return with_bones(b"\x80", bones)


# --- reading --------------------------------------------------------------------------------------


def _is_empty(plugins: Mapping[str, Value]) -> bool:
    """Whether ABMX keeps nothing in a card."""
    return PLUGIN not in plugins or plugins[PLUGIN].head.kind == "nil"


def _bone_data(plugins: Mapping[str, Value]) -> tuple[Value, bytes]:
    """Where ABMX keeps its bones, and these, unpacked."""
    parts = plugins[PLUGIN].items()
    if len(parts) != 2:
        raise CardError(f"{PLUGIN} has {len(parts)} parts; expected its version and its data")
    version = parts[0].integer()
    if version != _VERSION:
        raise CardError(f"{PLUGIN} is of version {version}; expected {_VERSION}. Save the card with a current ABMX")
    holder = parts[1].entry("boneData")
    return holder, _uncompress(holder.binary())


def _uncompress(packed: bytes) -> bytes:
    value = Value.whole(packed, 0, len(packed), "boneData")
    if value.head.kind != "ext":
        return packed  # short data is not compressed
    if value.content[0] != _LZ4:
        raise CardError(f"boneData is of MessagePack's extension {value.content[0]}; expected {_LZ4}")
    claimed = Value(packed, value.head.content + 1, value.end, "the size of boneData")
    size, compressed = claimed.integer(), packed[claimed.end : value.end]
    if not 0 <= size <= min(_MOST_BYTES, _HIGHEST_RATIO * len(compressed)):
        raise CardError(f"boneData claims {size} bytes, which its {len(compressed)} compressed bytes cannot hold")
    try:
        unpacked: bytes = lz4.block.decompress(compressed, uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise CardError(f"boneData is no whole LZ4 block of {size} bytes ({error})") from None
    if len(unpacked) != size:
        raise CardError(f"boneData has {len(unpacked)} bytes and claims {size}")
    return unpacked


def _bones_in(plugins: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Name and entry of each bone of a character."""
    if _is_empty(plugins):
        return
    _, content = _bone_data(plugins)
    for entry in Value.whole(content, 0, len(content), "the bones").items():
        name, is_of_body = _name_of(entry)
        if is_of_body:
            yield name, entry


def _name_of(entry: Value) -> tuple[str, bool]:
    """A bone's name, and whether it is one of the character, not of an accessory."""
    parts = entry.items()
    if len(parts) < 2:
        raise CardError(f"{entry.where} has {len(parts)} parts; expected a name and modifiers")
    return parts[0].text(), len(parts) < 3 or parts[2].integer() < _FIRST_ACCESSORY


def _read_bone(entry: Value) -> Bone:
    modifiers = entry.items()[1].items()
    if not modifiers:
        return Bone()
    parts = modifiers[0].items()
    if len(parts) < 4:
        raise CardError(f"{entry.where} has a modifier of {len(parts)} parts; expected scale, length and two more")
    scale, position, rotation = (_read_vector(parts[i]) for i in (0, 2, 3))
    return Bone(scale, parts[1].number(), position, rotation)


def _read_vector(value: Value) -> tuple[float, float, float]:
    numbers = [item.number() for item in value.items()]
    if len(numbers) != 3:
        raise CardError(f"{value.where} has {len(numbers)} numbers; expected x, y, z")
    return numbers[0], numbers[1], numbers[2]


# --- writing --------------------------------------------------------------------------------------


def _with_plugin(block: bytes, old: Value | None, packed: bytes) -> bytes:
    """The block with another value of ABMX: in the place of its old one, or as the last of the plug-ins."""
    if old is not None:
        return splice(block, [Change(old.start, old.end, packed)])
    whole = Value.whole(block, 0, len(block), f"block {BLOCK}")
    head = Change(0, whole.head.content, whole.with_count(whole.head.length + 1))
    return splice(block, [head, Change(len(block), len(block), pack_text(PLUGIN) + packed)])


def _changed_list(content: bytes, bones: Mapping[str, Bone]) -> bytes:
    """The list of bones with some of them written anew, and those that it had not at its end."""
    whole = Value.whole(content, 0, len(content), "the bones")
    changes, seen = [], set()
    for entry in whole.items():
        name, is_of_body = _name_of(entry)
        if is_of_body and name in bones:
            seen.add(name)
            modifiers = entry.items()[1]
            count = max(modifiers.head.length, 1) if modifiers.head.kind == "array" else 1
            changes.append(Change(modifiers.start, modifiers.end, pack_array([_pack_modifier(bones[name])] * count)))
    added = [_pack_bone(name, bone) for name, bone in bones.items() if name not in seen]
    changes.append(Change(0, whole.head.content, whole.with_count(whole.head.length + len(added))))
    changes.append(Change(whole.end, whole.end, b"".join(added)))
    return splice(content, changes)


def _pack_bone(name: str, bone: Bone) -> bytes:
    return pack_array([pack_text(name), pack_array([_pack_modifier(bone)]), b"\x00"])


def _pack_modifier(bone: Bone) -> bytes:
    scale, position, rotation = (pack_array([pack_float(v) for v in getattr(bone, name)]) for name in _VECTORS)
    return pack_array([scale, pack_float(bone.length), position, rotation])


def _compress(content: bytes) -> bytes:
    if len(content) < _COMPRESSED_FROM:
        return content
    size = b"\xd2" + len(content).to_bytes(4, "big")
    return pack_extension(_LZ4, size + lz4.block.compress(content, store_size=False))


# --- bones as parameters --------------------------------------------------------------------------


def bones_of(values: Mapping[str, float]) -> dict[str, Bone]:
    """Bones by name, of values in the game's units by their names in a parameter table, as `cf_J_Chin_rs.scale.x`.

    What of a bone no value names does nothing.
    """
    parts: dict[str, dict[str, list[float]]] = {}
    for full_name, value in values.items():
        bone, field, axis = _parts_of(full_name)
        if bone not in parts:
            parts[bone] = {name: list(getattr(Bone(), name)) for name in _VECTORS} | {"length": [1.0]}
        parts[bone][field][axis] = float(value)
    return {
        bone: Bone(_vector(p["scale"]), p["length"][0], _vector(p["position"]), _vector(p["rotation"]))
        for bone, p in parts.items()
    }


def values_of(bones: Mapping[str, Bone], names: Sequence[str]) -> list[float]:
    """The values of parameters by their names in a table, in the game's units.

    A bone that is not there has those values that do nothing.
    """
    values = []
    for full_name in names:
        bone, field, axis = _parts_of(full_name)
        found = getattr(bones.get(bone, Bone()), field)
        values.append(found if field == "length" else found[axis])
    return values


def bone_of(full_name: str) -> str:
    """The bone that a parameter belongs to."""
    return _parts_of(full_name)[0]


def other_side(bone: str) -> str:
    """The right bone of a left one, and the left one of a right one; a bone in the middle is its own."""
    sides = {"_L": "_R", "_R": "_L"}
    return bone[:-2] + sides.get(bone[-2:], bone[-2:])


def as_seen(name: str, bone: Bone) -> Bone:
    """A bone as an aligned picture shows it: without a head's scale that is the same along all axes."""
    if name.startswith("cf_J_Head") and len(set(bone.scale)) == 1:
        return bone._replace(scale=Bone().scale)
    return bone


def _parts_of(full_name: str) -> tuple[str, str, int]:
    """Bone, field and axis (0 for x or a length) of a parameter's name."""
    bone, _, field = full_name.partition(".")
    field, _, axis = field.partition(".")
    if field == "length" and not axis:
        return bone, field, 0
    if field in _VECTORS and axis in ("x", "y", "z"):
        return bone, field, "xyz".index(axis)
    raise CardError(f"{quoted(full_name)} is no value of a bone; expected BONE.scale.x, BONE.length and the like")


def _vector(numbers: list[float]) -> tuple[float, float, float]:
    return numbers[0], numbers[1], numbers[2]
