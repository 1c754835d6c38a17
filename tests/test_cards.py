"""Character cards: read by two readers, written with another face, and wrong in every way."""

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games.cards import abmx
from games.cards.abmx import Bone, bones_of, values_of
from games.cards.card import Card
from games.cards.creators import creator
from games.cards.fields import CardError
from games.cards.msgpack import Value
from games.parameters import BUILT_IN_TABLE, mirrored_bones, parse_parameters
from tests.card_builder import (
    NEUTRAL,
    PLANS,
    PLUGINS,
    Int32,
    Plan,
    as_float32,
    build,
    changed,
    example_sliders,
    lz4_extension,
    net_string,
    pack,
    png,
)
from tests.card_reader import read_card

FULL = changed(PLANS["KKEx first"], tail=b"tail")

AIS = creator("ais")

SLIDERS = [slider.name for slider in AIS.sliders]

float32s = st.floats(-4, 4, width=32)


def bone_of(numbers: list) -> Bone:
    """A bone of a modifier as the second reader gives it."""
    scale, length, position, rotation = numbers
    return Bone(tuple(scale), length, tuple(position), tuple(rotation))


def places_of(data: bytes) -> list[int]:
    """Where the 59 sliders of a card lie, found by the test's own means: the array's head, behind its key."""
    key = data.index(b"\xaeshapeValueFace") + 15
    assert data[key] == 0xDC
    return [key + 4 + 5 * i for i in range(59)]


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_two_readers_agree_on_every_value(name):
    data = build(PLANS[name])
    card, other = Card.parse(data), read_card(data)
    assert (card.layout.marker, card.layout.version, list(card.layout.ids)) == (other.marker, other.version, other.ids)
    assert card.head_id == other.head_id == PLANS[name].head_id
    assert list(card.sliders.values()) == other.sliders
    assert list(card.layout.blocks) == list(other.blocks)
    assert {block: card.block(block) for block in card.layout.blocks} == other.blocks
    assert list(card.plugins) == list(other.plugins)

    of_body = [bone for bone in other.bones or [] if bone[2] < 10]
    assert card.bones == {bone[0]: bone_of(bone[1][0]) for bone in of_body}
    assert bool(card.bones) == (
        name in ("bones", "uncompressed bones", "KKEx first", "Custom last", "gaps", "Koikatsu")
    )


def test_sliders_have_the_names_of_the_table_and_the_ears_follow():
    card = Card.parse(build(Plan()))
    assert list(card.sliders)[:54] == [p.name for p in parse_parameters(BUILT_IN_TABLE)[:54]]
    assert [name.count("ear") for name in list(card.sliders)[54:]] == [1] * 5
    assert list(card.sliders.values()) == list(example_sliders(59))


@pytest.mark.parametrize(
    "plan, game",
    [
        (PLANS["plain"], "AI*Shoujo"),
        (PLANS["HS2"], "Honey Select 2"),
        (PLANS["Koikatsu"], "Koikatsu"),
        (PLANS["Koikatsu Sunshine"], "Koikatsu Sunshine"),
    ],
)
def test_a_card_knows_its_game(plan, game):
    card = Card.parse(build(plan))
    assert card.game == game
    assert card.preview_size == plan.size
    assert len(set(card.sliders)) == len(card.sliders) == (52 if "Koi" in game else 59)


def test_a_number_is_read_however_it_is_written():
    for written in (
        b"\x05",
        b"\xcc\x05",
        b"\xcd\0\x05",
        b"\xce\0\0\0\x05",
        b"\xcf" + bytes(7) + b"\x05",
        b"\xd2\0\0\0\x05",
    ):
        assert Value.whole(written, 0, len(written), "it").integer() == 5
    assert Value.whole(b"\xff", 0, 1, "it").integer() == -1
    assert Value.whole(b"\xcb" + struct.pack(">d", 0.1), 0, 9, "it").number() == 0.1


# --- sliders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if "AIS" in plan.marker])
def test_54_sliders_are_exchanged_and_every_other_byte_is_the_templates(name):
    data = build(PLANS[name])
    wanted = {slider: -1 + i / 20 for i, slider in enumerate(SLIDERS)}
    made = Card.parse(data).with_sliders(wanted).data

    places = places_of(data)[:54]
    of_sliders = {place + byte for place in places for byte in range(4)}
    assert len(made) == len(data)
    assert [i for i in range(len(data)) if i not in of_sliders and made[i] != data[i]] == []
    assert len([i for i in range(len(data)) if made[i] != data[i]]) <= 216
    for place, value in zip(places, wanted.values(), strict=True):
        assert made[place : place + 4] == struct.pack(">f", value)
    assert read_card(made).sliders == [as_float32(v) for v in wanted.values()] + list(example_sliders(59))[54:]


