"""Alignment geometry, and face_alignment.py on pictures that were moved by known amounts."""

import csv
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from face_alignment import find_jobs
from games.game import default_game
from models.mtcnn import FaceDetector
from tests.helpers import error_of, run_here, times_of
from utils.alignment import (
    MISALIGNMENT_SPREAD,
    TEMPLATE,
    alignment_transform,
    five_points,
    misalignment_transform,
    move_pictures,
    random_misalignments,
    similarity_transform,
    transform_points,
    undo_misalignment,
    warp,
)
from utils.pictures import read_rgb, unique_stems, write_picture

# --- similarities ---------------------------------------------------------------------------------


@given(st.floats(0.05, 20), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500), st.integers(0, 2**31))
def test_similarity_transform_recovers_a_known_one(scale, angle, dx, dy, seed):
    source = np.random.default_rng(seed).uniform(-100, 100, (5, 2))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    known = np.array([[c, -s, dx], [s, c, dy]])
    found = similarity_transform(source, transform_points(known, source))
    np.testing.assert_allclose(found, known, atol=1e-6 * (1 + scale * 100))


def test_similarity_transform_is_the_least_squares_one():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    # Normal equations of the four unknowns a, b, x, y of [[a, −b, x], [b, a, y]].
    ones, zeros = np.ones(5), np.zeros(5)
    rows_of_x = np.column_stack([source[:, 0], -source[:, 1], ones, zeros])
    rows_of_y = np.column_stack([source[:, 1], source[:, 0], zeros, ones])
    a, b, x, y = np.linalg.lstsq(np.concatenate([rows_of_x, rows_of_y]), target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, x], [b, a, y]], atol=1e-10)


def test_points_that_coincide_define_no_similarity():
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), np.random.default_rng(0).normal(size=(5, 2)))


def test_many_similarities_are_found_at_once():
    sources = np.random.default_rng(1).normal(size=(3, 5, 2))
    together = alignment_transform(sources, 128)
    for source, matrix in zip(sources, together, strict=True):
        np.testing.assert_allclose(alignment_transform(source, 128), matrix)


def test_template_in_another_size_keeps_the_frame():
    points = np.random.default_rng(0).uniform(0, 200, (5, 2))
    small, large = alignment_transform(points, 64), alignment_transform(points, 256)
    expected = (transform_points(large, points) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(transform_points(small, points), expected, atol=1e-9)


def test_a_face_that_lies_on_the_template_stays_there():
    found = transform_points(alignment_transform(TEMPLATE, 256), TEMPLATE)
    np.testing.assert_allclose(found, TEMPLATE, atol=1e-9)


def test_warp_of_a_large_picture_lands_where_that_of_a_small_one_does():
    rng = np.random.default_rng(0)
    small = cv2.resize(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8), (200, 200), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(small, (1600, 1600), interpolation=cv2.INTER_LINEAR)
    points = np.array([(70, 80), (130, 82), (100, 110), (75, 140), (125, 141)], float)
    one = warp(small, alignment_transform(points, 128), 128).astype(int)
    other = warp(large, alignment_transform((points + 0.5) * 8 - 0.5, 128), 128).astype(int)
    assert np.abs(one - other).mean() < 2


# --- misalignment ---------------------------------------------------------------------------------


def at_size(matrix: np.ndarray, size: int) -> np.ndarray:
    """A (2, 3) transform of the 256×256 frame as one of the same frame at another size."""
    half = matrix[:, :2] @ (0.5, 0.5)
    return np.column_stack([matrix[:, :2], (matrix[:, 2] + 0.5 - half) * size / 256 - 0.5 + half])


@pytest.mark.parametrize("size", [64, 256])
def test_moved_pictures_are_those_that_a_warp_by_the_misalignment_gives(size):
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    misalignments = rng.normal(size=(3, 4)).astype(np.float32)
    pictures = torch.from_numpy(picture).permute(2, 0, 1)[None].expand(3, -1, -1, -1).float()
    moved = move_pictures(pictures, torch.from_numpy(misalignments)).permute(0, 2, 3, 1).numpy()
    for found, misalignment in zip(moved, misalignments, strict=True):
        matrix = at_size(misalignment_transform(misalignment), size)
        shape, border = (size, size), cv2.BORDER_REPLICATE
        expected = cv2.warpAffine(picture, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=border)
        assert np.abs(found - expected).mean() < 1.0
        assert np.abs(found - picture).mean() > 3.0


def test_an_undone_misalignment_leaves_the_alignment_as_it_was():
    misalignment = np.array([1.0, -2.0, 0.5, 1.5])
    right = alignment_transform(np.random.default_rng(0).uniform(0, 200, (5, 2)), 256)
    moved = np.vstack([misalignment_transform(misalignment), (0, 0, 1)]) @ np.vstack([right, (0, 0, 1)])
    np.testing.assert_allclose(undo_misalignment(moved[:2], misalignment), right, atol=1e-9)


def test_a_misalignment_of_one_unit_is_one_standard_deviation():
    matrix = misalignment_transform(np.array([1.0, 0, 0, 0]))
    assert np.hypot(*matrix[:, 0]) == pytest.approx(np.exp(MISALIGNMENT_SPREAD[0]))
    matrix = misalignment_transform(np.array([0, 1.0, 1.0, 1.0]))
    centre = np.full((1, 2), 127.5)
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(MISALIGNMENT_SPREAD[1])
    np.testing.assert_allclose(transform_points(matrix, centre) - centre, [MISALIGNMENT_SPREAD[2:]])


def test_a_names_misalignment_never_changes():
    misalignments = random_misalignments([f"face_{i}" for i in range(10)])
    np.testing.assert_array_equal(random_misalignments(["face_7", "face_3"]), misalignments[[7, 3]])


def test_misalignments_are_standard_normal():
    misalignments = random_misalignments([f"face_{i}" for i in range(4000)])
    np.testing.assert_allclose(misalignments.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(misalignments.T), np.eye(4), atol=0.1)


# --- face_alignment.py ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, stems",
    [
        (["a.jpg", "b.png", "d/a.png"], ["a", "b", "d/a"]),
        (["a.jpg", "A.png", "a.jpg.png"], ["a.jpg", "A.png", "a.jpg.png"]),
    ],
)
def test_stems_never_clash(files, stems):
    assert unique_stems(files) == stems


