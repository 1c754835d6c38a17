"""What people do with cards: a face for a template, labels of a folder of cards, and a look into one."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.labels import read_labels
from games.cards.__main__ import lines_of
from games.cards.abmx import Bone, bones_of
from games.cards.card import Card
from games.cards.creators import creator
from games.cards.data_set import Wanted, name_of, write_data_set
from games.cards.template import Template, add_options, as_preview
from games.game import VERSION, default_game
from games.parameters import BUILT_IN_TABLE, mirrored_bones, parse_parameters
from games.result_files import Result, ResultFiles
from tests.card_builder import (
    BONES,
    NEUTRAL,
    PLANS,
    PLUGINS,
    Plan,
    as_float32,
    build,
    changed,
    characters,
    pack,
    write_card,
)
from tests.card_reader import read_card
from tests.helpers import error_of, plain_picture, run_here
from utils.errors import UserError
from utils.pictures import read_rgb

TABLE = parse_parameters(BUILT_IN_TABLE)

AIS = creator("ais")

#: A modifier of a bone of the chin that the table has rows for.
CHIN = [[1.1, 1.0, 1.0], *NEUTRAL[1:]]

#: Bones that no row of the table tells of: two that shape the face, then those that do not change its aligned picture.
UNTOLD = [
    ["cf_J_NoseWing_tx_L", [CHIN], 0],
    ["cf_J_Head_s", [CHIN], 0],
    ["cf_J_Head", [[[0.9, 0.9, 0.9], *NEUTRAL[1:]]], 0],
    ["cf_J_Mayu_L", [NEUTRAL], 0],
    ["cf_J_Hips", [CHIN], 0],
]

#: A card with plug-ins, bones and a head that the table was made for.
MINE = changed(PLANS["bones"], size=(25, 35))


# --- a template and a run's table -----------------------------------------------------------------


@pytest.fixture
def template(tmp_path) -> Callable[..., Template | None]:
    """A template as predict.py has it after its options; results go to tmp_path / "out"."""

    def of(*words: str, plan: Plan | None = None, stems: tuple[str, ...] = ("me",)) -> Template | None:
        parser = argparse.ArgumentParser()
        add_options(parser)
        options = parser.parse_args(["--card", str(write_card(tmp_path / "mine.png", plan or MINE)), *words])
        options.output = tmp_path / "out"
        return Template.of(options, list(stems))

    return of


def predicted(count: int = 205, seed: int = 0) -> dict:
    """What STEM.json says of a prediction of the first parameters of the table."""
    table = TABLE[:count]
    values = np.random.default_rng(seed).uniform(0, 1, count)
    named = {p.name: {"value": round(p.in_game(v), 6)} for p, v in zip(table, values.tolist(), strict=True)}
    return {"parameters": named, "mirrored": mirrored_bones(table, values)}


def write_face(template: Template, tmp_path: Path, count: int = 205) -> tuple[Path, dict]:
    """Write the card of a prediction; the photo is of one grey, 200."""
    template.fit(TABLE[:count], heads=None, creator=None)
    photo = np.full((256, 256, 3), 200, np.uint8)
    card = template.make(tmp_path / "out" / "me", predicted(count), photo=photo)
    card.write()
    return card.path, card.entry


def test_205_values_are_the_cards_sliders_and_bones_right_ones_mirrored(template, tmp_path):
    path, entry = write_face(template(), tmp_path)
    assert path == tmp_path / "out" / "me_card.png"
    assert entry["file"] == "me_card.png"
    made, result = read_card(path.read_bytes()), predicted()

    for name, value in zip(AIS.order, made.sliders[:54], strict=False):
        assert value == as_float32(result["parameters"][name]["value"])
    bones = {bone[0]: bone[1][0] for bone in made.bones if bone[2] < 10}
    for name, entry in (result["parameters"] | result["mirrored"]).items():
        if "." in name:
            bone, field, axis = (*name.split("."), "x")[:3]
            part = bones[bone][("scale", "length", "position", "rotation").index(field)]
            assert (part if field == "length" else part["xyz".index(axis)]) == as_float32(entry["value"])
    assert {bone[: -len("_L")] + "_R" for bone in bones if bone.endswith("_L")} <= bones.keys()
    assert bones["cf_J_Spine01"] == BONES[1][1][0]  # of the body: kept
    assert [bone for bone in made.bones if bone[2] == 12] == [BONES[2]]


def test_no_bones_leaves_them_alone_and_says_what_they_do(template, tmp_path, capsys):
    path, _ = write_face(template("--no-bones"), tmp_path)
    assert read_card(path.read_bytes()).blocks["KKEx"] == read_card((tmp_path / "mine.png").read_bytes()).blocks["KKEx"]
    assert "has 2 bones of its own in the face (cf_J_Chin_rs …)" in capsys.readouterr().err


def test_a_run_of_54_sliders_writes_nothing_but_them(template, tmp_path):
    path, _ = write_face(template("--preview", "keep"), tmp_path, count=54)
    before, after = (tmp_path / "mine.png").read_bytes(), path.read_bytes()
    assert len(before) == len(after)
    assert 0 < sum(a != b for a, b in zip(before, after, strict=True)) <= 216


def test_sliders_beyond_0_to_1_are_said_or_clamped(template, tmp_path, capsys):
    path, _ = write_face(template(plan=PLANS["plain"]), tmp_path, count=54)
    assert min(read_card(path.read_bytes()).sliders) < 0
    assert "sliders beyond 0 to 1" in capsys.readouterr().err
    (tmp_path / "out" / "me_card.png").unlink()

    path, entry = write_face(template("--clamp", plan=PLANS["plain"]), tmp_path, count=54)
    sliders = read_card(path.read_bytes()).sliders[:54]
    named = predicted(54)["parameters"].items()
    assert entry["clamped"] == [name for name, entry in named if not 0 <= entry["value"] <= 1]
    wanted = [entry["value"] for entry in predicted(54)["parameters"].values()]
    assert sliders == [as_float32(min(max(value, 0), 1)) for value in wanted]
    assert "were clamped" in capsys.readouterr().out


def test_the_picture_stays_and_becomes_the_photo_only_if_that_is_asked_for(template, tmp_path):
    for words, grey in (((), 128), (("--preview", "keep"), 128), (("--preview", "photo"), 200)):
        path, _ = write_face(template(*words), tmp_path)
        shown = read_rgb(path)
        assert shown.shape == (35, 25, 3)
        assert np.unique(shown).tolist() == [grey]
        path.unlink()


def test_a_preview_is_the_middle_of_the_picture_in_its_own_colours(tmp_path):
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[:128, :, 0], picture[:, :30, 2] = 255, 255  # red above; blue at the left edge, which is cut off
    for size in ((252, 352), (25, 35), (300, 100)):
        (tmp_path / "shown.png").write_bytes(as_preview(picture, size))
        shown = read_rgb(tmp_path / "shown.png")
        assert shown.shape == (size[1], size[0], 3)
        assert shown[0, size[0] // 2].tolist() == [255, 0, 0]
        assert shown[-1, size[0] // 2].tolist() == [0, 0, 0]
        assert (shown[:, 0, 2].max() > 200) == (size[0] > size[1])


def test_bones_of_the_face_that_the_table_lacks_are_warned_of(template, capsys):
    template(plan=changed(PLANS["plain"], bones=UNTOLD)).fit(TABLE, heads=None, creator=None)
    assert "has 2 bones of its own in the face (cf_J_NoseWing_tx_L …)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "plan, count, told",
    [
        (PLANS["Koikatsu"], 205, "the run predicts .* of the 52 sliders that it needs; .*upper_face_size.*missing"),
        (PLANS["plain"], 53, "card of AI.Shoujo, and the run predicts 53 of the 54 .* mouth_corner_shape"),
    ],
)
def test_a_run_without_the_cards_sliders_is_told_which(template, plan, count, told):
    with pytest.raises(UserError, match=told):
        template(plan=plan).fit(TABLE[:count], heads=None, creator=None)


def test_a_run_of_an_embedded_game_is_told_of_its_own_files(template):
    with pytest.raises(UserError, match=r"0 of the 54 .* learned the embedded game, whose own files .*\.mhm"):
        template().fit(default_game().parameters, heads=None, creator=VERSION)


def test_a_run_of_the_embedded_game_before_this_one_is_warned_of_and_not_refused(template, capsys):
    """Version 1.0 had sliders with the names of AI*Shoujo's."""
    template("--no-bones", plan=PLANS["plain"]).fit(TABLE[:54], heads=None, creator="1.0")
    told = capsys.readouterr().err
    assert "the run learned version 1.0 of the embedded game" in told
    assert "will not look like the predicted character" in told
    template("--no-bones", plan=PLANS["plain"]).fit(TABLE[:54], heads=None, creator=None)
    assert capsys.readouterr().err == ""


