"""How a person looks in the pictures of a predicted character: colours, hair, beard. None is a parameter."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import predict
from datasets.looks import looks_of
from games.game import Appearance, default_game
from games.makehuman.appearance import BEARDS, HAIR
from games.makehuman.looks import SKIN_COLOURS
from models.look import LookReader, skin_colour
from models.predictor import Predictor
from models.release import release
from tests.discs import Discs
from tests.helpers import run_here
from utils.run import Run

GAME = default_game()

#: Two looks that nobody takes for one another.
DARK = replace(GAME.neutral_look(), skin=SKIN_COLOURS[5], hair_colour=np.array([0.07, 0.06, 0.06]))
FAIR = replace(GAME.neutral_look(), skin=SKIN_COLOURS[0], hair_colour=np.array([0.78, 0.64, 0.42]))


def drawn(look, *, size: int = 256) -> np.ndarray:
    """The average character with a look."""
    return GAME.picture(GAME.average(), size, look=look)


# --- the game -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hair", HAIR)
@pytest.mark.parametrize("beard", BEARDS)
def test_a_look_becomes_numbers_and_the_numbers_the_look(hair, beard):
    look = replace(DARK, hair=HAIR[hair], bald=hair == "bald", beard=BEARDS[beard], stubble=0.3, brow=(0.9, 0.4, 0.7))
    appearance = GAME.appearance_of(look)
    again = GAME.look_of(appearance)
    assert len(appearance.numbers) == len(GAME.look_table)
    assert (again.hair, again.bald, again.beard) == (look.hair, look.bald, look.beard)
    for first, second in zip(appearance, GAME.appearance_of(again), strict=True):
        np.testing.assert_allclose(second, first)
    told = GAME.describe_look(again)
    assert (told["hair"], told["beard"], told["hair_colour"]) == (hair, beard, "#120f0f")


def test_every_style_of_the_game_has_a_class():
    looks = [getattr(GAME.character(2, i), part) for i in range(150) for part in ("studio", "photo")]
    told = [GAME.describe_look(look) for look in looks]
    assert {words["hair"] for words in told} == set(HAIR)
    assert {words["beard"] for words in told} == set(BEARDS)
    shares = np.array([GAME.appearance_of(look).numbers for look in looks])
    names = [number.name for number in GAME.look_table]
    hair = [names.index(name) for name in HAIR]
    np.testing.assert_array_equal(shares[:, hair].sum(1), 1)


def test_what_is_not_sure_is_drawn_plainly_and_nothing_beyond_what_the_game_draws():
    names = [number.name for number in GAME.look_table]
    numbers = GAME.appearance_of(FAIR).numbers
    for name, value in {"bald": 0.55, "short": 0.45, "beard none": 0.5, "beard full": 0.52, "hair red": 1.7}.items():
        numbers[names.index(name)] = value
    look = GAME.look_of(Appearance(np.array([0.2, 0.2, 0.9]), numbers))
    assert (look.bald, look.hair, look.beard) == (False, "crop", "")
    assert look.stubble > 0.2  # what an unsure beard leaves
    assert look.hair_colour.max() <= 0.78
    assert np.abs(SKIN_COLOURS - look.skin).max(1).min() < 0.15


def test_a_game_without_looks_has_one_look():
    game = Discs()
    assert len(game.look_table) == 0
    assert game.look_of(game.appearance_of("photo")) == game.neutral_look()
    assert game.describe_look("studio") == {}


@pytest.mark.parametrize("skin", SKIN_COLOURS[[0, 2, 4]])
def test_the_skin_of_a_picture_is_measured_within_a_few_percent(skin):
    assert skin_colour(drawn(replace(DARK, skin=skin))) == pytest.approx(skin, rel=0.08)


# --- what stage 2 learns --------------------------------------------------------------------------


def test_looks_are_those_of_the_characters_whose_labels_are_theirs():
    characters = [GAME.character(5, i, "typical") for i in (0, 7, 3)]
    labels = np.array([character.parameters for character in characters], np.float32)
    labels[2, 0] += 0.01  # the label of another face
    labels = np.concatenate([labels, labels[:1]])
    meta = {"creator": {"seed": 5, "distribution": "typical"}}
    table = SimpleNamespace(names=["face_000000", "face_000007", "face_000003", "mine"], labels=labels, meta=meta)
    looks = looks_of(table, np.arange(4), GAME)
    np.testing.assert_array_equal(looks.rows, [0, 1])
    np.testing.assert_array_equal(looks.numbers["aug_images"][1], GAME.appearance_of(characters[1].photo).numbers)


def test_a_reader_restores_the_contrast_of_colours_and_leaves_other_numbers_as_they_are():
    """One input, which says half of what the numbers vary by."""
    rng = np.random.default_rng(0)
    table = [replace_colour(number) for number in (True, False)]
    x, noise = rng.standard_normal((2, 4000, 1))
    y = 0.5 + 0.1 * (x + 0.7 * noise) * np.ones(2)
    reader = LookReader.fit(table, {"images": (x, y)}, {"images": (x, y)})
    read = reader(torch.from_numpy(x).float()).numpy()
    slopes = [np.polyfit(y[:, i], read[:, i], 1)[0] for i in range(2)]
    assert slopes[0] == pytest.approx(1, abs=0.02)
    assert slopes[1] == pytest.approx(1 / 1.49, abs=0.03)
    assert reader.r2["images"]["b"] == pytest.approx(1 / 1.49, abs=0.03)


def replace_colour(is_colour: bool):
    return GAME.look_table[0]._replace(name="a" if is_colour else "b", is_colour=is_colour)


def test_metrics_say_how_well_looks_are_read(smoke):
    found = json.loads((smoke / "runs" / "smoke" / "f2p" / "metrics.json").read_text(encoding="utf-8"))["look"]
    assert set(found) == {"images", "aug_images"}
    assert list(found["images"]) == [number.name for number in GAME.look_table]
    assert found["images"]["hair red"] > 0.1


# --- prediction -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor(smoke) -> Predictor:
    return Predictor.load(smoke / "runs" / "smoke")


def test_a_dark_and_a_fair_person_are_told_apart(predictor):
    dark, fair = predictor.predict_aligned([drawn(DARK), drawn(FAIR)])
    assert (fair.look.skin > dark.look.skin + 0.3).all()
    looks = [predictor.game.look_of(found.look) for found in (dark, fair)]
    assert looks[1].hair_colour.mean() > looks[0].hair_colour.mean() + 0.05
    pictures = [predictor.character(dark.parameters, found.look) for found in (dark, fair)]
    assert pictures[1].mean() > pictures[0].mean() + 20


def test_a_mirrored_face_looks_the_same(predictor):
    face = drawn(FAIR)
    one, other = predictor.predict_aligned([face, face[:, ::-1]])
    np.testing.assert_allclose(other.look.numbers, one.look.numbers, atol=1e-4)


def test_a_checkpoint_without_a_reader_predicts_with_the_neutral_look(copy):
    run = copy / "runs" / "smoke"
    path = Run(run).f2p.best
    content = torch.load(path, weights_only=True)
    del content["look"]
    torch.save(content, path)
    face = copy / "data" / "smoke" / "images" / "face_000000.png"
    run_here("predict.py", face, "--aligned", "--run", "runs/smoke", "--output", "out", cwd=copy)
    assert "look" not in json.loads((copy / "out" / "face_000000.json").read_text(encoding="utf-8"))
    predictor = Predictor.load(run)
    found = predictor.predict_aligned([drawn(DARK)])[0]
    assert found.look is None
    np.testing.assert_array_equal(
        predictor.character(found.parameters, found.look), predictor.game.picture(found.parameters)
    )


def test_a_release_reads_the_same_looks(smoke, predictor, tmp_path):
    release(Run(smoke / "runs" / "smoke"), tmp_path / "released", faces=[], note="")
    face = drawn(FAIR)
    looks = [p.predict_aligned([face])[0].look for p in (predictor, Predictor.load(tmp_path / "released"))]
    np.testing.assert_allclose(looks[1].numbers, looks[0].numbers, atol=0.01)


def test_a_result_tells_the_look_of_its_picture(smoke, tmp_path):
    face = smoke / "data" / "smoke" / "images" / "face_000000.png"
    run_here("predict.py", face, "--aligned", "--run", "runs/smoke", "--output", tmp_path, cwd=smoke)
    look = json.loads((tmp_path / "face_000000.json").read_text(encoding="utf-8"))["look"]
    assert look["hair"] in HAIR
    assert look["beard"] in BEARDS
    assert all(look[f"{part}_colour"].startswith("#") for part in ("skin", "hair", "iris"))


def test_an_average_has_the_median_look():
    def seen(value: float) -> SimpleNamespace:
        return SimpleNamespace(look=Appearance(np.full(3, value), np.full(19, value)))

    found = predict.median_look([seen(value) for value in (0.1, 0.9, 0.3)])
    np.testing.assert_array_equal(found.skin, 0.3)
    np.testing.assert_array_equal(found.numbers, 0.3)
    assert predict.median_look([SimpleNamespace(look=None)]) is None
