"""The measurements of benchmarks/: closed forms, and what they say of characters whose sliders are known."""

import csv
import importlib.util
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from benchmarks.accuracy import RECIPES, settings_of
from benchmarks.demo import check_one_game, held_out
from benchmarks.photos import compare, halves, spearman
from benchmarks.scale import memory_of
from benchmarks.speed import write_untrained_run
from benchmarks.through_aligner import off_by, onto_canvas
from datasets.labels import read_labels
from datasets.people import fold_of, is_frontal, ratios, read_annotations, read_frames, read_people
from games.game import default_game
from games.writer import DataSet, write_data_set
from models.facemesh import INSTALL
from models.predictor import Predictor
from tests.helpers import ROOT, error_of, plain_picture, run_here
from utils.alignment import (
    MISALIGNMENT_SPREAD,
    TEMPLATE,
    alignment_transform,
    five_points,
    misalignment_transform,
    transform_points,
    warp,
)
from utils.config import DEFAULT_CONFIG, load
from utils.errors import UserError
from utils.pictures import read_rgb, write_picture
from utils.run import Run

GAME = default_game()


@pytest.fixture(scope="module")
def characters() -> np.ndarray:
    """Landmarks (6, 68, 2) of characters seen from the front."""
    return GAME.landmarks(np.array([GAME.character(3, i).parameters for i in range(6)]))


# --- ratios and ranks -------------------------------------------------------------------------------


def test_ratios_do_not_depend_on_scale_turn_or_place(characters):
    landmarks = characters.copy()
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    moved = 2.7 * landmarks @ turn.T + (40, -9)
    assert len(ratios(landmarks)) == 12
    for name, values in ratios(landmarks).items():
        np.testing.assert_allclose(ratios(moved)[name], values, rtol=1e-9, err_msg=name)

    wide = landmarks * (2, 1)
    assert (ratios(wide)["face height"] < ratios(landmarks)["face height"]).all()
    assert (ratios(wide)["eye opening"] < ratios(landmarks)["eye opening"]).all()


def test_a_nose_tip_off_the_middle_is_not_frontal(characters):
    landmarks = characters.copy()
    assert is_frontal(landmarks).all()
    landmarks[0, 30] = landmarks[0, 0] + 0.3 * (landmarks[0, 16] - landmarks[0, 0])
    landmarks[1] = np.nan  # not seen
    assert is_frontal(landmarks).tolist() == [False, False, True, True, True, True]


def test_spearman():
    x = np.random.default_rng(0).random(40)
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    assert spearman(np.array([1, 2, 3, 4.0]), np.array([1, 3, 2, 4.0])) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_spearman_of_many_rows_with_ties_is_that_of_scipy():
    a, b = np.random.default_rng(2).integers(0, 6, (2, 5, 30)).astype(float)
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)


def test_intervals_of_spearman_and_its_null():
    x = np.random.default_rng(0).random(40)
    rng = np.random.default_rng(1)
    (same, other), median = compare(np.array([x, x]), np.array([x + 0.01 * rng.random(40), rng.random(40)]), rng)
    assert same["interval"][0] > 0.9
    assert same["p"] < 0.01
    assert 0.15 < same["chance_95"] < 0.4
    assert other["interval"][0] < 0 < other["interval"][1]
    assert other["p"] > 0.02
    assert other["interval"][0] < median[0] < (same["rho"] + other["rho"]) / 2 < median[1] < same["interval"][1]


def test_intervals_of_few_people_are_numbers():
    """Where now and then one of them is drawn alone."""
    rng = np.random.default_rng(0)
    rows, median = compare(rng.random((3, 3)), rng.random((3, 3)), rng)
    assert np.isfinite([*median, *(end for row in rows for end in row["interval"])]).all()