def test_koikatsu_cards_are_written_where_the_table_has_their_sliders(template, tmp_path):
    koikatsu = creator("koikatsu")
    made = template("--preview", "keep", plan=PLANS["Koikatsu"])
    made.fit(koikatsu.sliders, heads=None, creator=None)
    values = {p.name: {"value": i / 32} for i, p in enumerate(koikatsu.sliders)}
    card = made.make(tmp_path / "out" / "me", {"parameters": values}, photo=np.zeros((8, 8, 3), np.uint8))
    assert read_card(card.data).sliders == [i / 32 for i in range(52)]


def test_a_head_that_the_runs_data_did_not_have_is_warned_of(template, capsys):
    plan = changed(PLANS["plain"], head_id=7)
    for heads, warned in ((None, True), ([0, 7], False), ([0, 2], True)):
        template(plan=plan).fit(TABLE, heads=heads, creator=None)
        assert ("has headId 7" in capsys.readouterr().err) == warned


def test_plug_in_data_that_cannot_be_read_is_refused_or_left_alone(template, tmp_path, capsys):
    plan = Plan(plugins={"KKABMPlugin.ABMData": [3, {"boneData": b""}]})
    with pytest.raises(UserError, match="version 3; expected 2.* With --no-bones plug-ins are left alone"):
        template(plan=plan).fit(TABLE, heads=None, creator=None)
    path, _ = write_face(template("--no-bones", plan=plan), tmp_path)
    assert "It is copied as it is" in capsys.readouterr().err
    assert Card.read(path).block("KKEx") == pack(plan.plugins)