class Album(NamedTuple):
    """A folder of pictures, and the five points (5, 2) of the faces that are to be found in it, by file."""

    folder: Path
    truth: dict[str, np.ndarray]


def faces_on_canvases(folder: Path) -> dict[str, np.ndarray]:
    """Write six faces on larger canvases, turned, scaled and shifted by known amounts; the points of each."""
    game, rng = default_game(), np.random.default_rng(5)
    characters = [game.character(21, i) for i in range(6)]
    parameters = np.array([character.parameters for character in characters])
    pictures, landmarks = game.renderer(256).render(parameters, [(character.studio,) for character in characters])
    truth = {}
    for i, (picture, points) in enumerate(zip(pictures[:, 0], landmarks, strict=True)):
        angle, scale = np.radians(rng.uniform(-20, 20)), rng.uniform(0.5, 1.6)
        matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]) * scale
        matrix[:, 2] = 300 + rng.uniform(-40, 40, 2) - matrix[:, :2] @ (128, 128)
        border = cv2.BORDER_REPLICATE
        canvas = cv2.warpAffine(picture, matrix, (600, 600), flags=cv2.INTER_AREA, borderMode=border)
        truth[f"{i}.png"] = transform_points(matrix, five_points(points))
        write_picture(folder / f"{i}.png", canvas)
    return truth


def write_awkward_ones(folder: Path) -> None:
    """The first picture in other formats and sizes, pictures without a face or with two, files that are no pictures."""
    first = Image.open(folder / "0.png")
    (folder / "tief" / "unten").mkdir(parents=True)
    first.convert("L").save(folder / "tief" / "grau.jpg", quality=95)
    first.convert("RGBA").save(folder / "tief" / "grau.webp")
    lying = first.rotate(90, expand=True)
    lying.save(folder / "tief" / "unten" / "liegend.jpg", exif=orientation(6), quality=95)
    Image.fromarray(np.asarray(first.convert("L")).astype(np.uint16) * 257).save(folder / "tief" / "sechzehn.png")
    first.resize((60, 60), Image.Resampling.BOX).save(folder / "klein.png")
    first.resize((4000, 4000)).save(folder / "gross.jpg")

    Image.new("RGB", (200, 150), "grey").save(folder / "leer.png")
    both = Image.new("RGB", (1200, 600))
    both.paste(first, (0, 0))
    both.paste(Image.open(folder / "1.png"), (600, 0))
    both.save(folder / "zwei.jpg", quality=95)
    (folder / "kaputt.jpg").write_bytes((folder / "gross.jpg").read_bytes()[:5000])
    (folder / "text.png").write_text("not a picture")


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Album:
    folder = tmp_path_factory.mktemp("album") / "Фото"
    truth = faces_on_canvases(folder)
    write_awkward_ones(folder)
    first = truth["0.png"]
    for file in ("grau.jpg", "grau.webp", "sechzehn.png", "unten/liegend.jpg"):
        truth[f"tief/{file}"] = first
    truth["gross.jpg"] = (first + 0.5) * 4000 / 600 - 0.5
    truth["klein.png"] = (first + 0.5) / 10 - 0.5
    return Album(folder, truth)