def test_halves_agree_as_far_as_people_differ():
    rng = np.random.default_rng(0)
    people = np.repeat([f"p{i}" for i in range(50)], 4)
    traits = np.repeat(rng.normal(size=50), 4)
    moments = rng.normal(size=(2, 200)) * [[0.01], [1.0]]
    steady, noisy = halves(traits + moments, people, rng)
    # Means of two frames: the trait's variance is 1, the moments' 0.5, so 1/1.5 of it is shared (Spearman, 1910;
    # Brown, 1910).
    assert steady > 0.99
    assert noisy == pytest.approx(2 / 3, abs=0.15)
    alone = np.append(people, "alone"), np.column_stack([traits + moments, [99, 99]])
    again = halves(alone[1], alone[0], np.random.default_rng(1))
    np.testing.assert_allclose(again, [steady, noisy], atol=0.05)


# --- photos -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters on canvases stand in for photos of 32 people: mixes of four, so that a few tell how they differ."""
    rng, renderer = np.random.default_rng(0), GAME.renderer(256)
    folder = tmp_path_factory.mktemp("photos")
    four = np.array([GAME.character(4, i).parameters for i in range(4)])
    rows = []
    for i in range(32):
        mix = rng.dirichlet(np.ones(4)) @ four
        pictures, points = renderer.render(mix[None], [(GAME.neutral_look(),)])
        shift = rng.uniform(60, 120, 2)
        matrix = np.array([[0.7, 0, shift[0]], [0, 0.7, shift[1]]])
        canvas = cv2.warpAffine(pictures[0, 0], matrix, (400, 400), borderMode=cv2.BORDER_REPLICATE)
        write_picture(folder / "images" / f"p{i}.png", canvas)
        rows.append([f"p{i}.png", f"person {i}", *(0.7 * points[0] + shift).ravel().round(2)])

    header = ["name", "person", *(f"{axis}{i}" for i in range(68) for axis in "xy")]
    with open(folder / "landmarks.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows, ["../../etc/passwd", "nobody", *rows[0][2:]]])
    return folder


@pytest.fixture(scope="module")
def aligned(smoke: Path, photos: Path) -> Path:
    """What face_alignment.py would make of them if its detector were exact."""
    folder, landmarks = smoke / "aligned", read_annotations(photos)
    for picture in (photos / "images").iterdir():
        matrix = alignment_transform(five_points(landmarks[picture.name]), 256)
        write_picture(folder / picture.name, warp(read_rgb(picture), matrix, 256))
    return folder


@pytest.fixture(scope="module")
def measured(smoke: Path, photos: Path) -> list[str]:
    """The lines of benchmarks.photos, by an untrained predictor, so only form is looked at."""
    command = ("-m", "benchmarks.photos", "--photos", photos, "--run", "runs/smoke", "--annotated")
    return run_here(*command, cwd=smoke).stdout.splitlines()


def test_photos_are_measured_over_people_held_out(measured, photos):
    assert len(read_frames(photos)) == 32
    assert "people not trained on" in measured[0]
    assert measured[-1].startswith("median")
    assert len(measured) == 16


def test_several_runs_measure_the_people_of_as_many_folds(smoke, photos, measured):
    command = ("-m", "benchmarks.photos", "--photos", photos, "--annotated", "--run")
    several = run_here(*command, "runs/smoke", "runs/smoke", cwd=smoke).stdout.splitlines()
    landmarks = read_annotations(photos)
    frontal = is_frontal(np.array([landmarks[f"p{i}.png"] for i in range(32)]))
    expected = sum(frontal[i] and fold_of(f"person {i}") < 2 for i in range(32))
    assert int(several[0].split()[0]) == expected > int(measured[0].split()[0])
    too_many = run_here(*command, *["runs/smoke"] * 3, "--fold", 3, cwd=smoke, check=False)
    assert "the last fold is 4" in error_of(too_many)
    assert "--run" in error_of(run_here(*command[:-1], cwd=smoke, check=False))


@pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason=f"the face mesh is not installed; run: {INSTALL}"
)
def test_the_observer_measures_photos_and_characters_and_fits_them(smoke, photos, measured):
    """Characters that were fitted look like the photos, those of an untrained predictor do not."""
    write_data_set(smoke / "observed", DataSet(160, 9, size=128, with_variants=False))
    command = ("-m", "benchmarks.photos", "--photos", photos, "--run", "runs/smoke", "runs/smoke")
    lines = run_here(*command, "--data", "observed", cwd=smoke).stdout.splitlines()
    assert [line.split()[0] for line in lines[-13:]] == [line.split()[0] for line in measured[-13:]]
    rho, fitted = float(lines[-1].split()[1]), float(lines[-1].split()[-1])
    assert fitted > max(rho, 0.5)