@pytest.mark.parametrize("name", ["Koikatsu", "Koikatsu SP", "Koikatsu Sunshine"])
def test_52_sliders_of_koikatsu_are_exchanged(name):
    data = build(PLANS[name])
    names = creator("koikatsu").order
    made = Card.parse(data).with_sliders({slider: i / 64 for i, slider in enumerate(names)})
    assert len(made.data) == len(data)
    assert read_card(made.data).sliders == [i / 64 for i in range(52)]
    assert made.with_sliders(Card.parse(data).sliders).data == data


@given(st.lists(float32s, min_size=59, max_size=59), st.lists(float32s, min_size=59, max_size=59))
@settings(max_examples=30, deadline=None)
def test_sliders_come_back_whatever_they_are(before, after):
    data = build(Plan(sliders=tuple(before), plugins=PLUGINS))
    card = Card.parse(data)
    made = card.with_sliders(dict(zip(AIS.order, after, strict=True)))
    np.testing.assert_array_equal(list(made.sliders.values()), after)
    assert made.with_sliders(card.sliders).data == data


def test_a_slider_that_is_none_is_refused():
    card = Card.parse(build(Plan()))
    with pytest.raises(CardError, match="“nose” is no slider of AI"):
        card.with_sliders({"nose": 0.5})
    with pytest.raises(CardError, match="expected a finite number"):
        card.with_sliders({"nose_width": float("nan")})


# --- bones ----------------------------------------------------------------------------------------

NEW = {"cf_J_Chin_rs": Bone(length=1.5, rotation=(0.25, -8.0, 0.0)), "cf_J_Mouth_R": Bone((2.0, 3.0, 4.0))}


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if "AIS" in plan.marker])
def test_bones_are_written_and_only_their_block_is_built_anew(name):
    plan = PLANS[name]
    data = build(plan)
    made, before = read_card(Card.parse(data).with_bones(NEW).data), read_card(data)
    assert made._replace(blocks={}, plugins={}, bones=None, total=0) == before._replace(
        blocks={}, plugins={}, bones=None, total=0
    )

    # The bones that were named, in the place of the old ones or at the end; the accessory's is another bone.
    expected = [list(bone) for bone in before.bones or []]
    for bone in expected:
        if bone[0] in NEW and bone[2] < 10:
            bone[1] = [[list(NEW[bone[0]].scale), *_rest(NEW[bone[0]])]] * len(bone[1])
    for missing in [n for n in NEW if n not in [bone[0] for bone in expected]]:
        expected.append([missing, [[list(NEW[missing].scale), *_rest(NEW[missing])]], 0])
    assert made.bones == expected

    # Everything else, and the sums that the game reckons with.
    assert {n: b for n, b in made.blocks.items() if n != "KKEx"} == {
        n: b for n, b in before.blocks.items() if n != "KKEx"
    }
    for plugin, content in plan.plugins.items():
        assert pack(plugin) + pack(content) in made.blocks["KKEx"]
    assert list(made.plugins)[: len(before.plugins)] == list(before.plugins)
    unused = before.total - sum(map(len, before.blocks.values()))
    assert made.total == sum(map(len, made.blocks.values())) + unused


def _rest(bone: Bone) -> list:
    return [bone.length, list(bone.position), list(bone.rotation)]


def test_bones_written_twice_are_the_same_card():
    card = Card.parse(build(FULL))
    once = card.with_bones(NEW)
    assert once.data != card.data
    assert once.with_bones(NEW).data == once.data


def test_the_index_keeps_the_width_of_its_numbers_unless_they_outgrow_it():
    """With `wide` they have eight bytes; else the block's size outgrows one byte here."""
    for plan in (Plan(with_kkex=True), changed(Plan(with_kkex=True, order=("KKEx",)), wide=True)):
        data = build(plan)
        made = Card.parse(data).with_bones({f"bone {i}": Bone(scale=(i, i / 7, i / 9)) for i in range(40)})
        grown = len(made.block("KKEx")) - 1
        assert len(made.data) - len(data) - grown == (0 if plan.wide else 2)
        assert len(read_card(made.data).bones) == 40


bones = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.builds(Bone, st.tuples(*[float32s] * 3), float32s, st.tuples(*[float32s] * 3), st.tuples(*[float32s] * 3)),
    max_size=20,
)


@given(bones, bones, st.booleans())
@settings(max_examples=25, deadline=None)
def test_bones_come_back_whatever_they_are(before, after, compressed):
    entries = [[name, [[list(b.scale), *_rest(b)]], Int32(0)] for name, b in before.items()]
    card = Card.parse(build(changed(FULL, bones=entries, compressed=compressed)))
    made = card.with_bones(after)
    assert made.bones == before | after
    assert made.with_bones(before).bones == after | before
    assert {n: v.raw for n, v in made.plugins.items() if n != abmx.PLUGIN} == {n: pack(v) for n, v in PLUGINS.items()}