class Aligned(NamedTuple):
    """What face_alignment.py made of the album."""

    output: Path
    told: str
    rows: dict[str, dict[str, str]]  #: of alignment.csv, by file


@pytest.fixture(scope="module")
def aligned(album, tmp_path_factory) -> Aligned:
    output = tmp_path_factory.mktemp("aligned") / "out"
    options = ("--workers", 1, "--max-unreadable", 0.2)
    told = run_here("face_alignment.py", "--input", album.folder, "--output", output, *options, cwd=output.parent)
    with open(output / "alignment.csv", encoding="utf-8", newline="") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    return Aligned(output, told.stdout, rows)


def test_the_table_has_the_documented_columns(aligned):
    points = [f"{axis}{i}" for i in range(5) for axis in "xy"]
    assert list(next(iter(aligned.rows.values()))) == ["file", "status", "score", *points]


def test_every_picture_has_its_status(album, aligned):
    others = {
        "leer.png": "no_face",
        "zwei.jpg": "several_faces",
        "kaputt.jpg": "unreadable",
        "text.png": "unreadable",
    }
    expected = dict.fromkeys(album.truth, "ok") | others
    assert {file: row["status"] for file, row in aligned.rows.items()} == expected
    assert "2 unreadable" in aligned.told
    assert "kaputt.jpg\t" in (aligned.output / "unreadable.txt").read_text(encoding="utf-8")


def test_faces_are_aligned_as_their_known_points_say(album, aligned):
    """In grey, RGBA, 16-bit, EXIF-rotated, small and large versions too."""
    errors = {}
    for file, points in album.truth.items():
        row = aligned.rows[file]
        found = np.array([[float(row[f"{axis}{i}"]) for axis in "xy"] for i in range(5)])
        right, used = alignment_transform(points, 256), alignment_transform(found, 256)
        apart = transform_points(used, points) - transform_points(right, points)
        errors[file] = np.linalg.norm(apart, axis=1).mean()
    of_tiny = errors.pop("klein.png")
    assert {file: error for file, error in errors.items() if error >= 9} == {}
    assert of_tiny < 14


def test_aligned_faces_are_pictures_of_256_pixels(album, aligned):
    targets = {job.file: job.target for job in find_jobs(album.folder, aligned.output)}
    assert {read_rgb(targets[file]).shape for file in album.truth} == {(256, 256, 3)}


def test_started_again_only_what_could_not_be_read_is_tried(album, aligned, tmp_path):
    before = times_of(sorted(aligned.output.rglob("*.png")))
    command = ("face_alignment.py", "--input", album.folder, "--output", aligned.output)
    again = run_here(*command, cwd=tmp_path, check=False)
    assert f"{len(aligned.rows) - 2} were done before" in again.stdout
    assert f"2 of {len(aligned.rows)} pictures cannot be read (" in error_of(again)
    assert times_of(sorted(aligned.output.rglob("*.png"))) == before


def test_the_largest_of_several_faces_is_taken_where_that_is_asked_for(album, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "zwei.jpg").symlink_to(album.folder / "zwei.jpg")
    options = ("--faces", "largest", "--size", 64)
    result = run_here("face_alignment.py", "--input", "photos", "--output", "out", *options, cwd=tmp_path)
    assert "1 ok" in result.stdout
    assert "0 several_faces" in result.stdout
    assert read_rgb(tmp_path / "out" / "zwei.png").shape == (64, 64, 3)