# --- what is not written over ---------------------------------------------------------------------


def test_the_template_is_never_an_output(template, tmp_path):
    (tmp_path / "out").mkdir()
    for link in ("me_card.png", "me.png", "me.json"):
        for make in (os.symlink, os.link):
            write_card(tmp_path / "mine.png", MINE)
            make(tmp_path / "mine.png", tmp_path / "out" / link)
            with pytest.raises(UserError, match="it is the template"):
                template()
            (tmp_path / "out" / link).unlink()


def test_a_card_that_we_did_not_write_is_not_replaced(template, tmp_path):
    path, entry = write_face(template(), tmp_path)
    with pytest.raises(UserError, match="is there already, and it is not the card that me.json tells of"):
        template()
    (tmp_path / "out" / "me.json").write_text(json.dumps({"card": entry}))
    assert write_face(template(), tmp_path)[0] == path
    path.write_bytes(build(Plan()))
    with pytest.raises(UserError, match="is there already"):
        template()


def result_files(template: Template | None) -> tuple[ResultFiles, Result]:
    """Writes results of a run of 54 values, and one of them."""
    if template is not None:
        template.fit(TABLE[:54], heads=None, creator=None)
    grey = np.full((64, 64, 3), 128, np.uint8)
    files = ResultFiles(TABLE[:54], test_r2={}, game=None, origin={}, template=template)
    return files, Result(np.full(54, 0.4), [Path("me.jpg")], [("face", grey)], aligned=grey)


def test_a_result_without_a_card_deletes_its_earlier_card_and_no_other(template, tmp_path):
    path = tmp_path / "out" / "me_card.png"
    for is_ours in (True, False):
        files, result = result_files(template("--preview", "keep"))
        assert path in files.write(tmp_path / "out" / "me", result)
        if not is_ours:
            write_card(path, PLANS["HS2"])
        files, result = result_files(None)
        files.write(tmp_path / "out" / "me", result)
        assert path.exists() != is_ours
    assert path.read_bytes() == build(PLANS["HS2"])


