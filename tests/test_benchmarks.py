"""The measurements of benchmarks/: closed forms, and what they say of characters whose sliders are known."""

import csv
import json
import os

import cv2
import numpy as np
import pytest
from tests.conftest import error_of, run_script

from benchmarks.photos import compare, fold_of, frontal_of, halves, is_frontal, ratios, read_frames, spearman
from benchmarks.scale import memory_of
from benchmarks.through_aligner import off_by, onto_canvas
from datasets import creator
from datasets.creator import writer
from datasets.creator.fit import Fitter, in_frame
from datasets.hs_face import read_labels
from utils.alignment import FRAME_SPREAD, TEMPLATE, alignment_transform, frame_transform, transform_points
from utils.pictures import read_rgb, write_picture


@pytest.fixture(scope="module")
def characters():
    """Landmarks (6, 68, 2) of characters seen from the front."""
    return Fitter().landmarks(np.random.default_rng(3).random((6, 54)))


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
    assert is_frontal(landmarks).all()
    landmarks[0, 30] = landmarks[0, 0] + 0.3 * (landmarks[0, 16] - landmarks[0, 0])
    assert not is_frontal(landmarks)[0]


def test_spearman_and_its_null():
    x = np.random.default_rng(0).random(40)
    assert spearman(x, np.exp(x)) == pytest.approx(1) and spearman(x, -x ** 3) == pytest.approx(-1)
    assert spearman(np.array([1, 2, 3, 4.0]), np.array([1, 3, 2, 4.0])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    rng = np.random.default_rng(1)
    (same, other), median = compare(np.array([x, x]), np.array([x + 0.01 * rng.random(40), rng.random(40)]), rng)
    assert same["interval"][0] > 0.9 and same["p"] < 0.01 and 0.15 < same["chance_95"] < 0.4
    assert other["interval"][0] < 0 < other["interval"][1] and other["p"] > 0.02
    assert other["interval"][0] < median[0] < (same["rho"] + other["rho"]) / 2 < median[1] < same["interval"][1]


def test_halves_agree_as_far_as_people_differ():
    rng = np.random.default_rng(0)
    people = np.repeat([f"p{i}" for i in range(50)], 4)
    traits = np.repeat(rng.normal(size=50), 4)
    moments = rng.normal(size=(2, 200)) * [[0.01], [1.0]]
    steady, noisy = halves(traits + moments, people, rng)
    # Means of two frames: the trait's variance is 1, the moments' 0.5, so 1/1.5 of it is shared (Spearman, 1910; Brown, 1910).
    assert steady > 0.99 and noisy == pytest.approx(2 / 3, abs=0.15)
    alone = np.append(people, "alone"), np.column_stack([traits + moments, [99, 99]])
    np.testing.assert_allclose(halves(alone[1], alone[0], np.random.default_rng(1)), [steady, noisy], atol=0.05)


def test_fitted_sliders_reach_the_landmarks(characters):
    fitter = Fitter()
    left = np.abs(fitter.landmarks(fitter.fit(characters)) - characters).mean()
    assert left < 0.15 * np.abs(fitter.landmarks(np.full((6, 54), 0.5)) - characters).mean()


def test_the_average_person_becomes_the_average_character(characters):
    """However far people's proportions lie from the characters'; and who differs from the average gets other sliders."""
    people = in_frame(characters * (1.3, 1) + 5)
    fitter = Fitter(people.mean(0))
    np.testing.assert_allclose(fitter.fit(people.mean(0)[None]), 0.5, atol=0.06)  # a mean of aligned faces is aligned but nearly
    spread = [sliders.fit(people).std(0).mean() for sliders in (fitter, Fitter())]
    assert spread[0] > 0.05 and np.abs(fitter.fit(people).mean() - 0.5) < 0.05 < spread[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Characters on canvases stand in for photos of 32 people."""
    rng, renderer = np.random.default_rng(0), creator.Renderer(256)
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(32):
        parameters, look, _ = writer.face(4, i)
        picture, points = renderer.render(parameters[None], [(look,)])
        shift = rng.uniform(60, 120, 2)
        matrix = np.array([[0.7, 0, shift[0]], [0, 0.7, shift[1]]])
        write_picture(folder / "images" / f"p{i}.png", cv2.warpAffine(picture[0, 0], matrix, (400, 400), borderMode=cv2.BORDER_REPLICATE))
        rows.append([f"p{i}.png", f"person {i}", *(0.7 * points[0] + shift).ravel().round(2)])
    with open(folder / "landmarks.csv", "w", newline="") as file:
        csv.writer(file).writerows([["name", "person", *(f"{a}{i}" for i in range(68) for a in "xy")], *rows, ["../../etc/passwd", "nobody", *rows[0][2:]]])
    return folder


def test_photos_are_measured_over_people_held_out(smoke, photos):
    """By an untrained predictor, so only form and ceiling are looked at."""
    assert len(read_frames(photos)) == 32
    result = run_script("-m", "benchmarks.photos", "--photos", photos, "--run", smoke / "runs" / "smoke", cwd=smoke)
    lines = result.stdout.splitlines()
    assert "people not trained on" in lines[0] and lines[-1].startswith("median") and len(lines) == 16
    assert float(lines[-1].split()[-1]) > 0.6
    several = run_script("-m", "benchmarks.photos", "--photos", photos, "--run", *[smoke / "runs" / "smoke"] * 2, cwd=smoke).stdout.splitlines()
    assert int(several[0].split()[0]) == sum(fold_of(f.person) < 2 for f in frontal_of(read_frames(photos))) > int(lines[0].split()[0])
    assert "the last fold is 4" in error_of(run_script("-m", "benchmarks.photos", "--photos", photos, "--run", *[smoke / "runs" / "smoke"] * 3,
                                                       "--fold", 3, cwd=smoke, check=False))
    aligned = smoke / "aligned"
    for picture in (photos / "images").iterdir():
        write_picture(aligned / picture.name, read_rgb(picture)[60:316, 60:316])
    beside = run_script("-m", "benchmarks.photos", "--photos", photos, "--run", smoke / "runs" / "smoke", "--aligned", aligned, cwd=smoke).stdout.splitlines()
    assert [line.split()[:-1] for line in beside[3:]] == [line.split() for line in lines[3:]]  # one column more
    assert float(beside[-1].split()[-1]) > 0.3
    command = ("-m", "benchmarks.photos", "--photos", photos, "--known", smoke / "known")
    assert "needs --aligned" in error_of(run_script(*command, cwd=smoke, check=False))
    run_script(*command, "--aligned", aligned, cwd=smoke)
    labels, known = read_labels(smoke / "known"), {f"p{i}" for i in range(32) if fold_of(f"person {i}") != 0}
    assert {p.stem for p in (smoke / "known" / "images").iterdir()} == known >= set(labels.names) and len(labels.names) > 5
    run_script(*command, "--aligned", aligned, cwd=smoke)  # again, in the same folder
    before = (smoke / "data" / "smoke" / "labels.json").read_bytes()
    told = error_of(run_script(*command[:-1], smoke / "data" / "smoke", "--aligned", aligned, cwd=smoke, check=False))
    assert "already holds 'face_000000.png'" in told and (smoke / "data" / "smoke" / "labels.json").read_bytes() == before
    truth = np.array([writer.face(4, int(name[1:]))[0] for name in labels.names])
    widths = creator.NAMES.index("face_width")
    assert np.corrcoef(truth[:, widths], labels.values[:, widths])[0, 1] > 0.5
    assert "nothing to do" in error_of(run_script("-m", "benchmarks.photos", "--photos", photos, cwd=smoke, check=False))


def test_direct_learns_from_variants_and_predicts_photos(smoke, photos):
    options = ("-m", "benchmarks.direct", "--data", "data/smoke", "--image-size", 32)
    written = smoke / "direct.json"
    run_script(*options, "--channels", 8, 16, "--variants", "--epochs", 2, "--photos", photos, "--json", written, cwd=smoke)
    result = json.loads(written.read_text())
    assert result["run"]["parts"] == ["images", "aug_images"]
    assert all(len(result[part]["parameters"]) == 54 for part in ("test", "test_aug_images"))
    assert len(result["photos"]["ratios"]) == 12 and -1 <= result["photos"]["median_rho"] <= 1
    assert "expected 2 or 3 widths" in error_of(run_script(*options, "--channels", 8, cwd=smoke, check=False))


def test_how_far_an_alignment_is_off_is_said_in_the_units_of_frames():
    frame = np.array([0.5, -1, 2, 0.3])
    _, placed = onto_canvas(np.zeros((256, 256, 3), np.uint8), np.random.default_rng(0))
    right = alignment_transform(transform_points(placed, TEMPLATE), 256)
    np.testing.assert_allclose(off_by(placed, right), 0, atol=1e-9)
    moved = np.vstack([frame_transform(frame), (0, 0, 1)]) @ np.vstack([right, (0, 0, 1)])
    np.testing.assert_allclose(off_by(placed, moved[:2]), frame * FRAME_SPREAD, atol=1e-9)


def test_memory_of_this_process():
    ballast = np.ones(30_000_000)
    private, resident = memory_of(os.getpid())
    assert private > ballast.nbytes and resident >= private