def test_other_settings_look_at_pictures_again(album, tmp_path):
    (tmp_path / "photos").mkdir()
    for file in ("1.png", "zwei.jpg", "leer.png"):
        (tmp_path / "photos" / file).symlink_to(album.folder / file)
    command = ("face_alignment.py", "--input", "photos", "--output", "out")
    run_here(*command, cwd=tmp_path)
    largest = run_here(*command, "--faces", "largest", cwd=tmp_path)
    assert "1 were done before" in largest.stdout  # where there is no face, none is the largest
    smaller = run_here(*command, "--faces", "largest", "--size", 64, cwd=tmp_path)
    assert "0 were done before" in smaller.stdout
    assert read_rgb(tmp_path / "out" / "1.png").shape == (64, 64, 3)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def test_pictures_searched_together_give_what_they_give_alone(album, detector):
    files = ("0.png", "leer.png", "1.png", "gross.jpg", "klein.png", "2.png")
    pictures = [read_rgb(album.folder / file) for file in files]
    pictures += [np.ascontiguousarray(np.rot90(pictures[i])) for i in (0, 2)]
    for alone, together in zip(map(detector.find, pictures), detector.find_all(pictures), strict=True):
        assert len(alone.scores) == len(together.scores)
        np.testing.assert_allclose(together.points, alone.points, atol=0.02)


# --- pictures on their side or head ---------------------------------------------------------------


def off_by(matrix: np.ndarray, points: np.ndarray) -> float:
    """How far a transform puts five points (5, 2) from where their alignment would, in pixels, on average."""
    apart = transform_points(matrix, points) - transform_points(alignment_transform(points, 256), points)
    return float(np.linalg.norm(apart, axis=1).mean())


def turned(picture: np.ndarray, points: np.ndarray, quarters: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and points (5, 2) of it, turned anticlockwise by quarter turns."""
    for _ in range(quarters):
        points = np.stack([points[:, 1], picture.shape[1] - 1 - points[:, 0]], 1)
        picture = np.rot90(picture)
    return np.ascontiguousarray(picture), points


@pytest.mark.parametrize("quarters", range(4))
def test_a_face_is_found_upright_however_its_picture_is_turned(album, detector, quarters):
    """Or not at all: some of these six characters look strange."""
    errors = {}
    for i in range(6):
        picture, points = turned(read_rgb(album.folder / f"{i}.png")[:480], album.truth[f"{i}.png"], quarters)
        matrix, status = detector.align(picture, "one")
        errors[i] = off_by(matrix, points) if status == "ok" else status
    assert {i: error for i, error in errors.items() if error != "no_face" and error >= 9} == {}
    assert list(errors.values()).count("no_face") <= (3 if quarters else 0)


def test_points_of_a_large_lying_picture_are_in_its_own_pixels(album, detector):
    """The picture is searched smaller and turned: both are undone."""
    lying, points = turned(read_rgb(album.folder / "0.png")[:480], album.truth["0.png"], 1)
    large = cv2.resize(lying, (3 * lying.shape[1], 4 * lying.shape[0]))
    found = detector.find(large)
    assert len(found.scores) == 1
    expected = (points + 0.5) * (3, 4) - 0.5
    assert np.linalg.norm(found.points[0] - expected, axis=1).mean() < 0.1 * np.ptp(expected)


def test_a_lying_face_beside_an_upright_one_is_not_aligned(album, detector):
    upright, points = read_rgb(album.folder / "0.png"), album.truth["0.png"]
    for i in range(1, 6):
        lying = np.rot90(read_rgb(album.folder / f"{i}.png"), 2)
        both = np.concatenate([upright, lying], 1)
        matrix, status = detector.align(both, "largest")
        assert status == "ok"
        assert off_by(matrix, points) < 9


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--input", "nowhere"), "there is no file or folder nowhere"),
        (("--input", "."), "holds no pictures"),
        (("--input", "notes.txt"), "not a picture"),
        (("--input", ".", "--size", "3"), "expected 16 to 4096"),
        (("--input", ".", "--device", "cuda"), "no CUDA device"),
        (("--input", ".", "--output", "notes.txt"), "--output notes.txt is a file; expected a folder"),
        (("--input", ".", "--max-unreadable", "2"), "expected a fraction from 0 to 1"),
    ],
)
def test_face_alignment_refuses_with_a_sentence(arguments, told, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    result = run_here("face_alignment.py", "--output", "out", *arguments, cwd=tmp_path, check=False)
    assert told in error_of(result)