def test_values_of_a_table_become_bones_and_come_back():
    table = parse_parameters(BUILT_IN_TABLE)[54:]
    normalised = np.random.default_rng(0).uniform(0, 1, len(table))
    values = {p.name: p.in_game(v) for p, v in zip(table, normalised, strict=True)}
    mirrored = {name: bone["value"] for name, bone in mirrored_bones(table, normalised).items()}
    found = bones_of(values | mirrored)

    assert values_of(found, list(values)) == list(values.values())
    left, right = found["cf_J_Eye_s_L"], found["cf_J_Eye_s_R"]
    np.testing.assert_allclose(right.scale, left.scale, atol=1e-6)
    np.testing.assert_allclose(right.position, np.multiply(left.position, (-1, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(right.rotation, np.multiply(left.rotation, (1, -1, -1)), atol=1e-6)
    assert found["cf_J_Chin_rs"].position == (0, 0, 0)
    assert values_of({}, ["a.scale.x", "a.length", "a.position.z"]) == [1, 1, 0]


# --- the preview ----------------------------------------------------------------------------------


def test_another_preview_leaves_the_rest():
    data, picture = build(FULL), png(30, 20, 3)
    made = Card.parse(data).with_preview(picture)
    assert made.data == picture + data[len(png(*FULL.size)) :]
    assert made.preview_size == (30, 20)
    with pytest.raises(CardError, match="after PNG's end"):
        Card.parse(data).with_preview(picture + b"x")
    with pytest.raises(CardError, match="no PNG"):
        Card.parse(data).with_preview(b"GIF89a")


# --- what is wrong --------------------------------------------------------------------------------


def use(data: bytes) -> str:
    """Read all of a card and write it in every way: what is wrong with it, or nothing."""
    try:
        card = Card.parse(data)
        assert len(card.bones) + len(card.plugins) >= 0
        made = card.with_sliders(dict.fromkeys(card.creator.order, 0.5)).with_bones(NEW).with_preview(png(2, 2))
    except CardError as error:
        message = str(error)
        assert message
        assert message.isprintable()
        return message
    assert made.bones["cf_J_Chin_rs"] == NEW["cf_J_Chin_rs"]
    return ""


@pytest.mark.parametrize("name", ["KKEx first", "Koikatsu"])
def test_every_prefix_of_a_card_is_refused_in_a_sentence(name):
    data = build(PLANS[name])
    assert use(data) == ""
    whole = [size for size in range(len(data)) if not use(data[:size])]
    assert whole == []


def test_a_thousand_mutated_cards_give_a_sentence_or_a_card():
    data, rng = build(FULL), random.Random(0)
    told = set()
    for _ in range(1000):
        mutated = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at, kind = rng.randrange(len(mutated)), rng.random()
            if kind < 0.7:
                mutated[at] = rng.choice((0, 1, 0x7F, 0x80, 0xC1, 0xDD, 0xFF, rng.randrange(256)))
            elif kind < 0.85:
                del mutated[at : at + rng.randrange(1, 9)]
            else:
                mutated[at:at] = rng.randbytes(rng.randrange(1, 9))
        told.add(use(bytes(mutated)))
    assert "" in told
    assert len(told) > 100


def card_with(block: str, content: bytes) -> bytes:
    """A sound card but for one block."""
    if block == "face":
        parts = (content, b"\x80", b"\x80")
        block, content = "Custom", b"".join(struct.pack("<i", len(part)) + part for part in parts)
    return build(Plan(extra={block: content}))


def index_of(*entries: dict) -> bytes:
    """A card whose index is made up."""
    listed = pack({"lstInfo": [{"version": "0"} | entry for entry in entries]})
    head = build(Plan())
    head = head[: head.index(b"\x81\xa7lstInfo") - 4]
    return head + struct.pack("<i", len(listed)) + listed + struct.pack("<q", 100) + bytes(100)


def abm(content: bytes, version: object = 2) -> bytes:
    """A card whose plug-in ABMX has some data."""
    return card_with("KKEx", pack({"KKABMPlugin.ABMData": [version, {"boneData": content}]}))


def extension(size: int, block: bytes, kind: int = 99) -> bytes:
    """Compressed data that claims a size."""
    inside = struct.pack(">BI", 0xCE, size) + block
    return struct.pack(">BIB", 0xC9, len(inside), kind) + inside


FACE = {"headId": 0, "shapeValueFace": [0.5] * 59}

BOMBS = {
    "an array of four thousand million values": b"\xdd\xff\xff\xff\xff",
    "a map": b"\xdf\xff\xff\xff\xff",
    "a string": b"\xdb\xff\xff\xff\xff",
    "deep arrays": b"\x91" * 60_000,
    "wide arrays": b"\xdd\x00\x00\x40\x00" * 9,
}

WRONG = {
    "empty": (b"", "no PNG picture"),
    "text": (b"hello", "no PNG picture"),
    "no card": (png(2, 2), "nothing follows its PNG"),
    "something else behind": (png(2, 2) + b"\0" * 40, "no character card: 0 follows"),
    "another game's": (
        png(2, 2) + struct.pack("<i", 100) + net_string("【Studio】"),
        "another game or of another kind",
    ),
    "a preview of no size": (png(2, 2)[:16] + bytes(8) + build(Plan())[24:], "0×0 pixels"),
    "a huge preview": (png(2, 2)[:16] + b"\x7f\xff\xff\xff" * 2 + build(Plan())[24:], "2147483647×2147483647 pixels"),
    "a block outside": (index_of({"name": "Custom", "pos": 90, "size": 11}), "lies outside the 100 bytes"),
    "a block before": (index_of({"name": "Custom", "pos": Int32(-1), "size": 11}), "lies outside"),
    "blocks that overlap": (
        index_of({"name": "Custom", "pos": 0, "size": 50}, {"name": "Status", "pos": 49, "size": 2}),
        "“Custom” and “Status” overlap",
    ),
    "two of a name": (index_of({"name": "A", "pos": 0, "size": 1}, {"name": "A", "pos": 1, "size": 1}), "two blocks"),
    "an entry without a place": (index_of({"name": "A", "size": 1}), "lacks name, version, pos or size"),
    "no Custom": (index_of({"name": "Status", "pos": 0, "size": 1}), "no block Custom; it has “Status”"),
    "a face of nothing": (card_with("face", b""), "MessagePack value is expected"),
    "a face without the array": (card_with("face", pack({"headId": 0})), "no shapeValueFace"),
    "a face without a head": (card_with("face", pack({"shapeValueFace": FACE["shapeValueFace"]})), "no headId"),
    "a short array": (card_with("face", pack(FACE | {"shapeValueFace": [0.5] * 58})), "58 values; expected 59"),
    "a long array": (card_with("face", pack(FACE | {"shapeValueFace": [0.5] * 60})), "60 values; expected 59"),
    "whole numbers": (card_with("face", pack(FACE | {"shapeValueFace": [1] * 59})), "face_width is no float32"),
    "an array that is none": (card_with("face", pack(FACE | {"shapeValueFace": "x"})), "kind str; expected array"),
    "a key twice": (card_with("face", b"\x82" + (pack("headId") + b"\0") * 2), "“headId” twice"),
    "bytes left over": (card_with("face", pack(FACE) + b"\0"), "1 bytes after its MessagePack value"),
    "an unused byte": (card_with("face", b"\xc1"), "0xc1"),
    "plug-ins that are no map": (card_with("KKEx", pack([1])), "kind array; expected map"),
    "ABMX of the future": (abm(b"\x90", 3), "version 3; expected 2"),
    "no LZ4": (abm(extension(200, b"\xff" * 50)), "no whole LZ4 block of 200 bytes"),
    "LZ4 that is shorter": (abm(extension(90, lz4_extension(bytes(80))[11:])), "80 bytes and claims 90"),
    "LZ4 that is longer": (abm(extension(70, lz4_extension(bytes(80))[11:])), "no whole LZ4 block of 70 bytes"),
    "an LZ4 bomb": (abm(extension(0xFFFFFFFF, lz4_extension(bytes(80))[11:])), "claims 4294967295 bytes"),
    "another extension": (abm(extension(90, b"", kind=98)), "extension 98; expected 99"),
    "bones of no number": (abm(pack([["a", [[["x"] * 3, 1.0, [0.0] * 3, [0.0] * 3]], 0]])), "kind str; expected"),
    "a vector of two": (abm(pack([["a", [[[1.0] * 2, *NEUTRAL[1:]]], 0]])), "2 numbers; expected x, y, z"),
} | {f"{name} as the face": (card_with("face", bomb), "") for name, bomb in BOMBS.items()}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_card_is_said(name):
    data, told = WRONG[name]
    message = use(data)
    assert message
    assert told in message


def test_a_card_that_differs_from_what_was_meant_is_never_given_out(monkeypatch):
    """The writer reads what it made: here the splicing of bytes itself is broken."""
    broken = Card.parse(build(FULL))
    monkeypatch.setattr("games.cards.card.splice", lambda data, changes: data[:-1] + b"X")
    with pytest.raises(CardError, match="the sliders did not come out as meant; nothing is written"):
        broken.with_sliders({"nose_width": 0.25})


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(CardError, match="No such file"):
        Card.read(tmp_path / "none.png")
    with pytest.raises(CardError, match="it is a folder"):
        Card.read(tmp_path)
    with pytest.raises(CardError, match="it is a device"):
        Card.read(Path(os.devnull))