def test_tables_of_people_that_are_something_else_are_refused(tmp_path):
    table = tmp_path / "landmarks.csv"
    table.write_text("name,person\na.png,somebody\n")
    assert read_people(table) == {"a.png": "somebody"}
    with pytest.raises(UserError, match="no picture in"):
        read_frames(tmp_path)
    with pytest.raises(UserError, match="not as expected"):
        read_annotations(tmp_path)
    table.write_text("name,x0,y0\na.png,1,2\n")
    with pytest.raises(UserError, match="lacks its name or its person"):
        read_frames(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_people(tmp_path / "nowhere.csv")


def test_photos_are_searched_in_four_turns(photos, tmp_path):
    command = ("-m", "benchmarks.alignment", "--photos", photos, "--turned", "--frame")
    rows = run_here(*command, 0, "--people", 2, cwd=tmp_path).stdout.splitlines()[-4:]
    cells = [[cell.strip() for cell in row.split("|")[1:6]] for row in rows]
    assert [row[0] for row in cells] == ["0°", "90°", "180°", "270°"]
    assert cells[0][1:] == ["2", "0", "0", "0"]
    assert {(int(right) + int(no_face), wrong, several) for _, right, wrong, no_face, several in cells} == {
        (2, "0", "0")
    }
    assert "choose a lower number" in error_of(run_here(*command, 1, cwd=tmp_path, check=False))


def test_aligned_photos_are_also_read_directly(smoke, photos, aligned, measured):
    command = (
        "-m",
        "benchmarks.photos",
        "--photos",
        photos,
        "--run",
        "runs/smoke",
        "--annotated",
        "--aligned",
        aligned,
    )
    beside = run_here(*command, cwd=smoke).stdout.splitlines()
    assert [line.split()[:-1] for line in beside[3:]] == [line.split() for line in measured[3:]]  # one column more
    assert float(beside[-1].split()[-1]) > 0.6


def test_direct_learns_from_variants_and_predicts_photos(smoke, photos):
    options = ("-m", "benchmarks.direct", "--data", "data/smoke", "--image-size", 32)
    written = smoke / "direct.json"
    training = ("--channels", 8, 16, "--variants", "--epochs", 2, "--photos", photos, "--annotated", "--json", written)
    run_here(*options, *training, cwd=smoke)
    result = json.loads(written.read_text())
    assert result["run"]["parts"] == ["images", "aug_images"]
    assert all(len(result[part]["parameters"]) == len(GAME.parameters) for part in ("test", "test_aug_images"))
    assert len(result["photos"]["ratios"]) == 12
    assert -1 <= result["photos"]["median_rho"] <= 1
    assert "expected 2 or 3 widths" in error_of(run_here(*options, "--channels", 8, cwd=smoke, check=False))


# --- the other benchmarks ---------------------------------------------------------------------------


def test_the_demo_shows_held_out_faces(smoke):
    command = ("-m", "benchmarks.demo", "--run", "runs/smoke", "--count", 6, "--picture", "demo.jpg")
    told = run_here(*command, cwd=smoke).stdout
    r2 = Run(smoke / "runs" / "smoke").f2p.read_metrics()["test"]["r2"]
    assert f"{r2:.3f}" in told
    assert told.splitlines()[-1] == f"look at: {Path('runs/smoke/demo.png')}"
    with Image.open(smoke / "demo.jpg") as small, Image.open(smoke / "runs" / "smoke" / "demo.png") as whole:
        assert 850 <= small.width <= 950  # five rows of four faces
        assert small.height == pytest.approx(5 / 4 * small.width, abs=30)
        assert whole.height / whole.width > small.height / small.width  # six rows


def test_the_demo_shows_a_photo_above_and_two_runs_side_by_side(smoke, tmp_path):
    photo = ROOT / "assets" / "photos" / "portrait.jpg"
    one = ("-m", "benchmarks.demo", "--run", "runs/smoke", "--count", 1, "--output")
    both = (*one, tmp_path / "both.png", "--run", "runs/smoke", "--photo", photo)
    assert run_here(*both, cwd=smoke).stdout.count("learned from") == 1
    run_here(*one, tmp_path / "one.png", cwd=smoke)
    with Image.open(tmp_path / "both.png") as two_rows, Image.open(tmp_path / "one.png") as row:
        assert two_rows.width == row.width  # a second run instead of the reconstruction
        assert two_rows.height == 2 * row.height

    blank = tmp_path / "blank.png"
    plain_picture(blank, side=200)
    told = run_here(*one, tmp_path / "none.png", "--photo", blank, cwd=smoke, check=False)
    assert "no face was found" in error_of(told)


def test_the_characters_of_the_demo_are_of_no_data_set(smoke):
    predictor = Predictor.load(smoke / "runs" / "smoke")
    faces = held_out(predictor, 2)
    learned = read_labels(smoke / "data" / "smoke").values
    assert all(np.abs(learned - face.truth).mean(1).min() > 0.05 for face in faces)
    np.testing.assert_array_equal(faces[1].truth, held_out(predictor, 2)[1].truth)


def test_runs_of_different_games_do_not_stand_side_by_side(smoke):
    one, other = Predictor.load(smoke / "runs" / "smoke"), Predictor.load(smoke / "runs" / "smoke")
    other.creator_version = "0.1"
    with pytest.raises(UserError, match="expected runs of one embedded game"):
        check_one_game([one, other])


def test_the_drawn_reconstruction_is_the_networks(smoke):
    command = ("-m", "benchmarks.architecture", "--output", "architecture.png", "--run")
    run_here(*command, "runs/smoke", cwd=smoke)
    assert read_rgb(smoke / "architecture.png").std() > 20
    assert "no run folder" in error_of(run_here(*command, "runs/none", cwd=smoke, check=False))


@pytest.mark.parametrize("config", sorted(DEFAULT_CONFIG.parent.glob("creator*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_configuration(config):
    base = load(config)
    for name in RECIPES:
        changed = load(config, settings_of(name, base))
        assert (changed == base) == (name == "final"), name
    original = load(config, settings_of("original", base))
    known = load(DEFAULT_CONFIG.with_name("hs_face_original.toml"))
    assert original.vae.kl_weight == known.vae.kl_weight
    assert original.f2p.network == known.f2p.network
    assert not original.vae.lpips_weight


def test_the_untrained_run_whose_speed_is_measured_predicts(tmp_path):
    config = write_untrained_run(tmp_path, load(DEFAULT_CONFIG.with_name("smoke.toml")))
    predictor = Predictor.load(config.run_folder)
    assert predictor.predict_aligned([np.zeros((32, 32, 3), np.uint8)])[0].parameters.shape == (205,)


def test_how_far_an_alignment_is_off_is_said_in_the_units_of_misalignments():
    misalignment = np.array([0.5, -1, 2, 0.3])
    _, placed = onto_canvas(np.zeros((256, 256, 3), np.uint8), np.random.default_rng(0))
    right = alignment_transform(transform_points(placed, TEMPLATE), 256)
    np.testing.assert_allclose(off_by(placed, right), 0, atol=1e-9)
    moved = np.vstack([misalignment_transform(misalignment), (0, 0, 1)]) @ np.vstack([right, (0, 0, 1)])
    np.testing.assert_allclose(off_by(placed, moved[:2]), misalignment * MISALIGNMENT_SPREAD, atol=1e-9)


def test_memory_of_this_process():
    ballast = np.ones(30_000_000)
    private, resident = memory_of(os.getpid())
    assert private > ballast.nbytes
    assert resident >= private