def test_a_result_that_stopped_half_way_can_be_written_again(template, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise OSError("disk full")

    path, stem = tmp_path / "out" / "me_card.png", tmp_path / "out" / "me"
    for file_that_fails in ("games.result_files.write_json", "games.cards.template.NewCard.write"):
        for preview in ("keep", "photo"):  # a new card, then another one in its place
            files, result = result_files(template("--preview", preview))
            with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
                patch.setattr(file_that_fails, stop)
                files.write(stem, result)
            files, result = result_files(template("--preview", preview))
            files.write(stem, result)
            told = json.loads((tmp_path / "out" / "me.json").read_text())["card"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == told["sha256"]


@pytest.mark.parametrize("name", ["me_51_card.png", "me_51.png", "me_51.json"])
def test_a_result_that_nobody_planned_does_not_replace_the_template(template, tmp_path, name):
    (tmp_path / "out").mkdir()
    made = template()
    os.link(tmp_path / "mine.png", tmp_path / "out" / name)
    files, result = result_files(made)
    with pytest.raises(UserError, match="it is the template"):
        files.write(tmp_path / "out" / "me_51", result)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "mine.png").read_bytes() == build(MINE)


def test_options_of_cards_need_a_card():
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert Template.of(parser.parse_args([]), ["me"]) is None
    for words in (["--no-bones"], ["--clamp"], ["--preview", "keep"]):
        with pytest.raises(UserError, match="give --card TEMPLATE.png with it"):
            Template.of(parser.parse_args(words), ["me"])


# --- data-set and show ----------------------------------------------------------------------------


def data_set(tmp_path: Path, *words: object, check: bool = True):
    command = ("-m", "games.cards", "data-set", "--cards", tmp_path / "cards", "--output", tmp_path / "set", *words)
    return run_here(*command, cwd=tmp_path, check=check)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with cards of two characters, and nine pictures that are no use."""
    cards, people = tmp_path / "cards", characters(4, TABLE[:54])
    plans = {
        "a.png": Plan(sliders=people[0]),
        "more/ü b.png": Plan(sliders=people[1], head_id=2, plugins=PLUGINS),
        "same.png": changed(PLANS["HS2"], sliders=people[0]),
        "other head.png": Plan(sliders=people[2], head_id=5),
        "beyond.png": Plan(sliders=(3.5, *people[2][1:])),
        "no number.png": Plan(sliders=(float("nan"), *people[2][1:])),
        "bones.png": Plan(sliders=people[2], bones=BONES),
        "koi.png": PLANS["Koikatsu"],
        "more_ü b.png": Plan(sliders=people[3]),
    }
    for name, plan in plans.items():
        write_card(cards / name, plan)
    (cards / "cut.png").write_bytes(build(Plan())[:-1])
    plain_picture(cards / "picture.png")
    (cards / "notes.txt").write_text("no picture")
    return cards


def test_what_is_left_out_is_counted_and_named_with_its_reason(folder, tmp_path):
    told = data_set(tmp_path)
    first_line = told.stdout.splitlines()[0]
    assert "2 characters, 54 values each, of 11 pictures; 9 left out: 2 have a value beyond its range" in first_line
    for reason in (
        "same.png: the same character as a.png",
        "other head.png: headId 5",
        "beyond.png: face_width is 3.5; its range is -1 to 2",
        "no number.png: face_width is nan",
        "bones.png: bone cf_J_Chin_rs is changed by ABMX",
        "koi.png: a card of Koikatsu",
        "more_ü b.png: its NAME would be that of more/ü b.png",
        "cut.png: ",
        "picture.png: it is a picture without a character",
    ):
        assert reason in told.stderr
    assert len((tmp_path / "set" / "left_out.txt").read_text().splitlines()) == 9


def test_cards_become_labels(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    told = data_set(tmp_path).stdout
    assert "renders of 2 characters" in told
    assert "face_alignment.py --input RAW --output" in told

    people, labels = characters(4, TABLE[:54]), read_labels(tmp_path / "set")
    assert labels.names == ["a", "more_ü b"]
    found = [[p.in_game(v) for p, v in zip(TABLE, row, strict=False)] for row in labels.values.tolist()]
    np.testing.assert_allclose(found, [people[0][:54], people[1][:54]], atol=1e-5)
    assert parse_parameters(tmp_path / "set" / "parameters.csv") == TABLE[:54]
    assert json.loads((tmp_path / "set" / "cards.json").read_text())["heads"] == [1, 2]
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


def test_with_bones_labels_have_205_values_and_are_true(tmp_path):
    rng, cards = np.random.default_rng(1), tmp_path / "cards"
    values = rng.uniform(0, 1, 205)
    result = {p.name: {"value": p.in_game(v)} for p, v in zip(TABLE, values.tolist(), strict=True)}
    result = {"parameters": result, "mirrored": mirrored_bones(TABLE, values)}
    blank = Card.parse(build(Plan()))
    entries = {name: entry["value"] for name, entry in (result["parameters"] | result["mirrored"]).items()}
    whole = blank.with_sliders({p.name: entries[p.name] for p in TABLE[:54]})
    whole = whole.with_bones(bones_of({name: value for name, value in entries.items() if "." in name}))
    cards.mkdir()
    (cards / "whole.png").write_bytes(whole.data)
    (cards / "lopsided.png").write_bytes(whole.with_bones({"cf_J_Mouth_R": Bone()}).data)
    (cards / "moved.png").write_bytes(whole.with_bones({"cf_J_Chin_rs": Bone(position=(0, 1, 0))}).data)
    write_card(cards / "plain.png", Plan(sliders=characters(1, TABLE[:54])[0], bones=[["cf_J_Spine01", [NEUTRAL], 0]]))

    told = data_set(tmp_path, "--bones")
    assert "2 characters, 205 values each" in told.stdout
    assert "2 have bones that labels cannot tell" in told.stdout
    labels = read_labels(tmp_path / "set")
    assert labels.names == ["plain", "whole"]
    np.testing.assert_allclose(labels.values[1], values, atol=2e-6)
    neutral = [p.in_game(v) for p, v in zip(TABLE[54:], labels.values[0, 54:].tolist(), strict=True)]
    expected = [1.0 if "scale" in p.name or "length" in p.name else 0.0 for p in TABLE[54:]]
    np.testing.assert_allclose(neutral, expected, atol=1e-3)


@pytest.mark.parametrize("words", [(), ("--bones",)])
def test_a_face_with_a_bone_that_the_table_lacks_is_left_out(tmp_path, words):
    assert all(AIS.shapes_face(p.name) for p in TABLE[54:])
    for i, (sliders, bone) in enumerate(zip(characters(5, TABLE[:54]), UNTOLD, strict=True)):
        write_card(tmp_path / "cards" / f"{i}.png", Plan(sliders=sliders, bones=[bone]))
    told = data_set(tmp_path, *words)
    assert "3 characters" in told.stdout
    for name in ("0.png: bone cf_J_NoseWing_tx_L", "1.png: bone cf_J_Head_s"):
        assert f"{name} shapes the face, and the table has no row for it" in told.stderr


def test_a_data_set_of_koikatsu(tmp_path):
    for i in range(3):
        write_card(
            tmp_path / "cards" / f"{i}.png", changed(PLANS["Koikatsu Sunshine"], sliders=(i / 8,) * 52, head_id=i)
        )
    assert "3 characters, 52 values each" in data_set(tmp_path, "--game", "koikatsu").stdout
    assert "--bones is for --game ais" in error_of(data_set(tmp_path, "--game", "koikatsu", "--bones", check=False))


def test_a_data_set_is_written_anew_but_nothing_else_is(tmp_path):
    for i, sliders in enumerate(characters(3, TABLE[:54])):
        write_card(tmp_path / "cards" / f"{i}.png", Plan(sliders=sliders))
    data_set(tmp_path)
    first = (tmp_path / "set" / "labels.json").read_bytes()
    (tmp_path / "set" / "images").mkdir()
    plain_picture(tmp_path / "set" / "images" / "0.png")
    told = data_set(tmp_path)
    assert "renders of 2 characters" in told.stdout
    assert (tmp_path / "set" / "labels.json").read_bytes() == first

    (tmp_path / "set" / "cards.json").write_text('{"cards": ["of another program"]}')
    assert "holds cards.json, which this command did not write" in error_of(data_set(tmp_path, check=False))
    (tmp_path / "set" / "cards.json").unlink()
    assert "holds labels.json, which this command did not write" in error_of(data_set(tmp_path, check=False))


def test_a_picture_of_what_a_card_was_before_is_named(tmp_path):
    people = characters(5, TABLE[:54])
    for i in range(4):
        write_card(tmp_path / "cards" / f"{i}.png", Plan(sliders=people[i]))
    data_set(tmp_path)
    (tmp_path / "set" / "images").mkdir()
    for name in ("0", "1", "2"):
        plain_picture(tmp_path / "set" / "images" / f"{name}.png")
    assert "rendered anew" not in data_set(tmp_path, "--bones").stdout  # other labels of the same faces
    write_card(tmp_path / "cards" / "1.png", Plan(sliders=people[4]))
    write_card(tmp_path / "cards" / "2.png", Plan(sliders=people[2], bones=[["cf_J_Chin_rs", [CHIN], 0]]))
    told = data_set(tmp_path, "--bones").stdout
    assert "To be rendered anew: 2 characters" in told
    assert "those of then: 1, 2." in told
    assert "Still missing: renders of 3 characters" in told


@pytest.mark.parametrize(
    "cards, output, told",
    [
        ("none", "set", "is no folder"),
        ("cards", "cards/set", "lies in --cards"),
        ("cards", "cards", "lies in --cards"),
        ("cards", "file", "is a file"),
        ("cards", "set", "none of the 1 pictures"),
    ],
)
def test_folders_that_cannot_be_are_refused_and_nothing_is_written(tmp_path, cards, output, told):
    (tmp_path / "cards").mkdir()
    plain_picture(tmp_path / "cards" / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=told):
        write_data_set(tmp_path / cards, tmp_path / output, Wanted(AIS, None, with_bones=False))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cards", "file", "x.png"]


def test_names_of_cards_can_be_names_of_pictures():
    assert name_of("a/b c.png") == "a_b c"
    assert name_of("x.png.PNG") == "x"
    assert name_of(".hidden\n?.png") == "_hidden__"
    assert name_of("ü.png") == "ü"


def test_show_tells_what_a_card_holds(tmp_path):
    write_card(tmp_path / "a.png", MINE)
    write_card(tmp_path / "b.png", changed(PLANS["Koikatsu"], plugins={"evil\x1b[2J": None}, bones=None))
    told = run_here("-m", "games.cards", "show", "a.png", "b.png", cwd=tmp_path).stdout
    assert "a.png: AI*Shoujo, version 1.0.0, headId 1" in told
    assert "b.png: Koikatsu, version 1.0.0, headId 1" in told
    assert f"        {'face_width':<28} {-0.25:9.6f}" in told
    assert "3 bones of ABMX" in told
    assert "cf_J_Chin_rs                 scale 1 1.125 1.25, length 1.375, position 1.5 1.625 1.75" in told
    assert "plug-ins: com.first, com.second, com.none, KKABMPlugin.ABMData" in told
    assert "\x1b" not in told


def test_show_tells_of_sliders_where_plug_ins_cannot_be_read(tmp_path):
    write_card(tmp_path / "a.png", Plan(plugins={"KKABMPlugin.ABMData": [3, {"boneData": b""}]}))
    write_card(tmp_path / "b.png", Plan(extra={"KKEx": b"\xc1"}))
    first, second = (lines_of(path, Card.read(path)) for path in sorted(tmp_path.glob("*.png")))
    for lines in (first, second):
        assert any("face_width" in line for line in lines)
        assert "bones: cannot be read (" in lines[-2]
    assert "version 3; expected 2" in first[-2]
    assert first[-1] == "    plug-ins: KKABMPlugin.ABMData"
    assert "plug-ins: cannot be read (" in second[-1]


def test_show_names_what_it_cannot_read_and_goes_on(tmp_path):
    write_card(tmp_path / "a.png", MINE)
    (tmp_path / "b.png").write_bytes(b"x")
    result = run_here("-m", "games.cards", "show", "b.png", "a.png", cwd=tmp_path, check=False)
    assert "1 of 2 files are no card that can be read" in error_of(result)
    assert "b.png: it is no PNG picture" in result.stderr
    assert "a.png: AI*Shoujo" in result.stdout
